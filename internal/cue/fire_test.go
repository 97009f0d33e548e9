package cue

import (
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
			{input{"idempotency_key": "k"}, 422, "validation_error"},
			{input{"exit_criteria": []string{"a"}}, 422, "validation_error"},
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
