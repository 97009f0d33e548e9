package access

import (
	"context"
	"crypto/hmac"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"unstuck/internal/db"
)

// ErrWrongSecret refuses to start with server secrets that this database was not written with.
var ErrWrongSecret = errors.New("the server secret does not fit this database: no key could be checked. Put back the secret file that belongs to it, or set UNSTUCK_SECRET to its content")

// checkSecrets holds the server secrets against the check values in the database and notes those that are new.
func (a *Access) checkSecrets(ctx context.Context) error {
	known := map[int64][]byte{}
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
		return fmt.Errorf("read the check values of the server secrets: %w", err)
	}
	for n, check := range known {
		e := a.sealer.epoch(uint16(n))
		if e == nil {
			return fmt.Errorf("server secret %d is missing: %w", n, ErrWrongSecret)
		}
		if !hmac.Equal(e.check, check) {
			return fmt.Errorf("server secret %d: %w", n, ErrWrongSecret)
		}
	}
	return a.noteEpochs(ctx, known)
}

func (a *Access) noteEpochs(ctx context.Context, known map[int64][]byte) error {
	a.sealer.mu.RLock()
	var fresh []*epoch
	for n, e := range a.sealer.epochs {
		if known[int64(n)] == nil {
			fresh = append(fresh, e)
		}
	}
	a.sealer.mu.RUnlock()
	if len(fresh) == 0 {
		return nil
	}
	return a.DB.Update(ctx, func(tx *db.Tx) error {
		for _, e := range fresh {
			if _, err := tx.Exec(sqlEpochAdd, int64(e.number), e.check, a.now()); err != nil {
				return fmt.Errorf("note server secret %d: %w", e.number, err)
			}
		}
		return nil
	})
}

// RotateServerSecret adds a server secret to the secret file. Keys are hashed again under it at their next use.
func (a *Access) RotateServerSecret(ctx context.Context) (SecretStatus, error) {
	if a.SecretFromEnv {
		return SecretStatus{}, errors.New("the server secrets come from UNSTUCK_SECRET: add a line with the next number there, and start the server again")
	}
	b, err := os.ReadFile(filepath.Join(a.Dir, "secret"))
	if err != nil {
		return SecretStatus{}, fmt.Errorf("read the server secret: %w", err)
	}
	next := nextServerSecret(ServerSecrets(b))
	if err := WriteSecretFile(a.Dir, next); err != nil { // the file first: a secret that the database knows must never be lost
		return SecretStatus{}, err
	}
	if err := a.sealer.load(next); err != nil {
		return SecretStatus{}, err
	}
	if err := a.checkSecrets(ctx); err != nil {
		return SecretStatus{}, err
	}
	if err := a.resealAll(ctx); err != nil {
		return SecretStatus{}, err
	}
	return a.SecretStatus(ctx)
}

// resealAll encrypts every webhook secret under the newest server secret and notes the rotation in every audit log.
func (a *Access) resealAll(ctx context.Context) error {
	return a.DB.Update(ctx, func(tx *db.Tx) error {
		ids, err := workspaceIDs(tx)
		if err != nil {
			return err
		}
		for _, id := range ids {
			w, err := readWorkspace(tx, id)
			if err != nil {
				return err
			}
			for _, box := range []*[]byte{&w.webhookSecret, &w.alertSecret} {
				text, err := a.sealer.open(*box)
				if err != nil {
					return err
				}
				*box = a.sealer.seal(text)
			}
			if err := a.storeWorkspace(tx, &w); err != nil {
				return err
			}
			row := a.serverRow("server_secret.rotate", "server_secret", fmt.Sprint(a.sealer.current().number), "server secret", map[string]any{})
			if err := a.append(tx, id, row); err != nil {
				return err
			}
		}
		return nil
	})
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
