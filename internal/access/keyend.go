package access

import (
	"context"
	"errors"
	"slices"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// keyRotate is the input of key.rotate.
type keyRotate struct {
	ID        string          `json:"id" doc:"id of the key"`
	Now       bool            `json:"now" default:"false" doc:"end the old secret in the same moment"`
	Finish    bool            `json:"finish" default:"false" doc:"make no new secret: end the old one now"`
	Overlap   op.Opt[string]  `json:"overlap" doc:"how long the old secret goes on after the first use of the new one; 0 to 30d, default 24h"`
	Reason    string          `json:"reason" default:"" max:"500" doc:"kept in the audit log; leaked means now"`
	ExpiresIn op.Opt[string]  `json:"expires_in" doc:"a new end of the key; not for a key that rotates itself"`
	ExpiresAt op.Opt[op.Time] `json:"expires_at" doc:"instead of expires_in"`
}

// Rotated is a key after a rotation. Secret is empty when only the old one was ended.
type Rotated struct {
	Key
	Secret string `json:"key" doc:"the new secret, shown this once; empty after finish"`
}

func (a *Access) rotateKey(ctx context.Context, in keyRotate) (out Rotated, err error) {
	overlap, err := in.overlap()
	if err != nil {
		return out, err
	}
	c := From(ctx)
	err = a.DB.Update(ctx, func(tx *db.Tx) error {
		row, err := a.mayShow(tx, c, in.ID)
		if err != nil {
			return err
		}
		if in.Finish {
			return a.finishRotation(tx, row, in.Reason, &out)
		}
		if err := a.newEnd(tx, c, &row, in); err != nil {
			return err
		}
		made, err := a.turn(tx, row, overlap)
		if err != nil {
			return err
		}
		out = Rotated{Key: made.Key, Secret: made.Secret}
		return Record(tx, Event{Object: "key", ID: row.id, Name: row.name, Detail: map[string]any{"secret": lastRedacted(made.Key), "now": overlap < 0, "reason": in.Reason}})
	})
	return out, err
}

func lastRedacted(k Key) string {
	if len(k.Secrets) == 0 {
		return ""
	}
	return k.Secrets[0].Redacted
}

// overlap is how long the old secret goes on; -1 when it ends at once.
func (in keyRotate) overlap() (int64, error) {
	if in.Now && in.Finish {
		return 0, op.Invalid("body.finish", "Send now or finish, not both")
	}
	if in.Now || in.Reason == "leaked" {
		return -1, nil
	}
	text := in.Overlap.Or("24h")
	us, err := parseSpan(text)
	if text == "0" {
		us, err = 0, nil
	}
	if err != nil || us < 0 || us > maxOverlap {
		return 0, op.Invalid("body.overlap", "Write a duration from 0 to 30d, such as 24h")
	}
	return us, nil
}

// mayShow finds a key whose secret the caller may be shown: itself, what is below it, or, without restrictions, what is no wider
// than the caller. An integration key must be full for the last.
func (a *Access) mayShow(tx *db.Tx, c *Caller, id string) (keyRow, error) {
	row, err := findKey(tx, c, id)
	if err != nil {
		return row, err
	}
	r, err := a.callerRights(tx, c)
	if err != nil {
		return row, err
	}
	target, err := a.rightsOf(tx, row.workspace, row.id)
	if err != nil {
		return row, err
	}
	switch {
	case row.revoked != nil || target.why == revoked:
		return row, KeyEnded.Msg("Key %s was revoked, and nothing revives it. Make a new one.", row.id)
	case row.id == c.KeyID():
		if !r.perms.has("keys:write") && !r.perms.has("keys:rotate-self") {
			return row, a.missing(c.holding(r.perms), c.call.Operation, "keys:rotate-self")
		}
		return row, nil
	}
	if !r.perms.has("keys:write") {
		return row, a.missing(c.holding(r.perms), c.call.Operation, "keys:write")
	}
	if slices.Contains(target.chain, c.KeyID()) {
		return row, nil
	}
	if r.restricted {
		return row, a.restrictedMaker(c, "be shown the secret of another key")
	}
	lacks := target.own &^ r.perms
	if r.kind == "integration" {
		lacks = allPerms &^ r.perms
	}
	if lacks != 0 {
		return row, a.missing(c.holding(r.perms), c.call.Operation, lacks.names()...)
	}
	return row, nil
}

// newEnd sets a new expiry while rotating, for whoever may create the key; a key that rotates itself keeps its own.
func (a *Access) newEnd(tx *db.Tx, c *Caller, row *keyRow, in keyRotate) error {
	if !in.ExpiresIn.Set && !in.ExpiresAt.Set {
		return nil
	}
	if row.id == c.KeyID() {
		return MembersOnly.Msg("A key that rotates itself keeps its end. A member extends it with key.extend.")
	}
	end, err := lifetime(in.ExpiresIn, in.ExpiresAt, "", a.now())
	if err != nil {
		return err
	}
	if row.parent != nil {
		above, err := a.rightsOf(tx, row.workspace, *row.parent)
		if err != nil {
			return err
		}
		if above.expires != 0 && (end == 0 || end > above.expires) {
			return op.Invalid("body.expires_in", "The key above it ends at %s; a child cannot live longer", op.Time(above.expires))
		}
	}
	row.expires = &end
	if end == 0 {
		row.expires = nil
	}
	return a.storeKey(tx, *row)
}

// turn gives a key a new secret. With an overlap below 0 every older one ends in the same commit; otherwise the new one is pending
// until its first use. One that was pending, or still old, is replaced: a key has two secrets at most.
func (a *Access) turn(tx *db.Tx, row keyRow, overlap int64) (NewKey, error) {
	secrets, err := readSecrets(tx, row.id)
	if err != nil {
		return NewKey{}, err
	}
	for _, s := range secrets {
		if s.state == "ended" || s.state == "current" && overlap >= 0 {
			continue
		}
		now := a.now()
		if err := a.setSecret(tx, s, stateEnded, &now); err != nil {
			return NewKey{}, err
		}
	}
	if overlap < 0 {
		return a.addSecret(tx, row, secrets[0].seq+1, stateCurrent, 0)
	}
	return a.addSecret(tx, row, secrets[0].seq+1, statePending, overlap)
}

func (a *Access) finishRotation(tx *db.Tx, row keyRow, reason string, out *Rotated) error {
	secrets, err := readSecrets(tx, row.id)
	if err != nil {
		return err
	}
	newest, now, ended := secrets[0], a.now(), false
	for _, s := range secrets[1:] {
		if s.state == "current" || s.state == "old" && (s.ends == nil || *s.ends > now) {
			ended = true
			if err := a.setSecret(tx, s, stateEnded, &now); err != nil {
				return err
			}
		}
	}
	if !ended {
		return NotRotating.Msg("Key %s has one secret only; there is no old one to end.", row.id)
	}
	if newest.state == "pending" {
		if err := a.setSecret(tx, newest, stateCurrent, nil); err != nil {
			return err
		}
	}
	if out.Key, err = a.show(tx, row); err != nil {
		return err
	}
	return Record(tx, Event{Object: "key", ID: row.id, Name: row.name, Detail: map[string]any{"finished": true, "reason": reason}})
}

// activate is the first use of a pending secret: it becomes the current one, and the overlap of the one before begins.
func (a *Access) activate(ctx context.Context, digits uint32) error {
	return a.DB.Update(ctx, func(tx *db.Tx) error {
		s := secretRow{}
		if err := s.scan(tx.Row(sqlSecret, digitString(digits))); err != nil {
			return err
		}
		if s.state != "pending" {
			return nil
		}
		others, err := readSecrets(tx, s.key)
		if err != nil {
			return err
		}
		for _, o := range others {
			if o.state != "current" {
				continue
			}
			end := a.now() + s.overlap
			if err := a.setSecret(tx, o, stateOld, &end); err != nil {
				return err
			}
		}
		return a.setSecret(tx, s, stateCurrent, nil)
	})
}

// keyRevoke is the input of key.revoke.
type keyRevoke struct {
	ID     string `json:"id" doc:"id of the key"`
	Reason string `json:"reason" default:"" max:"500" doc:"kept in the audit log"`
}

func (a *Access) revokeKey(ctx context.Context, in keyRevoke) (out Key, err error) {
	c := From(ctx)
	err = a.fence(ctx, in.ID, func(tx *db.Tx) error {
		row, err := a.mayRevoke(tx, c, in.ID)
		if err != nil {
			return err
		}
		if row.revoked != nil { // a second call finds what the first one did
			Unchanged(tx)
			out, err = a.show(tx, row)
			return err
		}
		row, err = a.endKey(tx, row, c.KeyID())
		if err != nil {
			return err
		}
		if err := Record(tx, Event{Object: "key", ID: row.id, Name: row.name, Detail: map[string]any{"reason": in.Reason}}); err != nil {
			return err
		}
		out, err = a.show(tx, row)
		return err
	})
	return out, err
}

// mayRevoke: a key may end itself and its descendants; a member his own personal keys; whoever holds keys:write without
// restrictions any other.
func (a *Access) mayRevoke(tx *db.Tx, c *Caller, id string) (keyRow, error) {
	row, err := findKey(tx, c, id)
	if err != nil || row.id == c.KeyID() {
		return row, err
	}
	r, err := a.callerRights(tx, c)
	if err != nil {
		return row, err
	}
	if r.kind == "personal" && row.kind == "personal" && row.user == r.user && !r.restricted {
		return row, nil
	}
	if !r.perms.has("keys:write") {
		return row, a.missing(c.holding(r.perms), c.call.Operation, "keys:write")
	}
	return a.mayNarrow(tx, c, id)
}

// endKey revokes a row in the transaction and publishes it.
func (a *Access) endKey(tx *db.Tx, row keyRow, by string) (keyRow, error) {
	now := a.now()
	row.revoked, row.revokedBy = &now, by
	err := a.storeKey(tx, row)
	row.rev++
	return row, err
}

// fence runs a revocation. When the fate of its commit is unknown the key is shut in memory first and then read again: a key that
// may have been revoked must not pass.
func (a *Access) fence(ctx context.Context, id string, fn func(*db.Tx) error) error {
	err := a.DB.Update(ctx, fn)
	if !errors.Is(err, db.ErrUnknown) {
		return err
	}
	raw, ok := keyIDOf(id)
	if !ok {
		return err
	}
	a.publish(func(t *table) error {
		if k := t.keys[raw]; k != nil {
			k.revoked = true
		}
		return nil
	})
	return err
}

// Changed is closed with the next change of any right, so that calls which wait can verify their key again at once.
func (a *Access) Changed() <-chan struct{} { return *a.changed.Load() }

func (a *Access) signal() {
	next := make(chan struct{})
	close(*a.changed.Swap(&next))
}
