package cue

import (
	"testing"
	"time"

	"unstuck/internal/cron"
	"unstuck/internal/op"
)

// What becomes of due times that were missed, by policy, and how the plan's limit cuts it (CUES promises 1).
func TestCatchUp(t *testing.T) {
	spec, err := cron.Parse("* * * * *")
	if err != nil {
		t.Fatal(err)
	}
	s := schedule{kind: recurring, spec: spec, zone: time.UTC}
	now := op.TimeOf(epoch) // 40 s past the minute
	ago := func(d time.Duration) op.Time { return in(now, -d) }
	for _, c := range []struct {
		policy        string
		away          time.Duration
		room          int64
		fire          int
		merged        int64
		skipped, over int64
		reason        string
	}{
		{runOnce, 50 * time.Second, 9, 1, 0, 0, 0, ""},
		{runOnce, time.Hour, 9, 1, 59, 0, 0, ""},
		{runOnce, time.Hour, 0, 0, 0, 0, 60, ""},
		{skipMissed, 50 * time.Second, 9, 1, 0, 0, 0, ""},
		{skipMissed, time.Hour, 9, 1, 0, 59, 0, reasonPolicy},
		{skipMissed, time.Hour, 0, 0, 0, 59, 1, reasonPolicy},
		{replayAll, 50 * time.Second, 9, 1, 0, 0, 0, ""},
		{replayAll, time.Hour, 99, 60, 0, 0, 0, ""},
		{replayAll, time.Hour, 10, 10, 0, 0, 50, ""},
		{replayAll, 30 * 24 * time.Hour, 999, 100, 0, 30*24*60 - 100, 0, reasonCap},
	} {
		due := s.due(ago(c.away), now)
		v := s.catchUp(c.policy, due, now)
		over := v.cut(c.room)
		if len(v.fire) != c.fire || v.merged.count != c.merged || v.skipped.count != c.skipped || over.count != c.over || v.reason != c.reason {
			t.Errorf("%s after %v with room for %d: fires %d, merges %d, skips %d (%s), over the plan %d", c.policy, c.away, c.room, len(v.fire), v.merged.count, v.skipped.count, v.reason, over.count)
		}
		if sum := int64(len(v.fire)) + v.merged.count + v.skipped.count + over.count; sum != due.count {
			t.Errorf("%s after %v: %d due times have an ending, of %d", c.policy, c.away, sum, due.count)
		}
		if c.fire > 0 && v.fire[len(v.fire)-1] != due.last {
			t.Errorf("%s after %v: the latest did not fire", c.policy, c.away)
		}
	}
}

// Thirty days of an every-minute cue are decided with one row in the ledger, whatever the policy.
func TestThirtyDaysMissed(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		for policy, executions := range map[string]int64{runOnce: 1, skipMissed: 1, replayAll: replayMost} {
			for _, transport := range []string{transportWorker, transportWebhook} {
				id := f.ok(f.admin, "cue.create", input{"name": policy + transport, "cron": "* * * * *", "transport": transport, "callback_url": "https://203.0.113.9/", "catch_up": policy})["id"]
				f.clock.Advance(30 * 24 * time.Hour)
				f.settle()
				rows := f.number("SELECT count(*) FROM ledger WHERE cue_id = ?1", id)
				n := f.number("SELECT count(*) FROM executions WHERE cue_id = ?1", id)
				if rows != 1 || n != executions {
					t.Errorf("%s, %s: %d rows and %d executions, want 1 and %d", policy, transport, rows, n, executions)
				}
				if l := f.ok(f.admin, "cue.ledger", input{"id": id, "from": op.TimeOf(epoch)}); l["closed"] != true || l["expected"] != 30.*24*60 {
					t.Errorf("%s, %s: the ledger says %v", policy, transport, l)
				}
				f.ok(f.admin, "cue.delete", input{"id": id})
			}
		}
	})
}
