package cue

import (
	"encoding/json"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
	"unstuck/internal/testkit/pgtest"
)

// callers is how many calls run at the same time in benchmarks and races.
const callers = 64

// onEach runs a benchmark on both databases, with commits that wait for the disk.
func onEach(b *testing.B, fn func(b *testing.B, f *fixture)) {
	b.Run("sqlite", func(b *testing.B) { fn(b, newFixture(b, filepath.Join(b.TempDir(), "bench.db"), Options{})) })
	b.Run("postgres", func(b *testing.B) {
		dsn := pgtest.DSN(b)
		pgtest.Durable(b)
		fn(b, newFixture(b, dsn, Options{}))
	})
}

// stock makes n executions of one cue that are ready to be claimed, made and due one microsecond after the other, and returns
// their ids.
func (f *fixture) stock(n int) []string {
	f.Helper()
	cue := f.cue("stock", "0 0 1 1 *")
	ids := make([]string, 0, n)
	for len(ids) < n {
		es := make([]*execution, min(n-len(ids), 1000))
		for i := range es {
			at := f.cues.now() + op.Time(len(ids)+i-n)
			es[i] = &execution{
				workspace: f.ws, cueID: cue, triggeredBy: byFire, scheduledFor: at, payload: `{"task":"bench","n":1}`, maxAttempts: 3, createdAt: at,
			}
		}
		f.must(f.db.Update(f.Context(), func(tx *db.Tx) error { return f.cues.insertExecution(tx, es...) }))
		for _, e := range es {
			ids = append(ids, e.id)
		}
	}
	return ids
}

// crowd runs fn n times, by 64 goroutines, and gives each run its number.
func crowd(n int, fn func(i int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				fn(i)
			}
		})
	}
	all.Wait()
}

// BenchmarkClaimAndReport measures pairs of a claim and the report of its outcome, each through the guard, by 64 callers. The
// floor is what the database alone gives: pairs of transactions with two statements each.
func BenchmarkClaimAndReport(b *testing.B) {
	onEach(b, func(b *testing.B, f *fixture) {
		worker := f.key("worker", nil)
		b.Run("floor", func(b *testing.B) {
			ids := f.stock(callers)
			b.ResetTimer()
			crowd(b.N, func(i int) { f.bare(ids[i%callers]); f.bare(ids[i%callers]) })
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pairs/s")
			f.sql(`DELETE FROM executions`)
			f.sql(`DELETE FROM cues`)
		})
		b.Run("pairs", func(b *testing.B) {
			f.stock(b.N)
			b.ResetTimer()
			cpu := cpuTime()
			crowd(b.N, func(int) { f.pair(worker) })
			b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/pair")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pairs/s")
			f.sql(`DELETE FROM executions`)
			f.sql(`DELETE FROM cues`)
		})
	})
}

// BenchmarkBatchClaim measures executions claimed in batches of 20 by 64 callers.
func BenchmarkBatchClaim(b *testing.B) {
	onEach(b, func(b *testing.B, f *fixture) {
		worker := f.key("worker", nil)
		f.stock(b.N)
		b.ResetTimer()
		cpu := cpuTime()
		crowd((b.N+19)/20, func(int) {
			if res := f.send(worker, "execution.claim", nil, `{"worker_id":"w","max":20}`); res.Err != nil {
				b.Errorf("claim: %v", res.Err)
			}
		})
		b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/execution")
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "executions/s")
	})
}

// bare is a transaction of two statements and nothing else.
func (f *fixture) bare(id string) {
	err := f.db.Update(f.Context(), func(tx *db.Tx) error {
		if _, err := tx.Exec(`UPDATE executions SET updated_at = updated_at + 1 WHERE id = ?1`, id); err != nil {
			return err
		}
		_, err := tx.Exec(`INSERT INTO settings (name, value) VALUES (?1, '')`, newUUID(0))
		return err
	})
	if err != nil {
		f.Error(err)
	}
}

// pair claims one execution and reports it. The clock goes on, because rows lie side by side by their times.
func (f *fixture) pair(worker string) {
	f.clock.Advance(time.Microsecond)
	got := f.send(worker, "execution.claim", nil, `{"worker_id":"w"}`)
	var claimed struct {
		ID    string `json:"execution_id"`
		Token string `json:"lease_token"`
	}
	if got.Err != nil || json.Unmarshal(got.Body, &claimed) != nil {
		f.Errorf("claim: %v", got.Err)
		return
	}
	body := op.Marshal(map[string]any{"success": true, "lease_token": claimed.Token, "summary": "done"})
	if res := f.send(worker, "execution.report", map[string]string{"id": claimed.ID}, string(body)); res.Err != nil {
		f.Errorf("report: %v", res.Err)
	}
}
