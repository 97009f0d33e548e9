package cue

import (
	"fmt"
	"net/url"
	"strconv"

	"unstuck/internal/db"
	"unstuck/internal/op"
	"unstuck/internal/trace"
)

// Spans of an execution. Its trace is its id; the span that all others are below goes from its moment to its end. Nothing of a payload,
// a header, an answer or an error message goes into them, and of a callback's address only the host.
const (
	spanExecution = "execution" // from scheduled_for to the end
	spanFire      = "fire"      // from scheduled_for until it was stored
	spanQueue     = "queue"     // until it was sent, or taken by a worker
	spanAttempt   = "attempt"   // one call of a callback; the receiver is told to put its spans below it
	spanLease     = "lease"     // one worker's claim; the worker is told so
	spanOutcome   = "outcome"   // a report that came after the end
)

// traceparent is the header that tells a receiver where its spans belong.
const traceparent = "traceparent"

// traceparent is what a receiver is told; "" when there are no traces.
func (c *Cues) traceparent(id, span string, n int64) string {
	if c.Trace == nil {
		return ""
	}
	t := trace.OfUUID(id)
	return trace.Parent{Trace: t, Span: t.Span(span, n), Sampled: c.Trace.Sampler.Begins(t)}.String()
}

// span is a span of an execution from one moment to another, below the one of the whole execution.
func (c *Cues) span(id, name string, n int64, from, to op.Time, attrs ...trace.Attr) trace.Span {
	t := trace.OfUUID(id)
	return trace.Span{
		Trace: t, ID: t.Span(name, n), Parent: t.Span(spanExecution, 0), Name: name, Kind: trace.Internal, Start: from.Std(), End: max(from, to).Std(),
		Attrs: append(attrs, trace.Text("unstuck.execution.id", id)),
	}
}

// traces says whether the trace of an execution is sent.
func (c *Cues) traces(id string) bool {
	return c.Trace != nil && c.Trace.Sampler.Begins(trace.OfUUID(id))
}

// traceFire adds that an execution was made whose moment had come.
func (c *Cues) traceFire(id string, due, now op.Time, by, cueID, workspace string) {
	if c.traces(id) {
		c.Trace.Add(c.span(id, spanFire, 0, due, now,
			trace.Text("unstuck.triggered_by", by), trace.Text("unstuck.cue.id", cueID), trace.Text("unstuck.workspace.id", workspace)))
	}
}

// traceQueue adds how long an execution waited for its n-th attempt.
func (c *Cues) traceQueue(id string, n int64, from, to op.Time) {
	if c.traces(id) {
		c.Trace.Add(c.span(id, spanQueue, n, from, to, trace.Int("unstuck.attempt", n)))
	}
}

// traceAttempt adds a call of a callback, and how long it had waited.
func (c *Cues) traceAttempt(r *result) {
	if !c.traces(r.id) {
		return
	}
	c.traceQueue(r.id, r.attempt, r.waited, r.began)
	s := c.span(r.id, spanAttempt, r.attempt, r.began, in(r.began, r.took),
		trace.Int("unstuck.attempt", r.attempt), trace.Text("unstuck.class", r.class), trace.Int("http.request.resend_count", r.attempt-1))
	s.Kind, s.Failed = trace.Client, !r.good
	if u, err := url.Parse(r.endpoint); err == nil && u.Hostname() != "" {
		s.Attrs = append(s.Attrs, trace.Text("server.address", u.Hostname()))
		if port, err := strconv.ParseInt(u.Port(), 10, 64); err == nil {
			s.Attrs = append(s.Attrs, trace.Int("server.port", port))
		}
	}
	if r.httpStatus > 0 {
		s.Attrs = append(s.Attrs, trace.Int("http.response.status_code", int64(r.httpStatus)))
	}
	c.Trace.Add(s)
}

// tracedExecution is what spans need to know of an execution.
type tracedExecution struct {
	id, workspace, cueID, cueName string
	transport, triggeredBy        string
	scheduledFor, updatedAt       op.Time
	attempts                      int64
	status                        string
	claimedAt                     *op.Time
	claimedWorker                 string
	replayedFrom, chainParent     string
}

func (x *tracedExecution) scan(r scanner) error {
	return r.Scan(&x.id, &x.workspace, &x.cueID, &x.cueName, &x.transport, &x.triggeredBy, &x.scheduledFor, &x.updatedAt, &x.attempts,
		&x.status, &x.claimedAt, &x.claimedWorker, &x.replayedFrom, &x.chainParent)
}

// traced reads those of some executions whose traces are sent.
func (c *Cues) traced(tx *db.Tx, ids []string) ([]tracedExecution, error) {
	var some []string
	for _, id := range ids {
		if c.traces(id) {
			some = append(some, id)
		}
	}
	if len(some) == 0 {
		return nil, nil
	}
	rows, err := tx.Query(sqlTraced, some)
	found, err := scanAll(rows, err, (*tracedExecution).scan)
	if err != nil {
		return nil, fmt.Errorf("read executions for their traces: %w", err)
	}
	return found, nil
}

// traceLease adds a worker's claim that ended.
func (c *Cues) traceLease(x *tracedExecution, how string, now op.Time) {
	if x.claimedAt == nil {
		return
	}
	s := c.span(x.id, spanLease, x.attempts, *x.claimedAt, now,
		trace.Int("unstuck.attempt", x.attempts), trace.Text("unstuck.worker.id", x.claimedWorker), trace.Text("unstuck.lease.end", how))
	s.Failed = how != statusSuccess && how != leaseReleased
	c.Trace.Add(s)
}

// traceEnd adds the whole execution, and the claim that it ended with.
func (c *Cues) traceEnd(x *tracedExecution, now op.Time) {
	if x.transport == transportWorker && x.status != statusMissed {
		c.traceLease(x, x.status, now)
	}
	s := c.span(x.id, spanExecution, 0, x.scheduledFor, now,
		trace.Text("unstuck.cue.id", x.cueID), trace.Text("unstuck.cue.name", x.cueName), trace.Text("unstuck.workspace.id", x.workspace),
		trace.Text("unstuck.transport", x.transport), trace.Text("unstuck.triggered_by", x.triggeredBy),
		trace.Text("unstuck.status", x.status), trace.Int("unstuck.attempts", x.attempts))
	s.Parent, s.Failed = trace.SpanID{}, x.status != statusSuccess
	for _, other := range []string{x.replayedFrom, x.chainParent} {
		if other != "" {
			t := trace.OfUUID(other)
			s.Links = append(s.Links, trace.Parent{Trace: t, Span: t.Span(spanExecution, 0)})
		}
	}
	c.Trace.Add(s)
}

// traceOutcome adds a report that came after the end.
func (c *Cues) traceOutcome(id string, now op.Time) {
	if c.traces(id) {
		c.Trace.Add(c.span(id, spanOutcome, 0, now, now))
	}
}
