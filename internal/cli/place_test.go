package cli

import (
	"context"
	"strings"
	"testing"
)

// TestPlainHTTP: a key travels without TLS to this machine only, unless the caller says otherwise.
func TestPlainHTTP(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for address, sent := range map[string]bool{
		"http://127.0.0.1:8080": true, "http://localhost:8080": true, "http://[::1]:8080": true, "https://unstuck.example.com": true,
		"http://unstuck.example.com": false, "http://10.0.0.7:8080": false, "http://localhost.example.com": false, "http://127.0.0.1.example.com": false,
	} {
		for _, allowed := range []bool{false, true} {
			c := newClient(place{url: address, key: "unstuck_x", source: "a test"}, allowed)
			_, err := c.call(ctx, operations().Lookup("key.self"), nil) // nothing leaves: the context has ended
			if got := !strings.HasPrefix(err.Error(), "Not sent: "); got != (sent || allowed) {
				t.Errorf("%s, --plain-http=%v: key sent %v (%v)", address, allowed, got, err)
			}
		}
	}
}

// TestKeyNeedsItsServer: a key from the environment goes to an address that somebody named, never to the default while a login names
// another one.
func TestKeyNeedsItsServer(t *testing.T) {
	const elsewhere = "http://127.0.0.1:18471"
	for name, c := range map[string]struct {
		login, url, flag string
		want             string // "" when nothing may be sent
	}{
		"a login elsewhere":           {login: elsewhere},
		"the variable names a server": {login: elsewhere, url: "http://127.0.0.1:9", want: "http://127.0.0.1:9"},
		"so does --url":               {login: elsewhere, flag: elsewhere, want: elsewhere},
		"a login for the default":     {login: defaultURL, want: defaultURL},
		"no login":                    {want: defaultURL},
	} {
		d := &door{Env: Env{Home: t.TempDir(), Getenv: func(name string) string {
			return map[string]string{keyVar: "unstuck_x", urlVar: c.url}[name]
		}}}
		d.flags.url = c.flag
		if c.login != "" {
			if err := d.writeLogin(login{URL: c.login, Key: "unstuck_y"}); err != nil {
				t.Fatal(err)
			}
		}
		p, err := d.findPlace()
		if c.want == "" {
			if err == nil || !strings.Contains(err.Error(), "export UNSTUCK_URL="+elsewhere) || !strings.Contains(err.Error(), "unset UNSTUCK_API_KEY") {
				t.Errorf("%s: asked %s (%v)", name, p.url, err)
			}
			continue
		}
		if err != nil || p.url != c.want || p.key != "unstuck_x" {
			t.Errorf("%s: asked %s (%v), want %s", name, p.url, err, c.want)
		}
	}
}
