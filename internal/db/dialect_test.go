package db

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestStatement(t *testing.T) {
	for _, c := range []struct{ query, sqlite, postgres string }{
		{"SELECT 1", "SELECT 1", "SELECT 1"},
		{"SELECT ?1, ?12, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11", "", "SELECT $1, $12, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11"},
		{"SELECT ?1 WHERE a = ?1 AND b = ?2", "", "SELECT $1 WHERE a = $1 AND b = $2"},
		{"SELECT '?2 it''s', \"?3\" -- ?4\n, ?1 /* ?5 */", "", "SELECT '?2 it''s', \"?3\" -- ?4\n, $1 /* ?5 */"},
		{"SELECT CAST(?1 AS INTEGER), cast(b AS blob), integers", "", "SELECT CAST($1 AS BIGINT), cast(b AS BYTEA), integers"},
		{"a IN @list(?1)", "a IN (SELECT value FROM json_each(?1))", "a = ANY($1)"},
		{"a not in\n @list( ?1 )", "a NOT IN (SELECT value FROM json_each(?1))", "a <> ALL($1)"},
		{"FROM @rows(id TEXT ?2) AS r WHERE x = ?1", "FROM (SELECT value AS id, key + 1 AS i FROM json_each(?2)) AS r WHERE x = ?1",
			"FROM (SELECT * FROM unnest($2::TEXT[]) WITH ORDINALITY AS u(id, i)) AS r WHERE x = $1"},
		{"FROM @rows(a TEXT ?1, b integer ?2) AS r", "FROM (SELECT value ->> 0 AS a, value ->> 1 AS b, key + 1 AS i FROM json_each(?3)) AS r",
			"FROM (SELECT * FROM unnest($1::TEXT[], $2::BIGINT[]) WITH ORDINALITY AS u(a, b, i)) AS r"},
		{"FROM @rows(a TEXT ?1, b TEXT ?2) AS r, @rows(c TEXT ?2, d TEXT ?3) AS s WHERE x IN @list(?4)",
			"FROM (SELECT value ->> 0 AS a, value ->> 1 AS b, key + 1 AS i FROM json_each(?5)) AS r, (SELECT value ->> 0 AS c, value ->> 1 AS d, key + 1 AS i FROM json_each(?6)) AS s WHERE x IN (SELECT value FROM json_each(?4))",
			"FROM (SELECT * FROM unnest($1::TEXT[], $2::TEXT[]) WITH ORDINALITY AS u(a, b, i)) AS r, (SELECT * FROM unnest($2::TEXT[], $3::TEXT[]) WITH ORDINALITY AS u(c, d, i)) AS s WHERE x = ANY($4)"},
	} {
		if c.sqlite == "" {
			c.sqlite = c.query
		}
		for d, want := range map[dialect]string{sqlite: c.sqlite, postgres: c.postgres} {
			st, err := d.statement(c.query)
			if err != nil || st.text != want {
				t.Errorf("%q for %d: %v\n got %s\nwant %s", c.query, d, err, st.text, want)
			}
		}
	}
}

func TestStatementKnowsWhatWrites(t *testing.T) {
	for query, want := range map[string]bool{
		"SELECT a FROM b":                          false,
		"SELECT 'INSERT', \"update\" -- delete":    false,
		"SELECT updated_at FROM b":                 false,
		"SELECT replace(a, 'x', 'y') FROM b":       false,
		"insert INTO b VALUES (1) RETURNING a":     true,
		"WITH x AS (SELECT 1) DELETE FROM b":       true,
		"UPDATE b SET a = 1":                       true,
		"WITH x AS (UPDATE b SET a = 1) SELECT 1 ": true,
	} {
		if st, err := sqlite.statement(query); err != nil || st.writes != want {
			t.Errorf("%s: writes %t, %v", query, st.writes, err)
		}
	}
}

// TestLexLosesNothing: the tokens of any text are the text, so what is not rewritten stays as it is.
func TestLexLosesNothing(t *testing.T) {
	piece := rapid.SampledFrom([]string{"'", "''", `"`, "--", "\n", "/*", "*/", "?1", "?", "@rows", "(", ")", "a", "ä", " ", "SELECT", "$", ";"})
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOf(piece).Draw(t, "pieces"), "")
		tokens, err := lex(text)
		if err != nil {
			return // something in it never ends
		}
		var b strings.Builder
		for _, token := range tokens {
			b.WriteString(token.text)
		}
		if b.String() != text {
			t.Errorf("%q became %q", text, b.String())
		}
	})
}

func TestMigrationText(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"CREATE TABLE a (b TEXT PRIMARY KEY, c INTEGER NOT NULL, d BLOB) STRICT;",
			`CREATE TABLE a (b TEXT COLLATE "C" PRIMARY KEY, c BIGINT NOT NULL, d BYTEA) ;`},
		{"CREATE TABLE a (b TEXT, PRIMARY KEY (b)) STRICT, WITHOUT ROWID;", `CREATE TABLE a (b TEXT COLLATE "C", PRIMARY KEY (b))    ;`},
		{"CREATE TABLE a (b text) WITHOUT ROWID, STRICT", `CREATE TABLE a (b TEXT COLLATE "C")    `},
		{"ALTER TABLE a ADD COLUMN e TEXT NOT NULL DEFAULT 'TEXT'; -- TEXT", `ALTER TABLE a ADD COLUMN e TEXT COLLATE "C" NOT NULL DEFAULT 'TEXT'; -- TEXT`},
		{"INSERT INTO a SELECT CAST(c AS TEXT), CAST(b AS INTEGER) FROM a", "INSERT INTO a SELECT CAST(c AS TEXT), CAST(b AS BIGINT) FROM a"},
	} {
		if got, err := postgres.migration(c.text); err != nil || strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(c.want), " ") {
			t.Errorf("%v\n got %s\nwant %s", err, got, c.want)
		}
		if got, err := sqlite.migration(c.text); err != nil || got != c.text {
			t.Errorf("%s changed for SQLite: %s, %v", c.text, got, err)
		}
	}
	if _, err := postgres.migration("DELETE FROM a WHERE b = ?1"); err == nil {
		t.Error("a migration with a parameter was accepted")
	}
}

// TestMigrationFiles: numbers have no gaps, and nothing goes back.
func TestMigrationFiles(t *testing.T) {
	all, err := readMigrations()
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range all {
		if m.version != int64(i+1) {
			t.Errorf("%s stands in place %d", m.name, i+1)
		}
		if strings.Contains(m.text, "+goose") {
			t.Errorf("%s has marks of a migration tool: migrations are plain SQL and go forward only", m.name)
		}
	}
}
