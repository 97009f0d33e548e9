package access

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"unstuck/internal/op"
)

// TestHandedOverKeyIsKnown: whoever adds a member is shown a personal key of that member. It says so until it is replaced, and lists no
// other workspaces until then.
func TestHandedOverKeyIsKnown(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		_, tom := w.added("tom@example.com", RoleAdmin)
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
		if got := fmt.Sprint(handed(tom), " ", handed(w.admin)); got != "admin@example.com " {
			t.Error(got)
		}
		id := w.must(tom, "key.self", nil).str("id")
		own := w.must(tom, "key.rotate", in{"id": id}).str("key")
		w.must(own, "workspace.create", in{"name": "Toms own"})
		if e := w.refused(KeyRotated, tom, "key.self", nil); !strings.Contains(e.Message, "If you did not do that, whoever handed it over did") {
			t.Error(e.Message) // the copy of whoever handed it over ended with the first use of the new one
		}
		if got := handed(own); got != "" {
			t.Errorf("after the rotation it is known to %s", got)
		}
		if got := handed(w.must(own, "personal_key.create", in{"name": "phone"}).str("key")); got != "" {
			t.Errorf("a key made with one's own is known to %s", got)
		}
		if n := len(w.must(own, "workspace.list", nil)["workspaces"].([]any)); n != 2 {
			t.Errorf("%d workspaces", n)
		}
		if row := w.done("key.rotate"); !strings.Contains(string(row.Detail), `"handed_over_by":{"id":"usr_`) || row.IP != "192.0.2.1" {
			t.Errorf("%s %s", row.Detail, row.IP)
		}
	})
}

// TestHandedOverKeyHandsOutNothing: nothing is made with a key that two people know, so nothing stays with the one who handed it over; and
// after it was replaced one of the two has it, whoever came first, and the other is told so.
func TestHandedOverKeyHandsOutNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		tomID, tom := w.added("tom@example.com", RoleAdmin)
		id := w.must(tom, "key.self", nil).str("id")
		_, other := w.key("worker")
		tries := map[string]in{
			"personal_key.create": {"name": "x"}, "key.create": {"name": "x", "scope": "worker"}, "auth_key.create": {"label": "x"},
			"member.add": {"email": "x@example.com", "role": RoleViewer}, "workspace.create": {"name": "x"},
			"member.update": {"id": tomID, "role": RoleViewer}, "member.remove": {"id": tomID}, "key.widen": {"id": other, "add_permissions": []string{"cues:read"}},
			"key.extend": {"id": other, "expires_in": "never"}, "key.rotate": {"id": other},
		}
		for _, o := range w.set.All() {
			if tries[o.Name] == nil && (o.Hands || o.Reach == op.ReachSecret) {
				t.Errorf("%s is not tried", o.Name)
			}
		}
		refuses := func(secret string, does bool) {
			t.Helper()
			for name, input := range tries {
				if code := w.code(secret, name, input); (code == KeyHandedOver.Name) != does {
					t.Errorf("%s: %q", name, code)
				}
			}
		}
		refuses(tom, true)
		says := map[string]string{}
		for _, v := range w.must(w.admin, "key.access", in{"id": id})["operations"].([]any) {
			x := v.(map[string]any)
			says[x["operation"].(string)] = x["answer"].(string)
		}
		for name := range tries {
			if want := map[bool]string{false: No, true: Only}[name == "key.rotate"]; says[name] != want { // itself it may turn
				t.Errorf("key.access about %s: %s, want %s", name, says[name], want)
			}
		}
		w.must(tom, "cue.create", nil) // used it may be
		w.stop()
		w.open()
		refuses(tom, true)

		w.invalid("body.overlap", tom, "key.rotate", in{"id": id, "overlap": "24h"})
		first := w.must(tom, "key.rotate", in{"id": id}).str("key") // of whoever came first
		second := w.must(tom, "key.rotate", in{"id": id}).str("key")
		w.refused(KeyRotated, first, "key.self", nil)
		w.must(second, "key.self", nil)
		w.refused(KeyRotated, tom, "key.rotate", in{"id": id})
		refuses(second, false)
		w.stop()
		w.open()
		if e := w.refused(KeyRotated, tom, "key.self", nil); !strings.Contains(e.Message, "whoever handed it over") {
			t.Error(e.Message)
		}
	})
}

// TestAddedAgain: the person who comes again is the one who left, unless that one is, or was, somewhere else too: whoever adds an address
// is shown a key of the person.
func TestAddedAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		names := func(secret string) (out []string) {
			t.Helper()
			for _, x := range w.must(secret, "workspace.list", nil)["workspaces"].([]any) {
				out = append(out, x.(map[string]any)["slug"].(string))
			}
			return out
		}
		id, tom := w.member("tom@example.com", RoleAdmin)
		w.must(w.admin, "member.remove", in{"id": id})
		again, tom2 := w.member("TOM@example.com", RoleAdmin)
		if again != id {
			t.Errorf("the same person is %s, then %s", id, again)
		}
		w.refused(KeyRevoked, tom, "key.self", nil)
		private := w.must(tom2, "workspace.create", in{"name": "Private"}).str("key")
		w.must(w.admin, "member.remove", in{"id": id})
		third, stolen := w.member("tom@example.com", RoleAdmin)
		if got := names(stolen); third == id || fmt.Sprint(got) != "[default]" {
			t.Errorf("whoever added the address again sees %v as %s", got, third)
		}
		if got := names(private); fmt.Sprint(got) != "[private]" {
			t.Errorf("tom sees %v", got)
		}
		w.refused(MemberExists, w.admin, "member.add", in{"email": "tom@example.com", "role": RoleViewer}) // although an older one left

		// From there he is gone as well; it is still known where he was.
		w.must(w.admin, "member.remove", in{"id": third})
		ana := w.must(private, "member.add", in{"email": "ana@example.com", "role": RoleAdmin}).str("key")
		w.must(w.replaced(ana), "member.remove", in{"id": id})
		if fourth, _ := w.added("tom@example.com", RoleViewer); fourth != third {
			t.Errorf("of two who left it is %s, not the one who was nowhere else", fourth)
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
		if e.Message != "1 integration key belongs to this member, and 1 key of another member has a secret that this member may know. Say what becomes of them." {
			t.Error(e.Message)
		}
		out := w.must(w.admin, "member.update", in{"id": id, "role": RoleOperator, "keys": "hand_over"})
		var known []string
		for _, k := range out["known_keys"].([]any) {
			x := k.(map[string]any)
			known = append(known, x["name"].(string))
			if mend := x["mend"].(string); mend != "unstuck keys rotate "+strings.TrimPrefix(x["redacted"].(string), "unstuck_***_")+" --now" {
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

// TestLeavingWithWhatWasMadeWithAKnownSecret: whoever knew the secret of a key that makes keys was shown theirs, and can turn them.
func TestLeavingWithWhatWasMadeWithAKnownSecret(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		for _, decision := range []string{"hand_over", "revoke"} {
			parent, parentID := w.key("keys:write keys:rotate-self cues:read executions:claim", in{"name": "platform"})
			_, earlier := w.keyBy(parent, "cues:read", in{"name": "made before"})
			id, tom := w.member(decision+"@example.com", RoleAdmin)
			saw := w.must(tom, "key.rotate", in{"id": parentID, "now": true}).str("key")
			child, childID := w.keyBy(saw, "keys:write cues:read", in{"name": "child"})
			grandchild, grandchildID := w.keyBy(child, "cues:read", in{"name": "grandchild"})
			itself := w.must(saw, "key.rotate", in{"id": "self", "now": true}).str("key") // to be rid of the note
			if to := w.must(w.admin, "key.get", in{"id": parentID})["secrets"].([]any)[0].(map[string]any)["shown_to"]; to == nil {
				t.Error("who knew the secret knows the one that was made with it, and it is not said")
			}
			puppet := w.must(tom, "member.add", in{"email": "puppet-" + decision + "@example.com", "role": RoleViewer}).str("key")

			var reasons []string
			for _, k := range w.refused(MemberHasKeys, w.admin, "member.remove", in{"id": id}).Extra.(heldKeys).Keys {
				reasons = append(reasons, k.Name+": "+k.Reason)
			}
			slices.Sort(reasons)
			if diff := cmp.Diff([]string{"child: " + sawItsSecret, "first key: " + handedItOver, "grandchild: " + sawItsSecret, "made before: " + belowOne, "platform: " + sawItsSecret}, reasons); diff != "" {
				t.Error(diff)
			}
			out := w.must(w.admin, "member.remove", in{"id": id, "keys": decision})
			var known []string
			for _, k := range out["known_keys"].([]any) {
				x := k.(map[string]any)
				known = append(known, strings.TrimRight(strings.TrimSuffix(x["mend"].(string), " --now"), "0123456789abcdef")+x["name"].(string))
			}
			slices.Sort(known)
			if decision == "revoke" {
				for _, secret := range []string{itself, child, grandchild, puppet} {
					w.refused(KeyRevoked, secret, "key.self", nil)
				}
				if len(known) > 0 {
					t.Error(known)
				}
				continue
			}
			want := []string{"unstuck keys revoke first key", "unstuck keys rotate child", "unstuck keys rotate grandchild", "unstuck keys rotate made before", "unstuck keys rotate platform"}
			if diff := cmp.Diff(want, known); diff != "" {
				t.Error(diff)
			}
			for _, key := range []string{parentID, earlier, childID, grandchildID} { // which is what ends it
				w.must(w.admin, "key.rotate", in{"id": key, "now": true})
			}
			for _, secret := range []string{itself, child, grandchild} {
				w.refused(KeyRotated, secret, "key.self", nil)
			}
		}
	})
}

// TestChildOfAKnownSecretIsRemembered after the parent has another secret, which its maker does not know.
func TestChildOfAKnownSecretIsRemembered(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		_, parentID := w.key("keys:write cues:read", in{"name": "platform"})
		id, tom := w.member("tom@example.com", RoleAdmin)
		saw := w.must(tom, "key.rotate", in{"id": parentID, "now": true}).str("key")
		child, _ := w.keyBy(saw, "cues:read", in{"name": "child"})
		w.must(w.admin, "key.rotate", in{"id": parentID, "now": true})
		held := w.refused(MemberHasKeys, w.admin, "member.remove", in{"id": id}).Extra.(heldKeys).Keys
		if len(held) != 1 || held[0].Name != "child" {
			t.Errorf("%s", op.Marshal(held))
		}
		w.must(w.admin, "member.remove", in{"id": id, "keys": "revoke"})
		w.refused(KeyRevoked, child, "key.self", nil)
	})
}

// A member who is promoted while somebody else knows the first key would give that one the new role too: the call has to say so.
func TestPromotionOfAHandedOverKey(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		id, handed := w.added("tom@example.com", RoleOperator)
		e := w.refused(MemberHasKeys, w.admin, "member.update", in{"id": id, "role": RoleAdmin})
		if keys := e.Extra.(heldKeys).Keys; len(keys) != 1 || keys[0].Reason != othersKnowIt {
			t.Errorf("keys: %+v", keys)
		}
		w.must(w.admin, "member.update", in{"id": id, "role": RoleViewer}) // with less there is nothing to gain
		w.must(w.admin, "member.update", in{"id": id, "role": RoleOperator, "keys": "hand_over"})
		if who := w.must(handed, "key.self", nil)["member"].(map[string]any)["id"]; who != id {
			t.Errorf("the first key belongs to %v", who)
		}
		w.replaced(handed)
		w.must(w.admin, "member.update", in{"id": id, "role": RoleAdmin})
		other, otherKey := w.added("ana@example.com", RoleViewer)
		w.must(w.admin, "member.update", in{"id": other, "role": RoleAdmin, "keys": "revoke"})
		if code := w.code(otherKey, "key.self", nil); code != KeyRevoked.Name {
			t.Errorf("the first key: %s", code)
		}
	})
}
