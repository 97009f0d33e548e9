package test

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"unstuck/internal/server"
	"unstuck/internal/testkit"
	"unstuck/internal/testkit/pgtest"
)

// together makes n calls at the same time and counts how they ended, by code; "" is success.
func together(t *testing.T, s *testkit.Server, n int, call func(i int) (key, route string, body any)) map[string]int {
	t.Helper()
	var all sync.WaitGroup
	var mu sync.Mutex
	begin := make(chan struct{})
	out := map[string]int{}
	for i := range n {
		all.Go(func() {
			key, route, body := call(i)
			<-begin
			r, err := s.Call(t.Context(), key, route, body, fromElsewhere(int64(i))...)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				out[err.Error()]++
			case r.Status == 429 && r.Header.Get("Retry-After") == "":
				out["429 without Retry-After"]++
			default:
				out[r.Code()]++
			}
		})
	}
	close(begin)
	all.Wait()
	return out
}

// exactly holds the counts of together against what must be.
func exactly(t *testing.T, what string, got map[string]int, pass int, code string, refused int) {
	t.Helper()
	if got[""] != pass || got[code] != refused || len(got) > 2 {
		t.Errorf("%s: want %d to pass and %d to get %s; it was %v", what, pass, refused, code, got)
	}
}

// TestLimitsAreExact calls at the same time from many sides: as many calls pass as the limit says, and not one more.
func TestLimitsAreExact(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 7, 40} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			s := quick(t, "", behindProxy)
			unlimited(s, s.First)
			one := s.Must(s.First, "POST /v1/keys", obj{"name": "one", "scope": "full", "restrictions": obj{"rate_per_minute": n}})
			read := func(key string) func(int) (string, string, any) {
				return func(int) (string, string, any) { return key, "GET /v1/cues", nil }
			}
			exactly(t, "one key", together(t, s, n+40, read(one.Str("key"))), n, "rate_limit_exceeded", 40)
			s.Clock.Add(59 * time.Second)
			exactly(t, "59 s later", together(t, s, 3, read(one.Str("key"))), 0, "rate_limit_exceeded", 3)
			s.Clock.Add(time.Second)
			exactly(t, "a minute later", together(t, s, n+3, read(one.Str("key"))), n, "rate_limit_exceeded", 3)
		})
	}
	t.Run("a parent and its children share", func(t *testing.T) {
		s := quick(t, "", behindProxy)
		unlimited(s, s.First)
		keys := []string{s.Must(s.First, "POST /v1/keys", obj{"name": "parent", "scope": "full", "restrictions": obj{"rate_per_minute": 30}}).Str("key")}
		for i := range 3 { // three of the thirty
			keys = append(keys, s.Must(keys[i], "POST /v1/keys", obj{"name": "child", "scope": "full"}).Str("key"))
		}
		got := together(t, s, 60, func(i int) (string, string, any) { return keys[i%len(keys)], "GET /v1/cues", nil })
		exactly(t, "four keys in a chain", got, 27, "rate_limit_exceeded", 33)
	})
	t.Run("a workspace", func(t *testing.T) {
		s := quick(t, "", behindProxy)
		var keys []string
		for range 5 {
			keys = append(keys, s.Key("read-only"))
		}
		s.Must(s.First, "PATCH /v1/workspace", obj{"rate_limit_per_minute": 50})
		s.Clock.Add(61 * time.Second)
		got := together(t, s, 80, func(i int) (string, string, any) { return keys[i%len(keys)], "GET /v1/cues", nil })
		exactly(t, "all keys of a workspace", got, 50, "rate_limit_exceeded", 30)
	})
}

// TestStrangersAreLimited calls without a valid key: sixty times a minute from one address, and a valid key is not slowed down.
func TestStrangersAreLimited(t *testing.T) {
	t.Parallel()
	s := quick(t, "", behindProxy)
	call := func(i int) testkit.Reply {
		return s.Do("unstuck_nonsense", "GET /v1/cues", nil, "X-Forwarded-For", fmt.Sprintf("198.51.100.%d", i))
	}
	for range 60 {
		wantCode(t, call(1), 401, "invalid_api_key")
	}
	wantCode(t, call(1), 429, "rate_limit_exceeded")
	wantCode(t, call(2), 401, "invalid_api_key")
	s.Must(s.First, "GET /v1/cues", nil, "X-Forwarded-For", "198.51.100.1")
	s.Clock.Add(time.Minute)
	wantCode(t, call(1), 401, "invalid_api_key")
}

// TestPlanIsExact makes cues at the same time on a plan that has room for ten: ten are made.
func TestPlanIsExact(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		t.Parallel()
		s, key := onPlan(t, dsn, "free")
		create := func(i int) (string, string, any) {
			return key, "POST /v1/cues", obj{"name": fmt.Sprintf("cue %d", i), "cron": "0 0 1 1 *", "worker": true}
		}
		exactly(t, "ten cues", together(t, s, 40, create), 10, "cue_limit_exceeded", 30)
		page := s.Must(key, "GET /v1/cues", nil)
		if page.JSON["total"] != 10.0 {
			t.Errorf("there are %v cues", page.JSON["total"])
		}
		for _, x := range page.JSON["cues"].([]any)[:2] {
			s.Must(key, "DELETE /v1/cues/"+x.(obj)["id"].(string), nil)
		}
		s.Clock.Add(time.Minute)
		again := func(i int) (string, string, any) {
			return key, "POST /v1/cues", obj{"name": fmt.Sprintf("again %d", i), "cron": "0 0 1 1 *", "worker": true}
		}
		exactly(t, "room for two", together(t, s, 20, again), 2, "cue_limit_exceeded", 18)
	})
}

// TestExecutionsOfThePlan fires more than a plan has in a month. The first execution over it begins a day of grace; after that
// none passes, at any concurrency and by no way, due times end in the ledger as skipped, and the next month begins afresh.
func TestExecutionsOfThePlan(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		t.Parallel()
		s, key := onPlan(t, dsn, "free")
		cue := makeCueWith(s, key, "c")
		fire := func(int) (string, string, any) { return key, "POST /v1/cues/" + cue + "/fire", obj{} }
		for range 6 { // 50 at a time: the plan also limits calls
			exactly(t, "within the plan", together(t, s, 50, fire), 50, "", 50)
			s.Clock.Add(61 * time.Second)
		}
		exactly(t, "in the grace", together(t, s, 20, fire), 20, "", 20)
		s.Clock.Add(24*time.Hour + time.Second)
		exactly(t, "after it", together(t, s, 30, fire), 0, "execution_limit_exceeded", 30)
		s.Clock.Add(61 * time.Second)
		often := s.Must(key, "POST /v1/cues", obj{"name": "often", "cron": "* * * * *", "worker": true}).Str("id")
		s.Clock.Add(3 * time.Minute)
		s.Drain()
		ledger := s.Must(key, "GET /v1/cues/"+often+"/ledger", nil)
		if ledger.JSON["closed"] != true || ledger.JSON["fired"] != 0.0 || ledger.JSON["skipped"] == 0.0 {
			t.Errorf("over the plan: %s", ledger.Body)
		}
		s.Clock.Add(8 * 24 * time.Hour) // December
		s.Drain()
		exactly(t, "in the next month", together(t, s, 20, fire), 20, "", 20)
	})
}

// onPlan is a server with the key of a workspace on a plan.
func onPlan(t *testing.T, dsn, plan string) (*testkit.Server, string) {
	t.Helper()
	s := quick(t, dsn, behindProxy, func(o *server.Settings) { o.Register, o.RegisterPlan = "open", plan })
	return s, s.Must("", "POST /v1/auth/register", obj{"email": "somebody@example.com"}).Str("api_key")
}

// TestRegisterAtOnce signs up with one address from many sides: one gets a key, and the others are told.
func TestRegisterAtOnce(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		t.Parallel()
		s := quick(t, dsn, behindProxy, func(o *server.Settings) { o.Register = "open" })
		register := func(int) (string, string, any) {
			return "", "POST /v1/auth/register", obj{"email": "somebody@example.com"}
		}
		exactly(t, "one address", together(t, s, 20, register), 1, "duplicate_email", 19)
	})
}
