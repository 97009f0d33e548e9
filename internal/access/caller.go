package access

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Caller is who makes a call, found out by the guard before the operation runs. It belongs to one call, and its methods may be called
// from any goroutine.
type Caller struct {
	a     *Access
	call  *op.Call
	grant grant         // as it was verified; what it may do now is in perms
	perms atomic.Uint64 // permSet
	addr  netip.Addr    // the address that counts, after trusted proxies; invalid for a local socket
	over  bool          // over the rate limit; only a Lenient operation, and a key that leaves, is let through then
}

type callerKey struct{}

func (a *Access) newCaller(call *op.Call, g grant, addr netip.Addr) *Caller {
	c := &Caller{a: a, call: call, grant: g, addr: addr}
	c.perms.Store(uint64(g.perms))
	return c
}

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
func (c *Caller) Workspace() string { return c.grant.key.ws().id }

// KeyID is the id of the calling key ("key_…").
func (c *Caller) KeyID() string { return c.grant.key.id() }

// Holds says whether the key, and all keys above it, hold a permission such as "cues:fire".
func (c *Caller) Holds(permission string) bool { return permSet(c.perms.Load()).has(permission) }

// Require is nil when the caller holds every permission named, else the refusal insufficient_scope that lists what is missing.
func (c *Caller) Require(permissions ...string) error {
	var lacks permSet
	for _, p := range permissions {
		if !c.Holds(p) {
			lacks |= bit(p)
		}
	}
	return c.refuse(ruling{lacks: lacks})
}

// OverLimit says that the call is over a rate limit. The guard lets such a call through only to an operation declared Lenient,
// which then refuses with RefuseOverLimit unless the call is about a live lease of this key.
func (c *Caller) OverLimit() bool { return c.over }

// RefuseOverLimit is the 429 that the guard would have answered.
func (c *Caller) RefuseOverLimit() error { return tooMany(c.grant.key.peek(c.a.now())) }

// SeesCue says whether the restrictions "cues" of the key and of all keys above it let it touch this cue. A cue that does not exist
// yet has the id "".
func (c *Caller) SeesCue(id, name string) bool { return c.grant.key.seesCue(id, name) }

// CueFilter is what SeesCue says as data: nil means every cue; otherwise a cue must match at least one pattern of every list. No pattern
// stands for every cue.
func (c *Caller) CueFilter() [][]Pattern { return c.grant.key.cueFilter() }

// RefuseCueName is the 403 key_restricted for a name that a cue of this caller would take outside its restriction.
func (c *Caller) RefuseCueName(name string) error {
	message := fmt.Sprintf("This key may be used only for certain cues, and %q is not one of them.", name)
	return c.refuse(ruling{obstacles: c.grant.key.blindTo("", name, name, message)})
}

// CheckWorker is nil when the restrictions "worker_ids" allow this worker id, else 403 key_restricted. An operation calls it with
// the id that the call brings or, for an execution already claimed, with the one recorded at its claim; without either it does
// not call it.
func (c *Caller) CheckWorker(id string) error {
	return c.refuse(ruling{obstacles: c.grant.key.notWorker(id)})
}

// Recheck verifies the key again, for calls that wait (long polls) before everything they hand over. It counts against nothing.
func (c *Caller) Recheck(ctx context.Context) error {
	perms, why := c.a.table.again(c.grant, c.a.now())
	if !why.passes() {
		return c.a.over(ctx, why, c.grant.key)
	}
	c.perms.Store(uint64(perms))
	return c.permitted()
}

// Stands says whether Recheck would pass, without asking why not.
func (c *Caller) Stands() bool {
	perms, why := c.a.table.again(c.grant, c.a.now())
	if !why.passes() {
		return false
	}
	c.perms.Store(uint64(perms))
	return c.permitted() == nil
}

// permitted is nil when the caller may make its call, as far as that can be told without an object.
func (c *Caller) permitted() error {
	if c.leaves() {
		return nil
	}
	g := c.grant
	g.perms = permSet(c.perms.Load())
	r := g.rule(c.call.Operation, c.circumstances())
	if r.lacks != 0 && c.call.Hands && g.key.kind == personal { // whoever grants what is missing is asked once
		r.lacks |= handedOut(c.call.Body) &^ g.perms
	}
	return c.refuse(r)
}

// handedOut are the permissions that a call would hand out, as far as its body can be read: a member needs all of them besides.
func handedOut(body []byte) permSet {
	var in struct {
		Scope, Role string
		Permissions []string
		Add         []string `json:"add_permissions"`
	}
	_ = json.Unmarshal(body, &in) // what cannot be read is refused later
	perms := roleNeeds(in.Role)
	if s, ok := scopeOf(in.Scope); ok {
		perms |= s.perms
	}
	for _, name := range append(in.Permissions, in.Add...) {
		if one, err := permsOf(name); err == nil {
			perms |= one
		}
	}
	return perms
}

func (c *Caller) circumstances() *circumstances {
	return &circumstances{now: c.a.Now().UTC(), addr: c.addr, via: c.call.Via, other: !c.onItself()}
}

// itselfWord names the calling key where an id of a key is wanted.
const itselfWord = "self"

// onItself says that the path of the call names the calling key.
func (c *Caller) onItself() bool {
	id := c.call.Params["id"]
	return id == c.KeyID() || id == itselfWord
}

// leaves says that the call is about the caller alone and never refused, whatever its restrictions and limits.
func (c *Caller) leaves() bool { return c.call.Exit && c.onItself() }

// idOf is an id of a key as it was sent, with the caller's own for "self".
func (c *Caller) idOf(id string) string {
	if id == itselfWord {
		return c.KeyID()
	}
	return id
}

// LogValue is how a caller stands in the log: never more than the redacted form.
func (c *Caller) LogValue() slog.Value {
	return slog.GroupValue(slog.String("key", c.KeyID()), slog.String("workspace", c.Workspace()), slog.String("address", addrText(c.addr)))
}

// KeyLives says whether a key, by id, would still pass verification now. Used to decide whether a lease's holder is gone.
func (a *Access) KeyLives(id string) bool {
	_, why := a.table.grantOf(id, a.now())
	return why.passes()
}

// Plan is what a workspace may use. 1000000000 means no cap.
type Plan struct {
	Name                                    string
	CueLimit, ExecutionLimit, RatePerMinute int64
	KeyLimit, MemberLimit                   int64 // always those of the plan of this name
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
