package access

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"

	"unstuck/internal/db"
)

// load reads everything that verification needs. A server may have millions of keys, and nobody is served before: so keys and
// secrets are read at the same time, text comes as bytes that are not copied, and JSON that many keys share is parsed once.
func (t *table) load(ctx context.Context, d *db.DB) error {
	l := loader{table: t, rules: map[string]*rules{}, perms: map[string]permSet{}}
	var wait sync.WaitGroup
	var err1, err2 error
	wait.Go(func() { err1 = d.View(ctx, l.readKeys) })
	wait.Go(func() { err2 = d.View(ctx, l.readSecrets) })
	wait.Wait()
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("load the keys: %w", err)
	}
	return l.link()
}

// loader is what is known only while a table is loaded.
type loader struct {
	*table
	children []child            // keys that have a parent
	owners   []keyID            // of each secret
	rules    map[string]*rules  // by their text
	perms    map[string]permSet // of a custom list, by its text
}

type child struct {
	key    uint32
	parent keyID
}

func (l *loader) readKeys(tx *db.Tx) error {
	err := each(tx, sqlWorkspacesAll, nil, func(r *sql.Rows) error {
		w := workspaceRow{}
		err := w.scan(r)
		l.takeWorkspace(w)
		return err
	})
	if err != nil {
		return err
	}
	err = each(tx, sqlMembersAll, nil, func(r *sql.Rows) error {
		m := memberRow{}
		if err := r.Scan(&m.workspace, &m.user, &m.role, &m.rev); err != nil {
			return err
		}
		return l.takeMember(m)
	})
	if err != nil {
		return err
	}
	var n int
	if err := tx.Row(sqlKeysCount).Scan(&n); err != nil {
		return err
	}
	l.keyByID = make(map[keyID]uint32, n)
	var k loadedKey
	return each(tx, sqlKeysLoad, nil, func(r *sql.Rows) error {
		if err := r.Scan(&k.id, &k.workspace, &k.user, &k.parent, &k.kind, &k.scope, &k.permissions, &k.restrictions, &k.expires, &k.revoked, &k.rev); err != nil {
			return err
		}
		return l.addKey(&k)
	})
}

// loadedKey is a row of keys. Its bytes are good until the next one is read.
type loadedKey struct {
	id, workspace, user, parent, kind, scope, permissions, restrictions sql.RawBytes
	expires, revoked, rev                                               any // int64, or nil for NULL
}

func (l *loader) addKey(row *loadedKey) (err error) {
	k, at := l.keys.add()
	m := l.members[memberID{string(row.workspace), string(row.user)}]
	if m == nil {
		return fmt.Errorf("key %s belongs to a member that is not there", row.id)
	}
	k.member.Store(m)
	if k.raw, err = rawKeyID(row.id); err != nil {
		return err
	}
	l.keyByID[k.raw] = at
	if len(row.parent) > 0 {
		parent, err := rawKeyID(row.parent)
		if err != nil {
			return err
		}
		l.children = append(l.children, child{at, parent})
	}
	k.kind, k.scope = kindOf(string(row.kind)), scopeIndex(string(row.scope))
	k.expires, _ = row.expires.(int64)
	k.rev, _ = row.rev.(int64)
	k.revoked = row.revoked != nil
	if err := l.allow(k, row); err != nil {
		return fmt.Errorf("key %s: %w", row.id, err)
	}
	return nil
}

// allow sets what the key holds and what restricts it.
func (l *loader) allow(k *key, row *loadedKey) (err error) {
	if k.scope > 0 {
		k.perms = scopes[k.scope-1].perms
	} else if held, ok := l.perms[string(row.permissions)]; ok && string(row.scope) == custom {
		k.perms = held
	} else {
		if k.perms, err = effective(string(row.scope), string(row.permissions)); err != nil {
			return err
		}
		if string(row.scope) == custom {
			l.perms[string(row.permissions)] = k.perms
		}
	}
	if string(row.restrictions) == noRules {
		return nil
	}
	r, ok := l.rules[string(row.restrictions)]
	if !ok {
		text := string(row.restrictions)
		if r, err = readRules(text); err != nil {
			return err
		}
		if r.RatePerMinute == 0 { // otherwise the key needs a window of its own
			l.rules[text] = r
		}
	}
	k.restrict(r, &k.ws().limits)
	return nil
}

// rawKeyID is keyIDOf for bytes.
func rawKeyID(id []byte) (raw keyID, err error) {
	if len(id) != len(keyPrefix)+len(raw) || string(id[:len(keyPrefix)]) != keyPrefix {
		return raw, fmt.Errorf("key %q has an id of the wrong form", id)
	}
	copy(raw[:], id[len(keyPrefix):])
	return raw, nil
}

func (l *loader) readSecrets(tx *db.Tx) error {
	var n int
	if err := tx.Row(sqlSecretsCount).Scan(&n); err != nil {
		return err
	}
	l.byDigits, l.owners = make(map[uint32]uint32, n), make([]keyID, 0, n)
	err := each(tx, sqlSecretsHanded, nil, func(r *sql.Rows) error {
		var text string
		err := r.Scan(&text)
		digits, _ := parseDigits(text)
		l.handed[digits] = struct{}{}
		return err
	})
	if err != nil {
		return err
	}
	var s loadedSecret
	return each(tx, sqlSecretsLoad, nil, func(r *sql.Rows) error {
		if err := r.Scan(&s.digits, &s.key, &s.prefix, &s.hash, &s.state, &s.epoch, &s.ends); err != nil {
			return err
		}
		return l.addSecret(&s)
	})
}

// loadedSecret is a row of secrets. Its bytes are good until the next one is read.
type loadedSecret struct {
	digits, key, prefix, hash, state sql.RawBytes
	epoch, ends                      any // int64, or nil for NULL
}

func (l *loader) addSecret(row *loadedSecret) error {
	sec, at := l.secrets.add()
	owner, err := rawKeyID(row.key)
	if err != nil {
		return err
	}
	l.owners = append(l.owners, owner)
	var ok, ok2 bool
	sec.digits, ok = parseDigits(string(row.digits))
	sec.prefix, ok2 = l.prefix(string(row.prefix))
	if !ok || !ok2 || copy(sec.hash[:], row.hash) != len(sec.hash) {
		return fmt.Errorf("secret %s has the wrong form", row.digits)
	}
	epoch, _ := row.epoch.(int64)
	sec.epoch, sec.state = uint16(epoch), secretStateOf(string(row.state))
	sec.ends, _ = row.ends.(int64)
	l.byDigits[sec.digits] = at
	return nil
}

// link joins what was read apart: children with their parents, secrets with their keys.
func (l *loader) link() error {
	for _, c := range l.children {
		k := l.keys.at(c.key)
		at, ok := l.keyByID[c.parent]
		if !ok {
			return fmt.Errorf("the parent of key %s is not there", k.id())
		}
		k.parent = l.keys.at(at)
	}
	i := 0
	for sec := range l.secrets.all() {
		at, ok := l.keyByID[l.owners[i]]
		if !ok {
			return fmt.Errorf("secret %s belongs to no key", digitString(sec.digits))
		}
		sec.key = l.keys.at(at)
		i++
	}
	return nil
}
