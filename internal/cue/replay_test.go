package cue

import (
	"testing"
	"time"
)

// A replay has the payload of the old execution and the settings of the cue as it is now.
func TestReplay(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		cue := f.ok(f.admin, "cue.create", newCue("c", input{"payload": input{"v": 1, "task": "a"}}))["id"].(string)
		old := f.fire(cue, nil)
		f.refused(f.admin, "execution.replay", input{"id": old}, 409, "execution_in_flight")
		token := f.claim(worker, "w")["lease_token"]
		f.refused(f.admin, "execution.replay", input{"id": old}, 409, "execution_in_flight")
		f.ok(worker, "execution.report", input{"id": old, "lease_token": token, "success": false})
		f.ok(f.admin, "cue.update", input{"id": cue, "payload": input{"v": 2}, "retry": input{"max_attempts": 7}, "verification": input{"mode": "manual"}})
		f.clock.Advance(time.Minute)
		out := f.ok(f.admin, "execution.replay", input{"id": old})
		if out["id"] == old || out["execution_id"] != out["id"] || out["cue_id"] != cue || out["status"] != "pending" || out["triggered_by"] != "replay" ||
			out["replayed_from"] != old || out["scheduled_for"] != "2026-11-23T10:02:40+00:00" {
			t.Errorf("replay: %v", out)
		}
		got := f.claim(worker, "w")
		if p := got["payload"].(map[string]any); got["execution_id"] != out["id"] || p["v"] != 1.0 || got["task"] != "a" || got["attempt"] != 1.0 {
			t.Errorf("claimed %v", got)
		}
		e := f.get(worker, out["id"].(string))
		if e["replayed_from"] != old || e["triggered_by"] != "replay" || e["max_attempts"] != 7.0 || e["fired_by"] == nil {
			t.Errorf("execution: %v", e)
		}
		if state := f.ok(worker, "execution.report", input{"id": out["id"], "success": true, "lease_token": got["lease_token"]})["outcome_state"]; state != verificationPending {
			t.Errorf("state: %v", state)
		}
		f.refused(f.admin, "execution.replay", input{"id": newUUID(0)}, 404, "execution_not_found")
		f.refused(worker, "execution.replay", input{"id": old}, 403, "insufficient_scope")
		f.refused(f.key("write-cues", input{"cues": []string{"x"}}), "execution.replay", input{"id": old}, 404, "execution_not_found")
	})
}

// What was missed can be replayed; a replay counts against the plan like a firing.
func TestReplayCounts(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		old := f.fire(f.cue("c", "0 0 1 1 *"), nil)
		f.clock.Advance(15 * time.Minute)
		f.settle()
		f.sql("UPDATE workspaces SET execution_limit = 2")
		f.ok(f.admin, "execution.replay", input{"id": old})
		f.ok(f.admin, "execution.replay", input{"id": old}) // over the limit: the grace begins
		f.clock.Advance(24 * time.Hour)
		f.refused(f.admin, "execution.replay", input{"id": old}, 403, "execution_limit_exceeded")
		if n := f.number("SELECT count(*) FROM executions"); n != 3 {
			t.Errorf("%d executions", n)
		}
		f.countersAreExact()
	})
}
