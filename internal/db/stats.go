package db

import (
	"context"
	"sync"
	"time"
)

// Stats are counters since the database was opened.
type Stats struct {
	Callers Histogram // updates in one commit
	Commit  Histogram // seconds that a commit took
	Reruns  uint64    // batches that ran again, because one of their callers spoilt them or another server won
	Unknown uint64    // commits that failed with an unknown fate
	Waiting int       // updates that wait for their turn now
}

// Histogram counts values by size, as Prometheus does.
type Histogram struct {
	Bounds []float64 // upper bounds, inclusive
	Counts []uint64  // values up to the bound of the same place and above the one before; the last counts what is above all
	Sum    float64
	Count  uint64
}

// stats is where the writer counts. Its zero value is ready.
type stats struct {
	mu  sync.Mutex
	now Stats
}

// Stats returns the counters.
func (d *DB) Stats() Stats {
	d.stats.mu.Lock()
	defer d.stats.mu.Unlock()
	d.stats.prepare()
	now := d.stats.now
	now.Callers, now.Commit = now.Callers.copy(), now.Commit.copy()
	now.Waiting = len(d.queue)
	return now
}

func (s *stats) prepare() {
	if s.now.Callers.Bounds == nil {
		s.now.Callers = histogram(1, 2, 4, 8, 16, 32, 64, maxBatch)
		s.now.Commit = histogram(0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
	}
}

func (s *stats) commit(callers int, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prepare()
	s.now.Callers.add(float64(callers))
	s.now.Commit.add(took.Seconds())
}

func (s *stats) rerun() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Reruns++
}

func (s *stats) unknown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Unknown++
}

func histogram(bounds ...float64) Histogram {
	return Histogram{Bounds: bounds, Counts: make([]uint64, len(bounds)+1)}
}

func (h *Histogram) add(v float64) {
	i := 0
	for i < len(h.Bounds) && v > h.Bounds[i] {
		i++
	}
	h.Counts[i]++
	h.Sum += v
	h.Count++
}

func (h Histogram) copy() Histogram {
	h.Counts = append([]uint64(nil), h.Counts...)
	return h
}

// Size is how many bytes the database takes, without its write-ahead log.
func (d *DB) Size(ctx context.Context) (n int64, err error) {
	query := "SELECT c.page_count * s.page_size FROM pragma_page_count AS c, pragma_page_size AS s"
	if d.Postgres() {
		query = "SELECT pg_database_size(current_database())"
	}
	err = d.View(ctx, func(tx *Tx) error { return tx.Row(query).Scan(&n) })
	return n, err
}
