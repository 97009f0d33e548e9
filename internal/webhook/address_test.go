package webhook

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"code.dny.dev/ssrf"
)

// TestAddresses: what an address is said to be, and whether development opens it.
func TestAddresses(t *testing.T) {
	normal, dev := Policy{}.gate(), Policy{Private: true}.gate()
	for text, want := range map[string]string{
		"8.8.8.8": "", "1.1.1.1": "", "100.63.255.255": "", "100.128.0.0": "", "172.15.255.255": "", "172.32.0.0": "", "198.17.255.255": "",
		"198.20.0.0": "", "223.255.255.255": "", "11.0.0.0": "", "169.253.255.255": "", "2606:4700::1111": "", "2a00::": "", "::ffff:8.8.8.8": "",
		"127.0.0.1": "dev this machine itself", "127.255.255.254": "dev this machine itself", "::1": "dev this machine itself", "::ffff:127.0.0.1": "dev this machine itself",
		"0.0.0.0": "this machine itself", "0.1.2.3": "this machine itself", "::": "this machine itself", "::127.0.0.1": "an IPv4 address in disguise",
		"10.1.2.3": "dev a private network", "172.16.0.1": "dev a private network", "172.31.255.255": "dev a private network",
		"192.168.1.1": "dev a private network", "fc00::1": "dev a private network", "fdff::1": "dev a private network",
		"100.64.0.1": "dev a provider's shared network", "100.127.255.255": "dev a provider's shared network",
		"169.254.169.254": "link-local, where clouds keep their metadata", "::ffff:169.254.169.254": "link-local, where clouds keep their metadata", "fe80::1": "link-local",
		"192.0.0.8": "reserved for protocols", "192.0.2.1": "for documentation only", "198.51.100.1": "for documentation only",
		"203.0.113.1": "for documentation only", "2001:db8::1": "for documentation only", "3fff::1": "for documentation only",
		"198.18.0.1": "for benchmarks only", "198.19.255.255": "for benchmarks only", "192.88.99.1": "a relay of 6to4",
		"224.0.0.1": "multicast", "239.255.255.250": "multicast", "ff02::1": "multicast", "240.0.0.1": "reserved", "255.255.255.255": "reserved",
		"64:ff9b::7f00:1": "an IPv4 address behind a translator", "64:ff9b:1::a00:1": "an IPv4 address behind a translator",
		"2001::1": "a Teredo tunnel", "2001:10::1": "reserved for protocols", "2002:7f00:1::": "a 6to4 tunnel", "fec0::1": "a private network of the old kind",
		"::2:0:0:0": "no public address", "100::1": "no public address", "5f00::1": "no public address", "4000::": "no public address", "9000::": "no public address",
	} {
		what, opened := strings.CutPrefix(want, "dev ")
		for name, g := range map[string]*gate{"": normal, "in development ": dev} {
			var refused *Refusal
			errors.As(g.judge("host", netip.MustParseAddr(text)), &refused)
			switch allowed := want == "" || opened && g == dev; {
			case allowed && refused != nil:
				t.Errorf("%s %sis refused: %v", text, name, refused)
			case !allowed && refused == nil:
				t.Errorf("%s %sis allowed", text, name)
			case !allowed && refused.What != what:
				t.Errorf("%s %sis %s, not %s", text, name, refused.What, what)
			}
		}
	}
	if normal.judge("h", netip.MustParseAddr("fe80::1%eth0")) == nil || dev.judge("h", netip.MustParseAddr("2a00::1%eth0")) == nil {
		t.Error("an address with a zone is allowed")
	}
}

// TestAddressesAgainstSSRF: a list that others keep refuses nothing that ours lets pass, over both ends of each of its ranges and
// random addresses.
func TestAddressesAgainstSSRF(t *testing.T) {
	theirs, ours := ssrf.New(ssrf.WithAnyPort()), Policy{}.gate()
	check := func(a netip.Addr) {
		if a = a.Unmap(); ours.judge("h", a) == nil {
			if err := theirs.SafeAddr(a); err != nil {
				t.Errorf("%s passes: %v", a, err)
			}
		}
	}
	for _, p := range append(ssrf.IPv4DeniedPrefixes, ssrf.IPv6DeniedPrefixes...) {
		check(p.Addr())
		check(lastOf(p))
	}
	for _, s := range ours.special {
		check(s.Addr())
		check(s.Addr().Prev())
		check(lastOf(s.Prefix))
		check(lastOf(s.Prefix).Next())
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 200_000 {
		var b [16]byte
		binary.LittleEndian.PutUint64(b[:], random.Uint64())
		binary.LittleEndian.PutUint64(b[8:], random.Uint64())
		check(netip.AddrFrom4([4]byte(b[:4])))
		b[0] >>= random.IntN(8)
		check(netip.AddrFrom16(b))
	}
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// TestAllow: a listed range is called, its neighbours are not, and a list is understood however it is written.
func TestAllow(t *testing.T) {
	for list, addrs := range map[string][2]string{
		"172.17.0.0/16":        {"172.17.0.2", "172.18.0.2"},
		"::ffff:10.0.0.0/104":  {"10.1.2.3", "127.0.0.1"},
		"fd00:1::/32":          {"fd00:1::5", "fd00:2::5"},
		"169.254.169.254/32":   {"169.254.169.254", "169.254.169.253"},
		"10.0.0.5/32":          {"::ffff:10.0.0.5", "::10.0.0.5"},
		"64:ff9b::808:808/128": {"64:ff9b::808:808", "64:ff9b::7f00:1"},
	} {
		g := Policy{Allow: []netip.Prefix{netip.MustParsePrefix(list)}}.gate()
		if err := g.judge("h", netip.MustParseAddr(addrs[0])); err != nil {
			t.Errorf("%s: %v", list, err)
		}
		if g.judge("h", netip.MustParseAddr(addrs[1])) == nil {
			t.Errorf("%s lets %s pass", list, addrs[1])
		}
	}
}

func TestRefusalNamesAddressAndSetting(t *testing.T) {
	g := Policy{}.gate()
	for _, c := range []struct{ host, addr, want string }{
		{"n8n", "172.17.0.2", "n8n resolves to 172.17.0.2, which is a private network (172.16.0.0/12); only public addresses are called. To allow it, whoever runs this server adds 172.17.0.2/32 to UNSTUCK_ALLOW_CALLBACKS."},
		{"::1", "::1", "::1 is this machine itself (::1/128); only public addresses are called. To allow it, whoever runs this server adds ::1/128 to UNSTUCK_ALLOW_CALLBACKS."},
		{"fe80::1%eth0", "fe80::1%eth0", "fe80::1%eth0 is an address with a zone, which means something on one machine only. Use an address without \"%\"."},
	} {
		if err := g.judge(c.host, netip.MustParseAddr(c.addr)); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v\nwant %s", c.host, err, c.want)
		}
	}
}

// TestPlainHTTPIsToldOfTheSetting: whoever writes plain http to an address that is not public learns which setting would let it through,
// as a container beside the server needs it; to a public address https is what is missing.
func TestPlainHTTPIsToldOfTheSetting(t *testing.T) {
	secure := Policy{Secure: true}
	for url, want := range map[string]string{
		"http://172.17.0.1:5678/webhook/x":  "adds 172.17.0.1/32 to UNSTUCK_ALLOW_CALLBACKS",
		"HTTP://localhost:5678/":            "adds 127.0.0.1/32 to UNSTUCK_ALLOW_CALLBACKS",
		"https://172.17.0.1/":               "adds 172.17.0.1/32 to UNSTUCK_ALLOW_CALLBACKS",
		"http://93.184.216.34/":             "URL must use https:// in production",
		"http://user:secret@93.184.216.34/": "URL must use https:// in production",
		"ftp://93.184.216.34/":              "URL must use https:// in production",
	} {
		if err := secure.Check(t.Context(), url); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
	}
	secure.Allow = []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")}
	if err := secure.Check(t.Context(), "http://172.17.0.1:5678/webhook/x"); err != nil {
		t.Errorf("an allowed address: %v", err)
	}
	if err := secure.Check(t.Context(), "http://93.184.216.34/"); err == nil {
		t.Error("plain http to a public address passes because another one is allowed")
	}
}
