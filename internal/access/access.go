// Package access says who may: workspaces, members, keys, scopes, limits and the audit log. It holds the guard through which
// every call of every door goes, and what it enforces is also what it tells when it is asked what a key can do.
package access

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"
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
	Log           *slog.Logger // nil discards
	Prefix        string       // of new keys; default "unstuck"
	Trusted       []string     // proxies whose X-Forwarded-For counts: CIDRs, or "unix"
	Dev           bool         // development: sign-up open
	Register      bool         // sign-up open
	RegisterPlan  string       // default "free"
	// AcceptRollback lets a server start although its database is behind the audit heads that it wrote down.
	AcceptRollback bool
	// LookOnly opens without holding the database against those heads, and leaves the file alone: to check, and to restore.
	LookOnly bool
}

// Access is the state of the package: one per server. Its methods may be called from any goroutine.
type Access struct {
	Options
	table     *table
	sealer    *sealer
	strangers strangers
	usage     usage
	refused   refusals
	heads     heads
	doubts    doubts
	signing   signing
	rotating  sync.Mutex // the server secret
	proxies   proxies
	ops       []*op.Operation
	things    Things
	changed   atomic.Pointer[chan struct{}]
}

// Things is what access must ask other packages about what keys are for.
type Things interface {
	// CueExists says whether a workspace has a cue of this id.
	CueExists(tx *db.Tx, workspace, id string) (bool, error)
	// CueName is the name of a cue; "" when the workspace has none of this id.
	CueName(tx *db.Tx, workspace, id string) (string, error)
	// FindCue finds a cue by its id or its name; both are "" when the workspace has none.
	FindCue(tx *db.Tx, workspace, cue string) (id, name string, err error)
	// CountCues counts the cues of a workspace that match at least one pattern of every list (nil: all of them).
	CountCues(tx *db.Tx, workspace string, filter [][]Pattern) (int64, error)
	// Usage counts active cues, active and paused cues, and executions of the running month.
	Usage(tx *db.Tx, workspace string, now time.Time) (Usage, error)
	// NearLimit says whether a workspace has used at least 80 % of its executions of this month.
	NearLimit(workspace string) bool
}

// Usage is how much of its plan a workspace uses.
type Usage struct{ ActiveCues, Cues, Executions int64 }

// Open checks the server secrets against the database and loads every key into memory. It fails with ErrWrongSecret for secrets that
// this database was not written with, with ErrRolledBack for a database that is older than what this server once wrote
// down, and with ErrHeadsAltered when somebody else changed what was written down.
func Open(ctx context.Context, o Options) (*Access, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Prefix == "" {
		o.Prefix = defaultFront
	}
	if !prefixForm.MatchString(o.Prefix) {
		return nil, fmt.Errorf("the prefix of keys, %q, must be at most %d of a-z, 0-9 and _, a letter first", o.Prefix, prefixMost)
	}
	if o.RegisterPlan == "" {
		o.RegisterPlan = "free"
	}
	if _, ok := planOf(o.RegisterPlan); !ok {
		return nil, fmt.Errorf("sign-ups shall get the plan %q, and there is none", o.RegisterPlan)
	}
	a := &Access{Options: o, table: newTable(), refused: refusals{wake: make(chan struct{}, 1)}}
	a.Secrets = ""
	a.signal()
	var err error
	if a.sealer, err = newSealer(o.Secrets); err != nil {
		return nil, err
	}
	if a.proxies, err = parseProxies(o.Trusted); err != nil {
		return nil, err
	}
	known, err := a.checkSecrets(ctx)
	if err != nil {
		return nil, err
	}
	if err := a.table.load(ctx, a.DB); err != nil {
		return nil, err
	}
	if err := a.openHeads(ctx, known.newest()); err != nil || o.LookOnly {
		return a, err
	}
	return a, a.noteSecrets(ctx, known)
}

// Serve tells access about all operations of the product, for key.access, and about the things that keys are for. It is called
// once, before the first call.
func (a *Access) Serve(ops []*op.Operation, things Things) { a.ops, a.things = ops, things }

func (a *Access) now() int64 { return a.Now().UnixMicro() }

// idLetters are what ids are made of, in the order in which they are sorted.
const idLetters = "0123456789abcdefghijklmnopqrstuvwxyz"

// newID makes an id: prefix and twelve characters of a-z0-9.
func newID(prefix string) string {
	const fair = 256 / len(idLetters) * len(idLetters) // bytes below it make every letter as likely as the others
	id := []byte(prefix)
	for len(id) < len(prefix)+12 {
		var b [16]byte
		rand.Read(b[:]) // never fails: crypto/rand ends the program instead
		for _, c := range b {
			if int(c) < fair && len(id) < len(prefix)+12 {
				id = append(id, idLetters[int(c)%len(idLetters)])
			}
		}
	}
	return string(id)
}
