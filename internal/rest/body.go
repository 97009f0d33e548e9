package rest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"unstuck/internal/op"
)

const (
	// firstBuffer is how much memory a body gets before any of it has come.
	firstBuffer = 16 << 10
	// drainMost is how much of a body that is too large is read and dropped, so that clients that send before they read see
	// the answer and no broken connection.
	drainMost = 4 << 20
)

// readBody reads the body of a request whose method has one, up to op.MaxBody, whether its length was announced or not. After a
// body that is too large the connection is closed.
func readBody(w http.ResponseWriter, r *http.Request, req *op.Request) {
	length := r.ContentLength
	switch {
	case length > op.MaxBody:
		req.TooLarge = true
	case length == 0 || r.Method == http.MethodGet || r.Method == http.MethodHead:
		return
	default:
		b := bytes.NewBuffer(make([]byte, 0, min(max(length, 0), firstBuffer)+bytes.MinRead))
		n, err := b.ReadFrom(io.LimitReader(r.Body, op.MaxBody+1))
		req.Body, req.Broken, req.TooLarge = b.Bytes(), err, n > op.MaxBody
	}
	if !req.TooLarge {
		return
	}
	req.Body = nil
	w.Header().Set("Connection", "close")
	if r.Header.Get("Expect") == "" { // reading would ask a client that waits to go on
		_, _ = io.CopyN(io.Discard, r.Body, drainMost)
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
		sum = sha256.Sum256(echo)
	}
	out := bytes.TrimSuffix(answer, []byte("}"))
	if len(members) > 0 {
		out = append(out, ',')
	}
	out = append(append(out, `"body_received":`...), echo...)
	return append(out, `,"body_received_sha256":"`+hex.EncodeToString(sum[:])+`"}`...)
}
