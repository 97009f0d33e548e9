package access

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// keyUpdate is the input of key.update: it narrows or renames. Null is refused everywhere, since it would lift something.
type keyUpdate struct {
	ID           string                       `json:"id" doc:"id of the key"`
	Name         op.Clear[string]             `json:"name" min:"1" max:"100"`
	Scope        op.Clear[string]             `json:"scope" doc:"a named scope within what the key holds"`
	Permissions  op.Clear[[]string]           `json:"permissions" min:"1" doc:"what remains of its permissions; the key becomes custom"`
	Restrictions op.Clear[narrowRestrictions] `json:"restrictions" doc:"kinds that are absent stay as they are"`
	ExpiresIn    op.Clear[string]             `json:"expires_in" doc:"only earlier than now set"`
	ExpiresAt    op.Clear[op.Time]            `json:"expires_at" doc:"only earlier than now set"`
}

// narrowRestrictions are Restrictions of which null is seen.
type narrowRestrictions struct {
	Cues          op.Clear[[]string] `json:"cues" min:"1" max:"100"`
	IPs           op.Clear[[]string] `json:"ips" min:"1" max:"100"`
	Via           op.Clear[[]string] `json:"via" min:"1" max:"2" enum:"rest|mcp"`
	NotBefore     op.Clear[op.Time]  `json:"not_before"`
	RatePerMinute op.Clear[int64]    `json:"rate_per_minute" min:"1" max:"1000000"`
	WorkerIDs     op.Clear[[]string] `json:"worker_ids" min:"1" max:"100"`
}

func wouldWiden(what string) error {
	return WouldWiden.Msg("%s would give the key more than it has. A member does that with key.widen or key.extend.", what)
}

// noNull refuses null, which would lift what is set.
func (in keyUpdate) noNull() error {
	r := in.Restrictions.Val
	for name, null := range map[string]bool{
		"name": in.Name.Null, "scope": in.Scope.Null, "permissions": in.Permissions.Null, "restrictions": in.Restrictions.Null,
		"expires_in": in.ExpiresIn.Null, "expires_at": in.ExpiresAt.Null, "restrictions.cues": r.Cues.Null, "restrictions.ips": r.IPs.Null, "restrictions.via": r.Via.Null,
		"restrictions.not_before": r.NotBefore.Null, "restrictions.rate_per_minute": r.RatePerMinute.Null, "restrictions.worker_ids": r.WorkerIDs.Null,
	} {
		if null {
			return wouldWiden("Null for " + name)
		}
	}
	return nil
}

func (r narrowRestrictions) plain() Restrictions {
	return Restrictions{
		Cues: asOpt(r.Cues), IPs: asOpt(r.IPs), Via: asOpt(r.Via), NotBefore: asOpt(r.NotBefore), RatePerMinute: asOpt(r.RatePerMinute), WorkerIDs: asOpt(r.WorkerIDs),
	}
}

func asOpt[T any](c op.Clear[T]) op.Opt[T] { return op.Opt[T]{Val: c.Val, Set: c.Set && !c.Null} }

func (a *Access) updateKey(ctx context.Context, in keyUpdate) (out Key, err error) {
	if err := in.noNull(); err != nil {
		return out, err
	}
	c := From(ctx)
	err = a.DB.Update(ctx, func(tx *db.Tx) error {
		row, err := a.mayNarrow(tx, c, in.ID)
		if err != nil {
			return err
		}
		was := row
		if err := a.narrow(tx, c, &row, in); err != nil {
			return err
		}
		if row == was {
			Unchanged(tx)
			out, err = a.show(tx, row)
			return err
		}
		return a.saveKey(tx, row, was, "", &out)
	})
	return out, err
}

// mayNarrow finds the key and checks that the caller may narrow or end it: itself and what is below it, or any key when the caller
// has no restrictions.
func (a *Access) mayNarrow(tx *db.Tx, c *Caller, id string) (keyRow, error) {
	row, err := findKey(tx, c, id)
	if err != nil {
		return row, err
	}
	r, err := a.callerRights(tx, c)
	if err != nil {
		return row, err
	}
	target, err := a.rightsOf(tx, row.workspace, row.id)
	if err != nil {
		return row, err
	}
	if r.restricted && !slices.Contains(target.chain, c.KeyID()) {
		return row, a.restrictedMaker(c, "change a key that is neither itself nor made by it")
	}
	return row, nil
}

// narrow applies a change to a row, as far as it only narrows.
func (a *Access) narrow(tx *db.Tx, c *Caller, row *keyRow, in keyUpdate) error {
	if row.revoked != nil {
		return KeyEnded.Msg("Key %s was revoked; there is nothing to change any more.", row.id)
	}
	if in.Name.Set {
		row.name = in.Name.Val
	}
	held, err := effective(row.scope, row.permissions)
	if err != nil {
		return err
	}
	switch {
	case in.Scope.Set && in.Permissions.Set:
		return op.Invalid("body.scope", "Send a scope or permissions, not both")
	case in.Scope.Set:
		s, ok := scopeOf(in.Scope.Val)
		if !ok {
			return op.Invalid("body.scope", "Input should be %s", oneOf(scopeNames()))
		}
		if s.perms&^held != 0 {
			return wouldWiden("Scope " + s.Name)
		}
		row.scope, row.permissions = s.Name, "[]"
	case in.Permissions.Set:
		_, list, perms, err := customPerms(in.Permissions.Val, "body.permissions")
		if err != nil {
			return err
		}
		if more := perms &^ held; more != 0 {
			return wouldWiden("Permission " + strings.Join(more.names(), ", "))
		}
		row.scope, row.permissions = custom, string(op.Marshal(list))
	}
	if err := a.narrowRules(tx, c, row, in); err != nil {
		return err
	}
	return a.narrowEnd(row, in)
}

func (a *Access) narrowRules(tx *db.Tx, c *Caller, row *keyRow, in keyUpdate) error {
	want, err := rulesOf(in.Restrictions.Val.plain(), "body.restrictions")
	if err != nil || want == nil {
		return err
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
		return wouldWiden("That value of " + kind)
	}
	row.restrictions = have.text()
	return nil
}

// tighten takes over what another set of rules says, as far as it narrows; it names the first kind that does not.
func (r *rules) tighten(w *rules) string {
	switch {
	case !within(w.Cues, &r.Cues):
		return "restrictions.cues"
	case !within(w.IPs, &r.IPs):
		return "restrictions.ips"
	case !within(w.Via, &r.Via):
		return "restrictions.via"
	case !within(w.WorkerIDs, &r.WorkerIDs):
		return "restrictions.worker_ids"
	case w.RatePerMinute != 0 && r.RatePerMinute != 0 && w.RatePerMinute > r.RatePerMinute:
		return "restrictions.rate_per_minute"
	case w.NotBefore != nil && r.NotBefore != nil && *w.NotBefore < *r.NotBefore:
		return "restrictions.not_before"
	}
	if w.RatePerMinute != 0 {
		r.RatePerMinute = w.RatePerMinute
	}
	if w.NotBefore != nil {
		r.NotBefore = w.NotBefore
	}
	return ""
}

// within takes a shorter list over, or a first one; it refuses an entry that is not there yet.
func within[T comparable](want []T, have *[]T) bool {
	if want == nil {
		return true
	}
	if *have != nil && slices.ContainsFunc(want, func(w T) bool { return !slices.Contains(*have, w) }) {
		return false
	}
	*have = want
	return true
}

func (a *Access) narrowEnd(row *keyRow, in keyUpdate) error {
	if !in.ExpiresIn.Set && !in.ExpiresAt.Set {
		return nil
	}
	end, err := lifetime(asOpt(in.ExpiresIn), asOpt(in.ExpiresAt), "", a.now())
	if err != nil {
		return err
	}
	if end == 0 && row.expires != nil || row.expires != nil && end > *row.expires {
		return wouldWiden("A later end")
	}
	if end != 0 {
		row.expires = &end
	}
	return nil
}

// saveKey stores a changed key, records what changed, and answers with the key as it is now.
func (a *Access) saveKey(tx *db.Tx, row, was keyRow, reason string, out *Key) error {
	if err := a.storeKey(tx, row); err != nil {
		return err
	}
	if err := Record(tx, Event{Object: "key", ID: row.id, Name: row.name, Detail: keyDiff(was, row, reason)}); err != nil {
		return err
	}
	var err error
	*out, err = a.show(tx, row)
	return err
}

type change struct {
	From any `json:"from"`
	To   any `json:"to"`
}

func keyDiff(was, now keyRow, reason string) map[string]any {
	d := map[string]any{}
	add := func(name string, from, to any) { d[name] = change{from, to} }
	if was.name != now.name {
		add("name", was.name, now.name)
	}
	if was.scope != now.scope || was.permissions != now.permissions {
		add("scope", was.scope, now.scope)
		add("permissions", op.Object(was.permissions), op.Object(now.permissions))
	}
	if was.restrictions != now.restrictions {
		add("restrictions", op.Object(was.restrictions), op.Object(now.restrictions))
	}
	if (was.expires == nil) != (now.expires == nil) || was.expires != nil && *was.expires != *now.expires {
		add("expires_at", (*op.Time)(was.expires), (*op.Time)(now.expires))
	}
	if was.user != now.user {
		add("member", was.user, now.user)
	}
	if reason != "" {
		d["reason"] = reason
	}
	return d
}

// keyWiden is the input of key.widen.
type keyWiden struct {
	ID               string             `json:"id" doc:"id of the key"`
	AddPermissions   op.Opt[[]string]   `json:"add_permissions" min:"1" doc:"permissions that the key gets besides"`
	AddTo            op.Opt[addEntries] `json:"add_to" doc:"entries that restrictions get besides"`
	DropRestrictions op.Opt[[]string]   `json:"drop_restrictions" min:"1" enum:"cues|ips|via|not_before|rate_per_minute|worker_ids" doc:"restrictions that are lifted"`
	Reason           string             `json:"reason" default:"" max:"500" doc:"kept in the audit log"`
}

type addEntries struct {
	Cues      op.Opt[[]string] `json:"cues" min:"1" max:"100"`
	IPs       op.Opt[[]string] `json:"ips" min:"1" max:"100"`
	Via       op.Opt[[]string] `json:"via" min:"1" max:"2" enum:"rest|mcp"`
	WorkerIDs op.Opt[[]string] `json:"worker_ids" min:"1" max:"100"`
}

func (a *Access) widenKey(ctx context.Context, in keyWiden) (out Key, err error) {
	c := From(ctx)
	if !in.AddPermissions.Set && !in.AddTo.Set && !in.DropRestrictions.Set {
		return out, op.Invalid("body", "Say what to add or to drop: add_permissions, add_to or drop_restrictions")
	}
	err = a.DB.Update(ctx, func(tx *db.Tx) error {
		row, r, err := a.mayWiden(tx, c, in.ID)
		if err != nil {
			return err
		}
		was := row
		if in.AddPermissions.Set {
			if err := a.addPermissions(c, &row, r, in.AddPermissions.Val); err != nil {
				return err
			}
		}
		rules, err := readRules(row.restrictions)
		if err != nil {
			return err
		}
		if rules, err = rules.widened(in); err != nil {
			return err
		}
		if err := a.cuesExist(tx, c, rules, "body.add_to"); err != nil {
			return err
		}
		row.restrictions = rules.text()
		return a.saveKey(tx, row, was, in.Reason, &out)
	})
	return out, err
}

// mayWiden finds a key that a member may give more: not the one he uses, alive, and nothing that he does not hold himself.
func (a *Access) mayWiden(tx *db.Tx, c *Caller, id string) (keyRow, rights, error) {
	row, err := findKey(tx, c, id)
	if err != nil {
		return row, rights{}, err
	}
	r, err := a.callerRights(tx, c)
	switch {
	case err != nil:
		return row, r, err
	case row.id == c.KeyID():
		return row, r, MembersOnly.Msg("A key cannot give itself more. Use another personal key.")
	case row.revoked != nil:
		return row, r, KeyEnded.Msg("Key %s was revoked, and nothing revives it. Make a new one.", row.id)
	case r.restricted:
		return row, r, a.restrictedMaker(c, "give another key more")
	}
	held, err := effective(row.scope, row.permissions)
	if lacks := held &^ r.perms; err == nil && lacks != 0 && row.kind != "personal" {
		err = a.missing(c.holding(r.perms), c.call.Operation, lacks.names()...)
	}
	return row, r, err
}

func (a *Access) addPermissions(c *Caller, row *keyRow, r rights, names []string) error {
	_, _, add, err := customPerms(names, "body.add_permissions")
	if err != nil {
		return err
	}
	if lacks := add &^ r.perms; lacks != 0 {
		return a.missing(c.holding(r.perms), c.call.Operation, lacks.names()...)
	}
	held, err := effective(row.scope, row.permissions)
	if err != nil || add&^held == 0 {
		return err
	}
	row.scope, row.permissions = custom, string(op.Marshal((held | add).names()))
	return nil
}

// widened is a set of rules with entries added and kinds dropped.
func (r *rules) widened(in keyWiden) (*rules, error) {
	out := rules{}
	if r != nil {
		out = *r
	}
	e := in.AddTo.Val
	add, err := rulesOf(Restrictions{Cues: e.Cues, IPs: e.IPs, Via: e.Via, WorkerIDs: e.WorkerIDs}, "body.add_to")
	if err != nil {
		return nil, err
	}
	if add != nil {
		for _, missing := range []struct {
			kind string
			is   bool
		}{
			{"cues", add.Cues != nil && out.Cues == nil}, {"ips", add.IPs != nil && out.IPs == nil},
			{"via", add.Via != nil && out.Via == nil}, {"worker_ids", add.WorkerIDs != nil && out.WorkerIDs == nil},
		} {
			if missing.is {
				return nil, op.Invalid("body.add_to."+missing.kind, "The key has no such restriction; it is not narrowed in this")
			}
		}
		out.Cues, out.Via, out.WorkerIDs = joined(out.Cues, add.Cues), joined(out.Via, add.Via), joined(out.WorkerIDs, add.WorkerIDs)
		out.IPs = joined[netip.Prefix](out.IPs, add.IPs)
	}
	for _, kind := range in.DropRestrictions.Val {
		switch kind {
		case "cues":
			out.Cues = nil
		case "ips":
			out.IPs = nil
		case "via":
			out.Via = nil
		case "not_before":
			out.NotBefore = nil
		case "rate_per_minute":
			out.RatePerMinute = 0
		case "worker_ids":
			out.WorkerIDs = nil
		}
	}
	if out.empty() {
		return nil, nil
	}
	return &out, nil
}

// joined is both lists, each entry once; the lists themselves are not touched.
func joined[T comparable](a, b []T) []T {
	if a == nil {
		return nil
	}
	out := slices.Clone(a)
	for _, x := range b {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}

// keyExtend is the input of key.extend.
type keyExtend struct {
	ID        string          `json:"id" doc:"id of the key"`
	ExpiresIn op.Opt[string]  `json:"expires_in" doc:"never, 30d, 90d, 1y or a duration, from now"`
	ExpiresAt op.Opt[op.Time] `json:"expires_at" doc:"instead of expires_in"`
	Reason    string          `json:"reason" default:"" max:"500" doc:"kept in the audit log"`
}

func (a *Access) extendKey(ctx context.Context, in keyExtend) (out Key, err error) {
	c := From(ctx)
	if !in.ExpiresIn.Set && !in.ExpiresAt.Set {
		return out, op.Invalid("body.expires_in", "Field required")
	}
	err = a.DB.Update(ctx, func(tx *db.Tx) error {
		row, _, err := a.mayWiden(tx, c, in.ID)
		if err != nil {
			return err
		}
		if row.expires != nil && a.now()-*row.expires > reviveFor {
			return KeyEnded.Msg("Key %s expired more than 30 days ago. Make a new one.", row.id)
		}
		was := row
		end, err := lifetime(in.ExpiresIn, in.ExpiresAt, "", a.now())
		if err != nil {
			return err
		}
		if row.parent != nil {
			above, err := a.rightsOf(tx, row.workspace, *row.parent)
			if err != nil {
				return err
			}
			if above.expires != 0 && (end == 0 || end > above.expires) {
				return op.Invalid("body.expires_in", "The key above it ends at %s; a child cannot live longer. Extend that one first", op.Time(above.expires))
			}
		}
		row.expires = &end
		if end == 0 {
			row.expires = nil
		}
		return a.saveKey(tx, row, was, in.Reason, &out)
	})
	return out, err
}
