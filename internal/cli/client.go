package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"unstuck/internal/op"
	"unstuck/internal/server"
)

// inputs are the inputs of one call by the names of their fields: string, bool, int64, []string, or json.RawMessage.
type inputs map[string]any

// answer is what a server answered.
type answer struct {
	status int
	body   []byte
	took   time.Duration
}

// client calls operations of one server.
type client struct {
	place
	http      *http.Client
	plainHTTP bool // the key may travel without TLS
}

// longest is how long an answer may take: a long poll of 30 s, and some time around it.
const longest = 75 * time.Second

func newClient(p place, plainHTTP bool) *client {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	return &client{place: p, plainHTTP: plainHTTP, http: &http.Client{
		Timeout:   longest,
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { // a key goes nowhere but where it was sent
			return http.ErrUseLastResponse
		},
	}}
}

// call runs one operation. A refusal of the server is a *refusal.
func (c *client) call(ctx context.Context, o *op.Operation, in inputs) (*answer, error) {
	req, err := c.request(ctx, o, in)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	status, body, requestID, err := c.send(req)
	if err != nil {
		return nil, err
	}
	a := &answer{status, body, time.Since(began)}
	if status >= 300 {
		return a, c.refused(o, a, requestID)
	}
	return a, nil
}

// open begins an operation that answers with a stream, which is to be closed. A refusal of the server is a *refusal.
func (c *client) open(ctx context.Context, o *op.Operation, in inputs) (*http.Response, error) {
	req, err := c.request(ctx, o, in)
	if err != nil {
		return nil, err
	}
	lasting := *c.http
	lasting.Timeout = 0
	introduce(req)
	res, err := lasting.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		return res, nil
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, c.unreachable(err)
	}
	return nil, c.refused(o, &answer{status: res.StatusCode, body: body}, res.Header.Get("X-Request-Id"))
}

// request makes the request of an operation, with the key.
func (c *client) request(ctx context.Context, o *op.Operation, in inputs) (*http.Request, error) {
	req, err := newRequest(ctx, c.url, o, in)
	if err != nil {
		return nil, err
	}
	if c.key == "" && o.Needs != op.Public {
		return nil, failure(exitLogin, "Not logged in: there is no key for %s.\n\n"+
			"  log in    unstuck auth login       or, on the machine of the server: unstuck auth login --local\n"+
			"  or set    %s, and %s when the server is elsewhere", c.url, keyVar, urlVar)
	}
	if c.key != "" {
		if !c.plainHTTP && !mayCarry(c.url) {
			return nil, failure(exitUsage, "Not sent: %s is plain http, so anybody on the way could read the key.\n\n"+
				"  better    https://…\n  or say    --plain-http, when the network between is your own", c.url)
		}
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	return req, nil
}

// send sends a request and reads its answer to the end.
func (c *client) send(req *http.Request) (status int, body []byte, requestID string, err error) {
	introduce(req)
	res, err := c.http.Do(req)
	if err != nil {
		return 0, nil, "", c.unreachable(err)
	}
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	if err != nil {
		return 0, nil, "", c.unreachable(err)
	}
	return res.StatusCode, body, res.Header.Get("X-Request-Id"), nil
}

// introduce says who calls.
func introduce(req *http.Request) {
	req.Header.Set("User-Agent", "unstuck-cli/"+server.Version)
	req.Header.Set("X-Unstuck-Client", "cli")
}

// unreachable says in one sentence why a server did not answer.
func (c *client) unreachable(err error) error {
	if errors.Is(err, context.Canceled) {
		return context.Canceled
	}
	var e *url.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	var timeout net.Error
	why := err.Error()
	switch {
	case strings.Contains(why, "connection refused"):
		why = "nothing listens there"
	case strings.Contains(why, "no such host"):
		why = "there is no such host"
	case strings.Contains(why, "server gave HTTP response to HTTPS client"):
		why = "it speaks plain http, not https"
	case errors.As(err, &timeout) && timeout.Timeout():
		why = "it did not answer in time"
	}
	hint := "Is it running? Trouble: unstuck doctor"
	if c.source == "" || c.source == keyVar {
		hint = "Is it running? For another server set " + urlVar + ". Trouble: unstuck doctor"
	}
	if c.hides != "" {
		hint += "\n  The key from " + c.source + " hides the login for " + c.hides + "."
	}
	return failure(exitUnreachable, "Not reached: %s: %s.\n\n  %s", c.url, why, hint)
}

// newRequest puts every input where its field travels.
func newRequest(ctx context.Context, base string, o *op.Operation, in inputs) (*http.Request, error) {
	path, query, header, body := o.Path(), url.Values{}, http.Header{}, maps.Clone(in)
	for _, f := range o.Fields() {
		v, given := in[f.Name]
		if !given || f.In == op.InBody {
			continue
		}
		delete(body, f.Name)
		switch f.In {
		case op.InPath:
			path = strings.ReplaceAll(path, "{"+f.Name+"}", url.PathEscape(fmt.Sprint(v)))
		case op.InQuery:
			for _, s := range texts(v) {
				query.Add(f.Name, s)
			}
		case op.InHeader:
			for _, s := range texts(v) {
				header.Add(f.Name, s)
			}
		}
	}
	if strings.Contains(path, "{") {
		return nil, usage("An input is missing for %s.", path)
	}
	address := base + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	var reader io.Reader
	if o.HasBody() || len(body) > 0 && o.Method() != http.MethodGet && o.Method() != http.MethodDelete {
		b, err := marshal(orEmpty(body))
		if err != nil {
			return nil, fmt.Errorf("write the body: %w", err)
		}
		reader = bytes.NewReader(b)
		header.Set("Content-Type", "application/json")
	}
	req, err := http.NewRequestWithContext(ctx, o.Method(), address, reader)
	if err != nil {
		return nil, usage("%v", err)
	}
	req.Header = header
	if o.Confirm { // the question was asked on the terminal
		req.Header.Set("X-Confirm-Destructive", "true")
	}
	return req, nil
}

// orEmpty is an object even when there is nothing in it.
func orEmpty(body inputs) inputs {
	if body == nil {
		return inputs{}
	}
	return body
}

// texts is a value as it stands in a query or a header: a list takes one place for each entry.
func texts(v any) []string {
	if list, ok := v.([]string); ok {
		return list
	}
	return []string{fmt.Sprint(v)}
}

// marshal is JSON without HTML escaping, so that raw values go out as they came.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}
