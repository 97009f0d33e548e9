package cue

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"unstuck/internal/db"
)

// effective is the payload that a fired execution got, as it is stored.
func effective(f *fixture, id any) (payload string) {
	f.Helper()
	f.must(f.db.View(f.Context(), func(tx *db.Tx) error {
		return tx.Row("SELECT payload FROM executions WHERE id = ?1", id).Scan(&payload)
	}))
	return payload
}

// Fire makes an execution by hand, with an override of its payload whose numbers keep their text.
func TestFire(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		r := f.send(f.admin, "cue.create", nil, `{"name":"c","worker":true,"cron":"0 0 1 1 *","payload":{"task":"t","keep":1.0,"deep":{"a":1}}}`)
		id := answer(f, "cue.create", r)["id"].(string)
		fire := func(body string) map[string]any {
			t.Helper()
			return answer(f, "cue.fire", f.send(f.admin, "cue.fire", map[string]string{"id": id}, body))
		}
		for _, c := range []struct{ body, payload string }{
			{``, `{"task":"t","keep":1.0,"deep":{"a":1}}`},
			{`null`, `{"task":"t","keep":1.0,"deep":{"a":1}}`},
			{`{"whatever":true,"send_at":null}`, `{"task":"t","keep":1.0,"deep":{"a":1}}`},
			{`{"payload_override":{}}`, `{"deep":{"a":1},"keep":1.0,"task":"t"}`},
			{`{"payload_override":{"deep":{"b":1e2},"new":"<é>"}}`, `{"deep":{"b":1e2},"keep":1.0,"new":"<é>","task":"t"}`},
			{`{"payload_override":{"task":"u"},"merge_strategy":"merge"}`, `{"deep":{"a":1},"keep":1.0,"task":"u"}`},
			{`{"payload_override":{"only":1},"merge_strategy":"replace"}`, `{"only":1}`},
		} {
			got := fire(c.body)
			want := map[string]any{"cue_id": id, "status": "pending", "triggered_by": "manual_fire", "scheduled_for": "2026-11-23T10:01:40+00:00", "execution_id": got["id"]}
			holds(t, got, want)
			if p := effective(f, got["id"]); p != c.payload {
				t.Errorf("%s gives %s, want %s", c.body, p, c.payload)
			}
		}
		holds(t, f.ok(f.admin, "cue.get", input{"id": id}), map[string]any{"fired_count": 0., "next_run": "2027-01-01T00:00:00Z", "payload.task": "t", "execution_total": 7.})
		holds(t, f.ok(f.admin, "cue.ledger", input{"id": id}), map[string]any{"expected": 0., "fired": 0., "closed": true})
	})
}

// An execution for later cannot be claimed before; the past is now; two for one moment are two.
func TestFireLater(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.cue("c", "0 0 1 1 *")
		later := epoch.Add(time.Hour)
		for range 2 {
			holds(t, f.ok(f.admin, "cue.fire", input{"id": id, "send_at": later.Format("2006-01-02T15:04:05")}), map[string]any{"scheduled_for": "2026-11-23T11:01:40+00:00"})
		}
		holds(t, f.ok(f.admin, "cue.fire", input{"id": id, "send_at": "2020-01-01T00:00:00Z"}), map[string]any{"scheduled_for": "2026-11-23T10:01:40+00:00"})
		f.ok(f.admin, "execution.claim", input{"worker_id": "w"}) // the one that is due
		f.refused(f.admin, "execution.claim", input{"worker_id": "w"}, 409, "claim_failed")
		f.clock.Set(later.Add(-time.Microsecond))
		f.refused(f.admin, "execution.claim", input{"worker_id": "w"}, 409, "claim_failed")
		f.clock.Set(later)
		for range 2 {
			f.ok(f.admin, "execution.claim", input{"worker_id": "w"})
		}
	})
}

func TestFireRefuses(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.cue("c", "0 0 1 1 *")
		for _, c := range []struct {
			args   input
			status int
			code   string
		}{
			{input{"payload_override": []int{1}}, 422, "validation_error"},
			{input{"payload_override": "x"}, 422, "validation_error"},
			{input{"payload_override": input{"a": "\x00"}}, 400, "invalid_payload"},
			{input{"merge_strategy": "deep"}, 422, "validation_error"},
			{input{"send_at": "soon"}, 422, "validation_error"},
			{input{"idempotency_key": ""}, 422, "validation_error"},
			{input{"idempotency_key": strings.Repeat("k", 257)}, 422, "validation_error"},
			{input{"exit_criteria": make([]string, 21)}, 422, "validation_error"},
			{input{"exit_criteria": []string{"\x00"}}, 422, "validation_error"},
			{input{"exit_criteria": []string{strings.Repeat("a", 8<<10)}}, 422, "validation_error"},
			{input{"exit_criteria": "a"}, 422, "validation_error"},
		} {
			c.args["id"] = id
			f.refused(f.admin, "cue.fire", c.args, c.status, c.code)
		}
		if n := f.number("SELECT count(*) FROM executions") + f.number("SELECT coalesce(sum(value), 0) FROM counters WHERE name LIKE 'executions%'"); n != 0 {
			t.Errorf("refused fires left %d executions and counts", n)
		}
		// Any status will do.
		f.ok(f.admin, "cue.pause", input{"id": id})
		f.ok(f.admin, "cue.fire", input{"id": id})
	})
}

// A fire with an idempotency key is made once in 24 hours, whoever repeats it; another body under the key is refused, and what the
// cue asks of fires does not touch a repetition.
func TestFireIdempotently(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id, other := f.cue("c", "0 0 1 1 *"), f.cue("d", "0 0 1 1 *")
		body := func(change input) input {
			args := input{"id": id, "idempotency_key": "order-1", "payload_override": input{"a": 1, "b": input{"c": 2, "d": 3}}, "exit_criteria": []any{input{"x": 1, "y": 2}}}
			for k, v := range change {
				args[k] = v
			}
			return args
		}
		first := f.ok(f.admin, "cue.fire", body(nil))
		holds(t, first, map[string]any{"repeated": false, "status": "pending"})

		f.ok(f.admin, "cue.update", input{"id": id, "required_payload_keys": []string{"c"}})
		f.ok(f.admin, "execution.claim", input{"worker_id": "w"})
		f.clock.Advance(24*time.Hour - time.Microsecond)
		again := answer(f, "cue.fire", f.send(f.key("full", nil), "cue.fire", map[string]string{"id": "c"},
			`{"idempotency_key":"order-1", "exit_criteria":[{"y":2,"\u0078":1}], "payload_override": {"b":{"d":3,"c":2},"a":1}, "merge_strategy":"merge", "whatever": true}`))
		holds(t, again, map[string]any{"id": first["id"], "repeated": true, "status": "delivering", "scheduled_for": first["scheduled_for"]})

		for _, change := range []input{
			{"payload_override": input{"a": 1}}, {"merge_strategy": "replace"}, {"send_at": "2027-01-01T00:00:00Z"}, {"payload_override": nil},
		} {
			e := f.refused(f.admin, "cue.fire", body(change), 409, "idempotency_key_conflict")
			if !strings.Contains(e.Message, first["id"].(string)) {
				t.Errorf("the refusal does not name the execution: %s", e.Message)
			}
		}
		if n := f.number("SELECT value FROM counters WHERE name = 'executions'"); n != 1 {
			t.Errorf("%d executions count, want 1", n)
		}
		holds(t, f.ok(f.admin, "cue.fire", body(input{"id": other})), map[string]any{"repeated": false}) // keys belong to a cue

		f.clock.Advance(time.Microsecond)
		f.ok(f.admin, "cue.update", input{"id": id, "required_payload_keys": []string{}})
		holds(t, f.ok(f.admin, "cue.fire", body(input{"payload_override": input{"a": 3}})), map[string]any{"repeated": false})
		holds(t, f.ok(f.admin, "cue.fire", body(input{"payload_override": input{"a": 3}})), map[string]any{"repeated": true})
	})
}

// Callers that fire with one idempotency key at the same time get one execution.
func TestFireIdempotentlyAtOnce(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.cue("c", "0 0 1 1 *")
		ids := make([]string, 8)
		var all sync.WaitGroup
		for i := range ids {
			all.Go(func() {
				r := f.call(f.admin, "cue.fire", input{"id": id, "idempotency_key": "k"})
				var out struct{ ID string }
				if r.Err != nil || json.Unmarshal(r.Body, &out) != nil {
					t.Errorf("fire: %v %s", r.Err, r.Body)
				}
				ids[i] = out.ID
			})
		}
		all.Wait()
		slices.Sort(ids)
		if n := len(slices.Compact(ids)); n != 1 || f.number("SELECT count(*) FROM executions") != 1 {
			t.Errorf("%d executions, want 1", n)
		}
	})
}

// A cue says what a fire by hand must bring. The schedule fires its own payload all the same.
func TestFireNeeds(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.ok(f.admin, "cue.create", input{
			"name": "c", "worker": true, "cron": "* * * * *", "payload": input{"own": 1}, "require_payload_override": true, "required_payload_keys": []string{"own", "to", "a \"b\""},
		})
		holds(t, f.ok(f.admin, "cue.get", input{"id": "c"}), map[string]any{"require_payload_override": true, "required_payload_keys.1": "to"})
		f.refused(f.admin, "cue.fire", input{"id": "c"}, 400, "payload_override_required")
		e := f.refused(f.admin, "cue.fire", input{"id": "c", "payload_override": input{"x": 1}}, 400, "missing_required_payload_keys")
		if e.Message != `The payload lacks "to", "a \"b\"", which this cue asks for.` {
			t.Error(e.Message)
		}
		f.refused(f.admin, "cue.fire", input{"id": "c", "payload_override": input{"to": 1, `a "b"`: 1}, "merge_strategy": "replace"}, 400, "missing_required_payload_keys")
		f.ok(f.admin, "cue.fire", input{"id": "c", "payload_override": input{"to": nil, `a "b"`: 1}})
		f.clock.Advance(time.Minute)
		f.settle()
		holds(t, f.ok(f.admin, "cue.get", input{"id": "c"}), map[string]any{"fired_count": 1., "executions.0.triggered_by": "scheduled"})
		holds(t, f.ok(f.admin, "cue.ledger", input{"id": "c"}), map[string]any{"cue_id": at(t, f.ok(f.admin, "cue.get", input{"id": "c"}), "id"), "expected": 1., "fired": 1., "beside.manual_fire": 1.})

		f.ok(f.admin, "cue.update", input{"id": "c", "require_payload_override": false, "required_payload_keys": []string{}})
		holds(t, f.ok(f.admin, "cue.update", input{"id": "c", "require_payload_override": nil, "required_payload_keys": nil}), map[string]any{"require_payload_override": false, "required_payload_keys": nil})
		f.ok(f.admin, "cue.fire", input{"id": "c"})
	})
}
