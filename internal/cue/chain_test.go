package cue

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// run fires a cue and reports its execution as a success or not; it returns the execution's id.
func (f *fixture) run(cue string, success bool) string {
	f.Helper()
	id := f.ok(f.admin, "cue.fire", input{"id": cue})["id"].(string)
	f.ok(f.admin, "execution.claim_one", input{"id": id, "worker_id": "w"})
	f.ok(f.admin, "execution.report", input{"id": id, "success": success})
	return id
}

// A success fires the next cue, that one's success the one after it. All carry the id of the first, which the list filters by; the
// ledger shows them beside the due times.
func TestChain(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		load := f.ok(f.admin, "cue.create", newCue("load", input{"payload": input{"what": "load"}}))["id"].(string)
		report := f.ok(f.admin, "cue.create", newCue("report", input{"on_success_fire": "load"}))["id"].(string)
		holds(t, f.ok(f.admin, "cue.create", newCue("fetch", input{"on_success_fire": report})), map[string]any{"on_success_fire": report})

		f.run("fetch", false)
		if n := f.number("SELECT count(*) FROM executions"); n != 1 {
			t.Fatalf("a failure fired something: %d executions", n)
		}
		f.clock.Advance(time.Second)
		first := f.run("fetch", true)
		second := f.executions(report)[0]
		holds(t, f.ok(f.admin, "execution.get", input{"id": first}), map[string]any{"chain_id": first, "chain_parent_id": nil, "chain_depth": 0., "chain_child_id": second["id"], "chain_stopped": nil})
		holds(t, second, map[string]any{"chain_id": first, "chain_parent_id": first, "chain_depth": 1., "triggered_by": "chain", "status": "pending", "fired_by": nil})
		f.clock.Advance(time.Second)
		f.ok(f.admin, "execution.claim", input{"worker_id": "w"})
		f.ok(f.admin, "execution.report", input{"id": second["id"], "success": true})
		f.ok(f.admin, "execution.report", input{"id": second["id"], "success": true}) // a repetition fires nothing
		third := f.executions(load)[0]
		holds(t, third, map[string]any{"chain_id": first, "chain_parent_id": second["id"], "chain_depth": 2., "payload.what": "load"})
		holds(t, f.ok(f.admin, "execution.list", input{"chain_id": first}), map[string]any{"total": 3., "executions.0.id": third["id"]})
		holds(t, f.ok(f.admin, "execution.list", input{"triggered_by": "chain"}), map[string]any{"total": 2.})
		holds(t, f.ok(f.admin, "cue.ledger", input{"id": load}), map[string]any{"expected": 0., "closed": true, "beside.chain": 1., "beside.manual_fire": 0.})
		holds(t, f.ok(f.admin, "cue.ledger", input{"id": "fetch"}), map[string]any{"beside.chain": 0., "beside.manual_fire": 2., "beside.replay": 0.})
		holds(t, f.ok(f.admin, "usage.get", nil), map[string]any{"executions.used": 4.})

		holds(t, f.ok(f.admin, "cue.update", input{"id": "fetch", "description": "x"}), map[string]any{"on_success_fire": report})
		holds(t, f.ok(f.admin, "cue.update", input{"id": "fetch", "on_success_fire": nil}), map[string]any{"on_success_fire": nil})
		f.run("fetch", true)
		holds(t, f.ok(f.admin, "cue.ledger", input{"id": report}), map[string]any{"beside.chain": 1.})
	})
}

// What a success is: the policy accepts it, sooner or later, and of a callback a 2xx is enough where nothing else is asked for. It
// fires once.
func TestChainWaitsForVerification(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		next := f.cue("next", "0 0 1 1 *")
		for i, c := range []struct {
			mode  string
			after string // operation that verifies
			args  input
		}{
			{"require_external_id", "execution.add_evidence", input{"external_id": "x"}},
			{"manual", "execution.verify", input{}},
			{"require_result_url", "", input{}},
		} {
			name := fmt.Sprintf("c%d", i)
			f.ok(f.admin, "cue.create", newCue(name, input{"on_success_fire": next, "verification": input{"mode": c.mode}}))
			before := len(f.executions(next))
			c.args["id"] = f.run(name, true)
			if n := len(f.executions(next)); n != before {
				t.Errorf("%s: fired before it was verified", c.mode)
			}
			if c.after == "" {
				continue
			}
			f.ok(f.admin, c.after, c.args)
			if n := len(f.executions(next)); n != before+1 {
				t.Errorf("%s: fired %d times when it was verified", c.mode, n-before)
			}
			f.ok(f.admin, "execution.mark_pending", input{"id": c.args["id"]})
			f.ok(f.admin, "execution.verify", input{"id": c.args["id"]})
			if n := len(f.executions(next)); n != before+1 {
				t.Errorf("%s: fired again when it was verified again", c.mode)
			}
		}
	})
}

// Of callbacks: a 2xx, the answer, or a report.
func TestChainOfCallbacks(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		for i, c := range []struct {
			change input
			answer string
			report input
			fires  bool
		}{
			{change: input{}, fires: true},
			{change: input{"delivery": input{"outcome_by": "reply"}}, answer: `{"success":true}`, fires: true},
			{change: input{"delivery": input{"outcome_by": "reply"}}, answer: `{"success":false}`},
			{change: input{"delivery": input{"outcome_by": "report"}}},
			{change: input{"delivery": input{"outcome_by": "report"}}, report: input{"success": true}, fires: true},
			{change: input{"verification": input{"mode": "require_external_id"}}},
			{change: input{"verification": input{"mode": "require_external_id"}}, report: input{"success": true, "external_id": "x"}, fires: true},
		} {
			r.status(200, c.answer)
			next := f.webhook(fmt.Sprintf("next%d", i), r, input{"cron": "0 0 1 1 *"})
			c.change["on_success_fire"], c.change["cron"] = next, "0 0 1 1 *"
			id := f.webhook(fmt.Sprintf("first%d", i), r, c.change)
			execution := f.ok(f.admin, "cue.fire", input{"id": id})["id"]
			f.settle()
			if c.report != nil {
				c.report["id"] = execution
				f.ok(f.admin, "execution.report", c.report)
				f.settle()
			}
			got := f.executions(next)
			if (len(got) == 1) != c.fires {
				t.Errorf("%d: fired %d", i, len(got))
			}
			if len(got) == 1 {
				holds(t, got[0], map[string]any{"status": "success", "chain_parent_id": execution})
			}
		}
	})
}

// Where the next cue cannot be fired, the execution says why.
func TestChainStops(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		next := f.cue("next", "0 0 1 1 *")
		f.ok(f.admin, "cue.create", newCue("first", input{"on_success_fire": next}))
		stopped := func(why string) {
			t.Helper()
			id := f.run("first", true)
			holds(t, f.ok(f.admin, "execution.get", input{"id": id}), map[string]any{"status": "success", "chain_stopped": why, "chain_child_id": nil, "chain_id": id})
			if all := facts(f.ok(f.admin, "execution.why", input{"id": id})); !strings.Contains(all, "fired no other cue after it: the next one ") {
				t.Errorf("why does not tell of it:\n%s", all)
			}
		}
		f.ok(f.admin, "cue.pause", input{"id": next})
		stopped("paused")
		f.ok(f.admin, "cue.resume", input{"id": next})
		f.run("first", true)
		if n := len(f.executions(next)); n != 1 {
			t.Errorf("resumed, it was fired %d times", n)
		}
		id := f.ok(f.admin, "cue.fire", input{"id": "first"})["id"]
		f.sql("UPDATE workspaces SET execution_limit = 1")
		f.clock.Advance(planGrace)
		f.sql("INSERT INTO counters (workspace_id, name, value) VALUES (?1, ?2, ?3)", f.ws, countGrace(f.cues.now()), int64(f.cues.now())-planGrace.Microseconds())
		f.restart()
		f.ok(f.admin, "execution.report", input{"id": id, "success": true})
		holds(t, f.ok(f.admin, "execution.get", input{"id": id}), map[string]any{"chain_stopped": "plan_limit"})
		f.sql("UPDATE workspaces SET execution_limit = 1000000000")
		f.restart()
		f.ok(f.admin, "cue.delete", input{"id": next})
		stopped("gone")
	})
}

// Cues never fire each other in a circle, whatever edits come in whatever order: an edit that would close one is refused, and no
// other is.
func TestChainsHaveNoCircle(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		const n = 8
		seed := uint64(time.Now().UnixNano())
		t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, 1))
		next, ids := map[int]int{}, make([]string, n)
		for i := range ids {
			ids[i] = f.cue(fmt.Sprintf("c%d", i), "0 0 1 1 *")
		}
		for range 150 {
			from, to := random.IntN(n), random.IntN(n)
			if random.IntN(5) == 0 {
				f.ok(f.admin, "cue.update", input{"id": ids[from], "on_success_fire": nil})
				delete(next, from)
				continue
			}
			circle := false
			for at, ok := to, true; ok && !circle; at, ok = next[at] {
				circle = at == from
			}
			args := input{"id": ids[from], "on_success_fire": ids[to]}
			if circle {
				e := f.refused(f.admin, "cue.update", args, 422, "validation_error")
				if !strings.Contains(e.Message, fmt.Sprintf(`"c%d" leads back to "c%d": their successes would fire each other without end`, to, from)) {
					t.Fatal(e.Message)
				}
				continue
			}
			f.ok(f.admin, "cue.update", args)
			next[from] = to
		}
	})
}

// The next cue is one that the key sees; nothing else is told about it.
func TestChainRefuses(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		hidden := f.cue("hidden", "0 0 1 1 *")
		key := f.key("write-cues", input{"cues": []string{"mine-*"}})
		for _, next := range []string{hidden, "hidden", "none"} {
			e := f.refused(key, "cue.create", newCue("mine-a", input{"on_success_fire": next}), 422, "validation_error")
			if !strings.Contains(e.Message, "there is no cue") {
				t.Error(e.Message)
			}
		}
		second := f.ok(f.admin, "workspace.create", input{"name": "second"})["key"].(string)
		f.refused(second, "cue.create", newCue("a", input{"on_success_fire": hidden}), 422, "validation_error")
		last := hidden
		for i := range chainMost - 1 {
			last = f.ok(f.admin, "cue.create", newCue(fmt.Sprintf("c%d", i), input{"on_success_fire": last}))["id"].(string)
		}
		last = f.ok(f.admin, "cue.create", newCue("long", input{"on_success_fire": last}))["id"].(string)
		e := f.refused(f.admin, "cue.create", newCue("too-long", input{"on_success_fire": last}), 422, "validation_error")
		if !strings.Contains(e.Message, "more than 100 cues would follow one another") {
			t.Error(e.Message)
		}
	})
}

// What a fire asks to be checked reaches the worker with the work, and whoever looks at the execution.
func TestExitCriteria(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.cue("c", "0 0 1 1 *")
		criteria := []any{"the file is there", map[string]any{"rows": 3.}}
		for range 2 {
			f.ok(f.admin, "cue.fire", input{"id": id, "exit_criteria": criteria, "idempotency_key": "k"})
		}
		f.refused(f.admin, "cue.fire", input{"id": id, "idempotency_key": "k"}, 409, "idempotency_key_conflict")
		got := f.ok(f.admin, "execution.claim", input{"worker_id": "w"})
		holds(t, got, map[string]any{"exit_criteria": criteria})
		holds(t, f.ok(f.admin, "execution.get", input{"id": got["execution_id"]}), map[string]any{"exit_criteria": criteria})
		f.ok(f.admin, "execution.report", input{"id": got["execution_id"], "success": true})
		again := f.ok(f.admin, "execution.replay", input{"id": got["execution_id"]})["id"]
		holds(t, f.ok(f.admin, "execution.claim_one", input{"id": again, "worker_id": "w"}), map[string]any{"exit_criteria": criteria})
		f.ok(f.admin, "cue.fire", input{"id": id})
		list := f.ok(f.admin, "execution.claim", input{"worker_id": "w", "max": 3})
		if e := list["executions"].([]any)[0].(map[string]any); e["exit_criteria"] != nil {
			t.Errorf("of a fire without: %v", e["exit_criteria"])
		}
	})
}
