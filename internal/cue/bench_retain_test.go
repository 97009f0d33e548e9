package cue

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// BenchmarkRetention measures how long pairs of a claim and a report take for 8 callers, with nothing beside them and while retention
// removes executions with evidence of 200 cues (20,000, or UNSTUCK_BENCH_RETAIN), and how many of these go in a second.
func BenchmarkRetention(b *testing.B) {
	n, err := strconv.Atoi(os.Getenv("UNSTUCK_BENCH_RETAIN"))
	if err != nil {
		n = 20_000
	}
	most := int64(40_000) // pairs
	if testing.Short() {
		n, most = 1000, 100
	}
	onEach(b, func(b *testing.B, f *fixture) {
		f.cues.RetainFor = 24 * time.Hour
		f.bury(n)
		f.stock(int(most + most/4))
		worker := f.key("worker", nil)
		report := func(name string, times []time.Duration) {
			slices.Sort(times)
			for _, p := range []int{50, 99} {
				b.ReportMetric(float64(times[len(times)*p/100].Microseconds())/1000, fmt.Sprintf("%s-p%d-ms", name, p))
			}
		}
		b.ResetTimer()
		report("alone", f.pairs(worker, most/4, nil))
		done := make(chan struct{})
		began := time.Now()
		go func() {
			defer close(done)
			if err := f.cues.Retain(f.Context()); err != nil {
				b.Error(err)
			}
			b.ReportMetric(float64(f.cues.Retained().Removed)/time.Since(began).Seconds(), "removed/s")
		}()
		report("beside", f.pairs(worker, most, done))
		<-done
	})
}

// pairs makes pairs, at most so many and until something is done, and says how long each took.
func (f *fixture) pairs(worker string, most int64, done <-chan struct{}) (times []time.Duration) {
	var mu sync.Mutex
	var made atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for made.Add(1) <= most {
				select {
				case <-done:
					return
				default:
				}
				began := time.Now()
				f.pair(worker)
				took := time.Since(began)
				mu.Lock()
				times = append(times, took)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return times
}

// bury makes n executions of 200 cues that ended long ago.
func (f *fixture) bury(n int) {
	f.Helper()
	const cues = 200
	start := in(f.cues.now(), -30*24*time.Hour) / 60_000_000 * 60_000_000
	ids := make([]string, cues)
	for i := range ids {
		ids[i] = f.cue(fmt.Sprint("buried ", i), "* * * * *")
	}
	f.sql("UPDATE cue_versions SET from_at = 0")
	for at := 0; at < n; at += 1000 {
		var es []*execution
		for i := at; i < min(n, at+1000); i++ {
			due := start + op.Time(i/cues)*60_000_000
			es = append(es, &execution{
				workspace: f.ws, cueID: ids[i%cues], triggeredBy: byScheduler, scheduledFor: due, payload: `{"task":"bench","n":1}`, maxAttempts: 3, createdAt: due + op.Time(i%cues),
			})
		}
		f.must(f.db.Update(f.Context(), func(tx *db.Tx) error { return f.cues.insertExecution(tx, es...) }))
	}
	f.sql(`UPDATE executions SET status = 'success', deadline = NULL, outcome_state = 'reported_success', outcome_at = created_at, updated_at = created_at`)
	f.sql(`INSERT INTO evidence (` + linkColumns + `) SELECT created_at, id, 1, created_at, '', 'outcome', '{"report":{"success":true}}', 1, id FROM executions`)
	f.sql(`ANALYZE`) // as a database has it that grew by and by
}
