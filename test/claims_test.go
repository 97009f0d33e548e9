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

const claimers = 64

// TestNoDoubleClaims lets 64 callers take work over HTTP, one by one, in batches, by id and with repeated requests, some of them
// hanging up in the middle. Every execution is given out once, and reported once.
func TestNoDoubleClaims(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		t.Parallel()
		s := quick(t, dsn)
		unlimited(s, s.First)
		n := 1500
		if long() {
			n = 100_000
		}
		r := &race{s: s, holders: map[string]string{}}
		for i := range 4 {
			r.cues = append(r.cues, makeCueWith(s, s.First, fmt.Sprintf("c%d", i)))
		}
		r.fire(t, n)
		var all sync.WaitGroup
		for i := range claimers {
			key := s.Must(s.First, "POST /v1/keys", obj{"name": fmt.Sprintf("worker %d", i), "scope": "worker"}).Str("key")
			all.Go(func() { r.work(t.Context(), key, i) })
		}
		all.Wait()
		for _, f := range r.faults {
			t.Error(f)
		}
		if len(r.holders) != n || r.reported.Load() != int64(n) {
			t.Errorf("%d executions: %d were given out, %d were reported", n, len(r.holders), r.reported.Load())
		}
		if left := s.Must(s.First, "GET /v1/executions?status=success&limit=1", nil).JSON["total"]; left != float64(n) {
			t.Errorf("%v of %d executions ended in success", left, n)
		}
	})
}

// race is many callers after the same work.
type race struct {
	s        *testkit.Server
	cues     []string
	ids      []string
	mu       sync.Mutex
	holders  map[string]string // who was given an execution
	faults   []string
	reported atomic.Int64
}

func (r *race) fire(t *testing.T, n int) {
	t.Helper()
	var all sync.WaitGroup
	ids := make([][]string, 16)
	for i := range ids {
		all.Go(func() {
			for j := i; j < n; j += len(ids) {
				f, err := r.s.Call(t.Context(), r.s.First, "POST /v1/cues/"+r.cues[j%len(r.cues)]+"/fire", obj{})
				if err != nil || f.Status != 200 {
					t.Errorf("fire: %v %s", err, gist(f))
				}
				ids[i] = append(ids[i], f.Str("id"))
			}
		})
	}
	all.Wait()
	for _, list := range ids {
		r.ids = append(r.ids, list...)
	}
}

// work takes and reports until there is nothing left. Who hung up comes back at the end for what the server may have given to a
// request of which it heard late, when its repetition was served and reported.
func (r *race) work(ctx context.Context, key string, number int) {
	w := worker{key: key, name: fmt.Sprintf("worker-%d", number), number: number}
	turn := 0
	for ; ; turn++ {
		if number%8 == 1 {
			r.hangUp(ctx, key, w.request(turn))
		}
		if number%8 == 2 && turn < 5 {
			r.takeByID(ctx, key, w.name, r.ids[(number*31+turn*7)%len(r.ids)])
		}
		if r.turn(ctx, w, turn) == 0 {
			break
		}
	}
	for again := 0; number%8 == 1 && again < turn; again++ {
		r.turn(ctx, w, again)
	}
}

// worker is one caller.
type worker struct {
	key, name string
	number    int
}

func (w worker) request(turn int) obj {
	return obj{"worker_id": w.name, "max": 1 + (w.number+turn)%5, "request_id": fmt.Sprintf("%s-%d", w.name, turn)}
}

// turn makes one claim, reports what it gives, and says how much that was.
func (r *race) turn(ctx context.Context, w worker, turn int) int {
	c, err := r.s.Call(ctx, w.key, "POST /v1/executions/claim", w.request(turn))
	if err != nil || c.Status != 200 {
		r.fault("%s: %v %s", w.name, err, gist(c))
		return 0
	}
	list := c.JSON["executions"].([]any)
	for _, x := range list {
		r.take(ctx, w.key, w.name, x.(obj))
	}
	return len(list)
}

// hangUp makes a claim and goes away before the answer comes; the same request later gets what it was given.
func (r *race) hangUp(ctx context.Context, key string, in obj) {
	short, cancel := context.WithTimeout(ctx, 300*time.Microsecond)
	defer cancel()
	_, _ = r.s.Call(short, key, "POST /v1/executions/claim", in) // most often without an answer
}

func (r *race) takeByID(ctx context.Context, key, name, id string) {
	c, err := r.s.Call(ctx, key, "POST /v1/executions/"+id+"/claim", obj{"worker_id": name})
	switch {
	case err != nil || c.Status != 200 && c.Status != 409:
		r.fault("%s by id: %v %s", name, err, gist(c))
	case c.Status == 200:
		r.take(ctx, key, name, c.JSON)
	}
}

// take notes that an execution was given to a worker, and reports it.
func (r *race) take(ctx context.Context, key, name string, x obj) {
	id := x["execution_id"].(string)
	r.mu.Lock()
	before := r.holders[id]
	r.holders[id] = name
	r.mu.Unlock()
	if before != "" {
		r.fault("execution %s was given to %s and to %s", id, before, name)
		return
	}
	o, err := r.s.Call(ctx, key, "POST /v1/executions/"+id+"/outcome", obj{"success": true, "lease_token": x["lease_token"], "result": name})
	if err != nil || o.Status != 200 {
		r.fault("%s reports: %v %s", name, err, gist(o))
		return
	}
	r.reported.Add(1)
}

func (r *race) fault(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, fmt.Sprintf(format, args...))
}
