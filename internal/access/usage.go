package access

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// LastUsed is the last call of a secret that passed authentication, refused ones included.
type LastUsed struct {
	Operation string `json:"operation"`
	Via       string `json:"door" doc:"rest, mcp, what the caller says it is (cli, stdio, web), or verify: another service was shown the key and asked"`
	IP        string `json:"ip" doc:"empty when the service that was shown the key did not say"`
	UserAgent string `json:"user_agent"`
	Code      string `json:"code" doc:"empty when the call succeeded, else the code of its refusal or failure"`
}

// program is who made the call, as people recognise it: the first word of the user agent, or the address.
func (l *LastUsed) program() string {
	if l == nil {
		return ""
	}
	first, _, _ := strings.Cut(l.UserAgent, " ")
	if first == "" {
		return l.IP
	}
	return first
}

// use is one authenticated call.
type use struct {
	key                         *key
	at                          int64
	digits                      uint32
	class                       class
	operation, via, agent, code string
	address                     netip.Addr // invalid: a local socket
}

// viaVerify is the way in of a key that was shown to another service, which asked about it.
const viaVerify = "verify"

// untold stands for the address of a caller of another service that did not say it. It is nobody's.
var untold = netip.IPv6Unspecified()

func (u use) show() LastUsed {
	return LastUsed{u.operation, u.via, addrText(u.address), u.agent, u.code}
}

// class is how a call ended, as far as activity tells it.
type class uint8

const (
	classOK class = iota
	classRefused
	classFailed
)

func (c class) String() string { return [...]string{"ok", "refused", "failed"}[c] }

// usage gathers last uses and activity in memory. They are written to the database every few seconds and at an orderly stop; a
// crash loses at most those seconds. What is read joins both.
type usage struct {
	mu     sync.Mutex
	fresh  []use              // in the order of the calls, not yet folded into the maps
	last   map[uint32]use     // by digits; not yet written, or newer than what was
	counts map[activity]int64 // not yet written
	hashes map[uint32]rehashed

	flush sync.Mutex              // one at a time; it guards what follows
	day   int64                   // when a flush last ran
	seen  map[keyDay][]netip.Addr // from where a key was used on a day; what is older than a day is forgotten
}

// activity is what calls are counted by.
type activity struct {
	key       *key
	hour      int64
	operation string
	class     class
	address   netip.Addr
}

// keyDay is a key on a day, whose addresses are told apart up to a number.
type keyDay struct {
	key *key
	day int64
}

// rehashed is the hash of a secret under a newer server secret.
type rehashed struct {
	hash  [32]byte
	epoch uint16
}

const (
	hourUS      = 60 * minuteUS
	dayUS       = 24 * hourUS
	foldAt      = 512         // calls that wait to be folded
	flushMost   = 200         // rows in one transaction, so that other writers get their turn
	addressMost = 64          // addresses told apart per key and day; the rest count as 'other'
	activityFor = 400 * dayUS // how long activity is kept
	maxAgent    = 200         // bytes of a user agent
)

// note takes in one authenticated call. It only puts it down: what is to be counted is counted later, for many calls at a time.
func (u *usage) note(x use) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.fresh == nil {
		u.fresh = make([]use, 0, foldAt)
	}
	if u.fresh = append(u.fresh, x); len(u.fresh) == foldAt {
		u.fold()
	}
}

// useOf is a call of a key as it is noted.
func (c *Caller) useOf(call *op.Call, err *op.Error) use {
	x := use{
		key: c.grant.key, at: c.a.now(), digits: c.grant.digits, operation: call.Name, via: doorOf(call),
		agent: agentOf(call.UserAgent), address: c.addr,
	}
	if err != nil {
		x.code, x.class = err.Code.Name, classFailed
		if isRefusal(err.Code) || err.Code.Name == RateLimitExceeded.Name {
			x.class = classRefused
		}
	}
	return x
}

// agentOf is the beginning of a user agent, without keys: what is noted is shown to others.
func agentOf(said string) string {
	s, _ := Redact(said)
	return s[:min(maxAgent, len(s))]
}

// doorOf is how a call came, as people are told: what the caller says it is, or the door.
func doorOf(call *op.Call) string {
	if call.Client != "" {
		return call.Client
	}
	return call.Via
}

// fold counts the calls that were put down. The lock is held.
func (u *usage) fold() {
	if u.last == nil {
		u.last, u.counts = map[uint32]use{}, map[activity]int64{}
	}
	for _, x := range u.fresh {
		if x.at >= u.last[x.digits].at {
			u.last[x.digits] = x
		}
		u.counts[activity{x.key, x.at / hourUS, x.operation, x.class, x.address}]++
	}
	clear(u.fresh)
	u.fresh = u.fresh[:0]
}

// lastOf is the last use of a secret that is not yet in the database.
func (u *usage) lastOf(digits string) (use, bool) {
	n, _ := parseDigits(digits)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.fold()
	x, ok := u.last[n]
	return x, ok
}

// lastUse is the last use of a secret: the later of what the database and memory know.
func (a *Access) lastUse(s secretRow) (*op.Time, *LastUsed, error) {
	if x, ok := a.usage.lastOf(s.digits); ok && x.at >= s.lastUse {
		t, l := op.Time(x.at), x.show()
		return &t, &l, nil
	}
	if s.lastUse == 0 {
		return nil, nil, nil
	}
	t, l := op.Time(s.lastUse), &LastUsed{}
	if err := json.Unmarshal([]byte(s.lastUsed), l); err != nil {
		return nil, nil, fmt.Errorf("read the last use of a secret: %w", err)
	}
	return &t, l, nil
}

// rehash hashes a secret under the newest server secret: in memory now, in the database with the next flush.
func (a *Access) rehash(s Secret) {
	e := a.sealer.current()
	r := rehashed{e.hash(s), e.number}
	a.table.rehash(s.digits(), r.hash, r.epoch)
	a.usage.mu.Lock()
	defer a.usage.mu.Unlock()
	if a.usage.hashes == nil {
		a.usage.hashes = map[uint32]rehashed{}
	}
	a.usage.hashes[s.digits()] = r
}

// Flush writes what was gathered. What could not be written is gathered again, so that nothing is lost.
func (a *Access) Flush(ctx context.Context) error {
	u := &a.usage
	u.flush.Lock()
	defer u.flush.Unlock()
	u.forgetDays(a.now() / dayUS)
	u.mu.Lock()
	u.fold()
	last, counts, hashes := maps.Clone(u.last), u.counts, u.hashes
	u.counts, u.hashes = map[activity]int64{}, nil
	u.mu.Unlock()
	if err := a.write(ctx, last, counts, hashes); err != nil {
		u.takeBack(counts, hashes)
		return fmt.Errorf("write what keys did: %w", err)
	}
	return nil
}

// takeBack gathers again what was not written.
func (u *usage) takeBack(counts map[activity]int64, hashes map[uint32]rehashed) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for k, n := range counts {
		u.counts[k] += n
	}
	newer := u.hashes
	if u.hashes = hashes; hashes == nil {
		u.hashes = newer
		return
	}
	maps.Copy(u.hashes, newer)
}

// write stores last uses, counts and hashes, some at a time; what was written is taken out of the maps.
func (a *Access) write(ctx context.Context, last map[uint32]use, counts map[activity]int64, hashes map[uint32]rehashed) error {
	for batch := range slices.Chunk(slices.Collect(maps.Values(last)), flushMost) {
		if err := a.DB.Update(ctx, func(tx *db.Tx) error { return writeLast(tx, batch) }); err != nil {
			return err
		}
		a.usage.written(batch)
	}
	for batch := range slices.Chunk(slices.Collect(maps.Keys(counts)), flushMost) {
		if err := a.usage.rememberAddresses(ctx, a.DB, batch); err != nil {
			return err
		}
		rows := a.usage.rows(batch, counts)
		if err := a.DB.Update(ctx, rows.write); err != nil {
			return err
		}
		for _, k := range batch {
			delete(counts, k)
		}
	}
	if len(hashes) == 0 {
		return nil
	}
	return a.DB.Update(ctx, func(tx *db.Tx) error {
		for d, h := range hashes {
			if _, err := tx.Exec(sqlSecretsRehash, digitString(d), h.hash[:], int64(h.epoch)); err != nil {
				return err
			}
		}
		return nil
	})
}

func writeLast(tx *db.Tx, batch []use) error {
	var digits, what []string
	var at []int64
	for _, x := range batch {
		digits, at, what = append(digits, digitString(x.digits)), append(at, x.at), append(what, string(op.Marshal(x.show())))
	}
	_, err := tx.Exec(sqlSecretsUsed, digits, at, what)
	return err
}

// written forgets last uses that are in the database, unless the secret was used again.
func (u *usage) written(batch []use) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, x := range batch {
		if u.last[x.digits].at == x.at {
			delete(u.last, x.digits)
		}
	}
}

// forgetDays drops the addresses of days gone by.
func (u *usage) forgetDays(today int64) {
	if u.day != today {
		maps.DeleteFunc(u.seen, func(k keyDay, _ []netip.Addr) bool { return k.day < today-1 })
		u.day = today
	}
}

// rememberAddresses makes known from which addresses keys were used on the days that are to be written. The database is asked once
// for each key and day.
func (u *usage) rememberAddresses(ctx context.Context, d *db.DB, batch []activity) error {
	ask := map[int64]map[string]*key{} // by day and id
	for _, x := range batch {
		day := x.day()
		if _, known := u.seen[day]; known {
			continue
		}
		if ask[day.day] == nil {
			ask[day.day] = map[string]*key{}
		}
		ask[day.day][x.key.id()] = x.key
	}
	for day, keys := range ask {
		if err := u.readAddresses(ctx, d, day, keys); err != nil {
			return err
		}
	}
	return nil
}

func (u *usage) readAddresses(ctx context.Context, d *db.DB, day int64, keys map[string]*key) error {
	found := map[keyDay][]netip.Addr{}
	err := d.View(ctx, func(tx *db.Tx) error {
		from := day * dayUS / hourUS
		return each(tx, sqlActivitySeen, []any{slices.Collect(maps.Keys(keys)), from, from + dayUS/hourUS}, func(r *sql.Rows) error {
			var id, text string
			err := r.Scan(&id, &text)
			address, _ := netip.ParseAddr(text) // the zero address for a local socket and for "other"
			at := keyDay{keys[id], day}
			found[at] = append(found[at], address)
			return err
		})
	})
	if err != nil {
		return err
	}
	if u.seen == nil {
		u.seen = map[keyDay][]netip.Addr{}
	}
	for _, k := range keys {
		u.seen[keyDay{k, day}] = found[keyDay{k, day}]
	}
	return nil
}

func (x activity) day() keyDay { return keyDay{x.key, x.hour * hourUS / dayUS} }

// otherAddress stands in the database for the addresses beyond those that are told apart.
const otherAddress = "other"

// addressOf is how the address of a call is written down.
func (u *usage) addressOf(x activity) string {
	switch seen := u.seen[x.day()]; {
	case slices.Contains(seen, x.address):
	case len(seen) >= addressMost:
		return otherAddress
	default:
		u.seen[x.day()] = append(seen, x.address)
	}
	return addrText(x.address)
}

// activityRows are counts as columns.
type activityRows struct {
	keys, operations, addresses, classes []string
	hours, counts                        []int64
}

func (u *usage) rows(batch []activity, counts map[activity]int64) activityRows {
	type place struct {
		key                       *key
		hour                      int64
		operation, address, class string
	}
	sums := map[place]int64{} // several addresses may be 'other'
	for _, x := range batch {
		sums[place{x.key, x.hour, x.operation, u.addressOf(x), x.class.String()}] += counts[x]
	}
	var r activityRows
	for p, n := range sums {
		r.keys, r.operations, r.addresses, r.classes = append(r.keys, p.key.id()), append(r.operations, p.operation), append(r.addresses, p.address), append(r.classes, p.class)
		r.hours, r.counts = append(r.hours, p.hour), append(r.counts, n)
	}
	return r
}

func (r activityRows) write(tx *db.Tx) error {
	_, err := tx.Exec(sqlActivityAdd, r.keys, r.hours, r.operations, r.addresses, r.classes, r.counts)
	return err
}

// forgetActivity deletes what is too old. Keys are looked through by the beginning of their id, one beginning a minute, all of them
// within a day: a delete by hour alone would read the whole table.
func (a *Access) forgetActivity(ctx context.Context) error {
	now := a.now()
	first := now / minuteUS % int64(len(idLetters)*len(idLetters))
	from := keyPrefix + string(idLetters[first/int64(len(idLetters))]) + string(idLetters[first%int64(len(idLetters))])
	return a.DB.Update(ctx, func(tx *db.Tx) error {
		_, err := tx.Exec(sqlActivityEnd, from, from+"~", (now-activityFor)/hourUS)
		return err
	})
}

// ActivityRow is how often a key called an operation from an address in one hour, and how that ended.
type ActivityRow struct {
	Hour      op.Time `json:"hour" doc:"beginning of the hour"`
	Operation string  `json:"operation"`
	IP        string  `json:"ip" doc:"'other' beyond 64 addresses a day; empty when a service that was shown the key did not say"`
	Result    string  `json:"result" doc:"ok, refused (permission, restriction, limit) or failed"`
	Count     int64   `json:"count"`
}

// Activity is what a key did, by hour.
type Activity struct {
	Rows []ActivityRow `json:"activity"`
}

type keyActivity struct {
	ID    string          `json:"id" doc:"id of the key"`
	Since op.Opt[op.Time] `json:"since" doc:"only from this moment on; default 30 days ago"`
}

func (a *Access) activityOfKey(ctx context.Context, in keyActivity) (Activity, error) {
	out := Activity{Rows: []ActivityRow{}}
	if err := a.Flush(ctx); err != nil { // so that the answer is right to the second
		return out, err
	}
	since := int64(in.Since.Or(op.Time(a.now() - 30*dayUS)))
	err := a.DB.View(ctx, func(tx *db.Tx) error {
		if _, err := findKey(tx, From(ctx), in.ID); err != nil {
			return err
		}
		return each(tx, sqlActivityOfKey, []any{in.ID, since / hourUS}, func(r *sql.Rows) error {
			var row ActivityRow
			var hour int64
			err := r.Scan(&hour, &row.Operation, &row.IP, &row.Result, &row.Count)
			row.Hour = op.Time(hour * hourUS)
			out.Rows = append(out.Rows, row)
			return err
		})
	})
	return out, err
}
