package access

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"unstuck/internal/op"
)

// TestQuestion asks about one operation, one cue and one address, and gets the answer that the call would get.
func TestQuestion(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.toys.put(w.workspace(), "cue_000000000001", "report")
		w.toys.put(w.workspace(), "cue_000000000002", "nightly")
		narrow, narrowID := w.key("cues:read cues:fire cues:write", in{"restrictions": in{"cues": []string{"report*"}, "ips": []string{"10.0.0.0/8"}, "rate_per_minute": 100}})
		w.toys.put(w.workspace(), "cue_000000000009", "gone")
		byID, byIDID := w.key("cues:read", in{"restrictions": in{"cues": []string{"cue_000000000001", "cue_000000000009"}}})
		delete(w.toys.cues[w.workspace()], "cue_000000000009")
		_, laterID := w.key("cues:fire", in{"restrictions": in{"not_before": "2026-11-25T00:00:00Z"}})
		_, fullID := w.key("full")
		inside := from{peer: "10.0.0.1:1"}
		ask := func(key, id string, q in, where ...from) string {
			t.Helper()
			asked := w.must(key, "key.access", mergeIn(in{"id": id}, q), where...)["asked"].(map[string]any)
			return fmt.Sprint(asked["answer"], " ", asked["because"], " ", asked["within"])
		}
		for _, test := range []struct {
			id   string
			q    in
			want string
		}{
			{fullID, in{"operation": "cue.fire"}, "yes  []"},
			{fullID, in{"operation": "cue.fire", "cue": "nightly", "ip": "203.0.113.7"}, "yes  []"},
			{narrowID, in{"operation": "cue.fire"}, "only within the key's restrictions [cues ips rate_per_minute]"},
			{narrowID, in{"operation": "cue.fire", "cue": "report"}, "only within the key's restrictions [ips rate_per_minute]"},
			{narrowID, in{"operation": "cue.fire", "cue": "cue_000000000001", "ip": "10.9.9.9"}, "only within the key's restrictions [rate_per_minute]"},
			{narrowID, in{"operation": "cue.fire", "cue": "nightly"}, "no the key is for certain cues only, and nightly is not one of them []"},
			{narrowID, in{"operation": "cue.fire", "cue": "cue_000000000002"}, "no the key is for certain cues only, and cue_000000000002 is not one of them []"},
			{narrowID, in{"operation": "cue.fire", "ip": "::ffff:203.0.113.7"}, "no the key is for certain addresses only, and 203.0.113.7 is not one of them []"},
			{narrowID, in{"operation": "cue.create", "cue": "report-new"}, "only within the key's restrictions [ips rate_per_minute]"}, // it need not be there
			{narrowID, in{"operation": "cue.create", "cue": "other"}, "no the key is for certain cues only, and other is not one of them []"},
			{narrowID, in{"operation": "usage.get", "ip": "10.0.0.1"}, "no lacks usage:read []"},
			{narrowID, in{"operation": "info.get", "ip": "203.0.113.7"}, "yes  []"},
			{narrowID, in{"operation": "key.rotate"}, "no lacks keys:rotate-self []"},
			{byIDID, in{"operation": "cue.get", "cue": "report"}, "yes  []"},
			{laterID, in{"operation": "cue.fire"}, "no the key may not be used yet []"},
		} {
			if got := ask(w.admin, test.id, test.q); got != test.want {
				t.Errorf("%v: %s, want %s", test.q, got, test.want)
			}
		}
		for place, q := range map[string]in{
			"query.operation": {"operation": "cue.explode"}, "query.cue": {"operation": "cue.fire", "cue": "nothing"}, "query.ip": {"operation": "cue.fire", "ip": "here"},
		} {
			w.invalid(place, w.admin, "key.access", mergeIn(in{"id": fullID}, q))
		}
		w.invalid("query.operation", w.admin, "key.access", in{"id": fullID, "ip": "10.0.0.1"})
		w.invalid("body.cue", w.admin, "key.preview", in{"scope": "full", "operation": "cue.fire", "cue": "nothing"})
		if asked := w.must(w.admin, "key.access", in{"id": fullID})["asked"]; asked != nil {
			t.Errorf("nothing was asked: %v", asked)
		}

		// a key for certain cues asks about itself, and learns of others only that they are outside
		for _, cue := range []string{"nightly", "nothing", "cue_000000000002", "cue_000000000008"} {
			want := "no the key is for certain cues only, and " + cue + " is not one of them []"
			if got := ask(narrow, "self", in{"operation": "cue.fire", "cue": cue}, inside); got != want {
				t.Errorf("%s: %s", cue, got)
			}
		}
		w.invalid("query.cue", byID, "key.access", in{"id": byIDID, "operation": "cue.get", "cue": "cue_000000000009"}) // inside, and gone

		w.clock.advance(24 * time.Hour)
		if got := ask(w.admin, laterID, in{"operation": "cue.fire"}); got != "yes  []" {
			t.Error(got)
		}
		w.must(w.admin, "key.revoke", in{"id": laterID})
		if got := ask(w.admin, laterID, in{"operation": "cue.fire"}); got != "no the key works no more []" {
			t.Error(got)
		}
	})
}

// TestQuestionAgreesWithTheCall holds the answer about a cue and an address against what the call itself comes to.
// A caller that may not read cues learns nothing of which there are.
func TestQuestionTellsNoCues(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.toys.put(w.workspace(), "cue_000000000001", "weekly-report")
		blind, id := w.key("worker")
		for _, o := range []string{"cue.get", "cue.fire", "execution.claim"} {
			there := w.must(blind, "key.access", in{"id": id, "operation": o, "cue": "weekly-report"})["asked"]
			gone := w.must(blind, "key.access", in{"id": id, "operation": o, "cue": "monthly-report"})["asked"]
			if !reflect.DeepEqual(there, gone) {
				t.Errorf("%s: %v of a cue that is there, %v of one that is not", o, there, gone)
			}
		}
		w.refused(op.ValidationError, w.admin, "key.access", in{"id": id, "operation": "cue.fire", "cue": "monthly-report"})
	})
}

func TestQuestionAgreesWithTheCall(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		cues := map[string]string{"cue_000000000001": "report", "cue_000000000002": "nightly"}
		for id, name := range cues {
			w.toys.put(w.workspace(), id, name)
		}
		for _, r := range []in{nil, {"cues": []string{"report"}}, {"cues": []string{"cue_000000000002"}}, {"ips": []string{"10.0.0.0/8"}}, {"cues": []string{"n*"}, "ips": []string{"203.0.113.7"}}} {
			more := in{}
			if r != nil {
				more["restrictions"] = r
			}
			secret, id := w.key("read-only", more)
			for cue := range cues {
				for _, ip := range []string{"10.0.0.1", "203.0.113.7"} {
					asked := w.must(w.admin, "key.access", in{"id": id, "operation": "cue.get", "cue": cue, "ip": ip})["asked"].(map[string]any)
					code := w.code(secret, "cue.get", in{"id": cue}, from{peer: ip + ":1"})
					if (asked["answer"] == Yes) != (code == "") {
						t.Errorf("%v, %s from %s: access says %v, the call %q", r, cue, ip, asked, code)
					}
				}
			}
		}
	})
}

// TestRevokeItselfIsNeverRefused whatever its restrictions, and over its limit and the workspace's.
func TestRevokeItselfIsNeverRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		for name, r := range map[string]in{
			"ips": {"ips": []string{"10.0.0.0/8"}}, "via": {"via": []string{"mcp"}}, "not_before": {"not_before": "2027-01-01T00:00:00Z"}, "cues": {"cues": []string{"x"}},
			"worker_ids": {"worker_ids": []string{"mac"}}, "all": {"ips": []string{"10.0.0.0/8"}, "via": []string{"mcp"}, "not_before": "2027-01-01T00:00:00Z", "cues": []string{"x"}, "rate_per_minute": 1},
		} {
			secret, id := w.key("cues:read", in{"restrictions": r})
			_, other := w.key("cues:read")
			if name != "cues" && name != "worker_ids" {
				w.refused(KeyRestricted, secret, "key.self", nil)
			}
			if code := w.code(secret, "key.revoke", in{"id": other}); code == "" {
				t.Errorf("%s: it ends another key", name)
			}
			if got := w.must(secret, "key.revoke", in{"id": map[bool]string{true: id, false: "self"}[name == "via"]}).str("status"); got != "revoked" {
				t.Errorf("%s: %s", name, got)
			}
			w.refused(KeyRevoked, secret, "key.revoke", in{"id": id})
		}
		limited, id := w.key("cues:read", in{"restrictions": in{"rate_per_minute": 1}})
		w.must(limited, "key.self", nil)
		w.refused(RateLimitExceeded, limited, "key.self", nil)
		w.must(limited, "key.revoke", in{"id": id})

		pending, pendingID := w.key("cues:read", in{"restrictions": in{"ips": []string{"10.0.0.0/8"}}})
		fresh := w.must(w.admin, "key.rotate", in{"id": pendingID}).str("key")
		w.must(fresh, "key.revoke", in{"id": pendingID}) // the first use of a new secret
		w.refused(KeyRevoked, pending, "key.self", nil)
	})
}

// TestRotateItselfNamesTheSmaller permission, and another key the one that would do.
func TestRotateItselfNamesTheSmaller(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		secret, id := w.key("worker")
		_, other := w.key("worker")
		for target, want := range map[string]string{id: "keys:rotate-self", "self": "keys:rotate-self", other: "keys:write"} {
			x := w.refused(InsufficientScope, secret, "key.rotate", in{"id": target}).Extra.(*refusal)
			if fmt.Sprint(x.Missing) != "["+want+"]" || fmt.Sprint(x.Grants[0].AddPermissions) != "["+want+"]" {
				t.Errorf("%s: %+v", target, x)
			}
		}
		w.must(w.admin, "key.widen", in{"id": id, "add_permissions": []string{"keys:rotate-self"}})
		w.must(secret, "key.rotate", in{"id": id})
		w.refused(MembersOnly, secret, "key.rotate", in{"id": other})
	})
}

// TestPersonalKeysTakeRestrictions like any other key.
func TestPersonalKeysTakeRestrictions(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		made := w.must(w.admin, "personal_key.create", in{"name": "office", "permissions": []string{"cues:read"}, "expires_at": "2027-01-01T00:00:00Z", "restrictions": in{"ips": []string{"10.0.0.0/8"}}})
		if made.str("kind") != "personal" || made.str("scope") != "custom" || made.str("expires_at") != "2027-01-01T00:00:00Z" {
			t.Errorf("%v", made)
		}
		w.must(made.str("key"), "cue.list", nil, from{peer: "10.0.0.1:1"})
		w.refused(KeyRestricted, made.str("key"), "cue.list", nil)
		w.refused(KeyRestricted, made.str("key"), "personal_key.create", in{"name": "wider"}, from{peer: "10.0.0.1:1"})
		w.invalid("body.restrictions.cues.0", w.admin, "personal_key.create", in{"name": "x", "restrictions": in{"cues": []string{"cue_000000000009"}}})
		if plain := w.must(w.admin, "personal_key.create", in{"name": "laptop"}); plain.str("scope") != "full" || plain["restrictions"] != nil {
			t.Errorf("%v", plain)
		}
	})
}

// TestNamesAreOneLine: a name is shown on terminals, so nothing in it moves the cursor or turns its direction around.
func TestNamesAreOneLine(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		_, id := w.key("worker")
		for _, name := range []string{"a\nb", "a\r", "\t", "\x1b[31mred", "a\x7f", "\u009b", "a\u202eb", "a\u2066b", "a\u2028b"} {
			w.invalid("body.name", w.admin, "key.create", in{"name": name, "scope": "worker"})
			w.invalid("body.name", w.admin, "key.update", in{"id": id, "name": name})
			w.invalid("body.name", w.admin, "personal_key.create", in{"name": name})
			w.invalid("body.name", w.admin, "workspace.create", in{"name": name})
			w.invalid("body.name", w.admin, "workspace.update", in{"name": name})
			w.invalid("body.label", w.admin, "auth_key.create", in{"label": name})
			w.invalid("body.label", w.admin, "auth_key.update", in{"id": id, "label": name})
		}
		for _, name := range []string{"n8n: workflow “X” ✓", "ключ", "مفتاح", "👩‍👩‍👧"} {
			w.must(w.admin, "key.update", in{"id": id, "name": name})
		}
	})
}

// TestMeTellsARestrictedKeyNoCounts of cues that it does not see.
func TestMeTellsARestrictedKeyNoCounts(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		some, _ := w.key("cues:read", in{"restrictions": in{"cues": []string{"report"}}})
		if me := w.must(some, "me.get", nil); me["active_cues"] != nil || me["executions_this_month"] != nil || me["active_cue_limit"] == nil {
			t.Errorf("%v", me)
		}
		all, _ := w.key("cues:read", in{"restrictions": in{"ips": []string{"192.0.2.0/24"}}})
		if me := w.must(all, "me.get", nil); me["active_cues"] != 1.0 || me["executions_this_month"] != 3.0 {
			t.Errorf("%v", me)
		}
	})
}
