// Package testkit is a whole server in a test, on either database: the real parts, a clock that the test turns, and calls over HTTP.
package testkit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"unstuck/internal/server"
	"unstuck/internal/testkit/pgtest"
)

// Clock is the one clock of a server under test. It moves only when the test says so.
type Clock struct {
	mu sync.Mutex
	at time.Time
}

// NewClock is a clock that stands at Start.
func NewClock() *Clock { return &Clock{at: Start} }

// Now is the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

// Add moves the clock; backwards too.
func (c *Clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// Start is when every Clock begins: a Monday.
var Start = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

// Server is a running server.
type Server struct {
	*server.Server
	URL      string
	Clock    *Clock
	First    string // the first key: personal, scope full
	Log      *bytes.Buffer
	Settings server.Settings

	t      testing.TB
	deps   server.Deps
	http   *httptest.Server
	flight *flight
	still  bool
	stop   func() error // nil while it does not run
}

// Setup is how a server under test differs from the usual one.
type Setup struct {
	DSN      string                 // a path for SQLite, an address for PostgreSQL; "" is SQLite in a folder of the test
	Settings func(*server.Settings) // changes its settings; nil for none
	Deps     func(*server.Deps)     // changes what it gets from outside; nil for the Clock and the Log of the Server
	Still    bool                   // nothing runs in the background: what is due is done by Drain alone
}

// Each runs fn with a fresh server on SQLite, and with one on PostgreSQL.
func Each(t *testing.T, fn func(t *testing.T, s *Server)) {
	t.Helper()
	pgtest.Each(t, func(t *testing.T, dsn string) { fn(t, New(t, dsn)) })
}

// New starts a server on a database: a path for SQLite, an address for PostgreSQL; "" is SQLite in a folder of the test. Changes
// are applied to its settings.
func New(t testing.TB, dsn string, changes ...func(*server.Settings)) *Server {
	t.Helper()
	return NewWith(t, Setup{DSN: dsn, Settings: func(s *server.Settings) {
		for _, c := range changes {
			c(s)
		}
	}})
}

// NewWith starts a server that ends with the test.
func NewWith(t testing.TB, o Setup) *Server {
	t.Helper()
	flags := map[string]string{"data": t.TempDir()}
	settings, err := server.ReadSettings(func(string) (string, bool) { return "", false }, flags, "")
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(o.DSN, "postgres") {
		settings.Database = o.DSN
	}
	if o.Settings != nil {
		o.Settings(&settings)
	}
	s := &Server{Clock: NewClock(), Settings: settings, t: t, still: o.Still, Log: &bytes.Buffer{}}
	s.deps = server.Deps{Now: s.Clock.Now, Log: slog.New(slog.NewJSONHandler(&syncWriter{w: s.Log}, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if o.Deps != nil {
		o.Deps(&s.deps)
	}
	s.mustOpen()
	key, _, err := s.Access().FirstRun(context.Background(), "admin@example.com", true)
	if err != nil {
		t.Fatal(err)
	}
	s.First = key.Secret
	t.Cleanup(s.Stop)
	return s
}

// syncWriter lets the server and the test use one buffer.
type syncWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (w *syncWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(b)
}

// Open opens the server again on the same data after Stop or Abandon.
func (s *Server) Open() error {
	opened, err := server.Open(context.Background(), s.Settings, s.deps)
	if err != nil {
		return err
	}
	s.Server, s.flight = opened, newFlight(opened.Handler())
	s.http = httptest.NewServer(s.flight)
	s.http.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = 256 // callers at the same time keep their connections
	s.URL = s.http.URL
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	duties := func() { done <- opened.Duties(ctx) }
	if !s.still {
		go duties()
	}
	s.stop = func() error {
		s.http.CloseClientConnections()
		s.http.Close()
		cancel()
		if s.still {
			duties() // ends at once, in order
		}
		err := <-done
		return errors.Join(err, opened.Close())
	}
	return nil
}

func (s *Server) mustOpen() {
	s.t.Helper()
	if err := s.Open(); err != nil {
		s.t.Fatal(err)
	}
}

// Abandon stops the server and says what failed on the way, which is expected when its disk is gone.
func (s *Server) Abandon() error {
	if s.stop == nil {
		return nil
	}
	stop := s.stop
	s.stop = nil
	return stop()
}

// Stop stops the server in order. Stopping it twice does nothing.
func (s *Server) Stop() {
	s.t.Helper()
	if err := s.Abandon(); err != nil {
		s.t.Errorf("stop: %v", err)
	}
}

// Restart stops the server in order and opens it again on the same data, after an outage of this length.
func (s *Server) Restart(outage time.Duration) {
	s.t.Helper()
	s.Stop()
	s.Clock.Add(outage)
	s.mustOpen()
}

// Drain does now all that is due by the clock, as the scheduler would.
func (s *Server) Drain() {
	s.t.Helper()
	if err := errors.Join(s.Cues().Settle(context.Background()), s.Alerts().Settle(context.Background())); err != nil {
		s.t.Fatal(err)
	}
}

// Reply is an answer. JSON is its body when it is an object.
type Reply struct {
	Status int
	Header http.Header
	Body   []byte
	JSON   map[string]any
}

// Code is the error code of the answer; "" for success.
func (r Reply) Code() string {
	e, _ := r.JSON["error"].(map[string]any)
	code, _ := e["code"].(string)
	return code
}

// Str is a string member of the answer; dots go into objects.
func (r Reply) Str(path string) string {
	var v any = r.JSON
	for _, p := range strings.Split(path, ".") {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	s, _ := v.(string)
	return s
}

// Do makes a call: "POST /v1/keys". The body is a string sent as it is, or a value sent as JSON; nil for none. Headers come in pairs.
func (s *Server) Do(key, route string, body any, headers ...string) Reply {
	s.t.Helper()
	r, err := s.Call(context.Background(), key, route, body, headers...)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// Call is Do for any goroutine: it answers the error with which a call ends that gets no answer.
func (s *Server) Call(ctx context.Context, key, route string, body any, headers ...string) (Reply, error) {
	return Send(ctx, s.http.Client(), s.URL, key, route, body, headers...)
}

// Send makes a call to any server; see Do. Of a stream of events only the beginning is awaited, and nothing is read.
func Send(ctx context.Context, client *http.Client, base, key, route string, body any, headers ...string) (Reply, error) {
	method, path, _ := strings.Cut(route, " ")
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	default:
		text, err := json.Marshal(b)
		if err != nil {
			return Reply{}, err
		}
		in = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, base+path, in)
	if err != nil {
		return Reply{}, err
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := client.Do(req)
	if err != nil {
		return Reply{}, err
	}
	defer res.Body.Close()
	r := Reply{Status: res.StatusCode, Header: res.Header}
	if res.Header.Get("Content-Type") == "text/event-stream" { // its end may be far
		return r, nil
	}
	if r.Body, err = io.ReadAll(res.Body); err != nil {
		return r, err
	}
	_ = json.Unmarshal(r.Body, &r.JSON) // not every answer is an object
	return r, nil
}

// Must is Do for a call that succeeds.
func (s *Server) Must(key, route string, body any, headers ...string) Reply {
	s.t.Helper()
	r := s.Do(key, route, body, headers...)
	if r.Status >= 300 {
		s.t.Fatalf("%s: %d %s", route, r.Status, r.Body)
	}
	return r
}

// Key makes an integration key of a scope and answers its secret.
func (s *Server) Key(scope string) string {
	s.t.Helper()
	return s.Must(s.First, "POST /v1/keys", map[string]any{"name": scope, "scope": scope}).Str("key")
}
