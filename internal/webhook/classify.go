package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Class sorts what can become of a job by what its owner does next.
type Class string

// After all but Delivered, Gone and Unsent the delivery is tried again while its Retry says so (CueAPI wire contract 3.4).
const (
	Delivered Class = "delivered" // 2xx
	Gone      Class = "gone"      // 410: the receiver wants no more, ever
	Rejected  Class = "rejected"  // other 4xx and redirects: trying again will rarely help
	Failed    Class = "failed"    // 408, 429, 5xx, no connection, no whole answer in time
	Refused   Class = "refused"   // the address may not be called: nothing was sent
	Unsent    Class = "unsent"    // not tried, and not an attempt: its endpoint rests (Wait), or the sender stopped (Wait is 0)
)

// classify sorts a reply by its status.
func classify(status int) (Class, string) {
	switch {
	case status >= 200 && status < 300:
		return Delivered, ""
	case status == http.StatusGone:
		return Gone, "Webhook endpoint rejected request (410)"
	case status == http.StatusNotFound:
		return Rejected, "Webhook endpoint not found (404)"
	case status == http.StatusRequestTimeout:
		return Failed, "Webhook endpoint timed out"
	case status == http.StatusTooManyRequests:
		return Failed, "Webhook endpoint rejected request (429)"
	case status >= 400 && status < 500:
		return Rejected, fmt.Sprintf("Webhook endpoint rejected request (%d)", status)
	case status == http.StatusInternalServerError:
		return Failed, "Webhook endpoint returned server error (500)"
	case status >= 500 && status < 600:
		return Failed, fmt.Sprintf("Webhook endpoint server error (%d)", status)
	}
	return Rejected, fmt.Sprintf("Webhook delivery failed (%d)", status)
}

const maxMessage = 500 // characters

// classifyFault sorts the error of an attempt that brought no whole reply.
func classifyFault(err error) (Class, string) {
	var (
		refused *Refusal
		timeout net.Error
	)
	switch {
	case errors.As(err, &refused):
		return Refused, refused.Error()
	case errors.Is(err, errBadURL):
		return Refused, err.Error()
	case errors.Is(err, ErrStopped):
		return Failed, "The server stopped before the webhook endpoint had answered"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return Failed, "Webhook endpoint timed out"
	case isConnectFault(err):
		return Failed, "Could not connect to webhook endpoint"
	case isBroken(err): // its own words hold our address in a network that may be nobody's business
		return Failed, "Webhook endpoint broke the connection off"
	}
	text := []rune(strings.ToValidUTF8(err.Error(), "\ufffd"))
	return Failed, string(text[:min(len(text), maxMessage)])
}

// isConnectFault says whether an error came from resolving, dialling or the TLS handshake.
func isConnectFault(err error) bool {
	var (
		dns    *net.DNSError
		op     *net.OpError
		cert   *tls.CertificateVerificationError
		record tls.RecordHeaderError
		alert  tls.AlertError
	)
	return errors.As(err, &dns) || errors.As(err, &cert) || errors.As(err, &record) || errors.As(err, &alert) ||
		errors.As(err, &op) && (op.Op == "dial" || op.Op == "remote error" || op.Op == "local error")
}

// isBroken says whether an error came from a connection that stood.
func isBroken(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// maxWait bounds what a receiver may ask for with Retry-After.
const maxWait = 24 * time.Hour

// retryAfter reads the header Retry-After (RFC 9110, 10.2.3): seconds, or a date. It is 0 when that is missing, past or neither.
func retryAfter(text string, now time.Time) time.Duration {
	if text == "" {
		return 0
	}
	if n, err := strconv.ParseUint(text, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(n, uint64(maxWait/time.Second))) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxWait)
}

// Retry is how often and when a delivery is tried (a cue's retry setting).
type Retry struct {
	MaxAttempts int             // all attempts, the first included
	Backoff     []time.Duration // after the first, the second …; the last stands for all that follow; none: 1 minute
}

// After says whether another attempt follows the one of that number (1 is the first), and how long after its end: the backoff
// or what the receiver asked for (Result.Wait), whichever is longer, and up to a tenth more, so that deliveries that failed
// together do not come back together; but no receiver makes it longer than a day (CUES, delivery). random is from [0, 1).
func (r Retry) After(attempt int, asked time.Duration, random float64) (wait time.Duration, again bool) {
	if attempt >= r.MaxAttempts {
		return 0, false
	}
	wait = time.Minute
	if n := len(r.Backoff); n > 0 {
		wait = r.Backoff[min(max(attempt, 1), n)-1]
	}
	longest := max(wait+wait/10, maxWait)
	wait = max(wait, asked, 0)
	return min(wait+time.Duration(float64(wait)*random/10), longest), true
}
