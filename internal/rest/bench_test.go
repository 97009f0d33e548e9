package rest_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"unstuck/internal/op"
	"unstuck/internal/rest"
)

type self struct {
	ID   string   `json:"id"`
	Name string   `json:"name"`
	Can  []string `json:"can"`
}

func aSelf() self {
	return self{ID: "key_01k9zk2m5y8v", Name: "laptop agent", Can: []string{"executions:read", "executions:claim", "executions:report"}}
}

// counting is a guard that does what a guard must at least do: look at the key and say what is left of the limit.
type counting struct{}

func (counting) Admit(ctx context.Context, c *op.Call) (context.Context, error) {
	if c.Auth != "Bearer good" {
		return nil, badKey.Msg("This key is not known here.")
	}
	v := []string{"6000", "5999", "1795339515"}
	c.Header["X-Ratelimit-Limit"], c.Header["X-Ratelimit-Remaining"], c.Header["X-Ratelimit-Reset"] = v[:1:1], v[1:2:2], v[2:]
	return ctx, nil
}
func (counting) Permit(context.Context, *op.Call) error    { return nil }
func (counting) Fault(string) string                       { return "" }
func (counting) Done(context.Context, *op.Call, *op.Error) {}

func guarded() http.Handler {
	spec := op.Spec{Name: "key.self", Route: "GET /v1/keys/self", Needs: op.AnyKey, Effect: op.Read, May: "see itself", Doc: "Show the calling key"}
	return rest.New(rest.Options{Info: info(), Set: op.NewSet(counting{}, slog.New(slog.DiscardHandler), noon,
		op.Define(spec, func(context.Context, none) (self, error) { return aSelf(), nil }))})
}

// bare is the floor: what net/http does by itself to write the same JSON.
func bare() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/keys/self", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(aSelf())
	})
	return mux
}

func each(b *testing.B, measure func(*testing.B, http.Handler)) {
	b.Run("bare", func(b *testing.B) { measure(b, bare()) })
	b.Run("guarded", func(b *testing.B) { measure(b, guarded()) })
}

// sink is the least that a handler can write to.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }
func (s *sink) WriteHeader(status int)      { s.status = status }

// BenchmarkHandler measures a trivial authenticated GET without a network.
func BenchmarkHandler(b *testing.B) {
	each(b, func(b *testing.B, h http.Handler) {
		r := httptest.NewRequest("GET", "/v1/keys/self", nil)
		r.Header.Set("Authorization", "Bearer good")
		b.ReportAllocs()
		for b.Loop() {
			w := sink{header: http.Header{}}
			h.ServeHTTP(&w, r)
		}
	})
}

// BenchmarkServer measures the same over loopback, on connections that stay open, with a client that costs next to nothing.
func BenchmarkServer(b *testing.B) {
	each(b, func(b *testing.B, h http.Handler) {
		s := httptest.NewServer(h)
		defer s.Close()
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) { requests(b, s.Listener.Addr().String(), pb) })
	})
}

// requests sends the same request again and again. Answers end in "}" and, from the bare handler, a newline.
func requests(b *testing.B, addr string, pb *testing.PB) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Error(err)
		return
	}
	defer func() { _ = conn.Close() }()
	request := []byte("GET /v1/keys/self HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer good\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")
	answer := make([]byte, 4096)
	for pb.Next() {
		if _, err := conn.Write(request); err != nil {
			b.Error(err)
			return
		}
		n, err := conn.Read(answer)
		if err != nil && !errors.Is(err, io.EOF) || n < 12 || string(answer[9:12]) != "200" {
			b.Errorf("%s %v", answer[:n], err)
			return
		}
	}
}
