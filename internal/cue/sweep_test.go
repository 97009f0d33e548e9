package cue

import (
	"testing"
	"time"
)

// An execution whose lease ran out is offered again, at once and with one attempt more, until they are used up; then it failed.
func TestLeaseExpires(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker, cue := f.key("worker", nil), f.cue("c", "0 0 1 1 *")
		id := f.fire(cue, nil)
		for attempt := 1.0; attempt <= 3; attempt++ {
			got := f.claim(worker, "w")
			if got["execution_id"] != id || got["attempt"] != attempt {
				t.Fatalf("attempt %v: %v", attempt, got)
			}
			f.clock.Advance(15*time.Minute - time.Microsecond)
			f.settle()
			if e := f.get(worker, id); e["status"] != "delivering" {
				t.Fatalf("before the end of its lease: %v", e)
			}
			f.clock.Advance(time.Microsecond)
			f.settle()
			e := f.get(worker, id)
			if attempt < 3 && (e["status"] != "pending" || e["claimed_by_worker"] != nil || e["claimed_at"] != nil || e["started_at"] != nil || e["lease_until"] != nil || e["attempts"] != attempt) {
				t.Errorf("offered again: %v", e)
			}
		}
		e := f.get(worker, id)
		if e["status"] != "failed" || e["claimed_by_worker"] != "w" || e["outcome"] != nil || e["error_message"] != "The lease of worker w ended without a report; it was attempt 3 of 3" {
			t.Errorf("after three attempts: %v", e)
		}
		f.refused(worker, "execution.claim", input{"worker_id": "w"}, 409, "claim_failed")
		if o := f.ok(f.admin, "usage.get", nil)["outcomes"].(map[string]any); o["reported"] != 0.0 || o["failed"] != 1.0 {
			t.Errorf("usage: %v", o)
		}
		f.ok(worker, "execution.report", input{"id": id, "success": true}) // late, and not lost
		if e := f.get(worker, id); e["status"] != "success" {
			t.Errorf("late report: %v", e)
		}
		if o := f.ok(f.admin, "usage.get", nil)["outcomes"].(map[string]any); o["reported"] != 1.0 || o["succeeded"] != 1.0 || o["failed"] != 0.0 {
			t.Errorf("usage: %v", o)
		}
	})
}

// The wait to be claimed counts from the moment at which an execution could be claimed, anew after every lease.
func TestUnclaimedIsMissed(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker, cue := f.key("worker", nil), f.cue("c", "0 0 1 1 *")
		at := f.clock.Now().Add(time.Hour)
		later := f.fire(cue, input{"send_at": at.Format(time.RFC3339)})
		now := f.fire(cue, nil)
		status := func(id string) any { return f.get(worker, id)["status"] }
		f.clock.Advance(15*time.Minute - time.Microsecond)
		f.settle()
		if status(now) != "pending" {
			t.Errorf("before the end of the wait: %v", status(now))
		}
		f.clock.Advance(time.Microsecond)
		f.settle()
		if e := f.get(worker, now); e["status"] != "missed" || e["error_message"] != "No worker claimed this execution within timeout window" {
			t.Errorf("at the end of the wait: %v", e)
		}
		f.refused(worker, "execution.claim_one", input{"id": now, "worker_id": "w"}, 409, "claim_failed")

		f.clock.Set(at.Add(14 * time.Minute))
		f.settle()
		if got := f.claim(worker, "w"); got["execution_id"] != later {
			t.Fatalf("claimed %v", got)
		}
		f.clock.Advance(15 * time.Minute) // its lease ends; the wait begins anew
		f.settle()
		f.clock.Advance(14 * time.Minute)
		f.settle()
		if status(later) != "pending" {
			t.Errorf("offered again for 14 minutes: %v", status(later))
		}
		f.clock.Advance(time.Minute)
		f.settle()
		if status(later) != "missed" {
			t.Errorf("offered again for 15 minutes: %v", status(later))
		}
	})
}

// A one-time cue fails when its execution is missed.
func TestMissedEndsOneTimeCue(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		cue := f.ok(f.admin, "cue.create", newCue("once", input{"schedule": onceAt(f.clock.Now().Add(time.Minute))}))["id"].(string)
		f.clock.Advance(time.Minute)
		f.settle()
		f.clock.Advance(15 * time.Minute)
		f.settle()
		if q := f.ok(f.admin, "cue.get", input{"id": cue}); q["status"] != failed {
			t.Errorf("cue: %v", q)
		}
	})
}

// While the server was away nobody could renew or claim: after a start every lease and every wait goes on for 180 seconds at
// least.
func TestRestartMovesDeadlines(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		held, token := f.taken(worker, "")
		waiting := f.fire(f.cue("c", "0 0 1 1 *"), nil)
		later := f.fire(f.cue("d", "0 0 1 1 *"), input{"send_at": f.clock.Now().Add(24 * time.Hour).Format(time.RFC3339)})
		f.clock.Advance(2 * time.Hour)
		f.restart()
		f.settle()
		f.clock.Advance(restartGrace - time.Microsecond)
		f.settle()
		for id, want := range map[string]string{held: "delivering", waiting: "pending", later: "pending"} {
			if got := f.get(worker, id)["status"]; got != want {
				t.Errorf("before the end of the grace: %v, want %s", got, want)
			}
		}
		if until := f.get(worker, held)["lease_until"]; until != "2026-11-23T12:04:40Z" {
			t.Errorf("the lease lasts until %v", until)
		}
		f.clock.Advance(time.Microsecond)
		f.settle()
		for id, want := range map[string]string{held: "pending", waiting: "missed", later: "pending"} {
			if got := f.get(worker, id)["status"]; got != want {
				t.Errorf("after the grace: %v, want %s", got, want)
			}
		}
		f.ok(worker, "execution.report", input{"id": held, "lease_token": token, "success": true})
	})
}

// More may be over than one transaction ends.
func TestSweepsAll(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker, n := f.key("worker", nil), 2*sweepMost+1
		f.stock(n)
		for got := 0; got < n; {
			got += len(f.batch(worker, input{"worker_id": "w", "max": 100}))
		}
		f.clock.Advance(15 * time.Minute)
		f.settle()
		if got := f.number("SELECT count(*) FROM executions WHERE status = 'pending'"); got != int64(n) {
			t.Errorf("%d of %d are offered again", got, n)
		}
		f.clock.Advance(15 * time.Minute)
		f.settle()
		if got := f.number("SELECT count(*) FROM executions WHERE status = 'missed'"); got != int64(n) {
			t.Errorf("%d of %d are missed", got, n)
		}
		f.countersAreExact()
	})
}

// countersAreExact holds every counter of executions against the rows.
func (f *fixture) countersAreExact() {
	f.Helper()
	for _, query := range []string{
		`SELECT count(*) FROM (SELECT workspace_id, status, count(*) AS n FROM executions GROUP BY workspace_id, status) AS g
			LEFT JOIN counters k ON k.workspace_id = g.workspace_id AND k.name = 'status:' || g.status WHERE coalesce(k.value, 0) <> g.n`,
		`SELECT count(*) FROM cues c WHERE c.executions <> (SELECT count(*) FROM executions e WHERE e.cue_id = c.id)`,
		`SELECT abs((SELECT count(*) FROM executions) - (SELECT coalesce(sum(value), 0) FROM counters WHERE name = 'executions'))`,
		`SELECT abs((SELECT count(*) FROM executions) - (SELECT coalesce(sum(value), 0) FROM counters WHERE name >= 'status:' AND name < 'status;'))`,
		`SELECT abs((SELECT count(*) FROM executions WHERE outcome_success = 1) - (SELECT coalesce(sum(value), 0) FROM counters WHERE name >= 'succeeded:' AND name < 'succeeded;'))`,
		`SELECT abs((SELECT count(*) FROM executions WHERE outcome_success = 0 OR outcome_success IS NULL AND status IN ('failed', 'missed', 'outcome_timeout'))
			- (SELECT coalesce(sum(value), 0) FROM counters WHERE name >= 'failed:' AND name < 'failed;'))`,
	} {
		if n := f.number(query); n != 0 {
			f.Errorf("%d counters are wrong: %s", n, query)
		}
	}
}
