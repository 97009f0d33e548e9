package cue

import (
	"context"
	"errors"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

// delete removes a cue with its executions. Its versions and its ledger stay; in the ledger its executions are replaced by
// rows that say how many fired.
func (c *Cues) delete(ctx context.Context, in cueID) (op.None, error) {
	caller, now := c.caller(ctx), c.now()
	return op.None{}, c.DB.Update(ctx, func(tx *db.Tx) error {
		q, err := loadCue(tx, caller, in.ID)
		if err != nil {
			return err
		}
		moment, err := c.settle(tx, q, now, true)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(sqlVersionClose, q.id, q.version, moment+1); err != nil {
			return err
		}
		if err := foldFired(tx, q.id, now); err != nil {
			return err
		}
		if err := deleteExecutions(tx, q.workspace, q.id); err != nil {
			return err
		}
		if err := c.Alerts.End(tx, q.id, now); err != nil {
			return err
		}
		if _, err := tx.Exec(sqlNoticesDelete, q.id); err != nil {
			return err
		}
		tx.AfterCommit(func() { c.courier.cancel(q.id) })
		if _, err := tx.Exec(sqlCueDelete, q.id); err != nil {
			return err
		}
		sums := tally{}
		sums.add(q.workspace, countCues(q.status), -1)
		if err := sums.save(tx); err != nil {
			return err
		}
		return access.Record(tx, access.Event{Object: "cue", ID: q.id, Name: q.name})
	})
}

type bulkDeleteInput struct {
	IDs []string `json:"ids" min:"1" max:"100" doc:"ids or names of cues"`
}

type bulkDeleteOutput struct {
	Deleted []string `json:"deleted" doc:"those that are gone now, as they were named, in the order of the request"`
	Skipped []string `json:"skipped" doc:"those that this key does not see, or that were named twice"`
}

// bulkDelete deletes cues one after the other, each in a transaction of its own: others wait for one cue with its executions, not
// for a hundred. Who calls again after a fault finds those that were deleted among the skipped.
func (c *Cues) bulkDelete(ctx context.Context, in bulkDeleteInput) (bulkDeleteOutput, error) {
	out := bulkDeleteOutput{Deleted: []string{}, Skipped: []string{}}
	for _, id := range in.IDs {
		_, err := c.delete(ctx, cueID{id})
		var refusal *op.Error
		switch {
		case err == nil:
			out.Deleted = append(out.Deleted, id)
		case errors.As(err, &refusal) && refusal.Code == CueNotFound:
			out.Skipped = append(out.Skipped, id)
		default:
			return out, err
		}
	}
	return out, nil
}
