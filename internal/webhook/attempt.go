package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strings"
	"time"
)

const maxReply = 64 << 10 // bytes of a reply that are read

// attempt sends one job and reads the reply. The whole of it ends with the job's timeout.
func (s *Sender) attempt(a *attempt) Result {
	res := Result{Job: a.job, Began: s.Now()}
	if a.job.Skip != nil && a.job.Skip() {
		res.Class, res.Message = Unsent, "Its owner withdrew it"
		return res
	}
	if err := s.exchange(a, &res); err != nil {
		res.Err = err
		res.Class, res.Message = classifyFault(err)
	}
	res.Took = time.Since(a.began)
	return res
}

func (s *Sender) exchange(a *attempt, res *Result) error {
	timeout := a.job.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	if a.url == nil {
		return errBadURL
	}
	resp, err := s.transport.RoundTrip(request(a, res).WithContext(ctx))
	if err != nil {
		return cause(ctx, err)
	}
	defer resp.Body.Close()
	var body []byte
	if resp.StatusCode != http.StatusSwitchingProtocols && resp.Body != http.NoBody { // the first one's body is the connection
		if body, err = io.ReadAll(io.LimitReader(resp.Body, maxReply)); err != nil {
			return cause(ctx, err)
		}
	}
	res.Status, res.Body = resp.StatusCode, body
	res.Class, res.Message = classify(resp.StatusCode)
	res.Wait = retryAfter(resp.Header.Get("Retry-After"), s.Now())
	return nil
}

// errBadURL is for jobs whose address was not checked when it was written.
var errBadURL = errors.New("The URL cannot be read")

// cause is why an exchange ended: err, unless the sender cut it off or its time was over.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil && !errors.Is(err, c) {
		return fmt.Errorf("%w: %w", c, err)
	}
	return err
}

// request is what goes over the wire for a job, signed when res began. It notes there when it goes out again.
func request(a *attempt, res *Result) *http.Request {
	j, h := a.job, headers(a.job)
	sign(h, j.ID, j.Body, j.Secrets, res.Began)
	r := &http.Request{
		Method: j.Method, URL: a.url, Host: a.url.Host, Header: h, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if j.Method == http.MethodGet || len(j.Body) == 0 {
		return r
	}
	r.ContentLength = int64(len(j.Body))
	body := func() io.ReadCloser { return io.NopCloser(bytes.NewReader(j.Body)) }
	r.Body, r.GetBody = body(), func() (io.ReadCloser, error) { // asked for when the first body was read
		res.Again = true
		return body(), nil
	}
	return r
}

// headers are the job's own and those that its receiver asked for.
func headers(j *Job) http.Header {
	h := make(http.Header, len(j.Header)+len(j.Custom)+9)
	values := []string{"application/json", "CueAPI/1.0", "*/*"}
	h["Content-Type"], h["User-Agent"], h["Accept"] = values[0:1:1], values[1:2:2], values[2:3:3]
	// An entry without a value is not sent. It tells the transport that it may send the request again when a connection that was
	// kept turns out to be closed: the receiver knows it by its webhook-id.
	h["X-Idempotency-Key"] = []string{}
	for name, value := range j.Custom {
		switch canonical := textproto.CanonicalMIMEHeaderKey(name); canonical {
		case "Content-Type", "User-Agent", "Accept", "X-Idempotency-Key":
			h[canonical] = []string{value}
		default:
			if !reserved(name) {
				h[name] = []string{value}
			}
		}
	}
	for name, values := range j.Header {
		h[name] = values
	}
	return h
}

// reserved says that a header is written by the sender or belongs to the connection, or would be taken for such a one: receivers that
// get headers as CGI variables cannot tell "_" from "-".
func reserved(name string) bool {
	name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	switch name {
	case "host", "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade",
		stdID, stdTimestamp, stdSignature:
		return true
	}
	return strings.HasPrefix(name, "x-cueapi-")
}
