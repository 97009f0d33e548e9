package test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"unstuck/internal/testkit"
	"unstuck/internal/testkit/pgtest"
)

// TestClockJumps turns the clock to and fro, by seconds and by months. Nothing fires twice, nothing that was due is lost, the
// ledger closes at any time, and no call fails.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		t.Parallel()
		s := quick(t, dsn)
		unlimited(s, s.First)
		random := rand.New(rand.NewPCG(seed, 0))
		cue := s.Must(s.First, "POST /v1/cues", obj{"name": "often", "cron": "*/5 * * * *", "worker": true, "timezone": "Europe/Berlin"}).Str("id")
		once := s.Must(s.First, "POST /v1/cues", obj{"name": "once", "at": testkit.Start.Add(time.Hour), "worker": true}).Str("id")
		key := s.Must(s.First, "POST /v1/keys", obj{"name": "k", "scope": "full", "expires_in": "never"}).Str("key")
		rounds := 40
		if long() {
			rounds = 1000
		}
		for i := range rounds {
			jump := time.Duration(random.Int64N(int64(40*24*time.Hour))) - 15*24*time.Hour
			if random.IntN(2) == 0 {
				jump /= 10_000
			}
			s.Clock.Add(jump)
			s.Drain()
			if i%7 == 0 {
				s.Restart(0)
			}
			for _, id := range []string{cue, once} {
				r := s.Must(key, "GET /v1/cues/"+id+"/ledger?from=2026-11-01&to=2040-01-01", nil)
				if r.JSON["closed"] != true {
					t.Fatalf("seed %d, after a jump of %v: the ledger does not close: %s", seed, jump, r.Body)
				}
			}
			checkDueOnce(t, s, key, fmt.Sprintf("seed %d, after a jump of %v", seed, jump))
			for _, route := range []string{"GET /v1/keys", "GET /v1/usage", "GET /v1/audit", "GET /v1/workers", "GET /v1/cues/" + cue + "?preview=3", "GET /health"} {
				if r := s.Do(key, route, nil); r.Status != 200 {
					t.Errorf("seed %d, after a jump of %v: %s: %s", seed, jump, route, gist(r))
				}
			}
		}
		if r := s.Must(key, "GET /v1/executions?cue_id="+once, nil); r.JSON["total"] != 1.0 {
			t.Errorf("seed %d: a one-time cue fired %v times", seed, r.JSON["total"])
		}
		if r := s.Must(key, "GET /v1/audit/check", nil); r.JSON["ok"] != true {
			t.Errorf("seed %d: the audit log: %s", seed, r.Body)
		}
	})
}

// checkDueOnce says whether two executions stand for one due time.
func checkDueOnce(t *testing.T, s *testkit.Server, key, when string) {
	t.Helper()
	seen := map[string]bool{}
	for _, x := range s.Must(key, "GET /v1/executions?limit=100", nil).JSON["executions"].([]any) {
		due := x.(obj)["cue_id"].(string) + " " + x.(obj)["scheduled_for"].(string)
		if seen[due] {
			t.Errorf("%s: %s fired twice", when, due)
		}
		seen[due] = true
	}
}

// TestClockBack turns the clock back before the beginning of everything that there is: what was allowed stays allowed, what was
// revoked stays revoked, and limits do not lock anybody out.
func TestClockBack(t *testing.T) {
	t.Parallel()
	testkit.Each(t, func(t *testing.T, s *testkit.Server) {
		limited := s.Must(s.First, "POST /v1/keys", obj{"name": "k", "scope": "read-only", "restrictions": obj{"rate_per_minute": 2}})
		dead := s.Must(s.First, "POST /v1/keys", obj{"name": "d", "scope": "read-only"})
		s.Must(s.First, "POST /v1/keys/"+dead.Str("id")+"/revoke", obj{})
		for range 2 {
			s.Must(limited.Str("key"), "GET /v1/cues", nil)
		}
		wantCode(t, s.Do(limited.Str("key"), "GET /v1/cues", nil), 429, "rate_limit_exceeded")
		s.Clock.Add(-400 * 24 * time.Hour)
		s.Must(limited.Str("key"), "GET /v1/cues", nil)
		wantCode(t, s.Do(dead.Str("key"), "GET /v1/cues", nil), 401, "key_revoked")
		used := s.Must(s.First, "GET /v1/keys/"+limited.Str("id"), nil).Str("last_used_at")
		if used < "2026-11-23" {
			t.Errorf("the last use went backwards: %s", used)
		}
	})
}
