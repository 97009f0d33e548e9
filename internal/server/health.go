package server

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"time"

	"unstuck/internal/cron"
	"unstuck/internal/cue"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Version of the product.
const Version = "0.1.0"

// Build is the version and, where it is known, the commit that this program was built from.
func Build() string {
	told := map[string]string{}
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			told[s.Key] = s.Value
		}
	}
	text := Version
	if commit := told["vcs.revision"]; len(commit) > 12 {
		text += " · commit " + commit[:12] + " of " + told["vcs.time"]
	}
	if told["vcs.modified"] == "true" {
		text += ", changed since"
	}
	return text
}

// Health is how the server is (CueAPI wire contract 2.10: always 200).
type Health struct {
	Status    string        `json:"status" doc:"healthy or degraded"`
	Version   string        `json:"version"`
	Timestamp op.OffsetTime `json:"timestamp"`
	Services  Services      `json:"services"`
	Poller    Poller        `json:"poller" doc:"the scheduler's last look for due work"`
	Workers   *Workers      `json:"workers,omitempty" doc:"absent while the database cannot be read"`
	Queue     Queue         `json:"queue" doc:"empty while the database cannot be read"`
	Problem   string        `json:"problem,omitempty" doc:"what is wrong with the database, in a sentence"`
}

// Services are the parts that must work, under our names and CueAPI's.
type Services struct {
	Database  string `json:"database" doc:"ok or error"`
	Scheduler string `json:"scheduler" doc:"ok or stale: it has not looked for due work for 30 seconds"`
	Postgres  string `json:"postgres" doc:"as database, whichever it is: CueAPI's name for it"`
	Redis     string `json:"redis" doc:"ok: this server needs none"`
	Poller    string `json:"poller" doc:"as scheduler, or unknown before its first look: CueAPI's name for it"`
	Worker    string `json:"worker" doc:"ok: a worker was heard in the last 180 seconds; none; or unknown while the database cannot be read. A server without workers is healthy"`
}

// Poller is the scheduler's last look.
type Poller struct {
	Status     string         `json:"status,omitempty" doc:"unknown: it has not looked yet; the other members are absent then"`
	LastRun    *op.OffsetTime `json:"last_run,omitempty"`
	SecondsAgo *int64         `json:"seconds_ago,omitempty"`
	Fired      *int64         `json:"cues_last_cycle,omitempty" doc:"due times that became executions then"`
	Took       *int64         `json:"cycle_duration_ms,omitempty"`
}

// Workers are those that were heard in the last 180 seconds, of all workspaces.
type Workers struct {
	Active        int64          `json:"active_count"`
	LastHeartbeat *op.OffsetTime `json:"last_heartbeat,omitempty" doc:"absent when none is active"`
}

// Queue is what waits, in all workspaces. Each is counted among 10,000 of those that
// wait, now or later.
type Queue struct {
	Outbox  *int64 `json:"pending_outbox,omitempty" doc:"executions that are due to be called and not on their way"`
	Stale   *int64 `json:"stale_executions,omitempty" doc:"executions whose lease, call or time to be reported ended more than 30 seconds ago, and that are still as they were"`
	Retries *int64 `json:"pending_retries,omitempty" doc:"executions that wait for their next call after one that failed"`
	Claims  *int64 `json:"pending_worker_claims,omitempty" doc:"executions that a worker could claim now"`
}

// State is Health in one word, for load balancers.
type State struct {
	Status string `json:"status" doc:"healthy, or degraded with a reason"`
	Reason string `json:"reason,omitempty"`
	Zones  string `json:"tzdata" doc:"release of the IANA time zone database that schedules follow; it is built in"`
}

// downState stands beside the error when the server is down (CueAPI wire contract 2.10).
type downState struct {
	Status string `json:"status"`
	Reason string `json:"reason"`
}

// Info says what runs here.
type Info struct {
	Version    string `json:"version"`
	Go         string `json:"go"`
	Database   string `json:"database" doc:"sqlite or postgres"`
	KeyPrefix  string `json:"key_prefix"`
	SignUpOpen bool   `json:"sign_up_open"`

	// What CueAPI's /v1/info says (wire contract 2.10).
	Authorization  string    `json:"authorization_backend" doc:"always ScopedKeys"`
	Authentication AuthPaths `json:"authentication_paths"`
	Disabled       []string  `json:"disabled_primitives" doc:"parts of CueAPI that are not there: device_code, its sign-in by a code"`
}

// AuthPaths are the ways in which a call may say who it is.
type AuthPaths struct {
	Key      bool `json:"per_user_api_key"`
	Internal bool `json:"internal_token_with_on_behalf_of" doc:"always false: a trusted backend gets a key of its own"`
}

// staleAfter is how long the scheduler may not have looked for due work.
const staleAfter = 30 * time.Second

var down = op.Code{Status: 503, Name: "down", Doc: "The server cannot read or write its database. Look at its log, and at the room on its disk."}

// Operations are those of the server itself.
func (s *Server) Operations() []*op.Operation {
	return []*op.Operation{
		op.Define(op.Spec{Name: "server.health", Route: "GET /health", Needs: op.Public, Effect: op.Read, Uncounted: true, May: "see the health", Doc: "Show how the server is\nAlways 200, also when it is degraded; load balancers ask for the status. A database that failed is tried again when asked."}, s.health),
		op.Define(op.Spec{Name: "server.status", Route: "GET /status", Needs: op.Public, Effect: op.Read, Uncounted: true, May: "see the status", Doc: "Show the state in one word\nFor load balancers: 503 when the server cannot read or write its database.", Errors: []op.Code{down}}, s.status),
		op.Define(op.Spec{Name: "server.info", Route: "GET /v1/info", Needs: op.Public, Effect: op.Read, Uncounted: true, May: "see what runs", Doc: "Show what runs here"}, s.info),
	}
}

// probeEvery is how often a database that fails is tried, when somebody asks.
const probeEvery = time.Second

func (s *Server) services(ctx context.Context) (Services, error) {
	out := Services{Database: "ok", Scheduler: "ok", Redis: "ok", Worker: "unknown"}
	err := s.database(ctx)
	if err != nil {
		out.Database = "error"
	}
	looked := s.cues.Pulse().At
	known := !looked.IsZero()
	if !known { // a server that starts is not stale
		looked = s.opened
	}
	if s.deps.Now().Sub(looked) > staleAfter {
		out.Scheduler = "stale"
	}
	out.Postgres, out.Poller = out.Database, out.Scheduler
	if !known && out.Scheduler == "ok" {
		out.Poller = "unknown"
	}
	return out, err
}

// database says why the server cannot read its database, or why the last write failed. After a failure it tries to write, so that
// a server to which nobody sends anything is well again as soon as it can be.
func (s *Server) database(ctx context.Context) error {
	err := s.db.View(ctx, func(tx *db.Tx) error {
		var n int64
		return tx.Row("SELECT count(*) FROM server_secrets").Scan(&n)
	})
	if err != nil {
		return down.Wrap(err, "The server does not reach its database.")
	}
	if s.db.Failing() != nil && s.probeIsDue() {
		_ = s.note(ctx, "probed_at") // Failing tells
	}
	err = s.db.Failing()
	switch {
	case errors.Is(err, db.ErrDiskFull):
		return down.Wrap(err, "The server cannot store anything: the disk of its database is full.")
	case err != nil:
		return down.Wrap(err, "The server cannot store anything: the last write to its database failed.")
	}
	return nil
}

func (s *Server) probeIsDue() bool {
	now, last := s.deps.Now().UnixNano(), s.probed.Load()
	return (now-last >= int64(probeEvery) || now < last) && s.probed.CompareAndSwap(last, now)
}

func (s *Server) health(ctx context.Context, _ struct{}) (Health, error) {
	services, err := s.services(ctx)
	now := s.deps.Now()
	h := Health{Status: "healthy", Version: Version, Timestamp: op.OffsetTime(op.TimeOf(now)), Services: services, Poller: s.poller(now)}
	if services.Database != "ok" || services.Scheduler != "ok" {
		h.Status = "degraded"
	}
	if err != nil {
		h.Problem = err.Error()
	}
	if b, err := s.backlog.read(now, func() (cue.Backlog, error) { return s.cues.Backlog(ctx) }); err == nil {
		h.show(b)
	}
	return h, nil
}

func (s *Server) poller(now time.Time) Poller {
	p := s.cues.Pulse()
	if p.At.IsZero() {
		return Poller{Status: "unknown"}
	}
	last := op.OffsetTime(op.TimeOf(p.At))
	ago, fired, took := int64(max(now.Sub(p.At), 0)/time.Second), int64(p.Fired), p.Took.Milliseconds()
	return Poller{LastRun: &last, SecondsAgo: &ago, Fired: &fired, Took: &took}
}

// show adds what waits, and who could take it.
func (h *Health) show(b cue.Backlog) {
	h.Workers = &Workers{Active: b.Workers}
	h.Services.Worker = "none"
	if b.Workers > 0 {
		last := op.OffsetTime(b.LastHeartbeat)
		h.Workers.LastHeartbeat, h.Services.Worker = &last, "ok"
	}
	h.Queue = Queue{Outbox: &b.Outbox, Stale: &b.Stale, Retries: &b.Retries, Claims: &b.Claims}
}

// backlogEvery is how often what waits is counted, however often strangers ask.
const backlogEvery = time.Second

// counted keeps what was counted last.
type counted struct {
	mu    sync.Mutex
	known cue.Backlog
	at    time.Time
}

func (c *counted) read(now time.Time, count func() (cue.Backlog, error)) (cue.Backlog, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if age := now.Sub(c.at); !c.at.IsZero() && age >= 0 && age < backlogEvery {
		return c.known, nil
	}
	b, err := count()
	if err == nil {
		c.known, c.at = b, now
	}
	return b, err
}

func (s *Server) status(ctx context.Context, _ struct{}) (State, error) {
	switch p, err := s.services(ctx); {
	case err != nil:
		e := op.AsError(err)
		e.Beside = downState{"down", s.engine() + " unreachable"}
		return State{}, e
	case p.Scheduler != "ok":
		return State{"degraded", "poller stale", cron.Version}, nil
	}
	return State{Status: "healthy", Zones: cron.Version}, nil
}

// engine is the kind of the database.
func (s *Server) engine() string {
	if s.db.Postgres() {
		return "postgres"
	}
	return "sqlite"
}

func (s *Server) info(context.Context, struct{}) (Info, error) {
	out := Info{Version: Version, Database: s.engine(), KeyPrefix: s.KeyPrefix, SignUpOpen: s.Register == "open" || s.Dev}
	if b, ok := debug.ReadBuildInfo(); ok {
		out.Go = b.GoVersion
	}
	out.Authorization, out.Authentication, out.Disabled = "ScopedKeys", AuthPaths{Key: true}, []string{"device_code"}
	return out, nil
}
