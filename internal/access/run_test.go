package access

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"unstuck/internal/db"
)

// TestRunWritesWhatIsGathered: refusals at once, last uses within five seconds, the ends of the audit log within a minute, and the rest
// when it is told to end.
func TestRunWritesWhatIsGathered(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, filepath.Join(dir, "test.db"))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.a.Run(ctx) }()
		stored := func(query string) (n int64) {
			t.Helper()
			synctest.Wait()
			if err := w.db.View(t.Context(), func(tx *db.Tx) error { return tx.Row(query).Scan(&n) }); err != nil {
				t.Fatal(err)
			}
			return n
		}
		secret, _ := w.key("worker")
		w.refused(InsufficientScope, secret, "cue.list", nil)
		w.refused(InsufficientScope, secret, "cue.list", nil)
		if n := stored("SELECT count(*) FROM audit WHERE result = 'insufficient_scope'"); n != 1 {
			t.Errorf("%d rows about refusals at once", n)
		}
		uses := "SELECT count(*) FROM secrets WHERE last_used_at IS NOT NULL"
		if n := stored(uses); n != 0 {
			t.Errorf("%d last uses were written by the calls themselves", n)
		}
		<-time.After(5 * time.Second)
		if n := stored(uses); n != 2 {
			t.Errorf("%d last uses are on disk after five seconds", n)
		}
		if known, err := w.a.readHeads(1); err != nil || len(known) != 0 {
			t.Errorf("the heads were written before the minute was over: %v, %v", known, err)
		}
		<-time.After(time.Minute)
		synctest.Wait()
		if known, err := w.a.readHeads(1); err != nil || len(known) != 1 {
			t.Errorf("%v, %v", known, err)
		}
		w.must(secret, "execution.claim", nil)
		w.clock.advance(time.Second)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if n := stored("SELECT count(*) FROM audit WHERE result = 'insufficient_scope'"); n != 2 {
			t.Errorf("%d rows about refusals after the stop", n)
		}
		if strings.Contains(w.log.String(), "level=ERROR") {
			t.Error(w.log.String())
		}
	})
}
