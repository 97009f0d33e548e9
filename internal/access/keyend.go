package access

import (
	"context"
	"errors"
	"fmt"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// keyRotate is the input of key.rotate.
type keyRotate struct {
	ID        string          `json:"id" doc:"id of the key, or self"`
	Now       bool            `json:"now" default:"false" doc:"end the old secret in the same moment"`
	Finish    bool            `json:"finish" default:"false" doc:"make no new secret: end the old one now"`
	Overlap   op.Opt[string]  `json:"overlap" doc:"how long the old secret goes on after the first use of the new one; 0 to 30d, default 24h"`
	Reason    string          `json:"reason" default:"" max:"500" doc:"kept in the audit log; leaked means now"`
	ExpiresIn op.Opt[string]  `json:"expires_in" doc:"a new end of the key; not for a key that rotates itself"`
	ExpiresAt op.Opt[op.Time] `json:"expires_at" doc:"its end as a moment, instead of a length of time"`
}

// Rotated is a key after a rotation. Secret is empty when only the old one was ended.
type Rotated struct {
	Key
	Secret  SecretText `json:"key" doc:"the new secret, shown this once; empty after finish"`
	Warning string     `json:"warning" doc:"what goes on although the old secret ended at once; empty when nothing"`
}

func (a *Access) rotateKey(ctx context.Context, in keyRotate) (out Rotated, err error) {
	overlap, err := in.overlap()
	if err != nil {
		return out, err
	}
	c := From(ctx)
	in.ID = c.idOf(in.ID)
	err = a.update(ctx, func(tx *db.Tx) error {
		r := a.reader(tx)
		target, err := r.mayShow(c, in.ID)
		if err != nil {
			return err
		}
		if in.Finish {
			out, err = r.finish(target.key, in.Reason)
			return err
		}
		row, err := r.rotatedEnd(c, target, in)
		if err != nil {
			return err
		}
		overlap, by, err := r.replacing(row, in, overlap)
		if err != nil {
			return err
		}
		made, err := r.turn(row, overlap)
		if err != nil {
			return err
		}
		out = Rotated{Key: made.Key, Secret: SecretText(made.Secret)}
		if overlap < 0 {
			if out.Warning, err = r.goOn(row); err != nil {
				return err
			}
		}
		detail := keyDiff(target.key, row, in.Reason)
		detail["secret"], detail["now"] = out.Secret.String(), overlap < 0
		if by != nil {
			detail["handed_over_by"] = by
		}
		return Record(tx, Event{Object: "key", ID: row.id, Name: row.name, Detail: detail})
	})
	return out, err
}

// goOn is the warning that keys which a key made outlive its old secret: whoever knew that one may know theirs.
func (r *reader) goOn(row keyRow) (string, error) {
	below, err := readKeys(r.tx, sqlKeysBelow, row.workspace, []string{row.id})
	if err != nil || len(below) == 0 {
		return "", err
	}
	return fmt.Sprintf("%s that it made %s on. If the old secret leaked, whoever has it may know theirs too, or have made them: unstuck keys list --children %s shows them.",
		plural(int64(len(below)), "key"), plainly(len(below), "goes", "go"), row.id), nil
}

// overlap is how long the old secret goes on; -1 when it ends at once.
func (in keyRotate) overlap() (int64, error) {
	switch {
	case in.Finish && (in.Now || in.Overlap.Set || in.ExpiresIn.Set || in.ExpiresAt.Set):
		return 0, op.Invalid("body.finish", "It makes no new secret; send it alone, or with a reason")
	case in.Now && in.Overlap.Set:
		return 0, op.Invalid("body.overlap", "Send now or overlap, not both")
	case in.Now || in.Reason == "leaked":
		return -1, nil
	}
	text := in.Overlap.Or("24h")
	us, err := parseSpan(text)
	if err != nil || us < 0 || us > maxOverlap {
		return 0, op.Invalid("body.overlap", "Write a duration from 0 to 30d, such as 24h")
	}
	return us, nil
}

// rotatedEnd sets a new end of the key, for whoever may create it; a key that rotates itself keeps its own. A key that expired gets no
// new secret without a new end: it would be of no use.
func (r *reader) rotatedEnd(c *Caller, target rights, in keyRotate) (keyRow, error) {
	row := target.key
	if !in.ExpiresIn.Set && !in.ExpiresAt.Set {
		if target.why == expired {
			return row, KeyEnded.Msg("Key %s has expired. Send a new end with the rotation, or extend it first.", row.id)
		}
		return row, nil
	}
	if row.id == c.KeyID() {
		return row, MembersOnly.Msg("A key that rotates itself keeps its end. A member extends it with key.extend.")
	}
	if err := r.newEnd(&row, in.ExpiresIn, in.ExpiresAt); err != nil {
		return row, err
	}
	caller, err := r.callerRights(c)
	if err == nil {
		err = caller.outlived(row)
	}
	if err != nil {
		return row, err
	}
	return row, setKey(r.tx, &row)
}

// turn gives a key a new secret. With an overlap below 0 every older one ends in the same commit; otherwise the new one is pending
// until its first use. One that was pending, or still old, is replaced: a key has two secrets at most.
func (r *reader) turn(row keyRow, overlap int64) (NewKey, error) {
	if overlap < 0 {
		r.tx.Urgent(row.workspace, db.Narrowing)
	}
	secrets, err := readSecrets(r.tx, row.id)
	if err != nil {
		return NewKey{}, err
	}
	for _, s := range secrets {
		if s.is(stateEnded) || s.is(stateCurrent) && overlap >= 0 {
			continue
		}
		if err := setSecret(r.tx, s, stateEnded, r.a.now()); err != nil {
			return NewKey{}, err
		}
	}
	if overlap < 0 {
		return r.addSecret(row, secrets[0].seq+1, stateCurrent, 0)
	}
	return r.addSecret(row, secrets[0].seq+1, statePending, overlap)
}

// finish ends the old secret of a rotation now; the new one need not have been used.
func (r *reader) finish(row keyRow, reason string) (out Rotated, err error) {
	secrets, err := readSecrets(r.tx, row.id)
	if err != nil {
		return out, err
	}
	r.tx.Urgent(row.workspace, db.Narrowing)
	now, newest, ended := r.a.now(), secrets[0], ""
	for _, s := range secrets[1:] {
		if s.over(now) {
			continue
		}
		ended = s.redacted()
		if err := setSecret(r.tx, s, stateEnded, now); err != nil {
			return out, err
		}
	}
	if ended == "" {
		return out, NotRotating.Msg("Key %s has one secret only; there is no old one to end.", row.id)
	}
	if newest.is(statePending) {
		if err := setSecret(r.tx, newest, stateCurrent, 0); err != nil {
			return out, err
		}
	}
	if err := Record(r.tx, Event{Object: "key", ID: row.id, Name: row.name, Detail: map[string]any{"finished": true, "ended": ended, "reason": reason}}); err != nil {
		return out, err
	}
	out.Key, err = r.showOne(row)
	return out, err
}

// activate is the first use of a pending secret: it becomes the current one, and the overlap of the one before begins.
func (a *Access) activate(ctx context.Context, digits uint32) error {
	return a.update(ctx, func(tx *db.Tx) error {
		Unchanged(tx) // nothing that the running operation has to record; the rotation was
		s := secretRow{}
		if err := s.scan(tx.Row(sqlSecretByDigits, digitString(digits))); err != nil {
			return err
		}
		if !s.is(statePending) { // another call came first, or it was replaced
			return nil
		}
		others, err := readSecrets(tx, s.key)
		if err != nil {
			return err
		}
		for _, o := range others {
			if !o.is(stateCurrent) {
				continue
			}
			if err := setSecret(tx, o, stateOld, a.now()+s.overlap); err != nil {
				return err
			}
		}
		return setSecret(tx, s, stateCurrent, 0)
	})
}

// keyRevoke is the input of key.revoke.
type keyRevoke struct {
	ID     string `json:"id" doc:"id of the key, or self"`
	Reason string `json:"reason" default:"" max:"500" doc:"kept in the audit log"`
}

// revokeKey ends a key. It is a fence: when it has answered, no verification that starts later succeeds, for the key, its secrets and
// whatever it made. A commit of unknown fate is repeated once the fate of the first is known: a second call finds what the first did.
func (a *Access) revokeKey(ctx context.Context, in keyRevoke) (out ChangedKey, err error) {
	for range 3 {
		if out, err = a.revoke(ctx, in); !errors.Is(err, db.ErrUnknown) {
			return out, err
		}
	}
	return out, err
}

func (a *Access) revoke(ctx context.Context, in keyRevoke) (out ChangedKey, err error) {
	c := From(ctx)
	in.ID = c.idOf(in.ID)
	err = a.update(ctx, func(tx *db.Tx) error {
		r := a.reader(tx)
		row, err := r.mayRevoke(c, in.ID)
		if err != nil {
			return err
		}
		if row.revoked != 0 {
			Unchanged(tx)
			out = ChangedKey{}
			out.Key, err = r.showOne(row)
			return err
		}
		was := row
		if err := a.endKey(tx, &row, c.KeyID()); err != nil {
			return err
		}
		if err := Record(tx, Event{Object: "key", ID: row.id, Name: row.name, Detail: map[string]any{"reason": in.Reason}}); err != nil {
			return err
		}
		if out.Key, err = r.showOne(row); err != nil {
			return err
		}
		out.Warning, err = r.lastAdmin(was, row)
		return err
	})
	return out, err
}
