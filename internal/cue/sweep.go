package cue

import (
	"context"
	"fmt"
	"slices"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// sweepMost is how many executions one transaction of the sweep ends or offers again, so that callers wait little for it.
const sweepMost = 200

const unclaimedMessage = "No worker claimed this execution within timeout window"

// ending is what the clock has to know of an execution.
type ending struct {
	id, workspace, cueID, status string
	attempts, maxAttempts        int64
	worker                       string
	createdAt                    op.Time
}

func (e *ending) scan(r scanner) error {
	return r.Scan(&e.id, &e.workspace, &e.cueID, &e.status, &e.attempts, &e.maxAttempts, &e.worker, &e.createdAt)
}

// sweep ends what is over at a moment. An execution whose lease ran out is offered again, or has failed when it was handed out
// as often as it may be; one that nobody took in time is missed.
func (c *Cues) sweep(ctx context.Context, now op.Time) error {
	for _, s := range []struct {
		query string
		until op.Time
		end   func(*db.Tx, []ending, op.Time) error
	}{
		{sqlLeasesOver, now, c.endLeases},
		{sqlUnclaimed, in(now, -c.UnclaimedAfter), c.endWaits},
	} {
		for more := true; more; {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			var err error
			if more, err = c.sweepSome(ctx, s.query, s.until, now, s.end); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweepSome ends one batch and says whether there may be more. It looks before it asks for a turn to write: mostly there is
// nothing to do.
func (c *Cues) sweepSome(ctx context.Context, query string, until, now op.Time, end func(*db.Tx, []ending, op.Time) error) (more bool, err error) {
	find := func(tx *db.Tx) ([]ending, error) {
		rows, err := tx.Query(query, until, sweepMost)
		return scanAll(rows, err, (*ending).scan)
	}
	var found []ending
	err = c.DB.View(ctx, func(tx *db.Tx) error {
		found, err = find(tx)
		return err
	})
	if err != nil || len(found) == 0 {
		return false, err
	}
	err = c.DB.Update(ctx, func(tx *db.Tx) error {
		found, err := find(tx) // again: somebody may have reported or claimed since
		more = len(found) == sweepMost
		if err != nil {
			return err
		}
		return end(tx, found, now)
	})
	return more, err
}

// endLeases offers executions again whose lease ran out, as long as they have attempts left.
func (c *Cues) endLeases(tx *db.Tx, found []ending, now op.Time) error {
	sums := tally{}
	var woken []string
	for _, e := range found {
		if e.attempts >= e.maxAttempts {
			message := fmt.Sprintf("The lease of worker %s ended without a report; it was attempt %d of %d", e.worker, e.attempts, e.maxAttempts)
			if err := c.endUnreported(tx, sums, e, statusFailed, message, now); err != nil {
				return err
			}
			continue
		}
		message := fmt.Sprintf("The lease of worker %s ended without a report; offered again", e.worker)
		if _, err := tx.Exec(sqlOfferAgain, e.id, now, message); err != nil {
			return fmt.Errorf("offer execution %s again: %w", e.id, err)
		}
		sums.moved(e.workspace, e.status, statusPending)
		if !slices.Contains(woken, e.workspace) {
			woken = append(woken, e.workspace)
		}
	}
	tx.AfterCommit(func() {
		for _, workspace := range woken {
			c.wake(workspace)
		}
	})
	return sums.save(tx)
}

// endWaits notes that nobody took executions in time.
func (c *Cues) endWaits(tx *db.Tx, found []ending, now op.Time) error {
	sums := tally{}
	for _, e := range found {
		if err := c.endUnreported(tx, sums, e, statusMissed, unclaimedMessage, now); err != nil {
			return err
		}
	}
	return sums.save(tx)
}

// endUnreported ends an execution of which nobody has reported.
func (c *Cues) endUnreported(tx *db.Tx, sums tally, e ending, status, message string, now op.Time) error {
	if _, err := tx.Exec(sqlEndUnreported, e.id, status, message, now); err != nil {
		return fmt.Errorf("end execution %s as %s: %w", e.id, status, err)
	}
	sums.moved(e.workspace, e.status, status)
	sums.add(e.workspace, countFailed(e.createdAt), 1)
	return c.failCue(tx, e.cueID, now)
}
