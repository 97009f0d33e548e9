package cue

import (
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Observer hears what happened, after it was committed, for metrics. Its methods must be short.
type Observer interface {
	// Fired hears of a due time that became an execution, and how long after it that was.
	Fired(lag time.Duration)
	// Made hears of an execution that something else made: manual_fire, replay or chain.
	Made(by string)
	// Settled hears of due times that did not become executions: skipped or coalesced.
	Settled(ending string, n int64)
	// Batch hears how many due times one commit fired.
	Batch(n int)
	// Attempted hears of a call of a callback, by the class of its end, and how long after its moment it began.
	Attempted(class string, late time.Duration)
	// Claimed hears of an execution that a worker took, and how long it had waited for one.
	Claimed(waited time.Duration)
	// LeaseEnded hears of a lease that ran out without a report.
	LeaseEnded()
	// Ended hears of an execution that has ended, by its status.
	Ended(status string)
}

// deaf hears nothing.
type deaf struct{}

func (deaf) Fired(time.Duration)             {}
func (deaf) Made(string)                     {}
func (deaf) Settled(string, int64)           {}
func (deaf) Batch(int)                       {}
func (deaf) Attempted(string, time.Duration) {}
func (deaf) Claimed(time.Duration)           {}
func (deaf) LeaseEnded()                     {}
func (deaf) Ended(string)                    {}

// between is how long after one moment another is; 0 when it is not.
func between(from, to op.Time) time.Duration {
	return max(time.Duration(to-from)*time.Microsecond, 0)
}

// sawFired is called in the transaction that fires due times.
func (c *Cues) sawFired(tx *db.Tx, all []fired) {
	tx.AfterCommit(func() {
		now := c.now()
		for i := range all {
			c.Observe.Fired(between(all[i].due, now))
		}
		c.Observe.Batch(len(all))
		if c.Trace != nil {
			for i := range all {
				f := &all[i]
				c.traceFire(f.id, f.due, now, byScheduler, f.firing.id, f.workspace)
			}
		}
	})
}

// sawSettled is called in the transaction that settles due times without firing them.
func (c *Cues) sawSettled(tx *db.Tx, ending string, n int64) {
	if n > 0 {
		tx.AfterCommit(func() { c.Observe.Settled(ending, n) })
	}
}

// sawMade is called in the transaction that makes executions in another way.
func (c *Cues) sawMade(tx *db.Tx, es []*execution) {
	tx.AfterCommit(func() {
		for _, e := range es {
			c.Observe.Made(e.triggeredBy)
			if c.Trace != nil && e.scheduledFor <= e.createdAt {
				c.traceFire(e.id, e.scheduledFor, c.now(), e.triggeredBy, e.cueID, e.workspace)
			}
		}
	})
}

// sawClaims is called in the transaction that hands executions to workers, before it writes them.
func (c *Cues) sawClaims(tx *db.Tx, given map[holder][]lease, now op.Time) error {
	if len(given) == 0 {
		return nil
	}
	tx.AfterCommit(func() {
		for _, leases := range given {
			for i := range leases {
				c.Observe.Claimed(between(leases[i].scheduledFor, now))
			}
		}
	})
	if c.Trace == nil {
		return nil
	}
	var ids []string
	for _, leases := range given {
		for i := range leases {
			ids = append(ids, leases[i].id)
		}
	}
	found, err := c.traced(tx, ids)
	if err != nil {
		return err
	}
	tx.AfterCommit(func() {
		for i := range found {
			x := &found[i]
			c.traceQueue(x.id, x.attempts+1, max(x.scheduledFor, x.updatedAt), now)
		}
	})
	return nil
}

// sawResults is called after the commit of what became of calls.
func (c *Cues) sawResults(some []*result) {
	for _, r := range some {
		if !r.back {
			c.Observe.Attempted(r.class, between(r.waited, r.began))
			c.traceAttempt(r)
		}
	}
}

// sawLeaseEnd is called in the transaction that ends a lease without a report, before it writes that.
func (c *Cues) sawLeaseEnd(tx *db.Tx, id, how string, now op.Time) error {
	if how == leaseExpired {
		tx.AfterCommit(c.Observe.LeaseEnded)
	}
	if c.Trace == nil {
		return nil
	}
	found, err := c.traced(tx, []string{id})
	if err != nil {
		return err
	}
	tx.AfterCommit(func() {
		for i := range found {
			c.traceLease(&found[i], how, now)
		}
	})
	return nil
}

// How leases end without a report.
const (
	leaseExpired  = "expired"
	leaseReleased = "released"
)

// sawEnds is called in the transaction in which executions end, after it has written that.
func (c *Cues) sawEnds(tx *db.Tx, status string, now op.Time, ids ...string) error {
	if len(ids) == 0 {
		return nil
	}
	tx.AfterCommit(func() {
		for range ids {
			c.Observe.Ended(status)
		}
	})
	if c.Trace == nil {
		return nil
	}
	found, err := c.traced(tx, ids)
	if err != nil {
		return err
	}
	tx.AfterCommit(func() {
		for i := range found {
			c.traceEnd(&found[i], now)
		}
	})
	return nil
}
