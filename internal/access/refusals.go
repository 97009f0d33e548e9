package access

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
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
	ready []refused
	wake  chan struct{} // something is ready

	writing sync.Mutex // one at a time
}

type foldKey struct {
	key             *key
	operation, code string
	address         netip.Addr // of tries with a dead key, which are told apart by it and not by operation
}

// fold is what came after a first refusal.
type fold struct {
	refused
	more        int64
	first, last op.Time // of those
	until       int64   // when it is folded up
}

// refused is an audit row, but for its Who.
type refused struct {
	row   AuditRow
	grant grant
}

const (
	foldMost  = 10_000 // tries with dead keys that are told apart; beyond it the address counts no more
	readyMost = 10_000 // rows that wait to be written; beyond it refusals go on being folded
)

// note takes in one refused call.
func (r *refusals) note(c *Caller, err *op.Error) {
	row := c.auditRow()
	row.Result, row.Detail = err.Code.Name, refusalDetail(err)
	r.add(foldKey{key: c.grant.key, operation: c.call.Name, code: err.Code.Name}, refused{row, c.grant}, minuteUS)
}

func refusalDetail(err *op.Error) op.Object {
	switch x, ok := err.Extra.(*refusal); {
	case !ok:
		return nil
	case x.Missing != nil:
		return op.Marshal(map[string]any{"missing": x.Missing})
	default:
		return op.Marshal(map[string]any{"restriction": x.Restriction, "brought": x.Brought})
	}
}

// dead takes in a try with a genuine key that is over.
func (r *refusals) dead(a *Access, g grant, why standing, call *op.Call, addr netip.Addr) {
	code := map[standing]op.Code{revoked: KeyRevoked, expired: KeyExpired, rotated: KeyRotated, replaced: KeyRotated}[why].Name
	row := AuditRow{At: op.Time(a.now()), Operation: call.Name, Result: code, Count: 1, IP: addrText(addr), Via: doorOf(call), RequestID: call.ID}
	r.add(foldKey{key: g.key, code: code, address: addr}, refused{row, g}, hourUS)
}

// tries counts the tries with a dead key that are not yet in the audit log.
func (r *refusals) tries(key, code string) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := int64(0)
	for k, f := range r.folds {
		if k.code == code && k.key.id() == key {
			n += f.more
		}
	}
	return n
}

func (r *refusals) add(k foldKey, x refused, lasts int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.folds == nil {
		r.folds = map[foldKey]*fold{}
	}
	if r.folds[k] == nil && len(r.folds) >= foldMost {
		k.address = netip.Addr{}
	}
	held := r.folds[k]
	if held == nil {
		r.ready = append(r.ready, x)
		r.folds[k] = &fold{refused: x, until: int64(x.row.At) + lasts}
		select {
		case r.wake <- struct{}{}:
		default: // somebody wakes up already, or nobody writes yet
		}
		return
	}
	if held.more++; held.more == 1 {
		held.first = x.row.At
	}
	held.last = max(held.last, x.row.At)
	if held.row.Operation != x.row.Operation {
		held.row.Operation = severalOperations
	}
}

// severalOperations stands for the operation in a row about tries of more than one.
const severalOperations = "several"

// due is the rows that are to be written now; those of every fold when all must be written.
func (r *refusals) due(now int64, all bool) []refused {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, f := range r.folds {
		if !all && (now < f.until || len(r.ready) >= readyMost) {
			continue
		}
		if f.more > 0 {
			f.row.Count, f.row.At, f.row.RequestID = f.more, op.Time(now), ""
			f.row.Detail = op.Marshal(map[string]op.Time{"first": f.first, "last": f.last})
			r.ready = append(r.ready, f.refused)
		}
		delete(r.folds, k)
	}
	return slices.Clone(r.ready)
}

// WriteRefusals writes the audit rows of refusals that are due; all of them at an orderly stop.
func (a *Access) WriteRefusals(ctx context.Context, all bool) error {
	r := &a.refused
	r.writing.Lock()
	defer r.writing.Unlock()
	due := r.due(a.now(), all)
	if len(due) == 0 {
		return nil
	}
	err := a.DB.Update(ctx, func(tx *db.Tx) error {
		for _, x := range due {
			x.row.Who = a.who(tx, x.grant)
			if err := a.append(tx, x.grant.key.ws().id, x.row); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write refusals into the audit log: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ready = slices.Delete(r.ready, 0, len(due))
	return nil
}
