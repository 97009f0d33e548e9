package cue

import (
	"context"
	"fmt"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

type releaseInput struct {
	ID         string         `json:"id" doc:"id of the execution"`
	Header     op.Opt[string] `header:"X-Worker-Id" doc:"the worker that speaks; it must be the one that claimed"`
	WorkerID   op.Opt[string] `json:"worker_id" doc:"the same, in the body"`
	LeaseToken string         `json:"lease_token" min:"1" max:"255" doc:"from the claim"`
	Begun      op.Opt[bool]   `json:"begun" doc:"whether work on it had begun (the default): the attempt then counts, as when a lease ends"`
}

type releaseOutput struct {
	ExecutionID string `json:"execution_id"`
	Status      string `json:"status" doc:"pending: offered again; failed: it was the last attempt"`
}

// release gives an execution back before its lease ends, so that a worker that stops makes nobody wait for that end (CUES,
// workers).
func (c *Cues) release(ctx context.Context, in releaseInput) (out releaseOutput, err error) {
	caller, worker := c.caller(ctx), workerOf(in.Header, in.WorkerID)
	err = c.DB.Update(ctx, func(tx *db.Tx) error {
		now := c.now()
		h, err := c.loadHeld(tx, caller, in.ID)
		if err != nil {
			return err
		}
		if err := c.mayBeat(h, caller, in.LeaseToken, worker, now); err != nil {
			return err
		}
		out = releaseOutput{ExecutionID: h.id, Status: statusPending}
		if !in.Begun.Or(true) {
			sums := tally{}
			w := &work{id: h.id, workspace: h.workspace, cueID: h.cueID, cueName: h.cueName}
			if err := c.giveBackOne(tx, sums, w, h.leaseToken); err != nil {
				return err
			}
			return sums.save(tx)
		}
		out.Status, err = c.giveUp(tx, h, now)
		return err
	})
	return out, err
}

// giveUp ends a lease early: the work is offered again, or has failed when this was the last attempt.
func (c *Cues) giveUp(tx *db.Tx, h *held, now op.Time) (status string, err error) {
	var e ending
	if err := e.scan(tx.Row(sqlEnding, h.id)); err != nil {
		return "", fmt.Errorf("read execution %s: %w", h.id, err)
	}
	sums := tally{}
	if e.attempts < e.maxAttempts {
		status, err = statusPending, c.offerAgain(tx, sums, e, leaseReleased, fmt.Sprintf("Worker %s gave it back; offered again", e.worker), now)
	} else {
		message := fmt.Sprintf("Worker %s gave it back; it was attempt %d of %d", e.worker, e.attempts, e.maxAttempts)
		status, err = statusFailed, c.endUnreported(tx, sums, e, statusFailed, message, now)
	}
	if err != nil {
		return "", err
	}
	return status, sums.save(tx)
}
