//go:build linux

package test

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"unstuck/internal/server"
	"unstuck/internal/testkit"
	tracing "unstuck/internal/trace"
)

// TestTraceReachesHandlers: a handler of the worker daemon finds the parent of its spans in TRACEPARENT, and the daemon's report is below
// the same span, in the trace of the execution.
func TestTraceReachesHandlers(t *testing.T) {
	t.Parallel()
	spans := make(chan *otlp.Span, 1000)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		var data otlp.TracesData
		if err != nil || proto.Unmarshal(raw, &data) != nil {
			t.Errorf("%x %v", raw, err)
		}
		for _, s := range data.ResourceSpans[0].ScopeSpans[0].Spans {
			spans <- s
		}
	}))
	defer receiver.Close()
	config, err := tracing.Read(func(name string) (string, bool) { return receiver.URL, name == "OTEL_EXPORTER_OTLP_ENDPOINT" })
	if err != nil {
		t.Fatal(err)
	}
	config.Every = time.Millisecond
	s := testkit.New(t, "", func(set *server.Settings) { set.Traces = config })
	unlimited(s, s.First)
	y := &yard{T: t, s: s, key: s.Key("worker"), cues: map[string]string{}}
	id := y.fire("traced")
	d := y.worker(obj{"traced": obj{"cmd": `printf 'at %s' "$TRACEPARENT"`}}, nil)
	d.says("done", id)
	of := tracing.OfUUID(id)
	lease := of.Span("lease", 1)
	want := tracing.Parent{Trace: of, Span: lease, Sampled: true}.String()
	outcome, _ := y.execution(id)["outcome"].(obj)
	if result, _ := outcome["result"].(string); !strings.Contains(result, "at "+want) {
		t.Errorf("the handler found %q, not %s", result, want)
	}
	found := map[string]string{} // parent by name
	limit := time.After(time.Minute)
	for found["execution"] == "" || found["lease"] == "" || found["POST /v1/executions/{id}/outcome"] == "" {
		select {
		case s := <-spans:
			if hex.EncodeToString(s.TraceId) == strings.ReplaceAll(id, "-", "") {
				found[s.Name] = "below " + hex.EncodeToString(s.ParentSpanId)
			}
		case <-limit:
			t.Fatalf("spans that came: %v", found)
		}
	}
	if found["POST /v1/executions/{id}/outcome"] != "below "+hex.EncodeToString(lease[:]) {
		t.Errorf("%v, the lease is %x", found, lease)
	}
}
