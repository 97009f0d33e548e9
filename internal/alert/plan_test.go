package alert

import (
	"fmt"
	"strings"
	"testing"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
	"unstuck/internal/testkit/pgtest"
)

// stored opens a database with so many cues, each with some alerts of which one is open.
func stored(t *testing.T, dsn string, cues int) *db.DB {
	t.Helper()
	d, err := db.Open(t.Context(), db.Options{DSN: dsn, NoStatistics: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	err = d.Update(t.Context(), func(tx *db.Tx) error {
		a := &Alerts{}
		for i := range cues {
			cue := fmt.Sprintf("cue_%012d", i)
			for recovered := range int64(5) {
				n := &New{Workspace: "ws", Type: Missed, CueID: cue, CueName: cue, ExecutionID: "e"}
				if err := a.add(tx, n, warning, Words{Title: "t"}, 1, op.Time(recovered-1)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// What is asked with each execution that ends, and what lists ask, goes to its rows by an index, also where a database has no
// statistics yet.
func TestPlans(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, dsn string) {
		d := stored(t, dsn, 1000)
		about := &db.Where{}
		about.And("a.workspace_id = ?", "ws")
		about.And("a.cue_id = ? AND a.cue_id <> ''", "cue_000000000001")
		all := &db.Where{}
		all.And("a.workspace_id = ?", "ws")
		few := all.Clone()
		access.OnlyCues(few, [][]access.Pattern{{{Name: "a"}}})
		for _, q := range []struct {
			index, query string
			args         []any
		}{
			{"alerts_open", sqlAgain, []any{"c", "", Missed, 1}},
			{"alerts_open", sqlOpen, []any{[]string{"a", "b"}}},
			{"alerts_", sqlClose, []any{"c", 1}},
			{"alerts_", sqlEnd, []any{"c", 1}},
			{"alerts_", sqlKeyOver, []any{"k", 1, 2}},
			{"alerts_over", sqlOld, []any{1, 200}},
			{"alerts", sqlForget, []any{[]string{"a", "b"}}},
			{"alerts_cue", sqlAlertMailed, []any{"c", "e", 1}},
			{"alerts_cue", sqlLetterOf, []any{"c", "e"}},
			{"alerts_list", sqlLetters, []any{"ws", 1, 10}},
			{"alerts_cue", sqlGone, []any{"ws", "c"}},
			{"alerts", sqlAck, []any{"id", 1, "key"}},
			{"alerts_cue", sqlAlerts + about.String() + sqlNewest + " LIMIT 20", about.Args},
			{"alerts_list", sqlAlerts + all.String() + sqlNewest + " LIMIT 20", all.Args},
			{"alerts_list", sqlAlerts + few.String() + sqlNewest + " LIMIT 20", few.Args},
		} {
			plan := explain(t, d, q.query, q.args...)
			if !strings.Contains(plan, q.index) {
				t.Errorf("%s does not use %s:\n%s", q.query, q.index, plan)
			}
			for _, bad := range []string{"Seq Scan on alerts", "SCAN a ", "SCAN alerts"} {
				if strings.Contains(plan+" ", bad) {
					t.Errorf("%s has a %s:\n%s", q.query, bad, plan)
				}
			}
		}
	})
}

// explain is the database's plan for a query, as text.
func explain(t *testing.T, d *db.DB, query string, args ...any) string {
	t.Helper()
	var out strings.Builder
	err := d.Update(t.Context(), func(tx *db.Tx) error {
		prefix := "EXPLAIN QUERY PLAN "
		if tx.Postgres() {
			prefix = "EXPLAIN "
		}
		rows, err := tx.Query(prefix+query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			columns, err := rows.Columns()
			if err != nil {
				return err
			}
			row := make([]any, len(columns))
			for i := range row {
				row[i] = new(string)
			}
			if err := rows.Scan(row...); err != nil {
				return err
			}
			out.WriteString(*row[len(row)-1].(*string) + "\n")
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}
