package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"
)

const (
	maxBatch   = 128 // callers in one transaction
	maxRepeats = 20  // runs of a batch that loses against another server's transactions
	wary       = 64  // batches that get savepoints after one in which a caller had to be undone
)

// writer is the one goroutine that changes the database. It gathers the calls that wait into one transaction, gives each its
// turn in it, commits, and answers them.
//
// A caller that fails after it has written must be undone alone. Most batches have none, and savepoints would cost as much as
// the work itself (on PostgreSQL a round trip for each caller): so a batch runs without them first, and if a caller must be
// undone the batch is rolled back and runs again with one before each caller's first write, as do the next batches.
type writer struct {
	engine  engine
	lock    lock
	log     *slog.Logger
	queue   chan *call
	session *session // nil: not connected
	wary    int      // batches to come that get savepoints at once
	stats   *stats
	unknown func() // the commit's fate is unknown
	trouble *atomic.Pointer[error]
	reserve *reserve
	growth  *growth
}

// fate is what became of an attempt to commit a batch.
type fate int

const (
	committed fate = iota
	repeat         // the transaction lost against another server's, or its connection: run it again
	spoilt         // a caller must be undone and has no savepoint: run again with savepoints
	dropped        // the transaction is gone, or cannot go on behind a caller's error: run the callers one at a time
	refused        // nothing was done, and running again would not help
	unknown        // COMMIT failed and may have taken effect
)

// loop serves calls until the queue is closed and empty.
func (w *writer) loop() {
	batch := make([]*call, 0, maxBatch)
	for first := range w.queue {
		runtime.Gosched() // lets the callers that were just answered come back first: fuller batches, half as many commits
		batch = w.gather(append(batch[:0], first))
		w.serve(batch)
		clear(batch)
	}
	w.growth.stop()
	w.disconnect()
}

// gather adds what waits, up to the size of a batch, and drops who gave up waiting.
func (w *writer) gather(batch []*call) []*call {
	for len(batch) < cap(batch) {
		select {
		case c, ok := <-w.queue:
			if !ok {
				return claimed(batch)
			}
			batch = append(batch, c)
		default:
			return claimed(batch)
		}
	}
	return claimed(batch)
}

func claimed(batch []*call) []*call {
	kept := batch[:0]
	for _, c := range batch {
		if c.claim() {
			kept = append(kept, c)
		}
	}
	return kept
}

// serve commits a batch and answers every caller in it.
func (w *writer) serve(batch []*call) {
	savepoints := w.wary > 0
	w.wary = max(w.wary-1, 0)
	for run := 1; len(batch) > 0; run++ {
		f, err := w.attempt(batch, savepoints)
		switch {
		case f == committed:
			w.publish(batch)
			w.noteSaved(batch)
			w.answer(batch, nil)
			return
		case f == repeat && run < maxRepeats:
			<-time.After(rand.N(time.Millisecond << min(run, 5)))
		case f == spoilt:
			savepoints, w.wary = true, wary
		case f == dropped && len(batch) > 1:
			w.stats.rerun()
			for i := range batch {
				w.serve(present(batch[i : i+1]))
			}
			return
		case f == unknown:
			w.log.Error("a commit failed and may have taken effect", "error", err, "callers", len(batch))
			w.unknown()
			w.answer(batch, fmt.Errorf("%w: %w", ErrUnknown, err))
			return
		default:
			w.answer(batch, err)
			return
		}
		w.stats.rerun()
		batch = present(batch)
	}
}

// publish lets the callers that were not rolled back do what they asked AfterCommit for.
func (w *writer) publish(batch []*call) {
	for _, c := range batch {
		if c.err == nil && len(c.tx.after) > 0 {
			c.tell(publish)
		}
	}
}

// present drops the calls whose function panicked: nobody waits for them.
func present(batch []*call) []*call {
	kept := make([]*call, 0, len(batch))
	for _, c := range batch {
		if !c.gone {
			kept = append(kept, c)
		}
	}
	return kept
}

// noteSaved notes that the database can be written, if anything was, and how much.
func (w *writer) noteSaved(batch []*call) {
	saved, rows := false, int64(0)
	for _, c := range batch {
		if c.err == nil && c.tx.wrote {
			saved, rows = true, rows+c.tx.changed
		}
	}
	if saved {
		w.trouble.Store(nil)
		w.reserve.refill()
		w.growth.wrote(rows)
	}
}

// answer ends the calls: with err, unless they have an error of their own. Who may use the reserve when the disk is full has
// further turns, alone, so that nobody else takes the room.
func (w *writer) answer(batch []*call, err error) {
	for _, c := range batch {
		own := c.err != nil
		if !own {
			c.err = err
		}
		why := c.err
		full := errors.Is(why, ErrDiskFull)
		if full || !own && err != nil {
			w.trouble.Store(&why)
		}
		if full && !c.gone && c.tx != nil && w.reserve.give(c.tx.urgent, c.tx.share) {
			w.serve([]*call{c})
			continue
		}
		c.tell(answer)
	}
}

// attempt runs a batch in one transaction, in which each caller of several has a savepoint if asked for. The error belongs to
// every fate but committed; then c.err tells what each caller gets.
func (w *writer) attempt(batch []*call, savepoints bool) (fate, error) {
	for _, c := range batch {
		c.err = nil
	}
	if err := w.lock.held(); err != nil {
		return refused, err
	}
	if err := w.begin(); err != nil {
		return refused, classify(err)
	}
	defer w.cleanUp()
	a := attempt{writer: w, alone: len(batch) == 1, savepoints: savepoints && len(batch) > 1}
	for _, c := range batch {
		if f, err := a.turn(c); f != committed {
			return f, err
		}
	}
	if a.undone {
		return committed, nil
	}
	return w.commit(len(batch))
}

// begin opens a transaction, connecting anew if the connection was lost while it was idle.
func (w *writer) begin() error {
	var err error
	for range 2 {
		if w.session == nil {
			if w.session, err = w.engine.connect(background, true); err != nil {
				return err
			}
		}
		if err = w.session.control(w.engine.beginUpdate()); err == nil || w.session.status() != broken {
			return err
		}
		w.disconnect()
	}
	return err
}

// cleanUp leaves a connection that can begin the next transaction, or none.
func (w *writer) cleanUp() {
	w.session.rollback()
	if w.session.status() != idle {
		w.disconnect()
		return
	}
	w.session.trim()
}

func (w *writer) disconnect() {
	if w.session != nil {
		_ = w.session.close() // nothing is open in it
		w.session = nil
	}
}

func (w *writer) commit(callers int) (fate, error) {
	start := time.Now()
	err := w.session.control("COMMIT")
	if err == nil {
		w.stats.commit(callers, time.Since(start))
		return committed, nil
	}
	err = classify(err)
	if isConflict(err) {
		return repeat, err
	}
	if w.engine.commitUnknown(err) {
		w.stats.unknown()
		return unknown, err
	}
	return dropped, err
}

// attempt is the state of one transaction while its callers have their turns. Its savepoint serves the next caller as it is if
// nothing was written since.
type attempt struct {
	*writer
	alone      bool // one caller: the transaction itself is its savepoint
	savepoints bool // one before each caller's first write
	point      bool // the savepoint exists
	dirty      bool // something was written behind the savepoint
	undone     bool // the only caller was rolled back with the transaction
}

// turn runs one caller. Its own failure is noted in the call; the fate concerns the whole transaction.
func (a *attempt) turn(c *call) (fate, error) {
	marked := false
	mark := func() error {
		if marked || !a.savepoints {
			return nil
		}
		marked = true
		return a.savepoint()
	}
	c.tx = &Tx{ctx: c.ctx, session: a.session, writable: true, mark: mark}
	c.tell(turn)
	tx := c.tx
	tx.end()
	if tx.err != nil && (isConflict(tx.err) || a.session.status() == broken) {
		return repeat, tx.err
	}
	if c.err == nil && tx.err != nil {
		c.err = fmt.Errorf("the function went on after an error: %w", tx.err)
	}
	if c.gone && c.err == nil {
		c.err = errors.New("the function did not return")
	}
	a.dirty = a.dirty || tx.wrote
	return a.settle(c, marked)
}

// settle keeps or undoes what a caller did.
func (a *attempt) settle(c *call, marked bool) (fate, error) {
	st := a.session.status()
	switch {
	case st == active && (c.err == nil || !c.tx.wrote):
		return committed, nil
	case a.alone && c.err != nil:
		a.undone = true
		return committed, nil
	case c.err != nil && marked && (st == active || st == failed):
		if err := a.session.control("ROLLBACK TO SAVEPOINT caller"); err != nil {
			return dropped, classify(err)
		}
		a.dirty = false
		return committed, nil
	case c.err != nil && !a.savepoints:
		return spoilt, c.err
	case c.err != nil:
		return dropped, c.err
	}
	return dropped, errors.New("the transaction ended in the middle")
}

// savepoint makes the caller's savepoint.
func (a *attempt) savepoint() error {
	text := "SAVEPOINT caller"
	switch {
	case a.point && !a.dirty:
		return nil
	case a.point:
		text = "RELEASE SAVEPOINT caller; SAVEPOINT caller"
	}
	a.point, a.dirty = true, false
	return a.session.control(text)
}

// engine is what the two databases do differently to connect and commit.
type engine interface {
	// connect opens a connection for the writer or for a reader.
	connect(ctx context.Context, write bool) (*session, error)
	beginUpdate() string
	beginView() string
	// pool is what migrations run on.
	pool() *sql.DB
	// schemaVersion is the number of the last migration, 0 in an empty database.
	schemaVersion(ctx context.Context) (int64, error)
	// commitUnknown says whether a COMMIT that failed with this error may have taken effect.
	commitUnknown(err error) bool
	// backup copies the database to a file.
	backup(ctx context.Context, path string) error
	close() error
}

// lock keeps other servers away from the database.
type lock interface {
	held() error
	release() error
}
