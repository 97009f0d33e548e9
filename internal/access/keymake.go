package access

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// keyCreate is the input of key.create. Exactly one of scope and permissions is wanted.
type keyCreate struct {
	Name           string                 `json:"name" min:"1" max:"100" format:"line" doc:"what the key is for"`
	Scope          op.Opt[string]         `json:"scope" doc:"a named scope, such as worker"`
	Permissions    op.Opt[[]string]       `json:"permissions" min:"1" max:"100" doc:"permissions instead of a named scope"`
	Restrictions   op.Clear[Restrictions] `json:"restrictions" doc:"all of them must hold; null is refused"`
	ExpiresIn      op.Opt[string]         `json:"expires_in" doc:"never, 30d, 90d, 1y (default) or a duration"`
	ExpiresAt      op.Opt[op.Time]        `json:"expires_at" doc:"its end as a moment, instead of a length of time"`
	IdempotencyKey op.Opt[string]         `header:"Idempotency-Key" min:"1" max:"255" doc:"repeating the call within ten minutes replaces the secret instead of making a second key"`
}

// wanted is what a caller asks of a new key, checked.
type wanted struct {
	kind  kind
	name  string
	scope string
	perms permSet
	rules *rules

	expiresIn op.Opt[string]
	expiresAt op.Opt[op.Time]
}

func (in keyCreate) check() (wanted, error) {
	w := wanted{kind: integration, name: in.Name, expiresIn: in.ExpiresIn, expiresAt: in.ExpiresAt}
	var err error
	if w.scope, w.perms, err = scopeOrPerms(in.Scope, in.Permissions); err != nil {
		return w, err
	}
	w.rules, err = newRules(in.Restrictions)
	return w, err
}

// scopeOrPerms reads what a key shall hold; exactly one of the two must be there.
func scopeOrPerms(scope op.Opt[string], list op.Opt[[]string]) (string, permSet, error) {
	switch {
	case scope.Set == list.Set:
		return "", 0, op.Invalid("body.scope", "Send a scope or permissions, and not both")
	case list.Set:
		perms, err := permsAt("body.permissions", list.Val)
		return custom, perms, err
	}
	s, ok := scopeOf(scope.Val)
	if !ok {
		return "", 0, op.Invalid("body.scope", "Input should be %s", oneOf(scopeNames()))
	}
	return s.Name, s.perms, nil
}

// permsAt reads a list of permissions that stands at a place of the input.
func permsAt(at string, names []string) (permSet, error) {
	var all permSet
	for i, n := range names {
		one, err := permsOf(n)
		if err != nil {
			return 0, op.Invalid(fmt.Sprintf("%s.%d", at, i), "%v", err)
		}
		all |= one
	}
	return all, nil
}

// newRules reads the restrictions of a new key. Null, or none at all, is refused: who names restrictions wants some.
func newRules(in op.Clear[Restrictions]) (*rules, error) {
	switch {
	case in.Null:
		return nil, op.Invalid("body.restrictions", "Null restricts nothing; name at least one restriction, or leave it out")
	case !in.Set:
		return nil, nil
	}
	if kind := in.Val.null(); kind != "" {
		return nil, op.Invalid("body.restrictions."+kind, "Null restricts nothing; leave it out")
	}
	r, err := rulesOf(in.Val, "body.restrictions")
	if err == nil && r == nil {
		err = op.Invalid("body.restrictions", "Name at least one restriction, or leave it out: %s", strings.Join(kinds[:], ", "))
	}
	return r, err
}

func oneOf(words []string) string {
	last := len(words) - 1
	return "'" + strings.Join(words[:last], "', '") + "' or '" + words[last] + "'"
}

// listText is how a list of permissions is stored: the names of a custom scope, nothing for a named one.
func listText(scope string, perms permSet) string {
	if scope != custom {
		return "[]"
	}
	return string(op.Marshal(perms.names()))
}

func (a *Access) createKey(ctx context.Context, in keyCreate) (NewKey, error) {
	w, err := in.check()
	if err != nil {
		return NewKey{}, err
	}
	return a.create(ctx, w, in.IdempotencyKey)
}

// create makes a key with the rights that its caller has at that moment.
func (a *Access) create(ctx context.Context, w wanted, repeat op.Opt[string]) (out NewKey, err error) {
	c := From(ctx)
	err = a.update(ctx, func(tx *db.Tx) error {
		r := a.reader(tx)
		caller, err := r.callerRights(c)
		if err != nil {
			return err
		}
		if err := c.mayMake(caller, w); err != nil {
			return err
		}
		if err := a.cuesExist(tx, c, w.rules, "body.restrictions"); err != nil {
			return err
		}
		row, warning, err := w.row(caller, a.now())
		if err != nil {
			return err
		}
		if repeat.Set {
			row.request = w.request(c.KeyID(), repeat.Val)
			again, err := r.madeBefore(c, row)
			if err != nil {
				return err
			}
			if again != nil {
				out, err = r.replaceSecret(*again)
				return err
			}
		}
		out, err = r.insert(row)
		if err != nil {
			return err
		}
		out.Warning = warning
		detail := map[string]any{"kind": row.kind, "scope": row.scope, "permissions": w.perms.names(), "restrictions": op.Object(row.restrictions), "expires_at": moment(row.expires), "parent_id": out.ParentID}
		return Record(tx, Event{Object: "key", ID: row.id, Name: row.name, Detail: detail})
	})
	return out, err
}

// mayMake holds a new key against its maker. A child needs no comparing: whatever it holds, it can do only what its chain can. A
// key without a parent must be within what the member holds, and a restricted key cannot make it: nothing would restrict it.
func (c *Caller) mayMake(caller rights, w wanted) error {
	if caller.key.kind == integration.String() {
		if len(caller.chain) > maxDepth {
			return TooDeep.Msg("This key has %d keys above it; a new one would have more than %d.", len(caller.chain)-1, maxDepth)
		}
		return nil
	}
	if w.kind == personal { // bounded by its member's role like its maker, now and whenever the role changes
		caller.perms = caller.own
	}
	return c.wants(caller, w.perms, "make a key that is not restricted in the same way")
}

// cuesExist refuses an id of a cue that the workspace does not have: a misspelt one would allow nothing. A caller that may not read cues
// is not told.
func (a *Access) cuesExist(tx *db.Tx, c *Caller, r *rules, at string) error {
	if r == nil || !c.Holds("cues:read") {
		return nil
	}
	for i, s := range r.Cues {
		if !isCueID(s) {
			continue
		}
		ok, err := a.things.CueExists(tx, c.Workspace(), s)
		if err != nil {
			return err
		}
		if !ok {
			return op.Invalid(fmt.Sprintf("%s.cues.%d", at, i), "There is no cue %s in this workspace", s)
		}
	}
	return nil
}

// row is the key that is wanted. An end that nobody asked for is cut to that of its maker, with a warning; one that was asked for and
// is later is refused. Only an integration key that a member makes may outlive its maker: nothing that happens to the personal key
// touches it (KEYS 1).
func (w wanted) row(maker rights, now int64) (row keyRow, warning string, err error) {
	row = keyRow{
		id: newID(keyPrefix), workspace: maker.key.workspace, user: maker.key.user, kind: w.kind.String(), name: w.name, scope: w.scope,
		permissions: listText(w.scope, w.perms), restrictions: w.rules.text(), created: now, createdBy: maker.key.user, rev: 1,
	}
	if row.expires, err = lifetime(w.expiresIn, w.expiresAt, "1y", now); err != nil {
		return row, "", err
	}
	byMember := maker.key.kind == personal.String()
	if !byMember {
		row.parent = maker.key.id
	}
	switch {
	case byMember && w.kind == integration, !later(row.expires, maker.expires):
		return row, "", nil
	case !w.expiresIn.Set && !w.expiresAt.Set:
		row.expires = maker.expires
		return row, "It ends when the key that made it ends.", nil
	case byMember:
		return row, "", op.Invalid(endField(w.expiresAt), "The key that makes it ends at %s, and a personal key does not outlive the one that made it; who manages keys can extend it later", op.Time(maker.expires))
	}
	return row, "", notAfter(row.expires, maker.expires, w.expiresAt)
}

// request is how the creation of a key is recognised when it is repeated: by who makes it with which Idempotency-Key, and then by what
// was asked for.
func (w wanted) request(maker, idempotencyKey string) string {
	asked := op.Marshal([]any{w.kind.String(), w.name, w.scope, w.perms, w.rules.text(), w.expiresIn, w.expiresAt})
	return fingerprint([]byte(maker+" "+idempotencyKey)) + ":" + fingerprint(asked)
}

func fingerprint(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// madeBefore finds the key that the same Idempotency-Key made a moment ago; nil when there is none.
func (r *reader) madeBefore(c *Caller, row keyRow) (*keyRow, error) {
	maker, _, _ := strings.Cut(row.request, ":")
	was := keyRow{}
	err := was.scan(r.tx.Row(sqlKeyByRequest, row.workspace, maker+":", maker+";", row.created-repeatFor)) // ";" follows ":"
	switch {
	case isNone(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look for the key of an earlier call: %w", err)
	case was.request != row.request:
		return nil, IdempotencyConflict.Msg("This Idempotency-Key made key %s a moment ago, with another input.", was.id)
	}
	target, err := r.mayShow(c, was.id) // it may have been changed since
	if err == nil && target.why == expired {
		err = KeyEnded.Msg("The key that this Idempotency-Key made, %s, has expired.", was.id)
	}
	return &was, err
}

// replaceSecret gives a key a new secret and ends the others, whose holder never got the answer.
func (r *reader) replaceSecret(row keyRow) (NewKey, error) {
	out, err := r.turn(row, -1)
	if err != nil {
		return out, err
	}
	return out, Record(r.tx, Event{Object: "key", ID: row.id, Name: row.name, Detail: map[string]any{"repeated": true, "secret": SecretText(out.Secret).String()}})
}

// insert writes a new key with its first secret.
func (r *reader) insert(row keyRow) (NewKey, error) {
	if err := r.roomForKey(row.workspace); err != nil {
		return NewKey{}, err
	}
	if err := addKey(r.tx, row); err != nil {
		return NewKey{}, err
	}
	return r.addSecret(row, 1, stateCurrent, 0)
}

// addSecret gives a key a new secret and answers with both.
func (r *reader) addSecret(row keyRow, seq int64, state secretState, overlap int64) (NewKey, error) {
	fresh, err := r.freshSecret()
	if err != nil {
		return NewKey{}, err
	}
	e := r.a.sealer.current()
	hash := e.hash(fresh)
	err = addSecret(r.tx, secretRow{
		digits: digitString(fresh.digits()), key: row.id, seq: seq, prefix: r.a.Prefix, hash: hash[:], epoch: int64(e.number),
		state: state.String(), overlap: overlap, created: r.a.now(), lastUsed: "{}", shownTo: r.stranger(row),
	})
	if err != nil {
		return NewKey{}, err
	}
	out := NewKey{Secret: fresh.Reveal()}
	out.Key, err = r.showOne(row)
	return out, err
}

// freshSecret makes a secret whose digits nobody has on this server.
func (r *reader) freshSecret() (Secret, error) {
	for {
		s := newSecret(r.a.Prefix)
		var n int64
		if err := r.tx.Row(sqlSecretTaken, digitString(s.digits())).Scan(&n); err != nil {
			return s, fmt.Errorf("look for taken digits: %w", err)
		}
		if n == 0 {
			return s, nil
		}
	}
}

// personalRow is a personal key of scope full for a year.
func (a *Access) personalRow(workspace, user, name string) keyRow {
	now := a.now()
	return keyRow{
		id: newID(keyPrefix), workspace: workspace, user: user, kind: personal.String(), name: name, scope: "full", permissions: "[]",
		restrictions: noRules, created: now, createdBy: user, expires: now + yearUS, rev: 1,
	}
}

// personalCreate is the input of personal_key.create.
type personalCreate struct {
	Name         string                 `json:"name" min:"1" max:"100" format:"line" doc:"where it will be used, such as laptop"`
	Scope        op.Opt[string]         `json:"scope" doc:"a named scope, full when nothing else is said; the key can do no more than its member's role"`
	Permissions  op.Clear[[]string]     `json:"permissions" min:"1" max:"100" doc:"permissions instead of a named scope; null is refused"`
	Restrictions op.Clear[Restrictions] `json:"restrictions" doc:"all of them must hold; null is refused"`
	ExpiresIn    op.Opt[string]         `json:"expires_in" doc:"never, 30d, 90d, 1y (default) or a duration"`
	ExpiresAt    op.Opt[op.Time]        `json:"expires_at" doc:"its end as a moment, instead of a length of time"`
}

func (a *Access) createPersonal(ctx context.Context, in personalCreate) (NewKey, error) {
	if in.Permissions.Null { // it would be full
		return NewKey{}, op.Invalid("body.permissions", "Null names no permission; name at least one, or leave it out")
	}
	if !in.Scope.Set && !in.Permissions.Set {
		in.Scope = op.Some("full")
	}
	w, err := keyCreate{Name: in.Name, Scope: in.Scope, Permissions: asOpt(in.Permissions), Restrictions: in.Restrictions, ExpiresIn: in.ExpiresIn, ExpiresAt: in.ExpiresAt}.check()
	if err != nil {
		return NewKey{}, err
	}
	w.kind = personal
	return a.create(ctx, w, op.Opt[string]{})
}

func (a *Access) listPersonal(ctx context.Context, _ struct{}) (page KeyPage, err error) {
	c := From(ctx)
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		me, err := readKey(tx, c.Workspace(), c.KeyID())
		if err != nil {
			return err
		}
		rows, err := readKeys(tx, sqlPersonalKeys, c.Workspace(), me.user)
		if err != nil {
			return err
		}
		page = KeyPage{}
		page.Keys, err = a.reader(tx).showAll(rows)
		return err
	})
	return page, err
}
