package rest_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"unstuck/internal/op"
	"unstuck/internal/rest"
)

var uuid4 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// Every answer, whatever it is, names itself afresh and is what it says.
func TestHeadersOfEveryAnswer(t *testing.T) {
	h := newHandler(&door{}, map[string]http.Handler{"/metrics": http.NotFoundHandler()})
	seen := map[string]bool{}
	for _, c := range []struct {
		method, path, body string
		status             int
		headers            []string
	}{
		{"GET", "/v1/things/t1", "", 200, nil},
		{"POST", "/v1/things", `{"name":"n"}`, 201, nil},
		{"DELETE", "/v1/things/t1", "", 204, nil},
		{"POST", "/v1/things", `{`, 400, nil},
		{"GET", "/v1/things/t1", "", 401, []string{"Authorization", "Bearer bad"}},
		{"GET", "/nothing", "", 404, nil},
		{"PUT", "/v1/things", "", 405, nil},
		{"POST", "/v1/things", strings.Repeat(" ", op.MaxBody+1), 413, nil},
		{"POST", "/v1/things", `{}`, 422, nil},
		{"POST", "/v1/crash", "", 500, nil},
		{"OPTIONS", "/v1/things", "", 200, []string{"Origin", "https://example.com", "Access-Control-Request-Method", "GET"}},
		{"GET", "/metrics", "", 404, nil},
		{"GET", "/docs", "", 200, nil},
		{"GET", "/openapi.json", "", 200, nil},
	} {
		const inbound = "11111111-1111-4111-8111-111111111111"
		seen[inbound] = true
		res := ask(h, c.method, c.path, c.body, append(c.headers, "X-Request-Id", inbound)...)
		name := fmt.Sprintf("%s %s → %d", c.method, c.path, res.StatusCode)
		id := res.Header.Get("X-Request-Id")
		if res.StatusCode != c.status || !uuid4.MatchString(id) || seen[id] || res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s, want %d: %v", name, c.status, res.Header)
		}
		seen[id] = true
		body := text(t, res)
		switch {
		case c.status == 204:
			if body != "" || res.Header["Content-Type"] != nil || res.Header["Content-Length"] != nil {
				t.Errorf("%s has a body: %q %v", name, body, res.Header)
			}
		case strings.HasPrefix(c.path, "/v1") && c.method != "OPTIONS" || c.path == "/nothing":
			if res.Header.Get("Content-Type") != "application/json" || res.Header.Get("Cache-Control") != "no-store" || !json.Valid([]byte(body)) {
				t.Errorf("%s is not JSON, or may be stored: %v %s", name, res.Header, body)
			}
		}
		if c.status >= 400 && c.path != "/metrics" {
			checkEnvelope(t, name, body, id, c.status)
		}
	}
}

// checkEnvelope says that a body is an error as both kinds of clients read it: under error, and the same under detail.error.
func checkEnvelope(t *testing.T, name, body, id string, status int) {
	t.Helper()
	var e struct {
		Error  json.RawMessage
		Detail struct{ Error json.RawMessage }
	}
	var inner struct {
		Code, Message, Docs string
		Status              int
		RequestID           string `json:"request_id"`
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil || string(e.Error) != string(e.Detail.Error) {
		t.Errorf("%s: the two errors differ, or are none: %s", name, body)
		return
	}
	if err := json.Unmarshal(e.Error, &inner); err != nil || inner.Status != status || inner.RequestID != id || inner.Message == "" ||
		inner.Docs != "/docs/errors#"+inner.Code {
		t.Errorf("%s: %s", name, body)
	}
	if strings.Contains(body, "secret") || strings.Contains(body, "goroutine") {
		t.Errorf("%s tells too much: %s", name, body)
	}
}

func TestAnswersOfTheGuardReachTheCaller(t *testing.T) {
	h := newHandler(&door{}, nil)
	res := ask(h, "GET", "/v1/things/t1", "")
	if res.Header.Get("X-RateLimit-Limit") != "60" {
		t.Errorf("headers of the guard: %v", res.Header)
	}
	res = ask(h, "GET", "/v1/things/t1", "", "Authorization", "Bearer bad")
	if res.StatusCode != 401 || res.Header.Get("WWW-Authenticate") != "Bearer" || res.Header.Get("X-RateLimit-Limit") != "60" {
		t.Errorf("with a bad key: %d %v", res.StatusCode, res.Header)
	}
}

func TestWhatTheOperationLearnsOfARequest(t *testing.T) {
	d := &door{}
	h := newHandler(d, nil)
	r := httptest.NewRequest("GET", "/v1/things/a%2Fb?x=1&x=2", nil)
	r.RemoteAddr = "192.0.2.7:1234"
	r.Header = http.Header{
		"Authorization": {"Bearer good"}, "User-Agent": {"curl/8"}, "X-Unstuck-Client": {"cli"}, "X-Forwarded-For": {"198.51.100.1, 198.51.100.2", "198.51.100.3"},
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	want := &op.Request{
		Op: "thing.get", ID: w.Header().Get("X-Request-Id"), Via: "rest", Client: "cli", Host: "example.com", Peer: "192.0.2.7:1234", Auth: "Bearer good", UserAgent: "curl/8",
		Forwarded: []string{"198.51.100.1, 198.51.100.2", "198.51.100.3"}, Header: r.Header, Params: map[string]string{"id": "a/b"}, Answer: w.Header(),
	}
	if diff := cmp.Diff(want, d.last); diff != "" {
		t.Error(diff)
	}
	for mark, want := range map[string]string{
		"stdio": "stdio", strings.Repeat("x", 32): strings.Repeat("x", 32), strings.Repeat("x", 33): "", "a b": "", "\x1b[31m": "", "é": "", "": "",
	} {
		if ask(h, "GET", "/v1/things/a", "", "X-Unstuck-Client", mark); d.last.Client != want {
			t.Errorf("the mark %q is seen as %q", mark, d.last.Client)
		}
	}
}

func TestQueries(t *testing.T) {
	h := newHandler(&door{}, nil)
	for query, want := range map[string]string{
		"":                         `"total":50`,
		"?limit=7":                 `"total":7`,
		"?limit=7&limit=9":         `"total":9`,
		"?limit=%37":               `"total":7`,
		"?&&limit=7&":              `"total":7`,
		"?limit=":                  `query.limit: Input should be a valid integer, unable to parse string as an integer`,
		"?limit":                   `query.limit: Input should be a valid integer, unable to parse string as an integer`,
		"?limit=%zz":               `query.limit: Input should be a valid integer, unable to parse string as an integer`,
		"?limit=7;limit=9":         `query.limit: Input should be a valid integer, unable to parse string as an integer`,
		"?state=a+b":               `query.state: Input should be 'new' or 'old'`,
		"?state=%00":               `query.state: String should not contain the NUL character`,
		"?state=%ff":               `query.state: Input should be a valid string, unable to parse raw data as a unicode string`,
		"?tags=a&tags=b&state=new": `"total":50`,
	} {
		if body := text(t, ask(h, "GET", "/v1/things"+query, "")); !strings.Contains(body, want) {
			t.Errorf("%s: %s", query, body)
		}
	}
}

func TestBodies(t *testing.T) {
	h := newHandler(&door{}, nil)
	full := func(n int) string { return `{"name":"n"` + strings.Repeat(" ", n-12) + `}` }
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		headers                  []string
	}{
		{"an object", "POST", "/v1/things", `{"name":"n"}`, 201, []string{"Content-Type", "application/json; charset=utf-8"}},
		{"no content type", "POST", "/v1/things", `{"name":"n"}`, 201, nil},
		{"another content type", "POST", "/v1/things", `{"name":"n"}`, 201, []string{"Content-Type", "application/x-www-form-urlencoded"}},
		{"a form", "POST", "/v1/things", `name=n`, 400, []string{"Content-Type", "application/x-www-form-urlencoded"}},
		{"broken JSON", "POST", "/v1/things", `{"name":`, 400, nil},
		{"nothing", "POST", "/v1/things", ``, 422, nil},
		{"nothing where nothing is needed", "POST", "/v1/things/claim", ``, 200, []string{"Content-Type", "application/json"}},
		{"what an open operation ignores", "POST", "/v1/things/claim", `{"x":1}`, 200, nil},
		{"a body with a GET", "GET", "/v1/things/t1", `{"name":`, 200, []string{"Content-Type", "application/json"}},
		{"a body with a DELETE", "DELETE", "/v1/things/t1", `garbage`, 204, nil},
		{"exactly 1 MiB", "POST", "/v1/things", full(op.MaxBody), 201, nil},
		{"one byte more", "POST", "/v1/things", full(op.MaxBody + 1), 413, nil},
		{"too much with a GET", "GET", "/v1/things", full(op.MaxBody + 1), 413, nil},
		{"too much, with a bad key", "POST", "/v1/things", full(op.MaxBody + 1), 413, []string{"Authorization", "x"}},
	} {
		res := ask(h, c.method, c.path, c.body, c.headers...)
		if res.StatusCode != c.status {
			t.Errorf("%s: %d %s", c.name, res.StatusCode, text(t, res))
		}
		if closing := res.Header.Get("Connection") == "close"; closing != (c.status == 413) {
			t.Errorf("%s: Connection: %s", c.name, res.Header.Get("Connection"))
		}
	}
}

// converse sends raw bytes to a server and reads one answer.
func converse(t *testing.T, url string, parts ...string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		for _, p := range parts {
			if _, err := io.WriteString(conn, p); err != nil {
				return
			}
		}
	}()
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

const postHead = "POST /v1/things HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer good\r\n"

func TestBodiesOnTheWire(t *testing.T) {
	url := serve(t, newHandler(&door{}, nil))
	chunk := func(n int) string { return fmt.Sprintf("%x\r\n%s\r\n", n, strings.Repeat(" ", n)) }
	for _, c := range []struct {
		name   string
		parts  []string
		status int
		closes bool
	}{
		{"chunks", []string{postHead, "Transfer-Encoding: chunked\r\n\r\n", "6\r\n{\"name\r\n", "6\r\n\":\"n\"}\r\n", "0\r\n\r\n"}, 201, false},
		{"too many chunks", []string{postHead, "Transfer-Encoding: chunked\r\n\r\n", chunk(op.MaxBody / 2), chunk(op.MaxBody / 2), chunk(1), "0\r\n\r\n"}, 413, true},
		{"chunks without end", []string{postHead, "Transfer-Encoding: chunked\r\n\r\n", strings.Repeat(chunk(1<<20), 8)}, 413, true},
		{"2 MiB announced and sent", []string{postHead, "Content-Length: 2097152\r\n\r\n", strings.Repeat(" ", 2<<20)}, 413, true},
		{"16 MiB announced and sent", []string{postHead, "Content-Length: 16777216\r\n\r\n", strings.Repeat(" ", 16<<20)}, 413, true},
		{"a broken chunk", []string{postHead, "Transfer-Encoding: chunked\r\n\r\n", "zz\r\n"}, 400, true},
		{"too much announced, and the client waits for leave", []string{postHead, "Content-Length: 2097152\r\nExpect: 100-continue\r\n\r\n"}, 413, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := converse(t, url, c.parts...)
			body := text(t, res)
			if res.StatusCode != c.status || res.Close != c.closes || !json.Valid([]byte(body)) {
				t.Errorf("%d, closes: %v, %s", res.StatusCode, res.Close, body)
			}
		})
	}
}

func TestClientsThatWaitForLeave(t *testing.T) {
	url := serve(t, newHandler(&door{}, nil))
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	fmt.Fprint(conn, postHead, "Content-Length: 12\r\nExpect: 100-continue\r\n\r\n")
	if line, _, err := r.ReadLine(); err != nil || string(line) != "HTTP/1.1 100 Continue" {
		t.Fatalf("%s %v", line, err)
	}
	_, _, _ = r.ReadLine()
	fmt.Fprint(conn, `{"name":"n"}`)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 201 {
		t.Errorf("%v %v", res, err)
	}
}

// A body that ends before its announced length must not pass for an absent one.
func TestBodiesThatBreakOff(t *testing.T) {
	url := serve(t, newHandler(&door{}, nil))
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	fmt.Fprint(conn, strings.Replace(postHead, "/v1/things", "/v1/things/claim", 1), "Content-Length: 10\r\n\r\n{}")
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body := text(t, res); res.StatusCode != 400 || !strings.Contains(body, "could not be read to its end") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

func TestHead(t *testing.T) {
	url := serve(t, newHandler(&door{}, nil))
	get, err := http.Get(url + "/health")
	if err != nil {
		t.Fatal(err)
	}
	_ = get.Body.Close()
	head, err := http.Head(url + "/health")
	if err != nil {
		t.Fatal(err)
	}
	if body := text(t, head); head.StatusCode != 200 || body != "" || head.ContentLength != get.ContentLength || head.ContentLength <= 0 {
		t.Errorf("%d %q, %d bytes, GET has %d", head.StatusCode, body, head.ContentLength, get.ContentLength)
	}
}

// Answers of any size come with their length, not in chunks.
func TestAnswersHaveALength(t *testing.T) {
	url := serve(t, newHandler(&door{}, nil))
	for _, size := range []int{0, 1000, 2000, 2048, 5000, 100_000} {
		body := fmt.Sprintf(`{"name":"n","extra":{"x":%q}}`, strings.Repeat("x", size))
		res := converse(t, url, postHead, fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body)), body)
		if got := text(t, res); res.ContentLength != int64(len(got)) || len(got) < size {
			t.Errorf("%d bytes: length %d, %d came, %v", size, res.ContentLength, len(got), res.TransferEncoding)
		}
	}
}

func TestCrossOrigin(t *testing.T) {
	h := newHandler(&door{}, map[string]http.Handler{"/metrics": http.NotFoundHandler()})
	const origin = "https://example.com"
	for _, path := range []string{"/v1/things/t1", "/v1/things/missing", "/nothing", "/openapi.json"} {
		if got := ask(h, "GET", path, "").Header.Get("Access-Control-Allow-Origin"); got != "" {
			t.Errorf("%s without an origin allows %q", path, got)
		}
		header := ask(h, "GET", path, "", "Origin", origin, "Cookie", "a=b").Header
		if header.Get("Access-Control-Allow-Origin") != "*" || header["Access-Control-Allow-Credentials"] != nil {
			t.Errorf("%s: %v", path, header)
		}
		if exposed := header.Get("Access-Control-Expose-Headers"); path != "/openapi.json" && !strings.Contains(exposed, "X-Request-Id, X-RateLimit-Limit") {
			t.Errorf("%s exposes %q", path, exposed)
		}
	}
	if got := ask(h, "GET", "/metrics", "", "Origin", origin).Header.Get("Access-Control-Allow-Origin"); got != "" {
		t.Errorf("a mounted handler's answer is opened: %q", got)
	}
	d := &door{}
	res := ask(newHandler(d, nil), "OPTIONS", "/v1/things", "", "Origin", origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization, content-type")
	want := map[string]string{
		"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "authorization, content-type", "Access-Control-Max-Age": "600",
		"Access-Control-Allow-Methods": "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT", "Access-Control-Allow-Credentials": "",
	}
	for name, value := range want {
		if res.Header.Get(name) != value {
			t.Errorf("preflight: %s is %q", name, res.Header.Get(name))
		}
	}
	if body := text(t, res); res.StatusCode != 200 || body != "OK" || d.last != nil {
		t.Errorf("preflight: %d %q, and the guard was asked: %v", res.StatusCode, body, d.last)
	}
}

func TestUnixSockets(t *testing.T) {
	d := &door{}
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: newHandler(d, nil)}}
	s.Start()
	defer s.Close()
	t.Chdir(t.TempDir()) // a client may bind its own end to a name that looks like an address
	dialer := net.Dialer{LocalAddr: &net.UnixAddr{Name: "192.0.2.7:80", Net: "unix"}}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", socket)
	}}}
	res, err := c.Get("http://server/health")
	if err != nil {
		t.Fatal(err)
	}
	if text(t, res); res.StatusCode != 200 || d.last.Peer != "unix" {
		t.Errorf("%d, the peer is %q", res.StatusCode, d.last.Peer)
	}
}

func TestClientsThatGoAway(t *testing.T) {
	ended := make(chan op.Request, 1)
	d := &door{done: func(c *op.Call) { ended <- *c.Request }}
	var log bytes.Buffer
	url := serve(t, rest.New(rest.Options{Set: toys(d), Info: info(), Log: slog.New(slog.NewTextHandler(&log, nil))}))
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "GET /v1/wait HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer good\r\n\r\n")
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if r := <-ended; r.Op != "thing.wait" {
		t.Errorf("%s ended", r.Op)
	}
	if log.Len() > 0 {
		t.Errorf("the log says %s", log.String())
	}
}

// A panic that is not the operation's is caught too, and told to nobody but the log.
func TestPanicsOfTheGuard(t *testing.T) {
	var log bytes.Buffer
	d := &door{done: func(*op.Call) { panic("secret plan") }}
	h := rest.New(rest.Options{Set: toys(d), Info: info(), Log: slog.New(slog.NewTextHandler(&log, nil))})
	res := ask(h, "GET", "/v1/things/t1", "")
	if body := text(t, res); res.StatusCode != 500 || !strings.Contains(body, `"code":"internal_error"`) || strings.Contains(body, "secret") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if !strings.Contains(log.String(), "secret plan") || !strings.Contains(log.String(), "thing.get") {
		t.Errorf("the log says %s", log.String())
	}
}

func TestVerifyEcho(t *testing.T) {
	h := newHandler(&door{}, nil)
	sum := func(s string) string { h := sha256.Sum256([]byte(s)); return hex.EncodeToString(h[:]) }
	for _, c := range []struct{ name, method, path, body, header, want string }{
		{"an object", "POST", "/v1/things", `{ "name" : "é<", "extra":{"b":1.0,"a":[1]} }`, " True ",
			`"parts":{"a":1},"body_received":{"extra":{"a":[1],"b":1.0},"name":"é<"},"body_received_sha256":"` + sum(`{"extra":{"a":[1],"b":1.0},"name":"é<"}`) + `"}`},
		{"line separators, which Go escapes and Python does not", "POST", "/v1/things", `{"name":"a\u2028b\u2029c\\u2028"}`, "true",
			`"parts":{"a":1},"body_received":{"name":"a\u2028b\u2029c\\u2028"},"body_received_sha256":"` + sum("{\"name\":\"a\u2028b\u2029c"+`\\u2028"}`) + `"}`},
		{"nothing", "POST", "/v1/things/claim", ``, "true",
			`"parts":{"a":1},"body_received":null,"body_received_sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}`},
		{"null", "POST", "/v1/things/claim", `null`, "true", `"parts":{"a":1},"body_received":null,"body_received_sha256":"` + sum("null") + `"}`},
		{"not asked for", "POST", "/v1/things/claim", `{}`, "yes", `"parts":{"a":1}}`},
		{"a read", "GET", "/v1/things/t1", ``, "true", `"parts":{"a":1}}`},
		{"an error", "POST", "/v1/things", `{}`, "true", `}}}`},
	} {
		body := text(t, ask(h, c.method, c.path, c.body, "X-Cueapi-Verify-Echo", c.header))
		if !strings.HasSuffix(body, c.want) || strings.Contains(body, "body_received") != strings.Contains(c.want, "body_received") {
			t.Errorf("%s:\n got %s\nwant …%s", c.name, body, c.want)
		}
	}
}

// An operation may set the two fields itself; a body that is no object or absent has none.
func TestVerifyEchoLeavesAlone(t *testing.T) {
	type own struct {
		BodyReceived op.Value `json:"body_received"`
	}
	spec := func(name string) op.Spec {
		return op.Spec{Name: name, Route: "POST /" + name, Needs: op.Public, Effect: op.Write, May: "do it", Doc: "Do it", Open: true}
	}
	h := rest.New(rest.Options{Info: info(), Set: op.NewSet(&door{}, slog.New(slog.DiscardHandler), noon,
		op.Define(spec("a.own"), func(context.Context, none) (own, error) { return own{op.Value("null")}, nil }),
		op.Define(spec("a.list"), func(context.Context, none) ([]int, error) { return []int{1}, nil }),
		op.Define(spec("a.none"), func(context.Context, none) (op.None, error) { return op.None{}, nil }),
		op.Define(spec("a.empty"), func(context.Context, none) (none, error) { return none{}, nil }),
	)})
	for path, want := range map[string]string{
		"/a.own": `{"body_received":null}`, "/a.list": `[1]`, "/a.none": ``,
		"/a.empty": `{"body_received":{},"body_received_sha256":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}`,
	} {
		if got := text(t, ask(h, "POST", path, "{}", "X-Cueapi-Verify-Echo", "true")); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}
