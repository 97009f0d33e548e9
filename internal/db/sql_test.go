package db_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"unstuck/internal/db"
	"unstuck/internal/testkit/pgtest"
)

// things is a table with a column of each type.
const things = `CREATE TABLE things (id TEXT PRIMARY KEY, n INTEGER, t TEXT, b BLOB)`

func withThings(t *testing.T, fn func(d *db.DB)) {
	t.Helper()
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		d := open(t, db.Options{DSN: dsn})
		update(t, d, func(tx *db.Tx) error { _, err := tx.Exec(things); return err })
		fn(d)
	})
}

func TestParametersAreBoundByNumber(t *testing.T) {
	withThings(t, func(d *db.DB) {
		var got []string
		update(t, d, func(tx *db.Tx) error {
			if _, err := tx.Exec("INSERT INTO things (t, id) VALUES (?2, ?1)", "first", "second"); err != nil {
				return err
			}
			const query = `SELECT id || '?1' || t || ?3 || "id" || ?1 /* ?9 */ FROM things WHERE id = ?2 -- ?8`
			rows, err := tx.Query(query, "one", "first", "three")
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var s string
				if err := rows.Scan(&s); err != nil {
					return err
				}
				got = append(got, s)
			}
			return rows.Err()
		})
		if diff := cmp.Diff([]string{"first?1secondthreefirstone"}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestWrongParametersAreRefused(t *testing.T) {
	withThings(t, func(d *db.DB) {
		for _, c := range []struct {
			query string
			args  []any
			want  string
		}{
			{"DELETE FROM things WHERE id = ?", []any{"x"}, "needs a number"},
			{"DELETE FROM things WHERE id = ?0", []any{"x"}, "needs a number"},
			{"DELETE FROM things WHERE id = ?2", []any{"x", "y"}, "never used"},
			{"DELETE FROM things WHERE id = ?1", nil, "0 arguments for 1"},
			{"DELETE FROM things WHERE id = ?1", []any{"x", "y"}, "2 arguments for 1"},
			{"DELETE FROM things WHERE id = ?1", []any{1.5}, "float64 cannot be stored"},
			{"DELETE FROM things WHERE id = ?1", []any{struct{}{}}, "cannot be stored"},
			{"DELETE FROM things WHERE id = 'never ends", nil, "never ends"},
			{"DELETE FROM things WHERE id = @list(?1)", []any{[]string{"x"}}, "behind IN"},
			{"DELETE FROM things WHERE id IN @list(?1, ?2)", []any{"x", "y"}, "one parameter"},
			{"DELETE FROM things WHERE id IN @lost(?1)", []any{"x"}, "unknown macro"},
			{"DELETE FROM things WHERE id IN (SELECT r.id FROM @rows(id ?1) AS r)", []any{[]string{"x"}}, "@rows takes"},
			{"DELETE FROM things WHERE id IN (SELECT r.id FROM @rows(id BLOB ?1) AS r)", []any{[]string{"x"}}, "not BLOB"},
			{"DELETE FROM things WHERE id IN (SELECT r.id FROM @rows(id TEXT ?1, n INTEGER ?2) AS r)", []any{[]string{"x"}, []int{}}, "one length"},
			{"DELETE FROM things WHERE id IN (SELECT r.id FROM @rows(id TEXT ?1) AS r)", []any{"x"}, "must be lists"},
		} {
			err := d.Update(context.Background(), func(tx *db.Tx) error {
				_, err := tx.Exec(c.query, c.args...)
				return err
			})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s with %v: %v, want %q", c.query, c.args, err, c.want)
			}
			err = d.View(context.Background(), func(tx *db.Tx) error { return tx.Row(c.query, c.args...).Scan() })
			if err == nil {
				t.Errorf("%s with %v was accepted as a row", c.query, c.args)
			}
		}
	})
}

// TestTextThatOneDatabaseRefuses: PostgreSQL stores no NUL byte and nothing but UTF-8, so neither does SQLite.
func TestTextThatOneDatabaseRefuses(t *testing.T) {
	withThings(t, func(d *db.DB) {
		for _, bad := range []string{"a\x00b", "\x00", "a\xffb", "\xed\xa0\x80"} {
			for _, arg := range []any{bad, &bad, []string{"fine", bad}, named(bad)} {
				err := d.Update(context.Background(), func(tx *db.Tx) error {
					_, err := tx.Exec("INSERT INTO things (id) SELECT 'x' WHERE 'x' IN @list(?1)", arg)
					return err
				})
				if !errors.Is(err, db.ErrText) {
					t.Errorf("%q as %T: %v", bad, arg, err)
				}
			}
		}
	})
}

type named string

// TestValuesComeBack writes values of every type that has a column and reads them again.
func TestValuesComeBack(t *testing.T) {
	withThings(t, func(d *db.DB) {
		rapid.Check(t, func(rt *rapid.T) {
			text := rapid.Ptr(rapid.String().Filter(func(s string) bool { return !strings.ContainsRune(s, 0) }), true).Draw(rt, "text")
			number := rapid.Ptr(rapid.Int64(), true).Draw(rt, "number")
			bytes := rapid.OneOf(rapid.Just([]byte(nil)), rapid.SliceOf(rapid.Byte())).Draw(rt, "bytes")
			var gotText *string
			var gotNumber *int64
			var gotBytes []byte
			update(t, d, func(tx *db.Tx) error {
				if _, err := tx.Exec("DELETE FROM things"); err != nil {
					return err
				}
				n, err := tx.Exec("INSERT INTO things (id, t, n, b) VALUES ('x', ?1, ?2, ?3)", text, number, bytes)
				if err != nil || n != 1 {
					return fmt.Errorf("%d rows: %w", n, err)
				}
				return tx.Row("SELECT t, n, b FROM things WHERE id = ?1", named("x")).Scan(&gotText, &gotNumber, &gotBytes)
			})
			if diff := cmp.Diff([]any{text, number}, []any{gotText, gotNumber}); diff != "" {
				rt.Error(diff)
			}
			if string(gotBytes) != string(bytes) || (gotBytes == nil) != (bytes == nil) {
				rt.Errorf("bytes %#v, want %#v", gotBytes, bytes)
			}
		})
	})
}

func TestTruthAndOtherIntegers(t *testing.T) {
	withThings(t, func(d *db.DB) {
		yes := true
		for _, arg := range []any{true, &yes, 1, int8(1), uint32(1), int64(1)} {
			var got bool
			var n int64
			err := d.View(context.Background(), func(tx *db.Tx) error {
				return tx.Row("SELECT CAST(?1 AS INTEGER), CAST(?1 AS INTEGER) = 1", arg).Scan(&n, &got)
			})
			if err != nil || n != 1 || !got {
				t.Errorf("%T %v: %d %v %v", arg, arg, n, got, err)
			}
		}
	})
}

// TestLists checks the two macros against what they stand for.
func TestLists(t *testing.T) {
	withThings(t, func(d *db.DB) {
		rapid.Check(t, func(rt *rapid.T) {
			word := rapid.SampledFrom([]string{"", "a", "b", `"`, `\`, "'", "ä", "null", "1", "[1]", "<&>"})
			ids := rapid.SliceOfNDistinct(word, 0, 6, rapid.ID).Draw(rt, "ids")
			numbers := rapid.SliceOfN(rapid.Int64(), len(ids), len(ids)).Draw(rt, "numbers")
			asked := rapid.SliceOf(word).Draw(rt, "asked")
			got := listed{}
			update(t, d, func(tx *db.Tx) error { return got.fill(tx, ids, numbers, asked) })
			want := listed{inserted: int64(len(ids)), order: strings.Join(ids, "|")}
			for i, id := range ids {
				if contains(asked, id) {
					want.in++
				} else {
					want.notIn++
				}
				if contains(numbers[:i+1], numbers[i]) {
					want.found++
				}
			}
			if got != want {
				rt.Errorf("%+v, want %+v", got, want)
			}
		})
	})
}

type listed struct {
	inserted  int64
	order     string
	in, notIn int
	found     int
}

func (l *listed) fill(tx *db.Tx, ids []string, numbers []int64, asked []string) (err error) {
	if _, err := tx.Exec("DELETE FROM things"); err != nil {
		return err
	}
	l.inserted, err = tx.Exec(`INSERT INTO things (id, n, t) SELECT r.id, r.n, CAST(r.i AS TEXT)
		FROM @rows(id TEXT ?1, n INTEGER ?2) AS r ORDER BY r.i`, ids, numbers)
	if err != nil {
		return err
	}
	rows, err := tx.Query("SELECT id FROM things ORDER BY CAST(t AS INTEGER)")
	if err != nil {
		return err
	}
	defer rows.Close()
	var order []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return err
		}
		order = append(order, id)
	}
	l.order = strings.Join(order, "|")
	return errors.Join(rows.Err(), rows.Close(),
		tx.Row("SELECT count(*) FROM things WHERE id IN @list(?1)", asked).Scan(&l.in),
		tx.Row("SELECT count(*) FROM things WHERE id NOT IN @list(?1)", asked).Scan(&l.notIn),
		tx.Row("SELECT count(*) FROM things WHERE n IN @list(?1)", numbers).Scan(&l.found))
}

func contains[T comparable](all []T, one T) bool {
	for _, e := range all {
		if e == one {
			return true
		}
	}
	return false
}

// TestNilListIsEmpty: no list is like an empty one, on both databases.
func TestNilListIsEmpty(t *testing.T) {
	withThings(t, func(d *db.DB) {
		update(t, d, func(tx *db.Tx) error { _, err := tx.Exec("INSERT INTO things (id) VALUES ('x')"); return err })
		for _, none := range []any{[]string(nil), []string{}, []named(nil)} {
			var in, notIn int
			err := d.View(context.Background(), func(tx *db.Tx) error {
				return errors.Join(tx.Row("SELECT count(*) FROM things WHERE id IN @list(?1)", none).Scan(&in),
					tx.Row("SELECT count(*) FROM things WHERE id NOT IN @list(?1)", none).Scan(&notIn))
			})
			if err != nil || in != 0 || notIn != 1 {
				t.Errorf("%#v: %d in, %d not in, %v", none, in, notIn, err)
			}
		}
	})
}

func TestUpdateFromRows(t *testing.T) {
	withThings(t, func(d *db.DB) {
		var sum int64
		update(t, d, func(tx *db.Tx) error {
			_, err := tx.Exec("INSERT INTO things (id, n) SELECT r.id, 0 FROM @rows(id TEXT ?1) AS r", []string{"a", "b", "c"})
			if err != nil {
				return err
			}
			n, err := tx.Exec("UPDATE things SET n = r.n FROM @rows(id TEXT ?1, n INTEGER ?2) AS r WHERE things.id = r.id AND things.n = 0",
				[]string{"a", "c", "d"}, []int64{math.MaxInt64 - 7, 7, 1})
			if err != nil || n != 2 {
				return fmt.Errorf("%d rows changed: %w", n, err)
			}
			return tx.Row("SELECT sum(n) FROM things").Scan(&sum)
		})
		if sum != math.MaxInt64 {
			t.Errorf("sum %d", sum)
		}
	})
}

// TestTextSortsByBytes: on PostgreSQL text columns do not follow the language of the database.
func TestTextSortsByBytes(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		d := open(t, db.Options{DSN: dsn})
		var got []string
		update(t, d, func(tx *db.Tx) error {
			return errors.Join(set(tx, "ä", ""), set(tx, "a", ""), set(tx, "B", ""), set(tx, "_", ""), set(tx, "b", ""))
		})
		err := d.View(context.Background(), func(tx *db.Tx) error {
			rows, err := tx.Query("SELECT name FROM settings ORDER BY name")
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var name string
				if err := rows.Scan(&name); err != nil {
					return err
				}
				got = append(got, name)
			}
			return rows.Err()
		})
		if diff := cmp.Diff([]string{"B", "_", "a", "b", "ä"}, got); diff != "" || err != nil {
			t.Error(diff, err)
		}
	})
}
