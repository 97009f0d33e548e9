package cue

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// names are those of a list, in its order.
func names(list map[string]any) []string {
	out := []string{}
	for _, c := range list["cues"].([]any) {
		out = append(out, c.(map[string]any)["name"].(string))
	}
	return out
}

// Lists are newest first, filtered by status and name, paged, and count what they do not show.
func TestList(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		for i, name := range []string{"a", "crm-1", "crm-2", "crm", "crn", "z*", "crm-\U0010FFFFx", "ünï"} {
			f.clock.Advance(time.Duration(i/4) * time.Second) // several in one moment
			id := f.cue(name, "0 0 1 1 *")
			if i < 2 {
				f.ok(f.admin, "cue.pause", input{"id": id})
			}
		}
		for _, c := range []struct {
			args  input
			names []string
			total float64
		}{
			{input{"status": "paused"}, []string{"a", "crm-1"}, 2},
			{input{"status": "active"}, []string{"crm-2", "crm", "crn", "z*", "crm-\U0010FFFFx", "ünï"}, 6},
			{input{"status": "failed"}, []string{}, 0},
			{input{"name": "crm"}, []string{"crm"}, 1},
			{input{"name": "crm*"}, []string{"crm-1", "crm-2", "crm", "crm-\U0010FFFFx"}, 4},
			{input{"name": "crm-\U0010FFFF*"}, []string{"crm-\U0010FFFFx"}, 1},
			{input{"name": "z**"}, []string{"z*"}, 1},
			{input{"name": "ü*"}, []string{"ünï"}, 1},
			{input{"name": ""}, []string{}, 0},
			{input{"name": "*", "status": "paused"}, []string{"a", "crm-1"}, 2},
			{input{"offset": 8}, []string{}, 8},
		} {
			got := f.ok(f.admin, "cue.list", c.args)
			if n := names(got); !sameSet(n, c.names) || got["total"] != c.total {
				t.Errorf("%v: %q of %v, want %q of %v", c.args, n, got["total"], c.names, c.total)
			}
		}
		first := f.ok(f.admin, "cue.list", nil)
		holds(t, first, map[string]any{"total": 8., "limit": 50., "offset": 0.})
		if !slices.IsSortedFunc(first["cues"].([]any), func(a, b any) int {
			return strings.Compare(b.(map[string]any)["created_at"].(string), a.(map[string]any)["created_at"].(string))
		}) {
			t.Error("not newest first")
		}
		var paged []string
		for offset := 0; offset < 9; offset += 3 {
			paged = append(paged, names(f.ok(f.admin, "cue.list", input{"limit": 3, "offset": offset}))...)
		}
		if !slices.Equal(paged, names(first)) {
			t.Errorf("pages give %q, the whole is %q", paged, names(first))
		}
		for _, bad := range []input{{"limit": 0}, {"limit": 101}, {"limit": ""}, {"limit": "x"}, {"offset": -1}, {"offset": 10001}} {
			f.refused(f.admin, "cue.list", bad, 422, "validation_error")
		}
	})
}

func sameSet(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// A key that is restricted to certain cues finds, counts and touches only those, and can give no cue a name outside.
func TestRestrictedKey(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		ids := map[string]string{}
		for _, name := range []string{"crm-a", "crm-b", "crm", "other", "exact"} {
			ids[name] = f.cue(name, "*/5 * * * *")
		}
		parent := f.ok(f.admin, "key.create", input{"name": "parent", "scope": "full"})
		key := parent["key"].(string)
		child := f.ok(key, "key.create", input{"name": "child", "scope": "read-only", "restrictions": input{"cues": []string{"crm*", ids["exact"]}}})["key"].(string)
		f.ok(f.admin, "key.update", input{"id": parent["id"], "restrictions": input{"cues": []string{"crm-*", ids["other"], "exact"}}})
		if n := f.ok(key, "cue.list", nil); !sameSet(names(n), []string{"crm-a", "crm-b", "other", "exact"}) || n["total"] != 4. {
			t.Errorf("the key sees %q of %v", names(n), n["total"])
		}
		if n := f.ok(child, "cue.list", input{"limit": 1}); len(names(n)) != 1 || n["total"] != 3. { // both lists must match: crm-a, crm-b, exact
			t.Errorf("the child sees %q of %v", names(n), n["total"])
		}
		for _, call := range []string{"cue.get", "cue.update", "cue.pause", "cue.resume", "cue.fire", "cue.ledger", "cue.delete"} {
			f.refused(key, call, input{"id": ids["crm"]}, 404, "cue_not_found")
			f.ok(key, call, input{"id": ids["crm-a"]})
		}
		f.refused(key, "cue.create", newCue("crm", nil), 403, "key_restricted") // also a name that exists
		f.refused(key, "cue.create", newCue("new", nil), 403, "key_restricted")
		f.ok(key, "cue.create", newCue("crm-new", nil))
		f.refused(key, "cue.update", input{"id": ids["crm-b"], "name": "other name"}, 403, "key_restricted")
		f.ok(key, "cue.update", input{"id": ids["crm-b"], "name": "crm-c"})
		f.ok(key, "cue.update", input{"id": ids["other"], "name": "any name, as the id is in the list"})
		f.ok(key, "cue.ledger", input{"id": ids["crm-a"]}) // was deleted above
		f.refused(child, "cue.ledger", input{"id": ids["other"]}, 404, "cue_not_found")
		f.refused(key, "usage.get", nil, 403, "key_restricted")

		f.ok(f.admin, "cue.delete", input{"id": ids["crm"]})
		f.refused(key, "cue.ledger", input{"id": ids["crm"]}, 404, "cue_not_found")
	})
}

// Another workspace's cues are not there.
func TestOtherWorkspace(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.cue("mine", "*/5 * * * *")
		other := f.ok(f.admin, "workspace.create", input{"name": "other"})
		stranger := other["key"].(string)
		for _, call := range []string{"cue.get", "cue.update", "cue.pause", "cue.resume", "cue.fire", "cue.ledger", "cue.delete"} {
			f.refused(stranger, call, input{"id": id}, 404, "cue_not_found")
		}
		holds(t, f.ok(stranger, "cue.list", nil), map[string]any{"total": 0.})
		f.ok(stranger, "cue.create", newCue("mine", nil)) // names are unique in a workspace only
		f.ok(f.admin, "cue.delete", input{"id": id})
		f.refused(stranger, "cue.ledger", input{"id": id}, 404, "cue_not_found")
		holds(t, f.ok(stranger, "usage.get", nil), map[string]any{"cues.used": 1.})
		holds(t, f.ok(f.admin, "usage.get", nil), map[string]any{"cues.used": 0.})
	})
}

// Which permission each call needs.
func TestPermissions(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.cue("c", "*/5 * * * *")
		read, write, worker := f.key("read-only", nil), f.key("write-cues", nil), f.key("worker", nil)
		fire := f.ok(f.admin, "key.create", input{"name": "n8n", "permissions": []string{"cues:fire"}})["key"].(string)
		for call, may := range map[string][]string{
			"cue.get": {read, write}, "cue.list": {read, write}, "cue.ledger": {read, write}, "usage.get": {read, write},
			"cue.fire": {write, fire}, "cue.pause": {write}, "cue.resume": {write}, "cue.update": {write}, "cue.create": {write}, "cue.delete": {write},
		} {
			for i, key := range []string{read, write, worker, fire} {
				args := input{"id": id}
				switch call {
				case "cue.create":
					args = newCue(fmt.Sprint(f.clock.Now().UnixNano()), nil)
				case "usage.get", "cue.list":
					args = nil
				case "cue.delete":
					args = input{"id": f.cue(fmt.Sprint("to delete ", i), "0 0 1 1 *")}
				}
				if slices.Contains(may, key) {
					f.ok(key, call, args)
				} else {
					f.refused(key, call, args, 403, "insufficient_scope")
				}
			}
		}
	})
}

// A cue is shown with a page of its executions, newest first, and the next due times in its own zone.
func TestGet(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.ok(f.admin, "cue.create", newCue("c", input{"schedule": input{"type": "recurring", "cron": "30 1 * * *", "timezone": "America/New_York"}}))["id"]
		var fired []any
		for range 5 {
			f.clock.Advance(time.Second)
			fired = append(fired, f.ok(f.admin, "cue.fire", input{"id": id})["id"])
		}
		got := f.ok(f.admin, "cue.get", input{"id": id, "execution_limit": 2, "execution_offset": 1})
		holds(t, got, map[string]any{"execution_total": 5., "execution_limit": 2., "execution_offset": 1.})
		page := got["executions"].([]any)
		if len(page) != 2 || page[0].(map[string]any)["id"] != fired[3] || page[1].(map[string]any)["id"] != fired[2] {
			t.Errorf("executions %v, want the fourth and third of %v", page, fired)
		}
		if _, has := got["preview"]; has {
			t.Error("a preview that nobody asked for")
		}
		f.clock.Set(time.Date(2026, 10, 31, 12, 0, 0, 0, time.UTC))
		id = f.ok(f.admin, "cue.create", newCue("autumn", input{"schedule": input{"type": "recurring", "cron": "30 1 * * *", "timezone": "America/New_York"}}))["id"]
		want := []any{
			map[string]any{"at": "2026-11-01T05:30:00Z", "local": "2026-11-01T01:30:00-04:00"},
			map[string]any{"at": "2026-11-02T06:30:00Z", "local": "2026-11-02T01:30:00-05:00"},
		}
		for _, call := range []string{"cue.resume", "cue.pause"} { // a paused one as if it were resumed now
			f.ok(f.admin, call, input{"id": id})
			holds(t, f.ok(f.admin, "cue.get", input{"id": id, "preview": 2}), map[string]any{"preview": want})
		}
		soon := f.ok(f.admin, "cue.create", newCue("once", input{"schedule": onceAt(f.clock.Now().Add(time.Hour))}))["id"]
		holds(t, f.ok(f.admin, "cue.get", input{"id": soon, "preview": 9}), map[string]any{"preview": []any{map[string]any{"at": "2026-10-31T13:00:00Z", "local": "2026-10-31T13:00:00+00:00"}}})
		f.refused(f.admin, "cue.get", input{"id": soon, "preview": 0}, 422, "validation_error")
		f.refused(f.admin, "cue.get", input{"id": soon, "preview": 101}, 422, "validation_error")
	})
}

// The ledger of an interval that ends before it begins is refused, one that ends in the future ends now.
func TestLedgerBounds(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.cue("c", "* * * * *")
		f.clock.Advance(time.Hour)
		holds(t, f.ok(f.admin, "cue.ledger", input{"id": id, "to": "2030-01-01T00:00:00Z", "from": "2026-01-01T00:00:00Z"}),
			map[string]any{"expected": 60., "pending": 60., "closed": true, "to": "2026-11-23T11:01:40.000001Z"})
		f.settle()
		holds(t, f.ok(f.admin, "cue.ledger", input{"id": id, "from": "2026-11-23T11:01:00Z"}), map[string]any{"expected": 1., "fired": 1., "coalesced": 0.})
		holds(t, f.ok(f.admin, "cue.ledger", input{"id": id, "from": "2026-11-23T10:10:00Z", "to": "2026-11-23T10:20:00Z"}),
			map[string]any{"expected": 10., "fired": 0., "coalesced": 10., "entries": []any{
				map[string]any{"ending": "coalesced", "reason": "late", "first": "2026-11-23T10:10:00Z", "last": "2026-11-23T10:19:00Z", "count": 10., "version": 1.},
			}})
		f.refused(f.admin, "cue.ledger", input{"id": id, "from": "2026-11-23T10:20:00Z", "to": "2026-11-23T10:20:00Z"}, 422, "validation_error")
		for range 5 {
			f.ok(f.admin, "cue.pause", input{"id": id})
			f.clock.Advance(time.Hour)
			f.ok(f.admin, "cue.resume", input{"id": id})
		}
		got := f.ok(f.admin, "cue.ledger", input{"id": id, "limit": 2})
		holds(t, got, map[string]any{"skipped": 300., "has_more": true, "closed": true})
		if n := len(got["entries"].([]any)); n != 2 {
			t.Errorf("%d entries, want 2", n)
		}
	})
}
