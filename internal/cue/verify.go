package cue

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

type verifyInput struct {
	ID     string         `json:"id" doc:"id of the execution"`
	Valid  bool           `json:"valid" default:"true" doc:"false rejects the outcome"`
	Reason op.Opt[string] `json:"reason" nul:"replace" doc:"of a rejection; it joins the summary; kept to 2,000 characters"`
}

type verifyOutput struct {
	ExecutionID  string  `json:"execution_id"`
	OutcomeState string  `json:"outcome_state"`
	Valid        bool    `json:"valid"`
	Reason       *string `json:"reason"`
}

// verify lets somebody confirm or reject an outcome (CueAPI wire contract 2.4).
func (c *Cues) verify(ctx context.Context, in verifyInput) (out verifyOutput, err error) {
	caller, reason := c.caller(ctx), given(in.Reason)
	cut(reason, reasonMost)
	err = c.DB.Update(ctx, func(tx *db.Tx) error {
		h, err := c.loadHeld(tx, caller, in.ID)
		if err != nil {
			return err
		}
		if !slices.Contains([]string{reportedSuccess, reportedFailure, verificationPending}, h.outcomeState) {
			state := h.outcomeState
			if state == "" {
				state = "None"
			}
			return InvalidState.Msg("Cannot verify from state '%s'", state)
		}
		body := linkBody{Valid: &in.Valid, Reason: reason, State: verifiedSuccess}
		if !in.Valid {
			body.State = verificationFailed
			if body.Evidence, err = rejection(h, reason); err != nil {
				return err
			}
		}
		if err := c.extend(tx, h, caller.KeyID(), whatVerify, body, c.now()); err != nil {
			return err
		}
		out = verifyOutput{ExecutionID: h.id, OutcomeState: body.State, Valid: in.Valid, Reason: reason}
		return access.Record(tx, access.Event{Object: "execution", ID: h.id, Name: h.cueName, Detail: verified{body.State}})
	})
	return out, err
}

type verified struct {
	OutcomeState string `json:"outcome_state"`
}

// rejection is how the reason of a rejection joins the summary; nil without one.
func rejection(h *held, reason *string) (*proof, error) {
	if reason == nil {
		return nil, nil
	}
	var o outcomeRecord
	if err := json.Unmarshal([]byte(h.outcome), &o); err != nil {
		return nil, fmt.Errorf("read the outcome of execution %s: %w", h.id, err)
	}
	summary := *reason
	if o.Summary != nil {
		summary = *o.Summary + " | verification rejected: " + *reason
	}
	cut(&summary, summaryMost)
	return &proof{Summary: &summary}, nil
}

type pendingOutput struct {
	ExecutionID  string `json:"execution_id"`
	OutcomeState string `json:"outcome_state"`
}

// markPending says that an outcome waits for somebody's judgement, whatever was said about it before.
func (c *Cues) markPending(ctx context.Context, in executionID) (out pendingOutput, err error) {
	caller := c.caller(ctx)
	err = c.DB.Update(ctx, func(tx *db.Tx) error {
		h, err := c.loadHeld(tx, caller, in.ID)
		if err != nil {
			if op.AsError(err).Code == ExecutionNotFound {
				return op.NotFound.Msg("Not Found") // as in the contract, here alone
			}
			return err
		}
		if h.outcomeState == "" {
			return NoOutcome.Msg("No outcome recorded yet")
		}
		if err := c.extend(tx, h, caller.KeyID(), whatPending, linkBody{State: verificationPending}, c.now()); err != nil {
			return err
		}
		out = pendingOutput{h.id, verificationPending}
		return access.Record(tx, access.Event{Object: "execution", ID: h.id, Name: h.cueName, Detail: verified{verificationPending}})
	})
	return out, err
}
