package test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"unstuck/internal/op"
	"unstuck/internal/server"
	"unstuck/internal/testkit"
	"unstuck/internal/testkit/pgtest"
)

// TestOtherWorkspace calls every operation about the things of one workspace with full keys of another. They are answered as if
// those things did not exist, and no list, count or lookup shows any of them.
func TestOtherWorkspace(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		t.Parallel()
		s := quick(t, dsn, func(o *server.Settings) { o.Register, o.RegisterPlan = "open", "self-hosted" })
		w := newWorld(s)
		w.occupy()
		s.Must("", "POST /v1/auth/register", obj{"email": "stranger@example.com"})
		personal := s.Must("", "POST /v1/auth/register", obj{"email": "other@example.com"}).Str("api_key")
		unlimited(s, personal)
		theirs := map[string]string{"personal": personal, "integration": s.Must(personal, "POST /v1/keys", obj{"name": "k", "scope": "full"}).Str("key")}
		dump := newDumper(t, s)
		for kind, key := range theirs {
			for _, o := range s.Set().All() {
				w.checkAsIfAbsent(t, kind, key, o, dump)
			}
			w.checkShowsNothing(t, kind, key)
		}
		for kind, key := range theirs { // later, because the audit log of the others keeps what they asked for
			w.checkLookups(t, kind, key)
		}
	})
}

// occupy gives the workspace a worker, a claimed execution with an outcome, and rows in every list.
func (w *world) occupy() {
	s, first := w.s, w.s.First
	s.Must(first, "POST /v1/worker/heartbeat", obj{"worker_id": "worker-of-one"})
	claim := s.Must(first, "POST /v1/executions/"+w.execution+"/claim", obj{"worker_id": "worker-of-one"})
	s.Must(first, "POST /v1/executions/"+w.execution+"/outcome", obj{"success": true, "lease_token": claim.Str("lease_token")})
	w.execution = w.fire() // and one that is free
}

// marks are texts that only things of this workspace hold.
func (w *world) marks() []string {
	self := w.s.Must(w.s.First, "GET /v1/keys/self", nil)
	return []string{
		w.cue, w.execution, w.alert, w.spare, w.member, w.email, "crm-sync", "crm-strict", "worker-of-one", "admin@example.com", self.Str("id"), self.Str("redacted"), "spare",
		w.s.Must(w.s.First, "GET /v1/workspace", nil).Str("id"), w.s.Must(w.s.First, "GET /v1/auth/webhook-secret", nil).Str("webhook_secret"),
	}
}

// absent are ids of the right form that nothing has, in the place of those of the world.
func (w *world) absent(text string) string {
	for id, none := range map[string]string{w.cue: "cue_zzzzzzzzzzzz", w.execution: "5ca1ab1e-0000-4000-8000-000000000000", w.alert: "a1e27000-0000-4000-8000-000000000000", w.spare: "key_zzzzzzzzzzzz", w.member: "usr_zzzzzzzzzzzz"} {
		text = strings.ReplaceAll(text, id, none)
	}
	return strings.ReplaceAll(text, "worker-of-one", "worker-of-none")
}

var varies = regexp.MustCompile(`"(request_id|docs)":"[^"]*"|cue_[a-z0-9]{12}|key_[a-z0-9]{12}|usr_[a-z0-9]{12}|[0-9a-f]{8}-[0-9a-f-]{27}|worker-of-\w+`)

// checkAsIfAbsent calls an operation about a thing of the world, and about one that does not exist: the answers are the same.
func (w *world) checkAsIfAbsent(t *testing.T, kind, key string, o *op.Operation, dump *dumper) {
	t.Helper()
	if !strings.Contains(o.Path(), "{") {
		return
	}
	in := w.inputs(o, who{id: w.spare, scope: "worker", permission: "usage:read"})
	if o.Name == "worker.delete" {
		in["worker_id"] = "worker-of-one"
	}
	if o.Name == "auth_key.revoke" {
		in["id"] = w.spare
	}
	q := requestOf(o, in)
	before := dump.all(t)
	r := w.s.Do(key, q.route, q.body, q.headers...)
	none := w.s.Do(key, w.absent(q.route), q.body, q.headers...)
	if left := differ(before, dump.all(t)); left != "" {
		t.Errorf("%s, %s changed something of another workspace: %s", kind, o.Name, left)
	}
	switch {
	case r.Code() == "members_only", o.Noun() == "echo": // whose tokens name nothing of a workspace; see TestEchoDelivery
	case o.Name == "alert_channel.set": // a channel is a kind: of the caller's own workspace
	case r.Status != 404 && !(o.Name == "execution.claim_one" && r.Status == 409): // the contract hides every reason behind 409
		t.Errorf("%s, %s of another workspace: %s", kind, o.Name, gist(r))
	}
	if a, b := varies.ReplaceAllString(string(r.Body), "~"), varies.ReplaceAllString(string(none.Body), "~"); a != b || r.Status != none.Status {
		t.Errorf("%s, %s: what belongs to others is told from what does not exist:\n\t%s\n\t%s", kind, o.Name, a, b)
	}
}

// checkShowsNothing reads all that a key can read without naming anything: nothing of the world is in it.
func (w *world) checkShowsNothing(t *testing.T, kind, key string) {
	t.Helper()
	marks := w.marks()
	for _, o := range w.s.Set().All() {
		if o.Method() != "GET" || strings.Contains(o.Path(), "{") {
			continue
		}
		r := w.s.Do(key, "GET "+o.Path(), nil)
		for _, m := range marks {
			if strings.Contains(string(r.Body), m) {
				t.Errorf("%s, %s shows %s of another workspace", kind, o.Name, m)
			}
		}
	}
	for route, total := range map[string]string{"GET /v1/cues": "total", "GET /v1/executions": "total", "GET /v1/alerts": "total"} {
		if r := w.s.Must(key, route, nil); r.JSON[total] != 0.0 {
			t.Errorf("%s, %s counts %v things of others", kind, route, r.JSON[total])
		}
	}
	if r := w.s.Must(key, "GET /v1/usage", nil); strings.Contains(string(r.Body), `"used":1`) {
		t.Errorf("%s: the usage counts what others use: %s", kind, r.Body)
	}
}

// checkLookups names things of the world where an input can: as filter, as restriction, and in questions about keys.
func (w *world) checkLookups(t *testing.T, kind, key string) {
	t.Helper()
	self := w.s.Must(w.s.First, "GET /v1/keys/self", nil).Str("id")
	for _, q := range []string{
		"/v1/executions?key=" + self, "/v1/executions?worker_id=worker-of-one", "/v1/cues?name=crm-*", "/v1/keys?parent_id=" + w.spare,
		"/v1/keys?made_by=admin@example.com", "/v1/audit?object_id=" + w.cue, "/v1/audit?key=" + self,
	} {
		r, none := w.s.Do(key, "GET "+q, nil), w.s.Do(key, w.absent("GET "+strings.ReplaceAll(q, self, "key_zzzzzzzzzzzz")), nil)
		if r.Status != 200 && varies.ReplaceAllString(string(r.Body), "") != varies.ReplaceAllString(string(none.Body), "") {
			t.Errorf("%s: %s: %s; of none: %s", kind, q, r.Body, none.Body)
		}
		for name, list := range r.JSON {
			if items, ok := list.([]any); ok && len(items) > 0 {
				t.Errorf("%s: %s finds %s of another workspace", kind, q, name)
			}
		}
	}
	filter := "GET /v1/executions?cue_id=" + w.cue
	if r, none := w.s.Do(key, filter, nil), w.s.Do(key, w.absent(filter), nil); r.Status != 404 || varies.ReplaceAllString(string(r.Body), "") != varies.ReplaceAllString(string(none.Body), "") {
		t.Errorf("%s: %s: %s; of none: %s", kind, filter, r.Body, none.Body)
	}
	for what, r := range map[string]testkit.Reply{
		"a restriction to a cue": w.s.Do(key, "POST /v1/keys", obj{"name": "k", "scope": "worker", "restrictions": obj{"cues": []string{w.cue}}}),
		"a preview":              w.s.Do(key, "POST /v1/keys/preview", obj{"scope": "full", "restrictions": obj{"cues": []string{w.cue}}}),
		"a proxy's question":     w.s.Do(key, "GET /v1/keys/authorize?permission=cues:read&cue="+url.QueryEscape(w.cue), nil),
	} {
		if r.Status < 400 && strings.Contains(string(r.Body), "1 cue today") || what != "a preview" && r.Status < 400 {
			t.Errorf("%s: %s about another workspace: %s", kind, what, gist(r))
		}
	}
	r := w.s.Must(key, "POST /v1/keys/verify", obj{"key": w.spareKey, "permission": "usage:read"})
	none := w.s.Must(key, "POST /v1/keys/verify", obj{"key": "unstuck_nothing", "permission": "usage:read"})
	if string(r.Body) != string(none.Body) || r.JSON["valid"] != false {
		t.Errorf("%s: verifying a key of another workspace: %s; of none: %s", kind, r.Body, none.Body)
	}
}

// TestForwardedAddress sends forwarding headers to a server that trusts nobody, and through proxies to one that does: only what a
// trusted proxy says counts.
func TestForwardedAddress(t *testing.T) {
	t.Parallel()
	const one = "127.0.0.1/32"
	for _, c := range []struct {
		trusted string
		lines   []string
		passes  bool
	}{
		{"", []string{"203.0.113.7"}, false},
		{"", []string{"203.0.113.7, 127.0.0.1"}, false},
		{"10.0.0.0/8", []string{"203.0.113.7"}, false}, // the peer is not trusted
		{one, []string{"203.0.113.7"}, true},
		{one, []string{"198.51.100.1, 203.0.113.7"}, true}, // the client's own line stands to the left
		{one, []string{"203.0.113.7, 198.51.100.1"}, false},
		{one, []string{"203.0.113.7", "198.51.100.1"}, false}, // all lines are one list
		{"127.0.0.1/32,10.0.0.0/8", []string{"203.0.113.7, 10.1.2.3"}, true},
		{one, []string{"203.0.113.7, nonsense"}, false},
		{one, []string{"nonsense, 203.0.113.7"}, true},
		{one, []string{""}, false},
		{one, []string{"::ffff:203.0.113.7"}, true},
		{one, []string{"203.0.113.7:443"}, false},
	} {
		t.Run(fmt.Sprintf("%s %q", c.trusted, c.lines), func(t *testing.T) {
			s := quick(t, "", func(o *server.Settings) { o.TrustedProxies = c.trusted })
			key := s.Must(s.First, "POST /v1/keys", obj{"name": "k", "scope": "worker", "restrictions": obj{"ips": []string{"203.0.113.7"}}}).Str("key")
			r := forwarded(t, s, key, c.lines)
			if passed := r.Status == 200; passed != c.passes || !passed && r.Code() != "key_restricted" {
				t.Errorf("%s", gist(r))
			}
		})
	}
}

// forwarded asks a key for itself, with these lines of X-Forwarded-For.
func forwarded(t *testing.T, s *testkit.Server, key string, lines []string) testkit.Reply {
	t.Helper()
	req := httptest.NewRequest("GET", "/v1/keys/self", nil)
	req.RemoteAddr = "127.0.0.1:4711"
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header["X-Forwarded-For"] = lines
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, req)
	r := testkit.Reply{Status: w.Code, Body: w.Body.Bytes()}
	_ = json.Unmarshal(r.Body, &r.JSON)
	return r
}
