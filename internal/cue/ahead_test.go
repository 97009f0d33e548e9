package cue

import (
	"testing"
	"time"
)

// What is read ahead of its due time fires at its moment as the cue is then, once, and with what came due beside it.
func TestReadAhead(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		const at = "30 10 23 11 *"
		due := time.Date(2026, 11, 23, 10, 30, 0, 0, time.UTC)
		same, moved, gone, outage := f.cue("same", at), f.cue("moved", at), f.cue("gone", at), f.cue("minutely", "* 11 23 11 *")
		known := &ahead{}
		f.clock.Set(due.Add(-time.Second))
		f.must(f.cues.fireDue(t.Context())) // sets the alarm
		if wait, err := f.cues.prepare(t.Context(), known); err != nil || wait != time.Second-lead || len(known.cues) != 0 {
			t.Errorf("a second before: wait %v, error %v, %d cues read", wait, err, len(known.cues))
		}
		f.clock.Set(due.Add(-lead / 2))
		if wait, err := f.cues.prepare(t.Context(), known); err != nil || wait != lead/2 || len(known.cues) != 3 {
			t.Errorf("shortly before: wait %v, error %v, %d cues read, want 3", wait, err, len(known.cues))
		}
		f.must(f.cues.fireKnown(t.Context(), known))
		if n := f.number("SELECT count(*) FROM executions"); n != 0 || len(known.cues) != 3 {
			t.Errorf("before the moment %d fired, and %d are still known", n, len(known.cues))
		}
		f.ok(f.admin, "cue.update", input{"id": moved, "schedule": input{"type": "recurring", "cron": "45 10 23 11 *"}})
		f.ok(f.admin, "cue.delete", input{"id": gone})
		late := f.cue("late", at)
		f.clock.Set(due)
		f.must(f.cues.fireKnown(t.Context(), known))
		f.must(f.cues.fireKnown(t.Context(), known))
		for id, want := range map[string]int64{same: 1, moved: 0, late: 1} {
			if n := f.number("SELECT count(*) FROM executions WHERE cue_id = ?1", id); n != want {
				t.Errorf("%s fired %d times, want %d", id, n, want)
			}
		}

		hour := due.Add(30 * time.Minute)
		f.clock.Set(hour.Add(-lead / 2))
		f.must(f.cues.fireDue(t.Context())) // that of "moved"
		if _, err := f.cues.prepare(t.Context(), known); err != nil || len(known.cues) != 1 {
			t.Errorf("before the outage: error %v, %d cues read, want 1", err, len(known.cues))
		}
		f.clock.Set(hour.Add(10 * time.Minute)) // the clock steps
		f.must(f.cues.fireKnown(t.Context(), known))
		for id, want := range map[string]input{outage: {"fired": 1., "coalesced": 10.}, moved: {"fired": 1.}, same: {"fired": 1.}} {
			want["closed"], want["pending"] = true, 0.
			holds(t, f.ok(f.admin, "cue.ledger", input{"id": id}), want)
		}
	})
}
