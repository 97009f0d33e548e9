package cue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"unstuck/internal/alert"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

// A cue fires at its moment and not a microsecond before, and moves on.
func TestNeverEarly(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.cue("c", "5 10 * * *")
		f.clock.Set(time.Date(2026, 11, 23, 10, 4, 59, 999_999_000, time.UTC))
		f.settle()
		holds(t, f.ok(f.admin, "cue.get", input{"id": id}), map[string]any{"execution_total": 0., "next_run": "2026-11-23T10:05:00Z"})
		f.clock.Advance(time.Microsecond)
		f.settle()
		f.settle() // finds nothing more
		got := f.ok(f.admin, "cue.get", input{"id": id})
		holds(t, got, map[string]any{"execution_total": 1., "fired_count": 1., "next_run": "2026-11-24T10:05:00Z", "last_run": nil})
		holds(t, got["executions"].([]any)[0].(map[string]any), map[string]any{
			"scheduled_for": "2026-11-23T10:05:00Z", "created_at": "2026-11-23T10:05:00Z", "status": "pending", "triggered_by": "scheduled", "cue_id": id,
		})
	})
}

// Thirty days of an every-minute cue are decided at once: the latest time fires, one row of the ledger stands for the others.
func TestOutage(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.cue("minutely", "* * * * *")
		f.clock.Advance(30 * 24 * time.Hour)
		f.restart()
		began := time.Now()
		f.settle()
		took := time.Since(began)
		t.Logf("30 days of minutes were decided in %v", took)
		if took > 2*time.Second {
			t.Errorf("30 days of minutes took %v to decide", took)
		}
		if n := f.number("SELECT count(*) FROM ledger"); n != 1 {
			t.Errorf("%d ledger rows, want 1", n)
		}
		got := f.ok(f.admin, "cue.ledger", input{"id": id, "from": epoch.Format(time.RFC3339)})
		holds(t, got, map[string]any{"expected": 43200., "fired": 1., "coalesced": 43199., "pending": 0., "closed": true})
		holds(t, got["entries"].([]any)[0].(map[string]any), map[string]any{
			"ending": "coalesced", "reason": "late", "first": "2026-11-23T10:02:00Z", "last": "2026-12-23T10:00:00Z", "count": 43199.,
		})
		holds(t, f.ok(f.admin, "cue.get", input{"id": id}), map[string]any{"fired_count": 1., "next_run": "2026-12-23T10:02:00Z"})
	})
}

// A step back of the clock fires nothing again, and what is made meanwhile fires once.
func TestClockStepsBack(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.cue("c", "*/10 * * * *")
		f.clock.Advance(time.Hour)
		f.settle()
		f.clock.Advance(-45 * time.Minute)
		f.settle()
		f.ok(f.admin, "cue.update", input{"id": id, "schedule": input{"type": "recurring", "cron": "*/5 * * * *"}})
		for range 24 {
			f.clock.Advance(5 * time.Minute)
			f.settle()
		}
		holds(t, f.ok(f.admin, "cue.ledger", input{"id": id}), map[string]any{"closed": true, "pending": 0., "coalesced": 5., "fired": 16.})
		if twice := f.number("SELECT count(*) - count(DISTINCT scheduled_for) FROM executions"); twice != 0 {
			t.Errorf("%d due times fired twice", twice)
		}
	})
}

// A cue that changes between the look and the commit does not fire as it was.
func TestFoundDueThenChanged(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		kept, paused, gone := f.cue("kept", "*/10 * * * *"), f.cue("paused", "*/10 * * * *"), f.cue("gone", "*/10 * * * *")
		f.clock.Advance(10 * time.Minute)
		now := f.cues.now()
		due, err := f.cues.lookUp(t.Context(), now, 10)
		if err != nil || len(due) != 3 {
			t.Fatalf("%d due, %v", len(due), err)
		}
		f.ok(f.admin, "cue.pause", input{"id": paused}) // decides what was due
		f.ok(f.admin, "cue.delete", input{"id": gone})
		if fired, err := f.cues.fireThese(t.Context(), due, now); fired != 1 || err != nil {
			t.Errorf("fired %d, %v, want the one that did not change", fired, err)
		}
		if fired, err := f.cues.fireThese(t.Context(), due, now); fired != 0 || err != nil {
			t.Errorf("fired %d more, %v", fired, err)
		}
		for id, want := range map[string]map[string]any{
			kept: {"expected": 1., "fired": 1., "closed": true}, paused: {"expected": 1., "fired": 1., "closed": true},
			gone: {"expected": 1., "skipped": 1., "closed": true, "name": "gone"},
		} {
			holds(t, f.ok(f.admin, "cue.ledger", input{"id": id}), want)
		}
	})
}

// A cue that cannot be fired holds up no other.
func TestOneBrokenCue(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		broken, fine := f.cue("broken", "*/10 * * * *"), f.cue("fine", "*/10 * * * *")
		f.sql("UPDATE cues SET timezone = 'Atlantis/Center' WHERE id = ?1", broken)
		f.clock.Advance(10 * time.Minute)
		if err := f.cues.Settle(t.Context()); err == nil {
			t.Error("firing a cue in an unknown zone succeeded")
		}
		holds(t, f.ok(f.admin, "cue.get", input{"id": fine}), map[string]any{"fired_count": 1.})
		holds(t, f.ok(f.admin, "cue.get", input{"id": broken}), map[string]any{"fired_count": 0.})
	})
}

// A due time that was written down and is none any more, as after a change of a zone's rules, does not fire; the cue goes on.
func TestDueTimeThatIsNone(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.cue("c", "0 12 * * *")
		f.sql("UPDATE cues SET next_run = ?1", op.TimeOf(epoch.Add(time.Minute)))
		f.clock.Advance(time.Hour)
		f.settle()
		holds(t, f.ok(f.admin, "cue.get", input{"id": id}), map[string]any{"fired_count": 0., "next_run": "2026-11-23T12:00:00Z"})
		f.clock.Advance(time.Hour)
		f.settle()
		holds(t, f.ok(f.admin, "cue.ledger", input{"id": id}), map[string]any{"expected": 1., "fired": 1., "closed": true})
	})
}

// Over the plan's limit executions go on for 24 hours; then due times are skipped, in one ledger row, and fire is refused; a new
// month starts anew.
func TestPlanLimit(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.sql("UPDATE workspaces SET execution_limit = 4")
		id := f.cue("hourly", "0 * * * *")
		last := f.ok(f.admin, "cue.create", newCue("once", input{"schedule": onceAt(epoch.Add(40 * time.Hour))}))["id"]
		hour := func() { f.clock.Advance(time.Hour); f.settle() }
		for range 4 { // up to the limit
			hour()
		}
		if f.cues.NearLimit(f.ws) != true {
			t.Error("four of four are not near the limit")
		}
		for range 24 { // the fifth begins the grace
			hour()
		}
		f.ok(f.admin, "cue.fire", input{"id": id})
		holds(t, f.ok(f.admin, "cue.ledger", input{"id": id}), map[string]any{"fired": 28., "skipped": 0.})
		for range 14 {
			hour()
		}
		holds(t, f.ok(f.admin, "cue.ledger", input{"id": id}), map[string]any{"expected": 42., "fired": 28., "skipped": 14., "closed": true})
		entries := f.ok(f.admin, "cue.ledger", input{"id": id})["entries"].([]any)
		if len(entries) != 1 {
			t.Errorf("entries %v, want one", entries)
		}
		holds(t, entries[0].(map[string]any), map[string]any{"ending": "skipped", "reason": "plan_limit", "count": 14.})
		f.refused(f.admin, "cue.fire", input{"id": id}, 403, "execution_limit_exceeded")
		holds(t, f.ok(f.admin, "cue.get", input{"id": last}), map[string]any{"status": "failed", "fired_count": 0.})
		holds(t, f.ok(f.admin, "cue.ledger", input{"id": last}), map[string]any{"expected": 1., "skipped": 1., "closed": true})

		warning := func() string { return f.call(f.admin, "cue.list", nil).Header.Get("X-CueAPI-Usage-Warning") }
		if w := warning(); w != "approaching_limit" {
			t.Errorf("the warning is %q", w)
		}
		f.clock.Set(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC))
		f.settle()
		f.ok(f.admin, "cue.fire", input{"id": id})
		if w := warning(); w != "" {
			t.Errorf("the warning in a new month is %q", w)
		}
	})
}

// What nobody claims is missed and fails a one-time cue; a cue that asks for it is paused.
func TestFailureEndsOrPauses(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		one := f.ok(f.admin, "cue.create", newCue("one", input{"schedule": onceAt(epoch.Add(time.Minute))}))["id"]
		stops := f.ok(f.admin, "cue.create", newCue("stops", input{"on_failure": input{"pause": true}}))["id"]
		goes := f.ok(f.admin, "cue.create", newCue("goes", nil))["id"]
		f.clock.Advance(5 * time.Minute)
		f.settle()
		f.clock.Advance(15 * time.Minute)
		f.settle()
		for id, want := range map[any]map[string]any{
			one:   {"status": "failed", "next_run": nil, "run_count": 1., "last_run": "2026-11-23T10:21:40Z"},
			stops: {"status": "paused", "next_run": nil, "run_count": 1.},
			goes:  {"status": "active", "next_run": "2026-11-23T10:25:00Z", "run_count": 1.},
		} {
			holds(t, f.ok(f.admin, "cue.get", input{"id": id}), want)
			holds(t, f.ok(f.admin, "cue.ledger", input{"id": id}), map[string]any{"closed": true})
		}
	})
}

// After a start nobody loses a lease or a chance to claim that ran out while the server was away.
func TestStartGivesTime(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.cue("c", "*/5 * * * *")
		f.ok(f.admin, "cue.fire", input{"id": id})
		claimed := f.ok(f.admin, "execution.claim", input{"worker_id": "w"})["execution_id"]
		f.ok(f.admin, "cue.fire", input{"id": id})
		f.ok(f.admin, "cue.pause", input{"id": id})
		f.clock.Advance(24 * time.Hour)
		f.restart()
		f.clock.Advance(179 * time.Second)
		f.settle()
		if n := f.number("SELECT count(*) FROM executions WHERE status IN ('pending', 'delivering')"); n != 2 {
			t.Errorf("%d executions still wait or run just after the start, want both", n)
		}
		f.ok(f.admin, "execution.report", input{"id": claimed, "success": true})
		f.clock.Advance(2 * time.Second)
		f.settle()
		if n := f.number("SELECT count(*) FROM executions WHERE status = 'missed'"); n != 1 {
			t.Errorf("%d executions missed after the grace, want 1", n)
		}
	})
}

// Run fires by itself, also what is created with an earlier time while it sleeps, and what appears behind its back. It runs
// here in a bubble whose time moves when all in it wait.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d, err := db.Open(t.Context(), db.Options{DSN: dir + "/test.db"})
		if err != nil {
			t.Fatal(err)
		}
		c, err := Open(t.Context(), Options{DB: d, Alerts: alert.Open(alert.Options{DB: d, Now: time.Now}), Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error)
		go func() { ended <- c.Run(ctx) }()

		start := time.Now()
		put := func(id string, after time.Duration, lower bool) {
			due := op.TimeOf(start.Add(after))
			must(t, d.Update(t.Context(), func(tx *db.Tx) error {
				q := &cue{id: id, workspace: "ws", name: id, status: active, transport: transportWorker, kind: once, at: &due, timezone: "UTC",
					callback: "{}", payload: "{}", backoff: "[]", maxAttempts: 1, catchUp: runOnce, nextRun: &due, version: 1}
				if lower {
					tx.AfterCommit(func() { c.alarm.lower(due) })
				}
				_, err := tx.Exec(sqlCueInsert, q.values()...)
				return err
			}))
		}
		must(t, d.Update(t.Context(), func(tx *db.Tx) error {
			_, err := tx.Exec(`INSERT INTO workspaces (id, name, slug, plan, cue_limit, execution_limit, rate_limit, webhook_secret,
				webhook_old, webhook_old_ends, alert_secret, rev, created_at, updated_at) VALUES ('ws', '', '', '', ?1, ?1, 0, ?2, ?2, 0, ?2, 0, 0, 0)`, noCap, []byte{0})
			return err
		}))
		put("late", 900*time.Millisecond, true)
		put("early", 300*time.Millisecond, true) // lowers the alarm
		put("hidden", 600*time.Millisecond, false)
		for _, want := range []struct {
			after time.Duration
			fired int64
		}{{299 * time.Millisecond, 0}, {300 * time.Millisecond, 1}, {899 * time.Millisecond, 2}, {900 * time.Millisecond, 3}} {
			<-time.After(time.Until(start.Add(want.after)))
			synctest.Wait()
			var n int64
			must(t, d.View(t.Context(), func(tx *db.Tx) error { return tx.Row("SELECT count(*) FROM executions").Scan(&n) }))
			if n != want.fired {
				t.Errorf("%d fired after %v, want %d", n, want.after, want.fired)
			}
		}
		put("unseen", 5*time.Second, false)
		<-time.After(5*time.Second + lookEvery) // it looks once a second in any case
		synctest.Wait()
		if p := c.Pulse(); time.Since(p.At) > lookEvery {
			t.Errorf("the last look was at %v", p.At)
		}
		var n int64
		must(t, d.View(t.Context(), func(tx *db.Tx) error { return tx.Row("SELECT count(*) FROM executions").Scan(&n) }))
		if n != 4 {
			t.Errorf("%d fired, want all 4", n)
		}
		over := errors.New("over")
		cancel(over)
		if err := <-ended; !errors.Is(err, over) {
			t.Errorf("Run ended with %v", err)
		}
		must(t, d.Close())
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// While callers create, pause, resume and delete, the alarm is never later than the next due time.
func TestAlarmIsNeverLate(t *testing.T) {
	f := onSQLite(t) // the alarm is memory; the order of commits is that of the writer on both databases
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 10 {
				name := fmt.Sprint(i, " ", j)
				r := f.call(f.admin, "cue.create", newCue(name, input{"schedule": onceAt(epoch.Add(time.Duration(80-8*j-i) * time.Minute))}))
				id := answer(f, "cue.create", r)["id"]
				f.ok(f.admin, "cue.pause", input{"id": id})
				if j%2 == 0 {
					f.ok(f.admin, "cue.resume", input{"id": id})
				} else {
					f.ok(f.admin, "cue.delete", input{"id": id})
				}
			}
		})
	}
	looks := make(chan struct{})
	go func() {
		defer close(looks)
		for range 200 {
			if _, err := f.cues.lookUp(t.Context(), f.cues.now(), dueAtOnce); err != nil {
				t.Error(err)
			}
		}
	}()
	wg.Wait()
	<-looks
	if next := op.Time(f.number(sqlNextDue)); f.cues.alarm.at > next {
		t.Errorf("the alarm is set for %s, but a cue is due at %s", f.cues.alarm.at, next)
	}
}
