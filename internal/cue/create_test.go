package cue

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// newCue is the smallest body that makes a cue.
func newCue(name string, more input) input {
	body := input{"name": name, "transport": "worker", "schedule": input{"type": "recurring", "cron": "*/5 * * * *"}}
	for k, v := range more {
		body[k] = v
	}
	return body
}

func onceAt(at time.Time) input { return input{"type": "once", "at": at.Format(time.RFC3339)} }

// What a create refuses, row by row of the table in the CueAPI wire contract 2.3, and what the original crashed on.
func TestCreateRefuses(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.ok(f.admin, "cue.create", newCue("taken", nil))
		past, future := f.clock.Now().Add(-time.Second), f.clock.Now().Add(time.Hour)
		bad := input{"type": "recurring", "cron": "not cron"}
		for _, c := range []struct {
			name    string
			body    string // JSON, or the change to the smallest body
			change  input
			status  int
			code    string
			message string // part of it
		}{
			{name: "no body", body: ``, status: 422, code: "validation_error", message: "body: Field required"},
			{name: "null", body: `null`, status: 422, code: "validation_error", message: "body: Field required"},
			{name: "a list", body: `[]`, status: 422, code: "validation_error", message: "body: Input should be a valid dictionary"},
			{name: "broken JSON", body: `{"name":`, status: 400, code: "invalid_json"},
			{name: "lone surrogate", body: `{"name":"x","transport":"worker","cron":"* * * * *","payload":{"a":"\ud800"}}`, status: 400, code: "invalid_json"},
			{name: "NaN", body: `{"name":"x","transport":"worker","cron":"* * * * *","payload":{"a":NaN}}`, status: 400, code: "invalid_json"},
			{name: "no name", body: `{"transport":"worker","cron":"* * * * *"}`, status: 422, code: "validation_error", message: "body.name: Field required"},
			{name: "no schedule", body: `{"name":"x","transport":"worker"}`, status: 422, code: "validation_error", message: "body.schedule: Field required"},
			{name: "flat cron and at", body: `{"name":"x","worker":true,"cron":"* * * * *","at":"2030-01-01T00:00:00Z"}`, status: 422, code: "validation_error", message: "cron or at"},
			{name: "long name", change: input{"name": strings.Repeat("n", 256)}, status: 422, code: "validation_error", message: "body.name: String should have at most 255 characters"},
			{name: "NUL in the name", change: input{"name": "a\x00b"}, status: 422, code: "validation_error", message: "body.name"},
			{name: "escape in the name", change: input{"name": "a\x1b[2Jb"}, status: 422, code: "validation_error", message: "body.name: String should be one line of plain text"},
			{name: "two lines in the name", change: input{"name": "a\nb"}, status: 422, code: "validation_error", message: "body.name: String should be one line of plain text"},
			{name: "NUL in the description", change: input{"description": "\x00"}, status: 422, code: "validation_error", message: "body.description"},
			{name: "long cron", change: input{"schedule": input{"type": "recurring", "cron": strings.Repeat("1,", 60) + "1 * * * *"}}, status: 422, code: "validation_error", message: "body.schedule.cron: String should have at most 100"},
			{name: "long zone", change: input{"schedule": input{"type": "recurring", "cron": "* * * * *", "timezone": strings.Repeat("z", 51)}}, status: 422, code: "validation_error", message: "body.schedule.timezone"},
			{name: "no type", change: input{"schedule": input{"cron": "* * * * *"}}, status: 422, code: "validation_error", message: "body.schedule.type: Field required"},
			{name: "at is no time", change: input{"schedule": input{"type": "once", "at": "soon"}}, status: 422, code: "validation_error", message: "body.schedule.at"},
			{name: "method", change: input{"callback": input{"url": "https://example.com", "method": "DELETE"}}, status: 422, code: "validation_error", message: "body.callback.method: Input should be 'POST', 'GET', 'PUT' or 'PATCH'"},
			{name: "URL", change: input{"callback": input{"url": "example.com"}}, status: 422, code: "validation_error", message: "body.callback.url"},
			{name: "attempts", change: input{"retry": input{"max_attempts": 11}}, status: 422, code: "validation_error", message: "body.retry.max_attempts: Input should be less than or equal to 10"},
			{name: "negative backoff", change: input{"retry": input{"backoff_minutes": []int{1, -5}}}, status: 422, code: "validation_error", message: "body.retry.backoff_minutes.1"},
			{name: "verification", change: input{"verification": input{"mode": "trust"}}, status: 422, code: "validation_error", message: "body.verification.mode"},
			{name: "payload is a list", change: input{"payload": []int{1}}, status: 422, code: "validation_error", message: "body.payload: Input should be a valid dictionary"},

			{name: "transport inside callback", change: input{"callback": input{"transport": "worker"}}, status: 422, code: "validation_error", message: "transport must be specified at the top level, not inside callback"},
			{name: "unknown transport", change: input{"transport": "pigeon"}, status: 422, code: "validation_error", message: "body: Value error, transport must be 'webhook' or 'worker'"},
			{name: "webhook without URL", change: input{"transport": "webhook"}, status: 422, code: "validation_error", message: "callback.url is required for webhook transport"},
			{name: "webhook by default, without URL", body: `{"name":"x","cron":"* * * * *"}`, status: 422, code: "validation_error", message: "callback.url is required for webhook transport"},

			{name: "1: name, before all others", change: input{"name": "taken", "schedule": bad}, status: 409, code: "duplicate_cue_name", message: "A cue named 'taken' already exists"},
			{name: "3: plain http", change: input{"callback": input{"url": "http://example.com/"}, "schedule": bad}, status: 400, code: "invalid_callback_url", message: "URL must use https:// in production"},
			{name: "3: credentials", change: input{"callback": input{"url": "https://a:b@example.com/"}}, status: 400, code: "invalid_callback_url", message: "Credentials in callback URLs are not allowed"},
			{name: "3: metadata host", change: input{"callback": input{"url": "https://Metadata.Google.Internal/x"}}, status: 400, code: "invalid_callback_url", message: "Blocked hostname: metadata.google.internal"},
			{name: "3: a webhook to this machine", change: input{"transport": "webhook", "callback": input{"url": "https://127.0.0.1/"}, "schedule": bad}, status: 400, code: "invalid_callback_url", message: "127.0.0.1 is this machine itself (127.0.0.0/8); only public addresses are called. To allow it, whoever runs this server adds 127.0.0.1/32 to UNSTUCK_ALLOW_CALLBACKS."},
			{name: "3: a webhook to localhost", change: input{"transport": "webhook", "callback": input{"url": "https://LOCALHOST/"}}, status: 400, code: "invalid_callback_url", message: "Blocked hostname: localhost"},
			{name: "3: a webhook to a private network", change: input{"transport": "webhook", "callback": input{"url": "https://[::ffff:10.0.0.1]/"}}, status: 400, code: "invalid_callback_url", message: "UNSTUCK_ALLOW_CALLBACKS"},
			{name: "3: a webhook to nowhere", change: input{"transport": "webhook", "callback": input{"url": "https://nowhere.invalid/"}}, status: 400, code: "invalid_callback_url", message: "Cannot resolve hostname: nowhere.invalid"},
			{name: "4: NUL in the payload", change: input{"payload": input{"deep": []any{input{"key\x00": 1}}}, "schedule": bad}, status: 400, code: "invalid_payload", message: "Payload contains null bytes which are not supported"},
			{name: "6: zone, before cron", change: input{"schedule": input{"type": "recurring", "cron": "not cron", "timezone": "Mars/Olympus"}}, status: 422, code: "invalid_timezone", message: "Unknown timezone: 'Mars/Olympus'"},
			{name: "6: the machine's zone", change: input{"schedule": input{"type": "recurring", "cron": "* * * * *", "timezone": "Local"}}, status: 422, code: "invalid_timezone"},
			{name: "7: no cron", change: input{"schedule": input{"type": "recurring"}}, status: 400, code: "invalid_schedule", message: "Cron expression is required for recurring schedules"},
			{name: "7: bad cron", change: input{"schedule": bad}, status: 400, code: "invalid_schedule", message: "Invalid cron expression"},
			{name: "7: impossible cron", change: input{"schedule": input{"type": "recurring", "cron": "0 0 30 2 *"}}, status: 400, code: "invalid_schedule", message: "Invalid cron expression"},
			{name: "7: cron of past years", change: input{"schedule": input{"type": "recurring", "cron": "0 0 1 1 * 0 2020"}}, status: 400, code: "invalid_schedule", message: "Invalid cron expression"},
			{name: "8: no at", change: input{"schedule": input{"type": "once"}}, status: 400, code: "invalid_schedule", message: "Timestamp is required for one-time schedules"},
			{name: "8: past", change: input{"schedule": onceAt(past)}, status: 400, code: "invalid_schedule", message: "Scheduled time must be in the future"},
			{name: "8: now", change: input{"schedule": onceAt(f.clock.Now())}, status: 400, code: "invalid_schedule", message: "Scheduled time must be in the future"},
			{name: "9: type", change: input{"schedule": input{"type": "sometimes", "at": future}}, status: 400, code: "invalid_schedule", message: "Schedule type must be 'once' or 'recurring'"},

			{name: "header name", change: input{"callback": input{"headers": input{"a b": "c"}}}, status: 422, code: "validation_error", message: "body.callback.headers.a b"},
			{name: "header value", change: input{"callback": input{"headers": input{"X-A": "c\r\nX-B: d"}}}, status: 422, code: "validation_error", message: "body.callback.headers.X-A"},
			{name: "our header", change: input{"callback": input{"headers": input{"x-CueAPI-Signature": "v1=0"}}}, status: 422, code: "validation_error", message: "set by the server"},
			{name: "our header, as CGI reads it", change: input{"callback": input{"headers": input{"Webhook_ID": "v1=0"}}}, status: 422, code: "validation_error", message: "set by the server"},
			{name: "masked header", change: input{"callback": input{"headers": input{"Authorization": "***"}}}, status: 422, code: "validation_error", message: "keeps a stored value"},

			{name: "catch-up", change: input{"catch_up": "sometimes"}, status: 422, code: "validation_error", message: "body.catch_up: Input should be 'run_once_if_missed', 'skip_missed', 'replay_all_missed' or 'replay_all'"},
			{name: "failure webhook", change: input{"on_failure": input{"webhook": "https://10.0.0.1/"}}, status: 400, code: "invalid_callback_url", message: "on_failure.webhook: 10.0.0.1 is a private network"},
			{name: "delivery of a worker's cue", change: input{"delivery": input{"timeout_seconds": 5}}, status: 422, code: "validation_error", message: "workers pull the executions of this cue"},
			{name: "no time", change: input{"delivery": input{"timeout_seconds": 0}}, status: 422, code: "validation_error", message: "body.delivery.timeout_seconds"},
			{name: "too much time", change: input{"delivery": input{"outcome_deadline_seconds": 3601}}, status: 422, code: "validation_error", message: "body.delivery.outcome_deadline_seconds"},
			{name: "a deadline that nothing waits for", change: input{"transport": "webhook", "callback": input{"url": "https://203.0.113.1/"}, "delivery": input{"outcome_deadline_seconds": 60, "outcome_by": "status"}}, status: 422, code: "validation_error", message: "a deadline goes with outcome_by report"},
			{name: "no failures", change: input{"alerts": input{"consecutive_failures": 0}}, status: 422, code: "validation_error", message: "consecutive_failures"},
			{name: "too many misses", change: input{"alerts": input{"missed_window_multiplier": 11}}, status: 422, code: "validation_error", message: "missed_window_multiplier"},
			{name: "chain", change: input{"on_success_fire": "cue_abcdefghijkl"}, status: 422, code: "validation_error", message: "there is no cue \"cue_abcdefghijkl\" that this key can see"},
			{name: "keys", change: input{"required_payload_keys": []string{""}}, status: 422, code: "validation_error", message: "a name has from 1 to 255 bytes"},
		} {
			body := c.body
			if c.change != nil {
				body = string(op.Marshal(newCue("x", c.change)))
			}
			r := f.send(f.admin, "cue.create", nil, body)
			if r.Err == nil || r.Err.Code.Status != c.status || r.Err.Code.Name != c.code || !strings.Contains(r.Err.Message, c.message) {
				t.Errorf("%s: %v %s; want %d %s with %q", c.name, r.Err, r.Body, c.status, c.code, c.message)
			}
		}
		if n := f.number("SELECT count(*) FROM cues"); n != 1 {
			t.Errorf("%d cues after refusals, want the one that was made before", n)
		}
		if n := f.number("SELECT count(*) FROM cue_versions") + f.number("SELECT sum(value) FROM counters WHERE name LIKE 'cues:%'"); n != 2 {
			t.Errorf("refusals left versions or counts behind")
		}
	})
}

// What a create answers, field by field and in the contract's order, in nested and flat form.
func TestCreate(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		nested := `{"name":"a","description":"what","transport":"worker","schedule":{"type":"recurring","cron":"*/5 * * * *","timezone":"europe/berlin"},
			"callback":{"url":"HTTPS://Example.COM","headers":{"X-A":"1"}},"payload":{"task":"t","n":1.0,"big":1e2,"é":"\u00e9"},
			"retry":{"max_attempts":5},"on_failure":{"email":false,"webhook":null,"pause":true},"verification":{"mode":"manual"},"unknown":1}`
		want := `{"id":"ID","name":"a","description":"what","status":"active","transport":"worker",` +
			`"schedule":{"type":"recurring","timezone":"europe/berlin","cron":"*/5 * * * *"},` +
			`"callback":{"url":"https://example.com/","method":"POST","headers":{"X-A":"***"}},` +
			`"payload":{"task":"t","n":1.0,"big":1e2,"é":"\u00e9"},"retry":{"max_attempts":5,"backoff_minutes":[1,5,15]},` +
			`"next_run":"2026-11-23T10:05:00Z","last_run":null,"run_count":0,"fired_count":0,` +
			`"on_failure":{"email":false,"webhook":null,"pause":true},"verification":{"mode":"manual"},"catch_up":"run_once_if_missed",` +
			`"warning":"No active workers found. Start a worker to process this cue.",` +
			`"created_at":"2026-11-23T10:01:40Z","updated_at":"2026-11-23T10:01:40Z","delivery":null,"alerts":null,"require_payload_override":false,"required_payload_keys":null,"on_success_fire":null,"pause_reason":null}`
		equalCue(t, f.send(f.admin, "cue.create", nil, nested), want)

		flat := `{"name":"b","at":"2026-11-23T12:00:00+01:30","callback_url":null,"worker":true,"timezone":"Asia/Tokyo","payload":{},"description":null}`
		want = `{"id":"ID","name":"b","description":null,"status":"active","transport":"worker",` +
			`"schedule":{"type":"once","timezone":"Asia/Tokyo","at":"2026-11-23T10:30:00+00:00"},` +
			`"callback":{"url":null,"method":"POST","headers":{}},"payload":{},"retry":{"max_attempts":3,"backoff_minutes":[1,5,15]},` +
			`"next_run":"2026-11-23T10:30:00Z","last_run":null,"run_count":0,"fired_count":0,` +
			`"on_failure":{"email":false,"webhook":null,"pause":false},"verification":null,"catch_up":"run_once_if_missed","warning":null,` +
			`"created_at":"2026-11-23T10:01:40Z","updated_at":"2026-11-23T10:01:40Z","delivery":null,"alerts":null,"require_payload_override":false,"required_payload_keys":null,"on_success_fire":null,"pause_reason":null}`
		f.ok(f.admin, "worker.heartbeat", input{"worker_id": "w"})
		equalCue(t, f.send(f.admin, "cue.create", nil, flat), want)

		if got := f.ok(f.admin, "cue.create", input{"name": "", "worker": true, "cron": "@daily"}); got["next_run"] != "2026-11-24T00:00:00Z" {
			t.Errorf("an empty name and a macro: %v", got)
		}
	})
}

// equalCue compares an answer with the JSON of a cue, whose id is masked.
func equalCue(t *testing.T, r *op.Response, want string) {
	t.Helper()
	var head struct {
		ID string `json:"id"`
	}
	if r.Err != nil || json.Unmarshal(r.Body, &head) != nil || r.Status != 201 {
		t.Fatalf("create: %d %v %s", r.Status, r.Err, r.Body)
	}
	if !strings.HasPrefix(head.ID, "cue_") || len(head.ID) != 16 {
		t.Errorf("id %q", head.ID)
	}
	if got := strings.Replace(string(r.Body), head.ID, "ID", 1); got != want {
		t.Errorf("create answered\n%s\nwant\n%s", got, want)
	}
}

// Exactly N of N+1 creates pass the plan's limit, and exactly as many revivals as there is room for, whatever the concurrency.
func TestCueLimit(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		const limit, callers = 40, 64
		f.sql("UPDATE workspaces SET cue_limit = ?1", limit)
		var mu sync.Mutex
		got := map[string]int{}
		var ids []string
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				r := f.send(f.admin, "cue.create", nil, string(op.Marshal(newCue(fmt.Sprint(i), nil))))
				mu.Lock()
				defer mu.Unlock()
				if r.Err != nil {
					got[r.Err.Code.Name+": "+r.Err.Message]++
					return
				}
				got["made"]++
				var made struct{ ID string }
				f.must(json.Unmarshal(r.Body, &made))
				ids = append(ids, made.ID)
			})
		}
		wg.Wait()
		if refused := got["cue_limit_exceeded: Active cue limit of 40 reached"]; got["made"] != limit || refused != callers-limit {
			t.Fatalf("%v, want %d made and %d refused", got, limit, callers-limit)
		}
		f.ok(f.admin, "cue.pause", input{"id": ids[0]})
		f.refused(f.admin, "cue.create", newCue("one more", nil), 403, "cue_limit_exceeded")
		f.ok(f.admin, "cue.delete", input{"id": ids[0]})
		soon := f.ok(f.admin, "cue.create", newCue("one more", input{"schedule": onceAt(f.clock.Now().Add(time.Second))}))["id"].(string)
		f.must(f.cues.DB.Update(t.Context(), func(tx *db.Tx) error { return f.cues.finishCue(tx, soon, true, 1, f.cues.now()) }))
		f.ok(f.admin, "cue.create", newCue("in its place", nil))
		f.refused(f.admin, "cue.resume", input{"id": soon}, 403, "cue_limit_exceeded")
	})
}

// Sixty-four callers that want one name: one gets it.
func TestNameIsTakenOnce(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		var wg sync.WaitGroup
		made := make(chan *op.Response, 64)
		for range 64 {
			wg.Go(func() { made <- f.send(f.admin, "cue.create", nil, string(op.Marshal(newCue("one", nil)))) })
		}
		wg.Wait()
		close(made)
		n := 0
		for r := range made {
			if r.Err == nil {
				n++
			} else if r.Err.Code != DuplicateCueName {
				t.Errorf("refused with %v", r.Err)
			}
		}
		if n != 1 {
			t.Errorf("%d creates of one name passed", n)
		}
	})
}
