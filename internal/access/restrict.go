package access

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"unstuck/internal/op"
)

// Restrictions narrow a key further. An absent one restricts nothing; a list that is present has an entry; all must hold. Null is
// never a value: it could only be meant to lift something.
type Restrictions struct {
	Cues          op.Clear[[]string] `json:"cues" min:"1" max:"100" doc:"ids of cues, or names with at most one * at the end"`
	IPs           op.Clear[[]string] `json:"ips" min:"1" max:"100" doc:"addresses or CIDRs that calls may come from"`
	Via           op.Clear[[]string] `json:"via" min:"1" max:"2" enum:"rest|mcp" doc:"ways in: rest (everything under /v1), mcp"`
	NotBefore     op.Clear[op.Time]  `json:"not_before" doc:"the key works from this moment on"`
	RatePerMinute op.Clear[int64]    `json:"rate_per_minute" min:"1" max:"1000000" doc:"a cap on the key's own calls; it only lowers, it reserves nothing"`
	WorkerIDs     op.Clear[[]string] `json:"worker_ids" min:"1" max:"100" doc:"worker ids that the key may act as"`
}

// kinds are the restrictions there are, in the order in which they are shown.
var kinds = [...]string{"cues", "ips", "via", "not_before", "rate_per_minute", "worker_ids"}

// null names the first restriction that was sent as null; "" when none was.
func (r Restrictions) null() string {
	for i, null := range [...]bool{r.Cues.Null, r.IPs.Null, r.Via.Null, r.NotBefore.Null, r.RatePerMinute.Null, r.WorkerIDs.Null} {
		if null {
			return kinds[i]
		}
	}
	return ""
}

// rules is what restrictions mean, ready to be checked; its JSON is what is stored and shown. A nil *rules restricts nothing, and a
// nil list neither; an empty list, which only a restore makes (rules.and), lets nothing through. Once published it is not changed.
type rules struct {
	Cues          []string `json:"cues,omitzero"`
	IPs           []string `json:"ips,omitzero"`
	Via           []string `json:"via,omitzero"`
	NotBefore     *op.Time `json:"not_before,omitempty"`
	RatePerMinute int64    `json:"rate_per_minute,omitempty"`
	WorkerIDs     []string `json:"worker_ids,omitzero"`

	nets  []netip.Prefix // what IPs mean
	calls *ring          // of RatePerMinute; in memory only, guarded by the workspace's limits
}

// present names the restrictions that there are.
func (r *rules) present() []string {
	if r == nil {
		return nil
	}
	var out []string
	for i, has := range [...]bool{r.Cues != nil, r.IPs != nil, r.Via != nil, r.NotBefore != nil, r.RatePerMinute != 0, r.WorkerIDs != nil} {
		if has {
			out = append(out, kinds[i])
		}
	}
	return out
}

func (r *rules) empty() bool { return len(r.present()) == 0 }

const noRules = "{}" // how no restrictions are stored

// text is how the rules are stored.
func (r *rules) text() string {
	if r.empty() {
		return noRules
	}
	return string(op.Marshal(r))
}

func readRules(text string) (*rules, error) {
	if text == noRules {
		return nil, nil
	}
	r := &rules{}
	if err := json.Unmarshal([]byte(text), r); err != nil {
		return nil, fmt.Errorf("read a key's restrictions: %w", err)
	}
	for _, s := range r.IPs {
		net, err := parsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("read a key's restrictions: %w", err)
		}
		r.nets = append(r.nets, net)
	}
	return r, nil
}

// rulesOf checks and normalises what a caller asked for: nil when it asks for nothing. `at` is the dotted place of the restrictions
// in the input.
func rulesOf(in Restrictions, at string) (*rules, error) {
	r := &rules{RatePerMinute: in.RatePerMinute.Val, Via: distinct(in.Via.Val)}
	if in.NotBefore.Set && !in.NotBefore.Null {
		r.NotBefore = &in.NotBefore.Val
	}
	var err error
	if r.Cues, err = checked(in.Cues.Val, at+".cues", checkPattern); err != nil {
		return nil, err
	}
	if r.WorkerIDs, err = checked(in.WorkerIDs.Val, at+".worker_ids", checkWorkerID); err != nil {
		return nil, err
	}
	if r.IPs, err = checked(in.IPs.Val, at+".ips", normalPrefix); err != nil {
		return nil, err
	}
	if r.empty() {
		return nil, nil
	}
	return r, nil
}

// checked is a list as it is kept: each entry in its normal form, and once.
func checked(in []string, at string, normal func(string) (string, error)) ([]string, error) {
	out := make([]string, len(in))
	for i, s := range in {
		var err error
		if out[i], err = normal(s); err != nil {
			return nil, op.Invalid(fmt.Sprintf("%s.%d", at, i), "%v", err)
		}
	}
	return distinct(out), nil
}

func distinct(in []string) []string {
	var out []string
	for _, s := range in {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func checkWorkerID(s string) (string, error) {
	if s == "" || len(s) > 255 {
		return "", fmt.Errorf("a worker id has 1 to 255 characters")
	}
	return s, nil
}

func normalPrefix(s string) (string, error) {
	p, err := parsePrefix(s)
	return p.String(), err
}

// parsePrefix reads an address or a network; an IPv4 network that is written as an IPv6 one becomes the IPv4 network.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is no address and no CIDR; write 10.0.0.0/8 or 203.0.113.7", s)
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return p, fmt.Errorf("%q mixes IPv4 and IPv6; write the IPv4 network itself", s)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p.Masked() != p {
		return p, fmt.Errorf("%q has bits set beyond its length; did you mean %s?", s, p.Masked())
	}
	return p, nil
}

func containsAddr(nets []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Pattern is one entry of a restriction "cues": the id of a cue, its name, or the beginning of its name.
type Pattern struct {
	ID     string // set when the entry has the form of an id; it then is also the exact name of a cue
	Name   string // exact name; "" when Prefix is set
	Prefix string // beginning of the name; of the entry "name*"
	Any    bool   // every cue: the entry "*"
}

func patternOf(s string) Pattern {
	switch {
	case s == "*":
		return Pattern{Any: true}
	case strings.HasSuffix(s, "*"):
		return Pattern{Prefix: strings.TrimSuffix(s, "*")}
	case isCueID(s):
		return Pattern{ID: s, Name: s}
	}
	return Pattern{Name: s}
}

func (p Pattern) match(id, name string) bool {
	switch {
	case p.Any:
		return true
	case p.Prefix != "":
		return strings.HasPrefix(name, p.Prefix)
	}
	return p.ID != "" && p.ID == id || p.Name == name
}

func isCueID(s string) bool {
	if len(s) != 16 || !strings.HasPrefix(s, "cue_") {
		return false
	}
	return strings.Trim(s[4:], "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

func checkPattern(s string) (string, error) {
	switch {
	case s == "":
		return "", fmt.Errorf("an empty entry matches nothing; leave the restriction out to allow every cue")
	case utf8.RuneCountInString(s) > 256:
		return "", fmt.Errorf("a name has at most 255 characters")
	case strings.Contains(strings.TrimSuffix(s, "*"), "*"):
		return "", fmt.Errorf("%q: one * is allowed, at the end", s)
	}
	return s, nil
}

func matchAny(patterns []string, id, name string) bool {
	return slices.ContainsFunc(patterns, func(s string) bool { return patternOf(s).match(id, name) })
}
