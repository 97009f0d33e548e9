package access

import (
	"context"

	"unstuck/internal/db"
)

// WebhookSecret proves to receivers who sent a webhook.
type WebhookSecret struct {
	Secret SecretText `json:"webhook_secret"`
}

// AlertSecret is WebhookSecret for alerts.
type AlertSecret struct {
	Secret SecretText `json:"alert_webhook_secret"`
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
	s, err := a.unseal(ctx, webhookSecretName, func(w *workspaceRow) *[]byte { return &w.webhookSecret })
	return WebhookSecret{s}, err
}

func (a *Access) alertSecret(ctx context.Context, _ struct{}) (AlertSecret, error) {
	s, err := a.unseal(ctx, alertSecretName, func(w *workspaceRow) *[]byte { return &w.alertSecret })
	return AlertSecret{s}, err
}

func newWebhookSecret() SecretText { return SecretText("whsec_" + randomHex(32)) }
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

func (a *Access) rotateWebhookSecret(ctx context.Context, _ struct{}) (rotatedWebhookSecret, error) {
	s := newWebhookSecret()
	err := a.reseal(ctx, webhookSecretName, s, func(w *workspaceRow) *[]byte { return &w.webhookSecret })
	return rotatedWebhookSecret{WebhookSecret{s}, true}, err
}

func (a *Access) rotateAlertSecret(ctx context.Context, _ struct{}) (rotatedAlertSecret, error) {
	s := newAlertSecret()
	err := a.reseal(ctx, alertSecretName, s, func(w *workspaceRow) *[]byte { return &w.alertSecret })
	return rotatedAlertSecret{AlertSecret{s}, true}, err
}

func (a *Access) reseal(ctx context.Context, what string, s SecretText, which func(*workspaceRow) *[]byte) error {
	return a.update(ctx, func(tx *db.Tx) error {
		w, err := readWorkspace(tx, From(ctx).Workspace())
		if err != nil {
			return err
		}
		*which(&w) = a.sealer.seal(s)
		if err := a.setWorkspace(tx, &w); err != nil {
			return err
		}
		return Record(tx, Event{Object: "secret", ID: w.id, Name: what})
	})
}
