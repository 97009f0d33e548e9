package alert_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"unstuck/internal/testkit"
)

// An alert goes 90 days after it was over; one that is open stays. Metrics count both by type.
func TestOldAlertsGo(t *testing.T) {
	testkit.Each(t, func(t *testing.T, s *testkit.Server) {
		page := func() string {
			req, _ := http.NewRequest("GET", s.URL+"/metrics", nil)
			req.Header.Set("Authorization", "Bearer "+s.First)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			var b strings.Builder
			if _, err := io.Copy(&b, res.Body); err != nil {
				t.Fatal(err)
			}
			return b.String()
		}
		miss := func(name string) string {
			at := s.Clock.Now().Add(time.Hour).UTC().Format(time.RFC3339)
			id := s.Must(s.First, "POST /v1/cues", obj{"name": name, "at": at, "transport": "worker"}).Str("id")
			for range 6 {
				s.Clock.Add(time.Hour)
				s.Drain()
			}
			return id
		}
		count := func(n int) {
			t.Helper()
			if got := len(s.Must(s.First, "GET /v1/alerts?limit=100", nil).JSON["alerts"].([]any)); got != n {
				t.Errorf("%d alerts, want %d", got, n)
			}
		}
		miss("open")
		over := miss("over")
		count(2)
		for _, line := range []string{`unstuck_alerts_open{type="missed_window"} 2`, `unstuck_alerts_raised_total{type="missed_window"} 2`, `unstuck_alerts_open{type="outcome_timeout"} 0`} {
			if !strings.Contains(page(), line+"\n") {
				t.Errorf("metrics lack %q", line)
			}
		}
		s.Must(s.First, "DELETE /v1/cues/"+over, nil)
		s.Clock.Add(89 * 24 * time.Hour)
		s.Drain()
		count(2)
		s.Clock.Add(2 * 24 * time.Hour)
		s.Drain()
		count(1)
	})
}
