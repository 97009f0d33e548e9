package server

import (
	"strings"
	"time"

	"unstuck/internal/op"
	"unstuck/internal/trace"
)

// traceCall adds the span of a call, below the one that its traceparent header names. Nothing that the caller sent goes into it but the
// id of an execution.
func traceCall(t *trace.Tracer, c *op.Call, err *op.Error, ended time.Time) {
	if c.Uncounted { // looks at the health, and the like
		return
	}
	parent, below := trace.ParseParent(c.Request.Header.Get("traceparent"))
	fresh := trace.NewID()
	if !below {
		parent.Trace = trace.NewID()
	}
	if below && !t.Sampler.Continues(parent) || !below && !t.Sampler.Begins(parent.Trace) {
		return
	}
	status := c.Operation.Status
	if err != nil {
		status = err.Code.Status
	}
	method, path, _ := strings.Cut(c.Route, " ")
	s := trace.Span{
		Trace: parent.Trace, ID: trace.SpanID(fresh[:8]), Parent: parent.Span, Name: c.Route, Kind: trace.Server, Start: c.Began, End: ended, Failed: status >= 500,
		Attrs: []trace.Attr{
			trace.Text("http.request.method", method), trace.Text("http.route", path), trace.Int("http.response.status_code", int64(status)),
			trace.Text("unstuck.operation", c.Name), trace.Text("unstuck.via", c.Via),
		},
	}
	if id := c.Params["id"]; err == nil && strings.HasPrefix(path, "/v1/executions/{id}") {
		s.Attrs = append(s.Attrs, trace.Text("unstuck.execution.id", id))
	}
	t.Add(s)
}
