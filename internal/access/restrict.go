package access

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"unstuck/internal/op"
)

// Restrictions narrow a key further. An absent one restricts nothing; a list that is present has an entry; all must hold.
type Restrictions struct {
	Cues          op.Opt[[]string] `json:"cues" min:"1" max:"100" doc:"ids of cues, or names with at most one * at the end"`
	IPs           op.Opt[[]string] `json:"ips" min:"1" max:"100" doc:"addresses or CIDRs that calls may come from"`
	Via           op.Opt[[]string] `json:"via" min:"1" max:"2" enum:"rest|mcp" doc:"doors: rest (everything under /v1), mcp"`
	NotBefore     op.Opt[op.Time]  `json:"not_before" doc:"the key works from this moment on"`
	RatePerMinute op.Opt[int64]    `json:"rate_per_minute" min:"1" max:"1000000" doc:"a cap on the key's own calls; it only lowers, it reserves nothing"`
	WorkerIDs     op.Opt[[]string] `json:"worker_ids" min:"1" max:"100" doc:"worker ids that the key may act as"`
}

// rules is what restrictions mean, ready to be checked. A nil *rules restricts nothing.
type rules struct {
	Cues          []string       `json:"cues,omitempty"`
	IPs           []netip.Prefix `json:"ips,omitempty"`
	Via           []string       `json:"via,omitempty"`
	NotBefore     *op.Time       `json:"not_before,omitempty"`
	RatePerMinute int64          `json:"rate_per_minute,omitempty"`
	WorkerIDs     []string       `json:"worker_ids,omitempty"`
}

func (r *rules) empty() bool {
	return r == nil || r.Cues == nil && r.IPs == nil && r.Via == nil && r.NotBefore == nil && r.RatePerMinute == 0 && r.WorkerIDs == nil
}

// text is how the rules are stored.
func (r *rules) text() string {
	if r == nil {
		return "{}"
	}
	return string(op.Marshal(r))
}

func readRules(text string) (*rules, error) {
	if text == "{}" {
		return nil, nil
	}
	r := &rules{}
	if err := json.Unmarshal([]byte(text), r); err != nil {
		return nil, fmt.Errorf("read a key's restrictions: %w", err)
	}
	return r, nil
}

// rulesOf checks and normalises what a caller asked for. `at` is the dotted place of the restrictions in the input.
func rulesOf(in Restrictions, at string) (*rules, error) {
	r := &rules{RatePerMinute: in.RatePerMinute.Val}
	if in.NotBefore.Set {
		r.NotBefore = &in.NotBefore.Val
	}
	for i, c := range in.Cues.Val {
		if err := checkPattern(c); err != nil {
			return nil, op.Invalid(fmt.Sprintf("%s.cues.%d", at, i), "%v", err)
		}
	}
	r.Cues = distinct(in.Cues.Val)
	for i, s := range in.IPs.Val {
		p, err := parsePrefix(s)
		if err != nil {
			return nil, op.Invalid(fmt.Sprintf("%s.ips.%d", at, i), "%v", err)
		}
		if !slices.Contains(r.IPs, p) {
			r.IPs = append(r.IPs, p)
		}
	}
	r.Via = distinct(in.Via.Val)
	for i, w := range in.WorkerIDs.Val {
		if w == "" || len(w) > 255 {
			return nil, op.Invalid(fmt.Sprintf("%s.worker_ids.%d", at, i), "A worker id has 1 to 255 characters")
		}
	}
	r.WorkerIDs = distinct(in.WorkerIDs.Val)
	if r.empty() {
		return nil, nil
	}
	return r, nil
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

// Pattern is one entry of a restriction "cues": the id of a cue, its name, or the beginning of its name.
type Pattern struct {
	ID     string // set when the entry has the form of an id; it then is also the exact name of a cue
	Name   string // exact name; "" when Prefix is set
	Prefix string // beginning of the name; the entry "*" has HasAny set
	Any    bool   // every cue
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

func checkPattern(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("an empty entry matches nothing; leave the restriction out to allow every cue")
	case len(s) > 255:
		return fmt.Errorf("a name has at most 255 characters")
	case strings.Contains(strings.TrimSuffix(s, "*"), "*"):
		return fmt.Errorf("%q: one * is allowed, at the end", s)
	}
	return nil
}

func matchAny(patterns []string, id, name string) bool {
	return slices.ContainsFunc(patterns, func(s string) bool { return patternOf(s).match(id, name) })
}

func containsAddr(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}
