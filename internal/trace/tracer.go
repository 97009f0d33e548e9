package trace

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

const (
	answerMost  = 64 << 10         // bytes of a receiver's answer that are read
	retryMost   = 30 * time.Second // the longest pause after requests that failed
	complaining = time.Minute      // failures are logged so often at most
)

// Tracer sends spans in the background. A nil one is off. Its methods may be called from any goroutine.
type Tracer struct {
	Config
	log      *slog.Logger
	client   *http.Client
	resource []byte
	full     chan struct{}      // holds a token when a batch is there
	stop     chan struct{}      // closed when it is to end
	cutOff   context.CancelFunc // of requests under way
	done     chan struct{}

	mu       sync.Mutex
	queue    []Span
	sent     uint64
	dropped  uint64
	unlogged uint64 // dropped since the log heard of it
	logged   time.Time
}

// Open starts sending; nil when traces are off. Close ends it.
func Open(c Config, log *slog.Logger) (*Tracer, error) {
	if c.URL == "" {
		return nil, nil
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("read OTEL_EXPORTER_OTLP_CERTIFICATE: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_CERTIFICATE: %s has no certificate in PEM", c.CA)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	t := &Tracer{
		Config: c, log: log, resource: resourceOf(c), full: make(chan struct{}, 1), done: make(chan struct{}),
		client: &http.Client{Transport: transport, Timeout: c.Timeout, CheckRedirect: func(*http.Request, []*http.Request) error { // headers hold secrets
			return http.ErrUseLastResponse
		}},
	}
	ctx, cutOff := context.WithCancel(context.Background())
	t.stop, t.cutOff = make(chan struct{}), cutOff
	go t.run(ctx)
	return t, nil
}

// Add takes spans to be sent. It never waits: those for which there is no room are dropped and counted.
func (t *Tracer) Add(spans ...Span) {
	t.mu.Lock()
	defer t.mu.Unlock()
	room := max(t.Queue-len(t.queue), 0)
	if room < len(spans) {
		t.dropped += uint64(len(spans) - room)  //nolint:gosec // not negative
		t.unlogged += uint64(len(spans) - room) //nolint:gosec // not negative
		spans = spans[:room]
	}
	if t.queue = append(t.queue, spans...); len(t.queue) >= t.Batch {
		select {
		case t.full <- struct{}{}:
		default:
		}
	}
}

// Stats are how many spans were sent and how many were lost.
func (t *Tracer) Stats() (sent, dropped uint64) {
	if t == nil {
		return 0, 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sent, t.dropped
}

// Close sends what is left, once and within the context, and ends the tracer. A request that is under way is waited for.
func (t *Tracer) Close(ctx context.Context) {
	if t == nil {
		return
	}
	close(t.stop)
	select {
	case <-t.done:
	case <-ctx.Done():
		t.cutOff()
		<-t.done
	}
	defer t.cutOff()
	for batch := t.take(); len(batch) > 0; batch = t.take() {
		if _, err := t.send(ctx, batch); err != nil {
			t.mu.Lock()
			lost := len(batch) + len(t.queue)
			t.mu.Unlock()
			t.log.Warn("the last traces could not be sent", "spans", lost, "error", err)
			break
		}
	}
	t.client.CloseIdleConnections()
}

func (t *Tracer) run(ctx context.Context) {
	defer close(t.done)
	wait := t.Every
	for failures := 0; ; {
		timer := time.NewTimer(wait)
		full := t.full
		if failures > 0 {
			full = nil // not before the pause is over
		}
		select {
		case <-t.stop:
			timer.Stop()
			return
		case <-timer.C:
		case <-full:
			timer.Stop()
		}
		if pause := t.sendAll(ctx); pause >= 0 {
			wait = max(min(time.Second<<min(failures, 10), retryMost), min(pause, retryMost))
			failures++
		} else {
			wait, failures = t.Every, 0
		}
	}
}

// sendAll sends all that is there. When the receiver may take it later, it answers the pause that this asks for, at least 0.
func (t *Tracer) sendAll(ctx context.Context) (pause time.Duration) {
	for batch := t.take(); len(batch) > 0; batch = t.take() {
		later, err := t.send(ctx, batch)
		if err == nil {
			continue
		}
		switch {
		case ctx.Err() != nil: // Close sends it
			t.putBack(batch)
			return -1
		case later >= 0:
			t.putBack(batch)
		default:
			t.lose(len(batch))
		}
		t.complain(err)
		return max(later, 0)
	}
	return -1
}

func (t *Tracer) take() []Span {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(len(t.queue), t.Batch)
	batch := t.queue[:n:n]
	if t.queue = t.queue[n:]; len(t.queue) == 0 {
		t.queue = nil
	}
	return batch
}

// putBack is for a batch that is sent again; what has no room any more is lost.
func (t *Tracer) putBack(batch []Span) {
	t.mu.Lock()
	room := max(t.Queue-len(t.queue), 0)
	lost := max(len(batch)-room, 0)
	t.queue = append(batch[lost:len(batch):len(batch)], t.queue...)
	t.mu.Unlock()
	t.lose(lost)
}

func (t *Tracer) lose(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropped += uint64(n)  //nolint:gosec // not negative
	t.unlogged += uint64(n) //nolint:gosec // not negative
}

// complain logs a failure, unless one was logged a moment ago.
func (t *Tracer) complain(err error) {
	t.mu.Lock()
	if time.Since(t.logged) < complaining {
		t.mu.Unlock()
		return
	}
	lost := t.unlogged
	t.logged, t.unlogged = time.Now(), 0
	t.mu.Unlock()
	t.log.Warn("traces could not be sent; work goes on without them", "error", err, "spans_lost", lost)
}

// errRefused is an answer that is no success.
type errRefused int

func (e errRefused) Error() string {
	return fmt.Sprintf("the receiver answered with status %d", int(e))
}

// send sends a batch. After an error it answers how long to wait before it is sent again, or -1 when that is of no use.
func (t *Tracer) send(ctx context.Context, batch []Span) (later time.Duration, err error) {
	body := request(t.resource, batch)
	if t.Gzip {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		_, err := w.Write(body)
		if err := errors.Join(err, w.Close()); err != nil {
			return -1, err
		}
		body = z.Bytes()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL, bytes.NewReader(body))
	if err != nil {
		return -1, err
	}
	for name, value := range t.Headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("User-Agent", "unstuck")
	if t.Gzip {
		req.Header.Set("Content-Encoding", "gzip")
	}
	res, err := t.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, answerMost))
	switch {
	case res.StatusCode == http.StatusTooManyRequests || res.StatusCode >= 502 && res.StatusCode <= 504: // OTLP: these may pass
		seconds, _ := strconv.Atoi(res.Header.Get("Retry-After"))
		return time.Duration(max(seconds, 0)) * time.Second, errRefused(res.StatusCode)
	case res.StatusCode/100 != 2:
		return -1, errRefused(res.StatusCode)
	case err != nil:
		return -1, err
	}
	n, why := rejected(answer)
	t.mu.Lock()
	t.sent += uint64(len(batch)) //nolint:gosec // not negative
	t.mu.Unlock()
	if n > 0 {
		t.complain(fmt.Errorf("the receiver did not take %d spans: %s", n, why))
	}
	return 0, nil
}
