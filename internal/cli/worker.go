package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"unstuck/internal/disk"
	"unstuck/internal/server"
	"unstuck/internal/worker"
)

// workerFile is the configuration of a worker that nobody named otherwise, and workerKeyFile the key beside it.
const (
	workerFile    = "worker.yaml"
	workerKeyFile = "worker.key"
)

// workerCommand is `unstuck worker`.
func (d *door) workerCommand() *cobra.Command {
	var file string
	var check bool
	cmd := &cobra.Command{Use: "worker", GroupID: "work", Short: "Run a worker: take work and give it to the commands of a file", Args: noArgs,
		Long: "Takes work of the tasks that the file has handlers for, runs them, and reports how they ended, until it is stopped. SIGTERM lets\n" +
			"what runs end, within stop_grace. A file for CueAPI's worker daemon works as it is.\n\n" +
			"The key: --key-file, api_key_file or api_key in the file, $" + keyVar + ", $CUEAPI_API_KEY, your login, or CueAPI's login.\n" +
			"Ends with 0 when it was stopped, 1 when its key is not taken any more, 2 when the file or the key cannot be used.\n" +
			"The file, the handlers' environment and all else: /docs/help/worker-daemon on your server.",
		Example: "  unstuck worker init\n  unstuck worker --check\n  unstuck worker --config /etc/unstuck/worker.yaml"}
	cmd.Flags().StringVarP(&file, "config", "c", workerFile, "the file that says what is done")
	cmd.Flags().BoolVar(&check, "check", false, "look at the file, the server and what the key may do, and take no work")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := d.workerSetup(file)
		if err != nil {
			return err
		}
		if check {
			return d.checkWorker(cmd.Context(), s)
		}
		return d.runWorker(cmd.Context(), s)
	}
	cmd.AddCommand(&cobra.Command{Use: "init [FILE]", Short: "Write a file for a worker, with one handler as an example", Args: cobra.MaximumNArgs(1),
		Long: "Writes " + workerFile + ", or FILE, and says how to make the key of the worker. A file that is there stays as it is.",
		RunE: func(_ *cobra.Command, args []string) error { return d.initWorker(append(args, workerFile)[0]) }})
	return cmd
}

// workerSetup is a worker as its file describes it.
type workerSetup struct {
	file   string
	config *worker.Config
	place  place
	id     string
	notes  []string // what somebody should know about the file
}

func (d *door) workerSetup(file string) (*workerSetup, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, usage("There is no file %s.\n\n  write it  unstuck worker init%s\n  or name   --config FILE", d.tilde(file), map[bool]string{false: " " + shellWord(file)}[file == workerFile])
	}
	if err != nil {
		return nil, usage("The worker's file cannot be read: %v", err)
	}
	c, err := worker.Parse(text)
	if err != nil {
		return nil, usage("Not started: %s does not fit.\n\n  %s", d.tilde(file), strings.ReplaceAll(err.Error(), "\n", "\n  "))
	}
	s := &workerSetup{file: file, config: c, id: c.Worker}
	if s.id == "" {
		if s.id, err = os.Hostname(); err != nil {
			return nil, usage("This machine has no name: say in %s what the worker is called, as worker_id.", d.tilde(file))
		}
	}
	s.note(file)
	s.place, err = d.workerPlace(file, c)
	return s, err
}

// note says what has no meaning in the file, and who may read the key in it.
func (s *workerSetup) note(file string) {
	for _, path := range slices.Sorted(maps.Keys(s.config.Unknown)) {
		name := path[strings.LastIndexByte(path, '.')+1:]
		text := path + " has no meaning"
		if near := nearest(name, s.config.Unknown[path]); near != "" {
			text += "; did you mean " + near + "?"
		}
		s.notes = append(s.notes, text)
	}
	if s.config.Email != "" {
		s.notes = append(s.notes, "email has no meaning here: when the key ends, so does the worker, with status 1")
	}
	if s.config.Key != "" && errors.As(disk.Private(file), new(*disk.OthersError)) {
		s.notes = append(s.notes, "it holds a key, and others may read it: "+disk.MendPrivate(shellWord(file)))
	}
}

// workerPlace is the server that a worker works for, and its key. The file's word counts before that of the environment, which
// counts before a login.
func (d *door) workerPlace(file string, c *worker.Config) (p place, err error) {
	d.flags.url = firstOf(d.flags.url, c.Base)
	p.url = firstOf(d.flags.url, d.Getenv(urlVar), defaultURL)
	theirs := d.Getenv("CUEAPI_API_KEY")
	switch {
	case d.flags.keyFile != "":
		p, err = d.findPlace()
	case c.KeyFile != "":
		path := c.KeyFile
		if rest, ok := strings.CutPrefix(path, "~/"); ok {
			path = filepath.Join(d.Home, rest)
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(file), path)
		}
		p.source = d.tilde(path)
		if p.key, err = d.readKeyFile(path); err != nil {
			return p, usage("Not started: %v\n\n  make one  %s", err, keyFor(path))
		}
	case c.Key != "":
		p.key, p.source = strings.TrimSpace(c.Key), d.tilde(file)
	case d.Getenv(keyVar) == "" && theirs != "":
		p.key, p.source = strings.TrimSpace(theirs), "CUEAPI_API_KEY"
	default:
		if p, err = d.findPlace(); err == nil && p.key == "" {
			p.key, p.source = d.cueapiLogin()
		}
	}
	if err == nil {
		p.url, err = cleanURL(p.url)
	}
	switch {
	case err != nil:
		var f *fault
		if errors.As(err, &f) {
			return p, failure(exitUsage, "%s", f.text)
		}
		return p, err
	case p.key == "":
		return p, usage("The worker has no key.\n\n  make one  %s", keyFor(filepath.Join(filepath.Dir(file), workerKeyFile)))
	case !d.flags.plainHTTP && !mayCarry(p.url):
		return p, usage("Not started: %s is plain http, so anybody on the way could read the key.\n\n  better    https://…\n  or say    --plain-http, when the network between is your own", p.url)
	}
	return p, nil
}

// cueapiLogin is the key that CueAPI's own command line stored; "" when there is none.
func (d *door) cueapiLogin() (key, source string) {
	path := filepath.Join(d.Home, ".config", "cueapi", "credentials.json")
	var stored struct {
		Default struct {
			Key string `json:"api_key"`
		} `json:"default"`
	}
	raw, err := os.ReadFile(path)
	if d.Home == "" || err != nil || json.Unmarshal(raw, &stored) != nil {
		return "", ""
	}
	return stored.Default.Key, d.tilde(path)
}

func (d *door) runWorker(ctx context.Context, s *workerSetup) error {
	log := d.workerLog()
	for _, note := range s.notes {
		log.Warn(note, "file", s.file)
	}
	o := worker.Options{Base: s.place.url, Key: s.place.key, Worker: s.id, Version: server.Version, Home: d.Home, Log: log}
	if d.Environ != nil {
		o.Environ = d.Environ()
	}
	err := worker.Run(ctx, s.config, o)
	if errors.Is(err, worker.ErrKey) {
		return failure(exitOurs, "Ended: %s does not take the key from %s any more: it was revoked, or has expired.\n\n  new one   %s\n  see why   unstuck keys list",
			s.place.url, s.place.source, keyFor(firstOf(s.config.KeyFile, workerKeyFile)))
	}
	return err
}

// keyFor is the command that makes a key for a worker and puts it into a file that nobody else can read.
func keyFor(path string) string {
	name := "worker"
	if host, err := os.Hostname(); err == nil {
		name += " " + host
	}
	return fmt.Sprintf("(umask 077; unstuck keys create %s --scope worker > %s)", shellWord(name), shellWord(path))
}

// workerLog is the log of a worker: JSON lines, or readable ones on a terminal.
func (d *door) workerLog() *slog.Logger {
	if !d.StderrTTY {
		return slog.New(slog.NewJSONHandler(d.Stderr, nil))
	}
	return slog.New(slog.NewTextHandler(d.Stderr, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			a.Value = slog.StringValue(a.Value.Time().In(d.Zone).Format(time.TimeOnly))
		}
		return a
	}}))
}

// workerCalls are what a worker calls, in the words of the check.
var workerCalls = []string{"worker.heartbeat", "execution.claim", "execution.heartbeat", "execution.report", "execution.release"}

// checkWorker looks whether a worker could work: its file, its server, and its key by the ruling that the server makes.
func (d *door) checkWorker(ctx context.Context, s *workerSetup) error {
	d.note("✓ %s: %s: %s", d.tilde(s.file), plural(len(s.config.Handlers), "handler", "handlers"), strings.Join(slices.Sorted(maps.Keys(s.config.Handlers)), ", "))
	for _, note := range s.notes {
		d.note("– %s", note)
	}
	d.asked = newClient(s.place, d.flags.plainHTTP)
	self, err := get[keyView](ctx, d, "key.self", nil)
	if err != nil {
		return err
	}
	var missing []string
	for _, name := range workerCalls {
		v, err := get[accessView](ctx, d, "key.access", inputs{"id": self.ID, "operation": name})
		if err != nil {
			return err
		}
		if v.Asked == nil || v.Asked.Answer == "no" {
			missing = append(missing, "it cannot "+lowerFirst(d.set.Lookup(name).May)+": "+v.because())
		}
		if name == workerCalls[0] {
			missing = append(missing, v.otherWorkers(s.id)...)
		}
	}
	what := fmt.Sprintf("key %s from %s, for worker %s", self.Redacted, s.place.source, s.id)
	if len(missing) > 0 {
		d.print("✗ %s", what)
		for _, m := range missing {
			d.print("    %s", m)
		}
		return failure(exitRefused, "This key does not do for a worker.\n\n  new one   %s", keyFor(firstOf(s.config.KeyFile, workerKeyFile)))
	}
	d.note("✓ %s: it can take work and report it, %s", what, "works "+d.until(&self))
	d.note("Nothing is wrong.")
	return nil
}

func (v *accessView) because() string {
	if v.Asked == nil {
		return "the server does not know how"
	}
	return v.Asked.Because
}

// otherWorkers says when the key is for other workers only.
func (v *accessView) otherWorkers(id string) (missing []string) {
	for _, only := range v.Only {
		var ids []string
		if only.Restriction == "worker_ids" && json.Unmarshal(only.Values, &ids) == nil && !slices.Contains(ids, id) {
			missing = append(missing, fmt.Sprintf("it is only for the workers %s; say which this is, as worker_id", strings.Join(ids, ", ")))
		}
	}
	return missing
}

// initWorker writes a file for a worker.
func (d *door) initWorker(file string) error {
	p, err := d.findPlace()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return usage("Not written: %s is there already, and stays as it is.", d.tilde(file))
	}
	if err == nil {
		_, err = f.WriteString(strings.Replace(worker.Example, defaultURL, p.url, 1))
		if e := f.Close(); err == nil {
			err = e
		}
	}
	if err != nil {
		return usage("Not written: %v", err)
	}
	named := ""
	if file != workerFile {
		named = " --config " + shellWord(file)
	}
	d.say("Wrote %s, with one handler as an example.\n\n  its key   %s\n  check     unstuck worker%s --check\n  start     unstuck worker%s",
		d.tilde(file), keyFor(filepath.Join(filepath.Dir(file), workerKeyFile)), named, named)
	return nil
}
