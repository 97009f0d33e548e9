package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Holds is what a database holds, for whoever is to decide between two.
type Holds struct {
	File       time.Time // when its file was last written
	Last       op.Time   // its last row of the audit log or last execution; 0 when it has none
	Workspaces int64
	Keys       int64 // also revoked ones
	Cues       int64
	Executions int64
}

// Lost is what a database holds that came after a moment.
type Lost struct{ Changes, Keys, Cues, Executions int64 }

// Any says whether there is something.
func (l Lost) Any() bool { return l != Lost{} }

// Replacement is what a restore would do.
type Replacement struct {
	Backup Holds
	Now    *Holds // the database in place; nil when there is none
	Lost   Lost   // what it holds that is newer than all in the backup
}

var errRestorePostgres = errors.New("the database is PostgreSQL: restore it with pg_restore, and start the server once with --accept-rollback")

// LookAtRestore compares a backup with the database in place, and changes nothing.
func LookAtRestore(ctx context.Context, s Settings, from string) (out Replacement, err error) {
	if s.Database != "" {
		return out, errRestorePostgres
	}
	if out.Backup, _, err = holds(ctx, from, 0); err != nil {
		return out, fmt.Errorf("look at the backup: %w", err)
	}
	if !s.Exists() {
		return out, nil
	}
	now, lost, err := holds(ctx, s.DSN(), out.Backup.Last)
	if err != nil {
		return out, fmt.Errorf("look at the database that is to be replaced: %w", err)
	}
	out.Now, out.Lost = &now, lost
	return out, nil
}

const (
	sqlHolds = `SELECT COALESCE((SELECT max(at) FROM audit), 0), COALESCE((SELECT max(created_at) FROM executions), 0),
		(SELECT count(*) FROM workspaces), (SELECT count(*) FROM keys), (SELECT count(*) FROM cues), (SELECT count(*) FROM executions)`
	sqlSince = `SELECT (SELECT count(*) FROM audit WHERE at > ?1 AND result = 'done'), (SELECT count(*) FROM keys WHERE created_at > ?1),
		(SELECT count(*) FROM cues WHERE created_at > ?1), (SELECT count(*) FROM executions WHERE created_at > ?1)`
)

// holds reads what a database file holds, and what of it came after a moment.
func holds(ctx context.Context, path string, since op.Time) (h Holds, lost Lost, err error) {
	st, err := os.Stat(path)
	if err != nil {
		return h, lost, err
	}
	h.File = st.ModTime()
	d, err := db.Open(ctx, db.Options{DSN: path, ReadOnly: true})
	if err != nil {
		return h, lost, err
	}
	err = d.View(ctx, func(tx *db.Tx) error {
		var audit, fired op.Time
		err := tx.Row(sqlHolds).Scan(&audit, &fired, &h.Workspaces, &h.Keys, &h.Cues, &h.Executions)
		h.Last = max(audit, fired)
		if err != nil {
			return err
		}
		return tx.Row(sqlSince, since).Scan(&lost.Changes, &lost.Keys, &lost.Cues, &lost.Executions)
	})
	return h, lost, errors.Join(err, d.Close())
}

// Restored is what a restore did.
type Restored struct {
	Replaced    string // where the database that was there went; "" when there was none
	access.Kept        // what was taken away since the backup, and stays so
}

// Restore puts a backup in the place of the database. It checks first that this program and the server secret fit the backup and
// that its audit log is whole, and keeps away what the replaced database had taken away since. No server may run.
func Restore(ctx context.Context, s Settings, from string) (out Restored, err error) {
	if s.Database != "" {
		return out, errRestorePostgres
	}
	if err := s.prepareData(); err != nil {
		return out, err
	}
	ended, err := s.ended(ctx)
	if err != nil {
		return out, err
	}
	fresh := s.DSN() + ".restoring"
	defer func() { removeDatabase(fresh) }()
	if err := copyFile(from, fresh); err != nil {
		return out, err
	}
	if out.Kept, err = s.prepareRestored(ctx, fresh, ended); err != nil {
		return out, err
	}
	if _, err := os.Stat(s.DSN()); err == nil {
		if out.Replaced, err = freeName(s.DSN() + time.Now().UTC().Format(".replaced-20060102-150405")); err != nil {
			return out, err
		}
		for _, suffix := range []string{"-wal", "-shm"} {
			if err := os.Rename(s.DSN()+suffix, out.Replaced+suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
				return out, fmt.Errorf("put the old database aside: %w", err)
			}
		}
		if err := os.Rename(s.DSN(), out.Replaced); err != nil {
			return out, fmt.Errorf("put the old database aside: %w", err)
		}
	}
	if err := os.Rename(fresh, s.DSN()); err != nil {
		return out, fmt.Errorf("put the backup in place: %w", err)
	}
	return out, s.rewriteHeads(ctx)
}

// ended is what the database in place has ended; nothing when there is no database. It fails when a server runs.
func (s Settings) ended(ctx context.Context) (access.Ended, error) {
	if _, err := os.Stat(s.DSN()); errors.Is(err, os.ErrNotExist) {
		return access.Ended{}, nil
	}
	d, a, err := s.openAccess(ctx, db.Options{DSN: s.DSN(), LockWait: -1}, true)
	if err != nil {
		return access.Ended{}, fmt.Errorf("open the database that is to be replaced: %w", err)
	}
	list, err := a.Ended(ctx)
	return list, errors.Join(err, d.Close())
}

// prepareRestored checks a copy of the backup and carries over what was taken away since.
func (s Settings) prepareRestored(ctx context.Context, path string, ended access.Ended) (kept access.Kept, err error) {
	d, a, err := s.openAccess(ctx, db.Options{DSN: path, LockWait: -1}, true)
	if err != nil {
		return kept, fmt.Errorf("the backup was not restored, and nothing was changed: %w", err)
	}
	chains, err := a.CheckRows(ctx)
	for _, c := range chains {
		if !c.OK {
			err = errors.Join(err, fmt.Errorf("the backup was not restored, and nothing was changed: the audit log of workspace %s is broken: %s", c.Workspace, c.Problem))
		}
	}
	if err == nil {
		kept, err = a.KeepEnded(ctx, ended)
	}
	return kept, errors.Join(err, d.Close())
}

func (s Settings) rewriteHeads(ctx context.Context) error {
	d, a, err := s.openAccess(ctx, db.Options{DSN: s.DSN(), LockWait: -1}, true)
	if err != nil {
		return err
	}
	return errors.Join(a.ForgetHeads(), a.WriteHeads(ctx), d.Close())
}

// freeName is a path that no file has yet: what was replaced before must not be lost.
func freeName(path string) (string, error) {
	for i := 1; i < 1000; i++ {
		name := path
		if i > 1 {
			name = fmt.Sprintf("%s-%d", path, i)
		}
		if _, err := os.Lstat(name); errors.Is(err, os.ErrNotExist) {
			return name, nil
		}
	}
	return "", fmt.Errorf("put the old database aside: %s and many names like it are taken", path)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("read the backup: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("copy the backup: %w", err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Sync(), out.Close()); err != nil {
		return fmt.Errorf("copy the backup: %w", err)
	}
	return nil
}

func removeDatabase(path string) {
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		_ = os.Remove(path + suffix) // what is not there needs no removing
	}
}
