package access

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"

	"unstuck/internal/db"
)

// Ended is what must not come back to life when an older database is restored: revoked keys, secrets that a rotation ended, and what
// keys and members could do before they were narrowed, demoted or removed.
type Ended struct {
	keys    []endedKey
	secrets []endedSecret
	living  []keyRow // that were changed since they were made
	members []memberRow
}

// Kept is what was carried over into a restored database.
type Kept struct {
	Revoked  int      // keys
	Ended    int      // secrets of other keys
	Narrowed int      // keys
	Members  int      // who were demoted or removed
	Admins   []string // e-mail addresses of those who were, too, and stay: without one of them a workspace would have no admin
}

type endedKey struct {
	workspace, id, by string
	at                int64
}

type endedSecret struct {
	digits string
	at     int64
}

// Ended lists what has ended in this database.
func (a *Access) Ended(ctx context.Context) (out Ended, err error) {
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		out = Ended{}
		err := each(tx, sqlKeysRevoked, nil, func(r *sql.Rows) error {
			var k endedKey
			err := r.Scan(&k.workspace, &k.id, &k.at, &k.by)
			out.keys = append(out.keys, k)
			return err
		})
		if err != nil {
			return err
		}
		err = each(tx, sqlSecretsEnded, nil, func(r *sql.Rows) error {
			var s endedSecret
			err := r.Scan(&s.digits, &s.at)
			out.secrets = append(out.secrets, s)
			return err
		})
		if err != nil {
			return err
		}
		if out.living, err = readKeys(tx, sqlKeysChanged); err != nil {
			return err
		}
		return each(tx, sqlMembersChanged, nil, func(r *sql.Rows) error {
			var m memberRow
			err := r.Scan(&m.workspace, &m.user, &m.role, &m.rev)
			out.members = append(out.members, m)
			return err
		})
	})
	return out, err
}

// KeepEnded ends what this database has alive and another had ended, takes away what another had taken away since, and notes it in the
// audit logs. Nothing ever gets more by it: what was widened, promoted or new in the other is not carried over.
func (a *Access) KeepEnded(ctx context.Context, ended Ended) (kept Kept, err error) {
	err = a.update(ctx, func(tx *db.Tx) error {
		kept = Kept{}
		for _, k := range ended.keys {
			row, err := readKey(tx, k.workspace, k.id)
			if isNone(err) || err == nil && row.revoked != 0 {
				continue
			}
			if err != nil {
				return err
			}
			row.revoked, row.revokedBy = k.at, k.by
			if err := setKey(tx, &row); err != nil {
				return err
			}
			kept.Revoked++
			if err := a.append(tx, k.workspace, a.serverRow("server.restore", "key", row.id, row.name, map[string]any{"kept": "revoked"})); err != nil {
				return err
			}
		}
		if kept.Ended, err = a.keepSecrets(tx, ended.secrets); err != nil {
			return err
		}
		if kept.Narrowed, err = a.keepNarrow(tx, ended.living); err != nil {
			return err
		}
		return a.keepRoles(tx, ended.members, &kept)
	})
	if err != nil {
		return kept, err
	}
	known, err := a.checkSecrets(ctx) // the backup may be from before the newest server secret
	if err != nil {
		return kept, err
	}
	return kept, a.noteSecrets(ctx, known)
}

func (a *Access) keepSecrets(tx *db.Tx, ended []endedSecret) (n int, err error) {
	for _, e := range ended {
		s, row := secretRow{}, keyRow{}
		err := s.scan(tx.Row(sqlSecretByDigits, e.digits))
		if isNone(err) || err == nil && s.is(stateEnded) {
			continue
		}
		if err == nil {
			err = setSecret(tx, s, stateEnded, e.at)
		}
		if err == nil {
			err = row.scan(tx.Row(sqlKeyAnywhere, s.key))
		}
		if err == nil && row.revoked == 0 {
			n++
			err = a.append(tx, row.workspace, a.serverRow("server.restore", "key", row.id, row.name, map[string]any{"kept": "ended", "secret": s.redacted()}))
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// ForgetHeads removes the heads that were written down, so that those of a restored database can take their place.
func (a *Access) ForgetHeads() error {
	if err := os.Remove(a.headsPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget the ends of the audit log: %w", err)
	}
	return nil
}
