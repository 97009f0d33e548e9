package access

import (
	"strings"
	"testing"
	"time"
)

// TestLastKeyOfAnAdmin: whatever leaves a workspace that nobody can administer is done, and says so, with the way back in.
func TestLastKeyOfAnAdmin(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		id := func(secret string) string { return w.must(secret, "key.self", nil).str("id") }
		const way = "no admin of this workspace has a key to administer it with. To get in again, on the machine of the server: unstuck auth login --local --workspace "
		warned := func(out answer, want string) {
			t.Helper()
			if out.str("warning") != want {
				t.Errorf("warned %q, want %q", out.str("warning"), want)
			}
		}
		w.member("viewer@example.com", RoleViewer)
		spare := w.must(w.admin, "personal_key.create", in{"name": "spare", "scope": "read-only"}) // with which nobody administers
		warned(w.must(w.admin, "key.update", in{"id": id(w.admin), "name": "renamed"}), "")
		warned(w.must(w.admin, "key.revoke", in{"id": spare.str("id")}), "")

		other := w.must(w.admin, "personal_key.create", in{"name": "other"}).str("key")
		warned(w.must(w.admin, "key.update", in{"id": id(other), "expires_in": "2h"}), "")
		warned(w.must(other, "key.revoke", in{"id": id(w.admin)}), "")
		warned(w.must(other, "key.update", in{"id": id(other), "expires_in": "1h"}), "After 13:00:00 UTC "+way+"default")
		warned(w.must(other, "key.revoke", in{"id": "self"}), "Now "+way+"default")

		for _, narrower := range []in{{"permissions": []string{"keys:write", "cues:read"}}, {"restrictions": in{"via": []string{"rest"}}}} {
			w.renewAdmin(t)
			narrower["id"] = id(w.admin)
			warned(w.must(w.admin, "key.update", narrower), "Now "+way+"default")
			w.renewAdmin(t)
			w.must(w.admin, "key.revoke", in{"id": narrower["id"]})
			w.must(w.admin, "key.revoke", in{"id": "self"})
		}

		// The last one can go with its member too, and as CueAPI revokes; another workspace is another matter.
		w.renewAdmin(t)
		integration, _ := w.key("full")
		anaID, ana := w.member("ana@example.com", RoleAdmin)
		second := w.must(w.admin, "workspace.create", in{"name": "Second"})
		w.must(ana, "key.revoke", in{"id": id(w.admin)})
		warned(w.must(integration, "member.update", in{"id": anaID, "role": RoleViewer}), "Now "+way+"default")
		warned(w.must(integration, "auth_key.revoke", in{"id": id(ana)}), "")
		warned(w.must(second.str("key"), "key.revoke", in{"id": "self"}), "Now "+way+"second")

		key, slug, err := w.a.LocalLogin(t.Context(), "", "second")
		if err != nil || slug != "second" || w.must(key.Secret, "me.get", nil).str("slug") != "second" {
			t.Errorf("%s %v", slug, err)
		}
		w.clock.advance(time.Minute)
		if _, _, err := w.a.LocalLogin(t.Context(), "", "third"); err == nil || !strings.Contains(err.Error(), "There is no workspace third") {
			t.Error(err)
		}
	})
}
