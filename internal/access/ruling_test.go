package access

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"unstuck/internal/op"
)

// guarded holds a key against an operation without running it, and answers the code of the refusal.
func (w *world) guarded(key string, o *op.Operation, where from) string {
	w.Helper()
	r := &op.Request{Op: o.Name, Via: either(where.via, "rest"), Peer: either(where.peer, "192.0.2.1:4000"), Auth: "Bearer " + key}
	call := &op.Call{Operation: o, Request: r, Header: http.Header{}}
	ctx, err := w.a.Admit(context.Background(), call)
	if err == nil {
		err = w.a.Permit(ctx, call)
	}
	if err == nil {
		return ""
	}
	return op.AsError(err).Code.Name
}

// TestRulingAndAccessAgree asks about every operation, for every scope and single permission, under every restriction: key.access says
// no exactly when the guard refuses, and only exactly when a restriction, or being about itself, bounds it.
func TestRulingAndAccessAgree(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.must(w.admin, "workspace.update", in{"rate_limit_per_minute": 0})
		restrictions := map[string]in{
			"none": nil, "cues": {"cues": []string{"report*"}}, "ips": {"ips": []string{"192.0.2.0/24"}}, "via": {"via": []string{"rest"}},
			"not_before": {"not_before": "2026-01-01T00:00:00Z"}, "rate_per_minute": {"rate_per_minute": 1_000_000}, "worker_ids": {"worker_ids": []string{"mac"}},
		}
		rights := append(scopeNames(), allPerms.names()...)
		cells := 0
		for kind, r := range restrictions {
			for _, right := range rights {
				more := in{}
				if r != nil {
					more["restrictions"] = r
				}
				secret, id := w.key(right, more)
				for _, o := range w.set.All() {
					answer := w.asked(id, o.Name)
					code := w.guarded(secret, o, from{})
					if (answer == No) != (code != "") {
						t.Fatalf("%s, %s, %s: access says %s, the guard %q", o.Name, right, kind, answer, code)
					}
					bounded := r != nil && (o.Narrow != op.Always || kind != "cues") && o.Needs != op.Public
					_, itself := (grant{perms: mustHold(right)}).lacks(o.Needs, false)
					far := o.Reach == op.ReachSecret || o.Reach == op.ReachBelow && r != nil || o.Reach == op.ReachView && kind == "cues" || o.Reach == op.ReachRole && mustHold(right) != allPerms
					if answer != No && (answer == Only) != (bounded || itself || far) {
						t.Fatalf("%s, %s, %s: access says %s", o.Name, right, kind, answer)
					}
					cells++
				}
			}
		}
		if want := len(restrictions) * len(rights) * len(w.set.All()); cells != want {
			t.Errorf("%d cells, want %d", cells, want)
		}
	})
}

// mustHold is what a scope or permission means.
func mustHold(right string) permSet {
	if s, ok := scopeOf(right); ok {
		return s.perms
	}
	return mustPerms(right)
}

// asked is what access says about an operation.
func (w *world) asked(id, operation string) string {
	g, why := w.a.table.grantOf(id, w.a.now())
	return w.a.verdict(g, w.set.Lookup(operation), !why.passes()).Answer
}

// apply does exactly what the grants of a refusal say.
func (w *world) apply(grants []Grant) {
	w.Helper()
	for _, g := range grants {
		if g.Role != "" {
			w.must(w.admin, "member.update", in{"id": g.Member, "role": g.Role})
		}
		if g.Key == "" {
			continue
		}
		input := in{"id": g.Key, "reason": "the refusal said so"}
		if len(g.AddPermissions) > 0 {
			input["add_permissions"] = g.AddPermissions
		}
		if len(g.AddTo) > 0 {
			input["add_to"] = g.AddTo
		}
		if len(g.DropRestrictions) > 0 {
			input["drop_restrictions"] = g.DropRestrictions
		}
		w.must(w.admin, "key.widen", input)
	}
}

// randomKey draws a key: integration, child of a child, or personal with a role, with few rights and any restrictions.
func (w *world) randomKey(t *rapid.T) string {
	perms := rapid.Custom(func(t *rapid.T) in {
		list := rapid.SliceOfNDistinct(rapid.SampledFrom(allPerms.names()), 1, 6, rapid.ID[string]).Draw(t, "permissions")
		more := in{"permissions": list}
		if r := drawRestrictions(t); len(r) > 0 {
			more["restrictions"] = r
		}
		return more
	})
	if rapid.Bool().Draw(t, "a member's own") {
		role := rapid.SampledFrom([]string{RoleViewer, RoleOperator, RoleManager}).Draw(t, "role")
		_, secret := w.member(fmt.Sprintf("m%d@example.com", w.requests.Load()), role)
		id := w.must(secret, "key.self", nil).str("id")
		w.must(w.admin, "key.update", mergeIn(in{"id": id}, perms.Draw(t, "narrowed to")))
		return secret
	}
	secret := w.admin
	for range rapid.IntRange(1, 3).Draw(t, "depth") {
		made := w.must(secret, "key.create", in{"name": "link", "scope": "full"})
		secret = made.str("key")
		defer w.must(w.admin, "key.update", mergeIn(in{"id": made.str("id")}, perms.Draw(t, "narrowed to"))) // once it has made its child
	}
	return secret
}

func drawRestrictions(t *rapid.T) in {
	r := in{}
	for kind, value := range map[string]any{
		"cues": []string{"weekly-*"}, "ips": []string{"203.0.113.0/24"}, "via": []string{"mcp"}, "not_before": "2027-01-01T00:00:00Z",
		"rate_per_minute": 1_000_000, "worker_ids": []string{"mac"},
	} {
		if rapid.IntRange(0, 3).Draw(t, kind) == 0 {
			r[kind] = value
		}
	}
	return r
}

func mergeIn(a, b in) in {
	for k, v := range b {
		a[k] = v
	}
	return a
}

// TestDoingWhatARefusalSays makes the same call pass, for every operation and random keys. A second refusal may follow only when the
// guard cannot know what the call is about: a name, a worker, a key; and a third when an operation asks twice.
func TestDoingWhatARefusalSays(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.must(w.admin, "workspace.update", in{"rate_limit_per_minute": 0})
		w.toys.put(w.workspace(), "cue_000000000001", "report")
		_, other := w.key("read-only")
		member, _ := w.member("viewer@example.com", RoleViewer)
		inputs := map[string]in{
			"key.create": {"name": "x", "scope": "worker"}, "key.get": {"id": other}, "key.update": {"id": other, "name": "y"}, "key.access": {"id": other},
			"key.activity": {"id": other}, "key.rotate": {"id": other}, "key.verify": {"key": sample, "permission": "cues:read"}, "key.preview": {"scope": "worker"},
			"key.authorize": {"permission": "usage:read"}, "member.update": {"id": member, "role": RoleViewer}, "auth_key.create": {"label": "x"},
			"auth_key.update": {"id": other, "label": "z"}, "execution.claim": {"X-Worker-Id": "pc"}, "execution.report": {"X-Worker-Id": "pc"}, "worker.heartbeat": {"X-Worker-Id": "pc"},
			"cue.create": {"name": "report", "chain": true},
		}
		var names []string
		for _, o := range w.set.All() {
			once := slices.Contains([]string{"key.revoke", "auth_key.revoke", "auth_key.regenerate", "member.remove", "execution.wait", "cue.forget", "cue.panic"}, o.Name)
			if !once && o.Needs != op.Public {
				names = append(names, o.Name)
			}
		}
		check := func(t *rapid.T) {
			secret := w.randomKey(t)
			name := rapid.SampledFrom(names).Draw(t, "operation")
			for tries := 0; ; tries++ {
				err := w.call(secret, name, inputs[name]).Err
				if err == nil || !isRefusal(err.Code) || err.Code == MembersOnly {
					return
				}
				x, ok := err.Extra.(*refusal)
				if !ok || len(x.Grants) == 0 || x.Mend == "" || tries == 3 || tries == 2 && name != "cue.create" {
					t.Fatalf("%s is refused again and again: %v %s", name, err, op.Marshal(err.Extra))
				}
				if tries == 1 && !objectKnownLate(name) {
					t.Fatalf("%s is still refused after all that was said was done: %v %s", name, err, op.Marshal(err.Extra))
				}
				w.apply(x.Grants)
			}
		}
		rapid.Check(t, check)
	})
}

// objectKnownLate says whether an operation looks at an object, or at an input, that the guard does not know.
func objectKnownLate(name string) bool {
	return strings.HasPrefix(name, "key.") || strings.HasPrefix(name, "auth_key.") || strings.HasPrefix(name, "member.") || strings.HasPrefix(name, "cue.") ||
		strings.HasPrefix(name, "execution.") || name == "worker.heartbeat" || name == "personal_key.create" || name == "workspace.create"
}

// workspace is the id of the first workspace.
func (w *world) workspace() string {
	w.Helper()
	return w.must(w.admin, "workspace.get", nil).str("id")
}

// TestRefusalTellsWhatItMust is the shape of both refusals.
func TestRefusalTellsWhatItMust(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		parent, parentID := w.key("full", in{"name": "above"})
		child, childID := w.keyBy(parent, "worker", in{"name": "laptop agent", "restrictions": in{"ips": []string{"10.0.0.0/8"}, "via": []string{"rest"}}})
		w.must(w.admin, "key.update", in{"id": parentID, "permissions": []string{"executions:claim", "keys:write"}})

		e := w.refused(InsufficientScope, child, "cue.create", nil, from{peer: "10.1.2.3:1"})
		x := e.Extra.(*refusal)
		if e.Message != "This key may not create cues." || x.Operation != "cue.create" || !slices.Equal(x.Missing, []string{"cues:write"}) || !slices.Equal(x.Scopes, []string{"write-cues", "full"}) {
			t.Errorf("%v %s", e, op.Marshal(x))
		}
		if x.Key.ID != childID || x.Key.Name != "laptop agent" || x.Key.Scope != "worker" || !strings.HasSuffix(child, x.Key.Redacted[len(x.Key.Redacted)-8:]) {
			t.Errorf("%+v", x.Key)
		}
		if got := e.Header.Get("WWW-Authenticate"); got != `Bearer error="insufficient_scope", scope="cues:write", error_description="This key may not create cues."` {
			t.Error(got)
		}
		if want := "Somebody who manages keys can add cues:write to this key, and add cues:write to the key above it, " + parentID + "."; x.Mend != want {
			t.Error(x.Mend)
		}
		e = w.refused(KeyRestricted, child, "execution.claim", nil, from{peer: "203.0.113.7:9", via: "mcp"})
		x = e.Extra.(*refusal)
		if e.Message != "This key may be used only from certain addresses, and you came from 203.0.113.7." || x.Restriction != "ips" || x.Brought != "203.0.113.7" {
			t.Errorf("%v %s", e, op.Marshal(x))
		}
		if text := string(op.Marshal(x)); strings.Contains(text, "10.0.0.0") || !strings.Contains(text, `"add_to":{"ips":["203.0.113.7/32"],"via":["mcp"]}`) {
			t.Errorf("it tells what would be allowed, or not what to do: %s", text)
		}
	})
}

// TestBrought is what a refused call came with that the restriction is about, in the answer and in the audit log; never the operation,
// which both name already (KEYS 4).
func TestBrought(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		there := from{peer: "203.0.113.7:9"}
		for _, test := range []struct {
			scope        string
			restrictions in
			operation    string
			input        in
			kind, want   string
		}{
			{"worker", in{"ips": []string{"10.0.0.0/8"}}, "execution.claim", nil, "ips", "203.0.113.7"},
			{"worker", in{"via": []string{"mcp"}}, "execution.claim", nil, "via", "rest"},
			{"full", in{"cues": []string{"weekly-*"}}, "usage.get", nil, "cues", ""},
			{"full", in{"cues": []string{"weekly-*"}}, "workspace.get", nil, "cues", ""},
			{"full", in{"rate_per_minute": 100}, "workspace.get", nil, "", ""},
		} {
			secret, id := w.key(test.scope, in{"restrictions": test.restrictions})
			if test.kind == "" {
				w.must(secret, test.operation, test.input, there)
				continue
			}
			e := w.refused(KeyRestricted, secret, test.operation, test.input, there)
			if x := e.Extra.(*refusal); x.Restriction != test.kind || x.Brought != test.want {
				t.Errorf("%s: %s %q, want %s %q", test.operation, x.Restriction, x.Brought, test.kind, test.want)
			}
			row := w.audit(test.operation)
			var detail struct{ Restriction, Brought string }
			if last := row[len(row)-1]; last.Who.KeyID != id || json.Unmarshal(last.Detail, &detail) != nil || detail.Restriction != test.kind || detail.Brought != test.want {
				t.Errorf("%s: %s", test.operation, last.Detail)
			}
		}
		admin := w.must(w.admin, "personal_key.create", in{"name": "there only", "scope": "full", "restrictions": in{"ips": []string{"203.0.113.0/24"}, "rate_per_minute": 100}}).str("key")
		e := w.refused(KeyRestricted, admin, "member.add", in{"email": "x@example.com", "role": "viewer"}, there)
		if x := e.Extra.(*refusal); x.Restriction != "ips" || x.Brought != "203.0.113.7" {
			t.Errorf("%s %q", x.Restriction, x.Brought)
		}
	})
}

// TestAccessAnswers is what key.access tells in words, for a restricted child of a narrowed key.
func TestAccessAnswers(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.toys.put(w.workspace(), "cue_000000000001", "weekly-a")
		w.toys.put(w.workspace(), "cue_000000000002", "nightly")
		parent, parentID := w.key("full")
		child, childID := w.keyBy(parent, "write-cues")
		w.must(w.admin, "key.update", in{"id": parentID, "restrictions": in{"cues": []string{"weekly-*"}}})

		out := w.must(child, "key.access", in{"id": childID})
		only := out["only"].([]any)
		if len(only) != 1 || only[0].(map[string]any)["key_id"] != parentID || only[0].(map[string]any)["note"] != "1 cue today" {
			t.Errorf("only: %v", only)
		}
		verdicts := map[string]answer{}
		for _, v := range out["operations"].([]any) {
			verdicts[v.(map[string]any)["operation"].(string)] = v.(map[string]any)
		}
		for name, want := range map[string][2]string{
			"cue.create": {Only, "within the key's restrictions"}, "usage.get": {No, "the key is for certain cues only, and this is about the whole workspace"},
			"key.self": {Yes, ""}, "key.list": {No, "lacks keys:read"}, "key.widen": {No, "only a member may, with a personal key"}, "key.revoke": {Only, "about itself"}, "key.rotate": {No, "lacks keys:rotate-self"}, "info.get": {Yes, ""},
		} {
			if v := verdicts[name]; v.str("answer") != want[0] || v.str("because") != want[1] {
				t.Errorf("%s: %s, %s", name, v.str("answer"), v.str("because"))
			}
		}
		w.refused(InsufficientScope, child, "key.access", in{"id": parentID})
		w.must(parent, "key.access", in{"id": childID})
		_, other := w.key("worker")
		w.refused(KeyRestricted, parent, "key.access", in{"id": other})
		w.refused(KeyRestricted, parent, "key.access", in{"id": "key_000000000000"})

		w.must(w.admin, "key.revoke", in{"id": parentID})
		out = w.must(w.admin, "key.access", in{"id": childID})
		if out.str("status") != "revoked" || len(out["can"].([]any)) != 0 {
			t.Errorf("a key under a revoked one: %v", out["status"])
		}
		if preview := w.must(w.admin, "key.preview", in{"scope": "worker", "restrictions": in{"worker_ids": []string{"mac"}}}); preview["key"] != nil || len(preview["can"].([]any)) != 3 {
			t.Errorf("preview: %v", preview["can"])
		}
	})
}

// TestMemoryJudgesAsTheRowsDo holds key.judge against rights, which read the same from the database, over random chains and times.
func TestMemoryJudgesAsTheRowsDo(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.must(w.admin, "workspace.update", in{"rate_limit_per_minute": 0})
		rapid.Check(t, func(t *rapid.T) {
			w.renewAdmin(t)
			secret := w.randomKey(t)
			s, _ := parseSecret(secret)
			g, _ := w.a.table.verify(s, w.a.sealer, w.a.now())
			for _, step := range rapid.SliceOfN(rapid.SampledFrom([]string{"wait", "expire", "revoke", "nothing"}), 0, 6).Draw(t, "steps") {
				chain := slices.Collect(g.key.chain())
				k := rapid.SampledFrom(chain).Draw(t, "whose")
				switch step {
				case "wait":
					w.clock.advance(rapid.SampledFrom([]time.Duration{time.Hour, 40 * 24 * time.Hour}).Draw(t, "time"))
				case "expire":
					w.call(w.admin, "key.update", in{"id": k.id(), "expires_in": "2h"})
				case "revoke":
					w.must(w.admin, "key.revoke", in{"id": k.id()})
				}
			}
			perms, why := w.a.table.again(g, w.a.now())
			shown := w.must(w.admin, "key.get", in{"id": g.key.id()})
			if got := shown.str("status"); got != statusOf(why) {
				t.Fatalf("memory says %s, the rows %s", statusOf(why), got)
			}
			if got := fmt.Sprint(shown["permissions"]); got != fmt.Sprint(perms.names()) {
				t.Fatalf("memory says %v, the rows %v", perms.names(), got)
			}
		})
	})
}

// renewAdmin gives the admin a key for another year, for tests in which the clock goes far.
func (w *world) renewAdmin(t rapid.TB) {
	key, _, err := w.a.LocalLogin(context.Background(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	w.admin = key.Secret
}
