package cue

import (
	"testing"
	"time"
)

func TestWorkers(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		f.ok(worker, "worker.heartbeat", input{"worker_id": "dead", "handlers": []string{}})
		f.clock.Advance(12 * time.Minute)
		f.ok(worker, "worker.heartbeat", input{"worker_id": "stale", "handlers": []string{"a", "b"}})
		f.clock.Advance(3 * time.Minute)
		out := f.ok(worker, "worker.heartbeat", input{"worker_id": ""})
		if len(out) != 2 || out["acknowledged"] != true || out["server_time"] != "2026-11-23T10:16:40Z" {
			t.Errorf("heartbeat: %v", out)
		}
		f.ok(worker, "worker.heartbeat", input{"worker_id": "", "handlers": []string{"c"}})
		f.ok(worker, "worker.heartbeat", input{"worker_id": ""}) // handlers are overwritten each time
		list := f.ok(worker, "worker.list", nil)["workers"].([]any)
		for i, want := range []input{
			{"worker_id": "", "heartbeat_status": "active", "seconds_since_heartbeat": 0.0, "registered_since": "2026-11-23T10:16:40Z"},
			{"worker_id": "stale", "heartbeat_status": "stale", "seconds_since_heartbeat": 180.0, "last_heartbeat": "2026-11-23T10:13:40Z"},
			{"worker_id": "dead", "heartbeat_status": "dead", "seconds_since_heartbeat": 900.0},
		} {
			w := list[i].(map[string]any)
			for k, v := range want {
				if w[k] != v {
					t.Errorf("worker %d, %s: %v, want %v", i, k, w[k], v)
				}
			}
		}
		if list[0].(map[string]any)["handlers"] != nil || len(list[1].(map[string]any)["handlers"].([]any)) != 2 || list[2].(map[string]any)["handlers"] == nil {
			t.Errorf("handlers: %v", list)
		}
		if other := f.ok(f.otherWorkspace(), "worker.list", nil)["workers"].([]any); len(other) != 0 {
			t.Errorf("another workspace sees %v", other)
		}
		f.ok(worker, "worker.delete", input{"worker_id": "dead"})
		f.refused(worker, "worker.delete", input{"worker_id": "dead"}, 404, "worker_not_found")
		if n := len(f.ok(worker, "worker.list", nil)["workers"].([]any)); n != 2 {
			t.Errorf("%d workers are left", n)
		}
	})
}

// A key that is restricted to certain cues may announce its worker, and neither list nor delete workers; one that is restricted to
// worker ids may speak for those alone.
func TestWorkersRestricted(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		cues, ids := f.key("worker", input{"cues": []string{"crm-*"}}), f.key("worker", input{"worker_ids": []string{"w"}})
		f.ok(cues, "worker.heartbeat", input{"worker_id": "any"})
		f.refused(cues, "worker.list", nil, 403, "key_restricted")
		f.refused(cues, "worker.delete", input{"worker_id": "any"}, 403, "key_restricted")
		f.ok(ids, "worker.heartbeat", input{"worker_id": "w"})
		f.refused(ids, "worker.heartbeat", input{"worker_id": "v"}, 403, "key_restricted")
		f.ok(ids, "worker.list", nil)
		f.refused(ids, "worker.delete", input{"worker_id": "any"}, 403, "key_restricted")
		f.ok(ids, "worker.delete", input{"worker_id": "w"})
	})
}

// A lease that was taken without a token is renewed by its worker's own heartbeat, for two hours after the claim at most; a client
// that shows that it knows the token renews for itself.
func TestBareLeases(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker, other, cue := f.key("worker", nil), f.key("worker", nil), f.cue("c", "0 0 1 1 *")
		for range 4 {
			f.fire(cue, nil)
		}
		bare := f.claim(worker, "w")["execution_id"].(string)
		listed := f.batch(worker, input{"worker_id": "w", "max": 1})[0]
		shown := f.claim(worker, "w")
		foreign := f.claim(worker, "v")["execution_id"].(string)
		status := func(id string) any { return f.get(worker, id)["status"] }

		f.clock.Advance(10 * time.Minute)
		f.ok(worker, "execution.heartbeat", input{"id": shown["execution_id"], "lease_token": shown["lease_token"]})
		f.ok(other, "worker.heartbeat", input{"worker_id": "w"}) // the same worker, another key
		f.ok(worker, "worker.heartbeat", input{"worker_id": "w"})
		f.clock.Advance(6 * time.Minute)
		f.settle()
		for id, want := range map[string]any{bare: "delivering", listed: "pending", shown["execution_id"].(string): "delivering", foreign: "pending"} {
			if status(id) != want {
				t.Errorf("after 16 minutes: %v, want %v", f.get(worker, id), want)
			}
		}
		for range 11 {
			f.ok(worker, "worker.heartbeat", input{"worker_id": "w"})
			f.clock.Advance(9 * time.Minute)
			f.settle()
		}
		if status(bare) != "delivering" || status(shown["execution_id"].(string)) != "missed" {
			t.Errorf("after 115 minutes: %v", f.get(worker, bare))
		}
		if until := f.get(worker, bare)["lease_until"]; until != "2026-11-23T12:01:40Z" {
			t.Errorf("the lease ends at %v, want two hours after the claim", until)
		}
		f.clock.Advance(5 * time.Minute)
		f.ok(worker, "worker.heartbeat", input{"worker_id": "w"})
		f.settle()
		if status(bare) != "pending" {
			t.Errorf("after two hours: %v", f.get(worker, bare))
		}
	})
}
