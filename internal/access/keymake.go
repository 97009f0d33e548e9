package access

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// keyCreate is the input of key.create. Exactly one of scope and permissions is wanted.
type keyCreate struct {
	Name         string               `json:"name" min:"1" max:"100" doc:"what the key is for"`
	Scope        op.Opt[string]       `json:"scope" doc:"a named scope; GET /v1/scopes lists them"`
	Permissions  op.Opt[[]string]     `json:"permissions" min:"1" doc:"permissions instead of a named scope"`
	Restrictions op.Opt[Restrictions] `json:"restrictions" doc:"all of them must hold"`
	ExpiresIn    op.Opt[string]       `json:"expires_in" doc:"never, 30d, 90d, 1y (default) or a duration"`
	ExpiresAt    op.Opt[op.Time]      `json:"expires_at" doc:"instead of expires_in"`
	RequestKey   op.Opt[string]       `header:"Idempotency-Key" max:"255" doc:"repeating the call within ten minutes replaces the secret instead of making a second key"`
}

// wanted is what a caller asks of a new key, checked.
type wanted struct {
	scope string
	list  []string
	perms permSet
	rules *rules
}

func (in keyCreate) check() (wanted, error) {
	w := wanted{}
	var err error
	switch {
	case in.Scope.Set == in.Permissions.Set:
		return w, op.Invalid("body.scope", "Send a scope or permissions, and not both")
	case in.Scope.Set:
		s, ok := scopeOf(in.Scope.Val)
		if !ok {
			return w, op.Invalid("body.scope", "Input should be %s", oneOf(scopeNames()))
		}
		w.scope, w.perms = s.Name, s.perms
	default:
		if w.scope, w.list, w.perms, err = customPerms(in.Permissions.Val, "body.permissions"); err != nil {
			return w, err
		}
	}
	w.rules, err = rulesOf(in.Restrictions.Val, "body.restrictions")
	return w, err
}

// customPerms checks a list of permissions and brings it into the order of the table.
func customPerms(names []string, at string) (scope string, list []string, s permSet, err error) {
	for i, n := range names {
		one, err := permsOf(n)
		if err != nil {
			return "", nil, 0, op.Invalid(fmt.Sprintf("%s.%d", at, i), "%v", err)
		}
		s |= one
	}
	return custom, s.names(), s, nil
}

func oneOf(words []string) string {
	out := ""
	for i, w := range words {
		switch {
		case i == 0:
		case i == len(words)-1:
			out += " or "
		default:
			out += ", "
		}
		out += "'" + w + "'"
	}
	return out
}

func (a *Access) createKey(ctx context.Context, in keyCreate) (NewKey, error) {
	w, err := in.check()
	if err != nil {
		return NewKey{}, err
	}
	return a.create(ctx, in, w, integration)
}

// create makes a key with the rights that its caller has at that moment.
func (a *Access) create(ctx context.Context, in keyCreate, w wanted, k kind) (out NewKey, err error) {
	c := From(ctx)
	err = a.DB.Update(ctx, func(tx *db.Tx) error {
		r, err := a.callerRights(tx, c)
		if err != nil {
			return err
		}
		if err := a.mayMake(c, r, w, k); err != nil {
			return err
		}
		if err := a.cuesExist(tx, c, w.rules, "body.restrictions"); err != nil {
			return err
		}
		row := keyRow{
			id: newID("key_"), workspace: c.Workspace(), user: r.user, kind: k.String(), name: in.Name, scope: w.scope,
			permissions: string(op.Marshal(listOf(w.list))), restrictions: w.rules.text(), created: a.now(), createdBy: r.user, rev: 1,
		}
		if r.kind == "integration" {
			row.parent = &r.chain[0]
		}
		warning, err := expiry(&row, in.ExpiresIn, in.ExpiresAt, r, a.now())
		if err != nil {
			return err
		}
		if in.RequestKey.Set {
			row.requestKey = c.KeyID() + ":" + in.RequestKey.Val
			if done, err := a.repeated(tx, row, &out); done || err != nil {
				return err
			}
		}
		out, err = a.insertKey(tx, row)
		out.Warning = warning
		return err
	})
	return out, err
}

func listOf(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// mayMake holds a new key against its maker. A child needs no comparing: whatever it holds, it can do only what its chain can. A
// key without a parent must be within what the member holds, and a restricted key cannot make it: nothing would restrict it.
func (a *Access) mayMake(c *Caller, r rights, w wanted, k kind) error {
	if r.kind == "integration" {
		if len(r.chain) > maxDepth {
			return TooDeep.Msg("This key has %d keys above it; a new one would have more than %d.", len(r.chain)-1, maxDepth)
		}
		return nil
	}
	held := r.perms
	if k == personal { // bounded by its member's role like its maker, now and whenever the role changes
		held = r.own
	}
	if lacks := w.perms &^ held; lacks != 0 {
		return a.missing(c.holding(held), c.call.Operation, lacks.names()...)
	}
	if r.restricted {
		return a.restrictedMaker(c, "make a key that is not restricted in the same way")
	}
	return nil
}

// holding is the caller with the rights that a transaction found.
func (c *Caller) holding(p permSet) *Caller {
	d := *c
	d.grant.perms = p
	return &d
}

func (g grant) scopeName() string {
	if g.scope == 0 {
		return custom
	}
	return scopes[g.scope-1].Name
}

// restrictedMaker refuses what only a caller without restrictions may do. It names the first restriction along the chain.
func (a *Access) restrictedMaker(c *Caller, what string) error {
	by, name := c.grant.key, "cues"
	c.grant.chain(func(k *key) bool {
		if r := k.rules.Load(); !r.empty() {
			by, name = k, r.kinds()[0]
			return false
		}
		return true
	})
	e := a.restrictedBy(c, by, name, "This key is restricted, so it may not "+what+".", c.call.Name)
	x := e.(*op.Error).Extra.(refusedRestriction)
	x.Grants = []Grant{{Key: by.id(), DropRestrictions: by.rules.Load().kinds()}}
	x.Mend = "A member without such restrictions does it, with a personal key."
	e.(*op.Error).Extra = x
	return e
}

// kinds names the restrictions that are present.
func (r *rules) kinds() []string {
	var out []string
	for _, k := range []struct {
		name string
		has  bool
	}{
		{"cues", r.Cues != nil}, {"ips", r.IPs != nil}, {"via", r.Via != nil}, {"not_before", r.NotBefore != nil},
		{"rate_per_minute", r.RatePerMinute != 0}, {"worker_ids", r.WorkerIDs != nil},
	} {
		if k.has {
			out = append(out, k.name)
		}
	}
	return out
}

// cuesExist refuses an id of a cue that the workspace does not have: a misspelt one would allow nothing.
func (a *Access) cuesExist(tx *db.Tx, c *Caller, r *rules, at string) error {
	if r == nil || a.things == nil {
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

// expiry sets when a new key ends. One that nobody asked for is cut to the parent's; one that was asked for and is later is refused.
func expiry(row *keyRow, in op.Opt[string], at op.Opt[op.Time], r rights, now int64) (warning string, err error) {
	end, err := lifetime(in, at, "1y", now)
	if err != nil {
		return "", err
	}
	if row.parent != nil && r.expires != 0 && (end == 0 || end > r.expires) {
		if in.Set || at.Set {
			field := "body.expires_in"
			if at.Set {
				field = "body.expires_at"
			}
			return "", op.Invalid(field, "The key that makes it ends at %s; a child cannot live longer", op.Time(r.expires))
		}
		end, warning = r.expires, "It ends when the key that made it ends."
	}
	if end != 0 {
		row.expires = &end
	}
	return warning, nil
}

// repeated finds the key that the same Idempotency-Key made a moment ago and gives it a new secret instead of making another.
func (a *Access) repeated(tx *db.Tx, row keyRow, out *NewKey) (bool, error) {
	was := keyRow{}
	err := was.scan(tx.Row(sqlKeyByRequest, row.workspace, row.requestKey, row.created-repeatFor))
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if was.name != row.name || was.scope != row.scope || was.permissions != row.permissions || was.restrictions != row.restrictions || was.kind != row.kind {
		return true, IdempotencyConflict.Msg("This Idempotency-Key made key %s a moment ago, with another input.", was.id)
	}
	if was.revoked != nil {
		return true, KeyEnded.Msg("The key that this Idempotency-Key made, %s, was revoked.", was.id)
	}
	secrets, err := readSecrets(tx, was.id)
	if err != nil {
		return true, err
	}
	for _, s := range secrets {
		if err := a.setSecret(tx, s, stateEnded, nil); err != nil {
			return true, err
		}
	}
	*out, err = a.addSecret(tx, was, secrets[0].seq+1, stateCurrent, 0)
	if err != nil {
		return true, err
	}
	return true, Record(tx, Event{Object: "key", ID: was.id, Name: was.name, Detail: map[string]any{"repeated": true, "secret": out.Redacted}})
}

// insertKey writes a new key with its first secret.
func (a *Access) insertKey(tx *db.Tx, row keyRow) (NewKey, error) {
	out, err := a.writeKey(tx, row)
	if err != nil {
		return out, err
	}
	detail := map[string]any{"kind": row.kind, "scope": row.scope, "permissions": out.Permissions, "restrictions": out.Restrictions, "expires_at": out.ExpiresAt, "parent_id": row.parent}
	return out, Record(tx, Event{Object: "key", ID: row.id, Name: row.name, Detail: detail})
}

// writeKey is insertKey without the audit row, for keys that no caller makes.
func (a *Access) writeKey(tx *db.Tx, row keyRow) (NewKey, error) {
	_, err := tx.Exec(sqlKeyAdd, row.id, row.workspace, row.user, row.parent, row.kind, row.name, row.scope, row.permissions, row.restrictions,
		row.created, row.createdBy, row.expires, row.revoked, row.revokedBy, row.requestKey, row.rev)
	if err != nil {
		return NewKey{}, fmt.Errorf("write a key: %w", err)
	}
	a.publishKey(tx, row)
	return a.addSecret(tx, row, 1, stateCurrent, 0)
}

// addSecret gives a key a new secret and answers with both.
func (a *Access) addSecret(tx *db.Tx, row keyRow, seq int64, state secretState, overlap int64) (NewKey, error) {
	secret, err := a.freshSecret(tx)
	if err != nil {
		return NewKey{}, err
	}
	e := a.sealer.current()
	var hash [32]byte
	e.hash(secret, &hash)
	s := secretRow{
		digits: digitString(secret.digits()), key: row.id, seq: seq, prefix: a.Prefix, hash: hash[:], epoch: int64(e.number),
		state: state.String(), overlap: overlap, created: a.now(), lastUsed: "{}",
	}
	_, err = tx.Exec(sqlSecretAdd, s.digits, s.key, s.seq, s.prefix, s.hash, s.epoch, s.state, s.overlap, s.created, s.ends, s.lastUse, s.lastUsed)
	if err != nil {
		return NewKey{}, fmt.Errorf("write a secret: %w", err)
	}
	tx.AfterCommit(func() { a.publish(func(t *table) error { return t.putSecret(s) }) })
	out := NewKey{Secret: secret.Reveal()}
	out.Key, err = a.show(tx, row)
	return out, err
}

// freshSecret makes a secret whose digits nobody has on this server.
func (a *Access) freshSecret(tx *db.Tx) (Secret, error) {
	for {
		s := newSecret(a.Prefix)
		var n int64
		if err := tx.Row(sqlSecretTaken, digitString(s.digits())).Scan(&n); err != nil {
			return s, fmt.Errorf("look for taken digits: %w", err)
		}
		if n == 0 {
			return s, nil
		}
	}
}

// setSecret moves a secret on towards its end.
func (a *Access) setSecret(tx *db.Tx, s secretRow, state secretState, ends *int64) error {
	if _, err := tx.Exec(sqlSecretState, s.digits, state.String(), ends); err != nil {
		return fmt.Errorf("change a secret: %w", err)
	}
	s.state, s.ends = state.String(), ends
	tx.AfterCommit(func() { a.publish(func(t *table) error { return t.putSecret(s) }) })
	return nil
}

// personalCreate is the input of personal_key.create.
type personalCreate struct {
	Name      string         `json:"name" min:"1" max:"100" doc:"where it will be used, such as laptop"`
	Scope     string         `json:"scope" default:"full" doc:"a named scope; the key can do no more than its member's role"`
	ExpiresIn op.Opt[string] `json:"expires_in" doc:"never, 30d, 90d, 1y (default) or a duration"`
}

func (a *Access) createPersonal(ctx context.Context, in personalCreate) (NewKey, error) {
	ask := keyCreate{Name: in.Name, Scope: op.Some(in.Scope), ExpiresIn: in.ExpiresIn}
	w, err := ask.check()
	if err != nil {
		return NewKey{}, err
	}
	return a.create(ctx, ask, w, personal)
}

func (a *Access) listPersonal(ctx context.Context, _ struct{}) (KeyPage, error) {
	page := KeyPage{}
	c := From(ctx)
	err := a.DB.View(ctx, func(tx *db.Tx) error {
		page = KeyPage{Keys: []Key{}}
		me, err := readKey(tx, c.Workspace(), c.KeyID())
		if err != nil {
			return err
		}
		rows, err := keysOfMember(tx, c.Workspace(), me.user)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if row.kind != "personal" {
				continue
			}
			k, err := a.show(tx, row)
			if err != nil {
				return err
			}
			page.Keys = append(page.Keys, k)
		}
		slices.Reverse(page.Keys)
		return nil
	})
	return page, err
}

// keysOfMember reads the keys of a member that are not revoked, oldest first.
func keysOfMember(tx *db.Tx, workspace, user string) ([]keyRow, error) {
	var out []keyRow
	err := each(tx, sqlKeysOfMember, []any{workspace, user}, func(r *sql.Rows) error {
		k := keyRow{}
		err := k.scan(r)
		out = append(out, k)
		return err
	})
	return out, err
}
