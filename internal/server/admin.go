package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/disk"
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

// Finding is one thing that doctor looked at.
type Finding struct {
	What string
	Err  error  // nil: fine
	Mend string // what to do about it
}

// Doctor looks at everything that a server needs, beside a running one or without one. It changes nothing.
func Doctor(ctx context.Context, s Settings) []Finding {
	var out []Finding
	add := func(what string, err error, mend string) bool {
		out = append(out, Finding{what, err, mend})
		return err == nil
	}
	add("where it listens: "+s.Listen, s.checkListen(), "choose one of the ways above")
	if !add("data folder "+s.Data, checkFolder(s.Data), disk.MendPrivate(s.Data)+", or start the server once: unstuck serve") {
		return out
	}
	d, a, err := s.openAccess(ctx, db.Options{DSN: s.DSN(), ReadOnly: true}, true)
	if !add("database and server secret", err, "see the sentence above; unstuck restore brings back a backup") {
		return out
	}
	chains, err := a.CheckAudit(ctx, "")
	for _, c := range chains {
		if !c.OK {
			err = errors.Join(err, fmt.Errorf("workspace %s: %s", c.Workspace, c.Problem))
		}
	}
	add("audit log", err, "compare with a backup; the rows before that place are whole")
	if err := s.checkReserve(); err != nil {
		add("room on the disk", err, "free space; the server makes its reserve whole again")
	}
	if err := d.Close(); err != nil {
		add("closing the database", err, "look at the disk")
	}
	return out
}

// checkReserve says when the disk was too full for the whole reserve, which a server makes at its start.
func (s Settings) checkReserve() error {
	st, err := os.Stat(db.ReservePath(s.DSN()))
	switch {
	case errors.Is(err, os.ErrNotExist): // the database is PostgreSQL, or no server has run here yet
		return nil
	case err != nil:
		return fmt.Errorf("look for the reserve for revocations: %w", err)
	case st.Size() < reserve:
		return fmt.Errorf("the disk is or was full: %d of %d KiB are left of the reserve for revocations", st.Size()>>10, reserve>>10)
	}
	return nil
}

func checkFolder(path string) error {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errors.New("it is not there; no server has run here yet")
	case err != nil:
		return err
	case !st.IsDir():
		return errors.New("it is no folder")
	}
	if err := disk.Private(path); err != nil {
		return err
	}
	secret := filepath.Join(path, "secret")
	if err := disk.Private(secret); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the server secret in it: %w; %s", err, disk.MendPrivate(secret))
	}
	return nil
}
