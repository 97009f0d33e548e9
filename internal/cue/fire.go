package cue

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
	"unstuck/internal/webhook"
)

type fireInput struct {
	ID       string             `json:"id"`
	Override op.Opt[op.Object]  `json:"payload_override" doc:"for this execution only; it holds no API key of this server"`
	Strategy string             `json:"merge_strategy" default:"merge" enum:"merge|replace" doc:"merge: the override's members replace those of the cue's payload; replace: the override is the payload"`
	SendAt   op.Opt[op.Time]    `json:"send_at" doc:"not before this moment; now when absent or past"`
	Repeat   op.Opt[string]     `json:"idempotency_key" min:"1" max:"256" doc:"a text of your own, such as an order number: whoever fires this cue with it again within 24 hours gets the same execution"`
	Criteria op.Opt[[]op.Value] `json:"exit_criteria" max:"20" doc:"what the worker is to check before it reports: texts or objects, 8 KiB together. They are handed out with the work, and shown with the execution"`
}

const criteriaMost = 8 << 10 // bytes of exit_criteria

type fireOutput struct {
	ID           string        `json:"id" doc:"of the execution"`
	ExecutionID  string        `json:"execution_id" doc:"the same"`
	CueID        string        `json:"cue_id"`
	ScheduledFor op.OffsetTime `json:"scheduled_for"`
	Status       string        `json:"status"`
	TriggeredBy  string        `json:"triggered_by"`
	Transport    string        `json:"transport"`
	Repeated     bool          `json:"repeated" doc:"an earlier fire with this idempotency_key made the execution"`

	// CueAPI's verify-echo of a fire is of an empty body, whatever was sent (wire contract 1.12): its clients compare with that.
	BodyReceived op.Value `json:"body_received,omitempty" doc:"null, when X-CueAPI-Verify-Echo was sent"`
	BodyHash     string   `json:"body_received_sha256,omitempty"`
}

// emptyHash is the SHA-256 of nothing.
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// fire makes an execution by hand, whatever the cue's status. It is not a due time: schedule and ledger stay as they are.
func (c *Cues) fire(ctx context.Context, in fireInput) (out fireOutput, err error) {
	criteria := listJSON(in.Criteria.Val)
	if len(criteria) > criteriaMost || hasNUL(criteria) {
		return out, op.Invalid("body.exit_criteria", "Value error, exit_criteria have %d bytes at most, without null bytes", criteriaMost)
	}
	caller, now := c.caller(ctx), c.now()
	err = c.DB.Update(ctx, func(tx *db.Tx) error {
		q, err := loadCue(tx, caller, in.ID)
		if err != nil {
			return err
		}
		e, err := in.repeated(tx, q.id, now)
		repeated := e != nil
		if err == nil && !repeated {
			e, err = c.fireOnce(tx, caller, q, &in, now)
		}
		if err != nil {
			return err
		}
		out = fireOutput{
			ID: e.id, ExecutionID: e.id, CueID: q.id, ScheduledFor: op.OffsetTime(e.scheduledFor), Status: e.status, TriggeredBy: byFire,
			Transport: e.transport, Repeated: repeated,
		}
		if strings.EqualFold(strings.TrimSpace(op.CallOf(ctx).Request.Header.Get("X-CueAPI-Verify-Echo")), "true") {
			out.BodyReceived, out.BodyHash = op.Value("null"), emptyHash
		}
		return access.Record(tx, access.Event{Object: "cue", ID: q.id, Name: q.name, Detail: firedDetail{e.id, repeated}})
	})
	return out, err
}

type firedDetail struct {
	Execution string `json:"execution_id"`
	Repeated  bool   `json:"repeated,omitempty"`
}

// fireOnce makes the execution.
func (c *Cues) fireOnce(tx *db.Tx, caller *access.Caller, q *cue, in *fireInput, now op.Time) (*execution, error) {
	payload, err := in.payload(q.payload)
	if err != nil {
		return nil, err
	}
	if err := q.needs.check(in.Override.Set, payload); err != nil {
		return nil, err
	}
	if err := c.admitExecution(tx, q.workspace, now); err != nil {
		return nil, err
	}
	e := &execution{
		workspace: q.workspace, cueID: q.id, triggeredBy: byFire, firedBy: caller.KeyID(), scheduledFor: max(in.SendAt.Val, now),
		payload: payload, verification: q.mode(), maxAttempts: q.maxAttempts, createdAt: now, fireKey: in.Repeat.Val, fireBody: in.hash(),
		criteria: string(listJSON(in.Criteria.Val)),
	}
	return e, c.insertExecution(tx, e)
}

// repeatWithin is how long an idempotency key is remembered (CueAPI wire contract 10.1).
const repeatWithin = 24 * time.Hour

// repeated is the execution that an earlier fire with the same idempotency key made, as it is now; nil when there is none. Then
// the key is free.
func (f *fireInput) repeated(tx *db.Tx, cueID string, now op.Time) (*execution, error) {
	if !f.Repeat.Set {
		return nil, nil
	}
	e := &execution{}
	err := tx.Row(sqlFireRepeated, cueID, f.Repeat.Val).Scan(&e.id, &e.scheduledFor, &e.status, &e.transport, &e.fireBody, &e.createdAt)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look for a fire with the same idempotency key: %w", err)
	case now >= in(e.createdAt, repeatWithin):
		_, err := tx.Exec(sqlFireForget, e.id)
		return nil, err
	case e.fireBody != f.hash():
		return nil, FireKeyConflict.Msg("This idempotency_key belongs to another fire of the cue, with another body: execution %s. Take a new key, or send the same body.", e.id)
	}
	return e, nil
}

// hash names what a fire says, however its JSON is written; "" for one without an idempotency key, which nobody compares.
func (f *fireInput) hash() string {
	if !f.Repeat.Set {
		return ""
	}
	var override op.Object
	if f.Override.Set {
		override = f.Override.Val
	}
	sum := sha256.Sum256(canonical(op.Marshal(struct {
		Override op.Object
		Strategy string
		SendAt   op.Opt[op.Time]
		Criteria []op.Value
	}{override, f.Strategy, f.SendAt, f.Criteria.Val})))
	return hex.EncodeToString(sum[:])
}

// canonical is the same for all JSON texts that say the same: whatever the order of members, white space and escapes.
func canonical(raw []byte) []byte {
	if same, err := webhook.Body(raw); err == nil {
		return same
	}
	return raw
}

// payload is the effective payload. The text of every member stays as it was sent.
func (f *fireInput) payload(stored string) (string, error) {
	if !f.Override.Set {
		return stored, nil
	}
	payload := f.Override.Val
	if err := checkPayload(payload); err != nil {
		return "", err
	}
	if f.Strategy == "merge" {
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

// fireNeeds are what a cue asks of every fire by hand (CueAPI wire contract 10.1). The schedule fires the cue's own payload.
type fireNeeds struct {
	override bool
	keys     string // JSON list of members that the payload must have; "" for none
}

const neededKeyMost = 255 // bytes of a name in required_payload_keys

func (n *fireNeeds) set(keys []string) {
	if n.keys = ""; len(keys) > 0 {
		n.keys = string(op.Marshal(keys))
	}
}

// names are the members that the payload must have; nil for none.
func (n *fireNeeds) names() (keys []string) {
	_ = json.Unmarshal([]byte(n.keys), &keys) // what was written is a list of texts
	return keys
}

// check refuses a fire that does not bring what the cue asks for.
func (n *fireNeeds) check(override bool, payload string) error {
	if n.override && !override {
		return PayloadOverrideMissing.Msg("This cue is fired with a payload_override only.")
	}
	names := n.names()
	if len(names) == 0 {
		return nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(payload), &members); err != nil {
		return fmt.Errorf("read the payload of a fire: %w", err)
	}
	var missing []string
	for _, name := range names {
		if _, ok := members[name]; !ok {
			missing = append(missing, op.Quote(name))
		}
	}
	if len(missing) > 0 {
		return PayloadKeysMissing.Msg("The payload lacks %s, which this cue asks for.", strings.Join(missing, ", "))
	}
	return nil
}

// mode is the verification policy in force, as it is stored; "" when there is none.
func (q *cue) mode() string {
	if q.verification == nil {
		return ""
	}
	return *q.verification
}
