package db_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"unstuck/internal/db"
	"unstuck/internal/testkit/pgtest"
)

// other is a connection of somebody else to the same PostgreSQL database.
type other struct {
	t    *testing.T
	conn *pgx.Conn
}

func connectOther(t *testing.T, dsn string) other {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return other{t, conn}
}

func (o other) exec(query string, args ...any) {
	o.t.Helper()
	if _, err := o.conn.Exec(context.Background(), query, args...); err != nil {
		o.t.Error(err)
	}
}

// TestConflictRunsAgain lets somebody else change a row between a caller's read and write: PostgreSQL then refuses the caller's
// transaction, which runs again with the new state and is right.
func TestConflictRunsAgain(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	d, o := open(t, db.Options{DSN: dsn}), connectOther(t, dsn)
	update(t, d, func(tx *db.Tx) error { return set(tx, "counter", "0") })
	runs, published := 0, 0
	errs := together(t, d,
		caller(d, func(tx *db.Tx) error { return set(tx, "before", "") }),
		caller(d, func(tx *db.Tx) error {
			runs++
			tx.AfterCommit(func() { published++ })
			var value int
			if err := tx.Row("SELECT value FROM settings WHERE name = 'counter'").Scan(&value); err != nil {
				return err
			}
			if runs == 1 {
				o.exec("UPDATE settings SET value = '10' WHERE name = 'counter'")
			}
			_, err := tx.Exec("UPDATE settings SET value = ?1 WHERE name = 'counter'", fmt.Sprint(value+1))
			return err
		}),
		caller(d, func(tx *db.Tx) error { return set(tx, "after", "") }),
	)
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"before": "", "counter": "11", "after": ""}, content(t, d)); diff != "" {
		t.Error(diff)
	}
	if runs != 2 || published != 1 {
		t.Errorf("the function ran %d times and published %d times", runs, published)
	}
}

// TestConflictAtCommit is the conflict that only COMMIT finds: two transactions that read what the other one writes.
func TestConflictAtCommit(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	d, o := open(t, db.Options{DSN: dsn}), connectOther(t, dsn)
	runs, seen := 0, 0
	update(t, d, func(tx *db.Tx) error {
		runs++
		if err := tx.Row("SELECT count(*) FROM settings").Scan(&seen); err != nil {
			return err
		}
		if runs == 1 {
			o.exec("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM settings; INSERT INTO settings VALUES ('theirs', '')")
		}
		if err := set(tx, "ours", ""); err != nil {
			return err
		}
		if runs == 1 {
			o.exec("COMMIT")
		}
		return nil
	})
	if runs != 2 || seen != 1 {
		t.Errorf("%d runs, the last one saw %d rows", runs, seen)
	}
}

// TestConflictForEver gives up at last.
func TestConflictForEver(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	d, o := open(t, db.Options{DSN: dsn}), connectOther(t, dsn)
	update(t, d, func(tx *db.Tx) error { return set(tx, "counter", "0") })
	err := d.Update(context.Background(), func(tx *db.Tx) error {
		var value string
		if err := tx.Row("SELECT value FROM settings").Scan(&value); err != nil {
			return err
		}
		o.exec("UPDATE settings SET value = value || '1'")
		_, err := tx.Exec("UPDATE settings SET value = '0'")
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "40001") {
		t.Error(err)
	}
	update(t, d, func(tx *db.Tx) error { return set(tx, "a", "") })
}

// TestConnectionsThatBroke kills every connection while it is idle, and the writer's in the middle of a turn.
func TestConnectionsThatBroke(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	d, o := open(t, db.Options{DSN: dsn, NoLock: true}), connectOther(t, dsn)
	update(t, d, func(tx *db.Tx) error { return set(tx, "a", "") })
	content(t, d)
	o.exec("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()")
	update(t, d, func(tx *db.Tx) error { return set(tx, "b", "") })
	if n := len(content(t, d)); n != 2 {
		t.Errorf("%d rows", n)
	}
	runs := 0
	errs := together(t, d,
		caller(d, func(tx *db.Tx) error { return set(tx, "c", "") }),
		caller(d, func(tx *db.Tx) error {
			runs++
			var pid int
			if err := tx.Row("SELECT pg_backend_pid()").Scan(&pid); err != nil {
				return err
			}
			if runs == 1 {
				o.exec("SELECT pg_terminate_backend($1, 10000)", pid)
			}
			return set(tx, "d", "")
		}),
	)
	if err := errors.Join(errs...); err != nil || runs != 2 {
		t.Errorf("%d runs: %v", runs, err)
	}
	if n := len(content(t, d)); n != 4 {
		t.Errorf("%d rows", n)
	}
}

// TestLostLock takes the lock away from a server: it refuses every call until it has the lock again, which it gets by itself.
func TestLostLock(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	log, lost := logSignal("the lock on the database was lost")
	d, o := open(t, db.Options{DSN: dsn, Log: log}), connectOther(t, dsn)
	thief, stolen := connectOther(t, dsn), make(chan bool)
	go func() {
		defer close(stolen)
		thief.exec("SELECT pg_advisory_lock(x'756e737475636b'::bigint)") // gets it when the server's connection ends
	}()
	const waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
	waitFor(func() bool { return o.count(waits) == 1 })
	o.exec("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")
	<-stolen
	<-lost
	ctx, nothing := context.Background(), func(*db.Tx) error { return nil }
	if err := d.Update(ctx, nothing); !errors.Is(err, db.ErrLostLock) {
		t.Errorf("an update without the lock: %v", err)
	}
	if err := d.View(ctx, nothing); !errors.Is(err, db.ErrLostLock) {
		t.Errorf("a view without the lock: %v", err)
	}
	o.exec("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")
	waitFor(func() bool { return d.Update(ctx, nothing) == nil })
	update(t, d, func(tx *db.Tx) error { return set(tx, "a", "") })
}

func (o other) count(query string) (n int) {
	if err := o.conn.QueryRow(context.Background(), query).Scan(&n); err != nil {
		o.t.Error(err)
	}
	return n
}

// TestUnknownFateOnPostgres breaks the connection around COMMIT, before the server sees it and after it has done it. The caller
// cannot tell which, and must be told so.
func TestUnknownFateOnPostgres(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	for _, c := range []struct {
		name  string
		after bool
	}{{"before", false}, {"after", true}} {
		t.Run(c.name, func(t *testing.T) {
			p := startProxy(t, dsn)
			d := open(t, db.Options{DSN: p.dsn, NoLock: true})
			told := 0
			d.OnUnknown(func() { told++ })
			p.cut(c.after)
			err := d.Update(context.Background(), func(tx *db.Tx) error {
				tx.AfterCommit(func() { t.Error("it was published") })
				return set(tx, c.name, "")
			})
			if !errors.Is(err, db.ErrUnknown) || told != 1 {
				t.Errorf("told %d times: %v", told, err)
			}
			update(t, d, func(tx *db.Tx) error { return set(tx, c.name+", then", "") })
			if _, there := content(t, d)[c.name]; there != c.after {
				t.Errorf("the row is there: %t", there)
			}
		})
	}
}

// proxy stands between a client and PostgreSQL and can break the connection that commits next.
type proxy struct {
	dsn    string
	armed  atomic.Bool
	after  atomic.Bool
	wg     sync.WaitGroup
	socket string
}

func startProxy(t *testing.T, dsn string) *proxy {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{socket: filepath.Join(u.Query().Get("host"), ".s.PGSQL.5432")}
	p.dsn = fmt.Sprintf("postgres://%s@%s%s?sslmode=disable", u.Query().Get("user"), l.Addr(), u.Path)
	p.wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.wg.Wait()
	})
	return p
}

// cut breaks the next connection that commits, before or after the server has done it.
func (p *proxy) cut(after bool) {
	p.after.Store(after)
	p.armed.Store(true)
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("unix", p.socket)
	if err != nil {
		return
	}
	defer server.Close()
	var silent atomic.Bool
	p.wg.Go(func() {
		defer client.Close()
		buffer := make([]byte, 1<<16)
		for {
			n, err := server.Read(buffer)
			if err != nil || silent.Load() {
				return
			}
			if _, err := client.Write(buffer[:n]); err != nil {
				return
			}
		}
	})
	buffer := make([]byte, 1<<16)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		if bytes.Contains(buffer[:n], []byte("COMMIT")) && p.armed.CompareAndSwap(true, false) {
			if !p.after.Load() {
				return
			}
			silent.Store(true)
		}
		if _, err := server.Write(buffer[:n]); err != nil && !errors.Is(err, io.EOF) {
			return
		}
	}
}

func TestPostgresThatStoresOtherText(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	o := connectOther(t, dsn)
	name := o.conn.Config().Database + "_ascii"
	o.exec("CREATE DATABASE " + name + " ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
	defer o.exec("DROP DATABASE " + name)
	_, err := db.Open(context.Background(), db.Options{DSN: strings.Replace(dsn, o.conn.Config().Database, name, 1)})
	if err == nil || !strings.Contains(err.Error(), "ENCODING 'UTF8'") {
		t.Error(err)
	}
}

// TestCommitsAreDurableOnPostgres: a default of the database that does not wait for the disk is not followed.
func TestCommitsAreDurableOnPostgres(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	o := connectOther(t, dsn)
	o.exec("ALTER DATABASE " + o.conn.Config().Database + " SET synchronous_commit = off")
	update(t, open(t, db.Options{DSN: dsn}), func(tx *db.Tx) error {
		var got string
		err := tx.Row("SHOW synchronous_commit").Scan(&got)
		if got != "on" {
			t.Errorf("synchronous_commit is %q", got)
		}
		return err
	})
}

// TestGrowthIsNoticed writes many rows: PostgreSQL must have looked at them soon, whether or not its own look came.
func TestGrowthIsNoticed(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	d, o := open(t, db.Options{DSN: dsn}), connectOther(t, dsn)
	ids := make([]string, 1000)
	for n := range 6 {
		for i := range ids {
			ids[i] = fmt.Sprint(n, "-", i)
		}
		update(t, d, func(tx *db.Tx) error {
			_, err := tx.Exec("INSERT INTO settings (name, value) SELECT r.id, 'x' FROM @rows(id TEXT ?1) AS r", ids)
			return err
		})
	}
	rows := float64(-1)
	for deadline := time.Now().Add(20 * time.Second); rows < 5000 && time.Now().Before(deadline); {
		if err := o.conn.QueryRow(context.Background(), "SELECT reltuples FROM pg_class WHERE relname = 'settings'").Scan(&rows); err != nil {
			t.Fatal(err)
		}
	}
	if rows < 5000 {
		t.Errorf("PostgreSQL believes that there are %v rows", rows)
	}
}
