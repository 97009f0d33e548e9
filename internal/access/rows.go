package access

import (
	"database/sql"
	"encoding/json"
	"fmt"

	"unstuck/internal/db"
)

// The rows below are what the database holds. Each knows how to read itself and how it becomes a record in memory.

type workspaceRow struct {
	id, name, slug, plan                     string
	cueLimit, executionLimit, rateLimit, rev int64
	alertURL                                 string
	webhookSecret, alertSecret               []byte
	created, updated                         int64
}

func (w *workspaceRow) scan(r scanner) error {
	return r.Scan(&w.id, &w.name, &w.slug, &w.plan, &w.cueLimit, &w.executionLimit, &w.rateLimit, &w.alertURL,
		&w.webhookSecret, &w.alertSecret, &w.rev, &w.created, &w.updated)
}

type scanner interface{ Scan(...any) error }

type memberRow struct {
	workspace, user, role string
	rev                   int64
}

type keyRow struct {
	id, workspace, user, kind, name, scope, permissions, restrictions string
	parent                                                            *string
	created                                                           int64
	createdBy                                                         string
	expires, revoked                                                  *int64
	revokedBy, requestKey                                             string
	rev                                                               int64
}

func (k *keyRow) scan(r scanner) error {
	return r.Scan(&k.id, &k.workspace, &k.user, &k.parent, &k.kind, &k.name, &k.scope, &k.permissions, &k.restrictions,
		&k.created, &k.createdBy, &k.expires, &k.revoked, &k.revokedBy, &k.requestKey, &k.rev)
}

type secretRow struct {
	digits, key   string
	seq           int64
	prefix        string
	hash          []byte
	epoch         int64
	state         string
	overlap       int64
	created       int64
	ends, lastUse *int64
	lastUsed      string
}

func (s *secretRow) scan(r scanner) error {
	return r.Scan(&s.digits, &s.key, &s.seq, &s.prefix, &s.hash, &s.epoch, &s.state, &s.overlap, &s.created, &s.ends, &s.lastUse, &s.lastUsed)
}

func (s *secretRow) redacted() string { return redacted(s.prefix, s.digits) }

// putWorkspace, putMember, putKey and putSecret take a row into memory. They refuse one that is not newer than what is held.
// The write lock is held, or the table is not yet shared.

func (t *table) putWorkspace(w workspaceRow) {
	held := t.workspaces[w.id]
	if held == nil {
		held = &workspace{id: w.id}
		t.workspaces[w.id] = held
	} else if w.rev <= held.rev {
		return
	}
	held.slug, held.name, held.plan, held.rev = w.slug, w.name, w.plan, w.rev
	held.limits.mu.Lock()
	defer held.limits.mu.Unlock()
	switch {
	case w.rateLimit == 0:
		held.limits.all = nil
	case held.limits.all == nil:
		held.limits.all = &ring{limit: int(w.rateLimit)}
	default:
		held.limits.all.resize(int(w.rateLimit))
	}
}

func (t *table) putMember(m memberRow) {
	id := memberID{m.workspace, m.user}
	held := t.members[id]
	if held == nil {
		held = &member{id: id}
		t.members[id] = held
	} else if m.rev <= held.rev {
		return
	}
	held.role, held.rev = m.role, m.rev
}

func (t *table) putKey(k keyRow) error {
	raw, ok := keyIDOf(k.id)
	if !ok {
		return fmt.Errorf("key %q has an id of the wrong form", k.id)
	}
	held := t.keys[raw]
	if held == nil {
		held = &key{raw: raw, rev: -1}
	}
	if k.rev <= held.rev {
		return nil
	}
	ws, m := t.workspaces[k.workspace], t.members[memberID{k.workspace, k.user}]
	if ws == nil || m == nil {
		return fmt.Errorf("key %s belongs to a workspace or member that is not there", k.id)
	}
	rules, err := readRules(k.restrictions)
	if err != nil {
		return fmt.Errorf("key %s: %w", k.id, err)
	}
	perms, err := effective(k.scope, k.permissions)
	if err != nil {
		return fmt.Errorf("key %s: %w", k.id, err)
	}
	if k.parent != nil {
		parent, _ := keyIDOf(*k.parent)
		if held.parent = t.keys[parent]; held.parent == nil {
			return fmt.Errorf("the parent of key %s is not there", k.id)
		}
	}
	held.ws, held.member, held.perms, held.rev = ws, m, perms, k.rev
	held.rules.Store(rules)
	held.kind, held.scope = kindOf(k.kind), scopeIndex(k.scope)
	held.expires = 0
	if k.expires != nil {
		held.expires = *k.expires
	}
	held.revoked = held.revoked || k.revoked != nil
	held.setLimit(rules)
	t.keys[raw] = held
	return nil
}

func scopeIndex(name string) uint8 {
	for i, s := range scopes {
		if s.Name == name {
			return uint8(i + 1)
		}
	}
	return 0
}

func (k *key) setLimit(r *rules) {
	l := &k.ws.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case r == nil || r.RatePerMinute == 0:
		k.limit = nil
	case k.limit == nil:
		k.limit = &ring{limit: int(r.RatePerMinute)}
	default:
		k.limit.resize(int(r.RatePerMinute))
	}
}

func (t *table) putSecret(s secretRow) error {
	digits, ok := parseDigits(s.digits)
	raw, ok2 := keyIDOf(s.key)
	k := t.keys[raw]
	if !ok || !ok2 || k == nil || len(s.hash) != 32 {
		return fmt.Errorf("secret %s belongs to no key or has the wrong form", s.digits)
	}
	held := t.secrets[digits]
	if held == nil {
		held = &secret{digits: digits}
		t.secrets[digits] = held
	}
	held.key, held.epoch, held.ends = k, uint16(s.epoch), 0
	copy(held.hash[:], s.hash)
	if state := secretStateOf(s.state); state >= held.state { // a secret only moves towards its end
		held.state = state
	}
	if s.ends != nil {
		held.ends = *s.ends
	}
	return nil
}

// publish takes committed rows into memory, before the caller that changed them is answered.
func (t *table) publish(fn func(*table) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return fn(t)
}

// readPlan reads what a workspace may use.
func readPlan(tx *db.Tx, id string) (Plan, error) {
	p := Plan{}
	err := tx.Row(sqlWorkspacePlan, id).Scan(&p.Name, &p.CueLimit, &p.ExecutionLimit, &p.RatePerMinute)
	if err != nil {
		return p, fmt.Errorf("read the plan of a workspace: %w", err)
	}
	return p, nil
}

// readKey reads one key of a workspace; sql.ErrNoRows when it has none of this id.
func readKey(tx *db.Tx, workspace, id string) (keyRow, error) {
	k := keyRow{}
	return k, k.scan(tx.Row(sqlKeyByID, workspace, id))
}

// readSecrets reads the secrets of a key, newest first.
func readSecrets(tx *db.Tx, key string) ([]secretRow, error) {
	var out []secretRow
	err := each(tx, sqlSecretsOfKey, []any{key}, func(r *sql.Rows) error {
		s := secretRow{}
		if err := s.scan(r); err != nil {
			return err
		}
		out = append(out, s)
		return nil
	})
	return out, err
}

func (k *keyRow) permissionList() []string {
	var out []string
	if err := json.Unmarshal([]byte(k.permissions), &out); err != nil {
		return nil
	}
	return out
}
