package cue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

const (
	callGrace  = time.Minute // beyond its timeout, until a call that nobody knows of any more is sent again
	rescan     = time.Minute // how often the lanes are read from the database in case
	resultMost = 1000        // results stored in one commit
)

// callDeadline is when a call that is handed to the sender now must have ended.
func callDeadline(now op.Time, timeout int64) op.Time {
	return in(now, time.Duration(timeout)*time.Second+callGrace)
}

// call is what the callback of a cue is called with: as of queueing for the first attempt, as of the retry for the others
// (CueAPI wire contract 3.5).
type call struct {
	name          string // of the cue
	callback      string // JSON of callbackObject
	timeout       int64  // seconds
	outcomeWithin *int64
	backoff       string // JSON list of minutes
	maxAttempts   int64
	once          bool // the cue is over with its execution
	payload       string
}

// job is one attempt, in memory from when it is reserved until its end is durable.
type job struct {
	call
	lane
	id, cueID    string
	scheduledFor op.Time
	createdAt    op.Time
	was          string  // status while it waited
	waited       op.Time // its deliver_at
	attempt      int64   // 1 for the first
	cancelled    atomic.Bool
}

func (j *job) cost() int64 { return jobCost + int64(len(j.payload)+len(j.callback)) }

// courier brings executions from the database to the sender, and results back.
type courier struct {
	lanes
	post    poster
	feeding sync.Mutex // one round at a time

	results results
	saving  sync.Mutex
}

// poster sends. *postbox is the one of the product; it calls back with the result of each job, once.
type poster interface {
	// send takes a job. It must not block.
	send(j *job, done func(*result))
	// notify sends a notice, once. It must not block.
	notify(n *notice, done func(*result))
	// stop ends what is under way, within the context, and calls back for all that was not sent.
	stop(ctx context.Context)
}

func (k *courier) open() {
	k.lanes.open()
	k.results.open()
}

// parcel gathers jobs of one transaction, to be sent when it is committed.
type parcel struct {
	c    *courier
	jobs []*job
	safe []*job // those that are committed
}

func (k *courier) parcel() *parcel { return &parcel{c: k} }

// add takes a due time along if there is room for it; otherwise it must be queued.
func (p *parcel) add(f *fired, now op.Time) bool {
	if p == nil || f.call == nil {
		return false
	}
	j := &job{
		call: *f.call, lane: lane{f.workspace, f.endpoint}, id: f.id, cueID: f.firing.id, scheduledFor: f.due, createdAt: now,
		was: statusPending, waited: now, attempt: 1,
	}
	if !p.c.reserve(j.lane, j.cost(), now) {
		return false
	}
	p.jobs = append(p.jobs, j)
	return true
}

// drop gives up what was reserved.
func (p *parcel) drop() {
	p.c.release(p.jobs)
	p.jobs = nil
}

// keep notes that the jobs are committed. It runs within the commit, so that whoever deletes their cue from now on finds them.
func (p *parcel) keep() {
	if p == nil || len(p.jobs) == 0 {
		return
	}
	p.c.hold(p.jobs)
	p.safe, p.jobs = p.jobs, nil
}

// send sends what is committed.
func (p *parcel) send() {
	p.c.sendAll(p.safe)
	p.safe = nil
}

func (k *courier) sendAll(jobs []*job) {
	for _, j := range jobs {
		k.post.send(j, k.results.add)
	}
}

// deliver feeds the sender until ctx ends. What is then under way ends, or goes back into its queue.
func (c *Cues) deliver(ctx context.Context) {
	results, stopResults := context.WithCancel(context.WithoutCancel(ctx))
	var tasks sync.WaitGroup
	tasks.Go(func() { c.resultLoop(results) })
	tasks.Go(func() { c.noticeLoop(ctx) })
	c.feedLoop(ctx)
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	c.courier.post.stop(within)
	stopResults()
	tasks.Wait()
	for {
		n, err := c.saveResults(context.WithoutCancel(ctx))
		if err != nil {
			c.Log.Error("storing the last results of callbacks failed; the next start sends these executions again", "error", err)
			return
		}
		if n == 0 {
			return
		}
	}
}

// stopWithin is how long calls that are under way get to end when the server stops.
const stopWithin = 5 * time.Second

func (c *Cues) feedLoop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	scanned := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-c.courier.ring:
		}
		err := c.feedAll(ctx)
		if err == nil && time.Since(scanned) > rescan {
			err, scanned = c.readLanes(ctx), time.Now()
		}
		wait := lookEvery
		if err != nil && ctx.Err() == nil {
			c.Log.Error("looking for what is to be sent failed; the next look tries again", "error", err)
		} else if at := c.courier.wait(); at != never {
			wait = min(max(time.Duration(at-c.now())*time.Microsecond, 0), lookEvery)
		}
		timer.Reset(wait)
	}
}

func (c *Cues) resultLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.courier.results.came:
		}
		c.courier.results.linger(ctx)
		for {
			n, err := c.saveResults(ctx)
			if err != nil && ctx.Err() == nil { // the last ones are stored after the end of this loop
				c.Log.Error("storing the results of callbacks failed; it is tried again", "error", err)
				pause(ctx, lookEvery)
				c.courier.results.ring()
			}
			if err != nil || n == 0 {
				break
			}
		}
	}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// feedAll feeds the sender until it has enough, or nothing is due.
func (c *Cues) feedAll(ctx context.Context) error {
	c.courier.feeding.Lock()
	defer c.courier.feeding.Unlock()
	for ctx.Err() == nil {
		quotas := c.courier.pick(c.now())
		if len(quotas) == 0 {
			return nil
		}
		if err := c.feed(ctx, quotas); err != nil {
			return err
		}
	}
	return nil
}

// feed takes the oldest of some lanes out of the database, in one commit, and hands them to the sender.
func (c *Cues) feed(ctx context.Context, quotas []quota) error {
	now := c.now()
	done := false
	var jobs []*job
	err := c.DB.Update(ctx, func(tx *db.Tx) error {
		batches := make([]laneBatch, len(quotas))
		for i, q := range quotas {
			var err error
			if batches[i], err = readBatch(tx, q, now); err != nil {
				return fmt.Errorf("read what is to be sent to %s: %w", q.endpoint, err)
			}
		}
		if err := take(tx, batches, now); err != nil {
			return err
		}
		for i := range batches {
			if err := batches[i].readNext(tx); err != nil {
				return err
			}
		}
		tx.AfterCommit(func() {
			done = true
			for i := range batches {
				c.courier.load(batches[i].quota, batches[i].jobs, batches[i].next)
				for _, to := range batches[i].moved {
					c.courier.lower(to.lane, to.next)
				}
				jobs = append(jobs, batches[i].jobs...)
			}
		})
		return nil
	})
	c.courier.sendAll(jobs)
	if !done {
		c.courier.unreserve(quotas)
	}
	return err
}

// laneBatch is what one lane sends in a round.
type laneBatch struct {
	quota
	jobs  []*job
	moved map[string]laneHead // retries whose cue has another callback by now, with the lane in which they wait from now on
	next  op.Time             // what the database keeps of the lane afterwards
}

// laneHead is the earliest that waits in a lane.
type laneHead struct {
	lane
	next op.Time
}

// readBatch reads the oldest of a lane, as much as there is room for.
func readBatch(tx *db.Tx, q quota, now op.Time) (laneBatch, error) {
	b := laneBatch{quota: q, moved: map[string]laneHead{}, next: never}
	rows, err := tx.Query(sqlLaneJobs, q.workspace, q.endpoint, q.jobs)
	found, err := scanAll(rows, err, (*waitingJob).scan)
	if err != nil {
		return b, err
	}
	left := q.cost
	for i := range found {
		w := &found[i]
		if w.waited > now {
			break
		}
		if w.callback == "" { // a retry: as the cue is now
			w.call = w.current
			if w.endpoint != q.endpoint {
				b.moved[w.id] = laneHead{lane{q.workspace, w.endpoint}, w.waited}
				continue
			}
		}
		w.once = w.current.once
		if left -= jobCost + w.size + int64(len(w.callback)); left < 0 && len(b.jobs) > 0 {
			break
		}
		j := w.job(q.lane)
		if w.small != nil {
			j.payload = *w.small
		} else if err := tx.Row(sqlPayload, w.id).Scan(&j.payload); err != nil {
			return b, err
		}
		b.jobs = append(b.jobs, j)
	}
	return b, nil
}

// waitingJob is a row of sqlLaneJobs.
type waitingJob struct {
	id, cueID, status    string
	scheduledFor, waited op.Time
	attempts             int64
	createdAt            op.Time
	size                 int64
	small                *string
	call                 // as of queueing; its callback is "" after the first attempt
	current              call
	endpoint             string // of the cue as it is now
}

func (w *waitingJob) scan(r scanner) error {
	return r.Scan(&w.id, &w.cueID, &w.status, &w.scheduledFor, &w.waited, &w.attempts, &w.createdAt, &w.size, &w.small,
		&w.name, &w.callback, &w.timeout, &w.outcomeWithin, &w.backoff, &w.maxAttempts,
		&w.current.name, &w.current.callback, &w.current.timeout, &w.current.outcomeWithin, &w.current.backoff, &w.current.maxAttempts,
		&w.endpoint, &w.current.once)
}

func (w *waitingJob) job(l lane) *job {
	return &job{
		call: w.call, lane: l, id: w.id, cueID: w.cueID, scheduledFor: w.scheduledFor, createdAt: w.createdAt, was: w.status,
		waited: w.waited, attempt: w.attempts + 1,
	}
}

// take marks batches as being sent.
func take(tx *db.Tx, batches []laneBatch, now op.Time) error {
	var ids, moved, to []string
	var deadlines, most, within []int64
	sums := tally{}
	for _, b := range batches {
		for _, j := range b.jobs {
			ids, most = append(ids, j.id), append(most, j.maxAttempts)
			deadlines, within = append(deadlines, int64(callDeadline(now, j.timeout))), append(within, orMinus(j.outcomeWithin))
			sums.moved(j.workspace, j.was, statusDelivering)
		}
		for id, h := range b.moved {
			moved, to = append(moved, id), append(to, h.endpoint)
		}
	}
	if len(moved) > 0 {
		if _, err := tx.Exec(sqlLaneChange, moved, to); err != nil {
			return fmt.Errorf("queue retries for their new callback: %w", err)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	if _, err := tx.Exec(sqlLaneTake, ids, deadlines, most, within, now); err != nil {
		return fmt.Errorf("take what is to be sent: %w", err)
	}
	return sums.save(tx)
}

// readNext finds what waits in the lane now.
func (b *laneBatch) readNext(tx *db.Tx) error {
	err := tx.Row(sqlLaneNext, b.workspace, b.endpoint).Scan(&b.next)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("look what else is to be sent to %s: %w", b.endpoint, err)
	}
	return nil
}

// readLanes finds out what waits in the database.
func (c *Cues) readLanes(ctx context.Context) error {
	var found []laneHead
	err := c.DB.View(ctx, func(tx *db.Tx) error {
		rows, err := tx.Query(sqlLaneHeads)
		found, err = scanAll(rows, err, func(h *laneHead, r scanner) error { return r.Scan(&h.workspace, &h.endpoint, &h.next) })
		return err
	})
	if err != nil {
		return fmt.Errorf("read what waits to be sent: %w", err)
	}
	for _, h := range found {
		c.courier.lower(h.lane, h.next)
	}
	return nil
}

func orMinus(n *int64) int64 {
	if n == nil {
		return -1
	}
	return *n
}
