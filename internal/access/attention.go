package access

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Reasons why somebody should look at a key (WORDS 5), the most urgent first.
const (
	ExpiredStillTried = "expired_still_tried" // it expired, and somebody was refused with it in the last 7 days
	Expiring          = "expiring"            // it ends soon and was used in the last 30 days; see endsSoon
	OldSecretUsed     = "old_secret_used"     // it rotates, and the old secret was used after the new one was made
	IsStale           = "stale"               // not used for 90 days
	NeverExpires      = "never_expires"       // it has no end and is older than a year
	SeveralPrograms   = "several_programs"    // in the last 2 days two addresses used it side by side for 3 hours
	WiderThanUsed     = "wider_than_used"     // full for at least 30 days, and in 90 days a smaller scope would have done
)

// Attention is one reason to look at one key.
type Attention struct {
	KeyID    string   `json:"key_id"`
	Name     string   `json:"name"`
	Redacted string   `json:"redacted"`
	Reason   string   `json:"reason" doc:"expired_still_tried, expiring, old_secret_used, stale, never_expires, several_programs or wider_than_used"`
	At       *op.Time `json:"at" doc:"when it expired or expires; since when it was not used, or exists; null otherwise"`
	Count    int64    `json:"count" doc:"of expired_still_tried: refused calls since then"`
	From     []string `json:"from" doc:"who it is about: addresses, or the program that uses the old secret"`
	Scope    string   `json:"scope" doc:"of wider_than_used: the smallest scope that would have done; else empty"`
}

// AttentionList is every key of the workspace that needs attention.
type AttentionList struct {
	Keys []Attention `json:"keys" doc:"the most urgent reason first; a key can be there for several"`
}

const (
	soonMost    = 14 * dayUS // how long before its end a key is called expiring, at most
	triedLately = 7 * dayUS
	usedLately  = 30 * dayUS
	sideBySide  = 2 * dayUS
	judgedOver  = 90 * dayUS
	judgedAfter = 30 * dayUS
)

// endsSoon says that at most 14 days, or a quarter of a key's life, are left, whichever is less: a key for 30 days is not expiring on the
// day when it is made.
func endsSoon(created, end, now int64) bool { return end-now <= min(soonMost, (end-created)/4) }

// keysInNeed finds the keys that need attention, among the newest 4,999, of those that were not revoked.
func (a *Access) keysInNeed(ctx context.Context, _ struct{}) (AttentionList, error) {
	out := AttentionList{Keys: []Attention{}}
	if err := a.Flush(ctx); err != nil { // so that the answer is right to the second
		return out, err
	}
	if err := a.WriteRefusals(ctx, false); err != nil {
		return out, err
	}
	err := a.DB.View(ctx, func(tx *db.Tx) error {
		n := need{a: a, tx: tx, now: a.now(), workspace: From(ctx).Workspace()}
		if err := n.read(); err != nil {
			return err
		}
		out.Keys = []Attention{}
		for _, rule := range []func(Key) (Attention, error){n.stillTried, n.expiring, n.oldSecret, n.stale, n.never, n.several, n.wider} {
			for _, k := range n.keys {
				at, err := rule(k)
				if err != nil {
					return err
				}
				if at.Reason == "" {
					continue
				}
				at.KeyID, at.Name, at.Redacted = k.ID, k.Name, k.Redacted
				if at.From == nil {
					at.From = []string{}
				}
				out.Keys = append(out.Keys, at)
			}
		}
		return nil
	})
	return out, err
}

// need is what the rules look at, in one transaction.
type need struct {
	a         *Access
	tx        *db.Tx
	now       int64
	workspace string
	keys      []Key
	places    map[string]map[int64][]netip.Prefix // by key and hour, of the last 2 days
	called    map[string][]string                 // operations by key, of full keys in the last 90 days
}

func (n *need) read() error {
	page, err := keyList{Limit: lookMost - 1}.page(n.a.reader(n.tx), n.workspace)
	if err != nil {
		return err
	}
	n.keys = slices.DeleteFunc(page.Keys, func(k Key) bool { return k.Status == statusOf(revoked) })
	var busy, full []string
	for _, k := range n.keys {
		if k.usedWithin(n.now, sideBySide) {
			busy = append(busy, k.ID)
		}
		if k.Scope == "full" && k.Kind == integration.String() && k.Status == statusOf(stands) && n.now-int64(k.CreatedAt) >= judgedAfter {
			full = append(full, k.ID)
		}
	}
	if err := n.readPlaces(busy); err != nil {
		return err
	}
	n.called = map[string][]string{}
	return each(n.tx, sqlActivityOperations, []any{full, (n.now - judgedOver) / hourUS}, func(r *sql.Rows) error {
		var id, operation string
		err := r.Scan(&id, &operation)
		n.called[id] = append(n.called[id], operation)
		return err
	})
}

// readPlaces notes from where keys were used in each hour. IPv6 addresses count by /64, like everywhere.
func (n *need) readPlaces(keys []string) error {
	n.places = map[string]map[int64][]netip.Prefix{}
	return each(n.tx, sqlActivityPlaces, []any{keys, (n.now - sideBySide) / hourUS}, func(r *sql.Rows) error {
		var id, text string
		var hour int64
		if err := r.Scan(&id, &hour, &text); err != nil {
			return err
		}
		addr, err := netip.ParseAddr(text)
		if err != nil { // a local socket, one of many others, or not told
			return nil
		}
		if n.places[id] == nil {
			n.places[id] = map[int64][]netip.Prefix{}
		}
		if place := placeOf(addr); !slices.Contains(n.places[id][hour], place) {
			n.places[id][hour] = append(n.places[id][hour], place)
		}
		return nil
	})
}

// placeOf is an address as far as it tells who calls: an IPv4 address, or the first half of an IPv6 one.
func placeOf(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // which does not fail for these lengths
	return p
}

func (k Key) usedWithin(now, span int64) bool {
	return k.LastUsedAt != nil && now-int64(*k.LastUsedAt) < span
}

func (n *need) stillTried(k Key) (at Attention, err error) {
	if k.Status != statusOf(expired) || k.ExpiresAt == nil {
		return at, nil
	}
	at = Attention{At: k.ExpiresAt, Count: n.a.refused.tries(k.ID, KeyExpired.Name)}
	last := int64(0)
	if at.Count > 0 {
		last = n.now
	}
	err = each(n.tx, sqlAuditTries, []any{n.workspace, k.ID, KeyExpired.Name, int64(*k.ExpiresAt)}, func(r *sql.Rows) error {
		var body string
		var row AuditRow
		if err := r.Scan(&body); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(body), &row); err != nil {
			return fmt.Errorf("read an audit row: %w", err)
		}
		at.Count, last = at.Count+row.Count, max(last, int64(row.At))
		if row.IP != "" && !slices.Contains(at.From, row.IP) {
			at.From = append(at.From, row.IP)
		}
		return nil
	})
	if at.Count > 0 && n.now-last < triedLately {
		at.Reason = ExpiredStillTried
	}
	return at, err
}

func (n *need) expiring(k Key) (at Attention, err error) {
	if k.ExpiresAt != nil && k.Status == statusOf(stands) && endsSoon(int64(k.CreatedAt), int64(*k.ExpiresAt), n.now) && k.usedWithin(n.now, usedLately) {
		at = Attention{Reason: Expiring, At: k.ExpiresAt}
	}
	return at, nil
}

func (n *need) oldSecret(k Key) (at Attention, err error) {
	var old, fresh *SecretInfo
	for i, s := range k.Secrets {
		switch s.State {
		case stateOld.String():
			old = &k.Secrets[i]
		case stateCurrent.String():
			fresh = &k.Secrets[i]
		}
	}
	if k.Status != statusOf(stands) || old == nil || fresh == nil || old.LastUsedAt == nil || *old.LastUsedAt < fresh.CreatedAt {
		return at, nil
	}
	return Attention{Reason: OldSecretUsed, At: old.EndsAt, From: []string{old.LastUsed.program()}}, nil
}

func (n *need) stale(k Key) (at Attention, err error) {
	if !k.Stale || k.Status != statusOf(stands) {
		return at, nil
	}
	since := &k.CreatedAt
	if k.LastUsedAt != nil {
		since = k.LastUsedAt
	}
	return Attention{Reason: IsStale, At: since}, nil
}

func (n *need) never(k Key) (at Attention, err error) {
	if k.ExpiresAt == nil && k.Status == statusOf(stands) && !k.Stale && n.now-int64(k.CreatedAt) >= yearUS {
		at = Attention{Reason: NeverExpires, At: &k.CreatedAt}
	}
	return at, nil
}

// several finds two addresses that used a key side by side: both in each of three hours running. A laptop that moves from one network
// to another is not that. Only addresses of one family count, since one program may use both.
func (n *need) several(k Key) (at Attention, err error) {
	hours := n.places[k.ID]
	for h, here := range hours {
		for _, four := range [...]bool{true, false} {
			var from []string
			for _, p := range here {
				if p.Addr().Is4() == four && slices.Contains(hours[h+1], p) && slices.Contains(hours[h+2], p) {
					from = append(from, p.Addr().String())
				}
			}
			if len(from) > max(1, len(at.From)) {
				slices.Sort(from)
				at = Attention{Reason: SeveralPrograms, From: from}
			}
		}
	}
	return at, nil
}

// wider finds a full key that used nothing beyond a smaller scope. What a key is verified for elsewhere is not known, so nothing is said
// about one that is.
func (n *need) wider(k Key) (at Attention, err error) {
	var used permSet
	for _, name := range n.called[k.ID] {
		i := slices.IndexFunc(n.a.ops, func(o *op.Operation) bool { return o.Name == name })
		if i < 0 || name == "key.verify" || name == "key.authorize" {
			return at, nil
		}
		if p := n.a.ops[i].Needs.Permission(); p != "" {
			used |= bit(p)
		}
	}
	if smallest := scopesHolding(used)[0]; used != 0 && smallest != "full" {
		at = Attention{Reason: WiderThanUsed, Scope: smallest}
	}
	return at, nil
}
