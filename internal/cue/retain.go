package cue

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Retention removes executions some time after they last changed, with their evidence. Some it leaves, however old they are: those
// that have not ended, that somebody holds, whose outcome or verification is awaited, that an open alert names; and the latest
// few of every cue that goes on, by which failures in a row are counted and "why" says how it did last. What names a removed
// execution goes on naming it: a replay or a chain needs nothing more of the execution that it came from.
//
// It works in small transactions with a rest after each, so that callers wait little for it, and each leaves everything in
// order: the ledger has the due times as rows `fired` (CUES promise 1), totals are exact, and what was removed is sealed.
const (
	retainEvery  = time.Hour
	retainLatest = failuresInARow       // of a cue, which stay; sql_retain.go says it too
	retainPage   = 1000                 // executions found in one read
	retainMost   = 20                   // removed in one transaction
	retainRest   = 4 * time.Millisecond // after each
)

// retention is the work of retention.
type retention struct {
	most    int                   // retainMost, or less in tests
	rest    func(context.Context) // after each transaction
	removed atomic.Int64          // executions since the start
	done    atomic.Int64          // when a pass last came to its end, in microseconds; 0 for never
}

// RetainStats is what retention did since the start, for metrics.
type RetainStats struct {
	Removed int64     // executions
	Done    time.Time // when it last came to the end of what there was to remove; zero before
}

// Retained says what retention did since the start.
func (c *Cues) Retained() (s RetainStats) {
	s.Removed = c.retention.removed.Load()
	if at := c.retention.done.Load(); at > 0 {
		s.Done = op.Time(at).Std()
	}
	return s
}

func (r *retention) open() {
	r.most, r.rest = retainMost, func(ctx context.Context) { pause(ctx, retainRest) }
}

func (c *Cues) retainLoop(ctx context.Context) {
	if c.RetainFor == 0 {
		return
	}
	ticker := time.NewTicker(retainEvery)
	defer ticker.Stop()
	for {
		if err := c.Retain(ctx); err != nil && ctx.Err() == nil {
			c.Log.Error("removing old executions failed; the next look tries again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Retain removes now what Options.RetainFor lets go.
func (c *Cues) Retain(ctx context.Context) error {
	if c.RetainFor == 0 {
		return nil
	}
	before := in(c.now(), -c.RetainFor)
	for workspace := ""; ; {
		var next *string
		err := c.DB.View(ctx, func(tx *db.Tx) error { return tx.Row(sqlRetainNext, workspace).Scan(&next) })
		if err != nil {
			return fmt.Errorf("look for workspaces with executions: %w", err)
		}
		if next == nil {
			c.retention.done.Store(int64(c.now()))
			return nil
		}
		workspace = *next
		if err := c.retainOf(ctx, workspace, before); err != nil {
			return fmt.Errorf("remove old executions of workspace %s: %w", workspace, err)
		}
	}
}

// retainOf removes the executions of a workspace that last changed before a moment, oldest first.
func (c *Cues) retainOf(ctx context.Context, workspace string, before op.Time) error {
	type candidate struct {
		id, cueID string
		at        op.Time
	}
	for last := (candidate{at: -1}); ; {
		var page []candidate
		err := c.DB.View(ctx, func(tx *db.Tx) error {
			rows, err := tx.Query(sqlRetainable, workspace, before, last.at, last.id, retainPage)
			page, err = scanAll(rows, err, func(k *candidate, r scanner) error { return r.Scan(&k.id, &k.cueID, &k.at) })
			return err
		})
		if err != nil || len(page) == 0 {
			return err
		}
		last = page[len(page)-1]
		slices.SortStableFunc(page, func(a, b candidate) int { return strings.Compare(a.cueID, b.cueID) }) // one cue takes few statements
		for batch := range slices.Chunk(page, c.retention.most) {
			ids := make([]string, len(batch))
			for i, k := range batch {
				ids[i] = k.id
			}
			var n int
			err := c.DB.Update(ctx, func(tx *db.Tx) (err error) {
				n, err = c.remove(tx, ids, before)
				return err
			})
			if err != nil {
				return err
			}
			c.retention.removed.Add(int64(n))
			if c.retention.rest(ctx); ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	}
}

// removed is an execution that goes.
type removed struct {
	id, workspace, cueID, status string
	triggeredBy                  string
	scheduledFor, createdAt      op.Time
	outcomeAt                    *op.Time
	head                         string // hash of its last evidence; "" for none
}

func (e *removed) scan(r scanner) error {
	return r.Scan(&e.id, &e.workspace, &e.cueID, &e.status, &e.triggeredBy, &e.scheduledFor, &e.createdAt, &e.outcomeAt)
}

// remove removes those of some executions that still may go, and returns how many they are.
func (c *Cues) remove(tx *db.Tx, ids []string, before op.Time) (int, error) {
	rows, err := tx.Query(sqlRetainTake, ids, before)
	gone, err := scanAll(rows, err, (*removed).scan)
	if err != nil || len(gone) == 0 {
		return 0, err
	}
	now, sums, left := c.now(), tally{}, map[string]int64{}
	slices.SortFunc(gone, func(a, b removed) int {
		return cmp.Or(cmp.Compare(a.createdAt, b.createdAt), cmp.Compare(a.id, b.id))
	})
	for _, e := range gone {
		sums.add(e.workspace, countAll, -1)
		sums.add(e.workspace, countStatus(e.status), -1)
		left[e.cueID]++
	}
	if err := dropEvidence(tx, gone); err != nil {
		return 0, err
	}
	cues, counts := columns(left)
	if _, err := tx.Exec(sqlRetainCues, cues, counts); err != nil {
		return 0, err
	}
	if err := c.foldRemoved(tx, gone, now); err != nil {
		return 0, err
	}
	if err := c.sealRemoved(tx, gone, now); err != nil {
		return 0, err
	}
	return len(gone), sums.save(tx)
}

// dropEvidence deletes the evidence of executions, and notes the last hash of each.
func dropEvidence(tx *db.Tx, gone []removed) error {
	var at []op.Time
	var ids []string
	for _, e := range gone {
		if e.outcomeAt != nil {
			at, ids = append(at, *e.outcomeAt), append(ids, e.id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	rows, err := tx.Query(sqlRetainEvidence, at, ids)
	links, err := scanAll(rows, err, func(l *link, r scanner) error { return r.Scan(&l.execution, &l.version, &l.hash) })
	if err != nil {
		return fmt.Errorf("delete the evidence of old executions: %w", err)
	}
	last := map[string]link{}
	for _, l := range links {
		if l.version > last[l.execution].version {
			last[l.execution] = l
		}
	}
	for i := range gone {
		gone[i].head = last[gone[i].id].hash
	}
	return nil
}

func columns(m map[string]int64) (names []string, counts []int64) {
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		counts = append(counts, m[name])
	}
	return names, counts
}
