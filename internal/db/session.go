package db

import (
	"database/sql"
	"fmt"
)

// session is one connection, used by one goroutine at a time, with its prepared statements.
type session struct {
	conn       *sql.Conn
	status     func() status
	prepared   map[string]*sql.Stmt
	statements *statements
}

// status is where a connection stands.
type status int

const (
	idle   status = iota // no transaction is open
	active               // a transaction is open
	failed               // PostgreSQL: a transaction is open that can only be rolled back
	broken               // the connection is gone
)

// maxPrepared bounds the statements that one connection keeps; the product has far fewer texts.
const maxPrepared = 1000

func newSession(conn *sql.Conn, ss *statements, status func() status) *session {
	return &session{conn: conn, status: status, prepared: map[string]*sql.Stmt{}, statements: ss}
}

func (s *session) dialect() dialect { return s.statements.dialect }

// prepare returns the prepared statement of a text in the database's own dialect.
func (s *session) prepare(text string) (*sql.Stmt, error) {
	if stmt, ok := s.prepared[text]; ok {
		return stmt, nil
	}
	stmt, err := s.conn.PrepareContext(background, text)
	if err != nil {
		return nil, err
	}
	s.prepared[text] = stmt
	return stmt, nil
}

// control runs one or more statements that steer the transaction, in one round trip.
func (s *session) control(text string) error {
	if _, err := s.conn.ExecContext(background, text); err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	return nil
}

// rollback ends the transaction, whatever state it is in; a connection that cannot is closed by the caller, who sees that it
// is not idle.
func (s *session) rollback() {
	if st := s.status(); st == active || st == failed {
		_ = s.control("ROLLBACK")
	}
}

// trim closes the prepared statements when there are too many; no rows may be open.
func (s *session) trim() {
	if len(s.prepared) <= maxPrepared {
		return
	}
	for _, stmt := range s.prepared {
		_ = stmt.Close() // it is only a cache
	}
	clear(s.prepared)
}

func (s *session) close() error {
	for _, stmt := range s.prepared {
		_ = stmt.Close() // the connection closes with it
	}
	return s.conn.Close()
}
