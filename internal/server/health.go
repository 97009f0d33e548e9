package server

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"unstuck/internal/cron"
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
	Problem   string        `json:"problem,omitempty" doc:"what is wrong with the database, in a sentence"`
}

// Services are the parts that must work.
type Services struct {
	Database  string `json:"database" doc:"ok or error"`
	Scheduler string `json:"scheduler" doc:"ok or stale: it has not looked for due work for 30 seconds"`
}

// State is Health in one word, for load balancers.
type State struct {
	Status string `json:"status" doc:"healthy, or degraded with a reason"`
	Reason string `json:"reason,omitempty"`
	Zones  string `json:"tzdata" doc:"release of the IANA time zone database that schedules follow; it is built in"`
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
	out := Services{Database: "ok", Scheduler: "ok"}
	err := s.database(ctx)
	if err != nil {
		out.Database = "error"
	}
	looked := s.cues.Pulse().At
	if looked.IsZero() { // not yet: a server that starts is not stale
		looked = s.opened
	}
	if s.deps.Now().Sub(looked) > staleAfter {
		out.Scheduler = "stale"
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
	h := Health{Status: "healthy", Version: Version, Timestamp: op.OffsetTime(op.TimeOf(s.deps.Now())), Services: services}
	if services != (Services{"ok", "ok"}) {
		h.Status = "degraded"
	}
	if err != nil {
		h.Problem = err.Error()
	}
	return h, nil
}

func (s *Server) status(ctx context.Context, _ struct{}) (State, error) {
	switch p, err := s.services(ctx); {
	case err != nil:
		return State{}, err
	case p.Scheduler != "ok":
		return State{"degraded", "scheduler stale", cron.Version}, nil
	}
	return State{Status: "healthy", Zones: cron.Version}, nil
}

func (s *Server) info(context.Context, struct{}) (Info, error) {
	out := Info{Version: Version, Database: "sqlite", KeyPrefix: s.KeyPrefix, SignUpOpen: s.Register == "open" || s.Dev}
	if s.db.Postgres() {
		out.Database = "postgres"
	}
	if b, ok := debug.ReadBuildInfo(); ok {
		out.Go = b.GoVersion
	}
	out.Authorization, out.Authentication, out.Disabled = "ScopedKeys", AuthPaths{Key: true}, []string{"device_code"}
	return out, nil
}
