package server

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/db"
)

// Migrate brings the database up to the schema of this program and answers its version. No server may run on it.
func Migrate(ctx context.Context, s Settings, log *slog.Logger) (int64, error) {
	if err := s.prepareData(); err != nil {
		return 0, err
	}
	d, err := db.Open(ctx, db.Options{DSN: s.DSN(), Log: log, LockWait: -1})
	if err != nil {
		return 0, err
	}
	return d.Version(), d.Close()
}

// Backup copies the database into a new file, beside a running server. The server secret is not in it.
func Backup(ctx context.Context, s Settings, path string) error {
	d, err := db.Open(ctx, db.Options{DSN: s.DSN(), ReadOnly: true})
	if err != nil {
		return err
	}
	return errors.Join(d.Backup(ctx, path), d.Close())
}

// openAccess opens a database with its keys, without serving it. lookOnly leaves it unsaid whether it is behind audit.heads.
func (s Settings) openAccess(ctx context.Context, o db.Options, lookOnly bool) (*db.DB, *access.Access, error) {
	d, err := db.Open(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	secrets, err := s.serverSecrets(ctx, d)
	if err == nil {
		var a *access.Access
		a, err = access.Open(ctx, access.Options{
			DB: d, Secrets: secrets, Dir: s.Data, SecretFromEnv: s.Secret != "", Now: time.Now, Prefix: s.KeyPrefix, LookOnly: lookOnly,
		})
		if err == nil {
			return d, a, nil
		}
	}
	return nil, nil, errors.Join(err, d.Close())
}

// CheckAudit checks the audit logs of all workspaces, beside a running server or without one. It only reads the database, and does not
// keep a server from starting. Without the server secret it checks what it can.
func CheckAudit(ctx context.Context, s Settings) (out access.Checked, err error) {
	d, err := db.Open(ctx, db.Options{DSN: s.DSN(), ReadOnly: true})
	if err != nil {
		return out, err
	}
	secrets, unread := access.ServerSecrets(s.Secret), error(nil)
	if s.Secret == "" {
		secrets, unread = access.ReadSecretFile(s.Data, false)
	}
	out, err = access.CheckLogs(ctx, access.Options{DB: d, Secrets: secrets, Dir: s.Data, Now: time.Now}, unread)
	return out, errors.Join(err, d.Close())
}

// SecretStatus says which server secrets are in use, and rotates first when asked to. No server may run; a running one is asked
// through its local socket instead.
func SecretStatus(ctx context.Context, s Settings, rotate bool) (out access.SecretStatus, err error) {
	d, a, err := s.openAccess(ctx, db.Options{DSN: s.DSN(), LockWait: -1, ReadOnly: !rotate}, !rotate)
	if err != nil {
		return out, err
	}
	if rotate {
		out, err = a.RotateServerSecret(ctx)
	} else {
		out, err = a.SecretStatus(ctx)
	}
	return out, errors.Join(err, d.Close())
}
