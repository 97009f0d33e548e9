package access

import (
	"fmt"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Who was shown a secret matters where that is not the member whose key it is: somebody who adds a member is shown the new member's
// first key, because there is no mail that could bring it, and a member may rotate an integration key that somebody else made. Such a
// secret remembers who saw it, until it ends.
//
// A personal key that was handed over does not prove who calls: it may be the one who handed it over. Until it is replaced it makes
// nothing that could stay in his hands (ruling.handed), and it is replaced by itself alone, at once (replacing): so one of the two has it
// afterwards, and the other is told so. An integration key whose secret somebody saw goes on, but what he is then shown with it, he saw
// (stranger).

// isHanded says whether a secret is that of a personal key that was handed over. The lock is held.
func (t *table) isHanded(sec *secret) bool {
	if sec.key.kind != personal {
		return false
	}
	_, is := t.handed[sec.digits]
	return is
}

// handedOver says whether a key has a secret in use that was handed over. The lock is held.
func (t *table) handedOver(k *key, now int64) bool {
	if k.kind != personal {
		return false
	}
	for digits := range t.handed {
		if sec := t.secret(digits); sec != nil && sec.key == k && !sec.over(now) {
			return true
		}
	}
	return false
}

// handedKey says whether a personal key, by id, is one that was handed over and not replaced.
func (t *table) handedKey(id string, now int64) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	k := t.key(id)
	return k != nil && t.handedOver(k, now)
}

// inUse is the row of the secret with which the call was made. One that has ended meanwhile is refused: memory learns of that only after
// the commit, and two calls with one secret may be in the same.
func (c *Caller) inUse(tx *db.Tx) (s secretRow, err error) {
	if err := s.scan(tx.Row(sqlSecretByDigits, digitString(c.grant.digits))); err != nil {
		return s, fmt.Errorf("read the secret in use: %w", err)
	}
	if s.over(c.a.now()) {
		return s, c.a.ended(rotated, 0)
	}
	return s, nil
}

// stranger is who is noted as having seen a new secret of a key; "" for its own member, and for what the server itself shows. What is
// shown to an integration key is seen by whoever knows its secret, also when that key turns itself.
func (r *reader) stranger(row keyRow) string {
	for _, who := range [...]string{r.knower, r.seer} {
		if who != "" && who != row.user {
			return who
		}
	}
	return ""
}

// replacing is the overlap of a rotation, and who knows the secret that it replaces when that was handed over. Such a secret goes no
// further than the first use of the new one: otherwise whoever handed it over could meanwhile turn the key again, with it, into his own.
func (r *reader) replacing(row keyRow, in keyRotate, overlap int64) (int64, *Actor, error) {
	if row.kind != personal.String() {
		return overlap, nil, nil
	}
	secrets, err := readSecrets(r.tx, row.id)
	if err != nil {
		return 0, nil, err
	}
	for _, s := range secrets {
		by, err := r.shownTo(row, s)
		switch {
		case err != nil:
			return 0, nil, err
		case by == nil || s.over(r.a.now()):
			continue
		case in.Overlap.Set && overlap > 0:
			return 0, nil, op.Invalid("body.overlap", "A key that was handed over is replaced at once; send overlap 0s, or now")
		}
		return min(overlap, 0), by, nil
	}
	return overlap, nil, nil
}

// shownTo is who saw a secret and is not the member whose key it is; nil for nobody.
func (r *reader) shownTo(row keyRow, s secretRow) (*Actor, error) {
	if s.shownTo == "" || s.shownTo == row.user {
		return nil, nil
	}
	who, err := r.actor(row.workspace, s.shownTo)
	return &who, err
}
