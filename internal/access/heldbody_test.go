package access

import (
	"context"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// held calls an operation whose body comes only when something has happened that takes a while.
func (w *world) held(key, operation string, input in, during func()) *op.Response {
	w.Helper()
	r := &op.Request{
		Op: operation, ID: "held", Via: "rest", Peer: "192.0.2.1:4000", Auth: "Bearer " + key, Header: http.Header{}, Query: url.Values{}, Params: map[string]string{},
	}
	place(r, w.set.Lookup(operation), input)
	body := r.Body
	r.Body = nil
	r.Fetch = func(_ context.Context, c *op.Call) error {
		during()
		c.Body = body
		return nil
	}
	return w.set.Call(w.Context(), r)
}

// A call whose body is held back until its key is ended or narrowed is refused as if it had come then.
func TestHeldBodiesPassNoFence(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		memberID, member := w.member("tom@example.com", RoleAdmin)
		member2ID, member2 := w.member("ana@example.com", RoleAdmin)
		first, firstID := w.key("full")
		second, secondID := w.key("full")
		third, thirdID := w.key("full")
		for name, c := range map[string]struct {
			key    string
			during func()
			want   string
		}{
			"revoked":     {first, func() { w.must(w.admin, "key.revoke", in{"id": firstID}) }, "key_revoked"},
			"narrowed":    {second, func() { w.must(w.admin, "key.update", in{"id": secondID, "permissions": []string{"cues:read"}}) }, "insufficient_scope"},
			"rotated now": {third, func() { w.must(w.admin, "key.rotate", in{"id": thirdID, "now": true}) }, "key_rotated"},
			"removed":     {member, func() { w.must(w.admin, "member.remove", in{"id": memberID}) }, "key_revoked"},
			"demoted":     {member2, func() { w.must(w.admin, "member.update", in{"id": member2ID, "role": RoleViewer}) }, "insufficient_scope"},
		} {
			r := w.held(c.key, "webhook_secret.rotate", in{"X-Confirm-Destructive": "true"}, c.during)
			if r.Err == nil || r.Err.Code.Name != c.want {
				t.Errorf("%s: %v, want %s", name, r.Err, c.want)
			}
		}
	})
}

// Of many rotations with one secret that ends at once, one succeeds: whoever lost it is not shown another.
func TestOneSecretTurnsOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		for range 5 {
			secret, _ := w.key("full")
			var turned atomic.Int64
			var callers sync.WaitGroup
			for range 16 {
				callers.Go(func() {
					if w.call(secret, "key.rotate", in{"id": "self", "now": true}).Err == nil {
						turned.Add(1)
					}
				})
			}
			callers.Wait()
			if turned.Load() != 1 {
				t.Errorf("one secret was turned %d times", turned.Load())
			}
		}
	})
}

// What was let in before its key ended, and writes afterwards, commits nothing.
func TestNothingIsCommittedAfterTheEnd(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		secret, id := w.key("full")
		o := w.set.Lookup("cue.fire")
		r := &op.Request{Op: o.Name, Via: "rest", Peer: "192.0.2.1:4000", Auth: "Bearer " + secret, Params: map[string]string{}}
		call := &op.Call{Operation: o, Request: r, Header: http.Header{}}
		ctx, err := w.a.Admit(t.Context(), call)
		if err == nil {
			err = w.a.Permit(ctx, call)
		}
		if err != nil {
			t.Fatal(err)
		}
		write := func() error {
			return w.db.Update(ctx, func(tx *db.Tx) error {
				return Record(tx, Event{Object: "cue", ID: "cue_000000000001", Name: "report"})
			})
		}
		if err := write(); err != nil {
			t.Fatal(err)
		}
		w.must(w.admin, "key.revoke", in{"id": id})
		if err := write(); op.AsError(err).Code.Name != "key_revoked" {
			t.Errorf("after the end it commits: %v", err)
		}
	})
}
