package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// payloadMost is how many bytes of payload go into the environment. A system takes no variable of 128 KiB; whatever its size, the
// payload is on standard input.
const payloadMost = 100 << 10

// result is how a handler ended.
type result struct {
	failed   string // why it is no success; "": it ended with status 0
	exit     string // how it ended, for the log; "" when it did not by itself
	output   string
	said     said
	timedOut bool
	stopped  bool  // because its context ended: nothing is known about it
	unable   error // why no handler whatever can be started here, such as a full disk: that says nothing about the work
	limit    time.Duration
	took     time.Duration
}

// run runs the handler for an execution until it ends, or its time or the context does.
func (w *worker) run(ctx context.Context, h Handler, e *execution) *result {
	began := time.Now()
	r := &result{limit: h.Timeout}
	defer func() { r.took = time.Since(began) }()
	raw := []byte(pythonJSON(e.Payload))
	dir, in, err := room(raw)
	if err != nil {
		r.unable = err
		return r
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left of it is in the folder for temporary files
	p, err := w.start(h, e, raw, dir, in)
	if err != nil {
		return r.notStarted(err)
	}
	p.await(ctx, h.Timeout, w.config.KillGrace)
	r.timedOut, r.stopped = p.timedOut, p.stopped
	if r.timedOut || r.stopped {
		return r
	}
	r.output = p.output()
	r.said = readSaid(outcomeFile(dir))
	r.exit = p.cmd.ProcessState.String()
	var exit *exec.ExitError
	switch {
	case errors.As(p.err, &exit):
		r.failed = fmt.Sprintf("The handler ended with %s and printed nothing", r.exit)
	case p.err != nil:
		r.failed = fmt.Sprintf("The handler was lost: %v", p.err)
	}
	return r
}

func (r *result) notStarted(err error) *result {
	r.failed, r.exit = fmt.Sprintf("The handler was not started: %v", err), "not started"
	return r
}

// room makes what a handler needs: a folder of its own, with an empty outcome file, and its standard input.
func room(payload []byte) (dir string, in *os.File, err error) {
	if dir, err = os.MkdirTemp("", "unstuck-"); err != nil {
		return "", nil, err
	}
	stdin := filepath.Join(dir, "payload.json")
	if err = errors.Join(os.WriteFile(stdin, payload, 0o600), os.WriteFile(outcomeFile(dir), nil, 0o600)); err == nil {
		in, err = os.Open(stdin)
	}
	if err != nil {
		_ = os.RemoveAll(dir)
	}
	return dir, in, err
}

func outcomeFile(dir string) string { return filepath.Join(dir, "outcome.json") }

// process is a handler that runs, and all that it started.
type process struct {
	cmd    *exec.Cmd
	all    *group
	out    [2]head // what it said on standard output and standard error
	pipes  []*os.File
	closed chan struct{} // closed when nobody has its output open any more
	exited chan struct{}
	err    error // how it ended, once exited is closed

	timedOut, stopped bool
}

// start starts a handler in what room has made. It closes in.
func (w *worker) start(h Handler, e *execution, raw []byte, dir string, in *os.File) (*process, error) {
	defer in.Close()
	values := readPayload(e.Payload)
	text, vars := values.fillCommand(h.Command)
	p := &process{cmd: exec.Command("sh", "-c", text), closed: make(chan struct{}), exited: make(chan struct{})} //nolint:gosec // that is what a handler is
	p.cmd.Stdin = in
	p.cmd.Dir = w.folder(h.Folder)
	p.cmd.Env = append(append(w.environment(e, raw, dir), vars...), envOf(h.Env, values)...)
	p.all = newGroup(p.cmd)
	return p, p.start()
}

func envOf(env map[string]string, values payload) (vars []string) {
	for name, v := range env {
		vars = append(vars, name+"="+values.fill(v))
	}
	return vars
}

// environment is what a handler finds: all that the worker has, and what is known of the execution, under our names and CueAPI's.
func (w *worker) environment(e *execution, raw []byte, dir string) []string {
	vars := append([]string{}, w.Environ...)
	both := func(ours, theirs, value string) {
		vars = append(vars, "UNSTUCK_"+ours+"="+value, "CUEAPI_"+theirs+"="+value)
	}
	both("EXECUTION_ID", "EXECUTION_ID", e.ID)
	both("CUE_ID", "CUE_ID", e.CueID)
	both("CUE_NAME", "CUE_NAME", e.CueName)
	both("WORKER_ID", "WORKER_ID", w.Worker)
	both("API_KEY", "API_KEY", w.Key)
	both("URL", "BASE_URL", w.Base)
	both("OUTCOME_FILE", "OUTCOME_FILE", outcomeFile(dir))
	if len(raw) <= payloadMost {
		both("PAYLOAD", "PAYLOAD", string(raw))
	}
	if e.Traceparent != "" {
		vars = append(vars, "TRACEPARENT="+e.Traceparent)
	}
	return append(vars, "UNSTUCK_TASK="+e.Task, "UNSTUCK_ATTEMPT="+strconv.Itoa(e.Attempt), "UNSTUCK_SCHEDULED_FOR="+e.ScheduledFor)
}

// folder is where a handler runs.
func (w *worker) folder(path string) string {
	if rest, ok := strings.CutPrefix(path, "~"); ok && (rest == "" || rest[0] == '/') {
		return w.Home + rest
	}
	return path
}

// start starts the process and listens to what it says.
func (p *process) start() error {
	var copies sync.WaitGroup
	var theirs []*os.File
	defer func() { closeAll(theirs) }()
	for i, end := range []*io.Writer{&p.cmd.Stdout, &p.cmd.Stderr} {
		read, write, err := os.Pipe()
		if err != nil {
			closeAll(p.pipes)
			return err
		}
		*end = write
		p.pipes, theirs = append(p.pipes, read), append(theirs, write)
		copies.Go(func() { _, _ = io.Copy(&p.out[i], read) }) // ends when nobody has the other end open, or it is closed
	}
	if err := p.cmd.Start(); err != nil {
		closeAll(p.pipes)
		return err
	}
	if err := p.all.started(); err != nil {
		p.all.close()
		closeAll(p.pipes)
		return errors.Join(err, p.cmd.Process.Kill(), p.cmd.Wait())
	}
	go func() {
		copies.Wait()
		close(p.closed)
	}()
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	return nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// await waits until the handler has ended and everything that it started has closed its output. When its time is over, or the
// context ends, all of them get SIGTERM, and after the grace SIGKILL.
func (p *process) await(ctx context.Context, limit, grace time.Duration) {
	defer p.all.close()
	defer closeAll(p.pipes)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	if p.ended(ctx.Done(), timer.C) {
		return
	}
	p.stopped = ctx.Err() != nil
	p.timedOut = !p.stopped
	p.all.terminate()
	patience := time.NewTimer(grace)
	defer patience.Stop()
	if p.ended(nil, patience.C) {
		return
	}
	p.all.kill()
	<-p.exited // a process that left the group may keep the output open: it is not waited for
}

// ended waits for the end, unless one of the others comes before.
func (p *process) ended(done <-chan struct{}, timer <-chan time.Time) bool {
	for _, c := range []<-chan struct{}{p.exited, p.closed} {
		select {
		case <-c:
		case <-done:
			return false
		case <-timer:
			return false
		}
	}
	return true
}

// output is the beginning of what the handler printed, errors last.
func (p *process) output() string {
	out, errs := p.out[0].String(), p.out[1].String()
	if out != "" && errs != "" {
		out += "\n--- stderr ---\n"
	}
	out += errs
	for n, i := 0, 0; i < len(out); n++ {
		if n == outputMost {
			return out[:i]
		}
		_, size := utf8.DecodeRuneInString(out[i:])
		i += size
	}
	return out
}

// head keeps the beginning of what is written to it, and takes the rest too, so that nobody waits. Its content is read when
// writing has ended.
type head struct {
	mu   sync.Mutex
	kept []byte
}

func (h *head) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if room := utf8.UTFMax*outputMost - len(h.kept); room > 0 {
		h.kept = append(h.kept, b[:min(room, len(b))]...)
	}
	return len(b), nil
}

// String is what was kept, as text: what is no UTF-8 becomes U+FFFD.
func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.ToValidUTF8(string(h.kept), "\uFFFD")
}
