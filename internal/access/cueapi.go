package access

import (
	"context"
	"errors"

	"unstuck/internal/op"
)

// Codes of CueAPI's own account endpoints (CueAPI wire contract 2.1 and 10.6).
var (
	PlaintextUnavailable = op.Code{Status: 410, Name: "plaintext_unavailable", Doc: "A key is shown once, when it is made; only a hash is kept. Rotate it to get a new secret."}
	LastKeyProtected     = op.Code{Status: 409, Name: "last_key_protected", Doc: "This is the last key that can make keys. Make another one first."}
	NotFound             = op.Code{Status: 404, Name: "not_found", Doc: "There is no such key, or this server takes no sign-ups."}
)

// Regenerated is the answer of CueAPI's key/regenerate.
type Regenerated struct {
	APIKey  SecretText `json:"api_key" doc:"the new secret, shown this once"`
	Revoked bool       `json:"previous_key_revoked"`
}

// regenerate is CueAPI's rotation: the calling key gets a new secret and the old one ends in the same commit.
func (a *Access) regenerate(ctx context.Context, _ struct{}) (Regenerated, error) {
	r, err := a.rotateKey(ctx, keyRotate{ID: From(ctx).KeyID(), Now: true})
	return Regenerated{r.Secret, true}, err
}

func (a *Access) reveal(context.Context, struct{}) (op.None, error) {
	return op.None{}, PlaintextUnavailable.Msg("A key is shown once, when it is made. Rotate it to get a new secret.")
}

// AuthKey is a key as CueAPI's /v1/auth/keys shows it.
type AuthKey struct {
	ID        string   `json:"id"`
	Prefix    string   `json:"prefix"`
	Label     string   `json:"label"`
	CreatedAt op.Time  `json:"created_at"`
	CreatedBy string   `json:"created_by" doc:"always user"`
	LastUsed  *op.Time `json:"last_used_at"`
	RevokedAt *op.Time `json:"revoked_at"`
}

func (k Key) authKey() AuthKey {
	return AuthKey{k.ID, k.Redacted, k.Name, k.CreatedAt, "user", k.LastUsedAt, k.RevokedAt}
}

type authKeyCreate struct {
	Label string `json:"label" min:"1" max:"100" format:"line"`
}

// NewAuthKey is a key made by CueAPI's /v1/auth/keys, with its secret.
type NewAuthKey struct {
	AuthKey
	APIKey SecretText `json:"api_key" doc:"the secret, shown this once"`
}

// createAuthKey makes a key with the caller's own rights, for a year. What restricts the caller restricts it too: a child is bound by
// the keys above it, and a restricted member may not make one.
func (a *Access) createAuthKey(ctx context.Context, in authKeyCreate) (out NewAuthKey, err error) {
	c := From(ctx)
	w := wanted{kind: integration, name: in.Label, scope: scopeName(c.grant.scope), perms: c.grant.perms}
	if s, ok := scopeOf(w.scope); !ok || s.perms != w.perms { // the role or a key above narrows the scope: say it in full
		w.scope = custom
	}
	made, err := a.create(ctx, w, op.Opt[string]{})
	return NewAuthKey{made.authKey(), SecretText(made.Secret)}, err
}

// AuthKeys lists keys as CueAPI's clients read them.
type AuthKeys struct {
	Keys []AuthKey `json:"keys"`
}

func (a *Access) listAuthKeys(ctx context.Context, _ struct{}) (AuthKeys, error) {
	out, ask := AuthKeys{Keys: []AuthKey{}}, keyList{Limit: 1000}
	for {
		page, err := a.listKeys(ctx, ask)
		if err != nil {
			return out, err
		}
		for _, k := range page.Keys {
			out.Keys = append(out.Keys, k.authKey())
		}
		if page.Next == nil {
			return out, nil
		}
		ask.Cursor = op.Some(*page.Next)
	}
}

type authKeyUpdate struct {
	ID    string `json:"id"`
	Label string `json:"label" min:"1" max:"100" format:"line"`
}

func (a *Access) updateAuthKey(ctx context.Context, in authKeyUpdate) (AuthKey, error) {
	k, err := a.updateKey(ctx, keyUpdate{ID: in.ID, Name: op.Clear[string]{Val: in.Label, Set: true}})
	return k.authKey(), asAuthKey(err)
}

// RevokedAuthKey is the answer of CueAPI's DELETE /v1/auth/keys/{id}.
type RevokedAuthKey struct {
	ID        string   `json:"id"`
	RevokedAt *op.Time `json:"revoked_at"`
	Warning   string   `json:"warning,omitempty" doc:"what follows from it that nobody asked for; absent when nothing"`
}

// revokeAuthKey refuses to end the last living key that can make keys, as CueAPI does. It is a courtesy to whoever holds that key, not
// a rule that no other call could break: key.revoke never refuses.
func (a *Access) revokeAuthKey(ctx context.Context, in keyRef) (RevokedAuthKey, error) {
	in.ID = From(ctx).idOf(in.ID)
	if a.table.lastMaker(in.ID, a.now()) {
		return RevokedAuthKey{}, LastKeyProtected.Msg("This is the last key that can make keys. Make another one first.")
	}
	k, err := a.revokeKey(ctx, keyRevoke{ID: in.ID})
	return RevokedAuthKey{k.ID, k.RevokedAt, k.Warning}, asAuthKey(err)
}

// asAuthKey answers as CueAPI does for a key that is not there.
func asAuthKey(err error) error {
	var e *op.Error
	if errors.As(err, &e) && e.Code == KeyNotFound {
		e.Code = NotFound
	}
	return err
}

// lastMaker says whether a key is the last of its workspace that can make keys.
func (t *table) lastMaker(id string, now int64) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	last := t.key(id)
	if last == nil || !last.makesKeys(now) {
		return false
	}
	for i := range t.keys.n {
		if i%blockSize == 0 { // there may be millions: let others have their turn
			t.mu.RUnlock()
			t.mu.RLock()
		}
		if k := t.keys.at(i); k != last && k.ws() == last.ws() && k.makesKeys(now) {
			return false
		}
	}
	return true
}

// makesKeys says whether a key could make others. The lock is held.
func (k *key) makesKeys(now int64) bool {
	perms, why := k.judge(now)
	return why.passes() && perms.has("keys:write")
}
