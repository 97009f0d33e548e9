//go:build linux

package test

import (
	"strings"
	"testing"
	"time"

	"unstuck/internal/server"
	"unstuck/internal/testkit"
	"unstuck/internal/testkit/pgtest"
)

// alerts are all alerts, newest first.
func (y *yard) alerts() (out []obj) {
	y.Helper()
	for _, a := range y.s.Must(y.s.First, "GET /v1/alerts?limit=100", nil).JSON["alerts"].([]any) {
		out = append(out, a.(obj))
	}
	return out
}

// latest is the id of the newest execution.
func (y *yard) latest() string {
	y.Helper()
	return y.s.Must(y.s.First, "GET /v1/executions?limit=1", nil).JSON["executions"].([]any)[0].(obj)["id"].(string)
}

// TestAlertNamesTheExpiredKey: the key of a real worker expires, the worker is refused, and what is due is missed, twice. That raises
// one alert, which names the key and what to do; the mended work ends it with one "recovered".
func TestAlertNamesTheExpiredKey(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		y := &yard{T: t, s: testkit.New(t, dsn, func(s *server.Settings) { s.PublicURL = "https://unstuck.example.com/" })}
		unlimited(y.s, y.s.First)
		key := y.s.Must(y.s.First, "POST /v1/keys", obj{"name": "night worker", "scope": "worker", "expires_at": "2026-11-23T12:00:00Z"})
		y.key = key.Str("key")
		y.s.Must(y.s.First, "POST /v1/cues", obj{"name": "nightly-report", "cron": "0 11,13,14 * * *", "worker": true, "payload": obj{"task": "report"}})
		work := obj{"report": "true"}
		d := y.worker(work, nil)
		y.s.Clock.Add(time.Hour)
		y.s.Drain()
		d.says("done", y.latest())

		y.s.Clock.Add(65 * time.Minute)
		for range 2 { // whatever starts it again is refused, too
			if code := d.exit(); code == 0 {
				t.Error("the worker goes on without a key")
			}
			d = y.worker(work, nil)
		}
		d.exit()
		for range 2 {
			y.s.Clock.Add(55 * time.Minute)
			y.s.Drain()
			y.s.Clock.Add(16 * time.Minute)
			y.s.Drain()
		}
		all := y.alerts()
		if len(all) != 1 || all[0]["alert_type"] != "missed_window" || all[0]["count"] != 2.0 || all[0]["recovered_at"] != nil {
			t.Fatalf("%v", all)
		}
		digits := key.Str("redacted")[len("unstuck_***_"):]
		if title := all[0]["title"]; title != "nightly-report missed 13:00 UTC: its worker's key expired at 12:00 (1st miss, last good today 11:00)" {
			t.Errorf("%s", title)
		}
		text, _ := all[0]["text"].(string)
		for _, want := range []string{
			all[0]["title"].(string) + "\n\n", "  12:00:00   key night worker (unstuck_***_" + digits + ") expired\n", "worker ours was refused: key expired",
			"  13:00:00   due, 13:00 UTC   execution ", "missed: no worker took it within 15 min\n",
			"\nMend it\n  1  unstuck keys extend " + digits + " --by 7d\n  2  unstuck executions replay ", "\nLast good execution: today 11:00:00, success, ",
			"\nhttps://unstuck.example.com/docs/help/alerts",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("the text lacks %q:\n%s", want, text)
			}
		}
		if all[0]["content"] != text {
			t.Errorf("content: %v", all[0]["content"])
		}

		y.key = y.s.Must(y.s.First, "POST /v1/keys", obj{"name": "next night worker", "scope": "worker"}).Str("key")
		y.s.Must(y.s.First, "POST /v1/executions/"+all[0]["execution_id"].(string)+"/replay", obj{})
		replayed := y.latest()
		y.worker(work, nil).says("done", replayed)
		for range 2 {
			all = y.alerts()
			if len(all) != 2 || all[0]["alert_type"] != "recovered" || all[1]["recovered_at"] == nil || all[0]["execution_id"] != replayed {
				t.Fatalf("%v", all)
			}
			y.s.Must(y.s.First, "POST /v1/cues/nightly-report/fire", obj{}) // a further success says nothing more
			y.s.Drain()
			y.s.Clock.Add(time.Minute)
		}
		if title := all[0]["title"]; title != "nightly-report recovered: done at 14:27 UTC, 1 h 27 min late" {
			t.Errorf("%s", title)
		}
	})
}
