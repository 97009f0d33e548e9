package cue

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

type fireInput struct {
	ID       string            `json:"id"`
	Override op.Opt[op.Object] `json:"payload_override" doc:"for this execution only; it holds no API key of this server"`
	Strategy string            `json:"merge_strategy" default:"merge" enum:"merge|replace" doc:"merge: the override's members replace those of the cue's payload; replace: the override is the payload"`
	SendAt   op.Opt[op.Time]   `json:"send_at" doc:"not before this moment; now when absent or past"`

	// CueAPI's further fields. They are named here so that they are refused, where other unknown fields are ignored.
	Criteria op.Opt[op.Value] `json:"exit_criteria" doc:"not part of this version"`
	Repeat   op.Opt[op.Value] `json:"idempotency_key" doc:"not part of this version"`
}

type fireOutput struct {
	ID           string        `json:"id" doc:"of the new execution"`
	ExecutionID  string        `json:"execution_id" doc:"the same"`
	CueID        string        `json:"cue_id"`
	ScheduledFor op.OffsetTime `json:"scheduled_for"`
	Status       string        `json:"status"`
	TriggeredBy  string        `json:"triggered_by"`
	Transport    string        `json:"transport"`

	// CueAPI's verify-echo of a fire is of an empty body, whatever was sent (wire contract 1.12): its clients compare with that.
	BodyReceived op.Value `json:"body_received,omitempty" doc:"null, when X-CueAPI-Verify-Echo was sent"`
	BodyHash     string   `json:"body_received_sha256,omitempty"`
}

// emptyHash is the SHA-256 of nothing.
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// fire makes an execution by hand, whatever the cue's status. It is not a due time: schedule and ledger stay as they are.
func (c *Cues) fire(ctx context.Context, in fireInput) (out fireOutput, err error) {
	switch {
	case in.Criteria.Set:
		return out, unbuilt("exit_criteria")
	case in.Repeat.Set:
		return out, unbuilt("idempotency_key")
	}
	caller, now := c.caller(ctx), c.now()
	err = c.DB.Update(ctx, func(tx *db.Tx) error {
		q, err := loadCue(tx, caller, in.ID)
		if err != nil {
			return err
		}
		payload, err := in.payload(q.payload)
		if err != nil {
			return err
		}
		if err := c.admitExecution(tx, q.workspace, now); err != nil {
			return err
		}
		e := &execution{
			workspace: q.workspace, cueID: q.id, triggeredBy: byFire, firedBy: caller.KeyID(), scheduledFor: max(in.SendAt.Val, now),
			payload: payload, verification: q.mode(), maxAttempts: q.maxAttempts, createdAt: now,
		}
		if err := c.insertExecution(tx, e); err != nil {
			return err
		}
		out = fireOutput{
			ID: e.id, ExecutionID: e.id, CueID: q.id, ScheduledFor: op.OffsetTime(e.scheduledFor), Status: e.status, TriggeredBy: byFire,
			Transport: e.transport,
		}
		if strings.EqualFold(strings.TrimSpace(op.CallOf(ctx).Request.Header.Get("X-CueAPI-Verify-Echo")), "true") {
			out.BodyReceived, out.BodyHash = op.Value("null"), emptyHash
		}
		return access.Record(tx, access.Event{Object: "cue", ID: q.id, Name: q.name, Detail: firedDetail{e.id}})
	})
	return out, err
}

type firedDetail struct {
	Execution string `json:"execution_id"`
}

// payload is the effective payload. The text of every member stays as it was sent.
func (in *fireInput) payload(stored string) (string, error) {
	if !in.Override.Set {
		return stored, nil
	}
	payload := in.Override.Val
	if err := checkPayload(payload); err != nil {
		return "", err
	}
	if in.Strategy == "merge" {
		var members, over map[string]json.RawMessage
		if err := json.Unmarshal([]byte(stored), &members); err != nil {
			return "", fmt.Errorf("read the payload of a cue: %w", err)
		}
		if err := json.Unmarshal(payload, &over); err != nil {
			return "", fmt.Errorf("read a payload override: %w", err)
		}
		maps.Copy(members, over)
		payload = op.Marshal(members)
	}
	return string(payload), checkSize(payload)
}

// mode is the verification mode in force; "" when there is none.
func (q *cue) mode() string {
	if q.verification == nil {
		return ""
	}
	return *q.verification
}
