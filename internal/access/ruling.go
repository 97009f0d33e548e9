package access

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"unstuck/internal/op"
)

// ruling is what a key may do with an operation before any object is known. One function makes it, for calls and for whoever asks
// what a key can do.
type ruling struct {
	members   bool       // only a member may, and this is an integration key
	handed    bool       // whoever handed the key over knows it too, and it may not hand out anything
	lacks     permSet    // permissions that are missing
	obstacles []obstacle // restrictions that are not met
	itself    bool       // only about the key itself
	about     string     // only about these keys or members; "" for all
	open      []string   // kinds of restrictions that bound what passes
}

func (r ruling) passes() bool {
	return !r.members && !r.handed && r.lacks == 0 && len(r.obstacles) == 0
}

// obstacle is a restriction that is not met: whose, which, and what was brought.
type obstacle struct {
	by      *key
	kind    string
	brought string // "" when the call comes with nothing of the kind
	whole   bool   // whatever a call brings: the key would have to be without the restriction
	entry   string // what the restriction would have to list besides; "" when it would have to be dropped
	message string
}

// circumstances are what a call brings with it whatever it is about.
type circumstances struct {
	now      time.Time  // UTC
	addr     netip.Addr // invalid for a local socket
	via      string     // "": any
	anywhere bool       // the address is not known, and not asked about
	other    bool       // the call is about another key than the caller
	asked    bool       // nobody calls: somebody asks
}

// brought is what a call comes with that a restriction of this kind is about (KEYS 4): its time, address or door; "" when it comes with
// nothing of the kind.
func (c *circumstances) brought(kind string) string {
	switch {
	case c == nil:
	case kind == "not_before":
		return op.TimeOf(c.now).String()
	case kind == "ips" && !c.anywhere:
		return addrText(c.addr)
	case kind == "via":
		return c.via
	}
	return ""
}

// rule is the ruling for an operation under circumstances; nil stands for any.
func (g grant) rule(o *op.Operation, c *circumstances) (r ruling) {
	if o.Needs == op.Public {
		return r
	}
	r.members = o.Members && g.key.kind != personal
	r.lacks, r.itself = g.lacks(o.Needs, c != nil && c.other)
	if g.handed {
		shows := o.Reach == op.ReachSecret
		r.handed = o.Hands || shows && c != nil && c.other
		r.itself = r.itself || shows
	}
	r.about = g.reaches(o.Reach)
	if o.Hands && (g.key.kind == personal || !o.Below) {
		if r.obstacles = g.key.restricted(o.May, c); len(r.obstacles) > 0 {
			return r // nothing less than dropping them helps
		}
	}
	for k := g.key; k != nil; k = k.parent {
		if rules := k.rules.Load(); rules != nil {
			r.obstacles = rules.unmet(r.obstacles, k, o.Narrow, c)
			if c == nil || c.asked {
				r.open = rules.bounding(r.open, o.Narrow)
			}
		}
	}
	return r
}

// reaches says in words about which keys or members an operation may be, when not about all. The operation, which knows its object,
// judges by the same rules: see both.
func (g grant) reaches(reach op.Reach) string {
	if reach == op.ReachAll { // as of most, and of all that are called often
		return ""
	}
	restricted, cues := false, false
	for k := range g.key.chain() {
		if r := k.rules.Load(); !r.empty() {
			restricted, cues = true, cues || r.Cues != nil
		}
	}
	switch full := g.perms == allPerms; {
	case reach == op.ReachView && cues, reach == op.ReachBelow && restricted, reach == op.ReachSecret && (restricted || g.key.kind != personal):
		return "itself and the keys that it made"
	case reach == op.ReachSecret && full:
		return "its member's keys and integration keys"
	case reach == op.ReachSecret:
		return "its member's keys and integration keys that hold nothing which it lacks"
	case reach == op.ReachGive && full:
		return "other keys"
	case reach == op.ReachGive:
		return "other keys that hold nothing which it lacks"
	case reach == op.ReachRole && !full:
		return "members whose role holds nothing which it lacks"
	}
	return ""
}

// lacks is what a grant lacks to meet a need. What it may do only to itself it lacks nothing for: the operation, which knows its
// object, asks again. Of two permissions that would do, it lacks the smaller one, unless the call is about another key, for which the
// smaller one would not do.
func (g grant) lacks(n op.Need, other bool) (lacks permSet, itself bool) {
	p := n.Permission()
	if p == "members:write" { // nobody grants, changes or takes what he lacks, and every member has what a viewer has
		return (bit(p) | readOnly) &^ g.perms, false
	}
	if p == "" || g.perms.has(p) {
		return 0, false
	}
	own, self := n.Self()
	switch {
	case self && (own == "" || g.perms.has(own)):
		return 0, true
	case self && !other:
		return bit(own), false
	}
	return bit(p), false
}

// bounding adds the kinds of restrictions that bound an operation.
func (r *rules) bounding(out []string, narrow op.Narrowing) []string {
	for _, kind := range r.present() {
		if (kind != "cues" || narrow != op.Always) && !slices.Contains(out, kind) {
			out = append(out, kind)
		}
	}
	return out
}

// unmet adds the restrictions that an operation does not meet, as far as they need no object.
func (r *rules) unmet(out []obstacle, k *key, narrow op.Narrowing, c *circumstances) []obstacle {
	if r.Cues != nil && narrow == op.Whole {
		out = append(out, obstacle{by: k, kind: "cues", whole: true, message: "This key may be used only for certain cues, and this is about the whole workspace."})
	}
	if c == nil {
		return out
	}
	if r.NotBefore != nil && c.now.Before(r.NotBefore.Std()) {
		out = append(out, obstacle{by: k, kind: "not_before", brought: c.brought("not_before"), message: "This key may not be used yet; it is now " + c.now.Format("15:04:05 UTC on 2 Jan 2006") + "."})
	}
	if r.IPs != nil && !c.anywhere && !containsAddr(r.nets, c.addr) {
		from, entry := addrText(c.addr), ""
		if c.addr.IsValid() {
			entry = netip.PrefixFrom(c.addr, c.addr.BitLen()).String()
		}
		out = append(out, obstacle{by: k, kind: "ips", brought: from, entry: entry, message: "This key may be used only from certain addresses, and you came from " + from + "."})
	}
	if r.Via != nil && c.via != "" && !slices.Contains(r.Via, c.via) {
		entry := c.via
		if entry != "rest" && entry != "mcp" {
			entry = ""
		}
		out = append(out, obstacle{by: k, kind: "via", brought: c.via, entry: entry, message: "This key may be used only in certain ways, and you came via " + c.via + "."})
	}
	return out
}

// addrText is an address as people read it.
func addrText(a netip.Addr) string {
	switch {
	case a == untold:
		return ""
	case !a.IsValid():
		return "a local socket"
	}
	return a.String()
}

func (k *key) seesCue(id, name string) bool {
	for ; k != nil; k = k.parent {
		if r := k.rules.Load(); r != nil && r.Cues != nil && !matchAny(r.Cues, id, name) {
			return false
		}
	}
	return true
}

// blindTo is which keys of the chain do not let a cue through; id may be "", and then the name is what the caller brought.
func (k *key) blindTo(id, name, brought, message string) (out []obstacle) {
	entry, err := checkPattern(brought)
	if err != nil || patternOf(entry).Name != entry {
		entry = "" // as a pattern it would mean something else
	}
	for x := range k.chain() {
		if r := x.rules.Load(); r != nil && r.Cues != nil && !matchAny(r.Cues, id, name) {
			out = append(out, obstacle{by: x, kind: "cues", brought: brought, entry: entry, message: message})
		}
	}
	return out
}

// cueFilter leaves out lists that let every cue pass.
func (k *key) cueFilter() [][]Pattern {
	var out [][]Pattern
	for x := range k.chain() {
		r := x.rules.Load()
		if r == nil || r.Cues == nil {
			continue
		}
		list := make([]Pattern, len(r.Cues))
		for i, s := range r.Cues {
			list[i] = patternOf(s)
		}
		if !slices.ContainsFunc(list, func(p Pattern) bool { return p.Any }) {
			out = append(out, list)
		}
	}
	return out
}

// notWorker is which keys of the chain do not let a worker through.
func (k *key) notWorker(id string) (out []obstacle) {
	for ; k != nil; k = k.parent {
		if r := k.rules.Load(); r != nil && r.WorkerIDs != nil && !slices.Contains(r.WorkerIDs, id) {
			entry, err := checkWorkerID(id)
			if err != nil {
				entry = ""
			}
			out = append(out, obstacle{by: k, kind: "worker_ids", brought: id, entry: entry, message: fmt.Sprintf("This key may be used only by certain workers, and you said you are %q.", id)})
		}
	}
	return out
}

// restricted is every restriction along the chain, for what only a caller without any may do.
func (k *key) restricted(what string, c *circumstances) (out []obstacle) {
	for x := range k.chain() {
		for _, kind := range x.rules.Load().present() {
			out = append(out, obstacle{by: x, kind: kind, brought: c.brought(kind), whole: true, message: "This key is restricted, so it may not " + what + "."})
		}
	}
	return out
}
