package db_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"unstuck/internal/db"
	"unstuck/internal/testkit/pgtest"
)

// TestBatchesAreLikeOneCallerAfterTheOther runs random batches of callers, many of which fail in some way, and compares every
// answer, every read and the rows in the end with callers that run alone, one after the other, on a map.
func TestBatchesAreLikeOneCallerAfterTheOther(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		d := open(t, db.Options{DSN: dsn})
		rapid.Check(t, func(rt *rapid.T) {
			update(t, d, func(tx *db.Tx) error { _, err := tx.Exec("DELETE FROM settings"); return err })
			model := map[string]string{}
			for range rapid.IntRange(1, 3).Draw(rt, "batches") {
				scripts := rapid.SliceOfN(scriptGenerator, 1, 8).Draw(rt, "callers")
				var callers []func() error
				var published, wantPublished []int
				for i, s := range scripts {
					callers = append(callers, caller(d, func(tx *db.Tx) error {
						tx.AfterCommit(func() { published = append(published, i) })
						return s.run(tx)
					}))
				}
				answers := together(t, d, callers...)
				for i, s := range scripts {
					want := s.runOn(model)
					if want == "" {
						wantPublished = append(wantPublished, i)
					}
					if got := outcome(answers[i]); got != want {
						rt.Fatalf("caller %d of %v: %s, want %s", i, scripts, got, want)
					}
				}
				if diff := cmp.Diff(wantPublished, published); diff != "" {
					rt.Fatalf("published: %s", diff)
				}
			}
			if diff := cmp.Diff(model, content(t, d)); diff != "" {
				rt.Fatal(diff)
			}
		})
	})
}

// script is what one caller does: some operations, then it fails or not.
type script struct {
	Steps  []operation
	Refuse bool
}

type operation struct {
	Do   string // insert, change, delete, count; ignore: insert without looking at the error
	Name string
}

var scriptGenerator = rapid.Custom(func(t *rapid.T) script {
	step := rapid.Custom(func(t *rapid.T) operation {
		return operation{
			Do:   rapid.SampledFrom([]string{"insert", "change", "delete", "count", "ignore"}).Draw(t, "do"),
			Name: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name"),
		}
	})
	return script{Steps: rapid.SliceOfN(step, 0, 4).Draw(t, "steps"), Refuse: rapid.IntRange(0, 3).Draw(t, "refuse") == 0}
})

// run does it in a transaction. The count is written as a row's value, so that what a caller reads shows in the end.
func (s script) run(tx *db.Tx) error {
	count := 0
	for _, step := range s.Steps {
		var err error
		switch step.Do {
		case "insert":
			err = set(tx, step.Name, fmt.Sprint(count))
		case "ignore":
			_ = set(tx, step.Name, fmt.Sprint(count))
		case "change":
			_, err = tx.Exec("UPDATE settings SET value = value || ?2 WHERE name = ?1", step.Name, fmt.Sprint(count))
		case "delete":
			_, err = tx.Exec("DELETE FROM settings WHERE name = ?1", step.Name)
		case "count":
			err = tx.Row("SELECT count(*) FROM settings").Scan(&count)
		}
		if err != nil {
			return err
		}
	}
	if s.Refuse {
		return errRefused
	}
	return nil
}

// runOn does the same on the model and returns the expected outcome. Behind an error that was ignored, every statement fails.
func (s script) runOn(model map[string]string) string {
	rows, count, failed := maps.Clone(model), 0, false
	for _, step := range s.Steps {
		if failed {
			if step.Do == "ignore" {
				continue
			}
			return "unique"
		}
		value, there := rows[step.Name]
		switch step.Do {
		case "insert", "ignore":
			if there && step.Do == "insert" {
				return "unique"
			}
			if failed = there; !there {
				rows[step.Name] = fmt.Sprint(count)
			}
		case "change":
			if there {
				rows[step.Name] = value + fmt.Sprint(count)
			}
		case "delete":
			delete(rows, step.Name)
		case "count":
			count = len(rows)
		}
	}
	switch {
	case s.Refuse:
		return "refused"
	case failed:
		return "unique"
	}
	clear(model)
	maps.Copy(model, rows)
	return ""
}

func outcome(err error) string {
	switch {
	case err == nil:
		return ""
	case db.IsUnique(err):
		return "unique"
	case errors.Is(err, errRefused):
		return "refused"
	}
	return err.Error()
}

// TestViewsSeeWholeUpdates moves an amount between two rows while views check the sum.
func TestViewsSeeWholeUpdates(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		d := open(t, db.Options{DSN: dsn})
		update(t, d, func(tx *db.Tx) error { return errors.Join(set(tx, "a", "100"), set(tx, "b", "0")) })
		moved := make(chan bool)
		go func() {
			defer close(moved)
			for range 100 {
				update(t, d, func(tx *db.Tx) error {
					for name, by := range map[string]int{"a": -1, "b": 1} {
						const add = "UPDATE settings SET value = CAST(CAST(value AS INTEGER) + ?2 AS TEXT) WHERE name = ?1"
						if _, err := tx.Exec(add, name, by); err != nil {
							return err
						}
					}
					return nil
				})
			}
		}()
		for done := false; !done; {
			select {
			case <-moved:
				done = true
			default:
			}
			var a, b int
			err := d.View(context.Background(), func(tx *db.Tx) error {
				const one = "SELECT value FROM settings WHERE name = ?1"
				return errors.Join(tx.Row(one, "a").Scan(&a), tx.Row(one, "b").Scan(&b))
			})
			if err != nil || a+b != 100 {
				t.Fatalf("%d and %d: %v", a, b, err)
			}
		}
	})
}
