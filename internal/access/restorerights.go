package access

import (
	"slices"
	"strings"

	"unstuck/internal/db"
)

// A restored database is older than the one that it replaces, and rev tells how much: every change of a key or a membership raises it, so
// of the same row the one with the higher rev is the newer one; of rows with the same rev that differ nobody can tell. The replaced database may be what went wrong, though, and whoever could
// write to it could have given himself more there. So such a row only takes away.

// keepNarrow leaves keys no more than the rows of another database say that are not older.
func (a *Access) keepNarrow(tx *db.Tx, newer []keyRow) (n int, err error) {
	for _, k := range newer {
		row, err := readKey(tx, k.workspace, k.id)
		if isNone(err) || err == nil && (row.revoked != 0 || k.rev < row.rev) {
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

// and is what two sets of rules allow together: never more than either does. A list that is left without an entry lets nothing through.
func (r *rules) and(other *rules) *rules {
	out := rules{}
	if r != nil {
		out = *r
	}
	out.Cues = inBoth(out.Cues, other.Cues, cuesInBoth)
	out.IPs = inBoth(out.IPs, other.IPs, netsInBoth)
	out.Via = inBoth(out.Via, other.Via, same)
	out.WorkerIDs = inBoth(out.WorkerIDs, other.WorkerIDs, same)
	if other.RatePerMinute != 0 && (out.RatePerMinute == 0 || other.RatePerMinute < out.RatePerMinute) {
		out.RatePerMinute = other.RatePerMinute
	}
	if other.NotBefore != nil && (out.NotBefore == nil || *other.NotBefore > *out.NotBefore) {
		out.NotBefore = other.NotBefore
	}
	return &out
}

// inBoth is what two lists allow together; nil is no list, and allows everything. The order is that of the first, of which an entry that
// the second allows whole stays as it is, so that the same list once more changes nothing.
func inBoth(a, b []string, both func(a, b string) string) []string {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	out := []string{}
	for _, x := range a {
		parts := []string{}
		for _, y := range b {
			s := both(x, y)
			if s == x {
				parts = []string{x}
				break
			}
			parts = append(parts, s)
		}
		for _, s := range parts {
			if s != "" && !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return out
}

// same is what two plain entries allow together; "" is nothing.
func same(a, b string) string {
	if a == b {
		return a
	}
	return ""
}

// netsInBoth is the network in which two networks overlap: the smaller one, or none.
func netsInBoth(a, b string) string {
	x, errX := parsePrefix(a)
	y, errY := parsePrefix(b)
	switch {
	case errX != nil || errY != nil || !x.Overlaps(y):
		return ""
	case x.Bits() >= y.Bits():
		return a
	}
	return b
}

// cuesInBoth is the pattern of the cues that two patterns match. An id and the beginning of a name have none, whatever the cue is
// called today: there is no pattern for both, and less is safe.
func cuesInBoth(a, b string) string {
	x, y := patternOf(a), patternOf(b)
	switch {
	case a == b || y.Any:
		return a
	case x.Any:
		return b
	case y.Prefix != "" && x.ID == "" && strings.HasPrefix(x.Name+x.Prefix, y.Prefix):
		return a
	case x.Prefix != "" && y.ID == "" && strings.HasPrefix(y.Name+y.Prefix, x.Prefix):
		return b
	}
	return ""
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
