package op

import (
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

// Violation is one input that does not fit: where ("body.schedule.cron") and why.
type Violation struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// Error is what a caller is told. The cause, if any, is for the log only.
type Error struct {
	Code    Code
	Message string
	Details []Violation
	Extra   any         // a struct whose fields join the error object, or nil
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

// Invalid is the 422 for one input that does not fit; field is dotted, with its place first: "body.ips.0".
func Invalid(field, format string, args ...any) *Error {
	return violations([]Violation{{field, fmt.Sprintf(format, args...)}})
}

func violations(v []Violation) *Error {
	e := ValidationError.Msg("%s: %s", v[0].Field, v[0].Message)
	e.Details = v
	return e
}

// AsError turns any error into what the caller is told: an *Error stays, all else is an internal error with err as its cause.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return Internal.Wrap(err, "An internal error occurred. Nothing was changed.")
}

// Body is the JSON of the error: {"error":{…},"detail":{"error":{…}}}, both objects equal (CueAPI wire contract 1.8). docs is
// the base address of the error pages, requestID the id of this answer; either may be empty.
func (e *Error) Body(docs, requestID string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `{"code":%s,"message":%s,"status":%d`, Quote(e.Code.Name), Quote(e.Message), e.Code.Status)
	if len(e.Details) > 0 {
		fmt.Fprintf(&b, `,"details":%s`, Marshal(e.Details))
	}
	if e.Extra != nil {
		if fields := Marshal(e.Extra); len(fields) > 2 {
			b.WriteByte(',')
			b.Write(fields[1 : len(fields)-1])
		}
	}
	if docs != "" {
		fmt.Fprintf(&b, `,"docs":%s`, Quote(docs+"#"+e.Code.Name))
	}
	if requestID != "" {
		fmt.Fprintf(&b, `,"request_id":%s`, Quote(requestID))
	}
	b.WriteByte('}')
	return []byte(`{"error":` + b.String() + `,"detail":{"error":` + b.String() + `}}`)
}

// Quote is s as a JSON string, without HTML escaping.
func Quote(s string) string { return string(Marshal(s)) }

// Marshal is compact JSON without HTML escaping and without a newline (CueAPI wire contract 1.5). It panics on what cannot be
// JSON, which is a fault of the program.
func Marshal(v any) []byte {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("op: cannot write %T as JSON: %v", v, err))
	}
	return []byte(strings.TrimSuffix(b.String(), "\n"))
}
