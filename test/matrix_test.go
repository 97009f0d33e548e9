package test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"unstuck/internal/op"
	"unstuck/internal/testkit"
	"unstuck/internal/testkit/pgtest"
)

// subject is a key whose every cell is tried.
type subject struct {
	name string
	who
	secret string
}

// scopesAndPermissions are the names of all scopes and permissions that the server knows.
func scopesAndPermissions(t *testing.T, s *testkit.Server) (scopes, permissions []string) {
	t.Helper()
	list := s.Must("", "GET /v1/scopes", nil)
	for _, x := range list.JSON["scopes"].([]any) {
		scopes = append(scopes, x.(obj)["name"].(string))
	}
	for _, x := range list.JSON["permissions"].([]any) {
		permissions = append(permissions, x.(obj)["name"].(string))
	}
	if len(scopes) < 6 || len(permissions) < 20 {
		t.Fatalf("there are too few scopes and permissions: %q, %q", scopes, permissions)
	}
	return scopes, permissions
}

// subjects are an integration key of every named scope, one of every single permission, one that a key with few rights has made,
// and a personal key of every role.
func (w *world) subjects(t *testing.T) []subject {
	t.Helper()
	scopes, permissions := scopesAndPermissions(t, w.s)
	var out []subject
	for _, s := range scopes {
		out = append(out, w.subject(w.s.First, s, obj{"scope": s}))
	}
	for _, p := range permissions {
		out = append(out, w.subject(w.s.First, p, obj{"permissions": []string{p}}))
	}
	maker := w.subject(w.s.First, "maker", obj{"permissions": []string{"keys:write", "cues:fire"}})
	out = append(out, w.subject(maker.secret, "full, made by a smaller key", obj{"scope": "full"}))
	for _, role := range []string{"viewer", "operator", "manager", "admin"} {
		out = append(out, w.personal(role))
	}
	return append(out, w.handedOver("admin"))
}

// subject makes a key with another one.
func (w *world) subject(by, name string, in obj) subject {
	in["name"] = w.name(name + " ")
	return w.known(name, w.s.Must(by, "POST /v1/keys", in))
}

// personal is the full personal key of a new member with this role, who has replaced it.
func (w *world) personal(role string) subject {
	k := w.handedOver(role)
	k.name, k.secret = "a personal key of a "+role, w.s.Must(k.secret, "POST /v1/keys/self/rotate", obj{"now": true}).Str("key")
	return k
}

// handedOver is the first key of a new member with this role, which whoever added the member knows too.
func (w *world) handedOver(role string) subject {
	r := w.s.Must(w.s.First, "POST /v1/members", obj{"email": w.name(role) + "@example.com", "role": role})
	secret := r.Str("key")
	self := w.s.Must(secret, "GET /v1/keys/self", nil)
	self.JSON["key"] = secret
	return w.known("the first key of a "+role, self)
}

func (w *world) known(name string, key testkit.Reply) subject {
	s := subject{name: name, secret: key.Str("key"), who: who{id: key.Str("id"), scope: key.Str("scope")}}
	if held := key.JSON["permissions"].([]any); len(held) > 0 {
		s.permission = held[0].(string)
	}
	return s
}

// answers is what the server says a key can do, by operation: yes, no or only.
func (w *world) answers(t *testing.T, id string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, v := range w.s.Must(w.s.First, "GET /v1/keys/"+id+"/access", nil).JSON["operations"].([]any) {
		out[v.(obj)["operation"].(string)] = v.(obj)["answer"].(string)
	}
	if all := w.s.Set().All(); len(out) != len(all) {
		t.Fatalf("the answer is about %d operations of %d", len(out), len(all))
	}
	return out
}

// inOrder are all operations: those last that change the secret with which the others are called, and at the very end the one that
// ends the key.
func inOrder(s *testkit.Server) []*op.Operation {
	last := []string{"key.rotate", "auth_key.regenerate", "key.revoke"}
	var out []*op.Operation
	for _, o := range s.Set().All() {
		if o.Name != last[0] && o.Name != last[1] && o.Name != last[2] {
			out = append(out, o)
		}
	}
	for _, name := range last {
		out = append(out, s.Set().Lookup(name))
	}
	return out
}

// TestMatrix calls every operation with a key of every scope, of every single permission and of every role, and holds what
// happens against what the server says about the key.
func TestMatrix(t *testing.T) {
	t.Parallel()
	w := newWorld(quick(t, ""))
	cells := 0
	for _, k := range w.subjects(t) {
		answers := w.answers(t, k.id)
		for _, o := range inOrder(w.s) {
			in := w.inputs(o, k.who)
			if answers[o.Name] != "no" {
				w.prepare(o, in)
			}
			q := requestOf(o, in)
			r := w.s.Do(k.secret, q.route, q.body, q.headers...)
			checkCell(t, k.name+", "+o.Name, answers[o.Name], r)
			if secret := r.Str("api_key"); o.Name == "auth_key.regenerate" && secret != "" {
				k.secret = secret
			}
			cells++
		}
		w.s.Clock.Add(400e9) // public operations are limited by address, the echo sink to ten an hour
	}
	t.Logf("%d cells", cells)
}

// checkCell holds an answer against the verdict: no is a refusal, everything else is none.
func checkCell(t *testing.T, cell, verdict string, r testkit.Reply) {
	t.Helper()
	switch {
	case r.Status == 401 || r.Status == 429 || r.Status >= 500:
		t.Errorf("%s: %s", cell, gist(r))
	case verdict == "no" && !refused(r):
		t.Errorf("%s: the server says no, and the call is let through: %s", cell, gist(r))
	case verdict != "no" && refused(r):
		t.Errorf("%s: the server says %s, and the call is refused: %s", cell, verdict, gist(r))
	}
}

// TestMatrixOthers calls what is about a key with others than the calling one: with one that holds little, one that holds everything,
// one that it made, and a personal key of somebody else. What passes must be what the server says about whom it passes for.
func TestMatrixOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(quick(t, ""))
	small := w.subject(w.s.First, "small", obj{"permissions": []string{"usage:read"}})
	full := w.subject(w.s.First, "full", obj{"scope": "full"})
	cells := 0
	for _, k := range append(w.subjects(t), w.restricted()...) {
		targets := map[string]string{"small": small.id, "full": full.id, "personal": w.personal("admin").id}
		if r := w.s.Do(k.secret, "POST /v1/keys", obj{"name": w.name("child "), "permissions": []string{k.permission}}); r.Status == 201 {
			targets["child"] = r.Str("id")
		}
		reach := w.reach(t, k)
		for _, name := range []string{"key.access", "key.update", "auth_key.update", "key.rotate", "key.widen", "key.extend", "key.revoke", "auth_key.revoke"} {
			for kind, id := range targets {
				if o := w.s.Set().Lookup(name); o.Effect != op.Destroy || kind == "child" || !reach(name, kind) {
					in := w.inputs(o, k.who)
					in["id"] = id
					q := requestOf(o, in)
					r := w.s.Do(k.secret, q.route, q.body, q.headers...)
					if refused(r) == reach(name, kind) || r.Status >= 500 || r.Status == 401 || r.Status == 429 {
						t.Errorf("%s, %s of a %s key: should pass: %t; %s", k.name, name, kind, reach(name, kind), gist(r))
					}
					cells++
				}
			}
		}
		w.s.Clock.Add(60e9)
	}
	t.Logf("%d cells", cells)
}

// restricted are full keys with a restriction that the calls of this test meet.
func (w *world) restricted() (out []subject) {
	for _, r := range restrictions[:3] {
		out = append(out, w.subject(w.s.First, "full, restricted in "+r.kind, obj{"scope": "full", "restrictions": obj{r.kind: r.met}}))
		k := w.personal("admin")
		w.s.Must(w.s.First, "PATCH /v1/keys/"+k.id, obj{"restrictions": obj{r.kind: r.met}})
		k.name += ", restricted in " + r.kind
		out = append(out, k)
	}
	return append(out, w.subject(w.s.First, "full, for certain cues", obj{"scope": "full", "restrictions": obj{"cues": []string{"crm-*"}}}))
}

// reach reads out of the server's answer which of the other keys an operation of a key passes for.
func (w *world) reach(t *testing.T, k subject) func(operation, target string) bool {
	t.Helper()
	because, answers := map[string]string{}, map[string]string{}
	for _, x := range w.s.Must(w.s.First, "GET /v1/keys/"+k.id+"/access", nil).JSON["operations"].([]any) {
		v := x.(obj)
		answers[v["operation"].(string)], because[v["operation"].(string)] = v["answer"].(string), v["because"].(string)
	}
	holdsAll := len(w.s.Must(k.secret, "GET /v1/keys/self", nil).JSON["permissions"].([]any)) == len(w.s.Must(w.s.First, "GET /v1/keys/self", nil).JSON["permissions"].([]any))
	return func(operation, target string) bool {
		lesser := target == "small" || target == "child" || holdsAll
		switch {
		case answers[operation] == "no":
			return false
		case answers[operation] == "yes":
			return true
		}
		switch because[operation] {
		case "about itself":
			return false
		case "about itself and the keys that it made":
			return target == "child"
		case "about its member's keys and integration keys", "about its member's keys and integration keys that hold nothing which it lacks":
			return target != "personal" && lesser
		case "about other keys", "about other keys that hold nothing which it lacks":
			return lesser
		case "within the key's restrictions":
			return true
		}
		t.Errorf("%s, %s: only %q", k.name, operation, because[operation])
		return false
	}
}

// grant is one step of what a refusal says would have let the call through.
type grant struct {
	Key    string `json:"key"`
	Member string `json:"member"`
	Role   string `json:"role"`
	widening
}

// widening is the input of key.widen.
type widening struct {
	AddPermissions   []string            `json:"add_permissions,omitempty"`
	AddTo            map[string][]string `json:"add_to,omitempty"`
	DropRestrictions []string            `json:"drop_restrictions,omitempty"`
}

// apply does exactly what a refusal names, with the first key.
func (w *world) apply(t *testing.T, cell string, r testkit.Reply) {
	t.Helper()
	var body struct {
		Error struct{ Grants []grant }
	}
	if err := json.Unmarshal(r.Body, &body); err != nil || len(body.Error.Grants) == 0 {
		t.Errorf("%s: the refusal names nothing that would mend it: %s", cell, gist(r))
		return
	}
	for _, g := range body.Error.Grants {
		route, in := "PATCH /v1/members/"+g.Member, any(obj{"role": g.Role})
		if g.Key != "" {
			route, in = "POST /v1/keys/"+g.Key+"/widen", g.widening
		}
		if r := w.s.Do(w.s.First, route, in); r.Status >= 300 {
			t.Errorf("%s: what the refusal names cannot be done: %s %v: %s", cell, route, in, gist(r))
		}
	}
}

// TestMatrixGrants applies to every refused call exactly what the refusal names; the same call then passes.
func TestMatrixGrants(t *testing.T) {
	t.Parallel()
	w := newWorld(quick(t, ""))
	scopes, permissions := scopesAndPermissions(t, w.s)
	fresh := map[string]func() subject{
		"worker": func() subject { return w.subject(w.s.First, "worker", obj{"scope": "worker"}) },
		"usage:read": func() subject {
			return w.subject(w.s.First, "usage:read", obj{"permissions": []string{"usage:read"}})
		},
		"made by a smaller key": func() subject {
			maker := w.subject(w.s.First, "maker", obj{"permissions": []string{"keys:write", "usage:read"}})
			return w.subject(maker.secret, "child", obj{"permissions": []string{"usage:read", "cues:read"}})
		},
		"viewer": func() subject { return w.personal("viewer") },
	}
	if long() {
		for _, s := range scopes {
			fresh[s] = func() subject { return w.subject(w.s.First, s, obj{"scope": s}) }
		}
		for _, p := range permissions {
			fresh[p] = func() subject { return w.subject(w.s.First, p, obj{"permissions": []string{p}}) }
		}
		for _, role := range []string{"operator", "manager"} {
			fresh[role] = func() subject { return w.personal(role) }
		}
	}
	mended := 0
	for name, make := range fresh {
		k := make()
		answers := w.answers(t, k.id)
		for _, o := range inOrder(w.s) {
			if answers[o.Name] != "no" {
				continue
			}
			k := make()
			in := w.inputs(o, k.who)
			w.prepare(o, in)
			q := requestOf(o, in)
			cell := fmt.Sprintf("%s, %s", name, o.Name)
			r := w.s.Do(k.secret, q.route, q.body, q.headers...)
			if r.Code() == "members_only" {
				continue // nothing can be granted to a key that is no member
			}
			w.apply(t, cell, r)
			if again := w.s.Do(k.secret, q.route, q.body, q.headers...); refused(again) {
				t.Errorf("%s: what the refusal names was done, and the call is refused again:\n\t%s\n\t%s", cell, gist(r), gist(again))
			}
			mended++
		}
	}
	t.Logf("%d refusals mended", mended)
}

// restriction is a kind of restriction with a value that calls of this test meet, and one that they do not.
type restriction struct {
	kind        string
	met, unmet  any
	onlyWorkers bool // it concerns only calls that say which worker they are
}

var restrictions = []restriction{
	{"ips", []string{"127.0.0.0/8"}, []string{"203.0.113.0/24"}, false},
	{"via", []string{"rest"}, []string{"mcp"}, false},
	{"not_before", "2026-11-23T09:00:00Z", "2027-01-01T00:00:00Z", false},
	{"worker_ids", []string{"worker-1"}, []string{"worker-2"}, true},
	{"cues", []string{"crm-*"}, []string{"other-*"}, false},
}

// namesWorker says whether every call of an operation says which worker it is, and whether some do.
func namesWorker(o *op.Operation) (all, some bool) {
	for _, f := range o.Fields() {
		if f.Name == "worker_id" && f.In != op.InQuery {
			return f.Required, true
		}
	}
	return false, false
}

// TestMatrixRestrictions calls every operation with full keys that are restricted in one way each, once so that the call meets the
// restriction and once so that it does not; every refusal is mended as it says.
func TestMatrixRestrictions(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		t.Parallel()
		w := newWorld(quick(t, dsn))
		for _, r := range restrictions {
			if r.kind != "cues" && strings.HasPrefix(dsn, "postgres") && !long() { // those are judged in memory
				continue
			}
			t.Run(r.kind+" met", func(t *testing.T) { w.tryRestricted(t, r, r.met, true) })
			t.Run(r.kind+" unmet", func(t *testing.T) { w.tryRestricted(t, r, r.unmet, false) })
		}
	})
}

func (w *world) tryRestricted(t *testing.T, r restriction, value any, met bool) {
	makers := map[string]func() subject{
		"integration": func() subject {
			return w.subject(w.s.First, "restricted", obj{"scope": "full", "restrictions": obj{r.kind: value}})
		},
		"personal": func() subject {
			k := w.personal("admin")
			w.s.Must(w.s.First, "PATCH /v1/keys/"+k.id, obj{"restrictions": obj{r.kind: value}})
			return k
		},
		"child, restricted like its parent": func() subject {
			parent := w.subject(w.s.First, "parent", obj{"scope": "full"})
			child := w.subject(parent.secret, "child", obj{"scope": "full", "restrictions": obj{r.kind: value}})
			w.s.Must(w.s.First, "PATCH /v1/keys/"+parent.id, obj{"restrictions": obj{r.kind: value}})
			return child
		},
	}
	for kind, make := range makers {
		for _, o := range inOrder(w.s) {
			k := make()
			verdict := w.answers(t, k.id)[o.Name]
			in := w.inputs(o, k.who)
			w.prepare(o, in)
			q := requestOf(o, in)
			call := func() testkit.Reply { return w.s.Do(k.secret, q.route, q.body, q.headers...) }
			cell := kind + ", " + o.Name
			answer := call()
			always, sometimes := namesWorker(o)
			switch {
			case r.onlyWorkers && sometimes && !always: // the worker that claimed counts
			case met || o.Needs == op.Public || o.Exit || r.onlyWorkers && !always:
				checkCell(t, cell, verdict, answer)
			case r.kind == "cues" && verdict != "no":
				checkHidden(t, cell, o, answer)
			case verdict == "yes" && r.kind != "worker_ids" || answer.Code() != "key_restricted" && answer.Code() != "members_only":
				t.Errorf("%s: the restriction is not met, the server says %s, and the answer is %s", cell, verdict, gist(answer))
			}
			if refused(answer) && answer.Code() != "members_only" {
				w.apply(t, cell, answer)
				if again := call(); refused(again) {
					t.Errorf("%s: what the refusal names was done, and the call is refused again:\n\t%s\n\t%s", cell, gist(answer), gist(again))
				}
			}
		}
		w.s.Clock.Add(400e9)
	}
}

// checkHidden holds the answer to a call about a cue outside the restriction of the key, or about things of such a cue: it is as if
// they were not there. A name outside may not be taken.
func checkHidden(t *testing.T, cell string, o *op.Operation, r testkit.Reply) {
	t.Helper()
	switch {
	case o.Narrow == op.Always && o.Name != "key.authorize": // about the key itself
	case o.Streams(): // what comes in it is another test's
	case r.Status == 404 || r.Status == 409 || r.Status == 403 && r.Code() == "key_restricted":
	case o.Effect == op.Read && r.Status == 200 && strings.Contains(o.Name, "list") || o.Name == "execution.claimable":
		if strings.Contains(string(r.Body), "crm-") {
			t.Errorf("%s: it shows what lies outside: %.500s", cell, r.Body)
		}
	case o.Name == "cue.bulk_delete" && r.Status == 200 && strings.HasPrefix(string(r.Body), `{"deleted":[],`):
	default:
		t.Errorf("%s: a cue outside is there for the key: %s", cell, gist(r))
	}
}
