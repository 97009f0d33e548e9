package cue

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
	"unstuck/internal/webhook"
)

// result is what became of an attempt.
type result struct {
	*job
	began      op.Time
	took       time.Duration
	httpStatus int           // 0: no answer
	good       bool          // 2xx
	gone       bool          // 410: the callback wants no more calls
	message    string        // what went wrong (CueAPI wire contract 3.4)
	class      string        // of webhook.Class, for counting
	reply      []byte        // the answer
	body       string        // its beginning, as it is kept
	retryAfter time.Duration // what the answer asks for; 0 for nothing
	said       *said         // an outcome in the answer

	// Instead of all that: the attempt was not made, or its end is not known. The execution goes back into its queue.
	back  bool
	until op.Time // and its lane is held back until then

	again bool // it may have arrived twice or, of one that goes back, once
}

// bodyMost is how many characters of an answer are kept.
const bodyMost = 2000

// saveResults stores what became of attempts, many in one commit, and makes room for others. It returns how many there were.
func (c *Cues) saveResults(ctx context.Context) (int, error) {
	c.courier.saving.Lock()
	defer c.courier.saving.Unlock()
	some := c.courier.results.take(resultMost)
	if len(some) == 0 {
		return 0, nil
	}
	if c.saveThese(ctx, some) == nil {
		return len(some), nil
	}
	return c.saveEach(ctx, some)
}

// faultsMost is after how many results that could not be stored, and none that could, the fault is the database's.
const faultsMost = 5

// saveEach stores results one by one, so that one that cannot be stored holds up no other. Such a one is tried again after all others.
func (c *Cues) saveEach(ctx context.Context, some []*result) (stored int, fault error) {
	var left []*result
	for i, r := range some {
		if err := c.saveThese(ctx, some[i:i+1]); err != nil {
			left, fault = append(left, r), fmt.Errorf("store the result of execution %s: %w", r.id, err)
		}
		if len(left) == faultsMost && i+1 == len(left) {
			left = append(slices.Clone(some[i+1:]), left...)
			break
		}
	}
	c.courier.results.putBack(left)
	return len(some) - len(left), fault
}

func (c *Cues) saveThese(ctx context.Context, some []*result) error {
	err := c.DB.Update(ctx, func(tx *db.Tx) error {
		s := &settling{c: c, tx: tx, now: c.now(), sums: tally{}, called: map[string]int64{}, ran: map[string]bool{}, good: map[string]string{}}
		return s.all(some)
	})
	if err != nil {
		return err
	}
	jobs := make([]*job, len(some))
	for i, r := range some {
		jobs[i] = r.job
	}
	c.sawResults(some)
	c.courier.learn(some)
	c.courier.release(jobs)
	return nil
}

// settling is one transaction of results.
type settling struct {
	c      *Cues
	tx     *db.Tx
	now    op.Time
	sums   tally
	called map[string]int64  // attempts by cue
	ran    map[string]bool   // cues of which an execution ended
	good   map[string]string // by cue: an execution that succeeded
}

// all stores results.
func (s *settling) all(some []*result) error {
	var made, back []*result
	for _, r := range some {
		if r.back {
			back = append(back, r)
		} else {
			made = append(made, r)
		}
	}
	if err := s.handBack(back); err != nil {
		return err
	}
	if err := s.attempts(made); err != nil {
		return err
	}
	return s.sums.save(s.tx)
}

// next is how an execution goes on after an attempt.
type next struct {
	status    string
	deliverAt op.Time // -1 for never
	deadline  op.Time // -1 for none
	message   string
}

// final says that it does not go on.
func (n *next) final() bool { return n.status != statusRetrying && n.status != statusPendingOutcome }

// after decides how an execution goes on (CueAPI wire contract 3.2, 7.2, 10.1).
func (r *result) after(now op.Time) next {
	switch n := (next{deliverAt: -1, deadline: -1, message: r.message}); {
	case r.good && r.outcomeWithin == nil:
		n.status = statusSuccess
		return n
	case r.good && (r.said != nil || *r.outcomeWithin > 0): // what it said is recorded right after
		n.status, n.deadline = statusPendingOutcome, in(now, time.Duration(*r.outcomeWithin)*time.Second)
		return n
	case r.good:
		n.status, n.message = statusOutcomeTimeout, saidNothing
		return n
	case r.gone || r.attempt >= r.maxAttempts:
		n.status = statusFailed
		return n
	default:
		n.status, n.deliverAt = statusRetrying, in(now, r.wait())
		return n
	}
}

const saidNothing = "The callback's answer did not say how it went: it must be a JSON object with \"success\""

// wait is how long until the next attempt: what the cue says or the callback asked for, and a little more; at least a second.
func (r *result) wait() time.Duration {
	var minutes []time.Duration
	_ = json.Unmarshal([]byte(r.backoff), &minutes) // what was written is a list of numbers; of another text nothing is left
	for i := range minutes {
		minutes[i] *= time.Minute
	}
	retry := webhook.Retry{MaxAttempts: int(r.maxAttempts), Backoff: minutes}
	wait, _ := retry.After(int(r.attempt), r.retryAfter, rand.Float64())
	return max(wait, time.Second)
}

// attempts stores attempts that were made.
func (s *settling) attempts(made []*result) error {
	if len(made) == 0 {
		return nil
	}
	nexts := make([]next, len(made))
	for i, r := range made {
		nexts[i] = r.after(s.now)
	}
	stored, err := s.update(made, nexts)
	if err != nil {
		return err
	}
	s.publish(made, nexts, stored)
	var beside, replies []*result
	var next []string
	ended := map[string][]string{} // by status
	for i, r := range made {
		under, ok := stored[r.id]
		if !ok {
			beside = append(beside, r)
			continue
		}
		if under.fires {
			next = append(next, r.id)
		}
		if nexts[i].final() {
			ended[nexts[i].status] = append(ended[nexts[i].status], r.id)
		}
		if err := s.follow(r, nexts[i]); err != nil {
			return fmt.Errorf("note the result of execution %s: %w", r.id, err)
		}
		if nexts[i].status == statusPendingOutcome && r.said != nil {
			replies = append(replies, r)
		}
	}
	if err := s.replies(replies); err != nil {
		return err
	}
	if err := s.beside(beside); err != nil {
		return err
	}
	for status, ids := range ended {
		if err := s.c.sawEnds(s.tx, status, s.now, ids...); err != nil {
			return err
		}
	}
	if err := s.cues(); err != nil {
		return err
	}
	if err := s.c.recovered(s.tx, s.good, s.now); err != nil {
		return err
	}
	return s.c.fireNext(s.tx, next, s.now)
}

// underWay is what a result finds of its execution.
type underWay struct {
	fires   bool   // its success is to fire another cue
	cueName string // as it is now
}

// update writes all in one statement and returns which executions still were under way.
func (s *settling) update(made []*result, nexts []next) (map[string]underWay, error) {
	n := len(made)
	ids, attempts, statuses, codes := make([]string, n), make([]int64, n), make([]string, n), make([]int64, n)
	messages, bodies, good := make([]string, n), make([]string, n), make([]bool, n)
	began, deliver, deadlines, again := make([]op.Time, n), make([]op.Time, n), make([]op.Time, n), make([]bool, n)
	for i, r := range made {
		ids[i], attempts[i], statuses[i], codes[i] = r.id, r.attempt, nexts[i].status, codeOrMinus(r.httpStatus)
		messages[i], bodies[i], good[i] = nexts[i].message, r.body, r.good
		began[i], deliver[i], deadlines[i], again[i] = r.began, nexts[i].deliverAt, nexts[i].deadline, r.again
	}
	rows, err := s.tx.Query(sqlAttempts, ids, attempts, statuses, codes, messages, bodies, truths(good), began, deliver, deadlines, s.now, truths(again))
	stored := make(map[string]underWay, n)
	_, err = scanAll(rows, err, func(_ *struct{}, r scanner) error {
		var id string
		var u underWay
		err := r.Scan(&id, &u.fires, &u.cueName)
		stored[id] = u
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store the results of callbacks: %w", err)
	}
	return stored, nil
}

func codeOrMinus(status int) int64 {
	if status == 0 {
		return -1
	}
	return int64(status)
}

func truths(b []bool) []int64 {
	out := make([]int64, len(b))
	for i, t := range b {
		if t {
			out[i] = 1
		}
	}
	return out
}

// follow does what follows from an attempt for the cue, the totals and the queue.
func (s *settling) follow(r *result, n next) error {
	s.sums.moved(r.workspace, statusDelivering, n.status)
	switch n.status {
	case statusSuccess:
		s.good[r.cueID] = r.id
		if r.once {
			return s.c.finishCue(s.tx, r.cueID, true, 1, s.now)
		}
		s.called[r.cueID]++
		s.ran[r.cueID] = true
		return nil
	case statusRetrying:
		l, at := r.lane, n.deliverAt
		s.tx.AfterCommit(func() { s.c.courier.lower(l, at) })
	case statusFailed, statusOutcomeTimeout:
		s.sums.add(r.workspace, countFailed(r.createdAt), 1)
		switch gone, err := r.goneForGood(s.tx); {
		case err != nil:
			return err
		case gone:
			return s.c.disable(s.tx, r.cueID, r.id, s.now)
		}
		return s.c.failCue(s.tx, r.cueID, r.id, 1, s.now)
	}
	s.called[r.cueID]++
	return nil
}

// goneForGood says that the callback answered 410 and is still that of the cue: what another one wants, which the cue had when the
// execution was queued, says nothing about it.
func (r *result) goneForGood(tx *db.Tx) (bool, error) {
	if !r.gone {
		return false, nil
	}
	q, err := readCue(tx, sqlCueByID, r.cueID)
	return err == nil && q != nil && addressOf(q.callback) == addressOf(r.callback), err
}

// beside stores attempts of executions that were ended by a report meanwhile: nothing follows from them.
func (s *settling) beside(some []*result) error {
	n := len(some)
	if n == 0 {
		return nil
	}
	ids, attempts, codes, bodies, began := make([]string, n), make([]int64, n), make([]int64, n), make([]string, n), make([]op.Time, n)
	for i, r := range some {
		ids[i], attempts[i], codes[i], bodies[i], began[i] = r.id, r.attempt, codeOrMinus(r.httpStatus), r.body, r.began
		s.called[r.cueID]++
	}
	if _, err := s.tx.Exec(sqlAttemptsBeside, ids, attempts, codes, bodies, began); err != nil {
		return fmt.Errorf("store the results of callbacks that were reported about: %w", err)
	}
	return nil
}

// cues counts the attempts on their cues; those that ended with their execution were counted with it.
func (s *settling) cues() error {
	if len(s.called) == 0 {
		return nil
	}
	ids, counts, ran := make([]string, 0, len(s.called)), make([]int64, 0, len(s.called)), make([]op.Time, 0, len(s.called))
	for id, n := range s.called {
		ids, counts = append(ids, id), append(counts, n)
		if s.ran[id] {
			ran = append(ran, s.now)
		} else {
			ran = append(ran, -1)
		}
	}
	if _, err := s.tx.Exec(sqlCuesCalled, ids, counts, ran); err != nil {
		return fmt.Errorf("note that cues were called: %w", err)
	}
	return nil
}

// handBack puts executions back into their queues.
func (s *settling) handBack(some []*result) error {
	if len(some) == 0 {
		return nil
	}
	n := len(some)
	ids, at, again := make([]string, n), make([]op.Time, n), make([]bool, n)
	for i, r := range some {
		ids[i], at[i], again[i] = r.id, r.waited, r.again
		if r.until > 0 {
			s.tx.AfterCommit(func() { s.c.courier.shut(r.lane, r.until) })
		}
	}
	return s.c.backToQueue(s.tx, s.sums, ids, at, again, s.now)
}

// backToQueue puts executions that were being sent back into their queues, and counts those that may have arrived.
func (c *Cues) backToQueue(tx *db.Tx, sums tally, ids []string, at []op.Time, again []bool, now op.Time) error {
	rows, err := tx.Query(sqlHandBack, ids, at, truths(again), now)
	return c.queuedAgain(tx, sums, rows, err)
}

func (c *Cues) queuedAgain(tx *db.Tx, sums tally, rows *sql.Rows, err error) error {
	type back struct {
		laneHead
		status string
	}
	found, err := scanAll(rows, err, func(b *back, r scanner) error { return r.Scan(&b.workspace, &b.endpoint, &b.status, &b.next) })
	if err != nil {
		return fmt.Errorf("queue executions again: %w", err)
	}
	for _, b := range found {
		sums.moved(b.workspace, statusDelivering, b.status)
		tx.AfterCommit(func() { c.courier.lower(b.lane, b.next) })
	}
	return nil
}

// sendAgain queues at the start all that was being sent when the server ended: whether it arrived is not known. It goes out
// under the same id, and is counted.
func (c *Cues) sendAgain(tx *db.Tx, now op.Time) error {
	sums := tally{}
	rows, err := tx.Query(sqlSendAgain, now)
	if err := c.queuedAgain(tx, sums, rows, err); err != nil {
		return err
	}
	return sums.save(tx)
}
