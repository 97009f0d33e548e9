package cue

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

const recheckEvery = 50 * time.Millisecond // how often a call that waits looks whether its key still lives

// claim is one call for work, and what it got.
type claim struct {
	caller  *access.Caller
	worker  string
	request string   // request_id; "" for none
	id      string   // this execution only; "" for the oldest
	tasks   []string // only of these; none for any
	agent   *string  // only for this agent; nil for any
	most    int
	bare    bool // the answer has the contract's shape: the client may not know tokens
	waits   bool

	taken   []lease
	bytes   int     // of their payloads
	nextDue op.Time // when waiting work of the workspace next becomes due; 0 for none. Looked up for calls that wait in vain
}

// lease is one execution as it is handed to a worker.
type lease struct {
	work
	token string
	until op.Time
}

func (l *lease) scan(r scanner) error {
	return r.Scan(&l.id, &l.workspace, &l.cueID, &l.cueName, &l.status, &l.task, &l.size, &l.small, &l.scheduledFor, &l.attempts, &l.criteria,
		&l.token, &l.until)
}

func (cl *claim) add(l lease) {
	cl.taken = append(cl.taken, l)
	cl.bytes += l.size
}

// claim gets work for a call. It waits up to `wait` for some, and hands nothing over to a caller that has hung up or, after a
// wait, to a key that has ended: that work is offered again at once. Only a caller that gave a request_id is expected to come
// back for it, also with its key's next secret.
func (c *Cues) claim(ctx context.Context, cl *claim, wait time.Duration) error {
	if err := cl.caller.CheckWorker(cl.worker); err != nil {
		return err
	}
	err := c.claimOrWait(ctx, cl, wait)
	if err == nil {
		err = c.fetch(ctx, cl)
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	if err == nil && wait > 0 {
		err = cl.caller.Recheck(ctx)
	}
	returns := err != nil && cl.request != "" && (ctx.Err() != nil || op.AsError(err).Code.Name == access.KeyRotated.Name)
	if err != nil && len(cl.taken) > 0 && !returns {
		if back := c.giveBack(context.WithoutCancel(ctx), cl.taken); back != nil {
			return fmt.Errorf("%w; and its work could not be offered again at once: %w", err, back)
		}
	}
	return err
}

func (c *Cues) claimOrWait(ctx context.Context, cl *claim, wait time.Duration) error {
	place, leave := c.repeats.replace(ctx, cl, wait > 0)
	defer leave()
	if wait <= 0 {
		return c.claims.do(ctx, cl, c.take)
	}
	err := c.wait(place, cl, wait)
	if errors.Is(err, errReplaced) {
		return nil // with nothing: the call that repeats it has the answer
	}
	return err
}

// wait takes work as soon as there is some.
func (c *Cues) wait(ctx context.Context, cl *claim, wait time.Duration) error {
	workspace := cl.caller.Workspace()
	c.waiting.enter(workspace)
	defer c.waiting.leave(workspace)
	cl.waits = true
	deadline := time.Now().Add(wait)
	for {
		bell := c.waiting.bell(workspace)
		if err := c.claims.do(ctx, cl, c.take); err != nil || len(cl.taken) > 0 {
			return err
		}
		if again, err := c.sleep(ctx, cl, bell, deadline); !again {
			return err
		}
	}
}

// sleep waits until there may be work (true), or until the wait is over or must end.
func (c *Cues) sleep(ctx context.Context, cl *claim, bell <-chan struct{}, deadline time.Time) (again bool, err error) {
	for {
		changed := c.Access.Changed() // asked before the key is looked at, so that no change goes unseen
		if err := cl.caller.Recheck(ctx); err != nil || again {
			return again && err == nil, err
		}
		pause := min(time.Until(deadline), recheckEvery)
		if pause <= 0 {
			return false, nil
		}
		if cl.nextDue != 0 {
			untilDue := time.Duration(cl.nextDue-c.now()) * time.Microsecond
			pause = min(pause, max(untilDue, time.Millisecond))
		}
		timer := time.NewTimer(pause)
		select {
		case <-bell:
			again = true
		case <-timer.C:
			again = cl.nextDue != 0 && c.now() >= cl.nextDue
		case <-changed:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		timer.Stop()
		if err != nil {
			return false, err
		}
	}
}

// take runs a batch of claims in one transaction, first come first served. It implements batch.
func (c *Cues) take(ctx context.Context, batch func() []*claim) error {
	return c.DB.Update(ctx, func(tx *db.Tx) error {
		claims := batch()
		r := &round{c: c, tx: tx, now: c.now(), gone: map[string]bool{}, given: map[holder][]lease{}, twins: map[*claim]*claim{}, sums: tally{}}
		for _, cl := range claims {
			cl.taken, cl.bytes, cl.nextDue = nil, 0, 0
		}
		for _, step := range []func([]*claim) ([]*claim, error){r.repeated, r.byID, r.oldest} {
			var err error
			if claims, err = step(claims); err != nil {
				return err
			}
		}
		return r.save()
	})
}

// round is one transaction of claims.
type round struct {
	c     *Cues
	tx    *db.Tx
	now   op.Time
	gone  map[string]bool    // executions given out in this round
	given map[holder][]lease // not yet written
	twins map[*claim]*claim  // calls that repeat another one of the same round
	sums  tally
}

// holder is who gets leases, as they are written: those of one holder take one statement.
type holder struct {
	key, worker, request string
	bare                 bool
}

// give hands an execution to a call.
func (r *round) give(cl *claim, w work) {
	l := lease{work: w, token: rand.Text(), until: r.c.leaseEnd(r.now)}
	l.attempts++
	to := holder{cl.caller.KeyID(), cl.worker, cl.request, cl.bare}
	r.given[to] = append(r.given[to], l)
	r.gone[w.id] = true
	r.sums.moved(w.workspace, w.status, statusDelivering)
	cl.add(l)
}

// save writes what was given out, in bounded statements.
func (r *round) save() error {
	if err := r.c.sawClaims(r.tx, r.given, r.now); err != nil {
		return err
	}
	for to, leases := range r.given {
		for some := range slices.Chunk(leases, gatherMost) {
			ids, tokens := make([]string, len(some)), make([]string, len(some))
			for i, l := range some {
				ids[i], tokens[i] = l.id, l.token
			}
			n, err := r.tx.Exec(sqlClaim, ids, tokens, to.key, to.worker, r.now, to.request, to.bare, some[0].until)
			if err != nil {
				return fmt.Errorf("claim executions: %w", err)
			}
			if n != int64(len(some)) {
				return errors.New("claim executions: somebody else took one between look and claim")
			}
		}
	}
	r.c.publish(r.tx, func(say sayer) {
		for to, leases := range r.given {
			for i := range leases {
				l := &leases[i]
				say(l.workspace, LiveEvent{
					Type: liveClaimed, At: r.now, CueID: l.cueID, CueName: l.cueName, ExecutionID: l.id, WorkerID: to.worker, Attempt: l.attempts, LeaseUntil: l.until,
				})
			}
		}
	})
	for twin, first := range r.twins {
		twin.taken = slices.Clone(first.taken) // each call reads the large payloads for itself
	}
	return r.sums.save(r.tx)
}

// leaseEnd is when a lease ends that is taken or renewed now.
func (c *Cues) leaseEnd(now op.Time) op.Time { return in(now, c.Lease) }

// repeated answers calls whose request_id was served before, while its leases live, with what they were given then. Two such
// calls in one round are one.
func (r *round) repeated(claims []*claim) (rest []*claim, err error) {
	type request struct{ key, worker, id string }
	first := map[request]*claim{}
	for _, cl := range claims {
		if cl.request == "" {
			rest = append(rest, cl)
			continue
		}
		q := request{cl.caller.KeyID(), cl.worker, cl.request}
		if first[q] != nil {
			r.twins[cl] = first[q]
			continue
		}
		first[q] = cl
		rows, err := r.tx.Query(sqlLeasesOfRequest, q.key, q.worker, q.id, r.now)
		held, err := scanAll(rows, err, (*lease).scan)
		if err != nil {
			return nil, fmt.Errorf("look for the claims of a repeated request: %w", err)
		}
		for _, l := range held {
			if cl.caller.SeesCue(l.cueID, l.cueName) {
				cl.add(l)
			}
		}
		if len(held) == 0 {
			rest = append(rest, cl)
		}
	}
	return rest, nil
}

// byID serves the calls that want one certain execution.
func (r *round) byID(claims []*claim) (rest []*claim, err error) {
	var wanted []*claim
	var ids []string
	for _, cl := range claims {
		if cl.id == "" {
			rest = append(rest, cl)
			continue
		}
		wanted, ids = append(wanted, cl), append(ids, cl.id)
	}
	if len(wanted) == 0 {
		return rest, nil
	}
	rows, err := r.tx.Query(sqlWorkByID, ids)
	found, err := scanAll(rows, err, (*work).scan)
	if err != nil {
		return nil, fmt.Errorf("look for the executions to claim: %w", err)
	}
	byID := map[string]work{}
	for _, w := range found {
		byID[w.id] = w
	}
	for _, cl := range wanted {
		w, ok := byID[cl.id]
		if !ok || r.gone[w.id] || !w.ready(r.now) || w.workspace != cl.caller.Workspace() || !cl.caller.SeesCue(w.cueID, w.cueName) {
			continue
		}
		r.give(cl, w)
	}
	return rest, nil
}

// oldest serves the calls that want the oldest work that they may have. Calls that want the same share one look.
func (r *round) oldest(claims []*claim) (rest []*claim, err error) {
	var order []readyQuery
	groups := map[readyQuery][]*claim{}
	for _, cl := range claims {
		q := readyQueryOf(cl.caller, cl.tasks, cl.agent)
		if groups[q] == nil {
			order = append(order, q)
		}
		groups[q] = append(groups[q], cl)
	}
	for _, q := range order {
		if err := r.serve(q, groups[q]); err != nil {
			return nil, fmt.Errorf("look for work: %w", err)
		}
	}
	return nil, nil
}

// serve gives the work that a query finds to the calls that asked for it, in their order.
func (r *round) serve(q readyQuery, claims []*claim) error {
	most := len(r.gone) // those may be found once more
	for _, cl := range claims {
		most += cl.most
	}
	found, err := q.find(r.tx, claims[0].caller, r.now, most)
	if err != nil {
		return err
	}
	waiting := claims
	for _, w := range found {
		if r.gone[w.id] {
			continue
		}
		for len(waiting) > 0 && !waiting[0].takes(&w) {
			waiting = waiting[1:]
		}
		if len(waiting) == 0 {
			break
		}
		r.give(waiting[0], w)
	}
	return r.lookAhead(q.workspace, claims)
}

// lookAhead tells the calls that wait in vain when there is next something to do.
func (r *round) lookAhead(workspace string, claims []*claim) error {
	var next op.Time
	for _, cl := range claims {
		if !cl.waits || len(cl.taken) > 0 {
			continue
		}
		if next == 0 {
			err := r.tx.Row(sqlNextReady, workspace, r.now).Scan(&next)
			if errors.Is(err, sql.ErrNoRows) {
				return nil
			}
			if err != nil {
				return err
			}
		}
		cl.nextDue = next
	}
	return nil
}

// giveBack offers work again that was claimed but cannot be handed over; the attempt does not count.
func (c *Cues) giveBack(ctx context.Context, leases []lease) error {
	return c.DB.Update(ctx, func(tx *db.Tx) error {
		sums := tally{}
		for _, l := range leases {
			if err := c.giveBackOne(tx, sums, &l.work, l.token); err != nil {
				return err
			}
		}
		return sums.save(tx)
	})
}

func (c *Cues) giveBackOne(tx *db.Tx, sums tally, w *work, token string) error {
	now := c.now()
	n, err := tx.Exec(sqlGiveBack, w.id, token, now, in(now, c.UnclaimedAfter))
	if err != nil {
		return fmt.Errorf("give an execution back: %w", err)
	}
	if n > 0 {
		sums.moved(w.workspace, statusDelivering, statusPending)
		tx.AfterCommit(func() { c.wake(w.workspace) })
		c.publish(tx, func(say sayer) {
			say(w.workspace, LiveEvent{
				Type: liveRetrying, At: now, CueID: w.cueID, CueName: w.cueName, ExecutionID: w.id, Status: statusPending, Error: untouchedMessage, RetryAt: now,
			})
		})
	}
	return nil
}

// untouchedMessage says why work is offered again that was taken and not begun.
const untouchedMessage = "It was given back before work on it had begun"
