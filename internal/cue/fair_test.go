package cue

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// running lets a fixture do its duties until the test ends.
func (f *fixture) running() {
	f.Helper()
	ctx, cancel := context.WithCancel(f.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.cues.Run(ctx) }()
	f.Cleanup(func() {
		cancel()
		<-ended
	})
}

// until waits for a number in the database.
func (f *fixture) until(want int64, query string, args ...any) {
	f.Helper()
	for f.number(query, args...) != want {
		if f.Context().Err() != nil {
			return
		}
		pause(f.Context(), 2*time.Millisecond)
	}
}

const succeeded = "SELECT count(*) FROM executions WHERE status = 'success' AND endpoint LIKE '%/lives%'"

// Half of the callbacks hang: the others are called and done while those still hang, and again a minute later.
func TestHalfHang(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		hang := make(chan struct{})
		hanging := newReceiver(t)
		hanging.says(func(http.ResponseWriter, arrival) { <-hang })
		f.running()
		t.Cleanup(func() { close(hang) }) // before the duties end
		const n = 60
		for i := range n {
			f.webhook(fmt.Sprint("hangs-", i), hanging, nil)
			f.webhook(fmt.Sprint("lives-", i), r, nil)
		}
		for minute := range int64(3) {
			f.clock.Set(f.clock.Now().Truncate(time.Minute).Add(time.Minute))
			f.until((minute+1)*n, succeeded)
		}
		if done := f.number("SELECT count(*) FROM executions WHERE status = 'success' AND endpoint LIKE '%/hangs%'"); done > 0 {
			t.Errorf("%d of the hanging are done", done)
		}
	})
}

// One workspace has queued more than memory holds, for an endpoint that hangs: memory stays bounded, and another workspace's cue,
// and another endpoint of the same workspace, fire as if nothing were.
func TestLongQueue(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		hang := make(chan struct{})
		hanging := newReceiver(t)
		hanging.says(func(http.ResponseWriter, arrival) { <-hang })
		busy := f.webhook("busy", hanging, nil)
		f.ok(f.admin, "cue.pause", input{"id": busy})
		f.ok(f.admin, "cue.fire", input{"id": busy})
		var statements []string
		const columns = `workspace_id, cue_id, transport, triggered_by, fired_by, replayed_from, scheduled_for, status, task, agent, payload, verification,
			max_attempts, attempts, claimed_key, claimed_worker, claim_request, lease_token, lease_bare, outcome_state, outcome, reported_by, unfenced,
			evidence_count, has_evidence, result_type, created_at, updated_at, endpoint, deliver_at, callback, backoff, called, timeout, redelivered`
		for range 13 { // 2^13 executions
			statements = append(statements, `INSERT INTO executions (id, `+columns+`) SELECT id || '-' || (SELECT count(*) FROM executions), `+columns+`
				FROM executions WHERE cue_id = ?1`)
		}
		for _, s := range statements {
			f.sql(s, busy)
		}
		waiting := f.number("SELECT count(*) FROM executions WHERE deliver_at IS NOT NULL")
		f.webhook("lives-here", r, nil)
		second := f.ok(f.admin, "workspace.create", input{"name": "second"})["key"].(string)
		f.ok(second, "cue.create", input{"name": "lives-there", "cron": "* * * * *", "callback_url": r.URL + "/lives-there"})
		f.running()
		t.Cleanup(func() { close(hang) })
		for minute := range int64(3) {
			f.clock.Set(f.clock.Now().Truncate(time.Minute).Add(time.Minute))
			f.until((minute+1)*2, succeeded)
		}
		left := f.number("SELECT count(*) FROM executions WHERE deliver_at IS NOT NULL AND cue_id = ?1", busy)
		if held := waiting - left; held > laneMost || left == 0 {
			t.Errorf("%d of %d came into memory", held, waiting)
		}
	})
}

// One workspace has thousands of cues due at one instant; another's, due a little later, fires with the second commit.
func TestFloodOfDueTimes(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		const n = 3000
		at := f.clock.Now().Add(time.Minute)
		f.ok(f.admin, "cue.create", input{"name": "flood", "at": at, "callback_url": "https://203.0.113.9/"})
		const columns = `workspace_id, status, pause_reason, transport, schedule_type, cron, at, timezone, callback, endpoint, payload, task, agent, max_attempts,
			backoff, pause_on_failure, catch_up, next_run, run_count, fired_count, version, decided_at, created_by, created_at, updated_at, executions`
		for range 12 {
			f.sql(`INSERT INTO cues (id, name, ` + columns + `) SELECT id || '-' || (SELECT count(*) FROM cues), name || (SELECT count(*) FROM cues) || '-' || id, ` +
				columns + ` FROM cues`)
		}
		f.sql("UPDATE counters SET value = (SELECT count(*) FROM cues) WHERE name = 'cues:active'")
		if got := f.number("SELECT count(*) FROM cues"); got < n {
			t.Fatalf("%d cues", got)
		}
		second := f.ok(f.admin, "workspace.create", input{"name": "second"})["key"].(string)
		id := f.ok(second, "cue.create", input{"name": "other", "at": at.Add(time.Second), "callback_url": "https://203.0.113.10/"})["id"].(string)
		f.clock.Set(at.Add(2 * time.Second))
		f.must(f.cues.fireDue(t.Context()))
		for i, j := range f.post.all() {
			if j.cueID == id {
				if i > dueAtOnce+turnMost {
					t.Errorf("%d calls came first", i)
				}
				return
			}
		}
		t.Error("it was not called")
	})
}
