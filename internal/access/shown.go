package access

import (
	"fmt"

	"unstuck/internal/db"
)

// Who was shown a secret matters where that is not the member whose key it is: somebody who adds a member is shown the new member's
// first key, because there is no mail that could bring it, and a member may rotate an integration key that somebody else made. Such a
// secret remembers who saw it, until it ends.

// giver is who handed the calling key over to its member, who has not rotated it yet; "" for nobody. Its secret does not prove who
// calls: it may be the one who handed it over.
func (c *Caller) giver(tx *db.Tx) (string, error) {
	if c.grant.key.kind != personal {
		return "", nil
	}
	s := secretRow{}
	if err := s.scan(tx.Row(sqlSecretByDigits, digitString(c.grant.digits))); err != nil {
		return "", fmt.Errorf("read the secret in use: %w", err)
	}
	return s.shownTo, nil
}

// stranger is who is noted as having seen a new secret of a key; "" for its own member, and for what the server itself shows. A personal
// key that is made with one that was handed over counts as handed over too, or the giver could keep one.
func (r *reader) stranger(row keyRow) string {
	switch {
	case row.kind == personal.String() && r.giver != "":
		return r.giver
	case r.seer == row.user:
		return ""
	}
	return r.seer
}

// shownTo is who saw a secret and is not the member whose key it is; nil for nobody.
func (r *reader) shownTo(row keyRow, s secretRow) (*Actor, error) {
	if s.shownTo == "" || s.shownTo == row.user {
		return nil, nil
	}
	who, err := r.actor(row.workspace, s.shownTo)
	return &who, err
}

// founder is who becomes the first admin of a workspace that the call makes: the caller's own person. A key that was handed over does not
// prove who calls, so what is made with it belongs to a new person of that address: see person.
func (r *reader) founder(caller rights) (string, error) {
	if r.giver == "" {
		return caller.key.user, nil
	}
	p, err := personByID(r.tx, caller.key.user)
	if err != nil {
		return "", fmt.Errorf("read a person: %w", err)
	}
	p, err = r.a.newPerson(r.tx, p.Email, false)
	return p.ID, err
}
