package access

import "unstuck/internal/op"

// Operations is the whole outside of the package.
func (a *Access) Operations() []*op.Operation {
	return append(append(a.keyOperations(), a.peopleOperations()...), a.cueAPIOperations()...)
}

func (a *Access) keyOperations() []*op.Operation {
	change := []op.Code{KeyNotFound, KeyEnded, WouldWiden}
	return []*op.Operation{
		op.Define(op.Spec{Name: "scope.list", Route: "GET /v1/scopes", Needs: op.Public, Effect: op.Read, May: "list scopes",
			Doc: "List scopes and permissions\nEvery named scope with what it can and cannot do, smallest first, and every permission in words."}, a.listScopes),
		op.Define(op.Spec{Name: "key.create", Route: "POST /v1/keys", Needs: "keys:write", Effect: op.Write, Status: 201, Hands: true, Below: true, May: "create keys",
			Doc:    "Create an API key\nThe key is in the answer, this once. A personal key makes an integration key; an integration key makes a child, which can never do more than its parent.",
			Errors: []op.Code{TooDeep, IdempotencyConflict, KeyEnded, KeyLimitExceeded}}, a.createKey),
		op.Define(op.Spec{Name: "key.list", Route: "GET /v1/keys", Needs: "keys:read", Effect: op.Read, May: "see keys", Doc: "List API keys\nNewest first."}, a.listKeys),
		op.Define(op.Spec{Name: "key.self", Route: "GET /v1/keys/self", Needs: op.AnyKey, Effect: op.Read, Narrow: op.Always, May: "see itself", Doc: "Show the calling key"}, a.selfKey),
		op.Define(op.Spec{Name: "key.attention", Route: "GET /v1/keys/attention", Needs: "keys:read", Effect: op.Read, May: "see keys",
			Doc: "List keys that need attention\nExpired and still tried, expiring and in use, rotated with the old secret in use, stale, without an end for a year, used by several programs at once, or full without need."}, a.keysInNeed),
		op.Define(op.Spec{Name: "key.verify", Route: "POST /v1/keys/verify", Needs: "keys:verify", Effect: op.Write, Secretive: true, Unaudited: true, May: "verify keys",
			Doc: "Verify a key for another service\nSays whether somebody's key may do something, counts it as a use of that key, and tells nothing about keys of other workspaces."}, a.verifyKey),
		op.Define(op.Spec{Name: "key.preview", Route: "POST /v1/keys/preview", Needs: "keys:read", Effect: op.Read, May: "preview access",
			Doc: "Preview the access of a key that does not exist yet"}, a.previewKey),
		op.Define(op.Spec{Name: "key.authorize", Route: "GET /v1/keys/authorize", Needs: op.AnyKey, Effect: op.Read, Narrow: op.Always, Lenient: true, NoBody: true, Fails: forProxy, May: "pass here",
			Doc: "Authorize a request for a proxy\nFor nginx auth_request, Caddy forward_auth and Traefik: 204 when the calling key holds the permission, 401 or 403 when not, and never anything else; X-Unstuck-Code says why. Answers with X-Unstuck-Workspace, X-Unstuck-Key and X-Unstuck-Permissions."}, a.authorize),
		op.Define(op.Spec{Name: "key.get", Route: "GET /v1/keys/{id}", Needs: "keys:read", Effect: op.Read, May: "see keys", Doc: "Show an API key", Errors: []op.Code{KeyNotFound}}, a.getKey),
		op.Define(op.Spec{Name: "key.update", Route: "PATCH /v1/keys/{id}", Needs: "keys:write", Reach: op.ReachBelow, Effect: op.Write, Idempotent: true, May: "narrow keys",
			Doc: "Narrow or rename an API key\nFewer permissions, tighter restrictions, an earlier end. Anything that would give more is refused.", Errors: change}, a.updateKey),
		op.Define(op.Spec{Name: "key.widen", Route: "POST /v1/keys/{id}/widen", Needs: "keys:write", Reach: op.ReachGive, Effect: op.Write, Idempotent: true, Members: true, Hands: true, May: "widen keys",
			Doc: "Give an API key more\nOnly a member may, within what the member's own key holds, and never for the key in use.", Errors: change}, a.widenKey),
		op.Define(op.Spec{Name: "key.extend", Route: "POST /v1/keys/{id}/extend", Needs: "keys:write", Reach: op.ReachGive, Effect: op.Write, Members: true, Hands: true, May: "extend keys",
			Doc: "Give an API key more time\nRevives a key that expired less than 30 days ago. Nothing revives a revoked one.", Errors: append([]op.Code{KeyLimitExceeded}, change...)}, a.extendKey),
		op.Define(op.Spec{Name: "key.rotate", Route: "POST /v1/keys/{id}/rotate", Needs: op.SelfWith("keys:rotate-self", "keys:write"), Reach: op.ReachSecret, Effect: op.Write, Narrow: op.Always, May: "rotate keys",
			Doc:    "Give an API key a new secret\nThe new secret is in the answer, this once. The old one goes on for the overlap, counted from the first use of the new one; now ends it at once, finish ends it later without making another.",
			Errors: []op.Code{KeyNotFound, KeyEnded, NotRotating}}, a.rotateKey),
		op.Define(op.Spec{Name: "key.revoke", Route: "POST /v1/keys/{id}/revoke", Needs: op.SelfOr("keys:write"), Reach: op.ReachBelow, Effect: op.Destroy, Idempotent: true, Narrow: op.Always, Exit: true, May: "revoke keys",
			Doc: "Revoke an API key\nIt stops working at once, everywhere, with every key that it made. This cannot be undone. A key may always revoke itself (id: self), whatever its restrictions and over the rate limit.", Errors: []op.Code{KeyNotFound}}, a.revokeKey),
		op.Define(op.Spec{Name: "key.access", Route: "GET /v1/keys/{id}/access", Needs: op.SelfOr("keys:read"), Reach: op.ReachView, Effect: op.Read, Narrow: op.Always, May: "see what a key can do",
			Doc: "Show what an API key can and cannot do\nAsked of the same function that decides every call.", Errors: []op.Code{KeyNotFound}}, a.accessOfKey),
		op.Define(op.Spec{Name: "key.activity", Route: "GET /v1/keys/{id}/activity", Needs: "keys:read", Effect: op.Read, May: "see what keys did",
			Doc: "Show what an API key did\nCalls by hour, operation, address and result, kept for 400 days.", Errors: []op.Code{KeyNotFound}}, a.activityOfKey),
		op.Define(op.Spec{Name: "personal_key.create", Route: "POST /v1/me/keys", Needs: op.AnyKey, Members: true, Effect: op.Write, Status: 201, Hands: true, May: "create personal keys",
			Doc: "Create a personal key of your own\nIt can do what its scope and your role allow, and ends with your membership.", Errors: []op.Code{KeyLimitExceeded}}, a.createPersonal),
		op.Define(op.Spec{Name: "personal_key.list", Route: "GET /v1/me/keys", Needs: op.AnyKey, Members: true, Effect: op.Read, May: "list personal keys", Doc: "List your own personal keys"}, a.listPersonal),
		op.Define(op.Spec{Name: "audit.list", Route: "GET /v1/audit", Needs: "audit:read", Effect: op.Read, May: "read the audit log",
			Doc: "Read the audit log\nEvery change of access and of definitions, and every refusal, newest first."}, a.listAudit),
		op.Define(op.Spec{Name: "audit.check", Route: "GET /v1/audit/check", Needs: "audit:read", Effect: op.Read, May: "check the audit log",
			Doc: "Check that the audit log is whole\nWalks the chain of hashes and holds its end against what the server wrote down."}, a.checkAudit),
	}
}

func (a *Access) peopleOperations() []*op.Operation {
	changes := []op.Code{MemberNotFound, MemberHasKeys, LastAdmin, OwnMembership}
	return []*op.Operation{
		op.Define(op.Spec{Name: "member.list", Route: "GET /v1/members", Needs: "members:read", Effect: op.Read, May: "see members", Doc: "List members"}, a.listMembers),
		op.Define(op.Spec{Name: "member.add", Route: "POST /v1/members", Needs: "members:write", Reach: op.ReachRole, Effect: op.Write, Members: true, Status: 201, Hands: true, May: "add members",
			Doc: "Add a member\nThe answer has a personal key of the new member, shown this once; so only a member may, whose keys do not outlive the membership.", Errors: []op.Code{MemberExists, KeyLimitExceeded, MemberLimitExceeded}}, a.addMember),
		op.Define(op.Spec{Name: "member.update", Route: "PATCH /v1/members/{id}", Needs: "members:write", Reach: op.ReachRole, Effect: op.Write, Idempotent: true, Hands: true, May: "change members",
			Doc: "Change a member's role\nIntegration keys that hold more than the new role are a decision: hand_over or revoke.", Errors: changes}, a.updateMember),
		op.Define(op.Spec{Name: "member.remove", Route: "DELETE /v1/members/{id}", Needs: "members:write", Reach: op.ReachRole, Effect: op.Destroy, Hands: true, May: "remove members",
			Doc: "Remove a member\nPersonal keys end at once. Integration keys are a decision: hand_over or revoke.", Errors: changes}, a.removeMember),
		op.Define(op.Spec{Name: "workspace.get", Route: "GET /v1/workspace", Needs: "workspace:read", Effect: op.Read, May: "see the workspace", Doc: "Show the workspace"}, a.getWorkspace),
		op.Define(op.Spec{Name: "workspace.update", Route: "PATCH /v1/workspace", Needs: "workspace:write", Effect: op.Write, Idempotent: true, May: "change the workspace",
			Doc: "Change the workspace", Errors: []op.Code{DuplicateSlug}}, a.updateWorkspace),
		op.Define(op.Spec{Name: "workspace.list", Route: "GET /v1/workspaces", Needs: "workspace:read", Effect: op.Read, May: "list workspaces", Doc: "List your workspaces"}, a.listWorkspaces),
		op.Define(op.Spec{Name: "workspace.create", Route: "POST /v1/workspaces", Needs: "workspace:write", Effect: op.Write, Members: true, Status: 201, Hands: true, May: "create workspaces",
			Doc: "Create a workspace\nYou become its first admin; the answer has your personal key there, shown this once.", Errors: []op.Code{DuplicateSlug, SelfHostedOnly}}, a.createWorkspace),
	}
}

// cueAPIOperations are the account endpoints of the CueAPI wire contract (2.1, 10.6), for its clients.
func (a *Access) cueAPIOperations() []*op.Operation {
	return []*op.Operation{
		op.Define(op.Spec{Name: "me.get", Route: "GET /v1/auth/me", Needs: op.AnyKey, Effect: op.Read, Narrow: op.Always, May: "see who it is", Doc: "Show who you are"}, a.me),
		op.Define(op.Spec{Name: "account.register", Route: "POST /v1/auth/register", Needs: op.Public, Effect: op.Write, Open: true, Status: 201, Unaudited: true, May: "sign up",
			Doc: "Sign up\nMakes a workspace and a key. Open only where the server says so (UNSTUCK_REGISTER).", Errors: []op.Code{NotFound, DuplicateEmail}}, a.register),
		op.Define(op.Spec{Name: "auth_key.reveal", Route: "GET /v1/auth/key", Needs: op.AnyKey, Effect: op.Read, Narrow: op.Always, May: "be shown again",
			Doc: "Show the calling key again\nAlways refused: only a hash is kept.", Errors: []op.Code{PlaintextUnavailable}}, a.reveal),
		op.Define(op.Spec{Name: "auth_key.regenerate", Route: "POST /v1/auth/key/regenerate", Aliases: []string{"POST /v1/auth/regenerate"}, Needs: "keys:write",
			Effect: op.Write, Open: true, Confirm: true, May: "rotate itself", Doc: "Give the calling key a new secret\nThe old one ends at once.", Errors: []op.Code{KeyEnded}}, a.regenerate),
		op.Define(op.Spec{Name: "auth_key.create", Route: "POST /v1/auth/keys", Needs: "keys:write", Effect: op.Write, Open: true, Hands: true, Below: true, May: "create keys",
			Doc: "Create a key with the caller's rights\nFor clients of CueAPI; key.create makes smaller ones.", Errors: []op.Code{TooDeep, KeyLimitExceeded}}, a.createAuthKey),
		op.Define(op.Spec{Name: "auth_key.list", Route: "GET /v1/auth/keys", Needs: "keys:write", Effect: op.Read, May: "list keys", Doc: "List keys as CueAPI's clients read them"}, a.listAuthKeys),
		op.Define(op.Spec{Name: "auth_key.update", Route: "PATCH /v1/auth/keys/{id}", Needs: "keys:write", Reach: op.ReachBelow, Effect: op.Write, Idempotent: true, Open: true, May: "rename keys",
			Doc: "Rename a key", Errors: []op.Code{NotFound, KeyEnded}}, a.updateAuthKey),
		op.Define(op.Spec{Name: "auth_key.revoke", Route: "DELETE /v1/auth/keys/{id}", Needs: "keys:write", Reach: op.ReachBelow, Effect: op.Destroy, Confirm: true, May: "revoke keys",
			Doc: "Revoke a key, but not the last one\nFor clients of CueAPI; key.revoke never refuses.", Errors: []op.Code{NotFound, LastKeyProtected}}, a.revokeAuthKey),
		op.Define(op.Spec{Name: "webhook_secret.get", Route: "GET /v1/auth/webhook-secret", Needs: "secrets:read", Effect: op.Read, May: "read webhook secrets", Doc: "Show the webhook secret\nThe audit log keeps who saw it."}, a.webhookSecret),
		op.Define(op.Spec{Name: "webhook_secret.rotate", Route: "POST /v1/auth/webhook-secret/regenerate", Needs: "secrets:write", Effect: op.Write, Open: true, Confirm: true, May: "rotate webhook secrets",
			Doc: "Make a new webhook secret\nThe old one ends at once. With overlap_seconds it goes on signing beside the new one: webhook-signature carries both, X-CueAPI-Signature the old one's until it ends."}, a.rotateWebhookSecret),
		op.Define(op.Spec{Name: "alert_secret.get", Route: "GET /v1/auth/alert-webhook-secret", Needs: "secrets:read", Effect: op.Read, May: "read webhook secrets", Doc: "Show the alert webhook secret\nThe audit log keeps who saw it."}, a.alertSecret),
		op.Define(op.Spec{Name: "alert_secret.rotate", Route: "POST /v1/auth/alert-webhook-secret/regenerate", Needs: "secrets:write", Effect: op.Write, Open: true, Confirm: true, May: "rotate webhook secrets",
			Doc: "Make a new alert webhook secret\nThe old one ends at once."}, a.rotateAlertSecret),
	}
}
