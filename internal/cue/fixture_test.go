package cue

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/alert"
	"unstuck/internal/db"
	"unstuck/internal/op"
	"unstuck/internal/testkit/pgtest"
)

// epoch is when the clock of a fixture starts: a Monday, 100 seconds past the hour.
var epoch = time.Date(2026, 11, 23, 10, 1, 40, 0, time.UTC)

// clock is a clock that only tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Set moves the clock, also back.
func (c *clock) Set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}

// Advance moves the clock by d, which may be negative.
func (c *clock) Advance(d time.Duration) { c.Set(c.Now().Add(d)) }

// fixture is a server without doors: database, access, cues, a workspace without limits and the key of its admin.
type fixture struct {
	testing.TB
	dsn     string
	options Options // what Open gets, beside DB, Access, Log and Now
	clock   *clock
	secrets access.ServerSecrets
	db      *db.DB
	access  *access.Access
	cues    *Cues
	set     *op.Set
	post    *fakePost
	real    bool   // the sender is the real one
	admin   string // a personal key with scope full
	ws      string // id of its workspace
}

// each runs a test on both databases.
func each(t *testing.T, fn func(t *testing.T, f *fixture)) {
	t.Helper()
	pgtest.Each(t, func(t *testing.T, dsn string) { fn(t, newFixture(t, dsn, Options{})) })
}

// onSQLite is for tests and benchmarks that say why one database is enough.
func onSQLite(t testing.TB) *fixture {
	t.Helper()
	return newFixture(t, filepath.Join(t.TempDir(), "test.db"), Options{})
}

func newFixture(t testing.TB, dsn string, o Options) *fixture {
	t.Helper()
	f := &fixture{TB: t, dsn: dsn, options: o, clock: &clock{now: epoch}, secrets: access.NewServerSecret(), post: &fakePost{}}
	f.openDB()
	t.Cleanup(func() { f.must(f.db.Close()) })
	f.openRest()
	key, made, err := f.access.FirstRun(t.Context(), "admin@example.com", true)
	if err != nil || !made {
		t.Fatalf("first run: %v, made: %t", err, made)
	}
	f.admin = key.Secret
	f.sql("UPDATE workspaces SET rate_limit = 0")
	f.must(f.db.View(t.Context(), func(tx *db.Tx) error { return tx.Row("SELECT id FROM workspaces").Scan(&f.ws) }))
	f.openRest() // reads the workspace again
	return f
}

func (f *fixture) openDB() {
	f.Helper()
	o := db.Options{DSN: f.dsn}
	if _, bench := f.TB.(*testing.B); !bench {
		o.Pragmas = []string{"synchronous(off)"} // these tests cut no power
		o.NoStatistics = true                    // what is asked often must be quick without them
	}
	var err error
	f.db, err = db.Open(f.Context(), o)
	f.must(err)
}

func (f *fixture) openRest() {
	f.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	var err error
	f.access, err = access.Open(f.Context(), access.Options{DB: f.db, Secrets: f.secrets, Now: f.clock.Now, Log: log})
	f.must(err)
	o := f.options
	alerts := alert.Open(alert.Options{DB: f.db, Access: f.access, Now: f.clock.Now})
	o.DB, o.Access, o.Alerts, o.Log, o.Now = f.db, f.access, alerts, log, f.clock.Now
	o.Callbacks.Secure = true
	o.Callbacks.Allow = append(o.Callbacks.Allow, netip.MustParsePrefix("203.0.113.0/24")) // nothing is there
	f.cues, err = Open(f.Context(), o)
	f.must(err)
	if !f.real {
		f.cues.courier.post = f.post
	}
	ops := slices.Concat(f.access.Operations(), f.cues.Operations(), alerts.Operations())
	f.access.Serve(ops, f.cues)
	f.set = op.NewSet(f.access, log, f.clock.Now, ops...)
}

// restart forgets everything that is not in the database, as a crash does.
func (f *fixture) restart() {
	f.Helper()
	f.must(f.db.Close())
	f.openDB()
	f.openRest()
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// sql changes rows behind the product's back.
func (f *fixture) sql(query string, args ...any) {
	f.Helper()
	f.must(f.db.Update(f.Context(), func(tx *db.Tx) error {
		_, err := tx.Exec(query, args...)
		return err
	}))
}

// number asks the database for one number.
func (f *fixture) number(query string, args ...any) (n int64) {
	f.Helper()
	f.must(f.db.View(f.Context(), func(tx *db.Tx) error { return tx.Row(query, args...).Scan(&n) }))
	return n
}

// settle lets everything happen that is due by the clock.
func (f *fixture) settle() {
	f.Helper()
	f.must(f.cues.Settle(f.Context()))
}

// input are the inputs of a call, by their names on the wire, wherever they travel.
type input map[string]any

// call calls an operation with a key.
func (f *fixture) call(key, name string, args input) *op.Response {
	f.Helper()
	o := f.set.Lookup(name)
	if o == nil {
		f.Fatalf("there is no operation %s", name)
	}
	r := request(key, name)
	body := map[string]any{}
	places := map[string]op.Place{}
	for _, field := range o.Fields() {
		places[field.Name] = field.In
	}
	for k, v := range args {
		switch places[k] {
		case op.InPath:
			r.Params[k] = fmt.Sprint(v)
		case op.InQuery:
			r.Query.Add(k, fmt.Sprint(v))
		case op.InHeader:
			r.Header.Add(k, fmt.Sprint(v))
		default:
			body[k] = v
		}
	}
	if len(body) > 0 {
		r.Body = op.Marshal(body)
	}
	return f.set.Call(f.Context(), r)
}

// send calls an operation with a body as it is.
func (f *fixture) send(key, name string, params map[string]string, body string) *op.Response {
	r := request(key, name)
	r.Params, r.Body = params, []byte(body)
	return f.set.Call(context.WithoutCancel(f.Context()), r)
}

func request(key, name string) *op.Request {
	return &op.Request{
		Op: name, ID: "test", Via: "rest", Peer: "127.0.0.1:1", Auth: "Bearer " + key, Header: http.Header{}, Query: url.Values{},
		Params: map[string]string{},
	}
}

// ok is the answer of a call that must succeed.
func (f *fixture) ok(key, name string, args input) map[string]any {
	f.Helper()
	return answer(f, name, f.call(key, name, args))
}

func answer(f *fixture, name string, r *op.Response) map[string]any {
	f.Helper()
	if r.Err != nil {
		f.Fatalf("%s: %v", name, r.Err)
	}
	out := map[string]any{}
	if len(r.Body) > 0 {
		f.must(json.Unmarshal(r.Body, &out))
	}
	return out
}

// refused is the error of a call that must fail with this status and code.
func (f *fixture) refused(key, name string, args input, status int, code string) *op.Error {
	f.Helper()
	r := f.call(key, name, args)
	if r.Err == nil {
		f.Fatalf("%s %v succeeded: %s", name, args, r.Body)
	}
	if r.Err.Code.Status != status || r.Err.Code.Name != code {
		f.Fatalf("%s %v: %d %v, want %d %s", name, args, r.Err.Code.Status, r.Err, status, code)
	}
	return r.Err
}

// key makes an integration key of a scope, restricted as given (nil: not at all).
func (f *fixture) key(scope string, restrictions input) string {
	f.Helper()
	args := input{"name": "key", "scope": scope}
	if restrictions != nil {
		args["restrictions"] = restrictions
	}
	return f.ok(f.admin, "key.create", args)["key"].(string)
}

// cue makes a worker cue by a cron expression in UTC and returns its id.
func (f *fixture) cue(name, cron string) string {
	f.Helper()
	return f.ok(f.admin, "cue.create", input{"name": name, "transport": "worker", "schedule": input{"type": recurring, "cron": cron}})["id"].(string)
}
