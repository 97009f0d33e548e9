package test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"

	"unstuck/internal/db"
	"unstuck/internal/testkit"
)

// dumper reads everything that a server has stored, beside the server.
type dumper struct {
	d      *db.DB
	tables []string
}

// kept are the tables that a refused call may write to: what happened is noted there.
var kept = []string{"activity", "audit"}

func newDumper(t testing.TB, s *testkit.Server) *dumper {
	t.Helper()
	d, err := db.Open(t.Context(), db.Options{DSN: s.Settings.DSN(), ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	u := &dumper{d: d}
	names := "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
	if d.Postgres() {
		names = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"
	}
	err = d.View(t.Context(), func(tx *db.Tx) (err error) {
		u.tables, err = read(tx, names)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range u.tables {
		u.tables[i] = strings.TrimSuffix(name, " ")
	}
	u.tables = slices.DeleteFunc(u.tables, func(name string) bool { return slices.Contains(kept, name) || strings.HasPrefix(name, "sqlite_") })
	if len(u.tables) < 10 {
		t.Fatalf("there are too few tables: %q", u.tables)
	}
	return u
}

// read is all rows of a query as text.
func read(tx *db.Tx, query string) (out []string, err error) {
	rows, err := tx.Query(query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	err = scanRows(rows, func(text string) { out = append(out, text) })
	return out, err
}

func scanRows(rows *sql.Rows, fn func(string)) error {
	names, err := rows.Columns()
	if err != nil {
		return err
	}
	values := make([]any, len(names))
	at := make([]any, len(names))
	for i := range values {
		at[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(at...); err != nil {
			return err
		}
		var b strings.Builder
		for i, v := range values {
			if names[i] == "last_used_at" || names[i] == "last_used" { // also of a refused call
				continue
			}
			fmt.Fprintf(&b, "%v ", v)
		}
		fn(b.String())
	}
	return rows.Err()
}

// all is everything but what was kept about calls, a text for each table.
func (u *dumper) all(t testing.TB) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := u.d.View(context.Background(), func(tx *db.Tx) error {
		for _, table := range u.tables {
			rows, err := read(tx, "SELECT * FROM "+table)
			if err != nil {
				return fmt.Errorf("%s: %w", table, err)
			}
			slices.Sort(rows)
			out[table] = strings.Join(rows, "\n")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// differ names the tables in which two dumps differ, with the first rows that only one of them has.
func differ(a, b map[string]string) string {
	var out []string
	for table := range a {
		if a[table] == b[table] {
			continue
		}
		was, is := strings.Split(a[table], "\n"), strings.Split(b[table], "\n")
		for _, row := range is {
			if !slices.Contains(was, row) {
				out = append(out, fmt.Sprintf("%s has %.200s", table, row))
				break
			}
		}
		for _, row := range was {
			if !slices.Contains(is, row) {
				out = append(out, fmt.Sprintf("%s had %.200s", table, row))
				break
			}
		}
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}
