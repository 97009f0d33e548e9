// Package testkit is a whole server in a test, on either database: the real parts, a clock that the test turns, and calls over HTTP.
package testkit

import (
	"bytes"
	"context"
	"encoding/json"
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

	t    testing.TB
	http *httptest.Server
	stop func()
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
	flags := map[string]string{"data": t.TempDir()}
	settings, err := server.ReadSettings(func(string) (string, bool) { return "", false }, flags, "")
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(dsn, "postgres") {
		settings.Database = dsn
	}
	for _, c := range changes {
		c(&settings)
	}
	s := &Server{Clock: &Clock{at: Start}, Settings: settings, t: t, Log: &bytes.Buffer{}}
	s.open()
	key, _, err := s.Access().FirstRun(context.Background(), "admin@example.com", true)
	if err != nil {
		t.Fatal(err)
	}
	s.First = key.Secret
	t.Cleanup(func() { s.stop() })
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

func (s *Server) open() {
	s.t.Helper()
	log := slog.New(slog.NewJSONHandler(&syncWriter{w: s.Log}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	opened, err := server.Open(context.Background(), s.Settings, server.Deps{Now: s.Clock.Now, Log: log})
	if err != nil {
		s.t.Fatal(err)
	}
	s.Server = opened
	s.http = httptest.NewServer(opened.Handler())
	s.URL = s.http.URL
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- opened.Duties(ctx) }()
	s.stop = func() {
		s.http.CloseClientConnections()
		s.http.Close()
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("duties: %v", err)
		}
		if err := opened.Close(); err != nil {
			s.t.Errorf("close: %v", err)
		}
	}
}

// Restart stops the server in order and opens it again on the same data, after an outage of this length.
func (s *Server) Restart(outage time.Duration) {
	s.t.Helper()
	s.stop()
	s.Clock.Add(outage)
	s.open()
}

// Drain does now all that is due by the clock, as the scheduler would.
func (s *Server) Drain() {
	s.t.Helper()
	if err := s.Cues().Settle(context.Background()); err != nil {
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
	method, path, _ := strings.Cut(route, " ")
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	default:
		text, err := json.Marshal(b)
		if err != nil {
			s.t.Fatal(err)
		}
		in = bytes.NewReader(text)
	}
	req, err := http.NewRequest(method, s.URL+path, in)
	if err != nil {
		s.t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := s.http.Client().Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	r := Reply{Status: res.StatusCode, Header: res.Header}
	if r.Body, err = io.ReadAll(res.Body); err != nil {
		s.t.Fatal(err)
	}
	_ = json.Unmarshal(r.Body, &r.JSON) // not every answer is an object
	return r
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
