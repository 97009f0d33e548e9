package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestClasses(t *testing.T) {
	for status, want := range map[int]string{
		200: "delivered ", 204: "delivered ", 299: "delivered ",
		410: "gone Webhook endpoint rejected request (410)",
		408: "failed Webhook endpoint timed out", 429: "failed Webhook endpoint rejected request (429)",
		500: "failed Webhook endpoint returned server error (500)", 503: "failed Webhook endpoint server error (503)", 599: "failed Webhook endpoint server error (599)",
		400: "rejected Webhook endpoint rejected request (400)", 404: "rejected Webhook endpoint not found (404)", 499: "rejected Webhook endpoint rejected request (499)",
		101: "rejected Webhook delivery failed (101)", 302: "rejected Webhook delivery failed (302)", 600: "rejected Webhook delivery failed (600)",
	} {
		if class, message := classify(status); string(class)+" "+message != want {
			t.Errorf("%d: %s %s, not %s", status, class, message, want)
		}
	}
}

func TestFaults(t *testing.T) {
	refused := &Refusal{"h", netip.MustParseAddr("10.0.0.1"), netip.MustParsePrefix("10.0.0.0/8"), "a private network"}
	for _, c := range []struct {
		err  error
		want string
	}{
		{&net.OpError{Op: "dial", Err: errors.New("connection refused")}, "failed Could not connect to webhook endpoint"},
		{&net.DNSError{Err: "no such host"}, "failed Could not connect to webhook endpoint"},
		{&tls.CertificateVerificationError{Err: errors.New("unknown authority")}, "failed Could not connect to webhook endpoint"},
		{fmt.Errorf("read: %w", context.DeadlineExceeded), "failed Webhook endpoint timed out"},
		{&net.DNSError{Err: "slow", IsTimeout: true}, "failed Webhook endpoint timed out"},
		{&net.OpError{Op: "dial", Err: refused}, "refused " + refused.Error()},
		{&net.OpError{Op: "read", Source: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 9)}, Err: syscall.ECONNRESET}, "failed Webhook endpoint broke the connection off"},
		{fmt.Errorf("x: %w", io.ErrUnexpectedEOF), "failed Webhook endpoint broke the connection off"},
		{errors.New(strings.Repeat("ä", 600)), "failed " + strings.Repeat("ä", 500)},
		{errors.New("a\xffb"), "failed a\ufffdb"},
		{fmt.Errorf("x: %w", ErrStopped), "failed The server stopped before the webhook endpoint had answered"},
		{errBadURL, "refused The URL cannot be read"},
	} {
		if class, message := classifyFault(c.err); string(class)+" "+message != c.want {
			t.Errorf("%v: %s %s, not %s", c.err, class, message, c.want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "0": 0, "120": 2 * time.Minute, "86400": 24 * time.Hour, "86401": 24 * time.Hour, "99999999999999999999999": 24 * time.Hour, "-5": 0, "1.5": 0, "soon": 0,
		now.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second, now.Add(-time.Hour).Format(http.TimeFormat): 0,
		now.AddDate(1, 0, 0).Format(http.TimeFormat): 24 * time.Hour, "Sunday, 22-Nov-26 09:00:05 GMT": 5 * time.Second,
	} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("%q: %v, not %v", text, got, want)
		}
	}
}

func TestRetry(t *testing.T) {
	minutes := []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute}
	for _, c := range []struct {
		r       Retry
		attempt int
		asked   time.Duration
		random  float64
		want    time.Duration // 0: none follows
	}{
		{Retry{3, minutes}, 1, 0, 0, time.Minute},
		{Retry{3, minutes}, 2, 0, 0, 5 * time.Minute},
		{Retry{3, minutes}, 3, 0, 0, 0},
		{Retry{9, minutes}, 8, 0, 0, 15 * time.Minute},
		{Retry{3, nil}, 1, 0, 0, time.Minute},
		{Retry{3, minutes}, 1, 0, 0.5, 63 * time.Second},
		{Retry{3, minutes}, 1, time.Hour, 0, time.Hour},
		{Retry{3, minutes}, 2, time.Second, 0, 5 * time.Minute},
		{Retry{3, minutes}, 1, maxWait, 0.9, maxWait},
		{Retry{3, []time.Duration{2 * maxWait}}, 1, maxWait, 0.5, 2*maxWait + maxWait/10},
		{Retry{1, minutes}, 1, time.Hour, 0, 0},
	} {
		if got, again := c.r.After(c.attempt, c.asked, c.random); got != c.want || again != (c.want > 0) {
			t.Errorf("%v after attempt %d, asked %v: %v, %v", c.r, c.attempt, c.asked, got, again)
		}
	}
	rapid.Check(t, func(t *rapid.T) { // never before the backoff or what was asked, at most a tenth later, MaxAttempts attempts
		d := rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.Int64Range(0, int64(48*time.Hour)).Draw(t, "d"))
		})
		r := Retry{rapid.IntRange(1, 10).Draw(t, "max"), rapid.SliceOfN(d, 1, 5).Draw(t, "backoff")}
		asked, random := min(d.Draw(t, "asked"), maxWait), rapid.Float64Range(0, 0.999).Draw(t, "random")
		attempts := 1
		for {
			wait, again := r.After(attempts, asked, random)
			if !again {
				break
			}
			base := max(asked, r.Backoff[min(attempts, len(r.Backoff))-1])
			if wait < base || wait > base+base/10 {
				t.Fatalf("attempt %d: %v for %v", attempts, wait, base)
			}
			attempts++
		}
		if attempts != r.MaxAttempts {
			t.Fatalf("%d attempts", attempts)
		}
	})
}
