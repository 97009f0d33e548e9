package server

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"unstuck/internal/cron"
	"unstuck/internal/cue"
	"unstuck/internal/db"
	"unstuck/internal/op"
	"unstuck/internal/trace"
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
	reg.MustRegister(s.meter.calls, s.meter.seconds, &callbacks{s.cues}, s.heart.calls, &store{s.db}, &backlog{s}, &alerts{s.alerts})
	reg.MustRegister(s.meter.observed.all()...)
	counter := func(name, help string, fn func(db.Stats) float64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return fn(s.db.Stats()) }))
	}
	gauge := func(name, help string, fn func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, fn))
	}
	counter("unstuck_db_reruns_total", "Batches that ran again.", func(t db.Stats) float64 { return float64(t.Reruns) })
	counter("unstuck_db_unknown_commits_total", "Commits that failed with an unknown fate.", func(t db.Stats) float64 { return float64(t.Unknown) })
	gauge("unstuck_db_waiting", "Updates that wait for their turn.", func() float64 { return float64(s.db.Stats().Waiting) })
	gauge("unstuck_heartbeat_last_seconds", "When UNSTUCK_HEARTBEAT_URL last answered well, in seconds since 1970; 0 for never.", s.heart.lastSeconds)
	s.registerLive(reg)
	reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "unstuck_executions_removed_total", Help: "Executions that retention removed."}, func() float64 {
		return float64(s.cues.Retained().Removed)
	}))
	gauge("unstuck_retention_done_timestamp_seconds", "When retention last had removed all that was old, in seconds since 1970; 0 before, and where executions are kept forever.", func() float64 {
		if at := s.cues.Retained().Done; !at.IsZero() {
			return float64(at.UnixMilli()) / 1000
		}
		return 0
	})
	gauge("unstuck_alerts_waiting", "Deliveries of alerts that wait to be made, or made again; counted up to 10,000.", func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		n, _ := s.alerts.Waiting(ctx) // 0 when the database does not answer, as other figures say
		return float64(n)
	})
	gauge("unstuck_scheduler_last_look_timestamp_seconds", "When the scheduler last looked for due work, in seconds since 1970; 0 before the first time.", func() float64 {
		if at := s.cues.Pulse().At; !at.IsZero() {
			return float64(at.UnixMilli()) / 1000
		}
		return 0
	})
	for i, how := range []string{"sent", "dropped"} {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "unstuck_trace_spans_total", Help: "Spans of traces that were sent, or dropped because the receiver did not take them.", ConstLabels: prometheus.Labels{"result": how},
		}, func() float64 {
			sent, dropped := s.tracer.Stats()
			return float64([]uint64{sent, dropped}[i])
		}))
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "unstuck_build_info", Help: "Always 1; its labels say what runs.",
		ConstLabels: prometheus.Labels{"version": Version, "goversion": runtime.Version(), "database": s.engine(), "tzdata": cron.Version},
	})
	info.Set(1)
	reg.MustRegister(info)
}

// registerLive declares the figures of the live feed.
func (s *Server) registerLive(reg *prometheus.Registry) {
	read := func(value func(cue.LiveStats) int64) func() float64 {
		return func() float64 { return float64(value(s.cues.LiveStats())) }
	}
	reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "unstuck_live_streams", Help: "Streams of the live feed that are open."},
			read(func(t cue.LiveStats) int64 { return int64(t.Streams) })),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "unstuck_live_events_total", Help: "Events that were kept for those who watch."},
			read(func(t cue.LiveStats) int64 { return t.Published })),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "unstuck_live_gaps_total", Help: "Times that somebody who watches was told that events are missing."},
			read(func(t cue.LiveStats) int64 { return t.Gaps })),
	)
}

// meter is a guard that counts what goes through the guard behind it.
type meter struct {
	op.Guard
	*observed
	calls   *prometheus.CounterVec
	seconds prometheus.Histogram
	now     func() time.Time
	tracer  *trace.Tracer // nil without traces
}

func newMeter(g op.Guard, now func() time.Time, tracer *trace.Tracer) *meter {
	return &meter{
		Guard: g, now: now, tracer: tracer, observed: newObserved(),
		calls:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "unstuck_calls_total", Help: "Calls by operation and code of their answer; ok for success, canceled when the caller went away."}, []string{"operation", "code"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "unstuck_call_seconds", Help: "How long calls took.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10)}),
	}
}

// Done counts a call that has ended.
func (m *meter) Done(ctx context.Context, c *op.Call, err *op.Error) {
	m.Guard.Done(ctx, c, err)
	code := "ok"
	switch {
	case err != nil && errors.Is(err, context.Canceled): // the caller went away, as workers do that stop in a long poll
		code = "canceled"
	case err != nil:
		code = err.Code.Name
	}
	m.calls.WithLabelValues(c.Name, code).Inc()
	ended := m.now()
	m.seconds.Observe(ended.Sub(c.Began).Seconds())
	if m.tracer != nil {
		traceCall(m.tracer, c, err, ended)
	}
}

// callbacks reads what is on its way to callbacks when it is asked for.
type callbacks struct{ cues *cue.Cues }

func callbackGauges() [8]*prometheus.Desc {
	gauge := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, nil) }
	breaker := func(state string) *prometheus.Desc {
		return prometheus.NewDesc("unstuck_callback_endpoints", "Callbacks that were called lately, by their breaker: closed, open (it failed several times in a row and is not called for a while) or half_open (one call tries whether it answers again).",
			nil, prometheus.Labels{"breaker": state})
	}
	return [8]*prometheus.Desc{
		gauge("unstuck_callback_queued", "Executions that wait to be called, now or later; counted up to 100,000."),
		gauge("unstuck_callback_memory_executions", "Executions that wait for their turn in memory, are on their way, or have a result that is not stored yet."),
		gauge("unstuck_callback_memory_bytes", "What these take, about."),
		gauge("unstuck_callback_in_flight", "Requests that are on their way."),
		gauge("unstuck_callback_in_flight_doubtful", "Of those, to callbacks that were slow or have not answered yet."),
		breaker("open"), breaker("half_open"), breaker("closed"),
	}
}

// Describe implements prometheus.Collector.
func (*callbacks) Describe(to chan<- *prometheus.Desc) {
	for _, d := range callbackGauges() {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *callbacks) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s := c.cues.Calls(ctx)
	for i, v := range [8]float64{float64(s.Queued), float64(s.Memory), float64(s.Bytes), float64(s.InFlight), float64(s.Doubtful), float64(s.Resting), float64(s.Trying), float64(s.Closed)} {
		to <- prometheus.MustNewConstMetric(callbackGauges()[i], prometheus.GaugeValue, v)
	}
}
