package access

import (
	"net/netip"

	"unstuck/internal/op"
)

// ClientAddr is the address that a call comes from: its peer, or what trusted proxies say.
func (a *Access) ClientAddr(r *op.Request) netip.Addr { return a.proxies.client(r.Peer, r.Forwarded) }
