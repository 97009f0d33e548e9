package access

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
	"unstuck/internal/testkit/pgtest"
)

// TestMain lets properties be looked at fewer times than by default, unless the command line says how often: each step of many of them
// is a transaction on two databases.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{"rapid.checks": "30", "rapid.steps": "20"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	flag.Parse()
	os.Exit(m.Run())
}

// hands are the clock of a test, which moves only when it is told to.
type hands struct{ us atomic.Int64 }

func newHands() *hands {
	c := &hands{}
	c.us.Store(time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC).UnixMicro())
	return c
}

func (c *hands) now() time.Time          { return time.UnixMicro(c.us.Load()).UTC() }
func (c *hands) advance(d time.Duration) { c.us.Add(d.Microseconds()) }

// journal is a log that can be read while it is written.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// world is a server without doors: the package on a database, behind an operation set with the toys of toys_test.go.
type world struct {
	testing.TB
	dsn, dir string
	vfs      string // of SQLite; "" for the operating system's
	db       *db.DB
	a        *Access
	set      *op.Set
	clock    *hands
	log      *journal
	toys     *toys
	admin    string // the first key: personal, scope full
	requests atomic.Int64
}

// onBoth runs a test on both databases.
func onBoth(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) { fn(t, newWorld(t, dsn)) })
}

func newWorld(t testing.TB, dsn string, change ...func(*Options)) *world {
	t.Helper()
	w := &world{TB: t, dsn: dsn, dir: t.TempDir(), clock: newHands(), log: &journal{}, toys: newToys()}
	if _, err := ReadSecretFile(w.dir, true); err != nil {
		t.Fatal(err)
	}
	w.open(change...)
	key, made, err := w.a.FirstRun(t.Context(), "admin@example.com", true)
	if err != nil || !made {
		t.Fatalf("first run: made %v, %v", made, err)
	}
	w.admin = key.Secret
	return w
}

// open opens the database and the package; the test closes it at its end, or before by stop.
func (w *world) open(change ...func(*Options)) {
	w.Helper()
	if err := w.tryOpen(change...); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(w.stop)
}

func (w *world) tryOpen(change ...func(*Options)) error {
	w.Helper()
	secrets, err := ReadSecretFile(w.dir, false)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	d, err := db.Open(context.Background(), db.Options{DSN: w.dsn, Log: log, VFS: w.vfs, LockWait: 10 * time.Second})
	if err != nil {
		w.Fatal(err)
	}
	o := Options{DB: d, Secrets: secrets, Dir: w.dir, Now: w.clock.now, Log: log}
	for _, fn := range change {
		fn(&o)
	}
	a, err := Open(context.Background(), o)
	if err != nil {
		d.Close()
		return err
	}
	w.db, w.a = d, a
	ops := append(a.Operations(), w.toys.operations(w)...)
	a.Serve(ops, w.toys)
	w.set = op.NewSet(a, log, w.clock.now, ops...)
	return nil
}

// stop is an orderly stop; stopping twice is none.
func (w *world) stop() {
	w.Helper()
	if w.db == nil {
		return
	}
	done, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.a.Run(done); err != nil {
		w.Error(err)
	}
	w.crash()
}

// crash ends without writing what was gathered.
func (w *world) crash() {
	w.Helper()
	if err := w.db.Close(); err != nil {
		w.Error(err)
	}
	w.db = nil
}

// in is the input of a call by name: members of the body, parameters of path and query, headers.
type in map[string]any

// from is where a call comes from, when it matters.
type from struct {
	peer, via, agent, client string
	forwarded                []string
}

// call calls an operation with a key; "" is no key.
func (w *world) call(key, operation string, input in, where ...from) *op.Response {
	w.Helper()
	o := w.set.Lookup(operation)
	if o == nil {
		w.Fatalf("there is no operation %s", operation)
	}
	r := &op.Request{
		Op: operation, ID: fmt.Sprintf("req-%d", w.requests.Add(1)), Via: "rest", Peer: "192.0.2.1:4000", UserAgent: "test/1",
		Header: http.Header{}, Query: url.Values{}, Params: map[string]string{},
	}
	if key != "" {
		r.Auth = "Bearer " + key
	}
	for _, f := range where {
		r.Peer, r.Via, r.Client, r.Forwarded = either(f.peer, r.Peer), either(f.via, r.Via), f.client, f.forwarded
		r.UserAgent = either(f.agent, r.UserAgent)
	}
	place(r, o, input)
	return w.set.Call(w.Context(), r)
}

// place puts each input where the operation reads it.
func place(r *op.Request, o *op.Operation, input in) {
	body := in{}
	for name, v := range input {
		at := op.InBody
		for _, f := range o.Fields() {
			if f.Name == name {
				at = f.In
			}
		}
		switch at {
		case op.InPath:
			r.Params[name] = fmt.Sprint(v)
		case op.InQuery:
			r.Query.Set(name, fmt.Sprint(v))
		case op.InHeader:
			r.Header.Set(name, fmt.Sprint(v))
		default:
			body[name] = v
		}
	}
	if len(body) > 0 {
		r.Body = op.Marshal(body)
	}
	if o.Confirm {
		r.Header.Set("X-Confirm-Destructive", "true")
	}
}

func either(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// answer is a body that was decoded.
type answer map[string]any

func (a answer) str(name string) string { s, _ := a[name].(string); return s }

// must is call for one that has to succeed.
func (w *world) must(key, operation string, input in, where ...from) answer {
	w.Helper()
	res := w.call(key, operation, input, where...)
	if res.Err != nil {
		w.Fatalf("%s: %v %s", operation, res.Err, op.Marshal(res.Err.Details))
	}
	return decoded(w, res.Body)
}

func decoded(t testing.TB, body []byte) answer {
	t.Helper()
	if len(body) == 0 {
		return nil
	}
	var out answer
	if err := json.Unmarshal(body, &out); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return out
}

// refused is call for one that has to be refused with a code.
func (w *world) refused(code op.Code, key, operation string, input in, where ...from) *op.Error {
	w.Helper()
	res := w.call(key, operation, input, where...)
	switch {
	case res.Err == nil:
		w.Fatalf("%s passed, want %s: %s", operation, code.Name, res.Body)
	case res.Err.Code != code:
		w.Fatalf("%s: %v %s, want %s", operation, res.Err, op.Marshal(res.Err.Details), code.Name)
	}
	return res.Err
}

// invalid is refused for 422 at a place.
func (w *world) invalid(place, key, operation string, input in) {
	w.Helper()
	e := w.refused(op.ValidationError, key, operation, input)
	if !slices.ContainsFunc(e.Details, func(v op.Violation) bool { return v.Field == place }) {
		w.Fatalf("%s: violations %v, want one at %s", operation, e.Details, place)
	}
}

// code is how a call ends: "" or the name of its code.
func (w *world) code(key, operation string, input in, where ...from) string {
	w.Helper()
	if e := w.call(key, operation, input, where...).Err; e != nil {
		return e.Code.Name
	}
	return ""
}

// key makes an integration key with the admin's; the second answer is its id.
func (w *world) key(scope string, more ...in) (secret, id string) {
	w.Helper()
	return w.keyBy(w.admin, scope, more...)
}

// keyBy makes a key; scope is a named scope, or permissions with blanks between them.
func (w *world) keyBy(by, scope string, more ...in) (secret, id string) {
	w.Helper()
	input := in{"name": "a key"}
	if _, named := scopeOf(scope); named {
		input["scope"] = scope
	} else {
		input["permissions"] = strings.Fields(scope)
	}
	for _, m := range more {
		for k, v := range m {
			input[k] = v
		}
	}
	out := w.must(by, "key.create", input)
	return out.str("key"), out.str("id")
}

// member adds a person and answers the person's id and personal key, which the person has replaced.
func (w *world) member(email, role string) (id, secret string) {
	w.Helper()
	id, handed := w.added(email, role)
	return id, w.replaced(handed)
}

// added adds a person and answers the person's id and the personal key that is handed over.
func (w *world) added(email, role string) (id, handed string) {
	w.Helper()
	out := w.must(w.admin, "member.add", in{"email": email, "role": role})
	return out.str("id"), out.str("key")
}

// replaced is what the first login does with a key that was handed over.
func (w *world) replaced(handed string) string {
	w.Helper()
	return w.must(handed, "key.rotate", in{"id": "self", "now": true}).str("key")
}

// done is the last row about an operation that succeeded.
func (w *world) done(operation string) AuditRow {
	w.Helper()
	rows := slices.DeleteFunc(w.audit(operation), func(r AuditRow) bool { return r.Result != Done })
	if len(rows) == 0 {
		w.Fatalf("nothing in the audit log about %s", operation)
	}
	return rows[len(rows)-1]
}

// audit lists the audit log, oldest first; of one operation unless it is "".
func (w *world) audit(operation string) []AuditRow {
	w.Helper()
	input := in{"limit": 1000}
	if operation != "" {
		input["operation"] = operation
	}
	res := w.call(w.admin, "audit.list", input)
	if res.Err != nil {
		w.Fatal(res.Err)
	}
	var page AuditPage
	if err := json.Unmarshal(res.Body, &page); err != nil {
		w.Fatal(err)
	}
	slices.Reverse(page.Rows)
	return page.Rows
}
