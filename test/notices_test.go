package test

import (
	"strings"
	"testing"
	"time"

	"unstuck/internal/server"
	"unstuck/internal/testkit/pgtest"
)

// TestNoticesAreHeldToTheRules: the address that is told of failures is judged again when it is told. One that was allowed when the
// cue was made is not called once it is not allowed any more.
func TestNoticesAreHeldToTheRules(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		t.Parallel()
		h := newHooks(t)
		s := quick(t, dsn, func(o *server.Settings) { o.AllowCallbacks = "127.0.0.1" })
		cue := s.Must(s.First, "POST /v1/cues", obj{"name": "c", "cron": "0 0 1 1 *", "worker": true, "on_failure": obj{"webhook": h.URL}}).Str("id")
		missed := func() {
			t.Helper()
			s.Must(s.First, "POST /v1/cues/"+cue+"/fire", obj{})
			s.Clock.Add(901 * time.Second)
			s.Drain()
		}
		missed()
		if n := len(h.arrivals()); n != 1 {
			t.Fatalf("%d notices arrived while the address was allowed", n)
		}
		s.Settings.AllowCallbacks = ""
		s.Restart(0)
		missed()
		if n := len(h.arrivals()); n != 1 {
			t.Errorf("%d notices arrived after it was allowed no more", n)
		}
		list := s.Must(s.First, "GET /v1/executions?cue_id="+cue, nil)
		last := list.JSON["executions"].([]any)[0].(obj)
		why := s.Must(s.First, "GET /v1/executions/"+last["id"].(string)+"/why", nil)
		if last["status"] != "missed" || !strings.Contains(string(why.Body), h.URL) {
			t.Errorf("%v; nobody is told of the address: %s", last["status"], why.Body)
		}
	})
}
