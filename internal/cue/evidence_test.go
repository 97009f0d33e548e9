package cue

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"

	"pgregory.net/rapid"
)

// Evidence is added in versions; what is given replaces, what is empty does nothing.
func TestAddEvidence(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		id, token := f.taken(worker, "")
		f.refused(worker, "execution.add_evidence", input{"id": id, "lease_token": token, "summary": "s"}, 409, "no_outcome")
		f.ok(worker, "execution.report", input{"id": id, "lease_token": token, "success": true, "external_id": "x", "summary": "s", "metadata": input{"a": 1}})
		for _, args := range []input{
			{"summary": "t", "result_ref": "r"},
			{"external_id": "", "summary": nil, "artifacts": []any{}, "metadata": input{}},
			{},
			{"artifacts": []any{1}, "metadata": input{"b": 2}, "summary": strings.Repeat("u", 600)},
		} {
			args["id"] = id
			f.clock.Advance(time.Second)
			out := f.ok(worker, "execution.add_evidence", args)
			sameKeys(t, out, []string{"execution_id", "outcome_state", "evidence_updated", "warning"})
			if out["evidence_updated"] != true || out["outcome_state"] != reportedSuccess {
				t.Errorf("%v: %v", args, out)
			}
		}
		o := f.outcome(id)
		if o["external_id"] != "x" || o["summary"] != strings.Repeat("u", 500) || o["result_ref"] != "r" || o["metadata"].(map[string]any)["b"] != 2.0 || len(o["artifacts"].([]any)) != 1 {
			t.Errorf("outcome: %v", o)
		}
		if o["recorded_at"] != "2026-11-23T10:01:40Z" {
			t.Errorf("recorded at %v", o["recorded_at"])
		}
		check := f.ok(worker, "execution.check_evidence", input{"id": id})
		if check["ok"] != true || len(check["versions"].([]any)) != 3 {
			t.Errorf("check: %v", check)
		}
		for field, value := range map[string]any{"external_id": 7, "result_url": "x", "artifacts": "x", "metadata": 1, "result_type": strings.Repeat("x", 101)} {
			if err := f.refused(worker, "execution.add_evidence", input{"id": id, field: value}, 422, "validation_error"); err.Details[0].Field != "body."+field {
				t.Errorf("%s: %v", field, err)
			}
		}
		f.refused(worker, "execution.add_evidence", input{"id": newUUID(0)}, 404, "execution_not_found")
		f.refused(worker, "execution.add_evidence", input{"id": id, "metadata": input{"x": strings.Repeat("x", metadataMost)}}, 400, "metadata_too_large")
	})
}

// The policy is asked again when evidence is added: an outcome that lacked it becomes verified, unless somebody judged it.
func TestEvidenceAsksThePolicyAgain(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		report := func(mode string, success bool) string {
			id, token := f.taken(worker, mode)
			f.ok(worker, "execution.report", input{"id": id, "lease_token": token, "success": success})
			return id
		}
		add := func(id string, args input) any {
			args["id"] = id
			return f.ok(worker, "execution.add_evidence", args)["outcome_state"]
		}
		id := report("require_external_id", true)
		if got := add(id, input{"summary": "not what it takes"}); got != verificationFailed {
			t.Errorf("without what the policy asks: %v", got)
		}
		if got := add(id, input{"external_id": "x"}); got != verifiedSuccess {
			t.Errorf("with it: %v", got)
		}
		if got := f.get(worker, id)["outcome_state"]; got != verifiedSuccess {
			t.Errorf("stored: %v", got)
		}
		if got := add(report("require_external_id", false), input{"external_id": "x"}); got != reportedFailure {
			t.Errorf("a failure: %v", got)
		}
		if got := add(report("manual", true), input{"external_id": "x"}); got != verificationPending {
			t.Errorf("manual: %v", got)
		}
		rejected := report("require_result_url", true)
		f.ok(f.admin, "execution.mark_pending", input{"id": rejected})
		f.ok(f.admin, "execution.verify", input{"id": rejected, "valid": false})
		if got := add(rejected, input{"result_url": "https://example.com"}); got != verificationFailed {
			t.Errorf("rejected by somebody: %v", got)
		}
	})
}

// Whatever is changed in the rows of a chain, or in the outcome that the execution shows, is found.
func TestCheckFindsAnyChange(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		id, token := f.taken(worker, "manual")
		f.ok(worker, "execution.report", input{"id": id, "lease_token": token, "success": true, "summary": "s"})
		f.ok(worker, "execution.add_evidence", input{"id": id, "result_url": "https://example.com"})
		f.ok(f.admin, "execution.verify", input{"id": id, "valid": false, "reason": "why"})
		f.ok(f.admin, "execution.mark_pending", input{"id": id})
		check := func() map[string]any { return f.ok(worker, "execution.check_evidence", input{"id": id}) }
		if got := check(); got["ok"] != true {
			t.Fatalf("untouched: %v", got)
		}
		other, token := f.taken(worker, "")
		f.ok(worker, "execution.report", input{"id": other, "lease_token": token, "success": true})
		for _, c := range []struct{ change, back string }{
			{`UPDATE evidence SET at = at + 1 WHERE version = 2`, `UPDATE evidence SET at = at - 1 WHERE version = 2`},
			{`UPDATE evidence SET key_id = key_id || 'x' WHERE version = 3`, `UPDATE evidence SET key_id = substr(key_id, 1, length(key_id) - 1) WHERE version = 3`},
			{`UPDATE evidence SET what = 'verify' WHERE version = 4`, `UPDATE evidence SET what = 'verification_pending' WHERE version = 4`},
			{`UPDATE evidence SET body = body || ' ' WHERE version = 1`, `UPDATE evidence SET body = substr(body, 1, length(body) - 1) WHERE version = 1`},
			{`UPDATE evidence SET body = 'no JSON' || body WHERE version = 1`, `UPDATE evidence SET body = substr(body, 8) WHERE version = 1`},
			{`UPDATE evidence SET hash = 'f' || hash WHERE version = 4`, `UPDATE evidence SET hash = substr(hash, 2) WHERE version = 4`},
			{`UPDATE evidence SET version = 5 WHERE version = 4`, `UPDATE evidence SET version = 4 WHERE version = 5`},
			{`UPDATE evidence SET execution_id = 'x' WHERE version = 4`, `UPDATE evidence SET execution_id = '` + id + `' WHERE version = 4`},
			{`UPDATE executions SET outcome = replace(outcome, '"success":true', '"success":false')`, `UPDATE executions SET outcome = replace(outcome, '"success":false', '"success":true')`},
			{`UPDATE executions SET outcome_state = 'verified_success' WHERE id = '` + id + `'`, `UPDATE executions SET outcome_state = 'verification_pending' WHERE id = '` + id + `'`},
			{`UPDATE executions SET outcome_success = 0`, `UPDATE executions SET outcome_success = 1`},
			{`UPDATE executions SET outcome_at = outcome_at + 1`, `UPDATE executions SET outcome_at = outcome_at - 1`},
			{`UPDATE executions SET reported_by = reported_by || 'x'`, `UPDATE executions SET reported_by = substr(reported_by, 1, length(reported_by) - 1)`},
			{`UPDATE executions SET has_evidence = 1 - has_evidence`, `UPDATE executions SET has_evidence = 1 - has_evidence`},
			{`UPDATE executions SET result_type = result_type || 'x'`, `UPDATE executions SET result_type = ''`},
			{`UPDATE executions SET evidence_count = evidence_count + 1`, `UPDATE executions SET evidence_count = evidence_count - 1`},
			{`UPDATE evidence SET execution_id = 'x' WHERE execution_id = '` + id + `'`, `UPDATE evidence SET execution_id = '` + id + `' WHERE execution_id = 'x'`},
		} {
			f.sql(c.change)
			if got := check(); got["ok"] != false || got["fault"] == nil {
				t.Errorf("not found: %s", c.change)
			}
			f.sql(c.back)
		}
		if got := check(); got["ok"] != true {
			t.Fatalf("changed back: %v", got)
		}
		f.sql(`UPDATE evidence SET body = (SELECT o.body FROM evidence o WHERE o.execution_id = ?1 AND o.version = 1), key_id = (SELECT o.key_id FROM evidence o WHERE o.execution_id = ?1 AND o.version = 1),
			at = (SELECT o.at FROM evidence o WHERE o.execution_id = ?1 AND o.version = 1), hash = (SELECT o.hash FROM evidence o WHERE o.execution_id = ?1 AND o.version = 1) WHERE execution_id = ?2 AND version = 1`, other, id)
		if got := check(); got["ok"] != false {
			t.Errorf("a row of another execution's chain was not found")
		}
	})
}

// Who writes to the database, but does not know the server secret, cannot make a chain that passes: here one that is whole by the
// reckoning of another server. A chain stays good across a rotation of the server secret, and goes on under the new one.
func TestChainTakesTheServerSecret(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker, other := f.key("worker", nil), onSQLite(t).cues
		id, token := f.taken(worker, "")
		f.ok(worker, "execution.report", input{"id": id, "lease_token": token, "success": true, "summary": "s"})
		check := func() map[string]any { return f.ok(worker, "execution.check_evidence", input{"id": id}) }
		f.secrets = access.ServerSecrets(string(f.secrets) + "2:" + strings.Repeat("second", 8))
		f.restart()
		f.ok(worker, "execution.add_evidence", input{"id": id, "summary": "t"})
		if got := check(); got["ok"] != true {
			t.Fatalf("after a rotation: %v", got["fault"])
		}
		if n := f.number("SELECT count(DISTINCT epoch) FROM evidence WHERE execution_id = ?1", id); n != 2 {
			t.Errorf("the chain is under %d server secrets", n)
		}
		var l link
		f.must(f.db.View(t.Context(), func(tx *db.Tx) error {
			return l.scan(tx.Row("SELECT " + linkColumns + " FROM evidence WHERE version = 1"))
		}))
		l.epoch = 1
		f.sql("UPDATE evidence SET hash = ?1 WHERE version = 1", other.sum(&l, genesis(id)))
		if got := check(); got["ok"] != false || !strings.Contains(got["fault"].(string), "version 1 was changed") {
			t.Errorf("a chain without the server secret: %v", got["fault"])
		}
		f.sql("UPDATE evidence SET epoch = 3 WHERE version = 1")
		if got := check(); !strings.Contains(fmt.Sprint(got["fault"]), "server secret 3, which is not known here") {
			t.Errorf("an unknown server secret: %v", got["fault"])
		}
	})
}

// Who has an older server secret and can write to the database adds nothing to a chain: neither behind a version that was written since it
// was replaced, nor with a time since then.
func TestReplacedServerSecretAddsNoEvidence(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		id, token := f.taken(worker, "")
		f.ok(worker, "execution.report", input{"id": id, "lease_token": token, "success": true, "summary": "s"})
		f.clock.Advance(time.Hour)
		f.secrets = access.ServerSecrets(string(f.secrets) + "2:" + strings.Repeat("second", 8))
		f.restart()
		fault := func() string {
			got := f.ok(worker, "execution.check_evidence", input{"id": id})
			return fmt.Sprint(got["fault"])
		}
		if got := fault(); got != "<nil>" {
			t.Fatalf("after the rotation: %v", got)
		}
		forge := func(version int64, at op.Time) {
			var last link
			f.must(f.db.View(t.Context(), func(tx *db.Tx) error {
				return last.scan(tx.Row("SELECT "+linkColumns+" FROM evidence WHERE execution_id = ?1 AND version = ?2", id, version-1))
			}))
			l := link{outcomeAt: last.outcomeAt, execution: id, version: version, at: at, keyID: last.keyID, what: whatVerify, body: `{"valid":true,"outcome_state":"verified_success"}`, epoch: 1}
			l.hash = f.cues.sum(&l, last.hash) // under the old one
			f.must(f.db.Update(t.Context(), func(tx *db.Tx) error { return l.save(tx) }))
			f.sql("UPDATE executions SET evidence_count = ?1, outcome_state = 'verified_success'", version)
		}
		forge(2, f.cues.now()+clockSlack+1)
		if got := fault(); !strings.Contains(got, "version 2, of") || !strings.Contains(got, "server secret 1, which was replaced at") {
			t.Errorf("a forged version: %s", got)
		}
		f.sql("DELETE FROM evidence WHERE version = 2")
		f.sql("UPDATE executions SET evidence_count = 1, outcome_state = 'reported_success'")
		f.ok(worker, "execution.add_evidence", input{"id": id, "summary": "t"})
		if got := fault(); got != "<nil>" {
			t.Errorf("a true version: %v", got)
		}
		forge(3, 1)
		if got := fault(); !strings.Contains(got, "version 3 was written under server secret 1, which 2 had replaced before") {
			t.Errorf("a forged version behind a newer one: %s", got)
		}
	})
}

// Any byte of any column of any row that changes is found, and so is a row that is left out, doubled or moved.
func TestChainProperty(t *testing.T) {
	c := onSQLite(t).cues // which only lends its server secret
	rapid.Check(t, func(t *rapid.T) {
		e, links := chainOf(t, c)
		if fault := c.checkChain(e, links); fault != "" {
			t.Fatalf("untouched: %s", fault)
		}
		i := rapid.IntRange(0, len(links)-1).Draw(t, "row")
		l := &links[i]
		switch what := rapid.SampledFrom([]string{"body", "key", "what", "hash", "at", "version", "epoch", "drop", "double", "swap"}).Draw(t, "change"); what {
		case "body":
			l.body = flip(t, l.body)
		case "key":
			l.keyID = flip(t, l.keyID)
		case "what":
			l.what = flip(t, l.what)
		case "hash":
			l.hash = flip(t, l.hash)
		case "at":
			l.at ^= 1 << rapid.IntRange(0, 62).Draw(t, "bit")
		case "version":
			l.version ^= 1 << rapid.IntRange(0, 62).Draw(t, "bit")
		case "epoch":
			l.epoch ^= 1 << rapid.IntRange(0, 62).Draw(t, "bit")
		case "drop":
			links = append(links[:i:i], links[i+1:]...)
		case "double":
			links = append(links[:i+1:i+1], links[i:]...)
		case "swap":
			j := (i + 1) % len(links)
			if i == j {
				return
			}
			links[i], links[j] = links[j], links[i]
		}
		if c.checkChain(e, links) == "" {
			t.Fatal("the change was not found")
		}
	})
}

// chainOf makes an execution with a chain of evidence, as the product would.
func chainOf(t *rapid.T, c *Cues) (*execution, []link) {
	word := rapid.StringMatching(`[a-z"\\é ]{0,12}`)
	s := said{Success: rapid.Bool().Draw(t, "success"), Result: ptr(word.Draw(t, "result")), proof: proof{ExternalID: orNil(word.Draw(t, "id"))}}
	e := &execution{id: newUUID(0), reportedBy: "key_1", outcomeState: reportedSuccess, outcomeSuccess: &s.Success}
	at := op.Time(rapid.Int64Range(0, 4e15).Draw(t, "at"))
	o := outcomeRecord{s, at}
	e.outcomeAt = &at
	first := link{execution: e.id, version: 1, at: at, keyID: "key_1", what: whatOutcome, body: reportBody(string(op.Marshal(s)), e.outcomeState)}
	c.seal(&first, genesis(e.id))
	links := []link{first}
	for i := range rapid.IntRange(0, 4).Draw(t, "more") {
		b := linkBody{Evidence: &proof{Summary: ptr(word.Draw(t, fmt.Sprint("summary ", i)))}, State: verificationPending}
		o.apply(&b)
		l := link{execution: e.id, version: int64(i) + 2, at: at + op.Time(i), keyID: "key_2", what: whatEvidence, body: string(op.Marshal(b))}
		c.seal(&l, links[i].hash)
		links, e.outcomeState = append(links, l), b.State
	}
	e.outcome, e.evidenceCount, e.hasEvidence = string(op.Marshal(o)), int64(len(links)), !o.proof.empty()
	return e, links
}

// flip changes one byte of a text.
func flip(t *rapid.T, s string) string {
	b := []byte(s)
	b[rapid.IntRange(0, len(b)-1).Draw(t, "byte")] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
	return string(b)
}
