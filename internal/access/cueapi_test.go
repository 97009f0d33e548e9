package access

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"unstuck/internal/op"
)

// TestAccountOfCueAPI is the wire contract 2.1 and 10.6, as far as it is about keys.
func TestAccountOfCueAPI(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		me := w.must(w.admin, "me.get", nil)
		s, _ := parseSecret(w.admin)
		if me.str("email") != "admin@example.com" || me.str("api_key_prefix") != s.Redacted() || me["active_cues"] != 1.0 || me["executions_this_month"] != 3.0 || me.str("slug") != "default" {
			t.Errorf("%v", me)
		}
		w.refused(PlaintextUnavailable, w.admin, "auth_key.reveal", nil)
		res := w.set.Call(t.Context(), &op.Request{Op: "auth_key.regenerate", Auth: "Bearer " + w.admin, Via: "rest", Peer: "192.0.2.1:1"})
		if res.Err == nil || res.Err.Code != op.ConfirmationGone {
			t.Errorf("%v", res.Err)
		}
		out := w.must(w.admin, "auth_key.regenerate", nil)
		if out["previous_key_revoked"] != true {
			t.Errorf("%v", out)
		}
		w.refused(KeyRotated, w.admin, "key.self", nil)
		w.admin = out.str("api_key")

		made := w.must(w.admin, "auth_key.create", in{"label": "laptop", "whatever": 1})
		secret, id := made.str("api_key"), made.str("id")
		if made.str("label") != "laptop" || made.str("prefix") == "" || !accepted(secret) {
			t.Errorf("%v", made)
		}
		shown := w.must(w.admin, "key.get", in{"id": id})
		if shown.str("scope") != "full" || shown.str("expires_at") != "2027-11-24T12:00:00Z" || shown.str("kind") != "integration" {
			t.Errorf("%v", shown)
		}
		w.must(secret, "auth_key.update", in{"id": id, "label": "phone"})
		var labels []string
		for _, k := range w.must(secret, "auth_key.list", nil)["keys"].([]any) {
			labels = append(labels, fmt.Sprint(k.(map[string]any)["label"], " ", k.(map[string]any)["created_by"]))
		}
		slices.Sort(labels)
		if fmt.Sprint(labels) != "[first key user phone user]" {
			t.Error(labels)
		}
		w.refused(NotFound, w.admin, "auth_key.update", in{"id": "key_000000000000", "label": "x"})
		w.refused(NotFound, w.admin, "auth_key.revoke", in{"id": "key_000000000000"})
		ended := w.must(secret, "auth_key.revoke", in{"id": w.must(w.admin, "key.self", nil).str("id")})
		if ended.str("revoked_at") == "" {
			t.Errorf("%v", ended)
		}
		w.refused(LastKeyProtected, secret, "auth_key.revoke", in{"id": id})
		w.refused(LastKeyProtected, secret, "auth_key.revoke", in{"id": "self"})
		w.must(secret, "key.revoke", in{"id": id}) // which never refuses
	})
}

// TestAuthKeyHasTheRightsOfItsMaker, within its role and its chain, and no more.
func TestAuthKeyHasTheRightsOfItsMaker(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		_, manager := w.member("manager@example.com", RoleManager)
		made := w.must(manager, "auth_key.create", in{"label": "x"})
		shown := w.must(w.admin, "key.get", in{"id": made.str("id")})
		if shown.str("scope") != custom || fmt.Sprint(shown["permissions"]) != fmt.Sprint((rolePerms(RoleManager)|ownPerms).names()) {
			t.Errorf("%v", shown["permissions"])
		}
		parent, parentID := w.key("keys:write cues:read", in{"expires_in": "1d"})
		child := w.must(parent, "auth_key.create", in{"label": "x"})
		if shown := w.must(w.admin, "key.get", in{"id": child.str("id")}); shown.str("parent_id") != parentID || shown.str("expires_at") != "2026-11-25T12:00:00Z" {
			t.Errorf("%v", shown)
		}
		restricted := w.must(w.admin, "personal_key.create", in{"name": "restricted"})
		w.must(w.admin, "key.update", in{"id": restricted.str("id"), "restrictions": in{"rate_per_minute": 100}})
		w.refused(KeyRestricted, restricted.str("key"), "auth_key.create", in{"label": "x"})
		worker, _ := w.key("worker")
		w.refused(InsufficientScope, worker, "auth_key.create", in{"label": "x"})
		w.refused(InsufficientScope, worker, "auth_key.regenerate", nil)
	})
}

func TestWebhookSecrets(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		hook := w.must(w.admin, "webhook_secret.get", nil).str("webhook_secret")
		alert := w.must(w.admin, "alert_secret.get", nil).str("alert_webhook_secret")
		if !strings.HasPrefix(hook, "whsec_") || len(hook) != 70 || len(alert) != 64 {
			t.Errorf("%d and %d characters", len(hook), len(alert))
		}
		next := w.must(w.admin, "webhook_secret.rotate", nil)
		if next.str("webhook_secret") == hook || next["previous_secret_revoked"] != true || w.must(w.admin, "webhook_secret.get", nil).str("webhook_secret") != next.str("webhook_secret") {
			t.Error("the webhook secret did not turn")
		}
		w.must(w.admin, "alert_secret.rotate", nil)
		shows := func(operation, what string, n int) {
			t.Helper()
			rows := w.audit(operation)
			if len(rows) != n || rows[n-1].Object != "secret" || rows[n-1].ObjectName != what || rows[n-1].Who.KeyID == "" || rows[n-1].Result != Done {
				t.Errorf("%+v", rows)
			}
		}
		shows("webhook_secret.get", "webhook secret", len(w.audit("webhook_secret.get")))
		before := len(w.audit("webhook_secret.get"))
		w.must(w.admin, "webhook_secret.get", nil)
		shows("webhook_secret.get", "webhook secret", before+1)
		before = len(w.audit("alert_secret.get"))
		w.must(w.admin, "alert_secret.get", nil)
		shows("alert_secret.get", "alert secret", before+1)
		if w.must(w.admin, "alert_secret.get", nil).str("alert_webhook_secret") == alert {
			t.Error("the alert secret did not turn")
		}
		reader, _ := w.key("secrets:read")
		w.must(reader, "webhook_secret.get", nil)
		w.refused(InsufficientScope, reader, "webhook_secret.rotate", nil)
		writer, _ := w.key("write-cues")
		w.refused(InsufficientScope, writer, "webhook_secret.get", nil)
	})
}

func TestSignUp(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.refused(NotFound, "", "account.register", in{"email": "new@example.com"})
		w.stop()
		w.open(func(o *Options) { o.Register = true })
		w.invalid("body.email", "", "account.register", in{"email": "new"})
		out := w.must("", "account.register", in{"email": "New.User@example.com"})
		me := w.must(out.str("api_key"), "me.get", nil)
		if me.str("plan") != "free" || me["rate_limit_per_minute"] != 60.0 || me.str("slug") != "new-user" || me.str("email") != "New.User@example.com" || me.str("role") != RoleAdmin {
			t.Errorf("%v", me)
		}
		w.refused(DuplicateEmail, "", "account.register", in{"email": "new.user@EXAMPLE.com"})
		w.refused(KeyNotFound, out.str("api_key"), "key.get", in{"id": w.must(w.admin, "key.self", nil).str("id")})
		w.refused(SelfHostedOnly, out.str("api_key"), "workspace.create", in{"name": "without caps"})
		w.admin = out.str("api_key")
		if row := w.done("account.register"); row.IP != "192.0.2.1" || row.Via != "rest" {
			t.Errorf("%+v", row)
		}
		w.stop()
		if err := w.tryOpen(func(o *Options) { o.RegisterPlan = "gold" }); err == nil {
			t.Error("it started with a plan that does not exist")
		}
		if err := w.tryOpen(func(o *Options) { o.Prefix = "Bad Prefix" }); err == nil {
			t.Error("it started with a prefix that no key can have")
		}
		w.open(func(o *Options) { o.Dev, o.Prefix = true, "acme" })
		fresh := w.must("", "account.register", in{"email": "third@example.com"}).str("api_key")
		if !strings.HasPrefix(fresh, "acme_") {
			t.Error("a changed prefix does not apply to new keys")
		}
		if self := w.must(w.admin, "key.self", nil); !strings.HasPrefix(self.str("redacted"), "unstuck_***_") {
			t.Errorf("a changed prefix applies to old keys: %v", self.str("redacted"))
		}
	})
}
