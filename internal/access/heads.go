package access

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// ErrRolledBack refuses to start on a database that is older than what this server once acknowledged: keys revoked since would
// work again.
var ErrRolledBack = errors.New("the database is behind the audit log that this server wrote down (audit.heads), so keys that were revoked since would work again; if you put an older copy there on purpose, use `unstuck restore`, or start once with --accept-rollback")

// auditHead is the end of a chain.
type auditHead struct {
	Seq  int64   `json:"seq"`
	Hash []byte  `json:"hash"`
	At   op.Time `json:"at"`

	epoch int64 // number of the server secret of the row; 0 where it is not asked for, and before the first row
}

func (h auditHead) same(other auditHead) bool {
	return h.Seq == other.Seq && bytes.Equal(h.Hash, other.Hash)
}

// heads are the ends of all chains as this server committed them. A chain that ends before, or otherwise, was tampered with.
type heads struct {
	mu     sync.Mutex
	ends   map[string]auditHead // by workspace
	missed bool                 // the file was gone at the start, and should not have been

	file    sync.Mutex
	written map[string]auditHead // as they are in the file
}

func (h *heads) note(workspace string, end auditHead) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if end.Seq > h.ends[workspace].Seq {
		h.ends[workspace] = end
	}
}

func (h *heads) snapshot() map[string]auditHead {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.ends)
}

// openHeads reads the ends of the chains. It refuses a database that is behind those that were written down, and a file that somebody
// else wrote, unless that is accepted: then the chains say so from here on. A file that is gone is said too, loudly, but stops nobody:
// where the database is PostgreSQL, a server may be moved without its folder. newest is the number of the newest server secret that the
// database knows.
func (a *Access) openHeads(ctx context.Context, newest int64) error {
	var old bool
	var behind []string
	known, unread := map[string]auditHead(nil), error(nil)
	if !a.LookOnly {
		if known, unread = a.readHeads(newest); unread != nil && !errors.Is(unread, errHeadsMissing) && !errors.Is(unread, ErrHeadsAltered) {
			return unread
		}
	}
	err := a.DB.View(ctx, func(tx *db.Tx) (err error) {
		if a.heads.ends, err = readEnds(tx); err != nil {
			return err
		}
		if old, err = a.hasOldRows(tx); err != nil {
			return err
		}
		behind, err = notIn(tx, known)
		return err
	})
	if err != nil {
		return fmt.Errorf("check the ends of the audit log: %w", err)
	}
	a.heads.written = known
	switch {
	case a.LookOnly:
		return nil
	case errors.Is(unread, errHeadsMissing):
		return a.missedHeads(ctx, old)
	case unread != nil && !a.AcceptRollback:
		return unread
	case unread != nil:
		return a.acceptRollback(ctx, []string{unread.Error()})
	case len(behind) == 0:
		return nil
	case !a.AcceptRollback:
		return fmt.Errorf("%w: %s", ErrRolledBack, strings.Join(behind, ", "))
	}
	return a.acceptRollback(ctx, behind)
}

// headsGrace is how old the rows of a database are, in microseconds, before the file must be there: it is made at the first start and
// written every minute.
const headsGrace = 5 * minuteUS

// hasOldRows says whether the database holds rows that must have been written down, or would if nobody had cut them off: a workspace is made
// with the first row of its chain, in one commit.
func (a *Access) hasOldRows(tx *db.Tx) (bool, error) {
	var one int
	err := tx.Row(sqlAuditOlder, a.now()-headsGrace).Scan(&one)
	if isNone(err) {
		return false, nil
	}
	return err == nil, err
}

// missedHeads makes the file that is not there. Over a database with old rows that is noted in every chain.
func (a *Access) missedHeads(ctx context.Context, old bool) error {
	if old {
		a.heads.missed = true
		a.Log.Warn("audit.heads is missing: what was cut off from the end of the audit log before this start cannot be noticed. It is as it should be only where the data folder is new", "file", a.headsPath())
		if err := a.noteInAll(ctx, "server.heads_missing", map[string]any{"file": a.headsPath()}); err != nil {
			return err
		}
	}
	return a.saveHeads(a.heads.snapshot())
}

// HeadsMissing says that audit.heads was gone at the start although the database is not new.
func (a *Access) HeadsMissing() bool { return a.heads.missed }

func readEnds(tx *db.Tx) (map[string]auditHead, error) {
	ids, err := workspaceIDs(tx)
	if err != nil {
		return nil, err
	}
	ends := map[string]auditHead{}
	for _, id := range ids {
		end, err := readHead(tx, id)
		if err != nil {
			return nil, err
		}
		if end.Seq > 0 {
			ends[id] = end
		}
	}
	return ends, nil
}

// notIn lists the workspaces whose chain does not hold the row that was written down.
func notIn(tx *db.Tx, known map[string]auditHead) ([]string, error) {
	var behind []string
	for _, id := range slices.Sorted(maps.Keys(known)) {
		var hash []byte
		err := tx.Row(sqlAuditHashAt, id, known[id].Seq).Scan(&hash)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, err
		}
		if err != nil || !bytes.Equal(hash, known[id].Hash) {
			behind = append(behind, fmt.Sprintf("%s at row %d", id, known[id].Seq))
		}
	}
	return behind, nil
}

// acceptRollback notes in every chain that somebody put an older database there, and forgets the old ends.
func (a *Access) acceptRollback(ctx context.Context, behind []string) error {
	a.Log.Warn("accepted a database that does not fit the audit log that was written down", "behind", behind)
	if err := a.noteInAll(ctx, "server.accept_rollback", map[string]any{"behind": behind}); err != nil {
		return err
	}
	return a.saveHeads(a.heads.snapshot())
}

// noteInAll writes a row about the server into every chain.
func (a *Access) noteInAll(ctx context.Context, operation string, detail map[string]any) error {
	err := a.DB.Update(ctx, func(tx *db.Tx) error {
		ids, err := workspaceIDs(tx)
		for _, id := range ids {
			err = errors.Join(err, a.append(tx, id, a.serverRow(operation, "workspace", id, "", detail)))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("note %s in the audit log: %w", operation, err)
	}
	return nil
}

// WriteHeads writes the end of every chain to <data dir>/audit.heads and to the log: a later database that is behind them was
// rolled back.
func (a *Access) WriteHeads(context.Context) error {
	a.heads.file.Lock()
	defer a.heads.file.Unlock()
	ends := a.heads.snapshot()
	if maps.EqualFunc(ends, a.heads.written, auditHead.same) {
		return nil
	}
	for id, h := range ends {
		if !h.same(a.heads.written[id]) {
			a.Log.Info("audit head", "workspace", id, "seq", h.Seq, "hash", fmt.Sprintf("%x", h.Hash))
		}
	}
	return a.saveHeads(ends)
}

// rewriteHeads writes the file under the newest server secret, also when no chain has grown.
func (a *Access) rewriteHeads() error {
	a.heads.file.Lock()
	defer a.heads.file.Unlock()
	return a.saveHeads(a.heads.snapshot())
}
