package access

import (
	"context"
	"net/netip"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Caller is who makes a call, found out by the guard before the operation runs. It is immutable and belongs to one call.
type Caller struct {
	a       *Access
	call    *op.Call
	grant   grant
	addr    netip.Addr // the address that counts, after trusted proxies; invalid for a local socket
	over    bool       // over the rate limit; only operations declared Lenient see such callers
	granted int64      // when the verification ran, in microseconds
}

type callerKey struct{}

// From is the caller of the operation that runs under ctx. It panics outside an operation, and for one declared op.Public that
// was called without a key: such operations ask with Maybe.
func From(ctx context.Context) *Caller {
	c := Maybe(ctx)
	if c == nil {
		panic("access: no caller in this context")
	}
	return c
}

// Maybe is the caller, or nil when nobody was authenticated.
func Maybe(ctx context.Context) *Caller {
	c, _ := ctx.Value(callerKey{}).(*Caller)
	return c
}

// Workspace is the id of the workspace that the call is in ("ws_…"). Every query is filtered by it.
func (c *Caller) Workspace() string { return c.grant.key.ws.id }

// KeyID is the id of the calling key ("key_…").
func (c *Caller) KeyID() string { return c.grant.key.id() }

// Holds says whether the key, and all keys above it, hold a permission such as "cues:fire".
func (c *Caller) Holds(permission string) bool { return c.grant.perms.has(permission) }

// Require is nil when the caller holds every permission named, else the refusal insufficient_scope that lists what is missing.
func (c *Caller) Require(permissions ...string) error {
	return c.a.missing(c, c.call.Operation, permissions...)
}

// OverLimit says that the call is over a rate limit. The guard lets such a call through only to an operation declared Lenient,
// which then refuses with RefuseOverLimit unless the call is about a live lease of this key.
func (c *Caller) OverLimit() bool { return c.over }

// RefuseOverLimit is the 429 that the guard would have answered.
func (c *Caller) RefuseOverLimit() error { return c.a.overLimit(c) }

// SeesCue says whether the restrictions "cues" of the key and of all keys above it let it touch this cue.
func (c *Caller) SeesCue(id, name string) bool { return c.grant.seesCue(id, name) }

// CueFilter is what SeesCue says as data: nil means every cue; otherwise a cue must match at least one pattern of every list.
func (c *Caller) CueFilter() [][]Pattern { return c.grant.cueFilter() }

// RefuseCueName is the 403 key_restricted for a name that a cue of this caller would take outside its restriction.
func (c *Caller) RefuseCueName(name string) error {
	return c.a.restricted(c, "cues", "The key may be used only for certain cues, and "+quoted(name)+" is not one of them.", name)
}

// CheckWorker is nil when the restrictions "worker_ids" allow this worker id, else 403 key_restricted. An operation calls it with
// the id that the call brings or, for an execution already claimed, with the one recorded at its claim; without either it does
// not call it.
func (c *Caller) CheckWorker(id string) error {
	if c.grant.allowsWorker(id) {
		return nil
	}
	return c.a.restricted(c, "worker_ids", "This key may be used only by certain workers, and you said you are "+quoted(id)+".", id)
}

// Recheck verifies the key again, for calls that wait (long polls) before everything they hand over. It counts against nothing.
func (c *Caller) Recheck() error { return c.a.recheck(c) }

// KeyLives says whether a key, by id, would still pass verification now. Used to decide whether a lease's holder is gone.
func (a *Access) KeyLives(id string) bool { return a.table.lives(id, a.now()) }

// Plan is what a workspace may use. 1000000000 means no cap.
type Plan struct {
	Name                                    string
	CueLimit, ExecutionLimit, RatePerMinute int64
}

// Plan reads the plan of a workspace in a transaction.
func (a *Access) Plan(tx *db.Tx, workspace string) (Plan, error) { return readPlan(tx, workspace) }

// Event is one row of the audit log, as the operation knows it; who, from where and through which door come from the context.
type Event struct {
	Object string // "cue", "key", "member", …
	ID     string // of the object
	Name   string // what people call it
	Detail any    // a JSON-able struct or map with what changed; no secret, no payload
}

// Record writes the audit row of the running operation in its own transaction. Without it the transaction of an operation that
// is neither op.Read nor Unaudited is refused at commit.
func Record(tx *db.Tx, e Event) error { return record(tx, e) }
