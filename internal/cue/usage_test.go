package cue

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Shares and projections (CueAPI wire contract 2.8); percentages are rounded half to even.
func TestUsageOf(t *testing.T) {
	now := time.Date(2026, 2, 10, 23, 59, 59, 0, time.UTC)
	got := usageOf(access.Plan{Name: "free", CueLimit: 8, ExecutionLimit: 300}, access.Usage{ActiveCues: 1, Cues: 5, Executions: 100}, now)
	want := usageObject{
		Plan: "free", BillingPeriod: billingPeriod{usagePeriod{"2026-02-01", "2026-02-28"}, 18}, Period: usagePeriod{"2026-02-01", "2026-02-28"},
		Cues:       cueUsage{Used: 5, Active: 5, Limit: 8, Remaining: 3, PercentUsed: 62},
		Executions: executionUsage{Used: 100, Limit: 300, Remaining: 200, PercentUsed: 33, Percentage: 33.3, ProjectedMonthEnd: 280},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(billingPeriod{})); diff != "" {
		t.Error(diff)
	}
	got = usageOf(access.Plan{ExecutionLimit: 280}, access.Usage{Executions: 100}, now)
	if !got.Executions.WillExceedLimit || got.Cues.PercentUsed != 100 {
		t.Errorf("280 of 280, and a limit of no cues: %+v", got)
	}
}

// The counts behind usage and lists are exact after everything that changes them.
func TestUsageCounts(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		one := f.ok(f.admin, "cue.create", newCue("one", input{"schedule": onceAt(epoch.Add(time.Minute))}))["id"]
		two := f.cue("two", "*/5 * * * *")
		f.ok(f.admin, "cue.pause", input{"id": f.cue("three", "*/5 * * * *")})
		f.clock.Advance(5 * time.Minute)
		f.settle()
		f.ok(f.admin, "cue.fire", input{"id": two})
		first := at(t, f.ok(f.admin, "cue.get", input{"id": one}), "executions").([]any)[0].(map[string]any)["id"]
		f.ok(f.admin, "execution.report", input{"id": first, "success": false})
		holds(t, f.ok(f.admin, "usage.get", nil), map[string]any{
			"plan": "self-hosted", "cues.used": 2., "cues.active": 2., "cues.limit": 1e9, "executions.used": 3.,
			"outcomes.reported": 1., "outcomes.succeeded": 0., "outcomes.failed": 1., "rate_limit.limit": 1e9,
			"billing_period.start": "2026-11-01", "billing_period.end": "2026-11-30", "period.end": "2026-11-30",
		})
		holds(t, f.ok(f.admin, "cue.list", nil), map[string]any{"total": 3.})
		for status, total := range map[string]float64{active: 1, paused: 1, failed: 1, completed: 0} {
			holds(t, f.ok(f.admin, "cue.list", input{"status": status}), map[string]any{"total": total})
		}
		f.must(f.db.View(t.Context(), func(tx *db.Tx) error {
			got, err := f.cues.Usage(tx, f.ws, f.clock.Now())
			if want := (access.Usage{ActiveCues: 1, Cues: 2, Executions: 3}); got != want {
				t.Errorf("usage %+v, want %+v", got, want)
			}
			return err
		}))
		f.ok(f.admin, "cue.delete", input{"id": two}) // deleting gives nothing back of the month
		holds(t, f.ok(f.admin, "usage.get", nil), map[string]any{"cues.used": 1., "executions.used": 3.})
		f.clock.Set(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC))
		holds(t, f.ok(f.admin, "usage.get", nil), map[string]any{"executions.used": 0., "outcomes.failed": 0., "billing_period.days_remaining": 30.})
		for _, c := range []struct{ counter, exact string }{
			{"cues:active", "SELECT count(*) FROM cues WHERE status = 'active'"}, {"cues:paused", "SELECT count(*) FROM cues WHERE status = 'paused'"},
			{"cues:failed", "SELECT count(*) FROM cues WHERE status = 'failed'"}, {"executions", "SELECT count(*) FROM executions"},
			{"status:pending", "SELECT count(*) FROM executions WHERE status = 'pending'"},
		} {
			if got, want := f.number(sqlCounterGet, f.ws, c.counter), f.number(c.exact); got != want {
				t.Errorf("counter %s is %d, want %d", c.counter, got, want)
			}
		}
	})
}

// Every answer to a key carries the warning from 80 % of the month's executions on, also right after a start, and none does below or
// in a new month (CueAPI wire contract 1.13). What is refused for the plan counts nothing.
func TestUsageWarning(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.sql("UPDATE workspaces SET execution_limit = 10")
		id := f.cue("c", "0 0 1 1 *")
		warns := func(want string) {
			t.Helper()
			for _, name := range []string{"cue.list", "key.self", "usage.get", "execution.list"} {
				if got := f.call(f.admin, name, nil).Header.Get("X-CueAPI-Usage-Warning"); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			r := f.call(f.admin, "cue.get", input{"id": "nothing"})
			if got := r.Header.Get("X-CueAPI-Usage-Warning"); r.Err == nil || got != want {
				t.Errorf("a refusal: %q, want %q", got, want)
			}
		}
		for range 7 {
			f.ok(f.admin, "cue.fire", input{"id": id})
		}
		warns("")
		f.ok(f.admin, "cue.fire", input{"id": id})
		warns("approaching_limit")
		f.restart()
		warns("approaching_limit")
		for range 3 {
			f.ok(f.admin, "cue.fire", input{"id": id}) // the third begins the grace
		}
		f.clock.Advance(planGrace - time.Microsecond)
		f.ok(f.admin, "cue.fire", input{"id": id})
		f.clock.Advance(time.Microsecond)
		f.refused(f.admin, "cue.fire", input{"id": id}, 403, "execution_limit_exceeded")
		last := f.ok(f.admin, "execution.list", input{"limit": 1})["executions"].([]any)[0].(map[string]any)["id"]
		f.ok(f.admin, "execution.report", input{"id": last, "success": true}) // claims, reports and attempts go on, and count nothing
		f.refused(f.admin, "execution.replay", input{"id": last}, 403, "execution_limit_exceeded")
		holds(t, f.ok(f.admin, "usage.get", nil), map[string]any{
			"executions.used": 12., "executions.limit": 10., "executions.remaining": 0., "executions.percent_used": 120., "executions.percentage": 120.,
			"executions.projected_month_end": 15., "executions.will_exceed_limit": true,
		})
		f.clock.Set(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC))
		warns("")
		f.restart()
		warns("")
	})
}

// Concurrent fires over the limit and after the grace: exactly as many pass as there is room for.
func TestExecutionLimitIsExact(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.cue("c", "0 0 1 1 *")
		f.sql("UPDATE workspaces SET execution_limit = 40")
		f.sql("INSERT INTO counters (workspace_id, name, value) VALUES (?1, ?2, ?3)", f.ws, countGrace(f.cues.now()), op.TimeOf(epoch.Add(-planGrace)))
		answers := make(chan *op.Response, 64)
		for range 64 {
			go func() { answers <- f.send(f.admin, "cue.fire", map[string]string{"id": id}, "") }()
		}
		passed := 0
		for range 64 {
			switch r := <-answers; {
			case r.Err == nil:
				passed++
			case r.Err.Code != ExecutionLimitExceeded:
				t.Error(r.Err)
			}
		}
		if n := f.number("SELECT count(*) FROM executions"); passed != 40 || n != 40 {
			t.Errorf("%d fires passed and left %d executions, want 40", passed, n)
		}
	})
}
