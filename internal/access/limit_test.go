package access

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"unstuck/internal/op"
)

// TestWindowIsExact holds the ring against a list of all accepted calls: in no minute more than the limit pass, and none is refused
// that would fit.
func TestWindowIsExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 20).Draw(t, "limit")
		r := (*ring)(nil).resized(int64(limit))
		var accepted []int64
		now := int64(1_000_000_000)
		for range rapid.IntRange(1, 200).Draw(t, "calls") {
			now += rapid.Int64Range(0, 2*window/int64(limit)).Draw(t, "after")
			fits := 0
			for _, at := range accepted {
				if at > now-window {
					fits++
				}
			}
			wait := r.wait(now)
			if (wait == 0) != (fits < limit) {
				t.Fatalf("%d calls in the last minute, limit %d: wait %d", fits, limit, wait)
			}
			if wait > 0 {
				if r.wait(now+wait-1) == 0 || r.wait(now+wait) != 0 {
					t.Fatalf("it does not pass exactly after %d", wait)
				}
				now += wait
			}
			r.add(now)
			accepted = append(accepted, now)
		}
	})
}

func TestWindowChangesItsLimit(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := (*ring)(nil).resized(10)
		var want []int64
		now := int64(1)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now++
			if rapid.IntRange(0, 4).Draw(t, "what") == 0 {
				limit := rapid.Int64Range(1, 30).Draw(t, "limit")
				r = r.resized(limit)
				want = want[max(0, len(want)-int(limit)):]
			} else {
				r.wait(now)
				r.add(now)
				want = append(want, now)
				want = want[max(0, len(want)-r.limit):]
			}
			var got []int64
			for i := range r.n {
				got = append(got, r.at(i))
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("%v, want %v", got, want)
			}
		}
	})
	if (*ring)(nil).resized(0) != nil || (&ring{limit: 3}).resized(0) != nil {
		t.Error("no limit has a window")
	}
}

// TestTimesThatComeInAnotherOrder: callers read the clock before they get their turn; the window stays in order and opens no earlier.
func TestTimesThatComeInAnotherOrder(t *testing.T) {
	t.Parallel()
	r := (*ring)(nil).resized(2)
	r.add(2000)
	r.add(1000)
	if r.at(0) > r.at(1) || r.wait(1000+window) == 0 || r.wait(2000+window) != 0 {
		t.Errorf("%v", r.buf)
	}
}

// TestClockThatStepsBack neither blocks callers until it catches up, nor lets more than twice the limit pass.
func TestClockThatStepsBack(t *testing.T) {
	t.Parallel()
	r := (*ring)(nil).resized(2)
	r.add(100 * minuteUS)
	r.add(100 * minuteUS)
	if r.wait(100*minuteUS-maxStep) == 0 {
		t.Error("a small step opened the window")
	}
	if r.wait(50*minuteUS) != 0 {
		t.Error("calls are blocked until the clock catches up")
	}
}

// TestLimitsAreExactTogether lets many callers meet the limit of a workspace, of a key and of the key above it at the same time.
func TestLimitsAreExactTogether(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		const all, parents, own = 300, 200, 120
		parent, _ := w.key("full", in{"restrictions": in{"rate_per_minute": parents}})
		child, _ := w.keyBy(parent, "cues:read", in{"restrictions": in{"rate_per_minute": own}})
		free, _ := w.key("read-only")
		w.must(w.admin, "workspace.update", in{"rate_limit_per_minute": all})
		w.clock.advance(time.Minute)
		count := func(secret string, calls int) (passed int) {
			var n atomic.Int64
			var wait sync.WaitGroup
			for range 32 {
				wait.Go(func() {
					for range calls / 32 {
						if w.call(secret, "cue.list", nil).Err == nil {
							n.Add(1)
						}
					}
				})
			}
			wait.Wait()
			return int(n.Load())
		}
		if n := count(child, 320); n != own {
			t.Errorf("%d calls of the child passed, its limit is %d", n, own)
		}
		if n := count(parent, 320); n != parents-own {
			t.Errorf("%d calls of the parent passed beside %d of the child, the limit is %d", n, own, parents)
		}
		if n := count(free, 320); n != all-parents {
			t.Errorf("%d calls of another key passed, %d are left", n, all-parents)
		}
		e := w.refused(RateLimitExceeded, w.admin, "key.self", nil)
		if e.Header.Get("Retry-After") != "60" || e.Message != "Too many requests. Retry after 60 seconds." {
			t.Errorf("%v %v", e, e.Header)
		}
		w.clock.advance(time.Minute)
		if n := count(free, 320); n != all {
			t.Errorf("a minute later %d calls passed", n)
		}
	})
}

// TestLimitHeaders are those of the wire contract, on answers of all kinds.
func TestLimitHeaders(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		secret, _ := w.key("cues:read", in{"restrictions": in{"rate_per_minute": 3}})
		reset := strconv.FormatInt(w.clock.now().Add(time.Minute).Unix(), 10)
		for i, test := range []struct{ operation, left string }{{"cue.list", "2"}, {"cue.create", "1"}, {"cue.get", "0"}, {"cue.list", "0"}} {
			res := w.call(secret, test.operation, in{"id": "x"})
			got := res.Header.Get("X-RateLimit-Limit") + " " + res.Header.Get("X-RateLimit-Remaining") + " " + res.Header.Get("X-RateLimit-Reset")
			if want := "3 " + test.left + " " + reset; got != want {
				t.Errorf("call %d: %s, want %s", i, got, want)
			}
		}
		w.must(w.admin, "workspace.update", in{"rate_limit_per_minute": 0})
		if res := w.call(w.admin, "key.self", nil); res.Header.Get("X-RateLimit-Limit") != "1000000000" {
			t.Errorf("no limit is told as %v", res.Header)
		}
		if res := w.call("", "health.get", nil); len(res.Header) != 0 {
			t.Errorf("a call that is not counted: %v", res.Header)
		}
	})
}

// TestReportsAreNotLost: what holds a live lease passes over the limit and counts; what does not is refused and does not count.
func TestReportsAreNotLost(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		secret, _ := w.key("worker", in{"restrictions": in{"rate_per_minute": 2}})
		w.must(secret, "execution.claim", nil)
		w.must(secret, "execution.claim", nil)
		w.refused(RateLimitExceeded, secret, "execution.claim", nil)
		w.clock.advance(30 * time.Second)
		w.must(secret, "execution.report", in{"X-Worker-Id": "holder"})
		e := w.refused(RateLimitExceeded, secret, "execution.report", in{"X-Worker-Id": "other"})
		if e.Header.Get("Retry-After") != "30" {
			t.Errorf("%v", e.Header)
		}
		w.clock.advance(30 * time.Second) // the second claim is a minute old, the report is not
		w.must(secret, "execution.claim", nil)
		w.refused(RateLimitExceeded, secret, "execution.claim", nil)
	})
}

// TestLeavingCountsForNobody: a key over its limit that revokes itself is let through and takes nothing from its workspace; whatever it
// sends besides is a 429 as every call, and counts nothing either.
func TestLeavingCountsForNobody(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.must(w.admin, "workspace.update", in{"rate_limit_per_minute": 40})
		parent, parentID := w.key("keys:write keys:read cues:read", in{"restrictions": in{"rate_per_minute": 2}})
		secret, _ := w.keyBy(parent, "cues:read")
		w.must(secret, "cue.list", nil) // the second call under the parent's limit
		counted := w.windows(secret)
		for _, bad := range []in{{"id": "self", "reason": 7}, {"id": "self", "unknown": true}, {"id": "self", "reason": strings.Repeat("r", 501)}} {
			for range 50 {
				if e := w.refused(RateLimitExceeded, secret, "key.revoke", bad); e.Header.Get("Retry-After") == "" {
					t.Fatalf("%v", e.Header)
				}
			}
		}
		w.refused(RateLimitExceeded, secret, "key.revoke", in{"id": parentID})
		if now := w.windows(secret); now != counted {
			t.Errorf("calls that count: %s, before %s", now, counted)
		}
		w.must(secret, "key.revoke", in{"id": "self"})
		if now := w.windows(parent); now != counted {
			t.Errorf("calls that count: %s, before %s", now, counted)
		}
		w.refused(KeyRevoked, secret, "key.self", nil)
		w.must(w.admin, "key.self", nil)
	})
}

// windows says how many calls fill the windows of a key's chain, the shared one of the workspace first.
func (w *world) windows(secret string) string {
	k := w.keyOf(secret)
	l := &k.ws().limits
	l.mu.Lock()
	defer l.mu.Unlock()
	out := fmt.Sprint(l.all.n)
	for x := range k.chain() {
		if r := x.rules.Load(); r != nil && r.calls != nil {
			out += fmt.Sprint(" ", r.calls.n)
		}
	}
	return out
}

// TestStrangers are counted by address and never stand in the way of a good key.
func TestStrangers(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		dead, id := w.key("worker")
		w.must(w.admin, "key.revoke", in{"id": id})
		wrong := newSecret("unstuck").Reveal()
		bad := []struct{ key, operation string }{{"", "cue.list"}, {"nonsense", "cue.list"}, {wrong, "cue.list"}, {dead, "cue.list"}, {"", "info.get"}}
		for i := range anonymousLimit {
			if code := w.code(bad[i%len(bad)].key, bad[i%len(bad)].operation, nil); code == RateLimitExceeded.Name {
				t.Fatalf("call %d was refused", i)
			}
		}
		for _, b := range bad {
			w.refused(RateLimitExceeded, b.key, b.operation, nil)
		}
		w.must(w.admin, "cue.list", nil)
		w.must(w.admin, "info.get", nil)
		w.must("", "health.get", nil)
		w.must("", "info.get", nil, from{peer: "192.0.2.2:1"})
		for i := range anonymousLimit {
			w.must("", "info.get", nil, from{peer: fmt.Sprintf("[2001:db8:0:1::%x]:80", i)})
		}
		w.refused(RateLimitExceeded, "", "info.get", nil, from{peer: "[2001:db8:0:1:ffff::1]:80"})
		w.must("", "info.get", nil, from{peer: "[2001:db8:0:2::1]:80"})
		w.clock.advance(time.Minute)
		w.must("", "info.get", nil)
	})
}

func TestStrangersAreBounded(t *testing.T) {
	t.Parallel()
	var s strangers
	for i := range 3 * anonymousMost {
		s.take(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), int64(i))
		if len(s.seen) > anonymousMost {
			t.Fatalf("%d addresses are remembered", len(s.seen))
		}
	}
	first := netip.MustParseAddr("192.0.2.1")
	for range anonymousLimit {
		s.take(first, 10*minuteUS)
	}
	for i := range anonymousMost - 1 { // the old ones make room for these, and the first stays known
		s.take(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 10*minuteUS)
	}
	if s.take(first, 10*minuteUS).wait == 0 {
		t.Error("an address was forgotten though there was room")
	}
}

// TestPublicCallsWithAKey count for the key, and have a caller.
func TestPublicCallsWithAKey(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		secret, id := w.key("worker", in{"restrictions": in{"rate_per_minute": 1}})
		if out := w.must(secret, "info.get", nil); out.str("key") != id {
			t.Errorf("%v", out)
		}
		w.refused(RateLimitExceeded, secret, "info.get", nil)
		if shown := w.must(w.admin, "key.get", in{"id": id}); shown["last_used"] != nil {
			t.Errorf("a call that needs no key is its last use: %v", shown["last_used"])
		}
	})
}

func TestClientAddress(t *testing.T) {
	t.Parallel()
	trusted, err := parseProxies([]string{"10.0.0.0/8", " 2001:db8::/32", "unix", "192.0.2.7"})
	if err != nil {
		t.Fatal(err)
	}
	nobody, _ := parseProxies(nil)
	for _, test := range []struct {
		name, peer string
		forwarded  []string
		want       string
		p          proxies
	}{
		{"nobody is trusted", "10.0.0.1:80", []string{"1.2.3.4"}, "10.0.0.1", nobody},
		{"a socket is not trusted", "unix", []string{"1.2.3.4"}, "invalid IP", nobody},
		{"a socket is trusted", "unix", []string{"1.2.3.4"}, "1.2.3.4", trusted},
		{"a socket says nothing", "unix", nil, "invalid IP", trusted},
		{"forged by a stranger", "203.0.113.9:80", []string{"1.2.3.4"}, "203.0.113.9", trusted},
		{"one proxy", "10.0.0.1:80", []string{"1.2.3.4"}, "1.2.3.4", trusted},
		{"an exact proxy", "192.0.2.7:80", []string{"1.2.3.4"}, "1.2.3.4", trusted},
		{"proxies in a row", "10.0.0.1:80", []string{"9.9.9.9, 1.2.3.4", "10.0.0.2,10.0.0.3"}, "1.2.3.4", trusted},
		{"all are proxies", "10.0.0.1:80", []string{"10.0.0.9, 10.0.0.2"}, "10.0.0.9", trusted},
		{"malformed ends it", "10.0.0.1:80", []string{"1.2.3.4, what, 10.0.0.2"}, "10.0.0.2", trusted},
		{"malformed at once", "10.0.0.1:80", []string{"1.2.3.4, "}, "10.0.0.1", trusted},
		{"with a port", "10.0.0.1:80", []string{"1.2.3.4:99"}, "10.0.0.1", trusted},
		{"with a zone", "10.0.0.1:80", []string{"fe80::1%eth0"}, "10.0.0.1", trusted},
		{"IPv4 in IPv6", "[::ffff:10.0.0.1]:80", []string{"::ffff:1.2.3.4"}, "1.2.3.4", trusted},
		{"IPv6", "[2001:db8::1]:80", []string{"2001:4860::1"}, "2001:4860::1", trusted},
		{"zone of the peer", "[fe80::1%eth0]:80", nil, "fe80::1", trusted},
	} {
		if got := test.p.client(test.peer, test.forwarded).String(); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
	for _, bad := range []string{"", "proxy", "10.0.0.1/8", "10.0.0.0/40"} {
		if _, err := parseProxies([]string{bad}); err == nil {
			t.Errorf("%q was taken for a proxy", bad)
		}
	}
}

// TestPlans: limits come with the plan, and only on plan self-hosted the workspace sets its own.
func TestPlans(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		if me := w.must(w.admin, "me.get", nil); me["rate_limit_per_minute"] != 6000.0 || me.str("plan") != planSelfHosted || me["active_cue_limit"] != float64(noCap) {
			t.Errorf("%v", me)
		}
		for _, name := range []string{w.workspace(), "default"} {
			if out, err := w.a.SetPlan(t.Context(), name, "free"); err != nil || out.RateLimit != 60 || out.CueLimit != 10 || out.ExecutionLimit != 300 {
				t.Errorf("%v, %v", out, err)
			}
		}
		w.invalid("body.rate_limit_per_minute", w.admin, "workspace.update", in{"rate_limit_per_minute": 5})
		w.refused(SelfHostedOnly, w.admin, "workspace.create", in{"name": "another"})
		for range 56 {
			w.must(w.admin, "key.self", nil)
		}
		w.refused(RateLimitExceeded, w.admin, "key.self", nil)
		if used, limit := w.a.RateUse(&Caller{a: w.a, grant: grant{key: w.keyOf(w.admin)}}); used != 60 || limit != 60 {
			t.Errorf("%d of %d used", used, limit)
		}
		if _, err := w.a.SetPlan(t.Context(), "default", "gold"); op.AsError(err).Code != op.ValidationError {
			t.Error(err)
		}
		if _, err := w.a.SetPlan(t.Context(), "nobody", "pro"); op.AsError(err).Code != WorkspaceNotFound {
			t.Error(err)
		}
	})
}

// keyOf is the record of a key in memory.
func (w *world) keyOf(secret string) *key {
	s, _ := parseSecret(secret)
	g, _ := w.a.table.verify(s, w.a.sealer, w.a.now())
	return g.key
}
