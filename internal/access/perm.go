package access

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// permission is one noun:verb with the words that people read. The list below is the only place where permissions are named;
// a permission's bit is its place in the list, and no bit is ever stored.
type permission struct {
	name  string
	words string // completes "It can …" and "It cannot …"
}

var permissions = [...]permission{
	{"cues:read", "see or list cues, their ledger and next times"},
	{"cues:write", "create, change, pause, delete a cue"},
	{"cues:fire", "fire a cue"},
	{"executions:read", "see and list executions and workers"},
	{"executions:claim", "take work"},
	{"executions:report", "report an outcome and evidence"},
	{"executions:verify", "verify an outcome"},
	{"executions:replay", "replay an execution"},
	{"alerts:read", "see alerts, which name keys"},
	{"alerts:write", "acknowledge alerts"},
	{"usage:read", "see usage"},
	{"keys:read", "see keys and what they did"},
	{"keys:write", "make, change and revoke keys"},
	{"keys:rotate-self", "rotate itself"},
	{"keys:verify", "verify keys for another service"},
	{"members:read", "see members"},
	{"members:write", "add, change and remove members"},
	{"workspace:read", "see the workspace"},
	{"workspace:write", "change the workspace"},
	{"secrets:read", "read webhook secrets"},
	{"secrets:write", "rotate webhook secrets"},
	{"audit:read", "read the audit log"},
}

// permSet is a set of permissions as bits.
type permSet uint64

func (s permSet) has(name string) bool {
	i := permIndex(name)
	return i >= 0 && s&(1<<i) != 0
}

// holds says whether everything in other is in the set.
func (s permSet) holds(other permSet) bool { return other&^s == 0 }

// names lists the set in the order of the table.
func (s permSet) names() []string {
	out := make([]string, 0, bits.OnesCount64(uint64(s)))
	for i, p := range permissions {
		if s&(1<<i) != 0 {
			out = append(out, p.name)
		}
	}
	return out
}

// bit is the set of one permission, which must be in the table, without what it implies.
func bit(name string) permSet {
	i := permIndex(name)
	if i < 0 {
		panic("access: there is no permission " + name)
	}
	return 1 << i
}

func permIndex(name string) int {
	return slices.IndexFunc(permissions[:], func(p permission) bool { return p.name == name })
}

// permsOf is the set that a list of names means: write implies read of the same noun, nothing else implies anything.
func permsOf(names ...string) (permSet, error) {
	var s permSet
	for _, n := range names {
		i := permIndex(n)
		if i < 0 {
			return 0, fmt.Errorf("unknown permission %q; GET /v1/scopes lists them all", n)
		}
		s |= 1 << i
		if noun, ok := strings.CutSuffix(n, ":write"); ok {
			if i := permIndex(noun + ":read"); i >= 0 {
				s |= 1 << i
			}
		}
	}
	return s, nil
}

func mustPerms(names ...string) permSet {
	s, err := permsOf(names...)
	if err != nil {
		panic(err)
	}
	return s
}

const allPerms permSet = 1<<len(permissions) - 1

// readOnly is every permission that ends in :read, but for those that tell about people, keys and secrets.
var readOnly = allReads() &^ mustPerms("audit:read", "keys:read", "members:read", "secrets:read", "workspace:read")

func allReads() permSet {
	var s permSet
	for i, p := range permissions {
		if strings.HasSuffix(p.name, ":read") {
			s |= 1 << i
		}
	}
	return s
}

// Scope is a named set of permissions. It is stored by name and means what the running version says.
type Scope struct {
	Name   string
	perms  permSet
	Can    string
	Cannot string
}

// custom is the scope of a key with a list of its own; the list is frozen.
const custom = "custom"

// scopes lists the named scopes from the smallest to the widest.
var scopes = []Scope{
	{
		"worker", mustPerms("executions:read", "executions:claim", "executions:report"),
		"see executions, take one, report how it went", "anything else",
	},
	{
		"read-only", readOnly,
		"list and read cues, executions, alerts and usage", "start or change anything, or see keys, members, secrets or the audit log",
	},
	{
		"write-enrichment", readOnly,
		"do all that read-only can, and enrich records once the engine is installed", "make or fire a cue, make keys, invite people or read secrets",
	},
	{
		"write-signals", readOnly,
		"do all that read-only can, and push signals once the engine is installed", "make or fire a cue, make keys, invite people or read secrets",
	},
	{
		"write-cues", readOnly | mustPerms("cues:write", "cues:fire", "executions:replay", "executions:verify", "alerts:write"),
		"do all that read-only can; make, change, pause, delete and fire cues; replay and verify executions; acknowledge alerts", "take work, make keys, invite people or read secrets",
	},
	{
		"full", allPerms,
		"do everything in this workspace, also make and revoke other keys", "act in another workspace, pass limits, or read a key again",
	},
}

func scopeOf(name string) (Scope, bool) {
	if i := scopeIndex(name); i > 0 {
		return scopes[i-1], true
	}
	return Scope{}, false
}

// scopeIndex is the place of a named scope plus one; 0 for a list of a key's own. It is how memory keeps scopes.
func scopeIndex(name string) uint8 {
	return uint8(slices.IndexFunc(scopes, func(s Scope) bool { return s.Name == name }) + 1)
}

// scopeName is the word for scopeIndex.
func scopeName(index uint8) string {
	if index == 0 {
		return custom
	}
	return scopes[index-1].Name
}

func scopeNames() []string {
	out := make([]string, len(scopes))
	for i, s := range scopes {
		out[i] = s.Name
	}
	return out
}

// scopesHolding lists the named scopes that hold everything in s, smallest first. Two that are the same on this server are
// named once, by the first.
func scopesHolding(s permSet) []string {
	var out []string
	for _, sc := range scopes {
		if sc.perms.holds(s) && sameAs(sc) == "" {
			out = append(out, sc.Name)
		}
	}
	return out
}

// sameAs names the smaller scope that holds exactly the same permissions; "" when there is none.
func sameAs(s Scope) string {
	for _, other := range scopes {
		if other.Name == s.Name {
			return ""
		}
		if other.perms == s.perms {
			return other.Name
		}
	}
	return ""
}

// Roles, from the smallest to the widest.
const (
	RoleViewer   = "viewer"
	RoleOperator = "operator"
	RoleManager  = "manager"
	RoleAdmin    = "admin"
)

// roles says what members may do. Everybody may besides make, list and revoke personal keys of his own.
var roles = [...]struct {
	name  string
	perms permSet
}{
	{RoleViewer, readOnly},
	{RoleOperator, operator},
	{RoleManager, operator | mustPerms("cues:write", "keys:read", "keys:write", "members:read", "members:write")},
	{RoleAdmin, allPerms},
}

var operator = readOnly | mustPerms("cues:fire", "executions:claim", "executions:report", "executions:verify", "executions:replay", "alerts:write")

// rolePerms is what a member of a role may do: nothing for "", the role of one who left.
func rolePerms(name string) permSet {
	for _, r := range roles {
		if r.name == name {
			return r.perms
		}
	}
	return 0
}

// smallestRole is the first role that holds a set of permissions.
func smallestRole(s permSet) string {
	for _, r := range roles {
		if r.perms.holds(s) {
			return r.name
		}
	}
	return RoleAdmin
}

// ownPerms is what a personal key may do whatever the member's role, as far as its scope says so.
var ownPerms = mustPerms("keys:rotate-self")

// roleBounds is what a personal key of a member with such a role can hold at most.
func roleBounds(role string) permSet {
	if role == "" {
		return 0
	}
	return rolePerms(role) | ownPerms
}

// effective is what a stored scope and list of permissions mean today.
func effective(scope, list string) (permSet, error) {
	if s, ok := scopeOf(scope); ok {
		return s.perms, nil
	}
	if scope != custom {
		return 0, nil // a scope of another version grants nothing
	}
	var names []string
	if err := json.Unmarshal([]byte(list), &names); err != nil {
		return 0, fmt.Errorf("read a key's permissions: %w", err)
	}
	var s permSet
	for _, n := range names {
		if one, err := permsOf(n); err == nil { // one that this version does not know grants nothing
			s |= one
		}
	}
	return s, nil
}
