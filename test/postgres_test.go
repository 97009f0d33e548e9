package test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"unstuck/internal/access"
	"unstuck/internal/server"
	"unstuck/internal/testkit"
	"unstuck/internal/testkit/pgtest"
)

// TestPostgresBackup backs a PostgreSQL database up beside its server with PostgreSQL's own tools, as the help says, and puts the copy
// back: the server starts on it only when it is told that this was on purpose, and a key that was revoked since works again.
func TestPostgresBackup(t *testing.T) {
	t.Parallel()
	s := testkit.New(t, pgtest.DSN(t))
	for _, tool := range []string{"pg_dump", "pg_restore"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("CI must have %s", tool)
			}
			t.Skipf("there is no %s", tool)
		}
	}
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	file := filepath.Join(t.TempDir(), "unstuck.dump")
	if err := server.Backup(t.Context(), s.Settings, file); err == nil || !strings.Contains(err.Error(), "pg_dump --format=custom --file=FILE") {
		t.Errorf("unstuck backup says %v", err)
	}
	k := s.Must(s.First, "POST /v1/keys", obj{"name": "k", "scope": "full"})
	cue := s.Must(s.First, "POST /v1/cues", obj{"name": "kept", "cron": "0 0 1 1 *", "worker": true}).Str("id")
	run("pg_dump", "--format=custom", "--file="+file, s.Settings.Database)
	s.Must(s.First, "POST /v1/keys/"+k.Str("id")+"/revoke", obj{})
	s.Must(s.First, "POST /v1/cues", obj{"name": "later", "cron": "0 0 1 1 *", "worker": true})
	s.Stop()

	if _, err := server.Restore(t.Context(), s.Settings, file); err == nil || !strings.Contains(err.Error(), "--accept-rollback") {
		t.Errorf("unstuck restore says %v", err)
	}
	run("pg_restore", "--clean", "--if-exists", "--single-transaction", "--dbname="+s.Settings.Database, file)
	if err := s.Open(); !errors.Is(err, access.ErrRolledBack) {
		t.Fatalf("it starts: %v", err)
	}
	s.Settings.AcceptRollback = true
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	if r := s.Must(k.Str("key"), "GET /v1/cues", nil); len(r.JSON["cues"].([]any)) != 1 || r.JSON["cues"].([]any)[0].(obj)["id"] != cue {
		t.Errorf("there are %s", r.Body)
	}
}
