package db_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"unstuck/internal/db"
	"unstuck/internal/testkit/pgtest"
)

func TestOpenKeepsWhatWasWritten(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		for i := range 3 {
			d, err := db.Open(context.Background(), db.Options{DSN: dsn})
			if err != nil {
				t.Fatal(err)
			}
			if n := len(content(t, d)); n != i {
				t.Errorf("%d rows at opening %d", n, i)
			}
			if d.Version() != db.Latest() {
				t.Errorf("version %d, want %d", d.Version(), db.Latest())
			}
			update(t, d, func(tx *db.Tx) error { return set(tx, fmt.Sprint(i), "") })
			if err := errors.Join(d.Close(), d.Close()); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestSecondServerIsRefused opens a database twice: the second server is told who holds it, and served when the first is gone.
func TestSecondServerIsRefused(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		ctx := context.Background()
		first, err := db.Open(ctx, db.Options{DSN: dsn})
		if err != nil {
			t.Fatal(err)
		}
		_, err = db.Open(ctx, db.Options{DSN: dsn, LockWait: -1})
		var locked *db.LockedError
		if !errors.Is(err, db.ErrLocked) || !errors.As(err, &locked) {
			t.Fatalf("the second server: %v", err)
		}
		if !strings.Contains(locked.Holder, fmt.Sprint("process ", os.Getpid())) || time.Since(locked.Since).Abs() > time.Hour {
			t.Errorf("the holder is %q since %v", locked.Holder, locked.Since)
		}
		if want := locked.Since.UTC().Format(time.DateTime) + " UTC: stop it first"; !strings.Contains(err.Error(), want) {
			t.Errorf("the sentence %q lacks %q", err, want)
		}
		update(t, first, func(tx *db.Tx) error { return set(tx, "a", "") }) // the first has not noticed
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		second := open(t, db.Options{DSN: dsn}) // PostgreSQL lets go a moment after the connection has ended
		update(t, second, func(tx *db.Tx) error { return set(tx, "b", "") })
	})
}

// TestSecondServerWaits: on PostgreSQL, where a server on another machine may be on its way out, the next one waits for it.
func TestSecondServerWaits(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	first := open(t, db.Options{DSN: dsn})
	if _, err := db.Open(context.Background(), db.Options{DSN: dsn, LockWait: 50 * time.Millisecond}); !errors.Is(err, db.ErrLocked) {
		t.Errorf("after waiting in vain: %v", err)
	}
	log, waiting := logSignal("waiting for the database")
	opened := make(chan error)
	go func() {
		d, err := db.Open(context.Background(), db.Options{DSN: dsn, Log: log})
		if err == nil {
			err = d.Close()
		}
		opened <- err
	}()
	<-waiting
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if err := <-opened; err != nil {
		t.Errorf("the server that waited: %v", err)
	}
}

func TestNewerDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		d, err := db.Open(context.Background(), db.Options{DSN: dsn})
		if err != nil {
			t.Fatal(err)
		}
		newer := db.Latest() + 7
		err = d.Update(context.Background(), func(tx *db.Tx) error {
			_, err := tx.Exec("INSERT INTO schema_version (version_id, is_applied) SELECT ?1, is_applied FROM schema_version WHERE version_id = 1", newer)
			return err
		})
		if err := errors.Join(err, d.Close()); err != nil {
			t.Fatal(err)
		}
		for _, readOnly := range []bool{false, true} {
			_, err = db.Open(context.Background(), db.Options{DSN: dsn, ReadOnly: readOnly})
			var e *db.NewerError
			if !errors.Is(err, db.ErrNewer) || !errors.As(err, &e) || e.Have != newer || e.Know != db.Latest() {
				t.Errorf("a database of the future, read only %t: %v", readOnly, err)
			}
		}
	})
}

// TestReadOnlyBesideAServer opens what a server uses, sees what it writes, and writes nothing itself.
func TestReadOnlyBesideAServer(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		server := open(t, db.Options{DSN: dsn})
		reader := open(t, db.Options{DSN: dsn, ReadOnly: true})
		update(t, server, func(tx *db.Tx) error { return set(tx, "a", "1") })
		if diff := cmp.Diff(map[string]string{"a": "1"}, content(t, reader)); diff != "" {
			t.Error(diff)
		}
		if err := reader.Update(context.Background(), func(*db.Tx) error { return nil }); !errors.Is(err, db.ErrReadOnly) {
			t.Errorf("an update: %v", err)
		}
	})
}

// TestReadOnlyWithoutAServer opens a database that nobody uses, and one that was never migrated.
func TestReadOnlyWithoutAServer(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		ctx, o := context.Background(), db.Options{DSN: dsn, ReadOnly: true}
		d, err := db.Open(ctx, o)
		if strings.HasPrefix(dsn, "postgres") {
			if err != nil || d.Version() != 0 {
				t.Errorf("an empty database: %v", err)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a file that does not exist: %v", err)
		}
		server, err := db.Open(ctx, db.Options{DSN: dsn})
		if err != nil {
			t.Fatal(err)
		}
		update(t, server, func(tx *db.Tx) error { return set(tx, "a", "1") })
		if err := server.Close(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]string{"a": "1"}, content(t, open(t, o))); diff != "" {
			t.Error(diff)
		}
	})
}

func TestFilesAreTheOwnersOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, db.Options{DSN: filepath.Join(dir, "a b?c#d%20.db")})
	update(t, d, func(tx *db.Tx) error { return set(tx, "a", "") })
	if err := d.Backup(context.Background(), filepath.Join(dir, "copy")); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode != 0o600 && !strings.HasSuffix(f.Name(), "-shm") { // which holds positions, no content
			t.Errorf("%s has mode %o", f.Name(), mode)
		}
	}
	want := []string{"a b?c#d%20.db", "a b?c#d%20.db-shm", "a b?c#d%20.db-wal", "a b?c#d%20.db.lock", "copy"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("this is not a database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ dsn, want string }{
		{garbage, "not a database"},
		{filepath.Join(dir, "no", "such", "directory.db"), "no such file or directory"},
		{dir, "is a directory"},
		{"postgres://user:secret@127.0.0.1:1/nothing?sslmode=disable", "connection refused"},
		{"postgres://user:secret@127.0.0.1:1/nothing?sslmode=maybe", "sslmode"},
		{"postgres://user:secret@[", "address"},
	} {
		_, err := db.Open(context.Background(), db.Options{DSN: c.dsn})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.dsn, err, c.want)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

// TestBackup copies a database while it is written to; the copy opens and holds one state of it.
func TestBackup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, copied := filepath.Join(dir, "test.db"), filepath.Join(dir, "copy.db")
	d := open(t, db.Options{DSN: path})
	stop, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				update(t, d, func(tx *db.Tx) error {
					return errors.Join(set(tx, fmt.Sprint(i, " a"), ""), set(tx, fmt.Sprint(i, " b"), ""))
				})
			}
		}
	}()
	waitFor(func() bool { return len(content(t, d)) > 10 })
	reader := open(t, db.Options{DSN: path, ReadOnly: true})
	if err := reader.Backup(context.Background(), copied); err != nil {
		t.Fatal(err)
	}
	close(stop)
	<-stopped
	if err := d.Backup(context.Background(), copied); err == nil || !strings.Contains(err.Error(), "there already") {
		t.Errorf("a backup onto a file: %v", err)
	}
	for nowhere, want := range map[string]syscall.Errno{filepath.Join(dir, "no", "copy.db"): syscall.ENOENT, filepath.Join(path, "copy.db"): syscall.ENOTDIR} {
		err := d.Backup(context.Background(), nowhere)
		if !errors.Is(err, want) || err.Error() != "back up to "+nowhere+": "+want.Error() {
			t.Errorf("a backup where no file can be: %v", err)
		}
	}
	if n := len(content(t, open(t, db.Options{DSN: copied}))); n < 10 || n%2 != 0 {
		t.Errorf("the copy has %d rows", n)
	}
}

func TestBackupOfPostgresNamesItsTool(t *testing.T) {
	t.Parallel()
	err := open(t, db.Options{DSN: pgtest.DSN(t)}).Backup(context.Background(), filepath.Join(t.TempDir(), "copy"))
	if err == nil || !strings.Contains(err.Error(), "pg_dump") {
		t.Error(err)
	}
}

// TestLockOutlivesNothing: the lock of a process that was killed is free.
func TestLockOutlivesNothing(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		child := startWriter(t, dsn)
		if _, err := db.Open(context.Background(), db.Options{DSN: dsn, LockWait: -1}); !errors.Is(err, db.ErrLocked) {
			t.Errorf("beside the child: %v", err)
		}
		child.kill()
		open(t, db.Options{DSN: dsn})
	})
}
