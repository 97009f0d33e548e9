package cue

import (
	"slices"
	"time"

	"unstuck/internal/op"
)

// What becomes of due times that were missed (CueAPI wire contract 10.1). Each is decided in one look, however many they are.
const (
	runOnce    = "run_once_if_missed" // the latest fires, the others are merged into it
	skipMissed = "skip_missed"        // those that are late by more than missedAfter are skipped
	replayAll  = "replay_all_missed"  // each fires, the latest replayMost of them
)

// replayAllShort is how CueAPI's command line spells replayAll.
const replayAllShort = "replay_all"

const (
	missedAfter = time.Minute // a due time that could not be fired for so long counts as missed
	replayMost  = 100
)

// verdict is how the due times of one look end, if the plan lets them.
type verdict struct {
	fire    []op.Time // become executions, oldest first
	merged  span      // coalesced into the first of fire
	skipped span      // skipped, for this reason
	reason  string
}

// catchUp gives every due time of a run its ending by a policy.
func (s schedule) catchUp(policy string, due span, now op.Time) (v verdict) {
	switch policy {
	case skipMissed:
		late := in(now, -missedAfter)
		if v.skipped = s.clip(due, due.first, late); v.skipped.count > 0 {
			v.reason = reasonPolicy
			due = s.clip(due, late, due.last+1)
		}
		if due.count == 0 {
			return v
		}
	case replayAll:
		for at, ok := due.last, true; ok && at >= due.first && len(v.fire) < replayMost; at, ok = s.last(at - 1) {
			v.fire = append(v.fire, at)
		}
		slices.Reverse(v.fire)
		if oldest := v.fire[0]; oldest > due.first {
			v.skipped, v.reason = s.clip(due, due.first, oldest), reasonCap
		}
		return v
	}
	v.fire, v.merged = []op.Time{due.last}, s.but(due)
	return v
}

// cut leaves room for so many executions: the latest. What it takes away is skipped, with all that was to be merged into it.
func (v *verdict) cut(room int64) (over span) {
	n := int64(len(v.fire)) - room
	if n <= 0 {
		return span{}
	}
	over = span{v.fire[0], v.fire[n-1], n}
	if v.merged.count > 0 {
		over.first, over.count = v.merged.first, over.count+v.merged.count
		v.merged = span{}
	}
	v.fire = v.fire[n:]
	return over
}
