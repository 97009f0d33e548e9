// Package rest serves a set of operations over HTTP, by the routes that they declare, and describes them as OpenAPI 3.1. It knows
// no noun of the product.
//
// Every answer carries a fresh X-Request-Id. Every error is the JSON of op.Error.Body, the package's own 404 and 405 included.
// Browsers of any origin may call operations with a key that the page holds (Access-Control-Allow-Origin: *), but never with
// credentials of their own, such as cookies: Access-Control-Allow-Credentials, which the CueAPI wire contract 1.10 lists, is not
// sent, because a key travels in a header and "*" with credentials is a fault.
package rest

import (
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"unstuck/internal/op"
)

// Options is what a handler is made of. Set is required.
type Options struct {
	Set  *op.Set
	Info Info
	// DocsBase is the address of the page that explains the codes of errors: "https://unstuck.example.com/docs/errors", or relative
	// to the server, "/docs/errors". It is not made from what a request says of the server, which whoever sends it can choose. ""
	// names no page.
	DocsBase string
	// Log hears what the operations' own log does not. Default: slog.Default().
	Log *slog.Logger
	// Mount has further handlers by "/path" (for GET and HEAD) or "METHOD /path". Paths are exact; a slash at the end does not
	// matter. Besides X-Request-Id and X-Content-Type-Options their answers are their own, also for cross-origin callers.
	Mount map[string]http.Handler
}

// New makes the handler of all operations of a set, of /openapi.json, of /docs (the API reference) and of what is mounted. It
// panics when two of them claim one place.
func New(o Options) http.Handler {
	h := &handler{Options: o, fixed: newFixed()}
	if h.Log == nil {
		h.Log = slog.Default()
	}
	for _, operation := range o.Set.All() {
		query := slices.ContainsFunc(operation.Fields(), func(f op.Field) bool { return f.In == op.InQuery })
		for _, pattern := range append([]string{operation.Route}, operation.Aliases...) {
			h.routes.add(pattern, &route{op: operation, query: query})
		}
	}
	mounts := []map[string]http.Handler{reference(), {"/openapi.json": h.shared(newAsset("application/json", func() []byte { return OpenAPI(o.Set, o.Info) }))}, o.Mount}
	for _, m := range mounts {
		for pattern, mount := range m {
			if strings.HasPrefix(pattern, "/") {
				pattern = "GET " + pattern
			}
			h.routes.add(pattern, &route{mount: mount})
		}
	}
	return h
}

type handler struct {
	Options
	routes branch
	fixed  fixed
	room   room
}

// fixed are the values of headers that never change, so that no answer has to make them. Nobody writes to them.
type fixed struct{ json, noStore, noSniff, anyOrigin, exposed []string }

func newFixed() fixed {
	return fixed{
		json:      []string{"application/json"},
		noStore:   []string{"no-store"},
		noSniff:   []string{"nosniff"},
		anyOrigin: []string{"*"},
		exposed: []string{"X-Request-Id, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, Retry-After, " +
			"X-CueAPI-Usage-Warning, WWW-Authenticate"},
	}
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := newID()
	header := w.Header()
	header["X-Request-Id"] = []string{id}
	header["X-Content-Type-Options"] = h.fixed.noSniff
	if isPreflight(r) {
		h.preflight(w, r)
		return
	}
	at, values := h.routes.find(r.URL)
	if at == nil {
		h.answer(w, r, id, &op.Response{Err: op.NotFound.Msg("Not Found")})
		return
	}
	switch to := at.pick(r.Method); {
	case to == nil:
		header.Set("Allow", at.allow())
		h.answer(w, r, id, &op.Response{Err: op.BadMethod.Msg("Method Not Allowed")})
	case to.mount != nil:
		to.mount.ServeHTTP(w, r)
	default:
		h.call(w, r, id, to, values)
	}
}

// call runs an operation. When the client goes away, the operation's context ends and the answer finds nobody.
func (h *handler) call(w http.ResponseWriter, r *http.Request, id string, to *route, values [maxParams]string) {
	var res *op.Response
	defer func() { // operations catch their own panics: what comes here is a fault of the guard or of this package
		if p := recover(); p != nil {
			h.Log.Error("panic while answering", "request", id, "op", to.op.Name, "panic", p, "stack", string(debug.Stack()))
			res = &op.Response{Err: op.Internal.Msg("An internal error occurred.")}
		}
		h.answer(w, r, id, res)
	}()
	req := &op.Request{
		Op: to.op.Name, ID: id, Via: "rest", Client: client(r.Header), Host: r.Host, Peer: peer(r), Forwarded: r.Header["X-Forwarded-For"],
		Auth: first(r.Header, "Authorization"), UserAgent: first(r.Header, "User-Agent"),
		Header: r.Header, Params: to.named(values), Answer: w.Header(),
	}
	if to.query && r.URL.RawQuery != "" {
		req.Query = parseQuery(r.URL.RawQuery)
	}
	if r.ContentLength == 0 { // as of most
		res = h.Set.Call(r.Context(), req)
	} else {
		res = h.callWithBody(w, r, req, to.op)
	}
	if res.Err == nil && wantsEcho(r) && !to.op.Secretive {
		res.Body = withEcho(res.Body, req.Body)
	}
}

// counted is how long a body may be for net/http to find out its length by itself, which costs less than telling it. Longer
// ones would be sent in chunks.
const counted = 2048

// answer writes a response: an error in its envelope, an output as JSON, or nothing but a status.
func (h *handler) answer(w http.ResponseWriter, r *http.Request, id string, res *op.Response) {
	header := w.Header()
	if r.Header["Origin"] != nil {
		header["Access-Control-Allow-Origin"] = h.fixed.anyOrigin
		header["Access-Control-Expose-Headers"] = h.fixed.exposed
	}
	header["Cache-Control"] = h.fixed.noStore
	if res.Send != nil {
		h.stream(w, r, res, id)
		return
	}
	status, body := res.Status, res.Body
	if res.Err != nil {
		status, body = res.Err.Code.Status, res.Err.Body(h.DocsBase, id)
	}
	if body != nil {
		header["Content-Type"] = h.fixed.json
		if len(body) > counted {
			header["Content-Length"] = []string{strconv.Itoa(len(body))}
		}
	}
	w.WriteHeader(status)
	if body != nil {
		_, _ = w.Write(body) // a client that went away is told nothing
	}
}

// shared lets pages of any origin read what a handler answers.
func (h *handler) shared(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header["Origin"] != nil {
			w.Header()["Access-Control-Allow-Origin"] = h.fixed.anyOrigin
		}
		next.ServeHTTP(w, r)
	})
}

func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header["Origin"] != nil && r.Header["Access-Control-Request-Method"] != nil
}

// preflight answers a browser that asks whether it may call (CueAPI wire contract 1.10, without credentials).
func (h *handler) preflight(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header["Access-Control-Allow-Origin"] = h.fixed.anyOrigin
	header.Set("Access-Control-Allow-Methods", "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT")
	header.Set("Access-Control-Max-Age", "600")
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
		header.Set("Access-Control-Allow-Headers", asked)
	}
	header.Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("OK"))
}

// newID is a random UUID, version 4 of RFC 9562.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	var s [36]byte
	at := 0
	for _, part := range [...][]byte{b[:4], b[4:6], b[6:8], b[8:10], b[10:]} {
		if at > 0 {
			s[at] = '-'
			at++
		}
		at += hex.Encode(s[at:], part)
	}
	return string(s[:])
}

// client is what the caller says it is: cli, stdio, web. Anything longer than 32 characters, or not plain, is left out, since the
// mark is shown to people.
func client(h http.Header) string {
	mark := first(h, "X-Unstuck-Client")
	if len(mark) > 32 || strings.ContainsFunc(mark, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return mark
}

// first is the first value of a header whose name is written in canonical form; "" without one.
func first(h http.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// peer is the other end of the connection. The network is asked of the listener's side: a client chooses the name of its own end
// of a unix socket, and might choose one that looks like an address.
func peer(r *http.Request) string {
	if local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr); local != nil && local.Network() == "unix" {
		return "unix"
	}
	return r.RemoteAddr
}

// parseQuery reads a query. Text that is not well encoded is kept as it is, so that the input it was meant for can refuse it.
func parseQuery(raw string) url.Values {
	values := url.Values{}
	decode := func(s string) string {
		if d, err := url.QueryUnescape(s); err == nil {
			return d
		}
		return s
	}
	for pair := range strings.SplitSeq(raw, "&") {
		if pair != "" {
			name, value, _ := strings.Cut(pair, "=")
			values.Add(decode(name), decode(value))
		}
	}
	return values
}
