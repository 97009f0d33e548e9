package access

import (
	"net/netip"
	"sync"
)

const window = 60_000_000 // microseconds: limits count calls of the last minute

// noCap is how limits that do not exist are written on the wire.
const noCap = 1_000_000_000

// ring is an exact sliding window: the accepted times of the last minute, oldest first, at most `limit` of them.
type ring struct {
	limit    int
	buf      []int64 // grows with use, up to limit
	start, n int
}

// trim forgets what is a minute old. A clock that steps back by more than a second empties the window.
func (r *ring) trim(now int64) {
	if r.n > 0 && r.buf[(r.start+r.n-1)%len(r.buf)] > now+1_000_000 {
		r.n = 0
	}
	for r.n > 0 && r.buf[r.start] <= now-window {
		r.start, r.n = (r.start+1)%len(r.buf), r.n-1
	}
}

// free says how long until a call passes; 0 when it passes now. The window is trimmed.
func (r *ring) free(now int64) int64 {
	r.trim(now)
	if r.n < r.limit {
		return 0
	}
	return max(1, r.buf[r.start]+window-now)
}

// add notes an accepted call. Over the limit, for calls that are let through all the same, the oldest is forgotten.
func (r *ring) add(now int64) {
	r.trim(now)
	if r.n == r.limit {
		r.start, r.n = (r.start+1)%len(r.buf), r.n-1
	}
	if r.n == len(r.buf) {
		r.grow(min(r.limit, max(16, 2*r.n)))
	}
	r.buf[(r.start+r.n)%len(r.buf)] = now
	r.n++
}

func (r *ring) grow(size int) {
	buf := make([]int64, size)
	for i := range r.n {
		buf[i] = r.buf[(r.start+i)%len(r.buf)]
	}
	r.buf, r.start = buf, 0
}

// resize keeps the newest times that fit the new limit.
func (r *ring) resize(limit int) {
	if drop := r.n - limit; drop > 0 {
		r.start, r.n = (r.start+drop)%len(r.buf), limit
	}
	r.limit = limit
	if len(r.buf) > limit {
		r.grow(limit)
	}
}

// limits are the windows of a workspace: its own, shared by all keys, and those of keys that have one. One lock makes a call
// pass all of them or count in none.
type limits struct {
	mu  sync.Mutex
	all *ring // nil: no limit
}

// tally is what a limit says about one call.
type tally struct {
	limit, remaining int
	reset            int64 // when the window is as empty as it will be, in microseconds
	wait             int64 // until a call would pass; 0: this one passed
}

// take counts a call against the workspace and every key of the chain, or against none of them when one is full.
func (g grant) take(now int64) tally {
	l := &g.key.ws.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	t := g.look(now)
	if t.wait == 0 {
		g.add(now)
	}
	return t
}

// peek is take without counting.
func (g grant) peek(now int64) tally {
	l := &g.key.ws.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	return g.look(now)
}

// force counts a call that is let through over the limit.
func (g grant) force(now int64) {
	l := &g.key.ws.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	g.add(now)
}

// look is the tightest of the limits that a call meets: the one with the longest wait, else the one with the least left.
func (g grant) look(now int64) tally {
	tight := tally{limit: noCap, remaining: noCap, reset: now + window}
	see := func(r *ring) {
		if r == nil {
			return
		}
		wait, left := r.free(now), r.limit-r.n-1
		if wait > tight.wait || tight.wait == 0 && left < tight.remaining {
			tight = tally{limit: r.limit, remaining: left, reset: now + window, wait: wait}
		}
		if wait > 0 && wait == tight.wait {
			tight.reset = now + wait
		}
	}
	see(g.key.ws.limits.all)
	for k := g.key; k != nil; k = k.parent {
		see(k.limit)
	}
	return tight
}

func (g grant) add(now int64) {
	if r := g.key.ws.limits.all; r != nil {
		r.add(now)
	}
	for k := g.key; k != nil; k = k.parent {
		if k.limit != nil {
			k.limit.add(now)
		}
	}
}

const (
	anonymousLimit = 60     // calls a minute without a valid key, per address
	anonymousMost  = 16_384 // addresses remembered
)

// strangers limits calls without a valid key by address (IPv6: by /64). Its size is bounded: when it is full, the addresses
// whose last call is over a minute old are forgotten, and failing that, all.
type strangers struct {
	mu   sync.Mutex
	seen map[netip.Addr]*ring
}

func (s *strangers) take(a netip.Addr, now int64) tally {
	if a.Is6() && !a.Is4In6() {
		p, _ := a.WithZone("").Prefix(64)
		a = p.Addr()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.seen[a.Unmap()]
	if r == nil {
		s.makeRoom(now)
		r = &ring{limit: anonymousLimit}
		s.seen[a.Unmap()] = r
	}
	t := tally{limit: r.limit, reset: now + window, wait: r.free(now)}
	if t.wait > 0 {
		t.reset = now + t.wait
		return t
	}
	r.add(now)
	t.remaining = r.limit - r.n
	return t
}

func (s *strangers) makeRoom(now int64) {
	if s.seen == nil {
		s.seen = map[netip.Addr]*ring{}
	}
	if len(s.seen) < anonymousMost {
		return
	}
	for a, r := range s.seen {
		if r.trim(now); r.n == 0 {
			delete(s.seen, a)
		}
	}
	if len(s.seen) >= anonymousMost {
		clear(s.seen)
	}
}
