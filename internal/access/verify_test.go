package access

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"unstuck/internal/op"
)

// TestVerify answers about keys of the workspace as a call would, and about all others as about one that nobody knows.
func TestVerify(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.toys.put(w.workspace(), "cue_000000000001", "report")
		service, _ := w.key("keys:verify")
		secret, id := w.key("cues:fire", in{"restrictions": in{"rate_per_minute": 9}})
		verify := func(input in) string {
			t.Helper()
			out := w.must(service, "key.verify", input, from{peer: "10.0.0.9:1"})
			return fmt.Sprint(out["valid"], " ", out["code"], " ", out["key_id"], " ", out["permissions"])
		}
		unknownKey := "false invalid_api_key <nil> []"
		foreign, _ := w.keyBy(w.must(w.admin, "workspace.create", in{"name": "Second"}).str("key"), "full")
		revokedKey, revokedID := w.key("cues:fire")
		w.must(w.admin, "key.revoke", in{"id": revokedID})
		rotatedKey, rotatedID := w.key("cues:fire")
		pending := w.must(w.admin, "key.rotate", in{"id": rotatedID, "overlap": "0s"}).str("key")
		byAddress, addressID := w.key("cues:fire", in{"restrictions": in{"ips": []string{"203.0.113.0/24"}}})
		byCue, cueID := w.key("cues:fire", in{"restrictions": in{"cues": []string{"weekly-*"}}})
		later, laterID := w.key("cues:fire", in{"restrictions": in{"not_before": "2026-11-25T00:00:00Z"}})
		for _, test := range []struct {
			name  string
			input in
			want  string
		}{
			{"good", in{"key": secret, "permission": "cues:fire"}, "true  " + id + " [cues:fire]"},
			{"about a cue", in{"key": secret, "permission": "cues:fire", "cue": "cue_000000000001"}, "true  " + id + " [cues:fire]"},
			{"too little", in{"key": secret, "permission": "cues:write"}, "false insufficient_scope " + id + " []"},
			{"nonsense", in{"key": "nonsense", "permission": "cues:fire"}, unknownKey},
			{"nobody's", in{"key": newSecret("unstuck").Reveal(), "permission": "cues:fire"}, unknownKey},
			{"another workspace's", in{"key": foreign, "permission": "cues:fire"}, unknownKey},
			{"revoked", in{"key": revokedKey, "permission": "cues:fire"}, "false key_revoked " + revokedID + " []"},
			{"pending", in{"key": pending, "permission": "cues:fire"}, "true  " + rotatedID + " [cues:fire]"},
			{"and then the old one", in{"key": rotatedKey, "permission": "cues:fire"}, "false key_rotated " + rotatedID + " []"},
			{"right address", in{"key": byAddress, "permission": "cues:fire", "ip": "203.0.113.7"}, "true  " + addressID + " [cues:fire]"},
			{"wrong address", in{"key": byAddress, "permission": "cues:fire", "ip": "10.0.0.9"}, "false key_restricted " + addressID + " []"},
			{"no address", in{"key": byAddress, "permission": "cues:fire"}, "false key_restricted " + addressID + " []"},
			{"wrong cue", in{"key": byCue, "permission": "cues:fire", "cue": "cue_000000000001"}, "false key_restricted " + cueID + " []"},
			{"no cue", in{"key": byCue, "permission": "cues:fire"}, "false key_restricted " + cueID + " []"},
			{"too early", in{"key": later, "permission": "cues:fire"}, "false key_restricted " + laterID + " []"},
		} {
			if got := verify(test.input); got != test.want {
				t.Errorf("%s: %s, want %s", test.name, got, test.want)
			}
		}
		w.invalid("body.permission", service, "key.verify", in{"key": secret, "permission": "moon:write"})
		w.invalid("body.ip", service, "key.verify", in{"key": secret, "permission": "cues:fire", "ip": "here"})
		w.refused(InsufficientScope, secret, "key.verify", in{"key": secret, "permission": "cues:fire"})

		if _, last := w.lastUsed(addressID); last.Operation != "key.verify" || last.IP != "" || last.Via != "verify" || last.Code != "key_restricted" {
			t.Errorf("%+v", last)
		}
		verify(in{"key": byAddress, "permission": "cues:fire", "ip": "203.0.113.7"})
		if _, last := w.lastUsed(addressID); last.IP != "203.0.113.7" || last.Via != "verify" {
			t.Errorf("%+v", last)
		}
		for _, key := range []string{secret, byCue, foreign, "nonsense"} { // an id that is not there tells nothing about any key
			w.invalid("body.cue", service, "key.verify", in{"key": key, "permission": "cues:fire", "cue": "cue_000000000009"})
		}
		for range 5 { // four of nine were made above, one of them by the key itself
			verify(in{"key": secret, "permission": "cues:fire"})
		}
		if got := verify(in{"key": secret, "permission": "cues:fire"}); got != "false rate_limit_exceeded "+id+" []" {
			t.Error(got)
		}
		w.clock.advance(time.Minute)
		w.must(secret, "cue.fire", nil)
		if row := w.audit("key.verify"); len(row) != 3 {
			t.Errorf("%d rows, want one for each dead key, one for the refusal to verify: %+v", len(row), row)
		}
	})
}

// TestAuthorize answers a proxy: 204, 401 or 403 and nothing else.
func TestAuthorize(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.toys.put(w.workspace(), "cue_000000000001", "report")
		secret, id := w.key("cues:fire", in{"restrictions": in{"rate_per_minute": 5}})
		byCue, _ := w.key("cues:fire", in{"restrictions": in{"cues": []string{"report"}}})
		w.toys.put(w.workspace(), "cue_000000000003", "another")
		elsewhere, _ := w.key("cues:fire", in{"restrictions": in{"ips": []string{"10.0.0.0/8"}}})
		ask := func(key string, input in) *op.Response {
			t.Helper()
			res := w.call(key, "key.authorize", input)
			if res.Status != 204 && res.Status != 401 && res.Status != 403 {
				t.Errorf("%v: status %d, %v", input, res.Status, res.Err)
			}
			return res
		}
		res := ask(secret, in{"permission": "cues:fire"})
		if diff := cmp.Diff([]string{w.workspace(), id, "cues:fire"}, []string{res.Header.Get("X-Unstuck-Workspace"), res.Header.Get("X-Unstuck-Key"), res.Header.Get("X-Unstuck-Permissions")}); diff != "" || res.Status != 204 {
			t.Error(diff)
		}
		for _, test := range []struct {
			key   string
			input in
			want  string
		}{
			{secret, in{"permission": "cues:write"}, "403 insufficient_scope"},
			{secret, in{"permission": "moon:write"}, "403 validation_error"},
			{secret, nil, "403 validation_error"},
			{secret, in{"permission": "cues:fire", "cue": "cue_000000000002"}, "403 validation_error"},
			{secret, in{"permission": "cues:fire"}, "403 rate_limit_exceeded"},
			{byCue, in{"permission": "cues:fire", "cue": "cue_000000000001"}, "204 "},
			{byCue, in{"permission": "cues:fire"}, "403 key_restricted"},
			{byCue, in{"permission": "cues:fire", "cue": "cue_000000000002"}, "403 key_restricted"}, // as if it were there
			{byCue, in{"permission": "cues:fire", "cue": "cue_000000000003"}, "403 key_restricted"},
			{elsewhere, in{"permission": "cues:fire"}, "403 key_restricted"},
			{elsewhere, in{"permission": "\xff\xfe"}, "403 key_restricted"},
			{byCue, in{"permission": "\xff\xfe"}, "403 validation_error"},
			{byCue, in{"permission": "cues:fire", "cue": "\x00"}, "403 key_restricted"},
			{byCue, in{"permission": strings.Repeat("x", 1<<20)}, "403 validation_error"},
			{"", in{"permission": "cues:fire"}, "401 invalid_api_key"},
			{newSecret("unstuck").Reveal(), in{"permission": "cues:fire"}, "401 invalid_api_key"},
		} {
			res := ask(test.key, test.input)
			if got := fmt.Sprint(res.Status, " ", res.Header.Get("X-Unstuck-Code")); got != test.want {
				t.Errorf("%v: %s, want %s", test.input, got, test.want)
			}
			if res.Header.Get("X-Unstuck-Code") == RateLimitExceeded.Name && res.Header.Get("Retry-After") != "60" {
				t.Errorf("%v", res.Header)
			}
			if res.Err != nil && (len(res.Err.Message) > 300 || res.Err.Message == "") {
				t.Errorf("%v: %.400s", test.input, res.Err.Message)
			}
			if res.Status != 204 && res.Header.Get("X-Unstuck-Key") != "" {
				t.Errorf("a refusal says whose it is: %v", res.Header)
			}
		}
		for _, r := range []op.Request{{TooLarge: true}, {Body: []byte(`{"a":`)}, {Body: []byte(`{"permission":"x"}`)}, {Broken: errors.New("cut off")}} {
			r.Op, r.Auth, r.Peer, r.Query = "key.authorize", "Bearer "+byCue, "192.0.2.1:4000", url.Values{"permission": {"cues:fire"}, "cue": {"cue_000000000001"}}
			if res := w.set.Call(t.Context(), &r); res.Status != 204 {
				t.Errorf("with a body: %d %v", res.Status, res.Err)
			}
		}
		for range 2 * anonymousLimit {
			if res := ask("", in{"permission": "cues:fire"}); res.Status != 401 {
				t.Fatalf("over the limit: %d", res.Status)
			}
		}
	})
}
