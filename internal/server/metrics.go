package server

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// metrics answers Prometheus. It wants a key that holds usage:read (in Prometheus: authorization.credentials), except in
// development mode.
func (s *Server) metrics() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.register(reg)
	page := promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.Dev {
			page.ServeHTTP(w, r)
			return
		}
		res := s.set.Call(r.Context(), &op.Request{
			Op: "key.authorize", Via: "rest", Peer: r.RemoteAddr, Forwarded: r.Header.Values("X-Forwarded-For"), Auth: r.Header.Get("Authorization"),
			UserAgent: r.UserAgent(), Header: r.Header, Query: url.Values{"permission": {"usage:read"}},
		})
		if res.Err != nil {
			writeError(w, res.Err)
			return
		}
		page.ServeHTTP(w, r)
	})
}

// register declares the product's own figures; those of the database and the scheduler are read when they are asked for.
func (s *Server) register(reg *prometheus.Registry) {
	reg.MustRegister(s.meter.calls, s.meter.seconds)
	counter := func(name, help string, fn func(db.Stats) float64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return fn(s.db.Stats()) }))
	}
	gauge := func(name, help string, fn func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, fn))
	}
	counter("unstuck_db_commits_total", "Durable commits; each answers all callers that waited.", func(t db.Stats) float64 { return float64(t.Commit.Count) })
	counter("unstuck_db_commit_seconds_total", "Time spent in durable commits.", func(t db.Stats) float64 { return t.Commit.Sum })
	counter("unstuck_db_updates_total", "Callers answered by those commits.", func(t db.Stats) float64 { return t.Callers.Sum })
	counter("unstuck_db_reruns_total", "Batches that ran again.", func(t db.Stats) float64 { return float64(t.Reruns) })
	counter("unstuck_db_unknown_commits_total", "Commits that failed with an unknown fate.", func(t db.Stats) float64 { return float64(t.Unknown) })
	gauge("unstuck_db_waiting", "Updates that wait for their turn.", func() float64 { return float64(s.db.Stats().Waiting) })
	gauge("unstuck_scheduler_last_look_seconds", "When the scheduler last looked for due work, in seconds since 1970.", func() float64 {
		return float64(s.cues.Pulse().At.UnixMilli()) / 1000
	})
}

// meter is a guard that counts what goes through the guard behind it.
type meter struct {
	op.Guard
	calls   *prometheus.CounterVec
	seconds prometheus.Histogram
	now     func() time.Time
}

func newMeter(g op.Guard, now func() time.Time) *meter {
	return &meter{
		Guard:   g,
		calls:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "unstuck_calls_total", Help: "Calls by operation and code of their answer; ok for success."}, []string{"operation", "code"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "unstuck_call_seconds", Help: "How long calls took.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10)}),
		now:     now,
	}
}

// Done counts a call that has ended.
func (m *meter) Done(ctx context.Context, c *op.Call, err *op.Error) {
	m.Guard.Done(ctx, c, err)
	code := "ok"
	if err != nil {
		code = err.Code.Name
	}
	m.calls.WithLabelValues(c.Name, code).Inc()
	m.seconds.Observe(m.now().Sub(c.Began).Seconds())
}
