package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"unstuck/internal/server"
	"unstuck/internal/testkit"
)

// hooks is somebody who gets webhooks.
type hooks struct {
	*httptest.Server
	mu  sync.Mutex
	got []hook
}

type hook struct {
	header http.Header
	body   []byte
}

func newHooks(t *testing.T) *hooks {
	t.Helper()
	h := &hooks{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.got = append(h.got, hook{r.Header, body})
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hooks) arrivals() []hook {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]hook{}, h.got...)
}

// allowing is a server that may call some networks.
func allowing(t *testing.T, networks string) *testkit.Server {
	t.Helper()
	return testkit.New(t, "", func(s *server.Settings) { s.AllowCallbacks = networks })
}

// A library of Standard Webhooks, which others wrote, accepts what a whole server sends, and nothing else.
func TestDeliveryForStandardWebhooks(t *testing.T) {
	s, h := allowing(t, "127.0.0.1"), newHooks(t)
	s.Must(s.First, "POST /v1/cues", obj{"name": "signed", "cron": "* * * * *", "callback_url": h.URL, "payload": obj{"é": 1.0}})
	s.Clock.Add(time.Minute)
	s.Drain()
	got := h.arrivals()
	if len(got) != 1 {
		t.Fatalf("%d arrived", len(got))
	}
	secret := s.Must(s.First, "GET /v1/auth/webhook-secret", nil).Str("webhook_secret")
	wh, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := wh.VerifyIgnoringTimestamp(got[0].body, got[0].header); err != nil { // the test's clock is not the library's
		t.Error(err)
	}
	if err := wh.VerifyIgnoringTimestamp(append(got[0].body, ' '), got[0].header); err == nil {
		t.Error("another body is accepted")
	}
}

// The algorithm of the Python SDK's verify_webhook accepts it: it parses the body and writes it again before it computes the HMAC.
// The SDK itself, unmodified, does so in test/interop.
func TestDeliveryToPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("needs python3")
		}
		t.Skip("needs python3")
	}
	s, h := allowing(t, "127.0.0.1"), newHooks(t)
	s.Must(s.First, "POST /v1/cues", obj{"name": "signed \u00e9\U0001f600", "cron": "* * * * *", "callback_url": h.URL,
		"payload": json.RawMessage(`{"b":1.0,"a":"\u00e9\n","big":123456789012345678901234567890,"small":2.5e-7,"half":1e16,"z":[1,null,true,{}],"":"<&>"}`)})
	s.Clock.Add(time.Minute)
	s.Drain()
	got := h.arrivals()[0]
	script := `import sys, json, hmac, hashlib
secret, at, signature = sys.argv[1:4]
body = json.dumps(json.loads(sys.stdin.buffer.read()), sort_keys=True, default=str).encode()
expected = "v1=" + hmac.new(secret.encode(), (at + ".").encode() + body, hashlib.sha256).hexdigest()
sys.exit(0 if hmac.compare_digest(expected, signature) else 1)`
	secret := s.Must(s.First, "GET /v1/auth/webhook-secret", nil).Str("webhook_secret")
	c := exec.Command(python, "-c", script, secret, got.header.Get("X-CueAPI-Timestamp"), got.header.Get("X-CueAPI-Signature"))
	c.Stdin = strings.NewReader(string(got.body))
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("python: %v %s", err, out)
	}
}

// Hostile addresses through the whole server: refused when they are written, and not one connection reaches this machine, by
// whatever way the address came into the database. The many forms are in internal/webhook.
func TestHostileCallbacks(t *testing.T) {
	s := testkit.New(t, "")
	trap, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer trap.Close()
	caught := make(chan net.Addr, 100)
	go func() {
		for {
			c, err := trap.Accept()
			if err != nil {
				return
			}
			caught <- c.RemoteAddr()
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(trap.Addr().String())
	for i, host := range []string{
		"127.0.0.1", "127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "localhost", "LOCALHOST.", "foo.localhost", "[::1]", "[::]", "[::ffff:127.0.0.1]",
		"[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "0.0.0.0", "10.0.0.1", "169.254.169.254", "metadata.google.internal", "user:pass@127.0.0.1",
	} {
		r := s.Do(s.First, "POST /v1/cues", obj{"name": fmt.Sprint("h", i), "cron": "* * * * *", "callback_url": "https://" + host + ":" + port + "/"})
		if r.Status != 400 && r.Status != 422 || r.Status == 400 && r.Code() != "invalid_callback_url" {
			t.Errorf("%s: %d %s", host, r.Status, r.Body)
		}
	}
	// A public name that has come to mean this machine: the row is as it was when it was checked.
	loose := allowing(t, "127.0.0.1")
	redirect := httptest.NewServer(http.RedirectHandler("http://127.0.0.1:"+port+"/", http.StatusTemporaryRedirect))
	defer redirect.Close()
	loose.Must(loose.First, "POST /v1/cues", obj{"name": "redirected", "cron": "* * * * *", "callback_url": redirect.URL})
	loose.Must(loose.First, "POST /v1/cues", obj{"name": "rebound", "cron": "* * * * *", "callback_url": "http://127.0.0.1:" + port + "/", "retry": obj{"max_attempts": 1}})
	loose.Must(loose.First, "PATCH /v1/cues/rebound", obj{"status": "paused"})
	loose.Clock.Add(time.Minute)
	loose.Drain()
	loose.Stop()
	loose.Settings.AllowCallbacks = "" // from now on the address is not allowed any more
	if err := loose.Open(); err != nil {
		t.Fatal(err)
	}
	loose.Must(loose.First, "POST /v1/cues/rebound/fire", obj{})
	loose.Drain()
	e := loose.Must(loose.First, "GET /v1/cues/rebound", nil).JSON["executions"].([]any)[0].(map[string]any)
	if e["status"] != "failed" || !strings.Contains(fmt.Sprint(e["error_message"]), "UNSTUCK_ALLOW_CALLBACKS") {
		t.Errorf("the execution is %v: %v", e["status"], e["error_message"])
	}
	select {
	case from := <-caught:
		t.Errorf("a connection came from %v", from)
	default:
	}
}

// A receiver in a container network: the sentence, the setting, it works.
func TestCallbackInAContainerNetwork(t *testing.T) {
	h := newHooks(t) // 127.0.0.1 stands for the network of containers
	url := h.URL + "/webhook/n8n"
	in := obj{"name": "n8n", "cron": "* * * * *", "callback_url": url}
	s := testkit.New(t, "")
	r := s.Do(s.First, "POST /v1/cues", obj{"name": "n8n", "cron": "* * * * *", "callback_url": strings.Replace(url, "http://", "https://", 1)})
	if want := "127.0.0.1 is this machine itself (127.0.0.0/8); only public addresses are called. To allow it, whoever runs this server adds 127.0.0.1/32 to UNSTUCK_ALLOW_CALLBACKS."; r.Str("error.message") != want {
		t.Errorf("the refusal says %q, want %q", r.Str("error.message"), want)
	}
	s.Stop()
	s.Settings.AllowCallbacks = "127.0.0.1/32"
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	s.Must(s.First, "POST /v1/cues", in) // plain http, too
	wantCode(t, s.Do(s.First, "POST /v1/cues", obj{"name": "other", "cron": "* * * * *", "callback_url": "http://93.184.216.34/"}), 400, "invalid_callback_url")
	s.Clock.Add(time.Minute)
	s.Drain()
	if n := len(h.arrivals()); n != 1 {
		t.Errorf("%d arrived", n)
	}
	dev := testkit.New(t, "", func(s *server.Settings) { s.Dev = true })
	dev.Must(dev.First, "POST /v1/cues", in)
	wantCode(t, dev.Do(dev.First, "POST /v1/cues", obj{"name": "cloud", "cron": "* * * * *", "callback_url": "http://169.254.169.254/"}), 400, "invalid_callback_url")
}

// The echo sink row by row (CueAPI wire contract 2.11).
func TestEcho(t *testing.T) {
	testkit.Each(t, func(t *testing.T, s *testkit.Server) {
		const token = "0123456789abcdef"
		r := s.Must("", "POST /v1/echo/"+token, `{"b":1,"a":[null]}`, "X-Mine", "yes", "Content-Type", "text/plain")
		if string(r.Body) != `{"stored":true}` {
			t.Errorf("%s", r.Body)
		}
		wantCode(t, s.Do("", "GET /v1/echo/"+token, nil), 401, "invalid_api_key")
		got := s.Must(s.Key("read-only"), "GET /v1/echo/"+token, nil)
		if got.Str("status") != "delivered" || got.Str("headers.x-mine") != "***" || got.Str("received_at") != "2026-11-23T10:00:00+00:00" || fmt.Sprint(got.JSON["payload"]) != "map[a:[<nil>] b:1]" {
			t.Errorf("%s", got.Body)
		}
		s.Must("", "POST /v1/echo/"+token, `"again"`)
		if got := s.Must(s.First, "GET /v1/echo/"+token, nil); got.JSON["payload"] != "again" {
			t.Errorf("a second one did not replace it: %s", got.Body)
		}
		if got := s.Must(s.First, "GET /v1/echo/another-token-0123", nil); string(got.Body) != `{"status":"waiting"}` {
			t.Errorf("%s", got.Body)
		}
		wantCode(t, s.Do("", "POST /v1/echo/short", `{}`), 400, "invalid_token")
		wantCode(t, s.Do("", "POST /v1/echo/"+token, `no JSON`), 400, "invalid_json")
		wantCode(t, s.Do("", "POST /v1/echo/"+token, nil), 400, "invalid_json")
		wantCode(t, s.Do("", "POST /v1/echo/"+token, `"`+strings.Repeat("x", 1_000_000)+`"`), 413, "payload_too_large")
		for range 5 { // five were counted above: what is no JSON comes no further
			s.Must("", "POST /v1/echo/"+token, `{}`)
		}
		wantCode(t, s.Do("", "POST /v1/echo/"+token, `{}`), 429, "rate_limit_exceeded")
		s.Clock.Add(300 * time.Second)
		if got := s.Must(s.First, "GET /v1/echo/"+token, nil); got.Str("status") != "waiting" {
			t.Errorf("kept longer than 300 s: %s", got.Body)
		}
		s.Clock.Add(time.Hour)
		s.Must("", "POST /v1/echo/"+token, `{}`)
	})
}

// A callback of the server's own echo sink needs no permission, makes no connection, and shows what arrived to its workspace only.
func TestEchoDelivery(t *testing.T) {
	s := testkit.New(t, "")
	const token = "qs-0123456789abcdef"
	s.Must(s.First, "POST /v1/cues", obj{"name": "quick", "cron": "* * * * *", "callback_url": s.URL + "/v1/echo/" + token, "payload": obj{"hello": "you"}})
	s.Clock.Add(time.Minute)
	s.Drain()
	got := s.Must(s.First, "GET /v1/echo/"+token, nil)
	if got.Str("status") != "delivered" || got.Str("payload.name") != "quick" || got.Str("payload.payload.hello") != "you" || !strings.HasPrefix(got.Str("headers.x-cueapi-signature"), "v1=") {
		t.Errorf("%s", got.Body)
	}
	other := s.Must(s.First, "POST /v1/workspaces", obj{"name": "other"}).Str("key")
	if got := s.Must(other, "GET /v1/echo/"+token, nil); got.Str("status") != "waiting" {
		t.Errorf("another workspace sees %s", got.Body)
	}
	// The exception is for this server by the name that the caller used for it, and for the sink alone.
	for _, url := range []string{s.URL + "/v1/cues", s.URL + "/v1/echo/" + token + "/x", strings.Replace(s.URL, "127.0.0.1", "127.0.0.2", 1) + "/v1/echo/" + token} {
		wantCode(t, s.Do(s.First, "POST /v1/cues", obj{"name": "x", "cron": "* * * * *", "callback_url": url}), 400, "invalid_callback_url")
	}
	// Whatever name is used: nothing but the sink of this server is reached.
	h := newHooks(t)
	body := fmt.Sprintf(`{"name":"forged","cron":"* * * * *","callback_url":"%s/v1/echo/%s"}`, h.URL, token)
	req := httptest.NewRequest("POST", "/v1/cues", strings.NewReader(body))
	req.Host = strings.TrimPrefix(h.URL, "http://")
	req.Header.Set("Authorization", "Bearer "+s.First)
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, req)
	if w.Code != 201 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	s.Clock.Add(time.Minute)
	s.Drain()
	if n := len(h.arrivals()); n > 0 {
		t.Errorf("%d arrived at the address that the Host header named", n)
	}
}
