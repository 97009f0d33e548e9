package test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/cli"
	"unstuck/internal/db"
	"unstuck/internal/db/powercut"
	"unstuck/internal/server"
	"unstuck/internal/testkit"
)

// serve runs `unstuck serve` on a data folder until it ends, and answers how it ended and what it said.
func serve(t *testing.T, data string, env map[string]string, args ...string) (code int, said string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = cli.Run(t.Context(), cli.Env{
		Getenv: func(name string) string { return env[name] }, Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr, Now: time.Now, Zone: time.UTC,
	}, append([]string{"serve", "--data", data, "--listen", "127.0.0.1:0"}, args...)...)
	if stdout.Len() > 0 {
		t.Errorf("it said on stdout: %s", stdout.String())
	}
	return code, stderr.String()
}

// TestServeRefuses starts servers that must not start. Each says why in a sentence and ends with a code of its own, and what was
// stored is as before: the right start finds all of it.
func TestServeRefuses(t *testing.T) {
	t.Parallel()
	secretFile := func(s *testkit.Server) string { return filepath.Join(s.Settings.Data, "secret") }
	write := func(t *testing.T, path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	none := func(*testing.T, *testkit.Server) {}
	for _, c := range []struct {
		name    string
		running bool // the first server runs on
		spoil   func(*testing.T, *testkit.Server)
		env     map[string]string
		args    []string
		code    int
		says    []string
	}{
		{name: "a second server", running: true, spoil: none, code: 1, says: []string{"another server", "process", "stop it first"}},
		{name: "a newer database", spoil: func(t *testing.T, s *testkit.Server) { setVersion(t, s, 9999) }, code: 1, says: []string{"newer version of this program", "9999"}},
		{name: "another server secret", spoil: func(t *testing.T, s *testkit.Server) { write(t, secretFile(s), "1:"+strings.Repeat("ab", 32)+"\n") }, code: 1, says: []string{"server secret"}},
		{name: "no server secret", spoil: func(t *testing.T, s *testkit.Server) {
			if err := os.Remove(secretFile(s)); err != nil {
				t.Fatal(err)
			}
		}, code: 1, says: []string{"secret"}},
		{name: "an empty server secret", spoil: func(t *testing.T, s *testkit.Server) { write(t, secretFile(s), "") }, code: 1, says: []string{"secret"}},
		{name: "a server secret cut short", spoil: func(t *testing.T, s *testkit.Server) { write(t, secretFile(s), "1:abc\n") }, code: 1, says: []string{"secret", "short"}},
		{name: "a wrong secret in the environment", spoil: none, env: map[string]string{"UNSTUCK_SECRET": strings.Repeat("x", 40)}, code: 1, says: []string{"secret"}},
		{name: "no database but a file", spoil: func(t *testing.T, s *testkit.Server) {
			write(t, s.Settings.DSN(), strings.Repeat("this is no database", 1000))
			_ = os.Remove(s.Settings.DSN() + "-wal") // which may be there
		}, code: 1, says: []string{"database"}},
		{name: "a data folder that is a file", spoil: none, args: []string{"--data", "/dev/null/x"}, code: 1, says: []string{"data folder"}},
		{name: "an address that others reach", spoil: none, args: []string{"--listen", "0.0.0.0:0"}, code: 2, says: []string{"UNSTUCK_DOMAIN", "UNSTUCK_TLS_CERT", "UNSTUCK_TRUSTED_PROXIES", "UNSTUCK_PLAIN_HTTP"}},
		{name: "settings that do not fit", spoil: none, args: []string{"--log-level", "loud", "--lease", "soon"}, code: 2, says: []string{"LOG_LEVEL", "soon"}},
		{name: "an unknown flag", spoil: none, args: []string{"--lisen", ":1"}, code: 2, says: []string{"lisen"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := testkit.New(t, "")
			cue := s.Must(s.First, "POST /v1/cues", obj{"name": "kept", "cron": "0 0 1 1 *", "worker": true}).Str("id")
			if !c.running {
				s.Stop()
			}
			kept := copyFolder(t, s.Settings.Data)
			c.spoil(t, s)
			code, said := serve(t, s.Settings.Data, c.env, c.args...)
			if code != c.code {
				t.Errorf("it ended with %d: %s", code, said)
			}
			for _, word := range c.says {
				if !strings.Contains(said, word) {
					t.Errorf("it does not say %q: %s", word, said)
				}
			}
			if trace.MatchString(said) || strings.Contains(said, "0x") {
				t.Errorf("it shows its inside: %s", said)
			}
			if !c.running {
				pasteFolder(t, kept, s.Settings.Data, "secret", "unstuck.db", "unstuck.db-wal")
				if err := s.Open(); err != nil {
					t.Fatal(err)
				}
			}
			if r := s.Must(s.First, "GET /v1/cues/"+cue, nil); r.Str("name") != "kept" {
				t.Errorf("afterwards: %s", r.Body)
			}
		})
	}
}

// setVersion writes a version of the schema that this program does not know.
func setVersion(t *testing.T, s *testkit.Server, version int64) {
	t.Helper()
	d, err := db.Open(t.Context(), db.Options{DSN: s.Settings.DSN()})
	if err != nil {
		t.Fatal(err)
	}
	err = d.Update(t.Context(), func(tx *db.Tx) error {
		_, err := tx.Exec("INSERT INTO schema_version (version_id, is_applied) VALUES (?1, ?2)", version, true)
		return err
	})
	if err := errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
}

// copyFolder keeps what is in the regular files of a folder.
func copyFolder(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	found, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, f := range found {
		if !f.Type().IsRegular() {
			continue
		}
		if out[f.Name()], err = os.ReadFile(filepath.Join(dir, f.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// pasteFolder brings some files of a folder back as they were; one that was not there goes.
func pasteFolder(t *testing.T, kept map[string][]byte, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, name)
		text, ok := kept[name]
		if !ok {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBusyAddress starts a server where another program listens.
func TestBusyAddress(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	code, said := serve(t, t.TempDir(), nil, "--listen", l.Addr().String())
	if code != 1 || !strings.Contains(said, l.Addr().String()) || !strings.Contains(said, "Is another server running?") {
		t.Errorf("%d: %s", code, said)
	}
}

// TestRollback puts an older copy of the database in the place of a newer one, in which a key was revoked since. The server does
// not start, unless it is told that this was on purpose.
func TestRollback(t *testing.T) {
	t.Parallel()
	s := testkit.New(t, "")
	k := s.Must(s.First, "POST /v1/keys", obj{"name": "k", "scope": "full"})
	s.Stop()
	old := copyFolder(t, s.Settings.Data)
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	s.Must(s.First, "POST /v1/keys/"+k.Str("id")+"/revoke", obj{})
	s.Stop()
	pasteFolder(t, old, s.Settings.Data, "unstuck.db", "unstuck.db-wal")
	if err := s.Open(); !errors.Is(err, access.ErrRolledBack) {
		t.Fatalf("it starts: %v", err)
	}
	code, said := serve(t, s.Settings.Data, nil)
	if code != 1 || !strings.Contains(said, "--accept-rollback") || !strings.Contains(said, "audit.heads") {
		t.Errorf("%d: %s", code, said)
	}
	s.Settings.AcceptRollback = true
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	s.Must(k.Str("key"), "GET /v1/keys/self", nil) // as it was then
}

// TestFullDiskUnderServer fills the disk under a running server: reading goes on, a write is refused with a sentence and changes
// nothing, and when there is room again everything works and all is there.
func TestFullDiskUnderServer(t *testing.T) {
	t.Parallel()
	disk := powercut.New(t, 1)
	s := testkit.NewWith(t, testkit.Setup{Deps: func(d *server.Deps) { d.VFS = disk.Name() }})
	w := newWorld(s)
	claim := s.Must(s.First, "POST /v1/executions/"+w.execution+"/claim", obj{"worker_id": "w"})
	dump := newDumper(t, s)
	before := dump.all(t)
	disk.SetFull(true)
	full := 0
	for i := 0; full < 5; i++ { // the log has some room left
		r := s.Do(s.First, "POST /v1/cues", obj{"name": w.name("big"), "cron": "0 0 1 1 *", "worker": true, "payload": obj{"text": strings.Repeat("x", 100_000)}})
		switch {
		case r.Status == 201 && i < 200:
			before = dump.all(t)
		case r.Status == 503 && strings.Contains(string(r.Body), "full") && wrongForm(r) == "":
			full++
		default:
			t.Fatalf("%s", gist(r))
		}
	}
	outcome := obj{"success": true, "lease_token": claim.Str("lease_token"), "result": strings.Repeat("y", 16_000)}
	for _, q := range []request{
		{route: "POST /v1/executions/" + w.execution + "/outcome", body: outcome},
		{route: "POST /v1/keys/" + w.spare + "/revoke", body: obj{"reason": strings.Repeat("z", 400)}},
		{route: "POST /v1/keys", body: obj{"name": "k", "scope": "worker"}},
	} {
		if r := s.Do(s.First, q.route, q.body); r.Status != 503 && r.Status >= 300 {
			t.Errorf("%s on a full disk: %s", q.route, gist(r))
		} else if r.Status < 300 {
			before = dump.all(t)
		}
	}
	for _, route := range []string{"GET /v1/cues", "GET /v1/keys", "GET /v1/executions/" + w.execution} {
		s.Must(s.First, route, nil)
	}
	if left := differ(before, dump.all(t)); left != "" {
		t.Errorf("a write that was refused left something behind: %s", left)
	}
	disk.SetFull(false)
	s.Must(s.First, "POST /v1/executions/"+w.execution+"/outcome", outcome)
	s.Must(s.First, "POST /v1/keys/"+w.spare+"/revoke", obj{})
	if r := s.Must(s.First, "GET /v1/audit/check", nil); r.JSON["ok"] != true {
		t.Errorf("the audit log: %s", r.Body)
	}
	s.Restart(time.Minute)
	wantCode(t, s.Do(w.spareKey, "GET /v1/keys/self", nil), 401, "key_revoked")
}

// TestStartOnFullDisk starts a server where there is no room for anything.
func TestStartOnFullDisk(t *testing.T) {
	t.Parallel()
	disk := powercut.New(t, 1)
	disk.SetFull(true)
	settings, err := server.ReadSettings(func(string) (string, bool) { return "", false }, map[string]string{"data": t.TempDir()}, "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.Open(context.Background(), settings, server.Deps{Now: time.Now, Log: server.NewLog(&bytes.Buffer{}, false, "info"), VFS: disk.Name()})
	if err == nil {
		t.Fatalf("it starts: %v", s.Close())
	}
	if !strings.Contains(err.Error(), "full") {
		t.Errorf("%v", err)
	}
	disk.SetFull(false)
	if s, err = server.Open(context.Background(), settings, server.Deps{Now: time.Now, Log: server.NewLog(&bytes.Buffer{}, false, "info"), VFS: disk.Name()}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
