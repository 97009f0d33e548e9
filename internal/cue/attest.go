package cue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// AlreadyAttested is the conflict of two sessions.
var AlreadyAttested = op.Code{Status: 409, Name: "already_attested", Doc: "Another session attested this execution before. The first one stands."}

type attestInput struct {
	ID           string `json:"id" doc:"id of the execution"`
	SessionToken string `json:"session_token" min:"1" max:"128" doc:"names the session; only its hash is kept"`
}

type attestOutput struct {
	Attested      bool    `json:"attested"`
	ExecutionID   string  `json:"execution_id"`
	LiveClaimedAt op.Time `json:"live_claimed_at" doc:"when this session attested it first"`
}

// attest notes which live session says that it works on an execution, whatever its status (CueAPI wire contract 2.4, 9.8). The first
// one stands; nothing else depends on it.
func (c *Cues) attest(ctx context.Context, in attestInput) (out attestOutput, err error) {
	caller := c.caller(ctx)
	sum := sha256.Sum256([]byte(in.SessionToken))
	token := hex.EncodeToString(sum[:])
	err = c.DB.Update(ctx, func(tx *db.Tx) error {
		h, err := c.loadHeld(tx, caller, in.ID)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(sqlAttest, h.id, token, c.now()); err != nil {
			return fmt.Errorf("attest execution %s: %w", h.id, err)
		}
		out = attestOutput{Attested: true, ExecutionID: h.id}
		var stored string
		if err := tx.Row(sqlAttested, h.id).Scan(&stored, &out.LiveClaimedAt); err != nil {
			return fmt.Errorf("read who attested execution %s: %w", h.id, err)
		}
		if stored != token {
			return AlreadyAttested.Msg("Execution already has a live-claim attestation from a different session token")
		}
		return nil
	})
	return out, err
}
