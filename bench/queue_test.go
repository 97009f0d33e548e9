//go:build unix

package bench

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// BenchmarkLongQueue lets one workspace queue 100,000 executions at one instant, while cues of another are due every second. Target:
// these are called at most 100 ms late, at the 99th percentile.
func BenchmarkLongQueue(b *testing.B) {
	onEach(b, func(b *testing.B, s *serving) {
		for range b.N {
			s.longQueue(b, scaled(*webhooks))
		}
	})
}

func (s *serving) longQueue(b *testing.B, n int) {
	const others = 20
	flood := receive(b, n)
	var mu sync.Mutex
	late := map[time.Time][]time.Duration{} // by due time
	addr := listen(b, http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		at := time.Now()
		due, err := time.Parse(time.RFC3339, q.Header.Get("X-CueAPI-Scheduled-For"))
		if err != nil {
			b.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		late[due] = append(late[due], at.Sub(due))
	}))
	other := s.must(b, s.first, "POST", "/v1/workspaces", fmt.Sprintf(`{"name":"other %d"}`, time.Now().UnixNano()))["key"].(string)
	for i := range others {
		s.must(b, other, "POST", "/v1/cues", fmt.Sprintf(`{"name":"c%d","cron":"* * * * * *","callback_url":"http://%s/"}`, i, addr))
	}
	s.cuesFor(b, flood, n)
	flood.arrived()
	ended := time.Now()
	mu.Lock()
	defer mu.Unlock()
	var all []time.Duration
	for due, times := range late {
		if !due.Before(flood.due) && due.Before(ended) {
			all = append(all, times...)
		}
	}
	slices.Sort(all)
	if len(all) == 0 {
		b.Fatal("the other workspace's cues were not called")
	}
	b.ReportMetric(float64(len(all)), "calls")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(ended.Sub(flood.due).Seconds(), "flood-s")
}
