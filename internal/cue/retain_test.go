package cue

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/op"
	"unstuck/internal/testkit/pgtest"
)

// keeping runs a test on both databases, on servers that keep executions for ten days.
func keeping(t *testing.T, fn func(t *testing.T, f *fixture)) {
	t.Helper()
	pgtest.Each(t, func(t *testing.T, dsn string) { fn(t, newFixture(t, dsn, Options{RetainFor: 10 * 24 * time.Hour})) })
}

func (f *fixture) retain() {
	f.Helper()
	f.must(f.cues.Retain(f.Context()))
}

// done has a worker end what is pending of a cue, and returns the ids, oldest first.
func (f *fixture) done(cue string) (ids []string) {
	f.Helper()
	for _, e := range f.executions(cue) {
		if id := e["id"].(string); e["status"] == statusPending {
			f.ok(f.admin, "execution.report", input{"id": id, "success": true})
			ids = append([]string{id}, ids...)
		}
	}
	return ids
}

// What has ended long ago goes, with its evidence, out of totals and lists; the month's usage stays. Its due time is in the
// ledger, and answers about it say that it is kept no longer.
func TestRetention(t *testing.T) {
	keeping(t, func(t *testing.T, f *fixture) {
		id := f.cue("c", "0 * * * *")
		var ids []string
		for range 6 {
			f.clock.Advance(time.Hour)
			f.settle()
			ids = append(ids, f.done(id)...)
		}
		f.ok(f.admin, "cue.fire", input{"id": id})
		ids = append(ids, f.done(id)...)
		f.ok(f.admin, "cue.pause", input{"id": id})
		f.clock.Advance(9*24*time.Hour + 12*time.Hour)
		f.retain()
		holds(t, f.ok(f.admin, "execution.list", nil), map[string]any{"total": 7.})
		f.clock.Advance(24 * time.Hour)
		f.retain()
		holds(t, f.ok(f.admin, "execution.list", nil), map[string]any{"total": 3.})
		holds(t, f.ok(f.admin, "execution.list", input{"status": "success"}), map[string]any{"total": 3.})
		holds(t, f.ok(f.admin, "cue.get", input{"id": id}), map[string]any{"execution_total": 3., "fired_count": 6.})
		if n := f.number("SELECT count(*) FROM evidence"); n != 3 {
			t.Errorf("%d links of evidence, want 3", n)
		}
		for i, e := range ids {
			if i > 3 {
				if check := f.ok(f.admin, "execution.check_evidence", input{"id": e}); check["ok"] != true {
					t.Errorf("evidence of %s: %v", e, check)
				}
				continue
			}
			for _, name := range []string{"execution.get", "execution.check_evidence", "execution.why", "execution.replay", "execution.report", "execution.heartbeat"} {
				args := input{"id": e}
				if name == "execution.report" {
					args["success"] = true
				}
				if err := f.refused(f.admin, name, args, 404, "execution_not_found"); err.Message != "Execution not found. Executions are kept here for 10 days after they last changed." {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		why := f.ok(f.admin, "cue.why", input{"id": id, "at": epoch.Add(time.Hour).Truncate(time.Hour).Format(time.RFC3339)})
		if why["cause"] != whyRemoved || why["sentence"] != "c was fired at 11:00 on 23 Nov 2026; how that ended is kept no longer. Executions are kept here for 10 days after they last changed." {
			t.Errorf("why: %v", why)
		}
		holds(t, f.ok(f.admin, "cue.ledger", input{"id": id, "from": "2026-11-23T11:30:00Z", "to": "2026-11-23T15:30:00Z"}), map[string]any{
			"expected": 4., "fired": 4., "closed": true, "removed.scheduled": 4., "removed.beside": 0., "removed.sealed": true,
		})
		if s := f.cues.Retained(); s.Removed != 4 || !s.Done.Equal(f.clock.Now()) {
			t.Errorf("stats: %+v", s)
		}
		f.clock.Set(time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC))
		holds(t, f.ok(f.admin, "usage.get", nil), map[string]any{"executions.used": 7., "outcomes.succeeded": 7.})
	})
}

// Where nothing is said, nothing goes.
func TestRetentionIsOffByDefault(t *testing.T) {
	f := onSQLite(t) // nothing here differs between databases
	id := f.cue("c", "0 * * * *")
	for range 5 {
		f.clock.Advance(time.Hour)
		f.settle()
		f.done(id)
	}
	f.clock.Advance(80 * 24 * time.Hour)
	f.retain()
	holds(t, f.ok(f.admin, "execution.list", nil), map[string]any{"total": 5.})
	if err := f.refused(f.admin, "execution.get", input{"id": newUUID(0)}, 404, "execution_not_found"); err.Message != "Execution not found" {
		t.Error(err)
	}
}

// What has not come to its end stays, however old: held, waiting for an outcome or a verification, named by an open alert, sent
// at a later time. So do the latest three of a cue that goes on, but not of one that is over.
func TestRetentionKeeps(t *testing.T) {
	keeping(t, func(t *testing.T, f *fixture) {
		f.cues.UnclaimedAfter = 365 * 24 * time.Hour
		id := f.cue("c", "0 0 1 1 *")
		fire := func(args input) string {
			f.clock.Advance(time.Second)
			args["id"] = id
			return f.ok(f.admin, "cue.fire", args)["execution_id"].(string)
		}
		report := func(id string, success bool) {
			f.ok(f.admin, "execution.report", input{"id": id, "success": success})
		}
		kept := map[string]string{
			"pending": fire(input{}), "sent later": fire(input{"send_at": epoch.Add(30 * 24 * time.Hour).Format(time.RFC3339)}),
			"to be verified": fire(input{}), "held": fire(input{}),
		}
		report(kept["to be verified"], true)
		f.ok(f.admin, "execution.mark_pending", input{"id": kept["to be verified"]})
		f.ok(f.admin, "execution.claim", input{"id": kept["held"], "worker_id": "w"})
		for range 2 {
			report(fire(input{}), false)
		}
		kept["of an alert"] = fire(input{})
		report(kept["of an alert"], false)
		if n := f.number("SELECT count(*) FROM alerts WHERE execution_id = ?1 AND recovered_at IS NULL", kept["of an alert"]); n != 1 {
			t.Fatalf("%d alerts", n)
		}
		for i := range 4 {
			if e := fire(input{}); i > 0 {
				kept[fmt.Sprint("latest ", i)] = e
				report(e, false)
			} else {
				report(e, false)
			}
		}
		end := f.ok(f.admin, "cue.create", newCue("once", input{"schedule": onceAt(epoch.Add(time.Minute))}))["id"].(string)
		f.clock.Advance(time.Hour)
		f.settle()
		f.done(end)
		f.clock.Advance(11 * 24 * time.Hour)
		f.sql("UPDATE executions SET lease_until = ?1, deadline = ?1 WHERE status = 'delivering'", in(f.cues.now(), time.Hour)) // it was renewed
		f.retain()
		for what, e := range kept {
			if r := f.call(f.admin, "execution.get", input{"id": e}); r.Err != nil {
				t.Errorf("%s: %v", what, r.Err)
			}
		}
		if n := f.number("SELECT count(*) FROM executions"); n != int64(len(kept)) {
			t.Errorf("%d executions are left, want %d", n, len(kept))
		}
	})
}

// A cue that fails seldom raises its alert although it counts more failures than retention keeps of others.
func TestRetentionKeepsWhatAlertsCount(t *testing.T) {
	keeping(t, func(t *testing.T, f *fixture) {
		id := f.ok(f.admin, "cue.create", newCue("weekly", input{"schedule": input{"type": "recurring", "cron": "0 0 1 1 *"}, "alerts": input{"consecutive_failures": 5}}))["id"]
		for range 8 {
			if n := f.number("SELECT count(*) FROM alerts"); n != 0 {
				break
			}
			e := f.ok(f.admin, "cue.fire", input{"id": id})["execution_id"]
			f.ok(f.admin, "execution.report", input{"id": e, "success": false})
			f.clock.Advance(12 * 24 * time.Hour)
			f.retain()
		}
		if n, all := f.number("SELECT count(*) FROM executions"), f.alerts(f.admin, nil); n != 5 || len(all) != 1 || all[0]["alert_type"] != "consecutive_failures" {
			t.Errorf("%d executions are left, alerts %v", n, all)
		}
		f.ok(f.admin, "execution.report", input{"id": f.ok(f.admin, "cue.fire", input{"id": id})["execution_id"], "success": true})
		for range 3 { // and no more than it counts
			f.ok(f.admin, "execution.report", input{"id": f.ok(f.admin, "cue.fire", input{"id": id})["execution_id"], "success": true})
			f.clock.Advance(12 * 24 * time.Hour)
			f.retain()
		}
		if n := f.number("SELECT count(*) FROM executions"); n != 5 {
			t.Errorf("%d executions are left in the end", n)
		}
	})
}

// A replay and a chain go on when what they came from is gone.
func TestRetentionLeavesReplaysAndChains(t *testing.T) {
	keeping(t, func(t *testing.T, f *fixture) {
		next := f.cue("next", "0 0 1 1 *")
		first := f.cue("first", "0 0 1 1 *")
		f.ok(f.admin, "cue.update", input{"id": first, "on_success_fire": next})
		f.ok(f.admin, "cue.fire", input{"id": first})
		old := f.done(first)[0]
		f.clock.Advance(9 * 24 * time.Hour)
		again := f.ok(f.admin, "execution.replay", input{"id": old})["execution_id"].(string)
		follows := f.done(next)[0]
		for range 3 {
			f.clock.Advance(time.Second)
			e := f.ok(f.admin, "cue.fire", input{"id": first})["execution_id"]
			f.ok(f.admin, "execution.report", input{"id": e, "success": true})
		}
		f.done(next)
		f.clock.Advance(2 * 24 * time.Hour)
		f.retain()
		f.refused(f.admin, "execution.get", input{"id": old}, 404, "execution_not_found")
		holds(t, f.ok(f.admin, "execution.get", input{"id": again}), map[string]any{"replayed_from": old, "status": statusPending})
		holds(t, f.ok(f.admin, "execution.get", input{"id": follows}), map[string]any{"chain_parent_id": old, "chain_id": old})
		f.done(first)
		if n := len(f.done(next)); n != 1 {
			t.Errorf("the success of the replay fired %d executions", n)
		}
	})
}

// An idempotency key is remembered for a day, and no execution goes sooner; afterwards the same key fires anew.
func TestRetentionAndIdempotencyKeys(t *testing.T) {
	keeping(t, func(t *testing.T, f *fixture) {
		f.cues.RetainFor = 2 * 24 * time.Hour // the least that the setting takes
		id := f.cue("c", "0 0 1 1 *")
		fire := func() any {
			return f.ok(f.admin, "cue.fire", input{"id": id, "idempotency_key": "k"})["execution_id"]
		}
		one := fire()
		f.done(id)
		for range 3 {
			f.clock.Advance(time.Second)
			f.ok(f.admin, "cue.fire", input{"id": id})
		}
		f.done(id)
		f.clock.Advance(repeatWithin - time.Minute)
		f.retain()
		if again := fire(); again != one {
			t.Errorf("%v, want %v", again, one)
		}
		f.clock.Advance(2 * 24 * time.Hour)
		f.retain()
		f.refused(f.admin, "execution.get", input{"id": one}, 404, "execution_not_found")
		if two := fire(); two == one {
			t.Error("the same execution")
		}
	})
}

// Due times in a row take one row of the ledger, in whatever order their executions go.
func TestRetentionFoldsRuns(t *testing.T) {
	keeping(t, func(t *testing.T, f *fixture) {
		id := f.cue("c", "* * * * *")
		for range 60 {
			f.clock.Advance(time.Minute)
			f.settle()
		}
		f.done(id)
		f.ok(f.admin, "cue.pause", input{"id": id})
		f.sql("UPDATE executions SET status = 'success', deadline = NULL")
		rows := func() int64 { return f.number("SELECT count(*) FROM ledger WHERE reason = 'retention'") }
		for i, some := range []string{"scheduled_for / 60000000 % 3 = 1", "scheduled_for / 60000000 % 4 = 0", "scheduled_for / 60000000 % 2 = 0", "true"} {
			f.clock.Advance(11 * 24 * time.Hour)
			f.sql("UPDATE executions SET updated_at = ?1 WHERE NOT ("+some+")", f.cues.now())
			f.retain()
			holds(t, f.ok(f.admin, "cue.ledger", input{"id": id, "from": epoch.Format(time.RFC3339)}), map[string]any{"closed": true, "removed.sealed": true, "fired": 60.})
			t.Log(i, rows())
		}
		if n := f.number("SELECT max(count) FROM ledger WHERE reason = 'retention'"); rows() != 1 || n != 57 {
			t.Errorf("%d rows, the longest of %d", rows(), n)
		}
		f.ok(f.admin, "cue.delete", input{"id": id})
		holds(t, f.ok(f.admin, "cue.ledger", input{"id": id, "from": "2026-11-23T10:30:30Z", "to": "2026-11-23T11:01:30Z"}), map[string]any{
			"closed": true, "expected": 31., "fired": 31., "removed.scheduled": 57., "removed.sealed": true,
		})
	})
}

// Who takes an execution out by hand is found out: the ledger does not close, and with a forged entry the seal does not fit, not even
// after retention went on.
func TestRetentionIsSealed(t *testing.T) {
	keeping(t, func(t *testing.T, f *fixture) {
		id := f.cue("c", "* * * * *")
		for range 10 {
			f.clock.Advance(time.Minute)
			f.settle()
			f.done(id)
		}
		f.ok(f.admin, "cue.pause", input{"id": id})
		f.clock.Advance(11 * 24 * time.Hour)
		f.retain()
		ledger := func(closed, sealed bool) {
			t.Helper()
			holds(t, f.ok(f.admin, "cue.ledger", input{"id": id, "from": epoch.Format(time.RFC3339)}), map[string]any{"closed": closed, "removed.sealed": sealed})
		}
		ledger(true, true)
		f.secrets = access.ServerSecrets(string(f.secrets) + "2:" + strings.Repeat("second", 8))
		f.restart()
		ledger(true, true)
		due := op.Time(f.number("SELECT min(scheduled_for) FROM executions"))
		f.sql("DELETE FROM executions WHERE scheduled_for = ?1", due)
		ledger(false, true)
		f.sql("UPDATE ledger SET last_at = ?1, count = count + 1 WHERE reason = 'retention' AND last_at = ?2", due, due-60_000_000)
		ledger(true, false)
		f.sql("UPDATE removals SET due = due + 1")
		ledger(true, false)
		f.ok(f.admin, "cue.fire", input{"id": id})
		f.done(id)
		f.clock.Advance(11 * 24 * time.Hour)
		f.retain()
		ledger(true, false)
		f.sql("UPDATE removals SET due = due - 1")
		ledger(true, false)
		f.sql("DELETE FROM removals")
		ledger(true, false)
	})
}

// The room of what was removed is used again.
func TestRetentionFreesRoom(t *testing.T) {
	f := newFixture(t, filepath.Join(t.TempDir(), "test.db"), Options{RetainFor: 10 * 24 * time.Hour}) // how PostgreSQL does so is its own
	pages := func() int64 { return f.number("SELECT page_count FROM pragma_page_count") }
	id := f.cue("c", "0 0 1 1 *")
	var before int64
	for round := range 4 {
		for range 200 {
			f.ok(f.admin, "cue.fire", input{"id": id, "payload_override": input{"x": strings.Repeat("x", 40_000)}})
		}
		f.sql("UPDATE executions SET status = 'success', deadline = NULL")
		if round == 1 {
			before = pages()
		}
		f.clock.Advance(11 * 24 * time.Hour)
		f.retain()
	}
	if after := pages(); after > before+before/10 {
		t.Errorf("%d pages, %d before", after, before)
	}
}

// What retention asks uses indexes, also where a database has no statistics.
func TestRetentionPlans(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.plant(2000)
		f.stock(5000)
		names, numbers := []string{"a", "b"}, []int64{1, 2}
		for _, c := range []struct {
			query string
			args  []any
		}{
			{sqlRetainNext, []any{""}}, {sqlRetainable, []any{f.ws, 1, 0, "", 10}}, {sqlRetainTake, []any{names, 1}},
			{sqlRetainEvidence, []any{numbers, names}},
			{sqlRetainCues, []any{names, numbers}}, {sqlRetainVersions, []any{names, numbers, numbers}},
			{sqlRetainFirst, []any{names, numbers, numbers}}, {sqlRetainHolds, []any{names, numbers, numbers, numbers}}, {sqlRetainJoin, []any{names, numbers, numbers}}, {sqlRemovals, []any{names}},
			{sqlRemovalsFolded, []any{"a"}},
		} {
			plan := explain(f, c.query, c.args...)
			for _, bad := range []string{"Seq Scan", "SCAN e", "SCAN c", "SCAN v", "SCAN l", "SCAN n ", "SCAN a", "Hash", "Cond: (ending"} {
				if strings.Contains(plan, bad) {
					t.Errorf("%s has a %s:\n%s", c.query, bad, plan)
				}
			}
		}
	})
}
