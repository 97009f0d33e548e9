package db_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"unstuck/internal/db"
	"unstuck/internal/testkit/pgtest"
)

func TestUpdateIsVisibleToEveryLaterView(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		d := open(t, db.Options{DSN: dsn})
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for j := range 25 {
					name := fmt.Sprint(i, " ", j)
					update(t, d, func(tx *db.Tx) error { return set(tx, name, "") })
					if _, ok := content(t, d)[name]; !ok {
						t.Errorf("%s is not there after Update returned", name)
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestViewIsOneState(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		d := open(t, db.Options{DSN: dsn})
		var before, after int
		err := d.View(context.Background(), func(tx *db.Tx) error {
			const count = "SELECT count(*) FROM settings"
			if err := tx.Row(count).Scan(&before); err != nil {
				return err
			}
			update(t, d, func(tx *db.Tx) error { return set(tx, "later", "") })
			return tx.Row(count).Scan(&after)
		})
		if err != nil || before != 0 || after != 0 {
			t.Errorf("counted %d, then %d rows in one view, %v", before, after, err)
		}
	})
}

// TestFailedCallersAreUndoneAlone puts callers that fail in every way into one commit with others that do not.
func TestFailedCallersAreUndoneAlone(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		d := open(t, db.Options{DSN: dsn})
		update(t, d, func(tx *db.Tx) error { return set(tx, "taken", "first") })
		good := func(name string) func() error {
			return caller(d, func(tx *db.Tx) error { return set(tx, name, "") })
		}
		readOnly := func(query string, answer error) func() error {
			return caller(d, func(tx *db.Tx) error {
				var n int
				return errors.Join(tx.Row(query).Scan(&n), answer)
			})
		}
		before := d.Stats()
		errs := together(t, d,
			good("a"),
			caller(d, func(tx *db.Tx) error { return errors.Join(set(tx, "undone", ""), errRefused) }),
			good("b"),
			caller(d, func(tx *db.Tx) error { return errors.Join(set(tx, "undone", ""), set(tx, "taken", "second")) }),
			readOnly("SELECT count(*) FROM settings", errRefused),
			good("c"),
			caller(d, func(tx *db.Tx) error {
				_ = set(tx, "taken", "the error is ignored")
				return nil
			}),
			good("d"),
		)
		for i, ok := range []bool{true, false, true, false, false, true, false, true} {
			if (errs[i] == nil) != ok {
				t.Errorf("caller %d: %v", i, errs[i])
			}
		}
		if !errors.Is(errs[1], errRefused) || !db.IsUnique(errs[3]) || !db.IsUnique(errs[6]) {
			t.Errorf("the wrong errors: %v", errs)
		}
		want := map[string]string{"taken": "first", "a": "", "b": "", "c": "", "d": ""}
		if diff := cmp.Diff(want, content(t, d)); diff != "" {
			t.Error(diff)
		}
		if n := d.Stats().Callers.Count - before.Callers.Count; n != 2 { // the caller that held the writer, and one for all
			t.Errorf("%d commits", n)
		}
	})
}

// TestBrokenReadIsUndoneAlone has a caller whose read fails before anybody made a savepoint, which on PostgreSQL leaves nothing
// to go on from: the others run again, one at a time.
func TestBrokenReadIsUndoneAlone(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		d := open(t, db.Options{DSN: dsn})
		errs := together(t, d,
			caller(d, func(tx *db.Tx) error { return set(tx, "a", "") }),
			caller(d, func(tx *db.Tx) error {
				rows, err := tx.Query("SELECT no_such_column FROM settings")
				if err == nil {
					rows.Close()
				}
				return err
			}),
			caller(d, func(tx *db.Tx) error { return set(tx, "b", "") }),
		)
		if errs[0] != nil || errs[1] == nil || errs[2] != nil {
			t.Errorf("answers: %v", errs)
		}
		if diff := cmp.Diff(map[string]string{"a": "", "b": ""}, content(t, d)); diff != "" {
			t.Error(diff)
		}
	})
}

// TestAfterCommit checks that what follows a commit happens once, in the order of the callers, when all of it can be read, and
// before anybody is answered; and not for a caller that was rolled back.
func TestAfterCommit(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		d := open(t, db.Options{DSN: dsn})
		var answered atomic.Int32
		var order []int
		one := func(i int, result error) func() error {
			return func() error {
				err := d.Update(context.Background(), func(tx *db.Tx) error {
					tx.AfterCommit(func() {
						if n := answered.Load(); n > 0 {
							t.Errorf("%d callers were answered before caller %d had published", n, i)
						}
						if n := len(content(t, d)); n != 8 {
							t.Errorf("caller %d published when %d rows were there", i, n)
						}
						order = append(order, i)
					})
					tx.AfterCommit(func() { order = append(order, 100+i) })
					return errors.Join(set(tx, fmt.Sprint(i), ""), result)
				})
				answered.Add(1)
				return err
			}
		}
		var callers []func() error
		var want []int
		for i := range 9 {
			var result error
			if i == 3 {
				result = errRefused
			} else {
				want = append(want, i, 100+i)
			}
			callers = append(callers, one(i, result))
		}
		together(t, d, callers...)
		if diff := cmp.Diff(want, order); diff != "" {
			t.Error(diff)
		}
	})
}

func TestContextCountsOnlyWhileWaiting(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		d := open(t, db.Options{DSN: dsn})
		cause := errors.New("the caller went away")
		ctx, cancel := context.WithCancelCause(context.Background())
		release := hold(t, d)
		waiting := make(chan error, 1)
		go func() {
			waiting <- d.Update(ctx, func(tx *db.Tx) error { return set(tx, "never", "") })
		}()
		waitFor(func() bool { return d.Stats().Waiting == 1 })
		cancel(cause)
		if err := <-waiting; !errors.Is(err, cause) { // before the writer is free
			t.Errorf("answer while waiting: %v", err)
		}
		release()
		if err := d.Update(ctx, func(*db.Tx) error { return nil }); !errors.Is(err, cause) {
			t.Errorf("answer to a caller that came too late: %v", err)
		}
		if err := d.View(ctx, func(*db.Tx) error { return nil }); !errors.Is(err, cause) {
			t.Errorf("answer to a reader that came too late: %v", err)
		}

		ctx, cancel = context.WithCancelCause(context.WithValue(context.Background(), ctxKey{}, "value"))
		err := d.Update(ctx, func(tx *db.Tx) error {
			cancel(cause)
			if tx.Context().Err() != nil || tx.Context().Value(ctxKey{}) != "value" {
				t.Error("the context of a turn must have the caller's values and no end")
			}
			return set(tx, "always", "")
		})
		if err != nil {
			t.Errorf("answer to a caller that was cancelled in its turn: %v", err)
		}
		if got := slices.Collect(maps.Keys(content(t, d))); !slices.Equal(got, []string{"always"}) {
			t.Errorf("rows %q", got)
		}
	})
}

type ctxKey struct{}

func TestWithBeforeCommit(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		d := open(t, db.Options{DSN: dsn})
		var seen []string
		note := func(name string, result error) func(*db.Tx) error {
			return func(tx *db.Tx) error {
				seen = append(seen, fmt.Sprint(name, " after ", tx.Get("who")))
				return errors.Join(set(tx, name, ""), result)
			}
		}
		ctx := db.WithBeforeCommit(context.Background(), note("first", nil))
		both := db.WithBeforeCommit(ctx, note("second", nil))
		refuse := db.WithBeforeCommit(ctx, note("third", errRefused))
		as := func(who string, result error) func(*db.Tx) error {
			return func(tx *db.Tx) error {
				tx.Put("who", who)
				return errors.Join(set(tx, who, ""), result)
			}
		}
		errs := together(t, d,
			func() error { return d.Update(both, as("anna", nil)) },
			func() error { return d.Update(both, as("bert", errRefused)) },
		)
		if errs[0] != nil || !errors.Is(errs[1], errRefused) {
			t.Error(errs)
		}
		update(t, d, func(tx *db.Tx) error {
			_, err := tx.Exec("DELETE FROM settings WHERE name = 'first'")
			return err
		})
		seen = nil
		if err := d.Update(refuse, as("cora", nil)); !errors.Is(err, errRefused) {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"first after cora", "third after cora"}, seen); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(map[string]string{"anna": "", "second": ""}, content(t, d)); diff != "" {
			t.Error(diff)
		}
	})
}

// TestNotesDoNotOutliveATurn: a function that runs again, here because another caller must be undone, starts without notes.
func TestNotesDoNotOutliveATurn(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		d := open(t, db.Options{DSN: dsn})
		runs := 0
		together(t, d,
			caller(d, func(tx *db.Tx) error {
				runs++
				if tx.Get("note") != nil {
					t.Error("a note of the run before")
				}
				tx.Put("note", 1)
				if tx.Get("note") != 1 {
					t.Error("the note is not there")
				}
				return nil
			}),
			caller(d, func(tx *db.Tx) error { return errors.Join(set(tx, "x", ""), errRefused) }),
		)
		if runs != 2 {
			t.Errorf("the function ran %d times", runs)
		}
	})
}

func TestPanicStaysWithItsCaller(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		d := open(t, db.Options{DSN: dsn})
		caught := func(fn func(*db.Tx) error) func() error {
			return func() (err error) {
				defer func() { err = fmt.Errorf("caught: %v", recover()) }()
				return d.Update(context.Background(), fn)
			}
		}
		errs := together(t, d,
			caller(d, func(tx *db.Tx) error { return set(tx, "a", "") }),
			caught(func(tx *db.Tx) error {
				_ = set(tx, "undone", "")
				panic("in the turn")
			}),
			caller(d, func(tx *db.Tx) error { return set(tx, "b", "") }),
			caught(func(tx *db.Tx) error {
				tx.AfterCommit(func() { panic("after the commit") })
				return set(tx, "c", "")
			}),
			func() error {
				var wg sync.WaitGroup
				wg.Go(func() { // as testing.T.Fatal does
					_ = d.Update(context.Background(), func(tx *db.Tx) error {
						_ = set(tx, "undone too", "")
						runtime.Goexit()
						return nil
					})
				})
				wg.Wait()
				return nil
			},
			caught(func(tx *db.Tx) error { panic("before writing") }),
			caller(d, func(tx *db.Tx) error { return set(tx, "d", "") }),
		)
		want := []string{"<nil>", "caught: in the turn", "<nil>", "caught: after the commit", "<nil>", "caught: before writing", "<nil>"}
		for i := range want {
			if got := fmt.Sprint(errs[i]); got != want[i] {
				t.Errorf("caller %d: %s, want %s", i, got, want[i])
			}
		}
		if diff := cmp.Diff(map[string]string{"a": "", "b": "", "c": "", "d": ""}, content(t, d)); diff != "" {
			t.Error(diff)
		}
		if got := caught(func(*db.Tx) error { panic("alone") })(); got.Error() != "caught: alone" {
			t.Error(got)
		}
		func() {
			defer func() { _ = recover() }()
			_ = d.View(context.Background(), func(tx *db.Tx) error { panic("in a view") })
		}()
		update(t, d, func(tx *db.Tx) error { return set(tx, "e", "") })
	})
}

func TestNestingIsRefused(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		d := open(t, db.Options{DSN: dsn})
		nothing := func(*db.Tx) error { return nil }
		nested := func(tx *db.Tx) error {
			if err := d.Update(tx.Context(), nothing); !errors.Is(err, db.ErrNested) {
				t.Errorf("an Update inside: %v", err)
			}
			if err := d.View(tx.Context(), nothing); !errors.Is(err, db.ErrNested) {
				t.Errorf("a View inside: %v", err)
			}
			return nil
		}
		update(t, d, nested)
		if err := d.View(context.Background(), nested); err != nil {
			t.Error(err)
		}
	})
}

func TestWrongUseIsRefused(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		d := open(t, db.Options{DSN: dsn})
		update(t, d, func(tx *db.Tx) error { return errors.Join(set(tx, "a", ""), set(tx, "b", "")) })
		const all = "SELECT name FROM settings"
		cases := []struct {
			name, want string
			fn         func(*db.Tx) error
		}{
			{"rows still open", "still open", func(tx *db.Tx) error {
				rows, err := tx.Query(all)
				if err != nil {
					return err
				}
				defer rows.Close()
				rows.Next()
				return set(tx, "c", "")
			}},
			{"going on after an error", "went on after an error", func(tx *db.Tx) error {
				_ = set(tx, "a", "")
				return nil
			}},
			{"a statement after an error", "an earlier statement", func(tx *db.Tx) error {
				_ = set(tx, "a", "")
				return set(tx, "c", "")
			}},
			{"a row after an error", "an earlier statement", func(tx *db.Tx) error {
				_ = set(tx, "a", "")
				var name string
				return tx.Row(all).Scan(&name)
			}},
		}
		for _, c := range cases {
			err := d.Update(context.Background(), c.fn)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", c.name, err, c.want)
			}
		}
		var kept *db.Tx
		update(t, d, func(tx *db.Tx) error { kept = tx; return nil })
		if err := set(kept, "c", ""); err == nil {
			t.Error("a transaction was used after its turn")
		}
		err := d.View(context.Background(), func(tx *db.Tx) error {
			if tx.Writable() {
				t.Error("a view says it can write")
			}
			return set(tx, "c", "")
		})
		if !errors.Is(err, db.ErrReadOnly) {
			t.Errorf("a view that writes: %v", err)
		}
		err = d.View(context.Background(), func(tx *db.Tx) error {
			var name string
			return tx.Row("INSERT INTO settings (name, value) VALUES ('c', '') RETURNING name").Scan(&name)
		})
		if !errors.Is(err, db.ErrReadOnly) {
			t.Errorf("a view that writes and reads: %v", err)
		}
		if n := len(content(t, d)); n != 2 {
			t.Errorf("%d rows", n)
		}
	})
}

// TestCloseServesWhoWaits: Close lets the calls that wait have their turn, and refuses later ones.
func TestCloseServesWhoWaits(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		d := open(t, db.Options{DSN: dsn})
		release := hold(t, d)
		answers, closed := make(chan error), make(chan error)
		for i := range 5 {
			go func() {
				answers <- d.Update(context.Background(), func(tx *db.Tx) error { return set(tx, fmt.Sprint(i), "") })
			}()
		}
		waitFor(func() bool { return d.Stats().Waiting == 5 })
		go func() { closed <- d.Close() }()
		nothing := func(*db.Tx) error { return nil }
		waitFor(func() bool { return errors.Is(d.View(context.Background(), nothing), db.ErrClosed) })
		if err := d.Update(context.Background(), nothing); !errors.Is(err, db.ErrClosed) {
			t.Errorf("an update after Close began: %v", err)
		}
		release()
		for range 5 {
			if err := <-answers; err != nil {
				t.Errorf("an update that waited: %v", err)
			}
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if n := len(content(t, open(t, db.Options{DSN: dsn}))); n != 5 {
			t.Errorf("%d rows after opening again", n)
		}
	})
}
