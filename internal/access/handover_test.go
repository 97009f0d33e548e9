package access

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"unstuck/internal/op"
)

// TestHandedOverKeyIsKnown: whoever adds a member is shown a personal key of that member. It says so until the key rotates itself, joins
// no workspaces until then, and what is made with it says so too.
func TestHandedOverKeyIsKnown(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		_, tom := w.member("tom@example.com", RoleAdmin)
		handed := func(secret string) string {
			t.Helper()
			info := w.must(secret, "key.self", nil)["secrets"].([]any)[0].(map[string]any)
			by, _ := info["shown_to"].(map[string]any)
			name, _ := by["name"].(string)
			if said := w.must(secret, "me.get", nil)["handed_over"]; said != (name != "") {
				t.Errorf("me.get says %v, key.self %q", said, name)
			}
			return name
		}
		laptop := w.must(tom, "personal_key.create", in{"name": "laptop"}).str("key")
		if got := fmt.Sprint(handed(tom), " ", handed(laptop), " ", handed(w.admin)); got != "admin@example.com admin@example.com " {
			t.Error(got)
		}
		early := w.must(tom, "workspace.create", in{"name": "Made too early"}).str("key") // by whom of the two?
		id := w.must(tom, "key.self", nil).str("id")
		own := w.must(tom, "key.rotate", in{"id": id, "overlap": "0s"}).str("key")
		if got := handed(own); got != "" {
			t.Errorf("after the rotation it is known to %s", got)
		}
		w.refused(KeyRotated, tom, "key.self", nil) // the copy of whoever handed it over ended with the first use of the new one
		if got := handed(w.must(own, "personal_key.create", in{"name": "phone"}).str("key")); got != "" {
			t.Errorf("a key made with one's own is known to %s", got)
		}
		w.must(own, "workspace.create", in{"name": "Toms own"})
		if n := len(w.must(own, "workspace.list", nil)["workspaces"].([]any)); n != 2 {
			t.Errorf("%d workspaces", n)
		}
		if n := len(w.must(early, "workspace.list", nil)["workspaces"].([]any)); n != 1 || handed(early) == "" || w.must(early, "me.get", nil).str("email") != "tom@example.com" {
			t.Errorf("what was made with a key in two hands shows %d workspaces", n)
		}
		if n := len(w.must(laptop, "workspace.list", nil)["workspaces"].([]any)); n != 1 {
			t.Errorf("a key that may be in other hands shows %d workspaces", n)
		}
	})
}

// TestTypingAnAddressGivesNothing: neither adding a stranger's address nor signing up with it shows anything of that person, gives
// rights over another workspace, or keeps the person out.
func TestTypingAnAddressGivesNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.stop()
		w.open(func(o *Options) { o.Register = true })
		names := func(secret string) string {
			t.Helper()
			var out []string
			for _, x := range w.must(secret, "workspace.list", nil)["workspaces"].([]any) {
				out = append(out, x.(map[string]any)["slug"].(string))
			}
			return strings.Join(out, " ")
		}
		signUp := func(email string) string { return w.must("", "account.register", in{"email": email}).str("api_key") }

		// An admin adds an address that is known elsewhere, in another spelling, and uses the key that he is shown as his own.
		eve := signUp("eve@example.net")
		ana := signUp("Ana@example.com")
		added := w.must(eve, "member.add", in{"email": "ANA@example.com", "role": RoleAdmin})
		if added.str("email") != "ANA@example.com" {
			t.Errorf("adding an address tells how its owner writes it: %v", added)
		}
		stolen := w.must(added.str("key"), "key.rotate", in{"id": w.must(added.str("key"), "key.self", nil).str("id"), "now": true}).str("key")
		if got := names(stolen); got != "eve" {
			t.Errorf("whoever typed an address sees %s", got)
		}
		if got := names(ana); got != "ana" {
			t.Errorf("ana sees %s", got)
		}
		anaID := w.must(ana, "member.list", nil)["members"].([]any)[0].(map[string]any)["id"].(string)
		w.refused(MemberNotFound, stolen, "member.remove", in{"id": anaID})

		// Somebody whom others added was never here himself.
		w.must(eve, "member.add", in{"email": "bob@example.com", "role": RoleViewer})
		if got := names(signUp("bob@example.com")); got != "bob" {
			t.Errorf("bob sees %s", got)
		}

		// Whoever signs up first with somebody else's address holds it for a day, and no longer, however often he tries.
		squatter := signUp("carl@example.com")
		w.refused(DuplicateEmail, "", "account.register", in{"email": "CARL@example.com"})
		w.clock.advance(24 * time.Hour)
		signUp("carl@example.com")
		carl := signUp("carl@example.com")
		w.must(w.admin, "member.add", in{"email": "carl@example.com", "role": RoleViewer})
		if got := names(squatter) + ", " + strings.TrimRight(names(carl), "0123456789abcdef"); got != "carl, carl-" {
			t.Errorf("%s", got)
		}
	})
}

// TestLeavingWithASecretOfSomebodyElse: keys of others whose secret the member saw are a decision too.
func TestLeavingWithASecretOfSomebodyElse(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		_, sync := w.key("write-cues", in{"name": "sync"})
		_, reads := w.key("read-only", in{"name": "reads"})
		_, again := w.key("worker", in{"name": "rotated again"})
		_, gone := w.key("worker", in{"name": "gone"})
		id, tom := w.member("tom@example.com", RoleAdmin)
		saw := ""
		for _, key := range []string{sync, reads, again, gone} {
			saw = either(saw, w.must(tom, "key.rotate", in{"id": key, "now": true}).str("key"))
		}
		w.must(w.admin, "key.rotate", in{"id": again, "now": true})
		w.must(w.admin, "key.revoke", in{"id": gone})
		_, own := w.keyBy(tom, "cues:write", in{"name": "own"})
		listed := func(e *op.Error) string {
			var out []string
			for _, k := range e.Extra.(heldKeys).Keys {
				out = append(out, k.Name+" "+k.Reason)
			}
			slices.Sort(out)
			return strings.Join(out, ", ")
		}
		e := w.refused(MemberHasKeys, w.admin, "member.update", in{"id": id, "role": RoleOperator})
		if got := listed(e); got != "own "+belongsToHim+", sync "+sawItsSecret {
			t.Error(got)
		}
		if e.Message != "1 integration key belongs to this member, and 1 integration key of another member has a secret that this member saw. Say what becomes of them." {
			t.Error(e.Message)
		}
		out := w.must(w.admin, "member.update", in{"id": id, "role": RoleOperator, "keys": "hand_over"})
		var known []string
		for _, k := range out["known_keys"].([]any) {
			x := k.(map[string]any)
			known = append(known, x["name"].(string))
			if mend := x["mend"].(string); mend != "unstuck keys rotate "+strings.TrimPrefix(x["redacted"].(string), "unstuck_***_") {
				t.Error(mend)
			}
		}
		slices.Sort(known)
		if fmt.Sprint(known) != "[own sync]" {
			t.Errorf("%v", known)
		}
		for _, key := range []string{own, sync} { // handed over or not, its secret is still known to him
			k := w.must(w.admin, "key.get", in{"id": key})
			to := k["secrets"].([]any)[0].(map[string]any)["shown_to"].(map[string]any)["name"]
			if k["member"].(map[string]any)["name"] != "admin@example.com" || to != "tom@example.com" {
				t.Errorf("%v is known to %v", k["member"], to)
			}
		}
		w.must(w.admin, "key.rotate", in{"id": own, "now": true}) // which is what ends that
		if got := listed(w.refused(MemberHasKeys, w.admin, "member.remove", in{"id": id})); got != "reads "+sawItsSecret+", sync "+sawItsSecret {
			t.Error(got)
		}
		w.must(saw, "cue.list", nil)
		if out := w.must(w.admin, "member.remove", in{"id": id, "keys": "revoke"}); len(out["known_keys"].([]any)) != 0 {
			t.Errorf("%v", out)
		}
		w.refused(KeyRevoked, saw, "cue.list", nil)
		if row := w.done("member.remove"); !strings.Contains(string(row.Detail), sync) || !strings.Contains(string(row.Detail), reads) || strings.Contains(string(row.Detail), own) {
			t.Errorf("%s", row.Detail)
		}
	})
}

// TestPlanCaps: a plan with caps has room for so many living keys and members; without caps nothing is counted.
func TestPlanCaps(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.stop()
		w.open(func(o *Options) { o.Register = true })
		admin := w.must("", "account.register", in{"email": "ana@example.com"}).str("api_key")
		fill := func(n int) {
			t.Helper()
			exec(t, w.db, `UPDATE keys SET expires_at = ?1 WHERE name = 'short'`, w.clock.now().UnixMicro()) // expired ones count no more
			ws := w.must(admin, "workspace.get", nil).str("id")
			for i := range n {
				exec(t, w.db, `INSERT INTO keys (id, workspace_id, user_id, parent_id, kind, name, scope, permissions, restrictions, created_at, created_by, expires_at, revoked_at, revoked_by, request_key, rev)
					SELECT ?2, workspace_id, user_id, NULL, 'integration', 'filler', 'worker', '[]', '{}', created_at, created_by, NULL, NULL, '', '', 1 FROM keys WHERE workspace_id = ?1 AND kind = 'personal' LIMIT 1`, ws, fmt.Sprintf("key_%012d", i))
			}
		}
		_, short := w.keyBy(admin, "worker", in{"name": "short", "expires_in": "1h"})
		fill(98)
		w.clock.advance(time.Hour + time.Second)
		secret, last := w.keyBy(admin, "keys:write", in{"name": "the hundredth"})
		e := w.refused(KeyLimitExceeded, admin, "key.create", in{"name": "x", "scope": "worker"})
		if !strings.HasPrefix(e.Message, "Key limit of 100 reached on plan free.") || e.Code.Status != 403 {
			t.Errorf("%v", e)
		}
		w.refused(KeyLimitExceeded, secret, "key.create", in{"name": "x", "scope": "worker"})
		w.refused(KeyLimitExceeded, admin, "personal_key.create", in{"name": "x"})
		w.refused(KeyLimitExceeded, admin, "auth_key.create", in{"label": "x"})
		w.refused(KeyLimitExceeded, admin, "member.add", in{"email": "bob@example.com", "role": RoleViewer})
		w.refused(KeyLimitExceeded, admin, "key.extend", in{"id": short, "expires_in": "1d"}) // which would live again
		w.must(admin, "key.rotate", in{"id": last, "now": true})
		w.must(admin, "key.revoke", in{"id": last})
		w.must(admin, "member.add", in{"email": "bob@example.com", "role": RoleViewer})
		w.must(w.admin, "key.create", in{"name": "x", "scope": "worker"}) // another workspace, without caps

		exec(t, w.db, "UPDATE keys SET revoked_at = 1 WHERE name = 'filler'")
		ws := w.must(admin, "workspace.get", nil).str("id")
		for i := range 98 {
			exec(t, w.db, "INSERT INTO users (id, email, email_folded, signed_up, created_at) VALUES (?1, ?1, ?1, 0, 0)", fmt.Sprintf("usr_%012d", i))
			exec(t, w.db, "INSERT INTO memberships (workspace_id, user_id, role, rev, created_at) VALUES (?1, ?2, 'viewer', 1, 0)", ws, fmt.Sprintf("usr_%012d", i))
		}
		e = w.refused(MemberLimitExceeded, admin, "member.add", in{"email": "cleo@example.com", "role": RoleViewer})
		if !strings.HasPrefix(e.Message, "Member limit of 100 reached on plan free.") {
			t.Errorf("%v", e)
		}
		w.refused(MemberExists, admin, "member.add", in{"email": "bob@example.com", "role": RoleViewer})
	})
}
