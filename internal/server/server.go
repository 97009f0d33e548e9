package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/alert"
	"unstuck/internal/cue"
	"unstuck/internal/db"
	"unstuck/internal/op"
	"unstuck/internal/rest"
	"unstuck/internal/trace"
)

// Deps are what a server gets from outside.
type Deps struct {
	Now     func() time.Time // the one clock of the product
	Log     *slog.Logger
	Reserve int64    // bytes that are kept free for revocations on the disk of a SQLite database; 0: 4 MiB
	VFS     string   // of SQLite, for tests that cut the power
	Pragmas []string // of SQLite's writer, for tests, like "synchronous(off)"
}

// Server is the product, opened and built but not yet listening.
type Server struct {
	Settings
	deps    Deps
	db      *db.DB
	access  *access.Access
	alerts  *alert.Alerts
	cues    *cue.Cues
	meter   *meter
	tracer  *trace.Tracer // nil without traces
	heart   *heart
	set     *op.Set
	handler http.Handler
	opened  time.Time
	backlog counted
	probed  atomic.Int64 // when the failing database was last tried, in nanoseconds since 1970
}

// reserve is enough for more than a hundred revocations on a full disk.
const reserve = 4 << 20

// Operations lists every operation of the product, for documentation and command lines: it cannot be called.
func Operations() []*op.Operation {
	return operations(&Server{}, &access.Access{}, &alert.Alerts{}, &cue.Cues{})
}

func operations(s *Server, a *access.Access, l *alert.Alerts, c *cue.Cues) []*op.Operation {
	return slices.Concat(a.Operations(), c.Operations(), l.Operations(), s.Operations())
}

// Codes lists every error code of the product: those that operations declare and those of the guard.
func Codes() []op.Code {
	return op.NewSet(nil, slog.New(slog.DiscardHandler), time.Now, Operations()...).Codes(access.AuthCodes()...)
}

// APIInfo is what the API reference says about the product as a whole.
func APIInfo() rest.Info {
	return rest.Info{Title: "Unstuck", Version: Version, Guard: access.AuthCodes(),
		Description: "Scoped keys for scripts, workflows and agents, and the work that they do. Send your key with every call: `Authorization: Bearer unstuck_…`."}
}

// Open opens the data folder and builds the product. The context limits how long that may take.
func Open(ctx context.Context, settings Settings, deps Deps) (*Server, error) {
	if err := settings.prepareData(); err != nil {
		return nil, err
	}
	d, err := db.Open(ctx, db.Options{DSN: settings.DSN(), Log: deps.Log, Reserve: cmp.Or(deps.Reserve, reserve), VFS: deps.VFS, Pragmas: deps.Pragmas})
	if err != nil {
		return nil, err
	}
	s := &Server{Settings: settings, deps: deps, db: d, opened: deps.Now()}
	if err := s.build(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// build makes the product on its open database.
func (s *Server) build(ctx context.Context) error {
	secrets, err := s.serverSecrets(ctx, s.db)
	if err != nil {
		return err
	}
	s.access, err = access.Open(ctx, access.Options{
		DB: s.db, Secrets: secrets, Dir: s.Data, SecretFromEnv: s.Secret != "", Now: s.deps.Now, Log: s.deps.Log, Prefix: s.KeyPrefix,
		Trusted: s.Proxies(), Dev: s.Dev, Register: s.Register == "open", RegisterPlan: s.RegisterPlan, AcceptRollback: s.AcceptRollback,
	})
	if err != nil {
		return err
	}
	if s.tracer, err = trace.Open(s.Traces, s.deps.Log); err != nil {
		return err
	}
	s.meter, s.heart = newMeter(s.access, s.deps.Now, s.tracer), newHeart(s.Settings)
	post, err := s.mail(s.deps.Now)
	if err != nil {
		return err
	}
	s.alerts = alert.Open(alert.Options{
		DB: s.db, Access: s.access, Log: s.deps.Log, Now: s.deps.Now, Callbacks: s.Callbacks(), URL: s.Public(), Mail: post, Observe: s.meter.alert, Watch: s.watch,
	})
	s.cues, err = cue.Open(ctx, cue.Options{
		DB: s.db, Access: s.access, Alerts: s.alerts, Log: s.deps.Log, Now: s.deps.Now, Lease: s.Lease, UnclaimedAfter: s.UnclaimedAfter, BareLeaseMax: s.BareLeaseMax,
		Callbacks: s.Callbacks(), RetainFor: s.RetentionDays.Duration(), Observe: s.meter, Trace: s.tracer,
	})
	if err != nil {
		return err
	}
	ops := operations(s, s.access, s.alerts, s.cues)
	s.access.Serve(ops, s.cues)
	s.set = op.NewSet(s.meter, s.deps.Log, s.deps.Now, ops...)
	s.handler = s.mount()
	return nil
}

// serverSecrets reads the server secrets; a database without any gets a first one.
func (s Settings) serverSecrets(ctx context.Context, d *db.DB) (access.ServerSecrets, error) {
	if s.Secret != "" {
		return access.ServerSecrets(s.Secret), nil
	}
	fresh := false
	err := d.View(ctx, func(tx *db.Tx) error {
		var n int64
		err := tx.Row("SELECT count(*) FROM server_secrets").Scan(&n)
		fresh = n == 0
		return err
	})
	if err != nil {
		return "", fmt.Errorf("look for server secrets: %w", err)
	}
	return access.ReadSecretFile(s.Data, fresh)
}

func (s *Server) mount() http.Handler {
	pages := helpPages()
	pages["/"] = http.RedirectHandler("/docs/help/", http.StatusFound)
	pages["/metrics"], pages["/docs/help/style.css"] = s.metrics(), http.HandlerFunc(styleSheet)
	h := rest.New(rest.Options{Set: s.set, Info: APIInfo(), DocsBase: s.docsBase(), Log: s.deps.Log, Mount: pages})
	if s.Dev {
		return devGuard(h)
	}
	return h
}

var misdirected = op.Code{Status: 421, Name: "misdirected_request", Doc: "A server in development mode answers this machine only. Call it by a loopback name, without a proxy."}

// docsBase is the page about errors: at the public name where there is one, else relative to whatever address the caller used. A Host
// header is no address: whoever sends the request chooses it.
func (s *Server) docsBase() string {
	return s.Public() + "/docs/errors"
}

// Handler answers every request; for tests and for whoever brings a listener of his own.
func (s *Server) Handler() http.Handler { return s.handler }

// Access and Cues are the parts, for tests and for the local socket.
func (s *Server) Access() *access.Access { return s.access }

// Alerts is the part that keeps what is wrong.
func (s *Server) Alerts() *alert.Alerts { return s.alerts }

// Cues is the part that schedules work.
func (s *Server) Cues() *cue.Cues { return s.cues }

// Set is all operations behind their guard.
func (s *Server) Set() *op.Set { return s.set }

// heapFloor is memory that is held but never touched, so it costs none: the garbage collector then waits for so much more garbage
// before it works. Without it, it ran every few milliseconds while a thousand callbacks were due, and took a fifth of the processors.
const heapFloor = 32 << 20

// Duties runs what goes on in the background until ctx ends, and then writes what memory still holds.
func (s *Server) Duties(ctx context.Context) error {
	floor := make([]byte, heapFloor)
	defer runtime.KeepAlive(floor)
	done := make(chan error, 5)
	go func() { done <- s.alerts.Run(ctx) }()
	go func() { s.beatLoop(ctx); done <- nil }()
	go func() { done <- s.cues.Run(ctx) }()
	go func() { done <- s.access.Run(ctx) }()
	go func() { done <- s.alerts.Tend(ctx) }()
	err := errors.Join(<-done, <-done, <-done, <-done, <-done)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}

// Close ends the server after its duties have ended.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), flushWithin)
	defer cancel()
	s.tracer.Close(ctx)
	return s.db.Close()
}

// flushWithin is how long the last traces may take at a stop.
const flushWithin = 3 * time.Second

// stoppedAt is the note of when the server stopped, for the next start.
const stoppedAt = "stopped_at"

// note remembers the moment under a name.
func (s *Server) note(ctx context.Context, name string) error {
	return s.db.Update(ctx, func(tx *db.Tx) error {
		at := op.TimeOf(s.deps.Now()).String()
		_, err := tx.Exec("INSERT INTO settings (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value", name, at)
		return err
	})
}

func (s *Server) lastStop(ctx context.Context) (at time.Time) {
	_ = s.db.View(ctx, func(tx *db.Tx) error { // without the note the line leaves it out
		var text string
		if err := tx.Row("SELECT value FROM settings WHERE name = ?1", stoppedAt).Scan(&text); err != nil {
			return err
		}
		var err error
		at, err = time.Parse(time.RFC3339, text)
		return err
	})
	return at
}

func levelOf(name string) *slog.Level {
	l := slog.LevelInfo
	if err := l.UnmarshalText([]byte(strings.ToUpper(name))); err != nil {
		return nil
	}
	return &l
}

// NewLog is the server's log: JSON lines, or readable ones on a terminal.
func NewLog(w io.Writer, terminal bool, level string) *slog.Logger {
	o := &slog.HandlerOptions{Level: slog.LevelInfo}
	if l := levelOf(level); l != nil {
		o.Level = *l
	}
	if terminal {
		o.Level = max(o.Level.Level(), slog.LevelWarn)
		if level == "debug" {
			o.Level = slog.LevelDebug
		}
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}

// short is a path as people write it: with ~ for the home folder.
func short(path, home string) string {
	if rest, err := filepath.Rel(home, path); err == nil && home != "" && !strings.HasPrefix(rest, "..") {
		return "~" + string(os.PathSeparator) + rest
	}
	return path
}
