package cue

import (
	"fmt"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Endings of a due time, beside becoming an execution.
const (
	endFired     = "fired"     // of executions that were removed with their cue
	endCoalesced = "coalesced" // merged into a later one that fired
	endSkipped   = "skipped"
	endMissed    = "missed" // could not be fired
)

// Why a due time was skipped.
const (
	reasonPaused  = "paused"
	reasonDeleted = "deleted"
	reasonPlan    = "plan_limit"
	reasonLate    = "late" // of those merged: the scheduler looked when the next was due already
)

// entry is one row of the ledger: a run of due times of one version of a cue that did not become executions.
type entry struct {
	cueID   string
	version int64
	span
	ending, reason string
}

// decide gives every due time of some cues its ending, by run_once_if_missed: the latest becomes an execution, those before it
// are merged into it. Where the plan has no room they are skipped. The cues are as they were when the times came due, so the
// execution has the payload of then; the caller moves them on.
func (c *Cues) decide(tx *db.Tx, fs []firing, now op.Time) (fired int, err error) {
	room, err := c.admitAll(tx, fs, now)
	if err != nil {
		return 0, err
	}
	var entries []entry
	var ids, executions []string
	var due []op.Time
	sums := tally{}
	for i := range fs {
		f := &fs[i]
		if f.due.count == 0 {
			continue
		}
		if f.fires = room[f.workspace] > 0; !f.fires {
			if entries, err = skipForPlan(tx, entries, f, now); err != nil {
				return 0, err
			}
			continue
		}
		room[f.workspace]--
		if merged := f.sched.but(f.due); merged.count > 0 {
			entries = append(entries, entry{f.id, f.version, merged, endCoalesced, reasonLate})
		}
		ids, executions, due = append(ids, f.id), append(executions, newUUID()), append(due, f.due.last)
		sums.created(&execution{workspace: f.workspace, cueID: f.id, status: statusPending, createdAt: now})
	}
	if len(ids) > 0 {
		if _, err := tx.Exec(sqlDueFire, ids, executions, due, now, in(now, c.UnclaimedAfter)); err != nil {
			return 0, fmt.Errorf("store executions that are due: %w", err)
		}
		tx.AfterCommit(func() {
			for workspace := range room {
				c.wake(workspace)
			}
		})
	}
	if err := writeLedger(tx, entries, now); err != nil {
		return 0, err
	}
	return len(ids), sums.save(tx)
}

// skipForPlan skips all due times of a cue. They join the ledger row of those skipped just before, so that a month over the
// limit leaves one row and not one a minute.
func skipForPlan(tx *db.Tx, entries []entry, f *firing, now op.Time) ([]entry, error) {
	if before, ok := f.sched.last(f.due.first - 1); ok {
		n, err := tx.Exec(sqlLedgerExtend, f.id, f.version, before, f.due.last, f.due.count, now, reasonPlan)
		if err != nil || n > 0 {
			return entries, err
		}
	}
	return append(entries, entry{f.id, f.version, f.due, endSkipped, reasonPlan}), nil
}

func writeLedger(tx *db.Tx, entries []entry, at op.Time) error {
	if len(entries) == 0 {
		return nil
	}
	n := len(entries)
	ids, endings, reasons := make([]string, n), make([]string, n), make([]string, n)
	versions, first, last, counts := make([]int64, n), make([]op.Time, n), make([]op.Time, n), make([]int64, n)
	for i, e := range entries {
		ids[i], versions[i], endings[i], reasons[i] = e.cueID, e.version, e.ending, e.reason
		first[i], last[i], counts[i] = e.first, e.last, e.count
	}
	if _, err := tx.Exec(sqlLedgerAdd, ids, versions, first, last, counts, endings, reasons, at); err != nil {
		return fmt.Errorf("write the ledger: %w", err)
	}
	return nil
}
