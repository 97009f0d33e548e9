package access

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"unstuck/internal/db"
)

// lastUsed is what a list says about the last use of a key.
func (w *world) lastUsed(id string) (at string, last LastUsed) {
	w.Helper()
	var k Key
	if err := json.Unmarshal(w.call(w.admin, "key.get", in{"id": id}).Body, &k); err != nil {
		w.Fatal(err)
	}
	if k.LastUsedAt == nil {
		return "", LastUsed{}
	}
	return k.LastUsedAt.String(), *k.LastUsed
}

// TestLastUse counts every call that passed authentication, refused ones too; it is right at once, survives an orderly stop, and never
// goes back.
func TestLastUse(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		secret, id := w.key("worker", in{"restrictions": in{"rate_per_minute": 3}})
		want := func(at string, last LastUsed) {
			t.Helper()
			gotAt, got := w.lastUsed(id)
			if diff := cmp.Diff([]any{at, last}, []any{gotAt, got}); diff != "" {
				t.Error(diff)
			}
		}
		want("", LastUsed{})
		w.must(secret, "execution.claim", nil, from{agent: "python/3", client: "cli"})
		want("2026-11-24T12:00:00Z", LastUsed{"execution.claim", "cli", "192.0.2.1", "python/3", ""})
		w.clock.advance(time.Second)
		w.refused(InsufficientScope, secret, "cue.create", nil, from{via: "mcp", peer: "unix", agent: strings.Repeat("x", 500)})
		refused := LastUsed{"cue.create", "mcp", "a local socket", strings.Repeat("x", maxAgent), "insufficient_scope"}
		want("2026-11-24T12:00:01Z", refused)
		w.clock.advance(time.Second)
		w.must(secret, "execution.claim", nil)
		w.clock.advance(time.Second)
		w.refused(RateLimitExceeded, secret, "execution.claim", nil)
		want("2026-11-24T12:00:03Z", LastUsed{"execution.claim", "rest", "192.0.2.1", "test/1", "rate_limit_exceeded"})
		w.clock.advance(-time.Hour)
		w.refused(InsufficientScope, secret, "usage.get", nil)
		w.clock.advance(time.Hour)
		want("2026-11-24T12:00:03Z", LastUsed{"execution.claim", "rest", "192.0.2.1", "test/1", "rate_limit_exceeded"})
		w.stop()
		w.open()
		want("2026-11-24T12:00:03Z", LastUsed{"execution.claim", "rest", "192.0.2.1", "test/1", "rate_limit_exceeded"})
		w.clock.advance(-time.Hour)
		w.must(secret, "execution.claim", nil)
		want("2026-11-24T12:00:03Z", LastUsed{"execution.claim", "rest", "192.0.2.1", "test/1", "rate_limit_exceeded"})
		w.stop()
		w.open()
		want("2026-11-24T12:00:03Z", LastUsed{"execution.claim", "rest", "192.0.2.1", "test/1", "rate_limit_exceeded"})
		w.clock.advance(2 * time.Hour)
		w.must(secret, "execution.claim", nil)
		if err := w.a.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.crash() // what was flushed is there
		w.open()
		want("2026-11-24T13:00:03Z", LastUsed{"execution.claim", "rest", "192.0.2.1", "test/1", ""})
	})
}

// TestUserAgentsHoldNoKeys: what a program says of itself is shown to others.
func TestUserAgentsHoldNoKeys(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		secret, id := w.key("worker", nil)
		w.must(secret, "execution.claim", nil, from{agent: strings.Repeat("x", maxAgent-30) + " " + w.admin})
		if _, got := w.lastUsed(id); !strings.HasSuffix(got.UserAgent, "x unstuck_***_"+w.admin[len(w.admin)-8:]) {
			t.Errorf("a key in a user agent is kept: %s", got.UserAgent)
		}
	})
}

// TestWhoStillUsesTheOldSecret: each secret of a rotation has a last use of its own.
func TestWhoStillUsesTheOldSecret(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		old, id := w.key("worker")
		fresh := w.must(w.admin, "key.rotate", in{"id": id}).str("key")
		w.must(fresh, "execution.claim", nil, from{agent: "ci-runner"})
		w.clock.advance(time.Second)
		w.must(old, "execution.claim", nil, from{agent: "mac-mini"})
		var got []string
		for _, s := range w.must(w.admin, "key.get", in{"id": id})["secrets"].([]any) {
			info := s.(map[string]any)
			got = append(got, fmt.Sprint(info["state"], " ", info["last_used"].(map[string]any)["user_agent"], " ", info["ends_at"]))
		}
		if diff := cmp.Diff([]string{"current ci-runner <nil>", "old mac-mini 2026-11-25T12:00:00Z"}, got); diff != "" {
			t.Error(diff)
		}
	})
}

// activity reads the activity of a key as "hour operation address result count".
func (w *world) activity(id string) (out []string) {
	w.Helper()
	var a Activity
	if err := json.Unmarshal(w.call(w.admin, "key.activity", in{"id": id}).Body, &a); err != nil {
		w.Fatal(err)
	}
	for _, r := range a.Rows {
		out = append(out, fmt.Sprintf("%s %s %s %s %d", r.Hour, r.Operation, r.IP, r.Result, r.Count))
	}
	slices.Sort(out)
	return out
}

// TestActivity counts by hour, operation, address and result; nothing is lost when many call at once, and nothing counted twice.
func TestActivity(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.must(w.admin, "workspace.update", in{"rate_limit_per_minute": 0})
		secret, id := w.key("executions:claim cues:read")
		var wait sync.WaitGroup
		for range 16 {
			wait.Go(func() {
				for i := range 100 {
					w.call(secret, []string{"execution.claim", "cue.get", "cue.create"}[i%3], in{"id": "x"}.only(w, []string{"execution.claim", "cue.get", "cue.create"}[i%3]))
					if i == 50 {
						if err := w.a.Flush(t.Context()); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		wait.Wait()
		w.clock.advance(time.Hour)
		w.must(secret, "execution.claim", nil)
		want := []string{
			"2026-11-24T12:00:00Z cue.create 192.0.2.1 refused 528", "2026-11-24T12:00:00Z cue.get 192.0.2.1 failed 528",
			"2026-11-24T12:00:00Z execution.claim 192.0.2.1 ok 544", "2026-11-24T13:00:00Z execution.claim 192.0.2.1 ok 1",
		}
		if diff := cmp.Diff(want, w.activity(id)); diff != "" {
			t.Error(diff)
		}
		w.stop()
		w.open()
		if diff := cmp.Diff(want, w.activity(id)); diff != "" {
			t.Error(diff)
		}
		w.refused(InsufficientScope, secret, "key.activity", in{"id": id})
		w.refused(KeyNotFound, w.admin, "key.activity", in{"id": "key_000000000000"})
	})
}

// TestAddressesOfADay: 64 are told apart, also across flushes and a restart; the next day begins anew.
func TestAddressesOfADay(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		secret, id := w.key("worker")
		call := func(i int) {
			w.must(secret, "execution.claim", nil, from{peer: fmt.Sprintf("10.0.0.%d:1", i)})
		}
		for i := range 40 {
			call(i)
		}
		if err := w.a.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range 60 {
			call(i)
		}
		w.stop()
		w.open()
		for i := range 80 {
			call(i)
		}
		rows := w.activity(id)
		if len(rows) != addressMost+1 || !slices.Contains(rows, "2026-11-24T12:00:00Z execution.claim other ok 16") {
			t.Errorf("%d rows: %v", len(rows), rows)
		}
		w.clock.advance(12 * time.Hour)
		call(200)
		if rows := w.activity(id); rows[len(rows)-1] != "2026-11-25T00:00:00Z execution.claim 10.0.0.200 ok 1" {
			t.Errorf("%v", rows[len(rows)-1])
		}
	})
}

// TestActivityIsForgotten after 400 days, the keys of one beginning a minute, all within a day.
func TestActivityIsForgotten(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		var ids []string
		for range 5 {
			secret, id := w.key("worker", in{"expires_in": "never"})
			w.must(secret, "execution.claim", nil)
			ids = append(ids, id)
		}
		if err := w.a.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		left := func() (n int64) {
			t.Helper()
			err := w.db.View(t.Context(), func(tx *db.Tx) error {
				return tx.Row("SELECT count(*) FROM activity WHERE key_id IN @list(?1)", ids).Scan(&n)
			})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		day := func() {
			t.Helper()
			for range 24 * 60 {
				w.clock.advance(time.Minute)
				if err := w.a.forgetActivity(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		w.clock.advance(398 * 24 * time.Hour)
		day()
		if n := left(); n != 5 {
			t.Errorf("%d are left after 399 days", n)
		}
		w.clock.advance(25 * time.Hour)
		day()
		if n := left(); n != 0 {
			t.Errorf("%d are left after 401 days", n)
		}
	})
}
