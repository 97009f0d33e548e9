package access

import (
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
)

// table holds every key and secret in memory, so that a call is verified without asking the database. One lock guards it: whoever
// commits a change publishes it here before its caller is answered, so a verification that starts after a reply sees it. Records
// are taken only if their rev is higher than what is held, and a revocation never goes back.
//
// A server may hold millions of keys, so their records are small, lie in blocks and are found by number.
type table struct {
	mu         sync.RWMutex
	workspaces map[string]*workspace
	members    map[memberID]*member
	keys       slab[key]
	keyByID    map[keyID]uint32
	secrets    slab[secret]
	byDigits   map[uint32]uint32
	handed     map[uint32]struct{} // digits of the secrets of personal keys that were handed over, by whoever is noted as having seen them
	prefixes   []string            // that secrets were made with, the present one first
}

func newTable() *table {
	return &table{
		workspaces: map[string]*workspace{}, members: map[memberID]*member{}, keyByID: map[keyID]uint32{}, byDigits: map[uint32]uint32{}, handed: map[uint32]struct{}{},
	}
}

// keyID is a key's id without "key_".
type keyID [12]byte

type memberID struct{ workspace, user string }

type workspace struct {
	id     string
	rev    int64
	limits limits
}

type member struct {
	ws     *workspace
	user   string
	role   string  // "" once the person left
	perms  permSet // the most that a personal key can hold
	rev    int64
	unsure bool // a change was perhaps saved; see Access.settle
}

type key struct {
	member  atomic.Pointer[member] // changes when the key is handed over, within its workspace
	parent  *key
	rules   atomic.Pointer[rules] // nil: none
	perms   permSet               // of the key alone
	expires int64                 // microseconds; 0: never
	rev     int64
	raw     keyID
	scope   uint8 // see scopeIndex
	kind    kind
	revoked bool
	unsure  bool // a change was perhaps saved; see Access.settle
}

type kind uint8

const (
	personal kind = iota
	integration
)

func (k kind) String() string { return [...]string{"personal", "integration"}[k] }

func kindOf(s string) kind {
	if s == personal.String() {
		return personal
	}
	return integration
}

type secret struct {
	key    *key
	ends   int64 // of an old one
	hash   [32]byte
	digits uint32
	epoch  uint16
	state  secretState
	prefix uint8 // place in table.prefixes
}

// secretState is where a secret stands on its way, which only leads forward.
type secretState uint8

const (
	statePending secretState = iota // made by a rotation, not yet used
	stateCurrent
	stateOld   // replaced; works until its end
	stateEnded // answers key_rotated
)

var secretStates = [...]string{"pending", "current", "old", "ended"}

func (s secretState) String() string { return secretStates[s] }

func secretStateOf(s string) secretState {
	if i := slices.Index(secretStates[:], s); i >= 0 {
		return secretState(i)
	}
	return stateEnded
}

func (s *secret) over(now int64) bool {
	return s.state == stateEnded || s.state == stateOld && now >= s.ends
}

const keyPrefix = "key_"

// id is "" for a key that does not exist; see imagine.
func (k *key) id() string {
	if k.raw == (keyID{}) {
		return ""
	}
	return keyPrefix + string(k.raw[:])
}

func (k *key) ws() *workspace { return k.member.Load().ws }

func keyIDOf(id string) (raw keyID, ok bool) {
	if len(id) != len(keyPrefix)+len(raw) || id[:len(keyPrefix)] != keyPrefix {
		return raw, false
	}
	copy(raw[:], id[len(keyPrefix):])
	return raw, true
}

// chain is the key and each of its ancestors, nearest first.
func (k *key) chain() iter.Seq[*key] {
	return func(yield func(*key) bool) {
		for ; k != nil && yield(k); k = k.parent {
		}
	}
}

// key finds a key by id; nil when there is none. The lock is held.
func (t *table) key(id string) *key {
	raw, ok := keyIDOf(id)
	if !ok {
		return nil
	}
	if at, ok := t.keyByID[raw]; ok {
		return t.keys.at(at)
	}
	return nil
}

// secret finds a secret by its digits; nil when there is none. The lock is held.
func (t *table) secret(digits uint32) *secret {
	if at, ok := t.byDigits[digits]; ok {
		return t.secrets.at(at)
	}
	return nil
}

// standing is why a key passes or does not.
type standing uint8

const (
	stands  standing = iota
	notYet           // before its not_before
	unsure           // see Access.settle
	unknown          // no such key
	revoked
	expired
	rotated
	replaced // rotated, and it had been handed over
)

// passes says whether such a key is authenticated. A key before its time is: that is a restriction, not an end.
func (s standing) passes() bool { return s == stands || s == notYet }

// judge looks at a key and its chain at a moment: what it may do, and why it may not be used at all. The lock is held.
func (k *key) judge(now int64) (perms permSet, why standing) {
	perms = allPerms
	for x := k; x != nil; x = x.parent {
		r, m := x.rules.Load(), x.member.Load()
		perms &= x.perms
		if x.kind == personal {
			perms &= m.perms
		}
		switch {
		case x.revoked || x.kind == personal && m.role == "":
			return 0, revoked
		case x.unsure || x.kind == personal && m.unsure:
			return 0, unsure
		case x.expires != 0 && now >= x.expires:
			why = expired
		case why == stands && r != nil && r.NotBefore != nil && now < int64(*r.NotBefore):
			why = notYet
		}
	}
	if !why.passes() {
		perms = 0
	}
	return perms, why
}

// grant is what a verification found: the key, by which of its secrets, and what it may do after its whole chain.
type grant struct {
	key    *key
	perms  permSet
	prefix string // of the secret
	digits uint32 // of the secret
	scope  uint8
	fresh  bool // the secret is pending: this is its first use
	aged   bool // the secret is hashed under an older server secret
	handed bool // somebody who handed the key over knows the secret too
}

// redacted is the form of the secret that was presented; "" when none was.
func (g grant) redacted() string {
	if g.prefix == "" {
		return ""
	}
	return redacted(g.prefix, digitString(g.digits))
}

// verify finds the secret and judges its key. It allocates nothing.
func (t *table) verify(s Secret, sealer *sealer, now int64) (grant, standing) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	sec := t.secret(s.digits())
	if sec == nil || !sealer.matches(s, sec.epoch, &sec.hash) {
		return grant{}, unknown
	}
	g := grant{
		key: sec.key, prefix: t.prefixes[sec.prefix], digits: sec.digits, scope: sec.key.scope,
		fresh: sec.state == statePending, aged: sec.epoch != sealer.current().number, handed: t.isHanded(sec),
	}
	var why standing
	g.perms, why = sec.key.judge(now)
	switch {
	case !why.passes() || !sec.over(now):
	case g.handed:
		why = replaced
	default:
		why = rotated
	}
	return g, why
}

// again judges a grant once more, for calls that wait.
func (t *table) again(g grant, now int64) (permSet, standing) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	perms, why := g.key.judge(now)
	if why.passes() && t.secret(g.digits).over(now) {
		why = rotated
	}
	return perms, why
}

// grantOf is the grant of a key, whoever presents it; a grant without a key when there is none of this id.
func (t *table) grantOf(id string, now int64) (grant, standing) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	k := t.key(id)
	if k == nil {
		return grant{}, unknown
	}
	g := grant{key: k, scope: k.scope, handed: t.handedOver(k, now)}
	var why standing
	g.perms, why = k.judge(now)
	return g, why
}

// rehash replaces the hash of a secret by one under a newer server secret.
func (t *table) rehash(digits uint32, hash [32]byte, epoch uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if sec := t.secret(digits); sec.epoch < epoch {
		sec.hash, sec.epoch = hash, epoch
	}
}

// take takes committed rows into memory. A row that is not newer than what is held is passed over.
func (t *table) take(c *changes) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, w := range c.workspaces {
		t.takeWorkspace(w)
	}
	for _, m := range c.members {
		if err := t.takeMember(m); err != nil {
			return err
		}
	}
	for _, k := range c.keys {
		if err := t.takeKey(k); err != nil {
			return err
		}
	}
	for _, s := range c.secrets {
		if err := t.takeSecret(s); err != nil {
			return err
		}
	}
	return nil
}

func (t *table) takeWorkspace(w workspaceRow) {
	held := t.workspaces[w.id]
	if held == nil {
		held = &workspace{id: w.id, rev: -1}
		t.workspaces[w.id] = held
	}
	if w.rev <= held.rev {
		return
	}
	held.rev = w.rev
	held.limits.mu.Lock()
	defer held.limits.mu.Unlock()
	held.limits.all = held.limits.all.resized(w.rateLimit)
}

func (t *table) takeMember(m memberRow) error {
	id := memberID{m.workspace, m.user}
	held := t.members[id]
	if held == nil {
		ws := t.workspaces[m.workspace]
		if ws == nil {
			return fmt.Errorf("member %s belongs to a workspace that is not there", m.user)
		}
		held = &member{ws: ws, user: m.user, rev: -1}
		t.members[id] = held
	}
	if m.rev >= held.rev {
		held.role, held.perms, held.rev, held.unsure = m.role, roleBounds(m.role), m.rev, false
	}
	return nil
}

func (t *table) takeKey(row keyRow) error {
	k := t.key(row.id)
	if k != nil && row.rev < k.rev {
		return nil
	}
	m := t.members[memberID{row.workspace, row.user}]
	if m == nil {
		return fmt.Errorf("key %s belongs to a member that is not there", row.id)
	}
	r, err := readRules(row.restrictions)
	if err != nil {
		return fmt.Errorf("key %s: %w", row.id, err)
	}
	perms, err := effective(row.scope, row.permissions)
	if err != nil {
		return fmt.Errorf("key %s: %w", row.id, err)
	}
	if k == nil { // only now, so that no half record is ever there
		if k, err = t.newKey(row); err != nil {
			return err
		}
	}
	k.member.Store(m)
	k.perms, k.scope, k.expires, k.rev, k.unsure = perms, scopeIndex(row.scope), row.expires, row.rev, false
	k.revoked = k.revoked || row.revoked != 0
	k.restrict(r, &m.ws.limits)
	return nil
}

// restrict replaces the restrictions of a key; the window of its own limit goes on.
func (k *key) restrict(r *rules, l *limits) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r != nil {
		var before *ring
		if held := k.rules.Load(); held != nil {
			before = held.calls
		}
		r.calls = before.resized(r.RatePerMinute)
	}
	k.rules.Store(r)
}

// newKey makes the record of a key of which only what never changes is set.
func (t *table) newKey(row keyRow) (*key, error) {
	raw, ok := keyIDOf(row.id)
	if !ok {
		return nil, fmt.Errorf("key %q has an id of the wrong form", row.id)
	}
	var parent *key
	if row.parent != "" {
		if parent = t.key(row.parent); parent == nil {
			return nil, fmt.Errorf("the parent of key %s is not there", row.id)
		}
	}
	k, at := t.keys.add()
	k.raw, k.parent, k.kind, k.rev = raw, parent, kindOf(row.kind), -1
	t.keyByID[raw] = at
	return k, nil
}

func (t *table) takeSecret(row secretRow) error {
	digits, ok := parseDigits(row.digits)
	k := t.key(row.key)
	if !ok || k == nil || len(row.hash) != 32 {
		return fmt.Errorf("secret %s belongs to no key or has the wrong form", row.digits)
	}
	sec := t.secret(digits)
	if sec == nil {
		var at uint32
		sec, at = t.secrets.add()
		sec.key, sec.digits = k, digits
		t.byDigits[digits] = at
	}
	if row.shownTo != "" && k.kind == personal {
		t.handed[digits] = struct{}{}
	}
	if sec.prefix, ok = t.prefix(row.prefix); !ok {
		return fmt.Errorf("secret %s: there are too many different prefixes", row.digits)
	}
	if epoch := uint16(row.epoch); epoch > sec.epoch {
		sec.epoch = epoch
		copy(sec.hash[:], row.hash)
	}
	if state := secretStateOf(row.state); state >= sec.state {
		sec.state, sec.ends = state, row.ends
	}
	return nil
}

// prefix is the number of a prefix; there can be 256.
func (t *table) prefix(s string) (uint8, bool) {
	i := slices.Index(t.prefixes, s)
	if i < 0 && len(t.prefixes) < 256 {
		i = len(t.prefixes)
		t.prefixes = append(t.prefixes, s)
	}
	return uint8(max(i, 0)), i >= 0
}

// slab holds records in blocks: they are never moved, and none is rounded up to a size class.
type slab[T any] struct {
	blocks [][]T
	n      uint32
}

const blockSize = 1024

func (s *slab[T]) add() (*T, uint32) {
	if s.n%blockSize == 0 {
		s.blocks = append(s.blocks, make([]T, blockSize))
	}
	s.n++
	return s.at(s.n - 1), s.n - 1
}

func (s *slab[T]) at(i uint32) *T { return &s.blocks[i/blockSize][i%blockSize] }

// all is every record there is.
func (s *slab[T]) all() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for i := range s.n {
			if !yield(s.at(i)) {
				return
			}
		}
	}
}
