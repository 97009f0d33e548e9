package server_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"unstuck/internal/server"
	"unstuck/internal/testkit"
	"unstuck/internal/testkit/pgtest"
)

// members are the names in a JSON object, sorted.
func members(v any) (names []string) {
	m, _ := v.(obj)
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// TestHealthContract: every field and status of CueAPI wire contract 2.10.
func TestHealthContract(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, dsn string) {
		s := testkit.NewWith(t, testkit.Setup{DSN: dsn, Still: true})
		health := func() obj {
			t.Helper()
			s.Clock.Add(time.Second) // what waits is counted once a second
			r := s.Must("", "GET /health", nil)
			if r.Header.Get("X-RateLimit-Limit") != "" {
				t.Error("health counts against a rate limit")
			}
			return r.JSON
		}
		s.Drain()
		h := health()
		if got := members(h); !slices.Equal(got, []string{"poller", "queue", "services", "status", "timestamp", "version", "workers"}) {
			t.Errorf("members: %v", got)
		}
		wantServices(t, h, "healthy", "ok", "ok", "none")
		if h["timestamp"] != "2026-11-23T10:00:01+00:00" {
			t.Errorf("timestamp: %v", h["timestamp"])
		}
		p := h["poller"].(obj)
		if p["last_run"] != "2026-11-23T10:00:00+00:00" || p["seconds_ago"] != 1.0 || p["cues_last_cycle"] != 0.0 || p["cycle_duration_ms"] != 0.0 {
			t.Errorf("poller: %v", p)
		}
		if w := h["workers"].(obj); len(w) != 1 || w["active_count"] != 0.0 {
			t.Errorf("workers: %v", w)
		}
		wantQueue(t, h, 0, 0, 0, 0)

		s.Must(s.First, "POST /v1/worker/heartbeat", obj{"worker_id": "w", "handlers": []string{}})
		worker := s.Must(s.First, "POST /v1/cues", obj{"name": "pulled", "cron": "0 0 1 1 *", "worker": true}).Str("id")
		for range 2 {
			s.Must(s.First, "POST /v1/cues/"+worker+"/fire", obj{})
		}
		s.Must(s.First, "POST /v1/cues/"+worker+"/fire", obj{"send_at": "2026-11-24T00:00:00Z"}) // not claimable yet
		s.Must(s.First, "POST /v1/executions/claim", obj{"worker_id": "w"})
		h = health()
		wantServices(t, h, "healthy", "ok", "ok", "ok")
		if w := h["workers"].(obj); w["active_count"] != 1.0 || w["last_heartbeat"] != "2026-11-23T10:00:01+00:00" {
			t.Errorf("workers: %v", w)
		}
		wantQueue(t, h, 0, 0, 0, 1)

		s.Clock.Add(s.Settings.Lease + 31*time.Second) // nobody has seen to the lease, and nobody has looked for due work
		h = health()
		wantServices(t, h, "degraded", "ok", "stale", "none")
		wantQueue(t, h, 0, 2, 0, 1)
		if r := s.Must("", "GET /status", nil); r.Str("status") != "degraded" || r.Str("reason") != "poller stale" {
			t.Errorf("status: %s", r.Body)
		}
		s.Drain()
		if r := s.Must("", "GET /status", nil); r.Str("status") != "healthy" || r.JSON["reason"] != nil {
			t.Errorf("status: %s", r.Body)
		}
	})
}

func wantServices(t *testing.T, h obj, status, database, scheduler, worker string) {
	t.Helper()
	want := obj{"database": database, "postgres": database, "redis": "ok", "scheduler": scheduler, "poller": scheduler, "worker": worker}
	have, _ := json.Marshal(h["services"])
	if text, _ := json.Marshal(want); h["status"] != status || string(have) != string(text) {
		t.Errorf("status %v, want %s; services %s, want %s", h["status"], status, have, text)
	}
}

func wantQueue(t *testing.T, h obj, outbox, stale, retries, claims float64) {
	t.Helper()
	want, _ := json.Marshal(obj{"pending_outbox": outbox, "stale_executions": stale, "pending_retries": retries, "pending_worker_claims": claims})
	if have, _ := json.Marshal(h["queue"]); string(have) != string(want) {
		t.Errorf("queue %s, want %s", have, want)
	}
}

// TestHealthCountsCalls: executions that wait to be called, now or after a failure.
func TestHealthCountsCalls(t *testing.T) {
	failing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }))
	defer failing.Close()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		s := testkit.NewWith(t, testkit.Setup{DSN: dsn, Still: true, Settings: func(set *server.Settings) { set.AllowCallbacks = "127.0.0.1" }})
		queue := func(outbox, retries float64) {
			t.Helper()
			s.Clock.Add(time.Second)
			wantQueue(t, s.Must("", "GET /health", nil).JSON, outbox, 0, retries, 0)
		}
		id := s.Must(s.First, "POST /v1/cues", obj{"name": "called", "cron": "0 0 1 1 *", "callback_url": failing.URL + "/"}).Str("id")
		queue(0, 0)
		s.Must(s.First, "POST /v1/cues/"+id+"/fire", obj{})
		wantQueue(t, s.Must("", "GET /health", nil).JSON, 0, 0, 0, 0) // counted within this second already
		queue(1, 0)
		s.Drain()
		queue(0, 1)
		s.Clock.Add(time.Hour)
		queue(1, 1)
	})
}

// TestStatusDown: a server without its database answers 503 in CueAPI's words and in those of every error; health stays 200 and leaves
// out what it cannot know.
func TestStatusDown(t *testing.T) {
	t.Parallel()
	f := newFull(t)
	f.Drain()
	f.fill()
	r := f.Do("", "GET /status", nil)
	if r.Status != 503 || r.Str("status") != "down" || r.Str("reason") != "sqlite unreachable" || r.Code() != "down" || r.JSON["detail"] == nil {
		t.Errorf("%d %s", r.Status, r.Body)
	}
	h := f.Do("", "GET /health", nil)
	if h.Status != 200 || !strings.Contains(h.Str("problem"), "disk") {
		t.Errorf("%d %s", h.Status, h.Body)
	}
	wantServices(t, h.JSON, "degraded", "error", "ok", "none")
}
