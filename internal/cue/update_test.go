package cue

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"unstuck/internal/db"
)

// at reads a dotted place in an answer; a number is an entry of a list.
func at(t *testing.T, answer map[string]any, place string) any {
	t.Helper()
	var v any = answer
	for _, key := range strings.Split(place, ".") {
		if list, ok := v.([]any); ok {
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(list) {
				t.Fatalf("no %s in %v", place, answer)
			}
			v = list[i]
			continue
		}
		m, ok := v.(map[string]any)
		if !ok {
			t.Fatalf("no %s in %v", place, answer)
		}
		v = m[key]
	}
	return v
}

func holds(t *testing.T, answer map[string]any, want map[string]any) {
	t.Helper()
	for place, v := range want {
		if got := at(t, answer, place); !reflect.DeepEqual(got, v) {
			t.Errorf("%s is %#v, want %#v", place, got, v)
		}
	}
}

// What a PATCH does to every field (CueAPI wire contract 2.3, with the deviations of section 12).
func TestUpdate(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		full := input{
			"name": "full", "description": "d", "transport": "worker",
			"schedule": input{"type": "recurring", "cron": "0 9 * * *", "timezone": "Europe/Berlin"},
			"callback": input{"url": "https://example.com/a", "method": "PUT", "headers": input{"Authorization": "s3cret", "X-A": "1"}},
			"payload":  input{"task": "t"}, "retry": input{"max_attempts": 5, "backoff_minutes": []int{2}},
			"on_failure": input{"pause": true}, "verification": input{"mode": "manual"},
		}
		for _, c := range []struct {
			name  string
			patch input
			want  map[string]any
		}{
			{"nothing", input{}, map[string]any{"name": "full", "updated_at": "2026-11-23T10:01:41Z"}},
			{"nulls count as absent", input{"name": nil, "description": nil, "schedule": nil, "callback": nil, "payload": nil, "retry": nil, "on_failure": nil, "verification": nil, "status": nil, "catch_up": nil},
				map[string]any{"name": "full", "description": "d", "status": "active", "schedule.cron": "0 9 * * *", "callback.method": "PUT", "payload.task": "t", "retry.max_attempts": 5., "verification.mode": "manual"}},
			{"name", input{"name": "other"}, map[string]any{"name": "other", "description": "d"}},
			{"its own name", input{"name": "full"}, map[string]any{"name": "full"}},
			{"cron without zone keeps it", input{"schedule": input{"type": "recurring", "cron": "30 9 * * *"}},
				map[string]any{"schedule.cron": "30 9 * * *", "schedule.timezone": "Europe/Berlin", "next_run": "2026-11-24T08:30:00Z"}},
			{"zone", input{"schedule": input{"type": "recurring", "cron": "0 9 * * *", "timezone": "America/New_York"}},
				map[string]any{"schedule.timezone": "America/New_York", "next_run": "2026-11-23T14:00:00Z"}},
			{"once clears cron", input{"schedule": input{"type": "once", "at": "2026-12-01T00:00:00Z"}},
				map[string]any{"schedule.type": "once", "schedule.cron": nil, "schedule.at": "2026-12-01T00:00:00+00:00", "schedule.timezone": "Europe/Berlin", "next_run": "2026-12-01T00:00:00Z"}},
			{"URL keeps method and headers", input{"callback": input{"url": "https://example.com/b"}},
				map[string]any{"callback.url": "https://example.com/b", "callback.method": "PUT", "callback.headers": map[string]any{"Authorization": "***", "X-A": "***"}}},
			{"headers replace, *** keeps", input{"callback": input{"headers": input{"authorization": "***", "X-B": "2"}}},
				map[string]any{"callback.url": "https://example.com/a", "callback.headers": map[string]any{"authorization": "***", "X-B": "***"}}},
			{"payload replaces", input{"payload": input{"x": 1}}, map[string]any{"payload": map[string]any{"x": 1.}}},
			{"retry takes defaults", input{"retry": input{"backoff_minutes": []int{}}}, map[string]any{"retry.max_attempts": 3., "retry.backoff_minutes": []any{}}},
			{"on_failure takes defaults", input{"on_failure": input{}}, map[string]any{"on_failure.pause": false}},
			{"verification", input{"verification": input{}}, map[string]any{"verification.mode": "none"}},
			{"catch-up", input{"catch_up": "run_once_if_missed"}, map[string]any{"catch_up": "run_once_if_missed"}},
			{"pause", input{"status": "paused"}, map[string]any{"status": "paused", "next_run": nil}},
			{"schedule and pause", input{"status": "paused", "schedule": input{"type": "recurring", "cron": "* * * * *"}},
				map[string]any{"status": "paused", "next_run": nil, "schedule.cron": "* * * * *"}},
		} {
			t.Run(c.name, func(t *testing.T) {
				id := f.ok(f.admin, "cue.create", full)["id"]
				f.clock.Advance(time.Second)
				c.patch["id"] = id
				holds(t, f.ok(f.admin, "cue.update", c.patch), c.want)
				holds(t, f.ok(f.admin, "cue.get", input{"id": id}), c.want)
				f.ok(f.admin, "cue.delete", input{"id": id})
				f.clock.Set(epoch)
			})
		}
	})
}

func TestUpdateRefuses(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.ok(f.admin, "cue.create", newCue("other", nil))
		id := f.ok(f.admin, "cue.create", newCue("mine", nil))["id"]
		before := f.ok(f.admin, "cue.get", input{"id": id})
		for _, c := range []struct {
			patch   input
			status  int
			code    string
			message string
		}{
			{input{"name": "other"}, 409, "duplicate_cue_name", "A cue named 'other' already exists"},
			{input{"name": strings.Repeat("x", 256)}, 422, "validation_error", "body.name"},
			{input{"name": "\x00"}, 422, "validation_error", "body.name"},
			{input{"status": "completed"}, 422, "validation_error", "body.status: Value error, status must be 'active' or 'paused'"},
			{input{"transport": "worker"}, 422, "validation_error", "body.transport: Extra inputs are not permitted"},
			{input{"delivery": input{}}, 422, "validation_error", "workers pull the executions of this cue"},
			{input{"schedule": input{"type": "recurring", "cron": "* * * * *", "tz": "UTC"}}, 422, "validation_error", "body.schedule.tz: Extra inputs are not permitted"},
			{input{"schedule": input{"cron": "* * * * *"}}, 422, "validation_error", "body.schedule.type: Field required"},
			{input{"schedule": input{"type": "sometimes"}}, 400, "invalid_schedule", "Schedule type must be"},
			{input{"schedule": input{"type": "recurring", "cron": "0 0 31 2 *"}}, 400, "invalid_schedule", "Invalid cron expression"},
			{input{"schedule": input{"type": "once", "at": "2020-01-01"}}, 400, "invalid_schedule", "must be in the future"},
			{input{"schedule": input{"type": "recurring", "cron": "* * * * *", "timezone": "Nowhere"}}, 422, "invalid_timezone", "Unknown timezone: 'Nowhere'"},
			{input{"callback": input{"url": "https://a@example.com"}}, 400, "invalid_callback_url", "Credentials"},
			{input{"callback": input{"method": "DELETE"}}, 422, "validation_error", "body.callback.method"},
			{input{"callback": input{"headers": input{"X-New": "***"}}}, 422, "validation_error", "keeps a stored value"},
			{input{"payload": input{"a": "\x00"}}, 400, "invalid_payload", "null bytes"},
			{input{"catch_up": "replay_some"}, 422, "validation_error", "body.catch_up"},
			// Order: callback, payload, schedule; and one fault undoes all.
			{input{"name": "fine", "payload": input{"a": "\x00"}, "schedule": input{"type": "x"}}, 400, "invalid_payload", ""},
			{input{"callback": input{"url": "http://example.com"}, "payload": input{"a": "\x00"}}, 400, "invalid_callback_url", ""},
		} {
			c.patch["id"] = id
			if e := f.refused(f.admin, "cue.update", c.patch, c.status, c.code); !strings.Contains(e.Message, c.message) {
				t.Errorf("%v: %q, want %q in it", c.patch, e.Message, c.message)
			}
		}
		if after := f.ok(f.admin, "cue.get", input{"id": id}); !reflect.DeepEqual(before, after) {
			t.Errorf("refusals changed the cue from %v to %v", before, after)
		}
		for _, id := range []string{"cue_000000000000", "", "../etc", "cue_\u00e9", strings.Repeat("x", 5000)} {
			for _, call := range []string{"cue.get", "cue.update", "cue.delete", "cue.fire", "cue.pause", "cue.resume", "cue.ledger"} {
				f.refused(f.admin, call, input{"id": id}, 404, "cue_not_found")
			}
		}
	})
}

// Values of callback headers are secrets: every key reads ***, what was read can be sent back, and no value follows a cue to another
// host.
func TestHeadersAreMasked(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		made := f.ok(f.admin, "cue.create", newCue("c", input{"callback": input{"headers": input{"Authorization": "s3cret"}}}))
		id, reader := made["id"], f.key("read-only", nil)
		for _, answer := range []map[string]any{
			made,
			f.ok(f.admin, "cue.get", input{"id": id}),
			f.ok(reader, "cue.get", input{"id": id}),
			f.ok(reader, "cue.list", nil)["cues"].([]any)[0].(map[string]any),
			f.ok(f.admin, "cue.update", input{"id": id, "callback": made["callback"]}),
		} {
			holds(t, answer, map[string]any{"callback.headers": map[string]any{"Authorization": "***"}})
		}
		stored := func() (callback string) {
			f.must(f.db.View(t.Context(), func(tx *db.Tx) error { return tx.Row("SELECT callback FROM cues").Scan(&callback) }))
			return callback
		}
		if s := stored(); !strings.Contains(s, "s3cret") {
			t.Errorf("a masked value was stored: %s", s)
		}
		for _, callback := range []input{
			{"url": "https://other.example.com/"}, {"url": "https://other.example.com/", "headers": input{"authorization": "***"}},
		} {
			f.refused(f.admin, "cue.update", input{"id": id, "callback": callback}, 422, "validation_error")
		}
		f.ok(f.admin, "cue.update", input{"id": id, "callback": input{"url": "https://other.example.com/", "headers": input{"authorization": "new"}}})
		if s := stored(); strings.Contains(s, "s3cret") {
			t.Errorf("a value went to another host: %s", s)
		}
	})
}

// A pause skips its due times, a resume goes on with the next one; a one-time cue whose time is over fires at once, unless its
// execution is under way.
func TestPauseAndResume(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.cue("often", "*/5 * * * *")
		holds(t, f.ok(f.admin, "cue.pause", input{"id": id}), map[string]any{"status": "paused", "next_run": nil})
		f.clock.Advance(time.Hour)
		f.settle()
		holds(t, f.ok(f.admin, "cue.resume", input{"id": id}), map[string]any{"status": "active", "next_run": "2026-11-23T11:05:00Z"})
		holds(t, f.ok(f.admin, "cue.ledger", input{"id": id}), map[string]any{"skipped": 12., "expected": 12., "closed": true})

		soon := f.ok(f.admin, "cue.create", newCue("once", input{"schedule": onceAt(f.clock.Now().Add(time.Minute))}))["id"]
		f.ok(f.admin, "cue.update", input{"id": soon, "status": "paused"})
		f.clock.Advance(time.Hour)
		f.settle()
		now := f.clock.Now().Add(time.Microsecond).Format("2006-01-02T15:04:05.000000Z")
		holds(t, f.ok(f.admin, "cue.update", input{"id": soon, "status": "active"}), map[string]any{"next_run": now})
		f.clock.Advance(time.Microsecond)
		f.settle()
		shown := f.ok(f.admin, "cue.get", input{"id": soon})
		holds(t, shown, map[string]any{"status": "active", "next_run": nil, "execution_total": 1., "fired_count": 1.})
		f.ok(f.admin, "cue.pause", input{"id": soon})
		f.ok(f.admin, "cue.resume", input{"id": soon}) // its execution is under way
		f.settle()
		holds(t, f.ok(f.admin, "cue.get", input{"id": soon}), map[string]any{"status": "active", "next_run": nil, "execution_total": 1.})
		holds(t, f.ok(f.admin, "cue.ledger", input{"id": soon}), map[string]any{"expected": 2., "skipped": 1., "fired": 1., "closed": true})

		execution := shown["executions"].([]any)[0].(map[string]any)["id"]
		f.ok(f.admin, "execution.report", input{"id": execution, "success": true})
		holds(t, f.ok(f.admin, "cue.get", input{"id": soon}), map[string]any{"status": "completed", "next_run": nil, "run_count": 1.})
		f.ok(f.admin, "cue.resume", input{"id": soon}) // over, and asked to live again: it fires again
		f.clock.Advance(time.Microsecond)
		f.settle()
		holds(t, f.ok(f.admin, "cue.get", input{"id": soon}), map[string]any{"status": "active", "fired_count": 2.})
		holds(t, f.ok(f.admin, "cue.ledger", input{"id": soon}), map[string]any{"expected": 3., "skipped": 1., "fired": 2., "closed": true})
	})
}

// The names of operations in the audit log, and what it keeps of a change: no payload, no header.
func TestChangesAreAudited(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.ok(f.admin, "cue.create", newCue("c", input{"payload": input{"p": "hidden"}}))["id"]
		f.ok(f.admin, "cue.update", input{"id": id, "status": "paused", "payload": input{"p": "hidden"}, "callback": input{"headers": input{"X-A": "hidden"}}})
		f.ok(f.admin, "cue.fire", input{"id": id, "payload_override": input{"p": "hidden"}})
		f.ok(f.admin, "cue.delete", input{"id": id})
		r := f.call(f.admin, "audit.list", input{"object_id": id})
		if strings.Contains(string(r.Body), "hidden") {
			t.Errorf("the audit log keeps payloads or headers: %s", r.Body)
		}
		var log struct {
			Rows []struct {
				Operation string          `json:"operation"`
				ObjectID  string          `json:"object_id"`
				Detail    json.RawMessage `json:"detail"`
			} `json:"audit"`
		}
		f.must(json.Unmarshal(r.Body, &log))
		var got []string
		for _, row := range log.Rows {
			if row.ObjectID == id {
				got = append(got, row.Operation)
			}
			if row.Operation == "cue.update" && string(row.Detail) != `{"fields":["status","callback","payload"],"status":["active","paused"]}` {
				t.Errorf("update kept %s", row.Detail)
			}
		}
		if want := []string{"cue.delete", "cue.fire", "cue.update", "cue.create"}; !reflect.DeepEqual(got, want) {
			t.Errorf("audited %v, want %v: %s", got, want, r.Body)
		}
	})
}
