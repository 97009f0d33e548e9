package access

import (
	"context"
	"errors"
	"net/netip"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Answers about one operation.
const (
	Yes  = "yes"
	No   = "no"
	Only = "only" // yes, within what the restrictions leave
)

// Verdict is what a key may do with one operation.
type Verdict struct {
	Operation string   `json:"operation"`
	Summary   string   `json:"summary"`
	Answer    string   `json:"answer" doc:"yes, no, or only: within what the list only says"`
	Needs     string   `json:"needs" doc:"public, any key, a permission, or the two ways of an operation that may be about the key itself"`
	Missing   []string `json:"missing" doc:"permissions that the key lacks"`
	Scopes    []string `json:"scopes" doc:"scopes that hold what is missing, smallest first"`
	Because   string   `json:"because" doc:"why not, or within what, in words"`
}

// OnlyFor is one restriction that bounds everything a key does, and whose it is.
type OnlyFor struct {
	Restriction string `json:"restriction"`
	Values      any    `json:"values"`
	KeyID       string `json:"key_id" doc:"the key that is restricted: itself or one above it"`
	Note        string `json:"note" doc:"what people want to know besides"`
}

// Words is a permission with what it lets a key do.
type Words struct {
	Permission string   `json:"permission"`
	Words      string   `json:"words"`
	Scopes     []string `json:"scopes" doc:"scopes that hold it, smallest first"`
}

// Answer is what a key can and cannot do, computed by the function that decides every call.
type Answer struct {
	Key        *KeyBrief `json:"key" doc:"null for a key that does not exist yet"`
	Status     string    `json:"status"`
	ExpiresAt  *op.Time  `json:"expires_at"`
	Can        []Words   `json:"can"`
	Cannot     []Words   `json:"cannot"`
	Only       []OnlyFor `json:"only"`
	NoKeyCan   []string  `json:"no_key_can"`
	Operations []Verdict `json:"operations"`
}

var noKeyCan = []string{
	"act in another workspace", "pass the rate limit or the plan's limits", "read a key again", "change an outcome once written",
	"do anything that is not in the API reference",
}

// decide says what a grant may do with an operation, before any object is known. Permit enforces exactly this: it refuses when the
// answer is No, and lets the operation look at the object when it is Only.
func (g grant) decide(o *op.Operation) (answer string, missing []string) {
	switch {
	case o.Needs == op.Public:
		return Yes, nil
	case o.Members && g.key.kind != personal:
		return No, nil
	case !g.mayTry(o.Needs):
		return No, []string{o.Needs.Permission()}
	}
	answer = Yes
	if p := o.Needs.Permission(); p != "" && !g.perms.has(p) {
		answer = Only // itself
	}
	g.chain(func(k *key) bool {
		r := k.rules.Load()
		switch {
		case r.empty():
		case r.Cues != nil && o.Narrow == op.Whole:
			answer = No
		case o.Narrow == op.Always && r.IPs == nil && r.Via == nil && r.NotBefore == nil && r.RatePerMinute == 0:
		default:
			answer = Only
		}
		return answer != No
	})
	return answer, nil
}

func (g grant) verdict(o *op.Operation) Verdict {
	v := Verdict{Operation: o.Name, Summary: o.Summary(), Needs: o.Needs.String(), Missing: []string{}, Scopes: []string{}}
	v.Answer, v.Missing = g.decide(o)
	own, self := o.Needs.Self()
	switch {
	case v.Answer == No && o.Members && g.key.kind != personal:
		v.Because = "only a member may, with a personal key"
	case v.Answer == No && v.Missing != nil:
		v.Because = "lacks " + v.Missing[0]
		if s, err := permsOf(v.Missing...); err == nil {
			v.Scopes = scopesHolding(s)
		}
	case v.Answer == No:
		v.Because = "the key is for certain cues only, and this is about the whole workspace"
	case v.Answer == Only && self && !g.perms.has(o.Needs.Permission()) && (own == "" || g.perms.has(own)):
		v.Because = "about itself"
	case v.Answer == Only:
		v.Because = "within the key's restrictions"
	}
	if v.Missing == nil {
		v.Missing = []string{}
	}
	if v.Scopes == nil {
		v.Scopes = []string{}
	}
	return v
}

// explain is the whole answer for a grant.
func (a *Access) explain(tx *db.Tx, g grant) (Answer, error) {
	out := Answer{Can: []Words{}, Cannot: []Words{}, Only: []OnlyFor{}, NoKeyCan: noKeyCan, Operations: []Verdict{}}
	for i, p := range permissions {
		w := Words{p.name, p.words, scopesHolding(1 << i)}
		if g.perms&(1<<i) != 0 {
			out.Can = append(out.Can, w)
		} else {
			out.Cannot = append(out.Cannot, w)
		}
	}
	for _, o := range a.ops {
		out.Operations = append(out.Operations, g.verdict(o))
	}
	var err error
	g.chain(func(k *key) bool {
		var more []OnlyFor
		more, err = a.onlyFor(tx, g, k)
		out.Only = append(out.Only, more...)
		return err == nil
	})
	return out, err
}

func (a *Access) onlyFor(tx *db.Tx, g grant, k *key) ([]OnlyFor, error) {
	r := k.rules.Load()
	if r.empty() {
		return nil, nil
	}
	var out []OnlyFor
	add := func(kind string, values any, note string) {
		out = append(out, OnlyFor{kind, values, k.id(), note})
	}
	if r.Cues != nil {
		n := int64(0)
		if a.things != nil {
			var err error
			if n, err = a.things.CountCues(tx, g.key.ws.id, g.cueFilter()); err != nil {
				return nil, err
			}
		}
		add("cues", r.Cues, plural(n, "cue")+" today")
	}
	if r.IPs != nil {
		add("ips", r.IPs, "")
	}
	if r.Via != nil {
		add("via", r.Via, "")
	}
	if r.NotBefore != nil {
		add("not_before", *r.NotBefore, "")
	}
	if r.RatePerMinute != 0 {
		add("rate_per_minute", r.RatePerMinute, "the workspace's limit is shared by all keys")
	}
	if r.WorkerIDs != nil {
		add("worker_ids", r.WorkerIDs, "")
	}
	return out, nil
}

// grantOf is the grant of a stored key, whoever presents it.
func (a *Access) grantOf(id string) (grant, standing, bool) {
	raw, ok := keyIDOf(id)
	if !ok {
		return grant{}, unknown, false
	}
	a.table.mu.RLock()
	defer a.table.mu.RUnlock()
	k := a.table.keys[raw]
	if k == nil {
		return grant{}, unknown, false
	}
	g := grant{key: k, scope: k.scope}
	var why standing
	g.perms, why = k.judge(a.now())
	return g, why, true
}

func (a *Access) accessOfKey(ctx context.Context, in keyRef) (out Answer, err error) {
	c := From(ctx)
	if in.ID != c.KeyID() {
		if err := c.Require("keys:read"); err != nil {
			return out, err
		}
	}
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		row, err := findKey(tx, c, in.ID)
		if err != nil {
			return err
		}
		g, why, ok := a.grantOf(in.ID)
		if !ok {
			return KeyNotFound.Msg("There is no key %s in this workspace.", in.ID)
		}
		if out, err = a.explain(tx, g); err != nil {
			return err
		}
		shown, err := a.show(tx, row)
		if err != nil {
			return err
		}
		out.Key, out.Status, out.ExpiresAt = &KeyBrief{row.id, row.name, shown.Redacted, row.scope}, statusOf(why), shown.ExpiresAt
		return nil
	})
	return out, err
}

// keyPreview is the input of key.preview: a key that does not exist yet.
type keyPreview struct {
	Scope        op.Opt[string]       `json:"scope" doc:"a named scope"`
	Permissions  op.Opt[[]string]     `json:"permissions" min:"1" doc:"permissions instead of a named scope"`
	Restrictions op.Opt[Restrictions] `json:"restrictions"`
}

func (a *Access) previewKey(ctx context.Context, in keyPreview) (out Answer, err error) {
	w, err := keyCreate{Scope: in.Scope, Permissions: in.Permissions, Restrictions: in.Restrictions}.check()
	if err != nil {
		return out, err
	}
	c := From(ctx)
	k := &key{ws: c.grant.key.ws, member: c.grant.key.member, perms: w.perms, scope: scopeIndex(w.scope), kind: integration}
	k.rules.Store(w.rules)
	if c.grant.key.kind == integration {
		k.parent = c.grant.key
	}
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		a.table.mu.RLock()
		g := grant{key: k, scope: k.scope}
		g.perms, _ = k.judge(a.now())
		a.table.mu.RUnlock()
		var err error
		out, err = a.explain(tx, g)
		out.Status = "active"
		return err
	})
	return out, err
}

// keyVerify is the input of key.verify. Nothing of it is logged or sent back.
type keyVerify struct {
	Key        string         `json:"key" doc:"the key that somebody presented to you"`
	Permission string         `json:"permission" doc:"what it must be allowed to do, such as cues:fire"`
	Cue        op.Opt[string] `json:"cue" doc:"id of the cue that it is about"`
	IP         op.Opt[string] `json:"ip" doc:"the address that it came from"`
}

// Verified is the answer about somebody else's key. Of a key that is not of the caller's workspace nothing is told.
type Verified struct {
	Valid       bool     `json:"valid"`
	Code        string   `json:"code" doc:"empty when valid, else the code that a call would get"`
	KeyID       *string  `json:"key_id"`
	Permissions []string `json:"permissions" doc:"what the key holds in effect; empty when it is not valid"`
}

func (a *Access) verifyKey(ctx context.Context, in keyVerify) (Verified, error) {
	if permIndex(in.Permission) < 0 {
		return Verified{}, op.Invalid("body.permission", "There is no permission %q; GET /v1/scopes lists them all", in.Permission)
	}
	out := Verified{Code: InvalidAPIKey.Name, Permissions: []string{}}
	s, ok := parseSecret(in.Key)
	if !ok {
		return out, nil
	}
	c := From(ctx)
	now := a.now()
	g, sec, why := a.table.verify(s, a.sealer, now)
	if why == unknown || g.key.ws != c.grant.key.ws {
		return out, nil
	}
	id := g.key.id()
	out.KeyID = &id
	if !why.passes() {
		out.Code = a.unauthenticated(g, why).Code.Name
		return out, nil
	}
	if err := a.welcome(ctx, s, sec); err != nil {
		return out, err
	}
	asked := &Caller{a: a, call: c.call, grant: g, addr: c.addr, granted: now}
	if in.IP.Set {
		addr, err := netip.ParseAddr(in.IP.Val)
		if err != nil {
			return out, op.Invalid("body.ip", "That is no address; write 203.0.113.7")
		}
		asked.addr = addr.Unmap()
	}
	err := a.try(ctx, asked, in.Permission, in.Cue.Val)
	var refusal *op.Error
	if errors.As(err, &refusal) && refusal.Code != op.Internal {
		out.Code = refusal.Code.Name
		a.usage.note(asked, c.call, refusal)
		return out, nil
	}
	if err != nil {
		return out, err
	}
	a.usage.note(asked, c.call, nil)
	out.Valid, out.Code, out.Permissions = true, "", g.perms.names()
	return out, nil
}

// try counts a call of a key against its limits and holds it against a permission, a cue and its restrictions.
func (a *Access) try(ctx context.Context, c *Caller, permission, cue string) error {
	if t := c.grant.take(a.now()); t.wait > 0 {
		return tooMany(t)
	}
	return a.allows(ctx, c, permission, cue)
}

func (a *Access) allows(ctx context.Context, c *Caller, permission, cue string) error {
	if err := c.Require(permission); err != nil {
		return err
	}
	call := *c.call
	spec := *call.Operation
	spec.Narrow = op.ByObject
	if cue == "" {
		spec.Narrow = op.Whole
	}
	call.Operation = &spec
	asked := *c
	asked.call = &call
	if err := a.unmet(&asked, &call); err != nil || cue == "" {
		return err
	}
	name := ""
	err := a.DB.View(ctx, func(tx *db.Tx) (err error) {
		name, err = a.things.CueName(tx, c.Workspace(), cue)
		return err
	})
	if err != nil {
		return err
	}
	if name == "" || !c.SeesCue(cue, name) {
		return a.restricted(&asked, "cues", "This key may not be used for that cue.", cue)
	}
	return nil
}

// keyAuthorize is the input of key.authorize, for the sub-request of a proxy.
type keyAuthorize struct {
	Permission op.Opt[string] `json:"permission" doc:"what the key must be allowed to do; required"`
	Cue        op.Opt[string] `json:"cue" doc:"id of the cue that it is about"`
}

func (a *Access) authorize(ctx context.Context, in keyAuthorize) (op.None, error) {
	if permIndex(in.Permission.Val) < 0 { // a proxy understands 401 and 403 only
		return op.None{}, InsufficientScope.Msg("There is no permission %q; GET /v1/scopes lists them all.", in.Permission.Val)
	}
	c := From(ctx)
	if c.over { // a proxy turns a 429 of its sub-request into a 500
		e := KeyRestricted.Msg("Too many requests.")
		e.Header = tooMany(c.grant.peek(a.now())).Header
		e.Header.Set("X-Unstuck-Code", RateLimitExceeded.Name)
		return op.None{}, e
	}
	if err := a.allows(ctx, c, in.Permission.Val, in.Cue.Val); err != nil {
		var refusal *op.Error
		if errors.As(err, &refusal) && refusal.Code.Status == 403 {
			if refusal.Header == nil {
				refusal.Header = map[string][]string{}
			}
			refusal.Header.Set("X-Unstuck-Code", refusal.Code.Name)
		}
		return op.None{}, err
	}
	h := c.call.Header
	h.Set("X-Unstuck-Workspace", c.Workspace())
	h.Set("X-Unstuck-Key", c.KeyID())
	h.Set("X-Unstuck-Permissions", join(c.grant.perms.names()))
	return op.None{}, nil
}
