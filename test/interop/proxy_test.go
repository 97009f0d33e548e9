//go:build interop && linux

package interop

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// site is a static site that remembers what arrived last. It answers a POST with the size of its body.
type site struct {
	*httptest.Server
	arrived chan *http.Request
}

const page = "<h1>only for keys</h1>"

func newSite(t testing.TB) *site {
	s := &site{arrived: make(chan *http.Request, 1)}
	files := http.FileServerFS(fstest.MapFS{"report.html": {Data: []byte(page)}})
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.arrived <- r.Clone(r.Context())
		if r.Method != http.MethodPost {
			files.ServeHTTP(w, r)
			return
		}
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			t.Errorf("read what came through the proxy: %v", err)
		}
		_, _ = fmt.Fprintf(w, "%d bytes", n) // a caller that went away shows in the test
	}))
	t.Cleanup(s.Close)
	return s
}

// front is a proxy in front of the site that asks the server who may pass.
type front struct {
	url string
	tls *tls.Config // what a caller must trust; nil for plain HTTP
}

// caller says what to send through a proxy.
type caller struct {
	key, method, body string
	from              string // address of this machine to call from
	header            http.Header
}

// ask sends one call and returns its answer, with the body read, and what arrived at the site; nil for nothing.
func (f front) ask(t testing.TB, s *site, c caller) (answer *http.Response, body string, arrived *http.Request) {
	t.Helper()
	if c.method == "" {
		c.method = http.MethodGet
	}
	r, err := http.NewRequest(c.method, f.url+"/report.html", strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range c.header {
		r.Header[name] = values
	}
	if c.key != "" {
		r.Header.Set("Authorization", "Bearer "+c.key)
	}
	dialer := net.Dialer{}
	if c.from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(c.from)}
	}
	transport := &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: f.tls}
	defer transport.CloseIdleConnections()
	if answer, err = transport.RoundTrip(r); err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case arrived = <-s.arrived:
	default:
	}
	return answer, string(text), arrived
}

// TestProxy holds the shipped examples against the real programs.
func TestProxy(t *testing.T) {
	t.Run("nginx", func(t *testing.T) { proxy(t, nginx) })
	t.Run("caddy", func(t *testing.T) { proxy(t, caddy) })
}

func proxy(t *testing.T, start func(testing.TB, *server, *site) front) {
	backend, s := newSite(t), serve(t, "--trusted-proxies", "127.0.0.1/32")
	f := start(t, s, backend)
	readerID, reader := s.newKey("read-only", nil)
	_, worker := s.newKey("worker", nil)
	_, here := s.newKey("read-only", object{"ips": []string{"127.0.0.2/32"}})
	_, slow := s.newKey("read-only", object{"rate_per_minute": 2})
	forged := http.Header{"X-Forwarded-For": {"127.0.0.2"}}

	pass := func(t *testing.T, c caller) *http.Request {
		t.Helper()
		answer, body, arrived := f.ask(t, backend, c)
		if answer.StatusCode != 200 || arrived == nil {
			t.Fatalf("answered %d %s", answer.StatusCode, body)
		}
		if c.method == "" && body != page {
			t.Errorf("the page is %q", body)
		}
		return arrived
	}
	refuse := func(t *testing.T, c caller, status int) *http.Response {
		t.Helper()
		answer, body, arrived := f.ask(t, backend, c)
		if answer.StatusCode != status || arrived != nil || strings.Contains(body, page) {
			t.Errorf("answered %d %s, want %d; arrived at the site: %t", answer.StatusCode, body, status, arrived != nil)
		}
		return answer
	}

	t.Run("who may pass", func(t *testing.T) {
		pass(t, caller{key: reader})
		pass(t, caller{key: s.key})
		refuse(t, caller{key: worker}, 403) // it lacks cues:read
		if challenge := refuse(t, caller{}, 401).Header.Get("WWW-Authenticate"); !strings.HasPrefix(challenge, "Bearer") {
			t.Errorf("the challenge is %q", challenge)
		}
		refuse(t, caller{key: "nonsense"}, 401)
	})
	t.Run("what arrives", func(t *testing.T) {
		arrived := pass(t, caller{key: reader, header: http.Header{
			"X-Unstuck-Key": {"key_forged"}, "x-unstuck-workspace": {"ws_forged"}, "X-Unstuck-Permissions": {"cues:write"}, "X-Unstuck-Code": {"forged"}, "X-Team": {"crm"},
		}})
		for name := range arrived.Header {
			if name == "Authorization" || strings.HasPrefix(name, "X-Unstuck-") && strings.Contains(arrived.Header.Get(name), "forged") {
				t.Errorf("%s arrives as %q", name, arrived.Header[name])
			}
		}
		h := arrived.Header
		if h.Get("X-Unstuck-Key") != readerID || !strings.HasPrefix(h.Get("X-Unstuck-Workspace"), "ws_") || h.Get("X-Team") != "crm" {
			t.Errorf("headers that arrive: %v", h)
		}
		if p := " " + strings.ReplaceAll(h.Get("X-Unstuck-Permissions"), ",", " ") + " "; !strings.Contains(p, " cues:read ") || strings.Contains(p, "cues:write") {
			t.Errorf("permissions that arrive: %q", p)
		}
	})
	t.Run("body", func(t *testing.T) {
		answer, body, _ := f.ask(t, backend, caller{key: reader, method: "POST", body: strings.Repeat("b", 100_000)})
		if answer.StatusCode != 200 || body != "100000 bytes" {
			t.Errorf("answered %d %s", answer.StatusCode, body)
		}
		refuse(t, caller{key: worker, method: "POST", body: "b"}, 403)
	})
	t.Run("address", func(t *testing.T) { // the caller's own counts, not one that it names
		pass(t, caller{key: here, from: "127.0.0.2"})
		refuse(t, caller{key: here, header: forged}, 403)
		refuse(t, caller{key: here, from: "127.0.0.3", header: forged}, 403)
	})
	t.Run("over the limit", func(t *testing.T) { // not 429, of which nginx would make a 500
		pass(t, caller{key: slow})
		pass(t, caller{key: slow})
		h := refuse(t, caller{key: slow}, 403).Header
		if wait, err := strconv.Atoi(h.Get("Retry-After")); err != nil || wait < 1 || h.Get("X-Unstuck-Code") != "rate_limit_exceeded" {
			t.Errorf("headers of the refusal: %v", h)
		}
	})
	t.Run("revoked", func(t *testing.T) {
		s.call("POST", "/v1/keys/"+readerID+"/revoke", object{})
		refuse(t, caller{key: reader}, 401)
	})
}

// TestProxyOneCue asks what a proxy would ask about one cue.
func TestProxyOneCue(t *testing.T) {
	s := serve(t)
	mine, other := s.newCue("crm-mine", object{}, nil), s.newCue("other", object{}, nil)
	_, key := s.newKey("read-only", object{"cues": []string{"crm-*"}})
	for cue, wanted := range map[string]int{mine: 204, other: 403, "cue_aaaaaaaaaaaa": 403} {
		if status, answer := s.try(key, "GET", "/v1/keys/authorize?permission=cues:read&cue="+cue, nil); status != wanted {
			t.Errorf("about %s the answer is %d %v, want %d", cue, status, answer, wanted)
		}
	}
}

// TestProxyFailsClosed stops the server behind the proxies: nobody passes.
func TestProxyFailsClosed(t *testing.T) {
	for name, start := range map[string]func(testing.TB, *server, *site) front{"nginx": nginx, "caddy": caddy} {
		t.Run(name, func(t *testing.T) {
			gone := httptest.NewServer(http.NotFoundHandler())
			gone.Close()
			backend := newSite(t)
			f := start(t, &server{t: t, url: gone.URL}, backend)
			if answer, body, arrived := f.ask(t, backend, caller{key: "any"}); answer.StatusCode < 500 || arrived != nil {
				t.Errorf("answered %d %s; arrived at the site: %t", answer.StatusCode, body, arrived != nil)
			}
		})
	}
}

// TestProxyDevelopment asks a server that was started with --dev, where everybody may sign up: nobody passes.
func TestProxyDevelopment(t *testing.T) {
	backend, s := newSite(t), serve(t, "--dev")
	if answer, body, arrived := nginx(t, s, backend).ask(t, backend, caller{key: s.key}); answer.StatusCode != 500 || arrived != nil {
		t.Errorf("answered %d %s; arrived at the site: %t", answer.StatusCode, body, arrived != nil)
	}
}

// example reads a shipped example and changes its places, each of which must be there once.
func example(t testing.TB, name string, changes map[string]string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../docs/examples", name))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for from, to := range changes {
		if strings.Count(text, from) != 1 {
			t.Fatalf("docs/examples/%s has %q %d times, want once", name, from, strings.Count(text, from))
		}
		text = strings.Replace(text, from, to, 1)
	}
	return text
}

// freeAddress is an address of this machine that nobody listens on.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// listening awaits that a program listens on an address.
func listening(t testing.TB, p *program, address string) {
	t.Helper()
	eventually(t, filepath.Base(p.cmd.Path)+" listens", func() bool {
		select {
		case <-p.ended:
			t.Fatalf("%s ended at once", p.cmd.Path)
		default:
		}
		c, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		_ = c.Close() // it was only a try
		return true
	})
}

// nginx starts nginx with the shipped example, with TLS as there. What the example leaves to the rest of nginx's configuration
// keeps to one folder and one process, which needs no user of its own.
func nginx(t testing.TB, s *server, backend *site) front {
	return startNginx(t, "nginx.conf", "example.com", map[string]string{
		"server 127.0.0.1:8080;": "server " + strings.TrimPrefix(s.url, "http://") + ";",
		"server 127.0.0.1:9000;": "server " + strings.TrimPrefix(backend.URL, "http://") + ";",
	})
}

// startNginx starts nginx with an example for the site of this name, some of whose places are changed.
func startNginx(t testing.TB, file, site string, changes map[string]string) front {
	dir, address := t.TempDir(), freeAddress(t)
	certificate, key, trust := pair(t, dir)
	changes["listen 443 ssl;"] = "listen " + address + " ssl;"
	changes["/etc/ssl/"+site+".pem"], changes["/etc/ssl/"+site+".key"] = certificate, key
	write(t, filepath.Join(dir, "example.conf"), example(t, file, changes))
	var temporary strings.Builder
	for _, of := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temporary, "\t%s_temp_path %s;\n", of, filepath.Join(dir, of))
	}
	write(t, filepath.Join(dir, "nginx.conf"), "daemon off;\nmaster_process off;\npid nginx.pid;\nevents {}\nhttp {\n\taccess_log off;\n"+temporary.String()+"\tinclude example.conf;\n}\n")
	p := launch(t, nil, "nginx", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr").shown()
	listening(t, p, address)
	return front{"https://" + address, &tls.Config{RootCAs: trust, ServerName: "example.com"}}
}

// pair writes a certificate for example.com and its key, and returns both files and who trusts them.
func pair(t testing.TB, dir string) (certificate, key string, trust *x509.CertPool) {
	t.Helper()
	s := httptest.NewTLSServer(nil) // brings a pair of its own
	defer s.Close()
	secret, err := x509.MarshalPKCS8PrivateKey(s.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key = filepath.Join(dir, "certificate.pem"), filepath.Join(dir, "key.pem")
	write(t, certificate, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	write(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
	trust = x509.NewCertPool()
	trust.AddCert(s.Certificate())
	return certificate, key, trust
}

// caddy starts Caddy with the shipped example, over plain HTTP: it would get a certificate from outside.
func caddy(t testing.TB, s *server, backend *site) front {
	address := freeAddress(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	text := example(t, "Caddyfile", map[string]string{
		"\nexample.com {": "\n{\n\tadmin off\n\tauto_https off\n}\nhttp://:" + port + " {\n\tbind 127.0.0.1",
		"127.0.0.1:8080":  strings.TrimPrefix(s.url, "http://"),
		"127.0.0.1:9000":  strings.TrimPrefix(backend.URL, "http://"),
	})
	file := filepath.Join(t.TempDir(), "Caddyfile")
	write(t, file, text)
	p := launch(t, nil, "caddy", "run", "--adapter", "caddyfile", "--config", file).shown()
	listening(t, p, address)
	return front{url: "http://" + address}
}
