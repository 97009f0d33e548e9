//go:build interop && linux

package interop

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shippedFront starts Caddy with deploy/Caddyfile in front of an address, with TLS by an authority of its own, as it does for the name
// localhost. Only what would reach outside the test is turned off.
func shippedFront(t testing.TB, upstream string) front {
	t.Helper()
	_, port, err := net.SplitHostPort(freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../deploy/Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "Caddyfile"), "{\n\tadmin off\n\tdefault_bind 127.0.0.1\n\tskip_install_trust\n\tauto_https disable_redirects\n\tstorage file_system "+dir+"\n}\n"+string(text))
	site := "localhost:" + port
	p := launch(t, []string{"SITE_ADDRESS=" + site, "UPSTREAM=" + strings.TrimPrefix(upstream, "http://")},
		"caddy", "run", "--adapter", "caddyfile", "--config", filepath.Join(dir, "Caddyfile")).shown()
	listening(t, p, "127.0.0.1:"+port)
	trust := x509.NewCertPool()
	eventually(t, "Caddy has a certificate", func() bool {
		root, err := os.ReadFile(filepath.Join(dir, "pki", "authorities", "local", "root.crt"))
		if err != nil || !trust.AppendCertsFromPEM(root) {
			return false
		}
		c, err := tls.Dial("tcp4", site, &tls.Config{RootCAs: trust})
		return err == nil && c.Close() == nil
	})
	return front{"https://" + site, &tls.Config{RootCAs: trust}}
}

// fronts are the shipped configurations that put a proxy with TLS in front of the server.
var fronts = map[string]func(t testing.TB, upstream string) front{"caddy": shippedFront, "nginx": shippedNginx}

// shippedNginx starts nginx with docs/examples/nginx-front.conf in front of an address.
func shippedNginx(t testing.TB, upstream string) front {
	return startNginx(t, "nginx-front.conf", "unstuck.example.com", map[string]string{"server 127.0.0.1:8080;": "server " + strings.TrimPrefix(upstream, "http://") + ";"})
}

// through is a client that calls from an address of this machine.
func (f front) through(t testing.TB, from string) *http.Client {
	transport := &http.Transport{TLSClientConfig: f.tls, DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// TestFront: behind the shipped configurations, with TLS, a key for certain addresses is held against the caller's own, whatever he says
// of it.
func TestFront(t *testing.T) {
	for name, start := range fronts {
		t.Run(name, func(t *testing.T) {
			s := serve(t, "--trusted-proxies", "127.0.0.1/32")
			testFront(t, s, start(t, s.url))
		})
	}
}

func testFront(t *testing.T, s *server, f front) {
	_, here := s.newKey("read-only", object{"ips": []string{"127.0.0.2/32"}})
	ask := func(from, said string) (status int, body string) {
		r, err := http.NewRequest(http.MethodGet, f.url+"/v1/keys/self", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+here)
		if said != "" {
			r.Header.Set("X-Forwarded-For", said)
		}
		answer, err := f.through(t, from).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(text)
	}
	if status, body := ask("127.0.0.2", ""); status != 200 {
		t.Errorf("from its address: %d %s", status, body)
	}
	for _, said := range []string{"", "127.0.0.2", "127.0.0.2, 127.0.0.1"} {
		if status, body := ask("127.0.0.3", said); status != 403 || code(parse(t, body)) == "" {
			t.Errorf("from another address, said to be %q: %d %s", said, status, body)
		}
	}
}

// TestFrontStreams: an event goes through the shipped configurations when it is sent, not when the answer ends.
func TestFrontStreams(t *testing.T) {
	for name, start := range fronts {
		t.Run(name, func(t *testing.T) { testFrontStreams(t, start) })
	}
}

func testFrontStreams(t *testing.T, start func(testing.TB, string) front) {
	seen := make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for n := range 3 {
			_, _ = fmt.Fprintf(w, "data: %d\n\n", n) // a caller that went away shows in the test
			w.(http.Flusher).Flush()
			select {
			case <-seen:
			case <-r.Context().Done():
				return
			}
		}
	}))
	t.Cleanup(upstream.Close)
	f := start(t, upstream.URL)
	answer, err := f.through(t, "127.0.0.1").Get(f.url + "/v1/live")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for n := 0; lines.Scan(); {
		if lines.Text() == "" {
			continue
		}
		if want := fmt.Sprintf("data: %d", n); lines.Text() != want {
			t.Fatalf("came %q, want %q", lines.Text(), want)
		}
		n++
		seen <- struct{}{}
	}
	if lines.Err() != nil {
		t.Error(lines.Err())
	}
}

func parse(t testing.TB, body string) (out object) {
	t.Helper()
	if err := json.Unmarshal([]byte(body), &out); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return out
}
