package db_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"unstuck/internal/db"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errRefused = errors.New("refused by the test")

// open opens a database that is closed when the test ends.
func open(t testing.TB, o db.Options) *db.DB {
	t.Helper()
	d, err := db.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

// set inserts a row.
func set(tx *db.Tx, name, value string) error {
	_, err := tx.Exec("INSERT INTO settings (name, value) VALUES (?1, ?2)", name, value)
	return err
}

// update must succeed.
func update(t testing.TB, d *db.DB, fn func(*db.Tx) error) {
	t.Helper()
	if err := d.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

// content reads all rows.
func content(t testing.TB, d *db.DB) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := d.View(context.Background(), func(tx *db.Tx) error {
		rows, err := tx.Query("SELECT name, value FROM settings")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name, value string
			if err := rows.Scan(&name, &value); err != nil {
				return err
			}
			all[name] = value
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// hold occupies the writer with a caller of its own until the function it returns is called, which waits for its answer.
func hold(t testing.TB, d *db.DB) (release func()) {
	t.Helper()
	entered, leave, done := make(chan bool, 1), make(chan bool), make(chan error, 1)
	go func() {
		done <- d.Update(context.Background(), func(*db.Tx) error {
			entered <- true
			<-leave
			return nil
		})
	}()
	<-entered
	return func() {
		close(leave)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// together runs updates in one batch, in their order, and returns the answers.
func together(t testing.TB, d *db.DB, callers ...func() error) []error {
	t.Helper()
	release := hold(t, d)
	answers := make([]error, len(callers))
	var wg sync.WaitGroup
	for i, caller := range callers {
		wg.Go(func() { answers[i] = caller() })
		waitFor(func() bool { return d.Stats().Waiting == i+1 })
	}
	release()
	wg.Wait()
	return answers
}

// caller is an update for together.
func caller(d *db.DB, fn func(*db.Tx) error) func() error {
	return func() error { return d.Update(context.Background(), fn) }
}

// logSignal returns a log, and a channel that is closed when the log gets a message that begins so.
func logSignal(beginning string) (*slog.Logger, <-chan struct{}) {
	h := &signalHandler{Handler: slog.DiscardHandler, beginning: beginning, seen: make(chan struct{})}
	return slog.New(h), h.seen
}

type signalHandler struct {
	slog.Handler
	beginning string
	once      sync.Once
	seen      chan struct{}
}

func (h *signalHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h *signalHandler) Handle(_ context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, h.beginning) {
		h.once.Do(func() { close(h.seen) })
	}
	return nil
}

// waitFor returns when something another goroutine does has happened.
func waitFor(happened func() bool) {
	for !happened() {
		runtime.Gosched()
	}
}
