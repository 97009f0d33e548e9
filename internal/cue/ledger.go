package cue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

type ledgerInput struct {
	ID    string          `json:"id"`
	From  op.Opt[op.Time] `json:"from" doc:"seven days before to, when absent"`
	To    op.Opt[op.Time] `json:"to" doc:"not included; now, when absent or later"`
	Limit int64           `json:"limit" default:"100" min:"1" max:"1000" doc:"entries in the answer; the sums count all"`
}

// ledgerObject accounts for every due time of a cue in [from, to): expected is what its schedules name, worked out anew; the
// others are what became of them, as it was written down. The two sides are equal, or the ledger does not close.
type ledgerObject struct {
	CueID     string         `json:"cue_id"`
	Name      string         `json:"name" doc:"of a deleted cue, the last it had"`
	From      op.Time        `json:"from"`
	To        op.Time        `json:"to"`
	Expected  int64          `json:"expected" doc:"due times that the schedules of the cue name"`
	Fired     int64          `json:"fired" doc:"became an execution"`
	Coalesced int64          `json:"coalesced" doc:"merged into a later one that fired"`
	Skipped   int64          `json:"skipped"`
	Missed    int64          `json:"missed" doc:"could not be fired"`
	Pending   int64          `json:"pending" doc:"due this very moment and not decided yet"`
	Closed    bool           `json:"closed" doc:"expected is the sum of the others"`
	Beside    ledgerBeside   `json:"beside" doc:"executions of this time that no due time named; they are in none of the sums"`
	Removed   *ledgerRemoved `json:"removed" doc:"executions of this cue that are kept no longer, at whatever time; null for none"`
	Entries   []ledgerEntry  `json:"entries" doc:"due times that did not become an execution that still exists, newest first"`
	HasMore   bool           `json:"has_more" doc:"there are more entries than these"`
}

// ledgerBeside counts executions that exist, by what made them.
type ledgerBeside struct {
	Manual int64 `json:"manual_fire"`
	Chain  int64 `json:"chain" doc:"fired by the success of another cue"`
	Replay int64 `json:"replay"`
}

// ledgerEntry is a run of due times with one ending.
type ledgerEntry struct {
	Ending  string  `json:"ending" doc:"coalesced, skipped, missed; fired for executions that were removed"`
	Reason  string  `json:"reason" doc:"late, paused, plan_limit, policy, replay_cap, deleted; of fired: retention, or empty when the cue was deleted"`
	First   op.Time `json:"first"`
	Last    op.Time `json:"last"`
	Count   int64   `json:"count"`
	Version int64   `json:"version" doc:"of the cue's definition, from 1"`
}

func (c *Cues) ledger(ctx context.Context, in ledgerInput) (out ledgerObject, err error) {
	caller := c.caller(ctx)
	err = c.DB.View(ctx, func(tx *db.Tx) error {
		id, decided, name, err := ledgerCue(tx, caller, in.ID)
		if err != nil {
			return err
		}
		horizon := max(c.now(), decided) + 1
		to := min(in.To.Or(horizon), horizon)
		from := in.From.Or(in.To.Or(horizon) - op.Time((7 * 24 * time.Hour).Microseconds()))
		if from >= in.To.Or(never) {
			return op.Invalid("query.from", "from must be before to")
		}
		out, err = c.account(tx, id, from, max(from, to), decided)
		out.Name = name
		if err == nil {
			out.Removed, err = c.removedOf(tx, id)
		}
		return err
	})
	if n := int(in.Limit); len(out.Entries) > n {
		out.Entries, out.HasMore = out.Entries[:n], true
	}
	return out, err
}

// ledgerCue finds a cue by its id or name, or by its id one that was deleted, and the moment up to which its due times are decided.
func ledgerCue(tx *db.Tx, caller *access.Caller, ref string) (id string, decided op.Time, name string, err error) {
	q, err := loadCue(tx, caller, ref)
	if err == nil {
		return q.id, q.decided, q.name, nil
	}
	if e := (*op.Error)(nil); !errors.As(err, &e) {
		return "", 0, "", err
	}
	gone := tx.Row(sqlVersionLast, caller.Workspace(), ref).Scan(&name)
	switch {
	case errors.Is(gone, sql.ErrNoRows):
		return "", 0, "", err
	case gone != nil:
		return "", 0, "", fmt.Errorf("read the versions of cue %s: %w", ref, gone)
	case !caller.SeesCue(ref, name):
		return "", 0, "", err
	}
	return ref, 0, name, nil
}

// account adds up the due times of a cue in [from, to), newest entries first. Those of the version that holds are decided up to
// a moment; after it they are pending, or, in a pause, skipped as soon as it ends.
func (c *Cues) account(tx *db.Tx, id string, from, to, decided op.Time) (ledgerObject, error) {
	out := ledgerObject{CueID: id, From: from, To: to, Entries: []ledgerEntry{}}
	versions, entries, err := readLedger(tx, id, from, to)
	if err != nil {
		return out, err
	}
	for _, v := range versions {
		if v.status != active && v.status != paused {
			continue
		}
		s, err := c.compile(v.kind, v.cron, v.timezone, deref(v.at))
		if err != nil {
			return out, err
		}
		end := to
		if v.to != nil {
			end = min(to, *v.to)
		}
		out.Expected += s.count(max(from, v.from), end)
		if v.to == nil && v.status == active {
			out.Pending += s.count(max(from, decided+1), end)
		}
		if v.to == nil && v.status == paused {
			entries = append(entries, entry{id, v.number, s.due(decided, to-1), endSkipped, reasonPaused})
		}
		for _, e := range entries {
			if e.version == v.number {
				e.span = s.clip(e.span, from, end)
				out.add(e)
			}
		}
	}
	var alive int64
	if err := tx.Row(sqlFiredIn, id, from, to).Scan(&alive); err != nil {
		return out, fmt.Errorf("count the executions of cue %s: %w", id, err)
	}
	out.Fired += alive
	if out.Beside, err = besideLedger(tx, id, from, to); err != nil {
		return out, err
	}
	out.Closed = out.Expected == out.Fired+out.Coalesced+out.Skipped+out.Missed+out.Pending
	slices.SortStableFunc(out.Entries, func(a, b ledgerEntry) int { return int(min(max(b.First-a.First, -1), 1)) })
	return out, nil
}

func besideLedger(tx *db.Tx, id string, from, to op.Time) (b ledgerBeside, err error) {
	type group struct {
		by    string
		count int64
	}
	rows, err := tx.Query(sqlBesideIn, id, from, to)
	groups, err := scanAll(rows, err, func(g *group, r scanner) error { return r.Scan(&g.by, &g.count) })
	if err != nil {
		return b, fmt.Errorf("count the executions beside the schedule of cue %s: %w", id, err)
	}
	for _, g := range groups {
		switch g.by {
		case byFire:
			b.Manual = g.count
		case byChain:
			b.Chain = g.count
		case byReplay:
			b.Replay = g.count
		}
	}
	return b, nil
}

func (o *ledgerObject) add(e entry) {
	if e.count == 0 {
		return
	}
	switch e.ending {
	case endFired:
		o.Fired += e.count
	case endCoalesced:
		o.Coalesced += e.count
	case endSkipped:
		o.Skipped += e.count
	case endMissed:
		o.Missed += e.count
	}
	o.Entries = append(o.Entries, ledgerEntry{e.ending, e.reason, e.first, e.last, e.count, e.version})
}

// readLedger reads the versions of a cue that touch [from, to), and the entries that do.
func readLedger(tx *db.Tx, id string, from, to op.Time) ([]version, []entry, error) {
	rows, err := tx.Query(sqlVersionsIn, id, from, to)
	versions, err := scanAll(rows, err, (*version).scan)
	if err != nil {
		return nil, nil, fmt.Errorf("read the versions of cue %s: %w", id, err)
	}
	rows, err = tx.Query(sqlLedgerIn, id, from, to)
	entries, err := scanAll(rows, err, func(e *entry, r scanner) error {
		e.cueID = id
		return r.Scan(&e.version, &e.first, &e.last, &e.count, &e.ending, &e.reason)
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read the ledger of cue %s: %w", id, err)
	}
	return versions, entries, nil
}

// foldFired writes entries `fired` for the executions of a cue that is being deleted: one for every run of them between other
// entries. They are counted from the executions, not from the schedule, so that they prove as much as these did.
func foldFired(tx *db.Tx, id string, now op.Time) error {
	versions, entries, err := readLedger(tx, id, 0, never)
	if err != nil {
		return err
	}
	var numbers []int64
	var low, high []op.Time
	gap := func(v int64, from, to op.Time) {
		if from < to {
			numbers, low, high = append(numbers, v), append(low, from), append(high, to)
		}
	}
	for _, v := range versions {
		at := v.from
		for _, e := range entries {
			if e.version == v.number {
				gap(v.number, at, e.first)
				at = e.last + 1
			}
		}
		gap(v.number, at, deref(v.to))
	}
	rows, err := tx.Query(sqlFiredInEach, id, numbers, low, high)
	fired, err := scanAll(rows, err, func(e *entry, r scanner) error {
		e.cueID, e.ending = id, endFired
		return r.Scan(&e.version, &e.first, &e.last, &e.count)
	})
	if err != nil {
		return fmt.Errorf("count the executions of cue %s: %w", id, err)
	}
	return writeLedger(tx, fired, now)
}
