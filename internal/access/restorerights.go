package access

import (
	"slices"

	"unstuck/internal/db"
)

// A restored database is older than the one that it replaces, and rev tells how much: every change of a key or a membership raises it, so
// of the same row the one with the higher rev is the newer one. The replaced database may be what went wrong, though, and whoever could
// write to it could have given himself more there. So a newer row only takes away.

// keepNarrow leaves keys no more than the newer rows of another database say.
func (a *Access) keepNarrow(tx *db.Tx, newer []keyRow) (n int, err error) {
	for _, k := range newer {
		row, err := readKey(tx, k.workspace, k.id)
		if isNone(err) || err == nil && (row.revoked != 0 || k.rev <= row.rev) {
			continue
		}
		was := row
		if err == nil {
			err = row.within(k)
		}
		if err != nil {
			return n, err
		}
		if row == was {
			continue
		}
		n++
		row.rev = k.rev
		if err := setKey(tx, &row); err != nil {
			return n, err
		}
		detail := keyDiff(was, row, "")
		detail["kept"] = "narrower"
		if err := a.append(tx, row.workspace, a.serverRow("server.restore", "key", row.id, row.name, detail)); err != nil {
			return n, err
		}
	}
	return n, nil
}

// within narrows a key to what another row of it holds too.
func (k *keyRow) within(other keyRow) error {
	have, err := k.held()
	if err != nil {
		return err
	}
	most, err := other.held()
	if err != nil {
		return err
	}
	switch both := have & most; both {
	case have:
	case most:
		k.scope, k.permissions = other.scope, other.permissions
	default:
		k.scope, k.permissions = custom, listText(custom, both)
	}
	if other.expires != 0 && (k.expires == 0 || other.expires < k.expires) {
		k.expires = other.expires
	}
	rules, err := readRules(k.restrictions)
	if err != nil {
		return err
	}
	more, err := readRules(other.restrictions)
	if err != nil || more == nil {
		return err
	}
	k.restrictions = rules.and(more).text()
	return nil
}

// and is what two sets of rules allow together. Of lists that have nothing in common it takes the newer one: a list has an entry.
func (r *rules) and(newer *rules) *rules {
	out := rules{}
	if r != nil {
		out = *r
	}
	for _, l := range [...]struct {
		have  *[]string
		newer []string
	}{{&out.Cues, newer.Cues}, {&out.IPs, newer.IPs}, {&out.Via, newer.Via}, {&out.WorkerIDs, newer.WorkerIDs}} {
		if l.newer == nil {
			continue
		}
		both := slices.DeleteFunc(slices.Clone(*l.have), func(s string) bool { return !slices.Contains(l.newer, s) })
		if len(both) == 0 {
			both = l.newer
		}
		*l.have = both
	}
	if newer.RatePerMinute != 0 && (out.RatePerMinute == 0 || newer.RatePerMinute < out.RatePerMinute) {
		out.RatePerMinute = newer.RatePerMinute
	}
	if newer.NotBefore != nil && (out.NotBefore == nil || *newer.NotBefore > *out.NotBefore) {
		out.NotBefore = newer.NotBefore
	}
	return &out
}

// keepRoles demotes and removes the members whom another database had demoted or removed since. One admin stays.
func (a *Access) keepRoles(tx *db.Tx, newer []memberRow, kept *Kept) error {
	for _, n := range newer {
		m, err := readMember(tx, n.workspace, n.user)
		if isNone(err) || err == nil && (n.rev <= m.rev || rolePerms(n.role).holds(rolePerms(m.role))) {
			continue
		}
		if err != nil {
			return err
		}
		who, err := personByID(tx, m.user)
		if err != nil {
			return err
		}
		var admins int64
		if err := tx.Row(sqlAdmins, m.workspace).Scan(&admins); err != nil {
			return err
		}
		if m.role == RoleAdmin && admins < 2 {
			kept.Admins = append(kept.Admins, who.Email)
			continue
		}
		kept.Members++
		was := m.role
		m.role, m.rev = n.role, n.rev
		if err := setMembership(tx, m); err != nil {
			return err
		}
		detail := map[string]any{"kept": "role", "role": change{was, m.role}}
		if err := a.append(tx, m.workspace, a.serverRow("server.restore", "member", m.user, who.Email, detail)); err != nil {
			return err
		}
	}
	return nil
}
