package access

import (
	"context"
	"net/netip"
	"sync"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// refusals folds what was refused into few audit rows, written outside the refused calls. The first refusal of a key, operation
// and code in a minute is a row; the rest of that minute is one row with a count. Tries with a genuine but dead key are folded per
// key, address and hour in the same way.
type refusals struct {
	mu    sync.Mutex
	folds map[foldKey]*fold
	wake  chan struct{}
}

type foldKey struct {
	key             *key
	operation, code string
	address         netip.Addr // of tries with a dead key
}

type fold struct {
	workspace string
	row       AuditRow
	grant     grant
	fresh     bool  // its first row is still to be written
	more      int64 // refusals after the first
	until     int64 // when it is folded up
}

const minuteUS = 60_000_000

// note takes in one refused call.
func (r *refusals) note(a *Access, c *Caller, call *op.Call, err *op.Error) {
	via := call.Via
	if call.Client != "" {
		via = call.Client
	}
	row := AuditRow{
		At: op.Time(a.now()), Operation: call.Name, Result: err.Code.Name, Count: 1,
		IP: addrText(c.addr), Via: via, RequestID: call.ID, Detail: refusalDetail(err),
	}
	r.add(foldKey{c.grant.key, call.Name, err.Code.Name, netip.Addr{}}, c.grant, row, a.now()+minuteUS)
}

func refusalDetail(err *op.Error) op.Object {
	switch x := err.Extra.(type) {
	case refusedScope:
		return op.Marshal(map[string]any{"missing": x.Missing})
	case refusedRestriction:
		return op.Marshal(map[string]any{"restriction": x.Restriction, "brought": x.Brought})
	}
	return nil
}

// dead takes in a try with a genuine key that is over.
func (r *refusals) dead(a *Access, g grant, why standing, addr netip.Addr, now int64) {
	code := map[standing]op.Code{revoked: KeyRevoked, expired: KeyExpired, rotated: KeyRotated}[why].Name
	row := AuditRow{At: op.Time(now), Operation: "key.use", Result: code, Count: 1, IP: addrText(addr)}
	r.add(foldKey{g.key, "key.use", code, addr}, g, row, now+hourUS)
}

func (r *refusals) add(k foldKey, g grant, row AuditRow, until int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.folds == nil {
		r.folds = map[foldKey]*fold{}
	}
	if f := r.folds[k]; f != nil {
		f.more++
		return
	}
	r.folds[k] = &fold{workspace: g.key.ws.id, row: row, grant: g, fresh: true, until: until}
	select {
	case r.wake <- struct{}{}:
	default: // somebody wakes up already, or nobody writes yet
	}
}

// take hands over the rows to be written now; all of them when everything must be written.
func (r *refusals) take(now int64, all bool) []fold {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []fold
	for k, f := range r.folds {
		if f.fresh {
			first := *f
			first.more = 0
			out = append(out, first)
			f.fresh = false
		}
		if !all && now < f.until {
			continue
		}
		if f.more > 0 {
			rest := *f
			rest.row.Count, rest.row.At = f.more, op.Time(now)
			out = append(out, rest)
		}
		delete(r.folds, k)
	}
	return out
}

// WriteRefusals writes the audit rows of refusals that are due; all of them at an orderly stop.
func (a *Access) WriteRefusals(ctx context.Context, all bool) error {
	due := a.refused.take(a.now(), all)
	if len(due) == 0 {
		return nil
	}
	return a.DB.Update(ctx, func(tx *db.Tx) error {
		for _, f := range due {
			row := f.row
			row.Who = a.who(tx, f.grant)
			if row.Operation == "key.use" {
				row.Object, row.ObjectID, row.ObjectName = "key", row.Who.KeyID, row.Who.KeyName
			}
			if err := a.append(tx, f.workspace, row); err != nil {
				return err
			}
		}
		return nil
	})
}
