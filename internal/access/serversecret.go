package access

import (
	"context"
	"crypto/hmac"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"unstuck/internal/db"
)

// ErrWrongSecret refuses to start with server secrets that this database was not written with. All of them are needed: keys are hashed
// anew under the newest at their next use, but the audit log keeps the rows that were written under older ones.
var ErrWrongSecret = errors.New("the server secret does not fit this database: no key could be checked. Put back the secret file that belongs to it, or set UNSTUCK_SECRET to its content")

const secretFile = "secret"

// ReadSecretFile reads the secret file of a data directory, and makes it when there is none and fresh says that the database is
// new. The file can be read by its owner only.
func ReadSecretFile(dir string, fresh bool) (ServerSecrets, error) {
	path := filepath.Join(dir, secretFile)
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		return ServerSecrets(b), nil
	case !errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("read the server secret: %w", err)
	case !fresh:
		return "", fmt.Errorf("the server secret is missing: %s is not there, and without it no key of this database can be checked. Restore the file from your backup, or set UNSTUCK_SECRET", path)
	}
	s := NewServerSecret()
	return s, WriteSecretFile(dir, s)
}

// WriteSecretFile replaces the secret file, durably and at once.
func WriteSecretFile(dir string, s ServerSecrets) error {
	if err := replaceFile(filepath.Join(dir, secretFile), []byte(s)); err != nil {
		return fmt.Errorf("write the server secret: %w", err)
	}
	return nil
}

// checkValues are the check values in the database, by the numbers of their server secrets.
type checkValues map[int64][]byte

// newest is the highest number; 0 in a new database.
func (c checkValues) newest() (n int64) {
	for number := range c {
		n = max(n, number)
	}
	return n
}

// checkSecrets holds the server secrets against the check values in the database.
func (a *Access) checkSecrets(ctx context.Context) (checkValues, error) {
	known := checkValues{}
	err := a.DB.View(ctx, func(tx *db.Tx) error {
		clear(known)
		return each(tx, sqlEpochs, nil, func(r *sql.Rows) error {
			var n int64
			var check []byte
			err := r.Scan(&n, &check)
			known[n] = check
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the check values of the server secrets: %w", err)
	}
	for _, n := range slices.Sorted(maps.Keys(known)) {
		e := a.sealer.epoch(uint16(n))
		if e == nil {
			return nil, fmt.Errorf("server secret %d is missing: %w", n, ErrWrongSecret)
		}
		if !hmac.Equal(e.check, known[n]) {
			return nil, fmt.Errorf("server secret %d: %w", n, ErrWrongSecret)
		}
	}
	return known, nil
}

// noteSecrets tells the database of the server secrets that it does not know yet. In the same commit every workspace's webhook secrets are
// encrypted under the newest one, and every audit log goes on under it with a row that says so: from there on, rows under an older one are
// forged. audit.heads is written under it before, so that it never is behind the database.
func (a *Access) noteSecrets(ctx context.Context, known checkValues) error {
	newest := int64(a.sealer.current().number)
	if !a.LookOnly && known.newest() > 0 && known.newest() < newest {
		if err := a.rewriteHeads(); err != nil {
			return err
		}
	}
	fresh := map[int64]*epoch{}
	for n, e := range a.sealer.held.Load().byNumber {
		if known[int64(n)] == nil {
			fresh[int64(n)] = e
		}
	}
	behind := func(end auditHead) bool { return end.epoch < newest }
	if len(fresh) == 0 && !slices.ContainsFunc(slices.Collect(maps.Values(a.heads.snapshot())), behind) {
		return nil
	}
	return a.update(ctx, func(tx *db.Tx) error {
		for _, n := range slices.Sorted(maps.Keys(fresh)) {
			if _, err := tx.Exec(sqlEpochAdd, n, fresh[n].check, a.now()); err != nil {
				return fmt.Errorf("note server secret %d: %w", n, err)
			}
		}
		ids, err := workspaceIDs(tx)
		for _, id := range ids {
			if err == nil && len(fresh) > 0 {
				err = a.sealAgain(tx, id)
			}
			if err == nil {
				err = a.noteRotation(tx, id, newest)
			}
		}
		return err
	})
}

// noteRotation adds the row that a chain goes on under the newest server secret, where its last row is under an older one.
func (a *Access) noteRotation(tx *db.Tx, workspace string, newest int64) error {
	end, err := readHead(tx, workspace)
	if err != nil || end.Seq == 0 || end.epoch >= newest {
		return err
	}
	return a.append(tx, workspace, a.serverRow("server_secret.rotate", "server_secret", fmt.Sprint(newest), "server secret", map[string]any{}))
}

// sealAgain encrypts the webhook secrets of a workspace under the newest server secret.
func (a *Access) sealAgain(tx *db.Tx, workspace string) error {
	w, err := readWorkspace(tx, workspace)
	if err != nil {
		return err
	}
	for _, box := range []*[]byte{&w.webhookSecret, &w.alertSecret, &w.webhookOld} {
		if len(*box) == 0 {
			continue
		}
		text, err := a.sealer.open(*box)
		if err != nil {
			return err
		}
		*box = a.sealer.seal(text)
	}
	return a.setWorkspace(tx, &w)
}

// RotateServerSecret adds a server secret to the secret file. Keys are hashed again under it at their next use.
func (a *Access) RotateServerSecret(ctx context.Context) (SecretStatus, error) {
	a.rotating.Lock()
	defer a.rotating.Unlock()
	if a.SecretFromEnv {
		return SecretStatus{}, errors.New("the server secrets come from UNSTUCK_SECRET: add an entry with the next number there, and start the server again")
	}
	held, err := ReadSecretFile(a.Dir, false)
	if err != nil {
		return SecretStatus{}, err
	}
	next, err := held.next()
	if err != nil {
		return SecretStatus{}, err
	}
	if err := WriteSecretFile(a.Dir, next); err != nil { // the file first: a secret that the database knows must never be lost
		return SecretStatus{}, err
	}
	if err := a.sealer.load(next); err != nil {
		return SecretStatus{}, err
	}
	known, err := a.checkSecrets(ctx)
	if err != nil {
		return SecretStatus{}, err
	}
	if err := a.noteSecrets(ctx, known); err != nil {
		return SecretStatus{}, err
	}
	return a.SecretStatus(ctx)
}

// SecretStatus says under which server secrets the living secrets of keys are hashed.
type SecretStatus struct {
	Newest int64        `json:"newest"`
	Epochs []EpochCount `json:"epochs"`
}

// EpochCount is how many secrets of keys still need a server secret.
type EpochCount struct {
	Number int64 `json:"number"`
	Keys   int64 `json:"keys"`
}

// SecretStatus counts them.
func (a *Access) SecretStatus(ctx context.Context) (SecretStatus, error) {
	if err := a.Flush(ctx); err != nil {
		return SecretStatus{}, err
	}
	out := SecretStatus{}
	err := a.DB.View(ctx, func(tx *db.Tx) error {
		out = SecretStatus{Newest: int64(a.sealer.current().number), Epochs: []EpochCount{}}
		return each(tx, sqlSecretEpochs, nil, func(r *sql.Rows) error {
			var e EpochCount
			err := r.Scan(&e.Number, &e.Keys)
			out.Epochs = append(out.Epochs, e)
			return err
		})
	})
	return out, err
}
