package cue

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/op"
	"unstuck/internal/testkit/pgtest"
)

// Environment of the test binary when it is to remove old executions until it is killed.
const (
	retainDSN    = "UNSTUCK_TEST_RETAIN_DSN"
	retainSecret = "UNSTUCK_TEST_RETAIN_SECRET"
)

// killedAt is the clock of the process that is killed: everything is old enough by then.
var killedAt = epoch.Add(20 * 24 * time.Hour)

// TestRetentionProcess is the process of TestRetentionThroughKills: it says a line after each transaction.
func TestRetentionProcess(t *testing.T) {
	dsn := os.Getenv(retainDSN)
	if dsn == "" {
		return // it is started by TestRetentionThroughKills
	}
	f := &fixture{TB: t, dsn: dsn, options: Options{RetainFor: 10 * 24 * time.Hour}, clock: &clock{now: killedAt}, post: &fakePost{}}
	f.secrets = access.ServerSecrets(os.Getenv(retainSecret))
	f.openDB()
	f.openRest()
	f.cues.retention.most = 11
	f.cues.retention.rest = func(context.Context) { fmt.Println("removed") }
	f.retain()
	fmt.Println("done")
}

// A process that removes executions is killed again and again, in the midst of it. Whenever it dies, the ledger closes over every
// time, totals are exact, what was removed is sealed, and in the end all has gone that was to go.
func TestRetentionThroughKills(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, dsn string) {
		f := newFixture(t, dsn, Options{RetainFor: 10 * 24 * time.Hour})
		id := f.ok(f.admin, "cue.create", input{"name": "c", "transport": "worker", "schedule": input{"type": recurring, "cron": "* * * * *"}, "catch_up": replayAll})["id"].(string)
		for i := range 12 {
			f.clock.Advance(time.Duration(50+10*i) * time.Minute) // from the sixth on more than 100 are due, and some skipped
			f.settle()
		}
		for pending := true; pending; {
			page := f.ok(f.admin, "execution.list", input{"status": statusPending, "limit": 100})["executions"].([]any)
			for _, e := range page {
				f.ok(f.admin, "execution.report", input{"id": e.(map[string]any)["id"], "success": true})
			}
			pending = len(page) > 0
		}
		f.ok(f.admin, "cue.pause", input{"id": id})
		ended := f.clock.Now()
		whole := f.number("SELECT count(*) FROM executions")
		f.clock.Set(killedAt)
		r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // any will do
		kills := 0
		for done := false; !done; {
			f.must(f.db.Close())
			done = retainUntil(t, f, r.IntN(20))
			f.openDB()
			f.openRest()
			if !done {
				kills++
			}
			left := f.number("SELECT count(*) FROM executions")
			holds(t, f.ok(f.admin, "execution.list", nil), map[string]any{"total": float64(left)})
			for range 10 {
				from := epoch.Add(time.Duration(r.Int64N(int64(ended.Sub(epoch)))))
				to := from.Add(time.Duration(r.Int64N(int64(ended.Sub(from)) + 1)))
				holds(t, f.ok(f.admin, "cue.ledger", input{"id": id, "from": op.TimeOf(from), "to": op.TimeOf(to) + 1}), map[string]any{"closed": true})
			}
			l := f.ok(f.admin, "cue.ledger", input{"id": id, "from": op.TimeOf(epoch)})
			if whole > left {
				holds(t, l, map[string]any{"closed": true, "fired": float64(whole), "removed.scheduled": float64(whole - left), "removed.sealed": true})
			}
			if done && left != retainLatest {
				t.Errorf("%d are left", left)
			}
		}
		t.Logf("%d executions, %d kills", whole, kills)
		if kills == 0 {
			t.Error("it was never killed")
		}
	})
}

// retainUntil runs the process until it has said some lines, and kills it; true when it came to its end.
func retainUntil(t *testing.T, f *fixture, lines int) bool {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestRetentionProcess$")
	cmd.Env = append(os.Environ(), retainDSN+"="+f.dsn, retainSecret+"="+string(f.secrets))
	out, err := cmd.StdoutPipe()
	f.must(err)
	f.must(cmd.Start())
	defer func() { _ = cmd.Wait() }()
	said := bufio.NewScanner(out)
	for n := 0; said.Scan(); {
		switch text := said.Text(); {
		case text == "done":
			_ = cmd.Process.Kill()
			return true
		case text != "removed":
			t.Fatalf("it says %s", text)
		}
		if n++; n > lines {
			_ = cmd.Process.Kill() // while it goes on with the next
			return false
		}
	}
	t.Fatal("it ended by itself")
	return false
}
