package cue

import (
	"strings"
	"testing"

	"unstuck/internal/db"
)

// What the scheduler asks every second walks its index from the beginning and sorts nothing, also where a database has no
// statistics yet.
func TestSchedulerPlans(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.plant(2000)
		for _, q := range []struct {
			query string
			args  []any
			index string
		}{
			{sqlNextDues, []any{dueAtOnce}, "cues_due"},
			{sqlNextDue, nil, "cues_due"},
			{sqlNextTurn, []any{1, "ws"}, "cues_due"},
			{sqlDuesOf, []any{1, "ws", turnMost}, "cues_due"},
			{sqlFiredIn, []any{"cue_000000000000", 0, 1}, "executions_due"},
		} {
			plan := explain(f, q.query, q.args...)
			if !strings.Contains(plan, q.index) {
				t.Errorf("%s does not use %s:\n%s", q.query, q.index, plan)
			}
			for _, bad := range []string{"Seq Scan", "Sort", "TEMP B-TREE", "Bitmap"} {
				if strings.Contains(plan, bad) {
					t.Errorf("%s has a %s:\n%s", q.query, bad, plan)
				}
			}
		}
	})
}

// explain is the database's plan for a query, as text.
func explain(f *fixture, query string, args ...any) string {
	f.Helper()
	var out strings.Builder
	f.must(f.db.Update(f.Context(), func(tx *db.Tx) error {
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
	}))
	return out.String()
}
