package access

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// needy asks which keys need attention, as "name: reason details".
func (w *world) needy() map[string]string {
	w.Helper()
	res := w.call(w.admin, "key.attention", nil)
	if res.Err != nil {
		w.Fatal(res.Err)
	}
	var list AttentionList
	if err := json.Unmarshal(res.Body, &list); err != nil {
		w.Fatal(err)
	}
	out := map[string]string{}
	for _, k := range list.Keys {
		if strings.HasPrefix(k.Name, "local login") { // the admin's, renewed on the way
			continue
		}
		out[k.Name] += strings.TrimSpace(fmt.Sprint(k.Reason, " ", k.Count, " ", k.From, " ", k.Scope)) + ";"
	}
	return out
}

// TestAttention has one key for each reason, and beside each one that just misses it.
func TestAttention(t *testing.T) {
	const day = 24 * time.Hour
	onBoth(t, func(t *testing.T, w *world) {
		w.must(w.admin, "workspace.update", in{"rate_limit_per_minute": 0})
		make := func(name, scope string, more in) string {
			secret, _ := w.key(scope, mergeIn(in{"name": name}, more))
			return secret
		}
		quiet := func(step string) {
			t.Helper()
			if got := w.needy(); len(got) > 0 {
				t.Errorf("%s: %v", step, got)
			}
		}
		want := func(step string, want map[string]string) {
			t.Helper()
			if got := w.needy(); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: %v, want %v", step, got, want)
			}
		}
		month := make("month", "cues:read", in{"expires_in": "30d"})
		quarter := make("quarter", "cues:read", in{"expires_in": "90d"})
		full := make("full", "full", in{"expires_in": "never"})
		needed := make("needed", "full", in{"expires_in": "never"})
		make("idle", "cues:read", in{"expires_in": "40d"})
		use := func(keys ...string) {
			t.Helper()
			for _, k := range keys {
				w.must(k, "cue.list", nil)
			}
		}
		use(month, quarter, full, needed)
		w.must(needed, "key.list", nil)
		quiet("in the beginning")

		w.clock.advance(22 * day) // 8 days left of 30
		use(month, quarter)
		quiet("8 days before the end of 30")
		w.clock.advance(day)
		want("7 days before the end of 30", map[string]string{"month": "expiring 0 [];"})

		w.clock.advance(8 * day) // 31 since the beginning
		w.refused(KeyExpired, month, "cue.list", nil, from{peer: "203.0.113.7:1"})
		for range 3 {
			w.refused(KeyExpired, month, "cue.fire", nil, from{peer: "203.0.113.7:1"})
		}
		want("expired and tried", map[string]string{"month": "expired_still_tried 4 [203.0.113.7];", "full": "wider_than_used 0 [] read-only;"})
		w.must(full, "key.list", nil)
		w.clock.advance(time.Hour)
		w.audit("") // what is folded is written down
		w.clock.advance(8*day - time.Hour)
		quiet("nobody tries any more, and the full key needed more")

		w.clock.advance(38 * day) // 13 of 90 left
		use(quarter)
		want("13 days before the end of 90", map[string]string{"quarter": "expiring 0 [];"})
		rotating := make("rotating", "cues:read", nil)
		id := w.must(rotating, "key.self", nil).str("id")
		w.clock.advance(time.Minute)
		fresh := w.must(w.admin, "key.rotate", in{"id": id}).str("key")
		use(fresh)
		want("nobody used the old secret since", map[string]string{"quarter": "expiring 0 [];"})
		w.clock.advance(time.Minute)
		w.must(rotating, "cue.list", nil, from{agent: "old-program/2 (x)"})
		want("the old secret is used", map[string]string{"quarter": "expiring 0 [];", "rotating": "old_secret_used 0 [old-program/2];"})

		w.renewAdmin(t)
		w.clock.advance(300 * day)
		w.renewAdmin(t)
		use(full)
		w.must(full, "key.list", nil)
		want("a year later", map[string]string{"full": "never_expires 0 [];", "needed": "stale 0 [];", "rotating": "stale 0 [];"})
	})
}

// TestAttentionSeveralPrograms tells two programs on one key from one that moves, and from one with two families of addresses.
func TestAttentionSeveralPrograms(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.must(w.admin, "workspace.update", in{"rate_limit_per_minute": 0})
		shared, _ := w.key("cues:read", in{"name": "shared"})
		moving, _ := w.key("cues:read", in{"name": "moving"})
		dual, _ := w.key("cues:read", in{"name": "dual"})
		renewed, _ := w.key("cues:read", in{"name": "renewed"})
		use := func(key string, peers ...string) {
			t.Helper()
			for _, p := range peers {
				w.must(key, "cue.list", nil, from{peer: p + ":1"})
			}
		}
		for hour := range 3 {
			if got := w.needy(); len(got) > 0 {
				t.Errorf("after %d hours: %v", hour, got)
			}
			use(shared, "10.0.4.9", "10.0.4.30")
			use(moving, fmt.Sprintf("10.0.5.%d", hour), fmt.Sprintf("10.0.5.%d", hour+1))
			use(dual, "10.0.6.1", "[2001:db8::1]")
			use(renewed, fmt.Sprintf("[2001:db8:1::%d]", hour+1), fmt.Sprintf("[2001:db8:1::%d]", hour+2))
			w.clock.advance(time.Hour)
		}
		if got := w.needy(); len(got) != 1 || got["shared"] != "several_programs 0 [10.0.4.30 10.0.4.9];" {
			t.Errorf("%v", got)
		}
		w.clock.advance(49 * time.Hour)
		if got := w.needy(); len(got) > 0 {
			t.Errorf("two days later: %v", got)
		}
	})
}
