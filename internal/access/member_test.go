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

func TestMembers(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.invalid("body.email", w.admin, "member.add", in{"email": "nobody", "role": RoleViewer})
		w.invalid("body.role", w.admin, "member.add", in{"email": "tom@example.com", "role": "boss"})
		w.clock.advance(time.Second)
		id, tom := w.member("Tom@example.com", RoleViewer)
		w.refused(MemberExists, w.admin, "member.add", in{"email": "tom@EXAMPLE.com", "role": RoleAdmin})
		if self := w.must(tom, "key.self", nil); self.str("kind") != "personal" || fmt.Sprint(self["permissions"]) != fmt.Sprint((readOnly|ownPerms).names()) || fmt.Sprint(self["narrowed_by"]) != "["+id+"]" {
			t.Errorf("%v", self)
		}
		if list := w.must(w.admin, "member.list", nil)["members"].([]any); len(list) != 2 || list[1].(map[string]any)["email"] != "Tom@example.com" {
			t.Errorf("%v", list)
		}
		w.refused(InsufficientScope, tom, "member.list", nil)
		w.must(w.admin, "member.update", in{"id": id, "role": RoleManager})
		w.must(tom, "member.list", nil)
		w.must(w.admin, "member.update", in{"id": id, "role": RoleManager}) // nothing changes
		w.refused(MemberNotFound, w.admin, "member.update", in{"id": "usr_000000000000", "role": RoleViewer})

		w.must(w.admin, "member.remove", in{"id": id})
		w.refused(KeyRevoked, tom, "key.self", nil)
		w.refused(MemberNotFound, w.admin, "member.remove", in{"id": id})
		again, key := w.member("tom@example.com", RoleOperator)
		if again != id {
			t.Errorf("the same person is %s, then %s", id, again)
		}
		w.must(key, "key.self", nil)
		w.refused(KeyRevoked, tom, "key.self", nil) // personal keys end with the membership, and stay so
		if n := len(w.audit("member.update")); n != 1 {
			t.Errorf("%d rows about changes, one was made", n)
		}
	})
}

// TestNobodyGrantsWhatHeLacks: not to others, and nothing to himself; one admin stays.
func TestNobodyGrantsWhatHeLacks(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		adminID := w.must(w.admin, "member.list", nil)["members"].([]any)[0].(map[string]any)["id"].(string)
		managerID, manager := w.member("manager@example.com", RoleManager)
		otherID, _ := w.member("other@example.com", RoleManager)
		viewerID, viewer := w.member("viewer@example.com", RoleViewer)
		for _, role := range []string{RoleManager, RoleAdmin} {
			w.refused(InsufficientScope, manager, "member.add", in{"email": "new@example.com", "role": role})
			w.refused(InsufficientScope, manager, "member.update", in{"id": viewerID, "role": role})
		}
		w.refused(InsufficientScope, manager, "member.update", in{"id": otherID, "role": RoleViewer})
		w.refused(InsufficientScope, manager, "member.remove", in{"id": adminID})
		w.refused(OwnMembership, manager, "member.update", in{"id": managerID, "role": RoleOperator})
		w.refused(OwnMembership, manager, "member.remove", in{"id": managerID})
		w.refused(InsufficientScope, viewer, "member.remove", in{"id": otherID})
		w.must(manager, "member.update", in{"id": viewerID, "role": RoleOperator})
		w.must(manager, "member.remove", in{"id": viewerID})
		w.must(manager, "member.add", in{"email": "viewer@example.com", "role": RoleViewer})

		w.refused(LastAdmin, w.admin, "member.remove", in{"id": adminID})
		w.refused(LastAdmin, w.admin, "member.update", in{"id": adminID, "role": RoleViewer})
		_, admin2 := w.member("second@example.com", RoleAdmin)
		w.refused(OwnMembership, w.admin, "member.remove", in{"id": adminID})
		w.must(admin2, "member.update", in{"id": adminID, "role": RoleViewer})
		w.refused(InsufficientScope, w.admin, "member.list", nil)

		full, _ := w.keyBy(admin2, "full")
		w.refused(MembersOnly, full, "member.add", in{"email": "robot@example.com", "role": RoleViewer}) // its key would outlive this one
		w.must(full, "member.update", in{"id": adminID, "role": RoleOperator})
		restricted, _ := w.keyBy(admin2, "full", in{"restrictions": in{"via": []string{"rest"}}})
		w.refused(KeyRestricted, restricted, "member.update", in{"id": adminID, "role": RoleViewer})
	})
}

// TestSomebodyLeaves: personal keys end in the same moment, integration keys are a decision.
func TestSomebodyLeaves(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		for _, decision := range []string{"hand_over", "revoke"} {
			id, tom := w.member(decision+"@example.com", RoleManager)
			laptop := w.must(tom, "personal_key.create", in{"name": "laptop"}).str("key")
			sync, syncID := w.keyBy(tom, "write-cues", in{"name": "HubSpot sync"})
			w.clock.advance(time.Second)
			_, childID := w.keyBy(tom, "keys:write cues:read", in{"name": "n8n"})
			_, goneID := w.keyBy(tom, "worker")
			w.must(tom, "key.revoke", in{"id": goneID})
			w.must(sync, "cue.list", nil, from{agent: "hubspot/3"})

			e := w.refused(MemberHasKeys, w.admin, "member.remove", in{"id": id})
			var held []string
			for _, k := range e.Extra.(heldKeys).Keys {
				held = append(held, k.Name+" "+k.LastProgram)
			}
			if diff := cmp.Diff([]string{"HubSpot sync hubspot/3", "n8n "}, held); diff != "" {
				t.Error(diff)
			}
			if !strings.Contains(e.Message, "2 integration keys belong") {
				t.Error(e.Message)
			}
			w.must(tom, "key.self", nil) // nothing happened yet
			w.invalid("query.keys", w.admin, "member.remove", in{"id": id, "keys": "burn"})

			w.must(w.admin, "member.remove", in{"id": id, "keys": decision})
			w.refused(KeyRevoked, tom, "key.self", nil)
			w.refused(KeyRevoked, laptop, "key.self", nil)
			shown := w.must(w.admin, "key.get", in{"id": syncID})
			member := shown["member"].(map[string]any)["name"]
			if decision == "revoke" {
				w.refused(KeyRevoked, sync, "cue.list", nil)
				if member != decision+"@example.com" {
					t.Errorf("%v", member)
				}
			} else {
				w.must(sync, "cue.list", nil)
				if member != "admin@example.com" || shown["created_by"].(map[string]any)["name"] != decision+"@example.com" {
					t.Errorf("%v %v", member, shown["created_by"])
				}
			}
			if row := w.done("member.remove"); !strings.Contains(string(row.Detail), `"keys":"`+decision+`"`) || !strings.Contains(string(row.Detail), childID) || strings.Contains(string(row.Detail), goneID) {
				t.Errorf("%s", row.Detail)
			}
			w.stop()
			w.open() // memory and rows agree
			if got := w.code(sync, "cue.list", nil); (got == "") != (decision == "hand_over") {
				t.Errorf("after a restart: %q", got)
			}
		}
	})
}

// TestSomebodyIsDemoted: personal keys narrow at once; integration keys are a decision when they hold what the new role does not.
func TestSomebodyIsDemoted(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		id, tom := w.member("tom@example.com", RoleManager)
		reads, readsID := w.keyBy(tom, "read-only")
		w.must(w.admin, "key.widen", in{"id": readsID, "add_permissions": []string{"audit:read"}}) // which his role never allowed him
		writes, writesID := w.keyBy(tom, "write-cues")
		e := w.refused(MemberHasKeys, w.admin, "member.update", in{"id": id, "role": RoleOperator})
		if keys := e.Extra.(heldKeys).Keys; len(keys) != 1 || keys[0].ID != writesID || !strings.HasPrefix(e.Message, "1 integration key belongs") {
			t.Errorf("%s", op.Marshal(e.Extra))
		}
		w.must(tom, "cue.create", nil)
		w.must(w.admin, "member.update", in{"id": id, "role": RoleOperator, "keys": "hand_over"})
		w.refused(InsufficientScope, tom, "cue.create", nil)
		w.must(tom, "cue.fire", nil)
		w.must(reads, "cue.list", nil)
		w.must(writes, "cue.create", nil)
		w.must(w.admin, "member.update", in{"id": id, "role": RoleAdmin}) // a promotion asks nothing
		w.must(tom, "audit.list", nil)
	})
}

// TestFirstRunStory: first key, a key with all defaults, rotate the first with now, revoke it; the created key still works.
func TestFirstRunStory(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		secret, id := w.key("write-cues")
		self := w.must(w.admin, "key.self", nil)
		second := w.must(w.admin, "key.rotate", in{"id": self.str("id"), "now": true}).str("key")
		w.refused(KeyRotated, w.admin, "key.self", nil)
		w.must(second, "key.revoke", in{"id": self.str("id")})
		w.refused(KeyRevoked, second, "key.self", nil)
		w.must(secret, "cue.create", nil)
		w.renewAdmin(t)
		if shown := w.must(w.admin, "key.get", in{"id": id}); shown.str("status") != "active" || shown["created_by"].(map[string]any)["name"] != "admin@example.com" {
			t.Errorf("%v", shown)
		}
		if row := w.done("auth.login_local"); row.Who.Kind != "server" || row.Via != "local" {
			t.Errorf("%+v", row)
		}
	})
}

func TestFirstRunHappensOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		if key, made, err := w.a.FirstRun(t.Context(), "other@example.com", true); made || err != nil || key.Secret != "" {
			t.Errorf("%v %v %v", key, made, err)
		}
		w2 := newWorldWithoutKey(t, t.TempDir()+"/second.db")
		if n := len(w2.must(w2.admin, "key.list", nil)["keys"].([]any)); n != 1 {
			t.Errorf("%d keys, want that of the local login only", n)
		}
	})
}

// newWorldWithoutKey is a first run whose key nobody could have seen, followed by a local login.
func newWorldWithoutKey(t *testing.T, dsn string) *world {
	t.Helper()
	w := &world{TB: t, dsn: dsn, dir: t.TempDir(), clock: newHands(), log: &journal{}, toys: newToys()}
	if _, err := ReadSecretFile(w.dir, true); err != nil {
		t.Fatal(err)
	}
	w.open()
	if _, _, err := w.a.LocalLogin(t.Context(), "", ""); err == nil {
		t.Error("somebody logged in to a server without a workspace")
	}
	key, made, err := w.a.FirstRun(t.Context(), "admin@example.com", false)
	if err != nil || !made || key.Secret != "" || key.ID != "" {
		t.Fatalf("%v %v %v", key, made, err)
	}
	w.renewAdmin(t)
	return w
}

func TestWorkspaces(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		out := w.must(w.admin, "workspace.create", in{"name": "Acme GmbH & Co."})
		if out.str("slug") != "acme-gmbh-co" || out.str("plan") != planSelfHosted {
			t.Errorf("%v", out)
		}
		second := out.str("key")
		w.refused(DuplicateSlug, w.admin, "workspace.create", in{"name": "x", "slug": "acme-gmbh-co"})
		if again := w.must(w.admin, "workspace.create", in{"name": "Acme GmbH & Co."}); !strings.HasPrefix(again.str("slug"), "acme-gmbh-co-") {
			t.Errorf("%v", again)
		}
		w.refused(DuplicateSlug, w.admin, "workspace.update", in{"slug": "acme-gmbh-co"})
		w.invalid("body.slug", w.admin, "workspace.update", in{"slug": "Not A Slug"})
		w.must(w.admin, "workspace.update", in{"slug": "first", "rate_limit_per_minute": 10_000})
		if got := w.must(w.admin, "workspace.get", nil); got.str("slug") != "first" || got["rate_limit_per_minute"] != 10_000.0 {
			t.Errorf("%v", got)
		}
		if list := w.must(second, "workspace.list", nil)["workspaces"].([]any); len(list) != 3 {
			t.Errorf("%v", list)
		}
		integration, _ := w.key("full")
		if list := w.must(integration, "workspace.list", nil)["workspaces"].([]any); len(list) != 1 {
			t.Errorf("%v", list)
		}
		w.refused(MembersOnly, integration, "workspace.create", in{"name": "x"})

		// What is in one workspace is not there for the other.
		_, foreign := w.keyBy(second, "worker")
		for _, name := range []string{"key.get", "key.update", "key.rotate", "key.revoke", "key.access", "key.activity"} {
			w.refused(KeyNotFound, w.admin, name, in{"id": foreign})
		}
		for _, name := range []string{"key.widen", "key.extend"} {
			w.refused(KeyNotFound, w.admin, name, in{"id": foreign, "add_permissions": []string{"cues:read"}, "expires_in": "1d"}.only(w, name))
		}
		if list := w.must(second, "member.list", nil)["members"].([]any); len(list) != 1 {
			t.Errorf("%v", list)
		}
		w.must(second, "member.add", in{"email": "tom@example.com", "role": RoleViewer})
		if list := w.must(w.admin, "member.list", nil)["members"].([]any); len(list) != 1 {
			t.Errorf("%v", list)
		}
	})
}

// only leaves the inputs that an operation takes.
func (i in) only(w *world, operation string) in {
	out := in{}
	for name, v := range i {
		if slices.ContainsFunc(w.set.Lookup(operation).Fields(), func(f op.Field) bool { return f.Name == name }) {
			out[name] = v
		}
	}
	return out
}

// What a refused member lacks for what he asked is named at once: given that, the same call passes.
func TestRefusalNamesAllThatIsHandedOut(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		for name, c := range map[string]struct {
			operation string
			input     in
		}{
			"a full key":    {"key.create", in{"name": "k", "scope": "full"}},
			"a permission":  {"key.create", in{"name": "k", "permissions": []string{"secrets:read"}}},
			"an admin":      {"member.add", in{"email": "new@example.com", "role": RoleAdmin}},
			"another role":  {"member.add", in{"email": "next@example.com", "role": RoleManager}},
			"a viewer only": {"member.add", in{"email": "last@example.com", "role": RoleViewer}},
		} {
			id, secret := w.member(strings.ReplaceAll(name, " ", "-")+"@example.com", RoleViewer)
			e := w.refused(InsufficientScope, secret, c.operation, c.input)
			grants := e.Extra.(*refusal).Grants
			if len(grants) != 1 || grants[0].Member != id {
				t.Fatalf("%s: %+v", name, grants)
			}
			w.must(w.admin, "member.update", in{"id": id, "role": grants[0].Role})
			w.must(secret, c.operation, c.input)
		}
	})
}
