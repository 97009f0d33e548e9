package access

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"unstuck/internal/op"
)

func TestCreateRefusesWhatDoesNotFit(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.toys.put(w.workspace(), "cue_000000000001", "report")
		for _, test := range []struct {
			place string
			input in
		}{
			{"body.name", in{"scope": "worker"}},
			{"body.name", in{"name": "", "scope": "worker"}},
			{"body.scope", in{"name": "x"}},
			{"body.scope", in{"name": "x", "scope": "worker", "permissions": []string{"cues:read"}}},
			{"body.scope", in{"name": "x", "scope": "workers"}},
			{"body.permissions", in{"name": "x", "permissions": []string{}}},
			{"body.permissions.1", in{"name": "x", "permissions": []string{"cues:read", "cues:paint"}}},
			{"body.scop", in{"name": "x", "scope": "worker", "scop": "full"}},
			{"body.restrictions.ip", in{"name": "x", "scope": "worker", "restrictions": in{"ip": []string{"10.0.0.0/8"}}}},
			{"body.restrictions", in{"name": "x", "scope": "worker", "restrictions": in{}}},
			{"body.restrictions", in{"name": "x", "scope": "worker", "restrictions": nil}},
			{"body.restrictions.cues", in{"name": "x", "scope": "worker", "restrictions": in{"cues": nil}}},
			{"body.restrictions.cues", in{"name": "x", "scope": "worker", "restrictions": in{"cues": []string{}}}},
			{"body.restrictions.cues.0", in{"name": "x", "scope": "worker", "restrictions": in{"cues": []string{""}}}},
			{"body.restrictions.cues.1", in{"name": "x", "scope": "worker", "restrictions": in{"cues": []string{"a", "a*b"}}}},
			{"body.restrictions.cues.0", in{"name": "x", "scope": "worker", "restrictions": in{"cues": []string{"**"}}}},
			{"body.restrictions.cues.1", in{"name": "x", "scope": "worker", "restrictions": in{"cues": []string{"cue_000000000001", "cue_000000000002"}}}},
			{"body.restrictions.ips.0", in{"name": "x", "scope": "worker", "restrictions": in{"ips": []string{"10.0.0.1/8"}}}},
			{"body.restrictions.ips.0", in{"name": "x", "scope": "worker", "restrictions": in{"ips": []string{"10.0.0.0/33"}}}},
			{"body.restrictions.ips.0", in{"name": "x", "scope": "worker", "restrictions": in{"ips": []string{"fe80::1%eth0"}}}},
			{"body.restrictions.ips.0", in{"name": "x", "scope": "worker", "restrictions": in{"ips": []string{"::ffff:10.0.0.0/90"}}}},
			{"body.restrictions.via.0", in{"name": "x", "scope": "worker", "restrictions": in{"via": []string{"cli"}}}},
			{"body.restrictions.rate_per_minute", in{"name": "x", "scope": "worker", "restrictions": in{"rate_per_minute": 0}}},
			{"body.restrictions.worker_ids.0", in{"name": "x", "scope": "worker", "restrictions": in{"worker_ids": []string{""}}}},
			{"body.restrictions.not_before", in{"name": "x", "scope": "worker", "restrictions": in{"not_before": "soon"}}},
			{"body.expires_in", in{"name": "x", "scope": "worker", "expires_in": "tomorrow"}},
			{"body.expires_in", in{"name": "x", "scope": "worker", "expires_in": "-1h"}},
			{"body.expires_in", in{"name": "x", "scope": "worker", "expires_in": "0"}},
			{"body.expires_in", in{"name": "x", "scope": "worker", "expires_in": "101y"}},
			{"body.expires_in", in{"name": "x", "scope": "worker", "expires_in": "213503982334602d"}},
			{"body.expires_at", in{"name": "x", "scope": "worker", "expires_at": "2026-11-24T12:00:00Z"}},
			{"body.expires_at", in{"name": "x", "scope": "worker", "expires_at": "2027-11-24T12:00:00Z", "expires_in": "1d"}},
			{"body.expires_at", in{"name": "x", "scope": "worker", "expires_at": "9999-12-31T23:59:59Z"}},
			{"body.expires_at", in{"name": "x", "scope": "worker", "expires_at": "2126-10-31T12:00:01Z"}}, // 100 years of 365 days, and a second
		} {
			w.invalid(test.place, w.admin, "key.create", test.input)
		}
		if keys := w.must(w.admin, "key.list", nil)["keys"].([]any); len(keys) != 1 {
			t.Errorf("a refused create left something behind: %d keys", len(keys))
		}
	})
}

func TestCreate(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.toys.put(w.workspace(), "cue_000000000001", "report")
		for _, test := range []struct {
			input             in
			expires, restrict any
		}{
			{in{"scope": "worker"}, "2027-11-24T12:00:00Z", nil},
			{in{"scope": "worker", "expires_in": "never"}, nil, nil},
			{in{"scope": "worker", "expires_in": "30d"}, "2026-12-24T12:00:00Z", nil},
			{in{"scope": "worker", "expires_in": "90d"}, "2027-02-22T12:00:00Z", nil},
			{in{"scope": "worker", "expires_in": "1y"}, "2027-11-24T12:00:00Z", nil},
			{in{"scope": "worker", "expires_in": "90m"}, "2026-11-24T13:30:00Z", nil},
			{in{"scope": "worker", "expires_at": "2026-11-24T12:00:00.000001Z"}, "2026-11-24T12:00:00.000001Z", nil},
			{in{"scope": "worker", "expires_in": "2w", "restrictions": in{
				"cues": []string{"cue_000000000001", "weekly-*", "weekly-*", "*"}, "ips": []string{"10.0.0.0/8", "::ffff:192.0.2.1", "2001:db8::/32", "192.0.2.1"}, "via": []string{"mcp"},
				"not_before": "2027-01-01T00:00:00Z", "rate_per_minute": 30, "worker_ids": []string{"mac"},
			}}, "2026-12-08T12:00:00Z", map[string]any{
				"cues": []any{"cue_000000000001", "weekly-*", "*"}, "ips": []any{"10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"}, "via": []any{"mcp"},
				"not_before": "2027-01-01T00:00:00Z", "rate_per_minute": 30.0, "worker_ids": []any{"mac"},
			}},
		} {
			test.input["name"] = "x"
			out := w.must(w.admin, "key.create", test.input)
			if diff := cmp.Diff([]any{test.expires, test.restrict}, []any{out["expires_at"], out["restrictions"]}); diff != "" {
				t.Errorf("%v: %s", test.input, diff)
			}
			if out.str("kind") != "integration" || out["parent_id"] != nil || out.str("warning") != "" || !accepted(out.str("key")) {
				t.Errorf("%v", out)
			}
			if shown := w.must(w.admin, "key.get", in{"id": out.str("id")}); strings.Contains(fmt.Sprint(shown), out.str("key")[8:50]) {
				t.Error("the secret is shown again")
			}
		}
	})
}

// TestWhoMayGiveWhat: nobody gives what he lacks, and nobody who is restricted gives what would not be.
func TestWhoMayGiveWhat(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		_, manager := w.member("manager@example.com", RoleManager)
		_, viewer := w.member("viewer@example.com", RoleViewer)
		w.keyBy(manager, "write-cues")
		e := w.refused(InsufficientScope, manager, "key.create", in{"name": "x", "scope": "full"})
		if x := e.Extra.(*refusal); x.Missing[0] != "keys:rotate-self" && x.Missing[0] != "keys:verify" || x.Grants[len(x.Grants)-1].Role != RoleAdmin {
			t.Errorf("%s", op.Marshal(x))
		}
		w.refused(InsufficientScope, viewer, "key.create", in{"name": "x", "scope": "read-only"})
		own := w.must(viewer, "personal_key.create", in{"name": "laptop"})
		if own.str("kind") != "personal" || fmt.Sprint(own["permissions"]) != fmt.Sprint((readOnly|ownPerms).names()) {
			t.Errorf("%v", own)
		}
		narrow := w.must(viewer, "personal_key.create", in{"name": "phone", "scope": "read-only"})
		w.refused(InsufficientScope, narrow.str("key"), "personal_key.create", in{"name": "x", "scope": "full"})
		w.must(narrow.str("key"), "personal_key.create", in{"name": "x", "scope": "read-only"})

		w.must(w.admin, "key.update", in{"id": w.must(manager, "key.self", nil).str("id"), "restrictions": in{"via": []string{"rest"}}})
		w.refused(KeyRestricted, manager, "key.create", in{"name": "x", "scope": "worker"})
		w.refused(KeyRestricted, manager, "personal_key.create", in{"name": "x"})

		integration, _ := w.key("full", in{"restrictions": in{"via": []string{"rest"}}})
		w.refused(MembersOnly, integration, "personal_key.create", in{"name": "x"})
		child, _ := w.keyBy(integration, "full") // what restricts its maker restricts it
		w.refused(KeyRestricted, child, "cue.list", nil, from{via: "mcp"})
	})
}

// TestChildren: whatever a child is given, it does what its whole chain may; there are at most 8 keys above one.
func TestChildren(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		first, firstID := w.key("full", in{"expires_in": "30d"})
		out := w.must(first, "key.create", in{"name": "child", "scope": "worker"})
		if out.str("expires_at") != "2026-12-24T12:00:00Z" || out.str("warning") != "It ends when the key that made it ends." || out.str("parent_id") != firstID {
			t.Errorf("%v", out)
		}
		w.invalid("body.expires_in", first, "key.create", in{"name": "x", "scope": "worker", "expires_in": "31d"})
		w.invalid("body.expires_in", first, "key.create", in{"name": "x", "scope": "worker", "expires_in": "never"})
		w.invalid("body.expires_at", first, "key.create", in{"name": "x", "scope": "worker", "expires_at": "2027-01-01T00:00:00Z"})

		secrets, ids := []string{first}, []string{firstID}
		for range maxDepth {
			secret, id := w.keyBy(secrets[len(secrets)-1], "full")
			secrets, ids = append(secrets, secret), append(ids, id)
		}
		last := secrets[maxDepth]
		w.refused(TooDeep, last, "key.create", in{"name": "x", "scope": "worker"})
		w.must(last, "cue.list", nil)
		shown := w.must(last, "key.self", nil)
		if diff := cmp.Diff([]any{}, shown["narrowed_by"]); diff != "" {
			t.Error(diff)
		}
		w.must(w.admin, "key.update", in{"id": ids[3], "permissions": []string{"executions:claim", "keys:read"}})
		w.refused(InsufficientScope, last, "cue.list", nil)
		w.must(last, "execution.claim", nil)
		w.must(w.admin, "key.update", in{"id": ids[5], "restrictions": in{"ips": []string{"10.0.0.0/8"}}})
		w.refused(KeyRestricted, last, "execution.claim", nil)
		w.must(last, "execution.claim", nil, from{peer: "10.9.9.9:1"})
		shown = w.must(w.admin, "key.get", in{"id": ids[maxDepth]})
		if diff := cmp.Diff([]any{ids[5], ids[3]}, shown["narrowed_by"]); diff != "" {
			t.Error(diff)
		}
		w.must(w.admin, "key.update", in{"id": ids[2], "expires_in": "1h"})
		w.clock.advance(time.Hour)
		w.refused(KeyExpired, last, "execution.claim", nil, from{peer: "10.9.9.9:1"})
		w.must(secrets[1], "cue.list", nil)
		w.must(w.admin, "key.revoke", in{"id": firstID})
		w.refused(KeyRevoked, secrets[1], "cue.list", nil)
		w.refused(KeyRevoked, last, "cue.list", nil)
	})
}

// TestRepeatedCreate: a lost reply costs a second call, not a second key.
func TestRepeatedCreate(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		input := in{"name": "n8n", "scope": "worker", "Idempotency-Key": "one"}
		one := w.must(w.admin, "key.create", input)
		w.clock.advance(9 * time.Minute)
		two := w.must(w.admin, "key.create", input)
		if one.str("id") != two.str("id") || one.str("key") == two.str("key") {
			t.Errorf("%v, then %v", one, two)
		}
		w.refused(KeyRotated, one.str("key"), "key.self", nil)
		w.must(two.str("key"), "key.self", nil)
		for _, other := range []in{{"name": "zapier"}, {"scope": "read-only"}, {"expires_in": "30d"}, {"restrictions": in{"via": []string{"rest"}}}} {
			changed := mergeIn(mergeIn(in{}, input), other)
			w.refused(IdempotencyConflict, w.admin, "key.create", changed)
		}
		_, manager := w.member("manager@example.com", RoleManager)
		if other := w.must(manager, "key.create", input); other.str("id") == one.str("id") {
			t.Error("somebody else's Idempotency-Key found the key")
		}
		w.clock.advance(time.Minute + time.Microsecond)
		if later := w.must(w.admin, "key.create", input); later.str("id") == one.str("id") {
			t.Error("it was found after ten minutes")
		}
		if n := len(w.audit("key.create")); n != 4 {
			t.Errorf("%d rows about creations, want 4", n)
		}

		three := w.must(manager, "key.create", in{"name": "x", "scope": "worker", "Idempotency-Key": "two"})
		w.must(w.admin, "key.widen", in{"id": three.str("id"), "add_permissions": []string{"audit:read"}})
		w.refused(InsufficientScope, manager, "key.create", in{"name": "x", "scope": "worker", "Idempotency-Key": "two"}) // it is wider than its maker now
		four := w.must(w.admin, "key.create", in{"name": "y", "scope": "worker", "Idempotency-Key": "three"})
		w.must(w.admin, "key.revoke", in{"id": four.str("id")})
		w.refused(KeyEnded, w.admin, "key.create", in{"name": "y", "scope": "worker", "Idempotency-Key": "three"})
	})
}

// TestNullRestrictsNothing: wherever a key is made, previewed, narrowed or widened, a null where a restriction belongs is refused: it would
// give more than whoever sent it meant.
func TestNullRestrictsNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		maker, id := w.key("keys:write cues:read", in{"restrictions": in{"via": []string{"rest"}}})
		for _, kind := range kinds {
			null, at := in{kind: nil}, "body.restrictions."+kind
			w.invalid(at, w.admin, "key.create", in{"name": "x", "scope": "worker", "restrictions": null})
			w.invalid(at, maker, "key.create", in{"name": "x", "scope": "worker", "restrictions": null})
			w.invalid(at, w.admin, "personal_key.create", in{"name": "x", "restrictions": null})
			w.invalid(at, w.admin, "key.preview", in{"scope": "worker", "restrictions": null})
			w.refused(WouldWiden, w.admin, "key.update", in{"id": id, "restrictions": null})
		}
		for _, kind := range []string{"cues", "ips", "via", "worker_ids"} {
			w.invalid("body.add_to."+kind, w.admin, "key.widen", in{"id": id, "add_to": in{kind: nil}})
		}
		w.invalid("body.restrictions", maker, "key.create", in{"name": "x", "scope": "worker", "restrictions": nil})
		w.invalid("body.restrictions", w.admin, "personal_key.create", in{"name": "x", "restrictions": nil})
		w.invalid("body.restrictions", w.admin, "key.preview", in{"scope": "worker", "restrictions": nil})
		w.refused(WouldWiden, w.admin, "key.update", in{"id": id, "restrictions": nil})
		w.invalid("body.permissions", w.admin, "personal_key.create", in{"name": "x", "permissions": nil}) // it would be full
		if shown := w.must(w.admin, "key.get", in{"id": id}); fmt.Sprint(shown["restrictions"]) != "map[via:[rest]]" {
			t.Errorf("%v", shown["restrictions"])
		}
	})
}

// TestPersonalKeyDoesNotOutliveItsMaker, while an integration key, which stands for itself, may.
func TestPersonalKeyDoesNotOutliveItsMaker(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		short := w.must(w.admin, "personal_key.create", in{"name": "an hour", "expires_in": "1h"}).str("key")
		for _, end := range []string{"never", "2h", "1y"} {
			w.invalid("body.expires_in", short, "personal_key.create", in{"name": "x", "expires_in": end})
		}
		w.invalid("body.expires_at", short, "personal_key.create", in{"name": "x", "expires_at": "2026-11-24T13:00:01Z"})
		w.must(short, "personal_key.create", in{"name": "x", "expires_at": "2026-11-24T13:00:00Z"})
		out := w.must(short, "personal_key.create", in{"name": "x"})
		if out.str("expires_at") != "2026-11-24T13:00:00Z" || out.str("warning") != "It ends when the key that made it ends." {
			t.Errorf("%v %v", out["expires_at"], out["warning"])
		}
		if never := w.must(short, "key.create", in{"name": "x", "scope": "worker", "expires_in": "never"}); never["expires_at"] != nil {
			t.Errorf("%v", never["expires_at"])
		}
		w.clock.advance(time.Hour)
		w.refused(KeyExpired, out.str("key"), "key.self", nil)
	})
}
