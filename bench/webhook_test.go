//go:build unix

package bench

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var (
	webhooks = flag.Int("webhooks", 100_000, "signed webhooks that are due at one instant")
	few      = flag.Int("webhooks-few", 1_000, "the same, for the time until each is received")
)

// receiver counts what arrives, and when it did after its due time.
type receiver struct {
	addr string
	mu   sync.Mutex
	late []time.Duration
	due  time.Time
	most int           // how many are awaited
	all  chan struct{} // closed when they are there

	others string // address of callbacks that hang and get as many; "" for none
}

func receive(b *testing.B, most int) *receiver {
	b.Helper()
	r := &receiver{most: most, all: make(chan struct{})}
	r.addr = listen(b, http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		at := time.Now()
		_, _ = io.Copy(io.Discard, q.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.late = append(r.late, at.Sub(r.due)); len(r.late) == r.most {
			close(r.all)
		}
	}))
	return r
}

// arrived waits until all are there and answers how late each was, the earliest first.
func (r *receiver) arrived() []time.Duration {
	<-r.all
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(slices.Values(r.late))
}

// BenchmarkWebhooks lets webhooks become due at one instant and waits until the outcome of each is durable. Targets: 100,000 within 7
// seconds on two cores, the receiver included; of 1,000 the 99th percentile received within 50 ms; one within 5 ms.
func BenchmarkWebhooks(b *testing.B) {
	onEach(b, func(b *testing.B, s *serving) {
		for _, n := range []int{1, *few, *webhooks} {
			b.Run(fmt.Sprint(n), func(b *testing.B) {
				for range b.N {
					s.dueAtOnce(b, scaled(n))
				}
			})
		}
	})
}

// BenchmarkWebhookFloor posts as many bodies of the same size to the same receiver, by 64 callers that keep their connections.
func BenchmarkWebhookFloor(b *testing.B) {
	r := receive(b, 0)
	request := Request("POST", "/", "", []byte(strings.Repeat("x", 250)))
	for range b.N {
		got, err := Run(callers, during(), func(_ int, c *Conn) error {
			_, _, err := c.Do(request, nil)
			return err
		}, r.addr)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(got.PerSecond(), "posts/s")
	}
}

// BenchmarkHalfHang lets as many webhooks become due at callbacks that hang as at one that lives. Target: those that live are at most
// twice as late as without the others, which the first half of the run measures.
func BenchmarkHalfHang(b *testing.B) {
	s := serve(b, "")
	hang := make(chan struct{})
	addr := listen(b, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	defer close(hang)
	p99 := func(name, others string) (late time.Duration) {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				n := scaled(*few)
				r := receive(b, n)
				r.others = others
				s.cuesFor(b, r, n)
				late = r.arrived()[n*99/100]
				b.ReportMetric(float64(late.Microseconds())/1000, "p99-ms")
			}
		})
		return late
	}
	alone := p99("alone", "")
	beside := p99("beside", addr)
	if alone > 0 {
		b.ReportMetric(float64(beside)/float64(alone), "times-later")
	}
}

func (s *serving) dueAtOnce(b *testing.B, n int) {
	b.Helper()
	r := receive(b, n)
	s.cuesFor(b, r, n)
	<-time.After(time.Until(r.due))
	cpu, before := cpuTime(b), written()
	late := r.arrived()
	received := time.Since(r.due)
	for tick := time.Tick(time.Millisecond); s.open(b) > 0; {
		<-tick
	}
	durable := time.Since(r.due)
	b.ReportMetric((cpuTime(b) - cpu).Seconds(), "cpu-s")
	b.ReportMetric(float64(written()-before)/1e6, "MB-written")
	if late[0] < 0 {
		b.Fatalf("one arrived %v early", -late[0])
	}
	if again := len(r.arrived()); again != n {
		b.Fatalf("%d arrived, want %d", again, n)
	}
	b.ReportMetric(float64(late[n/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(late[n*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(received.Seconds(), "received-s")
	b.ReportMetric(durable.Seconds(), "durable-s")
}

// cpuTime is how long processors have worked for this process, receiver included: on a busy machine it says more than the clock.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// written is how many bytes the process has had written to disk, where the system says so (Linux), else 0.
func written() (n int64) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "write_bytes: %d", &n); err == nil {
			return n
		}
	}
	return 0
}

// cuesFor makes cues that call a receiver at one instant, and waits until then.
func (s *serving) cuesFor(b *testing.B, r *receiver, n int) {
	b.Helper()
	r.due = time.Now().Add(time.Duration(n)*time.Second/1000 + 3*time.Second).Truncate(time.Second).UTC()
	cron := r.due.Format("4 15 2 1 * 5")
	name := fmt.Sprint("w", time.Now().UnixNano(), "-")
	s.times(b, n, func(i int64, c *Conn) error {
		body := fmt.Sprintf(`{"name":"%s%d","cron":"%s","callback_url":"http://%s/hook","payload":{"report":"nightly","n":%d}}`, name, i, cron, r.addr, i)
		if r.others != "" {
			hanging := strings.ReplaceAll(strings.Replace(body, r.addr+"/hook", fmt.Sprintf("%s/hang/%d", r.others, i%50), 1), name, "h"+name)
			if _, _, err := c.Do(Request("POST", "/v1/cues", s.first, []byte(hanging)), nil); err != nil {
				return err
			}
		}
		status, answer, err := c.Do(Request("POST", "/v1/cues", s.first, []byte(body)), nil)
		if err == nil && status != 201 {
			err = fmt.Errorf("create: %d %s", status, answer)
		}
		return err
	})
	if time.Now().After(r.due) {
		b.Fatal("making the cues took longer than their due time was away")
	}
}

// open is how many executions have not ended.
func (s *serving) open(b *testing.B) int {
	b.Helper()
	page := s.must(b, s.first, "GET", "/v1/executions?status__in=pending,delivering,retrying&limit=1", "")
	return int(page["total"].(float64))
}
