package access

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"unstuck/internal/op"
)

// TestRevocationIsAFence ends a key while 32 callers use it, keys that it made, and both secrets of its rotation, some of them waiting.
// Every call that started after the reply is refused.
func TestRevocationIsAFence(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.must(w.admin, "workspace.update", in{"rate_limit_per_minute": 0})
		for round := range 3 {
			parent, id := w.key("full")
			child, _ := w.keyBy(parent, "executions:claim cues:read keys:write")
			grandchild, _ := w.keyBy(child, "executions:claim cues:read")
			rotated := w.must(w.admin, "key.rotate", in{"id": id}).str("key")
			w.fence([]string{parent, child, grandchild, rotated}, func() {
				if round == 1 { // by its own hand
					w.must(parent, "key.revoke", in{"id": id})
				} else {
					w.must(w.admin, "key.revoke", in{"id": id})
				}
			})
		}
	})
}

// TestOtherEndsAreFencesToo: a member who leaves, a rotation that ends the old secret at once, a narrowed key.
func TestOtherEndsAreFencesToo(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.must(w.admin, "workspace.update", in{"rate_limit_per_minute": 0})
		tomID, tom := w.member("tom@example.com", RoleOperator)
		w.fence([]string{tom}, func() { w.must(w.admin, "member.remove", in{"id": tomID}) })
		secret, id := w.key("executions:claim cues:read")
		w.fence([]string{secret}, func() { w.must(w.admin, "key.rotate", in{"id": id, "now": true}) })
		anaID, ana := w.member("ana@example.com", RoleOperator)
		anaKey := w.must(ana, "key.self", nil).str("id")
		w.fence([]string{ana}, func() { w.must(w.admin, "key.update", in{"id": anaKey, "permissions": []string{"usage:read"}}) })
		w.must(w.admin, "member.update", in{"id": anaID, "role": RoleViewer})
		narrowed, narrowedID := w.key("executions:claim cues:read")
		w.fence([]string{narrowed}, func() {
			w.must(w.admin, "key.update", in{"id": narrowedID, "restrictions": in{"ips": []string{"10.0.0.0/8"}}})
		})
	})
}

// fence lets 32 callers go on while end runs, half of them in calls that wait.
func (w *world) fence(secrets []string, end func()) {
	w.Helper()
	var over atomic.Bool
	var passed, late, woken atomic.Int64
	started := make(chan struct{}, 100_000)
	stop := make(chan struct{})
	w.toys.done = make(chan struct{})
	w.toys.after = func() {
		if over.Load() {
			woken.Add(1)
		}
	}
	var callers sync.WaitGroup
	for i := range 32 {
		secret := secrets[i%len(secrets)]
		operation := "cue.list"
		if i%2 == 0 {
			operation = "execution.wait"
		}
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				case started <- struct{}{}:
				}
				after := over.Load()
				err := w.call(secret, operation, nil).Err
				switch {
				case err == nil && after:
					late.Add(1)
				case err == nil:
					passed.Add(1)
				case after:
					return
				}
			}
		})
	}
	for range 64 {
		<-started
	}
	for range 16 {
		<-w.toys.waiting
	}
	end()
	over.Store(true)
	// Calls that were waiting before the end hear of it by themselves, since nothing else wakes them.
	heard := make(chan struct{})
	go func() { callers.Wait(); close(heard) }()
	select {
	case <-heard:
	case <-time.After(time.Minute):
		close(w.toys.done)
		w.Error("calls that wait were not woken")
	}
	close(stop)
	callers.Wait()
	if late.Load() > 0 {
		w.Errorf("%d calls that started after the reply succeeded", late.Load())
	}
	if passed.Load() == 0 {
		w.Error("no call passed before, so the test shows nothing")
	}
	for range len(w.toys.waiting) {
		<-w.toys.waiting
	}
}

// TestWaitingCallsAreVerifiedAgain before they hand anything over, also when only time has passed.
func TestWaitingCallsAreVerifiedAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		for name, test := range map[string]struct {
			end  func(id string)
			want string
		}{
			"nothing": {func(string) {}, ""},
			"revoked": {func(id string) { w.must(w.admin, "key.revoke", in{"id": id}) }, KeyRevoked.Name},
			"expired": {func(string) { w.clock.advance(2 * time.Hour) }, KeyExpired.Name},
			"less": {func(id string) {
				w.must(w.admin, "key.update", in{"id": id, "permissions": []string{"executions:read"}})
			}, InsufficientScope.Name},
			"rotated": {func(id string) { w.must(w.admin, "key.rotate", in{"id": id, "now": true}) }, KeyRotated.Name},
			"elsewhere": {func(id string) {
				w.must(w.admin, "key.update", in{"id": id, "restrictions": in{"worker_ids": []string{"a"}, "via": []string{"mcp"}}})
			}, KeyRestricted.Name},
		} {
			w.toys.done = make(chan struct{})
			secret, id := w.key("worker", in{"expires_in": "1h"})
			answered := make(chan *op.Response)
			go func() { answered <- w.call(secret, "execution.wait", nil) }()
			<-w.toys.waiting
			test.end(id)
			close(w.toys.done)
			got := (<-answered).Err
			if got == nil && test.want != "" || got != nil && got.Code.Name != test.want {
				t.Errorf("%s: %v, want %q", name, got, test.want)
			}
			if test.want == KeyRevoked.Name { // as every call after it is told
				if next := w.refused(KeyRevoked, secret, "key.self", nil); got.Message != next.Message || !strings.Contains(got.Message, "revoked at ") {
					t.Errorf("%q, the next call: %q", got.Message, next.Message)
				}
			}
			for range len(w.toys.waiting) {
				<-w.toys.waiting
			}
		}
	})
}

// TestLives says whether the holder of a lease is gone.
func TestLives(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		parent, parentID := w.key("full")
		_, id := w.keyBy(parent, "worker")
		live := func(want bool) {
			t.Helper()
			if got := w.a.KeyLives(id); got != want {
				t.Errorf("lives: %v", got)
			}
		}
		live(true)
		w.must(w.admin, "key.revoke", in{"id": parentID})
		live(false)
		for _, none := range []string{"", "key_", "key_000000000000", "cue_000000000000"} {
			if w.a.KeyLives(none) {
				t.Errorf("%q lives", none)
			}
		}
		if fmt.Sprint(w.must(w.admin, "audit.check", nil)["ok"]) != "true" {
			t.Error("the chain is broken")
		}
	})
}
