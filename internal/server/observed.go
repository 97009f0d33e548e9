package server

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"unstuck/internal/alert"
	"unstuck/internal/cue"
	"unstuck/internal/db"
)

// observed counts what the scheduler, callbacks and workers do. It is a cue.Observer. No label names a cue, a key, an address or a
// workspace, so that there are few series however much there is.
type observed struct {
	lag, batch, late, waited          prometheus.Histogram
	created, settled, attempts, ended *prometheus.CounterVec
	alerts                            *prometheus.CounterVec // to their channels
	expiries                          prometheus.Counter
}

func newObserved() *observed {
	histogram := func(name, help string, first, factor float64, count int) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(first, factor, count)})
	}
	// counter has a series for each value from the start, so that the first increase is seen.
	counter := func(name, help, label string, values ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		for _, v := range values {
			c.WithLabelValues(v)
		}
		return c
	}
	alerts := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "unstuck_alert_deliveries_total", Help: "Attempts to deliver alerts, by channel (webhook, email) and result: sent, failed (it is sent again), lost (it was given up); and e-mails about failures that were left_out."}, []string{"channel", "result"})
	for _, channel := range []string{"webhook", "email"} {
		for _, result := range []string{"sent", "failed", "lost"} {
			alerts.WithLabelValues(channel, result)
		}
	}
	alerts.WithLabelValues("email", "left_out")
	return &observed{
		alerts:  alerts,
		lag:     histogram("unstuck_scheduler_lag_seconds", "How long after its due time an execution was stored.", 0.001, 4, 10),
		batch:   histogram("unstuck_scheduler_batch_size", "Due times that one commit fired.", 1, 2, 10),
		late:    histogram("unstuck_callback_late_seconds", "How long after its moment a call of a callback began.", 0.001, 4, 10),
		waited:  histogram("unstuck_claim_wait_seconds", "How long after its due time a worker took an execution.", 0.001, 4, 12),
		created: counter("unstuck_executions_created_total", "Executions by what made them.", "triggered_by", "scheduled", "manual_fire", "replay", "chain"),
		settled: counter("unstuck_due_times_settled_total", "Due times that did not become executions.", "ending", "skipped", "coalesced"),
		attempts: counter("unstuck_callback_attempts_total", "Calls of callbacks by class: delivered, rejected (4xx), failed (5xx, no connection, no answer in time), gone (410), refused (address not allowed).", "class",
			"delivered", "rejected", "failed", "gone", "refused"),
		ended:    counter("unstuck_executions_ended_total", "Executions that ended, by status.", "status", "success", "failed", "missed", "outcome_timeout"),
		expiries: prometheus.NewCounter(prometheus.CounterOpts{Name: "unstuck_lease_expiries_total", Help: "Leases of workers that ran out without a report."}),
	}
}

func (o *observed) all() []prometheus.Collector {
	return []prometheus.Collector{o.lag, o.batch, o.late, o.waited, o.created, o.settled, o.attempts, o.ended, o.expiries, o.alerts}
}

// Fired implements cue.Observer.
func (o *observed) Fired(lag time.Duration) {
	o.lag.Observe(lag.Seconds())
	o.created.WithLabelValues("scheduled").Inc()
}

// Made implements cue.Observer.
func (o *observed) Made(by string) { o.created.WithLabelValues(by).Inc() }

// Settled implements cue.Observer.
func (o *observed) Settled(ending string, n int64) { o.settled.WithLabelValues(ending).Add(float64(n)) }

// Batch implements cue.Observer.
func (o *observed) Batch(n int) { o.batch.Observe(float64(n)) }

// Attempted implements cue.Observer.
func (o *observed) Attempted(class string, late time.Duration) {
	o.attempts.WithLabelValues(class).Inc()
	o.late.Observe(late.Seconds())
}

// Claimed implements cue.Observer.
func (o *observed) Claimed(waited time.Duration) { o.waited.Observe(waited.Seconds()) }

// LeaseEnded implements cue.Observer.
func (o *observed) LeaseEnded() { o.expiries.Inc() }

// Ended implements cue.Observer.
func (o *observed) Ended(status string) { o.ended.WithLabelValues(status).Inc() }

// alert counts an attempt to deliver an alert.
func (o *observed) alert(channel, result string) { o.alerts.WithLabelValues(channel, result).Inc() }

// store reads the figures of the database when it is asked for them.
type store struct{ db *db.DB }

func (*store) descs() (commit, batch, size *prometheus.Desc) {
	return prometheus.NewDesc("unstuck_db_commit_seconds", "How long durable commits took.", nil, nil),
		prometheus.NewDesc("unstuck_db_batch_size", "Updates that one durable commit answered.", nil, nil),
		prometheus.NewDesc("unstuck_db_size_bytes", "Size of the database, without its write-ahead log.", nil, nil)
}

// Describe implements prometheus.Collector.
func (s *store) Describe(to chan<- *prometheus.Desc) {
	commit, batch, size := s.descs()
	to <- commit
	to <- batch
	to <- size
}

// Collect implements prometheus.Collector.
func (s *store) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	commit, batch, size := s.descs()
	stats := s.db.Stats()
	to <- histogramOf(commit, stats.Commit)
	to <- histogramOf(batch, stats.Callers)
	if n, err := s.db.Size(ctx); err == nil { // otherwise it is not known now
		to <- prometheus.MustNewConstMetric(size, prometheus.GaugeValue, float64(n))
	}
}

func histogramOf(desc *prometheus.Desc, h db.Histogram) prometheus.Metric {
	buckets, below := map[float64]uint64{}, uint64(0)
	for i, bound := range h.Bounds {
		below += h.Counts[i]
		buckets[bound] = below
	}
	return prometheus.MustNewConstHistogram(desc, h.Count, h.Sum, buckets)
}

// backlog reads what waits when it is asked for it.
type backlog struct{ server *Server }

func (*backlog) descs() (waiting [4]*prometheus.Desc, workers *prometheus.Desc) {
	for i, queue := range []string{"calls", "retries", "claims", "stale"} {
		waiting[i] = prometheus.NewDesc("unstuck_queue_executions", "Executions that wait, counted among 10,000: calls that are due, retries of calls now or later, claims that a worker could make now, and stale ones, whose deadline came 30 seconds ago and was not seen to.",
			nil, prometheus.Labels{"queue": queue})
	}
	return waiting, prometheus.NewDesc("unstuck_workers_active", "Workers that were heard in the last 180 seconds.", nil, nil)
}

// Describe implements prometheus.Collector.
func (b *backlog) Describe(to chan<- *prometheus.Desc) {
	waiting, workers := b.descs()
	for _, d := range waiting {
		to <- d
	}
	to <- workers
}

// Collect implements prometheus.Collector.
func (b *backlog) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	waits, err := b.server.backlog.read(b.server.deps.Now(), func() (cue.Backlog, error) { return b.server.cues.Backlog(ctx) })
	if err != nil { // not known now
		return
	}
	waiting, workers := b.descs()
	for i, n := range [4]int64{waits.Outbox, waits.Retries, waits.Claims, waits.Stale} {
		to <- prometheus.MustNewConstMetric(waiting[i], prometheus.GaugeValue, float64(n))
	}
	to <- prometheus.MustNewConstMetric(workers, prometheus.GaugeValue, float64(waits.Workers))
}

// alerts reads the figures of alerts when it is asked for them.
type alerts struct{ of *alert.Alerts }

func (*alerts) descs() (raised, open *prometheus.Desc) {
	return prometheus.NewDesc("unstuck_alerts_raised_total", "Alerts that were raised, by type.", []string{"type"}, nil),
		prometheus.NewDesc("unstuck_alerts_open", "Alerts that are open, by type.", []string{"type"}, nil)
}

// Describe implements prometheus.Collector.
func (a *alerts) Describe(to chan<- *prometheus.Desc) {
	raised, open := a.descs()
	to <- raised
	to <- open
}

// Collect implements prometheus.Collector.
func (a *alerts) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	stats, err := a.of.Stats(ctx)
	if err != nil { // not known now
		return
	}
	raised, open := a.descs()
	for kind, n := range stats.Raised {
		to <- prometheus.MustNewConstMetric(raised, prometheus.CounterValue, float64(n), kind)
	}
	for kind, n := range stats.Open {
		to <- prometheus.MustNewConstMetric(open, prometheus.GaugeValue, float64(n), kind)
	}
}
