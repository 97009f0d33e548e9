package test

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/testkit"
	"unstuck/internal/testkit/pgtest"
)

// TestNoDoubleClaimsThroughCrashes lets 64 callers take work in batches from a server that is killed with SIGKILL again and again. Who
// got no answer repeats its request. Every execution is given to one request only, and all are given. The long run takes 10 million
// executions on SQLite and 1 million on PostgreSQL with a crash every 10 seconds; the short one counts claims instead of seconds.
func TestNoDoubleClaimsThroughCrashes(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		t.Parallel()
		postgres := strings.HasPrefix(dsn, "postgres")
		rounds, each := 2, 4000
		if long() {
			rounds, each = 100, 100_000
			if postgres {
				rounds = 10
				pgtest.Durable(t)
			}
		}
		if !postgres {
			dsn = ""
		}
		newSiege(t, dsn).run(rounds, each)
	})
}

// siege is a server that is killed all the time, and the callers who want work of it.
type siege struct {
	*testing.T
	dsn, data string
	client    *http.Client
	keys      [claimers]string
	workspace string
	cue       string
	requests  atomic.Int64 // numbers of requests: none has that of another
	repeated  atomic.Int64 // calls that got no answer
	crashes   int
	crashed   time.Time // when it was last killed

	mu     sync.Mutex
	p      *process
	base   string           // of the server that runs
	next   chan struct{}    // closed when the server runs again
	given  map[string]int64 // number of the request to which an execution was given
	faults []string
}

func newSiege(t *testing.T, dsn string) *siege {
	s := &siege{T: t, dsn: dsn, data: t.TempDir(), given: map[string]int64{}, next: make(chan struct{})}
	s.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2 * claimers}, Timeout: 30 * time.Second}
	s.start()
	first := s.p.key
	s.must(first, "PATCH /v1/workspace", obj{"rate_limit_per_minute": 0})
	s.workspace = s.must(first, "GET /v1/workspace", nil).Str("id")
	s.cue = s.must(first, "POST /v1/cues", obj{"name": "c", "cron": "0 0 1 1 *", "worker": true}).Str("id")
	for i := range s.keys {
		s.keys[i] = s.must(first, "POST /v1/keys", obj{"name": fmt.Sprintf("worker %d", i), "scope": "worker"}).Str("key")
	}
	s.p.kill()
	return s
}

func (s *siege) must(key, route string, body any) testkit.Reply {
	s.Helper()
	r, err := testkit.Send(context.Background(), s.client, s.base, key, route, body)
	if err != nil || r.Status >= 300 {
		s.Fatalf("%s: %v %s", route, err, gist(r))
	}
	return r
}

func (s *siege) start() {
	s.Helper()
	p := startProcess(s.T, s.data, s.dsn)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.p, s.base = p, p.base
	close(s.next)
	s.next = make(chan struct{})
}

func (s *siege) run(rounds, each int) {
	claims, began := 0, time.Now()
	s.crashed = began
	for round := range rounds {
		s.stock(round, each)
		s.start()
		s.storm(each)
		s.p.kill()
		if said := s.p.faults(); said != "" {
			s.Fatalf("the server said: %s", said)
		}
		if len(s.given) != each || len(s.faults) > 0 {
			s.Fatalf("round %d: %d of %d executions were given out; %d faults:\n%s", round, len(s.given), each, len(s.faults), strings.Join(s.faults[:min(10, len(s.faults))], "\n"))
		}
		claims += len(s.given)
		clear(s.given)
	}
	s.Logf("%d executions were claimed by %d callers in %v, through %d crashes; %d calls got no answer and were repeated", claims, claimers, time.Since(began).Round(time.Second), s.crashes, s.repeated.Load())
	if s.crashes == 0 || s.repeated.Load() == 0 {
		s.Errorf("%d crashes, %d calls without answer: the test shows little", s.crashes, s.repeated.Load())
	}
}

// stock replaces all executions by new ones that are ready, in the database itself: making ten million by calls would take longer
// than claiming them.
func (s *siege) stock(round, n int) {
	s.Helper()
	dsn := s.dsn
	if dsn == "" {
		dsn = filepath.Join(s.data, "unstuck.db")
	}
	d, err := db.Open(s.Context(), db.Options{DSN: dsn})
	if err != nil {
		s.Fatal(err)
	}
	at := time.Now().Add(-time.Minute).UnixMicro()
	err = d.Update(s.Context(), func(tx *db.Tx) error {
		if _, err := tx.Exec("DELETE FROM executions"); err != nil {
			return err
		}
		_, err := tx.Exec(`INSERT INTO executions (id, workspace_id, cue_id, transport, triggered_by, fired_by, replayed_from, scheduled_for, status,
			task, agent, payload, verification, max_attempts, deadline, created_at, updated_at, attempts, claimed_key, claimed_worker, claim_request,
			lease_token, lease_bare, outcome_state, outcome, reported_by, unfenced, evidence_count, has_evidence, result_type,
			endpoint, callback, backoff, called, timeout, redelivered)
			WITH RECURSIVE n (i) AS (SELECT CAST(1 AS INTEGER) UNION ALL SELECT i + 1 FROM n WHERE i < ?6)
			SELECT ?1 || CAST(i AS TEXT), ?2, ?3, 'worker', 'manual_fire', '', '', ?4 + i, 'pending', '', '', '{}', '', 3, CAST(?5 AS INTEGER),
				?4 + i, ?4 + i, 0, '', '', '', '', 0, '', '', '', 0, 0, 0, '', '', '', '', '', 30, 0 FROM n`,
			fmt.Sprintf("execution-%d-", round), s.workspace, s.cue, at, at+time.Hour.Microseconds(), n)
		return err
	})
	if err == nil {
		err = d.Close()
	}
	if err != nil {
		s.Fatal(err)
	}
}

// storm lets the callers take all n executions while the server is killed: every 10 seconds, or in a short run when a third and when
// two thirds were given out.
func (s *siege) storm(n int) {
	var all sync.WaitGroup
	ended := make(chan struct{})
	for i := range claimers {
		all.Go(func() { s.work(i) })
	}
	go func() { all.Wait(); close(ended) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	crashes := 0
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		given := len(s.given)
		s.mu.Unlock()
		if due := given >= (crashes+1)*n/3 && crashes < 2; long() && time.Since(s.crashed) < 10*time.Second || !long() && !due {
			continue
		}
		s.p.kill()
		s.start()
		crashes++
		s.crashes++
		s.crashed = time.Now()
	}
}

// work takes batches until there is nothing left.
func (s *siege) work(number int) {
	for {
		request := s.requests.Add(1)
		list, ok := s.claim(number, request)
		s.mu.Lock()
		for _, x := range list {
			id := x.(obj)["execution_id"].(string)
			if before := s.given[id]; before != 0 {
				s.faults = append(s.faults, fmt.Sprintf("execution %s was given to request %d and to %d", id, before, request))
			}
			s.given[id] = request
		}
		s.mu.Unlock()
		if !ok || len(list) == 0 {
			return
		}
	}
}

// claim makes one request, again and again until it is answered.
func (s *siege) claim(number int, request int64) (list []any, ok bool) {
	in := obj{"worker_id": fmt.Sprintf("worker-%d", number), "max": 20, "request_id": fmt.Sprint(request)}
	for {
		s.mu.Lock()
		base, next := s.base, s.next
		s.mu.Unlock()
		r, err := testkit.Send(s.Context(), s.client, base, s.keys[number], "POST /v1/executions/claim", in)
		switch {
		case err == nil && r.Status == 200:
			return r.JSON["executions"].([]any), true
		case err == nil:
			s.mu.Lock()
			s.faults = append(s.faults, gist(r))
			s.mu.Unlock()
			return nil, false
		}
		s.repeated.Add(1)
		select {
		case <-next:
		case <-s.Context().Done():
			return nil, false
		}
	}
}
