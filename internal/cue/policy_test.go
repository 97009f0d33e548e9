package cue

import (
	"encoding/json"
	"reflect"
	"testing"
)

// What outcomes lack by every policy, and their states.
func TestPolicy(t *testing.T) {
	const all = `{"external_id":"x","result_url":"https://example.com/","artifacts":[1],"assertions":{"a":true,"b":0,"c d":"no"}}`
	for _, c := range []struct {
		policy, proof string
		missing       []string
		state         string
	}{
		{"", `{}`, nil, reportedSuccess},
		{"none", all, nil, reportedSuccess},
		{"manual", `{}`, nil, verificationPending},
		{"require_external_id", `{"result_url":"x"}`, []string{"external_id"}, verificationFailed},
		{"require_result_url", `{}`, []string{"result_url"}, verificationFailed},
		{"require_artifacts", `{}`, []string{"artifacts"}, verificationFailed},
		{"require_artifacts", all, nil, verifiedSuccess},
		{`none ["a"]`, `{}`, []string{"assertions.a"}, verificationFailed},
		{`none ["a"]`, `{"assertions":{"a":false}}`, []string{"assertions.a"}, verificationFailed},
		{`none ["a"]`, `{"assertions":{"a":null}}`, []string{"assertions.a"}, verificationFailed},
		{`none ["a","b","c d"]`, all, nil, verifiedSuccess},
		{`require_external_id ["a","z"]`, `{"assertions":{"a":true}}`, []string{"external_id", "assertions.z"}, verificationFailed},
		{`require_external_id ["a"]`, all, nil, verifiedSuccess},
		{`manual ["z"]`, all, []string{"assertions.z"}, verificationFailed},
		{`manual ["a"]`, all, nil, verificationPending},
	} {
		p, e := policyOf(c.policy), proof{}
		if err := json.Unmarshal([]byte(c.proof), &e); err != nil {
			t.Fatal(err)
		}
		if p.String() != c.policy {
			t.Errorf("%q is stored as %q", c.policy, p.String())
		}
		if got := p.missing(&e); !reflect.DeepEqual(got, c.missing) {
			t.Errorf("%s %s lacks %v, want %v", c.policy, c.proof, got, c.missing)
		}
		if got := p.judge(true, &e); got != c.state {
			t.Errorf("%s %s is %s, want %s", c.policy, c.proof, got, c.state)
		}
		if got := p.judge(false, &e); got != reportedFailure {
			t.Errorf("%s, failed, is %s", c.policy, got)
		}
	}
}

// A cue asks for assertions; a report that lacks some is told which, and what is added joins what was said before. The evidence stays
// whole, and the same report again is a repetition.
func TestRequiredAssertions(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		q := f.ok(f.admin, "cue.create", newCue("c", input{"verification": input{"required_assertions": []string{"rows", "backup"}}}))
		holds(t, q, map[string]any{"verification.mode": "none", "verification.required_assertions": []any{"rows", "backup"}})
		id := f.fire(q["id"].(string), nil)
		holds(t, f.ok(f.admin, "cue.update", input{"id": "c", "verification": input{"mode": "require_external_id"}}), map[string]any{"verification": map[string]any{"mode": "require_external_id"}})
		f.ok(f.admin, "execution.claim", input{"worker_id": "w"})
		report := input{"id": id, "success": true, "assertions": input{"rows": 12, "backup": false}}
		for range 2 {
			holds(t, f.ok(f.admin, "execution.report", report), map[string]any{"outcome_state": verificationFailed, "missing": []any{"assertions.backup"}})
		}
		f.refused(f.admin, "execution.report", input{"id": id, "success": true, "assertions": input{"rows": 12}}, 409, "outcome_already_recorded")
		holds(t, f.get(f.admin, id), map[string]any{"status": "success", "missing": []any{"assertions.backup"}, "verification.required_assertions": []any{"rows", "backup"}})
		holds(t, f.ok(f.admin, "execution.add_evidence", input{"id": id, "assertions": input{"backup": "s3", "by": "me"}}), map[string]any{"outcome_state": verifiedSuccess})
		e := f.get(f.admin, id)
		holds(t, e, map[string]any{"outcome.assertions": map[string]any{"rows": 12., "backup": "s3", "by": "me"}, "evidence_versions": 2.})
		if e["missing"] != nil {
			t.Errorf("verified, it lacks %v", e["missing"])
		}
		holds(t, f.ok(f.admin, "execution.check_evidence", input{"id": id}), map[string]any{"ok": true})
		f.sql("UPDATE executions SET outcome = replace(outcome, 's3', 's4')")
		holds(t, f.ok(f.admin, "execution.check_evidence", input{"id": id}), map[string]any{"ok": false})

		f.refused(f.admin, "cue.create", newCue("d", input{"verification": input{"required_assertions": []string{""}}}), 422, "validation_error")
		f.refused(f.admin, "cue.create", newCue("d", input{"verification": input{"required_assertions": make([]string, 21)}}), 422, "validation_error")
	})
}
