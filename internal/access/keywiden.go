package access

import (
	"context"
	"slices"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// keyWiden is the input of key.widen.
type keyWiden struct {
	ID               string             `json:"id" doc:"id of the key"`
	AddPermissions   op.Opt[[]string]   `json:"add_permissions" min:"1" max:"100" doc:"permissions that the key gets besides"`
	AddTo            op.Opt[addEntries] `json:"add_to" doc:"entries that restrictions get besides"`
	DropRestrictions op.Opt[[]string]   `json:"drop_restrictions" min:"1" max:"6" enum:"cues|ips|via|not_before|rate_per_minute|worker_ids" doc:"restrictions that are lifted"`
	Reason           string             `json:"reason" default:"" max:"500" doc:"kept in the audit log"`
}

// addEntries are entries for lists that the key has. Null is refused: whoever sends it means something that does not happen.
type addEntries struct {
	Cues      op.Clear[[]string] `json:"cues" min:"1" max:"100"`
	IPs       op.Clear[[]string] `json:"ips" min:"1" max:"100"`
	Via       op.Clear[[]string] `json:"via" min:"1" max:"2" enum:"rest|mcp"`
	WorkerIDs op.Clear[[]string] `json:"worker_ids" min:"1" max:"100"`
}

// rules reads the entries; at is their place in the input.
func (e addEntries) rules(at string) (*rules, error) {
	r := Restrictions{Cues: e.Cues, IPs: e.IPs, Via: e.Via, WorkerIDs: e.WorkerIDs}
	if kind := r.null(); kind != "" {
		return nil, op.Invalid(at+"."+kind, "Null adds nothing; leave it out")
	}
	return rulesOf(r, at)
}

func (a *Access) widenKey(ctx context.Context, in keyWiden) (out Key, err error) {
	if !in.AddPermissions.Set && !in.AddTo.Set && !in.DropRestrictions.Set {
		return out, op.Invalid("body", "Say what to add or to drop: add_permissions, add_to or drop_restrictions")
	}
	add, err := permsAt("body.add_permissions", in.AddPermissions.Val)
	if err != nil {
		return out, err
	}
	entries, err := in.AddTo.Val.rules("body.add_to")
	if err != nil {
		return out, err
	}
	c := From(ctx)
	err = a.update(ctx, func(tx *db.Tx) error {
		r := a.reader(tx)
		caller, target, err := r.mayWiden(c, in.ID)
		if err != nil {
			return err
		}
		if err := c.wants(caller, add, ""); err != nil {
			return err
		}
		if err := a.cuesExist(tx, c, entries, "body.add_to"); err != nil {
			return err
		}
		row := target.key
		if !target.own.holds(add) {
			row.scope, row.permissions = custom, listText(custom, target.own|add)
		}
		rules, err := readRules(row.restrictions)
		if err != nil {
			return err
		}
		if rules, err = rules.widened(entries, in.DropRestrictions.Val); err != nil {
			return err
		}
		row.restrictions = rules.text()
		out, err = r.save(row, target.key, in.Reason)
		return err
	})
	return out, err
}

// widened is a set of rules with entries added and kinds dropped; the rules themselves are not touched.
func (r *rules) widened(add *rules, drop []string) (*rules, error) {
	out := rules{}
	if r != nil {
		out = *r
	}
	if add == nil {
		add = &rules{}
	}
	for _, l := range [...]struct {
		kind string
		have *[]string
		add  []string
	}{{"cues", &out.Cues, add.Cues}, {"ips", &out.IPs, add.IPs}, {"via", &out.Via, add.Via}, {"worker_ids", &out.WorkerIDs, add.WorkerIDs}} {
		if l.add != nil && *l.have == nil {
			return nil, op.Invalid("body.add_to."+l.kind, "The key has no such restriction; it is not narrowed in this")
		}
		if l.add != nil {
			*l.have = distinct(slices.Concat(*l.have, l.add))
		}
		if slices.Contains(drop, l.kind) {
			*l.have = nil
		}
	}
	if slices.Contains(drop, "not_before") {
		out.NotBefore = nil
	}
	if slices.Contains(drop, "rate_per_minute") {
		out.RatePerMinute = 0
	}
	return &out, nil
}

// keyExtend is the input of key.extend.
type keyExtend struct {
	ID        string          `json:"id" doc:"id of the key"`
	ExpiresIn op.Opt[string]  `json:"expires_in" doc:"never, 30d, 90d, 1y or a duration, from now"`
	ExpiresAt op.Opt[op.Time] `json:"expires_at" doc:"its end as a moment, instead of a length of time"`
	Reason    string          `json:"reason" default:"" max:"500" doc:"kept in the audit log"`
}

func (a *Access) extendKey(ctx context.Context, in keyExtend) (out Key, err error) {
	if !in.ExpiresIn.Set && !in.ExpiresAt.Set {
		return out, op.Invalid("body.expires_in", "Field required")
	}
	c := From(ctx)
	err = a.update(ctx, func(tx *db.Tx) error {
		r := a.reader(tx)
		caller, target, err := r.mayWiden(c, in.ID)
		if err != nil {
			return err
		}
		row := target.key
		if target.why == expired {
			if err := r.roomForKey(row.workspace); err != nil {
				return err
			}
		}
		if err := r.newEnd(&row, in.ExpiresIn, in.ExpiresAt); err != nil {
			return err
		}
		if was := target.key.expires; was == 0 && row.expires != 0 || row.expires != 0 && row.expires < was {
			return op.Invalid("body.expires_in", "That is earlier than the end that is set (%s). key.update brings an end forward", endText(was))
		}
		if err := caller.outlived(row); err != nil {
			return err
		}
		out, err = r.save(row, target.key, in.Reason)
		return err
	})
	return out, err
}

// outlived refuses a personal key that would end later than another one of the same member that asks for it: two keys could keep each other
// alive for ever, and with them whoever found one.
func (r rights) outlived(row keyRow) error {
	if row.kind != personal.String() || row.user != r.key.user || r.expires == 0 || row.expires != 0 && row.expires <= r.expires {
		return nil
	}
	return op.Invalid("body.expires_in", "The key that asks ends at %s itself, and gives no other key of its member more time. Another member who manages keys can, or a new login: unstuck auth login", endText(r.expires))
}

// newEnd sets an end that may be later than the one before. It revives a key that expired lately, and never outlives the keys above.
func (r *reader) newEnd(row *keyRow, in op.Opt[string], at op.Opt[op.Time]) error {
	now := r.a.now()
	if row.expires != 0 && now-row.expires > reviveFor {
		return KeyEnded.Msg("Key %s expired more than 30 days ago. Make a new one.", row.id)
	}
	end, err := lifetime(in, at, "", now)
	if err != nil {
		return err
	}
	if row.parent != "" {
		parent, err := r.key(row.workspace, row.parent)
		if err != nil {
			return err
		}
		above, err := r.rights(parent)
		if err != nil {
			return err
		}
		if err := notAfter(end, above.expires, at); err != nil {
			return err
		}
	}
	row.expires = end
	return nil
}

func endText(at int64) string {
	if at == 0 {
		return "never"
	}
	return op.Time(at).String()
}
