package access

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"sync"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// LastUsed is the last call of a secret that passed authentication, refused ones included.
type LastUsed struct {
	Operation string `json:"operation"`
	Via       string `json:"door" doc:"rest, mcp, or what the caller says it is: cli, stdio, web"`
	IP        string `json:"ip"`
	UserAgent string `json:"user_agent"`
	Code      string `json:"code" doc:"empty when the call succeeded, else the code of its refusal or failure"`
}

type lastUse struct {
	at                          int64
	operation, via, agent, code string
	address                     netip.Addr
}

func (l lastUse) show() LastUsed {
	return LastUsed{l.operation, l.via, addrText(l.address), l.agent, l.code}
}

// otherAddr stands for the addresses beyond those that are told apart.
var otherAddr = netip.IPv6Unspecified()

func activityAddr(a netip.Addr) string {
	if a == otherAddr {
		return "other"
	}
	return addrText(a)
}

// usage gathers last uses and activity in memory. It is written to the database every few seconds and at an orderly stop; a crash
// loses at most those seconds. What is read joins both.
type usage struct {
	mu     sync.Mutex
	last   map[uint32]lastUse // by digits
	counts map[activityKey]int64
	days   map[dayKey]map[netip.Addr]bool // addresses seen by a key in a day
	rehash map[uint32]rehashed
	flush  sync.Mutex // one flush at a time
}

type activityKey struct {
	key              *key
	hour             int64
	operation, class string
	address          netip.Addr // invalid: a local socket
}

type dayKey struct {
	key *key
	day int64
}

type rehashed struct {
	hash  [32]byte
	epoch uint16
}

const (
	hourUS      = 3_600_000_000
	addressMost = 64                       // addresses told apart per key and day; the rest count as 'other'
	activityFor = 400 * 24 * int64(hourUS) // how long activity is kept
	maxAgent    = 200
)

// note counts one authenticated call.
func (u *usage) note(c *Caller, call *op.Call, err *op.Error) {
	now := c.a.now()
	class, code := "ok", ""
	if err != nil {
		code, class = err.Code.Name, "failed"
		if err.Code == InsufficientScope || err.Code == KeyRestricted || err.Code == RateLimitExceeded {
			class = "refused"
		}
	}
	via := call.Via
	if call.Client != "" {
		via = call.Client
	}
	agent := call.UserAgent
	if len(agent) > maxAgent {
		agent = agent[:maxAgent]
	}
	address := c.addr
	u.mu.Lock()
	defer u.mu.Unlock()
	u.init()
	if held := u.last[c.grant.digits]; now >= held.at {
		u.last[c.grant.digits] = lastUse{now, call.Name, via, agent, code, address}
	}
	day := dayKey{c.grant.key, now / (24 * hourUS)}
	seen := u.days[day]
	switch {
	case seen == nil:
		u.days[day] = map[netip.Addr]bool{address: true}
	case !seen[address] && len(seen) >= addressMost:
		address = otherAddr
	default:
		seen[address] = true
	}
	u.counts[activityKey{c.grant.key, now / hourUS, call.Name, class, address}]++
}

func (u *usage) init() {
	if u.last == nil {
		u.last, u.counts, u.days, u.rehash = map[uint32]lastUse{}, map[activityKey]int64{}, map[dayKey]map[netip.Addr]bool{}, map[uint32]rehashed{}
	}
}

// rehash hashes a secret under the newest server secret: in memory now, in the database with the next flush.
func (a *Access) rehash(s Secret, sec *secret) {
	e := a.sealer.current()
	r := rehashed{epoch: e.number}
	e.hash(s, &r.hash)
	a.table.mu.Lock()
	sec.hash, sec.epoch = r.hash, r.epoch
	a.table.mu.Unlock()
	a.usage.mu.Lock()
	defer a.usage.mu.Unlock()
	a.usage.init()
	a.usage.rehash[sec.digits] = r
}

// lastUseOf is the last use of a secret: the later of what the database and memory know.
func (a *Access) lastUseOf(s secretRow) (*op.Time, *LastUsed) {
	digits, _ := parseDigits(s.digits)
	a.usage.mu.Lock()
	held, ok := a.usage.last[digits]
	a.usage.mu.Unlock()
	if ok && (s.lastUse == nil || held.at >= *s.lastUse) {
		t := op.Time(held.at)
		l := held.show()
		return &t, &l
	}
	if s.lastUse == nil {
		return nil, nil
	}
	t, l := op.Time(*s.lastUse), &LastUsed{}
	if err := json.Unmarshal([]byte(s.lastUsed), l); err != nil {
		return &t, nil
	}
	return &t, l
}

// Flush writes what was gathered. On failure it is gathered again, so that nothing is lost.
func (a *Access) Flush(ctx context.Context) error {
	u := &a.usage
	u.flush.Lock()
	defer u.flush.Unlock()
	u.mu.Lock()
	last, counts, hashes := maps.Clone(u.last), u.counts, u.rehash
	u.counts, u.rehash = map[activityKey]int64{}, map[uint32]rehashed{}
	u.forgetDays(a.now())
	u.mu.Unlock()
	if len(last)+len(counts)+len(hashes) == 0 {
		return nil
	}
	written := map[uint32]int64{}
	err := a.DB.Update(ctx, func(tx *db.Tx) error { return u.write(tx, last, counts, hashes, written) })
	u.mu.Lock()
	defer u.mu.Unlock()
	u.init()
	if err != nil {
		for k, n := range counts {
			u.counts[k] += n
		}
		for d, h := range hashes {
			if _, newer := u.rehash[d]; !newer {
				u.rehash[d] = h
			}
		}
		return fmt.Errorf("write last uses: %w", err)
	}
	for d, at := range written {
		if u.last[d].at == at {
			delete(u.last, d)
		}
	}
	return nil
}

// forgetDays drops the address sets of days gone by. The lock is held.
func (u *usage) forgetDays(now int64) {
	for d := range u.days {
		if d.day < now/(24*hourUS) {
			delete(u.days, d)
		}
	}
}

func (u *usage) write(tx *db.Tx, last map[uint32]lastUse, counts map[activityKey]int64, hashes map[uint32]rehashed, written map[uint32]int64) error {
	clear(written)
	for d, l := range last {
		if _, err := tx.Exec(sqlSecretUsed, digitString(d), l.at, string(op.Marshal(l.show()))); err != nil {
			return err
		}
		written[d] = l.at
	}
	for k, n := range counts {
		if _, err := tx.Exec(sqlActivityAdd, k.key.id(), k.hour, k.operation, activityAddr(k.address), k.class, n); err != nil {
			return err
		}
	}
	for d, h := range hashes {
		if _, err := tx.Exec(sqlSecretRehash, digitString(d), h.hash[:], int64(h.epoch)); err != nil {
			return err
		}
	}
	return nil
}

// ActivityRow is how often a key called an operation from an address in one hour, and how that ended.
type ActivityRow struct {
	Hour      op.Time `json:"hour" doc:"beginning of the hour"`
	Operation string  `json:"operation"`
	IP        string  `json:"ip" doc:"'other' beyond 64 addresses a day"`
	Result    string  `json:"result" doc:"ok, refused (permission, restriction, limit) or failed"`
	Count     int64   `json:"count"`
}

func readActivity(tx *db.Tx, key string, since int64) ([]ActivityRow, error) {
	out := []ActivityRow{}
	err := each(tx, sqlActivityOfKey, []any{key, since / hourUS}, func(r *sql.Rows) error {
		var row ActivityRow
		var hour int64
		if err := r.Scan(&hour, &row.Operation, &row.IP, &row.Result, &row.Count); err != nil {
			return err
		}
		row.Hour = op.Time(hour * hourUS)
		out = append(out, row)
		return nil
	})
	return out, err
}
