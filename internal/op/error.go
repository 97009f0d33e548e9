package op

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Code is a kind of failure: a promise to callers, who compare Name. Doc is one sentence that says what to do about it.
type Code struct {
	Status int
	Name   string
	Doc    string
}

// Codes that every operation can answer.
var (
	InvalidJSON      = Code{400, "invalid_json", "The body is not JSON. Mend the place that the message names and send it again."}
	ConfirmationGone = Code{400, "confirmation_required", "The call destroys something. Send the header X-Confirm-Destructive: true to confirm."}
	NotFound         = Code{404, "http_error", "There is nothing at this address. The API reference lists every path."}
	BadMethod        = Code{405, "http_error", "The path exists, but not with this method. The Allow header lists those that do."}
	TooLarge         = Code{413, "request_too_large", "The body is larger than 1 MiB. Send less, or put the data elsewhere and send its address."}
	ValidationError  = Code{422, "validation_error", "One or more inputs do not fit. `details` names each with what is wrong."}
	Internal         = Code{500, "internal_error", "The fault is ours. Nothing was changed; give the request id to whoever runs the server."}
	Unavailable      = Code{503, "unavailable", "The server cannot answer right now, for the reason that the message gives. Try again later."}
)

// Common lists the codes that any operation can answer, whatever it declares.
func Common() []Code {
	return []Code{InvalidJSON, ConfirmationGone, NotFound, BadMethod, TooLarge, ValidationError, Internal, Unavailable}
}

// Error is what a caller is told. The cause, if any, is for the log only.
type Error struct {
	Code    Code
	Message string
	Details []Violation
	Extra   any         // a struct whose fields join the error object, or nil
	Beside  any         // a struct whose fields stand beside the error object, or nil
	Header  http.Header // further response headers, or nil
	cause   error
}

// Msg makes an error of this kind with a message for people.
func (c Code) Msg(format string, args ...any) *Error {
	return &Error{Code: c, Message: fmt.Sprintf(format, args...)}
}

// Wrap is Msg with the cause that goes to the log.
func (c Code) Wrap(cause error, format string, args ...any) *Error {
	e := c.Msg(format, args...)
	e.cause = cause
	return e
}

func (e *Error) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code.Name, e.Message, e.cause)
	}
	return e.Code.Name + ": " + e.Message
}

func (e *Error) Unwrap() error { return e.cause }

const internalText = "An internal error occurred. Nothing was changed."

// AsError turns any error into what the caller is told: an *Error stays; a call whose context ended, and an error with a method
// Unavailable that says why, become Unavailable; all else is an internal error. err is the cause.
func AsError(err error) *Error {
	var e *Error
	var passing interface{ Unavailable() string }
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &passing):
		say := passing.Unavailable()
		return Unavailable.Wrap(err, "%s.", strings.ToUpper(say[:1])+say[1:])
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Unavailable.Wrap(err, "The call was given up before it was done.")
	}
	return Internal.Wrap(err, internalText)
}

// Body is the JSON of the error: {"error":{…},"detail":{"error":{…}}}, both objects equal (CueAPI wire contract 1.8). docs is
// the base address of the error pages, requestID the id of this answer; either may be empty.
func (e *Error) Body(docs, requestID string) []byte {
	var b bytes.Buffer
	member := func(name string, v any) {
		fmt.Fprintf(&b, `,"%s":%s`, name, Marshal(v))
	}
	fmt.Fprintf(&b, `{"code":%s`, Quote(e.Code.Name))
	member("message", e.Message)
	member("status", e.Code.Status)
	if len(e.Details) > 0 {
		member("details", e.Details)
	}
	if e.Extra != nil {
		if fields := Marshal(e.Extra); len(fields) > len("{}") {
			b.WriteByte(',')
			b.Write(fields[1 : len(fields)-1])
		}
	}
	if docs != "" {
		member("docs", docs+"#"+e.Code.Name)
	}
	if requestID != "" {
		member("request_id", requestID)
	}
	b.WriteByte('}')
	body := fmt.Appendf(nil, `{"error":%s,"detail":{"error":%[1]s}`, b.Bytes())
	if e.Beside != nil {
		return append(append(body, ','), Marshal(e.Beside)[1:]...)
	}
	return append(body, '}')
}

// Quote is s as a JSON string, without HTML escaping.
func Quote(s string) string { return string(Marshal(s)) }

// Marshal is compact JSON without HTML escaping and without a newline (CueAPI wire contract 1.5). It panics on what cannot be
// JSON, which is a fault of the program.
func Marshal(v any) []byte { return newJSONWriter().write(v) }

// jsonWriter writes values as Marshal does, again and again into one buffer.
type jsonWriter struct {
	buf bytes.Buffer
	enc *json.Encoder
}

func newJSONWriter() *jsonWriter {
	w := &jsonWriter{}
	w.enc = json.NewEncoder(&w.buf)
	w.enc.SetEscapeHTML(false)
	return w
}

// write answers the JSON of v; it is overwritten by the next call.
func (w *jsonWriter) write(v any) []byte {
	w.buf.Reset()
	if err := w.enc.Encode(v); err != nil {
		panic(fmt.Sprintf("op: cannot write %T as JSON: %v", v, err))
	}
	return bytes.TrimSuffix(w.buf.Bytes(), []byte("\n"))
}
