package cue

import (
	"strings"
	"testing"
	"time"

	"unstuck/internal/op"
)

// taken fires a new cue with a verification mode ("" for none) and claims its execution: the id and the lease token.
func (f *fixture) taken(key, mode string) (id, token string) {
	f.Helper()
	more := input{"schedule": input{"type": "recurring", "cron": "0 0 1 1 *"}}
	if mode != "" {
		more["verification"] = input{"mode": mode}
	}
	cue := f.ok(f.admin, "cue.create", newCue(newUUID(0), more))["id"].(string)
	id = f.fire(cue, nil)
	return id, f.ok(key, "execution.claim_one", input{"id": id, "worker_id": "w"})["lease_token"].(string)
}

// outcome is the outcome of an execution.
func (f *fixture) outcome(id string) map[string]any {
	f.Helper()
	o, _ := f.get(f.admin, id)["outcome"].(map[string]any)
	return o
}

// The table of the CueAPI wire contract 2.4: what state an outcome gets.
func TestOutcomeStates(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		for _, c := range []struct {
			mode string
			args input
			want string
		}{
			{"", input{}, reportedSuccess},
			{"none", input{"external_id": "x"}, reportedSuccess},
			{"manual", input{"external_id": "x"}, verificationPending},
			{"require_external_id", input{"external_id": "x"}, verifiedSuccess},
			{"require_external_id", input{"external_id": "", "result_url": "https://example.com"}, verificationFailed},
			{"require_result_url", input{"result_url": "https://example.com"}, verifiedSuccess},
			{"require_result_url", input{"result_ref": "x"}, verificationFailed},
			{"require_artifacts", input{"artifacts": []any{1, "two", nil, input{"three": 3}}}, verifiedSuccess},
			{"require_artifacts", input{"artifacts": []any{}}, verificationFailed},
		} {
			id, token := f.taken(worker, c.mode)
			c.args["id"], c.args["success"], c.args["lease_token"] = id, true, token
			if got := f.ok(worker, "execution.report", c.args)["outcome_state"]; got != c.want {
				t.Errorf("%s %v: %v, want %s", c.mode, c.args, got, c.want)
			}
			if e := f.get(worker, id); e["status"] != "success" || e["outcome_state"] != c.want {
				t.Errorf("%s %v: %v", c.mode, c.args, e)
			}
			id, token = f.taken(worker, c.mode)
			c.args["id"], c.args["success"], c.args["lease_token"] = id, false, token
			if got := f.ok(worker, "execution.report", c.args)["outcome_state"]; got != reportedFailure {
				t.Errorf("%s %v, failed: %v", c.mode, c.args, got)
			}
		}
	})
}

// What a report changes: the execution, its cue, the totals and the month's outcomes.
func TestReportChanges(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker, cue := f.key("worker", nil), f.cue("c", "0 0 1 1 *")
		for _, success := range []bool{true, false} {
			id := f.fire(cue, nil)
			token := f.claim(worker, "w")["lease_token"]
			f.clock.Advance(time.Second)
			out := f.ok(worker, "execution.report", input{
				"id": id, "success": success, "lease_token": token, "result": "r", "error": "e", "external_id": "x", "result_url": "HTTPS://Example.com:443",
				"result_ref": "ref", "result_type": "file", "summary": "s", "metadata": input{"a": 1.5}, "artifacts": []any{"b"}, "unknown": true,
			})
			sameKeys(t, out, []string{"execution_id", "outcome_recorded", "outcome_state", "reason", "warning"})
			e := f.get(worker, id)
			o := e["outcome"].(map[string]any)
			for name, want := range map[string]any{
				"success": success, "result": "r", "error": "e", "external_id": "x", "result_url": "https://example.com/", "result_ref": "ref",
				"result_type": "file", "summary": "s", "recorded_at": e["updated_at"], "truncated": false, "warning": nil,
			} {
				if o[name] != want {
					t.Errorf("outcome.%s: %v, want %v", name, o[name], want)
				}
			}
			if o["metadata"].(map[string]any)["a"] != 1.5 || o["artifacts"].([]any)[0] != "b" {
				t.Errorf("outcome: %v", o)
			}
			if success && (e["status"] != "success" || e["delivered_at"] != e["updated_at"] || e["error_message"] != nil) {
				t.Errorf("after a success: %v", e)
			}
			if !success && (e["status"] != "failed" || e["delivered_at"] != nil || e["error_message"] != "e") {
				t.Errorf("after a failure: %v", e)
			}
		}
		q := f.ok(f.admin, "cue.get", input{"id": cue})
		if q["run_count"] != 2.0 || q["last_run"] != f.cues.now().String() || q["status"] != "active" || q["execution_total"] != 2.0 {
			t.Errorf("cue: %v", q)
		}
		o := f.ok(f.admin, "usage.get", nil)["outcomes"].(map[string]any)
		if o["reported"] != 2.0 || o["succeeded"] != 1.0 || o["failed"] != 1.0 {
			t.Errorf("usage: %v", o)
		}
	})
}

// A one-time cue is over with the report on it.
func TestReportEndsOneTimeCue(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		for success, want := range map[bool]string{true: completed, false: failed} {
			cue := f.ok(f.admin, "cue.create", newCue(want, input{"schedule": onceAt(f.clock.Now().Add(time.Minute))}))["id"].(string)
			f.clock.Advance(time.Minute)
			f.settle()
			got := f.claim(worker, "w")
			f.ok(worker, "execution.report", input{"id": got["execution_id"], "success": success, "lease_token": got["lease_token"]})
			if q := f.ok(f.admin, "cue.get", input{"id": cue}); q["status"] != want || q["run_count"] != 1.0 {
				t.Errorf("success %t: %v", success, q)
			}
		}
	})
}

// A report is never lost for its form: long texts are cut, NUL is replaced.
func TestReportForms(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		long := strings.Repeat("é", textMost+1)
		id, token := f.taken(worker, "")
		f.ok(worker, "execution.report", input{
			"id": id, "lease_token": token, "success": true, "result": long, "error": "a\x00b", "summary": strings.Repeat("s", 501),
			"external_id": strings.Repeat("é", 500), "result_ref": strings.Repeat("r", 499) + "\x00", "result_type": strings.Repeat("t", 100),
			"metadata": input{"x": strings.Repeat("é", 32_000)},
		})
		o := f.outcome(id)
		for name, want := range map[string]any{
			"result": long[:2*textMost], "error": "a\uFFFDb", "summary": strings.Repeat("s", 500), "truncated": true,
			"external_id": strings.Repeat("é", 500), "result_ref": strings.Repeat("r", 499) + "\uFFFD", "result_type": strings.Repeat("t", 100),
		} {
			if o[name] != want {
				t.Errorf("%s: %.40q, want %.40q", name, o[name], want)
			}
		}
		id, token = f.taken(worker, "")
		f.ok(worker, "execution.report", input{"id": id, "lease_token": token, "success": "yes", "result": long[:2*textMost], "summary": strings.Repeat("é", 500)})
		if o := f.outcome(id); o["truncated"] != false || o["success"] != true {
			t.Errorf("texts of exactly the limit: %v", o["truncated"])
		}
	})
}

// What is refused all the same, and that it leaves nothing behind.
func TestReportRefuses(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		id, token := f.taken(worker, "")
		f.refused(worker, "execution.report", input{"id": newUUID(0), "success": true}, 404, "execution_not_found")
		f.refused(worker, "execution.report", input{"id": "no-uuid", "success": true}, 404, "execution_not_found")
		f.refused(f.otherWorkspace(), "execution.report", input{"id": id, "success": true}, 404, "execution_not_found")
		f.refused(f.key("worker", input{"cues": []string{"x"}}), "execution.report", input{"id": id, "success": true}, 404, "execution_not_found")
		f.refused(f.key("worker", input{"worker_ids": []string{"v"}}), "execution.report", input{"id": id, "success": true, "lease_token": token}, 403, "key_restricted")
		for field, value := range map[string]any{
			"success": "perhaps", "external_id": strings.Repeat("x", 501), "result_ref": strings.Repeat("x", 501), "result_type": strings.Repeat("x", 101),
			"result_url": "ftp://example.com", "artifacts": input{}, "metadata": []any{}, "result": 3,
		} {
			args := input{"id": id, "success": true, "lease_token": token}
			args[field] = value
			if err := f.refused(worker, "execution.report", args, 422, "validation_error"); err.Details[0].Field != "body."+field {
				t.Errorf("%s: %v", field, err)
			}
		}
		big := input{"x": strings.Repeat("x", metadataMost)}
		f.refused(worker, "execution.report", input{"id": id, "success": true, "lease_token": token, "metadata": big}, 400, "metadata_too_large")
		if e := f.get(worker, id); e["outcome"] != nil || e["status"] != "delivering" || e["evidence_versions"] != 0.0 {
			t.Errorf("a refused report left %v", e)
		}
		f.ok(worker, "execution.report", input{"id": id, "success": true, "lease_token": token})
		f.refused(worker, "execution.report", input{"id": id, "success": true, "metadata": big}, 409, "outcome_already_recorded") // the contract's order
	})
}

// Metadata is measured as compact UTF-8: escapes and spaces that a client needs not send cost nothing.
func TestReportMeasuresMetadata(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		for n, code := range map[int]string{metadataMost: "", metadataMost + 1: "metadata_too_large"} {
			id, token := f.taken(worker, "")
			value := strings.Repeat(`\u00e9`, (n-len(`{"x":""}`))/2) + strings.Repeat("a", n%2)
			res := f.send(worker, "execution.report", map[string]string{"id": id}, `{"success":true,"lease_token":"`+token+`","metadata":{ "x" : "`+value+`"}}`)
			if got := codeOf(res.Err); got != code {
				t.Errorf("%d bytes: %q, want %q", n, got, code)
			}
		}
	})
}

// The same report again gets the same answer, whatever was added since; another one is refused and changes nothing.
func TestReportRepeated(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		id, token := f.taken(worker, "")
		same := input{"id": id, "success": true, "result": "r", "metadata": input{"a": 1, "b": []any{}}, "external_id": "x"}
		f.ok(worker, "execution.report", input{"lease_token": token, "id": id, "success": 1, "result": "r", "metadata": input{"a": 1, "b": []any{}}, "external_id": "x"})
		before := f.get(worker, id)
		f.clock.Advance(time.Minute)
		for _, key := range []string{worker, f.admin} {
			if out := f.ok(key, "execution.report", same); out["outcome_state"] != reportedSuccess {
				t.Errorf("repeated: %v", out)
			}
		}
		again := answer(f, "execution.report", f.send(worker, "execution.report", map[string]string{"id": id},
			`{"external_id":"x", "success":true, "metadata":{"\u0062":[ ],"a":1}, "result":"r"}`)) // by a client that orders members by chance
		holds(t, again, map[string]any{"outcome_recorded": true})
		for field, value := range map[string]any{"success": false, "result": "s", "external_id": nil, "summary": "new"} {
			other := input{}
			for k, v := range same {
				other[k] = v
			}
			other[field] = value
			f.refused(worker, "execution.report", other, 409, "outcome_already_recorded")
		}
		if after := f.get(worker, id); after["updated_at"] != before["updated_at"] {
			t.Errorf("repetitions changed it: %v", after)
		}
		f.ok(worker, "execution.add_evidence", input{"id": id, "external_id": "y"})
		f.ok(f.admin, "execution.verify", input{"id": id})
		if out := f.ok(worker, "execution.report", same); out["outcome_state"] != verifiedSuccess {
			t.Errorf("repeated after evidence: %v", out)
		}
	})
}

// Keys of ours in what a worker sends are stored in their redacted form, noted in the audit log and shown as a warning.
func TestReportRedactsKeys(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		id, token := f.taken(worker, "")
		env := "PATH=/bin\nUNSTUCK_API_KEY=" + worker + "\nHOME=/"
		report := input{
			"id": id, "lease_token": token, "success": false, "result": strings.Repeat("x", textMost-20) + worker, "error": env, "summary": worker,
			"external_id": worker, "metadata": input{"env": env}, "artifacts": []any{worker}, "result_url": "https://example.com/?key=" + worker,
		}
		for range 2 { // the repetition is equal, too
			if out := f.ok(worker, "execution.report", report); out["warning"] == nil {
				t.Errorf("no warning: %v", out)
			}
		}
		f.ok(worker, "execution.add_evidence", input{"id": id, "summary": "again " + worker})
		o := f.outcome(id)
		if o["warning"] == nil || !strings.Contains(o["error"].(string), "UNSTUCK_API_KEY=unstuck_***_") {
			t.Errorf("outcome: %v", o)
		}
		secret := worker[len("unstuck_") : len("unstuck_")+20]
		for _, query := range []string{
			"SELECT count(*) FROM executions WHERE outcome LIKE ?1 OR error_message LIKE ?1", "SELECT count(*) FROM evidence WHERE body LIKE ?1",
			"SELECT count(*) FROM audit WHERE body LIKE ?1",
		} {
			if n := f.number(query, "%"+secret[:8]+"%"); n != 0 {
				t.Errorf("a part of the key is in %d rows: %s", n, query)
			}
		}
		if n := f.number("SELECT count(*) FROM audit WHERE object_id = ?1 AND body LIKE '%keys_redacted%'", id); n != 2 {
			t.Errorf("%d rows of the audit log, want 2", n)
		}
		if check := f.ok(worker, "execution.check_evidence", input{"id": id}); check["ok"] != true {
			t.Errorf("check: %v", check["fault"])
		}
	})
}

// A webhook secret in what a worker sends is hidden like a key.
func TestReportRedactsWebhookSecrets(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		secret := f.ok(f.admin, "webhook_secret.get", nil)["webhook_secret"].(string)
		id, token := f.taken(worker, "")
		out := f.ok(worker, "execution.report", input{
			"id": id, "lease_token": token, "success": false, "result": "S=" + secret, "error": "signed with " + secret + ".", "metadata": input{"env": secret, "a": `"`},
		})
		if out["warning"] == nil {
			t.Errorf("no warning: %v", out)
		}
		if o := f.outcome(id); o["error"] != "signed with whsec_***." || o["result"] != "S=whsec_***" {
			t.Errorf("outcome: %v", o)
		}
		for _, query := range []string{"SELECT count(*) FROM executions WHERE outcome LIKE ?1 OR error_message LIKE ?1", "SELECT count(*) FROM evidence WHERE body LIKE ?1"} {
			if n := f.number(query, "%"+secret[len("whsec_"):len("whsec_")+8]+"%"); n != 0 {
				t.Errorf("a part of the secret is in %d rows: %s", n, query)
			}
		}
	})
}

func codeOf(err *op.Error) string {
	if err == nil {
		return ""
	}
	return err.Code.Name
}
