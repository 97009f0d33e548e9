package server_test

import (
	"bytes"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"unstuck/internal/server"
	"unstuck/internal/testkit"
	"unstuck/internal/testkit/pgtest"
	"unstuck/internal/trace"
)

// collector is a receiver of traces that outlives servers.
type collector struct {
	*httptest.Server
	mu    sync.Mutex
	raw   bytes.Buffer
	spans []*otlp.Span
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		var data otlp.TracesData
		if err != nil || proto.Unmarshal(raw, &data) != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %x %v", r.URL.Path, raw, err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.raw.Write(raw)
		for _, res := range data.ResourceSpans {
			for _, s := range res.ScopeSpans {
				c.spans = append(c.spans, s.Spans...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// traced is a still server that sends its traces there, and may call this machine.
func (c *collector) traced(t *testing.T, dsn string, more ...string) *testkit.Server {
	t.Helper()
	vars := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": c.URL}
	for i := 0; i+1 < len(more); i += 2 {
		vars[more[i]] = more[i+1]
	}
	config, err := trace.Read(func(name string) (string, bool) { v, ok := vars[name]; return v, ok })
	if err != nil {
		t.Fatal(err)
	}
	return testkit.NewWith(t, testkit.Setup{DSN: dsn, Still: true, Settings: func(set *server.Settings) {
		set.AllowCallbacks, set.Traces = "127.0.0.1", config
	}})
}

// of are the spans of a trace by their names; those that there are several of have their attempt behind the name.
func (c *collector) of(t *testing.T, execution string) map[string]*otlp.Span {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]*otlp.Span{}
	for _, s := range c.spans {
		if hex.EncodeToString(s.TraceId) != strings.ReplaceAll(execution, "-", "") {
			continue
		}
		name := s.Name
		if n := number(s, "unstuck.attempt"); n > 0 {
			name += " " + string(rune('0'+n))
		}
		if out[name] != nil {
			t.Errorf("two spans %s", name)
		}
		out[name] = s
	}
	return out
}

func number(s *otlp.Span, key string) int64 {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.GetIntValue()
		}
	}
	return 0
}

func word(s *otlp.Span, key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}

// wantSpan checks a span: its parent by name, "" for none; when it began and ended after the start of the clock (end < 0: any); whether it failed.
func wantSpan(t *testing.T, spans map[string]*otlp.Span, name, parent string, start, end time.Duration, failed bool) {
	t.Helper()
	s, p := spans[name], spans[parent]
	if s == nil || parent != "" && p == nil {
		t.Errorf("no span %q below %q among %v", name, parent, keysOf(spans))
		return
	}
	if parent == "" && len(s.ParentSpanId) > 0 || p != nil && !bytes.Equal(s.ParentSpanId, p.SpanId) {
		t.Errorf("%s is not below %q", name, parent)
	}
	at := func(d time.Duration) uint64 { return uint64(testkit.Start.Add(d).UnixNano()) }
	if s.StartTimeUnixNano != at(start) || end >= 0 && s.EndTimeUnixNano != at(end) || s.EndTimeUnixNano < s.StartTimeUnixNano {
		t.Errorf("%s lasts from %v to %v", name, time.Unix(0, int64(s.StartTimeUnixNano)).UTC().Sub(testkit.Start), time.Unix(0, int64(s.EndTimeUnixNano)).UTC().Sub(testkit.Start))
	}
	if (s.Status.GetCode() == otlp.Status_STATUS_CODE_ERROR) != failed {
		t.Errorf("%s: %v", name, s.Status)
	}
}

func keysOf(m map[string]*otlp.Span) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}

// TestTraceOfACallback: one trace from the due time to the end, over a failure and a restart; the receiver is told its parent; nothing of
// payload, headers and address is in it.
func TestTraceOfACallback(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, dsn string) {
		c := newCollector(t)
		var parents []string
		callback := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if parents = append(parents, r.Header.Get("traceparent")); len(r.Header.Values("traceparent")) != 1 {
				t.Errorf("traceparent: %q", r.Header.Values("traceparent"))
			}
			if len(parents) == 1 {
				w.WriteHeader(http.StatusInternalServerError)
			}
			_, _ = io.WriteString(w, "answer-hunter2")
		}))
		defer callback.Close()
		s := c.traced(t, dsn)
		s.Must(s.First, "POST /v1/cues", obj{"name": "called", "cron": "0 0 * * *", "payload": obj{"p": "payload-hunter2"},
			"callback": obj{"url": callback.URL + "/path-hunter2?q=query-hunter2", "headers": obj{"X-Secret": "header-hunter2", "Traceparent": "custom-hunter2"}}, "retry": obj{"max_attempts": 3, "backoff_minutes": []int{1}}})
		due := 14 * time.Hour
		s.Clock.Add(due + 250*time.Millisecond)
		s.Drain()
		id := s.Must(s.First, "GET /v1/executions", nil).JSON["executions"].([]any)[0].(obj)["id"].(string)
		s.Restart(time.Hour)
		s.Drain()
		s.Stop()
		spans := c.of(t, id)
		again := due + 250*time.Millisecond + time.Hour
		wantSpan(t, spans, "execution", "", due, again, false)
		wantSpan(t, spans, "fire", "execution", due, due+250*time.Millisecond, false)
		wantSpan(t, spans, "queue 1", "execution", due+250*time.Millisecond, due+250*time.Millisecond, false)
		wantSpan(t, spans, "attempt 1", "execution", due+250*time.Millisecond, -1, true)
		wantSpan(t, spans, "attempt 2", "execution", again, -1, false)
		if q := spans["queue 2"]; q == nil || q.EndTimeUnixNano != uint64(testkit.Start.Add(again).UnixNano()) || q.StartTimeUnixNano >= q.EndTimeUnixNano || len(spans) != 6 {
			t.Errorf("queue 2: %v of %v", q, keysOf(spans))
		}
		for i, parent := range parents {
			a := spans["attempt "+string(rune('1'+i))]
			if want := "00-" + hex.EncodeToString(a.TraceId) + "-" + hex.EncodeToString(a.SpanId) + "-01"; parent != want {
				t.Errorf("call %d was told %s, want %s", i+1, parent, want)
			}
		}
		a := spans["attempt 1"]
		if a.Kind != otlp.Span_SPAN_KIND_CLIENT || word(a, "server.address") != "127.0.0.1" || number(a, "http.response.status_code") != 500 || word(a, "unstuck.class") != "failed" {
			t.Errorf("%v", a)
		}
		if e := spans["execution"]; word(e, "unstuck.status") != "success" || word(e, "unstuck.cue.name") != "called" || word(e, "unstuck.triggered_by") != "scheduled" || number(e, "unstuck.attempts") != 2 {
			t.Errorf("%v", e)
		}
		if strings.Contains(c.raw.String(), "hunter2") || strings.Contains(c.raw.String(), "unstuck_") {
			t.Error("a secret or a payload is in a trace")
		}
	})
}

// TestTraceOfAWorker: the claim says the parent of what the worker does; the lease and the execution end with the report, which a server
// takes that was started in between. A report that names its parent is in the same trace.
func TestTraceOfAWorker(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, dsn string) {
		c := newCollector(t)
		s := c.traced(t, dsn)
		cue := s.Must(s.First, "POST /v1/cues", obj{"name": "pulled", "cron": "0 0 1 1 *", "worker": true}).Str("id")
		id := s.Must(s.First, "POST /v1/cues/"+cue+"/fire", obj{}).Str("id")
		s.Clock.Add(2 * time.Second)
		l := s.Must(s.First, "POST /v1/executions/claim", obj{"worker_id": "w"})
		s.Restart(3 * time.Second)
		s.Clock.Add(5 * time.Second)
		s.Must(s.First, "POST /v1/executions/"+id+"/outcome", obj{"success": true, "result": "result-hunter2", "worker_id": "w", "lease_token": l.Str("lease_token")}, "traceparent", l.Str("traceparent"))
		s.Stop()
		spans := c.of(t, id)
		wantSpan(t, spans, "execution", "", 0, 10*time.Second, false)
		wantSpan(t, spans, "fire", "execution", 0, 0, false)
		wantSpan(t, spans, "queue 1", "execution", 0, 2*time.Second, false)
		wantSpan(t, spans, "lease 1", "execution", 2*time.Second, 10*time.Second, false)
		wantSpan(t, spans, "POST /v1/executions/{id}/outcome", "lease 1", 10*time.Second, 10*time.Second, false)
		if p, ok := trace.ParseParent(l.Str("traceparent")); !ok || !p.Sampled || !bytes.Equal(p.Span[:], spans["lease 1"].SpanId) {
			t.Errorf("the claim says %q", l.Str("traceparent"))
		}
		if strings.Contains(c.raw.String(), "hunter2") || strings.Contains(c.raw.String(), l.Str("lease_token")) || len(spans) != 5 {
			t.Errorf("a secret is in a trace, or there are other spans: %v", keysOf(spans))
		}
	})
}

// TestTraceOfWorkThatFails: a lease that ran out, one that was given back, an execution that nobody took, a report that came late.
func TestTraceOfWorkThatFails(t *testing.T) {
	c := newCollector(t)
	s := c.traced(t, "")
	cue := s.Must(s.First, "POST /v1/cues", obj{"name": "pulled", "cron": "0 0 1 1 *", "worker": true, "retry": obj{"max_attempts": 3}}).Str("id")
	id := s.Must(s.First, "POST /v1/cues/"+cue+"/fire", obj{}).Str("id")
	claim := func() testkit.Reply {
		return s.Must(s.First, "POST /v1/executions/"+id+"/claim", obj{"worker_id": "w"})
	}
	lease := s.Settings.Lease
	claim()
	s.Clock.Add(lease)
	s.Drain()
	s.Clock.Add(time.Second)
	l := claim()
	s.Clock.Add(time.Second)
	s.Must(s.First, "POST /v1/executions/"+id+"/release", obj{"lease_token": l.Str("lease_token")})
	s.Clock.Add(s.Settings.UnclaimedAfter)
	s.Drain()
	missed := lease + 2*time.Second + s.Settings.UnclaimedAfter
	s.Clock.Add(time.Second)
	s.Must(s.First, "POST /v1/executions/"+id+"/outcome", obj{"success": true, "lease_token": l.Str("lease_token")})
	s.Stop()
	spans := c.of(t, id)
	wantSpan(t, spans, "execution", "", 0, missed, true)
	wantSpan(t, spans, "lease 1", "execution", 0, lease, true)
	wantSpan(t, spans, "queue 2", "execution", lease, lease+time.Second, false)
	wantSpan(t, spans, "lease 2", "execution", lease+time.Second, lease+2*time.Second, false)
	wantSpan(t, spans, "outcome", "execution", missed+time.Second, missed+time.Second, false)
	if e := spans["execution"]; word(e, "unstuck.status") != "missed" || word(spans["lease 1"], "unstuck.lease.end") != "expired" || word(spans["lease 2"], "unstuck.lease.end") != "released" {
		t.Errorf("%v", e)
	}
}

// TestTraceLinks: what a success fired, or what replays another, points at where it comes from.
func TestTraceLinks(t *testing.T) {
	c := newCollector(t)
	s := c.traced(t, "")
	second := s.Must(s.First, "POST /v1/cues", obj{"name": "second", "cron": "0 0 1 1 *", "worker": true}).Str("id")
	first := s.Must(s.First, "POST /v1/cues", obj{"name": "first", "cron": "0 0 1 1 *", "worker": true, "on_success_fire": second}).Str("id")
	id := s.Must(s.First, "POST /v1/cues/"+first+"/fire", obj{}).Str("id")
	for range 2 {
		l := s.Must(s.First, "POST /v1/executions/claim", obj{"worker_id": "w"})
		s.Must(s.First, "POST /v1/executions/"+l.Str("execution_id")+"/outcome", obj{"success": true, "lease_token": l.Str("lease_token")})
	}
	s.Stop()
	parent := c.of(t, id)["execution"]
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, span := range c.spans {
		if word(span, "unstuck.triggered_by") == "chain" && span.Name == "execution" {
			if len(span.Links) != 1 || !bytes.Equal(span.Links[0].TraceId, parent.TraceId) || !bytes.Equal(span.Links[0].SpanId, parent.SpanId) {
				t.Errorf("links: %v", span.Links)
			}
			return
		}
	}
	t.Error("no trace of what was fired")
}

// TestTraceOfACall: calls are below the span that the caller names, if it records its own; looks at the health are not traced.
func TestTraceOfACall(t *testing.T) {
	c := newCollector(t)
	s := c.traced(t, "")
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0"
	s.Must(s.First, "GET /v1/cues", nil, "traceparent", parent+"1")
	s.Must(s.First, "GET /v1/usage", nil, "traceparent", parent+"0")
	s.Must("", "GET /health", nil, "traceparent", parent+"1")
	s.Do(s.First, "GET /v1/executions/nothing", nil)
	s.Stop()
	spans := c.of(t, "4bf92f3577b34da6a3ce929d0e0e4736")
	call := spans["GET /v1/cues"]
	if len(spans) != 1 || hex.EncodeToString(call.ParentSpanId) != "00f067aa0ba902b7" || call.Kind != otlp.Span_SPAN_KIND_SERVER || number(call, "http.response.status_code") != 200 || word(call, "unstuck.operation") != "cue.list" {
		t.Errorf("%v", c.spans)
	}
	found := false
	for _, span := range c.spans {
		if span.Name == "GET /v1/executions/{id}" {
			found = true
			if len(span.ParentSpanId) != 0 || number(span, "http.response.status_code") != 404 || span.Status != nil || word(span, "unstuck.execution.id") != "" {
				t.Errorf("%v", span)
			}
		}
	}
	if !found {
		t.Error("no span of a call without a parent")
	}
}

// TestTracesOff: without a receiver nobody is told of traces; a sampler that takes none still tells receivers so.
func TestTracesOff(t *testing.T) {
	headers := make(chan http.Header, 1)
	callback := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { headers <- r.Header }))
	defer callback.Close()
	c := newCollector(t)
	for _, on := range []bool{false, true} {
		more := []string{"OTEL_TRACES_SAMPLER", "always_off"}
		if !on {
			more = []string{"OTEL_SDK_DISABLED", "true"}
		}
		s := c.traced(t, "", more...)
		called := s.Must(s.First, "POST /v1/cues", obj{"name": "called", "cron": "0 0 1 1 *", "callback_url": callback.URL + "/"}).Str("id")
		pulled := s.Must(s.First, "POST /v1/cues", obj{"name": "pulled", "cron": "0 0 1 1 *", "worker": true}).Str("id")
		s.Must(s.First, "POST /v1/cues/"+called+"/fire", obj{})
		s.Must(s.First, "POST /v1/cues/"+pulled+"/fire", obj{})
		l := s.Must(s.First, "POST /v1/executions/claim", obj{"worker_id": "w"})
		s.Drain()
		h := <-headers
		if told := strings.HasSuffix(h.Get("traceparent"), "-00"); told != on || on != strings.HasSuffix(l.Str("traceparent"), "-00") || !on && (h["Traceparent"] != nil || l.JSON["traceparent"] != nil) {
			t.Errorf("on %v: %q, %q", on, h.Get("traceparent"), l.Str("traceparent"))
		}
		s.Stop()
	}
	if len(c.spans) > 0 {
		t.Errorf("%d spans arrived", len(c.spans))
	}
}
