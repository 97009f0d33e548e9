package access

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Codes of this package.
var (
	InvalidAPIKey     = op.Code{Status: 401, Name: "invalid_api_key", Doc: "No key came with the call, or it is not a key of this server. Check that it was copied whole and is for this server."}
	KeyExpired        = op.Code{Status: 401, Name: "key_expired", Doc: "The key's time is over. A member may extend it within 30 days; otherwise make a new one."}
	KeyRevoked        = op.Code{Status: 401, Name: "key_revoked", Doc: "The key was ended for good. Make a new one."}
	KeyRotated        = op.Code{Status: 401, Name: "key_rotated", Doc: "The key has a newer secret and this one's overlap is over. Use the new secret."}
	InsufficientScope = op.Code{Status: 403, Name: "insufficient_scope", Doc: "The key lacks a permission. `missing` says which, `scopes` which scopes hold it, `mend` who has to do what."}
	KeyRestricted     = op.Code{Status: 403, Name: "key_restricted", Doc: "The key is restricted and the call does not meet it. `restriction` says in what, `brought` what the call came with."}
	RateLimitExceeded = op.Code{Status: 429, Name: "rate_limit_exceeded", Doc: "Too many calls within a minute. Wait as many seconds as Retry-After says."}
)

// AuthCodes are the codes that the guard can answer for any operation that is not public.
func AuthCodes() []op.Code {
	return []op.Code{InvalidAPIKey, KeyExpired, KeyRevoked, KeyRotated, InsufficientScope, KeyRestricted, RateLimitExceeded}
}

func unauthorized(code op.Code, format string, args ...any) *op.Error {
	e := code.Msg(format, args...)
	e.Header = http.Header{"Www-Authenticate": {challenge("invalid_token", "", e.Message)}}
	return e
}

// challenge is a WWW-Authenticate value of RFC 6750 section 3. Quotes and what is not ASCII are left out of the description.
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
		return fmt.Sprintf(`Bearer error=%q, scope=%q, error_description=%q`, kind, scope, plain)
	}
	return fmt.Sprintf(`Bearer error=%q, error_description=%q`, kind, plain)
}

// unauthenticated is the 401 for a key that is not, or no longer, good. Only who presents the genuine key learns that it once was.
func (a *Access) unauthenticated(g grant, why standing) *op.Error {
	switch why {
	case revoked:
		at := a.endedAt(g.key)
		if at == "" {
			return unauthorized(KeyRevoked, "This key was revoked.")
		}
		return unauthorized(KeyRevoked, "This key was revoked at %s.", at)
	case expired:
		return unauthorized(KeyExpired, "This key expired. Somebody who manages keys can extend it or give you a new one.")
	case rotated:
		return unauthorized(KeyRotated, "This key has been rotated. Use your new key.")
	}
	return unauthorized(InvalidAPIKey, "This key is not known here. Is it for another server?")
}

// endedAt is when the nearest revoked key of a chain was revoked, "10:33:20 UTC" today and with its date otherwise; "" for a
// member who left.
func (a *Access) endedAt(k *key) string {
	for ; k != nil; k = k.parent {
		a.table.mu.RLock()
		dead := k.revoked
		a.table.mu.RUnlock()
		if !dead {
			continue
		}
		var at *int64
		err := a.DB.View(context.Background(), func(tx *db.Tx) error {
			row, err := readKey(tx, k.ws.id, k.id())
			at = row.revoked
			return err
		})
		if err != nil || at == nil {
			return ""
		}
		return clock(time.UnixMicro(*at).UTC(), a.Now().UTC())
	}
	return ""
}

func clock(t, now time.Time) string {
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format("15:04:05") + " UTC"
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

// Grant is one step that would have let a refused call through: what to do to which key or member.
type Grant struct {
	Key              string              `json:"key,omitempty"`
	Member           string              `json:"member,omitempty"`
	Role             string              `json:"role,omitempty"`
	AddPermissions   []string            `json:"add_permissions,omitempty"`
	AddTo            map[string][]string `json:"add_to,omitempty"`
	DropRestrictions []string            `json:"drop_restrictions,omitempty"`
}

type refusedScope struct {
	Operation string   `json:"operation"`
	Missing   []string `json:"missing"`
	Scopes    []string `json:"scopes"`
	Key       KeyBrief `json:"key"`
	Grants    []Grant  `json:"grants"`
	Mend      string   `json:"mend"`
}

type refusedRestriction struct {
	Operation   string   `json:"operation"`
	Restriction string   `json:"restriction"`
	Brought     string   `json:"brought"`
	Key         KeyBrief `json:"key"`
	Grants      []Grant  `json:"grants"`
	Mend        string   `json:"mend"`
}

// missing is the refusal for permissions that the caller does not hold; nil when it holds all of them.
func (a *Access) missing(c *Caller, o *op.Operation, names ...string) error {
	var lacks permSet
	for _, n := range names {
		if i := permIndex(n); i >= 0 && !c.grant.perms.has(n) {
			lacks |= 1 << i
		}
	}
	if lacks == 0 {
		return nil
	}
	e := InsufficientScope.Msg("This key may not %s.", o.May)
	x := refusedScope{Operation: o.Name, Missing: lacks.names(), Scopes: scopesHolding(lacks), Key: a.brief(c.grant), Grants: c.grant.lacking(a.table, lacks)}
	x.Mend = mendPermissions(x, c.grant.key)
	e.Extra = x
	e.Header = http.Header{"Www-Authenticate": {challenge("insufficient_scope", strings.Join(x.Missing, " "), e.Message)}}
	return e
}

// lacking lists what would have to be granted, along the whole chain, for a call to hold these permissions.
func (g grant) lacking(t *table, lacks permSet) []Grant {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var out []Grant
	g.chain(func(k *key) bool {
		if gone := lacks &^ k.own(); gone != 0 {
			out = append(out, Grant{Key: k.id(), AddPermissions: gone.names()})
		}
		if k.kind == personal && lacks&^(rolePerms(k.member.role)|ownPerms) != 0 {
			out = append(out, Grant{Member: k.member.id.user, Role: smallestRole(k.member.role, lacks)})
		}
		return true
	})
	return out
}

func smallestRole(now string, lacks permSet) string {
	roles := []string{RoleViewer, RoleOperator, RoleManager, RoleAdmin}
	want := lacks | rolePerms(now)
	for _, r := range roles {
		if want&^rolePerms(r) == 0 {
			return r
		}
	}
	return RoleAdmin
}

func mendPermissions(x refusedScope, k *key) string {
	add := strings.Join(x.Missing, ", ")
	var steps []string
	for _, g := range x.Grants {
		switch {
		case g.Role != "":
			steps = append(steps, "an admin makes its member "+g.Role)
		case g.Key != k.id():
			steps = append(steps, "the key above it, "+g.Key+", gets "+strings.Join(g.AddPermissions, ", ")+" too")
		}
	}
	text := "Somebody who manages keys can add " + add + " to this key"
	if len(x.Scopes) > 0 {
		text += ", or give you one with scope " + x.Scopes[0]
	}
	if len(steps) > 0 {
		text += "; besides, " + strings.Join(steps, " and ")
	}
	return text + "."
}

// brief names the calling key; the secret shown is the one that was used.
func (a *Access) brief(g grant) KeyBrief {
	b := KeyBrief{ID: g.key.id(), Redacted: redacted(a.Prefix, digitString(g.digits)), Scope: custom}
	if g.scope > 0 {
		b.Scope = scopes[g.scope-1].Name
	}
	_ = a.DB.View(context.Background(), func(tx *db.Tx) error { // a name that cannot be read leaves the refusal without it
		row, err := readKey(tx, g.key.ws.id, b.ID)
		b.Name = row.name
		return err
	})
	return b
}

// unmet is the refusal for the first restriction along the chain that the call does not meet; nil when all hold.
func (a *Access) unmet(c *Caller, call *op.Call) error {
	var refusal error
	now := a.Now().UTC()
	c.grant.chain(func(k *key) bool {
		r := k.rules.Load()
		switch {
		case r == nil:
		case r.NotBefore != nil && now.Before(r.NotBefore.Std()):
			refusal = a.restrictedBy(c, k, "not_before", "This key may not be used yet; it is now "+now.Format("15:04:05 UTC on 2 Jan 2006")+".", op.TimeOf(now).String())
		case r.IPs != nil && !containsAddr(r.IPs, c.addr):
			brought := addrText(c.addr)
			refusal = a.restrictedBy(c, k, "ips", "This key may be used only from certain addresses, and you came from "+brought+".", brought)
		case r.Via != nil && !slices.Contains(r.Via, call.Via):
			refusal = a.restrictedBy(c, k, "via", "This key may be used only through certain doors, and you came by "+call.Via+".", call.Via)
		case r.Cues != nil && call.Narrow == op.Whole:
			refusal = a.restrictedBy(c, k, "cues", "This key may be used only for certain cues, and this is about the whole workspace.", call.Name)
		}
		return refusal == nil
	})
	return refusal
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return "a local socket"
	}
	return a.String()
}

// restricted is the refusal of the first key along the chain whose restriction of this kind does not let `brought` through.
func (a *Access) restricted(c *Caller, kind, message, brought string) error {
	by := c.grant.key
	c.grant.chain(func(k *key) bool {
		r := k.rules.Load()
		switch {
		case r == nil:
			return true
		case kind == "cues" && r.Cues != nil && !matchAny(r.Cues, "", brought), kind == "worker_ids" && r.WorkerIDs != nil && !slices.Contains(r.WorkerIDs, brought):
			by = k
			return false
		}
		return true
	})
	return a.restrictedBy(c, by, kind, message, brought)
}

// restrictedBy says which kind of restriction was not met and what the caller brought, never what would be allowed.
func (a *Access) restrictedBy(c *Caller, by *key, kind, message, brought string) error {
	g := Grant{Key: by.id()}
	var what string
	switch addable := kind == "ips" || kind == "worker_ids" || kind == "via" || kind == "cues" && c.call.Narrow == op.ByObject; {
	case addable:
		add := brought
		if p, err := parsePrefix(brought); kind == "ips" && err == nil {
			add = p.String()
		}
		g.AddTo = map[string][]string{kind: {add}}
		what = "add " + add + " to its restriction " + kind
	default:
		g.DropRestrictions = []string{kind}
		what = "drop its restriction " + kind
	}
	e := KeyRestricted.Msg("%s", message)
	whom := "this key"
	if by != c.grant.key {
		whom = "the key above it, " + by.id()
	}
	e.Extra = refusedRestriction{
		Operation: c.call.Name, Restriction: kind, Brought: brought, Key: a.brief(c.grant), Grants: []Grant{g},
		Mend: fmt.Sprintf("Somebody who manages keys can widen %s: %s.", whom, what),
	}
	return e
}

func tooMany(t tally) *op.Error {
	n := (t.wait + 999_999) / 1_000_000
	e := RateLimitExceeded.Msg("Too many requests. Retry after %d seconds.", n)
	e.Header = http.Header{"Retry-After": {strconv.FormatInt(n, 10)}}
	return e
}

// overLimit is the 429 for a call that was let through to a lenient operation.
func (a *Access) overLimit(c *Caller) error {
	t := c.grant.peek(a.now())
	t.wait = max(t.wait, 1)
	return tooMany(t)
}

func quoted(s string) string { return strconv.Quote(s) }
