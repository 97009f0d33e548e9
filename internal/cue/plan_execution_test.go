package cue

import (
	"strings"
	"testing"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

// What workers and the sweep ask all the time goes straight to its rows by an index, sorts nothing, and never reads all that is
// ready or held, also where a database has no statistics yet.
func TestExecutionPlans(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.plant(2000)
		f.stock(5000)
		workspace, cue := &db.Where{}, &db.Where{}
		workspace.And("e.workspace_id = ?", f.ws)
		cue.And("e.cue_id = ?", "cue_000000000000")
		uses := func(index string, bad []string, query string, args ...any) {
			t.Helper()
			plan := explain(f, query, args...)
			if !strings.Contains(plan, index) {
				t.Errorf("%s does not use %s:\n%s", query, index, plan)
			}
			for _, b := range bad {
				if strings.Contains(plan, b) {
					t.Errorf("%s has a %s:\n%s", query, b, plan)
				}
			}
		}
		scans := []string{"Seq Scan", "SCAN e", "SCAN c"}
		check := func(index, query string, args ...any) {
			t.Helper()
			uses(index, append(scans, "Sort", "TEMP B-TREE", "(workspace_id=?)"), query, args...)
		}
		for _, c := range []struct {
			index string
			where *db.Where
			query readyQuery
		}{
			{"executions_ready ", workspace, readyQuery{anyTask: true}},
			{"executions_ready_task", workspace, readyQuery{task: "a"}},
			{"executions_ready_agent", workspace, readyQuery{anyTask: true, agent: "a"}},
			{"executions_ready_", workspace, readyQuery{task: "a", agent: "a"}},
			{"executions_ready_cue", cue, readyQuery{anyTask: true}},
			{"executions_ready_cue", cue, readyQuery{task: "a"}},
		} {
			text, args := c.query.query(c.where.Clone(), f.cues.now(), 64)
			check(c.index, text, args...)
		}
		access.OnlyCues(workspace, [][]access.Pattern{{{Prefix: "a"}}, {{Name: "b"}}})
		text, args := readyQuery{anyTask: true}.query(workspace, f.cues.now(), 64)
		check("executions_ready ", text, args...)

		names := []string{"a", "b"}
		check("executions_ready ", sqlNextReady, f.ws, 1)
		uses("executions_ready_task", append(scans, "Sort", "TEMP B-TREE"), sqlReadyTasks, f.ws, 10) // min() reads one row
		check("cues", sqlCuesMatching, f.ws, names, names, names, names, 33)
		check("executions", sqlWorkByID, names)
		check("executions", sqlHeldByIDs, names)
		check("executions", sqlEnding, "e")
		check("executions_fire_key", sqlFireRepeated, "c", "k")
		uses("executions_beside", scans, sqlBesideIn, "c", 1, 2)
		check("executions", sqlChainNext, "e")
		check("executions_deadline", sqlNextDeadline)
		check("executions_deadline", sqlDeadlines, sweepMost)
		sorts := []string{"Sort", "TEMP B-TREE"} // of few among these thousands, as of 10,000 among millions
		uses("executions_deadline", sorts, sqlBacklogStale, 1, 50)
		uses("executions_lane", sorts, sqlBacklogCalls, 1, 50)
		uses("executions_ready", sorts, sqlBacklogClaims, 1, 50)
		check("evidence", sqlEvidenceLast, 1, "e")
		uses("executions", append(scans, "executions_ready"), sqlClaim, names, names, "key", "worker", 1, "", false, 2)
		numbers := []int64{1, 2}
		uses("executions", append(scans, "executions_held"), sqlAttempts, names, numbers, names, numbers, names, names, numbers, numbers, numbers, numbers, 1, numbers)
		uses("executions", append(scans, "executions_held"), sqlHandBack, names, numbers, numbers, 1)
		uses("executions_held", scans, sqlLeasesOfRequest, "key", "worker", "request", 1)
		uses("executions_held", scans, sqlBareRenew, "key", "worker", 1, 2, 3)
		for index, in := range map[string]executionListInput{
			"executions_cue": {CueID: op.Some("c")}, "executions_status": {Status: op.Some("failed")}, "executions_worker": {WorkerID: op.Some("w")}, "executions_chain": {ChainID: op.Some("e")},
		} {
			statuses, err := in.statuses()
			f.must(err)
			w := in.where(f.ws, nil, statuses)
			uses(index, scans, sqlExecutions+w.String()+sqlExecutionsNewest+" LIMIT 20", w.Args...)
		}
	})
}
