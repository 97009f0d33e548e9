package access

import (
	"fmt"
	"slices"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// rights is what a transaction itself finds out about a key: what it may do along its chain, read from the rows and not from memory.
// Whatever hands out rights, or depends on them, asks for them.
type rights struct {
	key        keyRow
	own        permSet // of the key alone
	perms      permSet // within those above it, and within its member's role
	why        standing
	restricted bool     // itself or any key above it
	chain      []string // ids, the key itself first
	expires    int64    // the earliest of the chain; 0: never
	narrowedBy []string // keys above it, and its member, that take something away
}

// reader reads keys and people in one transaction, each once.
type reader struct {
	a      *Access
	tx     *db.Tx
	keys   map[string]keyRow
	people map[string]string // e-mail addresses by id
	roles  map[memberID]string
	seer   string // user id of whoever sees the secrets that the call shows; "": the server itself shows them
	knower string // user id of whoever was shown the secret of the integration key that calls, and is not its member; "" for nobody
}

func (a *Access) reader(tx *db.Tx) *reader {
	return &reader{a, tx, map[string]keyRow{}, map[string]string{}, map[memberID]string{}, "", ""}
}

func (r *reader) key(workspace, id string) (keyRow, error) {
	if k, ok := r.keys[id]; ok {
		return k, nil
	}
	k, err := readKey(r.tx, workspace, id)
	if err == nil {
		r.keys[id] = k
	}
	return k, err
}

func (r *reader) role(workspace, user string) (string, error) {
	id := memberID{workspace, user}
	if role, ok := r.roles[id]; ok {
		return role, nil
	}
	m, err := readMember(r.tx, workspace, user)
	if err != nil {
		return "", fmt.Errorf("read the membership of %s: %w", user, err)
	}
	r.roles[id] = m.role
	return m.role, nil
}

// rights walks the chain of a key.
func (r *reader) rights(row keyRow) (out rights, err error) {
	out = rights{key: row, perms: allPerms, narrowedBy: []string{}}
	for {
		if err := r.add(&out, row); err != nil {
			return out, err
		}
		if row.parent == "" {
			return out, nil
		}
		if row, err = r.key(row.workspace, row.parent); err != nil {
			return out, fmt.Errorf("read key %s: %w", row.parent, err)
		}
	}
}

// add takes one key of the chain in. It judges as key.judge does, which a property test holds it to.
func (r *reader) add(out *rights, row keyRow) error {
	rules, err := readRules(row.restrictions)
	if err != nil {
		return err
	}
	perms, err := row.held()
	if err != nil {
		return err
	}
	if out.chain == nil {
		out.own = perms
	}
	out.chain = append(out.chain, row.id)
	sooner := row.expires != 0 && (out.expires == 0 || row.expires < out.expires)
	if sooner {
		out.expires = row.expires
	}
	if len(out.chain) > 1 && (sooner || !rules.empty() || !perms.holds(out.perms)) {
		out.narrowedBy = append(out.narrowedBy, row.id)
	}
	out.perms &= perms
	out.restricted = out.restricted || !rules.empty()
	left := false
	if row.kind == personal.String() {
		role, err := r.role(row.workspace, row.user)
		if err != nil {
			return err
		}
		if left = role == ""; !roleBounds(role).holds(out.perms) {
			out.narrowedBy = append(out.narrowedBy, row.user)
		}
		out.perms &= roleBounds(role)
	}
	switch now := r.a.now(); {
	case row.revoked != 0 || left:
		out.why = revoked
	case out.why == revoked:
	case row.expires != 0 && now >= row.expires:
		out.why = expired
	case out.why == stands && rules != nil && rules.NotBefore != nil && now < int64(*rules.NotBefore):
		out.why = notYet
	}
	if !out.why.passes() {
		out.perms = 0
	}
	return nil
}

// callerRights are the rights of the caller as the transaction sees them. A caller that was ended or narrowed meanwhile is refused.
func (r *reader) callerRights(c *Caller) (rights, error) {
	row, err := r.key(c.Workspace(), c.KeyID())
	if err != nil {
		return rights{}, fmt.Errorf("read the calling key: %w", err)
	}
	r.seer = row.user
	secret, err := c.inUse(r.tx)
	if err != nil {
		return rights{}, err
	}
	if row.kind != personal.String() {
		r.knower = secret.shownTo // who perhaps is the one who calls
	}
	out, err := r.rights(row)
	if err != nil {
		return out, err
	}
	if !out.why.passes() {
		return out, r.a.ended(out.why, row.revoked)
	}
	lacks, _ := grant{perms: out.perms}.lacks(c.call.Needs, !c.onItself())
	return out, c.refuse(ruling{lacks: lacks})
}

// wants refuses a caller that lacks permissions, or that has restrictions where only one without any may do something; what is "" when
// restrictions do not matter. It names both, so that whoever grants them is asked once.
func (c *Caller) wants(r rights, perms permSet, what string) error {
	need := ruling{lacks: perms &^ r.perms}
	if what != "" && r.restricted {
		need.obstacles = c.grant.key.restricted(what, c.circumstances())
	}
	return c.refuse(need)
}

// findKey reads a key of the caller's workspace, or answers 404.
func findKey(tx *db.Tx, c *Caller, id string) (keyRow, error) {
	row, err := readKey(tx, c.Workspace(), id)
	if isNone(err) {
		return row, KeyNotFound.Msg("There is no key %s in this workspace.", id)
	}
	return row, err
}

// KeyInFilter is the id of the key that a list is filtered by, with the caller's own for "self", whatever became of that key. An id that
// no key of the workspace has is refused: whoever mistyped it would take an empty list for "nothing happened".
func (c *Caller) KeyInFilter(tx *db.Tx, field, id string) (string, error) {
	id = c.idOf(id)
	if _, err := readKey(tx, c.Workspace(), id); isNone(err) {
		return "", op.Invalid("query."+field, "There is no key %s in this workspace", op.Quote(id))
	} else if err != nil {
		return "", err
	}
	return id, nil
}

// both are the rights of the caller and of the key that a call is about.
func (r *reader) both(c *Caller, id string) (caller, target rights, err error) {
	row, err := findKey(r.tx, c, id)
	if err != nil {
		return caller, target, err
	}
	if caller, err = r.callerRights(c); err != nil {
		return caller, target, err
	}
	target, err = r.rights(row)
	return caller, target, err
}

// ofCaller says whether a key is the caller's own or lies below it.
func (r rights) ofCaller(caller rights) bool { return slices.Contains(r.chain, caller.key.id) }

// maySee finds a key about which the caller may ask what it can do: itself, and with keys:read what is below it, or any key when the
// caller is not for certain cues.
func (r *reader) maySee(c *Caller, id string) (keyRow, error) {
	if id == c.KeyID() {
		return findKey(r.tx, c, id)
	}
	need := ruling{}
	if !c.Holds("keys:read") {
		need.lacks = bit("keys:read")
	}
	for k := range c.grant.key.chain() {
		if rules := k.rules.Load(); rules != nil && rules.Cues != nil {
			need.obstacles = append(need.obstacles, obstacle{by: k, kind: "cues", whole: true, message: "This key may be used only for certain cues, so it may not see what other keys can do."})
		}
	}
	if need.lacks != 0 {
		return keyRow{}, c.refuse(need)
	}
	row, err := findKey(r.tx, c, id)
	if err != nil && len(need.obstacles) > 0 { // which keys there are is nothing for a key that is for certain cues
		return row, c.refuse(need)
	}
	if err != nil {
		return row, err
	}
	target, err := r.rights(row)
	if err != nil || slices.Contains(target.chain, c.KeyID()) {
		return row, err
	}
	return row, c.refuse(need)
}

// mayNarrow finds a key that the caller may narrow or end: itself and what is below it, or any key when the caller has no restrictions.
func (r *reader) mayNarrow(c *Caller, id string) (keyRow, error) {
	caller, target, err := r.both(c, id)
	if err != nil || target.ofCaller(caller) {
		return target.key, err
	}
	return target.key, c.wants(caller, 0, "change a key that is neither itself nor made by it")
}

// mayRevoke finds a key that the caller may end: itself, a member's own personal keys, and what holders of keys:write may narrow.
func (r *reader) mayRevoke(c *Caller, id string) (keyRow, error) {
	if id == c.KeyID() {
		return findKey(r.tx, c, id)
	}
	caller, target, err := r.both(c, id)
	switch {
	case err != nil:
		return target.key, err
	case caller.key.kind == personal.String() && target.key.kind == personal.String() && caller.key.user == target.key.user && !caller.restricted:
		return target.key, nil
	case target.ofCaller(caller):
		return target.key, c.wants(caller, bit("keys:write"), "")
	}
	return target.key, c.wants(caller, bit("keys:write"), "end a key that is neither itself nor made by it")
}

// mayShow finds a key whose secret the caller may be shown: itself, what is below it, or, for a member without restrictions, what is no
// wider than the member. An integration key is shown no other: such a secret would outlive it.
func (r *reader) mayShow(c *Caller, id string) (rights, error) {
	caller, target, err := r.both(c, id)
	switch {
	case err != nil:
		return target, err
	case target.why == revoked:
		return target, keyEnded(id)
	case id == caller.key.id:
		if caller.perms.has("keys:write") {
			return target, nil
		}
		return target, c.wants(caller, bit("keys:rotate-self"), "")
	case target.key.kind == personal.String() && target.key.user != caller.key.user: // it would outlive whoever was shown it
		return target, MembersOnly.Msg("A personal key is shown to its own member only. Revoke it, or let its member rotate it.")
	case target.ofCaller(caller):
		return target, c.wants(caller, bit("keys:write"), "")
	case caller.key.kind != personal.String():
		return target, MembersOnly.Msg("An integration key is shown only its own secrets and those of the keys it made. A member rotates this one, with a personal key.")
	}
	return target, c.wants(caller, bit("keys:write")|target.own, "be shown the secret of another key")
}

// mayWiden finds a key that a member may give more: not the one in use, alive, and nothing that the member does not hold.
func (r *reader) mayWiden(c *Caller, id string) (caller, target rights, err error) {
	if caller, target, err = r.both(c, id); err != nil {
		return caller, target, err
	}
	switch {
	case id == caller.key.id:
		return caller, target, MembersOnly.Msg("A key cannot give itself more. Use another personal key.")
	case target.key.revoked != 0:
		return caller, target, keyEnded(id)
	case target.key.kind == personal.String() && target.key.user == caller.key.user: // bounded by the same role
		return caller, target, c.wants(caller, 0, "give another key more")
	}
	return caller, target, c.wants(caller, target.own, "give another key more")
}

func keyEnded(id string) error {
	return KeyEnded.Msg("Key %s was revoked, and nothing revives it. Make a new one.", id)
}
