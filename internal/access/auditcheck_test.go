package access

import (
	"errors"
	"os"
	"strings"
	"testing"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// look checks the audit logs as somebody does who is not the server.
func (w *world) look(unread error) Checked {
	w.Helper()
	secrets, err := ReadSecretFile(w.dir, false)
	if err != nil {
		w.Fatal(err)
	}
	out, err := CheckLogs(w.Context(), Options{DB: w.db, Dir: w.dir, Secrets: secrets, Now: w.clock.now}, unread)
	if err != nil {
		w.Fatal(err)
	}
	return out
}

// forge adds a row behind the end of a chain as somebody could who has this server secret.
func (w *world) forge(e *epoch) {
	w.Helper()
	workspace := w.workspace()
	err := w.db.Update(w.Context(), func(tx *db.Tx) error {
		last, err := readHead(tx, workspace)
		if err != nil {
			return err
		}
		row := w.a.serverRow("key.create", "key", "key_forged000000", "forged", nil)
		row.Seq = last.Seq + 1
		body := string(op.Marshal(row))
		_, err = tx.Exec(sqlAuditAdd, workspace, row.Seq, int64(row.At), row.Who.KeyID, row.Operation, row.ObjectID, row.Result, body, int64(e.number), e.link(last.Hash, body))
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
}

// TestReplacedServerSecretForgesNothing: whoever has an older server secret and can write to the database and its folder adds nothing to an
// audit log, neither at its end nor in the place of what was written since; and the server does not start beside his audit.heads.
func TestReplacedServerSecretForgesNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.must(w.admin, "cue.create", nil)
		old := w.a.sealer.epoch(1)
		if _, err := w.a.RotateServerSecret(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !w.look(nil).OK() { // audit.heads is under the new one already
			t.Errorf("right after the rotation: %+v", w.look(nil))
		}
		rotated := w.done("server_secret.rotate").Seq
		w.must(w.admin, "cue.create", nil)
		w.stop()
		w.open(func(o *Options) { o.LookOnly = true })
		exec(t, w.db, "CREATE TABLE kept AS SELECT * FROM audit")
		heads, err := os.ReadFile(w.a.headsPath())
		if err != nil {
			t.Fatal(err)
		}
		problem := func(want string) {
			t.Helper()
			if out := w.look(nil); out.Unchecked != "" || len(out.Chains) != 1 || !strings.Contains(out.Chains[0].Problem, want) || out.OK() != (want == "") {
				t.Errorf("want %q: %+v", want, out)
			}
		}
		for how, test := range map[string]struct {
			from int64 // the first row that is cut off
			want string
		}{
			"at the end":        {rotated + 2, "which 2 had replaced before"},
			"after the change":  {rotated + 1, "which 2 had replaced before"},
			"instead of it":     {rotated, "but goes on under 2"},
			"long before":       {1, "but goes on under 2"},
			"and nothing added": {rotated, "but goes on under 2"},
		} {
			exec(t, w.db, "DELETE FROM audit WHERE seq >= ?1", test.from)
			if how != "and nothing added" {
				w.forge(old)
			}
			ends := map[string]auditHead{}
			if err := w.db.View(t.Context(), func(tx *db.Tx) (err error) { ends, err = readEnds(tx); return err }); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(w.a.headsPath()); err != nil { // nothing is old enough to miss the file
				t.Fatal(err)
			}
			problem(test.want)
			if err := os.WriteFile(w.a.headsPath(), old.headsText(ends), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := w.tryOpenBeside(); !errors.Is(err, ErrHeadsAltered) || !strings.Contains(err.Error(), "server secret 1, which 2 has replaced") {
				t.Errorf("%s: it started beside a forged audit.heads: %v", how, err)
			}
			exec(t, w.db, "DELETE FROM audit")
			exec(t, w.db, "INSERT INTO audit SELECT * FROM kept")
			problem("server secret 1, which 2 has replaced")
			if err := os.WriteFile(w.a.headsPath(), heads, 0o600); err != nil {
				t.Fatal(err)
			}
			problem("")
		}
		exec(t, w.db, "DELETE FROM server_secrets WHERE epoch = 2") // so that the old one looks like the newest
		problem("the database knows server secrets up to 1 only, and there is 2")
	})
}

// tryOpenBeside is how a start on this database ends, which is open already.
func (w *world) tryOpenBeside() error {
	secrets, err := ReadSecretFile(w.dir, false)
	if err == nil {
		_, err = Open(w.Context(), Options{DB: w.db, Secrets: secrets, Dir: w.dir, Now: w.clock.now})
	}
	return err
}

// TestServerSecretIsNotedAtTheStart: a server secret that was added while no server ran, as in UNSTUCK_SECRET, or by a rotation that was
// cut short, is in every audit log after the next start.
func TestServerSecretIsNotedAtTheStart(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.must(w.admin, "workspace.create", in{"name": "Second"})
		hook := w.must(w.admin, "webhook_secret.get", nil)
		w.stop()
		secrets, err := ReadSecretFile(w.dir, false)
		if err != nil {
			t.Fatal(err)
		}
		if secrets, err = secrets.next(); err == nil {
			err = WriteSecretFile(w.dir, secrets)
		}
		if err != nil {
			t.Fatal(err)
		}
		w.open(func(o *Options) { o.LookOnly = true })
		if out := w.look(nil); out.OK() || !strings.Contains(out.Chains[0].Problem, "the server was not started since") {
			t.Errorf("before the start: %+v", out)
		}
		w.crash()
		for range 2 { // the second start has nothing to add
			w.open()
			if out := w.look(nil); !out.OK() || len(out.Chains) != 2 {
				t.Errorf("%+v", out)
			}
			if n := len(w.audit("server_secret.rotate")); n != 1 {
				t.Errorf("%d rows of the rotation", n)
			}
			w.stop()
		}
		heads, err := os.ReadFile(w.a.headsPath())
		if err != nil || strings.Contains(string(heads), `"epoch":1`) {
			t.Errorf("%s %v", heads, err)
		}
		w.open()
		if got := w.must(w.admin, "webhook_secret.get", nil); got["secret"] != hook["secret"] {
			t.Errorf("%v", got)
		}
	})
}

// TestCheckWithoutTheServerSecret says what it could not check, and finds what shows all the same.
func TestCheckWithoutTheServerSecret(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.must(w.admin, "cue.create", nil)
		w.must(w.admin, "cue.create", nil)
		out := w.look(errors.New("it is on holiday"))
		if out.OK() || len(out.Chains) != 1 || !out.Chains[0].OK || out.Chains[0].Rows != 3 || !strings.Contains(out.Unchecked, "it is on holiday") {
			t.Errorf("%+v", out)
		}
		other, err := CheckLogs(t.Context(), Options{DB: w.db, Dir: w.dir, Secrets: NewServerSecret(), Now: w.clock.now}, nil)
		if err != nil || other.OK() || !other.Chains[0].OK || !strings.Contains(other.Unchecked, "does not fit") {
			t.Errorf("another server secret: %+v, %v", other, err)
		}
		exec(t, w.db, "DELETE FROM audit WHERE seq = 2")
		if out := w.look(errors.New("gone")); out.Chains[0].OK || out.Chains[0].Problem != "row 2 is missing" {
			t.Errorf("%+v", out)
		}
	})
}

// TestEmptiedLog: an audit log without a row, or without its first ones, is not whole, whatever audit.heads says; and a server that starts
// on it without that file says so, and does not make it whole.
func TestEmptiedLog(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.must(w.admin, "cue.create", nil)
		w.must(w.admin, "workspace.create", in{"name": "Second"})
		if out := w.look(nil); !out.OK() || len(out.Chains) != 2 {
			t.Fatalf("%+v", out)
		}
		w.stop()
		w.open(func(o *Options) { o.LookOnly = true })
		exec(t, w.db, "CREATE TABLE kept AS SELECT * FROM audit")
		if err := os.Remove(w.a.headsPath()); err != nil {
			t.Fatal(err)
		}
		broken := func(unread error, want string) {
			t.Helper()
			out := w.look(unread)
			for _, c := range out.Chains {
				if c.OK || !strings.Contains(c.Problem, want) {
					t.Errorf("want %q: %+v", want, c)
				}
			}
			if len(out.Chains) != 2 {
				t.Errorf("%+v", out)
			}
		}
		for _, unread := range []error{nil, errors.New("it is on holiday")} {
			exec(t, w.db, "DELETE FROM audit WHERE seq = 1 OR workspace_id <> ?1", w.workspace())
			for _, c := range w.look(unread).Chains {
				if c.OK || c.Rows > 0 && c.Problem != "row 1 is missing" {
					t.Errorf("%+v", c)
				}
			}
			exec(t, w.db, "DELETE FROM audit")
			broken(unread, "it has no rows")
			exec(t, w.db, "INSERT INTO audit SELECT * FROM kept")
		}
		exec(t, w.db, "DELETE FROM audit")
		w.crash()
		w.open() // although nothing is old enough to miss audit.heads otherwise
		if !w.a.HeadsMissing() || !strings.Contains(w.log.String(), "audit.heads is missing") {
			t.Error("the start says nothing")
		}
		broken(nil, "it does not begin with the making of the workspace")
	})
}
