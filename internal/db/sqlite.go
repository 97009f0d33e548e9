package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/driver"

	"unstuck/internal/disk"
)

// sqliteEngine is a database in a file: one connection that writes, a few that only read. Everything that knows the SQLite
// library is in this file.
type sqliteEngine struct {
	path       string
	writer     *sql.DB // nil when read-only
	reader     *sql.DB
	statements *statements
}

// openSQLite takes the lock of a file, makes the file if it is missing, and opens it.
func openSQLite(_ context.Context, o Options) (string, engine, lock, error) {
	path, err := filepath.Abs(o.DSN)
	if err != nil {
		return o.DSN, nil, noLock{}, err
	}
	if o.ReadOnly {
		if _, err := os.Stat(path); err != nil {
			return path, nil, noLock{}, err
		}
		e, err := newSQLite(path, o)
		return path, e, noLock{}, err
	}
	var l lock = noLock{}
	if !o.NoLock {
		if l, err = lockFile(path); err != nil {
			return path, nil, noLock{}, err
		}
	}
	if err := createFile(path); err != nil {
		return path, nil, l, err
	}
	e, err := newSQLite(path, o)
	return path, e, l, err
}

// createFile makes an empty file that only its owner reads; SQLite gives its other files the same mode.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// newSQLite opens the pools.
func newSQLite(path string, o Options) (engine, error) {
	e := &sqliteEngine{path: path, statements: &statements{dialect: sqlite}}
	reader, err := e.open(o.VFS, "ro", "query_only(on)")
	if err != nil {
		return nil, err
	}
	e.reader = reader
	if o.ReadOnly {
		return e, nil
	}
	if e.writer, err = e.open(o.VFS, "rw", append(writerPragmas(), o.Pragmas...)...); err != nil {
		return nil, errors.Join(err, reader.Close())
	}
	e.writer.SetMaxOpenConns(1)
	if err := e.checkWAL(); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

// writerPragmas are the settings of the connection that writes. The log is copied into the database every 16 MB instead of
// every 4, which made inserts at random places a third faster, and is cut back to 64 MB when a long read has let it grow.
func writerPragmas() []string {
	return []string{"journal_mode(wal)", "synchronous(full)", "foreign_keys(on)", "wal_autocheckpoint(4000)", "journal_size_limit(67108864)"}
}

// open makes a pool; its connections live until it is closed.
func (e *sqliteEngine) open(vfs, mode string, pragmas ...string) (*sql.DB, error) {
	q := url.Values{"mode": {mode}, "_txlock": {"immediate"}, "modeof": {e.path}}
	if vfs != "" {
		q.Set("vfs", vfs)
	}
	q["_pragma"] = append([]string{"busy_timeout(10000)", "temp_store(memory)"}, pragmas...)
	query := strings.ReplaceAll(q.Encode(), "+", "%20") // SQLite takes a + for itself
	u := url.URL{Scheme: "file", OmitHost: true, Path: e.path, RawQuery: query}
	db, err := driver.Open(u.String(), registerRowset)
	if err != nil {
		return nil, err
	}
	db.SetMaxIdleConns(readers)
	return db, nil
}

// checkWAL makes sure that readers do not block the writer: a file system without shared memory silently keeps another mode.
func (e *sqliteEngine) checkWAL() error {
	var mode string
	if err := e.writer.QueryRow("PRAGMA journal_mode").Scan(&mode); err != nil {
		return classify(err)
	}
	if mode != "wal" {
		return fmt.Errorf("SQLite cannot keep a write-ahead log here (journal mode %q): use a local disk", mode)
	}
	return nil
}

func (e *sqliteEngine) connect(ctx context.Context, write bool) (*session, error) {
	pool := e.reader
	if write {
		pool = e.writer
	}
	conn, err := pool.Conn(ctx)
	if err != nil {
		return nil, classify(err)
	}
	var raw *sqlite3.Conn
	err = conn.Raw(func(c any) error {
		raw = c.(driver.Conn).Raw()
		return nil
	})
	if err == nil && write {
		err = e.syncNames(ctx, conn)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return newSession(conn, e.statements, func() status {
		if raw.GetAutocommit() {
			return idle
		}
		return active
	}), nil
}

// syncNames makes the names of the files durable. The log exists from the first transaction until the last connection closes;
// SQLite syncs what is in it, not its name.
func (e *sqliteEngine) syncNames(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE; COMMIT"); err != nil {
		return classify(err)
	}
	return disk.SyncNames(filepath.Dir(e.path))
}

func (e *sqliteEngine) pool() *sql.DB { return e.writer }

func (e *sqliteEngine) beginUpdate() string { return "BEGIN IMMEDIATE" }
func (e *sqliteEngine) beginView() string   { return "BEGIN" }

func (e *sqliteEngine) schemaVersion(ctx context.Context) (int64, error) {
	return readVersion(ctx, e.reader, "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '"+versionTable+"')")
}

// commitUnknown: a commit that could not be written is rolled back, but after a failed sync its last page may be on the disk
// and would count after a crash.
func (e *sqliteEngine) commitUnknown(err error) bool {
	return errors.Is(err, sqlite3.IOERR) && !errors.Is(err, sqlite3.IOERR_WRITE)
}

// backup copies with VACUUM INTO, which reads one state and writes a file without free pages. The copy gets its name when it
// is durable.
func (e *sqliteEngine) backup(ctx context.Context, path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("back up to %s: the file is there already", path)
	}
	partial := path + ".partial"
	err := remove(partial)
	if err == nil {
		err = e.vacuumInto(ctx, partial)
	}
	if err == nil {
		err = os.Link(partial, path)
	}
	if err != nil {
		return fmt.Errorf("back up to %s: %w", path, errors.Join(classify(err), remove(partial)))
	}
	return errors.Join(remove(partial), disk.SyncNames(filepath.Dir(path)))
}

// remove removes a file. That there is none is no fault, and neither is a folder that is not there or no folder: what follows says so.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return err
	}
	return nil
}

func (e *sqliteEngine) vacuumInto(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) // VACUUM INTO accepts an empty file
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err // the path is no name that anybody gave
	}
	if err != nil {
		return err
	}
	defer f.Close()
	pool, err := e.open("", "ro")
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err := pool.ExecContext(ctx, "VACUUM INTO ?1", path); err != nil {
		return err
	}
	return f.Sync()
}

func (e *sqliteEngine) close() error {
	err := e.reader.Close()
	if e.writer != nil {
		err = errors.Join(err, e.writer.Close())
	}
	return err
}

// classifySQLite adds the error of this package that callers know to one of SQLite.
func classifySQLite(err error) error {
	switch {
	case errors.Is(err, sqlite3.FULL), errors.Is(err, sqlite3.IOERR_WRITE), disk.IsFull(err):
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	case errors.Is(err, sqlite3.NOTADB):
		return fmt.Errorf("the file is not a database, or it is damaged at its beginning: %w", err)
	}
	return err
}

func sqliteUnique(err error) bool {
	return errors.Is(err, sqlite3.CONSTRAINT_UNIQUE) || errors.Is(err, sqlite3.CONSTRAINT_PRIMARYKEY) ||
		errors.Is(err, sqlite3.CONSTRAINT_ROWID)
}
