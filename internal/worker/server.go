package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// How long a call may take. A claim waits for work for claimWait, and has as long again.
const (
	callTime  = 30 * time.Second
	claimWait = 20 * time.Second
)

// answerMost is how much of an answer is read: claims bring payloads of about 2 MiB.
const answerMost = 16 << 20

// remote is the server.
type remote struct {
	base, key, worker, version string
	http                       *http.Client
}

func newRemote(o Options) *remote {
	return &remote{base: o.Base, key: o.Key, worker: o.Worker, version: o.Version, http: &http.Client{
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 16},
		CheckRedirect: func(*http.Request, []*http.Request) error { // a key goes nowhere but where it was sent
			return http.ErrUseLastResponse
		},
	}}
}

// refused is an answer that is no success.
type refused struct {
	status  int
	code    string
	message string
	after   time.Duration // Retry-After; 0 without one
}

func (r *refused) Error() string {
	if r.code == "" {
		return fmt.Sprintf("HTTP status %d", r.status)
	}
	return fmt.Sprintf("%d %s: %s", r.status, r.code, r.message)
}

// statusOf is the status of a refusal; 0 when the server was not reached, or its answer not understood.
func statusOf(err error) int {
	var r *refused
	if errors.As(err, &r) {
		return r.status
	}
	return 0
}

// passes says that a call may succeed when it is made again: the server was not reached, is not well, or has had enough for now.
func passes(err error) bool {
	switch status := statusOf(err); {
	case status == 0, status >= 500, status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status == http.StatusForbidden:
		return true
	default: // a redirect comes from something in between, as long as it is there
		return status < 400
	}
}

// post calls the server and reads its answer. Headers come in pairs.
func (s *remote) post(ctx context.Context, limit time.Duration, path string, in, out any, headers ...string) (answered time.Time, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return answered, fmt.Errorf("write the body: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.base+path, bytes.NewReader(body))
	if err != nil {
		return answered, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+s.key)
	req.Header.Set("User-Agent", "unstuck-worker/"+s.version)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := s.http.Do(req)
	if err != nil {
		var e *url.Error
		if errors.As(err, &e) {
			err = e.Err // without the address, which is known
		}
		return answered, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, answerMost))
	if err != nil {
		return answered, err
	}
	if res.StatusCode >= 300 {
		return answered, refusal(res, raw)
	}
	answered, _ = http.ParseTime(res.Header.Get("Date")) // without one, times of the server cannot be compared
	if err := json.Unmarshal(raw, out); err != nil {
		return answered, fmt.Errorf("the answer is no answer of Unstuck: %w", err)
	}
	return answered, nil
}

func refusal(res *http.Response, raw []byte) *refused {
	var body struct {
		Error struct{ Code, Message string } `json:"error"`
	}
	_ = json.Unmarshal(raw, &body) // an answer from in between is told by its status
	r := &refused{status: res.StatusCode, code: body.Error.Code, message: body.Error.Message}
	if n, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && n > 0 {
		r.after = time.Duration(n) * time.Second
	}
	return r
}

// execution is what was claimed.
type execution struct {
	ID           string          `json:"execution_id"`
	CueID        string          `json:"cue_id"`
	CueName      string          `json:"cue_name"`
	Task         string          `json:"task"`
	ScheduledFor string          `json:"scheduled_for"`
	Attempt      int             `json:"attempt"`
	Payload      json.RawMessage `json:"payload"`
	Token        string          `json:"lease_token"`
	Until        time.Time       `json:"lease_until"`
	Traceparent  string          `json:"traceparent"` // "" when the server sends no traces

	lease time.Duration // how long it is held; 0 when that is not known
}

// claim asks for work of some tasks, and waits for it. The same request asked again brings the same work.
func (s *remote) claim(ctx context.Context, request string, tasks []string, most int, wait time.Duration) ([]execution, error) {
	in := map[string]any{"worker_id": s.worker, "tasks": tasks, "max": most, "request_id": request}
	if wait > 0 {
		in["wait"] = int(wait.Seconds())
	}
	var out struct {
		Executions *[]execution `json:"executions"`
	}
	answered, err := s.post(ctx, wait+callTime, "/v1/executions/claim", in, &out)
	if err != nil {
		return nil, err
	}
	if out.Executions == nil {
		return nil, errors.New("the server knows no claims of several executions; it is no Unstuck")
	}
	for i := range *out.Executions {
		e := &(*out.Executions)[i]
		if d := e.Until.Sub(answered); !answered.IsZero() && d > 0 && d < 24*time.Hour {
			e.lease = d
		}
	}
	return *out.Executions, nil
}

// announce says that the worker is there, and what it can do.
func (s *remote) announce(ctx context.Context, tasks []string) error {
	_, err := s.post(ctx, callTime, "/v1/worker/heartbeat", map[string]any{"worker_id": s.worker, "handlers": tasks}, &struct{}{})
	return err
}

// renew renews a lease.
func (s *remote) renew(ctx context.Context, e *execution) error {
	return s.about(ctx, e, "heartbeat", map[string]any{})
}

// release gives an execution back; begun says whether work on it had begun.
func (s *remote) release(ctx context.Context, e *execution, begun bool) error {
	return s.about(ctx, e, "release", map[string]any{"begun": begun})
}

// report says how an execution ended.
func (s *remote) report(ctx context.Context, e *execution, o outcome) error {
	return s.about(ctx, e, "outcome", o)
}

// about calls what concerns one execution.
func (s *remote) about(ctx context.Context, e *execution, what string, in map[string]any) error {
	in["worker_id"], in["lease_token"] = s.worker, e.Token
	var headers []string
	if e.Traceparent != "" {
		headers = []string{"traceparent", e.Traceparent}
	}
	_, err := s.post(ctx, callTime, "/v1/executions/"+url.PathEscape(e.ID)+"/"+what, in, &struct{}{}, headers...)
	return err
}

// backoff is how long to wait before a call is made again: from a quarter of a second, doubled up to half a minute, a quarter of
// it by chance so that workers do not come all at once.
type backoff struct{ tries int }

func (b *backoff) next(err error) time.Duration {
	d := min(250*time.Millisecond<<min(b.tries, 10), 30*time.Second)
	b.tries++
	var r *refused
	if errors.As(err, &r) && r.after > 0 {
		d = max(d, min(r.after, 5*time.Minute))
	}
	return d - time.Duration(rand.Int64N(int64(d)/4)) //nolint:gosec // any chance will do
}

// pause waits, or ends early with the context.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
