package cue

import (
	"strings"
	"testing"
)

// From which states an outcome can be judged, and what becomes of it (CueAPI wire contract 2.4, 7.3).
func TestVerify(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker, checker := f.key("worker", nil), f.key("write-cues", nil)
		report := func(mode string, args input) string {
			id, token := f.taken(worker, mode)
			args["id"], args["lease_token"] = id, token
			f.ok(worker, "execution.report", args)
			return id
		}
		success := func() string { return report("", input{"success": true}) }
		for _, c := range []struct {
			id    string
			args  input
			state string
		}{
			{success(), nil, verifiedSuccess},
			{success(), input{"valid": true, "reason": "looked at it"}, verifiedSuccess},
			{report("", input{"success": false}), input{"valid": false}, verificationFailed},
			{report("manual", input{"success": true}), input{"valid": "false", "reason": "no"}, verificationFailed},
		} {
			args := input{"id": c.id}
			for k, v := range c.args {
				args[k] = v
			}
			out := f.ok(checker, "execution.verify", args)
			if out["outcome_state"] != c.state || out["valid"] != (c.state == verifiedSuccess) || out["reason"] != args["reason"] || out["execution_id"] != c.id {
				t.Errorf("%v: %v", c.args, out)
			}
			if got := f.get(worker, c.id)["outcome_state"]; got != c.state {
				t.Errorf("%v: stored %v", c.args, got)
			}
			err := f.refused(checker, "execution.verify", args, 409, "invalid_state")
			if err.Message != "Cannot verify from state '"+c.state+"'" {
				t.Errorf("%s", err.Message)
			}
		}
		unreported, _ := f.taken(worker, "")
		if err := f.refused(checker, "execution.verify", input{"id": unreported}, 409, "invalid_state"); err.Message != "Cannot verify from state 'None'" {
			t.Errorf("%s", err.Message)
		}
		f.refused(checker, "execution.verify", input{"id": newUUID(0)}, 404, "execution_not_found")
		f.refused(f.key("write-cues", input{"cues": []string{"x"}}), "execution.verify", input{"id": unreported}, 404, "execution_not_found")
		f.refused(worker, "execution.verify", input{"id": unreported}, 403, "insufficient_scope")
		if n := f.number("SELECT count(*) FROM audit WHERE operation = 'execution.verify' AND result = 'done'"); n != 4 {
			t.Errorf("%d rows in the audit log", n)
		}
	})
}

// The reason of a rejection becomes the summary, or joins it; it is cut to 500 characters. That of a confirmation is not stored
// there.
func TestVerifyReason(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		long := strings.Repeat("é", 600)
		for _, c := range []struct {
			summary, want any
			args          input
		}{
			{nil, "bad", input{"valid": false, "reason": "bad"}},
			{nil, long[:1000], input{"valid": false, "reason": long}},
			{"done", "done | verification rejected: bad", input{"valid": false, "reason": "bad"}},
			{"done", ("done | verification rejected: " + long)[:30+2*470], input{"valid": false, "reason": long}},
			{"done", "done", input{"valid": false}},
			{"done", "done", input{"valid": true, "reason": "good"}},
		} {
			id, token := f.taken(worker, "")
			f.ok(worker, "execution.report", input{"id": id, "lease_token": token, "success": true, "summary": c.summary})
			c.args["id"] = id
			f.ok(f.admin, "execution.verify", c.args)
			if got := f.outcome(id)["summary"]; got != c.want {
				t.Errorf("%v %.20v: %.80v, want %.80v", c.summary, c.args, got, c.want)
			}
			if check := f.ok(worker, "execution.check_evidence", input{"id": id}); check["ok"] != true {
				t.Errorf("check: %v", check["fault"])
			}
		}
	})
}

// Any outcome can be put up for verification, again and again; what has none cannot.
func TestMarkPending(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		id, token := f.taken(worker, "")
		f.refused(f.admin, "execution.mark_pending", input{"id": id}, 409, "no_outcome")
		f.refused(f.admin, "execution.mark_pending", input{"id": newUUID(0)}, 404, "http_error") // the contract's odd one
		f.ok(worker, "execution.report", input{"id": id, "lease_token": token, "success": true})
		f.ok(f.admin, "execution.verify", input{"id": id})
		for range 2 {
			if out := f.ok(f.admin, "execution.mark_pending", input{"id": id}); out["outcome_state"] != verificationPending || out["execution_id"] != id {
				t.Errorf("%v", out)
			}
		}
		f.ok(f.admin, "execution.verify", input{"id": id, "valid": false})
		if got := f.get(worker, id)["status"]; got != "success" {
			t.Errorf("the status follows the report, not the judgement: %v", got)
		}
	})
}
