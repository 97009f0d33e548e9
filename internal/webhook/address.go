package webhook

import (
	"fmt"
	"net/netip"
)

// special are ranges of addresses that are not the public internet's: the special-purpose registries of IANA
// (iana.org/assignments/iana-ipv4-special-registry, iana-ipv6-special-registry), multicast, and everything in IPv6 that is
// not global unicast (2000::/3). Each goes beyond or equals what CueAPI wire contract 5 blocks or should block. Where two
// contain an address the first names it. dev: Policy.Private opens the range.
//
// The list is our own rather than a library's because a refusal is to say what an address is, and because some ranges must open
// one by one. A test holds it against code.dny.dev/ssrf, which must not refuse anything that this list lets pass.
func special() []addressRange {
	return []addressRange{
		r("127.0.0.0/8", "this machine itself", true),
		r("10.0.0.0/8", "a private network", true),
		r("172.16.0.0/12", "a private network", true),
		r("192.168.0.0/16", "a private network", true),
		r("100.64.0.0/10", "a provider's shared network", true),
		r("169.254.0.0/16", "link-local, where clouds keep their metadata", false),
		r("0.0.0.0/8", "this machine itself", false),
		r("192.0.0.0/24", "reserved for protocols", false),
		r("192.0.2.0/24", "for documentation only", false),
		r("192.31.196.0/24", "reserved for name servers of private networks", false),
		r("192.52.193.0/24", "reserved for multicast relays", false),
		r("192.88.99.0/24", "a relay of 6to4", false),
		r("192.175.48.0/24", "reserved for name servers of private networks", false),
		r("198.18.0.0/15", "for benchmarks only", false),
		r("198.51.100.0/24", "for documentation only", false),
		r("203.0.113.0/24", "for documentation only", false),
		r("224.0.0.0/4", "multicast", false),
		r("240.0.0.0/4", "reserved", false),

		r("::1/128", "this machine itself", true),
		r("fc00::/7", "a private network", true),
		r("::/128", "this machine itself", false),
		r("::/96", "an IPv4 address in disguise", false),
		r("::ffff:0:0/96", "an IPv4 address in disguise", false), // those that are mapped come here as IPv4
		r("64:ff9b::/96", "an IPv4 address behind a translator", false),
		r("64:ff9b:1::/48", "an IPv4 address behind a translator", false),
		r("2001::/32", "a Teredo tunnel", false),
		r("2001::/23", "reserved for protocols", false),
		r("2001:db8::/32", "for documentation only", false),
		r("2002::/16", "a 6to4 tunnel", false),
		r("2620:4f:8000::/48", "reserved for name servers of private networks", false),
		r("3fff::/20", "for documentation only", false),
		r("fe80::/10", "link-local", false),
		r("fec0::/10", "a private network of the old kind", false),
		r("ff00::/8", "multicast", false),
		r("::/3", "no public address", false),
		r("4000::/2", "no public address", false),
		r("8000::/1", "no public address", false),
	}
}

type addressRange struct {
	netip.Prefix
	what string
	dev  bool
}

func r(prefix, what string, dev bool) addressRange {
	return addressRange{netip.MustParsePrefix(prefix), what, dev}
}

// Refusal says that an address may not be called: the error of a request that was not sent for this reason, found with errors.As,
// and of Policy.CheckURL.
type Refusal struct {
	Host  string     // as it stands in the URL
	Addr  netip.Addr // what it resolves to
	Range netip.Prefix
	What  string // what addresses of this range are, like "a private network"
}

// Error names the address and the setting that would allow it.
func (r *Refusal) Error() string {
	host := r.Addr.String()
	if r.Host != host {
		host = fmt.Sprintf("%s resolves to %s, which", r.Host, r.Addr)
	}
	if r.Addr.Zone() != "" {
		return fmt.Sprintf("%s is an address with a zone, which means something on one machine only. Use an address without \"%%\".", host)
	}
	return fmt.Sprintf("%s is %s (%s); only public addresses are called. To allow it, whoever runs this server adds %s to UNSTUCK_ALLOW_CALLBACKS.",
		host, r.What, r.Range, netip.PrefixFrom(r.Addr, r.Addr.BitLen()))
}

// judge says whether addr may be called; host is the name that led to it. An address with a zone is never allowed.
func (g *gate) judge(host string, addr netip.Addr) error {
	if addr.Zone() != "" {
		return &Refusal{Host: host, Addr: addr}
	}
	addr = addr.Unmap()
	for _, p := range g.allow {
		if p.Contains(addr) {
			return nil
		}
	}
	for _, s := range g.special {
		if s.Contains(addr) {
			if s.dev && g.private {
				return nil
			}
			return &Refusal{host, addr, s.Prefix, s.what}
		}
	}
	return nil
}
