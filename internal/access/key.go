package access

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Codes of the operations on keys.
var (
	KeyNotFound         = op.Code{Status: 404, Name: "key_not_found", Doc: "There is no key of this id in the workspace."}
	WouldWiden          = op.Code{Status: 422, Name: "would_widen", Doc: "Changing a key can only narrow it. A member widens it with key.widen or extends it with key.extend."}
	KeyEnded            = op.Code{Status: 409, Name: "key_ended", Doc: "The key was revoked, or expired too long ago. Make a new one."}
	NotRotating         = op.Code{Status: 409, Name: "not_rotating", Doc: "The key has one secret only, so there is no old one to end."}
	TooDeep             = op.Code{Status: 422, Name: "too_deep", Doc: "A key may have at most 8 keys above it. Make the new one with a key further up."}
	IdempotencyConflict = op.Code{Status: 409, Name: "idempotency_key_conflict", Doc: "The same Idempotency-Key was used within ten minutes for another input. Use a new one."}
)

const (
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
	ShownTo    *Actor    `json:"shown_to" doc:"the member who was shown it and is not the one whose key it is; null: nobody"`
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
	EndedSecrets []string     `json:"ended_secrets" doc:"redacted forms of secrets that work no more, newest first; at most 20"`
	CreatedAt    op.Time      `json:"created_at"`
	CreatedBy    Actor        `json:"created_by"`
	LastUsedAt   *op.Time     `json:"last_used_at"`
	LastUsed     *LastUsed    `json:"last_used"`
	ExpiresAt    *op.Time     `json:"expires_at" doc:"when it, or a key above it, expires; null: never"`
	RevokedAt    *op.Time     `json:"revoked_at"`
	RevokedBy    *Actor       `json:"revoked_by"`
	ParentID     *string      `json:"parent_id"`
	NarrowedBy   []string     `json:"narrowed_by" doc:"ids of the keys above it, and of its member, that take something away: permissions, time, or by restrictions"`
	Member       Actor        `json:"member" doc:"whose key it is"`
	Stale        bool         `json:"stale" doc:"not used for 90 days"`
}

// NewKey is a key with its secret, shown this once. Only its JSON and the field itself hold the secret: printed, it shows the key.
type NewKey struct {
	Key
	Secret  string `json:"key" doc:"the secret itself, shown this once"`
	Warning string `json:"warning" doc:"what was changed of what was asked; empty when nothing"`
}

func (k NewKey) String() string             { return "new key " + k.ID + " " + SecretText(k.Secret).String() }
func (k NewKey) Format(f fmt.State, _ rune) { fmt.Fprint(f, k.String()) }
func (k NewKey) LogValue() slog.Value       { return slog.StringValue(k.String()) }

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

// actor names a member by e-mail and a key by its name; a personal key is its member.
func (r *reader) actor(workspace, id string) (Actor, error) {
	if strings.HasPrefix(id, keyPrefix) {
		row, err := r.key(workspace, id)
		if err != nil {
			return Actor{ID: id}, fmt.Errorf("read key %s: %w", id, err)
		}
		if row.kind != personal.String() {
			return Actor{id, row.name}, nil
		}
		id = row.user
	}
	email, ok := r.people[id]
	if !ok {
		p, err := personByID(r.tx, id)
		if err != nil {
			return Actor{ID: id}, fmt.Errorf("read member %s: %w", id, err)
		}
		email = p.Email
		r.people[id] = email
	}
	return Actor{id, email}, nil
}

// show is a stored key as an answer shows it.
func (r *reader) show(row keyRow, secrets []secretRow) (Key, error) {
	has, err := r.rights(row)
	if err != nil {
		return Key{}, err
	}
	k := Key{
		ID: row.id, Name: row.name, Kind: row.kind, Scope: row.scope, Permissions: has.perms.names(), Status: statusOf(has.why),
		CreatedAt: op.Time(row.created), ExpiresAt: moment(has.expires), NarrowedBy: has.narrowedBy, RevokedAt: moment(row.revoked), Secrets: []SecretInfo{}, EndedSecrets: []string{},
	}
	if k.Restrictions, err = readRules(row.restrictions); err != nil {
		return k, err
	}
	if row.parent != "" {
		k.ParentID = &row.parent
	}
	if err := r.showSecrets(&k, row, secrets); err != nil {
		return k, err
	}
	since := k.CreatedAt
	if k.LastUsedAt != nil {
		since = *k.LastUsedAt
	}
	k.Stale = k.Status != statusOf(revoked) && r.a.now()-int64(since) >= staleAfter
	if row.revoked != 0 {
		by, err := r.actor(row.workspace, row.revokedBy)
		if err != nil {
			return k, err
		}
		k.RevokedBy = &by
	}
	if k.CreatedBy, err = r.actor(row.workspace, row.createdBy); err != nil {
		return k, err
	}
	k.Member, err = r.actor(row.workspace, row.user)
	return k, err
}

// mostEnded is how many secrets that work no more are shown with a key.
const mostEnded = 20

// showSecrets shows the secrets that work, and the newest if none does. A key was last used when any of its secrets was.
func (r *reader) showSecrets(k *Key, row keyRow, secrets []secretRow) error {
	now := r.a.now()
	for i, s := range secrets {
		at, last, err := r.a.lastUse(s)
		if err != nil {
			return err
		}
		if at != nil && (k.LastUsedAt == nil || *at > *k.LastUsedAt) {
			k.LastUsedAt, k.LastUsed = at, last
		}
		if s.over(now) && i > 0 {
			if len(k.EndedSecrets) < mostEnded {
				k.EndedSecrets = append(k.EndedSecrets, s.redacted())
			}
			continue
		}
		shown, err := r.shownTo(row, s)
		if err != nil {
			return err
		}
		k.Secrets = append(k.Secrets, SecretInfo{s.redacted(), s.state, op.Time(s.created), moment(s.ends), at, last, shown})
		if k.Redacted == "" || s.is(stateCurrent) {
			k.Redacted = s.redacted()
		}
	}
	return nil
}

// moment is a stored moment, or nil for none.
func moment(us int64) *op.Time {
	if us == 0 {
		return nil
	}
	t := op.Time(us)
	return &t
}

// showOne reads the secrets of a key and shows it.
func (r *reader) showOne(row keyRow) (Key, error) {
	secrets, err := readSecrets(r.tx, row.id)
	if err != nil {
		return Key{}, err
	}
	return r.show(row, secrets)
}

// showAll shows several keys, in their order.
func (r *reader) showAll(rows []keyRow) ([]Key, error) {
	ids := make([]string, len(rows))
	for i, row := range rows {
		ids[i] = row.id
	}
	secrets, err := readSecrets(r.tx, ids...)
	if err != nil {
		return nil, err
	}
	of := map[string][]secretRow{}
	for _, s := range secrets {
		of[s.key] = append(of[s.key], s)
	}
	out := make([]Key, len(rows))
	for i, row := range rows {
		if out[i], err = r.show(row, of[row.id]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// keyList is the input of key.list.
type keyList struct {
	Status op.Opt[string] `json:"status" enum:"active|pending|expired|revoked" doc:"only keys of this status"`
	Scope  op.Opt[string] `json:"scope" doc:"only keys of this scope"`
	Kind   op.Opt[string] `json:"kind" enum:"personal|integration" doc:"only keys of this kind"`
	MadeBy op.Opt[string] `json:"made_by" doc:"only keys of this member: id or e-mail"`
	Parent op.Opt[string] `json:"parent_id" doc:"only children of this key: id, or self"`
	Stale  bool           `json:"stale" default:"false" doc:"only keys that were not used for 90 days"`
	Limit  int64          `json:"limit" min:"1" max:"1000" default:"100" doc:"keys a page"`
	Cursor op.Opt[string] `json:"cursor" doc:"next of the page before"`
}

// KeyPage is a page of keys, newest first.
type KeyPage struct {
	Keys []Key   `json:"keys"`
	Next *string `json:"next" doc:"cursor of the next page, which a page with few keys can have too; null on the last"`
}

// lookMost is how many keys are looked at for one page: a filter may match few of very many.
const lookMost = 5000

func (a *Access) listKeys(ctx context.Context, in keyList) (page KeyPage, err error) {
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		if err := in.check(tx, From(ctx)); err != nil {
			return err
		}
		page, err = in.page(a.reader(tx), From(ctx).Workspace())
		return err
	})
	return page, err
}

// check refuses a filter by a scope, a parent or the id of a member that is not there. An address is not checked: who may see keys may
// not always ask who is a member.
func (in *keyList) check(tx *db.Tx, c *Caller) (err error) {
	if names := append(scopeNames(), custom); in.Scope.Set && !slices.Contains(names, in.Scope.Val) {
		return op.Invalid("query.scope", "Input should be %s", oneOf(names))
	}
	if in.MadeBy.Set && strings.HasPrefix(in.MadeBy.Val, userPrefix) {
		if _, err := readMember(tx, c.Workspace(), in.MadeBy.Val); isNone(err) { // who left has a row, too
			return op.Invalid("query.made_by", "There is no member %s in this workspace", op.Quote(in.MadeBy.Val))
		} else if err != nil {
			return err
		}
	}
	if in.Parent.Set {
		in.Parent.Val, err = c.KeyInFilter(tx, "parent_id", in.Parent.Val)
	}
	return err
}

// page reads some rows at a time until the page is full, or enough was looked at: what a filter asks about is known only when a key is
// shown.
func (in keyList) page(r *reader, workspace string) (KeyPage, error) {
	page := KeyPage{Keys: []Key{}}
	at := keyRow{created: math.MaxInt64}
	if in.Cursor.Set {
		var err error
		if at, err = readKey(r.tx, workspace, in.Cursor.Val); isNone(err) {
			return page, op.Invalid("query.cursor", "There is no such page; begin again without a cursor")
		} else if err != nil {
			return page, err
		}
	}
	for looked := 0; ; {
		rows, err := readKeys(r.tx, sqlKeysPage, workspace, at.created, at.id, in.Limit+1)
		if err != nil || len(rows) == 0 {
			return page, err
		}
		if looked += len(rows); looked > lookMost {
			page.Next = &at.id
			return page, nil
		}
		at = rows[len(rows)-1]
		shown, err := r.showAll(slices.DeleteFunc(rows, func(k keyRow) bool { return !in.asksFor(k) }))
		if err != nil {
			return page, err
		}
		for _, k := range slices.DeleteFunc(shown, func(k Key) bool { return !in.matches(k) }) {
			if int64(len(page.Keys)) == in.Limit {
				page.Next = &page.Keys[len(page.Keys)-1].ID
				return page, nil
			}
			page.Keys = append(page.Keys, k)
		}
	}
}

// asksFor is what the row alone tells.
func (in keyList) asksFor(k keyRow) bool {
	return (!in.Scope.Set || k.scope == in.Scope.Val) && (!in.Kind.Set || k.kind == in.Kind.Val) && (!in.Parent.Set || k.parent == in.Parent.Val)
}

func (in keyList) matches(k Key) bool {
	return (!in.Status.Set || k.Status == in.Status.Val) && (!in.Stale || k.Stale) &&
		(!in.MadeBy.Set || in.MadeBy.Val == k.Member.ID || strings.EqualFold(in.MadeBy.Val, k.Member.Name))
}

type keyRef struct {
	ID string `json:"id" doc:"id of the key"`
}

func (a *Access) getKey(ctx context.Context, in keyRef) (k Key, err error) {
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		row, err := findKey(tx, From(ctx), in.ID)
		if err != nil {
			return err
		}
		k, err = a.reader(tx).showOne(row)
		return err
	})
	return k, err
}

func (a *Access) selfKey(ctx context.Context, _ struct{}) (Key, error) {
	return a.getKey(ctx, keyRef{From(ctx).KeyID()})
}
