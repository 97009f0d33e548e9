//go:build linux

package test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestReadme runs the tour of README.md through the built program, on terminals of its own, and compares word for word what it
// prints with what the README says. Ids, keys, times, dates and ports are masked.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	tour := transcripts(string(text))
	if len(tour) < 10 || tour[0].command != "make run" {
		t.Fatalf("the README has no tour: %d commands", len(tour))
	}
	env, shown, key := tourist(t)
	compare(t, tour[0], shown)
	walk(t, env, tour[1:], func(shell *session, command string) {
		if strings.HasSuffix(command, "auth login") {
			shell.until(t, "not shown)")
			shell.write(t, key+"\n")
		}
	})
}

// tourist starts a server for somebody who follows a page: the environment of the commands, what the server printed, and its first key.
func tourist(t *testing.T) (env []string, shown, key string) {
	t.Helper()
	address := "127.0.0.1:" + freePort(t)
	env = []string{
		"HOME=" + t.TempDir(), "PATH=" + filepath.Dir(binary(t)) + ":" + os.Getenv("PATH"), "TZ=Europe/Berlin", "TERM=dumb", "COLUMNS=140",
		"BIN=" + filepath.Dir(binary(t)), "UNSTUCK_LISTEN=" + address, "UNSTUCK_URL=http://" + address,
	}
	shown = start(t, env, binary(t), "serve", "--dev", "--print-first-key").until(t, "nothing is lost")
	return env, shown, regexp.MustCompile(`unstuck_[0-9A-Za-z]{49}_[0-9a-f]{8}`).FindString(shown)
}

// walk gives the commands of a page to one shell and compares what each prints. during runs while a command does.
func walk(t *testing.T, env []string, tour []transcript, during func(shell *session, command string)) {
	t.Helper()
	commands, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Close()
	shell := startWith(t, env, commands, "bash", "--noprofile", "--norc", "-c", `while IFS= read -r line <&3; do eval "$line"; done`)
	ids := map[string]string{} // of the page, and what they are here
	for i, tr := range tour {
		command := idForm.ReplaceAllStringFunc(strings.ReplaceAll(tr.command, "$PWD/bin", "$BIN"), func(id string) string { return cmp.Or(ids[id], id) })
		fmt.Fprintf(feed, "%s\necho '%s'\n", command, mark(i))
		during(shell, command)
		printed, _, _ := strings.Cut(shell.until(t, mark(i)), mark(i))
		if i > 0 {
			_, printed, _ = strings.Cut(printed, mark(i-1)+"\n")
		}
		compare(t, tr, printed)
		said, here := idForm.FindAllString(tr.output, -1), idForm.FindAllString(printed, -1)
		for j := range min(len(said), len(here)) {
			ids[said[j]] = here[j]
		}
	}
}

// idForm is the id of an execution, its beginning as people are shown it, or the token of a lease.
var idForm = regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b|\b[0-9a-f]{8}\b|\b[A-Z2-7]{26}\b`)

type transcript struct{ command, output string }

// transcripts are the indented blocks that begin with a $: commands with what they print.
func transcripts(text string) []transcript {
	var out []transcript
	for line := range strings.Lines(text) {
		body, indented := strings.CutPrefix(line, "    ")
		command, is := strings.CutPrefix(body, "$ ")
		switch {
		case is && indented:
			out = append(out, transcript{command: strings.TrimSpace(command)})
		case (indented || strings.TrimSpace(line) == "") && len(out) > 0:
			out[len(out)-1].output += body
		case strings.HasPrefix(line, "That was the whole product"):
			return out
		}
	}
	return out
}

func mark(i int) string { return fmt.Sprintf("@@@ %d @@@", i) }

// masks turn what varies into what does not. The order matters.
var masks = []struct {
	form *regexp.Regexp
	to   string
}{
	{regexp.MustCompile(`unstuck_[0-9A-Za-z]{49}_[0-9a-f]{8}`), "KEY"},
	{regexp.MustCompile(`not shown\)\s*KEY`), "not shown)"}, // typed before the program had turned the echo off
	{regexp.MustCompile(`\b20\d\d-\d\d-\d\dT[\d:.]+(Z|\+00:00)`), "MOMENT"},
	{idForm, "ID"},
	{regexp.MustCompile(`_[0-9a-f]{8}\b`), "_EIGHT"},
	{regexp.MustCompile(`cue_[0-9a-z]{12}`), "CUE"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDRESS"},
	{regexp.MustCompile(`\n\s*export UNSTUCK_URL=http://ADDRESS`), ""}, // said because the test's port is not the usual one
	{regexp.MustCompile(`\b\d{1,2} [A-Z][a-z]{2} (\d\d:\d\d)`), "$1"},  // a day is said when it is not today's: the test runs at midnight too
	{regexp.MustCompile(`\d\d:\d\d(:\d\d)?`), "TIME"},
	{regexp.MustCompile(`\d{1,2} [A-Z][a-z]{2} 20\d\d`), "DATE"},
	{regexp.MustCompile(`\d+(\.\d)? s\b`), "SPAN"},
}

// words is a text as it is compared: masked, and without regard to how wide its gaps are.
func words(text string) string {
	for _, m := range masks {
		text = m.form.ReplaceAllString(text, m.to)
	}
	var out []string
	for line := range strings.Lines(strings.ReplaceAll(text, "\r", "")) {
		if w := strings.Join(strings.Fields(line), " "); w != "" {
			out = append(out, w)
		}
	}
	return strings.Join(out, "\n")
}

func compare(t *testing.T, tr transcript, got string) {
	t.Helper()
	said, printed := words(tr.output), words(got)
	if strings.HasPrefix(said, "{") { // JSON, which a page breaks into lines
		said, printed = strings.Join(strings.Fields(said), ""), strings.Join(strings.Fields(printed), "")
	}
	if diff := gocmp.Diff(strings.Split(said, "\n"), strings.Split(printed, "\n")); diff != "" {
		t.Errorf("$ %s (-page +printed):\n%s", tr.command, diff)
	}
}

// session is a program on a terminal of its own.
type session struct {
	terminal *os.File
	mu       sync.Mutex
	seen     bytes.Buffer
	more     chan struct{}
}

// start runs a program on a new pseudo terminal and ends it with the test.
func start(t *testing.T, env []string, name string, args ...string) *session {
	t.Helper()
	return startWith(t, env, nil, name, args...)
}

// startWith is start with one more file, which the program finds as number 3.
func startWith(t *testing.T, env []string, third *os.File, name string, args ...string) *session {
	t.Helper()
	ctl, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(ctl.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ctl.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if third != nil {
		cmd.ExtraFiles = []*os.File{third}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = tty.Close() // the program has its own
	s := &session{terminal: ctl, more: make(chan struct{}, 1)}
	go s.read()
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was killed
		_ = ctl.Close()
	})
	return s
}

func (s *session) read() {
	r := bufio.NewReader(s.terminal)
	for {
		b, err := r.ReadByte()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.seen.WriteByte(b)
		s.mu.Unlock()
		select {
		case s.more <- struct{}{}:
		default:
		}
	}
}

// until waits for a text and answers all that was printed up to the end of its line.
func (s *session) until(t *testing.T, text string) string {
	t.Helper()
	limit := time.After(time.Minute)
	for {
		s.mu.Lock()
		seen := strings.ReplaceAll(s.seen.String(), "\r", "")
		s.mu.Unlock()
		if strings.Contains(seen, text) {
			return seen
		}
		select {
		case <-s.more:
		case <-limit:
			t.Fatalf("%q was not printed:\n%s", text, seen)
		}
	}
}

func (s *session) write(t *testing.T, text string) {
	t.Helper()
	if _, err := s.terminal.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

var builtOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "unstuck-test")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "unstuck")
	cmd := exec.Command("go", "build", "-o", path, "unstuck/cmd/unstuck")
	cmd.Env = slices.Concat(os.Environ(), []string{"CGO_ENABLED=0"})
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})

// binary is the path of the program, built once for all tests of this process.
func binary(t *testing.T) string {
	t.Helper()
	path, err := builtOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
