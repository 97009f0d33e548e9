package cue

import (
	"testing"
	"time"
)

// fire fires a cue by hand and returns the execution's id.
func (f *fixture) fire(cue string, args input) string {
	f.Helper()
	all := input{"id": cue}
	for k, v := range args {
		all[k] = v
	}
	return f.ok(f.admin, "cue.fire", all)["id"].(string)
}

// claim takes one execution by the contract's call and returns the answer.
func (f *fixture) claim(key, worker string) map[string]any {
	f.Helper()
	return f.ok(key, "execution.claim", input{"worker_id": worker})
}

// get is an execution as a key sees it.
func (f *fixture) get(key, id string) map[string]any {
	f.Helper()
	return f.ok(key, "execution.get", input{"id": id})
}

func TestFireClaimReport(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		cue := f.cue("hello", "0 0 1 1 *")
		worker := f.key("worker", nil)
		id := f.fire(cue, input{"payload_override": map[string]any{"task": "greet", "n": 1}})
		got := f.claim(worker, "laptop")
		for name, want := range map[string]any{
			"claimed": true, "execution_id": id, "lease_seconds": 900.0, "cue_id": cue, "cue_name": "hello", "task": "greet",
			"scheduled_for": "2026-11-23T10:01:40Z", "attempt": 1.0, "lease_until": "2026-11-23T10:16:40Z",
		} {
			if got[name] != want {
				t.Errorf("%s: %v, want %v", name, got[name], want)
			}
		}
		f.clock.Advance(time.Minute)
		out := f.ok(worker, "execution.report", input{"id": id, "success": true, "lease_token": got["lease_token"], "summary": "said hello"})
		if out["outcome_state"] != "reported_success" || out["outcome_recorded"] != true || out["execution_id"] != id {
			t.Errorf("report: %v", out)
		}
		e := f.get(worker, id)
		if e["status"] != "success" || e["delivered_at"] != "2026-11-23T10:02:40Z" || e["unfenced"] != false {
			t.Errorf("execution: %v", e)
		}
		check := f.ok(worker, "execution.check_evidence", input{"id": id})
		if check["ok"] != true || check["fault"] != nil {
			t.Errorf("check: %v", check)
		}
	})
}
