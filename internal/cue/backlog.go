package cue

import (
	"context"
	"fmt"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

const (
	workerSilentAfter = 180 * time.Second // a worker that was not heard for so long is not active (CueAPI wire contract 2.10)
	staleDeadline     = 30 * time.Second  // a deadline that came so long ago should have been seen to
	backlogMost       = 10_000            // executions that are looked at for each number
)

// Backlog is what waits in all workspaces, and which workers are there, for health and metrics. Each number of executions is counted
// among 10,000 of those that wait, now or later.
type Backlog struct {
	Outbox        int64   // due to be called, and not on their way
	Retries       int64   // wait for their next call after one that failed
	Claims        int64   // a worker could claim them now
	Stale         int64   // their deadline came more than 30 seconds ago
	Workers       int64   // heard in the last 180 seconds
	LastHeartbeat op.Time // of these; 0 without any
}

// Backlog counts what waits.
func (c *Cues) Backlog(ctx context.Context) (b Backlog, err error) {
	now := c.now()
	err = c.DB.View(ctx, func(tx *db.Tx) error {
		if err := tx.Row(sqlBacklogCalls, now, backlogMost).Scan(&b.Outbox, &b.Retries); err != nil {
			return err
		}
		if err := tx.Row(sqlBacklogClaims, now, backlogMost).Scan(&b.Claims); err != nil {
			return err
		}
		if err := tx.Row(sqlBacklogStale, in(now, -staleDeadline), backlogMost).Scan(&b.Stale); err != nil {
			return err
		}
		return tx.Row(sqlWorkersActive, in(now, -workerSilentAfter)).Scan(&b.Workers, &b.LastHeartbeat)
	})
	if err != nil {
		return b, fmt.Errorf("count what waits: %w", err)
	}
	return b, nil
}
