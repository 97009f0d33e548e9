package access

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Codes of the operations on keys.
var (
	KeyNotFound         = op.Code{Status: 404, Name: "key_not_found", Doc: "There is no key of this id in the workspace."}
	WouldWiden          = op.Code{Status: 422, Name: "would_widen", Doc: "Changing a key can only narrow it. A member widens it with key.widen or extends it with key.extend."}
	KeyEnded            = op.Code{Status: 409, Name: "key_ended", Doc: "The key was revoked, or expired too long ago. Make a new one."}
	NotRotating         = op.Code{Status: 409, Name: "not_rotating", Doc: "The key has one secret only, so there is no old one to end."}
	MembersOnly         = op.Code{Status: 403, Name: "members_only", Doc: "Only a member may do this, with a personal key; an integration key may not."}
	TooDeep             = op.Code{Status: 422, Name: "too_deep", Doc: "A key may have at most 8 keys above it. Make the new one with a key further up."}
	IdempotencyConflict = op.Code{Status: 409, Name: "idempotency_key_conflict", Doc: "The same Idempotency-Key was used within ten minutes for another input. Use a new one."}
)

const (
	dayUS       = 24 * int64(hourUS)
	yearUS      = 365 * dayUS
	staleAfter  = 90 * dayUS
	reviveFor   = 30 * dayUS
	maxOverlap  = 30 * dayUS
	repeatFor   = 10 * minuteUS
	maxDepth    = 8
	maxLifetime = 100 * yearUS
)

// Actor is who did something: a member, or a key.
type Actor struct {
	ID   string `json:"id"`
	Name string `json:"name" doc:"e-mail of a member, name of a key"`
}

// SecretInfo is what is shown of a secret.
type SecretInfo struct {
	Redacted   string    `json:"redacted"`
	State      string    `json:"state" doc:"current; pending: new and not yet used; old: works until ends_at"`
	CreatedAt  op.Time   `json:"created_at"`
	EndsAt     *op.Time  `json:"ends_at"`
	LastUsedAt *op.Time  `json:"last_used_at"`
	LastUsed   *LastUsed `json:"last_used"`
}

// Key is a key as every answer shows it. The secret is never part of it.
type Key struct {
	ID           string       `json:"id"`
	Name         string       `json:"name"`
	Redacted     string       `json:"redacted" doc:"of the newest secret in use"`
	Kind         string       `json:"kind" doc:"personal or integration"`
	Scope        string       `json:"scope" doc:"a named scope, or custom"`
	Permissions  []string     `json:"permissions" doc:"what the key holds in effect: its own, within those of the keys above it and of its member's role"`
	Restrictions *rules       `json:"restrictions" doc:"of the key itself; null when there are none"`
	Status       string       `json:"status" doc:"active, pending (before its not_before), expired or revoked"`
	Secrets      []SecretInfo `json:"secrets" doc:"one, or two while the key is rotating"`
	CreatedAt    op.Time      `json:"created_at"`
	CreatedBy    Actor        `json:"created_by"`
	LastUsedAt   *op.Time     `json:"last_used_at"`
	LastUsed     *LastUsed    `json:"last_used"`
	ExpiresAt    *op.Time     `json:"expires_at" doc:"null: never"`
	RevokedAt    *op.Time     `json:"revoked_at"`
	RevokedBy    *Actor       `json:"revoked_by"`
	ParentID     *string      `json:"parent_id"`
	Member       Actor        `json:"member" doc:"whose key it is"`
	Stale        bool         `json:"stale" doc:"not used for 90 days"`
}

// NewKey is a key with its secret, shown this once.
type NewKey struct {
	Key
	Secret  string `json:"key" doc:"the secret itself, shown this once"`
	Warning string `json:"warning" doc:"what was changed of what was asked; empty when nothing"`
}

// show is a stored key as an answer shows it.
func (a *Access) show(tx *db.Tx, row keyRow) (Key, error) {
	secrets, err := readSecrets(tx, row.id)
	if err != nil {
		return Key{}, err
	}
	k := Key{
		ID: row.id, Name: row.name, Kind: row.kind, Scope: row.scope, CreatedAt: op.Time(row.created), ParentID: row.parent,
		ExpiresAt: (*op.Time)(row.expires), RevokedAt: (*op.Time)(row.revoked), Secrets: []SecretInfo{},
	}
	if k.Restrictions, err = readRules(row.restrictions); err != nil {
		return k, err
	}
	perms, why := a.effectNow(tx, row)
	k.Permissions, k.Status = perms.names(), statusOf(why)
	for _, s := range secrets {
		if s.state == "ended" && len(secrets) > 1 || s.state == "old" && s.ends != nil && a.now() >= *s.ends {
			continue
		}
		info := SecretInfo{Redacted: s.redacted(), State: s.state, CreatedAt: op.Time(s.created), EndsAt: (*op.Time)(s.ends)}
		info.LastUsedAt, info.LastUsed = a.lastUseOf(s)
		k.Secrets = append(k.Secrets, info)
	}
	for _, s := range secrets {
		if at, last := a.lastUseOf(s); at != nil && (k.LastUsedAt == nil || *at > *k.LastUsedAt) {
			k.LastUsedAt, k.LastUsed = at, last
		}
	}
	if i := slices.IndexFunc(k.Secrets, func(s SecretInfo) bool { return s.State == "current" }); i >= 0 {
		k.Redacted = k.Secrets[i].Redacted
	} else if len(k.Secrets) > 0 {
		k.Redacted = k.Secrets[0].Redacted
	}
	since := k.CreatedAt
	if k.LastUsedAt != nil {
		since = *k.LastUsedAt
	}
	k.Stale = k.Status != "revoked" && a.now()-int64(since) > staleAfter
	k.CreatedBy, k.Member = actor(tx, row.workspace, row.createdBy), actor(tx, row.workspace, row.user)
	if row.revoked != nil {
		by := actor(tx, row.workspace, row.revokedBy)
		k.RevokedBy = &by
	}
	return k, nil
}

func statusOf(why standing) string {
	switch why {
	case stands:
		return "active"
	case notYet:
		return "pending"
	case expired:
		return "expired"
	}
	return "revoked"
}

// actor names a member by e-mail and a key by its name, or by its member's e-mail when it is a personal key.
func actor(tx *db.Tx, workspace, id string) Actor {
	a := Actor{ID: id}
	if strings.HasPrefix(id, "key_") {
		row, err := readKey(tx, workspace, id)
		if err != nil {
			return a
		}
		if row.kind != "personal" {
			a.Name = row.name
			return a
		}
		a.ID = row.user
	}
	var uid string
	var created int64
	_ = tx.Row(sqlUserByID, a.ID).Scan(&uid, &a.Name, &created) // a person that is gone is shown by id alone
	return a
}

// rights is what a transaction itself finds out about a key: what it may do along its chain, read from the rows and not from memory.
type rights struct {
	perms      permSet
	own        permSet // of the key alone, before roles and keys above it
	why        standing
	restricted bool     // by itself or any key above it
	chain      []string // ids, the key itself first
	kind       string
	expires    int64 // the earliest of the chain; 0: never
	user       string
}

// rightsOf walks a key's chain in the transaction.
func (a *Access) rightsOf(tx *db.Tx, workspace, id string) (rights, error) {
	r := rights{perms: allPerms, why: stands}
	for next := &id; next != nil; {
		row, err := readKey(tx, workspace, *next)
		if err != nil {
			return r, fmt.Errorf("read key %s: %w", *next, err)
		}
		if r.kind == "" {
			r.kind, r.user = row.kind, row.user
		}
		if err := a.addRights(tx, &r, row); err != nil {
			return r, err
		}
		next = row.parent
	}
	return r, nil
}

func (a *Access) addRights(tx *db.Tx, r *rights, row keyRow) error {
	r.chain = append(r.chain, row.id)
	rules, err := readRules(row.restrictions)
	if err != nil {
		return err
	}
	r.restricted = r.restricted || !rules.empty()
	perms, err := effective(row.scope, row.permissions)
	if err != nil {
		return err
	}
	if len(r.chain) == 1 {
		r.own = perms
	}
	if row.kind == "personal" {
		var role string
		var rev, created int64
		if err := tx.Row(sqlMember, row.workspace, row.user).Scan(&role, &rev, &created); err != nil {
			return fmt.Errorf("read a membership: %w", err)
		}
		if role == "" {
			r.why = revoked
		}
		perms &= rolePerms(role) | ownPerms
	}
	r.perms &= perms
	if row.expires != nil && (r.expires == 0 || *row.expires < r.expires) {
		r.expires = *row.expires
	}
	switch now := a.now(); {
	case row.revoked != nil:
		r.why = revoked
	case row.expires != nil && now >= *row.expires && r.why != revoked:
		r.why = expired
	case rules != nil && rules.NotBefore != nil && now < int64(*rules.NotBefore) && r.why == stands:
		r.why = notYet
	}
	return nil
}

// effectNow is what a key may do as the transaction sees it, and how it stands.
func (a *Access) effectNow(tx *db.Tx, row keyRow) (permSet, standing) {
	r, err := a.rightsOf(tx, row.workspace, row.id)
	if err != nil {
		return 0, revoked
	}
	return r.perms, r.why
}

// callerRights are the rights of the caller as the transaction sees them; a caller that was ended meanwhile is refused.
func (a *Access) callerRights(tx *db.Tx, c *Caller) (rights, error) {
	r, err := a.rightsOf(tx, c.Workspace(), c.KeyID())
	if err != nil {
		return r, err
	}
	if !r.why.passes() {
		return r, a.unauthenticated(c.grant, r.why)
	}
	if p := c.call.Needs.Permission(); p != "" && c.grant.perms.has(p) && !r.perms.has(p) {
		c.grant.perms = r.perms
		return r, a.missing(c, c.call.Operation, p)
	}
	return r, nil
}

// findKey reads a key of the caller's workspace, or answers 404.
func findKey(tx *db.Tx, c *Caller, id string) (keyRow, error) {
	row, err := readKey(tx, c.Workspace(), id)
	if errors.Is(err, sql.ErrNoRows) {
		return row, KeyNotFound.Msg("There is no key %s in this workspace.", id)
	}
	return row, err
}

// lifetime reads how long a key shall live: never, 30d, 90d, 1y, any duration, or a moment. The answer is the end in microseconds;
// 0 for never.
func lifetime(in op.Opt[string], at op.Opt[op.Time], def string, now int64) (int64, error) {
	switch {
	case in.Set && at.Set:
		return 0, op.Invalid("body.expires_at", "Send expires_in or expires_at, not both")
	case at.Set:
		if int64(at.Val) <= now {
			return 0, op.Invalid("body.expires_at", "That moment is past")
		}
		return int64(at.Val), nil
	}
	text := in.Or(def)
	if text == "never" {
		return 0, nil
	}
	d, err := parseSpan(text)
	if err != nil || d <= 0 || d > maxLifetime {
		return 0, op.Invalid("body.expires_in", "Write never, 30d, 90d, 1y or a duration such as 12h; at most 100 years")
	}
	return now + d, nil
}

// parseSpan reads a duration in microseconds: Go's form, or a whole number of days (d), weeks (w) or years (y).
func parseSpan(s string) (int64, error) {
	for unit, us := range map[string]int64{"d": dayUS, "w": 7 * dayUS, "y": yearUS} {
		if n, ok := strings.CutSuffix(s, unit); ok {
			i, err := strconv.ParseInt(n, 10, 32)
			if err != nil {
				return 0, err
			}
			return i * us, nil
		}
	}
	d, err := time.ParseDuration(s)
	return d.Microseconds(), err
}

// storeKey writes a changed key row and publishes it, with a higher rev, before its caller is answered.
func (a *Access) storeKey(tx *db.Tx, row keyRow) error {
	row.rev++
	_, err := tx.Exec(sqlKeySet, row.id, row.user, row.name, row.scope, row.permissions, row.restrictions, row.expires, row.revoked, row.revokedBy, row.rev)
	if err != nil {
		return fmt.Errorf("change key %s: %w", row.id, err)
	}
	a.publishKey(tx, row)
	return nil
}

func (a *Access) publishKey(tx *db.Tx, row keyRow, secrets ...secretRow) {
	tx.AfterCommit(func() {
		a.publish(func(t *table) error {
			err := t.putKey(row)
			for _, s := range secrets {
				err = errors.Join(err, t.putSecret(s))
			}
			return err
		})
	})
}

// publish takes committed rows into memory. What cannot be taken is a fault of the program; memory then knows less than the
// database, never more.
func (a *Access) publish(fn func(*table) error) {
	if err := a.table.publish(fn); err != nil {
		a.Log.Error("take a committed change into memory", "err", err)
	}
	a.signal()
}

// keyList is the input of key.list.
type keyList struct {
	Status op.Opt[string] `json:"status" enum:"active|pending|expired|revoked" doc:"only keys of this status"`
	Scope  op.Opt[string] `json:"scope" doc:"only keys of this scope"`
	Kind   op.Opt[string] `json:"kind" enum:"personal|integration" doc:"only keys of this kind"`
	MadeBy op.Opt[string] `json:"made_by" doc:"only keys of this member: id or e-mail"`
	Parent op.Opt[string] `json:"parent_id" doc:"only children of this key"`
	Stale  bool           `json:"stale" default:"false" doc:"only keys that were not used for 90 days"`
	Limit  int64          `json:"limit" min:"1" max:"1000" default:"100" doc:"keys a page"`
	Cursor op.Opt[string] `json:"cursor" doc:"next of the page before"`
}

// KeyPage is a page of keys, newest first.
type KeyPage struct {
	Keys []Key   `json:"keys"`
	Next *string `json:"next" doc:"cursor of the next page; null on the last"`
}

func (a *Access) listKeys(ctx context.Context, in keyList) (KeyPage, error) {
	page := KeyPage{}
	c := From(ctx)
	err := a.DB.View(ctx, func(tx *db.Tx) error {
		page = KeyPage{Keys: []Key{}}
		var rows []keyRow
		err := each(tx, sqlKeysOf, []any{c.Workspace()}, func(r *sql.Rows) error {
			k := keyRow{}
			err := k.scan(r)
			rows = append(rows, k)
			return err
		})
		if err != nil {
			return err
		}
		if in.Cursor.Set {
			i := slices.IndexFunc(rows, func(k keyRow) bool { return k.id == in.Cursor.Val })
			if i < 0 {
				return op.Invalid("query.cursor", "There is no such page; begin again without a cursor")
			}
			rows = rows[i+1:]
		}
		for _, row := range rows {
			if !in.matches(row) {
				continue
			}
			k, err := a.show(tx, row)
			if err != nil {
				return err
			}
			if in.Status.Set && k.Status != in.Status.Val || in.Stale && !k.Stale || in.MadeBy.Set && in.MadeBy.Val != k.Member.ID && !strings.EqualFold(in.MadeBy.Val, k.Member.Name) {
				continue
			}
			if int64(len(page.Keys)) == in.Limit {
				page.Next = &page.Keys[len(page.Keys)-1].ID
				break
			}
			page.Keys = append(page.Keys, k)
		}
		return nil
	})
	return page, err
}

func (in keyList) matches(row keyRow) bool {
	return (!in.Scope.Set || row.scope == in.Scope.Val) && (!in.Kind.Set || row.kind == in.Kind.Val) &&
		(!in.Parent.Set || row.parent != nil && *row.parent == in.Parent.Val)
}

type keyRef struct {
	ID string `json:"id" doc:"id of the key"`
}

func (a *Access) getKey(ctx context.Context, in keyRef) (Key, error) {
	return a.viewKey(ctx, in.ID)
}

func (a *Access) selfKey(ctx context.Context, _ struct{}) (Key, error) {
	return a.viewKey(ctx, From(ctx).KeyID())
}

func (a *Access) viewKey(ctx context.Context, id string) (k Key, err error) {
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		row, err := findKey(tx, From(ctx), id)
		if err != nil {
			return err
		}
		k, err = a.show(tx, row)
		return err
	})
	return k, err
}

type keyActivity struct {
	ID    string          `json:"id" doc:"id of the key"`
	Since op.Opt[op.Time] `json:"since" doc:"only from this moment on; default 30 days ago"`
}

// Activity is what a key did, by hour.
type Activity struct {
	Rows []ActivityRow `json:"activity"`
}

func (a *Access) activityOfKey(ctx context.Context, in keyActivity) (Activity, error) {
	out := Activity{}
	if err := a.Flush(ctx); err != nil { // so that the answer is right to the second
		return out, err
	}
	err := a.DB.View(ctx, func(tx *db.Tx) error {
		row, err := findKey(tx, From(ctx), in.ID)
		if err != nil {
			return err
		}
		out.Rows, err = readActivity(tx, row.id, int64(in.Since.Or(op.Time(a.now()-30*dayUS))))
		return err
	})
	return out, err
}
