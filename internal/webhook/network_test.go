package webhook_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"unstuck/internal/webhook"
)

const benchSecret = "whsec_00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

// send offers a job to a new sender that may call this machine, and answers its result.
func send(t *testing.T, jobs ...*webhook.Job) (results []webhook.Result) {
	return sendBy(t, webhook.Policy{Private: true}.Client(), jobs...)
}

// sendBy sends one job after the other.
func sendBy(t *testing.T, client *http.Client, jobs ...*webhook.Job) (results []webhook.Result) {
	t.Helper()
	out := make(chan webhook.Result)
	s := webhook.NewSender(webhook.Options{Client: client, Done: func(batch []webhook.Result) {
		for _, r := range batch {
			out <- r
		}
	}})
	defer s.Stop(context.Background())
	for _, j := range jobs {
		j.ID, j.Workspace, j.Secrets = "id", "w", []string{benchSecret}
		if j.Method == "" {
			j.Method = "POST"
		}
		if !s.Offer(j) {
			t.Fatal("refused")
		}
		results = append(results, <-out)
	}
	return results
}

// TestOnTheWire: what a receiver gets, byte for byte, and that Standard Webhooks' own library accepts it.
func TestOnTheWire(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		r := bufio.NewReader(conn)
		var text strings.Builder
		for !strings.HasSuffix(text.String(), "\r\n\r\n") {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			text.WriteString(line)
		}
		body := make([]byte, len(`{"a": 1}`))
		io.ReadFull(r, body)
		got <- text.String() + string(body)
		io.WriteString(conn, "HTTP/1.1 202 Accepted\r\nContent-Length: 3\r\n\r\nyes")
	}()
	body, err := webhook.Body([]byte(`{"a":1}`))
	if err != nil {
		t.Fatal(err)
	}
	job := &webhook.Job{URL: "http://" + l.Addr().String() + "/p?q=1#f", Body: body, Header: http.Header{"X-CueAPI-Cue-Id": {"cue_1"}}, Custom: map[string]string{"x-own": "v"}}
	res := send(t, job)[0]
	if res.Class != webhook.Delivered || res.Status != 202 || string(res.Body) != "yes" || res.Message != "" || res.Err != nil {
		t.Errorf("%+v", res)
	}
	text := <-got
	for _, want := range []string{
		"POST /p?q=1 HTTP/1.1\r\n", "\r\nHost: " + l.Addr().String() + "\r\n", "\r\nContent-Type: application/json\r\n", "\r\nUser-Agent: CueAPI/1.0\r\n",
		"\r\nAccept: */*\r\n", "\r\nContent-Length: 8\r\n", "\r\nX-CueAPI-Cue-Id: cue_1\r\n", "\r\nX-CueAPI-Timestamp: ", "\r\nX-CueAPI-Signature: v1=",
		"\r\nwebhook-id: id\r\n", "\r\nwebhook-timestamp: ", "\r\nwebhook-signature: v1,", "\r\nx-own: v\r\n", "\r\n\r\n{\"a\": 1}",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if strings.Contains(text, "Idempotency") || strings.Contains(text, "Encoding") {
		t.Errorf("too much is sent:\n%s", text)
	}
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
	if err != nil {
		t.Fatal(err)
	}
	wh, err := standardwebhooks.NewWebhook(benchSecret)
	if err != nil {
		t.Fatal(err)
	}
	if err := wh.Verify(body, req.Header); err != nil {
		t.Error(err)
	}
}

// TestReplies: what is read of them.
func TestReplies(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/long":
			w.Write(make([]byte, 1<<20))
		case "/get":
			fmt.Fprintf(w, "%s %d %t", r.Method, len(body), r.Header.Get("X-CueAPI-Signature") != "")
		case "/later":
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(429)
		case "/redirect":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case "/elsewhere":
			t.Error("the redirect was followed")
		case "/short":
			w.Header().Set("Content-Length", "10")
			w.Write([]byte("12345"))
			panic(http.ErrAbortHandler)
		case "/upgrade":
			conn, _, _ := w.(http.Hijacker).Hijack()
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
			io.Copy(io.Discard, conn)
		}
	}))
	defer srv.Close()
	for path, want := range map[string]string{
		"/long": "delivered 200 65536 0s", "/get": "delivered 200 10 0s", "/later": "failed 429 0 7s", "/redirect": "rejected 302 0 0s", "/short": "failed 0 0 0s",
		"/upgrade": "rejected 101 0 0s",
	} {
		j := &webhook.Job{URL: srv.URL + path, Body: []byte("{}")}
		if path == "/get" {
			j.Method = "GET"
		}
		r := send(t, j)[0]
		if got := fmt.Sprint(r.Class, " ", r.Status, " ", len(r.Body), " ", r.Wait); got != want {
			t.Errorf("%s: %s, not %s", path, got, want)
		}
		if path == "/get" && string(r.Body) != "GET 0 true" {
			t.Errorf("GET: %s", r.Body)
		}
	}
}

// TestWholeDeadline: a receiver that says a little all the time is cut off when the time of the whole attempt is over, in its
// header as in its body. It would go on for ever.
func TestWholeDeadline(t *testing.T) {
	for _, head := range []string{"HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			if _, err = http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, err = io.WriteString(conn, head)
			}
			for tick := time.NewTicker(5 * time.Millisecond); err == nil; <-tick.C {
				_, err = io.WriteString(conn, "x")
			}
		}()
		r := send(t, &webhook.Job{URL: "http://" + l.Addr().String(), Body: []byte("{}"), Timeout: 100 * time.Millisecond})[0]
		if r.Class != webhook.Failed || r.Message != "Webhook endpoint timed out" || r.Took < 100*time.Millisecond {
			t.Errorf("%+v", r)
		}
		<-ended
		l.Close()
	}
}

// TestConnectionsAreKept, and one that the receiver has closed meanwhile costs no attempt.
func TestConnectionsAreKept(t *testing.T) {
	var connections atomic.Int64
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	var jobs []*webhook.Job
	for range 20 {
		jobs = append(jobs, &webhook.Job{URL: srv.URL, Body: []byte("{}")})
	}
	for _, r := range send(t, jobs...) {
		if r.Class != webhook.Delivered {
			t.Fatalf("%+v", r)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0") // answers one request on a connection and closes it when the next has come
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			r := bufio.NewReader(conn)
			for n := range 2 {
				req, err := http.ReadRequest(r)
				if err != nil {
					break
				}
				io.Copy(io.Discard, req.Body)
				if n == 0 {
					io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			}
			conn.Close()
		}
	}()
	to := "http://" + l.Addr().String()
	for i, r := range send(t, &webhook.Job{URL: to, Body: []byte("{}")}, &webhook.Job{URL: to, Body: []byte("{}")}) {
		if r.Class != webhook.Delivered {
			t.Errorf("request %d: %+v", i, r)
		}
	}
}

// TestTLS: HTTP/2 where the receiver speaks it, and no receiver whose certificate is not to be trusted.
func TestTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }))
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	client := webhook.Policy{Private: true}.Client()
	client.Transport.(*http.Transport).TLSClientConfig = srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	client.Transport.(*http.Transport).TLSClientConfig.NextProtos = nil
	if r := sendBy(t, client, &webhook.Job{URL: srv.URL, Body: []byte("{}")})[0]; r.Class != webhook.Delivered || string(r.Body) != "HTTP/2.0" {
		t.Errorf("%+v", r)
	}
	if r := send(t, &webhook.Job{URL: srv.URL, Body: []byte("{}")})[0]; r.Class != webhook.Failed || r.Message != "Could not connect to webhook endpoint" {
		t.Errorf("%+v", r)
	}
}

// TestNobodyThere: refused by the network, and refused by the policy.
func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := "http://" + l.Addr().String()
	l.Close()
	if r := send(t, &webhook.Job{URL: to})[0]; r.Class != webhook.Failed || r.Message != "Could not connect to webhook endpoint" {
		t.Errorf("%+v", r)
	}
	r := sendBy(t, webhook.Policy{}.Client(), &webhook.Job{URL: to})[0]
	var refused *webhook.Refusal
	if r.Class != webhook.Refused || !errors.As(r.Err, &refused) || !strings.Contains(r.Message, "adds 127.0.0.1/32 to UNSTUCK_ALLOW_CALLBACKS") {
		t.Errorf("%+v", r)
	}
	if r := send(t, &webhook.Job{URL: "http://h:x/secret"})[0]; r.Class != webhook.Refused || strings.Contains(r.Message, "secret") {
		t.Errorf("%+v", r)
	}
}
