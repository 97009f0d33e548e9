package access

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// TestNoSecretIsKept makes, uses, rotates and misplaces secrets of every kind, and then looks for eight characters in a row of any of
// them: in the files of the database, in every column, in the heads, in the log, and in everything that was answered but the answer that
// shows it.
func TestNoSecretIsKept(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		var secrets []string
		var answers strings.Builder
		show := func(s string) string { secrets = append(secrets, s); return s }
		show(w.admin)
		secret, id := w.key("full")
		show(secret)
		child, _ := w.keyBy(secret, "worker")
		show(child)
		show(w.must(w.admin, "key.rotate", in{"id": id}).str("key"))
		memberID, member := w.member("tom@example.com", RoleManager)
		show(member)
		show(w.must(member, "personal_key.create", in{"name": "laptop"}).str("key"))
		show(w.must(w.admin, "workspace.create", in{"name": "Second"}).str("key"))
		show(w.must(w.admin, "auth_key.create", in{"label": "x"}).str("api_key"))
		show(w.must(w.admin, "webhook_secret.get", nil).str("webhook_secret"))
		show(w.must(w.admin, "webhook_secret.rotate", nil).str("webhook_secret"))
		show(w.must(w.admin, "alert_secret.get", nil).str("alert_webhook_secret"))
		show(w.must(w.admin, "alert_secret.rotate", nil).str("alert_webhook_secret"))
		if _, err := w.a.RotateServerSecret(t.Context()); err != nil {
			t.Fatal(err)
		}
		held, err := ReadSecretFile(w.dir, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Fields(string(held)) {
			show(line[2:])
		}
		keep := func(res *op.Response) {
			if res.Err != nil {
				answers.Write(res.Err.Body("https://example.com/errors", "r"))
				fmt.Fprintf(&answers, "%v %+v %#v %v", res.Err, res.Err, res.Err, res.Err.Extra)
			} else {
				answers.Write(res.Body)
			}
			fmt.Fprintln(&answers, res.Header)
		}
		for _, s := range []string{secret, child, member, newSecret("unstuck").Reveal()} {
			for _, o := range w.set.All() {
				if !slices.Contains([]string{"execution.wait", "key.create", "key.revoke", "key.rotate"}, o.Name) && !strings.HasPrefix(o.Name, "auth_key.") && !strings.HasSuffix(o.Name, "_secret.get") && !strings.HasSuffix(o.Name, "_secret.rotate") {
					keep(w.call(s, o.Name, in{}))
				}
			}
		}
		keep(w.call(w.admin, "key.verify", in{"key": child, "permission": "executions:claim"}))
		keep(w.call(w.admin, "key.verify", in{"key": child + "x", "permission": "executions:claim"}))
		for _, misplaced := range []in{{"id": child}, {"id": id, "expires_in": child}} { // where something else belongs
			keep(w.call(w.admin, "key.extend", misplaced))
		}
		keep(w.call(w.admin, "key.create", in{"name": "x", "scope": child}))
		keep(w.call(w.admin, "key.create", in{"name": "x", "permissions": []string{child}}))
		keep(w.call(w.admin, "key.create", in{"name": "x", "scope": "worker", "restrictions": in{"ips": []string{child}}}))
		keep(w.call(w.admin, "key.get", in{"id": child}))
		keep(w.call(w.admin, "member.update", in{"id": memberID, "role": child}))
		keep(w.call(child, "execution.claim", in{"X-Worker-Id": child}))
		w.must(w.admin, "member.remove", in{"id": memberID, "keys": "revoke"})
		w.refused(KeyRevoked, member, "key.self", nil)
		w.must(w.admin, "audit.list", nil)
		var dump strings.Builder
		if err := w.db.View(t.Context(), func(tx *db.Tx) error { return dumpTables(tx, &dump) }); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(dump.String(), "tom@example.com") {
			t.Error("the tables were not read")
		}
		files := readFiles(t, w) // while the log of the database is there
		w.stop()
		for name, text := range map[string]string{
			"answers": answers.String(), "log": w.log.String(), "tables": dump.String(), "files": files, "files after the stop": readFiles(t, w),
			"memory": fmt.Sprintf("%v %+v %#v", w.a.Options, w.a.Options, w.a.sealer),
		} {
			if len(text) < 100 {
				t.Errorf("%s: only %d bytes were looked at", name, len(text))
			}
			for i, s := range secrets {
				if run := leak(text, s); run != "" {
					at := strings.Index(text, run)
					t.Errorf("%q of secret %d stands in %s: …%q…", run, i, name, text[max(0, at-80):min(len(text), at+80)])
				}
			}
		}
	})
}

// dumpTables writes every value of every table of the package.
func dumpTables(tx *db.Tx, out *strings.Builder) error {
	for _, table := range []string{"workspaces", "users", "memberships", "keys", "secrets", "activity", "audit", "server_secrets", "settings"} {
		rows, err := tx.Query("SELECT * FROM " + table)
		if err != nil {
			return err
		}
		columns, err := rows.Columns()
		if err != nil {
			return err
		}
		values, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		for rows.Next() {
			if err := rows.Scan(into...); err != nil {
				return err
			}
			for _, v := range values {
				if b, ok := v.([]byte); ok {
					v = fmt.Sprintf("%s %x", b, b)
				}
				fmt.Fprintln(out, table, v)
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
	}
	return nil
}

// readFiles reads the files of a SQLite database, and of the data directory but the server secret itself.
func readFiles(t *testing.T, w *world) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(w.dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(w.dsn, "postgres") {
		names = append(names, w.dsn)
		for _, more := range []string{"-wal", "-shm"} {
			if _, err := os.Stat(w.dsn + more); err == nil {
				names = append(names, w.dsn+more)
			}
		}
	}
	out := strings.Repeat("-", 100)
	for _, name := range names {
		if filepath.Base(name) == secretFile {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		out += string(b)
	}
	return out
}
