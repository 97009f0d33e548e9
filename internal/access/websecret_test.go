package access

import (
	"slices"
	"testing"
	"time"
)

// During an overlap both secrets sign, the old one first; a second rotation ends the older one at once, and so does one without an
// overlap. What signs is known at once, survives a rotation of the server secret and a restart, and is never another workspace's.
func TestSecretsThatSign(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		workspace := w.must(w.admin, "workspace.get", nil).str("id")
		signs := func(want ...string) {
			t.Helper()
			got, err := w.a.WebhookSecrets(t.Context(), workspace)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%d secrets sign, want %d: %v %v %v", len(got), len(want), got, want, err)
			}
		}
		rotate := func(args in) (string, answer) {
			t.Helper()
			a := w.must(w.admin, "webhook_secret.rotate", args)
			return a.str("webhook_secret"), a
		}
		first := w.must(w.admin, "webhook_secret.get", nil).str("webhook_secret")
		signs(first)
		second, a := rotate(in{"overlap_seconds": 60})
		if a["previous_secret_revoked"] != false || a["previous_secret_ends"] == nil {
			t.Errorf("%v", a)
		}
		signs(first, second)
		third, _ := rotate(in{"overlap_seconds": 60})
		signs(second, third)
		if _, err := w.a.RotateServerSecret(t.Context()); err != nil {
			t.Fatal(err)
		}
		signs(second, third)
		w.stop()
		w.open()
		signs(second, third)
		w.clock.advance(59 * time.Second)
		signs(second, third)
		w.clock.advance(time.Second)
		signs(third)
		fourth, a := rotate(nil)
		if a["previous_secret_revoked"] != true || a["previous_secret_ends"] != nil {
			t.Errorf("%v", a)
		}
		signs(fourth)
		w.invalid("body.overlap_seconds", w.admin, "webhook_secret.rotate", in{"overlap_seconds": 30*24*3600 + 1})
		if _, err := w.a.WebhookSecrets(t.Context(), "ws_000000000000"); err == nil {
			t.Error("a workspace that is not there has secrets")
		}
	})
}
