package db

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// lockKey is the key of the advisory lock: "unstuck" as a number. Advisory locks are per database.
const lockKey = 0x756e737475636b

// How a server that lost its lock gets it back: it waits so long on one connection, and then so long until the next.
const (
	retakeWait  = 10 * time.Second
	retakePause = time.Second
)

// advisoryLock keeps a second server off a PostgreSQL database. It lives on a connection of its own: when that breaks, the
// lock is gone, held answers [ErrLostLock], and the lock is taken again as soon as that can be done.
type advisoryLock struct {
	config *pgx.ConnConfig
	name   string
	log    *slog.Logger
	has    atomic.Bool
	stop   context.CancelFunc
	done   sync.WaitGroup
}

// takeAdvisoryLock waits for the lock as long as the options say, and returns a [*LockedError] when it stays taken.
func takeAdvisoryLock(ctx context.Context, config *pgx.ConnConfig, name string, o Options) (lock, error) {
	l := &advisoryLock{config: config, name: name, log: o.Log}
	conn, err := l.take(ctx, cmp.Or(o.LockWait, 30*time.Second))
	if err != nil {
		return nil, err
	}
	watch, stop := context.WithCancel(background)
	l.stop = stop
	l.has.Store(true)
	l.done.Go(func() { l.keep(watch, conn) })
	return l, nil
}

// take connects and takes the lock, waiting for it if wait is positive.
func (l *advisoryLock) take(ctx context.Context, wait time.Duration) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, l.config.Copy())
	if err != nil {
		return nil, err
	}
	got, err := tryLock(ctx, conn)
	if err == nil && !got {
		holder := l.holder(ctx, conn)
		if wait > 0 {
			l.log.Warn("waiting for the database: "+holder.Error(), "longest", wait)
			got, err = waitLock(ctx, conn, wait)
		}
		if err == nil && !got {
			err = holder
		}
	}
	if err != nil {
		hangUp(conn)
		return nil, err
	}
	return conn, nil
}

func tryLock(ctx context.Context, conn *pgx.Conn) (got bool, err error) {
	err = conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", int64(lockKey)).Scan(&got)
	return got, err
}

// waitLock lets PostgreSQL wait, which hands the lock over at once; false if the time is over.
func waitLock(ctx context.Context, conn *pgx.Conn, wait time.Duration) (bool, error) {
	_, err := conn.Exec(ctx, "SELECT set_config('lock_timeout', $1, false)", fmt.Sprintf("%dms", wait.Milliseconds()))
	if err != nil {
		return false, err
	}
	_, err = conn.Exec(ctx, "SELECT pg_advisory_lock($1)", int64(lockKey))
	if sqlState(err) == "55P03" { // lock_not_available
		return false, nil
	}
	return err == nil, err
}

// holder asks PostgreSQL who holds the lock; what it does not tell stays out of the sentence.
func (l *advisoryLock) holder(ctx context.Context, conn *pgx.Conn) *LockedError {
	e := &LockedError{Database: l.name}
	var who *string
	var since *time.Time
	err := conn.QueryRow(ctx, `SELECT a.application_name, a.backend_start FROM pg_locks k JOIN pg_stat_activity a USING (pid)
		WHERE k.locktype = 'advisory' AND k.granted AND k.objsubid = 1 AND k.classid = $1 AND k.objid = $2
		AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
		int64(lockKey)>>32, int64(lockKey)&0xffffffff).Scan(&who, &since)
	if err != nil {
		return e // the sentence is clear without it
	}
	if who != nil {
		e.Holder = *who
	}
	if since != nil {
		e.Since = *since
	}
	return e
}

// keep watches the connection of the lock until release, and takes the lock again whenever it is lost.
func (l *advisoryLock) keep(ctx context.Context, conn *pgx.Conn) {
	for {
		err := watch(ctx, conn)
		l.has.Store(false)
		hangUp(conn)
		if ctx.Err() != nil {
			return
		}
		l.log.Error("the lock on the database was lost: calls are refused until it is held again", "error", err)
		if conn = l.retake(ctx); conn == nil {
			return
		}
		l.has.Store(true)
		l.log.Info("the lock on the database is held again")
	}
}

// watch returns when the connection breaks or the context ends. Nobody sends notifications; waiting for one is how a broken
// connection is noticed at once.
func watch(ctx context.Context, conn *pgx.Conn) error {
	for {
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return err
		}
	}
}

// hangUp ends a connection, which frees its lock; a dead network does not hold it up for long.
func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(background, 3*time.Second)
	defer cancel()
	_ = conn.Close(ctx) // the connection is not used again
}

// retake tries until it has the lock; nil when the context ends.
func (l *advisoryLock) retake(ctx context.Context) *pgx.Conn {
	every := time.NewTicker(retakePause)
	defer every.Stop()
	for {
		conn, err := l.take(ctx, retakeWait)
		if err == nil {
			return conn
		}
		l.log.Warn("cannot take the lock on the database yet", "error", err)
		select {
		case <-every.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (l *advisoryLock) held() error {
	if l.has.Load() {
		return nil
	}
	return ErrLostLock
}

func (l *advisoryLock) release() error {
	l.stop()
	l.done.Wait()
	return nil
}
