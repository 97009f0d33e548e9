package test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"unstuck/internal/testkit"
)

// The tests of this file show the sentences of docs/help, each over HTTP on a whole server.

type obj = map[string]any

func helpServer(t *testing.T) *testkit.Server {
	t.Helper()
	return quick(t, "")
}

// make creates a key and answers its id and secret.
func makeKey(t *testing.T, s *testkit.Server, by string, in obj) (id, secret string) {
	t.Helper()
	if in["name"] == nil {
		in["name"] = "key"
	}
	r := s.Must(by, "POST /v1/keys", in)
	return r.Str("id"), r.Str("key")
}

func wantCode(t *testing.T, r testkit.Reply, status int, code string) {
	t.Helper()
	if r.Status != status || r.Code() != code {
		t.Errorf("want %d %q, got %d %s", status, code, r.Status, r.Body)
	}
}

func makeCue(t *testing.T, s *testkit.Server, by, name string) string {
	t.Helper()
	return s.Must(by, "POST /v1/cues", obj{"name": name, "cron": "0 0 1 1 *", "worker": true}).Str("id")
}

func TestHelpKeyHasNameScopeEnd(t *testing.T) {
	s := helpServer(t)
	r := s.Must(s.First, "POST /v1/keys", obj{"name": "HubSpot sync", "scope": "read-only", "expires_in": "90d"})
	if r.Str("name") != "HubSpot sync" || r.Str("scope") != "read-only" || r.Str("expires_at") != "2027-02-21T10:00:00Z" {
		t.Errorf("%s", r.Body)
	}
}

func TestHelpRevokeTouchesNoOther(t *testing.T) {
	s := helpServer(t)
	a, _ := makeKey(t, s, s.First, obj{"scope": "read-only"})
	_, other := makeKey(t, s, s.First, obj{"scope": "read-only"})
	s.Must(s.First, "POST /v1/keys/"+a+"/revoke", obj{})
	s.Must(other, "GET /v1/cues", nil)
}

func TestHelpScopes(t *testing.T) {
	s := helpServer(t)
	cue := makeCue(t, s, s.First, "c")
	calls := map[string]string{
		"list cues": "GET /v1/cues", "fire": "POST /v1/cues/" + cue + "/fire", "pause": "POST /v1/cues/" + cue + "/pause", "claim": "POST /v1/executions/claim",
		"usage": "GET /v1/usage", "keys": "GET /v1/keys", "executions": "GET /v1/executions",
	}
	can := map[string][]string{
		"worker": {"claim", "executions"}, "read-only": {"list cues", "usage", "executions"}, "write-enrichment": {"list cues", "usage", "executions"},
		"write-signals": {"list cues", "usage", "executions"}, "write-cues": {"list cues", "usage", "executions", "fire", "pause"},
		"full": {"list cues", "usage", "executions", "fire", "pause", "claim", "keys"},
	}
	for scope, allowed := range can {
		_, key := makeKey(t, s, s.First, obj{"scope": scope})
		for what, route := range calls {
			r := s.Do(key, route, obj{"worker_id": "w", "max": 1})
			if refused := r.Status == 403; refused == slices.Contains(allowed, what) {
				t.Errorf("%s, %s: %d %s", scope, what, r.Status, r.Body)
			}
		}
	}
}

func TestHelpReadOnlyChangesNothing(t *testing.T) {
	s := helpServer(t)
	_, key := makeKey(t, s, s.First, obj{"scope": "read-only"})
	id := s.Must(key, "GET /v1/keys/self", nil).Str("id")
	for _, v := range s.Must(key, "GET /v1/keys/"+id+"/access", nil).JSON["operations"].([]any) {
		o := v.(obj)
		name, answer := o["operation"].(string), o["answer"].(string)
		changes := s.Set().Lookup(name).Effect.String() != "read"
		if changes && answer != "no" && o["needs"] != "public" && name != "key.revoke" { // any key may end itself
			t.Errorf("read-only may %s", name)
		}
	}
}

func TestHelpCustomPermissions(t *testing.T) {
	s := helpServer(t)
	cue := makeCue(t, s, s.First, "c")
	_, key := makeKey(t, s, s.First, obj{"permissions": []string{"cues:fire", "executions:read"}})
	s.Must(key, "POST /v1/cues/"+cue+"/fire", obj{})
	wantCode(t, s.Do(key, "GET /v1/cues", nil), 403, "insufficient_scope")
}

func TestHelpEnds(t *testing.T) {
	s := helpServer(t)
	for in, want := range map[string]string{"30d": "2026-12-23T10:00:00Z", "90d": "2027-02-21T10:00:00Z", "1y": "2027-11-23T10:00:00Z", "12h": "2026-11-23T22:00:00Z", "never": ""} {
		r := s.Must(s.First, "POST /v1/keys", obj{"name": "k", "scope": "worker", "expires_in": in})
		if got := r.Str("expires_at"); got != want {
			t.Errorf("%s: %q", in, got)
		}
	}
	if got := s.Must(s.First, "POST /v1/keys", obj{"name": "k", "scope": "worker"}).Str("expires_at"); got != "2027-11-23T10:00:00Z" {
		t.Errorf("nothing said: %q", got)
	}
}

func TestHelpShownOnce(t *testing.T) {
	s := helpServer(t)
	id, secret := makeKey(t, s, s.First, obj{"scope": "full"})
	for _, route := range []string{"GET /v1/keys/" + id, "GET /v1/keys", "GET /v1/keys/" + id + "/access", "GET /v1/keys/" + id + "/activity", "GET /v1/audit", "GET /v1/auth/keys"} {
		if r := s.Must(s.First, route, nil); strings.Contains(string(r.Body), secret[:20]) {
			t.Errorf("%s shows the key", route)
		}
	}
	wantCode(t, s.Do(secret, "GET /v1/auth/key", nil), 410, "plaintext_unavailable")
}

func TestHelpLostReply(t *testing.T) {
	s := helpServer(t)
	in := obj{"name": "k", "scope": "worker"}
	first := s.Must(s.First, "POST /v1/keys", in, "Idempotency-Key", "once")
	s.Clock.Add(9 * time.Minute)
	second := s.Must(s.First, "POST /v1/keys", in, "Idempotency-Key", "once")
	if first.Str("id") != second.Str("id") || first.Str("key") == second.Str("key") {
		t.Fatalf("%s\n%s", first.Body, second.Body)
	}
	if r := s.Do(first.Str("key"), "GET /v1/keys/self", nil); r.Status != 401 {
		t.Errorf("the lost secret still works: %d", r.Status)
	}
	s.Must(second.Str("key"), "GET /v1/keys/self", nil)
	s.Clock.Add(11 * time.Minute)
	if third := s.Must(s.First, "POST /v1/keys", in, "Idempotency-Key", "once"); third.Str("id") == first.Str("id") {
		t.Error("after ten minutes it is still the same key")
	}
}

var redactedForm = regexp.MustCompile(`^unstuck_\*\*\*_[0-9a-f]{8}$`)

func TestHelpList(t *testing.T) {
	s := helpServer(t)
	_, secret := makeKey(t, s, s.First, obj{"name": "n8n workflow X", "scope": "worker"})
	s.Must(secret, "GET /v1/executions", nil)
	for _, v := range s.Must(s.First, "GET /v1/keys?kind=integration", nil).JSON["keys"].([]any) {
		k := v.(obj)
		for _, field := range []string{"id", "name", "redacted", "scope", "created_at", "expires_at", "last_used_at", "status"} {
			if k[field] == nil || k[field] == "" {
				t.Errorf("no %s: %v", field, k)
			}
		}
		if by := k["created_by"].(obj); by["name"] != "admin@example.com" {
			t.Errorf("made by %v", by)
		}
		if r := k["redacted"].(string); !redactedForm.MatchString(r) || !strings.HasSuffix(secret, r[len(r)-8:]) {
			t.Errorf("redacted %s", r)
		}
	}
}

func TestHelpStatus(t *testing.T) {
	s := helpServer(t)
	id, secret := makeKey(t, s, s.First, obj{"scope": "read-only", "expires_in": "1h", "restrictions": obj{"not_before": "2026-11-23T10:30:00Z"}})
	status := func() string { return s.Must(s.First, "GET /v1/keys/"+id, nil).Str("status") }
	if got := status(); got != "pending" {
		t.Errorf("before its time: %s", got)
	}
	wantCode(t, s.Do(secret, "GET /v1/cues", nil), 403, "key_restricted")
	s.Clock.Add(45 * time.Minute)
	if got := status(); got != "active" {
		t.Errorf("in its time: %s", got)
	}
	s.Clock.Add(time.Hour)
	if got := status(); got != "expired" {
		t.Errorf("after its time: %s", got)
	}
	wantCode(t, s.Do(secret, "GET /v1/cues", nil), 401, "key_expired")
	s.Must(s.First, "POST /v1/keys/"+id+"/revoke", obj{})
	if got := status(); got != "revoked" {
		t.Errorf("revoked: %s", got)
	}
	wantCode(t, s.Do(secret, "GET /v1/cues", nil), 401, "key_revoked")
}

func TestHelpRotate(t *testing.T) {
	s := helpServer(t)
	id, old := makeKey(t, s, s.First, obj{"scope": "read-only"})
	s.Must(old, "GET /v1/cues", nil)
	fresh := s.Must(s.First, "POST /v1/keys/"+id+"/rotate", obj{}).Str("key")
	s.Clock.Add(48 * time.Hour) // nobody used the new one yet: the old one goes on
	s.Must(old, "GET /v1/cues", nil)
	s.Must(fresh, "GET /v1/cues", nil)
	s.Clock.Add(23 * time.Hour)
	s.Must(old, "GET /v1/cues", nil)
	k := s.Must(s.First, "GET /v1/keys/"+id, nil)
	secrets := k.JSON["secrets"].([]any)
	if len(secrets) != 2 || secrets[0].(obj)["last_used_at"] == nil || secrets[1].(obj)["last_used_at"] == nil {
		t.Fatalf("two secrets with their own last use: %s", k.Body)
	}
	s.Must(s.First, "PATCH /v1/keys/"+id, obj{"permissions": []string{"usage:read"}})
	for _, secret := range []string{old, fresh} {
		wantCode(t, s.Do(secret, "GET /v1/cues", nil), 403, "insufficient_scope")
	}
	s.Clock.Add(2 * time.Hour)
	wantCode(t, s.Do(old, "GET /v1/usage", nil), 401, "key_rotated")
	s.Must(fresh, "GET /v1/usage", nil)
	s.Must(s.First, "POST /v1/keys/"+id+"/rotate", obj{"overlap": "30d"})
	wantCode(t, s.Do(s.First, "POST /v1/keys/"+id+"/rotate", obj{"overlap": "31d"}), 422, "validation_error")
}

func TestHelpRotateNow(t *testing.T) {
	s := helpServer(t)
	id, old := makeKey(t, s, s.First, obj{"scope": "read-only"})
	fresh := s.Must(s.First, "POST /v1/keys/"+id+"/rotate", obj{"now": true}).Str("key")
	wantCode(t, s.Do(old, "GET /v1/cues", nil), 401, "key_rotated")
	s.Must(fresh, "GET /v1/cues", nil)
	newest := s.Must(s.First, "POST /v1/keys/"+id+"/rotate", obj{}).Str("key")
	s.Must(fresh, "GET /v1/cues", nil)
	s.Must(s.First, "POST /v1/keys/"+id+"/rotate", obj{"finish": true})
	wantCode(t, s.Do(fresh, "GET /v1/cues", nil), 401, "key_rotated")
	s.Must(newest, "GET /v1/cues", nil)
}

func TestHelpRegenerate(t *testing.T) {
	s := helpServer(t)
	wantCode(t, s.Do(s.First, "POST /v1/auth/regenerate", nil), 400, "confirmation_required")
	fresh := s.Must(s.First, "POST /v1/auth/regenerate", nil, "X-Confirm-Destructive", "true").Str("api_key")
	wantCode(t, s.Do(s.First, "GET /v1/cues", nil), 401, "key_rotated")
	s.Must(fresh, "GET /v1/cues", nil)
}

func TestHelpTwoKeysCoexist(t *testing.T) {
	s := helpServer(t)
	old, oldSecret := makeKey(t, s, s.First, obj{"scope": "read-only"})
	_, fresh := makeKey(t, s, s.First, obj{"scope": "read-only"})
	s.Must(oldSecret, "GET /v1/cues", nil)
	s.Must(fresh, "GET /v1/cues", nil)
	s.Must(s.First, "POST /v1/keys/"+old+"/revoke", obj{})
	s.Must(fresh, "GET /v1/cues", nil)
}

func TestHelpRevokeTakesChildren(t *testing.T) {
	s := helpServer(t)
	parent, secret := makeKey(t, s, s.First, obj{"scope": "full"})
	_, child := makeKey(t, s, secret, obj{"scope": "full"})
	_, grandchild := makeKey(t, s, child, obj{"scope": "read-only"})
	s.Must(grandchild, "GET /v1/cues", nil)
	s.Must(s.First, "POST /v1/keys/"+parent+"/revoke", obj{})
	for _, k := range []string{secret, child, grandchild} {
		wantCode(t, s.Do(k, "GET /v1/cues", nil), 401, "key_revoked")
	}
}

func TestHelpRevokeIsForGood(t *testing.T) {
	s := helpServer(t)
	id, secret := makeKey(t, s, s.First, obj{"scope": "read-only"})
	s.Must(s.First, "POST /v1/keys/"+id+"/revoke", obj{})
	s.Must(s.First, "POST /v1/keys/"+id+"/revoke", obj{}) // again: the same
	wantCode(t, s.Do(s.First, "POST /v1/keys/"+id+"/extend", obj{"expires_in": "1y"}), 409, "key_ended")
	wantCode(t, s.Do(s.First, "POST /v1/keys/"+id+"/rotate", obj{}), 409, "key_ended")
	s.Restart(time.Minute)
	wantCode(t, s.Do(secret, "GET /v1/cues", nil), 401, "key_revoked")
}

func TestHelpMemberLeaves(t *testing.T) {
	s := helpServer(t)
	m := s.Must(s.First, "POST /v1/members", obj{"email": "manager@example.com", "role": "manager"})
	personal, id := s.Must(m.Str("key"), "POST /v1/keys/self/rotate", obj{"now": true}).Str("key"), m.Str("id")
	key, secret := makeKey(t, s, personal, obj{"name": "his sync", "scope": "worker"})
	r := s.Do(s.First, "DELETE /v1/members/"+id, nil)
	wantCode(t, r, 409, "member_has_keys")
	if !strings.Contains(string(r.Body), key) {
		t.Errorf("the refusal does not list the key: %s", r.Body)
	}
	if r := s.Do(s.First, "DELETE /v1/members/"+id, obj{"keys": "revoke"}); r.Status != 422 || !strings.Contains(string(r.Body), "send it in the query: ?keys=") {
		t.Errorf("a decision in the body: %d %s", r.Status, r.Body)
	}
	s.Must(personal, "GET /v1/keys/self", nil) // refused: nothing changed
	s.Must(s.First, "DELETE /v1/members/"+id+"?keys=hand_over", nil)
	wantCode(t, s.Do(personal, "GET /v1/keys/self", nil), 401, "key_revoked")
	s.Must(secret, "GET /v1/executions", nil)
	if got := s.Must(s.First, "GET /v1/keys/"+key, nil).Str("member.name"); got != "admin@example.com" {
		t.Errorf("handed over to %s", got)
	}
}

func TestHelpLastUsed(t *testing.T) {
	s := helpServer(t)
	id, secret := makeKey(t, s, s.First, obj{"scope": "worker"})
	s.Clock.Add(time.Minute)
	s.Do(secret, "GET /v1/cues", nil, "User-Agent", "n8n/1.98") // refused
	k := s.Must(s.First, "GET /v1/keys/"+id, nil)
	last := k.JSON["last_used"].(obj)
	if k.Str("last_used_at") != "2026-11-23T10:01:00Z" || last["operation"] != "cue.list" || last["door"] != "rest" || last["ip"] != "127.0.0.1" || last["user_agent"] != "n8n/1.98" || last["code"] != "insufficient_scope" {
		t.Errorf("%s", k.Body)
	}
}

func TestHelpStale(t *testing.T) {
	s := helpServer(t)
	id, secret := makeKey(t, s, s.First, obj{"scope": "worker"})
	s.Must(secret, "GET /v1/executions", nil)
	stale := func() any { return s.Must(s.First, "GET /v1/keys/"+id, nil).JSON["stale"] }
	s.Clock.Add(89 * 24 * time.Hour)
	if stale() != false {
		t.Error("stale after 89 days")
	}
	s.Clock.Add(2 * 24 * time.Hour)
	if stale() != true {
		t.Error("not stale after 91 days")
	}
}

func TestHelpSharedLimit(t *testing.T) {
	s := helpServer(t)
	_, a := makeKey(t, s, s.First, obj{"scope": "read-only"})
	_, b := makeKey(t, s, s.First, obj{"scope": "read-only"})
	s.Must(s.First, "PATCH /v1/workspace", obj{"rate_limit_per_minute": 10})
	s.Clock.Add(time.Minute)
	for i := range 10 {
		s.Must([]string{a, b}[i%2], "GET /v1/cues", nil)
	}
	for _, k := range []string{a, b, s.First} {
		r := s.Do(k, "GET /v1/cues", nil)
		wantCode(t, r, 429, "rate_limit_exceeded")
		if r.Header.Get("Retry-After") != "60" {
			t.Errorf("Retry-After %q", r.Header.Get("Retry-After"))
		}
	}
	s.Clock.Add(time.Minute)
	s.Must(a, "GET /v1/cues", nil)
}

func TestHelpOwnLimit(t *testing.T) {
	s := helpServer(t)
	_, slow := makeKey(t, s, s.First, obj{"scope": "read-only", "restrictions": obj{"rate_per_minute": 2}})
	s.Must(slow, "GET /v1/cues", nil)
	s.Must(slow, "GET /v1/cues", nil)
	wantCode(t, s.Do(slow, "GET /v1/cues", nil), 429, "rate_limit_exceeded")
	s.Must(s.First, "GET /v1/cues", nil)
}

func TestHelpTwoWorkspaces(t *testing.T) {
	s := helpServer(t)
	other := s.Must(s.First, "POST /v1/workspaces", obj{"name": "Production"}).Str("key")
	s.Must(s.First, "PATCH /v1/workspace", obj{"rate_limit_per_minute": 5})
	s.Clock.Add(time.Minute)
	for range 5 {
		s.Must(s.First, "GET /v1/cues", nil)
	}
	wantCode(t, s.Do(s.First, "GET /v1/cues", nil), 429, "rate_limit_exceeded")
	s.Must(other, "GET /v1/cues", nil)
}

func TestHelpOutcomeOnce(t *testing.T) {
	s := helpServer(t)
	cue := makeCue(t, s, s.First, "c")
	id := s.Must(s.First, "POST /v1/cues/"+cue+"/fire", obj{}).Str("id")
	worker := s.Key("worker")
	token := s.Must(worker, "POST /v1/executions/"+id+"/claim", obj{"worker_id": "w"}).Str("lease_token")
	said := obj{"success": true, "external_id": "x-1", "result_url": "https://example.com/x", "summary": "done", "artifacts": []obj{{"name": "a"}}, "lease_token": token}
	s.Must(worker, "POST /v1/executions/"+id+"/outcome", said)
	s.Must(worker, "POST /v1/executions/"+id+"/outcome", said) // the same again is the same answer
	said["success"] = false
	wantCode(t, s.Do(worker, "POST /v1/executions/"+id+"/outcome", said), 409, "outcome_already_recorded")
	s.Must(worker, "PATCH /v1/executions/"+id+"/evidence", obj{"summary": "later"})
	if r := s.Must(s.First, "GET /v1/executions/"+id+"/check-evidence", nil); r.JSON["ok"] != true {
		t.Errorf("%s", r.Body)
	}
	if r := s.Must(s.First, "GET /v1/executions/"+id, nil); r.JSON["outcome"].(obj)["success"] != true {
		t.Errorf("%s", r.Body)
	}
}

func TestHelpRefusalNamesTheGrant(t *testing.T) {
	s := helpServer(t)
	id, secret := makeKey(t, s, s.First, obj{"name": "agent", "scope": "worker"})
	r := s.Do(secret, "GET /v1/cues", nil)
	wantCode(t, r, 403, "insufficient_scope")
	e := r.JSON["error"].(obj)
	if fmt.Sprint(e["missing"]) != "[cues:read]" || fmt.Sprint(e["scopes"]) != "[read-only write-cues full]" || e["mend"] == "" || e["key"].(obj)["name"] != "agent" {
		t.Errorf("%s", r.Body)
	}
	s.Must(s.First, "POST /v1/keys/"+id+"/widen", obj{"add_permissions": e["missing"]})
	s.Must(secret, "GET /v1/cues", nil)
}

func TestHelpChildIsNeverWider(t *testing.T) {
	s := helpServer(t)
	_, parent := makeKey(t, s, s.First, obj{"permissions": []string{"keys:write", "cues:read"}, "restrictions": obj{"via": []string{"rest"}}})
	_, child := makeKey(t, s, parent, obj{"scope": "full"})
	s.Must(child, "GET /v1/cues", nil)
	wantCode(t, s.Do(child, "POST /v1/executions/claim", obj{"worker_id": "w"}), 403, "insufficient_scope")
}

func TestHelpFirstKeyGoes(t *testing.T) {
	s := helpServer(t)
	_, made := makeKey(t, s, s.First, obj{"scope": "full"})
	id := s.Must(s.First, "GET /v1/keys/self", nil).Str("id")
	fresh := s.Must(s.First, "POST /v1/keys/"+id+"/rotate", obj{"now": true}).Str("key")
	s.Must(fresh, "POST /v1/keys/"+id+"/revoke", obj{})
	wantCode(t, s.Do(fresh, "GET /v1/cues", nil), 401, "key_revoked")
	s.Must(made, "GET /v1/cues", nil)
}

func TestHelpWhatItDid(t *testing.T) {
	s := helpServer(t)
	id, secret := makeKey(t, s, s.First, obj{"scope": "write-cues"})
	makeCue(t, s, secret, "made by it")
	if r := s.Must(s.First, "GET /v1/keys/"+id+"/activity", nil); !strings.Contains(string(r.Body), `"operation":"cue.create"`) {
		t.Errorf("activity: %s", r.Body)
	}
	if r := s.Must(s.First, "GET /v1/audit?key="+id, nil); !strings.Contains(string(r.Body), `"object_name":"made by it"`) {
		t.Errorf("audit: %s", r.Body)
	}
}

func TestHelpUnauthenticated(t *testing.T) {
	s := helpServer(t)
	unknown := quick(t, "").First // of another server
	texts := map[string]bool{}
	for _, key := range []string{"", "nonsense", s.First[:30], unknown} {
		r := s.Do(key, "GET /v1/cues", nil)
		wantCode(t, r, 401, "invalid_api_key")
		texts[r.Str("error.message")] = true
		if r.Header.Get("WWW-Authenticate") == "" {
			t.Error("no challenge")
		}
	}
	if len(texts) != 3 {
		t.Errorf("three sentences: %v", texts)
	}
}

func TestHelpForm(t *testing.T) {
	s := helpServer(t)
	if !regexp.MustCompile(`^unstuck_[0-9A-Za-z]{49}_[0-9a-f]{8}$`).MatchString(s.First) {
		t.Errorf("%d characters", len(s.First))
	}
	if got := s.Must(s.First, "GET /v1/keys/self", nil).Str("redacted"); got != "unstuck_***_"+s.First[len(s.First)-8:] {
		t.Errorf("redacted %s", got)
	}
	flip := "a"
	if s.First[20] == 'a' {
		flip = "b"
	}
	r := s.Do(s.First[:20]+flip+s.First[21:], "GET /v1/keys/self", nil)
	if !strings.Contains(r.Str("error.message"), "Was it cut") {
		t.Errorf("a wrong letter: %s", r.Body)
	}
}

func TestHelpAuthorize(t *testing.T) {
	s := helpServer(t)
	_, reader := makeKey(t, s, s.First, obj{"scope": "read-only"})
	route := "GET /v1/keys/authorize?permission="
	r := s.Do(reader, route+"cues:read", nil)
	if r.Status != 204 || r.Header.Get("X-Unstuck-Key") == "" || r.Header.Get("X-Unstuck-Workspace") == "" || !strings.Contains(r.Header.Get("X-Unstuck-Permissions"), "cues:read") {
		t.Errorf("%d %v", r.Status, r.Header)
	}
	for _, p := range []string{"cues:write", "nonsense", ""} {
		if r := s.Do(reader, route+p, nil); r.Status != 403 {
			t.Errorf("%q: %d", p, r.Status)
		}
	}
	if r := s.Do("", route+"cues:read", nil); r.Status != 401 {
		t.Errorf("no key: %d", r.Status)
	}
}

// TestHelpAuthorizeNothingElse sends a proxy's question in every bad form: the answer is 204, 401 or 403, and says why.
func TestHelpAuthorizeNothingElse(t *testing.T) {
	s := helpServer(t)
	_, reader := makeKey(t, s, s.First, obj{"scope": "read-only"})
	large := strings.Repeat("x", 2<<20)
	for _, c := range []struct {
		query, body string
		status      int
	}{
		{"?permission=cues:read", "", 204}, {"?permission=cues:read", large, 204}, {"?permission=cues:read", "{", 204}, {"?permission=cues:read", `{"permission":"x"}`, 204},
		{"", "", 403}, {"?", "{", 403}, {"?permission", "", 403}, {"?permission=%ff%fe", "", 403}, {"?permission=%zz", "", 403}, {"?permission=%00", "", 403}, {"?permission=nonsense", large, 403},
		{"?permission=cues:read&cue=%ff", "", 403}, {"?permission=cues:read&cue=nothing", "", 403}, {"?permission=cues:write", "", 403}, {"?permission=" + large[:30_000], "", 403},
		{"?permission=cues:read&cue=" + large[:30_000], "", 403}, {"?x=" + large[:30_000], "", 403},
	} {
		for key, want := range map[string]int{reader: c.status, "": 401, "unstuck_nonsense": 401} {
			r := s.Do(key, "GET /v1/keys/authorize"+c.query, c.body)
			if r.Status != want || (want == 204) != (r.Header.Get("X-Unstuck-Code") == "") || len(r.Body) > 2000 {
				t.Errorf("%.60q with %d bytes of body: %d %v %.300s", c.query, len(c.body), r.Status, r.Header, r.Body)
			}
		}
	}
}

func TestHelpVerify(t *testing.T) {
	s := helpServer(t)
	id, reader := makeKey(t, s, s.First, obj{"scope": "read-only"})
	_, verifier := makeKey(t, s, s.First, obj{"permissions": []string{"keys:verify"}})
	ask := func(key, permission string) testkit.Reply {
		return s.Must(verifier, "POST /v1/keys/verify", obj{"key": key, "permission": permission})
	}
	if r := ask(reader, "cues:read"); r.JSON["valid"] != true || r.Str("key_id") != id || strings.Contains(string(r.Body), reader) {
		t.Errorf("%s", r.Body)
	}
	if r := ask(reader, "cues:fire"); r.JSON["valid"] != false || r.Str("code") != "insufficient_scope" {
		t.Errorf("%s", r.Body)
	}
	foreign := s.Must(s.First, "POST /v1/workspaces", obj{"name": "other"}).Str("key")
	unknown := quick(t, "").First
	if a, b := ask(foreign, "cues:read"), ask(unknown, "cues:read"); string(a.Body) != string(b.Body) {
		t.Errorf("a foreign key and an unknown one differ: %s %s", a.Body, b.Body)
	}
}
