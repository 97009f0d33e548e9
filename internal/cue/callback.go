package cue

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"unstuck/internal/op"
)

const (
	transportWorker  = "worker"  // workers pull the executions of the cue
	transportWebhook = "webhook" // the server calls the cue's callback
)

// How the end of a called execution is known.
const (
	byStatus = "status" // a 2xx is done: delivered, not confirmed
	byReply  = "reply"  // the answer says: a JSON object with "success"
	byReport = "report" // it is reported within a time; an answer that says is as good
)

// outcomeBy reads the column outcome_within: how the end of an execution is known. NULL, 0 and a number of seconds stand for the
// three ways.
func outcomeBy(within *int64) string {
	switch {
	case within == nil:
		return byStatus
	case *within == 0:
		return byReply
	}
	return byReport
}

const (
	defaultTimeout = 30  // seconds that a call may take
	defaultWithin  = 300 // seconds until an outcome must be reported
)

// deliveryInput says how a callback is called and how the end is known (CueAPI wire contract 10.1).
type deliveryInput struct {
	Timeout op.Opt[int64]  `json:"timeout_seconds" min:"1" max:"3600" doc:"how long a call may take in all; 30 when never given"`
	Within  op.Opt[int64]  `json:"outcome_deadline_seconds" min:"1" max:"3600" doc:"the outcome is reported within so many seconds after a 2xx; 300 when absent and outcome_by is report"`
	By      op.Opt[string] `json:"outcome_by" enum:"status|reply|report" doc:"how the end is known. status: a 2xx is done (delivered, not confirmed). reply: the 2xx answer says, as a JSON object with success. report: it is reported, or the answer says. Absent: report with outcome_deadline_seconds, else status"`
}

// apply puts what was given over what is stored.
func (d deliveryInput) apply(q *cue) error {
	stored := int64(defaultTimeout)
	if q.timeout != nil {
		stored = *q.timeout
	}
	q.timeout = ptr(d.Timeout.Or(stored))
	if !d.By.Set && !d.Within.Set {
		return nil
	}
	within, err := d.within()
	q.outcomeWithin = within
	return err
}

// within is what goes into the column outcome_within.
func (d deliveryInput) within() (*int64, error) {
	switch by := d.By.Val; {
	case by == byReport || !d.By.Set && d.Within.Set:
		return ptr(d.Within.Or(defaultWithin)), nil
	case d.Within.Set:
		return nil, op.Invalid("body.delivery.outcome_deadline_seconds", "Value error, a deadline goes with outcome_by report; with %s there is nothing to wait for", by)
	case by == byReply:
		return ptr[int64](0), nil
	}
	return nil, nil
}

type deliveryObject struct {
	Timeout int64  `json:"timeout_seconds" doc:"how long a call may take in all"`
	Within  *int64 `json:"outcome_deadline_seconds" doc:"of outcome_by report; else null"`
	By      string `json:"outcome_by" doc:"status: a 2xx is done; reply: the answer says; report: it is reported within the deadline"`
}

func (q *cue) deliveryObject() *deliveryObject {
	if q.timeout == nil {
		return nil
	}
	d := &deliveryObject{Timeout: *q.timeout, By: outcomeBy(q.outcomeWithin)}
	if d.By == byReport {
		d.Within = q.outcomeWithin
	}
	return d
}

// endpointEcho is the lane of callbacks that are our own echo sink. They are answered without a connection, so that no name and
// no address can lead anywhere else.
const endpointEcho = "echo"

// setEndpoint works out the lane of a webhook from its callback. Host is the server's own name, as the caller wrote it.
func (q *cue) setEndpoint(host string) error {
	q.endpoint = ""
	if q.transport != transportWebhook {
		return nil
	}
	var cb callbackObject
	if err := json.Unmarshal([]byte(q.callback), &cb); err != nil {
		return fmt.Errorf("read the callback of cue %s: %w", q.id, err)
	}
	u, err := url.Parse(text(cb.URL))
	if err != nil {
		return fmt.Errorf("read the address of the callback of cue %s: %w", q.id, err)
	}
	if q.endpoint = endpointOf(text(cb.URL)); ownEcho(u, host) {
		q.endpoint = endpointEcho
	}
	return nil
}

// addressOf is the address in a callback as it is stored; "" when that cannot be read.
func addressOf(callback string) string {
	var cb callbackObject
	_ = json.Unmarshal([]byte(callback), &cb) // nothing is left of what is none
	return text(cb.URL)
}

// endpointOf is an address up to its "?", by which callbacks are kept apart, here and in the sender: where many workspaces use one
// host, or one path of it fails, the others go on.
func endpointOf(callback string) string {
	base, _, _ := strings.Cut(callback, "?")
	return base
}

// ownEcho says that an address is the echo sink of this server.
func ownEcho(u *url.URL, host string) bool {
	token, ok := strings.CutPrefix(u.Path, echoPath)
	return ok && host != "" && strings.EqualFold(u.Host, host) && !strings.Contains(token, "/") && u.User == nil
}

// echoPath is where the echo sink is.
const echoPath = "/v1/echo/"

// look finds out whether a new address of the callback may be called. It may ask a name server, so it must not be called within
// a transaction; apply gives the answer in its turn. That of a worker's cue is not called, and judged by how it is written alone.
func (d *definition) look(ctx context.Context, c *Cues, transport string) {
	d.lookFailure(ctx, c)
	in := d.Callback.Val
	if !in.URL.Set {
		return
	}
	if transport != transportWebhook {
		if err := c.Callbacks.CheckURL(in.URL.Val); err != nil {
			d.call = InvalidCallbackURL.Msg("%v", err)
		}
		return
	}
	d.host = op.CallOf(ctx).Host
	if u, err := url.Parse(in.URL.Val); err == nil && ownEcho(u, d.host) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, resolveWithin)
	defer cancel()
	if err := c.Callbacks.Check(ctx, in.URL.Val); err != nil {
		d.call = InvalidCallbackURL.Msg("%v", err)
	}
}

// resolveWithin is how long a name server may take to answer while somebody waits.
const resolveWithin = 5 * time.Second
