package cue

import (
	"testing"
	"time"

	"unstuck/internal/op"
)

// TestTracesOffCostNothing: a server that sends no traces makes nothing for them.
func TestTracesOffCostNothing(t *testing.T) {
	c := &Cues{Options: Options{Observe: deaf{}, Now: time.Now}}
	r := &result{job: &job{id: newUUID(1)}, class: "delivered"}
	some := []*result{r}
	if n := testing.AllocsPerRun(100, func() {
		c.sawResults(some)
		c.traceFire(r.id, 1, 2, byScheduler, "c", "w")
		c.traceQueue(r.id, 1, 1, 2)
		c.traceOutcome(r.id, op.Time(1))
		if c.traceparent(r.id, spanLease, 1) != "" {
			t.Error("a traceparent without traces")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
