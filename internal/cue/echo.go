package cue

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/op"
)

// The echo sink keeps what is posted to it for a while, so that somebody who tries out webhooks can see what arrived (CueAPI wire
// contract 2.11). It is in memory only. What this server itself posts for a workspace only that workspace sees; the rest is
// seen by every key whose holder knows the token.
const (
	echoTokenLeast = 16
	echoBodyMost   = 1_000_000
	echoKeptFor    = 300 * time.Second
	echoPosts      = 10 // by one address in an hour
	echoBytesMost  = 32 << 20
	echoAddresses  = 10_000 // that are counted at most
)

// Codes of the echo sink.
var (
	InvalidToken     = op.Code{Status: 400, Name: "invalid_token", Doc: "The token of the echo sink is too short. Make one of at least 16 random characters."}
	PayloadTooLarge  = op.Code{Status: 413, Name: "payload_too_large", Doc: "The echo sink keeps up to 1,000,000 bytes. Send less."}
	EchoRateExceeded = op.Code{Status: 429, Name: "rate_limit_exceeded", Doc: "The echo sink takes ten documents an hour from one address. Wait, or receive webhooks with a server of your own."}
)

// sink is the echo sink. The zero value is ready once now is set.
type sink struct {
	now   func() time.Time
	mu    sync.Mutex
	kept  map[echoKey]*echo
	order []*echo // oldest first; also those that were replaced
	bytes int
	posts map[netip.Addr]*echoHour
}

type echoKey struct{ workspace, token string }

type echo struct {
	key     echoKey
	payload []byte
	headers map[string]string
	at      time.Time
}

// size is the memory that it takes, about.
func (e *echo) size() int {
	n := len(e.payload) + 4096
	for name, value := range e.headers {
		n += len(name) + len(value)
	}
	return n
}

type echoHour struct {
	since time.Time
	n     int
}

// shown says that the value of a header is kept: of one that our own deliveries carry, or that frames a message. All others may be
// secrets, and who may read the sink need not know them.
func shown(name string) bool {
	switch name {
	case "accept", "accept-encoding", "content-length", "content-type", "user-agent":
		return true
	}
	return strings.HasPrefix(name, "x-cueapi-") || strings.HasPrefix(name, "webhook-")
}

// store keeps a document and the headers it came with, without secrets. Workspace is "" for what strangers post.
func (s *sink) store(workspace, token string, body []byte, h http.Header) error {
	switch {
	case len(token) < echoTokenLeast:
		return InvalidToken.Msg("Token must be at least 16 characters")
	case len(body) > echoBodyMost:
		return PayloadTooLarge.Msg("Echo payload must be under 1MB")
	case !json.Valid(body):
		return op.InvalidJSON.Msg("Request body is not valid JSON.")
	}
	body, _ = redactJSON(body)
	e := &echo{key: echoKey{workspace, token}, payload: body, headers: map[string]string{}, at: s.now()}
	for name, values := range h {
		name, value := strings.ToLower(name), masked
		if shown(name) {
			value, _ = access.Redact(strings.Join(values, ", "))
		}
		e.headers[name] = value
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil {
		s.kept = map[echoKey]*echo{}
	}
	s.kept[e.key] = e
	s.order = append(s.order, e)
	s.bytes += e.size()
	for s.bytes > echoBytesMost || len(s.order) > 0 && s.now().Sub(s.order[0].at) >= echoKeptFor {
		old := s.order[0]
		s.order[0], s.order = nil, s.order[1:]
		s.bytes -= old.size()
		if s.kept[old.key] == old {
			delete(s.kept, old.key)
		}
	}
	return nil
}

// find is what was kept under a token last; nil when there is nothing.
func (s *sink) find(workspace, token string) *echo {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range []string{workspace, ""} {
		if e := s.kept[echoKey{w, token}]; e != nil && s.now().Sub(e.at) < echoKeptFor {
			return e
		}
	}
	return nil
}

// count counts a post of an address. It answers how long the address must wait before it may post again; 0 when it may now.
func (s *sink) count(from netip.Addr) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.posts == nil || len(s.posts) >= echoAddresses {
		s.posts = map[netip.Addr]*echoHour{}
	}
	p, now := s.posts[from], s.now()
	if p == nil || now.Sub(p.since) >= time.Hour {
		p = &echoHour{since: now}
		s.posts[from] = p
	}
	if p.n++; p.n <= echoPosts {
		return 0
	}
	return p.since.Add(time.Hour).Sub(now)
}

type echoInput struct {
	Token string `json:"token" doc:"at least 16 characters that nobody guesses"`
}

type echoStored struct {
	Stored bool `json:"stored"`
}

// storeEcho keeps the body of the call.
func (c *Cues) storeEcho(ctx context.Context, in echoInput) (out echoStored, err error) {
	call := op.CallOf(ctx)
	if wait := c.echo.count(c.Access.ClientAddr(call.Request)); wait > 0 {
		e := EchoRateExceeded.Msg("Echo store rate limit exceeded")
		e.Header = http.Header{"Retry-After": {strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10)}}
		return out, e
	}
	return echoStored{true}, c.echo.store("", in.Token, call.Body, call.Request.Header)
}

type echoObject struct {
	Status     string            `json:"status" doc:"waiting or delivered"`
	Payload    op.Value          `json:"payload,omitempty" doc:"the document"`
	Headers    map[string]string `json:"headers,omitempty" doc:"with names in lower case; values are *** but those of headers that this server sends itself"`
	ReceivedAt *op.OffsetTime    `json:"received_at,omitempty"`
}

func (c *Cues) getEcho(ctx context.Context, in echoInput) (echoObject, error) {
	e := c.echo.find(c.caller(ctx).Workspace(), in.Token)
	if e == nil {
		return echoObject{Status: "waiting"}, nil
	}
	at := op.OffsetTime(op.TimeOf(e.at))
	return echoObject{Status: "delivered", Payload: e.payload, Headers: e.headers, ReceivedAt: &at}, nil
}

func (c *Cues) echoOperations() []*op.Operation {
	return []*op.Operation{
		op.Define(op.Spec{
			Name: "echo.store", Route: "POST /v1/echo/{token}",
			Needs: op.Public, Effect: op.Write, Open: true, Unaudited: true, Secretive: true, May: "post to the echo sink",
			Errors: []op.Code{InvalidToken, PayloadTooLarge, EchoRateExceeded},
			Doc:    "Post to the echo sink\nKeeps a JSON document and the headers it came with for five minutes; a second one under the same token replaces it. Ten an hour from one address. It is for trying out webhooks.",
		}, c.storeEcho),
		op.Define(op.Spec{
			Name: "echo.get", Route: "GET /v1/echo/{token}",
			Needs: op.AnyKey, Effect: op.Read, Narrow: op.Always, May: "read the echo sink",
			Doc: "Show what the echo sink got under a token\nWhat this server posted for a workspace is shown to keys of that workspace only.",
		}, c.getEcho),
	}
}
