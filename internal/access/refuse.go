package access

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"unstuck/internal/op"
)

// Codes of the guard.
var (
	InvalidAPIKey     = op.Code{Status: 401, Name: "invalid_api_key", Doc: "No key came with the call, or it is not a key of this server. Check that it was copied whole and is for this server."}
	KeyExpired        = op.Code{Status: 401, Name: "key_expired", Doc: "The key's time is over. A member may extend it within 30 days; otherwise make a new one."}
	KeyRevoked        = op.Code{Status: 401, Name: "key_revoked", Doc: "The key was ended for good. Make a new one."}
	KeyRotated        = op.Code{Status: 401, Name: "key_rotated", Doc: "The key has a newer secret and this one's overlap is over. Use the new secret."}
	InsufficientScope = op.Code{Status: 403, Name: "insufficient_scope", Doc: "The key lacks a permission. `missing` says which, `scopes` which scopes hold it, `mend` who has to do what."}
	KeyRestricted     = op.Code{Status: 403, Name: "key_restricted", Doc: "The key is restricted and the call does not meet it. `restriction` says in what, `brought` what the call came with."}
	KeyHandedOver     = op.Code{Status: 403, Name: "key_handed_over", Doc: "Whoever handed the key over to you knows it too, so it makes no keys, members or workspaces and changes none. Replace it first: unstuck auth login, or POST /v1/keys/self/rotate."}
	MembersOnly       = op.Code{Status: 403, Name: "members_only", Doc: "Only a member may do this, with a personal key; an integration key may not."}
	RateLimitExceeded = op.Code{Status: 429, Name: "rate_limit_exceeded", Doc: "Too many calls within a minute. Wait as many seconds as Retry-After says."}
)

// AuthCodes are the codes that the guard can answer for any operation that is not public.
func AuthCodes() []op.Code {
	return []op.Code{InvalidAPIKey, KeyExpired, KeyRevoked, KeyRotated, InsufficientScope, KeyRestricted, MembersOnly, KeyHandedOver, RateLimitExceeded}
}

// isRefusal says whether a code means that the key may not do what it tried.
func isRefusal(c op.Code) bool {
	return c.Name == InsufficientScope.Name || c.Name == KeyRestricted.Name || c.Name == MembersOnly.Name || c.Name == KeyHandedOver.Name
}

func unauthorized(code op.Code, format string, args ...any) *op.Error {
	e := code.Msg(format, args...)
	e.Header = http.Header{"Www-Authenticate": {challenge("invalid_token", "", e.Message)}}
	return e
}

// challenge is a WWW-Authenticate value of RFC 6750 section 3. Quotes become apostrophes and what is not ASCII is left out of the
// description, which may hold neither.
func challenge(kind, scope, description string) string {
	plain := strings.Map(func(r rune) rune {
		switch {
		case r == '"' || r == '\\':
			return '\''
		case r < 0x20 || r > 0x7e:
			return -1
		}
		return r
	}, description)
	if scope != "" {
		scope = fmt.Sprintf(`scope="%s", `, scope)
	}
	return fmt.Sprintf(`Bearer error="%s", %serror_description="%s"`, kind, scope, plain)
}

// ended is the 401 for a key that is not, or no longer, good. Only who presents the genuine key learns that it once was. at is when
// the key was revoked, as far as that is known: 0 otherwise.
func (a *Access) ended(why standing, at int64) *op.Error {
	switch {
	case why == unsure:
		return op.Unavailable.Msg("It is being found out whether this key was changed a moment ago. Try again.")
	case why == revoked && at != 0:
		return unauthorized(KeyRevoked, "This key was revoked at %s.", timeOfDay(time.UnixMicro(at).UTC(), a.Now().UTC()))
	case why == revoked:
		return unauthorized(KeyRevoked, "This key was revoked.")
	case why == expired:
		return unauthorized(KeyExpired, "This key expired. Somebody who manages keys can extend it or give you a new one.")
	case why == rotated:
		return unauthorized(KeyRotated, "This key has been rotated. Use your new key.")
	case why == replaced:
		return unauthorized(KeyRotated, "This key was handed over, and has been replaced. If you did not do that, whoever handed it over did: tell an admin, who can revoke it.")
	}
	return unauthorized(InvalidAPIKey, "This key is not known here. Is it for another server?")
}

// timeOfDay is a moment as people read it: "10:33:20 UTC" today and with its date otherwise.
func timeOfDay(t, now time.Time) string {
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format("15:04:05 UTC")
	}
	return t.Format("15:04:05 UTC on 2 Jan 2006")
}

// KeyBrief is how an answer names a key.
type KeyBrief struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Redacted string `json:"redacted"`
	Scope    string `json:"scope"`
}

// Grant is one step that lets a refused call through: what to do to which key or member. All steps of a refusal together do.
type Grant struct {
	Key              string              `json:"key,omitempty"`
	AddPermissions   []string            `json:"add_permissions,omitempty"`
	AddTo            map[string][]string `json:"add_to,omitempty"`
	DropRestrictions []string            `json:"drop_restrictions,omitempty"`
	Member           string              `json:"member,omitempty"`
	Role             string              `json:"role,omitempty"`
}

// refusal is what a 403 tells besides its sentence. Of a restriction it tells what the caller brought, never what would be allowed.
type refusal struct {
	Operation   string   `json:"operation"`
	Missing     []string `json:"missing,omitempty"`
	Scopes      []string `json:"scopes,omitempty"`
	Restriction string   `json:"restriction,omitempty"`
	Brought     string   `json:"brought,omitempty"`
	Key         KeyBrief `json:"key"`
	Grants      []Grant  `json:"grants"`
	Mend        string   `json:"mend"`
}

// refuse is the 403 for a ruling, and nil when it passes. It names all that is missing, so that whoever grants it is not asked twice.
func (c *Caller) refuse(r ruling) error {
	if r.members {
		return MembersOnly.Msg("Only a member may %s, with a personal key; this is an integration key.", c.call.May)
	}
	if r.handed {
		return KeyHandedOver.Msg("Whoever handed this key over to you knows it too, so it may not %s. Replace it first: unstuck auth login, or POST /v1/keys/self/rotate.", c.call.May)
	}
	if r.passes() {
		return nil
	}
	x := &refusal{
		Operation: c.call.Name, Key: KeyBrief{ID: c.KeyID(), Redacted: c.grant.redacted(), Scope: scopeName(c.grant.scope)},
		Grants: c.a.table.grants(c.grant.key, r),
	}
	if r.lacks == 0 {
		first := r.obstacles[0]
		x.Restriction, x.Brought = first.kind, first.brought
		x.Mend = mend(x)
		e := KeyRestricted.Msg("%s", first.message)
		e.Extra = x
		return e
	}
	x.Missing, x.Scopes = r.lacks.names(), scopesHolding(r.lacks)
	x.Mend = mend(x)
	e := InsufficientScope.Msg("This key may not %s.", c.call.May)
	if m := c.grant.key.member.Load(); c.grant.key.kind == personal && !m.perms.holds(r.lacks) { // whatever key the member makes
		e = InsufficientScope.Msg("Your role here is %s, which may not %s.", m.role, c.call.May)
		if p := c.call.Needs.Permission(); p != "" && m.perms.has(p) { // but not with all that it asks for
			e = InsufficientScope.Msg("Your role here is %s, which may %s, but lacks some of what this one needs: %s.", m.role, c.call.May, strings.Join((r.lacks&^m.perms).names(), ", "))
		}
	}
	e.Extra = x
	e.Header = http.Header{"Www-Authenticate": {challenge("insufficient_scope", strings.Join(x.Missing, " "), e.Message)}}
	return e
}

// grants lists what would have to be done, to the key and those above it, for a ruling to pass.
func (t *table) grants(k *key, r ruling) []Grant {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var out []Grant
	for x := range k.chain() {
		if g := x.grantFor(r); len(g.AddPermissions)+len(g.AddTo)+len(g.DropRestrictions) > 0 {
			out = append(out, g)
		}
		if m := x.member.Load(); x.kind == personal && !m.perms.holds(r.lacks) {
			out = append(out, Grant{Member: m.user, Role: smallestRole(r.lacks | rolePerms(m.role))})
		}
	}
	return out
}

// grantFor is what would have to be done to one key.
func (k *key) grantFor(r ruling) Grant {
	g := Grant{Key: k.id(), AddPermissions: (r.lacks &^ k.perms).names()}
	for _, o := range r.obstacles {
		switch {
		case o.by != k:
		case o.entry == "":
			g.DropRestrictions = append(g.DropRestrictions, o.kind)
		default:
			if g.AddTo == nil {
				g.AddTo = map[string][]string{}
			}
			g.AddTo[o.kind] = append(g.AddTo[o.kind], o.entry)
		}
	}
	return g
}

// opened says what restrictions of these kinds keep shut.
func opened(kinds []string) string {
	what := map[string]string{
		"cues": "all cues", "ips": "all addresses", "via": "all ways in", "not_before": "all times", "rate_per_minute": "all rates", "worker_ids": "all worker ids",
	}
	out := make([]string, len(kinds))
	for i, kind := range kinds {
		out[i] = what[kind]
	}
	return strings.Join(out, " and ")
}

// mend says in one sentence who has to do what.
func mend(x *refusal) string {
	who, steps := "Somebody who manages keys", []string{}
	for _, g := range x.Grants {
		whom := "this key"
		if g.Key != x.Key.ID {
			whom = "the key above it, " + g.Key
		}
		if len(g.AddPermissions) > 0 {
			steps = append(steps, "add "+strings.Join(g.AddPermissions, ", ")+" to "+whom)
		}
		for _, kind := range kinds {
			if entries := g.AddTo[kind]; len(entries) > 0 {
				steps = append(steps, "add "+strings.Join(entries, ", ")+" to the restriction "+kind+" of "+whom)
			}
		}
		if len(g.DropRestrictions) > 0 {
			steps = append(steps, "drop the restriction "+strings.Join(g.DropRestrictions, ", ")+" of "+whom+", which opens "+opened(g.DropRestrictions)+" to it")
		}
		if g.Role != "" {
			who, steps = "An admin", append(steps, "make you "+g.Role)
		}
	}
	text := who + " can " + strings.Join(steps, ", and ")
	if len(steps) == 1 && len(x.Scopes) > 0 && slices.Equal(x.Grants[0].AddPermissions, x.Missing) {
		text += ", or give you one with scope " + x.Scopes[0]
	}
	return text + "."
}
