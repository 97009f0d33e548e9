package access

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model is what the specification says about the secrets of one key, told again without a database.
type model struct {
	now     time.Duration
	secrets []modelSecret // oldest first
}

type modelSecret struct {
	text    string
	state   secretState
	overlap time.Duration // of a pending one
	ends    time.Duration // of an old one
}

func (m *model) works(s modelSecret) bool {
	return s.state == statePending || s.state == stateCurrent || s.state == stateOld && m.now < s.ends
}

// rotate adds a secret. A rotation that is under way is over: the pending or old secret of it ends.
func (m *model) rotate(text string, overlap time.Duration, at bool) {
	for i := range m.secrets {
		if at || m.secrets[i].state != stateCurrent {
			m.secrets[i].state = stateEnded
		}
	}
	s := modelSecret{text: text, state: statePending, overlap: overlap}
	if at {
		s.state = stateCurrent
	}
	m.secrets = append(m.secrets, s)
}

// finish ends what is not the newest; it says whether there was anything.
func (m *model) finish() bool {
	any := false
	last := len(m.secrets) - 1
	for i := range m.secrets[:last] {
		any = any || m.works(m.secrets[i])
	}
	if any {
		for i := range m.secrets[:last] {
			m.secrets[i].state = stateEnded
		}
		m.secrets[last].state = stateCurrent
	}
	return any
}

// use is a successful call with a secret.
func (m *model) use(i int) {
	s := &m.secrets[i]
	if s.state != statePending {
		return
	}
	for j := range m.secrets {
		if m.secrets[j].state == stateCurrent {
			m.secrets[j].state, m.secrets[j].ends = stateOld, m.now+s.overlap
		}
	}
	s.state = stateCurrent
}

// TestRotationModel holds rotations against the model over random sequences of rotations, uses, refused uses, restarts and time.
func TestRotationModel(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		rapid.Check(t, func(t *rapid.T) {
			w.renewAdmin(t)
			secret, id := w.key("worker", in{"expires_in": "never"})
			m := &model{secrets: []modelSecret{{text: secret, state: stateCurrent}}}
			t.Repeat(map[string]func(*rapid.T){
				"rotate": func(t *rapid.T) {
					input := in{"id": id}
					overlap := 24 * time.Hour
					at := rapid.IntRange(0, 3).Draw(t, "at once") == 0
					switch {
					case at && rapid.Bool().Draw(t, "leaked"):
						input["reason"] = "leaked"
					case at:
						input["now"] = true
					case rapid.Bool().Draw(t, "with overlap"):
						overlap = rapid.SampledFrom([]time.Duration{0, time.Hour, 30 * 24 * time.Hour}).Draw(t, "overlap")
						input["overlap"] = overlap.String()
					}
					m.rotate(w.must(w.admin, "key.rotate", input).str("key"), overlap, at)
				},
				"finish": func(t *rapid.T) {
					want := NotRotating.Name
					if m.finish() {
						want = ""
					}
					if code := w.code(w.admin, "key.rotate", in{"id": id, "finish": true}); code != want {
						t.Fatalf("finish: %q, want %q", code, want)
					}
				},
				"use": func(t *rapid.T) {
					i := rapid.IntRange(0, len(m.secrets)-1).Draw(t, "which")
					want := KeyRotated.Name
					if m.works(m.secrets[i]) {
						want = ""
						m.use(i)
					}
					if code := w.code(m.secrets[i].text, "execution.claim", nil); code != want {
						t.Fatalf("secret %d: %q, want %q", i, code, want)
					}
				},
				"be refused": func(t *rapid.T) { // which is no successful use
					i := rapid.IntRange(0, len(m.secrets)-1).Draw(t, "which")
					want := KeyRotated.Name
					if m.works(m.secrets[i]) {
						want = InsufficientScope.Name
					}
					if code := w.code(m.secrets[i].text, "cue.list", nil); code != want {
						t.Fatalf("secret %d: %q, want %q", i, code, want)
					}
				},
				"time": func(t *rapid.T) {
					d := rapid.SampledFrom([]time.Duration{time.Second, 30 * time.Minute, 12 * time.Hour}).Draw(t, "time")
					m.now += d
					w.clock.advance(d)
				},
				"": func(t *rapid.T) {
					var want []string
					for _, s := range slices.Backward(m.secrets) {
						if m.works(s) {
							want = append(want, SecretText(s.text).String()+" "+s.state.String())
						}
					}
					if len(want) > 2 {
						t.Fatalf("the model has %d secrets", len(want))
					}
					var got []string
					for _, s := range w.must(w.admin, "key.get", in{"id": id})["secrets"].([]any) {
						got = append(got, fmt.Sprint(s.(map[string]any)["redacted"], " ", s.(map[string]any)["state"]))
					}
					if fmt.Sprint(got) != fmt.Sprint(want) {
						t.Fatalf("shown %v, want %v", got, want)
					}
				},
			})
		})
	})
}

// TestRotationSurvivesARestart: what a rotation has ended stays ended, and what it has begun goes on.
func TestRotationSurvivesARestart(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		first, id := w.key("worker")
		second := w.must(w.admin, "key.rotate", in{"id": id}).str("key")
		w.must(second, "execution.claim", nil)
		w.stop()
		w.open()
		w.must(first, "execution.claim", nil)
		w.clock.advance(24 * time.Hour)
		w.refused(KeyRotated, first, "execution.claim", nil)
		w.stop()
		w.open()
		w.refused(KeyRotated, first, "execution.claim", nil)
		w.must(second, "execution.claim", nil)
	})
}

// TestWhoMayRotate: itself with keys:rotate-self; what is below it, with keys:write; any key that is no wider, for a member without
// restrictions.
func TestWhoMayRotate(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		self, selfID := w.key("keys:rotate-self", in{"expires_in": "30d"})
		w.refused(MembersOnly, self, "key.rotate", in{"id": selfID, "expires_in": "1y"})
		renewed := w.must(self, "key.rotate", in{"id": selfID, "now": true})
		if renewed.str("expires_at") != "2026-12-24T12:00:00Z" {
			t.Errorf("%v", renewed["expires_at"])
		}
		w.refused(KeyRotated, self, "key.self", nil)
		worker, workerID := w.key("worker")
		w.refused(InsufficientScope, worker, "key.rotate", in{"id": workerID})
		w.refused(MembersOnly, renewed.str("key"), "key.rotate", in{"id": workerID})

		parent, _ := w.key("keys:write executions:claim", in{"expires_in": "60d", "restrictions": in{"via": []string{"rest"}}})
		child, childID := w.keyBy(parent, "executions:claim", in{"expires_in": "10d"})
		w.invalid("body.expires_in", parent, "key.rotate", in{"id": childID, "expires_in": "61d"})
		if out := w.must(parent, "key.rotate", in{"id": childID, "expires_in": "50d", "now": true}); out.str("expires_at") != "2027-01-13T12:00:00Z" {
			t.Errorf("%v", out["expires_at"])
		}
		w.refused(KeyRotated, child, "key.self", nil)
		w.refused(MembersOnly, parent, "key.rotate", in{"id": workerID})
		full, _ := w.key("full")
		w.refused(MembersOnly, full, "key.rotate", in{"id": workerID})

		_, manager := w.member("manager@example.com", RoleManager)
		_, auditID := w.key("audit:read")
		w.refused(InsufficientScope, manager, "key.rotate", in{"id": auditID})
		w.must(manager, "key.rotate", in{"id": childID})
		w.refused(MembersOnly, manager, "key.rotate", in{"id": w.must(w.admin, "key.self", nil).str("id")})
		w.refused(MembersOnly, w.admin, "key.rotate", in{"id": w.must(manager, "key.self", nil).str("id")}) // it would outlive the admin

		for _, test := range []struct {
			place string
			input in
		}{
			{"body.overlap", in{"overlap": "31d"}}, {"body.overlap", in{"overlap": "-1h"}}, {"body.overlap", in{"overlap": "long"}}, {"body.overlap", in{"overlap": "1h", "now": true}},
			{"body.finish", in{"finish": true, "now": true}}, {"body.expires_at", in{"expires_at": "2020-01-01T00:00:00Z"}},
		} {
			test.input["id"] = workerID
			w.invalid(test.place, w.admin, "key.rotate", test.input)
		}
		w.clock.advance(400 * 24 * time.Hour)
		w.renewAdmin(nil)
		w.refused(KeyEnded, w.admin, "key.rotate", in{"id": workerID})
		_, newID := w.key("worker", in{"expires_in": "1d"})
		w.clock.advance(48 * time.Hour)
		w.refused(KeyEnded, w.admin, "key.rotate", in{"id": newID}) // a new secret of an expired key would be of no use
		w.must(w.must(w.admin, "key.rotate", in{"id": newID, "expires_in": "1d", "now": true}).str("key"), "execution.claim", nil)
		w.must(w.admin, "key.revoke", in{"id": newID})
		w.refused(KeyEnded, w.admin, "key.rotate", in{"id": newID})
	})
}

// TestNarrowingAndRevokingActOnBothSecrets while a rotation is under way.
func TestNarrowingAndRevokingActOnBothSecrets(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		old, id := w.key("write-cues")
		fresh := w.must(w.admin, "key.rotate", in{"id": id}).str("key")
		w.must(w.admin, "key.update", in{"id": id, "permissions": []string{"cues:read"}})
		for _, s := range []string{old, fresh} {
			w.must(s, "cue.list", nil)
			w.refused(InsufficientScope, s, "cue.create", nil)
		}
		shown := w.must(w.admin, "key.get", in{"id": id})
		if n := len(shown["secrets"].([]any)); n != 2 {
			t.Errorf("%d secrets are shown", n)
		}
		w.must(w.admin, "key.revoke", in{"id": id})
		for _, s := range []string{old, fresh} {
			w.refused(KeyRevoked, s, "cue.list", nil)
		}
	})
}

// Keys that a key made do not end with its old secret, and whoever knew that may know theirs: the answer says so.
func TestRotationNamesWhatGoesOn(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		_, id := w.key("full")
		if text := w.must(w.admin, "key.rotate", in{"id": id, "now": true}).str("warning"); text != "" {
			t.Errorf("without children: %s", text)
		}
		secret := w.must(w.admin, "key.rotate", in{"id": id, "now": true}).str("key")
		w.keyBy(secret, "worker")
		if text := w.must(w.admin, "key.rotate", in{"id": id, "reason": "leaked"}).str("warning"); !strings.HasPrefix(text, "1 key that it made goes on.") || !strings.Contains(text, "--children "+id) {
			t.Errorf("with one: %s", text)
		}
		if text := w.must(w.admin, "key.rotate", in{"id": id}).str("warning"); text != "" {
			t.Errorf("with an overlap: %s", text)
		}
	})
}
