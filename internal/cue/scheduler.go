package cue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

const (
	lookEvery = time.Second // the scheduler looks at least so often, whatever it believes to be due
	dueAtOnce = 250         // cues fired in the first commit of many: half as many make the first wait less, twice as many save nothing
	dueMost   = 500         // in those that follow, where what counts is how soon all are done
)

// never is after every due time.
const never op.Time = math.MaxInt64

// alarm knows when the next cue is due. Every commit that writes an earlier due time lowers it, so it is never late; it may be
// early, and the look that it causes then sets it right.
type alarm struct {
	mu      sync.Mutex
	at      op.Time
	changes uint64        // counts lower
	ring    chan struct{} // holds a token when at was lowered
}

func (a *alarm) open() { a.at, a.ring = never, make(chan struct{}, 1) }

// lower notes a due time that was committed.
func (a *alarm) lower(at op.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.changes++
	if at >= a.at {
		return
	}
	a.at = at
	select {
	case a.ring <- struct{}{}:
	default:
	}
}

// before is to be called before a look; its result tells set whether the look may have missed something.
func (a *alarm) before() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changes
}

// set notes what a look found, unless a commit came in between.
func (a *alarm) set(at op.Time, before uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.changes == before {
		a.at = at
	}
}

// next is when the next cue is due.
func (a *alarm) next() op.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.at
}

// wait is how long to wait for the next look.
func (a *alarm) wait(now op.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.at == never {
		return lookEvery
	}
	return min(max(time.Duration(a.at-now)*time.Microsecond, 0), lookEvery)
}

// Pulse is the scheduler's last look, for health.
type Pulse struct {
	At    time.Time // zero before the first
	Took  time.Duration
	Fired int // due times that became executions
}

type pulse struct {
	mu   sync.Mutex
	last Pulse
}

// Pulse says when the scheduler last looked for cues that are due, and what it found.
func (c *Cues) Pulse() Pulse {
	c.pulse.mu.Lock()
	defer c.pulse.mu.Unlock()
	return c.pulse.last
}

// Run fires cues when they are due, calls callbacks, ends waits and leases whose time is over, and removes old executions, until ctx
// ends. Errors of the
// database go to the log, and the next look tries again. When ctx ends, calls that are under way end first, within stopWithin, or
// go back into their queue.
func (c *Cues) Run(ctx context.Context) error {
	var firing, calling sync.WaitGroup
	calls, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	firing.Go(func() { c.fireLoop(ctx) })
	firing.Go(func() { c.sweepLoop(ctx) })
	firing.Go(func() { c.retainLoop(ctx) })
	calling.Go(func() { c.deliver(calls) })
	firing.Wait()
	stop() // only now does nothing new come to the sender
	calling.Wait()
	if err := c.DB.Update(context.WithoutCancel(ctx), func(tx *db.Tx) error { return signAt(tx, c.now()) }); err != nil {
		c.Log.Error("the end of the scheduler could not be noted", "error", err)
	}
	return context.Cause(ctx)
}

func (c *Cues) fireLoop(ctx context.Context) {
	var known ahead
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-c.alarm.ring:
		}
		wait := lookEvery
		err := c.fireKnown(ctx, &known)
		if err == nil {
			err = c.sign(ctx)
		}
		if err == nil {
			wait, err = c.prepare(ctx, &known)
		}
		if err != nil && ctx.Err() == nil {
			c.Log.Error("firing what is due failed; the next look tries again", "error", err)
		}
		timer.Reset(wait)
	}
}

func (c *Cues) sweepLoop(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := c.sweep(ctx, c.now()); err != nil && ctx.Err() == nil {
			c.Log.Error("ending waits and leases failed; the next look tries again", "error", err)
		}
	}
}

// Settle does now all that Run would do by now: it fires what is due, ends waits and leases whose time is over, and calls
// callbacks until nothing is due and every result is stored. Old executions it leaves to Retain. Tests that turn the clock call it instead of waiting.
func (c *Cues) Settle(ctx context.Context) error {
	if err := c.fireDue(ctx); err != nil {
		return err
	}
	if err := c.sweep(ctx, c.now()); err != nil {
		return err
	}
	for {
		if err := c.feedAll(ctx); err != nil {
			return err
		}
		n, err := c.saveResults(ctx)
		if err != nil {
			return err
		}
		told, err := c.sendNotices(ctx)
		c.telling.batches.Wait()
		if err != nil {
			return err
		}
		if n+told > 0 {
			continue
		}
		if c.courier.idle() && c.courier.wait() > c.now() {
			return nil
		}
		pause(ctx, time.Millisecond) // something is under way
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// fireDue fires all that is due now, many cues in one commit, and sets the alarm for what comes next.
func (c *Cues) fireDue(ctx context.Context) error { return c.fireKnown(ctx, &ahead{}) }

// fireKnown is fireDue, with those first that are known already.
func (c *Cues) fireKnown(ctx context.Context, known *ahead) error {
	start := c.Now()
	fired := 0
	defer c.courier.results.unhurried()
	for most := dueAtOnce; ; most = min(2*most, dueMost) {
		now := c.now()
		due := known.take(now, most)
		if len(due) == 0 {
			var err error
			if due, err = c.lookUp(ctx, now, most); err != nil {
				return fmt.Errorf("look for cues that are due: %w", err)
			}
		}
		if len(due) == 0 {
			break
		}
		c.courier.results.hurried()
		n, err := c.fireBatch(ctx, due, now)
		fired += n
		if err != nil {
			return err
		}
	}
	c.pulse.mu.Lock()
	defer c.pulse.mu.Unlock()
	c.pulse.last = Pulse{At: start, Took: c.Now().Sub(start), Fired: fired}
	return nil
}

// dueCue is what the scheduler needs to know of a cue that is due.
type dueCue struct {
	id, workspace        string
	version              int64
	kind, cron, timezone string
	nextRun, decided     op.Time
	ready                *firing // worked out before its moment; nil when it was not
}

func (d *dueCue) scan(r scanner) error {
	return r.Scan(&d.id, &d.workspace, &d.version, &d.kind, &d.cron, &d.timezone, &d.nextRun, &d.decided)
}

// lookUp finds cues that are due, oldest first, at most `most`. When there are none it sets the alarm for the next.
func (c *Cues) lookUp(ctx context.Context, now op.Time, most int) (due []dueCue, err error) {
	before, next := c.alarm.before(), never
	err = c.DB.View(ctx, func(tx *db.Tx) error {
		if next, err = nextDue(tx); err != nil || next > now || most == 0 {
			return err
		}
		rows, err := tx.Query(sqlNextDues, most)
		due, err = scanAll(rows, err, (*dueCue).scan)
		due = slices.DeleteFunc(due, func(d dueCue) bool { return d.nextRun > now })
		if err == nil && len(due) == most {
			due, err = withOthers(tx, due, now)
		}
		return err
	})
	if err == nil && len(due) == 0 {
		c.alarm.set(next, before)
	}
	return due, err
}

const (
	turnsMost = 64 // steps of the search for workspaces that wait behind a flood
	turnMost  = 25 // cues of each that go with it
)

// withOthers adds to a full look the first cues of workspaces that wait behind it: who has many cues due at one instant delays the
// others by one commit, not by all of its own.
func withOthers(tx *db.Tx, due []dueCue, now op.Time) ([]dueCue, error) {
	seen := map[string]bool{}
	for _, d := range due {
		seen[d.workspace] = true
	}
	at, workspace := due[0].nextRun, due[0].workspace
	for range turnsMost {
		err := tx.Row(sqlNextTurn, at, workspace).Scan(&at, &workspace)
		if errors.Is(err, sql.ErrNoRows) || err == nil && at > now {
			break
		}
		if err != nil {
			return nil, err
		}
		if seen[workspace] {
			continue
		}
		seen[workspace] = true
		rows, err := tx.Query(sqlDuesOf, at, workspace, turnMost)
		more, err := scanAll(rows, err, (*dueCue).scan)
		if err != nil {
			return nil, err
		}
		due = append(due, more...)
	}
	return due, nil
}

func nextDue(tx *db.Tx) (op.Time, error) {
	at := never
	if err := tx.Row(sqlNextDue).Scan(&at); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return never, err
	}
	return at, nil
}

// fireBatch fires cues in one commit. When that fails, each is tried alone, so that one that cannot be fired holds up no other.
func (c *Cues) fireBatch(ctx context.Context, due []dueCue, now op.Time) (fired int, err error) {
	if fired, err = c.fireThese(ctx, due, now); err == nil || ctx.Err() != nil {
		return fired, err
	}
	var failed error
	for i := range due {
		n, err := c.fireThese(ctx, due[i:i+1], now)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("fire cue %s: %w", due[i].id, err))
		}
		fired += n
	}
	return fired, failed
}

// fireThese decides the due times of cues and moves each cue on, unless it has changed since it was found due: then the next
// look finds it as it is now.
func (c *Cues) fireThese(ctx context.Context, due []dueCue, now op.Time) (fired int, err error) {
	found := make([]firing, 0, len(due))
	for i := range due {
		f, err := c.firing(&due[i], now)
		if err != nil {
			return 0, err
		}
		found = append(found, f)
	}
	to := c.courier.parcel()
	defer to.drop()
	err = c.DB.Update(ctx, func(tx *db.Tx) error {
		to.drop() // of an earlier run of this function
		fs, err := stillDue(tx, found)
		if err != nil || len(fs) == 0 {
			return err
		}
		if fired, err = c.decide(tx, fs, now, to); err != nil {
			return err
		}
		return c.move(tx, fs, now)
	})
	to.send()
	if err != nil {
		return 0, err
	}
	return fired, nil
}

// firing is a cue whose next_run has come, with the due times to decide. There are none when time zones were changed by law
// since next_run was written; then the cue only moves on.
type firing struct {
	id, workspace string
	version       int64
	sched         schedule
	was           op.Time // the next_run that has come
	due           span    // all due times up to now
	next          op.Time // the due time after them; never for none

	// As of the transaction that decides.
	name                string
	catchUp             string
	transport, endpoint string
	call                *call // of a webhook whose payload is small, else nil
	fires               int64 // decided: so many of them become executions
}

func (c *Cues) firing(d *dueCue, now op.Time) (firing, error) {
	if d.ready != nil && now >= d.nextRun && now < d.ready.next {
		return *d.ready, nil
	}
	s, err := c.compile(d.kind, d.cron, d.timezone, d.nextRun)
	if err != nil {
		return firing{}, err
	}
	f := firing{id: d.id, workspace: d.workspace, version: d.version, sched: s, was: d.nextRun, due: s.due(d.decided, now), next: never}
	if f.due.count == 0 {
		f.due.last = d.decided
	}
	if next, ok := s.next(now); ok {
		f.next = next
	}
	return f, nil
}

// stillDue keeps the cues that are as they were when they were found, with what else there is to know of them now.
func stillDue(tx *db.Tx, found []firing) ([]firing, error) {
	ids, versions, was := make([]string, len(found)), make([]int64, len(found)), make([]op.Time, len(found))
	for i, f := range found {
		ids[i], versions[i], was[i] = f.id, f.version, f.was
	}
	rows, err := tx.Query(sqlDueStill, ids, versions, was)
	return scanAll(rows, err, func(f *firing, r scanner) error {
		var i int
		k := &call{}
		var payload *string
		err := r.Scan(&i, &f.catchUp, &f.transport, &f.endpoint, &k.name, &k.callback, &k.timeout, &k.outcomeWithin, &k.backoff,
			&k.maxAttempts, &k.once, &payload)
		if err != nil {
			return err
		}
		same := found[i-1]
		same.name, same.catchUp, same.transport, same.endpoint = k.name, f.catchUp, f.transport, f.endpoint
		if *f = same; payload != nil {
			k.payload, f.call = *payload, k
		}
		return nil
	})
}

// move sets the next due time of cues whose due times are decided. A one-time cue whose only due time was skipped has failed.
func (c *Cues) move(tx *db.Tx, fs []firing, now op.Time) error {
	ids, next := make([]string, len(fs)), make([]op.Time, len(fs))
	decided, fired := make([]op.Time, len(fs)), make([]int64, len(fs))
	for i, f := range fs {
		ids[i], next[i], decided[i] = f.id, f.next, f.due.last
		if f.next == never {
			next[i] = -1
		}
		fired[i] = f.fires
	}
	if _, err := tx.Exec(sqlDueMove, ids, next, decided, fired); err != nil {
		return err
	}
	for _, f := range fs {
		if f.sched.kind == once && f.fires == 0 && f.due.count > 0 {
			if err := c.end(tx, f.id, failed, "", now); err != nil {
				return err
			}
		}
	}
	return nil
}
