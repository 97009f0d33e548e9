package access

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// text is everything that verification knows, in an order of its own.
func (t *table) text() string {
	var out []string
	for id, w := range t.workspaces {
		limit := 0
		if w.limits.all != nil {
			limit = w.limits.all.limit
		}
		out = append(out, fmt.Sprint("workspace ", id, w.rev, limit))
	}
	for id, m := range t.members {
		out = append(out, fmt.Sprint("member ", id, m.ws.id, m.user, m.role, m.perms, m.rev, m.unsure))
	}
	for k := range t.keys.all() {
		parent, limit := "", 0
		if k.parent != nil {
			parent = k.parent.id()
		}
		r := k.rules.Load()
		nets := ""
		if r != nil {
			nets = fmt.Sprint(r.nets)
			if r.calls != nil {
				limit = r.calls.limit
			}
		}
		out = append(out, fmt.Sprint("key ", k.id(), k.member.Load().user, parent, r.text(), nets, limit, k.perms, k.expires, k.rev, k.scope, k.kind, k.revoked, k.unsure))
		if t.key(k.id()) != k {
			out = append(out, "key "+k.id()+" is not found by its id")
		}
	}
	for s := range t.secrets.all() {
		out = append(out, fmt.Sprint("secret ", s.key.id(), s.ends, s.hash, s.digits, s.epoch, s.state, t.prefixes[s.prefix]))
		if t.secret(s.digits) != s {
			out = append(out, "secret "+digitString(s.digits)+" is not found by its digits")
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// TestWhatIsLoadedIsWhatWasThere: after random changes, a table that is loaded from the database is the one that the changes left.
func TestWhatIsLoadedIsWhatWasThere(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.must(w.admin, "workspace.update", in{"rate_limit_per_minute": 7000})
		second := w.must(w.admin, "workspace.create", in{"name": "Second"}).str("key")
		w.keyBy(second, "worker")
		w.must(w.admin, "workspace.update", in{"rate_limit_per_minute": 0})
		rapid.Check(t, func(t *rapid.T) {
			secret := w.randomKey(t)
			self := w.keyOf(secret).id()
			for _, step := range rapid.SliceOfN(rapid.SampledFrom([]string{"rotate", "use", "finish", "revoke", "restrict", "limit", "secret"}), 0, 4).Draw(t, "steps") {
				switch step {
				case "rotate":
					w.call(w.admin, "key.rotate", in{"id": self, "overlap": "1h"})
				case "finish":
					w.call(w.admin, "key.rotate", in{"id": self, "finish": true})
				case "use":
					w.call(secret, "key.self", nil)
				case "revoke":
					w.must(w.admin, "key.revoke", in{"id": self})
				case "restrict":
					w.call(w.admin, "key.update", in{"id": self, "restrictions": in{"ips": []string{"10.0.0.0/8", "2001:db8::/32"}}})
				case "limit":
					w.call(w.admin, "key.update", in{"id": self, "restrictions": in{"rate_per_minute": 500}})
				case "secret":
					w.clock.advance(time.Minute)
				}
			}
			loaded := newTable()
			if err := loaded.load(context.Background(), w.db); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(w.a.table.text(), loaded.text()); diff != "" {
				t.Fatal(diff)
			}
		})
	})
}

// TestDamagedRowsAreNotLoaded: a server that cannot tell what a key may do does not start.
func TestDamagedRowsAreNotLoaded(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		_, id := w.key("cues:read", in{"restrictions": in{"ips": []string{"10.0.0.0/8"}}})
		for _, test := range []struct{ damage, repair, fault string }{
			{"UPDATE keys SET permissions = '{' WHERE id = ?1", `UPDATE keys SET permissions = '["cues:read"]' WHERE id = ?1`, "permissions"},
			{"UPDATE keys SET restrictions = '[]' WHERE id = ?1", "UPDATE keys SET restrictions = '{}' WHERE id = ?1", "restrictions"},
			{`UPDATE keys SET restrictions = '{"ips":["x"]}' WHERE id = ?1`, "UPDATE keys SET restrictions = '{}' WHERE id = ?1", "restrictions"},
			{"UPDATE keys SET user_id = 'usr_nobody' WHERE id = ?1", "UPDATE keys SET user_id = (SELECT k.user_id FROM keys k WHERE k.id <> ?1 LIMIT 1) WHERE id = ?1", "member"},
			{"UPDATE secrets SET hash = CAST('short' AS BLOB) WHERE key_id = ?1", "UPDATE secrets SET hash = (SELECT s.hash FROM secrets s WHERE s.key_id <> ?1 LIMIT 1) WHERE key_id = ?1", "wrong form"},
		} {
			exec(t, w.db, test.damage, id)
			if err := newTable().load(t.Context(), w.db); err == nil || !strings.Contains(err.Error(), test.fault) {
				t.Errorf("%s: %v", test.damage, err)
			}
			exec(t, w.db, test.repair, id)
			if err := newTable().load(t.Context(), w.db); err != nil {
				t.Errorf("%s: %v", test.repair, err)
			}
		}
	})
}

// TestRestoredDatabase keeps what had ended in the database that it replaces, and says so.
func TestRestoredDatabase(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		gone, goneID := w.key("worker")
		old, turnedID := w.key("worker")
		kept, _ := w.key("worker")
		w.must(w.admin, "key.revoke", in{"id": goneID})
		w.must(w.admin, "key.rotate", in{"id": turnedID, "now": true})
		ended, err := w.a.Ended(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.stop()
		w.open() // a copy from before
		exec(t, w.db, "UPDATE keys SET revoked_at = NULL, revoked_by = ''")
		exec(t, w.db, "UPDATE secrets SET state = 'current', ends_at = NULL")
		exec(t, w.db, "DELETE FROM audit WHERE seq > 4")
		w.crash()
		if err := w.a.ForgetHeads(); err != nil {
			t.Fatal(err)
		}
		if err := w.a.ForgetHeads(); err != nil {
			t.Errorf("heads that are forgotten already: %v", err)
		}
		w.open()
		if chains, err := w.a.CheckRows(t.Context()); err != nil || len(chains) != 1 || !chains[0].OK || chains[0].Rows != 4 {
			t.Errorf("%+v, %v", chains, err)
		}
		w.must(gone, "execution.claim", nil)
		for _, want := range [][2]int{{1, 1}, {0, 0}} {
			if kept, err := w.a.KeepEnded(t.Context(), ended); err != nil || kept.Revoked != want[0] || kept.Ended != want[1] || kept.Narrowed+kept.Members != 0 {
				t.Errorf("%+v, %v", kept, err)
			}
		}
		w.refused(KeyRevoked, gone, "execution.claim", nil)
		w.refused(KeyRotated, old, "execution.claim", nil)
		w.must(kept, "execution.claim", nil)
		if n := len(w.audit("server.restore")); n != 2 {
			t.Errorf("%d rows", n)
		}
	})
}

// TestRestoredRights: what was narrowed, demoted or removed since a backup stays so, and nothing has more than the backup says.
func TestRestoredRights(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		_, fewer := w.key("write-cues")
		_, shorter := w.key("worker")
		_, restricted := w.key("worker", in{"restrictions": in{"ips": []string{"10.0.0.0/8", "192.0.2.0/24"}}})
		_, mixed := w.key("cues:read cues:write usage:read")
		_, wider := w.key("worker")
		demoted, _ := w.member("demoted@example.com", RoleManager)
		removed, removedKey := w.member("removed@example.com", RoleOperator)
		promoted, _ := w.member("promoted@example.com", RoleViewer)
		keysNow := func() string {
			var out []string
			for _, id := range []string{fewer, shorter, restricted, mixed, wider} {
				k := w.must(w.admin, "key.get", in{"id": id})
				out = append(out, fmt.Sprint(k["scope"], k["permissions"], k["restrictions"], k["expires_at"]))
			}
			return strings.Join(out, "\n")
		}
		wide := keysNow()
		columns := map[string]string{"keys": "scope, permissions, restrictions, expires_at, revoked_at, revoked_by, rev", "memberships": "role, rev"}
		for table := range columns {
			exec(t, w.db, "CREATE TABLE old_"+table+" AS SELECT * FROM "+table)
		}
		seq := len(w.audit(""))

		w.must(w.admin, "key.update", in{"id": fewer, "scope": "read-only"})
		w.must(w.admin, "key.update", in{"id": shorter, "expires_in": "1d"})
		w.must(w.admin, "key.update", in{"id": restricted, "restrictions": in{"ips": []string{"192.0.2.0/24"}, "rate_per_minute": 9}})
		w.must(w.admin, "key.update", in{"id": mixed, "permissions": []string{"cues:read", "usage:read"}})
		narrow := keysNow()
		w.must(w.admin, "key.widen", in{"id": mixed, "add_permissions": []string{"executions:claim"}}) // narrower in one thing, wider in another
		w.must(w.admin, "key.widen", in{"id": wider, "add_permissions": []string{"cues:write"}})
		w.must(w.admin, "member.update", in{"id": demoted, "role": RoleViewer})
		w.must(w.admin, "member.remove", in{"id": removed})
		w.must(w.admin, "member.update", in{"id": promoted, "role": RoleAdmin})
		adminID := w.must(w.admin, "key.self", nil)["member"].(map[string]any)["id"].(string)
		exec(t, w.db, "UPDATE memberships SET role = 'viewer', rev = 2 WHERE user_id = ?1", adminID) // as the new admin could have done
		ended, err := w.a.Ended(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.stop()
		w.open()
		for table, list := range columns { // the copy from before
			of := map[string]string{"keys": "o.id = keys.id", "memberships": "o.workspace_id = memberships.workspace_id AND o.user_id = memberships.user_id"}[table]
			exec(t, w.db, "UPDATE "+table+" SET ("+list+") = (SELECT "+list+" FROM old_"+table+" o WHERE "+of+")")
		}
		exec(t, w.db, "DELETE FROM audit WHERE seq > ?1", seq)
		w.crash()
		if err := w.a.ForgetHeads(); err != nil {
			t.Fatal(err)
		}
		w.open()
		if got := keysNow(); got != wide {
			t.Fatalf("the copy is not as it was:\n%s", cmp.Diff(wide, got))
		}
		kept, err := w.a.KeepEnded(t.Context(), ended)
		if want := (Kept{Revoked: 1, Narrowed: 4, Members: 2, Admins: []string{"admin@example.com"}}); err != nil || !cmp.Equal(kept, want) {
			t.Errorf("%+v, %v", kept, err)
		}
		if got := keysNow(); got != narrow {
			t.Error(cmp.Diff(narrow, got))
		}
		var roles []string
		for _, m := range w.must(w.admin, "member.list", nil)["members"].([]any) {
			roles = append(roles, m.(map[string]any)["email"].(string)+" "+m.(map[string]any)["role"].(string))
		}
		slices.Sort(roles)
		if diff := cmp.Diff([]string{"admin@example.com admin", "demoted@example.com viewer", "promoted@example.com viewer"}, roles); diff != "" {
			t.Error(diff)
		}
		w.refused(KeyRevoked, removedKey, "key.self", nil)
		if n := len(w.audit("server.restore")); n != 7 {
			t.Errorf("%d rows", n)
		}
		if kept, err := w.a.KeepEnded(t.Context(), ended); err != nil || kept.Revoked+kept.Narrowed+kept.Members != 0 {
			t.Errorf("again: %+v, %v", kept, err)
		}
		if chains, err := w.a.CheckAudit(t.Context(), ""); err != nil || len(chains) != 1 || !chains[0].OK {
			t.Errorf("%+v, %v", chains, err)
		}
	})
}

// TestOnly tells every kind of restriction with its values, and whose it is.
func TestOnly(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		_, id := w.key("worker", in{"restrictions": in{
			"cues": []string{"a*"}, "ips": []string{"10.0.0.0/8"}, "via": []string{"mcp"}, "not_before": "2027-01-01T00:00:00Z", "rate_per_minute": 30, "worker_ids": []string{"mac"},
		}})
		out := w.must(w.admin, "key.access", in{"id": id})
		var got []string
		for _, o := range out["only"].([]any) {
			only := o.(map[string]any)
			got = append(got, fmt.Sprint(only["restriction"], " ", only["values"], " ", only["note"]))
			if only["key_id"] != id {
				t.Errorf("%v", only)
			}
		}
		want := []string{
			"cues [a*] 0 cues today", "ips [10.0.0.0/8] ", "via [mcp] ", "not_before 2027-01-01T00:00:00Z ", "rate_per_minute 30 the workspace's limit is shared by all keys", "worker_ids [mac] ",
		}
		if diff := cmp.Diff(want, got); diff != "" || out.str("status") != "pending" {
			t.Errorf("%s %s", out.str("status"), diff)
		}
		for _, c := range AuthCodes() {
			if c.Doc == "" || !slices.Contains([]int{401, 403, 429}, c.Status) {
				t.Errorf("%+v", c)
			}
		}
	})
}
