package trace_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"unstuck/internal/trace"
)

func env(pairs ...string) func(string) (string, bool) {
	m := map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return func(name string) (string, bool) { v, ok := m[name]; return v, ok }
}

// TestIDs: the trace of an execution is its UUID, and its spans have ids of their own that are always the same.
func TestIDs(t *testing.T) {
	id := trace.OfUUID("7e8d2b80-c23e-40d9-8dff-1f6802607a80")
	p := trace.Parent{Trace: id, Span: id.Span("attempt", 1), Sampled: true}
	if want := "00-7e8d2b80c23e40d98dff1f6802607a80-"; !strings.HasPrefix(p.String(), want) || !strings.HasSuffix(p.String(), "-01") || len(p.String()) != 55 {
		t.Errorf("%s does not begin with %s", p, want)
	}
	seen := map[trace.SpanID]bool{}
	for _, name := range []string{"execution", "attempt", "lease"} {
		for n := range int64(3) {
			if s := id.Span(name, n); seen[s] || s != id.Span(name, n) {
				t.Errorf("span %s %d: %x", name, n, s)
			} else {
				seen[s] = true
			}
		}
	}
	if trace.OfUUID("no uuid") == (trace.ID{}) {
		t.Error("a text that is no UUID has no trace")
	}
}

// TestTraceparent: what is written is read again, and what is none says nothing.
func TestTraceparent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := trace.Parent{Trace: trace.NewID(), Sampled: rapid.Bool().Draw(t, "sampled")}
		p.Span = p.Trace.Span("x", 1)
		if got, ok := trace.ParseParent(p.String()); !ok || got != p {
			t.Fatalf("%s: %v %v", p, got, ok)
		}
	})
	good := "00-7e8d2b80c23e40d98dff1f6802607a80-00f067aa0ba902b7-01"
	for text, want := range map[string]bool{
		good: true, "cc" + good[2:] + "-what-comes-later": true, good + "-more": false, "ff" + good[2:]: false, "": false, good[:54]: false, strings.ToUpper(good): false,
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01": false, "00-7e8d2b80c23e40d98dff1f6802607a80-0000000000000000-01": false,
		"00-7e8d2b80c23e40d98dff1f6802607a8z-00f067aa0ba902b7-01": false, "cc" + good[2:] + "x": false,
	} {
		if _, ok := trace.ParseParent(text); ok != want {
			t.Errorf("%q: %v", text, ok)
		}
	}
}

// TestSampler: about the part that is asked for, the same traces always, and a parent's word where it counts.
func TestSampler(t *testing.T) {
	count := func(s trace.Sampler) (n int) {
		for i := range int64(2000) {
			id := trace.ID{8: 0x80}
			span := id.Span("any", i) // bits that are as good as random, and the same in every run
			copy(id[9:], span[:7])
			if s.Begins(id) {
				n++
			}
		}
		return n
	}
	for ratio, want := range map[float64]int{0: 0, 0.25: 500, 1: 2000} {
		if n := count(trace.Sampler{Ratio: ratio}); math.Abs(float64(n-want)) > 60 || (ratio == 0 || ratio == 1) && n != want {
			t.Errorf("ratio %v: %d of 2000", ratio, n)
		}
	}
	p := trace.Parent{Trace: trace.NewID(), Sampled: true}
	if !(trace.Sampler{Parent: true}).Continues(p) || (trace.Sampler{}).Continues(p) || (trace.Sampler{Parent: true, Ratio: 1}).Continues(trace.Parent{Trace: p.Trace}) {
		t.Error("the parent is not heard, or heard where it does not count")
	}
}

// TestRead: OpenTelemetry's variables; faults say what to write, all at once, and repeat no secret.
func TestRead(t *testing.T) {
	for _, off := range []func(string) (string, bool){
		env(), env("OTEL_SERVICE_NAME", "x"), env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4318", "OTEL_SDK_DISABLED", "true"),
		env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4318", "OTEL_TRACES_EXPORTER", "none"),
	} {
		if c, err := trace.Read(off); err != nil || c.URL != "" {
			t.Errorf("not off: %+v %v", c, err)
		}
	}
	c, err := trace.Read(env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://h/otlp/", "OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x, a=b", "OTEL_RESOURCE_ATTRIBUTES", "service.name=mine,host.name=h",
		"OTEL_TRACES_SAMPLER", "traceidratio", "OTEL_TRACES_SAMPLER_ARG", "0.5", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"))
	if err != nil || c.URL != "https://h/otlp/v1/traces" || c.Headers["authorization"] != "Bearer x" || c.Headers["a"] != "b" || c.Service != "mine" ||
		len(c.Resource) != 1 || c.Sampler != (trace.Sampler{Ratio: 0.5}) || c.Timeout != 250*time.Millisecond || c.Every != 5*time.Second {
		t.Errorf("%+v %v", c, err)
	}
	if c, _ := trace.Read(env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://h/here")); c.URL != "http://h/here" || c.Sampler != (trace.Sampler{Ratio: 1, Parent: true}) || c.Service != "unstuck" {
		t.Errorf("%+v", c)
	}
	_, err = trace.Read(env("OTEL_EXPORTER_OTLP_ENDPOINT", "h:4317", "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_HEADERS", "hunter2", "OTEL_EXPORTER_OTLP_COMPRESSION", "zstd",
		"OTEL_TRACES_SAMPLER", "jaeger_remote", "OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "OTEL_TRACES_EXPORTER", "console", "OTEL_RESOURCE_ATTRIBUTES", "x", "OTEL_BSP_MAX_QUEUE_SIZE", "0"))
	for _, want := range []string{"ENDPOINT is no web address", "PROTOCOL is \"grpc\"; this server speaks http/protobuf only", "HEADERS cannot be read", "COMPRESSION", "TRACES_SAMPLER is", "TIMEOUT is \"10s\"",
		"EXPORTER is \"console\"", "ATTRIBUTES has \"x\"", "QUEUE_SIZE is \"0\""} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "hunter2") {
		t.Error("a header is repeated")
	}
}

// receiver is one of OTLP over HTTP.
type receiver struct {
	*httptest.Server
	mu      sync.Mutex
	answers []int // statuses of the next answers; then 200
	got     []*otlp.Span
	headers []http.Header
	res     *otlp.ResourceSpans
	came    chan int // the status of each answer
}

func newReceiver(t *testing.T, answers ...int) *receiver {
	r := &receiver{answers: answers, came: make(chan int, 100)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body := io.Reader(q.Body)
		if q.Header.Get("Content-Encoding") == "gzip" {
			body, _ = gzip.NewReader(q.Body)
		}
		raw, err := io.ReadAll(body)
		var data otlp.TracesData // an ExportTraceServiceRequest has the same form
		if err := proto.Unmarshal(raw, &data); err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		status := 200
		if len(r.answers) > 0 {
			status, r.answers = r.answers[0], r.answers[1:]
		}
		if err == nil && status == 200 {
			r.headers = append(r.headers, q.Header)
			for _, x := range data.ResourceSpans {
				r.res = x
				for _, s := range x.ScopeSpans {
					r.got = append(r.got, s.Spans...)
				}
			}
		}
		r.mu.Unlock()
		w.WriteHeader(status)
		r.came <- status
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) tracer(t *testing.T, log io.Writer, more ...string) *trace.Tracer {
	t.Helper()
	c, err := trace.Read(env(append([]string{"OTEL_EXPORTER_OTLP_ENDPOINT", r.URL, "OTEL_BSP_SCHEDULE_DELAY", "3600000", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2"}, more...)...))
	if err != nil {
		t.Fatal(err)
	}
	tr, err := trace.Open(c, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func span(n int64) trace.Span {
	id := trace.OfUUID("7e8d2b80-c23e-40d9-8dff-1f6802607a80")
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	return trace.Span{Trace: id, ID: id.Span("s", n), Parent: id.Span("p", 0), Name: "s", Kind: trace.Client, Start: at, End: at.Add(time.Second),
		Attrs: []trace.Attr{trace.Text("text", "ü"), trace.Int("number", -n)}, Failed: n == 1, Links: []trace.Parent{{Trace: id, Span: id.Span("l", 0)}}}
}

// TestSpansArrive: OpenTelemetry's own types read what is sent, compressed or not, with its headers and resource.
func TestSpansArrive(t *testing.T) {
	for _, z := range []string{"none", "gzip"} {
		r := newReceiver(t)
		tr := r.tracer(t, io.Discard, "OTEL_EXPORTER_OTLP_COMPRESSION", z, "OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret", "OTEL_RESOURCE_ATTRIBUTES", "deployment=test")
		tr.Add(span(1), span(2))
		<-r.came // a batch is full
		tr.Add(span(3))
		tr.Close(t.Context())
		if len(r.got) != 3 || r.headers[0].Get("Api-Key") != "secret" || r.headers[0].Get("Content-Type") != "application/x-protobuf" {
			t.Fatalf("%d spans, %v", len(r.got), r.headers)
		}
		if a := r.res.Resource.Attributes; len(a) != 2 || a[0].Key != "service.name" || a[0].Value.GetStringValue() != "unstuck" || a[1].Value.GetStringValue() != "test" {
			t.Errorf("resource %v", a)
		}
		s, want := r.got[0], span(1)
		if !bytes.Equal(s.TraceId, want.Trace[:]) || !bytes.Equal(s.SpanId, want.ID[:]) || !bytes.Equal(s.ParentSpanId, want.Parent[:]) || s.Name != "s" || s.Kind != otlp.Span_SPAN_KIND_CLIENT ||
			s.StartTimeUnixNano != uint64(want.Start.UnixNano()) || s.EndTimeUnixNano != uint64(want.End.UnixNano()) || s.Status.GetCode() != otlp.Status_STATUS_CODE_ERROR ||
			s.Attributes[0].Value.GetStringValue() != "ü" || s.Attributes[1].Value.GetIntValue() != -1 || len(s.Links) != 1 || !bytes.Equal(s.Links[0].SpanId, want.Links[0].Span[:]) {
			t.Errorf("%v", s)
		}
		if r.got[1].Status != nil {
			t.Errorf("a span that did not fail: %v", r.got[1].Status)
		}
		if sent, dropped := tr.Stats(); sent != 3 || dropped != 0 {
			t.Errorf("%d sent, %d dropped", sent, dropped)
		}
	}
}

// TestReceiverFails: what a receiver cannot take now is sent again, what it refuses is dropped, and the log hears of it once.
func TestReceiverFails(t *testing.T) {
	var log bytes.Buffer
	r := newReceiver(t, 503, 200, 400)
	tr := r.tracer(t, &log)
	tr.Add(span(1), span(2))
	for _, want := range []int{503, 200} {
		if got := <-r.came; got != want {
			t.Fatalf("answered %d", got)
		}
	}
	tr.Add(span(3), span(4))
	<-r.came
	tr.Close(t.Context())
	if sent, dropped := tr.Stats(); sent != 2 || dropped != 2 || len(r.got) != 2 {
		t.Errorf("%d sent, %d dropped, %d arrived", sent, dropped, len(r.got))
	}
	if n := strings.Count(log.String(), "traces could not be sent"); n != 1 {
		t.Errorf("logged %d times: %s", n, log.String())
	}
}

// TestNoReceiver: nobody waits for a receiver that is not there, what has no room is dropped, and the end says what was lost.
func TestNoReceiver(t *testing.T) {
	var log bytes.Buffer
	r := newReceiver(t)
	r.Close()
	tr := r.tracer(t, &log, "OTEL_BSP_MAX_QUEUE_SIZE", "3", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100")
	for n := range int64(5) {
		tr.Add(span(n))
	}
	tr.Close(t.Context())
	if sent, dropped := tr.Stats(); sent != 0 || dropped != 2 {
		t.Errorf("%d sent, %d dropped", sent, dropped)
	}
	if !strings.Contains(log.String(), "the last traces could not be sent") || !strings.Contains(log.String(), "spans=3") {
		t.Errorf("log: %s", log.String())
	}
}

// TestOff: without a receiver there is no tracer, and asking it costs nothing.
func TestOff(t *testing.T) {
	tr, err := trace.Open(trace.Config{}, nil)
	if tr != nil || err != nil {
		t.Fatalf("%v %v", tr, err)
	}
	tr.Close(t.Context())
	if sent, dropped := tr.Stats(); sent+dropped != 0 {
		t.Error("it counts")
	}
	if _, err := trace.Open(trace.Config{URL: "http://h", CA: "/nowhere.pem"}, nil); err == nil {
		t.Error("a certificate that is not there")
	}
}
