package cue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// sweepMost is how many executions one transaction of the sweep ends or offers again, so that callers wait little for it.
const sweepMost = 200

const (
	unclaimedMessage  = "No worker claimed this execution within timeout window"
	unreportedMessage = "Nobody reported how it ended within the time that the cue gives"
)

// ending is what the clock has to know of an execution.
type ending struct {
	id, workspace, cueID, status string
	transport                    string
	attempts, maxAttempts        int64
	worker                       string
	createdAt, deadline          op.Time
	cueName                      string
}

func (e *ending) scan(r scanner) error {
	return r.Scan(&e.id, &e.workspace, &e.cueID, &e.status, &e.transport, &e.attempts, &e.maxAttempts, &e.worker, &e.createdAt, &e.deadline, &e.cueName)
}

// sweep ends what is over at a moment. An execution whose lease ran out is offered again, or has failed when it was handed out
// as often as it may be; one that nobody took in time is missed.
func (c *Cues) sweep(ctx context.Context, now op.Time) error {
	for {
		over, err := c.anyOver(ctx, now) // before asking for a turn to write: mostly there is nothing to do
		if err != nil || !over {
			return err
		}
		if err := c.DB.Update(ctx, func(tx *db.Tx) error { return c.sweepSome(tx, now) }); err != nil {
			return err
		}
	}
}

// anyOver says whether any deadline has come.
func (c *Cues) anyOver(ctx context.Context, now op.Time) (over bool, err error) {
	err = c.DB.View(ctx, func(tx *db.Tx) error {
		var first op.Time
		err := tx.Row(sqlNextDeadline).Scan(&first)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		over = first <= now
		return err
	})
	if err != nil {
		return false, fmt.Errorf("look for deadlines that have come: %w", err)
	}
	return over, nil
}

// sweepSome ends the oldest of what is over.
func (c *Cues) sweepSome(tx *db.Tx, now op.Time) error {
	rows, err := tx.Query(sqlDeadlines, sweepMost)
	found, err := scanAll(rows, err, (*ending).scan)
	if err != nil {
		return fmt.Errorf("read the deadlines that have come: %w", err)
	}
	sums := tally{}
	for _, e := range found {
		if e.deadline > now {
			break
		}
		switch {
		case e.status == statusPendingOutcome:
			err = c.endUnreported(tx, sums, e, statusOutcomeTimeout, unreportedMessage, now)
		case e.transport != transportWorker:
			err = c.lostCall(tx, sums, e, now)
		case e.status != statusDelivering:
			err = c.endUnreported(tx, sums, e, statusMissed, unclaimedMessage, now)
		case e.attempts < e.maxAttempts:
			err = c.offerAgain(tx, sums, e, leaseExpired, fmt.Sprintf("The lease of worker %s ended without a report; offered again", e.worker), now)
		default:
			tx.AfterCommit(c.Observe.LeaseEnded)
			message := fmt.Sprintf("The lease of worker %s ended without a report; it was attempt %d of %d", e.worker, e.attempts, e.maxAttempts)
			err = c.endUnreported(tx, sums, e, statusFailed, message, now)
		}
		if err != nil {
			return err
		}
	}
	return sums.save(tx)
}

// lostCall looks after a call that should have ended: one that still waits for its turn in the sender gets more time, one that
// nobody knows of is sent again.
func (c *Cues) lostCall(tx *db.Tx, sums tally, e ending, now op.Time) error {
	if !c.courier.holds(e.id) {
		return c.backToQueue(tx, sums, []string{e.id}, []op.Time{now}, []bool{true}, now)
	}
	if _, err := tx.Exec(sqlDeadlineMove, e.id, in(now, callGrace)); err != nil {
		return fmt.Errorf("give the call of execution %s more time: %w", e.id, err)
	}
	return nil
}

// offerAgain lets other workers take an execution that one had begun; the message says why.
func (c *Cues) offerAgain(tx *db.Tx, sums tally, e ending, how, message string, now op.Time) error {
	if err := c.sawLeaseEnd(tx, e.id, how, now); err != nil {
		return err
	}
	if _, err := tx.Exec(sqlOfferAgain, e.id, now, message, in(now, c.UnclaimedAfter)); err != nil {
		return fmt.Errorf("offer execution %s again: %w", e.id, err)
	}
	sums.moved(e.workspace, e.status, statusPending)
	tx.AfterCommit(func() { c.wake(e.workspace) })
	c.publish(tx, func(say sayer) {
		say(e.workspace, LiveEvent{
			Type: liveRetrying, At: now, CueID: e.cueID, CueName: e.cueName, ExecutionID: e.id, Status: statusPending, WorkerID: e.worker, Attempt: e.attempts, Error: message, RetryAt: now,
		})
	})
	return nil
}

// endUnreported ends an execution of which nobody has reported.
func (c *Cues) endUnreported(tx *db.Tx, sums tally, e ending, status, message string, now op.Time) error {
	if _, err := tx.Exec(sqlEndUnreported, e.id, status, message, now); err != nil {
		return fmt.Errorf("end execution %s as %s: %w", e.id, status, err)
	}
	if err := c.sawEnds(tx, status, now, e.id); err != nil {
		return err
	}
	sums.moved(e.workspace, e.status, status)
	sums.add(e.workspace, countFailed(e.createdAt), 1)
	c.publish(tx, func(say sayer) {
		say(e.workspace, LiveEvent{
			Type: liveOutcome, At: now, CueID: e.cueID, CueName: e.cueName, ExecutionID: e.id, Status: status, WorkerID: e.worker, Attempt: e.attempts, Error: message,
		})
	})
	runs := int64(1)
	if e.transport != transportWorker { // its calls were counted when they ended
		runs = 0
	}
	return c.failCue(tx, e.cueID, e.id, runs, now)
}
