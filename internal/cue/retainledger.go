package cue

import (
	"cmp"
	"fmt"
	"slices"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// place is a version of a cue.
type place struct {
	cueID   string
	version int64
}

// runs are runs of due times in one version of a cue.
type runs struct {
	sched schedule
	spans []span
}

// foldRemoved writes entries `fired` for the due times of executions that are removed. An entry stands for all due times of its
// version from its first to its last, so only those that follow one another without a gap share one; a new run joins what is
// there before and after it. Executions outside every version, which nothing of ours makes, leave no entry.
func (c *Cues) foldRemoved(tx *db.Tx, gone []removed, now op.Time) error {
	due := map[string][]op.Time{}
	for _, e := range gone {
		if e.triggeredBy == byScheduler {
			due[e.cueID] = append(due[e.cueID], e.scheduledFor)
		}
	}
	if len(due) == 0 {
		return nil
	}
	places, err := c.runsOf(tx, due)
	if err != nil {
		return err
	}
	order := make([]place, 0, len(places))
	for p := range places {
		order = append(order, p)
	}
	slices.SortFunc(order, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.cueID, b.cueID), cmp.Compare(a.version, b.version))
	})
	if err := joinNeighbours(tx, places, order); err != nil {
		return err
	}
	var entries []entry
	for _, p := range order {
		for _, s := range places[p].sched.joined(places[p].spans) {
			entries = append(entries, entry{p.cueID, p.version, s, endFired, reasonRetention})
		}
	}
	return writeLedger(tx, entries, now)
}

// runsOf finds the version of each due time.
func (c *Cues) runsOf(tx *db.Tx, due map[string][]op.Time) (map[place]*runs, error) {
	var cues []string
	var first, last []op.Time
	for id, times := range due {
		slices.Sort(times)
		cues, first, last = append(cues, id), append(first, times[0]), append(last, times[len(times)-1])
	}
	type row struct {
		cueID string
		version
	}
	rows, err := tx.Query(sqlRetainVersions, cues, first, last)
	versions, err := scanAll(rows, err, func(v *row, r scanner) error {
		return v.scan(scanFunc(func(to ...any) error { return r.Scan(append([]any{&v.cueID}, to...)...) }))
	})
	if err != nil {
		return nil, fmt.Errorf("read the versions of cues with old executions: %w", err)
	}
	out := map[place]*runs{}
	for _, v := range versions {
		var mine []span
		for _, at := range due[v.cueID] {
			if at >= v.from && (v.to == nil || at < *v.to) {
				mine = append(mine, span{at, at, 1})
			}
		}
		if len(mine) == 0 {
			continue
		}
		s, err := c.compile(v.kind, v.cron, v.timezone, deref(v.at))
		if err != nil {
			return nil, err
		}
		out[place{v.cueID, v.number}] = &runs{s, s.joined(mine)}
	}
	return out, nil
}

// joinNeighbours takes the entries of retention right before and after runs out of the ledger and puts them to the runs.
func joinNeighbours(tx *db.Tx, places map[place]*runs, order []place) error {
	var cues []string
	var versions []int64
	var at []op.Time
	for _, p := range order {
		ask := func(t op.Time, there bool) {
			if there {
				cues, versions, at = append(cues, p.cueID), append(versions, p.version), append(at, t)
			}
		}
		for _, s := range places[p].spans {
			ask(places[p].sched.last(s.first - 1))
			ask(places[p].sched.next(s.last))
		}
	}
	found, err := rowsAt(tx, cues, versions, at)
	if err != nil || len(found) == 0 {
		return err
	}
	cues, versions, at = nil, nil, nil
	for _, n := range found {
		to := places[place{n.cueID, n.version}]
		if slices.Contains(to.spans, n.span) { // between two runs, it is found twice
			continue
		}
		to.spans = append(to.spans, n.span)
		cues, versions, at = append(cues, n.cueID), append(versions, n.version), append(at, n.first)
	}
	_, err = tx.Exec(sqlRetainJoin, cues, versions, at)
	return err
}

// rowsAt finds the entries of retention that hold due times, each of a version of a cue.
func rowsAt(tx *db.Tx, cues []string, versions []int64, at []op.Time) ([]entry, error) {
	rows, err := tx.Query(sqlRetainFirst, cues, versions, at)
	first, err := scanAll(rows, err, func(first *op.Time, r scanner) error { return r.Scan(first) })
	if err != nil {
		return nil, fmt.Errorf("look where due times stand in the ledger: %w", err)
	}
	rows, err = tx.Query(sqlRetainHolds, cues, versions, at, first)
	return scanAll(rows, err, func(e *entry, r scanner) error {
		return r.Scan(&e.cueID, &e.version, &e.first, &e.last, &e.count)
	})
}

// joined are runs of due times with those made one that follow each other without a due time between them.
func (s schedule) joined(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	var out []span
	for _, x := range spans {
		if n := len(out); n > 0 {
			if next, ok := s.next(out[n-1].last); ok && next == x.first {
				out[n-1].last, out[n-1].count = x.last, out[n-1].count+x.count
				continue
			}
		}
		out = append(out, x)
	}
	return out
}

// scanFunc is a scanner.
type scanFunc func(...any) error

// Scan implements scanner.
func (f scanFunc) Scan(to ...any) error { return f(to...) }
