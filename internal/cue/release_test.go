package cue

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// What a worker gives back is offered again at once. Work that had not begun was no attempt; work that had was one, and the last
// one is a failure, as when a lease ends.
func TestRelease(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		id := f.fire(f.cue("c", "0 0 1 1 *"), nil)
		take := func() input { return input{"id": id, "lease_token": f.claim(worker, "w")["lease_token"]} }
		for range 5 { // more often than there are attempts
			untouched := take()
			untouched["begun"] = false
			if got := f.ok(worker, "execution.release", untouched); got["status"] != "pending" || got["execution_id"] != id {
				t.Fatalf("given back untouched: %v", got)
			}
			if e := f.get(worker, id); e["attempts"] != 0.0 || e["claimed_by_worker"] != nil || e["lease_until"] != nil {
				t.Fatalf("given back untouched: %v", e)
			}
		}
		for attempt := 1.0; attempt < 3; attempt++ {
			held := take()
			if got := f.ok(worker, "execution.release", held); got["status"] != "pending" {
				t.Errorf("attempt %v, given back: %v", attempt, got)
			}
			f.refused(worker, "execution.heartbeat", held, 409, "stale_claim")
			f.refused(worker, "execution.release", held, 409, "stale_claim")
			if e := f.get(worker, id); e["attempts"] != attempt || e["error_message"] != "Worker w gave it back; offered again" {
				t.Errorf("attempt %v: %v", attempt, e)
			}
			if why := f.ok(f.admin, "execution.why", input{"id": id})["sentence"].(string); !strings.Contains(why, "is offered again because its worker gave it back: attempt") {
				t.Errorf("why: %s", why)
			}
			if got := f.claimable(worker, nil); !slices.Equal(got, []string{id}) {
				t.Errorf("claimable: %v", got)
			}
		}
		if got := f.ok(worker, "execution.release", take()); got["status"] != "failed" {
			t.Errorf("the last attempt, given back: %v", got)
		}
		if e := f.get(worker, id); e["status"] != "failed" || e["error_message"] != "Worker w gave it back; it was attempt 3 of 3" {
			t.Errorf("after the last attempt: %v", e)
		}
		if o := f.ok(f.admin, "usage.get", nil)["outcomes"].(map[string]any); o["failed"] != 1.0 {
			t.Errorf("usage: %v", o)
		}
	})
}

// Only who holds the work can give it back.
func TestReleaseIsFenced(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		id := f.fire(f.cue("c", "0 0 1 1 *"), nil)
		token := f.claim(worker, "w")["lease_token"]
		for _, c := range []struct {
			key    string
			args   input
			status int
			code   string
		}{
			{worker, input{"id": id}, 422, "validation_error"},
			{worker, input{"id": id, "lease_token": ""}, 422, "validation_error"},
			{worker, input{"id": id, "lease_token": "other"}, 409, "stale_claim"},
			{worker, input{"id": id, "lease_token": token, "worker_id": "v"}, 403, "not_execution_owner"},
			{worker, input{"id": newUUID(0), "lease_token": token}, 404, "execution_not_found"},
			{f.otherWorkspace(), input{"id": id, "lease_token": token}, 404, "execution_not_found"},
			{f.key("read-only", nil), input{"id": id, "lease_token": token}, 403, "insufficient_scope"},
		} {
			f.refused(c.key, "execution.release", c.args, c.status, c.code)
		}
		f.clock.Advance(15 * time.Minute)
		f.settle()
		f.claim(worker, "v")
		f.refused(worker, "execution.release", input{"id": id, "lease_token": token}, 409, "stale_claim")
	})
}
