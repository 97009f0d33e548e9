package access

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/netip"
	"strings"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// keyVerify is the input of key.verify. Nothing of it is logged or sent back.
type keyVerify struct {
	Key        SecretText     `json:"key" secrets:"may" doc:"the key that somebody presented to you"`
	Permission string         `json:"permission" doc:"what it must be allowed to do, such as cues:fire"`
	Cue        op.Opt[string] `json:"cue" doc:"the cue that it is about: id"`
	IP         op.Opt[string] `json:"ip" doc:"the address that it came from; without it a key that is restricted to addresses does not pass"`
}

// Verified is the answer about somebody else's key. Of a key that is not of the caller's workspace nothing is told.
type Verified struct {
	Valid       bool     `json:"valid"`
	Code        string   `json:"code" doc:"empty when valid, else the code that a call would get"`
	KeyID       *string  `json:"key_id"`
	Permissions []string `json:"permissions" doc:"what the key holds in effect; empty when it is not valid"`
}

func (a *Access) verifyKey(ctx context.Context, in keyVerify) (Verified, error) {
	out := Verified{Code: InvalidAPIKey.Name, Permissions: []string{}}
	if permIndex(in.Permission) < 0 {
		return out, op.Invalid("body.permission", "There is no permission %q; GET /v1/scopes lists them all", in.Permission)
	}
	addr, err := givenAddr(in.IP, "body.ip")
	if err != nil {
		return out, err
	}
	c := From(ctx)
	if err := a.knowsCue(ctx, c, in.Cue, "body.cue"); err != nil { // before anything about the key, so that it tells nothing about it
		return out, err
	}
	s, ok := parseSecret(in.Key.Reveal())
	if !ok {
		return out, nil
	}
	g, why := a.table.verify(s, a.sealer, a.now())
	switch {
	case why == unknown || g.key.ws() != c.grant.key.ws():
		return out, nil
	case why == unsure:
		return out, a.ended(why, 0)
	}
	id := g.key.id()
	out.KeyID = &id
	seen := addr // from where the call is noted
	if !in.IP.Set {
		seen = untold
	}
	if !why.passes() {
		a.refused.dead(a, g, why, c.call, seen)
		out.Code = a.ended(why, 0).Code.Name
		return out, nil
	}
	if g.aged {
		a.rehash(s)
	}
	err = a.try(ctx, a.newCaller(c.call, g, addr), seen, in.Permission, in.Cue.Val)
	var refused *op.Error
	if errors.As(err, &refused) && (isRefusal(refused.Code) || refused.Code == RateLimitExceeded) {
		out.Code = refused.Code.Name
		return out, nil
	}
	if err == nil {
		out.Valid, out.Code, out.Permissions = true, "", g.perms.names()
	}
	return out, err
}

// knowsCue refuses the id of a cue that the caller's workspace does not have. Keys that may ask about others are for no certain cues, so
// it tells them nothing that they may not know.
func (a *Access) knowsCue(ctx context.Context, c *Caller, cue op.Opt[string], at string) error {
	if !cue.Set {
		return nil
	}
	return a.DB.View(ctx, func(tx *db.Tx) error {
		ok, err := a.things.CueExists(tx, c.Workspace(), cue.Val)
		if err == nil && !ok {
			err = noSuchCue(at, cue.Val)
		}
		return err
	})
}

func givenAddr(ip op.Opt[string], at string) (netip.Addr, error) {
	if !ip.Set {
		return netip.Addr{}, nil
	}
	addr, err := netip.ParseAddr(ip.Val)
	if err != nil || addr.Zone() != "" {
		return addr, op.Invalid(at, "That is no address; write 203.0.113.7")
	}
	return addr.Unmap(), nil
}

// try is a call that somebody makes elsewhere with a key of ours: it counts against the key's limits, and as its last use.
func (a *Access) try(ctx context.Context, c *Caller, seen netip.Addr, permission, cue string) error {
	err := error(nil)
	if t := c.grant.key.take(a.now()); t.wait > 0 {
		err = tooMany(t)
	} else if err = c.may(ctx, permission, cue, "body.cue"); err == nil {
		err = a.greet(ctx, c.grant)
	}
	var failed *op.Error
	if err != nil {
		failed = op.AsError(err)
	}
	x := c.useOf(c.call, failed)
	x.address, x.via = seen, viaVerify
	a.usage.note(x)
	return err
}

// may holds a caller against a permission, as an operation does that needs it: about a cue when one is named, else about the workspace
// as a whole. at is the place of the cue in the input.
func (c *Caller) may(ctx context.Context, permission, cue, at string) error {
	r := ruling{}
	if !c.Holds(permission) {
		r.lacks = bit(permission)
	}
	narrow := op.Whole
	if cue != "" {
		narrow = op.ByObject
	}
	for k := range c.grant.key.chain() {
		if rules := k.rules.Load(); rules != nil {
			r.obstacles = rules.unmet(r.obstacles, k, narrow, c.circumstances())
		}
	}
	if err := c.refuse(r); err != nil || cue == "" {
		return err
	}
	var name string
	err := c.a.DB.View(ctx, func(tx *db.Tx) (err error) {
		name, err = c.a.things.CueName(tx, c.Workspace(), cue)
		return err
	})
	if err != nil {
		return err
	}
	// a key for certain cues learns of no other whether it exists
	err = c.refuse(ruling{obstacles: c.grant.key.blindTo(cue, name, cue, "This key may not be used for that cue.")})
	if err == nil && name == "" {
		return noSuchCue(at, cue)
	}
	return err
}

// noSuchCue refuses the id or name of a cue that the caller's workspace does not have.
func noSuchCue(at, cue string) error {
	return op.Invalid(at, "There is no cue %s in this workspace", brief(cue))
}

// briefMost is how many characters of what was sent are told back.
const briefMost = 60

// brief is a text that was sent, short enough to be told back. Keys in it are hidden first: a piece of one would not be known for one.
func brief(s string) string {
	clean, _ := Redact(s)
	if r := []rune(clean); len(r) > briefMost {
		return string(r[:briefMost]) + "…"
	}
	return clean
}

// keyAuthorize is the input of key.authorize, for the sub-request of a proxy.
type keyAuthorize struct {
	Permission op.Opt[string] `json:"permission" nul:"replace" doc:"what the key must be allowed to do; required"`
	Cue        op.Opt[string] `json:"cue" nul:"replace" doc:"id of the cue that it is about"`
}

// forProxy turns a failure of key.authorize into 401 or 403, the only ones that a proxy passes on: it makes a 500 of every other
// status of its sub-request. The code that it would have been stands in X-Unstuck-Code.
func forProxy(e *op.Error) *op.Error {
	out := *e
	out.Header = http.Header{}
	maps.Copy(out.Header, e.Header)
	out.Header.Set("X-Unstuck-Code", e.Code.Name)
	if e.Code.Status != http.StatusUnauthorized {
		out.Code.Status = http.StatusForbidden
	}
	return &out
}

func (a *Access) authorize(ctx context.Context, in keyAuthorize) (op.None, error) {
	c := From(ctx)
	if c.over {
		return op.None{}, c.RefuseOverLimit()
	}
	if err := c.authorized(ctx, in); err != nil {
		return op.None{}, err
	}
	h := c.call.Header
	h.Set("X-Unstuck-Workspace", c.Workspace())
	h.Set("X-Unstuck-Key", c.KeyID())
	h.Set("X-Unstuck-Permissions", strings.Join(permSet(c.perms.Load()).names(), " "))
	return op.None{}, nil
}

func (c *Caller) authorized(ctx context.Context, in keyAuthorize) error {
	switch {
	case in.Permission.Val == "":
		return op.Invalid("query.permission", "Say which permission the key must hold: ?permission=cues:read")
	case permIndex(in.Permission.Val) < 0:
		return op.Invalid("query.permission", "There is no permission %q; GET /v1/scopes lists them all", brief(in.Permission.Val))
	}
	return c.may(ctx, in.Permission.Val, in.Cue.Val, "query.cue")
}
