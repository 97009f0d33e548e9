package access

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"

	"unstuck/internal/db"
)

// RevokedKey is what must not come back to life when an older database is restored.
type RevokedKey struct {
	Workspace, ID, By string
	At                int64
}

// RevokedKeys lists every revoked key of the database.
func (a *Access) RevokedKeys(ctx context.Context) (out []RevokedKey, err error) {
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		out = nil
		return each(tx, sqlKeysRevoked, nil, func(r *sql.Rows) error {
			var k RevokedKey
			err := r.Scan(&k.Workspace, &k.ID, &k.At, &k.By)
			out = append(out, k)
			return err
		})
	})
	return out, err
}

// KeepRevoked revokes those of a list that this database has alive, and notes it in their audit logs. It answers how many.
func (a *Access) KeepRevoked(ctx context.Context, list []RevokedKey) (n int, err error) {
	err = a.update(ctx, func(tx *db.Tx) error {
		n = 0
		for _, k := range list {
			row, err := readKey(tx, k.Workspace, k.ID)
			if isNone(err) || err == nil && row.revoked != 0 {
				continue
			}
			if err != nil {
				return err
			}
			row.revoked, row.revokedBy = k.At, k.By
			if err := setKey(tx, &row); err != nil {
				return err
			}
			n++
			if err := a.append(tx, k.Workspace, a.serverRow("server.restore", "key", row.id, row.name, map[string]any{"kept": "revoked"})); err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
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

// ForgetHeads removes the heads that were written down, so that those of a restored database can take their place.
func (a *Access) ForgetHeads() error {
	if err := os.Remove(a.headsPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget the ends of the audit log: %w", err)
	}
	return nil
}
