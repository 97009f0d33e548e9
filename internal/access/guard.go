package access

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Admit finds out who calls, counts the call against its limits and puts the caller into the context. It implements op.Guard. An
// operation that is public has a caller too when it was called with a good key.
func (a *Access) Admit(ctx context.Context, c *op.Call) (context.Context, error) {
	if c.Needs == op.Public && c.Uncounted {
		return ctx, nil
	}
	now, addr := a.now(), a.proxies.client(c.Peer, c.Forwarded)
	s, refusal := presented(c.Auth)
	g, why := grant{}, unknown
	if refusal == nil {
		g, why = a.table.verify(s, a.sealer, now)
	}
	if !why.passes() {
		return ctx, a.turnAway(ctx, c, g, why, addr, refusal)
	}
	if g.aged {
		a.rehash(s)
	}
	caller := a.newCaller(c, g, addr)
	c.Caller = caller
	if err := caller.count(now); err != nil {
		return nil, err
	}
	if a.things.NearLimit(caller.Workspace()) { // CueAPI wire contract 1.13
		c.Header.Set("X-CueAPI-Usage-Warning", "approaching_limit")
	}
	ctx = context.WithValue(ctx, callerKey{}, caller)
	if c.Effect != op.Read && !c.Unaudited {
		ctx = db.WithBeforeCommit(ctx, mayCommit)
	}
	return ctx, nil
}

// presented reads the Authorization header. The three sentences of a 401 tell nothing that the caller could not find out alone.
func presented(header string) (Secret, *op.Error) {
	scheme, text, _ := strings.Cut(header, " ")
	if text = strings.TrimSpace(text); !strings.EqualFold(scheme, "Bearer") || text == "" {
		return Secret{}, unauthorized(InvalidAPIKey, `Send your key as "Authorization: Bearer unstuck_…".`)
	}
	s, ok := parseSecret(text)
	if !ok {
		return Secret{}, unauthorized(InvalidAPIKey, "That is not one of our keys. Was it cut when it was copied?")
	}
	return s, nil
}

// turnAway counts a call without a good key against its address, and answers 401 unless the operation is public. Over the limit it
// answers 429, but never to a lenient operation, whose callers know 401 only. refusal is for a call with no key at all.
func (a *Access) turnAway(ctx context.Context, c *op.Call, g grant, why standing, addr netip.Addr, refusal *op.Error) error {
	t := a.strangers.take(addr, a.now())
	t.header(c.Header)
	if why != unknown && why != unsure {
		a.refused.dead(a, g, why, c, addr)
	}
	switch {
	case t.wait > 0 && !c.Lenient:
		return tooMany(t)
	case c.Needs == op.Public:
		return nil
	case refusal != nil:
		return refusal
	}
	return a.over(ctx, why, g.key)
}

// over is the 401 for a key that is not, or no longer, good, with when it was revoked.
func (a *Access) over(ctx context.Context, why standing, k *key) error {
	if why == revoked {
		return a.ended(why, a.revokedAt(ctx, k))
	}
	return a.ended(why, 0)
}

// count takes the call into the limits of the key's chain and workspace. Over the limit it is let through when the operation decides
// itself, or the key leaves (KEYS 4); unless that succeeds, it is answered as every call over the limit.
func (c *Caller) count(now int64) error {
	if c.call.Uncounted {
		return nil
	}
	t := c.grant.key.take(now)
	t.header(c.call.Header)
	switch {
	case t.wait == 0:
		return nil
	case c.call.Lenient, c.leaves():
		c.over, c.call.Late = true, tooMany(t)
		return nil
	}
	return tooMany(t)
}

// Permit checks the permission and the restrictions that need no object. It implements op.Guard. The first call that passes it with a
// new secret is what starts the end of the one before.
func (a *Access) Permit(ctx context.Context, c *op.Call) error {
	if c.Needs == op.Public {
		return nil
	}
	caller := From(ctx)
	if c.Fetch != nil && !caller.leaves() { // the body took its time, in which the key may have ended
		if err := caller.Recheck(ctx); err != nil {
			return err
		}
	} else if err := caller.permitted(); err != nil {
		return err
	}
	return a.greet(ctx, caller.grant)
}

// greet notes the first use of a pending secret.
func (a *Access) greet(ctx context.Context, g grant) error {
	if !g.fresh {
		return nil
	}
	return a.activate(ctx, g.digits)
}

// Fault refuses a text with a key in it, which others would read wherever it is kept. It implements op.Guard.
func (a *Access) Fault(text string) string {
	if _, n := redactKeys(text); n > 0 {
		return "this holds an API key, and others would read it here. Leave the key out, and revoke it if this request was logged anywhere. A program gets its key from its environment, such as UNSTUCK_API_KEY"
	}
	return ""
}

// Done notes the use of the key and the end of the call. It implements op.Guard.
func (a *Access) Done(ctx context.Context, c *op.Call, err *op.Error) {
	if err != nil {
		hideKeys(err)
	}
	caller, _ := c.Caller.(*Caller)
	if caller == nil {
		return
	}
	// Over the limit a report counts when it passed. A key that left counts nothing: it calls no more, and others are not to wait for it.
	if caller.over && err == nil && !caller.leaves() {
		caller.grant.key.force(a.now())
	}
	if c.Needs != op.Public { // for which nobody had to be authenticated
		a.usage.note(caller.useOf(c, err))
	}
	if err != nil && isRefusal(err.Code) {
		a.refused.note(caller, err)
		if x, ok := err.Extra.(*refusal); ok {
			x.Key.Name = a.nameOf(ctx, caller.grant.key)
		}
	}
}

// hideKeys takes keys, which a caller put where something else belongs, out of what it is told: programs log the errors that they get.
func hideKeys(e *op.Error) {
	hide := func(text *string) {
		if clean, n := Redact(*text); n > 0 {
			*text = clean
		}
	}
	hide(&e.Message)
	for i := range e.Details {
		hide(&e.Details[i].Field)
		hide(&e.Details[i].Message)
	}
	if x, ok := e.Extra.(*refusal); ok {
		hide(&x.Brought)
		hide(&x.Mend)
		for _, g := range x.Grants {
			for _, entries := range g.AddTo {
				for i := range entries {
					hide(&entries[i])
				}
			}
		}
	}
}

// nameOf and revokedAt tell a refused caller about its key; what cannot be read is left out.
func (a *Access) nameOf(ctx context.Context, k *key) string { return a.lookAt(ctx, k).name }

// revokedAt is when the nearest revoked key of a chain was revoked; 0 when none was, but its member left.
func (a *Access) revokedAt(ctx context.Context, k *key) int64 {
	for x := range k.chain() {
		if at := a.lookAt(ctx, x).revoked; at != 0 {
			return at
		}
	}
	return 0
}

func (a *Access) lookAt(ctx context.Context, k *key) (row keyRow) {
	_ = a.DB.View(ctx, func(tx *db.Tx) (err error) {
		row, err = readKey(tx, k.ws().id, k.id())
		return err
	})
	return row
}

var errNotRecorded = errors.New("the operation changed something and recorded nothing in the audit log")

type recordedKey struct{}

// mayCommit is asked in the turn of each writing call: what it did is recorded, and its key still may. So nothing is committed after the
// commit that ended or narrowed the key, however long ago the call was let in.
func mayCommit(tx *db.Tx) error {
	if tx.Get(recordedKey{}) == nil {
		return errNotRecorded
	}
	c := From(tx.Context())
	if c.leaves() {
		return nil
	}
	perms, why := c.a.table.again(c.grant, c.a.now())
	if !why.passes() {
		return c.a.ended(why, 0)
	}
	c.perms.Store(uint64(perms))
	return c.permitted()
}

// Unchanged says that a writing operation found nothing to change, so that its transaction may end without an audit row.
func Unchanged(tx *db.Tx) { tx.Put(recordedKey{}, true) }
