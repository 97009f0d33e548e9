package test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"unstuck/internal/testkit"
	"unstuck/internal/testkit/pgtest"
)

const (
	fenceCallers = 8                      // callers of each key
	fencePolls   = 4                      // long polls of each key
	pollsEndIn   = 100 * time.Millisecond // KEYS: streams of a revoked key end within
)

// TestFence revokes a key under many callers of it, of its children and of their children, while long polls are open and new
// children are made. No call that starts after the reply succeeds, and the polls end at once.
func TestFence(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, dsn string) {
		t.Parallel()
		s := quick(t, dsn, behindProxy)
		unlimited(s, s.First)
		rounds := 3
		if long() {
			rounds = 100
		}
		for round := range rounds {
			newFence(s).run(t, round)
			s.Clock.Add(61 * time.Second) // calls with a dead key are limited by address
		}
	})
}

// fence is one revocation and who runs against it.
type fence struct {
	s       *testkit.Server
	top     string   // id of the key that is revoked
	secrets []string // of the key, two children and their children

	over    atomic.Bool // the reply to the revocation has come
	overAt  time.Time   // set before over
	calls   atomic.Int64
	stop    atomic.Bool
	mu      sync.Mutex
	made    []string // secrets that children were given meanwhile
	faults  []string
	slowest time.Duration // of the polls' ends after the reply
	plain   time.Duration // the longest that a plain call took: what this machine needs for anything
}

func newFence(s *testkit.Server) *fence {
	f := &fence{s: s}
	child := func(by string) string {
		r := s.Must(by, "POST /v1/keys", obj{"name": "k", "scope": "full"})
		if by == s.First {
			f.top = r.Str("id")
		}
		f.secrets = append(f.secrets, r.Str("key"))
		return r.Str("key")
	}
	top := child(s.First)
	for range 2 {
		child(child(top))
	}
	return f
}

func (f *fence) fault(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, fmt.Sprintf(format, args...))
}

func (f *fence) run(t *testing.T, round int) {
	t.Helper()
	var callers, polls sync.WaitGroup
	for _, secret := range f.secrets {
		for i := range fenceCallers {
			callers.Go(func() { f.keepCalling(t.Context(), secret, i) })
		}
		for range fencePolls {
			polls.Go(func() { f.poll(t.Context(), secret) })
		}
	}
	f.s.Await("/v1/executions/claim", fencePolls*len(f.secrets))
	for f.calls.Load() < int64(10*len(f.secrets)*fenceCallers) && !f.stop.Load() { // everybody is at work
		f.s.Must(f.s.First, "GET /v1/keys/self", nil)
	}
	r := f.s.Do(f.s.First, "POST /v1/keys/"+f.top+"/revoke", obj{})
	f.overAt = time.Now()
	f.over.Store(true)
	if r.Status != 200 {
		t.Errorf("revoke: %s", gist(r))
	}
	polls.Wait()
	callers.Wait()
	for _, secret := range append(f.made, f.secrets...) {
		if r := f.s.Do(secret, "GET /v1/keys/self", nil, fromElsewhere(f.calls.Add(1))...); r.Status != 401 {
			t.Errorf("round %d: a key below the revoked one, %d of them made meanwhile: %s", round, len(f.made), gist(r))
		}
	}
	for _, fault := range f.faults {
		t.Errorf("round %d: %s", round, fault)
	}
	if f.slowest > pollsEndIn+f.plain {
		t.Errorf("round %d: a call that waited ended %v after the reply, where plain calls take up to %v", round, f.slowest, f.plain)
	}
	t.Logf("round %d: %d calls, %d keys made meanwhile, the last poll ended %v after the reply", round, f.calls.Load(), len(f.made), f.slowest)
}

// keepCalling calls until a few calls that started after the reply have been refused. Some callers make keys.
func (f *fence) keepCalling(ctx context.Context, secret string, caller int) {
	for after := 0; after < 3; {
		late := f.over.Load() // read before the call starts
		route, body := "GET /v1/cues", any(nil)
		if caller == 0 {
			route, body = "POST /v1/keys", obj{"name": "made meanwhile", "scope": "read-only"}
		}
		began := time.Now()
		r, err := f.s.Call(ctx, secret, route, body, fromElsewhere(f.calls.Load())...)
		f.took(time.Since(began))
		switch {
		case err != nil:
			f.fault("%s: %v", route, err)
			f.stop.Store(true)
			return
		case late && (r.Status != 401 || r.Code() != "key_revoked"):
			f.fault("%s started after the reply: %s", route, gist(r))
		case r.Status >= 300 && r.Status != 401 && r.Code() != "too_deep":
			f.fault("%s: %s", route, gist(r))
		case r.Status == 201:
			f.mu.Lock()
			f.made = append(f.made, r.Str("key"))
			f.mu.Unlock()
		}
		if late {
			after++
		}
	}
}

// took counts a call.
func (f *fence) took(d time.Duration) {
	f.calls.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plain = max(f.plain, d)
}

// poll waits for work that never comes.
func (f *fence) poll(ctx context.Context, secret string) {
	r, err := f.s.Call(ctx, secret, "POST /v1/executions/claim", obj{"worker_id": "w", "max": 1, "wait": 30})
	ended := time.Now()
	switch {
	case err != nil:
		f.fault("a long poll: %v", err)
	case r.Status != 401 || r.Code() != "key_revoked":
		f.fault("a long poll ended with %s", gist(r))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over.Load() {
		f.slowest = max(f.slowest, ended.Sub(f.overAt))
	}
}
