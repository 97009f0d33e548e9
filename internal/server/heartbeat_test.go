package server_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"unstuck/internal/server"
	"unstuck/internal/testkit"
	"unstuck/internal/testkit/pgtest"
)

// watcher is an outside watch on this machine.
type watcher struct {
	*httptest.Server
	calls, status atomic.Int64
}

func newWatcher(t *testing.T) *watcher {
	w := &watcher{}
	w.status.Store(200)
	w.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/s3cret-uuid" {
			t.Errorf("%s is called", r.URL.Path)
		}
		w.calls.Add(1)
		rw.WriteHeader(int(w.status.Load()))
	}))
	t.Cleanup(w.Close)
	return w
}

// The outside watch is called while the scheduler moves and the database takes writes, and not otherwise.
func TestHeartbeat(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, dsn string) {
		w := newWatcher(t)
		set := settings(t, "allow-callbacks", "127.0.0.1")
		set.HeartbeatURL = w.URL + "/s3cret-uuid"
		if strings.HasPrefix(dsn, "postgres") {
			set.Database = dsn
		}
		clock, log := testkit.NewClock(), &bytes.Buffer{}
		s, err := server.Open(t.Context(), set, server.Deps{Now: clock.Now, Log: slog.New(slog.NewTextHandler(log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		beats := func(calls int64, fault string) {
			t.Helper()
			err := s.Beat(t.Context())
			if w.calls.Load() != calls || (err == nil) != (fault == "") || err != nil && !strings.Contains(err.Error(), fault) {
				t.Errorf("%d calls, want %d; %v, want %q", w.calls.Load(), calls, err, fault)
			}
		}
		beats(1, "")
		clock.Add(31 * time.Second) // no duties run, so nobody looks for due work
		beats(1, "the scheduler stands still")
		clock.Add(-31 * time.Second)
		w.status.Store(500)
		beats(2, "it answered 500")
		beats(3, "it answered 500")
		w.status.Store(204)
		beats(4, "")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		beats(4, "does not do its work")
		text := log.String()
		if strings.Contains(text, "s3cret") || strings.Count(text, "it answered 500") != 1 || !strings.Contains(text, "hears of this server again") {
			t.Error(text)
		}
	})
}

// The duties of a server call the watch; where that is not allowed, nothing is called, and the log and the metrics say so.
func TestHeartbeatRuns(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	s := testkit.New(t, "", func(o *server.Settings) {
		o.HeartbeatURL = strings.Replace(w.URL, "http:", "https:", 1) + "/s3cret-uuid"
	})
	read := func() string {
		r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/metrics", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+s.First)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for ctx := t.Context(); !strings.Contains(read(), `unstuck_heartbeat_total{result="failed"} 1`) && ctx.Err() == nil; {
		continue
	}
	if err := s.Beat(context.Background()); err == nil || !strings.Contains(err.Error(), "UNSTUCK_ALLOW_CALLBACKS") {
		t.Error(err)
	}
	if n := w.calls.Load(); n != 0 || !strings.Contains(read(), "unstuck_heartbeat_last_seconds 0") {
		t.Errorf("%d calls", n)
	}
	s.Stop()
	if text := s.Log.String(); !strings.Contains(text, "does not hear of this server") || strings.Contains(text, "s3cret") {
		t.Error(text)
	}
}

// An address that is none is refused at the start, without repeating it.
func TestHeartbeatSetting(t *testing.T) {
	for _, bad := range []string{"hc-ping.com/s3cret", "ftp://x/s3cret", "https:///s3cret", "https://u:s3cret@x/"} {
		env := func(name string) (string, bool) { return bad, name == "UNSTUCK_HEARTBEAT_URL" }
		if _, err := server.ReadSettings(env, nil, ""); err == nil || !strings.Contains(err.Error(), "UNSTUCK_HEARTBEAT_URL") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
