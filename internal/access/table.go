package access

import (
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"
)

// table holds every key and secret in memory, so that a call is verified without asking the database. One lock guards it:
// whoever commits a change publishes it here before its caller is answered, so a verification that starts after a reply sees it.
// Records are taken only if their rev is higher than what is held, and a revocation never goes back.
type table struct {
	mu         sync.RWMutex
	workspaces map[string]*workspace
	members    map[memberID]*member
	keys       map[keyID]*key
	secrets    map[uint32]*secret
}

// keyID is a key's id without "key_": ids are half of what a key costs in memory otherwise.
type keyID [12]byte

type memberID struct{ workspace, user string }

type workspace struct {
	id, slug, name, plan string
	rev                  int64
	limits               limits
}

type member struct {
	id   memberID
	role string // "" once the person left
	rev  int64
}

type key struct {
	ws      *workspace
	member  *member
	parent  *key
	rules   atomic.Pointer[rules] // nil: none
	limit   *ring                 // nil: no limit of its own; guarded by ws.limits.mu
	perms   permSet
	expires int64 // microseconds; 0: never
	rev     int64
	raw     keyID
	scope   uint8 // place in scopes plus one; 0: custom
	kind    kind
	revoked bool
	used    bool // whether its last use is later than what the database knows
}

type kind uint8

const (
	personal kind = iota
	integration
)

func (k kind) String() string { return [...]string{"personal", "integration"}[k] }

func kindOf(s string) kind {
	if s == "personal" {
		return personal
	}
	return integration
}

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
	for i, name := range secretStates {
		if name == s {
			return secretState(i)
		}
	}
	return stateEnded
}

type secret struct {
	key    *key
	ends   int64 // of an old one
	hash   [32]byte
	digits uint32
	epoch  uint16
	state  secretState
}

func (k *key) id() string { return "key_" + string(k.raw[:]) }

func keyIDOf(id string) (raw keyID, ok bool) {
	if len(id) != 16 || id[:4] != "key_" {
		return raw, false
	}
	copy(raw[:], id[4:])
	return raw, true
}

// grant is what a verification found: the key, what it may do after its whole chain, and its restrictions.
type grant struct {
	key    *key
	digits uint32
	perms  permSet
	scope  uint8
}

// chain calls fn for the key and each of its ancestors, nearest first, until fn says stop.
func (g grant) chain(fn func(*key) bool) {
	for k := g.key; k != nil; k = k.parent {
		if !fn(k) {
			return
		}
	}
}

func (g grant) seesCue(id, name string) bool {
	ok := true
	g.chain(func(k *key) bool {
		r := k.rules.Load()
		ok = r == nil || r.Cues == nil || matchAny(r.Cues, id, name)
		return ok
	})
	return ok
}

func (g grant) cueFilter() [][]Pattern {
	var out [][]Pattern
	g.chain(func(k *key) bool {
		r := k.rules.Load()
		if r == nil || r.Cues == nil {
			return true
		}
		list := make([]Pattern, len(r.Cues))
		for i, s := range r.Cues {
			list[i] = patternOf(s)
		}
		out = append(out, list)
		return true
	})
	return out
}

func (g grant) allowsWorker(id string) bool {
	ok := true
	g.chain(func(k *key) bool {
		r := k.rules.Load()
		ok = r == nil || r.WorkerIDs == nil || slices.Contains(r.WorkerIDs, id)
		return ok
	})
	return ok
}

// standing is why a key passes or does not.
type standing uint8

const (
	stands standing = iota
	unknown
	revoked
	expired
	rotated
	notYet
)

// passes says whether such a key is authenticated.
func (s standing) passes() bool { return s == stands || s == notYet }

// judge looks at a key and its chain at a moment: what it may do, and why it may not be used at all. A key before its time
// stands as notYet, with its permissions: that is a restriction, not an end. The lock is held.
func (k *key) judge(now int64) (permSet, standing) {
	perms, why := allPerms, stands
	for x := k; x != nil; x = x.parent {
		r := x.rules.Load()
		switch {
		case x.revoked:
			return 0, revoked
		case x.expires != 0 && now >= x.expires:
			return 0, expired
		case r != nil && r.NotBefore != nil && now < int64(*r.NotBefore):
			why = notYet
		}
		perms &= x.own()
		if x.kind == personal {
			if x.member.role == "" {
				return 0, revoked
			}
			perms &= rolePerms(x.member.role) | ownPerms
		}
	}
	return perms, why
}

// ownPerms is what a personal key may do whatever the member's role, as far as its scope says so.
var ownPerms = mustPerms("keys:rotate-self")

// own is what the key's scope or list holds, without regard to its chain.
func (k *key) own() permSet {
	if k.scope == 0 {
		return k.perms
	}
	return scopes[k.scope-1].perms
}

// verify finds the secret and judges its key. It allocates nothing.
func (t *table) verify(s Secret, sealer *sealer, now int64) (grant, *secret, standing) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	sec := t.secrets[s.digits()]
	if sec == nil || !sealer.matches(s, sec.epoch, &sec.hash) {
		return grant{}, nil, unknown
	}
	g := grant{key: sec.key, digits: sec.digits, scope: sec.key.scope}
	var why standing
	g.perms, why = sec.key.judge(now)
	if why.passes() && (sec.state == stateEnded || sec.state == stateOld && now >= sec.ends) {
		why = rotated
	}
	return g, sec, why
}

// lives says whether a key, by id, would pass verification with one of its secrets.
func (t *table) lives(id string, now int64) bool {
	raw, ok := keyIDOf(id)
	if !ok {
		return false
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	k := t.keys[raw]
	if k == nil {
		return false
	}
	_, why := k.judge(now)
	return why.passes()
}

// again judges a grant once more, for calls that wait.
func (t *table) again(g grant, now int64) (permSet, standing) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	perms, why := g.key.judge(now)
	sec := t.secrets[g.digits]
	if why.passes() && (sec == nil || sec.state == stateEnded || sec.state == stateOld && now >= sec.ends) {
		why = rotated
	}
	return perms, why
}

// unsafeBytes is s as bytes without a copy; they must not be written to.
func unsafeBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
