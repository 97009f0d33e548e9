package cue

import (
	"encoding/json"
	"strings"

	"unstuck/internal/op"
)

// Verification modes (CueAPI wire contract 2.4).
const (
	verifyNone       = "none"
	verifyExternalID = "require_external_id"
	verifyResultURL  = "require_result_url"
	verifyArtifacts  = "require_artifacts"
	verifyManual     = "manual"
)

// policy is what a reported success must bring to count. The one in force when an execution is fired is its for good.
type policy struct {
	mode       string   // "" for none
	assertions []string // members that the outcome's assertions must have (CueAPI wire contract 10.1)
}

// String is the policy as it is stored: its mode and, where it asks for assertions, a space and a JSON list of their names.
func (p policy) String() string {
	if len(p.assertions) == 0 {
		return p.mode
	}
	return p.mode + " " + string(op.Marshal(p.assertions))
}

func policyOf(stored string) (p policy) {
	mode, list, asserts := strings.Cut(stored, " ")
	p.mode = mode
	if asserts {
		_ = json.Unmarshal([]byte(list), &p.assertions) // what was written is a list of texts
	}
	return p
}

// judge is the state of an outcome.
func (p policy) judge(success bool, e *proof) string {
	switch {
	case !success:
		return reportedFailure
	case len(p.missing(e)) > 0:
		return verificationFailed
	case p.mode == verifyManual:
		return verificationPending
	case (p.mode == "" || p.mode == verifyNone) && len(p.assertions) == 0:
		return reportedSuccess
	}
	return verifiedSuccess
}

// missing names what the policy asks for and the evidence lacks: inputs of a report, and assertions as "assertions.name". An
// assertion that is false or null is not made.
func (p policy) missing(e *proof) (out []string) {
	for _, f := range []struct {
		mode, name string
		there      bool
	}{
		{verifyExternalID, "external_id", e.ExternalID != nil}, {verifyResultURL, "result_url", e.ResultURL != nil},
		{verifyArtifacts, "artifacts", e.Artifacts != nil},
	} {
		if p.mode == f.mode && !f.there {
			out = append(out, f.name)
		}
	}
	if len(p.assertions) == 0 {
		return out
	}
	var made map[string]json.RawMessage
	_ = json.Unmarshal(e.Assertions, &made) // of none, or of what was read as an object
	for _, name := range p.assertions {
		if v := string(made[name]); v == "" || v == "false" || v == "null" {
			out = append(out, "assertions."+name)
		}
	}
	return out
}

// lacks is what the outcome of an execution lacks by its policy; nil when it was not reported as a success, or was judged by
// somebody since.
func (e *execution) lacks() []string {
	var o outcomeRecord
	if e.outcomeState != verificationFailed || json.Unmarshal([]byte(e.outcome), &o) != nil {
		return nil
	}
	return policyOf(e.verification).missing(&o.proof)
}

type verificationInput struct {
	Mode       string           `json:"mode" default:"none" enum:"none|require_external_id|require_result_url|require_artifacts|manual" doc:"what a reported success must bring to count"`
	Assertions op.Opt[[]string] `json:"required_assertions" max:"20" doc:"members that the outcome's assertions must have, neither false nor null; beside what the mode asks for"`
}

// policy is the policy that the input asks for.
func (in *verificationInput) policy() (policy, error) {
	for _, name := range in.Assertions.Val {
		if name == "" || len(name) > neededKeyMost {
			return policy{}, op.Invalid("body.verification.required_assertions", "Value error, a name has from 1 to %d bytes", neededKeyMost)
		}
	}
	return policy{in.Mode, in.Assertions.Val}, nil
}

type verifyObject struct {
	Mode       string   `json:"mode"`
	Assertions []string `json:"required_assertions,omitempty" doc:"members that the outcome's assertions must have"`
}

func (p policy) object() *verifyObject {
	if p.mode == "" {
		return nil
	}
	return &verifyObject{p.mode, p.assertions}
}
