package db

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
)

// migrations are plain SQL for SQLite's STRICT tables, forward only, one transaction each, named NNNN_what.sql. See
// dialect.migration for what PostgreSQL gets.
//
//go:embed migrations/*.sql
var migrations embed.FS

// versionTable is where goose notes which migrations have run.
const versionTable = "schema_version"

// migration is one file.
type migration struct {
	version int64
	name    string
	text    string
}

// readMigrations returns the embedded migrations in their order.
func readMigrations() ([]migration, error) {
	entries, err := migrations.ReadDir("migrations")
	if err != nil {
		return nil, err
	}
	var all []migration
	for _, e := range entries {
		number, _, _ := strings.Cut(e.Name(), "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("the migration %s has no number", e.Name())
		}
		text, err := migrations.ReadFile(path.Join("migrations", e.Name()))
		if err != nil {
			return nil, err
		}
		all = append(all, migration{version, e.Name(), string(text)})
	}
	slices.SortFunc(all, func(a, b migration) int { return int(a.version - b.version) })
	return all, nil
}

// Latest is the version of the schema that this program works with.
func Latest() int64 {
	all, err := readMigrations()
	if err != nil || len(all) == 0 {
		panic(fmt.Sprintf("db: the embedded migrations cannot be read: %v", err)) // a test reads them
	}
	return all[len(all)-1].version
}

// migrate brings the schema up to date and returns its version; a read-only database stays as it is.
func migrate(ctx context.Context, e engine, d dialect, o Options) (int64, error) {
	all, err := readMigrations()
	if err != nil {
		return 0, err
	}
	know := all[len(all)-1].version
	have, err := e.schemaVersion(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the version of the schema: %w", err)
	}
	if have > know {
		return have, &NewerError{Have: have, Know: know}
	}
	if have == know || o.ReadOnly {
		return have, nil
	}
	steps, err := goMigrations(all, d)
	if err != nil {
		return have, err
	}
	kind := goose.DialectSQLite3
	if d == postgres {
		kind = goose.DialectPostgres
	}
	provider, err := goose.NewProvider(kind, e.pool(), nil, goose.WithGoMigrations(steps...),
		goose.WithDisableGlobalRegistry(true), goose.WithTableName(versionTable), goose.WithSlog(o.Log))
	if err != nil {
		return have, err
	}
	if _, err := provider.Up(ctx); err != nil {
		return have, fmt.Errorf("migrate from version %d to %d: %w", have, know, classify(err))
	}
	o.Log.Info("the schema is up to date", "from", have, "version", know)
	return know, nil
}

// readVersion is the number of the last migration; 0 when a query says that no table of them is there.
func readVersion(ctx context.Context, pool *sql.DB, isThere string) (int64, error) {
	var there bool
	if err := pool.QueryRowContext(ctx, isThere).Scan(&there); err != nil || !there {
		return 0, classify(err)
	}
	var v int64
	err := pool.QueryRowContext(ctx, "SELECT coalesce(max(version_id), 0) FROM "+versionTable).Scan(&v)
	return v, classify(err)
}

// goMigrations makes one step of goose from each file.
func goMigrations(all []migration, d dialect) ([]*goose.Migration, error) {
	var steps []*goose.Migration
	for _, m := range all {
		text, err := d.migration(m.text)
		if err != nil {
			return nil, fmt.Errorf("the migration %s: %w", m.name, err)
		}
		up := func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, text); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			return nil
		}
		down := func(context.Context, *sql.Tx) error { return errors.New("migrations go forward only") }
		steps = append(steps, goose.NewGoMigration(m.version, &goose.GoFunc{RunTx: up}, &goose.GoFunc{RunTx: down}))
	}
	return steps, nil
}
