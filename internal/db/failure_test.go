package db_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"unstuck/internal/db"
	"unstuck/internal/db/powercut"
	"unstuck/internal/testkit/pgtest"
)

// TestFullDatabase fills a SQLite file that may not grow further. What does not fit is refused whole, what fits stands, and
// when there is room again all goes on.
func TestFullDatabase(t *testing.T) {
	t.Parallel()
	d := open(t, db.Options{DSN: filepath.Join(t.TempDir(), "full.db"), Pragmas: []string{"max_page_count(200)"}})
	big := strings.Repeat("v", 100_000)
	insert := func(name string) func() error {
		return caller(d, func(tx *db.Tx) error { return errors.Join(set(tx, name+" before", ""), set(tx, name, big)) })
	}
	small := func(name string) func() error {
		return caller(d, func(tx *db.Tx) error { return set(tx, name, "") })
	}
	n := 0
	for ; ; n++ {
		err := insert(fmt.Sprint(n))()
		if errors.Is(err, db.ErrDiskFull) {
			break
		}
		if err != nil || n > 10 {
			t.Fatalf("update %d: %v", n, err)
		}
	}
	errs := together(t, d, small("a"), insert("too big"), small("b"), insert("too big"), small("c"))
	for i, full := range []bool{false, true, false, true, false} {
		if errors.Is(errs[i], db.ErrDiskFull) != full || !full && errs[i] != nil {
			t.Errorf("caller %d: %v", i, errs[i])
		}
	}
	if rows := len(content(t, d)); rows != 2*n+3 {
		t.Errorf("%d rows, want %d", rows, 2*n+3)
	}
	update(t, d, func(tx *db.Tx) error { _, err := tx.Exec("DELETE FROM settings WHERE name = '0'"); return err })
	if err := insert("there is room again")(); err != nil {
		t.Error(err)
	}
}

// TestFullDisk lets the commit itself find no room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := powercut.New(t, 0)
	d := open(t, db.Options{DSN: filepath.Join(t.TempDir(), "full.db"), VFS: disk.Name()})
	one := func(name string) func() error {
		return caller(d, func(tx *db.Tx) error {
			tx.AfterCommit(func() {
				if strings.HasPrefix(name, "undone") {
					t.Errorf("%s was published", name)
				}
			})
			return set(tx, name, "")
		})
	}
	disk.SetFull(true)
	for i, err := range together(t, d, one("undone 1"), one("undone 2"), one("undone 3")) {
		if !errors.Is(err, db.ErrDiskFull) || errors.Is(err, db.ErrUnknown) {
			t.Errorf("caller %d: %v", i, err)
		}
	}
	if err := one("undone alone")(); !errors.Is(err, db.ErrDiskFull) {
		t.Error(err)
	}
	disk.SetFull(false)
	if err := one("there is room again")(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(map[string]string{"there is room again": ""}, content(t, d)); diff != "" {
		t.Error(diff)
	}
}

// TestFullPostgres pretends that the server has no room, which it says with the code 53100.
func TestFullPostgres(t *testing.T) {
	t.Parallel()
	d := open(t, db.Options{DSN: pgtest.DSN(t)})
	err := d.Update(context.Background(), func(tx *db.Tx) error {
		_, err := tx.Exec("DO $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$")
		return err
	})
	if !errors.Is(err, db.ErrDiskFull) {
		t.Error(err)
	}
	update(t, d, func(tx *db.Tx) error { return set(tx, "a", "") })
}

// TestUnknownFateOnSQLite lets the sync of a commit fail: the page may have reached the disk or not.
func TestUnknownFateOnSQLite(t *testing.T) {
	t.Parallel()
	disk := powercut.New(t, 0)
	d := open(t, db.Options{DSN: filepath.Join(t.TempDir(), "test.db"), VFS: disk.Name()})
	told := 0
	d.OnUnknown(func() { told++ })
	disk.FailSyncs(1)
	errs := together(t, d,
		caller(d, func(tx *db.Tx) error {
			tx.AfterCommit(func() { t.Error("it was published") })
			return set(tx, "a", "")
		}),
		caller(d, func(tx *db.Tx) error { return errRefused }),
		caller(d, func(tx *db.Tx) error {
			if told != 0 {
				t.Error("told too early")
			}
			return set(tx, "b", "")
		}),
	)
	if !errors.Is(errs[0], db.ErrUnknown) || !errors.Is(errs[1], errRefused) || !errors.Is(errs[2], db.ErrUnknown) {
		t.Errorf("answers: %v", errs)
	}
	if told != 1 || d.Stats().Unknown != 1 {
		t.Errorf("told %d times, counted %d", told, d.Stats().Unknown)
	}
	update(t, d, func(tx *db.Tx) error { return set(tx, "c", "") })
	if _, ok := content(t, d)["c"]; !ok {
		t.Error("the update after it is not there")
	}
}

// TestStats counts commits and callers.
func TestStats(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		d := open(t, db.Options{DSN: dsn})
		one := func(name string) func() error {
			return caller(d, func(tx *db.Tx) error { return set(tx, name, "") })
		}
		together(t, d, one("a"), one("b"), one("c"))
		s := d.Stats()
		want := db.Histogram{Bounds: []float64{1, 2, 4, 8, 16, 32, 64, 128}, Counts: []uint64{1, 0, 1, 0, 0, 0, 0, 0, 0}, Sum: 4, Count: 2}
		if diff := cmp.Diff(want, s.Callers); diff != "" {
			t.Error(diff)
		}
		if s.Commit.Count != 2 || s.Commit.Sum <= 0 || s.Waiting != 0 || s.Reruns != 0 || s.Unknown != 0 {
			t.Errorf("%+v", s)
		}
		together(t, d, one("d"), one("a"))
		if s := d.Stats(); s.Reruns != 1 {
			t.Errorf("%d batches ran again, want 1", s.Reruns)
		}
	})
}
