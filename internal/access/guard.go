package access

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Admit finds out who calls, counts the call against its limits and puts the caller into the context. It implements op.Guard.
func (a *Access) Admit(ctx context.Context, c *op.Call) (context.Context, error) {
	now, addr := a.now(), a.clientAddr(c.Request)
	if c.Needs == op.Public {
		if c.Uncounted {
			return ctx, nil
		}
		return ctx, a.admitStranger(c, now, nil)
	}
	secret, refusal := presented(c.Auth)
	if refusal != nil {
		return nil, a.admitStranger(c, now, refusal)
	}
	g, sec, why := a.table.verify(secret, a.sealer, now)
	if !why.passes() {
		if why != unknown {
			a.refused.dead(a, g, why, addr, now)
		}
		return nil, a.admitStranger(c, now, a.unauthenticated(g, why))
	}
	if err := a.welcome(ctx, secret, sec); err != nil {
		return nil, err
	}
	caller := &Caller{a: a, call: c, grant: g, addr: addr, granted: now}
	c.Caller = caller
	if err := caller.count(c, now); err != nil {
		return nil, err
	}
	ctx = context.WithValue(ctx, callerKey{}, caller)
	if c.Effect != op.Read && !c.Unaudited {
		ctx = db.WithBeforeCommit(ctx, wasRecorded)
	}
	return ctx, nil
}

// admitStranger counts a call without a valid key against its address; refusal is its answer unless it is over the limit.
func (a *Access) admitStranger(c *op.Call, now int64, refusal *op.Error) error {
	t := a.strangers.take(a.clientAddr(c.Request), now)
	t.header(c.Header)
	if t.wait > 0 {
		return tooMany(t)
	}
	if refusal != nil {
		return refusal
	}
	return nil
}

// presented reads the Authorization header. The three sentences of a 401 tell nothing that the caller could not find out alone.
func presented(header string) (Secret, *op.Error) {
	scheme, text, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") || strings.TrimSpace(text) == "" {
		return Secret{}, unauthorized(InvalidAPIKey, `Send your key as "Authorization: Bearer unstuck_…".`)
	}
	s, ok := parseSecret(strings.TrimSpace(text))
	if !ok {
		return Secret{}, unauthorized(InvalidAPIKey, "That is not one of our keys. Was it cut when it was copied?")
	}
	return s, nil
}

// welcome does what the first use of a secret brings with it: a pending secret becomes the current one, and one that was hashed
// under an older server secret is hashed again.
func (a *Access) welcome(ctx context.Context, s Secret, sec *secret) error {
	a.table.mu.RLock()
	pending, old := sec.state == statePending, sec.epoch != a.sealer.current().number
	a.table.mu.RUnlock()
	if pending {
		if err := a.activate(ctx, s.digits()); err != nil {
			return err
		}
	}
	if old {
		a.rehash(s, sec)
	}
	return nil
}

// count takes the call into the limits of the key's chain and workspace.
func (c *Caller) count(call *op.Call, now int64) error {
	if call.Uncounted {
		return nil
	}
	t := c.grant.take(now)
	t.header(call.Header)
	if t.wait == 0 {
		return nil
	}
	if call.Lenient {
		c.over = true
		return nil
	}
	return tooMany(t)
}

func (t tally) header(h http.Header) {
	h["X-Ratelimit-Limit"] = []string{strconv.Itoa(t.limit)}
	h["X-Ratelimit-Remaining"] = []string{strconv.Itoa(max(0, t.remaining))}
	h["X-Ratelimit-Reset"] = []string{strconv.FormatInt((t.reset+999_999)/1_000_000, 10)}
}

// Permit checks the permission and the restrictions that need no object. It implements op.Guard.
func (a *Access) Permit(ctx context.Context, c *op.Call) error {
	if c.Needs == op.Public {
		return nil
	}
	caller := From(ctx)
	if c.Members && caller.grant.key.kind != personal {
		return MembersOnly.Msg("Only a member may %s, with a personal key; this is an integration key.", c.May)
	}
	if !caller.grant.mayTry(c.Needs) {
		return a.missing(caller, c.Operation, c.Needs.Permission())
	}
	return a.unmet(caller, c)
}

// mayTry says whether a grant can meet a need, at least for some object.
func (g grant) mayTry(n op.Need) bool {
	p := n.Permission()
	if p == "" || g.perms.has(p) {
		return true
	}
	own, self := n.Self()
	return self && (own == "" || g.perms.has(own))
}

// Done notes the use of the key and the end of the call. It implements op.Guard.
func (a *Access) Done(_ context.Context, c *op.Call, err *op.Error) {
	caller, _ := c.Caller.(*Caller)
	if caller == nil {
		return
	}
	if caller.over && (err == nil || err.Code != RateLimitExceeded) {
		caller.grant.force(a.now())
	}
	a.usage.note(caller, c, err)
	if err != nil && (err.Code == InsufficientScope || err.Code == KeyRestricted) {
		a.refused.note(a, caller, c, err)
	}
}

// recheck verifies a waiting call's key again.
func (a *Access) recheck(c *Caller) error {
	perms, why := a.table.again(c.grant, a.now())
	if !why.passes() {
		return a.unauthenticated(c.grant, why)
	}
	c.grant.perms = perms
	if !c.grant.mayTry(c.call.Needs) {
		return a.missing(c, c.call.Operation, c.call.Needs.Permission())
	}
	return a.unmet(c, c.call)
}

// LogValue is how a caller stands in the log: never more than the redacted form.
func (c *Caller) LogValue() slog.Value {
	return slog.GroupValue(slog.String("key", c.KeyID()), slog.String("workspace", c.Workspace()), slog.String("address", c.addr.String()))
}

var errNotRecorded = errors.New("the operation changed something and recorded nothing in the audit log")

type recordedKey struct{}

func wasRecorded(tx *db.Tx) error {
	if tx.Get(recordedKey{}) == nil {
		return errNotRecorded
	}
	return nil
}

// Unchanged says that a writing operation found nothing to change, so that its transaction may end without an audit row.
func Unchanged(tx *db.Tx) { tx.Put(recordedKey{}, true) }
