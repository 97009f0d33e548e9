package db_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"unstuck/internal/db"
	"unstuck/internal/testkit/pgtest"
)

// TestSchemasAreAlike compares what the migrations made on both databases: the columns of every table with type and
// nullability, primary keys, indexes, and references.
func TestSchemasAreAlike(t *testing.T) {
	t.Parallel()
	sqlite := open(t, db.Options{DSN: filepath.Join(t.TempDir(), "test.db")})
	postgres := open(t, db.Options{DSN: pgtest.DSN(t)})
	for _, part := range []struct {
		name, sqlite, postgres string
		least                  int // lines that must be there, so that nothing is compared with nothing
	}{
		{"columns", sqliteColumns, postgresColumns, 2},
		{"primary keys", sqliteKeys, postgresKeys, 1},
		{"indexes", sqliteIndexes, postgresIndexes, 1},
		{"references", sqliteReferences, postgresReferences, 1},
		{"strict tables", sqliteStrict, "SELECT 'every table is strict' WHERE 1 = 1 OR ?1 = ''", 1},
	} {
		want, got := lines(t, sqlite, part.sqlite), lines(t, postgres, part.postgres)
		if len(want) < part.least {
			t.Errorf("%s: only %q", part.name, want)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s differ (- SQLite, + PostgreSQL):\n%s", part.name, diff)
		}
	}
}

// lines runs a query with the name of the table of versions, which is made by the migration library, and joins the columns.
func lines(t *testing.T, d *db.DB, query string) (all []string) {
	t.Helper()
	err := d.View(context.Background(), func(tx *db.Tx) error {
		rows, err := tx.Query(query, "schema_version")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			columns, err := rows.Columns()
			if err != nil {
				return err
			}
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(any)
			}
			if err := rows.Scan(values...); err != nil {
				return err
			}
			line := make([]string, len(values))
			for i, v := range values {
				line[i] = fmt.Sprint(*v.(*any))
			}
			all = append(all, strings.Join(line, " "))
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Types are named by what they hold; text on PostgreSQL is text only if it compares bytes.
const (
	sqliteColumns = `
		SELECT m.name, c.name, CASE c.type WHEN 'TEXT' THEN 'text' WHEN 'INTEGER' THEN 'number' WHEN 'BLOB' THEN 'bytes' ELSE c.type END,
			CASE WHEN c."notnull" = 1 OR c.pk > 0 THEN 'never null' ELSE 'may be null' END, coalesce(c.dflt_value, 'no default')
		FROM sqlite_schema m JOIN pragma_table_info(m.name) c
		WHERE m.type = 'table' AND m.name NOT IN (?1, 'sqlite_sequence') ORDER BY m.name, c.cid`

	postgresColumns = `
		SELECT table_name, column_name,
			CASE WHEN data_type = 'text' AND collation_name = 'C' THEN 'text' WHEN data_type = 'bigint' THEN 'number'
				WHEN data_type = 'bytea' THEN 'bytes' ELSE data_type || ' ' || coalesce(collation_name, '') END,
			CASE is_nullable WHEN 'NO' THEN 'never null' ELSE 'may be null' END,
			coalesce(regexp_replace(column_default, '::.*', ''), 'no default')
		FROM information_schema.columns
		WHERE table_schema = current_schema() AND table_name <> ?1 ORDER BY table_name COLLATE "C", ordinal_position`

	sqliteKeys = `
		SELECT m.name, group_concat(c.name, ',' ORDER BY c.pk)
		FROM sqlite_schema m JOIN pragma_table_info(m.name) c
		WHERE m.type = 'table' AND m.name NOT IN (?1, 'sqlite_sequence') AND c.pk > 0 GROUP BY m.name ORDER BY m.name`

	postgresKeys = `
		SELECT t.relname, string_agg(pg_get_indexdef(x.indexrelid, k, true), ',' ORDER BY k)
		FROM pg_index x JOIN pg_class t ON t.oid = x.indrelid, generate_series(1, x.indnkeyatts) k
		WHERE x.indisprimary AND t.relnamespace = current_schema()::regnamespace AND t.relname <> ?1
		GROUP BY t.relname ORDER BY t.relname COLLATE "C"`

	sqliteIndexes = `
		SELECT m.name, group_concat(coalesce(c.name, 'an expression') || CASE c."desc" WHEN 1 THEN ' desc' ELSE '' END, ',' ORDER BY c.seqno) AS columns,
			CASE i."unique" WHEN 1 THEN 'unique' ELSE 'not unique' END, CASE i.partial WHEN 1 THEN 'partial' ELSE 'whole' END
		FROM sqlite_schema m JOIN pragma_index_list(m.name) i JOIN pragma_index_xinfo(i.name) c
		WHERE m.type = 'table' AND m.name NOT IN (?1, 'sqlite_sequence') AND i.origin <> 'pk' AND c.key = 1
		GROUP BY m.name, i.name, i."unique", i.partial ORDER BY 1, 2, 3, 4`

	postgresIndexes = `
		SELECT t.relname, string_agg(CASE WHEN x.indkey[k - 1] = 0 THEN 'an expression' ELSE pg_get_indexdef(x.indexrelid, k, true) END
				|| CASE x.indoption[k - 1] & 1 WHEN 1 THEN ' desc' ELSE '' END, ',' ORDER BY k) COLLATE "C" AS columns,
			CASE WHEN x.indisunique THEN 'unique' ELSE 'not unique' END COLLATE "C", CASE WHEN x.indpred IS NULL THEN 'whole' ELSE 'partial' END COLLATE "C"
		FROM pg_index x JOIN pg_class t ON t.oid = x.indrelid, generate_series(1, x.indnkeyatts) k
		WHERE NOT x.indisprimary AND t.relnamespace = current_schema()::regnamespace AND t.relname <> ?1
		GROUP BY t.relname, x.indexrelid, x.indisunique, x.indpred ORDER BY t.relname COLLATE "C", 2, 3, 4`

	sqliteReferences = `
		SELECT m.name, f."from", f."table", coalesce(f."to", 'its key'), lower(f.on_delete)
		FROM sqlite_schema m JOIN pragma_foreign_key_list(m.name) f
		WHERE m.type = 'table' AND m.name <> ?1 ORDER BY 1, 2, 3`

	postgresReferences = `
		SELECT t.relname, a.attname, r.relname, b.attname,
			CASE c.confdeltype WHEN 'a' THEN 'no action' WHEN 'r' THEN 'restrict' WHEN 'c' THEN 'cascade' WHEN 'n' THEN 'set null' ELSE 'set default' END
		FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid JOIN pg_class r ON r.oid = c.confrelid,
			generate_series(1, cardinality(c.conkey)) k, pg_attribute a, pg_attribute b
		WHERE c.contype = 'f' AND t.relnamespace = current_schema()::regnamespace AND t.relname <> ?1
			AND a.attrelid = t.oid AND a.attnum = c.conkey[k] AND b.attrelid = r.oid AND b.attnum = c.confkey[k]
		ORDER BY t.relname COLLATE "C", a.attname COLLATE "C", r.relname COLLATE "C"`

	sqliteStrict = `
		SELECT CASE WHEN count(*) = 0 THEN 'every table is strict' ELSE group_concat(name) || ' not strict' END
		FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND "strict" = 0 AND name NOT IN (?1, 'sqlite_sequence', 'sqlite_schema')`
)
