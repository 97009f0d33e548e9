package server_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/server"
	"unstuck/internal/testkit"
	"unstuck/internal/testkit/pgtest"
)

func settings(t *testing.T, flags ...string) server.Settings {
	t.Helper()
	given := map[string]string{"data": filepath.Join(t.TempDir(), "data")}
	for i := 0; i+1 < len(flags); i += 2 {
		given[flags[i]] = flags[i+1]
	}
	s, err := server.ReadSettings(func(string) (string, bool) { return "", false }, given, "/home/x")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSettingsFaultsAtOnce: all faults are reported together, each with what to write.
func TestSettingsFaultsAtOnce(t *testing.T) {
	env := map[string]string{"UNSTUCK_REGISTER": "perhaps", "UNSTUCK_LEASE": "soon", "UNSTUCK_TLS_CERT": "cert.pem", "UNSTUCK_KEY_PREFIX": "Äh", "UNSTUCK_DATABASE": "mysql://x", "UNSTUCK_LOG_LEVEL": "loud", "UNSTUCK_PUBLIC_URL": "unstuck.example.com"}
	_, err := server.ReadSettings(func(name string) (string, bool) { v, ok := env[name]; return v, ok }, map[string]string{"listen": "8080"}, "/home/x")
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"UNSTUCK_REGISTER", "UNSTUCK_LEASE", "UNSTUCK_TLS_KEY", "UNSTUCK_KEY_PREFIX", "UNSTUCK_DATABASE", "UNSTUCK_LOG_LEVEL", "UNSTUCK_PUBLIC_URL", "UNSTUCK_LISTEN"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not named: %v", want, err)
		}
	}
}

// Days for which executions are kept: a number of them, or forever.
func TestRetentionDays(t *testing.T) {
	for text, want := range map[string]string{"": "forever", "forever": "forever", "0": "forever", "2": "2", "90": "90", "1": "", "-1": "", "90d": "", "36501": ""} {
		flags := map[string]string{}
		if text != "" {
			flags["retention-days"] = text
		}
		s, err := server.ReadSettings(func(string) (string, bool) { return "", false }, flags, "/home/x")
		if (err != nil) != (want == "") || err == nil && s.RetentionDays.String() != want {
			t.Errorf("%q: %v %v", text, s.RetentionDays, err)
		}
		if err != nil && !strings.Contains(err.Error(), "from 2 to 36500; write 90, or forever") {
			t.Error(err)
		}
	}
}

func TestFlagsWinOverEnvironment(t *testing.T) {
	env := func(name string) (string, bool) { return "127.0.0.1:1", name == "UNSTUCK_LISTEN" }
	s, err := server.ReadSettings(env, map[string]string{"listen": "127.0.0.1:2"}, "/home/x")
	if err != nil || s.Listen != "127.0.0.1:2" || s.Data != "/home/x/.unstuck/server" {
		t.Errorf("%+v %v", s, err)
	}
}

// TestExposedListen: nobody listens beyond this machine without having said how keys are protected.
func TestExposedListen(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // whoever is let through ends at once, while opening the database
	run := func(flags ...string) error {
		return server.Run(ctx, settings(t, flags...), server.Streams{Out: io.Discard, Err: io.Discard, Zone: time.UTC})
	}
	for _, listen := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0"} {
		if err := run("listen", listen); !errors.As(err, new(server.ErrExposed)) {
			t.Errorf("%s: %v", listen, err)
		}
	}
	for _, flags := range [][]string{{"listen", "127.0.0.1:0"}, {"listen", "localhost:0"}, {"listen", "[::1]:0"}, {"listen", "0.0.0.0:0", "plain-http", "true"}, {"listen", "0.0.0.0:0", "trusted-proxies", "127.0.0.1/32"}} {
		if err := run(flags...); !errors.Is(err, context.Canceled) {
			t.Errorf("%v: %v", flags, err)
		}
	}
	if err := run("listen", "0.0.0.0:0", "dev", "true", "plain-http", "true"); err == nil || !strings.Contains(err.Error(), "this machine only") {
		t.Errorf("--dev listens wider: %v", err)
	}
}

// TestDevelopmentIsLocal: under --dev a request that comes by another name, through a proxy or from another site's page is refused.
func TestDevelopmentIsLocal(t *testing.T) {
	s := testkit.New(t, "", func(s *server.Settings) { s.Dev = true })
	for name, c := range map[string]struct {
		host, header, value string
		status              int
	}{
		"by loopback":      {"127.0.0.1:8080", "", "", 200},
		"by localhost":     {"localhost:8080", "", "", 200},
		"by IPv6":          {"[::1]:8080", "", "", 200},
		"own page":         {"localhost:8080", "Origin", "http://localhost:8080", 200},
		"another name":     {"evil.example.com", "", "", 421},
		"looks like local": {"localhost.example.com", "", "", 421},
		"Forwarded":        {"localhost", "Forwarded", "for=1.2.3.4", 421},
		"Via":              {"localhost", "Via", "1.1 proxy", 421},
		"X-Real-IP":        {"localhost", "X-Real-IP", "1.2.3.4", 421},
		"X-Forwarded-For":  {"localhost", "X-Forwarded-For", "1.2.3.4", 421},
		"X-Forwarded-Foo":  {"localhost", "X-Forwarded-Foo", "x", 421},
		"another site":     {"localhost", "Origin", "https://evil.example.com", 421},
	} {
		r := httptest.NewRequest(http.MethodGet, "/v1/info", nil)
		r.Host = c.host
		if c.header != "" {
			r.Header.Set(c.header, c.value)
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if w.Code != c.status {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

// TestErrorsLinkToNoHostOfTheCaller: whoever sends a request chooses its Host, and a proxy may hand it on.
func TestErrorsLinkToNoHostOfTheCaller(t *testing.T) {
	for domain, want := range map[string]string{"": `"docs":"/docs/errors#`, "unstuck.example.com": `"docs":"https://unstuck.example.com/docs/errors#`} {
		s := testkit.New(t, "", func(s *server.Settings) { s.Domain = domain })
		r := httptest.NewRequest(http.MethodGet, "/v1/keys/self", nil)
		r.Host = "evil.example.com"
		r.Header.Set("X-Forwarded-Host", "evil.example.com")
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if body := w.Body.String(); w.Code != 401 || strings.Contains(body, "evil") || !strings.Contains(body, want) {
			t.Errorf("%q: %d %s", domain, w.Code, body)
		}
	}
}

// TestCertificateIsReadAgain: a certificate of files is used, and used anew when the files change.
func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePair(t, cert, key, 1)
	set := settings(t, "listen", "127.0.0.1:0", "tls-cert", cert, "tls-key", key)
	out := &shown{ready: make(chan string, 1)}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- server.Run(ctx, set, server.Streams{Out: io.Discard, Err: out, ErrTTY: true, Zone: time.UTC})
	}()
	address := <-out.ready
	serial := func() int64 {
		c, err := tls.Dial("tcp", strings.TrimPrefix(address, "https://"), &tls.Config{InsecureSkipVerify: true}) // the serial number is what the test looks at
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if got := serial(); got != 1 {
		t.Errorf("serial %d", got)
	}
	writePair(t, cert, key, 2)
	for end := time.Now().Add(10 * time.Second); serial() != 2; {
		if time.Now().After(end) {
			t.Fatal("the new certificate is not used")
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// shown is a terminal that waits for the address.
type shown struct {
	bytes.Buffer
	ready chan string
}

func (s *shown) Write(b []byte) (int, error) {
	n, err := s.Buffer.Write(b)
	if _, rest, ok := strings.Cut(s.String(), "Address     "); ok {
		address, _, _ := strings.Cut(rest, " ")
		s.ready <- address
	}
	return n, err
}

func writePair(t *testing.T, cert, key string, serial int64) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "localhost"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: bytes}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// opened opens a server on settings, hands it to fn and closes it.
func opened(t *testing.T, s server.Settings, fn func(*server.Server)) error {
	t.Helper()
	o, err := server.Open(context.Background(), s, server.Deps{Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	if fn != nil {
		fn(o)
	}
	return o.Close()
}

// made is a new server's data with a first key.
func made(t *testing.T) (server.Settings, access.NewKey) {
	t.Helper()
	set := settings(t)
	var key access.NewKey
	err := opened(t, set, func(s *server.Server) {
		var err error
		if key, _, err = s.Access().FirstRun(context.Background(), "admin@example.com", true); err != nil {
			t.Fatal(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return set, key
}

// call makes a call to a server without a network.
func call(s *server.Server, key, method, path string) int {
	r := httptest.NewRequest(method, path, strings.NewReader("{}"))
	r.Header.Set("Authorization", "Bearer "+key)
	r.Header.Set("X-Confirm-Destructive", "true")
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w.Code
}

// TestWrongServerSecret: a server whose secret does not fit its database, or is gone, does not start.
func TestWrongServerSecret(t *testing.T) {
	set, _ := made(t)
	right, err := os.ReadFile(filepath.Join(set.Data, "secret"))
	if err != nil {
		t.Fatal(err)
	}
	if err := access.WriteSecretFile(set.Data, access.NewServerSecret()); err != nil {
		t.Fatal(err)
	}
	if err := opened(t, set, nil); !errors.Is(err, access.ErrWrongSecret) {
		t.Errorf("a wrong secret: %v", err)
	}
	if err := os.Remove(filepath.Join(set.Data, "secret")); err != nil {
		t.Fatal(err)
	}
	if err := opened(t, set, nil); err == nil || !strings.Contains(err.Error(), "secret is missing") {
		t.Errorf("no secret: %v", err)
	}
	set.Secret = string(right) // from the environment
	if err := opened(t, set, nil); err != nil {
		t.Errorf("the right one: %v", err)
	}
}

// TestRestore: a backup comes back, keys that were revoked since stay revoked, and an older database by itself does not start.
func TestRestore(t *testing.T) {
	set, first := made(t)
	var leaked access.NewKey
	err := opened(t, set, func(s *server.Server) {
		var err error
		if leaked, _, err = s.Access().LocalLogin(context.Background(), "leaks later", ""); err != nil {
			t.Fatal(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(t.TempDir(), "backup.db")
	if err := server.Backup(context.Background(), set, backup); err != nil {
		t.Fatal(err)
	}
	var other string
	err = opened(t, set, func(s *server.Server) {
		key, _, err := s.Access().LocalLogin(context.Background(), "later", "")
		if err != nil {
			t.Fatal(err)
		}
		other = key.Secret
		if got := call(s, other, "POST", "/v1/keys/"+first.ID+"/revoke"); got != 200 {
			t.Fatalf("revoke: %d", got)
		}
		if got := call(s, leaked.Secret, "POST", "/v1/auth/regenerate"); got != 200 {
			t.Fatalf("rotate: %d", got)
		}
		if err := s.Access().WriteHeads(context.Background()); err != nil {
			t.Fatal(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	aside := set
	aside.Data = t.TempDir()
	copyFiles(t, map[string]string{backup: aside.DSN(), filepath.Join(set.Data, "secret"): filepath.Join(aside.Data, "secret"), filepath.Join(set.Data, "audit.heads"): filepath.Join(aside.Data, "audit.heads")})
	if err := opened(t, aside, nil); !errors.Is(err, access.ErrRolledBack) {
		t.Errorf("an older database started: %v", err)
	}
	done, err := server.Restore(context.Background(), set, backup)
	if err != nil || done.Revoked != 1 || done.Ended != 1 || done.Replaced == "" {
		t.Fatalf("%+v %v", done, err)
	}
	err = opened(t, set, func(s *server.Server) {
		if got := call(s, first.Secret, "GET", "/v1/keys/self"); got != 401 {
			t.Errorf("the revoked key came back: %d", got)
		}
		if got := call(s, leaked.Secret, "GET", "/v1/keys/self"); got != 401 {
			t.Errorf("the leaked secret came back: %d", got)
		}
		if got := call(s, other, "GET", "/v1/keys/self"); got != 401 {
			t.Errorf("a key that the backup does not have: %d", got)
		}
	})
	if err != nil {
		t.Error(err)
	}
	found, err := server.CheckAudit(context.Background(), set)
	if err != nil || len(found.Chains) != 1 || !found.OK() {
		t.Errorf("%+v %v", found, err)
	}
}

// TestRestoreRefuses: what does not fit is refused, and what was there stays.
func TestRestoreRefuses(t *testing.T) {
	set, first := made(t)
	foreign, _ := made(t)
	other := filepath.Join(t.TempDir(), "other.db")
	if err := server.Backup(context.Background(), foreign, other); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(t.TempDir(), "broken.db")
	if err := os.WriteFile(broken, []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{other, broken, filepath.Join(t.TempDir(), "absent.db")} {
		if done, err := server.Restore(context.Background(), set, path); err == nil {
			t.Errorf("%s was restored: %+v", path, done)
		}
	}
	err := opened(t, set, func(s *server.Server) {
		if _, err := server.Restore(context.Background(), set, other); !errors.Is(err, db.ErrLocked) {
			t.Errorf("beside a running server: %v", err)
		}
		if got := call(s, first.Secret, "GET", "/v1/keys/self"); got != 200 {
			t.Errorf("what was there is gone: %d", got)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

func copyFiles(t *testing.T, files map[string]string) {
	t.Helper()
	for from, to := range files {
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestMetrics: figures are shown to a key that may read usage, and to nobody else.
func TestMetrics(t *testing.T) {
	s := testkit.New(t, "")
	if r := s.Do("", "GET /metrics", nil); r.Status != 401 {
		t.Errorf("a stranger: %d", r.Status)
	}
	if r := s.Do(s.Key("worker"), "GET /metrics", nil); r.Status != 403 {
		t.Errorf("a worker: %d", r.Status)
	}
	s.Must(s.First, "POST /v1/cues", map[string]any{"name": "called", "cron": "* * * * *", "callback_url": s.URL + "/v1/echo/0123456789abcdef"})
	s.Clock.Add(time.Minute)
	s.Drain()
	r := s.Must(s.Key("read-only"), "GET /metrics", nil)
	for _, name := range []string{"unstuck_calls_total{", "unstuck_call_seconds_count", "unstuck_db_commit_seconds_count", "unstuck_scheduler_last_look_timestamp_seconds",
		`unstuck_callback_attempts_total{class="delivered"} 1`, "unstuck_callback_late_seconds_count 1", "unstuck_callback_queued 0", "unstuck_callback_memory_executions 0", `unstuck_callback_endpoints{breaker="closed"} 1`} {
		if !strings.Contains(string(r.Body), name) {
			t.Errorf("no %s", name)
		}
	}
}

// TestMetricsInDevelopment: on a developer's machine a look at the figures needs no key.
func TestMetricsInDevelopment(t *testing.T) {
	s := testkit.New(t, "", func(set *server.Settings) { set.Dev = true })
	if r := s.Must("", "GET /metrics", nil); !strings.Contains(string(r.Body), "unstuck_scheduler_last_look_timestamp_seconds") {
		t.Errorf("the figures are %.200s", r.Body)
	}
}

// TestHelpIsServed: every page of the help, the errors that answers point to, and the reference.
func TestHelpIsServed(t *testing.T) {
	s := testkit.New(t, "")
	for _, path := range []string{"/docs/help/", "/docs/help/api-keys", "/docs/help/what-a-key-can-do", "/docs/help/authentication", "/docs/help/security", "/docs/help/webhooks", "/docs/help/workers", "/docs/errors", "/docs/help/style.css", "/docs", "/openapi.json", "/health", "/status", "/v1/info"} {
		if r := s.Do("", "GET "+path, nil); r.Status != 200 || strings.Contains(string(r.Body), "<!-- Test") {
			t.Errorf("%s: %d", path, r.Status)
		}
	}
}

// TestServerSecretRotation: after a rotation every key still works, and is hashed under the new secret with its next use; a restart
// finds both secrets in the file.
func TestServerSecretRotation(t *testing.T) {
	set, first := made(t)
	counts := func(s access.SecretStatus) map[int64]int64 {
		out := map[int64]int64{}
		for _, e := range s.Epochs {
			out[e.Number] = e.Keys
		}
		return out
	}
	err := opened(t, set, func(s *server.Server) {
		status, err := s.Access().RotateServerSecret(context.Background())
		if err != nil || status.Newest != 2 || counts(status)[1] != 1 {
			t.Fatalf("%+v %v", status, err)
		}
		if got := call(s, first.Secret, "GET", "/v1/keys/self"); got != 200 {
			t.Errorf("after the rotation: %d", got)
		}
		if status, err = s.Access().SecretStatus(context.Background()); err != nil || counts(status)[1] != 0 || counts(status)[2] != 1 {
			t.Errorf("after its next use: %+v %v", status, err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	err = opened(t, set, func(s *server.Server) {
		if got := call(s, first.Secret, "GET", "/v1/keys/self"); got != 200 {
			t.Errorf("after a restart: %d", got)
		}
		if chains, err := s.Access().CheckAudit(context.Background(), ""); err != nil || !chains[0].OK {
			t.Errorf("%+v %v", chains, err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestCheckAuditOnlyReads: a check of the audit logs works beside a running server and without one, changes no file of the data folder and
// takes no lock. It makes no file either, but for the two empty ones that SQLite needs for reading.
func TestCheckAuditOnlyReads(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, dsn string) {
		set := settings(t)
		if strings.HasPrefix(dsn, "postgres") {
			set.Database = dsn
		}
		check := func(whole bool) access.Checked {
			t.Helper()
			found, err := server.CheckAudit(t.Context(), set)
			if err != nil || found.OK() != whole || len(found.Chains) != 1 {
				t.Errorf("%+v, %v", found, err)
			}
			return found
		}
		files := func() map[string]string {
			out := map[string]string{}
			list, err := os.ReadDir(set.Data)
			for _, f := range list {
				if strings.HasSuffix(f.Name(), "-wal") || strings.HasSuffix(f.Name(), "-shm") {
					continue
				}
				b, e := os.ReadFile(filepath.Join(set.Data, f.Name()))
				out[f.Name()], err = string(b), errors.Join(err, e)
			}
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		err := opened(t, set, func(s *server.Server) {
			if _, _, err := s.Access().FirstRun(t.Context(), "admin@example.com", true); err != nil {
				t.Fatal(err)
			}
			check(true)
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, gone := range []string{"unstuck.db.lock", "secret"} {
			if err := os.Remove(filepath.Join(set.Data, gone)); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			before := files()
			found := check(gone != "secret")
			if said := strings.Contains(found.Unchecked, "the server secret is missing"); said != (gone == "secret") {
				t.Errorf("without %s: %q", gone, found.Unchecked)
			}
			if diff := cmp.Diff(before, files()); diff != "" {
				t.Errorf("without %s, the check changed the data folder:\n%s", gone, diff)
			}
		}
	})
}

// TestMissingHeadsAreSaid: doctor, the check and the first lines of serve say that audit.heads is gone, over a database that is not new.
func TestMissingHeadsAreSaid(t *testing.T) {
	set := settings(t, "listen", "127.0.0.1:0")
	ago := func() time.Time { return time.Now().Add(-time.Hour) }
	s, err := server.Open(context.Background(), set, server.Deps{Now: ago, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Access().FirstRun(context.Background(), "admin@example.com", true); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	said := func() (audit error) {
		t.Helper()
		for _, f := range server.Doctor(context.Background(), set, server.Look{Now: time.Now()}) {
			if f.What == "audit log" {
				audit = f.Err
			}
		}
		found, err := server.CheckAudit(context.Background(), set)
		if err != nil || len(found.Chains) != 1 || found.OK() != (audit == nil) {
			t.Errorf("doctor says %v, the check %+v, %v", audit, found, err)
		}
		return audit
	}
	if err := said(); err != nil {
		t.Errorf("nothing is missing: %v", err)
	}
	if err := os.Remove(filepath.Join(set.Data, "audit.heads")); err != nil {
		t.Fatal(err)
	}
	if err := said(); err == nil || !strings.Contains(err.Error(), "audit.heads is missing") {
		t.Errorf("%v", err)
	}
	lines := &shown{ready: make(chan string, 1)}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- server.Run(ctx, set, server.Streams{Out: io.Discard, Err: lines, ErrTTY: true, Zone: time.UTC})
	}()
	<-lines.ready
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(lines.String(), "Warning") || !strings.Contains(lines.String(), "audit.heads was missing") {
		t.Errorf("the first lines do not say it:\n%s", lines.String())
	}
	if err := said(); err != nil {
		t.Errorf("it was made anew: %v", err)
	}
}
