package cue

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A list leaves out what is large and says so. The page stays as long as was asked for, and the one execution shows all.
func TestListLeavesOutWhatIsLarge(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker, large := f.key("worker", nil), strings.Repeat("x", 8192)
		cue := f.ok(f.admin, "cue.create", input{"name": "c", "transport": "worker", "schedule": input{"type": recurring, "cron": "0 0 1 1 *"}, "payload": input{"x": large}, "description": strings.Repeat("é", 1001)})
		f.fire(cue["id"].(string), nil)
		small := f.fire(cue["id"].(string), input{"payload_override": input{}, "merge_strategy": "replace"})
		ids := f.batch(worker, input{"worker_id": "w", "max": 2})
		for _, id := range ids {
			f.ok(worker, "execution.report", input{"id": id, "success": false, "error": strings.Repeat("é", 3000), "artifacts": []string{large}, "result_type": "file"})
		}
		for _, list := range []any{f.ok(worker, "execution.list", input{"limit": 2})["executions"], f.ok(f.admin, "cue.get", input{"id": "c", "execution_limit": 2})["executions"]} {
			for _, x := range list.([]any) {
				e := x.(map[string]any)
				omitted, payload := []any{"payload", "outcome"}, any(nil)
				if e["id"] == small {
					omitted, payload = []any{"outcome"}, map[string]any{}
				}
				o := e["outcome"].(map[string]any)
				if fmt.Sprint(e["omitted"]) != fmt.Sprint(omitted) || fmt.Sprint(e["payload"]) != fmt.Sprint(payload) || e["error_message"] != strings.Repeat("é", 1000) ||
					o["success"] != false || o["recorded_at"] == nil || o["result_type"] != "file" || o["artifacts"] != nil || o["error"] != nil {
					t.Errorf("listed: %.300v", e)
				}
				whole := f.get(worker, e["id"].(string))
				if whole["omitted"] != nil || len([]rune(whole["error_message"].(string))) != 3000 || len(whole["outcome"].(map[string]any)["artifacts"].([]any)) != 1 || whole["payload"] == nil {
					t.Errorf("shown: %.300v", whole)
				}
			}
		}
		listed := at(t, f.ok(f.admin, "cue.list", nil), "cues").([]any)[0].(map[string]any)
		if fmt.Sprint(listed["omitted"]) != "[payload]" || fmt.Sprint(listed["payload"]) != "map[]" || listed["description"] != strings.Repeat("é", 1000) {
			t.Errorf("listed cue: %.300v", listed)
		}
		shown := f.ok(f.admin, "cue.get", input{"id": "c"})
		if shown["omitted"] != nil || len(shown["payload"].(map[string]any)) != 1 || len([]rune(shown["description"].(string))) != 1001 {
			t.Errorf("shown cue: %.300v", shown)
		}
		f.refused(f.admin, "cue.update", input{"id": "c", "callback": input{"headers": input{"X-A": large}}}, 422, "validation_error")
	})
}

// Whatever is stored, a page of a hundred stays small, and paging by offset meets every execution once.
func TestListBudget(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		cue := f.cue("c", "0 0 1 1 *")
		for _, size := range []int{8000, 9000, 500_000} { // listed, left out, left out
			for range 40 {
				id := f.fire(cue, input{"payload_override": input{"x": strings.Repeat("x", size)}})
				f.ok(f.admin, "execution.report", input{"id": id, "success": false, "error": strings.Repeat("\u20ac", 16384), "artifacts": []string{strings.Repeat("y", size)}})
			}
		}
		var seen []string
		for offset := 0; offset < 120; offset += 50 {
			r := f.call(f.admin, "execution.list", input{"limit": 50, "offset": offset})
			out := answer(f, "list", r)
			if len(r.Body) > answerMost {
				t.Errorf("offset %d: %d bytes", offset, len(r.Body))
			}
			for _, x := range out["executions"].([]any) {
				seen = append(seen, x.(map[string]any)["id"].(string))
			}
		}
		slices.Sort(seen)
		if len(slices.Compact(seen)) != 120 {
			t.Errorf("%d executions on all pages", len(seen))
		}
	})
}

// Work that can be claimed is listed with its payload or not at all: large payloads only while there is room, small ones always.
func TestClaimableBudget(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		cue := f.cue("c", "0 0 1 1 *")
		for i := range 4 {
			f.fire(cue, input{"payload_override": input{"task": fmt.Sprint("large ", i), "x": strings.Repeat("x", 1_000_000)}})
		}
		small := f.fire(cue, input{"payload_override": input{"task": "small"}})
		r := f.call(f.admin, "execution.claimable", nil)
		items := answer(f, "claimable", r)["executions"].([]any)
		isSmall := func(x any) bool { return x.(map[string]any)["execution_id"] == small }
		if len(items) != 3 || !slices.ContainsFunc(items, isSmall) || len(r.Body) > answerMost+4096 {
			t.Errorf("%d executions in %d bytes", len(items), len(r.Body))
		}
	})
}

// The handlers of a worker are bounded, and so are those that a list shows.
func TestWorkersBudget(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		err := f.refused(worker, "worker.heartbeat", input{"worker_id": "w", "handlers": []string{strings.Repeat("x", handlersMost)}}, 422, "validation_error")
		if err.Details[0].Field != "body.handlers" || !strings.Contains(err.Message, "may take 16384") {
			t.Errorf("refused with %v", err)
		}
		most := answerMost / (handlersMost - 4)
		for i := range most + 2 {
			f.ok(worker, "worker.heartbeat", input{"worker_id": fmt.Sprint(i), "handlers": []string{strings.Repeat("x", handlersMost-8)}})
		}
		list := f.ok(worker, "worker.list", nil)["workers"].([]any)
		for i, x := range list {
			w := x.(map[string]any)
			if left := i >= most; (w["handlers"] == nil) != left || (w["omitted"] != nil) != left {
				t.Errorf("worker %d: %.100v", i, w)
			}
		}
		if len(list) != most+2 {
			t.Errorf("%d workers", len(list))
		}
	})
}

// Evidence does not grow without end: workers add a hundred versions and 4 MiB, and people can judge even then.
func TestEvidenceIsBounded(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		id, token := f.taken(worker, "")
		f.ok(worker, "execution.report", input{"id": id, "lease_token": token, "success": true})
		for i := range evidenceMost - 1 {
			f.ok(worker, "execution.add_evidence", input{"id": id, "summary": fmt.Sprint(i)})
		}
		if err := f.refused(worker, "execution.add_evidence", input{"id": id, "summary": "more"}, 409, "evidence_full"); !strings.Contains(err.Message, "100 versions") {
			t.Errorf("refused with %v", err)
		}
		f.ok(f.admin, "execution.verify", input{"id": id, "valid": false, "reason": strings.Repeat("r", 3000)})
		for range judgedMost - evidenceMost - 1 {
			f.ok(f.admin, "execution.mark_pending", input{"id": id})
		}
		f.refused(f.admin, "execution.mark_pending", input{"id": id}, 409, "evidence_full")
		f.refused(f.admin, "execution.verify", input{"id": id}, 409, "evidence_full")
		r := f.call(worker, "execution.check_evidence", input{"id": id})
		if check := answer(f, "check", r); check["ok"] != true || len(check["versions"].([]any)) != judgedMost {
			t.Errorf("check: %v", check["fault"])
		}

		big, token := f.taken(worker, "")
		part := []string{strings.Repeat("x", 1_000_000)}
		f.ok(worker, "execution.report", input{"id": big, "lease_token": token, "success": true, "artifacts": part})
		for range 3 {
			f.ok(worker, "execution.add_evidence", input{"id": big, "artifacts": part})
		}
		f.refused(worker, "execution.add_evidence", input{"id": big, "artifacts": part}, 409, "evidence_full")
	})
}

// A filter that names what does not exist is refused, and a cue may be named.
func TestListRefusesUnknownFilters(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.fire(f.cue("hello", "0 0 1 1 *"), nil)
		if got, _ := f.page(f.admin, input{"cue_id": "hello"}); !slices.Equal(got, []string{id}) {
			t.Errorf("by name: %v", got)
		}
		f.refused(f.admin, "execution.list", input{"cue_id": "nosuch"}, 404, "cue_not_found")
		f.refused(f.admin, "execution.list", input{"cue_id": "cue_xxxxxxxxxxxx"}, 404, "cue_not_found")
		for field, value := range map[string]string{"status": "done", "status__in": "success,done", "outcome_state": "fine", "triggered_by": "magic"} {
			err := f.refused(f.admin, "execution.list", input{field: value}, 422, "validation_error")
			if err.Details[0].Field != "query."+field || !strings.Contains(err.Message, map[string]string{"status": "retry_ready", "status__in": "retry_ready", "outcome_state": "verified_success", "triggered_by": "manual_fire"}[field]) {
				t.Errorf("%s: %v", field, err)
			}
		}
		f.refused(f.admin, "cue.list", input{"status": "done"}, 422, "validation_error")
		for _, status := range statusWords { // whatever a client of CueAPI may ask for
			f.ok(f.admin, "execution.list", input{"status": status})
		}
	})
}
