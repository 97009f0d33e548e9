package cue

import (
	"context"
	"fmt"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

// beatEvery is how often, over the rate limit, one lease may be renewed.
const beatEvery = time.Second

type heartbeatInput struct {
	ID         string         `json:"id" doc:"id of the execution"`
	Header     op.Opt[string] `header:"X-Worker-Id" doc:"the worker that speaks; it must be the one that claimed"`
	WorkerID   op.Opt[string] `json:"worker_id" doc:"the same, in the body"`
	LeaseToken op.Opt[string] `json:"lease_token" doc:"from the claim; without it only the key that claimed is heard"`
}

type heartbeatOutput struct {
	ExecutionID   string        `json:"execution_id"`
	ExtendedUntil op.OffsetTime `json:"lease_extended_until"`
	Acknowledged  bool          `json:"acknowledged"`
}

// heartbeat renews a lease (CueAPI wire contract 2.4).
func (c *Cues) heartbeat(ctx context.Context, in heartbeatInput) (out heartbeatOutput, err error) {
	caller, worker, token := c.caller(ctx), workerOf(in.Header, in.WorkerID), in.LeaseToken.Val
	err = c.DB.Update(ctx, func(tx *db.Tx) error {
		now := c.now()
		h, err := c.loadHeld(tx, caller, in.ID)
		if err != nil {
			return err
		}
		if err := c.mayBeat(h, caller, token, worker, now); err != nil {
			return err
		}
		until := c.leaseEnd(now)
		_, err = tx.Exec(sqlHeartbeat, h.id, until, now, token == "" && h.bare)
		if err != nil {
			return fmt.Errorf("renew the lease of execution %s: %w", h.id, err)
		}
		out = heartbeatOutput{ExecutionID: h.id, ExtendedUntil: op.OffsetTime(until), Acknowledged: true}
		return nil
	})
	return out, err
}

// mayBeat says whether a call may renew the lease of an execution.
func (c *Cues) mayBeat(h *held, caller *access.Caller, token, worker string, now op.Time) error {
	if err := c.mayReport(h, caller, worker, now); err != nil {
		return err
	}
	if caller.OverLimit() && h.lastHeartbeat != nil && now < in(*h.lastHeartbeat, beatEvery) {
		return caller.RefuseOverLimit()
	}
	switch {
	case h.status != statusDelivering && token != "":
		return stale(h, now)
	case h.status != statusDelivering:
		return ExecutionNotClaiming.Msg("Execution is not currently being claimed")
	case worker != "" && worker != h.claimedWorker:
		return NotExecutionOwner.Msg("Only the claiming worker can heartbeat")
	}
	return c.fence(h, caller, token, worker, now)
}

// workerOf is the worker that a call names, in its header or in its body; "" for none.
func workerOf(header, body op.Opt[string]) string {
	if header.Val != "" {
		return header.Val
	}
	return body.Val
}
