package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// internal are addresses that a stranger would like the server to call.
var internal = []string{
	"127.0.0.1", "127.1.2.3", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.254", "192.168.0.1",
	"192.168.255.254", "169.254.169.254", "169.254.170.2", "100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9",
	"192.88.99.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
}

var internal6 = []string{
	"::", "::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1", "3fff::1", "100::1", "5f00::1", "2001::1", "2001:20::1",
	"64:ff9b:1::1", "2620:4f:8000::1", "4000::1", "::ffff:0:127.0.0.1", "2002::1", "fdff:ffff::1",
}

// hosts are all the ways in which people have written these addresses to get past a check.
func hosts() (out []string) {
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, text := range internal {
		b := netip.MustParseAddr(text).As4()
		n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		add("%s", text)
		add("%s.", text)                                                         // trailing dot
		add("%d", n)                                                             // decimal
		add("0x%x", n)                                                           // hexadecimal
		add("0X%X", n)                                                           //
		add("0%o", n)                                                            // octal
		add("0x%02x.0x%02x.0x%02x.0x%02x", b[0], b[1], b[2], b[3])               // in parts
		add("0%o.0%o.0%o.0%o", b[0], b[1], b[2], b[3])                           //
		add("%03d.%03d.%03d.%03d", b[0], b[1], b[2], b[3])                       // leading zeros
		add("%d.0x%x.0%o.%d", b[0], b[1], b[2], b[3])                            // mixed
		add("%d.%d", b[0], n&0xffffff)                                           // short forms
		add("%d.%d.%d", b[0], b[1], n&0xffff)                                    //
		add("0x%x.%d", b[0], n&0xffffff)                                         //
		add("%d.%d.%d.%d", int(b[0])+256, b[1], b[2], b[3])                      // overflow
		add("%s", strings.Map(fullWidth, text))                                  // digits of other alphabets
		add("%s", strings.ReplaceAll(text, ".", "。"))                            // dots of other alphabets
		add("%s", strings.ReplaceAll(text, ".", "%%2e"))                         // escaped
		add("[::ffff:%s]", text)                                                 // mapped
		add("[::FFFF:%02X%02X:%02X%02X]", b[0], b[1], b[2], b[3])                //
		add("[0:0:0:0:0:ffff:%02x%02x:%02x%02x]", b[0], b[1], b[2], b[3])        //
		add("[::%s]", text)                                                      // IPv4-compatible
		add("[64:ff9b::%s]", text)                                               // NAT64
		add("[64:ff9b:1::%02x%02x:%02x%02x]", b[0], b[1], b[2], b[3])            //
		add("[2002:%02x%02x:%02x%02x::1]", b[0], b[1], b[2], b[3])               // 6to4
		add("[2001:0:%02x%02x:%02x%02x::]", b[0], b[1], b[2], b[3])              // Teredo, server
		add("[2001::%02x%02x:%02x%02x]", b[0]^255, b[1]^255, b[2]^255, b[3]^255) // Teredo, client
		add("[::ffff:0:%s]", text)                                               // translated
		add("[::ffff:%s%%25lo]", text)                                           // with a zone
		add("%s", dns.Fqdn("a"+strings.ReplaceAll(text, ".", "-")+".to.test"))   // names, answered below
		add("A%s.TO.test", strings.ReplaceAll(text, ".", "-"))                   //
	}
	for _, text := range internal6 {
		a := netip.MustParseAddr(text)
		add("[%s]", text)
		add("[%s]", strings.ToUpper(a.StringExpanded()))
		add("[%s%%25eth0]", text)
		add("[%s%%251]", text)
		add("x%s.to.test", strings.ReplaceAll(a.StringExpanded(), ":", "-"))
	}
	return append(out, "localhost", "LOCALHOST", "localhost.", "localhost.localdomain", "ip6-localhost", "cname.test", "chain.test", "mixed.test", "mapped.test",
		"empty.test", "loop.test", "metadata.google.internal")
}

func fullWidth(r rune) rune {
	if r >= '0' && r <= '9' {
		return r - '0' + '０'
	}
	return r
}

// dressed are URLs around hosts.
func dressed() (urls []string) {
	for i, h := range hosts() {
		urls = append(urls, "http://"+h+"/", "http://"+h+[]string{":80", ":8080", ":65535", ":22", ":"}[i%5]+"/x?y=http://example.com/#z")
		urls = append(urls, []string{
			"http://example.com@" + h + "/", "http://example.com:80@" + h + ":80/", "http://user:pass%40example.com@" + h + "/", "HTTP://" + h + "\\@example.com/",
			"https://" + h + "/", "http://example.com#@" + h + "/", "http:///" + h, "http://" + h + "?@example.com/",
		}[i%8])
	}
	return urls
}

// socket stands where sockets connect: it writes down where to, and lets only what a test owns connect.
type socket struct {
	mu   sync.Mutex
	seen []netip.AddrPort
	own  netip.AddrPort
}

var errNotHere = errors.New("this test calls nobody")

func (s *socket) knock(to netip.AddrPort) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, to)
	if to == s.own {
		return nil
	}
	return errNotHere
}

// check says which of the addresses that were to be connected are not public, by a list of its own.
func (s *socket) check(t *testing.T, what string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, to := range s.seen {
		a := to.Addr()
		if public := a == netip.MustParseAddr("93.184.215.14") || a == netip.MustParseAddr("2606:2800:21f:cb07:6820:80da:af6b:8b2c"); !public && to != s.own {
			t.Errorf("%s: a socket was to connect to %s", what, to)
		}
	}
}

// nameServer answers on loopback: N-N-N-N.to.test as it says, flip.test public first and loopback then, and some more.
func nameServer(t *testing.T) *net.Resolver {
	var mu sync.Mutex
	asked := map[string]int{}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) {
		q := req.Question[0]
		name := strings.ToLower(q.Name)
		mu.Lock()
		asked[name+dns.TypeToString[q.Qtype]]++
		n := asked[name+dns.TypeToString[q.Qtype]]
		mu.Unlock()
		m := new(dns.Msg).SetReply(req)
		answer := func(name, addr string) {
			a := netip.MustParseAddr(addr)
			h := dns.RR_Header{Name: name, Class: dns.ClassINET, Ttl: 0}
			if h.Rrtype = dns.TypeAAAA; a.Is6() && q.Qtype == dns.TypeAAAA {
				m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: a.AsSlice()})
			} else if h.Rrtype = dns.TypeA; a.Is4() && q.Qtype == dns.TypeA {
				m.Answer = append(m.Answer, &dns.A{Hdr: h, A: a.AsSlice()})
			}
		}
		alias := func(from, to string) {
			m.Answer = append(m.Answer, &dns.CNAME{Hdr: dns.RR_Header{Name: from, Rrtype: dns.TypeCNAME, Class: dns.ClassINET}, Target: to})
		}
		label, isCoded := strings.CutSuffix(name, ".to.test.")
		switch {
		case isCoded && label[0] == 'a':
			answer(q.Name, strings.ReplaceAll(label[1:], "-", "."))
		case isCoded:
			answer(q.Name, strings.ReplaceAll(label[1:], "-", ":"))
		case name == "cname.test.":
			alias(q.Name, "localhost.")
			answer("localhost.", "127.0.0.1")
		case name == "chain.test.":
			alias(q.Name, "b.test.")
			alias("b.test.", "c.test.")
			alias("c.test.", "d.test.")
			answer("d.test.", "169.254.169.254")
			answer("d.test.", "fd00:ec2::254")
		case name == "mixed.test.": // one public, one not
			answer(q.Name, "93.184.215.14")
			answer(q.Name, "10.0.0.1")
			answer(q.Name, "2606:2800:21f:cb07:6820:80da:af6b:8b2c")
		case name == "mapped.test.":
			if q.Qtype == dns.TypeAAAA {
				m.Answer = append(m.Answer, &dns.AAAA{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeAAAA, Class: dns.ClassINET}, AAAA: net.ParseIP("::ffff:127.0.0.1").To16()})
			}
		case name == "loop.test.":
			alias(q.Name, "loop.test.")
		case name == "empty.test.":
		case name == "flip.test.":
			if n == 1 {
				answer(q.Name, "93.184.215.14")
			} else {
				answer(q.Name, "127.0.0.1")
			}
		case name == "own.test.":
			answer(q.Name, "127.0.0.1")
		case name == "example.com.":
			answer(q.Name, "93.184.215.14")
		default:
			if a, ok := aton(strings.TrimSuffix(name, ".")); ok { // as resolvers of C libraries do
				answer(q.Name, a.String())
			} else {
				m.Rcode = dns.RcodeNameError
			}
		}
		w.WriteMsg(m)
	})
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	srv := &dns.Server{PacketConn: conn, Handler: handler, NotifyStartedFunc: func() { close(started) }}
	served := make(chan struct{})
	go func() { defer close(served); srv.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { srv.Shutdown(); <-served })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// aton reads an IPv4 address as inet_aton of C does: one to four numbers, decimal, octal or hexadecimal, the last of which fills what
// is left.
func aton(text string) (netip.Addr, bool) {
	parts := strings.Split(text, ".")
	var n uint64
	for i, part := range parts {
		v, err := strconv.ParseUint(part, 0, 32)
		last := i == len(parts)-1
		if err != nil || len(parts) > 4 || !last && v > 255 || last && v >= 1<<(8*(5-len(parts))) {
			return netip.Addr{}, false
		}
		if last {
			n = n<<(8*(5-len(parts))) | v
		} else {
			n = n<<8 | v
		}
	}
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}), true
}

// TestHostileAddresses: of more than 1,500 URLs that mean something internal not one gets as far as a socket that connects there, and
// those that are an address are refused when they are written, too.
func TestHostileAddresses(t *testing.T) {
	urls := dressed()
	if n := len(slices.Compact(slices.Sorted(slices.Values(urls)))); n < 1500 {
		t.Fatalf("only %d forms", n)
	}
	g := Policy{Resolver: nameServer(t)}.gate()
	s := knockAt(t, g, urls)
	s.check(t, "hostile addresses")
	t.Logf("%d forms, %d sockets, all public", len(urls), len(s.seen))

	g.special = nil // without the list the same forms do reach internal addresses: the test can fail
	open := knockAt(t, g, urls)
	reached := map[netip.Addr]bool{}
	for _, to := range open.seen {
		reached[to.Addr()] = true
	}
	if len(open.seen) < 500 || len(reached) < 100 {
		t.Errorf("without the list only %d sockets to %d addresses", len(open.seen), len(reached))
	}
}

// knockAt sends to each URL through the gate, as far as the sockets.
func knockAt(t *testing.T, g *gate, urls []string) *socket {
	s := &socket{}
	g.knock = s.knock
	client := g.client()
	defer client.CloseIdleConnections()
	for _, u := range urls {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		req, err := http.NewRequestWithContext(ctx, "POST", u, nil)
		if err == nil {
			var resp *http.Response
			if resp, err = client.Do(req); err == nil {
				resp.Body.Close()
			}
		}
		cancel()
		if err == nil {
			t.Errorf("%s was answered", u)
		}
	}
	return s
}

// TestHostileAddressesWhenWritten: hosts that are internal by how they are written are refused without asking a name server.
func TestHostileAddressesWhenWritten(t *testing.T) {
	for _, h := range hosts() {
		if named := strings.HasSuffix(strings.ToLower(strings.TrimSuffix(h, ".")), ".test"); named || h == "ip6-localhost" || strings.Contains(h, "localdomain") {
			continue
		}
		if err := (Policy{}).CheckURL("http://" + h + "/"); err == nil {
			t.Errorf("%s passes", h)
		}
	}
}

// TestRebinding: a name that is public when it is looked up and internal a moment later.
func TestRebinding(t *testing.T) {
	p := Policy{Resolver: nameServer(t)}
	g, s := p.gate(), &socket{}
	g.knock = s.knock
	client := g.client()
	defer client.CloseIdleConnections()
	var refusals int
	for range 5 {
		_, err := client.Get("http://flip.test:9/")
		var refused *Refusal
		if errors.As(err, &refused) {
			refusals++
		}
	}
	s.check(t, "rebinding")
	if len(s.seen) != 1 || s.seen[0].String() != "93.184.215.14:9" || refusals != 4 {
		t.Errorf("sockets %v, %d refusals", s.seen, refusals)
	}
	if err := p.Check(t.Context(), "http://chain.test/"); err == nil || !strings.HasPrefix(err.Error(), "chain.test resolves to ") {
		t.Errorf("Check: %v", err)
	}
	if err := p.Check(t.Context(), "http://Missing.test/"); err == nil || !strings.HasPrefix(err.Error(), "Cannot resolve hostname: missing.test") {
		t.Errorf("Check: %v", err)
	}
}

// TestRedirects: a receiver that may be called sends us elsewhere; nobody goes.
func TestRedirects(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "http://"+r.URL.Query().Get("to")+"/")
		w.WriteHeader(map[string]int{"": 302, "1": 301, "2": 303, "3": 307, "4": 308}[r.URL.Query().Get("code")])
	}))
	defer srv.Close()
	own := netip.MustParseAddrPort(srv.Listener.Addr().String())
	s := &socket{own: own}
	g := Policy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}.gate()
	g.knock = s.knock
	client := g.client()
	defer client.CloseIdleConnections()
	for _, h := range internal {
		for _, code := range []string{"", "1", "2", "3", "4"} {
			resp, err := client.Post(srv.URL+"/?to="+h+"&code="+code, "text/plain", strings.NewReader("x"))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode/100 != 3 {
				t.Errorf("%s: %d", h, resp.StatusCode)
			}
		}
	}
	s.check(t, "redirects")
}

// TestNoProxy: what the environment says about proxies is not asked, since a proxy would resolve and dial for us.
func TestNoProxy(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	if (Policy{}).Client().Transport.(*http.Transport).Proxy != nil {
		t.Error("a proxy is used")
	}
}

// TestSocketLooksAgain: even if an address got past the first look, the socket would not connect.
func TestSocketLooksAgain(t *testing.T) {
	g := Policy{}.gate()
	_, err := g.connect(t.Context(), "host", netip.MustParseAddrPort("127.0.0.1:9"), 1)
	var refused *Refusal
	if !errors.As(err, &refused) {
		t.Errorf("got %v", err)
	}
}
