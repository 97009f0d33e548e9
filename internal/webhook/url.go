package webhook

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

const maxURL = 2083 // characters (CueAPI wire contract 8)

// CheckURL refuses addresses by how they are written, asking no name server: the scheme, user names and passwords, hosts that
// are not one, that name this machine or a cloud's metadata, or that are an address which may not be called. The error is a
// sentence for people; the first words are those of CueAPI wire contract 5 where that has any. An IPv4 address must be
// written as four decimal numbers: other forms (127.1, 0x7f000001, 2130706433) mean different things to different programs.
func (p Policy) CheckURL(rawURL string) error {
	_, err := p.checkURL(rawURL)
	return err
}

// checkURL also answers the host, as it will be dialled.
func (p Policy) checkURL(rawURL string) (host string, err error) {
	if utf8.RuneCountInString(rawURL) > maxURL {
		return "", fmt.Errorf("URL should have at most %d characters", maxURL)
	}
	u, err := url.Parse(rawURL)
	switch {
	case err != nil:
		return "", fmt.Errorf("The URL cannot be read: %w", errors.Unwrap(err)) // url.Parse answers a *url.Error, which quotes it all
	case p.Secure && u.Scheme != "https":
		return "", errors.New("URL must use https:// in production")
	case u.Scheme != "http" && u.Scheme != "https":
		return "", errors.New("URL must use http:// or https://")
	case u.User != nil:
		return "", errors.New("Credentials in callback URLs are not allowed. Send them in a header")
	case u.Hostname() == "":
		return "", errors.New("URL must have a hostname")
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", errors.New("The port must be a number from 1 to 65535")
		}
	}
	g := p.gate()
	if host = u.Hostname(); strings.HasPrefix(u.Host, "[") {
		addr, err := netip.ParseAddr(host)
		if err != nil || !addr.Is6() {
			return "", fmt.Errorf("[%s] is not an IPv6 address", host)
		}
		return host, g.judge(host, addr)
	}
	if host, err = name(host); err != nil {
		return "", err
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return host, g.judge(host, addr)
	}
	return host, g.judgeName(host)
}

// name is the host as a name server is asked for it, without the dot at its end, or an IPv4 address.
func name(host string) (string, error) {
	ascii := host
	if strings.ContainsFunc(host, func(r rune) bool { return r >= utf8.RuneSelf }) { // as net/http does before it dials
		var err error
		if ascii, err = idna.Lookup.ToASCII(host); err != nil {
			return "", fmt.Errorf("%q is not a host name", host)
		}
	}
	ascii = strings.ToLower(strings.TrimSuffix(ascii, "."))
	labels := strings.Split(ascii, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || strings.ContainsFunc(l, func(r rune) bool { return !inName(r) }) {
			return "", fmt.Errorf("%q is not a host name", host)
		}
	}
	if len(ascii) > 253 {
		return "", errors.New("The host name has more than 253 characters")
	}
	// A name whose last label is a number is an IPv4 address to many programs (url.spec.whatwg.org, "ends in a number").
	if last := labels[len(labels)-1]; isNumber(last) {
		if _, err := netip.ParseAddr(ascii); err != nil {
			return "", fmt.Errorf("%q is not an IPv4 address. Write it as four decimal numbers", host)
		}
	}
	return ascii, nil
}

// inName lets the underscore pass, which is in many names of containers.
func inName(r rune) bool {
	return r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z'
}

func isNumber(label string) bool {
	_, err := strconv.ParseUint(label, 0, 64) // 0x7f, 0177
	return err == nil || strings.Trim(label, "0123456789") == "" || label == "0x"
}

// judgeName refuses the names that always mean something internal, unless what they mean may be called.
func (g *gate) judgeName(host string) error {
	addr := ""
	switch {
	case host == "localhost" || strings.HasSuffix(host, ".localhost"): // RFC 6761
		addr = "127.0.0.1"
	case host == "metadata.google.internal" || host == "metadata.internal":
		addr = "169.254.169.254"
	default:
		return nil
	}
	if err := g.judge(host, netip.MustParseAddr(addr)); err != nil {
		return fmt.Errorf("Blocked hostname: %s. %w", host, err)
	}
	return nil
}
