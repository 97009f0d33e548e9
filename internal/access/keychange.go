package access

import (
	"context"
	"slices"
	"strings"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// keyUpdate is the input of key.update: it narrows or renames. Null is refused everywhere, since it would lift something.
type keyUpdate struct {
	ID           string                 `json:"id" doc:"id of the key"`
	Name         op.Clear[string]       `json:"name" min:"1" max:"100" format:"line" doc:"another name"`
	Scope        op.Clear[string]       `json:"scope" doc:"a named scope within what the key holds"`
	Permissions  op.Clear[[]string]     `json:"permissions" min:"1" max:"100" doc:"what remains of its permissions; the key becomes custom"`
	Restrictions op.Clear[Restrictions] `json:"restrictions" doc:"kinds that are absent stay as they are"`
	ExpiresIn    op.Clear[string]       `json:"expires_in" doc:"only earlier than now set"`
	ExpiresAt    op.Clear[op.Time]      `json:"expires_at" doc:"only earlier than now set"`
}

func wouldWiden(what string) error {
	return WouldWiden.Msg("%s would give the key more than it has. Only widening or extending it does that, by a member.", what)
}

// null names the first field that was sent as null; "" when none was.
func (in keyUpdate) null() string {
	names := [...]string{"name", "scope", "permissions", "restrictions", "expires_in", "expires_at"}
	for i, null := range [...]bool{in.Name.Null, in.Scope.Null, in.Permissions.Null, in.Restrictions.Null, in.ExpiresIn.Null, in.ExpiresAt.Null} {
		if null {
			return names[i]
		}
	}
	if kind := in.Restrictions.Val.null(); kind != "" {
		return "restrictions." + kind
	}
	return ""
}

func asOpt[T any](c op.Clear[T]) op.Opt[T] { return op.Opt[T]{Val: c.Val, Set: c.Set && !c.Null} }

func (a *Access) updateKey(ctx context.Context, in keyUpdate) (out ChangedKey, err error) {
	if field := in.null(); field != "" {
		return out, wouldWiden("Null for " + field)
	}
	want, err := newRules(in.Restrictions)
	if err != nil {
		return out, err
	}
	c := From(ctx)
	err = a.update(ctx, func(tx *db.Tx) error {
		r := a.reader(tx)
		row, err := r.mayNarrow(c, in.ID)
		if err != nil {
			return err
		}
		if row.revoked != 0 {
			return keyEnded(row.id)
		}
		was := row
		if err := in.narrowScope(&row); err != nil {
			return err
		}
		if err := a.narrowRules(tx, c, &row, want); err != nil {
			return err
		}
		if err := in.narrowEnd(&row, a.now()); err != nil {
			return err
		}
		if row != was { // another name alone can wait for room on the disk
			tx.Urgent(row.workspace, db.Narrowing)
		}
		row.name = asOpt(in.Name).Or(row.name)
		if out.Key, err = r.save(row, was, ""); err != nil {
			return err
		}
		out.Warning, err = r.lastAdmin(was, row)
		return err
	})
	return out, err
}

// narrowScope leaves a key fewer permissions.
func (in keyUpdate) narrowScope(row *keyRow) error {
	if !in.Scope.Set && !in.Permissions.Set {
		return nil
	}
	scope, perms, err := scopeOrPerms(asOpt(in.Scope), asOpt(in.Permissions))
	if err != nil {
		return err
	}
	held, err := row.held()
	if err != nil {
		return err
	}
	if more := perms &^ held; more != 0 {
		return wouldWiden("Holding " + strings.Join(more.names(), ", "))
	}
	row.scope, row.permissions = scope, listText(scope, perms)
	return nil
}

func (a *Access) narrowRules(tx *db.Tx, c *Caller, row *keyRow, want *rules) error {
	if want == nil {
		return nil
	}
	have, err := readRules(row.restrictions)
	if err != nil {
		return err
	}
	if have == nil {
		have = &rules{}
	}
	if have.Cues == nil {
		if err := a.cuesExist(tx, c, want, "body.restrictions"); err != nil {
			return err
		}
	}
	if kind := have.tighten(want); kind != "" {
		return wouldWiden("That value of restrictions." + kind)
	}
	row.restrictions = have.text()
	return nil
}

// tighten takes over what another set of rules says, as far as it narrows; it names the first kind that does not.
func (r *rules) tighten(w *rules) string {
	switch {
	case !shorten(&r.Cues, w.Cues):
		return "cues"
	case !shorten(&r.IPs, w.IPs):
		return "ips"
	case !shorten(&r.Via, w.Via):
		return "via"
	case !shorten(&r.WorkerIDs, w.WorkerIDs):
		return "worker_ids"
	case w.RatePerMinute != 0 && r.RatePerMinute != 0 && w.RatePerMinute > r.RatePerMinute:
		return "rate_per_minute"
	case w.NotBefore != nil && r.NotBefore != nil && *w.NotBefore < *r.NotBefore:
		return "not_before"
	}
	if w.RatePerMinute != 0 {
		r.RatePerMinute = w.RatePerMinute
	}
	if w.NotBefore != nil {
		r.NotBefore = w.NotBefore
	}
	return ""
}

// shorten takes over a list that has no new entry, or that is the first one.
func shorten(have *[]string, want []string) bool {
	if want == nil {
		return true
	}
	if *have != nil && slices.ContainsFunc(want, func(w string) bool { return !slices.Contains(*have, w) }) {
		return false
	}
	*have = want
	return true
}

// narrowEnd brings the end of a key forward.
func (in keyUpdate) narrowEnd(row *keyRow, now int64) error {
	if !in.ExpiresIn.Set && !in.ExpiresAt.Set {
		return nil
	}
	end, err := lifetime(asOpt(in.ExpiresIn), asOpt(in.ExpiresAt), "", now)
	if err != nil {
		return err
	}
	if later(end, row.expires) {
		return wouldWiden("A later end")
	}
	row.expires = end
	return nil
}

// save stores a changed key, records what changed, and answers with the key as it is now.
func (r *reader) save(row, was keyRow, reason string) (Key, error) {
	if row == was {
		Unchanged(r.tx)
		return r.showOne(row)
	}
	if err := setKey(r.tx, &row); err != nil {
		return Key{}, err
	}
	if err := Record(r.tx, Event{Object: "key", ID: row.id, Name: row.name, Detail: keyDiff(was, row, reason)}); err != nil {
		return Key{}, err
	}
	return r.showOne(row)
}

// change is a value before and after, for the audit log.
type change struct {
	From any `json:"from"`
	To   any `json:"to"`
}

func keyDiff(was, now keyRow, reason string) map[string]any {
	d := map[string]any{}
	if was.name != now.name {
		d["name"] = change{was.name, now.name}
	}
	if was.scope != now.scope {
		d["scope"] = change{was.scope, now.scope}
	}
	if was.permissions != now.permissions {
		d["permissions"] = change{op.Object(was.permissions), op.Object(now.permissions)}
	}
	if was.restrictions != now.restrictions {
		d["restrictions"] = change{op.Object(was.restrictions), op.Object(now.restrictions)}
	}
	if was.expires != now.expires {
		d["expires_at"] = change{moment(was.expires), moment(now.expires)}
	}
	if reason != "" {
		d["reason"] = reason
	}
	return d
}
