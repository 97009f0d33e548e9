package cue

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"unstuck/internal/testkit/pgtest"
)

// receiver is somebody who gets webhooks.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	got    []arrival
	answer func(w http.ResponseWriter, a arrival)
}

type arrival struct {
	method string
	path   string
	header http.Header
	body   string
	json   map[string]any
}

func newReceiver(t testing.TB) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		b, err := io.ReadAll(q.Body)
		if err != nil {
			return // the sender went away
		}
		a := arrival{method: q.Method, path: q.URL.Path, header: q.Header, body: string(b)}
		_ = json.Unmarshal(b, &a.json) // a GET has no body
		r.mu.Lock()
		r.got = append(r.got, a)
		answer := r.answer
		r.mu.Unlock()
		if answer != nil {
			answer(w, a)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) says(fn func(w http.ResponseWriter, a arrival)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = fn
}

// status lets it answer with a status and a body.
func (r *receiver) status(code int, body string) {
	r.says(func(w http.ResponseWriter, _ arrival) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	})
}

func (r *receiver) arrivals() []arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]arrival{}, r.got...)
}

// sending runs a test on both databases with the real sender, which may call this machine.
func sending(t *testing.T, fn func(t *testing.T, f *fixture, r *receiver)) {
	t.Helper()
	pgtest.Each(t, func(t *testing.T, dsn string) { fn(t, newSending(t, dsn), newReceiver(t)) })
}

func newSending(t testing.TB, dsn string) *fixture {
	t.Helper()
	o := Options{}
	o.Callbacks.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	f := newFixture(t, dsn, o)
	f.real = true
	f.openRest()
	t.Cleanup(func() { f.cues.courier.post.stop(t.Context()) })
	return f
}

// webhook makes a cue that calls a receiver every minute, and returns its id.
func (f *fixture) webhook(name string, r *receiver, more input) string {
	f.Helper()
	args := input{"name": name, "cron": "* * * * *", "callback_url": r.URL + "/" + name}
	for k, v := range more {
		args[k] = v
	}
	return f.ok(f.admin, "cue.create", args)["id"].(string)
}

// tick turns the clock to the next full minute, and lets everything happen.
func (f *fixture) tick() {
	f.Helper()
	f.clock.Set(f.clock.Now().Truncate(time.Minute).Add(time.Minute))
	f.settle()
}

// executions are those of a cue, newest first.
func (f *fixture) executions(cue string) (out []map[string]any) {
	f.Helper()
	for _, e := range f.ok(f.admin, "execution.list", input{"cue_id": cue})["executions"].([]any) {
		out = append(out, e.(map[string]any))
	}
	return out
}

// secret is the workspace's webhook secret.
func (f *fixture) secret() string {
	f.Helper()
	return f.ok(f.admin, "webhook_secret.get", nil)["webhook_secret"].(string)
}

func cueAPISignature(secret, at, body string) string {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(at + "." + body))
	return "v1=" + hex.EncodeToString(m.Sum(nil))
}

// What goes over the wire: the six keys, the headers and both signatures (CueAPI wire contract 3.3, 4).
func TestDelivery(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		id := f.webhook("nightly", r, input{"payload": input{"b": 1.0, "a": "é"}, "callback": input{
			"url": r.URL + "/hook?x=1", "headers": input{"Authorization": "Bearer theirs", "X-Mine": "1"}}})
		f.tick()
		got := r.arrivals()
		if len(got) != 1 {
			t.Fatalf("%d arrived, want 1", len(got))
		}
		a, e := got[0], f.executions(id)[0]
		want := fmt.Sprintf(`{"attempt": 1, "cue_id": "%s", "execution_id": "%s", "name": "nightly", "payload": {"a": "\u00e9", "b": 1}, "scheduled_for": "2026-11-23T10:02:00+00:00"}`, id, e["id"])
		if a.body != want {
			t.Errorf("the body is\n%s\nwant\n%s", a.body, want)
		}
		for name, want := range map[string]string{
			"Content-Type": "application/json", "X-Cueapi-Cue-Id": id, "X-Cueapi-Execution-Id": e["id"].(string), "X-Cueapi-Attempt": "1",
			"X-Cueapi-Scheduled-For": "2026-11-23T10:02:00+00:00", "User-Agent": "CueAPI/1.0", "Authorization": "Bearer theirs", "X-Mine": "1",
			"X-Cueapi-Timestamp": fmt.Sprint(f.clock.Now().Unix()), "Webhook-Id": e["id"].(string),
			"X-Cueapi-Signature": cueAPISignature(f.secret(), a.header.Get("X-Cueapi-Timestamp"), a.body),
		} {
			if a.header.Get(name) != want {
				t.Errorf("%s: %q, want %q", name, a.header.Get(name), want)
			}
		}
		if a.method != "POST" || a.path != "/hook" {
			t.Errorf("%s %s", a.method, a.path)
		}
		if e["status"] != statusSuccess || e["attempts"] != 1. || e["http_status"] != 200. || e["unconfirmed"] != true || e["outcome_by"] != byStatus {
			t.Errorf("the execution is %v", e)
		}
		if c := f.ok(f.admin, "cue.get", input{"id": id}); c["run_count"] != 1. || c["last_run"] == nil || c["fired_count"] != 1. {
			t.Errorf("the cue is %v", c)
		}
		if n := f.number("SELECT count(*) FROM executions WHERE callback <> '' OR called <> ''"); n > 0 {
			t.Error("the callback as of queueing outlives its attempt")
		}
	})
}

// Every row of the table of results (CueAPI wire contract 3.4): status, message, and that it is retried.
func TestResults(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		for _, c := range []struct {
			code    int
			message any
			status  string
		}{
			{200, nil, statusSuccess}, {204, nil, statusSuccess}, {299, nil, statusSuccess},
			{404, "Webhook endpoint not found (404)", statusRetrying}, {408, "Webhook endpoint timed out", statusRetrying},
			{400, "Webhook endpoint rejected request (400)", statusRetrying}, {429, "Webhook endpoint rejected request (429)", statusRetrying},
			{500, "Webhook endpoint returned server error (500)", statusRetrying}, {503, "Webhook endpoint server error (503)", statusRetrying},
			{302, "Webhook delivery failed (302)", statusRetrying}, {410, "Webhook endpoint rejected request (410)", statusFailed},
		} {
			name := fmt.Sprint("code-", c.code)
			r.says(func(w http.ResponseWriter, _ arrival) {
				w.Header().Set("Location", "http://127.0.0.1:1/")
				w.WriteHeader(c.code)
			})
			id := f.webhook(name, r, nil)
			f.tick()
			e := f.executions(id)[0]
			if e["status"] != c.status || e["error_message"] != c.message || e["http_status"] != float64(c.code) || e["attempts"] != 1. {
				t.Errorf("%d: %v %v %v", c.code, e["status"], e["error_message"], e["http_status"])
			}
			f.ok(f.admin, "cue.delete", input{"id": id})
		}
		r.status(200, "")
		down := newReceiver(t)
		url := down.URL
		down.Close()
		id := f.webhook("down", r, input{"callback_url": url})
		f.tick()
		if e := f.executions(id)[0]; e["status"] != statusRetrying || e["error_message"] != "Could not connect to webhook endpoint" || e["http_status"] != nil {
			t.Errorf("no connection: %v", e)
		}
	})
}

// A callback that hangs is given up after the cue's timeout, in all.
func TestTimeout(t *testing.T) {
	f, r := newSending(t, t.TempDir()+"/test.db"), newReceiver(t) // the same on both
	gone := make(chan struct{})
	r.says(func(http.ResponseWriter, arrival) { <-gone })
	defer close(gone)
	id := f.webhook("slow", r, input{"delivery": input{"timeout_seconds": 1}})
	f.tick()
	if e := f.executions(id)[0]; e["status"] != statusRetrying || e["error_message"] != "Webhook endpoint timed out" || e["http_status"] != nil {
		t.Errorf("%v", e)
	}
}

// Attempts happen at about 0, +1 and +6 minutes, and then the execution has failed (CueAPI wire contract 3.2); jitter adds a tenth
// at most. The end of a one-time cue follows.
func TestRetries(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		r.status(500, "no")
		at := f.clock.Now().Add(time.Minute)
		id := f.webhook("once", r, input{"cron": nil, "at": at})
		f.clock.Set(at)
		f.settle()
		for i, minutes := range []time.Duration{1, 5} {
			e := f.executions(id)[0]
			next, err := time.Parse(time.RFC3339, e["next_retry"].(string))
			f.must(err)
			if wait := next.Sub(f.clock.Now()); e["status"] != statusRetrying || wait < minutes*time.Minute || wait > minutes*66*time.Second {
				t.Fatalf("after attempt %d: %v, next in %v", i+1, e["status"], wait)
			}
			f.clock.Set(next.Add(-time.Microsecond))
			f.settle()
			if n := len(r.arrivals()); n != i+1 {
				t.Fatalf("attempt %d came early", n)
			}
			f.clock.Set(next)
			f.settle()
			if n := len(r.arrivals()); n != i+2 {
				t.Fatalf("%d attempts, want %d", n, i+2)
			}
		}
		e, c := f.executions(id)[0], f.ok(f.admin, "cue.get", input{"id": id})
		if e["status"] != statusFailed || e["attempts"] != 3. || e["next_retry"] != nil || c["status"] != failed || c["run_count"] != 3. || c["last_run"] == nil {
			t.Errorf("execution %v\ncue %v", e, c)
		}
		for i, a := range r.arrivals() {
			if a.json["attempt"] != float64(i+1) || a.json["execution_id"] != e["id"] || a.json["scheduled_for"] != strings.Replace(e["scheduled_for"].(string), "Z", "+00:00", 1) {
				t.Errorf("attempt %d said %s", i+1, a.body)
			}
		}
	})
}

// Retry-After is honoured, up to a day; it never shortens the wait of the cue.
func TestRetryAfter(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		for _, c := range []struct {
			header string
			least  time.Duration
		}{{"3", time.Minute}, {"3600", time.Hour}, {"9999999", 24 * time.Hour}, {"soon", time.Minute}} {
			r.says(func(w http.ResponseWriter, _ arrival) {
				w.Header().Set("Retry-After", c.header)
				w.WriteHeader(429)
			})
			id := f.webhook("busy", r, nil)
			f.tick()
			next, err := time.Parse(time.RFC3339, f.executions(id)[0]["next_retry"].(string))
			f.must(err)
			if wait := next.Sub(f.clock.Now()); wait < c.least || wait > c.least+c.least/10 {
				t.Errorf("Retry-After: %s is followed after %v", c.header, wait)
			}
			f.ok(f.admin, "cue.delete", input{"id": id})
		}
	})
}

// 410 ends the execution and pauses the cue with a reason; nothing is called any more.
func TestGone(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		r.status(410, "")
		id := f.webhook("gone", r, nil)
		f.tick()
		e, c := f.executions(id)[0], f.ok(f.admin, "cue.get", input{"id": id})
		if e["status"] != statusFailed || c["status"] != paused || !strings.Contains(fmt.Sprint(c["pause_reason"]), "410 (gone)") {
			t.Errorf("execution %v, cue %v", e["status"], c)
		}
		f.tick()
		if n := len(r.arrivals()); n != 1 {
			t.Errorf("called %d times", n)
		}
		rows := f.ok(f.admin, "audit.list", input{"operation": "cue.pause"})["audit"].([]any)
		if len(rows) != 1 || rows[0].(map[string]any)["object_id"] != id || rows[0].(map[string]any)["who"].(map[string]any)["kind"] != "server" ||
			!strings.Contains(fmt.Sprint(rows[0].(map[string]any)["detail"]), "410 (gone)") {
			t.Errorf("the audit log says %v", rows)
		}
		if c := f.ok(f.admin, "cue.resume", input{"id": id}); c["pause_reason"] != nil {
			t.Errorf("resumed, and the reason stays: %v", c["pause_reason"])
		}
	})
}

// A 410 of a callback that the cue does not have any more ends the execution and leaves the cue alone.
func TestGoneElsewhere(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		r.says(func(w http.ResponseWriter, a arrival) {
			if strings.HasSuffix(a.path, "/moves") {
				f.ok(f.admin, "cue.update", input{"id": a.json["cue_id"], "callback": input{"url": r.URL + "/new"}})
				w.WriteHeader(410)
			}
		})
		id := f.webhook("moves", r, nil)
		f.tick()
		if e, c := f.executions(id)[0], f.ok(f.admin, "cue.get", input{"id": id}); e["status"] != statusFailed || c["status"] != active {
			t.Errorf("execution %v, cue %v", e["status"], c["status"])
		}
		f.tick()
		if n := len(r.arrivals()); n != 2 {
			t.Errorf("called %d times", n)
		}
	})
}

// on_failure.pause applies after the last attempt failed, not before.
func TestPauseOnFailure(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		r.status(500, "")
		id := f.webhook("fragile", r, input{"retry": input{"max_attempts": 2, "backoff_minutes": []int{0}}, "on_failure": input{"pause": true}})
		f.tick()
		if c := f.ok(f.admin, "cue.get", input{"id": id}); c["status"] != active {
			t.Fatalf("after the first attempt it is %v", c["status"])
		}
		f.clock.Advance(2 * time.Second)
		f.settle()
		c := f.ok(f.admin, "cue.get", input{"id": id})
		if e := f.executions(id)[0]; e["status"] != statusFailed || c["status"] != paused || !strings.Contains(fmt.Sprint(c["pause_reason"]), e["id"].(string)) {
			t.Errorf("%v, cue %v", e["status"], c)
		}
	})
}
