package webhook_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"unstuck/internal/webhook"
)

func TestCheckURL(t *testing.T) {
	long := "https://example.com/" + strings.Repeat("ä", 2083-20)
	dev := webhook.Policy{Private: true}
	docker := webhook.Policy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Secure: true}
	secure := webhook.Policy{Secure: true}
	for _, c := range []struct {
		policy webhook.Policy
		url    string
		want   string // how the refusal begins; "": allowed
	}{
		{secure, "https://example.com", ""},
		{secure, "https://EXAMPLE.com:8443/a/b?c=d#e", ""},
		{secure, "https://bücher.example/", ""},
		{secure, "https://my_container.example./", ""},
		{secure, "https://1.1.1.1/", ""},
		{secure, "https://[2606:4700::1111]:444/", ""},
		{secure, "https://3com.example1/", ""},
		{secure, long, ""},
		{secure, long + "x", "URL should have at most 2083 characters"},
		{secure, "http://example.com/", "URL must use https:// in production"},
		{dev, "http://example.com/", ""},
		{dev, "ftp://example.com/", "URL must use http:// or https://"},
		{dev, "example.com", "URL must use http:// or https://"},
		{dev, "", "URL must use http:// or https://"},
		{dev, "http:example.com", "URL must have a hostname"},
		{dev, "http:///path", "URL must have a hostname"},
		{dev, "https://:443/", "URL must have a hostname"},
		{dev, "https://u:p@example.com/", "Credentials in callback URLs are not allowed"},
		{dev, "https://@example.com/", "Credentials in callback URLs are not allowed"},
		{dev, "https://example.com@10.0.0.1/", "Credentials in callback URLs are not allowed"},
		{dev, "https://example.com:0/", "The port must be a number from 1 to 65535"},
		{dev, "https://example.com:/", "The port must be a number from 1 to 65535"},
		{dev, "https://example.com:65536/", "The port must be a number from 1 to 65535"},
		{dev, "https://example.com:x/", "The URL cannot be read"},
		{dev, "https://exa mple.com/", "The URL cannot be read"},
		{dev, "https://example.com/\x00", "The URL cannot be read"},
		{dev, "https://a..example/", `"a..example" is not a host name`},
		{dev, "https://.example/", `".example" is not a host name`},
		{dev, "https://exa%20mple/", "The URL cannot be read"},
		{dev, "https://a*b.example/", `"a*b.example" is not a host name`},
		{dev, "https://" + strings.Repeat("a", 64) + ".example/", `"`},
		{dev, "https://2130706433/", `"2130706433" is not an IPv4 address`},
		{dev, "https://0x7f000001/", `"0x7f000001" is not an IPv4 address`},
		{dev, "https://0x/", `"0x" is not an IPv4 address`},
		{dev, "https://127.1/", `"127.1" is not an IPv4 address`},
		{dev, "https://0177.0.0.1/", `"0177.0.0.1" is not an IPv4 address`},
		{dev, "https://example.08/", `"example.08" is not an IPv4 address`},
		{dev, "https://99999999999999999999999/", `"99999999999999999999999" is not an IPv4 address`},
		{dev, "https://[::1%25eth0]/", "::1%eth0 is an address with a zone"},
		{dev, "https://[127.0.0.1]/", "The URL cannot be read"},
		{dev, "https://[v1.x]/", "The URL cannot be read"},
		{secure, "https://127.0.0.1/", "127.0.0.1 is this machine itself"},
		{secure, "https://①②⑦.⓪.⓪.①/", "127.0.0.1 is this machine itself"},
		{secure, "https://127.0.0.1./", "127.0.0.1 is this machine itself"},
		{secure, "https://[::ffff:10.0.0.1]/", "::ffff:10.0.0.1 resolves to 10.0.0.1, which is a private network"},
		{secure, "https://localhost/", "Blocked hostname: localhost. localhost resolves to 127.0.0.1"},
		{secure, "https://LOCALHOST./", "Blocked hostname: localhost"},
		{secure, "https://a.localhost/", "Blocked hostname: a.localhost"},
		{dev, "http://localhost:5678/webhook", ""},
		{docker, "https://localhost:5678/webhook", ""},
		{dev, "http://metadata.google.internal/", "Blocked hostname: metadata.google.internal"},
		{dev, "http://Metadata.Internal/", "Blocked hostname: metadata.internal"},
		{dev, "http://169.254.169.254/", "169.254.169.254 is link-local"},
		{dev, "http://10.0.0.1:1234/", ""},
		{dev, "http://[::1]:1234/", ""},
		{docker, "https://127.0.0.1/", ""},
		{docker, "https://10.0.0.1/", "10.0.0.1 is a private network"},
	} {
		switch err := c.policy.CheckURL(c.url); {
		case c.want == "" && err != nil:
			t.Errorf("%.60s: %v", c.url, err)
		case c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)):
			t.Errorf("%.60s: %v, want %s", c.url, err, c.want)
		}
	}
}

// FuzzCheckURL: it never fails, quotes no password, and what passes names a host that is dialled as it was judged.
func FuzzCheckURL(f *testing.F) {
	for _, seed := range []string{"https://example.com/", "http://u:secretpassword@h/", "https://[::1%25a]/", "http://0x7f.1:80/", "https://①.⓪.⓪.①"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, url string) {
		err := webhook.Policy{}.CheckURL(url)
		var refused *webhook.Refusal
		switch {
		case err == nil:
			if utf8.RuneCountInString(url) > 2083 || strings.Contains(url, "://localhost/") {
				t.Errorf("%q passes", url)
			}
		case errors.As(err, &refused):
			if !refused.Addr.IsValid() {
				t.Errorf("%q: a refusal without an address", url)
			}
		case strings.Contains(err.Error(), "secretpassword"):
			t.Errorf("%q: %v", url, err)
		}
	})
}
