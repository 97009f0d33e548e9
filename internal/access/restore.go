package access

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Ended is what must not come back to life when an older database is restored: revoked keys, secrets that a rotation ended or will end,
// and what keys and members could do before they were narrowed, demoted or removed.
type Ended struct {
	keys    []endedKey
	secrets []endedSecret
	signing map[string]SecretText // webhook secrets, by workspace
	living  []keyRow              // that were changed since they were made
	members []memberRow
}

// Kept is what was carried over into a restored database.
type Kept struct {
	Revoked  int      // keys
	Ended    int      // secrets of other keys, also those that end by themselves
	Rotate   []string // "name (id)" of keys that have no secret left that lasts
	Signing  []string // names of the workspaces that sign with an older webhook secret again
	Narrowed int      // keys
	Members  int      // who were demoted or removed
	Admins   []string // e-mail addresses of those who were, too, and stay: without one of them a workspace would have no admin
}

type endedKey struct {
	workspace, id, by string
	at                int64
}

// endedSecret is a secret that ended or will (state, at), or that somebody else was shown.
type endedSecret struct {
	digits, state string
	at            int64
	shownTo       string
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
			err := r.Scan(&s.digits, &s.state, &s.at, &s.shownTo)
			out.secrets = append(out.secrets, s)
			return err
		})
		if err != nil {
			return err
		}
		if out.signing, err = a.signingNow(tx); err != nil {
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
		if err := a.keepSecrets(tx, ended.secrets, &kept); err != nil {
			return err
		}
		if kept.Signing, err = a.olderSigning(tx, ended.signing); err != nil {
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

// keepSecrets moves secrets on towards their end as far as another database had, and notes who was shown them.
func (a *Access) keepSecrets(tx *db.Tx, ended []endedSecret, kept *Kept) error {
	for _, e := range ended {
		s, row := secretRow{}, keyRow{}
		err := s.scan(tx.Row(sqlSecretByDigits, e.digits))
		if isNone(err) {
			continue
		}
		if err == nil {
			err = row.scan(tx.Row(sqlKeyAnywhere, s.key))
		}
		if err == nil && s.shownTo == "" && e.shownTo != "" {
			err = noteShown(tx, &s, row.workspace, e.shownTo)
		}
		if err != nil {
			return fmt.Errorf("carry over secret %s: %w", e.digits, err)
		}
		if !e.after(s) {
			continue
		}
		if err := setSecret(tx, s, secretStateOf(e.state), e.at); err != nil || row.revoked != 0 {
			if err != nil {
				return err
			}
			continue
		}
		kept.Ended++
		detail := map[string]any{"kept": "ended", "secret": s.redacted(), "ends": op.Time(e.at)}
		if err := a.append(tx, row.workspace, a.serverRow("server.restore", "key", row.id, row.name, detail)); err != nil {
			return err
		}
		if name := fmt.Sprintf("%s (%s)", row.name, row.id); !slices.Contains(kept.Rotate, name) {
			lasting, err := hasLasting(tx, row.id)
			if err != nil {
				return err
			}
			if !lasting {
				kept.Rotate = append(kept.Rotate, name)
			}
		}
	}
	return nil
}

// noteShown notes who was shown a secret, unless that is somebody whom this database does not know: he came after the backup.
func noteShown(tx *db.Tx, s *secretRow, workspace, user string) error {
	if _, err := readMember(tx, workspace, user); err != nil {
		if isNone(err) {
			return nil
		}
		return err
	}
	s.shownTo = user
	_, err := tx.Exec(sqlSecretShown, s.digits, user)
	return err
}

// after says that a secret was nearer its end than this row of it.
func (e endedSecret) after(s secretRow) bool {
	switch state, was := secretStateOf(e.state), secretStateOf(s.state); {
	case state < stateOld:
		return false // only shown
	case state == was:
		return state == stateOld && e.at < s.ends
	default:
		return state > was
	}
}

// hasLasting says whether a key has a secret that has no end yet.
func hasLasting(tx *db.Tx, key string) (bool, error) {
	secrets, err := readSecrets(tx, key)
	return slices.ContainsFunc(secrets, func(s secretRow) bool { return s.is(statePending) || s.is(stateCurrent) }), err
}

// signingNow is the webhook secret of every workspace; "" for one that cannot be read: a damaged database must not stop its replacement.
func (a *Access) signingNow(tx *db.Tx) (map[string]SecretText, error) {
	ids, err := workspaceIDs(tx)
	out := map[string]SecretText{}
	for _, id := range ids {
		w, err := readWorkspace(tx, id)
		if err != nil {
			return nil, err
		}
		out[id], _ = a.sealer.open(w.webhookSecret)
	}
	return out, err
}

// olderSigning names the workspaces whose webhook secret is another one than in another database.
func (a *Access) olderSigning(tx *db.Tx, newer map[string]SecretText) (names []string, err error) {
	here, err := a.signingNow(tx)
	for _, id := range slices.Sorted(maps.Keys(here)) {
		if secret, ok := newer[id]; !ok || secret == here[id] {
			continue
		}
		w, err := readWorkspace(tx, id)
		if err != nil {
			return nil, err
		}
		names = append(names, w.name)
	}
	return names, err
}

// ForgetHeads removes the heads that were written down, so that those of a restored database can take their place.
func (a *Access) ForgetHeads() error {
	if err := os.Remove(a.headsPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget the ends of the audit log: %w", err)
	}
	return nil
}
