package cue

import (
	"database/sql"
	"errors"
	"fmt"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

// version is a span in which a cue had one schedule, zone and status: [from, to). Together they say which due times there were.
type version struct {
	number     int64
	name       string
	kind, cron string
	at         *op.Time // of once: when it is due in this version, which after a resume is not when it was asked for
	timezone   string
	status     string
	changedBy  string // key id; "" for the server
	reason     string // of a pause by the server
	from       op.Time
	to         *op.Time // nil while it holds
}

func (v *version) scan(r scanner) error {
	return r.Scan(&v.number, &v.name, &v.kind, &v.cron, &v.at, &v.timezone, &v.status, &v.from, &v.to, &v.changedBy, &v.reason)
}

// change writes a cue as it is to be. When its schedule, zone or status differs from before, what came due until now is decided
// by what held until now, and a new version begins. q is completed with what follows from that.
func (c *Cues) change(tx *db.Tx, old, q *cue, now op.Time) error {
	switch {
	case old.status != q.status || !sameSchedule(old, q):
		if err := c.shift(tx, old, q, now); err != nil {
			return fmt.Errorf("change cue %s: %w", q.id, err)
		}
	case old.name != q.name:
		if _, err := tx.Exec(sqlVersionRename, q.id, q.version, q.name); err != nil {
			return fmt.Errorf("rename cue %s: %w", q.id, err)
		}
	}
	return saveCue(tx, q)
}

func sameSchedule(a, b *cue) bool {
	sameAt := a.at == b.at || a.at != nil && b.at != nil && *a.at == *b.at
	return a.kind == b.kind && a.cron == b.cron && sameAt && a.timezone == b.timezone
}

// shift ends the version that holds and opens the next. Versions never overlap: after a step back of the clock the next begins
// where the last one stood, so nothing fires again.
func (c *Cues) shift(tx *db.Tx, old, q *cue, now op.Time) error {
	moment, err := c.settle(tx, old, now, false)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(sqlVersionClose, old.id, old.version, moment+1); err != nil {
		return err
	}
	q.firedCount, q.version = old.firedCount, old.version+1
	if err := c.begin(tx, q, moment); err != nil {
		return err
	}
	sums := tally{}
	sums.add(q.workspace, countCues(old.status), -1)
	sums.add(q.workspace, countCues(q.status), 1)
	return sums.save(tx)
}

// settle decides what came due until now under the version that holds, and returns the moment up to which all is decided. Due
// times of a pause, and of a cue that is being deleted, are skipped.
func (c *Cues) settle(tx *db.Tx, q *cue, now op.Time, deleted bool) (moment op.Time, err error) {
	if moment = max(now, q.decided); moment == q.decided {
		return moment, nil
	}
	at := q.at
	if q.status == active {
		at = q.nextRun
	}
	if !q.live() || q.kind == once && at == nil {
		return moment, nil
	}
	s, err := c.compile(q.kind, q.cron, q.timezone, deref(at))
	if err != nil {
		return 0, err
	}
	due := s.due(q.decided, moment)
	switch {
	case due.count == 0:
	case q.status == paused:
		c.sawSettled(tx, endSkipped, due.count)
		err = writeLedger(tx, []entry{{q.id, q.version, due, endSkipped, reasonPaused}}, now)
	case deleted:
		c.sawSettled(tx, endSkipped, due.count)
		err = writeLedger(tx, []entry{{q.id, q.version, due, endSkipped, reasonDeleted}}, now)
	default:
		var n int
		n, err = c.decide(tx, []firing{{
			id: q.id, name: q.name, workspace: q.workspace, version: q.version, sched: s, due: due, catchUp: q.catchUp, transport: q.transport, endpoint: q.endpoint,
		}}, now, nil)
		if q.firedCount += int64(n); n > 0 && err == nil {
			_, err = tx.Exec(sqlCueExecutionsAdd, q.id, n)
		}
	}
	return moment, err
}

func deref(t *op.Time) op.Time {
	if t == nil {
		return 0
	}
	return *t
}

// begin opens the version of a cue that holds from now on: due times after `moment` are its. It sets when the cue is next due.
func (c *Cues) begin(tx *db.Tx, q *cue, moment op.Time) error {
	q.decided, q.nextRun = moment, nil
	at := q.at
	switch {
	case q.status != active:
	case q.kind == once:
		due, err := onceDue(tx, q, moment)
		if err != nil {
			return err
		}
		if due > moment {
			at, q.nextRun = &due, &due
		}
	default:
		s, err := c.book.recurring(q.cron, q.timezone)
		if err != nil {
			return err
		}
		if next, ok := s.next(moment); ok {
			q.nextRun = &next
		}
	}
	if next := q.nextRun; next != nil {
		tx.AfterCommit(func() { c.alarm.lower(*next) })
	}
	if _, err := tx.Exec(sqlVersionOpen, q.id, q.version, q.workspace, q.name, q.kind, q.cron, at, q.timezone, q.status, moment+1, q.changedBy, q.pauseReason); err != nil {
		return fmt.Errorf("open version %d of cue %s: %w", q.version, q.id, err)
	}
	return nil
}

// onceDue is when an active one-time cue is due. One whose time is over, as after a pause, is due at once (CueAPI wire contract
// 2.3), unless its execution is still under way: then its time has been.
func onceDue(tx *db.Tx, q *cue, moment op.Time) (op.Time, error) {
	if *q.at > moment {
		return *q.at, nil
	}
	var running int64
	if err := tx.Row(sqlCueOnceRunning, q.id).Scan(&running); err != nil {
		return 0, fmt.Errorf("look whether cue %s is under way: %w", q.id, err)
	}
	if running > 0 {
		return *q.at, nil
	}
	return moment + 1, nil
}

// finishCue notes that an execution of a cue ended: with a report or an answer, as a success or not. A one-time cue is over with
// it. runs is what it adds to the cue's run_count: 1 for a worker's report and for a call, 0 when the call was counted before. A
// cue that is gone is left alone.
func (c *Cues) finishCue(tx *db.Tx, cueID string, success bool, runs int64, at op.Time) error {
	_, err := c.finish(tx, cueID, success, runs, at)
	return err
}

// failCue is finishCue for an execution that ended without a report: nobody took it, its last lease ran out, or its last attempt
// failed. A cue that asks for it is paused (CueAPI wire contract 3.6).
func (c *Cues) failCue(tx *db.Tx, cueID, execution string, runs int64, at op.Time) error {
	after, err := c.finish(tx, cueID, false, runs, at)
	if err == nil && after.tell {
		err = c.tellFailure(tx, execution, at)
	}
	if err == nil {
		err = c.alertOn(tx, execution, false, at)
	}
	if err == nil && after.pause {
		err = c.end(tx, cueID, paused, "Execution "+execution+" failed, and the cue asks to be paused then.", at)
	}
	if err != nil || !after.mail {
		return err
	}
	return c.mailFailure(tx, execution, after.pause, at)
}

// disable is failCue for an execution whose callback answered 410: it wants no more calls, so a recurring cue is paused.
func (c *Cues) disable(tx *db.Tx, cueID, execution string, at op.Time) error {
	after, err := c.finish(tx, cueID, false, 1, at)
	if err == nil && after.tell {
		err = c.tellFailure(tx, execution, at)
	}
	if err != nil {
		return err
	}
	q, err := readCue(tx, sqlCueByID, cueID)
	if err == nil && q != nil && q.status == active && q.kind == recurring {
		err = c.end(tx, cueID, paused, pausedGone+execution+": it wants no more calls. Resume the cue when it does.", at)
	}
	if err != nil {
		return err
	}
	err = c.alertOn(tx, execution, true, at) // after the pause, so that it says how the cue is resumed
	if err != nil || !after.mail {
		return err
	}
	return c.mailFailure(tx, execution, false, at) // what mends it says that it was paused
}

// pausedGone begins the reason of a pause after a 410.
const pausedGone = "The callback answered 410 (gone) to execution "

// onFailure is what a cue asks for when an execution failed for good.
type onFailure struct {
	pause bool // and it is active and recurs
	tell  bool // it names an address
	mail  bool // it asks for an e-mail
}

// finish ends a one-time cue, and returns what is to follow from a failure.
func (c *Cues) finish(tx *db.Tx, cueID string, success bool, runs int64, at op.Time) (after onFailure, err error) {
	var kind, status string
	err = tx.Row(sqlCueEnded, cueID, at, runs).Scan(&kind, &status, &after.pause, &after.tell, &after.mail)
	if errors.Is(err, sql.ErrNoRows) {
		return onFailure{}, nil
	}
	if err != nil {
		return after, fmt.Errorf("note the end of an execution of cue %s: %w", cueID, err)
	}
	if kind != once {
		after.pause = after.pause && status == active
		return after, nil
	}
	after.pause = false
	end := failed
	if success {
		end = completed
	}
	if status == end {
		return after, nil
	}
	return after, c.end(tx, cueID, end, "", at)
}

// pausedFor is the detail of the audit row of such a pause.
type pausedFor struct {
	Reason string `json:"reason"`
}

// end gives a cue another status, from the server's side. A pause needs a reason, and is in the audit log.
func (c *Cues) end(tx *db.Tx, cueID, status, reason string, now op.Time) error {
	old, err := readCue(tx, sqlCueByID, cueID)
	if err != nil || old == nil {
		return err
	}
	q := *old
	q.status, q.pauseReason, q.updatedAt = status, reason, now
	if err := c.change(tx, old, &q, now); err != nil || status != paused {
		return err
	}
	return c.Access.RecordServer(tx, q.workspace, "cue.pause", access.Event{Object: "cue", ID: q.id, Name: q.name, Detail: pausedFor{reason}})
}
