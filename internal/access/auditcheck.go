package access

import (
	"bytes"
	"context"
	"crypto/hmac"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"unstuck/internal/db"
)

// Chain is what a check of one workspace's audit log found.
type Chain struct {
	Workspace string `json:"workspace"`
	Rows      int64  `json:"rows"`
	OK        bool   `json:"ok"`
	Problem   string `json:"problem" doc:"what does not fit, and where; empty when the chain is whole"`
}

func (c *Chain) fail(format string, args ...any) {
	if c.OK {
		c.OK, c.Problem = false, fmt.Sprintf(format, args...)
	}
}

// Checked is what a check of the audit logs of all workspaces found.
type Checked struct {
	Chains    []Chain `json:"chains"`
	Unchecked string  `json:"unchecked"` // what could not be checked, and why; "" when all was
}

// OK says that everything was checked and found whole.
func (c Checked) OK() bool {
	return c.Unchecked == "" && !slices.ContainsFunc(c.Chains, func(c Chain) bool { return !c.OK })
}

// CheckLogs checks the audit logs of all workspaces without being the server: it loads no key and writes nothing. Of the options it needs
// DB, Dir, Secrets and Now. Where Secrets are not to be had (unread says why) or do not fit, it checks what it can without them.
func CheckLogs(ctx context.Context, o Options, unread error) (out Checked, err error) {
	o.LookOnly, o.Log = true, slog.New(slog.DiscardHandler)
	a := &Access{Options: o}
	if unread == nil {
		a.sealer, unread = newSealer(o.Secrets)
	}
	newest := int64(0)
	if unread == nil {
		var held checkValues
		if held, unread = a.checkSecrets(ctx); unread != nil && !errors.Is(unread, ErrWrongSecret) {
			return out, unread
		}
		newest = held.newest()
	}
	if unread != nil {
		a.sealer = nil
		out.Unchecked = fmt.Sprintf("whether rows were changed, added or cut off, because that takes the server secret: %v. Only the numbers and the columns of the rows were checked", unread)
	}
	a.Secrets = ""
	if out.Chains, err = a.CheckAudit(ctx, ""); err != nil || a.sealer == nil {
		return out, err
	}
	if n := a.sealer.current().number; newest > 0 && newest < int64(n) {
		for i := range out.Chains {
			out.Chains[i].fail("the database knows server secrets up to %d only, and there is %d: it was put back from before, or the server was not started since", newest, n)
		}
	}
	return out, nil
}

// CheckAudit walks the chains of all workspaces, or of one, and holds them against the ends that the server wrote down. A file of ends
// that is gone, or that somebody else wrote, is a problem of every chain: a row cut off at its end would not be noticed.
func (a *Access) CheckAudit(ctx context.Context, only string) ([]Chain, error) {
	known, unread, err := a.writtenDown(ctx)
	if err != nil {
		return nil, err
	}
	ends := a.heads.snapshot() // before the database is read, which may only be further
	var out []Chain
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		old, err := a.hasOldRows(tx)
		if err != nil {
			return err
		}
		ids := []string{only}
		if only == "" {
			if ids, err = chained(tx, known, ends); err != nil {
				return err
			}
		}
		out = nil
		for _, id := range ids {
			c, err := a.checkChain(tx, id, known[id], ends[id])
			if err != nil {
				return fmt.Errorf("check the audit log of %s: %w", id, err)
			}
			if unread != nil && (old || !errors.Is(unread, errHeadsMissing)) {
				c.fail("%v", unread)
			}
			out = append(out, c)
		}
		return nil
	})
	return out, err
}

// writtenDown is what audit.heads says; unread is why it counts for nothing. Without server secrets it is not asked. The number of the
// newest secret is read before the file, which is written before the database knows that number.
func (a *Access) writtenDown(ctx context.Context) (known map[string]auditHead, unread, err error) {
	if a.sealer == nil {
		return nil, nil, nil
	}
	var newest int64
	err = a.DB.View(ctx, func(tx *db.Tx) error { return tx.Row(sqlEpochNewest).Scan(&newest) })
	if err != nil {
		return nil, nil, fmt.Errorf("read the number of the newest server secret: %w", err)
	}
	known, unread = a.readHeads(newest)
	if errors.Is(unread, errHeadsMissing) || errors.Is(unread, ErrHeadsAltered) {
		return known, unread, nil
	}
	return known, nil, unread
}

// chained lists every workspace that there is, or that has rows, or that should have some.
func chained(tx *db.Tx, known ...map[string]auditHead) ([]string, error) {
	ids, err := workspaceIDs(tx)
	if err != nil {
		return nil, err
	}
	var more []string
	err = each(tx, sqlAuditOwners, nil, func(r *sql.Rows) error {
		var id string
		err := r.Scan(&id)
		more = append(more, id)
		return err
	})
	for _, k := range known {
		more = append(more, slices.Sorted(maps.Keys(k))...)
	}
	for _, id := range more {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, err
}

// storedRow is a row of the audit log with the columns by which it is found.
type storedRow struct {
	seq, at, epoch                           int64
	keyID, operation, objectID, result, body string
	hash                                     []byte
}

func (s *storedRow) scan(r scanner) error {
	return r.Scan(&s.seq, &s.at, &s.keyID, &s.operation, &s.objectID, &s.result, &s.body, &s.epoch, &s.hash)
}

// fits says whether the columns say what the body says.
func (s *storedRow) fits() bool {
	var row AuditRow
	return json.Unmarshal([]byte(s.body), &row) == nil && row.Seq == s.seq && int64(row.At) == s.at && row.Who.KeyID == s.keyID &&
		row.Operation == s.operation && row.ObjectID == s.objectID && row.Result == s.result
}

// checkChain walks one chain. The server secret of a row is never an older one than that of the row before, and at the end it is the
// newest: every chain goes on under a new one at once (noteSecrets), so that whoever got hold of an older one cannot add to it.
func (a *Access) checkChain(tx *db.Tx, workspace string, known ...auditHead) (Chain, error) {
	c := Chain{Workspace: workspace, OK: true}
	first, last := storedRow{}, storedRow{hash: []byte(workspace)}
	err := each(tx, sqlAuditChain, []any{workspace}, func(r *sql.Rows) error {
		var s storedRow
		if err := s.scan(r); err != nil {
			return err
		}
		c.Rows++
		a.checkRow(&c, &last, &s)
		for _, k := range known {
			if k.Seq == s.seq && !bytes.Equal(k.Hash, s.hash) {
				c.fail("row %d is not the one that the server wrote down", s.seq)
			}
		}
		if last = s; c.Rows == 1 {
			first = s
		}
		return nil
	})
	if err != nil {
		return c, err
	}
	for _, k := range known {
		if c.Rows < k.Seq {
			c.fail("it ends at row %d, but the server wrote down row %d", c.Rows, k.Seq)
		}
	}
	return c, checkEnds(tx, &c, &first, &last)
}

// checkRow holds a row against the one before it.
func (a *Access) checkRow(c *Chain, before, s *storedRow) {
	switch {
	case s.seq != c.Rows:
		c.fail("row %d is missing", c.Rows)
	case s.epoch < before.epoch:
		c.fail("row %d was written under server secret %d, which %d had replaced before", s.seq, s.epoch, before.epoch)
	case !s.fits():
		c.fail("the columns of row %d were changed", s.seq)
	}
	if a.sealer == nil {
		return
	}
	switch e := a.sealer.epoch(uint16(s.epoch)); {
	case e == nil || int64(e.number) != s.epoch:
		c.fail("row %d was written under server secret %d, which is not known here", s.seq, s.epoch)
	case !hmac.Equal(e.link(before.hash, s.body), s.hash):
		c.fail("row %d, or the one before it, was changed", s.seq)
	}
}

// begins says whether a row is the one with which the chain of a workspace begins: it is written in the same commit as the workspace.
func (s *storedRow) begins(workspace string) bool {
	return s.seq == 1 && s.objectID == workspace && slices.Contains([]string{"server.first_run", "workspace.create", "account.register"}, s.operation)
}

// checkEnds holds the server secret of a chain's last row against the newest one, that which the database knows, and looks whether the
// chain begins as every workspace's does: one that was emptied leaves no row of its own that could miss another.
func checkEnds(tx *db.Tx, c *Chain, first, last *storedRow) error {
	var newest int64
	if err := tx.Row(sqlEpochNewest).Scan(&newest); err != nil {
		return fmt.Errorf("read the number of the newest server secret: %w", err)
	}
	ids, err := workspaceIDs(tx)
	if err != nil || !slices.Contains(ids, c.Workspace) {
		return err
	}
	switch {
	case c.Rows == 0:
		c.fail("it has no rows, but the workspace was made with one: all were cut off")
	case last.epoch < newest:
		c.fail("it ends at row %d under server secret %d, but goes on under %d: rows were cut off, and others may have been put there", c.Rows, last.epoch, newest)
	case !first.begins(c.Workspace):
		c.fail("it does not begin with the making of the workspace: rows were cut off, and others put there")
	}
	return nil
}

// CheckRows walks the chains of all workspaces without holding them against the heads that were written down: a backup is behind
// them.
func (a *Access) CheckRows(ctx context.Context) (out []Chain, err error) {
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		out = nil
		ids, err := workspaceIDs(tx)
		if err != nil {
			return err
		}
		for _, id := range ids {
			c, err := a.checkChain(tx, id, auditHead{})
			if err != nil {
				return err
			}
			out = append(out, c)
		}
		return nil
	})
	return out, err
}
