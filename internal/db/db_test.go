package db_test

import (
	"context"
	"errors"
	"testing"

	"unstuck/internal/db"
	"unstuck/internal/testkit/pgtest"
)

// open opens a database that is closed when the test ends.
func open(t testing.TB, o db.Options) *db.DB {
	t.Helper()
	d, err := db.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

func set(tx *db.Tx, name, value string) error {
	_, err := tx.Exec("INSERT INTO settings (name, value) VALUES (?1, ?2)", name, value)
	return err
}

func TestUpdateIsSeenByView(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, dsn string) {
		d := open(t, db.Options{DSN: dsn})
		ctx := context.Background()
		if err := d.Update(ctx, func(tx *db.Tx) error { return set(tx, "a", "1") }); err != nil {
			t.Fatal(err)
		}
		var got string
		if err := d.View(ctx, func(tx *db.Tx) error {
			return tx.Row("SELECT value FROM settings WHERE name = ?1", "a").Scan(&got)
		}); err != nil {
			t.Fatal(err)
		}
		if got != "1" {
			t.Errorf("got %q", got)
		}
		err := d.Update(ctx, func(tx *db.Tx) error { return set(tx, "a", "2") })
		if !db.IsUnique(err) {
			t.Errorf("a second row of one name: %v, want a unique violation", err)
		}
		var ids int
		if err := d.View(ctx, func(tx *db.Tx) error {
			return tx.Row(`SELECT count(*) FROM @rows(id TEXT ?1, due INTEGER ?2) AS r WHERE r.id IN @list(?3) AND r.id NOT IN @list(?4)`,
				[]string{"x", "y"}, []int64{1, 2}, []string{"y", "z"}, []string(nil)).Scan(&ids)
		}); err != nil || ids != 1 {
			t.Error(ids, err)
		}
		_ = errors.Is
	})
}
