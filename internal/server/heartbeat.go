package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"unstuck/internal/alert"
	"unstuck/internal/op"
)

const (
	beatEvery  = time.Minute
	beatWithin = 20 * time.Second
	beatNote   = "beat_at" // is written before every call, so that a database that refuses writes stops them
)

// heart calls somebody outside every minute while the server does its work, so that he notices when it does not (CUES, alerts).
type heart struct {
	client *http.Client
	calls  *prometheus.CounterVec

	mu   sync.Mutex
	last time.Time // of a call that was answered well; zero before the first
	err  error     // why the last one was not made or not answered well
}

func newHeart(s Settings) *heart {
	return &heart{
		client: s.Callbacks().Client(),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "unstuck_heartbeat_total",
			Help: "Calls of UNSTUCK_HEARTBEAT_URL: ok; failed (not allowed, no connection, no 2xx); held (not made, because the scheduler stands still or the database takes no writes)."}, []string{"result"}),
	}
}

// lastSeconds is when the last good call was, in seconds since 1970; 0 before the first.
func (h *heart) lastSeconds() float64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last.IsZero() {
		return 0
	}
	return float64(h.last.UnixMilli()) / 1000
}

// watch is what is known of the outside watch; nil when there is none.
func (s *Server) watch() *alert.Watch {
	if s.HeartbeatURL == "" {
		return nil
	}
	h := s.heart
	h.mu.Lock()
	defer h.mu.Unlock()
	out := &alert.Watch{Host: s.heartHost()}
	if !h.last.IsZero() {
		at := op.TimeOf(h.last)
		out.LastAt = &at
	}
	if h.err != nil {
		out.Error = h.err.Error()
	}
	return out
}

// beatLoop calls every minute until ctx ends.
func (s *Server) beatLoop(ctx context.Context) {
	if s.HeartbeatURL == "" {
		return
	}
	defer s.heart.client.CloseIdleConnections()
	ticker := time.NewTicker(beatEvery)
	defer ticker.Stop()
	for {
		_ = s.Beat(ctx) // is counted and logged
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// errHeld is why a call is not made.
var errHeld = errors.New("the server does not do its work")

// Beat calls UNSTUCK_HEARTBEAT_URL once if the scheduler moves and the database takes writes. The error says why it was not called, or
// not answered well; it does not hold the address, which may be a secret.
func (s *Server) Beat(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, beatWithin)
	defer cancel()
	err := s.works(within)
	if err == nil {
		err = s.heart.call(within, s.HeartbeatURL, s.Settings)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.noteBeat(err)
	return err
}

// works says why the server does not do its work.
func (s *Server) works(ctx context.Context) error {
	if err := s.note(ctx, beatNote); err != nil {
		return fmt.Errorf("%w: %w", errHeld, err)
	}
	switch p, err := s.services(ctx); {
	case err != nil:
		return fmt.Errorf("%w: %w", errHeld, err)
	case p.Scheduler != "ok":
		return fmt.Errorf("%w: the scheduler stands still", errHeld)
	}
	return nil
}

func (h *heart) call(ctx context.Context, to string, s Settings) error {
	if err := s.Callbacks().Check(ctx, to); err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, to, nil)
	if err != nil {
		return errors.New("UNSTUCK_HEARTBEAT_URL cannot be read")
	}
	r.Header.Set("User-Agent", "unstuck/"+Version)
	resp, err := h.client.Transport.RoundTrip(r) // a client's error would hold the address
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // the connection is used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("it answered %d", resp.StatusCode)
	}
	return nil
}

// noteBeat keeps and counts what became of a call. The log says when that changes.
func (s *Server) noteBeat(err error) {
	h := s.heart
	h.mu.Lock()
	defer h.mu.Unlock()
	was := h.err
	h.err = err
	switch {
	case err == nil:
		h.last = s.deps.Now()
		h.calls.WithLabelValues("ok").Inc()
	case errors.Is(err, errHeld):
		h.calls.WithLabelValues("held").Inc()
	default:
		h.calls.WithLabelValues("failed").Inc()
	}
	switch {
	case err == nil && was != nil:
		s.deps.Log.Info("the outside watch hears of this server again", "host", s.heartHost())
	case err != nil && (was == nil || was.Error() != err.Error()):
		s.deps.Log.Error("the outside watch does not hear of this server", "host", s.heartHost(), "error", err)
	}
}

// heartHost is whom the heartbeat goes to; the rest of the address may be a secret.
func (s Settings) heartHost() string {
	u, err := url.Parse(s.HeartbeatURL)
	if err != nil {
		return ""
	}
	return u.Host
}

// checkHeartbeat says what is wrong with the address as it is written.
func (s Settings) checkHeartbeat() error {
	u, err := url.Parse(s.HeartbeatURL)
	if s.HeartbeatURL == "" || err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil {
		return nil
	}
	return errors.New("UNSTUCK_HEARTBEAT_URL is no address; write one such as https://hc-ping.com/your-uuid")
}
