//go:build unix

package webhook_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"unstuck/internal/webhook"
)

const benchDocument = `{"attempt":1,"cue_id":"cue_0123456789ab","execution_id":"5f0c1b9e-0d7a-4c7e-9a57-1c2b3d4e5f60","name":"nightly",
	"payload":{"task":"report","n":7},"scheduled_for":"2026-11-22T09:05:00+00:00"}`

// processor is the time that this process has had on processors: it says more than the clock on a machine that others use too.
func processor(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// report says what one webhook cost since the processor time `before`.
func report(b *testing.B, before time.Duration) {
	b.ReportMetric(float64((processor(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "webhooks/s")
}

func BenchmarkBody(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := webhook.Body([]byte(benchDocument)); err != nil {
			b.Fatal(err)
		}
	}
}

// receiver is a server in this process that reads what it gets and answers 200.
func receiver(b *testing.B) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })}
	go srv.Serve(l)
	b.Cleanup(func() { srv.Close() })
	return "http://" + l.Addr().String() + "/hook"
}

// BenchmarkFloor is what net/http needs by itself: 64 goroutines that POST to a receiver in this process, with few headers, and
// with as many as a signed webhook has, which the receiver has to read too.
func BenchmarkFloor(b *testing.B) {
	b.Run("bare", func(b *testing.B) { floor(b, http.Header{"Content-Type": {"application/json"}}) })
	b.Run("headers", func(b *testing.B) {
		signature := strings.Repeat("0123456789abcdef", 4)
		floor(b, http.Header{
			"Content-Type": {"application/json"}, "User-Agent": {"CueAPI/1.0"}, "Accept": {"*/*"}, "X-CueAPI-Cue-Id": {"cue_0123456789ab"},
			"X-CueAPI-Attempt": {"1"}, "X-CueAPI-Timestamp": {"1763802300"}, "X-CueAPI-Signature": {"v1=" + signature},
			"webhook-id": {"5f0c1b9e-0d7a-4c7e-9a57-1c2b3d4e5f60"}, "webhook-timestamp": {"1763802300"},
			"webhook-signature": {"v1," + signature[:44]},
		})
	})
}

func floor(b *testing.B, h http.Header) {
	to, body := receiver(b), []byte(benchDocument)
	client := webhook.Policy{Private: true}.Client()
	defer client.CloseIdleConnections()
	var left atomic.Int64
	left.Store(int64(b.N))
	var all sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	before := processor(b)
	for range 64 {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				req, err := http.NewRequest("POST", to, bytes.NewReader(body))
				if err != nil {
					b.Error(err)
					return
				}
				req.Header = h
				resp, err := client.Transport.RoundTrip(req)
				if err != nil {
					b.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
	all.Wait()
	report(b, before)
}

// BenchmarkSender does the same with everything: body written, two signatures, turns, results in batches.
func BenchmarkSender(b *testing.B) {
	for _, endpoints := range []int{1, 100} {
		b.Run(fmt.Sprint(endpoints), func(b *testing.B) {
			to := receiver(b)
			var reported, failed, batches atomic.Int64
			done := make(chan struct{})
			s := webhook.NewSender(webhook.Options{Client: webhook.Policy{Private: true}.Client(), Done: func(batch []webhook.Result) {
				for _, r := range batch {
					if r.Class != webhook.Delivered {
						failed.Add(1)
					}
				}
				batches.Add(1)
				if reported.Add(int64(len(batch))) == int64(b.N) {
					close(done)
				}
			}})
			defer s.Stop(context.Background())
			b.ReportAllocs()
			b.ResetTimer()
			before := processor(b)
			for i := range b.N {
				body, err := webhook.Body([]byte(benchDocument))
				if err != nil {
					b.Fatal(err)
				}
				job := &webhook.Job{
					ID: "5f0c1b9e-0d7a-4c7e-9a57-1c2b3d4e5f60", Workspace: "w", Method: "POST", URL: fmt.Sprint(to, i%endpoints),
					Header: http.Header{"X-CueAPI-Cue-Id": {"cue_0123456789ab"}, "X-CueAPI-Attempt": {"1"}}, Body: body, Secrets: []string{benchSecret},
					Timeout: time.Minute,
				}
				for !s.Offer(job) { // the queue is full
					<-time.After(time.Millisecond)
				}
			}
			<-done
			report(b, before)
			b.ReportMetric(float64(b.N)/float64(batches.Load()), "results/batch")
			if failed.Load() > 0 {
				b.Errorf("%d failed", failed.Load())
			}
		})
	}
}
