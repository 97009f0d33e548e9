package cue

import (
	"testing"
	"time"

	"unstuck/internal/db"
)

// A minute without a sign of the scheduler is an absence; less is none, nor is a step back of the clock.
func TestPresence(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		sign := func(after time.Duration) {
			t.Helper()
			f.clock.Advance(after)
			f.must(f.cues.sign(f.Context()))
		}
		for _, after := range []time.Duration{signEvery - 1, signEvery, absentAfter, -time.Hour, time.Second, absentAfter - time.Second} {
			sign(after)
		}
		if n := f.number("SELECT count(*) FROM absences"); n != 0 {
			t.Errorf("%d absences, want none", n)
		}
		from := f.cues.now()
		sign(absentAfter + time.Second)
		f.clock.Advance(time.Hour)
		f.restart()
		for _, c := range []struct {
			at     time.Duration
			absent bool
		}{{-time.Second, false}, {0, true}, {absentAfter, true}, {absentAfter + 30*time.Minute, true}, {absentAfter + 2*time.Hour, false}} {
			at := in(from, c.at)
			f.must(f.db.View(f.Context(), func(tx *db.Tx) error {
				_, _, absent, err := absence(tx, at)
				if absent != c.absent {
					t.Errorf("%s after the last sign: absent is %t", c.at, absent)
				}
				return err
			}))
		}
	})
}
