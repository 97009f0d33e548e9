package access

import (
	"net/http"
	"net/netip"
	"strconv"
	"sync"
)

const (
	minuteUS = 60_000_000
	window   = minuteUS  // microseconds: limits count calls of the last minute
	maxStep  = 1_000_000 // microseconds that the clock may step back before windows begin anew

	// noCap is how limits that do not exist are written on the wire.
	noCap = 1_000_000_000
)

// ring is an exact sliding window: the accepted times of the last minute, oldest first, at most `limit` of them.
type ring struct {
	limit    int
	buf      []int64 // grows with use, up to limit
	start, n int
}

// at is the i-th time, from the oldest.
func (r *ring) at(i int) int64 { return r.buf[(r.start+i)%len(r.buf)] }

// drop forgets the oldest times.
func (r *ring) drop(n int) { r.start, r.n = (r.start+n)%len(r.buf), r.n-n }

// trim forgets what is a minute old, and everything when the clock stepped back.
func (r *ring) trim(now int64) {
	if r.n > 0 && r.at(r.n-1) > now+maxStep {
		r.n = 0
	}
	for r.n > 0 && r.at(0) <= now-window {
		r.drop(1)
	}
}

// wait says how long until a call passes; 0 when it passes now. The window is trimmed.
func (r *ring) wait(now int64) int64 {
	r.trim(now)
	if r.n < r.limit {
		return 0
	}
	return max(1, r.at(0)+window-now)
}

// add notes an accepted call in a trimmed window. When it is full, because the call is let through all the same, the oldest is
// forgotten. Times never go back, though callers may have read the clock in another order.
func (r *ring) add(now int64) {
	if r.n > 0 {
		now = max(now, r.at(r.n-1))
	}
	if r.n == r.limit {
		r.drop(1)
	}
	if r.n == len(r.buf) {
		r.grow(min(r.limit, max(16, 2*r.n)))
	}
	r.n++
	r.buf[(r.start+r.n-1)%len(r.buf)] = now
}

func (r *ring) grow(size int) {
	buf := make([]int64, size)
	for i := range r.n {
		buf[i] = r.at(i)
	}
	r.buf, r.start = buf, 0
}

// resized is the ring with another limit: it keeps the newest times that fit. 0 is no limit and no ring; a nil ring is made.
func (r *ring) resized(limit int64) *ring {
	switch {
	case limit == 0:
		return nil
	case r == nil:
		return &ring{limit: int(limit)}
	}
	r.limit = int(limit)
	if r.n > r.limit {
		r.drop(r.n - r.limit)
	}
	if len(r.buf) > r.limit {
		r.grow(r.limit)
	}
	return r
}

// limits are the windows of a workspace: its own, shared by all keys, and those of keys that have one, which lie in their rules. One
// lock makes a call pass all of them or count in none.
type limits struct {
	mu  sync.Mutex
	all *ring // nil: no limit
}

// tally is what the tightest limit says about one call.
type tally struct {
	limit, left int
	reset       int64 // when the window is as empty as it will be, in microseconds
	wait        int64 // until a call would pass; 0: this one passed
}

// take counts a call against the workspace and every key of the chain, or against none of them when one is full.
func (k *key) take(now int64) tally {
	l := &k.ws().limits
	l.mu.Lock()
	defer l.mu.Unlock()
	t := k.look(l, now)
	if t.wait == 0 {
		k.count(l, now)
	}
	return t
}

// peek is take without counting.
func (k *key) peek(now int64) tally {
	l := &k.ws().limits
	l.mu.Lock()
	defer l.mu.Unlock()
	return k.look(l, now)
}

// force counts a call that is let through over the limit.
func (k *key) force(now int64) {
	l := &k.ws().limits
	l.mu.Lock()
	defer l.mu.Unlock()
	k.look(l, now)
	k.count(l, now)
}

// look is the tightest of the limits that a call meets: the one with the longest wait, else the one with the least left. All windows
// are trimmed.
func (k *key) look(l *limits, now int64) tally {
	t := tally{limit: noCap, left: noCap, reset: now + window}
	t.see(l.all, now)
	for x := k; x != nil; x = x.parent {
		if r := x.rules.Load(); r != nil {
			t.see(r.calls, now)
		}
	}
	return t
}

func (t *tally) see(r *ring, now int64) {
	if r == nil {
		return
	}
	wait, left := r.wait(now), r.limit-r.n-1
	switch {
	case wait > t.wait:
		*t = tally{limit: r.limit, reset: now + wait, wait: wait}
	case t.wait == 0 && left < t.left:
		t.limit, t.left = r.limit, left
	}
}

func (k *key) count(l *limits, now int64) {
	if l.all != nil {
		l.all.add(now)
	}
	for x := k; x != nil; x = x.parent {
		if r := x.rules.Load(); r != nil && r.calls != nil {
			r.calls.add(now)
		}
	}
}

// header tells the caller where it stands (CueAPI wire contract 1.13).
func (t tally) header(h http.Header) {
	h["X-Ratelimit-Limit"] = []string{strconv.Itoa(t.limit)}
	h["X-Ratelimit-Remaining"] = []string{strconv.Itoa(t.left)}
	h["X-Ratelimit-Reset"] = []string{strconv.FormatInt((t.reset+999_999)/1_000_000, 10)}
}

// tooMany is the 429 of a call that has to wait.
func tooMany(t tally) error {
	n := max(1, (t.wait+999_999)/1_000_000)
	e := RateLimitExceeded.Msg("Too many requests. Retry after %d seconds.", n)
	e.Header = http.Header{"Retry-After": {strconv.FormatInt(n, 10)}}
	return e
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
	if a.Is6() {
		p, _ := a.Prefix(64) // which does not fail for an address without zone
		a = p.Addr()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.seen[a]
	if r == nil {
		s.makeRoom(now)
		r = &ring{limit: anonymousLimit}
		s.seen[a] = r
	}
	t := tally{limit: noCap, left: noCap, reset: now + window}
	if t.see(r, now); t.wait == 0 {
		r.add(now)
	}
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
