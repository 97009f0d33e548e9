package access

import (
	"fmt"
	"net/netip"
	"strings"
)

// proxies are the peers whose X-Forwarded-For counts (UNSTUCK_TRUSTED_PROXIES).
type proxies struct {
	nets []netip.Prefix
	unix bool
}

func parseProxies(list []string) (proxies, error) {
	p := proxies{}
	for _, s := range list {
		if s = strings.TrimSpace(s); s == "unix" {
			p.unix = true
			continue
		}
		n, err := parsePrefix(s)
		if err != nil {
			return p, fmt.Errorf("UNSTUCK_TRUSTED_PROXIES: %w", err)
		}
		p.nets = append(p.nets, n)
	}
	return p, nil
}

func (p proxies) trusts(a netip.Addr) bool { return containsAddr(p.nets, a) }

// client is the address that counts. The peer's own does, unless the peer is trusted: then all X-Forwarded-For lines are joined
// and read from the right, trusted addresses are skipped, and the first other one counts. A malformed entry ends the reading, and
// the last good address counts.
func (p proxies) client(peer string, forwarded []string) netip.Addr {
	addr := peerAddr(peer)
	if peer == "unix" && !p.unix || peer != "unix" && !p.trusts(addr) {
		return addr
	}
	entries := strings.Split(strings.Join(forwarded, ","), ",")
	for i := len(entries) - 1; i >= 0; i-- {
		a, err := netip.ParseAddr(strings.TrimSpace(entries[i]))
		if err != nil || a.Zone() != "" {
			return addr
		}
		if addr = a.Unmap(); !p.trusts(addr) {
			return addr
		}
	}
	return addr
}

func peerAddr(peer string) netip.Addr {
	if ap, err := netip.ParseAddrPort(peer); err == nil {
		return ap.Addr().Unmap().WithZone("")
	}
	a, _ := netip.ParseAddr(peer)
	return a.Unmap().WithZone("")
}
