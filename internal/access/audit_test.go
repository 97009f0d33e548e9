package access

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// TestEveryChangeIsRecorded makes each kind of change once and looks at its row: who, what, from where.
func TestEveryChangeIsRecorded(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		integration, id := w.key("full")
		child := w.must(integration, "key.create", in{"name": "child", "scope": "worker"}, from{peer: "203.0.113.4:5", client: "cli"})
		row := w.done("key.create")
		s, _ := parseSecret(integration)
		if row.Who.KeyID != id || row.Who.Redacted != s.Redacted() || row.Who.Kind != "integration" || row.ObjectID != child.str("id") || row.ObjectName != "child" || row.IP != "203.0.113.4" || row.Via != "cli" || row.RequestID == "" || row.Count != 1 {
			t.Errorf("%+v", row)
		}
		grandchild, _ := w.keyBy(integration, "keys:write")
		w.must(grandchild, "key.create", in{"name": "x", "scope": "worker"})
		if row := w.done("key.create"); !slices.Equal(row.Who.Parents, []string{id}) {
			t.Errorf("%+v", row.Who)
		}
		memberID, _ := w.member("tom@example.com", RoleOperator)
		changes := map[string]in{
			"key.update": {"id": id, "name": "renamed"}, "key.widen": {"id": child.str("id"), "add_permissions": []string{"cues:read"}}, "key.extend": {"id": id, "expires_in": "2y"},
			"key.rotate": {"id": id}, "key.revoke": {"id": child.str("id")}, "personal_key.create": {"name": "phone"}, "member.update": {"id": memberID, "role": RoleViewer},
			"member.remove": {"id": memberID}, "workspace.update": {"name": "Acme"}, "workspace.create": {"name": "Second"}, "webhook_secret.rotate": nil, "alert_secret.rotate": nil,
			"auth_key.create": {"label": "x"}, "auth_key.update": {"id": id, "label": "y"}, "auth_key.revoke": {"id": id}, "cue.create": {"name": "report"}, "cue.fire": nil, "auth_key.regenerate": nil,
		}
		for _, name := range []string{"key.update", "key.widen", "key.extend", "key.rotate", "key.revoke", "personal_key.create", "member.update", "member.remove", "workspace.update", "workspace.create",
			"webhook_secret.rotate", "alert_secret.rotate", "auth_key.create", "auth_key.update", "auth_key.revoke", "cue.create", "cue.fire"} {
			w.must(w.admin, name, changes[name])
			w.done(name)
		}
		for _, o := range w.set.All() {
			if _, made := changes[o.Name]; o.Effect != op.Read && !o.Unaudited && !made && !slices.Contains([]string{"key.create", "member.add", "cue.forget"}, o.Name) {
				t.Errorf("%s changes something and is not looked at here", o.Name)
			}
		}
		if e := w.call(w.admin, "cue.forget", nil).Err; !errors.Is(e, errNotRecorded) {
			t.Errorf("a change without a row was committed: %v", e)
		}
		var n int64
		if err := w.db.View(t.Context(), func(tx *db.Tx) error {
			return tx.Row("SELECT count(*) FROM settings WHERE name = 'forgotten'").Scan(&n)
		}); err != nil || n != 0 {
			t.Errorf("%d, %v", n, err)
		}
		if chains, err := w.a.CheckAudit(t.Context(), ""); err != nil || len(chains) != 2 || !chains[0].OK || !chains[1].OK || min(chains[0].Rows, chains[1].Rows) != 1 {
			t.Errorf("%+v, %v", chains, err)
		}
	})
}

func TestListAudit(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		secret, id := w.key("write-cues")
		for i := range 5 {
			w.clock.advance(time.Second)
			w.must(secret, "cue.create", in{"name": fmt.Sprint(i)})
		}
		var seqs []int64
		input := in{"key": id, "limit": 2}
		for {
			var page AuditPage
			if err := json.Unmarshal(w.call(w.admin, "audit.list", input).Body, &page); err != nil {
				t.Fatal(err)
			}
			for _, r := range page.Rows {
				seqs = append(seqs, r.Seq)
			}
			if page.Next == nil {
				break
			}
			input["before"] = *page.Next
		}
		if fmt.Sprint(seqs) != "[7 6 5 4 3]" {
			t.Errorf("%v", seqs)
		}
		since := w.must(w.admin, "audit.list", in{"since": w.clock.now().Format(time.RFC3339), "operation": "cue.create"})
		object := w.must(w.admin, "audit.list", in{"object_id": id})
		if len(since["audit"].([]any)) != 1 || len(object["audit"].([]any)) != 1 {
			t.Errorf("%v %v", since, object)
		}
		if mine := w.must(w.admin, "audit.list", in{"key": "self"})["audit"].([]any); len(mine) != 1 {
			t.Errorf("%v", mine)
		}
		w.invalid("query.key", w.admin, "audit.list", in{"key": "key_000000000000"})
	})
}

// tampering is one way of changing stored rows behind the server's back.
type tampering struct {
	name, sql string
	args      []any
}

// drawTampering draws a change that somebody who can write to the database, but does not know the server secret, might make.
func drawTampering(t *rapid.T, workspace string, rows int64) tampering {
	seq := rapid.Int64Range(1, rows).Draw(t, "row")
	other := rapid.Int64Range(1, rows).Filter(func(n int64) bool { return n != seq }).Draw(t, "other row")
	all := []tampering{
		{"remove", "DELETE FROM audit WHERE workspace_id = ?1 AND seq = ?2", []any{workspace, seq}},
		{"truncate", "DELETE FROM audit WHERE workspace_id = ?1 AND seq >= ?2", []any{workspace, seq}},
		{"behead", "DELETE FROM audit WHERE workspace_id = ?1 AND seq <= ?2", []any{workspace, seq}},
		{"swap bodies", `UPDATE audit SET body = (SELECT a.body FROM audit a WHERE a.workspace_id = ?1 AND a.seq = CASE WHEN audit.seq = ?2 THEN ?3 ELSE ?2 END)
			WHERE workspace_id = ?1 AND seq IN (?2, ?3)`, []any{workspace, seq, other}},
		{"swap rows", `UPDATE audit SET seq = -seq WHERE workspace_id = ?1 AND seq IN (?2, ?3)`, []any{workspace, seq, other}},
		{"edit", "UPDATE audit SET body = replace(body, '\"count\":1', '\"count\":2') WHERE workspace_id = ?1 AND seq = ?2", []any{workspace, seq}},
		{"hash", "UPDATE audit SET hash = (SELECT a.hash FROM audit a WHERE a.workspace_id = ?1 AND a.seq = ?3) WHERE workspace_id = ?1 AND seq = ?2", []any{workspace, seq, other}},
		{"epoch", "UPDATE audit SET epoch = epoch + 1 WHERE workspace_id = ?1 AND seq = ?2", []any{workspace, seq}},
		{"add", `INSERT INTO audit (workspace_id, seq, at, key_id, operation, object_id, result, body, epoch, hash)
			SELECT workspace_id, ?3 + 1, at, key_id, operation, object_id, result, body, epoch, hash FROM audit WHERE workspace_id = ?1 AND seq = ?2`, []any{workspace, seq, rows}},
	}
	for column, value := range map[string]string{"at": "at + 1", "key_id": "'key_000000000000'", "operation": "operation || 'x'", "object_id": "object_id || 'x'", "result": "result || 'x'"} {
		all = append(all, tampering{"column " + column, "UPDATE audit SET " + column + " = " + value + " WHERE workspace_id = ?1 AND seq = ?2", []any{workspace, seq}})
	}
	return rapid.SampledFrom(all).Draw(t, "how")
}

// TestEveryTamperingIsFound changes, removes, swaps, adds and truncates rows: the check always finds it, and finds nothing once the
// rows are put back.
func TestEveryTamperingIsFound(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		for i := range 8 {
			w.must(w.admin, "cue.create", in{"name": fmt.Sprint(i)})
		}
		ws := w.workspace()
		var rows int64
		kept := "CREATE TABLE kept AS SELECT * FROM audit"
		err := w.db.Update(t.Context(), func(tx *db.Tx) error {
			if _, err := tx.Exec(kept); err != nil {
				return err
			}
			return tx.Row("SELECT count(*) FROM audit").Scan(&rows)
		})
		if err != nil {
			t.Fatal(err)
		}
		check := func() Chain {
			chains, err := w.a.CheckAudit(t.Context(), ws)
			if err != nil || len(chains) != 1 {
				t.Fatalf("%v, %v", chains, err)
			}
			return chains[0]
		}
		rapid.Check(t, func(t *rapid.T) {
			how := drawTampering(t, ws, rows)
			exec(t, w.db, how.sql, how.args...)
			if c := check(); c.OK || c.Problem == "" {
				t.Fatalf("%s was not found: %+v", how.name, c)
			}
			exec(t, w.db, "DELETE FROM audit")
			exec(t, w.db, "INSERT INTO audit SELECT * FROM kept")
			if c := check(); !c.OK || c.Rows != rows {
				t.Fatalf("%+v", c)
			}
		})
	})
}

func exec(t rapid.TB, d *db.DB, query string, args ...any) {
	if err := d.Update(context.Background(), func(tx *db.Tx) error { _, err := tx.Exec(query, args...); return err }); err != nil {
		t.Fatal(err)
	}
}

// TestChainsOfWorkspacesCannotStandForEachOther: exchanged as a whole, they are found out.
func TestChainsOfWorkspacesCannotStandForEachOther(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		second := w.must(w.admin, "workspace.create", in{"name": "Second"}).str("id")
		w.must(w.admin, "cue.create", nil)
		first := w.workspace()
		exec(t, w.db, "UPDATE audit SET workspace_id = CASE WHEN workspace_id = ?1 THEN ?2 ELSE ?1 END, seq = seq + 100", first, second)
		exec(t, w.db, "UPDATE audit SET seq = seq - 100")
		w.crash()
		if err := os.Remove(w.a.headsPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		w.open() // without what memory and file know
		chains, err := w.a.CheckAudit(t.Context(), "")
		if err != nil || len(chains) != 2 || chains[0].OK || chains[1].OK {
			t.Errorf("%+v, %v", chains, err)
		}
	})
}

// TestRolledBackDatabase does not start, unless that is accepted; then the log says so.
func TestRolledBackDatabase(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		secret, id := w.key("worker")
		ws := w.workspace()
		w.must(w.admin, "key.revoke", in{"id": id})
		w.stop() // which writes the heads
		if info, err := os.Stat(w.a.headsPath()); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%v, %v", info, err)
		}
		if !strings.Contains(w.log.String(), "audit head") {
			t.Error("the heads are not in the log")
		}
		w.open()
		exec(t, w.db, "UPDATE audit SET hash = (SELECT a.hash FROM audit a WHERE a.seq = 2) WHERE seq = 3") // another row in its place
		w.crash()
		if err := w.tryOpen(); !errors.Is(err, ErrRolledBack) {
			t.Fatalf("it started on other rows than it wrote down: %v", err)
		}
		w.open(func(o *Options) { o.Dir = t.TempDir() }) // where nothing is written down
		exec(t, w.db, "DELETE FROM audit WHERE seq = 3")
		exec(t, w.db, "UPDATE keys SET revoked_at = NULL, revoked_by = ''")
		w.crash()
		if err := w.tryOpen(); !errors.Is(err, ErrRolledBack) || !strings.Contains(err.Error(), ws+" at row 3") {
			t.Fatalf("it started on an older database: %v", err)
		}
		w.open(func(o *Options) { o.AcceptRollback = true })
		w.must(secret, "key.self", nil)
		if c := w.must(w.admin, "audit.check", nil); c["ok"] != true {
			t.Errorf("%v", c)
		}
		if row := w.done("server.accept_rollback"); row.Seq != 3 || row.Who.Kind != "server" {
			t.Errorf("%+v", row)
		}
		w.stop()
		w.open()
	})
}

// TestHeadsThatCannotBeRead stop the start: nobody knows what they would say.
func TestHeadsThatCannotBeRead(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.stop()
		whole, err := os.ReadFile(w.a.headsPath())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(w.a.headsPath(), whole[:len(whole)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := w.tryOpen(); err == nil || !strings.Contains(err.Error(), "audit.heads") {
			t.Errorf("%v", err)
		}
		if err := os.WriteFile(w.a.headsPath(), whole, 0o600); err != nil {
			t.Fatal(err)
		}
		w.open()
		before, _ := os.Stat(w.a.headsPath())
		if err := w.a.WriteHeads(t.Context()); err != nil {
			t.Fatal(err)
		}
		if after, _ := os.Stat(w.a.headsPath()); !os.SameFile(before, after) {
			t.Error("heads that did not change were written again")
		}
		w.must(w.admin, "cue.create", nil)
		if err := w.a.WriteHeads(t.Context()); err != nil {
			t.Fatal(err)
		}
		if now, _ := os.ReadFile(w.a.headsPath()); bytes.Equal(now, whole) {
			t.Error("heads that changed were not written")
		}
	})
}

// TestRefusalsAreFolded: the first of a key, operation and code in a minute is a row at once, the rest one row with a count when the
// minute ends.
func TestRefusalsAreFolded(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		secret, id := w.key("worker")
		rows := func(operation string, all bool) string {
			t.Helper()
			if err := w.a.WriteRefusals(t.Context(), all); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range w.audit(operation) {
				got = append(got, fmt.Sprintf("%s×%d", r.Result, r.Count))
				if r.Who.KeyID != id || r.Who.KeyName != "a key" {
					t.Errorf("%+v", r.Who)
				}
			}
			return strings.Join(got, " ")
		}
		began := w.clock.now()
		for range 5 {
			w.refused(InsufficientScope, secret, "cue.create", nil)
			w.clock.advance(time.Second)
		}
		w.refused(InsufficientScope, secret, "cue.fire", nil)
		w.refused(MembersOnly, secret, "personal_key.create", in{"name": "x"})
		if got := rows("cue.create", false) + ", " + rows("cue.fire", false) + ", " + rows("personal_key.create", false); got != "insufficient_scope×1, insufficient_scope×1, members_only×1" {
			t.Error(got)
		}
		if first := w.audit("cue.create")[0]; string(first.Detail) != `{"missing":["cues:write"]}` {
			t.Errorf("%s", first.Detail)
		}
		w.clock.advance(time.Minute)
		if got := rows("cue.create", false) + ", " + rows("cue.fire", false); got != "insufficient_scope×1 insufficient_scope×4, insufficient_scope×1" {
			t.Error(got)
		}
		want := fmt.Sprintf(`{"first":%q,"last":%q}`, op.TimeOf(began.Add(time.Second)), op.TimeOf(began.Add(4*time.Second)))
		if more := w.audit("cue.create")[1]; string(more.Detail) != want {
			t.Errorf("%s, want %s", more.Detail, want)
		}
		w.refused(InsufficientScope, secret, "cue.create", nil)
		w.refused(InsufficientScope, secret, "cue.create", nil)
		w.stop() // an orderly stop writes the rest
		w.open()
		if got := rows("cue.create", false); got != "insufficient_scope×1 insufficient_scope×4 insufficient_scope×1 insufficient_scope×1" {
			t.Error(got)
		}
		if c := w.must(w.admin, "audit.check", nil); c["ok"] != true {
			t.Errorf("%v", c)
		}
	})
}

// TestTriesWithDeadKeysAreFolded per key, address and hour.
func TestTriesWithDeadKeysAreFolded(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		secret, id := w.key("worker")
		w.must(w.admin, "key.revoke", in{"id": id})
		for range 3 {
			w.refused(KeyRevoked, secret, "execution.claim", nil)
		}
		w.refused(KeyRevoked, secret, "cue.list", nil)
		w.refused(KeyRevoked, secret, "execution.claim", nil, from{peer: "203.0.113.9:1"})
		w.clock.advance(59 * time.Minute)
		w.audit("")
		w.clock.advance(time.Minute)
		var got []string
		for _, r := range w.audit("") {
			if r.Result == KeyRevoked.Name {
				got = append(got, fmt.Sprintf("%s %s×%d", r.Operation, r.IP, r.Count))
			}
		}
		slices.Sort(got)
		if want := "[execution.claim 192.0.2.1×1 execution.claim 203.0.113.9×1 several 192.0.2.1×3]"; fmt.Sprint(got) != want {
			t.Errorf("%v, want %s", got, want)
		}
	})
}

// TestAlteredHeads: whoever can write audit.heads, but does not know the server secret, cannot make it say anything else.
func TestAlteredHeads(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.must(w.admin, "workspace.create", in{"name": "Second"})
		w.stop()
		whole, err := os.ReadFile(w.a.headsPath())
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.SplitAfter(string(whole), "\n")
		if len(lines) != 4 { // two workspaces, the end, and nothing
			t.Fatalf("%q", lines)
		}
		last := "{\"lines\":0,\"epoch\":1}\t" + strings.Repeat("00", 32) + "\n"
		for how, text := range map[string]string{
			"changed": strings.Replace(string(whole), `"seq":2`, `"seq":1`, 1), "one removed": lines[0] + lines[2], "first removed": lines[1] + lines[2], "swapped": lines[1] + lines[0] + lines[2],
			"cut short": lines[0] + lines[1], "doubled": lines[0] + lines[0] + lines[1] + lines[2], "longer": string(whole) + lines[0], "emptied": "", "made up": last,
			"other epoch": strings.Replace(string(whole), `"epoch":1`, `"epoch":7`, 1), "no MAC": strings.Split(lines[0], "\t")[0] + "\n" + lines[1] + lines[2],
		} {
			if err := os.WriteFile(w.a.headsPath(), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if text == string(whole) {
				t.Fatalf("%s: nothing is", how)
			}
			if err := w.tryOpen(); !errors.Is(err, ErrHeadsAltered) {
				t.Errorf("%s: it started: %v", how, err)
			}
			w.open(func(o *Options) { o.LookOnly = true })
			if chains, err := w.a.CheckAudit(t.Context(), ""); err != nil || len(chains) != 2 || chains[0].OK || !strings.Contains(chains[0].Problem, "audit.heads was changed") {
				t.Errorf("%s: %+v, %v", how, chains, err)
			}
			w.crash()
		}
		w.open(func(o *Options) { o.AcceptRollback = true })
		if row := w.done("server.accept_rollback"); !strings.Contains(string(row.Detail), "audit.heads was changed") {
			t.Errorf("%+v", row)
		}
		w.stop()
		w.open()
	})
}

// TestMissingHeads: a server whose audit.heads is gone says so, in the log, in the audit log and when it is asked to check; a new one,
// and one that was just restored, have nothing to say.
func TestMissingHeads(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		whole := func(want bool) {
			t.Helper()
			chains, err := w.a.CheckAudit(t.Context(), "")
			if err != nil || len(chains) != 1 || chains[0].OK != want || !want && !strings.Contains(chains[0].Problem, "audit.heads is missing") {
				t.Errorf("%+v, %v", chains, err)
			}
		}
		gone := func() {
			t.Helper()
			if err := os.Remove(w.a.headsPath()); err != nil {
				t.Fatal(err)
			}
		}
		whole(true) // made at the first start
		gone()
		whole(true) // nothing is old enough to miss it
		w.clock.advance(6 * time.Minute)
		whole(false)
		w.must(w.admin, "cue.create", nil)
		w.stop()
		gone()
		w.open(func(o *Options) { o.LookOnly = true })
		whole(false)
		if _, err := os.Stat(w.a.headsPath()); err == nil {
			t.Error("looking made the file")
		}
		w.crash()
		w.open()
		if !w.a.HeadsMissing() || !strings.Contains(w.log.String(), "audit.heads is missing") {
			t.Error("the start says nothing")
		}
		whole(true)
		if n := len(w.audit("server.heads_missing")); n != 1 {
			t.Errorf("%d rows say so", n)
		}
		w.stop()
		w.open()
		if w.a.HeadsMissing() {
			t.Error("it is still missing")
		}
		w.stop()
		w.open(func(o *Options) { o.LookOnly = true }) // as a restore does
		if err := errors.Join(w.a.ForgetHeads(), w.a.WriteHeads(t.Context())); err != nil {
			t.Fatal(err)
		}
		w.crash()
		w.open()
		if whole(true); w.a.HeadsMissing() {
			t.Error("it is missing after a restore")
		}
	})
}
