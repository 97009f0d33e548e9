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
