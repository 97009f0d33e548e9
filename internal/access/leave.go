package access

import (
	"fmt"
	"slices"
)

// ChangedMember is a member after a change; one who was removed has no role.
type ChangedMember struct {
	Member
	Warning string     `json:"warning" doc:"what follows from the change that nobody asked for; empty when nothing"`
	Known   []KnownKey `json:"known_keys" doc:"keys that go on and of which the member may know the secret, until it is rotated"`
}

// KnownKey is a key that was kept, with what ends the secret that somebody knows who should not.
type KnownKey struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Redacted string `json:"redacted"`
	Mend     string `json:"mend" doc:"the command that ends that: it gives the key another secret, or revokes a personal key, whose member then needs a new one"`
}

// heldKey is a key about which somebody must decide because a member leaves or is demoted.
type heldKey struct {
	Key
	LastProgram string `json:"last_program" doc:"user agent of its last call"`
	Reason      string `json:"reason" doc:"why it is concerned: it belongs to the member, or the member may know its secret"`
}

type heldKeys struct {
	Keys []heldKey `json:"keys"`
	Mend string    `json:"mend"`
}

// Why a key is concerned when a member leaves or is demoted.
const (
	belongsToHim = "belongs to this member"
	sawItsSecret = "this member saw its secret by rotating it"
	belowOne     = "made by a key whose secret this member may know"
	handedItOver = "this member handed it over, and its own member has not replaced it"
	othersKnowIt = "whoever handed it over knows it, and would gain what the new role adds until this member logs in"
)

// decideKeys ends the personal keys of a member who leaves, and does with the keys that he may know what the call says (KEYS 1, somebody
// leaves). Without a word it refuses and lists them. A change of role concerns only keys that hold what the new role does not and the old
// one did; one that adds something concerns the member's own first key while somebody else knows it. It answers with those that go on while he may know their secret.
func (r *reader) decideKeys(c *Caller, m memberRow, role, what string, detail map[string]any) ([]KnownKey, error) {
	rows, err := r.keysHeMayKnow(m)
	if err != nil {
		return nil, err
	}
	lost, gained := rolePerms(m.role)&^rolePerms(role), rolePerms(role)&^rolePerms(m.role)
	var concerned []keyRow
	for _, row := range rows {
		held, err := r.holds(row)
		own := row.kind == personal.String() && row.user == m.user
		switch {
		case err != nil:
			return nil, err
		case !own && (role == "" || held&lost != 0), own && gained != 0 && r.a.table.handedKey(row.id, r.a.now()):
			concerned = append(concerned, row)
		case own && role == "":
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

// keysHeMayKnow are the keys that belong to a member, those whose secret he saw, and all that these made: with the secret of a key that
// makes keys he could make it turn any of those.
func (r *reader) keysHeMayKnow(m memberRow) ([]keyRow, error) {
	own, err := readKeys(r.tx, sqlKeysOfMember, m.workspace, m.user)
	if err != nil {
		return nil, err
	}
	seen, err := readKeys(r.tx, sqlKeysShownTo, m.workspace, m.user, r.a.now())
	if err != nil {
		return nil, err
	}
	rows := append(own, seen...)
	below, err := readKeys(r.tx, sqlKeysBelow, m.workspace, idsOf(rows))
	if err != nil {
		return nil, err
	}
	for _, row := range below {
		if !slices.ContainsFunc(rows, func(k keyRow) bool { return k.id == row.id }) {
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// holds is what a key may hold: a personal one no more than its member's role.
func (r *reader) holds(row keyRow) (permSet, error) {
	held, err := row.held()
	if err != nil || row.kind != personal.String() {
		return held, err
	}
	role, err := r.role(row.workspace, row.user)
	return held & roleBounds(role), err
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
		if row.user != from || row.kind == personal.String() {
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
	return r.known(from, rows)
}

// known are those of some keys of which a member knows the secret, or that of a key above them.
func (r *reader) known(who string, rows []keyRow) ([]KnownKey, error) {
	secrets, err := readSecrets(r.tx, idsOf(rows)...)
	if err != nil {
		return nil, err
	}
	living := map[string]secretRow{} // by key: the one he knows, or else the newest
	knows := map[string]bool{}
	for _, s := range secrets {
		switch _, is := living[s.key]; {
		case s.over(r.a.now()):
		case s.shownTo == who && !knows[s.key]:
			living[s.key], knows[s.key] = s, true
		case !is:
			living[s.key] = s
		}
	}
	above := map[string]string{}
	for _, row := range rows {
		above[row.id] = row.parent
	}
	out := []KnownKey{}
	for _, row := range rows {
		s := living[row.id]
		mend := "unstuck keys rotate " + s.digits + " --now"
		if row.kind == personal.String() { // which nobody else may turn
			mend = "unstuck keys revoke " + s.digits
		}
		for id := row.id; id != ""; id = above[id] {
			if knows[id] {
				out = append(out, KnownKey{row.id, row.name, s.redacted(), mend})
				break
			}
		}
	}
	return out, nil
}

// hasKeys is the 409 that lists the keys about which the call must say something.
func (r *reader) hasKeys(rows []keyRow, member string) error {
	keys, err := r.showAll(rows)
	if err != nil {
		return err
	}
	x := heldKeys{Mend: `Say keys=hand_over to keep them, his own as yours, or keys=revoke to end them: in the query of a DELETE, in the body of a PATCH.`}
	own, first := 0, false
	for i, k := range keys {
		h := heldKey{Key: k, Reason: r.reason(rows[i], k, member)}
		if k.LastUsed != nil {
			h.LastProgram = k.LastUsed.UserAgent
		}
		if h.Reason == belongsToHim {
			own++
		}
		first = first || h.Reason == othersKnowIt
		x.Keys = append(x.Keys, h)
	}
	e := MemberHasKeys.Msg("%s Say what becomes of %s.", concern(own, len(keys)-own), plainly(len(keys), "it", "them"))
	if first { // nothing else concerns a change that adds
		e = MemberHasKeys.Msg("Whoever handed over this member's first key knows it still, and would have the new role too. Let the member log in first.")
		x.Mend = "The member runs unstuck auth login, which replaces the key. Or say keys=revoke to end it, or keys=hand_over to go on all the same."
	}
	e.Extra = x
	return e
}

// reason is why a key is concerned.
func (r *reader) reason(row keyRow, k Key, member string) string {
	switch {
	case row.user == member && row.kind == personal.String():
		return othersKnowIt
	case row.user == member:
		return belongsToHim
	case row.kind == personal.String():
		return handedItOver
	case slices.ContainsFunc(k.Secrets, func(s SecretInfo) bool { return s.ShownTo != nil && s.ShownTo.ID == member }):
		return sawItsSecret
	}
	return belowOne
}

// concern says how many keys a member has, and of how many others he may know the secret.
func concern(own, seen int) string {
	belong := fmt.Sprintf("%d integration %s to this member", own, plainly(own, "key belongs", "keys belong"))
	saw := fmt.Sprintf("%d %s a secret that this member may know", seen, plainly(seen, "key of another member has", "keys of other members have"))
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
