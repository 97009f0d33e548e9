package cli

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"unstuck/internal/testkit"
)

// line is a network between client and server that a test can cut.
type line struct {
	net.Listener
	to    string
	mu    sync.Mutex
	conns []net.Conn
}

func newLine(t *testing.T, to string) *line {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x := &line{Listener: l, to: to}
	t.Cleanup(func() { _ = l.Close(); x.cut() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go x.join(c)
		}
	}()
	return x
}

func (x *line) join(a net.Conn) {
	b, err := net.Dial("tcp", x.to)
	if err != nil {
		_ = a.Close()
		return
	}
	x.mu.Lock()
	x.conns = append(x.conns, a, b)
	x.mu.Unlock()
	go func() { _, _ = io.Copy(a, b); _ = a.Close() }()
	_, _ = io.Copy(b, a)
	_ = b.Close()
}

func (x *line) cut() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range x.conns {
		_ = c.Close()
	}
	x.conns = nil
}

// TestWatchGoesOn: a connection that breaks again and again loses and repeats nothing, and each break is said.
func TestWatchGoesOn(t *testing.T) {
	s := testkit.New(t, "")
	l := newLine(t, strings.TrimPrefix(s.URL, "http://"))
	s.Must(s.First, "POST /v1/cues", map[string]any{"name": "c", "cron": "0 0 1 1 *", "worker": true})
	events, talk := &aside{}, &aside{}
	events.more, talk.more = sync.NewCond(&events.mu), sync.NewCond(&talk.mu)
	env := map[string]string{"UNSTUCK_URL": "http://" + l.Addr().String(), "UNSTUCK_API_KEY": s.First}
	ctx, stop := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() {
		code <- Run(ctx, Env{Getenv: func(n string) string { return env[n] }, Home: t.TempDir(), Stdin: strings.NewReader(""), Stdout: events, Stderr: talk, Now: s.Clock.Now, Zone: time.UTC}, "watch", "--json")
	}()
	if said := talk.see("1"); !strings.HasPrefix(said, "Watching http://") {
		t.Errorf("said %q", said)
	}
	seen := map[string]bool{}
	for range 3 {
		fired := map[string]bool{}
		l.cut()
		for range 5 {
			fired[s.Must(s.First, "POST /v1/cues/c/fire", map[string]any{}).Str("id")] = true
		}
		if said := talk.see("2"); said != "Connection lost: the stream broke off. Trying again…\nConnected again.\n" {
			t.Errorf("said %q", said)
		}
		for range fired {
			var e liveEvent
			if err := json.Unmarshal([]byte(events.see("1")), &e); err != nil || e.Type != "due" || !fired[e.ExecutionID] || seen[e.ExecutionID] {
				t.Errorf("saw %+v, %v", e, err)
			}
			seen[e.ExecutionID] = true
		}
	}
	stop()
	if got := <-code; got != exitDone {
		t.Errorf("ended with %d", got)
	}
	if len(seen) != 15 {
		t.Errorf("saw %d executions", len(seen))
	}
}

// TestWatchLines: an event is one line, whatever name a worker gave itself.
func TestWatchLines(t *testing.T) {
	s := testkit.New(t, "")
	s.Must(s.First, "POST /v1/cues", map[string]any{"name": "c", "cron": "0 0 1 1 *", "worker": true})
	events, talk := &aside{}, &aside{}
	events.more, talk.more = sync.NewCond(&events.mu), sync.NewCond(&talk.mu)
	env := map[string]string{"UNSTUCK_URL": s.URL, "UNSTUCK_API_KEY": s.First}
	ctx, stop := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() {
		code <- Run(ctx, Env{Getenv: func(n string) string { return env[n] }, Home: t.TempDir(), Stdin: strings.NewReader(""), Stdout: events, Stderr: talk, Now: s.Clock.Now, Zone: time.UTC}, "watch")
	}()
	talk.see("1")
	s.Must(s.First, "POST /v1/cues/c/fire", map[string]any{})
	s.Must(s.First, "POST /v1/executions/claim", map[string]any{"worker_id": "w\n10:00:00  outcome    c  success"})
	events.see("1")
	if line := events.see("1"); !strings.Contains(line, "claimed") || !strings.Contains(line, "by w\uFFFD10:00:00  outcome") {
		t.Errorf("saw %q", line)
	}
	stop()
	<-code
}
