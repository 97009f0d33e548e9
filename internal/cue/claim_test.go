package cue

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// fire fires a cue by hand and returns the execution's id.
func (f *fixture) fire(cue string, args input) string {
	f.Helper()
	all := input{"id": cue}
	for k, v := range args {
		all[k] = v
	}
	return f.ok(f.admin, "cue.fire", all)["id"].(string)
}

// claim takes one execution by the contract's call and returns the answer.
func (f *fixture) claim(key, worker string) map[string]any {
	f.Helper()
	return f.ok(key, "execution.claim", input{"worker_id": worker})
}

// get is an execution as a key sees it.
func (f *fixture) get(key, id string) map[string]any {
	f.Helper()
	return f.ok(key, "execution.get", input{"id": id})
}

func TestFireClaimReport(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		cue := f.cue("hello", "0 0 1 1 *")
		worker := f.key("worker", nil)
		id := f.fire(cue, input{"payload_override": map[string]any{"task": "greet", "n": 1}})
		got := f.claim(worker, "laptop")
		for name, want := range map[string]any{
			"claimed": true, "execution_id": id, "lease_seconds": 900.0, "cue_id": cue, "cue_name": "hello", "task": "greet",
			"scheduled_for": "2026-11-23T10:01:40Z", "attempt": 1.0, "lease_until": "2026-11-23T10:16:40Z",
		} {
			if got[name] != want {
				t.Errorf("%s: %v, want %v", name, got[name], want)
			}
		}
		f.clock.Advance(time.Minute)
		out := f.ok(worker, "execution.report", input{"id": id, "success": true, "lease_token": got["lease_token"], "summary": "said hello"})
		if out["outcome_state"] != "reported_success" || out["outcome_recorded"] != true || out["execution_id"] != id {
			t.Errorf("report: %v", out)
		}
		e := f.get(worker, id)
		if e["status"] != "success" || e["delivered_at"] != "2026-11-23T10:02:40Z" || e["unfenced"] != false {
			t.Errorf("execution: %v", e)
		}
		check := f.ok(worker, "execution.check_evidence", input{"id": id})
		if check["ok"] != true || check["fault"] != nil {
			t.Errorf("check: %v", check)
		}
	})
}

// One execution, three ways to ask for it; whoever comes second gets the same refusal for every reason.
func TestClaimIsRefused(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker, other := f.key("worker", nil), f.otherWorkspace()
		one := func(id string) input { return input{"id": id, "worker_id": "w"} }
		f.refused(worker, "execution.claim", input{"worker_id": "w"}, 409, "claim_failed")
		if got := f.ok(worker, "execution.claim", input{"worker_id": "w", "max": 5}); len(got) != 1 || len(got["executions"].([]any)) != 0 {
			t.Errorf("a list of nothing: %v", got)
		}
		id := f.fire(f.cue("c", "0 0 1 1 *"), nil)
		f.refused(worker, "execution.claim_one", one(newUUID(0)), 409, "claim_failed")
		f.refused(worker, "execution.claim_one", one("no uuid"), 409, "claim_failed")
		f.refused(other, "execution.claim_one", one(id), 409, "claim_failed")
		f.refused(other, "execution.claim", input{"worker_id": "w"}, 409, "claim_failed")
		f.ok(worker, "execution.claim_one", one(id))
		f.refused(worker, "execution.claim_one", one(id), 409, "claim_failed") // also for the one who holds it
		f.ok(worker, "execution.report", input{"id": id, "success": true})
		f.refused(worker, "execution.claim_one", one(id), 409, "claim_failed")
	})
}

func TestClaimInputs(t *testing.T) {
	f := onSQLite(t) // the schema is checked before any database is asked
	worker := f.key("worker", nil)
	for _, c := range []struct {
		args  input
		field string
	}{
		{input{}, "body"},
		{input{"max": 1}, "body.worker_id"},
		{input{"worker_id": ""}, "body.worker_id"},
		{input{"worker_id": strings.Repeat("w", 256)}, "body.worker_id"},
		{input{"worker_id": "w\x00"}, "body.worker_id"},
		{input{"worker_id": "w", "max": 0}, "body.max"},
		{input{"worker_id": "w", "max": 101}, "body.max"},
		{input{"worker_id": "w", "wait": 31}, "body.wait"},
		{input{"worker_id": "w", "wait": -1}, "body.wait"},
		{input{"worker_id": "w", "request_id": strings.Repeat("r", 256)}, "body.request_id"},
	} {
		err := f.refused(worker, "execution.claim", c.args, 422, "validation_error")
		if err.Details[0].Field != c.field {
			t.Errorf("%v: %v", c.args, err)
		}
	}
	f.refused(worker, "execution.claim", input{"worker_id": strings.Repeat("é", 255), "unknown": 1}, 409, "claim_failed") // open body
}

// Nothing is claimable before scheduled_for, to the microsecond.
func TestClaimNeverEarly(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		at := f.clock.Now().Add(time.Hour)
		id := f.fire(f.cue("later", "0 0 1 1 *"), input{"send_at": at.Format(time.RFC3339Nano)})
		f.clock.Set(at.Add(-time.Microsecond))
		f.refused(worker, "execution.claim", input{"worker_id": "w"}, 409, "claim_failed")
		f.refused(worker, "execution.claim_one", input{"id": id, "worker_id": "w"}, 409, "claim_failed")
		if n := len(f.claimable(worker, nil)); n != 0 {
			t.Errorf("%d claimable before their time", n)
		}
		f.clock.Set(at)
		if n := len(f.claimable(worker, nil)); n != 1 {
			t.Errorf("%d claimable at their time", n)
		}
		if got := f.claim(worker, "w"); got["execution_id"] != id {
			t.Errorf("claimed %v", got)
		}
	})
}

// The oldest comes first, whatever the order in which executions were made; a batch takes them in the same order.
func TestClaimOldestFirst(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker, cue := f.key("worker", nil), f.cue("c", "0 0 1 1 *")
		start := f.clock.Now()
		ids := make([]string, 6)
		for _, i := range []int{3, 0, 5, 1, 4, 2} {
			ids[i] = f.fire(cue, input{"send_at": start.Add(time.Duration(i+1) * time.Second).Format(time.RFC3339)})
		}
		f.clock.Advance(time.Minute)
		if got := f.claim(worker, "w")["execution_id"]; got != ids[0] {
			t.Errorf("first: %v, want %s", got, ids[0])
		}
		if got := f.batch(worker, input{"worker_id": "w", "max": 3}); !slices.Equal(got, ids[1:4]) {
			t.Errorf("batch: %v, want %v", got, ids[1:4])
		}
		if got := f.batch(worker, input{"worker_id": "w", "max": 100}); !slices.Equal(got, ids[4:]) {
			t.Errorf("rest: %v, want %v", got, ids[4:])
		}
	})
}

// batch claims with max and returns the ids.
func (f *fixture) batch(key string, args input) []string {
	f.Helper()
	return pluck(f.ok(key, "execution.claim", args)["executions"], "execution_id")
}

// claimable are the ids that the list of claimable work shows.
func (f *fixture) claimable(key string, args input) []string {
	f.Helper()
	return pluck(f.ok(key, "execution.claimable", args)["executions"], "execution_id")
}

// pluck is one member of every object of a list.
func pluck(list any, name string) []string {
	out := []string{}
	for _, v := range list.([]any) {
		out = append(out, v.(map[string]any)[name].(string))
	}
	return out
}

// otherWorkspace makes a second workspace and returns the key of its admin.
func (f *fixture) otherWorkspace() string {
	f.Helper()
	return f.ok(f.admin, "workspace.create", input{"name": "other", "slug": "other"})["key"].(string)
}

// What both answers to a claim hold: each its own shape, the batch also by request and lease.
func TestClaimShapes(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker, cue := f.key("worker", nil), f.cue("c", "0 0 1 1 *")
		for range 3 {
			f.fire(cue, nil)
		}
		item := []string{"execution_id", "cue_id", "cue_name", "task", "scheduled_for", "payload", "attempt", "lease_token", "lease_until"}
		one := append([]string{"claimed", "lease_seconds"}, item...)
		sameKeys(t, f.claim(worker, "w"), one)
		sameKeys(t, f.ok(worker, "execution.claim_one", input{"worker_id": "w", "id": f.claimable(worker, nil)[0]}), one)
		got := f.ok(worker, "execution.claim", input{"worker_id": "w", "max": 9})
		sameKeys(t, got, []string{"executions"})
		sameKeys(t, got["executions"].([]any)[0].(map[string]any), item)
	})
}

func sameKeys(t *testing.T, got map[string]any, want []string) {
	t.Helper()
	keys := slices.Sorted(maps.Keys(got))
	want = slices.Sorted(slices.Values(want))
	if !slices.Equal(keys, want) {
		t.Errorf("keys %v, want %v", keys, want)
	}
}

// The payload is that of the firing: neither a later change of the cue nor its numbers' text matter.
func TestClaimHasPayloadOfFiring(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		made := f.send(f.admin, "cue.create", nil, `{"name":"n","transport":"worker","schedule":{"type":"recurring","cron":"0 0 1 1 *"},"payload":{"big":12345678901234567890123,"f":1.0}}`)
		cue := answer(f, "cue.create", made)["id"].(string)
		f.fire(cue, nil)
		f.ok(f.admin, "cue.update", input{"id": cue, "payload": input{"new": true}})
		got := f.send(worker, "execution.claim", nil, `{"worker_id":"w"}`)
		if !strings.Contains(string(got.Body), `"payload":{"big":12345678901234567890123,"f":1.0}`) {
			t.Errorf("%s", got.Body)
		}
	})
}

// A repetition with the same key, worker and request_id gets the same executions while their leases live, and new ones afterwards.
func TestClaimRepeated(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker, second, cue := f.key("worker", nil), f.key("worker", nil), f.cue("c", "0 0 1 1 *")
		for range 6 {
			f.fire(cue, nil)
		}
		ask := input{"worker_id": "w", "max": 2, "request_id": "r1"}
		first := f.ok(worker, "execution.claim", ask)
		if again := f.ok(worker, "execution.claim", ask); !reflect.DeepEqual(first, again) {
			t.Errorf("repeated: %v, want %v", again, first)
		}
		ids := pluck(first["executions"], "execution_id")
		for _, c := range []struct {
			key  string
			args input
		}{
			{worker, input{"worker_id": "w", "max": 1, "request_id": "r2"}},
			{worker, input{"worker_id": "v", "max": 1, "request_id": "r1"}},
			{second, input{"worker_id": "w", "max": 1, "request_id": "r1"}},
		} {
			got := f.batch(c.key, c.args)
			if len(got) != 1 || slices.Contains(ids, got[0]) {
				t.Errorf("%v: %v, already with the first", c.args, got)
			}
		}
		f.clock.Advance(15 * time.Minute)
		if got := f.batch(worker, ask); len(got) != 1 || slices.Contains(ids, got[0]) {
			t.Errorf("after the lease: %v", got)
		}
	})
}

// Two calls of one request that arrive together share what the first is given.
func TestClaimRepeatedAtOnce(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		f.stock(200)
		results := make([][]string, callers)
		crowd(callers, func(i int) { results[i] = f.batch(worker, input{"worker_id": "w", "max": 2, "request_id": "r"}) })
		for _, r := range results {
			if !slices.Equal(r, results[0]) || len(r) != 2 {
				t.Fatalf("%v and %v for one request", r, results[0])
			}
		}
		if n := f.number("SELECT count(*) FROM executions WHERE status = 'delivering'"); n != 2 {
			t.Errorf("%d executions were claimed", n)
		}
	})
}

// A batch ends early when its payloads would make the answer too large, but never before it has one.
func TestClaimBoundsTheAnswer(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker, cue := f.key("worker", nil), f.cue("c", "0 0 1 1 *")
		for range 3 {
			f.fire(cue, input{"payload_override": input{"x": strings.Repeat("x", 1_000_000)}})
			f.clock.Advance(time.Second)
		}
		f.fire(cue, nil)
		for _, want := range []int{2, 2, 0} { // the last small one goes with the third large one
			r := f.call(worker, "execution.claim", input{"worker_id": "w", "max": 100})
			if items := answer(f, "claim", r)["executions"].([]any); len(items) != want || len(r.Body) > answerMost+4096 {
				t.Errorf("%d executions in %d bytes, want %d", len(items), len(r.Body), want)
			}
		}
	})
}

// A worker that names its tasks gets the oldest of them in one list, and never anything else.
func TestClaimByTasks(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker, cue := f.key("worker", nil), f.cue("c", "0 0 1 1 *")
		restricted, hidden := f.key("worker", input{"cues": []string{"c"}}), f.cue("hidden", "0 0 1 1 *")
		ids := map[string][]string{}
		for range 4 {
			for _, task := range []string{"a", "b", "c", ""} {
				ids[task] = append(ids[task], f.fire(cue, input{"payload_override": input{"task": task}}))
				f.clock.Advance(time.Second)
			}
			f.fire(hidden, input{"payload_override": input{"task": "b"}})
		}
		ask := func(key string, most int, tasks ...string) []string {
			return f.batch(key, input{"worker_id": "w", "max": most, "tasks": tasks})
		}
		if got, want := ask(restricted, 3, "c", "a", "none", "a"), []string{ids["a"][0], ids["c"][0], ids["a"][1]}; !slices.Equal(got, want) {
			t.Errorf("a and c: %v, want %v", got, want)
		}
		if got := ask(restricted, 100, "b", "none"); !slices.Equal(got, ids["b"]) {
			t.Errorf("b of one cue: %v, want %v", got, ids["b"])
		}
		if got := ask(worker, 100, "b", "c"); len(got) != 7 { // of both cues
			t.Errorf("b and c: %v", got)
		}
		if got := ask(worker, 100, "none", "b"); len(got) != 0 {
			t.Errorf("nothing is left of b, and got %v", got)
		}
		for _, bad := range []input{{"tasks": []string{}}, {"tasks": []string{"a"}, "task": "a"}, {"tasks": make([]string, 101)}} {
			bad["worker_id"] = "w"
			f.refused(worker, "execution.claim", bad, 422, "validation_error")
		}
	})
}

func TestClaimByTaskAndAgent(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker, cue := f.key("worker", nil), f.cue("c", "0 0 1 1 *")
		fire := func(payload input) string { return f.fire(cue, input{"payload_override": payload}) }
		plain := fire(input{})
		a := fire(input{"task": "a"})
		ax := fire(input{"task": "a", "agent": "x"})
		by := fire(input{"task": "b", "agent": "y"})
		fire(input{"task": 7, "agent": strings.Repeat("z", 256)}) // neither counts
		for _, c := range []struct {
			args input
			want []string
		}{
			{input{"task": "a", "agent": "y"}, []string{}},
			{input{"task": "none"}, []string{}},
			{input{"agent": "y"}, []string{by}},
			{input{"task": "a", "agent": "x"}, []string{ax}},
			{input{"task": "a"}, []string{a}},
		} {
			c.args["worker_id"], c.args["max"] = "w", 10
			if got := f.batch(worker, c.args); !slices.Equal(got, c.want) {
				t.Errorf("%v: %v, want %v", c.args, got, c.want)
			}
		}
		if got := f.batch(worker, input{"worker_id": "w", "max": 10}); len(got) != 2 || !slices.Contains(got, plain) {
			t.Errorf("the rest: %v", got)
		}
		fire(input{"task": "late"})
		if got := f.ok(worker, "execution.claim", input{"worker_id": "w", "task": "late"}); got["task"] != "late" {
			t.Errorf("one of a task: %v", got)
		}
	})
}

// Restrictions: worker ids are checked on every claim; executions of other cues are hidden before the limit.
func TestClaimRestricted(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		mine, pattern, other := f.cue("mine", "0 0 1 1 *"), f.cue("crm-sync", "0 0 1 1 *"), f.cue("other", "0 0 1 1 *")
		for range 60 { // more than any list shows, and older than the rest
			f.fire(other, nil)
		}
		f.clock.Advance(time.Second)
		a, b := f.fire(mine, nil), f.fire(pattern, nil)
		key := f.key("worker", input{"cues": []string{mine, "crm-*"}, "worker_ids": []string{"w"}})
		f.refused(key, "execution.claim", input{"worker_id": "v"}, 403, "key_restricted")
		f.refused(key, "execution.claim_one", input{"worker_id": "v", "id": a}, 403, "key_restricted")
		hidden := f.claimable(f.admin, nil)[0]
		f.refused(key, "execution.claim_one", input{"worker_id": "w", "id": hidden}, 409, "claim_failed")
		want := slices.Sorted(slices.Values([]string{a, b}))
		if got := slices.Sorted(slices.Values(f.claimable(key, nil))); !slices.Equal(got, want) {
			t.Errorf("claimable: %v, want %v", got, want)
		}
		if got := slices.Sorted(slices.Values(f.batch(key, input{"worker_id": "w", "max": 100}))); !slices.Equal(got, want) {
			t.Errorf("claimed: %v, want %v", got, want)
		}
	})
}

// A key that sees more cues than are looked up one by one finds the same work.
func TestClaimRestrictedToMany(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		other := f.cue("other", "0 0 1 1 *")
		want := []string{}
		for i := range fewCues + 2 {
			f.fire(other, nil)
			want = append(want, f.fire(f.cue(fmt.Sprintf("crm-%02d", i), "0 0 1 1 *"), input{"payload_override": input{"task": fmt.Sprint(i % 3)}}))
			f.clock.Advance(time.Second)
		}
		key := f.key("worker", input{"cues": []string{"crm-*"}})
		got := f.claimable(key, nil)
		slices.Sort(got)
		if !slices.Equal(got, slices.Sorted(slices.Values(want))) {
			t.Errorf("claimable: %d, want %d", len(got), len(want))
		}
		if got := f.batch(key, input{"worker_id": "w", "max": 100}); !slices.Equal(got, want) {
			t.Errorf("claimed %v, want %v", got, want)
		}
	})
}
