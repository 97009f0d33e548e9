// Package db is the product's one handle for its data, on SQLite or PostgreSQL, from one SQL text.
//
// [DB.View] reads one consistent state; [DB.Update] changes it, and what it has changed is durable when it returns. Both
// databases have one writer: it gathers the updates that wait into one transaction, lets each have its turn, and answers all
// of them after one commit, so that sixty-four callers cost little more than one. A caller that fails is rolled back alone.
// What runs inside a turn must touch nothing but the transaction, because it may run again; memory that mirrors the database
// changes in [Tx.AfterCommit].
//
// A rule that holds on one database and not on the other is a security bug. The package therefore refuses on both what only
// one of them would accept, and every test of a package that has SQL runs on both.
package db

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options say which database to open, and how.
type Options struct {
	// DSN is the path of a file for SQLite, or an address postgres://… or postgresql://… for PostgreSQL.
	DSN string
	// Log hears of migrations, of a lock that was lost, and of commits that failed. Nil discards it.
	Log *slog.Logger
	// ReadOnly opens beside a running server, without lock and migration: View and Backup only. An older schema is accepted
	// (see [DB.Version]), a newer one refused.
	ReadOnly bool
	// LockWait is how long to wait for the server that holds the lock of a PostgreSQL database; 0 means 30 seconds, a negative
	// value does not wait. A SQLite database never waits.
	LockWait time.Duration
	// Reserve is how many bytes a file beside a SQLite database takes up, to be given to an Update with [Tx.Urgent] when the
	// disk is full. It is made when there is room, also later. 0 makes none; a multiple of 64 KiB. PostgreSQL has no use for it.
	Reserve int64

	// NoLock opens without the lock that refuses a second server. For tests.
	NoLock bool
	// NoStatistics leaves it to PostgreSQL alone when it looks at tables that grow. For tests of plans.
	NoStatistics bool
	// VFS is the name of a registered virtual file system for SQLite. For tests.
	VFS string
	// Pragmas are added to the settings of SQLite's writer, like "synchronous(off)". For tests.
	Pragmas []string
}

// readers is how many Views run at the same time.
const readers = 4

// DB is an open database. Its methods may be called from any goroutine.
type DB struct {
	name     string // for people: path, or host and database
	dialect  dialect
	readOnly bool
	engine   engine
	lock     lock
	version  int64

	idle    chan *session // connections of readers; nil stands for one that is not made yet
	closing chan struct{}

	mu      sync.RWMutex // held for reading while a call is put into the queue
	closed  bool
	queue   chan *call
	done    chan struct{} // the writer has ended
	stats   stats
	watched watchers
	trouble atomic.Pointer[error] // why the last write failed; nil: it did not
}

// Open opens a database, takes its lock, and brings its schema up to date; the context limits how long that may take. It
// fails with [ErrLocked] if another server uses the database and with [ErrNewer] if a newer program has migrated it. A SQLite
// file that does not exist is made, readable by its owner only, unless Options.ReadOnly is set.
func Open(ctx context.Context, o Options) (_ *DB, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	d := &DB{readOnly: o.ReadOnly, idle: make(chan *session, readers), closing: make(chan struct{}), lock: noLock{}}
	if strings.HasPrefix(o.DSN, "postgres://") || strings.HasPrefix(o.DSN, "postgresql://") {
		d.dialect = postgres
	}
	if err := d.connect(ctx, o); err != nil {
		return nil, fmt.Errorf("open the database %s: %w", d.name, errors.Join(err, d.release()))
	}
	for range readers {
		d.idle <- nil
	}
	if !o.ReadOnly {
		d.startWriter(o)
	}
	return d, nil
}

// connect takes the lock, opens the engine and brings the schema up to date.
func (d *DB) connect(ctx context.Context, o Options) (err error) {
	open := openSQLite
	if d.dialect == postgres {
		open = openPostgres
	}
	d.name, d.engine, d.lock, err = open(ctx, o)
	if err != nil {
		return err
	}
	d.version, err = migrate(ctx, d.engine, d.dialect, o)
	return err
}

func (d *DB) startWriter(o Options) {
	d.queue, d.done = make(chan *call, 4*maxBatch), make(chan struct{})
	w := &writer{engine: d.engine, lock: d.lock, log: o.Log, queue: d.queue, stats: &d.stats, unknown: d.watched.tell, trouble: &d.trouble, reserve: &reserve{}}
	if o.Reserve > 0 && d.dialect == sqlite {
		w.reserve = openReserve(ReservePath(d.name), o.Reserve, o.Log)
	}
	if d.dialect == postgres && !o.NoStatistics {
		w.growth = newGrowth(d.engine, o.Log)
	}
	go func() {
		defer close(d.done)
		w.loop()
	}()
}

// Close waits for the calls that are running or waiting, then closes the database. Later calls get [ErrClosed].
func (d *DB) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	close(d.closing)
	if d.queue != nil {
		close(d.queue)
	}
	d.mu.Unlock()
	if d.done != nil {
		<-d.done
	}
	for range readers {
		if s := <-d.idle; s != nil {
			_ = s.close() // nothing is open in it
		}
	}
	return d.release()
}

// release closes the engine, then the lock: in this order, so that the next server finds a closed database.
func (d *DB) release() error {
	var err error
	if d.engine != nil {
		err = d.engine.close()
	}
	return errors.Join(err, d.lock.release())
}

// Postgres says whether the database is PostgreSQL.
func (d *DB) Postgres() bool { return d.dialect == postgres }

// Name is what to call the database before people: the path of the file, or host and name of the PostgreSQL database. It
// holds no password.
func (d *DB) Name() string { return d.name }

// Version is the version of the schema: the number of the last migration. It is below [Latest] only in a database that was
// opened with Options.ReadOnly.
func (d *DB) Version() int64 { return d.version }

// Backup copies the database as it is now into a new file, beside the running server, and returns when the copy is durable.
// It refuses to replace a file. PostgreSQL has its own tool for it, which the error names.
func (d *DB) Backup(ctx context.Context, path string) error { return d.engine.backup(ctx, path) }

// OnUnknown asks for fn to be called when a commit has failed in a way that leaves open whether it took effect (see
// [ErrUnknown]), before its callers are answered. Memory that mirrors the database must then be read again; fn may call View
// and must not call Update.
func (d *DB) OnUnknown(fn func()) { d.watched.add(fn) }

// Failing is why the last Update that wrote failed, when that was the fault of the database (a full disk, a lost connection);
// nil once one has succeeded.
func (d *DB) Failing() error {
	if err := d.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

// View calls fn with one consistent state of the database, which contains every Update that returned before. Four views run
// at the same time; the context counts only while the call waits for its turn.
func (d *DB) View(ctx context.Context, fn func(*Tx) error) error {
	if isInside(ctx) {
		return ErrNested
	}
	s, err := d.take(ctx)
	if err != nil {
		return err
	}
	defer func() { d.give(s) }()
	if s, err = d.beginView(ctx, s); err != nil {
		return fmt.Errorf("read the database: %w", err)
	}
	tx := &Tx{ctx: inside(ctx), session: s}
	defer tx.end()
	return fn(tx)
}

// take waits for a reader's place.
func (d *DB) take(ctx context.Context) (*session, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	select {
	case <-d.closing:
		return nil, ErrClosed
	default:
	}
	select {
	case s := <-d.idle:
		return s, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-d.closing:
		return nil, ErrClosed
	}
}

// beginView begins a transaction on a reader's connection; it connects if there is none or if it was lost.
func (d *DB) beginView(ctx context.Context, s *session) (*session, error) {
	if err := d.lock.held(); err != nil {
		return s, err
	}
	var err error
	for range 2 {
		if s == nil {
			if s, err = d.engine.connect(context.WithoutCancel(ctx), false); err != nil {
				return nil, err
			}
		}
		if err = s.control(d.engine.beginView()); err == nil || s.status() != broken {
			return s, err
		}
		_ = s.close() // it is broken
		s = nil
	}
	return s, err
}

// give ends the reader's transaction and frees its place.
func (d *DB) give(s *session) {
	if s != nil {
		s.rollback()
		if s.status() != idle {
			_ = s.close() // it is broken
			s = nil
		} else {
			s.trim()
		}
	}
	d.idle <- s
}

// Update calls fn with a transaction that may write, and returns once its changes are durable and visible to every later
// View. Callers run one after the other, in the order they came, many in one commit. An error of fn undoes what it did and is
// returned as it is. The context counts only while the call waits for its turn: after that the change is made even if the
// context ends, and its values are those of [Tx.Context]. See [ErrUnknown], [ErrDiskFull] and [ErrLostLock].
//
// The function touches nothing but the transaction, does not wait, and may run several times. It runs in the caller's
// goroutine.
func (d *DB) Update(ctx context.Context, fn func(*Tx) error) error {
	switch {
	case isInside(ctx):
		return ErrNested
	case d.readOnly:
		return ErrReadOnly
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	c := newCall(ctx, fn)
	if err := d.enqueue(ctx, c); err != nil {
		return err
	}
	return c.follow(ctx)
}

func (d *DB) enqueue(ctx context.Context, c *call) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return ErrClosed
	}
	select {
	case d.queue <- c:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// watchers are the functions of OnUnknown.
type watchers struct {
	mu  sync.Mutex
	fns []func()
}

func (w *watchers) add(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fns = append(w.fns, fn)
}

func (w *watchers) tell() {
	w.mu.Lock()
	fns := w.fns[:len(w.fns):len(w.fns)]
	w.mu.Unlock()
	for _, fn := range fns {
		fn()
	}
}

// noLock is the lock of a database that needs none.
type noLock struct{}

func (noLock) held() error    { return nil }
func (noLock) release() error { return nil }
