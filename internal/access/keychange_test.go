package access

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNarrow(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.toys.put(w.workspace(), "cue_000000000001", "report")
		secret, id := w.key("write-cues", in{"expires_in": "90d", "restrictions": in{
			"cues": []string{"a", "b*"}, "ips": []string{"192.0.2.0/24", "10.0.0.0/8"}, "not_before": "2026-11-24T00:00:00Z", "rate_per_minute": 100,
		}})
		wide := func(field string, input in) {
			t.Helper()
			input["id"] = id
			if e := w.refused(WouldWiden, w.admin, "key.update", input); !strings.Contains(e.Message, field) {
				t.Errorf("%v does not name %s", e, field)
			}
		}
		before := w.must(w.admin, "key.get", in{"id": id})
		for _, field := range []string{"name", "scope", "permissions", "restrictions", "expires_in", "expires_at"} {
			wide("Null for "+field+" ", in{field: nil})
		}
		for _, kind := range kinds {
			wide("Null for restrictions."+kind+" ", in{"restrictions": in{kind: nil}})
		}
		wide("keys:rotate-self", in{"scope": "full"})
		wide("executions:claim", in{"permissions": []string{"cues:read", "executions:claim"}})
		wide("restrictions.cues", in{"restrictions": in{"cues": []string{"a", "c"}}})
		wide("restrictions.ips", in{"restrictions": in{"ips": []string{"0.0.0.0/0"}}})
		wide("restrictions.rate_per_minute", in{"restrictions": in{"rate_per_minute": 101}})
		wide("restrictions.not_before", in{"restrictions": in{"not_before": "2026-11-23T00:00:00Z"}})
		wide("A later end", in{"expires_in": "91d"})
		wide("A later end", in{"expires_in": "never"})
		w.invalid("body.restrictions.cues", w.admin, "key.update", in{"id": id, "restrictions": in{"cues": []string{}}})
		w.invalid("body.restrictions.via.0", w.admin, "key.update", in{"id": id, "restrictions": in{"via": []string{"fax"}}})
		w.invalid("body.restrictions", w.admin, "key.update", in{"id": id, "restrictions": in{}})
		w.invalid("body.expires_at", w.admin, "key.update", in{"id": id, "expires_at": "2026-11-01T00:00:00Z"})
		w.invalid("body.scope", w.admin, "key.update", in{"id": id, "scope": "worker", "permissions": []string{"cues:read"}})
		w.invalid("body.color", w.admin, "key.update", in{"id": id, "color": "red"})
		if diff := cmp.Diff(before, w.must(w.admin, "key.get", in{"id": id})); diff != "" {
			t.Errorf("a refused change left something behind: %s", diff)
		}
		w.must(w.admin, "key.update", in{"id": id, "name": "renamed", "permissions": []string{"cues:write"}, "expires_in": "1d", "restrictions": in{
			"cues": []string{"b*"}, "via": []string{"rest"}, "rate_per_minute": 99, "not_before": "2026-11-24T11:00:00Z", "worker_ids": []string{"mac"},
		}})
		after := w.must(secret, "cue.create", in{"name": "b2"})
		_ = after
		w.refused(KeyRestricted, secret, "cue.create", in{"name": "a"})
		w.refused(InsufficientScope, secret, "cue.fire", nil)
		shown := w.must(w.admin, "key.get", in{"id": id})
		want := map[string]any{
			"cues": []any{"b*"}, "ips": []any{"192.0.2.0/24", "10.0.0.0/8"}, "via": []any{"rest"}, "not_before": "2026-11-24T11:00:00Z", "rate_per_minute": 99.0, "worker_ids": []any{"mac"},
		}
		if diff := cmp.Diff(want, shown["restrictions"]); diff != "" {
			t.Error(diff)
		}
		if shown.str("scope") != custom || fmt.Sprint(shown["permissions"]) != "[cues:read cues:write]" || shown.str("expires_at") != "2026-11-25T12:00:00Z" || shown.str("name") != "renamed" {
			t.Errorf("%v", shown)
		}
		rows := len(w.audit("key.update"))
		w.must(w.admin, "key.update", in{"id": id, "name": "renamed"})
		if now := len(w.audit("key.update")); rows != 1 || now != rows {
			t.Errorf("%d rows, then %d after a change of nothing", rows, now)
		}
		w.must(w.admin, "key.revoke", in{"id": id})
		w.refused(KeyEnded, w.admin, "key.update", in{"id": id, "name": "x"})
		w.refused(KeyNotFound, w.admin, "key.update", in{"id": "key_000000000000", "name": "x"})
	})
}

// TestWhoMayNarrowAndRevoke: itself and what is below it; others need a caller without restrictions.
func TestWhoMayNarrowAndRevoke(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		parent, _ := w.key("full", in{"restrictions": in{"via": []string{"rest"}}})
		_, childID := w.keyBy(parent, "worker")
		_, otherID := w.key("worker")
		w.must(parent, "key.update", in{"id": childID, "name": "x"})
		w.refused(KeyRestricted, parent, "key.update", in{"id": otherID, "name": "x"})
		w.refused(KeyRestricted, parent, "key.revoke", in{"id": otherID})
		w.must(parent, "key.revoke", in{"id": childID})
		worker, workerID := w.key("worker")
		w.refused(InsufficientScope, worker, "key.revoke", in{"id": otherID})
		w.must(worker, "key.revoke", in{"id": workerID})
		w.refused(KeyRevoked, worker, "key.self", nil)
		cues, cuesID := w.key("full", in{"restrictions": in{"cues": []string{"a"}}})
		w.refused(KeyRestricted, cues, "key.list", nil)
		w.refused(KeyRestricted, cues, "key.revoke", in{"id": otherID})
		w.must(cues, "key.revoke", in{"id": cuesID})
		full, _ := w.key("full")
		w.must(full, "key.update", in{"id": otherID, "name": "y"})
		w.must(full, "key.revoke", in{"id": otherID})
		w.must(full, "key.revoke", in{"id": otherID}) // a second time finds what the first did

		_, tom := w.member("tom@example.com", RoleViewer)
		mine := w.must(tom, "personal_key.create", in{"name": "phone"})
		w.must(tom, "key.revoke", in{"id": mine.str("id")})
		w.refused(InsufficientScope, tom, "key.revoke", in{"id": workerID})
		if n := len(w.audit("key.revoke")); n != 9 {
			t.Errorf("%d rows about revocations, want 5 done and 4 refused", n)
		}
	})
}

// TestWiden: members give what they hold themselves; never to the key in use, never by an integration key.
func TestWiden(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		secret, id := w.key("worker", in{"restrictions": in{"ips": []string{"10.0.0.0/8"}, "via": []string{"mcp"}, "rate_per_minute": 5}})
		_, manager := w.member("manager@example.com", RoleManager)
		full, _ := w.key("full")
		w.refused(MembersOnly, full, "key.widen", in{"id": id, "add_permissions": []string{"cues:read"}})
		w.refused(MembersOnly, full, "key.extend", in{"id": id, "expires_in": "1y"})
		w.refused(MembersOnly, w.admin, "key.widen", in{"id": w.must(w.admin, "key.self", nil).str("id"), "add_permissions": []string{"cues:read"}})
		w.refused(MembersOnly, w.admin, "key.extend", in{"id": w.must(w.admin, "key.self", nil).str("id"), "expires_in": "5y"})
		w.refused(InsufficientScope, manager, "key.widen", in{"id": id, "add_permissions": []string{"audit:read"}})
		_, fullID := w.key("full")
		w.refused(InsufficientScope, manager, "key.widen", in{"id": fullID, "drop_restrictions": []string{"ips"}})
		w.refused(InsufficientScope, manager, "key.extend", in{"id": fullID, "expires_in": "5y"})
		w.invalid("body", w.admin, "key.widen", in{"id": id})
		w.invalid("body.add_to.cues", w.admin, "key.widen", in{"id": id, "add_to": in{"cues": []string{"a"}}})
		w.invalid("body.drop_restrictions.0", w.admin, "key.widen", in{"id": id, "drop_restrictions": []string{"ip"}})
		w.invalid("body.add_permissions.0", w.admin, "key.widen", in{"id": id, "add_permissions": []string{"moon:write"}})

		w.must(manager, "key.widen", in{"id": id, "add_permissions": []string{"cues:write"}, "add_to": in{"ips": []string{"192.0.2.1"}, "via": []string{"rest"}}, "drop_restrictions": []string{"rate_per_minute"}, "reason": "why not"})
		w.must(secret, "cue.create", nil)
		shown := w.must(w.admin, "key.get", in{"id": id})
		if diff := cmp.Diff(map[string]any{"ips": []any{"10.0.0.0/8", "192.0.2.1/32"}, "via": []any{"mcp", "rest"}}, shown["restrictions"]); diff != "" {
			t.Error(diff)
		}
		if row := w.done("key.widen"); !strings.Contains(string(row.Detail), "why not") || row.ObjectID != id {
			t.Errorf("%+v", row)
		}
		w.must(w.admin, "key.widen", in{"id": id, "drop_restrictions": []string{"ips", "via"}})
		if shown := w.must(w.admin, "key.get", in{"id": id}); shown["restrictions"] != nil {
			t.Errorf("%v", shown["restrictions"])
		}
		w.must(w.admin, "key.revoke", in{"id": id})
		w.refused(KeyEnded, w.admin, "key.widen", in{"id": id, "add_permissions": []string{"cues:read"}})
	})
}

func TestExtend(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		secret, id := w.key("full", in{"expires_in": "1d"})
		child, childID := w.keyBy(secret, "worker")
		w.invalid("body.expires_in", w.admin, "key.extend", in{"id": childID, "expires_in": "2d"})
		w.clock.advance(24 * time.Hour)
		w.refused(KeyExpired, secret, "key.self", nil)
		w.refused(KeyExpired, child, "key.self", nil)
		if status := w.must(w.admin, "key.get", in{"id": id}).str("status"); status != "expired" {
			t.Error(status)
		}
		w.clock.advance(30 * 24 * time.Hour)
		w.must(w.admin, "key.extend", in{"id": id, "expires_in": "1d"})
		w.must(secret, "key.self", nil)
		w.refused(KeyExpired, child, "key.self", nil)
		w.must(w.admin, "key.extend", in{"id": childID, "expires_in": "1d"})
		w.must(child, "key.self", nil)
		w.clock.advance(31*24*time.Hour + time.Microsecond)
		w.refused(KeyEnded, w.admin, "key.extend", in{"id": id, "expires_in": "1d"})
		w.refused(KeyEnded, w.admin, "key.rotate", in{"id": id, "expires_in": "1d"})
		w.invalid("body.expires_in", w.admin, "key.extend", in{"id": id})
		forever, foreverID := w.key("worker", in{"expires_in": "1d"})
		w.must(w.admin, "key.extend", in{"id": foreverID, "expires_in": "never"})
		w.clock.advance(200 * 24 * time.Hour)
		w.must(forever, "key.self", nil)
	})
}

func TestListKeys(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		_, manager := w.member("tom@example.com", RoleManager)
		var ids []string
		for i := range 7 {
			w.clock.advance(time.Second)
			by := w.admin
			if i%2 == 1 {
				by = manager
			}
			_, id := w.keyBy(by, []string{"worker", "read-only"}[i%2], in{"name": fmt.Sprint(i), "expires_in": "200d"})
			ids = append(ids, id)
		}
		parent, parentID := w.key("full")
		_, childID := w.keyBy(parent, "worker")
		list := func(input in) (got []string) {
			t.Helper()
			input["limit"] = 2
			for pages := 0; pages < 20; pages++ {
				page := w.must(w.admin, "key.list", input)
				for _, k := range page["keys"].([]any) {
					got = append(got, k.(map[string]any)["id"].(string))
				}
				if page["next"] == nil {
					return got
				}
				input["cursor"] = page["next"]
			}
			t.Fatal("it has no end")
			return nil
		}
		if got := list(in{}); len(got) != 11 {
			t.Errorf("%d keys in all", len(got))
		}
		w.must(w.admin, "key.revoke", in{"id": ids[2]})
		for _, test := range []struct {
			name  string
			input in
			want  []string
		}{
			{"a scope", in{"scope": "read-only"}, []string{ids[5], ids[3], ids[1]}},
			{"a status", in{"status": "revoked"}, []string{ids[2]}},
			{"of a member", in{"made_by": "TOM@example.com", "kind": "integration"}, []string{ids[5], ids[3], ids[1]}},
			{"children", in{"parent_id": parentID}, []string{childID}},
			{"nothing", in{"scope": "write-cues"}, nil},
		} {
			if diff := cmp.Diff(test.want, list(test.input)); diff != "" {
				t.Errorf("%s: %s", test.name, diff)
			}
		}
		w.invalid("query.cursor", w.admin, "key.list", in{"cursor": "key_000000000000"})
		w.invalid("query.parent_id", w.admin, "key.list", in{"parent_id": "key_000000000000"})
		w.invalid("query.made_by", w.admin, "key.list", in{"made_by": "usr_000000000000"})
		w.invalid("query.scope", w.admin, "key.list", in{"scope": "write-cue"})
		w.clock.advance(89 * 24 * time.Hour)
		if got := list(in{"stale": true}); got != nil {
			t.Errorf("stale after 89 days: %v", got)
		}
		w.clock.advance(24 * time.Hour)
		w.must(parent, "key.self", nil)
		if got := list(in{"stale": true, "kind": "integration"}); len(got) != 7 {
			t.Errorf("stale after 90 days: %v", got)
		}
	})
}

// TestListOfVeryManyKeys looks at a bounded number for each page, and still finds the last.
func TestListOfVeryManyKeys(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		_, id := w.key("worker")
		exec(t, w.db, `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) INSERT INTO keys (`+keyCols+`)
			SELECT 'key_' || (100000000000 + i), k.workspace_id, k.user_id, NULL, k.kind, 'many', 'read-only', k.permissions, k.restrictions, k.created_at + i, k.created_by, NULL, NULL, '', '', 1
			FROM n, keys k WHERE k.id = ?2`, lookMost+500, id)
		input, pages, found := in{"scope": "worker", "limit": 1000}, 0, ""
		for {
			page := w.must(w.admin, "key.list", input)
			for _, k := range page["keys"].([]any) {
				found += k.(map[string]any)["id"].(string)
			}
			if pages++; page["next"] == nil {
				break
			}
			input["cursor"] = page["next"]
		}
		if found != id || pages != 2 {
			t.Errorf("%q on %d pages", found, pages)
		}
	})
}

// Two personal keys of one member do not keep each other alive: whoever found one that ends soon would have it for ever.
func TestPersonalKeysDoNotExtendEachOther(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		short := w.must(w.admin, "personal_key.create", in{"name": "short", "scope": "full", "expires_in": "1h"})
		twin := w.must(w.admin, "personal_key.create", in{"name": "twin", "scope": "full", "expires_in": "1h"})
		w.invalid("body.expires_in", short.str("key"), "key.extend", in{"id": twin.str("id"), "expires_in": "1y"})
		w.invalid("body.expires_in", short.str("key"), "key.extend", in{"id": twin.str("id"), "expires_in": "never"})
		w.invalid("body.expires_in", short.str("key"), "key.rotate", in{"id": twin.str("id"), "expires_in": "1y", "now": true})
		_, integration := w.key("worker")
		w.must(short.str("key"), "key.extend", in{"id": integration, "expires_in": "2y"}) // which may outlive who manages it
		w.must(w.admin, "key.extend", in{"id": twin.str("id"), "expires_in": "1y"})       // which ends later itself
		_, ana := w.member("ana@example.com", RoleAdmin)
		w.must(ana, "key.extend", in{"id": short.str("id"), "expires_in": "1y"}) // of somebody else
	})
}
