// Package pgtest gives tests a PostgreSQL: one throw-away server for each test process, started when the first test asks for
// it, and one fresh database for each test that asks.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
)

// created numbers the databases of this process.
var created atomic.Int64

// DSN returns the address of an empty database that is dropped when the test ends. Without PostgreSQL on the machine the test
// is skipped, but fails if the environment variable CI is set.
func DSN(t testing.TB) string {
	t.Helper()
	s, err := server()
	if err != nil {
		end(t, err, os.Getenv("CI") != "")
	}
	name := fmt.Sprintf("test_%d", created.Add(1))
	if err := s.admin(t.Context(), "CREATE DATABASE "+name+" TEMPLATE template0"); err != nil {
		t.Fatalf("make the database of a test: %v", err)
	}
	t.Cleanup(func() {
		if err := s.admin(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop the database of a test: %v", err)
		}
	})
	return s.dsn(name)
}

// end ends a test that cannot have a database. Only a machine without PostgreSQL may skip it, and never in CI.
func end(t testing.TB, err error, ci bool) {
	t.Helper()
	if errors.Is(err, errMissing) && !ci {
		t.Skip(err)
	}
	t.Fatal(err)
}

// Each runs a test on both databases: with the path of a SQLite file that does not exist yet, and with the address of an empty
// PostgreSQL database (see [DSN]).
func Each(t *testing.T, fn func(t *testing.T, dsn string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { fn(t, filepath.Join(t.TempDir(), "test.db")) })
	t.Run("postgres", func(t *testing.T) { fn(t, DSN(t)) })
}

// Durable makes commits wait for the disk from now on, for all databases of this process. Benchmarks call it.
func Durable(t testing.TB) {
	t.Helper()
	s, err := server()
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{"ALTER SYSTEM SET fsync = on", "ALTER SYSTEM SET full_page_writes = on", "SELECT pg_reload_conf()"} {
		if err := s.admin(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
}

// dsn is the address of a database of the server, which listens on a socket in its directory only.
func (s *instance) dsn(database string) string {
	q := url.Values{"host": {s.dir}, "user": {role}}
	return "postgres:///" + database + "?" + q.Encode()
}

// admin runs a statement that concerns whole databases.
func (s *instance) admin(ctx context.Context, statement string) (err error) {
	conn, err := pgx.Connect(ctx, s.dsn("postgres"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	_, err = conn.Exec(ctx, statement)
	return err
}
