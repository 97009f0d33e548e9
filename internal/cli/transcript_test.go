package cli

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"unstuck/internal/testkit"
)

// TestTranscripts runs every transcript in testdata against a server of its own and compares what is printed, to the character.
// The clock stands still unless the transcript moves it. A transcript is what stands on a terminal:
//
//	$ unstuck keys list              a command; $NAME, NAME=$(…), NAME=value before a command, and "text" | command work
//	$ export NAME=value, unset NAME
//	$ wait 20s                       turns the clock, and does what is due
//	$ width 90                       of the terminal
//	$ mend 1                         runs the first command that the last answer names under "Mend it", as it stands there
//	$ unstuck watch &                goes on while others run; only one at a time
//	$ see 2                          waits until it has printed so many more lines, and shows them
//	$ see end                        waits for its end, and shows the rest
//	$ answer y                       what is typed at the next question; without it nobody is there to be asked
//	[4]                              the exit code, when it is not 0
//
// Ids and keys are numbered in the order in which they appear.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, string(text))
			if writing() {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(strings.Split(string(text), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("what is printed differs from %s (-want +got):\n%s", file, diff)
			}
		})
	}
}

// writing says that the flag -write was given: then goldens are written anew.
func writing() bool {
	f := flag.Lookup("write")
	return f != nil && f.Value.String() == "true"
}

// terminal is where a transcript is played.
type terminal struct {
	t     *testing.T
	s     *testkit.Server
	env   map[string]string
	home  string
	width int
	typed string // the next answer; "" when there is nobody
	last  string // what the last command printed to stdout
	names *namer
	aside *aside // what runs in the background
}

// aside is a command that runs while others do.
type aside struct {
	mu   sync.Mutex
	more *sync.Cond
	text string // what it printed and nobody has seen
	over bool
}

func (a *aside) Write(b []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.text += string(b)
	a.more.Broadcast()
	return len(b), nil
}

// see waits for a number of lines, or the end, and is what was printed.
func (a *aside) see(what string) string {
	n, _ := strconv.Atoi(what)
	a.mu.Lock()
	defer a.mu.Unlock()
	for !a.over && (what == "end" || strings.Count(a.text, "\n") < n) {
		a.more.Wait()
	}
	lines := strings.SplitAfter(a.text, "\n")
	if what == "end" {
		n = len(lines)
	}
	seen := strings.Join(lines[:n], "")
	a.text = strings.TrimPrefix(a.text, seen)
	return seen
}

// start runs a command in the background.
func (term *terminal) start(line string) {
	a := &aside{}
	a.more = sync.NewCond(&a.mu)
	term.aside = a
	words := term.words(line)
	env := maps.Clone(term.env)
	ctx, cancel := context.WithCancel(context.Background())
	term.t.Cleanup(cancel)
	go func() {
		code := Run(ctx, Env{
			Getenv: func(name string) string { return env[name] }, Home: term.home, Stdin: strings.NewReader(""), Stdout: a, Stderr: a,
			StdoutTTY: true, Width: term.width, Now: term.s.Clock.Now, Zone: berlin(term.t),
		}, words[1:]...)
		if code != 0 {
			fmt.Fprintf(a, "[%d]\n", code)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.over = true
		a.more.Broadcast()
	}()
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	s := testkit.New(t, "")
	term := &terminal{t: t, s: s, home: t.TempDir(), names: newNamer(s.URL)}
	term.env = map[string]string{"FIRST": s.First, "UNSTUCK_URL": s.URL}
	return term
}

// replay runs the commands of a transcript and answers the transcript with what they print now.
func replay(t *testing.T, transcript string) string {
	term := newTerminal(t)
	var out strings.Builder
	skipping := false
	for line := range strings.Lines(transcript) {
		cmd, isCommand := strings.CutPrefix(line, "$ ")
		if isCommand {
			skipping = true
			out.WriteString(line + term.names.stable(term.do(strings.TrimSpace(term.names.actual(cmd)))))
			continue
		}
		if line == "\n" || strings.HasPrefix(line, "#") {
			if skipping && strings.HasPrefix(line, "#") {
				out.WriteString("\n")
				skipping = false
			}
			if !skipping {
				out.WriteString(line)
			}
		}
	}
	return out.String()
}

// do runs one line and answers everything that it printed, with its exit code when it failed.
func (term *terminal) do(line string) string {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "wait":
		d, err := time.ParseDuration(rest)
		if err != nil {
			term.t.Fatal(err)
		}
		term.s.Clock.Add(d)
		term.s.Drain()
		return ""
	case "width":
		term.width, _ = strconv.Atoi(rest)
		return ""
	case "answer":
		term.typed = rest
		return ""
	case "mend":
		line = term.mending(rest)
	case "unset":
		delete(term.env, rest)
		return ""
	case "export":
		name, value, _ := strings.Cut(rest, "=")
		term.env[name] = term.expand(value)
		return ""
	}
	if verb == "see" {
		return term.aside.see(rest)
	}
	if aside, ok := strings.CutSuffix(line, " &"); ok {
		term.start(aside)
		return ""
	}
	if name, inner, ok := strings.Cut(line, "=$("); ok {
		stdout, all := term.exec(strings.TrimSuffix(inner, ")"), nil, true)
		term.env[name] = strings.TrimSuffix(stdout, "\n")
		return all
	}
	_, all := term.exec(line, nil, false)
	return all
}

// exec runs one command line. When its stdout is captured it is no part of what is seen.
func (term *terminal) exec(line string, stdin []byte, captured bool) (stdout, seen string) {
	if text, cmd, ok := strings.Cut(line, " | "); ok {
		line, stdin = cmd, []byte(term.expand(strings.Trim(strings.TrimPrefix(text, "echo "), "'"))+"\n")
	}
	words := term.words(line)
	env := map[string]string{}
	for k, v := range term.env {
		env[k] = v
	}
	for len(words) > 0 && strings.Contains(words[0], "=") {
		name, value, _ := strings.Cut(words[0], "=")
		env[name], words = value, words[1:]
	}
	if len(words) == 0 || words[0] != "unstuck" {
		term.t.Fatalf("not a command: %q", line)
	}
	var out, all bytes.Buffer
	both := writers{&out, &all}
	e := Env{
		Getenv: func(name string) string { return env[name] }, Home: term.home, Stdin: bytes.NewReader(stdin), Stdout: both, Stderr: &all,
		StdoutTTY: !captured, Width: term.width, Now: term.s.Clock.Now, Zone: berlin(term.t),
		ReadSecret: func() (string, error) { return "", os.ErrInvalid },
	}
	if captured {
		e.Stdout = &out
	}
	if term.typed != "" {
		e.Stdin, e.StdinTTY, e.StderrTTY = strings.NewReader(term.typed+"\n"), true, true
		term.typed = ""
	}
	code := Run(context.Background(), e, words[1:]...)
	if all.Len() > 0 && !bytes.HasSuffix(all.Bytes(), []byte("\n")) {
		all.WriteString("\n")
	}
	if code != 0 {
		fmt.Fprintf(&all, "[%d]\n", code)
	}
	term.last = out.String()
	return out.String(), strings.ReplaceAll(all.String(), term.home, "~")
}

// mending is a command that the last answer names under "Mend it", without what is said about it.
func (term *terminal) mending(number string) string {
	_, list, _ := strings.Cut(term.last, "\nMend it\n")
	for line := range strings.Lines(list) {
		if command, ok := strings.CutPrefix(line, "  "+number+"  "); ok {
			command, _, _ = strings.Cut(strings.TrimSpace(command), "  ")
			return command
		}
	}
	term.t.Errorf("nothing is mended by a command %s in:\n%s", number, term.last)
	return "unstuck version"
}

func berlin(t *testing.T) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

// writers writes to several buffers.
type writers []*bytes.Buffer

func (ws writers) Write(b []byte) (int, error) {
	for _, w := range ws {
		w.Write(b)
	}
	return len(b), nil
}

func (term *terminal) expand(s string) string {
	return os.Expand(s, func(name string) string { return term.env[name] })
}

// words splits a line as a shell does, with single and double quotes.
func (term *terminal) words(line string) []string {
	var out []string
	var word strings.Builder
	quote, open := byte(0), false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quote == 0 && (c == '\'' || c == '"'):
			quote, open = c, true
		case c == quote && quote != 0:
			quote = 0
		case c == ' ' && quote == 0:
			if open || word.Len() > 0 {
				out = append(out, word.String())
			}
			word.Reset()
			open = false
		case c == '$' && quote != '\'':
			end := i + 1
			for end < len(line) && (line[end] == '_' || line[end] >= 'A' && line[end] <= 'Z' || line[end] >= '0' && line[end] <= '9') {
				end++
			}
			word.WriteString(term.env[line[i+1:end]])
			i = end - 1
		default:
			word.WriteByte(c)
		}
	}
	if open || word.Len() > 0 {
		out = append(out, word.String())
	}
	return out
}

// namer gives ids and keys stable names of the same length, numbered by kind in the order in which they appear.
type namer struct {
	url    string
	toName map[string]string
	toReal map[string]string
	count  map[string]int
}

func newNamer(url string) *namer {
	return &namer{url: url, toName: map[string]string{}, toReal: map[string]string{}, count: map[string]int{}}
}

var (
	uuids  = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	ids    = regexp.MustCompile(`(key|cue|usr|ws)_[0-9a-z]{12}`)
	hexes  = regexp.MustCompile(`(?:\b|_)[0-9a-f]{8}\b`)
	keys   = regexp.MustCompile(`unstuck_[0-9A-Za-z]{49}_`)
	hooks  = regexp.MustCompile(`whsec_[0-9a-f]{64}`)
	took   = regexp.MustCompile(`Asked in [0-9.]+ ms`)
	asked  = regexp.MustCompile(`· request [0-9a-f]{8}|"request_id":"[0-9a-f-]{36}"`)
	tokens = regexp.MustCompile(uuids.String() + "|" + ids.String() + "|" + hexes.String())
)

// stable replaces what differs from run to run.
func (n *namer) stable(text string) string {
	text = strings.ReplaceAll(text, n.url, "http://127.0.0.1:8080")
	text = keys.ReplaceAllString(text, "unstuck_"+strings.Repeat("x", 49)+"_")
	text = hooks.ReplaceAllString(text, "whsec_…")
	text = asked.ReplaceAllStringFunc(text, func(s string) string {
		if strings.HasPrefix(s, "·") {
			return "· request ????????"
		}
		return `"request_id":"…"`
	})
	text = took.ReplaceAllString(text, "Asked in 0.4 ms")
	return tokens.ReplaceAllStringFunc(text, n.name)
}

func (n *namer) name(real string) string {
	if rest, ok := strings.CutPrefix(real, "_"); ok { // the end of a key
		return "_" + n.name(rest)
	}
	if name := n.toName[real]; name != "" {
		return name
	}
	if n.toReal[real] != "" { // a name itself, from the transcript
		return real
	}
	kind := "hex"
	var name string
	switch {
	case len(real) == 36:
		name = n.name(real[:8]) + "-0000-4000-8000-000000000000"
	case strings.Contains(real, "_"):
		kind, _, _ = strings.Cut(real, "_")
		n.count[kind]++
		name = fmt.Sprintf("%s_%012d", kind, n.count[kind])
	default:
		n.count[kind]++
		name = fmt.Sprintf("a%07d", n.count[kind])
	}
	n.toName[real], n.toReal[name] = name, real
	return name
}

// actual puts the real ids into a command.
func (n *namer) actual(text string) string {
	text = strings.ReplaceAll(text, "http://127.0.0.1:8080", n.url)
	names := make([]string, 0, len(n.toReal))
	for name := range n.toReal {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return len(b) - len(a) })
	for _, name := range names {
		text = strings.ReplaceAll(text, name, n.toReal[name])
	}
	return text
}
