package access

import (
	"fmt"
	"strings"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// KeyEnd is a moment at which a key ends, or the old secret of a key that was rotated.
type KeyEnd struct {
	Workspace, ID string
	Old           bool // it is the old secret that ends
	At            op.Time
}

// KeyEnds are all ends, until a moment, of keys and old secrets that let somebody in now. It looks through all keys in memory.
func (a *Access) KeyEnds(until op.Time) (out []KeyEnd) {
	now, t := a.now(), a.table
	t.mu.RLock()
	defer t.mu.RUnlock()
	add := func(k *key, at int64, old bool) {
		if at <= now || at > int64(until) {
			return
		}
		if _, why := k.judge(now); why.passes() {
			out = append(out, KeyEnd{k.ws().id, k.id(), old, op.Time(at)})
		}
	}
	for k := range t.keys.all() {
		add(k, k.expires, false)
	}
	for s := range t.secrets.all() {
		if s.state == stateOld {
			add(s.key, s.ends, true)
		}
	}
	return out
}

// EndingKey is a key that ends, or whose old secret does, as people know it.
type EndingKey struct {
	Name, Redacted, Digits string   // of its newest secret
	Used                   *op.Time // when what ends was used last; nil when that is more than 30 days ago, or before there was a new secret
	By                     string   // the program that used it, or its address
}

// EndingKey reads who uses what ends.
func (a *Access) EndingKey(tx *db.Tx, e KeyEnd) (out EndingKey, err error) {
	row, err := readKey(tx, e.Workspace, e.ID)
	if err != nil {
		return out, fmt.Errorf("read key %s: %w", e.ID, err)
	}
	secrets, err := readSecrets(tx, e.ID) // the newest first
	if err != nil {
		return out, fmt.Errorf("read the secrets of key %s: %w", e.ID, err)
	}
	since := a.now() - usedLately
	for i, s := range secrets {
		if i == 0 {
			out.Name, out.Redacted, out.Digits = row.name, s.redacted(), s.digits
		}
		if e.Old && s.state != stateOld.String() {
			since = max(since, s.created) // uses from before the new secret was there say nothing
			continue
		}
		at, by, err := a.lastUse(s)
		if err != nil {
			return out, err
		}
		if at != nil && int64(*at) >= since && (out.Used == nil || *at > *out.Used) {
			out.Used, out.By = at, strings.TrimSpace(by.program())
		}
	}
	return out, nil
}
