package db

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// postgresEngine is a PostgreSQL database: one connection that writes, a few that read, and one that holds the lock.
type postgresEngine struct {
	config     *pgx.ConnConfig
	db         *sql.DB
	statements *statements
}

// openPostgres takes the server's lock and opens the database.
func openPostgres(ctx context.Context, o Options) (string, engine, lock, error) {
	config, err := pgx.ParseConfig(o.DSN)
	if err != nil {
		return "of PostgreSQL", nil, noLock{}, hideDSN(err)
	}
	name := fmt.Sprintf("%s on %s", config.Database, config.Host)
	prepareConfig(config)
	var l lock = noLock{}
	if !o.NoLock && !o.ReadOnly {
		if l, err = takeAdvisoryLock(ctx, config, name, o); err != nil {
			return name, nil, noLock{}, err
		}
	}
	e := &postgresEngine{config: config, statements: &statements{dialect: postgres}}
	e.db = stdlib.OpenDB(*config, stdlib.OptionAfterConnect(afterConnect))
	if err := e.check(ctx); err != nil {
		return name, nil, l, errors.Join(err, e.close())
	}
	return name, e, l, nil
}

// hideDSN drops the address from pgx's parse error, because it may hold a password.
func hideDSN(err error) error {
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) {
		return fmt.Errorf("the address of the PostgreSQL database is not valid: %w", errors.Unwrap(parse))
	}
	return err
}

// prepareConfig gives every connection a name that tells who holds the lock, and notices a dead network within half a minute.
func prepareConfig(c *pgx.ConnConfig) {
	host, err := os.Hostname()
	if err != nil {
		host = "an unnamed host"
	}
	c.RuntimeParams["application_name"] = fmt.Sprintf("%s: process %d on %s", filepath.Base(os.Args[0]), os.Getpid(), host)
	c.RuntimeParams["jit"] = "off" // its start costs more than any query here
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, 10*time.Second)
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4}}
	c.DialFunc = dialer.DialContext
}

// afterConnect makes commits durable even where the database's default is not to wait for them.
func afterConnect(ctx context.Context, c *pgx.Conn) error {
	_, err := c.Exec(ctx, "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'")
	return err
}

// check refuses a database that would store text otherwise than SQLite does.
func (e *postgresEngine) check(ctx context.Context) error {
	var encoding string
	if err := e.db.QueryRowContext(ctx, "SHOW server_encoding").Scan(&encoding); err != nil {
		return err
	}
	if encoding != "UTF8" {
		return fmt.Errorf("the encoding of the database is %s: make one with ENCODING 'UTF8'", encoding)
	}
	return nil
}

func (e *postgresEngine) connect(ctx context.Context, _ bool) (*session, error) {
	conn, err := e.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	var raw *pgx.Conn
	err = conn.Raw(func(c any) error {
		raw = c.(*stdlib.Conn).Conn()
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return newSession(conn, e.statements, func() status { return postgresStatus(raw) }), nil
}

func postgresStatus(c *pgx.Conn) status {
	if c.IsClosed() {
		return broken
	}
	switch c.PgConn().TxStatus() {
	case 'I':
		return idle
	case 'T':
		return active
	}
	return failed
}

func (e *postgresEngine) pool() *sql.DB { return e.db }

func (e *postgresEngine) beginUpdate() string { return "BEGIN ISOLATION LEVEL SERIALIZABLE" }
func (e *postgresEngine) beginView() string   { return "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" }

func (e *postgresEngine) schemaVersion(ctx context.Context) (int64, error) {
	return readVersion(ctx, e.db, "SELECT to_regclass('"+versionTable+"') IS NOT NULL")
}

// commitUnknown: an answer of the server with severity ERROR means that it rolled back; anything else, such as a broken
// connection or a server that went down, leaves it open, unless nothing was sent.
func (e *postgresEngine) commitUnknown(err error) bool {
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		return cmp.Or(answer.SeverityUnlocalized, answer.Severity) != "ERROR"
	}
	return !pgconn.SafeToRetry(err)
}

func (e *postgresEngine) backup(context.Context, string) error {
	return fmt.Errorf("a PostgreSQL database is backed up with its own tool: pg_dump --format=custom --file=FILE %s", e.config.Database)
}

func (e *postgresEngine) close() error { return e.db.Close() }

// classify adds the error of this package that callers know to one of a driver.
func classify(err error) error {
	if err == nil {
		return nil
	}
	if code := sqlState(err); code == "53100" {
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	return classifySQLite(err)
}

// isConflict says whether PostgreSQL asks to run the transaction again: a serialization failure or a deadlock.
func isConflict(err error) bool {
	code := sqlState(err)
	return code == "40001" || code == "40P01"
}

func postgresUnique(err error) bool { return sqlState(err) == "23505" }

// sqlState is PostgreSQL's code of an error, or empty.
func sqlState(err error) string {
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		return answer.Code
	}
	return ""
}
