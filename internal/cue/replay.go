package cue

import (
	"context"
	"fmt"
	"slices"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

type replayOutput struct {
	ID           string        `json:"id" doc:"of the new execution"`
	ExecutionID  string        `json:"execution_id" doc:"the same"`
	CueID        string        `json:"cue_id"`
	ScheduledFor op.OffsetTime `json:"scheduled_for"`
	Status       string        `json:"status"`
	TriggeredBy  string        `json:"triggered_by"`
	ReplayedFrom string        `json:"replayed_from"`
	Transport    string        `json:"transport"`
}

// replay makes a new execution with the payload of one that has ended. Retries and verification are those of the cue as it is
// now.
func (c *Cues) replay(ctx context.Context, in executionID) (out replayOutput, err error) {
	caller := c.caller(ctx)
	err = c.DB.Update(ctx, func(tx *db.Tx) error {
		now := c.now()
		old, err := c.loadExecution(tx, caller, in.ID)
		if err != nil {
			return err
		}
		if !slices.Contains([]string{statusSuccess, statusFailed, statusMissed, statusOutcomeTimeout}, old.status) {
			return ExecutionInFlight.Msg("Cannot replay an execution that is still in progress")
		}
		if err := c.admitExecution(tx, old.workspace, now); err != nil {
			return err
		}
		q, err := readCue(tx, sqlCueByID, old.cueID)
		if err != nil {
			return err
		}
		e := &execution{
			workspace: old.workspace, cueID: old.cueID, triggeredBy: byReplay, firedBy: caller.KeyID(), replayedFrom: old.id,
			scheduledFor: now, payload: old.payload, criteria: old.criteria, verification: q.mode(), maxAttempts: q.maxAttempts, createdAt: now,
		}
		if err := c.insertExecution(tx, e); err != nil {
			return fmt.Errorf("replay execution %s: %w", old.id, err)
		}
		out = replayOutput{
			ID: e.id, ExecutionID: e.id, CueID: e.cueID, ScheduledFor: op.OffsetTime(now), Status: e.status, TriggeredBy: byReplay,
			ReplayedFrom: old.id, Transport: e.transport,
		}
		return access.Record(tx, access.Event{Object: "execution", ID: old.id, Name: old.cueName, Detail: firedDetail{Execution: e.id}})
	})
	return out, err
}
