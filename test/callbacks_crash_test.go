package test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"unstuck/internal/testkit"
	"unstuck/internal/testkit/pgtest"
)

// TestCallbacksThroughCrashes kills the server again and again while it calls a receiver that records. Every execution whose fire was
// acknowledged arrives, its end is stored, what arrives twice carries the same id and body, and is no more than what the server counts.
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
}

func newBarrage(t *testing.T, dsn string) *barrage {
	b := &barrage{T: t, data: t.TempDir(), dsn: dsn, came: map[string][]string{}, fired: map[string]bool{}, client: &http.Client{}}
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
			}
		})
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

// settle waits until every execution has ended, and holds what arrived against what the server knows.
func (b *barrage) settle() {
	b.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for b.must("GET /v1/executions?status__in=pending,delivering,retrying&limit=1", nil).JSON["total"] != 0.0 {
		<-tick.C
	}
	known, redelivered, cursor := map[string]bool{}, 0, ""
	for {
		page := b.must("GET /v1/executions?limit=100"+cursor, nil)
		for _, v := range page.JSON["executions"].([]any) {
			e := v.(map[string]any)
			known[e["id"].(string)] = true
			redelivered += int(e["redelivered"].(float64))
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
		for _, body := range bodies {
			if body != bodies[0] {
				b.Errorf("execution %s arrived as\n%s\nand as\n%s", id, bodies[0], body)
			}
		}
	}
	for id := range b.fired {
		if !known[id] || len(b.came[id]) == 0 {
			b.Errorf("execution %s was acknowledged; stored: %t, arrived %d times", id, known[id], len(b.came[id]))
		}
	}
	if twice > redelivered {
		b.Errorf("%d arrived twice, and the server counts %d that were sent again", twice, redelivered)
	}
	b.Logf("%d executions were acknowledged, %d stored; %d arrived twice of %d that were sent again", len(b.fired), len(known), twice, redelivered)
}
