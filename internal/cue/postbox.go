package cue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"unstuck/internal/access"
	"unstuck/internal/op"
	"unstuck/internal/webhook"
)

// secretLeast is from how many bytes on the value of a header counts as a secret; a shorter one stands in many texts by chance.
const secretLeast = 6

// senderMost is the memory that the sender may fill with jobs. The courier fills less of it, unless texts grow on the way: a
// letter that is not ASCII takes up to three times its bytes in the form that is signed.
const senderMost = 4 * memoryMost

// postbox turns jobs into requests for the sender, and what became of these into results.
type postbox struct {
	c      *Cues
	start  sync.Once
	sender *webhook.Sender // from the first job on
}

func (p *postbox) open() {
	client := p.c.Callbacks.Client()
	client.Transport = &home{client.Transport, &p.c.echo}
	p.sender = webhook.NewSender(webhook.Options{Client: client, Done: p.done, Now: p.c.Now, MaxWaiting: senderMost})
}

func (p *postbox) send(j *job, done func(*result)) {
	m, err := p.request(j)
	switch {
	case errors.Is(err, errSecrets):
		p.c.Log.Error("a webhook waits because it cannot be signed", "execution", j.id, "error", err)
		done(&result{job: j, back: true, until: in(p.c.now(), lookEvery)})
		return
	case err != nil: // what is stored cannot be sent: an attempt that failed
		done(&result{job: j, began: p.c.now(), class: string(webhook.Failed), message: "The request could not be made: " + err.Error()})
		return
	}
	p.start.Do(p.open)
	m.Tag = func(r *result) {
		if r.job = j; r.good && j.outcomeWithin != nil {
			r.said = replyOf(r.reply)
			r.said.hide(secretsOf(m.Custom))
		}
		r.reply = nil
		done(r)
	}
	if !p.sender.Offer(m) {
		done(&result{job: j, back: true, until: in(p.c.now(), lookEvery)})
	}
}

// notify sends a notice of a failure.
func (p *postbox) notify(n *notice, done func(*result)) {
	secrets, err := p.c.Access.WebhookSecrets(context.Background(), n.workspace)
	if err != nil {
		p.c.Log.Error("a failure is told later because the notice cannot be signed", "execution", n.execution, "error", err)
		done(&result{back: true})
		return
	}
	p.start.Do(p.open)
	sent := p.sender != nil && p.sender.Offer(&webhook.Job{
		ID: n.id, Workspace: n.workspace, Method: http.MethodPost, URL: n.url, Body: []byte(n.body), Secrets: secrets, Timeout: noticeTimeout, Tag: done,
		Header: http.Header{"X-CueAPI-Cue-Id": {n.cueID}, "X-CueAPI-Execution-Id": {n.execution}},
	})
	if !sent {
		done(&result{back: true})
	}
}

func (p *postbox) stop(ctx context.Context) {
	p.start.Do(func() {}) // nothing begins from now on
	if p.sender != nil {
		p.sender.Stop(ctx)
	}
}

// stats is what the sender is doing.
func (p *postbox) stats() webhook.Stats {
	if p.sender == nil {
		return webhook.Stats{}
	}
	return p.sender.Stats()
}

var errSecrets = errors.New("the webhook secret cannot be read")

// request is what is sent for a job (CueAPI wire contract 3.3).
func (p *postbox) request(j *job) (*webhook.Job, error) {
	var cb callbackObject
	if err := json.Unmarshal([]byte(j.callback), &cb); err != nil {
		return nil, err
	}
	secrets, err := p.c.Access.WebhookSecrets(context.Background(), j.workspace)
	if err != nil {
		return nil, errors.Join(errSecrets, err)
	}
	due, attempt := op.OffsetTime(j.scheduledFor).String(), strconv.FormatInt(j.attempt, 10)
	body, err := webhook.Body(document(j, attempt, due))
	if err != nil {
		return nil, err
	}
	to := text(cb.URL)
	if j.endpoint == endpointEcho {
		to = homeURL(j.workspace, to)
		mask(cb.Headers) // what arrives there is shown to keys that may not know them
	}
	header := http.Header{
		"X-CueAPI-Cue-Id": {j.cueID}, "X-CueAPI-Execution-Id": {j.id}, "X-CueAPI-Scheduled-For": {due}, "X-CueAPI-Attempt": {attempt},
	}
	if p.c.Trace != nil {
		header[traceparent] = []string{p.c.traceparent(j.id, spanAttempt, j.attempt)}
		maps.DeleteFunc(cb.Headers, func(name, _ string) bool { return strings.EqualFold(name, traceparent) })
	}
	return &webhook.Job{
		ID: j.id, Workspace: j.workspace, Method: cb.Method, URL: to, Body: body, Secrets: secrets, Header: header,
		Custom: cb.Headers, Timeout: time.Duration(j.timeout) * time.Second, Skip: j.cancelled.Load,
	}, nil
}

// document is the body, as JSON that is not yet in the form that is signed.
func document(j *job, attempt, due string) []byte {
	name, _ := json.Marshal(j.name) // a string
	return []byte(strings.Join([]string{`{"attempt":`, attempt, `,"cue_id":"`, j.cueID, `","execution_id":"`, j.id, `","name":`, string(name),
		`,"payload":`, j.payload, `,"scheduled_for":"`, due, `"}`}, ""))
}

// done takes results from the sender.
func (p *postbox) done(all []webhook.Result) {
	for i := range all {
		res := &all[i]
		give := res.Job.Tag.(func(*result))
		give(p.result(res))
	}
}

func (p *postbox) result(res *webhook.Result) *result {
	r := &result{began: op.TimeOf(res.Began), took: res.Took, httpStatus: res.Status, message: res.Message, retryAfter: res.Wait, again: res.Again}
	switch {
	case res.Class == webhook.Unsent:
		r.back = true
		if res.Wait > 0 {
			r.until = in(p.c.now(), res.Wait)
		}
		return r
	case errors.Is(res.Err, webhook.ErrStopped):
		r.back, r.again = true, true
		return r
	}
	r.class, r.good, r.gone = string(res.Class), res.Class == webhook.Delivered, res.Class == webhook.Gone
	r.reply = res.Body
	r.body = beginning(res.Body, res.Job.Custom)
	return r
}

// beginning is what is kept of an answer: its first characters, as text, without keys of ours and without the values of headers
// that it may have been told, as far as they are long enough to be secrets.
func beginning(body []byte, told map[string]string) string {
	s := strings.ToValidUTF8(string(body[:min(len(body), bodyMost*utf8.UTFMax)]), "\ufffd")
	s = strings.ReplaceAll(s, "\x00", "\ufffd")
	s, _ = access.Redact(s)
	for _, value := range secretsOf(told) {
		s = strings.ReplaceAll(s, value, masked)
	}
	cut(&s, bodyMost)
	return s
}

// secretsOf are the values of headers that count as secrets, and what they are within JSON.
func secretsOf(headers map[string]string) (all []string) {
	for _, value := range headers {
		if len(value) >= secretLeast {
			quoted := string(op.Marshal(value))
			all = append(all, value, quoted[1:len(quoted)-1])
		}
	}
	return all
}

// home answers what is sent to our own echo sink, without a connection.
type home struct {
	http.RoundTripper
	sink *sink
}

const homeScheme = "unstuck-echo"

// homeURL is the address of our own echo sink, for one workspace.
func homeURL(workspace, callback string) string {
	u, err := url.Parse(callback)
	if err != nil {
		return ""
	}
	return homeScheme + "://" + workspace + u.EscapedPath()
}

// RoundTrip implements http.RoundTripper.
func (h *home) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != homeScheme {
		return h.RoundTripper.RoundTrip(r)
	}
	body := []byte("null") // of a GET
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	answer := &http.Response{StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Request: r}
	reply := `{"stored": true}`
	if err := h.sink.store(r.URL.Host, strings.TrimPrefix(r.URL.Path, echoPath), body, r.Header); err != nil {
		e := op.AsError(err)
		answer.StatusCode, reply = e.Code.Status, string(e.Body("", ""))
	}
	answer.Body = io.NopCloser(bytes.NewReader([]byte(reply)))
	return answer, nil
}

// CloseIdleConnections is asked for when the sender ends.
func (h *home) CloseIdleConnections() {
	if c, ok := h.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
