package access

import (
	"fmt"
	"slices"
)

// ChangedMember is a member after a change; one who was removed has no role.
type ChangedMember struct {
	Member
	Known []KnownKey `json:"known_keys" doc:"integration keys that go on and of which the member knows the secret, until it is rotated"`
}

// KnownKey is an integration key that was kept, with what ends the secret that somebody knows who should not.
type KnownKey struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Redacted string `json:"redacted"`
	Mend     string `json:"mend" doc:"the command that gives it another secret"`
}

// heldKey is an integration key about which somebody must decide because a member leaves or is demoted.
type heldKey struct {
	Key
	LastProgram string `json:"last_program" doc:"user agent of its last call"`
	Reason      string `json:"reason" doc:"why it is concerned: it belongs to the member, or the member saw its secret"`
}

type heldKeys struct {
	Keys []heldKey `json:"keys"`
	Mend string    `json:"mend"`
}

// Why a key is concerned when a member leaves or is demoted.
const (
	belongsToHim = "belongs to this member"
	sawItsSecret = "this member saw its secret by rotating it"
)

// decideKeys ends the personal keys of a member who leaves, and does with the integration keys that he made, or whose secret he knows,
// what the call says (KEYS 1, somebody leaves). Without a word it refuses and lists them. A change of role concerns only keys that hold
// what the new role does not and the old one did. It answers with those that go on while he knows their secret.
func (r *reader) decideKeys(c *Caller, m memberRow, role, what string, detail map[string]any) ([]KnownKey, error) {
	own, err := readKeys(r.tx, sqlKeysOfMember, m.workspace, m.user)
	if err != nil {
		return nil, err
	}
	seen, err := readKeys(r.tx, sqlKeysShownTo, m.workspace, m.user, r.a.now())
	if err != nil {
		return nil, err
	}
	lost := rolePerms(m.role) &^ rolePerms(role)
	var concerned []keyRow
	for _, row := range append(own, seen...) {
		held, err := row.held()
		if err != nil {
			return nil, err
		}
		switch {
		case row.kind != personal.String() && (role == "" || held&lost != 0):
			concerned = append(concerned, row)
		case row.kind == personal.String() && role == "":
			if err := r.a.endKey(r.tx, &row, c.KeyID()); err != nil {
				return nil, err
			}
		}
	}
	switch {
	case len(concerned) == 0:
		return []KnownKey{}, nil
	case what == "":
		return nil, r.hasKeys(concerned, m.user)
	}
	detail["keys"], detail["key_ids"] = what, idsOf(concerned)
	if what == "revoke" {
		return []KnownKey{}, r.endKeys(c, concerned)
	}
	return r.handOver(c, m.user, concerned)
}

func idsOf(rows []keyRow) []string {
	ids := make([]string, len(rows))
	for i, row := range rows {
		ids[i] = row.id
	}
	return ids
}

func (r *reader) endKeys(c *Caller, rows []keyRow) error {
	for _, row := range rows {
		if err := r.a.endKey(r.tx, &row, c.KeyID()); err != nil {
			return err
		}
	}
	return nil
}

// handOver gives the keys of a member to whoever acts; keys of others stay theirs. Nothing makes the member forget a secret, so it stays
// noted that he knows it, and the answer names what ends it.
func (r *reader) handOver(c *Caller, from string, rows []keyRow) ([]KnownKey, error) {
	acting, err := r.key(c.Workspace(), c.KeyID())
	if err != nil {
		return nil, err
	}
	for i := range rows {
		row := &rows[i]
		if row.user != from {
			continue
		}
		if _, err := r.tx.Exec(sqlSecretsKnown, row.id, from); err != nil {
			return nil, fmt.Errorf("note who knows the secret of key %s: %w", row.id, err)
		}
		row.user = acting.user
		if err := setKey(r.tx, row); err != nil {
			return nil, err
		}
	}
	secrets, err := readSecrets(r.tx, idsOf(rows)...)
	if err != nil {
		return nil, err
	}
	known := []KnownKey{}
	for _, row := range rows {
		i := slices.IndexFunc(secrets, func(s secretRow) bool { return s.key == row.id && s.shownTo == from && !s.over(r.a.now()) })
		if i >= 0 {
			known = append(known, KnownKey{row.id, row.name, secrets[i].redacted(), "unstuck keys rotate " + secrets[i].digits})
		}
	}
	return known, nil
}

// hasKeys is the 409 that lists the keys about which the call must say something.
func (r *reader) hasKeys(rows []keyRow, member string) error {
	keys, err := r.showAll(rows)
	if err != nil {
		return err
	}
	x := heldKeys{Mend: `Say keys=hand_over to keep them, his own as yours, or keys=revoke to end them: in the query of a DELETE, in the body of a PATCH.`}
	own := 0
	for i, k := range keys {
		h := heldKey{Key: k, Reason: sawItsSecret}
		if k.LastUsed != nil {
			h.LastProgram = k.LastUsed.UserAgent
		}
		if rows[i].user == member {
			h.Reason = belongsToHim
			own++
		}
		x.Keys = append(x.Keys, h)
	}
	e := MemberHasKeys.Msg("%s Say what becomes of %s.", concern(own, len(keys)-own), plainly(len(keys), "it", "them"))
	e.Extra = x
	return e
}

// concern says how many keys a member has, and of how many others he knows the secret.
func concern(own, seen int) string {
	belong := fmt.Sprintf("%d integration %s to this member", own, plainly(own, "key belongs", "keys belong"))
	saw := fmt.Sprintf("%d integration %s a secret that this member saw", seen, plainly(seen, "key of another member has", "keys of other members have"))
	switch {
	case seen == 0:
		return belong + "."
	case own == 0:
		return saw + "."
	}
	return belong + ", and " + saw + "."
}

func plainly(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
