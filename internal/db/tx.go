package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
)

// Tx is one transaction, as the function of one caller sees it. It is good until that function returns, and for one goroutine
// at a time.
//
// After the first error of a statement all further ones fail too, and the caller is rolled back even if its function returns
// nil: the two databases differ in what they would let stand.
type Tx struct {
	ctx      context.Context
	session  *session
	writable bool
	mark     func() error // makes the caller's savepoint; called before each statement that writes
	wrote    bool
	changed  int64     // rows, by Exec
	err      error     // the first error of a statement
	rows     *sql.Rows // of the last Query
	over     bool
	urgent   Urgency // see Urgent
	share    string
	notes    map[any]any
	after    []func()
}

// Exec runs a statement and returns how many rows it changed.
//
// Parameters are written ?1, ?2 and so on, and may be used several times. Arguments are nil, string, []byte, bool (stored as 0
// or 1), any integer type, types made of these, pointers to them (nil is NULL), and slices of strings or integers for the two
// macros, which read the same on both databases:
//
//	WHERE id IN @list(?1)                           -- also NOT IN; the argument is a []string or []int64, possibly empty
//	FROM @rows(id TEXT ?1, due INTEGER ?2) AS r     -- a table of lists of one length, with a column i that counts from 1
//
// so that one statement can write many rows:
//
//	INSERT INTO runs (id, due) SELECT r.id, r.due FROM @rows(id TEXT ?1, due INTEGER ?2) AS r ORDER BY r.i
//	UPDATE runs SET due = r.due FROM @rows(id TEXT ?1, due INTEGER ?2) AS r WHERE runs.id = r.id
//
// Write types in a CAST as in the tables: INTEGER and BLOB become BIGINT and BYTEA on PostgreSQL. What to know there: a
// parameter that is only compared with a number literal or with NULL needs a CAST(?1 AS INTEGER) or CAST(?1 AS TEXT); EXISTS
// and comparisons in a select list give a boolean, so scan them into a bool.
func (tx *Tx) Exec(query string, args ...any) (int64, error) {
	stmt, bound, err := tx.begin(query, args, true)
	if err != nil {
		return 0, tx.fail(query, err)
	}
	result, err := stmt.ExecContext(background, bound...)
	if err != nil {
		return 0, tx.fail(query, err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return 0, tx.fail(query, err)
	}
	tx.changed += n
	return n, nil
}

// Query runs a statement that gives rows; parameters are those of [Tx.Exec]. The rows must be closed before the next
// statement: a PostgreSQL connection gives one result at a time, so it is refused on both databases.
func (tx *Tx) Query(query string, args ...any) (*sql.Rows, error) {
	stmt, bound, err := tx.begin(query, args, false)
	if err != nil {
		return nil, tx.fail(query, err)
	}
	rows, err := stmt.QueryContext(background, bound...)
	if err != nil {
		return nil, tx.fail(query, err)
	}
	tx.rows = rows
	return rows, nil
}

// Row runs a statement that gives at most one row; parameters are those of [Tx.Exec]. Every error, also one of the statement,
// comes from Scan, which must be called: on SQLite the statement runs there.
func (tx *Tx) Row(query string, args ...any) *sql.Row {
	stmt, bound, err := tx.begin(query, args, false)
	if err != nil {
		return failedRow(tx.fail(query, err))
	}
	row := stmt.QueryRowContext(background, bound...)
	if err := row.Err(); err != nil {
		return failedRow(tx.fail(query, err))
	}
	return row
}

// AfterCommit asks for a function to run once the caller's changes are durable: in the order of the commits, then of the
// calls, and before any caller of the same commit is answered. It is where memory that mirrors the database changes. It is
// dropped when the caller is rolled back. The function must be short and must not call View or Update.
func (tx *Tx) AfterCommit(fn func()) { tx.after = append(tx.after, fn) }

// Context returns the caller's context without its cancellation and deadline: from its turn on, a caller counts.
func (tx *Tx) Context() context.Context { return tx.ctx }

// Put keeps a note for whoever sees this transaction later in the caller's turn, such as a function of [WithBeforeCommit]. A
// function that runs again starts without notes.
func (tx *Tx) Put(key, value any) {
	if tx.notes == nil {
		tx.notes = map[any]any{}
	}
	tx.notes[key] = value
}

// Get returns the note kept under a key, or nil.
func (tx *Tx) Get(key any) any { return tx.notes[key] }

// Writable says whether this is an Update.
func (tx *Tx) Writable() bool { return tx.writable }

// Postgres says whether the database is PostgreSQL.
func (tx *Tx) Postgres() bool { return tx.session.dialect() == postgres }

// begin makes a statement ready to run. Exec counts as writing whatever its text says.
func (tx *Tx) begin(query string, args []any, exec bool) (*sql.Stmt, []any, error) {
	if tx.over {
		return nil, nil, errTxOver
	}
	if err := tx.settleRows(); err != nil {
		return nil, nil, err
	}
	if tx.err != nil {
		return nil, nil, fmt.Errorf("an earlier statement of this transaction failed: %w", tx.err)
	}
	st, err := tx.session.statements.of(query)
	if err != nil {
		return nil, nil, err
	}
	bound, err := st.bind(tx.session.dialect(), args)
	if err != nil {
		return nil, nil, err
	}
	if exec || st.writes {
		if !tx.writable {
			return nil, nil, ErrReadOnly
		}
		if err := tx.mark(); err != nil {
			return nil, nil, err
		}
		tx.wrote = true
	}
	stmt, err := tx.session.prepare(st.text)
	return stmt, bound, err
}

// settleRows refuses to go on while the rows of a Query are open, and finds the error that ended them.
func (tx *Tx) settleRows() error {
	if tx.rows == nil {
		return nil
	}
	if rowsOpen(tx.rows) {
		return fmt.Errorf("the rows of the query before are still open")
	}
	err := tx.rows.Err()
	tx.rows = nil
	if err != nil && tx.err == nil {
		tx.err = err
	}
	return nil
}

// rowsOpen makes use of Columns being an error exactly when rows are closed.
func rowsOpen(rows *sql.Rows) bool {
	_, err := rows.Columns()
	return err == nil
}

// end closes the caller's turn.
func (tx *Tx) end() {
	if tx.rows != nil {
		if err := tx.rows.Err(); err != nil && tx.err == nil {
			tx.err = err
		}
		_ = tx.rows.Close() // its error is that of Err
		tx.rows = nil
	}
	tx.over = true
}

// fail names the statement in its error and remembers the first one.
func (tx *Tx) fail(query string, err error) error {
	err = fmt.Errorf("%s: %w", brief(query), classify(err))
	if tx.err == nil && !tx.over {
		tx.err = err
	}
	return err
}

// failedRow makes a row whose Scan returns an error.
func failedRow(err error) *sql.Row {
	broken := sql.OpenDB(brokenConnector{err})
	defer broken.Close()
	return broken.QueryRow("")
}

type brokenConnector struct{ err error }

func (c brokenConnector) Connect(context.Context) (driver.Conn, error) { return nil, c.err }
func (c brokenConnector) Driver() driver.Driver                        { return nil }

// background is the context of every statement: none is cancelled in the middle, because that would make SQLite drop the
// whole transaction with the changes of other callers, and cost a connection on PostgreSQL.
var background = context.Background()

type beforeCommitKey struct{}

// WithBeforeCommit returns a context that lets [DB.Update] call fn after the caller's function has succeeded and in its
// transaction. An error of fn rolls the caller back and is what Update returns. Several are called in the order they were
// added.
func WithBeforeCommit(ctx context.Context, fn func(*Tx) error) context.Context {
	outer := beforeCommit(ctx)
	return context.WithValue(ctx, beforeCommitKey{}, append(outer[:len(outer):len(outer)], fn))
}

func beforeCommit(ctx context.Context) []func(*Tx) error {
	fns, _ := ctx.Value(beforeCommitKey{}).([]func(*Tx) error)
	return fns
}

// Urgent says that the transaction must not be refused when the disk is full, and may use Options.Reserve. It is said before
// what is written for it. share is on whose account: a workspace.
func (tx *Tx) Urgent(share string, u Urgency) { tx.share, tx.urgent = share, max(tx.urgent, u) }

type insideKey struct{}

// inside returns the context of a transaction: the caller's values, no cancellation, and the mark that refuses nesting.
func inside(ctx context.Context) context.Context {
	return context.WithValue(context.WithoutCancel(ctx), insideKey{}, true)
}

func isInside(ctx context.Context) bool { return ctx.Value(insideKey{}) != nil }
