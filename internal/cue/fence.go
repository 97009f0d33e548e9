package cue

import (
	"unstuck/internal/access"
	"unstuck/internal/op"
)

// mayReport says whether a call may speak about an execution at all: the worker that it acts as must be one that its key allows,
// and over the rate limit only the key that holds a live lease is heard, because a report that is refused is lost work.
func (c *Cues) mayReport(h *held, caller *access.Caller, worker string, now op.Time) error {
	if worker == "" {
		worker = h.claimedWorker
	}
	if worker != "" {
		if err := caller.CheckWorker(worker); err != nil {
			return err
		}
	}
	if caller.OverLimit() && !h.holds(caller, now) {
		return caller.RefuseOverLimit()
	}
	return nil
}

// holds says that the key took the execution and that the time for which it took it is not over, whatever it has reported since.
func (h *held) holds(caller *access.Caller, now op.Time) bool {
	return h.claimedKey == caller.KeyID() && h.leaseUntil != nil && *h.leaseUntil > now
}

// leased says that somebody holds the execution now.
func (h *held) leased(now op.Time) bool {
	return h.status == statusDelivering && h.leaseUntil != nil && *h.leaseUntil > now
}

// fence keeps everybody but the holder from acting on an execution. A token must be that of the last claim: it stays good after
// the lease has run out until somebody else claims, so that late work is not lost. A client that brings no token is heard when
// no lease lives; while one lives, only with the key (and the worker id, if it names one) that holds it, or with any key once
// that key no longer verifies: a worker may get a new key in the middle of a job.
func (c *Cues) fence(h *held, caller *access.Caller, token, worker string, now op.Time) error {
	switch {
	case token != "":
		if token == h.leaseToken {
			return nil
		}
	case !h.leased(now) || !c.Access.KeyLives(h.claimedKey):
		return nil
	case h.claimedKey == caller.KeyID() && (worker == "" || worker == h.claimedWorker):
		return nil
	}
	return stale(h, now)
}

// staleClaim is what a 409 stale_claim tells about the execution as it is now.
type staleClaim struct {
	Execution presentState `json:"execution"`
}

// presentState is how an execution stands. It holds nothing by which somebody could act on it.
type presentState struct {
	ID              string   `json:"id"`
	Status          string   `json:"status"`
	Attempts        int64    `json:"attempts"`
	ClaimedByWorker *string  `json:"claimed_by_worker"`
	LeaseUntil      *op.Time `json:"lease_until"`
	OutcomeState    *string  `json:"outcome_state"`
}

func stale(h *held, now op.Time) error {
	e := StaleClaim.Msg("Another claim holds this execution now: the lease that this call speaks for is over.")
	p := presentState{ID: h.id, Status: h.status, Attempts: h.attempts, OutcomeState: orNil(h.outcomeState), ClaimedByWorker: orNil(h.claimedWorker)}
	if h.leased(now) {
		p.LeaseUntil = h.leaseUntil
	} else {
		e.Message = "The lease that this call speaks for is over, and it is not the last one."
	}
	e.Extra = staleClaim{p}
	return e
}
