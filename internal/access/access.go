// Package access says who may: workspaces, members, keys, scopes, limits and the audit log. It holds the guard through which
// every call of every door goes, and what it enforces is also what it tells when it is asked what a key can do.
package access

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Options are what Open needs. DB, Secrets and Now are required.
type Options struct {
	DB      *db.DB
	Secrets ServerSecrets
	Dir     string // data directory: audit.heads and, unless SecretFromEnv, the secret file live there
	// SecretFromEnv says that the server secrets came from UNSTUCK_SECRET and cannot be rotated by writing a file.
	SecretFromEnv bool
	Now           func() time.Time
	Log           *slog.Logger
	Prefix        string   // of new keys; default "unstuck"
	Trusted       []string // proxies whose X-Forwarded-For counts: CIDRs, or "unix"
	Dev           bool     // development: sign-up open
	Register      bool     // sign-up open
	RegisterPlan  string   // default "free"
	// AcceptRollback lets a server start although its database is behind the audit heads that it wrote down.
	AcceptRollback bool
}

// Access is the state of the package: one per server.
type Access struct {
	Options
	table     *table
	sealer    *sealer
	strangers strangers
	usage     usage
	refused   refusals
	proxies   proxies
	ops       []*op.Operation
	things    Things
	started   time.Time
	changed   atomic.Pointer[chan struct{}]
}

// Things is what access must ask other packages about what keys are for.
type Things interface {
	// CueExists says whether a workspace has a cue of this id.
	CueExists(tx *db.Tx, workspace, id string) (bool, error)
	// CueName is the name of a cue; "" when the workspace has none of this id.
	CueName(tx *db.Tx, workspace, id string) (string, error)
	// CountCues counts the cues of a workspace that match at least one pattern of every list (nil: all of them).
	CountCues(tx *db.Tx, workspace string, filter [][]Pattern) (int64, error)
	// Usage counts active cues, active and paused cues, and executions of the running month.
	Usage(tx *db.Tx, workspace string, now time.Time) (Usage, error)
}

// Usage is how much of its plan a workspace uses.
type Usage struct{ ActiveCues, Cues, Executions int64 }

// Open checks the server secrets against the database and loads every key into memory.
func Open(ctx context.Context, o Options) (*Access, error) {
	if o.Prefix == "" {
		o.Prefix = defaultFront
	}
	if o.RegisterPlan == "" {
		o.RegisterPlan = "free"
	}
	a := &Access{Options: o, started: o.Now(), refused: refusals{wake: make(chan struct{}, 1)}}
	changed := make(chan struct{})
	a.changed.Store(&changed)
	var err error
	if a.sealer, err = newSealer(o.Secrets); err != nil {
		return nil, err
	}
	if a.proxies, err = parseProxies(o.Trusted); err != nil {
		return nil, err
	}
	if err := a.checkSecrets(ctx); err != nil {
		return nil, err
	}
	if err := a.DB.View(ctx, a.load); err != nil {
		return nil, fmt.Errorf("load the keys: %w", err)
	}
	if err := a.checkHeads(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

// Serve tells access about all operations of the product, for key.access, and about the things that keys are for. It is called
// once, before the first call.
func (a *Access) Serve(ops []*op.Operation, things Things) { a.ops, a.things = ops, things }

func (a *Access) now() int64 { return a.Now().UnixMicro() }

// newID makes an id: prefix and twelve characters of a-z0-9.
func newID(prefix string) string {
	const letters = "0123456789abcdefghijklmnopqrstuvwxyz"
	var b [12]byte
	rand.Read(b[:])
	for i := range b {
		b[i] = letters[int(b[i])%len(letters)]
	}
	return prefix + string(b[:])
}

// load reads everything that verification needs into a new table.
func (a *Access) load(tx *db.Tx) error {
	t := &table{
		workspaces: map[string]*workspace{}, members: map[memberID]*member{},
		keys: map[keyID]*key{}, secrets: map[uint32]*secret{},
	}
	for _, step := range []func(*db.Tx, *table) error{loadWorkspaces, loadMembers, loadKeys, loadSecrets} {
		if err := step(tx, t); err != nil {
			return err
		}
	}
	a.table = t
	return nil
}

// each runs fn for every row of a query.
func each(tx *db.Tx, query string, args []any, fn func(*sql.Rows) error) error {
	rows, err := tx.Query(query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func loadWorkspaces(tx *db.Tx, t *table) error {
	return each(tx, sqlWorkspacesAll, nil, func(r *sql.Rows) error {
		w := workspaceRow{}
		if err := w.scan(r); err != nil {
			return err
		}
		t.putWorkspace(w)
		return nil
	})
}

func loadMembers(tx *db.Tx, t *table) error {
	return each(tx, sqlMembersAll, nil, func(r *sql.Rows) error {
		m := memberRow{}
		if err := r.Scan(&m.workspace, &m.user, &m.role, &m.rev); err != nil {
			return err
		}
		t.putMember(m)
		return nil
	})
}

// loadKeys takes parents before their children, whatever order the rows come in.
func loadKeys(tx *db.Tx, t *table) error {
	var children []keyRow
	err := each(tx, sqlKeysAll, nil, func(r *sql.Rows) error {
		k := keyRow{}
		if err := k.scan(r); err != nil {
			return err
		}
		if k.parent != nil {
			children = append(children, k)
			return nil
		}
		return t.putKey(k)
	})
	for before := -1; err == nil && len(children) > 0 && len(children) != before; {
		before = len(children)
		children = slices.DeleteFunc(children, func(k keyRow) bool {
			parent, _ := keyIDOf(*k.parent)
			if t.keys[parent] == nil {
				return false
			}
			err = errors.Join(err, t.putKey(k))
			return true
		})
	}
	if err == nil && len(children) > 0 {
		err = fmt.Errorf("the parent of key %s is not there", children[0].id)
	}
	return err
}

func loadSecrets(tx *db.Tx, t *table) error {
	return each(tx, sqlSecretsAll, nil, func(r *sql.Rows) error {
		s := secretRow{}
		if err := s.scan(r); err != nil {
			return err
		}
		return t.putSecret(s)
	})
}

// clientAddr is the address that counts for a call: the peer's, or behind trusted proxies the one that they forward.
func (a *Access) clientAddr(r *op.Request) netip.Addr { return a.proxies.client(r.Peer, r.Forwarded) }
