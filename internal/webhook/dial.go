package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Policy says which addresses may be called. The zero value allows public addresses over https and http, and no other.
type Policy struct {
	Allow    []netip.Prefix // called although they are not public (UNSTUCK_ALLOW_CALLBACKS)
	Private  bool           // loopback and private networks are called too: for development. Link-local addresses are not
	Secure   bool           // CheckURL refuses plain http
	Resolver *net.Resolver  // nil: the system's
}

const (
	dialTimeout  = 10 * time.Second // for all addresses of a name together
	minDialShare = 2 * time.Second  // that one of several addresses gets at least
	maxIdle      = 2048             // connections kept altogether
	maxHeader    = 64 << 10         // bytes in the header of a reply
)

// Client makes HTTP clients for everything that goes out. They resolve a name, refuse it if any of its addresses may not be
// called, and dial the very addresses that were looked at; the socket looks again before it connects. They follow no redirects,
// use no proxy, ask for no compression, and set no time limit: the request's context does. A request that is refused fails
// with a *Refusal. Each call makes a pool of connections of its own: http.Client.CloseIdleConnections ends it.
func (p Policy) Client() *http.Client {
	return p.gate().client()
}

// gate is a policy made ready. knock, if set, is asked last before a socket connects.
type gate struct {
	allow    []netip.Prefix
	special  []addressRange
	private  bool
	resolver *net.Resolver
	knock    func(netip.AddrPort) error
}

func (p Policy) gate() *gate {
	g := &gate{special: special(), private: p.Private, resolver: p.Resolver}
	for _, a := range p.Allow {
		g.allow = append(g.allow, unmapPrefix(a))
	}
	if g.resolver == nil {
		g.resolver = net.DefaultResolver
	}
	return g
}

// unmapPrefix turns ::ffff:10.0.0.0/104 into 10.0.0.0/8, which is how addresses are compared.
func unmapPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

func (g *gate) client() *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  nil, // a proxy would do the dialling
			DialContext:            g.dial,
			ForceAttemptHTTP2:      true,
			DisableCompression:     true, // a reply of 64 KiB stays one
			MaxIdleConns:           maxIdle,
			MaxIdleConnsPerHost:    maxIdle, // one proxy may stand before all receivers
			IdleConnTimeout:        60 * time.Second,
			TLSHandshakeTimeout:    dialTimeout,
			MaxResponseHeaderBytes: maxHeader,
			HTTP2:                  &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
		},
	}
}

// resolve is the addresses of a host, all of which may be called.
func (g *gate) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	addrs := make([]netip.Addr, 1)
	var err error
	if addrs[0], err = netip.ParseAddr(host); err != nil {
		if addrs, err = g.resolver.LookupNetIP(ctx, "ip", host); err != nil {
			return nil, err
		}
	}
	for i, a := range addrs {
		if err := g.judge(host, a); err != nil {
			return nil, err
		}
		addrs[i] = a.Unmap()
	}
	return addrs, nil
}

// dial connects to the first address of a host that answers.
func (g *gate) dial(ctx context.Context, _, hostport string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout) // the transport's context outlives the request's
	defer cancel()
	host, portText, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("%q is no port", portText)
	}
	addrs, err := g.resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	var first error
	for i, a := range addrs {
		conn, err := g.connect(ctx, host, netip.AddrPortFrom(a, uint16(port)), len(addrs)-i)
		if err == nil {
			return conn, nil
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = &net.DNSError{Err: "the name has no address", Name: host, IsNotFound: true}
	}
	return nil, first
}

// connect dials one of n addresses that are left to try.
func (g *gate) connect(ctx context.Context, host string, to netip.AddrPort, n int) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok && n > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, max(time.Until(deadline)/time.Duration(n), minDialShare))
		defer cancel()
	}
	dialer := net.Dialer{ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if err := g.judge(host, at.Addr()); err != nil || g.knock == nil {
			return err
		}
		return g.knock(at)
	}}
	return dialer.DialContext(ctx, "tcp", to.String())
}

// Check refuses an address as CheckURL does, and then for what its name resolves to now. It is for telling people early; what
// protects is that every connection is checked again.
// Plain http is as good as https to addresses of Allow: they are somebody's own network. So whoever writes plain http to an address that
// Allow could let through is told of that, not of https.
func (p Policy) Check(ctx context.Context, rawURL string) error {
	written := p
	if scheme, _, _ := strings.Cut(rawURL, ":"); strings.EqualFold(scheme, "http") {
		written.Secure = false
	}
	host, err := written.checkURL(rawURL)
	if err != nil && !isRefusal(err) {
		_, err = p.checkURL(rawURL)
		return err
	}
	var addrs []netip.Addr
	if err == nil {
		addrs, err = p.gate().resolve(ctx, host)
	}
	switch {
	case isRefusal(err):
		return err
	case written.Secure != p.Secure && (err != nil || !p.gate().allowsOnly(addrs)):
		_, err = p.checkURL(rawURL)
		return err
	case err != nil:
		return fmt.Errorf("Cannot resolve hostname: %s. Check the spelling, or try again later", strings.ToLower(host))
	}
	return nil
}

func isRefusal(err error) bool { return errors.As(err, new(*Refusal)) }

// allowsOnly says that all of these are addresses of Allow.
func (g *gate) allowsOnly(addrs []netip.Addr) bool {
	return len(addrs) > 0 && !slices.ContainsFunc(addrs, func(a netip.Addr) bool {
		return !slices.ContainsFunc(g.allow, func(n netip.Prefix) bool { return n.Contains(a) })
	})
}
