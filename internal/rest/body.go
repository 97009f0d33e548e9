package rest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"unstuck/internal/op"
)

const (
	// smallBody is how much of a body is read without asking for room: a connection costs as much without one.
	smallBody = 4 << 10
	// drainMost is how much of a body that nobody reads is dropped, so that clients that send before they read see the answer and
	// no broken connection; drainTooLarge of one that is too large. It is waited for no longer than drainWithin.
	drainMost     = 256 << 10
	drainTooLarge = 4 << 20
	drainWithin   = 2 * time.Second
	// bodyWithin is how long a body may take to come from who has shown a key, and strangerWithin from others.
	bodyWithin     = 30 * time.Second
	strangerWithin = 5 * time.Second
	// stepBody is what has to come of a body, or its end, in each stepWithin while it holds room, and the room that is taken first for
	// one whose length is not announced.
	stepBody   = 64 << 10
	stepWithin = 5 * time.Second
)

// intake is the body of one request. It is read when the guard has let the caller in, so that strangers cost no memory.
type intake struct {
	room *room
	w    http.ResponseWriter
	r    *http.Request
	who  holder // whose room was taken
	took int64  // bytes of it
	read bool   // to its end
	lost bool   // it broke off, or did not come in time
}

// callWithBody runs an operation with the body of its request. Where the method has none, and where the operation wants none, what
// comes is ignored.
func (h *handler) callWithBody(w http.ResponseWriter, r *http.Request, req *op.Request, o *op.Operation) *op.Response {
	body := intake{room: &h.room, w: w, r: r}
	defer body.end()
	req.TooLarge = r.ContentLength > op.MaxBody && !o.NoBody
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		req.Fetch = body.fetch
	}
	res := h.Set.Call(r.Context(), req)
	body.drain(req.TooLarge)
	return res
}

// fetch reads the body, up to op.MaxBody, whether its length was announced or not. Beyond smallBody it takes room first: for the
// length that was announced, else as the body grows.
func (b *intake) fetch(ctx context.Context, c *op.Call) error {
	within := strangerWithin
	if caller, ok := c.Caller.(interface{ Workspace() string }); ok {
		b.who.workspace, within = caller.Workspace(), bodyWithin
	}
	if caller, ok := c.Caller.(interface{ KeyID() string }); ok {
		b.who.key = caller.KeyID()
	}
	length := b.r.ContentLength
	if length > 0 && length <= smallBody && c.Caller != nil { // as most are; the server's own deadline will do
		c.Body = make([]byte, length)
		_, c.Broken = io.ReadFull(b.r.Body, c.Body)
		b.read, b.lost = c.Broken == nil, c.Broken != nil
		return nil
	}
	b.deadline(within)
	buf := bytes.NewBuffer(make([]byte, 0, smallBody+bytes.MinRead))
	n, err := buf.ReadFrom(io.LimitReader(b.r.Body, smallBody))
	c.Body = buf.Bytes()
	if err == nil && n == smallBody {
		if c.Body, err = b.large(ctx, c.Body, within); errors.Is(err, errNoRoom) {
			e := op.Unavailable.Msg("The server is busy receiving other large requests. Try again in a moment.")
			e.Header = http.Header{"Retry-After": {"1"}}
			return e
		}
	}
	c.Broken, c.TooLarge = err, len(c.Body) > op.MaxBody
	if b.read, b.lost = err == nil && !c.TooLarge, err != nil; b.read {
		b.deadline(0)
	}
	return nil
}

var errNoRoom = errors.New("no room for a body")

// large reads on to the end of a body, or to one byte beyond op.MaxBody. Room is what the buffer takes; one whose length is unknown
// doubles.
func (b *intake) large(ctx context.Context, body []byte, within time.Duration) ([]byte, error) {
	size, step := b.r.ContentLength, 0
	if size < 0 {
		size = stepBody
	}
	var end time.Time
	for {
		if !b.room.take(ctx, b.who, size-b.took) {
			return body, errNoRoom
		}
		if b.took = size; end.IsZero() {
			end = time.Now().Add(within)
		}
		body = slices.Grow(body, int(size)+1-len(body))
		for step = len(body); len(body) <= int(size); {
			if len(body) >= step {
				step = len(body) + stepBody
				b.deadline(max(1, min(stepWithin, time.Until(end)))) // 0 would be no deadline
			}
			n, err := b.r.Body.Read(body[len(body) : size+1])
			body = body[:len(body)+n]
			if errors.Is(err, io.EOF) {
				return body, nil
			}
			if err != nil {
				return body, err
			}
		}
		if size >= op.MaxBody {
			return body, nil
		}
		size = min(2*size, op.MaxBody)
	}
}

// deadline is until when a read of the body has to succeed; 0: any time. Where there is no connection there is none.
func (b *intake) deadline(within time.Duration) {
	at := time.Time{}
	if within != 0 {
		at = time.Now().Add(within)
	}
	_ = http.NewResponseController(b.w).SetReadDeadline(at)
}

// drain drops what is left of a body, before the answer is written. What is still more ends the connection.
func (b *intake) drain(tooLarge bool) {
	if b.read {
		return
	}
	most := int64(drainMost)
	if tooLarge {
		most = drainTooLarge
	}
	if !b.lost && b.r.Header.Get("Expect") == "" { // reading would ask a client that waits to go on
		b.deadline(drainWithin)
		if _, err := io.CopyN(io.Discard, b.r.Body, most); errors.Is(err, io.EOF) && !tooLarge {
			return
		}
	}
	b.w.Header().Set("Connection", "close")
}

// end gives back the room.
func (b *intake) end() {
	if b.took > 0 {
		b.room.give(b.who, b.took)
	}
}

// wantsEcho says whether the caller wants to see what arrived (CueAPI wire contract 1.12).
func wantsEcho(r *http.Request) bool {
	if v := r.Header["X-Cueapi-Verify-Echo"]; v == nil || !strings.EqualFold(strings.TrimSpace(v[0]), "true") {
		return false
	}
	return r.Method == http.MethodPost || r.Method == http.MethodPatch || r.Method == http.MethodPut
}

// withEcho appends body_received and body_received_sha256 to an answer that is an object, unless the operation has set them
// itself. The hash is over the received JSON with sorted keys and without white space, or over nothing.
func withEcho(answer, received []byte) []byte {
	var members map[string]json.RawMessage
	if json.Unmarshal(answer, &members) != nil || members == nil || members["body_received"] != nil {
		return answer
	}
	echo, sum := []byte("null"), sha256.Sum256(nil)
	dec := json.NewDecoder(bytes.NewReader(received))
	dec.UseNumber() // numbers keep their text
	var v any
	if err := dec.Decode(&v); err == nil {
		echo = op.Marshal(v)
		raw := strings.NewReplacer(`\\`, `\\`, `\u2028`, "\u2028", `\u2029`, "\u2029") // Go alone escapes these two
		sum = sha256.Sum256([]byte(raw.Replace(string(echo))))
	}
	out := bytes.TrimSuffix(answer, []byte("}"))
	if len(members) > 0 {
		out = append(out, ',')
	}
	out = append(append(out, `"body_received":`...), echo...)
	return append(out, `,"body_received_sha256":"`+hex.EncodeToString(sum[:])+`"}`...)
}
