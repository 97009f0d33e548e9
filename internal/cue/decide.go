package cue

import (
	"fmt"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Endings of a due time, beside becoming an execution.
const (
	endFired     = "fired"     // of executions that were removed, with their cue or by retention
	endCoalesced = "coalesced" // merged into a later one that fired
	endSkipped   = "skipped"
	endMissed    = "missed" // could not be fired
)

// Why a due time was skipped, merged, or is a row although it fired.
const (
	reasonPaused  = "paused"
	reasonDeleted = "deleted"
	reasonPlan    = "plan_limit"
	reasonPolicy  = "policy"     // the cue asks for missed due times to be skipped
	reasonCap     = "replay_cap" // more were missed than are replayed
	reasonLate    = "late"       // of those merged: the scheduler looked when the next was due already

	reasonRetention = "retention" // of those fired: their executions are kept no longer
)

// entry is one row of the ledger: a run of due times of one version of a cue that did not become executions.
type entry struct {
	cueID   string
	version int64
	span
	ending, reason string
}

// fired is an execution that decide makes.
type fired struct {
	*firing
	id  string
	due op.Time
}

// decide gives every due time of some cues its ending, by the policy of each. Where the plan has no room they are skipped. The
// cues are as they were when the times came due, so an execution has the payload of then; the caller moves them on. What is to
// be called goes to the sender after the commit as far as `to` has room for it (nil: none), and is queued otherwise.
func (c *Cues) decide(tx *db.Tx, fs []firing, now op.Time, to *parcel) (n int, err error) {
	verdicts := make([]verdict, len(fs))
	for i := range fs {
		if f := &fs[i]; f.due.count > 0 {
			verdicts[i] = f.sched.catchUp(f.catchUp, f.due, now)
		}
	}
	room, err := c.admitAll(tx, fs, verdicts, now)
	if err != nil {
		return 0, err
	}
	var entries []entry
	var all []fired
	for i := range fs {
		f, v := &fs[i], &verdicts[i]
		over := v.cut(room[f.workspace])
		room[f.workspace] -= int64(len(v.fire))
		f.fires = int64(len(v.fire))
		c.sawSettled(tx, endSkipped, over.count+v.skipped.count)
		c.sawSettled(tx, endCoalesced, v.merged.count)
		if over.count > 0 {
			if entries, err = skipForPlan(tx, entries, f, over, now); err != nil {
				return 0, err
			}
		}
		if v.skipped.count > 0 {
			entries = append(entries, entry{f.id, f.version, v.skipped, endSkipped, v.reason})
		}
		if v.merged.count > 0 {
			entries = append(entries, entry{f.id, f.version, v.merged, endCoalesced, reasonLate})
		}
		for _, at := range v.fire {
			all = append(all, fired{firing: f, id: newUUID(now), due: at})
		}
	}
	if err := c.insertFired(tx, all, now, to); err != nil {
		return 0, err
	}
	return len(all), writeLedger(tx, entries, now)
}

// insertFired stores executions whose time has come: for workers to take, for the sender, or queued for it.
func (c *Cues) insertFired(tx *db.Tx, all []fired, now op.Time, to *parcel) error {
	if len(all) == 0 {
		return nil
	}
	n := len(all)
	ids, executions, due := make([]string, n), make([]string, n), make([]op.Time, n)
	statuses, deadlines, deliver := make([]string, n), make([]op.Time, n), make([]op.Time, n)
	sums, waiting, lanes := tally{}, map[string]bool{}, map[lane]bool{}
	for i := range all {
		f := &all[i]
		ids[i], executions[i], due[i] = f.firing.id, f.id, f.due
		statuses[i], deadlines[i], deliver[i] = statusPending, -1, -1
		switch {
		case f.transport == transportWorker:
			deadlines[i] = in(now, c.UnclaimedAfter)
			waiting[f.workspace] = true
		case to.add(f, now):
			statuses[i], deadlines[i] = statusDelivering, callDeadline(now, f.call.timeout)
		default:
			deliver[i] = now
			lanes[lane{f.workspace, f.endpoint}] = true
		}
		sums.created(&execution{workspace: f.workspace, cueID: f.firing.id, status: statuses[i], createdAt: now})
	}
	if _, err := tx.Exec(sqlDueFire, ids, executions, due, statuses, deadlines, deliver, now); err != nil {
		return fmt.Errorf("store executions that are due: %w", err)
	}
	tx.AfterCommit(func() {
		for workspace := range waiting {
			c.wake(workspace)
		}
		for l := range lanes {
			c.courier.lower(l, now)
		}
		to.keep()
	})
	c.sawFired(tx, all)
	c.publishFired(tx, all, now)
	return sums.save(tx)
}

// skipForPlan skips due times of a cue. They join the ledger row of those skipped just before, so that a month over the limit
// leaves one row and not one a minute.
func skipForPlan(tx *db.Tx, entries []entry, f *firing, over span, now op.Time) ([]entry, error) {
	if before, ok := f.sched.last(over.first - 1); ok {
		n, err := tx.Exec(sqlLedgerExtend, f.id, f.version, before, over.last, over.count, now, reasonPlan)
		if err != nil || n > 0 {
			return entries, err
		}
	}
	return append(entries, entry{f.id, f.version, over, endSkipped, reasonPlan}), nil
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
