package access

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// changes are the rows that one transaction has written and that memory mirrors.
type changes struct {
	workspaces []workspaceRow
	members    []memberRow
	keys       []keyRow
	secrets    []secretRow
}

func (c *changes) empty() bool {
	return len(c.workspaces)+len(c.members)+len(c.keys)+len(c.secrets) == 0
}

type changesKey struct{}

// changesOf is where a transaction of update notes what it writes.
func changesOf(tx *db.Tx) *changes { return tx.Get(changesKey{}).(*changes) }

// update runs a transaction that changes rights. What it changed is in memory, at one blow, before anybody is answered. When it is
// unknown whether the commit took effect, the keys concerned are shut until that is found out; when the disk is full, those that it
// would have ended are, until the server stops.
func (a *Access) update(ctx context.Context, fn func(*db.Tx) error) error {
	var last *changes
	err := a.DB.Update(ctx, func(tx *db.Tx) error {
		c := &changes{}
		last = c
		tx.Put(changesKey{}, c)
		tx.AfterCommit(func() { a.take(c) })
		return fn(tx)
	})
	switch {
	case errors.Is(err, db.ErrDiskFull) && a.stop(last):
		return op.Unavailable.Wrap(err, "Stopped here now, but not stored yet: the disk of the database is full, and what you ended would work again after a restart of the server. Free space and make this call again.")
	case !errors.Is(err, db.ErrUnknown):
		return err
	}
	a.shut(last)
	if failed := a.settle(); failed != nil {
		err = errors.Join(err, failed)
	}
	return op.Unavailable.Wrap(err, "It is unknown whether this was saved, because the database failed while saving it. Look before you repeat it.")
}

// take takes committed rows into memory. What cannot be taken is a fault of the program; memory then knows less than the database,
// never more.
func (a *Access) take(c *changes) {
	if c.empty() {
		return
	}
	if err := a.table.take(c); err != nil {
		a.Log.Error("take a committed change into memory", "err", err)
	}
	a.signal()
}

// stop lets nobody in whose key a transaction would have ended; false when it would have ended none. Memory never takes that back.
func (a *Access) stop(c *changes) bool {
	ended := false
	if c != nil {
		ended = a.table.stop(c.keys)
	}
	if ended {
		a.signal()
	}
	return ended
}

// stop ends those of the keys in memory that these rows end.
func (t *table) stop(rows []keyRow) (ended bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, row := range rows {
		if k := t.key(row.id); k != nil && row.revoked != 0 {
			k.revoked, ended = true, true
		}
	}
	return ended
}

// doubts are the rows of which it is unknown how they are stored.
type doubts struct {
	mu   sync.Mutex
	rows changes
}

// shut lets nobody in whose rights a transaction may have ended or narrowed.
func (a *Access) shut(c *changes) {
	a.doubts.mu.Lock()
	defer a.doubts.mu.Unlock()
	d := &a.doubts.rows
	d.workspaces = append(d.workspaces, c.workspaces...)
	d.members, d.keys, d.secrets = append(d.members, c.members...), append(d.keys, c.keys...), append(d.secrets, c.secrets...)
	a.table.doubt(c)
	a.signal()
}

// doubt marks the keys and members that a transaction wrote.
func (t *table) doubt(c *changes) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range c.members {
		if held := t.members[memberID{m.workspace, m.user}]; held != nil {
			held.unsure = true
		}
	}
	for id := range c.keyIDs() {
		if k := t.key(id); k != nil {
			k.unsure = true
		}
	}
}

// keyIDs are the ids of the keys that were written, or one of whose secrets was.
func (c *changes) keyIDs() map[string]bool {
	ids := map[string]bool{}
	for _, k := range c.keys {
		ids[k.id] = true
	}
	for _, s := range c.secrets {
		ids[s.key] = true
	}
	return ids
}

// settle finds out how rows are stored of which that is unknown, and opens their keys again. It writes before it reads: the rows as they
// are, so that a commit that is still on its way to PostgreSQL comes first; and something new, so that SQLite, which writes nothing where
// nothing changes, overwrites what may have reached the disk of a commit that failed.
func (a *Access) settle() error {
	a.doubts.mu.Lock()
	defer a.doubts.mu.Unlock()
	d := &a.doubts.rows
	if d.empty() {
		return nil
	}
	err := a.DB.Update(context.Background(), func(tx *db.Tx) error {
		if _, err := tx.Exec(sqlSettled, newID("")); err != nil {
			return err
		}
		found := &changes{}
		for _, w := range d.workspaces {
			if err := found.readWorkspace(tx, w.id); err != nil {
				return err
			}
		}
		for _, m := range d.members {
			if err := found.readMember(tx, m); err != nil {
				return err
			}
		}
		for id := range d.keyIDs() {
			if err := found.readKey(tx, id); err != nil {
				return err
			}
		}
		tx.AfterCommit(func() { a.take(found) })
		return nil
	})
	if err != nil {
		return fmt.Errorf("find out what was saved: %w", err)
	}
	*d = changes{}
	return nil
}

func (c *changes) readWorkspace(tx *db.Tx, id string) error {
	if _, err := tx.Exec(sqlWorkspaceTouch, id); err != nil {
		return err
	}
	found, err := readWorkspace(tx, id)
	if isNone(err) { // it was not made
		return nil
	}
	c.workspaces = append(c.workspaces, found)
	return err
}

func (c *changes) readMember(tx *db.Tx, m memberRow) error {
	if _, err := tx.Exec(sqlMemberTouch, m.workspace, m.user); err != nil {
		return err
	}
	found, err := readMember(tx, m.workspace, m.user)
	if isNone(err) { // it was not made
		return nil
	}
	c.members = append(c.members, found)
	return err
}

func (c *changes) readKey(tx *db.Tx, id string) error {
	if _, err := tx.Exec(sqlKeyTouch, id); err != nil {
		return err
	}
	k := keyRow{}
	err := k.scan(tx.Row(sqlKeyAnywhere, id))
	if isNone(err) { // it was not made
		return nil
	}
	if err != nil {
		return err
	}
	c.keys = append(c.keys, k)
	found, err := readSecrets(tx, id)
	c.secrets = append(c.secrets, found...)
	return err
}

// Changed is closed with the next change of any right, so that calls which wait can verify their key again at once.
func (a *Access) Changed() <-chan struct{} { return *a.changed.Load() }

func (a *Access) signal() {
	next := make(chan struct{})
	if before := a.changed.Swap(&next); before != nil {
		close(*before)
	}
}
