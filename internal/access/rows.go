package access

import (
	"database/sql"
	"errors"
	"fmt"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// The rows below are what the database holds; moments are in microseconds, and 0 or "" stands for NULL. Whoever writes one notes it in
// the changes of its transaction.

type scanner interface{ Scan(...any) error }

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

// isNone says whether a row was asked for that is not there.
func isNone(err error) bool { return errors.Is(err, sql.ErrNoRows) }

type workspaceRow struct {
	id, name, slug, plan                     string
	cueLimit, executionLimit, rateLimit, rev int64
	webhookSecret, alertSecret               []byte // sealed
	webhookOld                               []byte // sealed; empty unless it still signs
	webhookOldEnds                           int64
	created, updated                         int64
}

func (w *workspaceRow) scan(r scanner) error {
	return r.Scan(&w.id, &w.name, &w.slug, &w.plan, &w.cueLimit, &w.executionLimit, &w.rateLimit,
		&w.webhookSecret, &w.alertSecret, &w.rev, &w.created, &w.updated, &w.webhookOld, &w.webhookOldEnds)
}

// values are the columns in the order of scan.
func (w *workspaceRow) values() []any {
	return []any{w.id, w.name, w.slug, w.plan, w.cueLimit, w.executionLimit, w.rateLimit,
		w.webhookSecret, w.alertSecret, w.rev, w.created, w.updated, append([]byte{}, w.webhookOld...), w.webhookOldEnds}
}

func readWorkspace(tx *db.Tx, id string) (workspaceRow, error) {
	w := workspaceRow{}
	return w, w.scan(tx.Row(sqlWorkspaceByID, id))
}

func workspaceIDs(tx *db.Tx) ([]string, error) {
	var out []string
	err := each(tx, sqlWorkspaceIDs, nil, func(r *sql.Rows) error {
		var id string
		err := r.Scan(&id)
		out = append(out, id)
		return err
	})
	return out, err
}

func addWorkspace(tx *db.Tx, w workspaceRow) error {
	if _, err := tx.Exec(sqlWorkspaceAdd, w.values()...); err != nil {
		return fmt.Errorf("write a workspace: %w", err)
	}
	changesOf(tx).workspaces = append(changesOf(tx).workspaces, w)
	return nil
}

// setWorkspace writes a changed workspace, with a higher rev.
func (a *Access) setWorkspace(tx *db.Tx, w *workspaceRow) error {
	w.rev, w.updated = w.rev+1, a.now()
	_, err := tx.Exec(sqlWorkspaceSet, w.values()...)
	if db.IsUnique(err) {
		return DuplicateSlug.Msg("Another workspace has the slug %s.", w.slug)
	}
	if err != nil {
		return fmt.Errorf("change a workspace: %w", err)
	}
	changesOf(tx).workspaces = append(changesOf(tx).workspaces, *w)
	return nil
}

// readPlan reads what a workspace may use.
func readPlan(tx *db.Tx, id string) (Plan, error) {
	p := Plan{}
	err := tx.Row(sqlWorkspacePlan, id).Scan(&p.Name, &p.CueLimit, &p.ExecutionLimit, &p.RatePerMinute)
	if err != nil {
		return p, fmt.Errorf("read the plan of a workspace: %w", err)
	}
	named, _ := planOf(p.Name)
	p.KeyLimit, p.MemberLimit = named.KeyLimit, named.MemberLimit
	return p, nil
}

// person is somebody, in whatever workspaces. As there is no mail yet, an address is what somebody typed and proves nothing. So it is
// compared only within one workspace: whoever adds a member or signs up makes a new person, even when the address is known elsewhere,
// and nobody gets rights over another workspace of that address, or a look at it, or is kept from one of his own. One person comes to
// belong to several workspaces only by making them with a key of his own (KEYS 1: an address counts only once a link sent to it was
// opened).
type person struct {
	ID, Email string
	CreatedAt op.Time
}

func (p *person) scan(r scanner) error { return r.Scan(&p.ID, &p.Email, (*int64)(&p.CreatedAt)) }

func personByID(tx *db.Tx, id string) (person, error) {
	p := person{}
	return p, p.scan(tx.Row(sqlUserByID, id))
}

const userPrefix = "usr_"

// memberRow is a membership. Its row outlives it, with role "".
type memberRow struct {
	workspace, user, role string
	rev, created          int64
}

func readMember(tx *db.Tx, workspace, user string) (memberRow, error) {
	m := memberRow{workspace: workspace, user: user}
	return m, tx.Row(sqlMember, workspace, user).Scan(&m.role, &m.rev, &m.created)
}

func addMembership(tx *db.Tx, m memberRow) error {
	if _, err := tx.Exec(sqlMemberAdd, m.workspace, m.user, m.role, m.rev, m.created); err != nil {
		return fmt.Errorf("write a membership: %w", err)
	}
	changesOf(tx).members = append(changesOf(tx).members, m)
	return nil
}

// setMembership writes a changed membership, with a higher rev.
func setMembership(tx *db.Tx, m memberRow) error {
	m.rev++
	if _, err := tx.Exec(sqlMemberSet, m.workspace, m.user, m.role, m.rev, m.created); err != nil {
		return fmt.Errorf("change a membership: %w", err)
	}
	changesOf(tx).members = append(changesOf(tx).members, m)
	return nil
}

type keyRow struct {
	id, workspace, user, parent string
	kind, name                  string
	scope                       string // a named one, or custom
	permissions                 string // JSON list of a custom scope
	restrictions                string // JSON of rules
	created                     int64
	createdBy                   string
	expires, revoked            int64
	revokedBy                   string
	request                     string // see keyCreate.request
	rev                         int64
}

func (k *keyRow) scan(r scanner) error {
	return r.Scan(&k.id, &k.workspace, &k.user, &k.parent, &k.kind, &k.name, &k.scope, &k.permissions, &k.restrictions,
		&k.created, &k.createdBy, &k.expires, &k.revoked, &k.revokedBy, &k.request, &k.rev)
}

// values are the columns in the order of scan.
func (k *keyRow) values() []any {
	return []any{k.id, k.workspace, k.user, orNull(k.parent), k.kind, k.name, k.scope, k.permissions, k.restrictions,
		k.created, k.createdBy, orNull(k.expires), orNull(k.revoked), k.revokedBy, k.request, k.rev}
}

// orNull is a value as it is stored: NULL for the zero value.
func orNull[T comparable](v T) any {
	var none T
	if v == none {
		return nil
	}
	return v
}

// held is what the key itself may do, whatever bounds it.
func (k *keyRow) held() (permSet, error) { return effective(k.scope, k.permissions) }

// readKey reads one key of a workspace.
func readKey(tx *db.Tx, workspace, id string) (keyRow, error) {
	k := keyRow{}
	return k, k.scan(tx.Row(sqlKeyByID, workspace, id))
}

// readKeys reads the keys that a query finds.
func readKeys(tx *db.Tx, query string, args ...any) ([]keyRow, error) {
	var out []keyRow
	err := each(tx, query, args, func(r *sql.Rows) error {
		k := keyRow{}
		err := k.scan(r)
		out = append(out, k)
		return err
	})
	return out, err
}

func addKey(tx *db.Tx, k keyRow) error {
	if _, err := tx.Exec(sqlKeyAdd, k.values()...); err != nil {
		return fmt.Errorf("write a key: %w", err)
	}
	changesOf(tx).keys = append(changesOf(tx).keys, k)
	return nil
}

// setKey writes a changed key, with a higher rev.
func setKey(tx *db.Tx, k *keyRow) error {
	k.rev++
	changesOf(tx).keys = append(changesOf(tx).keys, *k) // first: what the disk has no room for is to be known too
	_, err := tx.Exec(sqlKeySet, k.id, k.user, k.name, k.scope, k.permissions, k.restrictions, orNull(k.expires), orNull(k.revoked), k.revokedBy, k.rev)
	if err != nil {
		return fmt.Errorf("change key %s: %w", k.id, err)
	}
	return nil
}

// endKey revokes a key.
func (a *Access) endKey(tx *db.Tx, k *keyRow, by string) error {
	tx.Urgent(k.workspace, db.Ending)
	k.revoked, k.revokedBy = a.now(), by
	return setKey(tx, k)
}

type secretRow struct {
	digits, key   string
	seq           int64
	prefix        string
	hash          []byte
	epoch         int64
	state         string
	overlap       int64
	created       int64
	ends, lastUse int64
	lastUsed      string // JSON of LastUsed
	shownTo       string // user id of whoever was shown it and is not the member whose key it is; "" for nobody
}

func (s *secretRow) scan(r scanner) error {
	return r.Scan(&s.digits, &s.key, &s.seq, &s.prefix, &s.hash, &s.epoch, &s.state, &s.overlap, &s.created, &s.ends, &s.lastUse, &s.lastUsed, &s.shownTo)
}

func (s *secretRow) values() []any {
	return []any{s.digits, s.key, s.seq, s.prefix, s.hash, s.epoch, s.state, s.overlap, s.created, orNull(s.ends), orNull(s.lastUse), s.lastUsed, s.shownTo}
}

func (s *secretRow) redacted() string { return redacted(s.prefix, s.digits) }

func (s *secretRow) is(state secretState) bool { return s.state == state.String() }

// over says that the secret works no more.
func (s *secretRow) over(now int64) bool { return s.is(stateEnded) || s.is(stateOld) && now >= s.ends }

// readSecrets reads the secrets of keys, the newest of each first.
func readSecrets(tx *db.Tx, keys ...string) ([]secretRow, error) {
	var out []secretRow
	err := each(tx, sqlSecretsOfKeys, []any{keys}, func(r *sql.Rows) error {
		s := secretRow{}
		err := s.scan(r)
		out = append(out, s)
		return err
	})
	return out, err
}

func addSecret(tx *db.Tx, s secretRow) error {
	if _, err := tx.Exec(sqlSecretAdd, s.values()...); err != nil {
		return fmt.Errorf("write a secret: %w", err)
	}
	changesOf(tx).secrets = append(changesOf(tx).secrets, s)
	return nil
}

// setSecret moves a secret on towards its end; ends is for one that becomes old, or has ended.
func setSecret(tx *db.Tx, s secretRow, state secretState, ends int64) error {
	s.state, s.ends = state.String(), ends
	if _, err := tx.Exec(sqlSecretState, s.digits, s.state, orNull(ends)); err != nil {
		return fmt.Errorf("change a secret: %w", err)
	}
	changesOf(tx).secrets = append(changesOf(tx).secrets, s)
	return nil
}
