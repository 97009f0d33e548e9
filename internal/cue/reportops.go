package cue

import (
	"context"
	"encoding/json"
	"fmt"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

// reportInput is a report. Keys in what a worker says are hidden, not refused: a refused report is lost work.
type reportInput struct {
	ID         string             `json:"id" doc:"id of the execution"`
	Header     op.Opt[string]     `header:"X-Worker-Id" doc:"the worker that reports"`
	WorkerID   op.Opt[string]     `json:"worker_id" doc:"the same, in the body"`
	LeaseToken op.Opt[string]     `json:"lease_token" doc:"from the claim; without it workers that share a key cannot be told apart"`
	Success    bool               `json:"success"`
	Result     op.Opt[string]     `json:"result" secrets:"may" nul:"replace" doc:"what came out; kept to 16,384 characters"`
	Error      op.Opt[string]     `json:"error" secrets:"may" nul:"replace" doc:"what went wrong; kept to 16,384 characters"`
	Metadata   op.Opt[op.Object]  `json:"metadata" secrets:"may" doc:"anything else; up to 64 KiB of JSON"`
	ExternalID op.Opt[string]     `json:"external_id" secrets:"may" max:"500" nul:"replace" doc:"what another system calls the result"`
	ResultURL  op.Opt[string]     `json:"result_url" secrets:"may" format:"url" doc:"where the result is"`
	ResultRef  op.Opt[string]     `json:"result_ref" secrets:"may" max:"500" nul:"replace"`
	ResultType op.Opt[string]     `json:"result_type" secrets:"may" max:"100" nul:"replace"`
	Summary    op.Opt[string]     `json:"summary" secrets:"may" nul:"replace" doc:"one sentence for people; kept to 500 characters"`
	Artifacts  op.Opt[[]op.Value] `json:"artifacts" secrets:"may" doc:"any list of things that prove it"`
	Assertions op.Opt[op.Object]  `json:"assertions" secrets:"may" doc:"what you checked, by name, such as {\"rows_match\": true}; up to 64 KiB"`
}

type reportOutput struct {
	ExecutionID     string  `json:"execution_id"`
	OutcomeRecorded bool    `json:"outcome_recorded"`
	OutcomeState    string  `json:"outcome_state"`
	Reason          *string `json:"reason" doc:"always null"`
	Warning         *string `json:"warning" doc:"what somebody should look at, such as an API key in the text"`

	Missing []string `json:"missing,omitempty" doc:"what the success lacks to be verified by the cue's policy; it can be added as evidence"`
}

// report stores the outcome of an execution, once (CueAPI wire contract 2.4).
func (c *Cues) report(ctx context.Context, in reportInput) (reportOutput, error) {
	r := &report{
		caller: c.caller(ctx), id: in.ID, token: in.LeaseToken.Val, worker: workerOf(in.Header, in.WorkerID),
		said: said{Success: in.Success, proof: proof{
			ExternalID: given(in.ExternalID), ResultURL: given(in.ResultURL), ResultRef: given(in.ResultRef),
			ResultType: given(in.ResultType), Summary: given(in.Summary), Artifacts: listJSON(in.Artifacts.Val),
			Metadata: in.Metadata.Val, Assertions: in.Assertions.Val,
		}},
	}
	if in.Result.Set {
		r.said.Result = &in.Result.Val
	}
	if in.Error.Set {
		r.said.Error = &in.Error.Val
	}
	if err := c.record(ctx, r); err != nil {
		return reportOutput{}, err
	}
	return reportOutput{ExecutionID: r.id, OutcomeRecorded: true, OutcomeState: r.state, Warning: r.said.Warning, Missing: r.missing}, nil
}

type evidenceInput struct {
	ID         string             `json:"id" doc:"id of the execution"`
	Header     op.Opt[string]     `header:"X-Worker-Id" doc:"the worker that adds"`
	WorkerID   op.Opt[string]     `json:"worker_id" doc:"the same, in the body"`
	LeaseToken op.Opt[string]     `json:"lease_token" doc:"from the last claim"`
	ExternalID op.Opt[string]     `json:"external_id" secrets:"may" max:"500" nul:"replace"`
	ResultURL  op.Opt[string]     `json:"result_url" secrets:"may" format:"url"`
	ResultRef  op.Opt[string]     `json:"result_ref" secrets:"may" max:"500" nul:"replace"`
	ResultType op.Opt[string]     `json:"result_type" secrets:"may" max:"100" nul:"replace"`
	Summary    op.Opt[string]     `json:"summary" secrets:"may" nul:"replace" doc:"kept to 500 characters"`
	Artifacts  op.Opt[[]op.Value] `json:"artifacts" secrets:"may"`
	Metadata   op.Opt[op.Object]  `json:"metadata" secrets:"may" doc:"replaces the metadata of before"`
	Assertions op.Opt[op.Object]  `json:"assertions" secrets:"may" doc:"joins the assertions of before, member by member"`
}

type evidenceOutput struct {
	ExecutionID     string  `json:"execution_id"`
	OutcomeState    string  `json:"outcome_state"`
	EvidenceUpdated bool    `json:"evidence_updated"`
	Warning         *string `json:"warning" doc:"what somebody should look at, such as an API key in the text"`
}

// proof is what the input adds; empty values add nothing.
func (in *evidenceInput) proof() proof {
	p := proof{
		ExternalID: given(in.ExternalID), ResultURL: given(in.ResultURL), ResultRef: given(in.ResultRef),
		ResultType: given(in.ResultType), Summary: given(in.Summary), Artifacts: listJSON(in.Artifacts.Val),
	}
	if string(in.Metadata.Val) != "{}" {
		p.Metadata = in.Metadata.Val
	}
	if string(in.Assertions.Val) != "{}" {
		p.Assertions = in.Assertions.Val
	}
	return p
}

// addEvidence adds a version of the evidence and asks the policy again: an outcome that lacked its evidence becomes verified
// when it is there, unless somebody has judged the outcome since.
func (c *Cues) addEvidence(ctx context.Context, in evidenceInput) (out evidenceOutput, err error) {
	caller, added, body := c.caller(ctx), in.proof(), linkBody{}
	found := added.redact()
	if found > 0 {
		body.Warning = ptr(redactedWarning)
	}
	cut(added.Summary, summaryMost)
	if added.large() {
		return out, tooLarge()
	}
	body.Evidence = &added
	err = c.DB.Update(ctx, func(tx *db.Tx) error {
		now := c.now()
		h, err := c.loadReported(tx, caller, &in, now)
		if err != nil {
			return err
		}
		out = evidenceOutput{ExecutionID: h.id, OutcomeState: h.outcomeState, EvidenceUpdated: true, Warning: body.Warning}
		if added.empty() && added.Metadata == nil && added.Assertions == nil {
			return nil
		}
		if out.OutcomeState, err = afterEvidence(tx, h, added); err != nil {
			return err
		}
		body.State = out.OutcomeState
		if err := c.extend(tx, h, caller.KeyID(), whatEvidence, body, now); err != nil || found == 0 {
			return err
		}
		return recordRedaction(tx, h, found)
	})
	return out, err
}

// loadReported reads an execution that has an outcome, to whose evidence the call may add.
func (c *Cues) loadReported(tx *db.Tx, caller *access.Caller, in *evidenceInput, now op.Time) (*held, error) {
	worker := workerOf(in.Header, in.WorkerID)
	h, err := c.loadHeld(tx, caller, in.ID)
	if err != nil {
		return nil, err
	}
	if err := c.mayReport(h, caller, worker, now); err != nil {
		return nil, err
	}
	if h.outcomeState == "" {
		return nil, NoOutcome.Msg("Report outcome first before appending evidence")
	}
	return h, c.fence(h, caller, in.LeaseToken.Val, worker, now)
}

// afterEvidence is the state of an outcome once this evidence is there too.
func afterEvidence(tx *db.Tx, h *held, added proof) (string, error) {
	if h.outcomeState != verificationFailed || h.outcomeSuccess == nil || !*h.outcomeSuccess {
		return h.outcomeState, nil
	}
	var judged int64
	if err := tx.Row(sqlEvidenceJudged, h.outcomeAt, h.id).Scan(&judged); err != nil {
		return "", fmt.Errorf("look whether the outcome of execution %s was judged: %w", h.id, err)
	}
	if judged > 0 {
		return h.outcomeState, nil
	}
	var o outcomeRecord
	if err := json.Unmarshal([]byte(h.outcome), &o); err != nil {
		return "", fmt.Errorf("read the outcome of execution %s: %w", h.id, err)
	}
	o.proof.add(&added)
	return policyOf(h.verification).judge(true, &o.proof), nil
}

// evidenceVersion is one link of the chain on the wire.
type evidenceVersion struct {
	Version int64     `json:"version"`
	At      op.Time   `json:"at"`
	KeyID   string    `json:"key_id"`
	What    string    `json:"what" doc:"outcome, evidence, verify or verification_pending"`
	Body    op.Object `json:"body" doc:"what was said; null when it is broken"`
	Hash    string    `json:"hash" doc:"HMAC-SHA-256 over the version before and this one, under the server secret"`
}

type checkOutput struct {
	ExecutionID string            `json:"execution_id"`
	OK          bool              `json:"ok"`
	Fault       *string           `json:"fault" doc:"the first thing that is not as it was written"`
	Versions    []evidenceVersion `json:"versions"`
}

// checkEvidence holds an execution against its chain of evidence and shows the chain.
func (c *Cues) checkEvidence(ctx context.Context, in executionID) (out checkOutput, err error) {
	err = c.DB.View(ctx, func(tx *db.Tx) error {
		e, err := c.loadExecution(tx, c.caller(ctx), in.ID)
		if err != nil {
			return err
		}
		rows, err := tx.Query(sqlEvidenceAll, e.outcomeAt, e.id)
		links, err := scanAll(rows, err, (*link).scan)
		if err != nil {
			return fmt.Errorf("read the evidence of execution %s: %w", e.id, err)
		}
		fault := c.checkChain(e, links)
		if fault == "" {
			if fault, err = c.checkAge(tx, links); err != nil {
				return err
			}
		}
		out = checkOutput{ExecutionID: e.id, Fault: orNil(fault), Versions: make([]evidenceVersion, len(links))}
		out.OK = out.Fault == nil
		for i, l := range links {
			out.Versions[i] = evidenceVersion{Version: l.version, At: l.at, KeyID: l.keyID, What: l.what, Hash: l.hash}
			if json.Valid([]byte(l.body)) {
				out.Versions[i].Body = op.Object(l.body)
			}
		}
		return nil
	})
	return out, err
}
