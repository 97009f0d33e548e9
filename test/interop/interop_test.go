//go:build interop && linux

// Package interop holds the built binary against programs that others wrote: the published CueAPI clients, unmodified, and real
// proxies that ask it who may pass. `make interop` installs them and runs it.
package interop

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var (
	binary  = flag.String("binary", "../../bin/unstuck", "the built server")
	clients = flag.String("clients", "../../.cache/interop", "folder of the virtual environments sdk, cli and daemon")
)

const (
	patience = 30 * time.Second      // more than anything here takes, on a busy machine too
	lookAt   = 20 * time.Millisecond // how often to look at what another program does
	stopping = 15 * time.Second      // a server ends calls under way within 10 s
)

// program is something that runs beside the test and ends with it.
type program struct {
	t      testing.TB
	cmd    *exec.Cmd
	output output
	ended  chan struct{}
}

// output is what a program printed so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// launch starts a program with an environment that has nothing but the given variables, a path, and a home folder of its own: no
// proxy, no credentials, no address of a hosted service. It dies with the test, however that ends.
func launch(t testing.TB, env []string, name string, args ...string) *program {
	t.Helper()
	p := &program{t: t, cmd: exec.Command(name, args...), ended: make(chan struct{})}
	p.cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir()}, env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // how it ended is in ProcessState
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended long ago
		<-p.ended
	})
	return p
}

// shown shows what the program printed if the test fails.
func (p *program) shown() *program {
	p.t.Cleanup(func() {
		if p.t.Failed() {
			p.t.Logf("%s printed:\n%s", filepath.Base(p.cmd.Path), p.output.String())
		}
	})
	return p
}

// signal sends a signal.
func (p *program) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("signal %s: %v", p.cmd.Path, err)
	}
}

// wait returns the exit status once the program has ended by itself.
func (p *program) wait(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		p.t.Fatalf("%s still runs after %v", p.cmd.Path, within)
		return -1
	}
}

// eventually looks at another program until it did what is awaited.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(lookAt)
	defer tick.Stop()
	for late := time.After(patience); !done(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// server is a running bin/unstuck with fresh data.
type server struct {
	t   testing.TB
	url string // without a slash at the end
	key string // the first key: personal, scope full
	run *program
}

var (
	addressLine = regexp.MustCompile(`Address +(http://127\.0\.0\.1:\d+)`)
	keyLine     = regexp.MustCompile(`(?m)^unstuck_\w+$`)
)

// serve starts a server on a free port of this machine. It must end in order when the test has ended.
func serve(t testing.TB, flags ...string) *server {
	t.Helper()
	return serveIn(t, nil, flags...)
}

// serveIn is serve with variables in the environment.
func serveIn(t testing.TB, env []string, flags ...string) *server {
	t.Helper()
	args := append([]string{"serve", "--print-first-key", "--listen", "127.0.0.1:0", "--data", t.TempDir()}, flags...)
	s := &server{t: t, run: launch(t, env, *binary, args...).shown()}
	eventually(t, "the server prints its address and the first key", func() bool {
		text := s.run.output.String()
		address := addressLine.FindStringSubmatch(text)
		s.key = keyLine.FindString(text)
		if address != nil {
			s.url = address[1]
		}
		select {
		case <-s.run.ended:
			t.Fatal("the server ended at once")
		default:
		}
		return s.url != "" && s.key != ""
	})
	t.Cleanup(func() {
		s.run.signal(syscall.SIGTERM)
		if code := s.run.wait(stopping); code != 0 {
			t.Errorf("the server ended with status %d", code)
		}
	})
	return s
}

// object is a JSON object.
type object = map[string]any

// try calls the server and returns what it answered.
func (s *server) try(key, method, path string, body any) (int, object) {
	s.t.Helper()
	sent, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := http.NewRequest(method, s.url+path, bytes.NewReader(sent))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	out := object{}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &out); err != nil {
			s.t.Fatalf("%s %s answered %d %s", method, path, answer.StatusCode, text)
		}
	}
	return answer.StatusCode, out
}

// call calls the server with its first key and wants it to succeed.
func (s *server) call(method, path string, body any) object {
	s.t.Helper()
	status, out := s.try(s.key, method, path, body)
	if status/100 != 2 {
		s.t.Fatalf("%s %s answered %d %v", method, path, status, out)
	}
	return out
}

// newKey makes an integration key.
func (s *server) newKey(scope string, restrictions object) (id, secret string) {
	s.t.Helper()
	body := object{"name": "interop " + scope, "scope": scope}
	if restrictions != nil {
		body["restrictions"] = restrictions
	}
	made := s.call("POST", "/v1/keys", body)
	return made["id"].(string), made["key"].(string)
}

// newCue makes a cue for workers that is due next year at the earliest, and returns its id.
func (s *server) newCue(name string, payload object, more object) string {
	s.t.Helper()
	body := object{"name": name, "transport": "worker", "payload": payload, "schedule": object{"type": "recurring", "cron": "0 0 1 1 *"}}
	for k, v := range more {
		body[k] = v
	}
	return s.call("POST", "/v1/cues", body)["id"].(string)
}

// fire fires a cue and returns the id of the execution.
func (s *server) fire(cue string) string {
	s.t.Helper()
	return s.call("POST", "/v1/cues/"+cue+"/fire", object{})["id"].(string)
}

func (s *server) execution(id string) object {
	s.t.Helper()
	return s.call("GET", "/v1/executions/"+id, nil)
}

// code is the code of an error.
func code(answer object) string {
	e, _ := answer["error"].(object)
	c, _ := e["code"].(string)
	return c
}

// venv is a program of a client's virtual environment.
func venv(client, name string) string { return filepath.Join(*clients, client, "bin", name) }

// want fails the test unless text contains every part.
func want(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("want %q in:\n%s", part, text)
		}
	}
}
