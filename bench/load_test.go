package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"unstuck/internal/op"
	"unstuck/internal/rest"
	"unstuck/internal/server"
	"unstuck/internal/testkit/pgtest"
)

const callers = 64

// during is how long a load run lasts. A short run (`make bench-smoke`) measures nothing: it shows that the benchmarks work.
func during() time.Duration {
	if testing.Short() {
		return 200 * time.Millisecond
	}
	return 3 * time.Second
}

// scaled is how many things a run of that size needs; in a short run a few of them.
func scaled(n int) int {
	if testing.Short() {
		return max(n/500, 1)
	}
	return n
}

// onEach runs a benchmark against a server on SQLite and, when it is installed, one on PostgreSQL.
func onEach(b *testing.B, fn func(b *testing.B, s *serving)) {
	b.Run("sqlite", func(b *testing.B) { fn(b, serve(b, "")) })
	b.Run("postgres", func(b *testing.B) {
		pgtest.Durable(b)
		fn(b, serve(b, pgtest.DSN(b)))
	})
}

// serving is a real server on a real port, with the real clock and its duties running.
type serving struct {
	*server.Server
	addr, first string
}

func serve(b *testing.B, dsn string) *serving {
	b.Helper()
	settings, err := server.ReadSettings(func(string) (string, bool) { return "", false }, map[string]string{"data": b.TempDir()}, "")
	if err != nil {
		b.Fatal(err)
	}
	if strings.HasPrefix(dsn, "postgres") {
		settings.Database = dsn
	}
	settings.AllowCallbacks = "127.0.0.1"
	log := slog.New(slog.NewJSONHandler(io.Discard, nil))
	s, err := server.Open(context.Background(), settings, server.Deps{Now: time.Now, Log: log})
	if err != nil {
		b.Fatal(err)
	}
	key, _, err := s.Access().FirstRun(context.Background(), "admin@example.com", true)
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Duties(ctx) }()
	out := &serving{Server: s, first: key.Secret, addr: listen(b, s.Handler())}
	b.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	out.must(b, out.first, "PATCH", "/v1/workspace", `{"rate_limit_per_minute":1000000}`)
	return out
}

func listen(b *testing.B, h http.Handler) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go func() { _ = srv.Serve(l) }()
	b.Cleanup(func() { _ = srv.Close() })
	return l.Addr().String()
}

func (s *serving) must(b *testing.B, key, method, path, body string) map[string]any {
	b.Helper()
	c, err := Dial(s.addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	status, answer, err := c.Do(Request(method, path, key, []byte(body)), nil)
	if err != nil || status >= 300 {
		b.Fatalf("%s %s: %d %s %v", method, path, status, answer, err)
	}
	var out map[string]any
	_ = json.Unmarshal(answer, &out)
	return out
}

type trivial struct {
	OK   bool   `json:"ok"`
	Name string `json:"name"`
}

// BenchmarkAuthenticatedGet holds an authenticated GET of a trivial resource, through the door and the guard of the product, against
// a bare net/http handler that writes the same JSON. Target: 0.7 of its throughput.
func BenchmarkAuthenticatedGet(b *testing.B) {
	s := serve(b, "")
	floor := listen(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(trivial{true, "trivial"})
	}))
	toy := op.Define(op.Spec{Name: "toy.get", Route: "GET /v1/toy", Needs: "cues:read", Effect: op.Read, May: "see toys", Doc: "Show a toy"},
		func(context.Context, struct{}) (trivial, error) { return trivial{true, "trivial"}, nil })
	log := slog.New(slog.NewJSONHandler(io.Discard, nil))
	ours := listen(b, rest.New(rest.Options{Set: op.NewSet(s.Access(), log, time.Now, toy), Log: log}))
	reader := s.must(b, s.first, "POST", "/v1/keys", `{"name":"reader","scope":"read-only"}`)["key"].(string)
	get := func(addr, path, key string) Result {
		request := Request("GET", path, key, nil)
		r, err := Run(16, during(), func(_ int, c *Conn) error {
			status, body, err := c.Do(request, nil)
			if err == nil && status != 200 {
				err = fmt.Errorf("%d %s", status, body)
			}
			return err
		}, addr)
		if err != nil {
			b.Fatal(err)
		}
		return r
	}
	for range b.N { // in turns, so that a machine that changes its speed changes both
		var ratios []float64
		for range 3 {
			f, o := get(floor, "/", ""), get(ours, "/v1/toy", reader)
			ratios = append(ratios, o.PerSecond()/f.PerSecond())
			b.Logf("floor %.0f/s, ours %.0f/s: %.2f", f.PerSecond(), o.PerSecond(), o.PerSecond()/f.PerSecond())
		}
		b.ReportMetric(median(ratios), "of-floor")
	}
}

func median(x []float64) float64 {
	for i := range x { // three values
		for j := range i {
			if x[i] < x[j] {
				x[i], x[j] = x[j], x[i]
			}
		}
	}
	return x[len(x)/2]
}

// BenchmarkClaimOutcome counts claims with their outcomes, by 64 callers over HTTP, everything durable. Targets: 8,000 pairs a second
// with p99 of 15 ms on SQLite, a quarter of that on PostgreSQL; 40,000 executions a second in batches of 20.
func BenchmarkClaimOutcome(b *testing.B) {
	onEach(b, func(b *testing.B, s *serving) {
		for _, part := range []struct {
			name string
			run  func(b *testing.B)
		}{{"floor", bare}, {"single", s.pairs}, {"batch20", s.batches}} {
			b.Run(part.name, func(b *testing.B) {
				for range b.N {
					part.run(b)
				}
			})
		}
	})
}

// bare is two POSTs against a handler that answers at once.
func bare(b *testing.B) {
	addr := listen(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"ok":true}`))
	}))
	request := Request("POST", "/", "", []byte(`{"worker_id":"w"}`))
	r, err := Run(callers, during(), func(_ int, c *Conn) error {
		for range 2 {
			if _, _, err := c.Do(request, nil); err != nil {
				return err
			}
		}
		return nil
	}, addr)
	report(b, r, 1, err)
}

func report(b *testing.B, r Result, per float64, err error) {
	b.Helper()
	if err != nil && !errors.Is(err, errDry) {
		b.Fatal(err)
	}
	b.ReportMetric(r.PerSecond()*per, "pairs/s")
	b.ReportMetric(float64(r.P50.Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(r.P99.Microseconds())/1000, "p99-ms")
}

// times calls fn with 1 to n, by many callers.
func (s *serving) times(b *testing.B, n int, fn func(i int64, c *Conn) error) {
	b.Helper()
	var began atomic.Int64
	_, err := Run(callers, time.Hour, func(_ int, c *Conn) error {
		i := began.Add(1)
		if i > int64(n) {
			return io.EOF
		}
		return fn(i, c)
	}, s.addr)
	if !errors.Is(err, io.EOF) {
		b.Fatal(err)
	}
}

// stock fires so many executions that the run does not run dry, outside the measured time.
func (s *serving) stock(b *testing.B, n int) (worker string) {
	b.Helper()
	name := fmt.Sprintf("bench-%d", time.Now().UnixNano())
	cue := s.must(b, s.first, "POST", "/v1/cues", `{"name":"`+name+`","cron":"0 0 1 1 *","worker":true,"payload":{"task":"t"}}`)["id"].(string)
	fire := Request("POST", "/v1/cues/"+cue+"/fire", s.first, []byte(`{}`))
	s.times(b, scaled(n), func(_ int64, c *Conn) error {
		status, body, err := c.Do(fire, nil)
		if err == nil && status != 200 {
			err = fmt.Errorf("fire: %d %s", status, body)
		}
		return err
	})
	return s.must(b, s.first, "POST", "/v1/keys", `{"name":"worker","scope":"worker"}`)["key"].(string)
}

// errDry ends a run early: the stock of executions ran out. What was measured until then counts.
var errDry = errors.New("the stock of executions ran out")

func (s *serving) pairs(b *testing.B) {
	worker := s.stock(b, 40_000)
	claim := Request("POST", "/v1/executions/claim", worker, []byte(`{"worker_id":"w"}`))
	r, err := Run(callers, during(), func(_ int, c *Conn) error {
		status, body, err := c.Do(claim, nil)
		if status == 409 {
			return errDry
		}
		if err != nil || status != 200 {
			return fmt.Errorf("claim: %d %s %w", status, body, err)
		}
		id, token := member(body, "execution_id"), member(body, "lease_token")
		status, body, err = c.Do(Request("POST", "/v1/executions/"+id+"/outcome", worker, []byte(`{"success":true,"lease_token":"`+token+`"}`)), nil)
		if err == nil && status != 200 {
			err = fmt.Errorf("outcome: %d %s", status, body)
		}
		return err
	}, s.addr)
	report(b, r, 1, err)
}

func (s *serving) batches(b *testing.B) {
	worker := s.stock(b, 60_000)
	claim := Request("POST", "/v1/executions/claim", worker, []byte(`{"worker_id":"w","max":20}`))
	var got atomic.Int64
	r, err := Run(callers, during()/3, func(_ int, c *Conn) error {
		status, body, err := c.Do(claim, nil)
		if err != nil || status != 200 {
			return fmt.Errorf("claim: %d %s %w", status, body, err)
		}
		n := bytes.Count(body, []byte(`"execution_id"`))
		if n == 0 {
			return errDry
		}
		got.Add(int64(n))
		return nil
	}, s.addr)
	if err != nil && !errors.Is(err, errDry) {
		b.Fatal(err)
	}
	b.ReportMetric(float64(got.Load())/r.Took.Seconds(), "claimed/s")
	b.ReportMetric(float64(r.P99.Microseconds())/1000, "p99-ms")
}

func member(body []byte, name string) string {
	_, rest, _ := bytes.Cut(body, []byte(`"`+name+`":"`))
	value, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(value)
}
