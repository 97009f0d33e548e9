// Package cue says when work happens and whether it did: cues and their schedules, the ledger that accounts for every due
// time, executions, the leases of the workers that take them, and what they report.
package cue

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/alert"
	"unstuck/internal/db"
	"unstuck/internal/live"
	"unstuck/internal/op"
	"unstuck/internal/trace"
	"unstuck/internal/webhook"
)

// Options are what Open needs. DB, Access, Alerts and Now are required; a duration of zero means its default.
type Options struct {
	DB     *db.DB
	Access *access.Access
	Alerts *alert.Alerts
	Log    *slog.Logger     // nil discards
	Now    func() time.Time // the one clock of the package; no SQL asks for the time

	Lease          time.Duration  // how long a claim or a heartbeat holds an execution; default 15 minutes
	UnclaimedAfter time.Duration  // an execution that nobody takes for so long is missed; default 15 minutes
	BareLeaseMax   time.Duration  // how long worker heartbeats renew a lease taken without a token; default 2 hours
	Callbacks      webhook.Policy // which addresses may be called
	RetainFor      time.Duration  // how long executions are kept after they last changed; default forever
	Observe        Observer       // hears what happened; nil for nobody
	Trace          *trace.Tracer  // takes spans of executions; nil for none
	Live           *live.Feed     // what happens is told to those who watch; default: a feed of its own
}

// Cues is the state of the package: one per server. Its methods may be called from any goroutine.
type Cues struct {
	Options
	pulling               // workers that wait for work
	alarm   alarm         // when the next cue is due
	book    book          // compiled schedules
	near    nearness      // workspaces that have used most of their plan
	pulse   pulse         // the scheduler's last look
	noticed chan struct{} // holds a token when there is a failure to tell of
	telling telling       // workspaces of which failures are being told
	signed  op.Time       // when the scheduler last noted that it is there; of its goroutine
	courier courier       // what is on its way to callbacks
	echo    sink          // of documents that were posted to try out webhooks
	streams streams       // of those who watch

	retention retention
}

// restartGrace is how long after a start a lease, or the time to claim, goes on at least: nobody could renew or claim while the
// server was away.
const restartGrace = 180 * time.Second

// Open prepares the package on an open database: leases and deadlines that ran out while the server was away get their grace,
// and the next due time is read. It starts nothing; see Run.
func Open(ctx context.Context, o Options) (*Cues, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		set *time.Duration
		def time.Duration
	}{{&o.Lease, 15 * time.Minute}, {&o.UnclaimedAfter, 15 * time.Minute}, {&o.BareLeaseMax, 2 * time.Hour}} {
		if *d.set == 0 {
			*d.set = d.def
		}
	}
	if o.Observe == nil {
		o.Observe = deaf{}
	}
	if o.Live == nil {
		o.Live = live.New()
	}
	c := &Cues{Options: o}
	c.Alerts.OnRaise(c.alerted)
	c.alarm.open()
	c.courier.open()
	c.retention.open()
	c.noticed = make(chan struct{}, 1)
	c.echo.now = c.Now
	if err := c.DB.Update(ctx, func(tx *db.Tx) error { return c.relieve(tx, c.now()) }); err != nil {
		return nil, fmt.Errorf("give leases their time after the start: %w", err)
	}
	if err := c.sign(ctx); err != nil {
		return nil, err
	}
	if _, err := c.lookUp(ctx, c.now(), 0); err != nil {
		return nil, fmt.Errorf("read when the next cue is due: %w", err)
	}
	if err := c.readNear(ctx); err != nil {
		return nil, err
	}
	if err := c.readLanes(ctx); err != nil {
		return nil, err
	}
	c.courier.post = &postbox{c: c}
	return c, nil
}

// relieve moves the end of every lease, and of every wait to be claimed or reported, to at least restartGrace after the start.
// What was being sent is sent again at once.
func (c *Cues) relieve(tx *db.Tx, start op.Time) error {
	if err := c.sendAgain(tx, start); err != nil {
		return err
	}
	_, err := tx.Exec(sqlRelieve, in(start, restartGrace))
	return err
}

func (c *Cues) now() op.Time { return op.TimeOf(c.Now()) }

// CallStats is what is on its way to callbacks, for metrics.
type CallStats struct {
	Queued   int64 // executions that wait to be called, now or later, in the database; counted up to 100,000
	Memory   int   // executions in memory: waiting for their turn, on their way, or with a result that is not stored yet
	Bytes    int64 // that these take, about
	InFlight int   // requests on their way
	Doubtful int   // of those, to callbacks that were slow or have not answered yet
	Resting  int   // callbacks that failed several times in a row and are not called for a while,
	Trying   int   // those whose rest is over and that have not answered since,
	Closed   int   // and all others that are remembered
}

// Calls says what is on its way to callbacks.
func (c *Cues) Calls(ctx context.Context) (s CallStats) {
	s.Memory, s.Bytes = c.courier.lanes.filled()
	if p, ok := c.courier.post.(*postbox); ok {
		t := p.stats()
		s.InFlight, s.Doubtful, s.Resting, s.Trying, s.Closed = t.InFlight, t.Doubtful, t.Open, t.Resting-t.Open, t.Endpoints-t.Resting
	}
	_ = c.DB.View(ctx, func(tx *db.Tx) error { return tx.Row(sqlQueued).Scan(&s.Queued) }) // without it the rest still says something
	return s
}

// caller is who makes the call.
func (c *Cues) caller(ctx context.Context) *access.Caller { return access.From(ctx) }
