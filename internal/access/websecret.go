package access

import (
	"context"
	"fmt"
	"sync"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// WebhookSecret proves to receivers who sent a webhook.
type WebhookSecret struct {
	Secret SecretText `json:"webhook_secret"`
}

// AlertSecret is WebhookSecret for alerts.
type AlertSecret struct {
	Secret SecretText `json:"alert_webhook_secret"`
}

type webhookSecretRotate struct {
	Overlap op.Opt[int64] `json:"overlap_seconds" min:"0" max:"2592000" doc:"how long the old secret goes on signing beside the new one, at most 30 days; it ends at once when absent"`
}

type rotatedWebhookSecret struct {
	WebhookSecret
	Revoked bool     `json:"previous_secret_revoked" doc:"the old secret has ended"`
	Ends    *op.Time `json:"previous_secret_ends" doc:"the old secret goes on signing until then; null when it has ended"`
}

type rotatedAlertSecret struct {
	AlertSecret
	Revoked bool `json:"previous_secret_revoked"`
}

func (a *Access) webhookSecret(ctx context.Context, _ struct{}) (WebhookSecret, error) {
	s, err := a.unseal(ctx, webhookSecretName, func(w *workspaceRow) *[]byte { return &w.webhookSecret })
	return WebhookSecret{s}, err
}

func (a *Access) alertSecret(ctx context.Context, _ struct{}) (AlertSecret, error) {
	s, err := a.unseal(ctx, alertSecretName, func(w *workspaceRow) *[]byte { return &w.alertSecret })
	return AlertSecret{s}, err
}

func newWebhookSecret() SecretText { return SecretText(webhookFront + randomHex(32)) }
func newAlertSecret() SecretText   { return SecretText(randomHex(32)) }

// How the audit log calls the two secrets.
const (
	webhookSecretName = "webhook secret"
	alertSecretName   = "alert secret"
)

// unseal shows a secret. Whoever sees it can sign as this server from then on, so it leaves a row in the audit log, and the secret is
// shown only once that row is kept.
func (a *Access) unseal(ctx context.Context, what string, which func(*workspaceRow) *[]byte) (text SecretText, err error) {
	err = a.DB.Update(ctx, func(tx *db.Tx) error {
		w, err := readWorkspace(tx, From(ctx).Workspace())
		if err != nil {
			return err
		}
		if text, err = a.sealer.open(*which(&w)); err != nil {
			return err
		}
		return Record(tx, Event{Object: "secret", ID: w.id, Name: what})
	})
	if err != nil {
		return "", err
	}
	return text, nil
}

// rotateWebhookSecret makes a new secret. With an overlap the one that was current until now goes on signing beside it; one that
// was old already ends.
func (a *Access) rotateWebhookSecret(ctx context.Context, in webhookSecretRotate) (rotatedWebhookSecret, error) {
	s := newWebhookSecret()
	out := rotatedWebhookSecret{WebhookSecret: WebhookSecret{s}, Revoked: in.Overlap.Val == 0}
	err := a.reseal(ctx, webhookSecretName, func(w *workspaceRow) {
		w.webhookOld, w.webhookOldEnds, out.Ends = nil, 0, nil
		if in.Overlap.Val > 0 {
			ends := op.TimeOf(a.Now().Add(time.Duration(in.Overlap.Val) * time.Second))
			w.webhookOld, w.webhookOldEnds, out.Ends = w.webhookSecret, int64(ends), &ends
		}
		w.webhookSecret = a.sealer.seal(s)
	})
	return out, err
}

func (a *Access) rotateAlertSecret(ctx context.Context, _ struct{}) (rotatedAlertSecret, error) {
	s := newAlertSecret()
	err := a.reseal(ctx, alertSecretName, func(w *workspaceRow) { w.alertSecret = a.sealer.seal(s) })
	return rotatedAlertSecret{AlertSecret{s}, true}, err
}

func (a *Access) reseal(ctx context.Context, what string, change func(*workspaceRow)) error {
	return a.update(ctx, func(tx *db.Tx) error {
		w, err := readWorkspace(tx, From(ctx).Workspace())
		if err != nil {
			return err
		}
		change(&w)
		if err := a.setWorkspace(tx, &w); err != nil {
			return err
		}
		tx.AfterCommit(func() { a.signing.forget(w.id) })
		return Record(tx, Event{Object: "secret", ID: w.id, Name: what})
	})
}

// signing keeps the webhook secrets of workspaces unsealed, since every webhook needs them. The zero value is ready.
type signing struct {
	mu      sync.Mutex
	known   map[string]signers
	changes uint64 // counts forget
}

// signingMost bounds what is kept; a full one is forgotten and filled again.
const signingMost = 10_000

type signers struct {
	current, old string // old is "" for none
	oldEnds      int64
}

// living are the secrets that sign at a moment. The old one stands first while it lives: where there is room for one signature
// only, receivers that do not know the new secret yet must be able to check it.
func (s signers) living(now int64) []string {
	if s.old != "" && now < s.oldEnds {
		return []string{s.old, s.current}
	}
	return []string{s.current}
}

func (s *signing) of(workspace string) (found signers, ok bool, changes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, ok = s.known[workspace]
	return found, ok, s.changes
}

// keep notes what was read, unless a secret was changed since.
func (s *signing) keep(workspace string, read signers, changes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes != changes {
		return
	}
	if s.known == nil || len(s.known) >= signingMost {
		s.known = map[string]signers{}
	}
	s.known[workspace] = read
}

func (s *signing) forget(workspace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	delete(s.known, workspace)
}

// WebhookSecrets are the secrets with which webhooks of a workspace are signed now: one, or during an overlap the old one and then
// the new one.
func (a *Access) WebhookSecrets(ctx context.Context, workspace string) ([]string, error) {
	found, ok, changes := a.signing.of(workspace)
	if ok {
		return found.living(a.now()), nil
	}
	err := a.DB.View(ctx, func(tx *db.Tx) error {
		w, err := readWorkspace(tx, workspace)
		if err != nil {
			return err
		}
		current, err := a.sealer.open(w.webhookSecret)
		if err != nil {
			return err
		}
		found = signers{current: string(current), oldEnds: w.webhookOldEnds}
		if len(w.webhookOld) > 0 {
			old, err := a.sealer.open(w.webhookOld)
			if err != nil {
				return err
			}
			found.old = string(old)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the webhook secrets of workspace %s: %w", workspace, err)
	}
	a.signing.keep(workspace, found, changes)
	return found.living(a.now()), nil
}

// AlertSecret is the secret with which alerts of a workspace are signed.
func (a *Access) AlertSecret(ctx context.Context, workspace string) (string, error) {
	var secret SecretText
	err := a.DB.View(ctx, func(tx *db.Tx) error {
		w, err := readWorkspace(tx, workspace)
		if err != nil {
			return err
		}
		secret, err = a.sealer.open(w.alertSecret)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read the alert secret of workspace %s: %w", workspace, err)
	}
	return string(secret), nil
}
