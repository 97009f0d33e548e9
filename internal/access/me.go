package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Codes of CueAPI's own account endpoints (wire contract 2.1 and 10.6).
var (
	PlaintextUnavailable = op.Code{Status: 410, Name: "plaintext_unavailable", Doc: "A key is shown once, when it is made; only a hash is kept. Rotate it to get a new secret."}
	LastKeyProtected     = op.Code{Status: 409, Name: "last_key_protected", Doc: "This is the last key that can make keys. Make another one first."}
	SignUpClosed         = op.Code{Status: 404, Name: "not_found", Doc: "This server takes no sign-ups."}
)

// Me is who the caller is and how much of the plan is used (CueAPI wire contract 2.1).
type Me struct {
	Email          string `json:"email"`
	Plan           string `json:"plan"`
	ActiveCues     int64  `json:"active_cues"`
	CueLimit       int64  `json:"active_cue_limit"`
	Executions     int64  `json:"executions_this_month"`
	ExecutionLimit int64  `json:"monthly_execution_limit"`
	RateLimit      int64  `json:"rate_limit_per_minute"`
	HasSecret      bool   `json:"has_webhook_secret"`
	KeyPrefix      string `json:"api_key_prefix" doc:"the redacted form of the calling key"`
	Slug           string `json:"slug"`
	Role           string `json:"role" doc:"of the member whose key it is"`
}

func (a *Access) me(ctx context.Context, _ struct{}) (out Me, err error) {
	c := From(ctx)
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		w, err := readWorkspace(tx, c.Workspace())
		if err != nil {
			return err
		}
		key, err := readKey(tx, c.Workspace(), c.KeyID())
		if err != nil {
			return err
		}
		user, err := userByID(tx, key.user)
		if err != nil {
			return err
		}
		m, err := readMember(tx, c.Workspace(), key.user)
		if err != nil {
			return err
		}
		used, err := a.things.Usage(tx, w.id, a.Now())
		if err != nil {
			return err
		}
		out = Me{
			Email: user.Email, Plan: w.plan, ActiveCues: used.ActiveCues, CueLimit: w.cueLimit, Executions: used.Executions, ExecutionLimit: w.executionLimit,
			RateLimit: onWire(w.rateLimit), HasSecret: true, KeyPrefix: redacted(a.Prefix, digitString(c.grant.digits)), Slug: w.slug, Role: m.role,
		}
		return nil
	})
	return out, err
}

// onWire is a limit as CueAPI's clients read it: no limit is a very large one.
func onWire(limit int64) int64 {
	if limit == 0 {
		return noCap
	}
	return limit
}

// RateUse is how many calls of the last minute count against a workspace, and its limit as the wire says it.
func (a *Access) RateUse(c *Caller) (used, limit int64) {
	l := &c.grant.key.ws.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		return 0, noCap
	}
	l.all.trim(a.now())
	return int64(l.all.n), int64(l.all.limit)
}

type registerIn struct {
	Email string `json:"email" format:"email"`
}

// Registered is a new account with its key, shown this once.
type Registered struct {
	APIKey string `json:"api_key"`
	Email  string `json:"email"`
}

func (a *Access) register(ctx context.Context, in registerIn) (out Registered, err error) {
	if !a.Register && !a.Dev {
		return out, SignUpClosed.Msg("Not found")
	}
	plan, ok := planOf(a.RegisterPlan)
	if !ok {
		return out, fmt.Errorf("UNSTUCK_REGISTER_PLAN is %q, which is no plan", a.RegisterPlan)
	}
	err = a.DB.Update(ctx, func(tx *db.Tx) error {
		var id, email string
		var created int64
		if err := tx.Row(sqlUserByEmail, foldEmail(in.Email)).Scan(&id, &email, &created); err == nil {
			return DuplicateEmail.Msg("Email already registered")
		}
		user, err := a.userOf(tx, in.Email)
		if err != nil {
			return err
		}
		made, err := a.found(tx, localPart(in.Email), "", plan, user.ID)
		if err != nil {
			return err
		}
		out = Registered{made.key.Secret, user.Email}
		row := a.serverRow("account.register", "workspace", made.workspace.id, made.workspace.name, map[string]any{"member": user.ID})
		if call := op.CallOf(ctx); call != nil {
			row.IP, row.Via, row.RequestID = addrText(a.clientAddr(call.Request)), call.Via, call.ID
		}
		return a.append(tx, made.workspace.id, row)
	})
	return out, err
}

func localPart(email string) string {
	for i, r := range email {
		if r == '@' {
			return email[:i]
		}
	}
	return email
}

// Regenerated is the answer of CueAPI's key/regenerate.
type Regenerated struct {
	APIKey  string `json:"api_key" doc:"the new secret, shown this once"`
	Revoked bool   `json:"previous_key_revoked"`
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
	Label string `json:"label" min:"1" max:"100"`
}

// NewAuthKey is a key made by CueAPI's /v1/auth/keys, with its secret.
type NewAuthKey struct {
	AuthKey
	APIKey string `json:"api_key" doc:"the secret, shown this once"`
}

// createAuthKey makes a key with the caller's own rights and restrictions, for a year.
func (a *Access) createAuthKey(ctx context.Context, in authKeyCreate) (out NewAuthKey, err error) {
	c := From(ctx)
	var row keyRow
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		row, err = readKey(tx, c.Workspace(), c.KeyID())
		return err
	})
	if err != nil {
		return out, err
	}
	g, _, _ := a.grantOf(row.id)
	w := wanted{scope: row.scope, list: row.permissionList(), perms: g.perms}
	if row.kind == "personal" && row.scope != custom && g.perms != g.key.own() { // the role narrows the scope: say it in full
		w.scope, w.list = custom, g.perms.names()
	}
	if w.rules, err = readRules(row.restrictions); err != nil {
		return out, err
	}
	made, err := a.create(ctx, keyCreate{Name: in.Label}, w, integration)
	return NewAuthKey{made.authKey(), made.Secret}, err
}

// AuthKeys lists keys as CueAPI's clients read them.
type AuthKeys struct {
	Keys []AuthKey `json:"keys"`
}

func (a *Access) listAuthKeys(ctx context.Context, _ struct{}) (AuthKeys, error) {
	page, err := a.listKeys(ctx, keyList{Limit: 1000})
	out := AuthKeys{Keys: []AuthKey{}}
	for _, k := range page.Keys {
		out.Keys = append(out.Keys, k.authKey())
	}
	return out, err
}

type authKeyUpdate struct {
	ID    string `json:"id"`
	Label string `json:"label" min:"1" max:"100"`
}

func (a *Access) updateAuthKey(ctx context.Context, in authKeyUpdate) (AuthKey, error) {
	k, err := a.updateKey(ctx, keyUpdate{ID: in.ID, Name: op.Clear[string]{Val: in.Label, Set: true}})
	return k.authKey(), err
}

// RevokedAuthKey is the answer of CueAPI's DELETE /v1/auth/keys/{id}.
type RevokedAuthKey struct {
	ID        string   `json:"id"`
	RevokedAt *op.Time `json:"revoked_at"`
}

func (a *Access) revokeAuthKey(ctx context.Context, in keyRef) (RevokedAuthKey, error) {
	if err := a.notLast(ctx, in.ID); err != nil {
		return RevokedAuthKey{}, err
	}
	k, err := a.revokeKey(ctx, keyRevoke{ID: in.ID})
	return RevokedAuthKey{k.ID, k.RevokedAt}, err
}

// notLast refuses to end the last living key that can make keys, as CueAPI does. It is a courtesy to whoever holds it, not a rule
// that another call could break: key.revoke never refuses.
func (a *Access) notLast(ctx context.Context, id string) error {
	page, err := a.listKeys(ctx, keyList{Limit: 1000, Status: op.Some("active")})
	if err != nil {
		return err
	}
	others, target := 0, false
	for _, k := range page.Keys {
		makes := slices.Contains(k.Permissions, "keys:write")
		target = target || k.ID == id && makes
		if k.ID != id && makes {
			others++
		}
	}
	if target && others == 0 {
		return LastKeyProtected.Msg("This is the last key that can make keys. Make another one first.")
	}
	return nil
}

// WebhookSecret proves to receivers who sent a webhook.
type WebhookSecret struct {
	Secret string `json:"webhook_secret"`
}

// AlertSecret is WebhookSecret for alerts.
type AlertSecret struct {
	Secret string `json:"alert_webhook_secret"`
}

type rotatedWebhookSecret struct {
	WebhookSecret
	Revoked bool `json:"previous_secret_revoked"`
}

type rotatedAlertSecret struct {
	AlertSecret
	Revoked bool `json:"previous_secret_revoked"`
}

func (a *Access) webhookSecret(ctx context.Context, _ struct{}) (WebhookSecret, error) {
	s, err := a.readSealed(ctx, func(w *workspaceRow) *[]byte { return &w.webhookSecret })
	return WebhookSecret{s}, err
}

func (a *Access) alertSecret(ctx context.Context, _ struct{}) (AlertSecret, error) {
	s, err := a.readSealed(ctx, func(w *workspaceRow) *[]byte { return &w.alertSecret })
	return AlertSecret{s}, err
}

func (a *Access) readSealed(ctx context.Context, which func(*workspaceRow) *[]byte) (text string, err error) {
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		w, err := readWorkspace(tx, From(ctx).Workspace())
		if err != nil {
			return err
		}
		text, err = a.sealer.open(*which(&w))
		return err
	})
	return text, err
}

func (a *Access) rotateWebhookSecret(ctx context.Context, _ struct{}) (rotatedWebhookSecret, error) {
	s, err := a.reseal(ctx, "webhook secret", "whsec_"+randomHex(32), func(w *workspaceRow) *[]byte { return &w.webhookSecret })
	return rotatedWebhookSecret{WebhookSecret{s}, true}, err
}

func (a *Access) rotateAlertSecret(ctx context.Context, _ struct{}) (rotatedAlertSecret, error) {
	s, err := a.reseal(ctx, "alert secret", randomHex(32), func(w *workspaceRow) *[]byte { return &w.alertSecret })
	return rotatedAlertSecret{AlertSecret{s}, true}, err
}

func (a *Access) reseal(ctx context.Context, what, text string, which func(*workspaceRow) *[]byte) (string, error) {
	err := a.DB.Update(ctx, func(tx *db.Tx) error {
		w, err := readWorkspace(tx, From(ctx).Workspace())
		if err != nil {
			return err
		}
		*which(&w) = a.sealer.seal(text)
		if err := a.storeWorkspace(tx, &w); err != nil {
			return err
		}
		return Record(tx, Event{Object: "secret", ID: w.id, Name: what})
	})
	return text, err
}

// FirstRun makes a workspace, its admin and that admin's personal key when the database has none. made is false otherwise. Without
// withKey everything but the key is made.
func (a *Access) FirstRun(ctx context.Context, email string, withKey bool) (key NewKey, made bool, err error) {
	err = a.DB.Update(ctx, func(tx *db.Tx) error {
		made = false
		ids, err := workspaceIDs(tx)
		if err != nil || len(ids) > 0 {
			return err
		}
		user, err := a.userOf(tx, email)
		if err != nil {
			return err
		}
		plan, _ := planOf("self-hosted")
		f, err := a.found(tx, "default", "default", plan, user.ID)
		if err != nil {
			return err
		}
		made, key = true, f.key
		if !withKey { // the key of the founding is not shown to anybody, so it must not live
			row, err := readKey(tx, f.workspace.id, f.key.ID)
			if err != nil {
				return err
			}
			key = NewKey{}
			if _, err := a.endKey(tx, row, user.ID); err != nil {
				return err
			}
		}
		return a.append(tx, f.workspace.id, a.serverRow("server.first_run", "workspace", f.workspace.id, "default", map[string]any{"member": user.Email, "key": f.key.Redacted}))
	})
	return key, made, err
}

// LocalLogin makes a personal key of the server's first admin, for whoever may read the data directory.
func (a *Access) LocalLogin(ctx context.Context, name string) (key NewKey, workspace string, err error) {
	if name == "" {
		name = "local login " + a.Now().UTC().Format(time.DateOnly)
	}
	err = a.DB.Update(ctx, func(tx *db.Tx) error {
		var ws, user string
		if err := tx.Row(sqlAnyAdmin).Scan(&ws, &user); err != nil {
			return errors.New("this server has no workspace yet; start it once with `unstuck serve`")
		}
		row := a.personalRow(ws, user, name)
		made, err := a.writeKey(tx, row)
		if err != nil {
			return err
		}
		w, err := readWorkspace(tx, ws)
		if err != nil {
			return err
		}
		key, workspace = made, w.slug
		return a.append(tx, ws, a.serverRow("auth.login_local", "key", row.id, row.name, map[string]any{"key": made.Redacted}))
	})
	return key, workspace, err
}
