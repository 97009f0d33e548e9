package test

import (
	"fmt"
	"net/url"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"unstuck/internal/op"
	"unstuck/internal/server"
	"unstuck/internal/testkit"
)

// long says that tests may take minutes: more rounds, more callers, every combination.
func long() bool { return os.Getenv("UNSTUCK_LONG") == "1" }

// quick is a server whose disk is never waited for, for tests that are not about crashes.
func quick(t testing.TB, dsn string, changes ...func(*server.Settings)) *testkit.Server {
	t.Helper()
	return testkit.NewWith(t, testkit.Setup{
		DSN:  dsn,
		Deps: func(d *server.Deps) { d.Pragmas = []string{"synchronous(off)"} },
		Settings: func(s *server.Settings) {
			for _, c := range changes {
				c(s)
			}
		},
	})
}

// behindProxy lets the test say from which address a call comes.
func behindProxy(s *server.Settings) { s.TrustedProxies = "127.0.0.1/32" }

// fromElsewhere are the headers of a call from an address of its own: calls without a valid key are limited by address.
func fromElsewhere(n int64) []string {
	return []string{"X-Forwarded-For", fmt.Sprintf("10.%d.%d.%d", n>>16&255, n>>8&255, n&255)}
}

// unlimited takes the limit on calls away from the workspace of a key.
func unlimited(s *testkit.Server, key string) {
	s.Must(key, "PATCH /v1/workspace", obj{"rate_limit_per_minute": 0})
}

// world is a workspace with one of everything that operations are about.
type world struct {
	s *testkit.Server

	cue       string // is for workers and never due; its name begins with "crm-"
	execution string // of the cue, claimed by nobody
	alert     string // about another cue for workers, "crm-strict"
	spare     string // id of a key that can do nearly nothing
	spareKey  string // its secret
	member    string // id of a viewer
	email     string // the viewer's address
	made      int    // how many things were given a name of their own
}

func newWorld(s *testkit.Server) *world {
	w := &world{s: s, email: "viewer@example.com"}
	unlimited(s, s.First)
	w.alert = w.newAlert()
	w.cue = w.newCue("crm-sync")
	w.execution = w.fire()
	spare := s.Must(s.First, "POST /v1/keys", obj{"name": "spare", "permissions": []string{"usage:read"}})
	w.spare, w.spareKey = spare.Str("id"), spare.Str("key")
	w.haveMember()
	return w
}

func (w *world) newCue(name string) string { return makeCueWith(w.s, w.s.First, name) }

func makeCueWith(s *testkit.Server, key, name string) string {
	return s.Must(key, "POST /v1/cues", obj{"name": name, "cron": "0 0 1 1 *", "worker": true, "payload": obj{"task": "t"}}).Str("id")
}

// newAlert makes an alert: of an execution that lacks its evidence.
func (w *world) newAlert() string {
	cue := w.newCue("crm-strict")
	w.s.Must(w.s.First, "PATCH /v1/cues/"+cue, obj{"verification": obj{"mode": "require_external_id"}})
	id := w.s.Must(w.s.First, "POST /v1/cues/"+cue+"/fire", obj{}).Str("id")
	claim := w.s.Must(w.s.First, "POST /v1/executions/"+id+"/claim", obj{"worker_id": "worker-0"})
	w.s.Must(w.s.First, "POST /v1/executions/"+id+"/outcome", obj{"success": true, "lease_token": claim.Str("lease_token")})
	return w.s.Must(w.s.First, "GET /v1/alerts", nil).JSON["alerts"].([]any)[0].(obj)["id"].(string)
}

// fire makes an execution that is due later than all before.
func (w *world) fire() string {
	w.s.Clock.Add(time.Millisecond)
	return w.s.Must(w.s.First, "POST /v1/cues/"+w.cue+"/fire", obj{}).Str("id")
}

// haveMember makes sure that the viewer is a member.
func (w *world) haveMember() {
	if r := w.s.Do(w.s.First, "POST /v1/members", obj{"email": w.email, "role": "viewer"}); r.Status == 201 {
		w.member = r.Str("id")
	}
}

// name is one that nothing has yet.
func (w *world) name(prefix string) string {
	w.made++
	return fmt.Sprintf("%s%d", prefix, w.made)
}

// who is what inputs must know of the key that calls.
type who struct {
	id         string
	scope      string // a named scope that the key may give to another; "worker" when nothing is known
	permission string // one that the key holds
}

// inputs are valid inputs for an operation, by the names of its fields: everything that is required, and what else keeps a call
// from being refused for its form. Where an operation is about something, it is about what the world has of it, or, when a key may
// do it to itself, about the calling key.
func (w *world) inputs(o *op.Operation, by who) obj {
	in := obj{}
	for _, f := range o.Fields() {
		if f.Required {
			in[f.Name] = w.plain(o, f)
		}
	}
	for name, v := range w.special(o, by) {
		in[name] = v
	}
	return in
}

// plain is a value that fits a field by its type alone.
func (w *world) plain(o *op.Operation, f op.Field) any {
	switch {
	case len(f.Enum) > 0:
		return f.Enum[0]
	case f.In == op.InPath && f.Name == "id":
		return map[string]string{"cue": w.cue, "execution": w.execution, "alert": w.alert, "key": w.spare, "auth_key": w.spare, "member": w.member}[o.Noun()]
	case f.Name == "email":
		return w.name("someone") + "@example.com"
	case f.Name == "name" || f.Name == "label":
		return w.name("crm-")
	case f.Name == "worker_id":
		return "worker-1"
	}
	switch f.Type.Kind() {
	case reflect.Bool:
		return true
	case reflect.Int64:
		return 1
	case reflect.Slice:
		return []string{}
	}
	return "text"
}

// special are the inputs of operations for which the form alone does not do.
func (w *world) special(o *op.Operation, by who) obj {
	switch o.Name {
	case "key.create", "key.preview":
		return obj{"permissions": []string{by.permission}}
	case "key.verify":
		return obj{"key": w.spareKey, "permission": "usage:read"}
	case "key.authorize":
		return obj{"permission": by.permission, "cue": w.cue}
	case "key.update", "auth_key.update", "key.access", "key.rotate", "key.revoke":
		return obj{"id": by.id}
	case "key.widen":
		return obj{"add_permissions": []string{"usage:read"}}
	case "key.extend":
		return obj{"expires_in": "1y"}
	case "personal_key.create":
		return obj{"scope": by.scope}
	case "auth_key.revoke":
		return obj{"id": "key_000000000000"}
	case "echo.store", "echo.get":
		return obj{"token": w.name("token-of-this-call-")}
	case "live.watch":
		return obj{"wait": 0}
	case "cue.create":
		return obj{"cron": "0 0 1 1 *", "worker": true}
	}
	return nil
}

// prepare brings back what a call of an operation that destroys needs.
func (w *world) prepare(o *op.Operation, in obj) {
	switch o.Name {
	case "member.remove", "member.update":
		w.haveMember()
	case "cue.delete":
		in["id"] = w.newCue(w.name("crm-gone-"))
	case "cue.bulk_delete":
		in["ids"] = []string{w.newCue(w.name("crm-gone-"))}
	}
}

// request is an operation with its inputs as a call over HTTP.
type request struct {
	route   string
	body    any
	headers []string
}

// requestOf puts every input where its field travels.
func requestOf(o *op.Operation, in obj) request {
	path, query, body := o.Path(), url.Values{}, obj{}
	r := request{}
	for _, f := range o.Fields() {
		v, ok := in[f.Name]
		if !ok {
			continue
		}
		switch f.In {
		case op.InPath:
			path = strings.ReplaceAll(path, "{"+f.Name+"}", url.PathEscape(fmt.Sprint(v)))
		case op.InQuery:
			query.Set(f.Name, fmt.Sprint(v))
		case op.InHeader:
			r.headers = append(r.headers, f.Name, fmt.Sprint(v))
		case op.InBody:
			body[f.Name] = v
		}
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	if o.HasBody() {
		r.body = body
	}
	if o.Confirm {
		r.headers = append(r.headers, "X-Confirm-Destructive", "true")
	}
	r.route = o.Method() + " " + path
	return r
}

// refused says whether an answer refuses a call for what its key may do.
func refused(r testkit.Reply) bool {
	switch r.Code() {
	case "insufficient_scope", "members_only", "key_restricted", "key_handed_over":
		return r.Status == 403
	}
	return false
}

// gist is what matters of an answer, for people.
func gist(r testkit.Reply) string {
	e, ok := r.JSON["error"].(obj)
	if !ok {
		return fmt.Sprintf("%d %.300s", r.Status, r.Body)
	}
	text := fmt.Sprintf("%d %v: %v", r.Status, e["code"], e["message"])
	for _, name := range []string{"missing", "restriction", "brought", "grants"} {
		if v, ok := e[name]; ok {
			text += fmt.Sprintf(" %s=%v", name, v)
		}
	}
	return text
}
