package rest_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"unstuck/internal/op"
	"unstuck/internal/rest"
)

type tick struct {
	N int64 `json:"n"`
}

// streams serves an operation that streams, on a server that gives calls so long.
func streams(t *testing.T, within time.Duration, http2 bool, send func(op.Sink)) *httptest.Server {
	t.Helper()
	set := op.NewSet(&door{}, slog.New(slog.DiscardHandler), time.Now, op.Define(op.Spec{
		Name: "clock.watch", Route: "GET /v1/ticks", Needs: op.AnyKey, Effect: op.Read, May: "watch", Doc: "Watch the clock",
	}, func(context.Context, none) (op.Stream[tick], error) { return op.Stream[tick]{Send: send}, nil }))
	s := httptest.NewUnstartedServer(rest.New(rest.Options{Set: set, Log: slog.New(slog.DiscardHandler)}))
	s.Config.ReadTimeout, s.Config.WriteTimeout, s.EnableHTTP2 = within, within, http2
	if http2 {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

func open(t *testing.T, s *httptest.Server, method string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.URL+"/v1/ticks", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer good")
	r.Header.Set("Origin", "https://example.com")
	res, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// A stream outlives the time that a call has, its bytes go out when they are written, and its headers keep proxies from holding them
// back; over HTTP/1.1 and HTTP/2.
func TestStream(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2 %t", http2), func(t *testing.T) {
			const within = 100 * time.Millisecond
			next := make(chan time.Duration, 1)
			s := streams(t, within, http2, func(to op.Sink) {
				for n := 0; ; n++ {
					wait, ok := <-next
					if !ok {
						return
					}
					<-time.After(wait)
					_ = to.SetWriteDeadline(time.Now().Add(time.Minute))
					if _, err := fmt.Fprintf(to, "data: {\"n\":%d}\n\n", n); err != nil || to.Flush() != nil {
						t.Errorf("event %d was not written: %v", n, err)
					}
				}
			})
			next <- 0
			res := open(t, s, "GET")
			if (res.ProtoMajor == 2) != http2 {
				t.Fatalf("spoke %s", res.Proto)
			}
			for name, want := range map[string]string{
				"Content-Type": "text/event-stream", "Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no", "Access-Control-Allow-Origin": "*", "X-Content-Type-Options": "nosniff",
			} {
				if got := res.Header.Get(name); got != want {
					t.Errorf("%s is %q", name, got)
				}
			}
			if res.Header.Get("X-Request-Id") == "" || res.StatusCode != 200 {
				t.Errorf("%d %v", res.StatusCode, res.Header)
			}
			lines := bufio.NewScanner(res.Body)
			read := func() string {
				for lines.Scan() {
					if lines.Text() != "" {
						return lines.Text()
					}
				}
				t.Fatalf("the stream broke off: %v", lines.Err())
				return ""
			}
			read()
			for n, wait := range []time.Duration{0, 3 * within} {
				next <- wait
				if got := read(); got != fmt.Sprintf(`data: {"n":%d}`, n+1) {
					t.Errorf("read %q", got)
				}
			}
			close(next)
			if rest, err := io.ReadAll(res.Body); err != nil {
				t.Errorf("the end: %q %v", rest, err)
			}
		})
	}
}

// HEAD begins no stream; a panic in one cuts it off.
func TestStreamEnds(t *testing.T) {
	sent := false
	s := streams(t, time.Minute, false, func(op.Sink) { sent = true; panic("no") })
	if res := open(t, s, "HEAD"); res.StatusCode != 200 || sent {
		t.Errorf("HEAD: %d, the stream began: %t", res.StatusCode, sent)
	}
	res := open(t, s, "GET")
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("a panic looks like the end of a stream")
	}
}

// OpenAPI says what the data of an event is.
func TestStreamInOpenAPI(t *testing.T) {
	set := op.NewSet(nil, nil, nil, op.Define(op.Spec{
		Name: "clock.watch", Route: "GET /v1/ticks", Needs: op.AnyKey, Effect: op.Read, May: "watch", Doc: "Watch the clock",
	}, func(context.Context, none) (op.Stream[tick], error) { return op.Stream[tick]{}, nil }))
	text := strings.Join(strings.Fields(string(rest.OpenAPI(set, rest.Info{Title: "t", Version: "1"}))), "")
	want := `"content":{"text/event-stream":{"schema":{"type":"string"},"x-unstuck-event":{"type":"object","properties":{"n":{"type":"integer"}}`
	if !strings.Contains(text, want) {
		t.Errorf("the document lacks %s: %s", want, text)
	}
}
