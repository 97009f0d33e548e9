package cue

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// page lists executions and returns their ids beside the whole answer.
func (f *fixture) page(key string, args input) ([]string, map[string]any) {
	f.Helper()
	out := f.ok(key, "execution.list", args)
	return pluck(out["executions"], "id"), out
}

// The fields of an execution: those of the contract, those that clients look for, ours. A token is never among them.
func TestExecutionObject(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		id, token := f.taken(worker, "")
		e := f.get(worker, id)
		sameKeys(t, e, []string{
			"id", "cue_id", "scheduled_for", "status", "http_status", "attempts", "error_message", "started_at", "delivered_at", "last_attempt_at",
			"outcome", "created_at", "updated_at",
			"outcome_state", "triggered_by", "claimed_by_worker", "claimed_at", "last_heartbeat_at", "next_retry", "payload",
			"cue_name", "task", "max_attempts", "lease_until", "fired_by", "claimed_by_key", "reported_by", "unfenced", "replayed_from", "evidence_versions",
			"transport", "outcome_by", "unconfirmed", "redelivered", "response_body", "verification",
			"chain_id", "chain_parent_id", "chain_depth", "chain_child_id", "chain_stopped", "exit_criteria",
		})
		if e["claimed_at"] != "2026-11-23T10:01:40Z" || e["started_at"] != e["claimed_at"] || e["last_attempt_at"] != e["claimed_at"] || e["attempts"] != 1.0 {
			t.Errorf("after the claim: %v", e)
		}
		res := f.call(worker, "execution.get", input{"id": id})
		if strings.Contains(string(res.Body), token) {
			t.Error("the lease token can be read")
		}
		_, list := f.page(worker, nil)
		if got := list["executions"].([]any)[0]; fmt.Sprint(got) != fmt.Sprint(e) {
			t.Errorf("in the list: %v", got)
		}
		f.refused(worker, "execution.get", input{"id": newUUID(0)}, 404, "execution_not_found")
		f.refused(worker, "execution.get", input{"id": "claimable-not"}, 404, "execution_not_found")
		f.refused(f.otherWorkspace(), "execution.get", input{"id": id}, 404, "execution_not_found")
		f.refused(f.key("worker", input{"cues": []string{"x"}}), "execution.get", input{"id": id}, 404, "execution_not_found")
		f.refused(f.key("worker", input{"cues": []string{"x"}}), "execution.check_evidence", input{"id": id}, 404, "execution_not_found")
	})
}

// A renamed cue is called by its new name everywhere, and what a restriction says follows it.
func TestExecutionFollowsTheName(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		cue := f.cue("old", "0 0 1 1 *")
		id := f.fire(cue, nil)
		key := f.key("worker", input{"cues": []string{"new"}})
		f.refused(key, "execution.get", input{"id": id}, 404, "execution_not_found")
		f.ok(f.admin, "cue.update", input{"id": cue, "name": "new"})
		if e := f.get(key, id); e["cue_name"] != "new" {
			t.Errorf("%v", e)
		}
	})
}

// Every filter, alone and together; what is counted is what is listed.
func TestListFilters(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		a, b := f.cue("a", "0 0 1 1 *"), f.cue("b", "0 0 1 1 *")
		fire := func(cue string) string { f.clock.Advance(time.Second); return f.fire(cue, nil) }
		claim := func(id, w string) string {
			return f.ok(worker, "execution.claim_one", input{"id": id, "worker_id": w})["lease_token"].(string)
		}
		pending, held, won, lost := fire(a), fire(a), fire(b), fire(b)
		claim(held, "w1")
		f.ok(worker, "execution.report", input{"id": won, "lease_token": claim(won, "w1"), "success": true, "external_id": "x", "result_type": "file"})
		f.ok(worker, "execution.report", input{"id": lost, "lease_token": claim(lost, "w2"), "success": false})
		f.clock.Advance(time.Second)
		again := f.ok(f.admin, "execution.replay", input{"id": lost})["id"].(string)
		workerKey := f.get(worker, held)["claimed_by_key"]
		adminKey := f.get(worker, again)["fired_by"]
		all := []string{again, lost, won, held, pending}
		for _, c := range []struct {
			args input
			want []string
		}{
			{nil, all},
			{input{"cue_id": a}, []string{held, pending}},
			{input{"status": "pending"}, []string{again, pending}},
			{input{"status": "missed"}, nil},
			{input{"status": "retrying"}, nil},
			{input{"status__in": "success, failed,,"}, []string{lost, won}},
			{input{"status__in": "delivering"}, []string{held}},
			{input{"cue_id": b, "status": "success"}, []string{won}},
			{input{"worker_id": "w1"}, []string{won, held}},
			{input{"worker_id": ""}, nil},
			{input{"outcome_state": "reported_failure"}, []string{lost}},
			{input{"has_evidence": "true"}, []string{won}},
			{input{"has_evidence": false, "cue_id": b}, []string{again, lost}},
			{input{"result_type": "file"}, []string{won}},
			{input{"triggered_by": "replay"}, []string{again}},
			{input{"triggered_by": "manual_fire", "cue_id": b}, []string{lost, won}},
			{input{"key": workerKey}, []string{lost, won, held}},
			{input{"key": adminKey}, all},
			{input{"key": "self"}, []string{lost, won, held}},
		} {
			got, out := f.page(worker, c.args)
			if !slices.Equal(got, c.want) || out["total"] != float64(len(c.want)) || out["has_more"] != false || out["limit"] != 20.0 || out["offset"] != 0.0 {
				t.Errorf("%v: %v of %v, want %v", c.args, got, out["total"], c.want)
			}
		}
		f.refused(worker, "execution.list", input{"status": "a", "status__in": "b"}, 400, "conflicting_filters")
		f.refused(worker, "execution.list", input{"status__in": " , ,"}, 400, "invalid_status_in")
		for field, value := range map[string]any{"limit": 101, "offset": 10_001, "has_evidence": "maybe", "cursor": "x", "key": "key_000000000000"} {
			f.refused(worker, "execution.list", input{field: value}, 422, "validation_error")
		}
	})
}

// What a restriction hides is neither listed nor counted.
func TestListRestricted(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		want := []string{}
		for _, name := range []string{"crm-a", "other", "crm-b", "crm", "crn"} {
			id := f.fire(f.cue(name, "0 0 1 1 *"), nil)
			if strings.HasPrefix(name, "crm-") {
				want = append(want, id)
			}
			f.clock.Advance(time.Second)
		}
		slices.Reverse(want)
		key := f.key("read-only", input{"cues": []string{"crm-*"}})
		for _, args := range []input{nil, {"status": "pending"}} {
			if got, out := f.page(key, args); !slices.Equal(got, want) || out["total"] != 2.0 {
				t.Errorf("%v: %v of %v, want %v", args, got, out["total"], want)
			}
		}
		hidden := f.get(f.admin, f.fire(f.cue("hidden", "0 0 1 1 *"), nil))["cue_id"]
		f.refused(key, "execution.list", input{"cue_id": hidden}, 404, "cue_not_found")
	})
}

// Pages, by offset and by cursor, hold every execution once, also those of one moment.
func TestListPages(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		ids := f.stock(25)
		f.sql("UPDATE executions SET created_at = 0")
		var paged, followed []string
		for offset := 0; ; offset += 10 {
			got, out := f.page(f.admin, input{"limit": 10, "offset": offset})
			paged = append(paged, got...)
			if out["total"] != 25.0 || out["has_more"] != (offset+10 < 25) {
				t.Errorf("offset %d: %v", offset, out)
			}
			if len(got) < 10 {
				break
			}
		}
		args := input{"limit": 10}
		for {
			got, out := f.page(f.admin, args)
			followed = append(followed, got...)
			if out["next_cursor"] == nil {
				break
			}
			args["cursor"] = out["next_cursor"]
		}
		slices.Sort(ids)
		slices.Reverse(ids)
		if !slices.Equal(paged, ids) || !slices.Equal(followed, ids) {
			t.Errorf("pages:\n%v\ncursor:\n%v\nwant:\n%v", paged, followed, ids)
		}
	})
}

// oldest_claimed_at looks over all that the filter lets through, not over the page.
func TestListOldestClaim(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		if _, out := f.page(worker, nil); out["oldest_claimed_at"] != nil {
			t.Errorf("nothing claimed: %v", out["oldest_claimed_at"])
		}
		first, _ := f.taken(worker, "")
		f.clock.Advance(time.Second)
		f.taken(worker, "")
		f.clock.Advance(time.Second)
		f.fire(f.cue("c", "0 0 1 1 *"), nil)
		for _, c := range []struct {
			args input
			want any
		}{
			{input{"limit": 1}, "2026-11-23T10:01:40+00:00"},
			{input{"status": "delivering"}, "2026-11-23T10:01:40+00:00"},
			{input{"status": "success"}, nil},
			{input{"status": "pending"}, nil},
		} {
			if _, out := f.page(worker, c.args); out["oldest_claimed_at"] != c.want {
				t.Errorf("%v: %v, want %v", c.args, out["oldest_claimed_at"], c.want)
			}
		}
		f.ok(worker, "execution.report", input{"id": first, "success": true})
		if _, out := f.page(worker, input{"status": "delivering"}); out["oldest_claimed_at"] != "2026-11-23T10:01:41+00:00" {
			t.Errorf("the first is done: %v", out["oldest_claimed_at"])
		}
	})
}

// Totals that counters keep stay exact beyond what a list counts; others end there.
func TestListTotalsBeyondCounting(t *testing.T) {
	f := onSQLite(t) // what is counted where is decided in Go
	f.stock(countMost + 5)
	other := f.fire(f.cue("other", "0 0 1 1 *"), nil)
	cue := f.get(f.admin, f.claimable(f.admin, nil)[0])["cue_id"]
	for _, c := range []struct {
		args input
		want float64
	}{
		{nil, countMost + 6}, {input{"status": "pending"}, countMost + 6}, {input{"status__in": "pending,success"}, countMost + 6}, {input{"cue_id": cue}, countMost + 5},
		{input{"triggered_by": "manual_fire"}, countMost}, {input{"cue_id": cue, "status": "pending"}, countMost},
	} {
		if _, out := f.page(f.admin, c.args); out["total"] != c.want || out["has_more"] != true {
			t.Errorf("%v: %v, want %v", c.args, out["total"], c.want)
		}
	}
	hidden := f.key("read-only", input{"cues": []string{"other"}})
	f.refused(hidden, "execution.list", input{"cue_id": cue}, 404, "cue_not_found")
	if got, _ := f.page(hidden, nil); !slices.Equal(got, []string{other}) {
		t.Errorf("a visible cue: %v", got)
	}
}

// Deleting a cue takes its executions with it, and out of every total.
func TestDeletedCueTakesItsExecutions(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		id, token := f.taken(worker, "")
		done, doneToken := f.taken(worker, "")
		f.ok(worker, "execution.report", input{"id": done, "lease_token": doneToken, "success": true})
		for _, e := range []string{id, done} {
			f.ok(f.admin, "cue.delete", input{"id": f.get(worker, e)["cue_id"]})
		}
		f.refused(worker, "execution.report", input{"id": id, "lease_token": token, "success": true}, 404, "execution_not_found")
		if _, out := f.page(worker, nil); out["total"] != 0.0 {
			t.Errorf("%v", out)
		}
		if n := f.number("SELECT count(*) FROM evidence"); n != 0 {
			t.Errorf("%d rows of evidence are left", n)
		}
		if n := f.number("SELECT count(*) FROM counters WHERE value <> 0 AND (name = 'executions' OR name LIKE 'status:%')"); n != 0 {
			t.Errorf("%d totals are left", n)
		}
	})
}
