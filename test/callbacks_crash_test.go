package test

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"unstuck/internal/testkit"
	"unstuck/internal/testkit/pgtest"
)

// TestCallbacksThroughCrashes kills the server again and again while it calls a receiver that records, and workers pull other work.
// Every execution whose fire was acknowledged arrives, its end is stored, what arrives twice carries the same id and body, and of each
// execution no more than how often it was on its way when the server was killed. Every outcome that was acknowledged is there, and one
// that was not can be reported again under the lease that was.
func TestCallbacksThroughCrashes(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		t.Parallel()
		rounds, each := 3, 120
		if long() {
			rounds, each = 40, 1000
		}
		if strings.HasPrefix(dsn, "postgres") {
			if long() {
				pgtest.Durable(t)
			}
		} else {
			dsn = ""
		}
		b := newBarrage(t, dsn)
		for range rounds {
			b.round(each)
		}
		b.settle()
	})
}

// barrage is a server that is killed, its receiver, and what is known of both.
type barrage struct {
	*testing.T
	data, dsn string
	p         *process
	key, cue  string
	receiver  *httptest.Server
	client    *http.Client

	mu    sync.Mutex
	came  map[string][]string // bodies by execution
	n     int
	knock chan struct{}   // closed at the next arrival after `until`
	until int             // arrivals
	fired map[string]bool // acknowledged

	pulled string            // id of a cue for workers
	leases map[string]string // tokens of what was claimed and of which no report was acknowledged, by execution
	said   map[string]bool   // executions of which the report was acknowledged
}

func newBarrage(t *testing.T, dsn string) *barrage {
	b := &barrage{T: t, data: t.TempDir(), dsn: dsn, came: map[string][]string{}, fired: map[string]bool{}, leases: map[string]string{}, said: map[string]bool{}, client: &http.Client{}}
	b.receiver = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var in struct {
			ID string `json:"execution_id"`
		}
		if err != nil || json.Unmarshal(body, &in) != nil {
			return // the server was killed in the middle
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.came[in.ID] = append(b.came[in.ID], string(body))
		if b.n++; b.n == b.until {
			close(b.knock)
		}
	}))
	t.Cleanup(b.receiver.Close)
	b.p = startProcess(t, b.data, dsn)
	t.Cleanup(func() { b.p.kill() })
	b.key = b.p.key
	b.must("PATCH /v1/workspace", obj{"rate_limit_per_minute": 0})
	b.cue = b.must("POST /v1/cues", obj{"name": "called", "cron": "0 0 1 1 *", "callback_url": b.receiver.URL + "/hook"}).Str("id")
	b.pulled = b.must("POST /v1/cues", obj{"name": "pulled", "cron": "0 0 1 1 *", "worker": true}).Str("id")
	return b
}

func (b *barrage) call(route string, body any) (testkit.Reply, error) {
	return testkit.Send(context.Background(), b.client, b.p.base, b.key, route, body)
}

func (b *barrage) must(route string, body any) testkit.Reply {
	b.Helper()
	r, err := b.call(route, body)
	if err != nil || r.Status >= 300 {
		b.Fatalf("%s: %v %s", route, err, r.Body)
	}
	return r
}

// round fires executions by several callers, kills the server when half of them have arrived, and starts it again.
func (b *barrage) round(each int) {
	b.Helper()
	b.mu.Lock()
	b.until, b.knock = b.n+each/2, make(chan struct{})
	knock := b.knock
	b.mu.Unlock()
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range each / 8 {
				r, err := b.call("POST /v1/cues/"+b.cue+"/fire", obj{})
				if err != nil {
					return // it was killed; what was not acknowledged may be there or not
				}
				b.mu.Lock()
				b.fired[r.Str("id")] = true
				b.mu.Unlock()
				if _, err := b.call("POST /v1/cues/"+b.pulled+"/fire", obj{}); err != nil {
					return
				}
			}
		})
	}
	for range 4 {
		callers.Go(b.pull)
	}
	<-knock
	b.p.kill()
	callers.Wait()
	b.client.CloseIdleConnections()
	if said := b.p.faults(); said != "" {
		b.Fatalf("the server said: %s", said)
	}
	b.p = startProcess(b.T, b.data, b.dsn)
}

// pull claims and reports until the server is killed.
func (b *barrage) pull() {
	for {
		r, err := b.call("POST /v1/executions/claim", obj{"worker_id": "w", "max": 5, "wait": 1})
		if err != nil || r.Status != http.StatusOK {
			return
		}
		var got []string
		b.mu.Lock()
		for _, v := range r.JSON["executions"].([]any) {
			e := v.(map[string]any)
			id := e["execution_id"].(string)
			if b.leases[id] != "" || b.said[id] {
				b.Errorf("execution %s was given away twice", id)
			}
			b.leases[id] = e["lease_token"].(string)
			got = append(got, id)
		}
		b.mu.Unlock()
		for _, id := range got {
			if !b.report(id) {
				return
			}
		}
	}
}

// report says how an execution ended; false when there was no answer.
func (b *barrage) report(id string) bool {
	b.mu.Lock()
	token := b.leases[id]
	b.mu.Unlock()
	r, err := b.call("POST /v1/executions/"+id+"/outcome", obj{"success": true, "lease_token": token, "external_id": id})
	if err != nil {
		return false
	}
	if r.Status != http.StatusOK {
		b.Errorf("report of %s: %d %s", id, r.Status, r.Body)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.leases, id)
	b.said[id] = true
	return true
}

// settleWork reports what is in hand, and looks for every outcome that was acknowledged.
func (b *barrage) settleWork() {
	b.Helper()
	again := len(b.leases)
	for id := range maps.Clone(b.leases) {
		if !b.report(id) {
			b.Fatalf("no answer about %s", id)
		}
	}
	for id := range b.said {
		e := b.must("GET /v1/executions/"+id, nil)
		outcome, _ := e.JSON["outcome"].(map[string]any)
		if e.Str("status") != "success" || outcome["external_id"] != id {
			b.Errorf("the outcome of %s was acknowledged: %s", id, e.Body)
		}
	}
	if len(b.said) == 0 {
		b.Error("no outcome was acknowledged")
	}
	b.Logf("%d outcomes were acknowledged, %d of them under a lease of before a kill", len(b.said), again)
}

// settle waits until every execution has ended, and holds what arrived against what the server knows.
func (b *barrage) settle() {
	b.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	b.settleWork()
	for b.must("GET /v1/executions?cue_id="+b.cue+"&status__in=pending,delivering,retrying&limit=1", nil).JSON["total"] != 0.0 {
		<-tick.C
	}
	known, redelivered, cursor := map[string]int{}, 0, "" // how often each was on its way at a kill
	for {
		page := b.must("GET /v1/executions?cue_id="+b.cue+"&limit=100"+cursor, nil)
		for _, v := range page.JSON["executions"].([]any) {
			e := v.(map[string]any)
			n := int(e["redelivered"].(float64))
			known[e["id"].(string)] = n
			redelivered += n
			if e["status"] != "success" {
				b.Errorf("execution %v is %v: %v", e["id"], e["status"], e["error_message"])
			}
		}
		next := page.Str("next_cursor")
		if next == "" {
			break
		}
		cursor = "&cursor=" + next
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	twice := 0
	for id, bodies := range b.came {
		twice += len(bodies) - 1
		if n, stored := known[id]; !stored || len(bodies)-1 > n {
			b.Errorf("execution %s arrived %d times; stored: %t, on its way at %d kills", id, len(bodies), stored, n)
		}
		for _, body := range bodies {
			if body != bodies[0] {
				b.Errorf("execution %s arrived as\n%s\nand as\n%s", id, bodies[0], body)
			}
		}
	}
	for id := range b.fired {
		if _, stored := known[id]; !stored || len(b.came[id]) == 0 {
			b.Errorf("execution %s was acknowledged; stored: %t, arrived %d times", id, stored, len(b.came[id]))
		}
	}
	b.Logf("%d executions were acknowledged, %d stored; %d arrived twice of %d that were sent again", len(b.fired), len(known), twice, redelivered)
}
