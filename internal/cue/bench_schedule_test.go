package cue

import (
	"fmt"
	"io"
	"testing"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// plant stores n cues that are due every minute, without asking anybody.
func (f *fixture) plant(n int) {
	f.Helper()
	next := op.TimeOf(epoch.Truncate(time.Minute).Add(time.Minute))
	template := cue{workspace: f.ws, status: active, transport: transportWorker, kind: recurring, cron: "* * * * *", timezone: "UTC",
		callback: `{"url":null,"method":"POST","headers":{}}`, payload: `{"task":"t","n":1}`, task: "t", maxAttempts: 3, backoff: "[1,5,15]",
		catchUp: runOnce, nextRun: &next, version: 1, decided: f.cues.now(), createdAt: f.cues.now(), updatedAt: f.cues.now()}
	f.must(f.db.Update(f.Context(), func(tx *db.Tx) error {
		for i := range n {
			q := template
			q.id = fmt.Sprintf("cue_%012d", i)
			q.name = q.id
			if _, err := tx.Exec(sqlCueInsert, q.values()...); err != nil {
				return err
			}
			if _, err := tx.Exec(sqlVersionOpen, q.id, 1, q.workspace, q.name, q.kind, q.cron, nil, q.timezone, q.status, q.decided+1, "", ""); err != nil {
				return err
			}
		}
		return nil
	}))
}

// How long it takes until the last of 1,000 cues that are due at one instant is stored for its workers.
func BenchmarkThousandDueAtOnce(b *testing.B) {
	onEach(b, func(b *testing.B, f *fixture) {
		f.plant(1000)
		for b.Loop() {
			f.clock.Advance(time.Minute)
			if err := f.cues.fireDue(b.Context()); err != nil {
				b.Fatal(err)
			}
			if p := f.cues.Pulse(); p.Fired != 1000 {
				b.Fatalf("%d fired", p.Fired)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/1000cues")
	})
}

// How long it takes to fire one cue.
func BenchmarkOneDue(b *testing.B) {
	onEach(b, func(b *testing.B, f *fixture) {
		f.plant(1)
		for b.Loop() {
			f.clock.Advance(time.Minute)
			if err := f.cues.fireDue(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// What a look costs among 100,000 cues of which none is due. The scheduler looks once a second when nothing happens.
func BenchmarkIdleLook(b *testing.B) {
	onEach(b, func(b *testing.B, f *fixture) {
		if testing.Short() { // it shows only that the benchmark works
			f.plant(1000)
		} else {
			f.plant(100_000)
		}
		for b.Loop() {
			if err := f.cues.fireDue(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(100*b.Elapsed().Seconds()/float64(b.N), "%core")
	})
}

// The same while ten watch, and read as fast as they can.
func BenchmarkThousandDueAtOnceWatched(b *testing.B) {
	onEach(b, func(b *testing.B, f *fixture) {
		f.plant(1000)
		for range 10 {
			go f.call(f.admin, "live.watch", nil).Send(nowhere{io.Discard})
		}
		for b.Loop() {
			f.clock.Advance(time.Minute)
			if err := f.cues.fireDue(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/1000cues")
	})
}

// nowhere is a reader that is never slow.
type nowhere struct{ io.Writer }

func (nowhere) Flush() error { return nil }

func (nowhere) SetWriteDeadline(time.Time) error { return nil }
