package access

import (
	"bytes"
	"context"
	"crypto/hmac"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// AuditRow is one row of the audit log. Its JSON is what the chain covers.
type AuditRow struct {
	Seq        int64     `json:"seq" doc:"number in the workspace's chain, from 1"`
	At         op.Time   `json:"at"`
	Who        AuditWho  `json:"who"`
	Operation  string    `json:"operation"`
	Object     string    `json:"object" doc:"kind of thing: key, cue, member, …"`
	ObjectID   string    `json:"object_id"`
	ObjectName string    `json:"object_name"`
	Result     string    `json:"result" doc:"done, or the code of the refusal"`
	Count      int64     `json:"count" doc:"how many like it this row stands for"`
	IP         string    `json:"ip"`
	Via        string    `json:"via"`
	RequestID  string    `json:"request_id"`
	Detail     op.Object `json:"detail" doc:"what changed; null when there is nothing to say"`
}

// AuditWho is who acted: a key and those above it, or the server itself.
type AuditWho struct {
	KeyID    string   `json:"key_id"`
	KeyName  string   `json:"key_name"`
	Redacted string   `json:"redacted"`
	Kind     string   `json:"kind" doc:"personal, integration; server when no key acted"`
	Member   string   `json:"member_id" doc:"whose key it is"`
	Parents  []string `json:"parents" doc:"ids of the keys above it, nearest first"`
}

// Done is the result of an audit row whose operation succeeded.
const Done = "done"

func record(tx *db.Tx, e Event) error {
	call := op.CallOf(tx.Context())
	if call == nil {
		return errors.New("record: no operation runs in this context")
	}
	c := From(tx.Context())
	row := c.auditRow(tx, call)
	row.Object, row.ObjectID, row.ObjectName, row.Result = e.Object, e.ID, e.Name, Done
	if e.Detail != nil {
		row.Detail = op.Marshal(e.Detail)
	}
	tx.Put(recordedKey{}, true)
	return c.a.append(tx, c.Workspace(), row)
}

// auditRow is a row about a call, still without its object.
func (c *Caller) auditRow(tx *db.Tx, call *op.Call) AuditRow {
	via := call.Via
	if call.Client != "" {
		via = call.Client
	}
	return AuditRow{
		At: op.Time(c.a.now()), Who: c.a.who(tx, c.grant), Operation: call.Name, Count: 1,
		IP: addrText(c.addr), Via: via, RequestID: call.ID,
	}
}

func (a *Access) who(tx *db.Tx, g grant) AuditWho {
	w := AuditWho{KeyID: g.key.id(), Redacted: redacted(a.Prefix, digitString(g.digits)), Kind: g.key.kind.String(), Parents: []string{}}
	if row, err := readKey(tx, g.key.ws.id, w.KeyID); err == nil {
		w.KeyName, w.Member = row.name, row.user
	}
	for k := g.key.parent; k != nil; k = k.parent {
		w.Parents = append(w.Parents, k.id())
	}
	return w
}

// append adds a row to its workspace's chain: hash = HMAC(server secret, hash before, stored bytes).
func (a *Access) append(tx *db.Tx, workspace string, row AuditRow) error {
	seq, previous, err := head(tx, workspace)
	if err != nil {
		return err
	}
	row.Seq = seq + 1
	e := a.sealer.current()
	body := string(op.Marshal(row))
	_, err = tx.Exec(sqlAuditAdd, workspace, row.Seq, int64(row.At), row.Who.KeyID, row.Operation, row.ObjectID, row.Result, body, int64(e.number), e.link(previous, body))
	if err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	return nil
}

// head is the last row of a chain; 0 and nil when it has none.
func head(tx *db.Tx, workspace string) (seq int64, hash []byte, err error) {
	err = tx.Row(sqlAuditHead, workspace).Scan(&seq, &hash)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil, nil
	}
	if err != nil {
		return 0, nil, fmt.Errorf("read the end of the audit log: %w", err)
	}
	return seq, hash, nil
}

// Chain is what a check of one workspace's audit log found.
type Chain struct {
	Workspace string `json:"workspace"`
	Rows      int64  `json:"rows"`
	OK        bool   `json:"ok"`
	Problem   string `json:"problem" doc:"what does not fit, and where; empty when the chain is whole"`
}

// CheckAudit walks the chains of all workspaces, or of one, and holds them against the heads that the server wrote down.
func (a *Access) CheckAudit(ctx context.Context, only string) ([]Chain, error) {
	heads, err := a.readHeads()
	if err != nil {
		return nil, err
	}
	var out []Chain
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		out = nil
		ids, err := workspaceIDs(tx)
		if err != nil {
			return err
		}
		for id := range heads {
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
		for _, id := range ids {
			if only != "" && id != only {
				continue
			}
			c, err := a.checkChain(tx, id, heads[id])
			if err != nil {
				return err
			}
			out = append(out, c)
		}
		return nil
	})
	return out, err
}

func (a *Access) checkChain(tx *db.Tx, workspace string, known auditHead) (Chain, error) {
	c := Chain{Workspace: workspace, OK: true}
	fail := func(format string, args ...any) {
		if c.OK {
			c.OK, c.Problem = false, fmt.Sprintf(format, args...)
		}
	}
	var previous []byte
	err := each(tx, sqlAuditChain, []any{workspace}, func(r *sql.Rows) error {
		var seq, epoch, at int64
		var keyID, operation, objectID, result, body string
		var hash []byte
		if err := r.Scan(&seq, &at, &keyID, &operation, &objectID, &result, &body, &epoch, &hash); err != nil {
			return err
		}
		c.Rows++
		e := a.sealer.epoch(uint16(epoch))
		var row AuditRow
		switch {
		case seq != c.Rows:
			fail("row %d is missing", c.Rows)
		case e == nil:
			fail("row %d was written under server secret %d, which is not known here", seq, epoch)
		case !hmac.Equal(e.link(previous, body), hash):
			fail("row %d, or the one before it, was changed", seq)
		case json.Unmarshal([]byte(body), &row) != nil || row.Seq != seq || int64(row.At) != at || row.Who.KeyID != keyID || row.Operation != operation || row.ObjectID != objectID || row.Result != result:
			fail("the columns of row %d were changed", seq)
		}
		if known.Seq == seq && !bytes.Equal(known.Hash, hash) {
			fail("row %d is not the one that the server wrote down in audit.heads", seq)
		}
		previous = hash
		return nil
	})
	if c.Rows < known.Seq {
		fail("it ends at row %d, but the server wrote down row %d in audit.heads", c.Rows, known.Seq)
	}
	return c, err
}

type auditHead struct {
	Seq  int64   `json:"seq"`
	Hash []byte  `json:"hash"`
	At   op.Time `json:"at"`
}

func (a *Access) headsPath() string { return filepath.Join(a.Dir, "audit.heads") }

func (a *Access) readHeads() (map[string]auditHead, error) {
	out := map[string]auditHead{}
	if a.Dir == "" {
		return out, nil
	}
	b, err := os.ReadFile(a.headsPath())
	if errors.Is(err, os.ErrNotExist) {
		return out, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", a.headsPath(), err)
	}
	return out, nil
}

// WriteHeads writes the end of every chain to <data dir>/audit.heads and to the log: a later database that is behind them was
// rolled back.
func (a *Access) WriteHeads(ctx context.Context) error {
	heads := map[string]auditHead{}
	err := a.DB.View(ctx, func(tx *db.Tx) error {
		clear(heads)
		ids, err := workspaceIDs(tx)
		if err != nil {
			return err
		}
		for _, id := range ids {
			seq, hash, err := head(tx, id)
			if err != nil {
				return err
			}
			if seq > 0 {
				heads[id] = auditHead{seq, hash, op.Time(a.now())}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the ends of the audit log: %w", err)
	}
	known, err := a.readHeads()
	if err != nil {
		return err
	}
	changed := false
	for id, h := range heads {
		if k := known[id]; k.Seq != h.Seq || !bytes.Equal(k.Hash, h.Hash) {
			changed = true
			a.Log.Info("audit head", "workspace", id, "seq", h.Seq, "hash", fmt.Sprintf("%x", h.Hash))
		}
	}
	if !changed || a.Dir == "" {
		return nil
	}
	return a.replaceHeads(heads)
}

func (a *Access) replaceHeads(heads map[string]auditHead) error {
	tmp := a.headsPath() + ".new"
	if err := os.WriteFile(tmp, op.Marshal(heads), 0o600); err != nil {
		return fmt.Errorf("write the ends of the audit log: %w", err)
	}
	if err := os.Rename(tmp, a.headsPath()); err != nil {
		return fmt.Errorf("write the ends of the audit log: %w", err)
	}
	return nil
}

// checkHeads refuses a database that is behind the heads that were written down, unless that is accepted.
func (a *Access) checkHeads(ctx context.Context) error {
	if a.AcceptRollback {
		return nil
	}
	heads, err := a.readHeads()
	if err != nil {
		return err
	}
	var behind []string
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		behind = nil
		for id, h := range heads {
			var hash []byte
			err := tx.Row(sqlAuditHashAt, id, h.Seq).Scan(&hash)
			if errors.Is(err, sql.ErrNoRows) || err == nil && !bytes.Equal(hash, h.Hash) {
				behind = append(behind, fmt.Sprintf("%s (row %d)", id, h.Seq))
				continue
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("check the ends of the audit log: %w", err)
	}
	if len(behind) > 0 {
		return fmt.Errorf("%w: %s", ErrRolledBack, strings.Join(behind, ", "))
	}
	return nil
}

// ErrRolledBack refuses to start on a database that is older than what this server once acknowledged: keys revoked since would
// work again.
var ErrRolledBack = errors.New("the database is behind the audit log that this server wrote down (audit.heads), so keys that were revoked since would work again; if you put an older copy there on purpose, use `unstuck restore`, or start once with --accept-rollback")
