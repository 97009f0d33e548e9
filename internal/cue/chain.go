package cue

import (
	"database/sql"
	"errors"
	"fmt"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

// A chain: the success of an execution fires another cue, once, in the transaction that stores the success (CueAPI wire contract
// 10.1, on_success_fire). A success is one that the verification policy accepts: an outcome that lacks its evidence, or waits for
// somebody's judgement, fires when it is verified. The fired execution has the payload of its own cue.

// chainPlace is an execution's place in a chain.
type chainPlace struct {
	id     string // of the first execution, in all of them; "" in none
	parent string // execution whose success fired it
	depth  int64  // 0 for the first
	next   string // what its success fired: an execution, or one of the words below; "" for nothing yet
}

// Why a success fired nothing although the cue asks for it.
const (
	chainGone   = "gone"     // the next cue was deleted
	chainPaused = "paused"   // it is paused
	chainPlan   = reasonPlan // the plan had no room for its execution
)

func (l *chainPlace) show(o *executionObject) {
	o.ChainID, o.ChainParent, o.ChainDepth = orNil(l.id), orNil(l.parent), l.depth
	switch l.next {
	case chainGone, chainPaused, chainPlan:
		o.ChainEnd = &l.next
	default:
		o.ChainChild = orNil(l.next)
	}
}

// fires says that the execution has succeeded and is to fire another cue, which it has not.
func (h *held) fires() bool {
	return h.chains && h.status == statusSuccess && (h.outcomeState == reportedSuccess || h.outcomeState == verifiedSuccess)
}

// fireNext fires what follows the success of executions.
func (c *Cues) fireNext(tx *db.Tx, parents []string, now op.Time) error {
	for _, id := range parents {
		if err := c.fireAfter(tx, id, now); err != nil {
			return fmt.Errorf("fire what follows execution %s: %w", id, err)
		}
	}
	return nil
}

func (c *Cues) fireAfter(tx *db.Tx, id string, now op.Time) error {
	e := &execution{triggeredBy: byChain, scheduledFor: now, createdAt: now}
	var parentName string
	var cueID, status, payload, verification *string
	var attempts *int64
	err := tx.Row(sqlChainNext, id).Scan(&e.workspace, &e.chain.id, &e.chain.depth, &parentName, &cueID, &status, &payload, &verification, &attempts)
	if errors.Is(err, sql.ErrNoRows) { // it has fired, or is not to fire any more
		return nil
	}
	if err != nil {
		return err
	}
	if e.chain.id == "" {
		e.chain.id = id
	}
	next := ""
	switch {
	case cueID == nil:
		next = chainGone
	case *status == paused:
		next = chainPaused
	default:
		room, err := c.admit(tx, e.workspace, now, 1)
		if err != nil {
			return err
		}
		if room == 0 {
			next = chainPlan
		}
	}
	if next == "" {
		e.cueID, e.payload, e.verification, e.maxAttempts = *cueID, *payload, *verification, *attempts
		e.chain.parent, e.chain.depth = id, e.chain.depth+1
		if err := c.insertExecution(tx, e); err != nil {
			return err
		}
		next = e.id
	}
	_, err = tx.Exec(sqlChained, id, next, e.chain.id)
	return err
}

// chain puts into a cue which other its successes fire. The other must be one that the caller sees, and must not lead back: as
// every cue leads to one other at most, following them from there finds every circle, also one that only this edit would close.
func (d *definition) chain(tx *db.Tx, caller *access.Caller, q *cue) error {
	switch {
	case !d.OnSuccess.Set:
		return nil
	case d.OnSuccess.Null || d.OnSuccess.Val == "":
		q.onSuccess = ""
		return nil
	}
	next, err := loadCue(tx, caller, d.OnSuccess.Val)
	if e := (*op.Error)(nil); errors.As(err, &e) && e.Code == CueNotFound {
		return op.Invalid("body.on_success_fire", "Value error, there is no cue %s that this key can see", op.Quote(d.OnSuccess.Val))
	}
	if err != nil {
		return err
	}
	q.onSuccess = next.id
	for at, steps := next.id, 0; at != ""; steps++ {
		if at == q.id {
			return op.Invalid("body.on_success_fire", "Value error, %s leads back to %s: their successes would fire each other without end", op.Quote(next.name), op.Quote(q.name))
		}
		if steps == chainMost {
			return op.Invalid("body.on_success_fire", "Value error, more than %d cues would follow one another", chainMost)
		}
		err := tx.Row(sqlCueOnward, at).Scan(&at)
		if errors.Is(err, sql.ErrNoRows) { // deleted: the chain ends there
			return nil
		}
		if err != nil {
			return fmt.Errorf("follow the chain of cue %s: %w", q.id, err)
		}
	}
	return nil
}

// chainMost is how many cues may follow a cue.
const chainMost = 100
