//go:build !race

// Thousands of goroutines in one bubble break the race detector itself now and then (tsan_rtl.cpp: CHECK failed), so what is here is
// left out of its builds; TestEveryJobComesBackOnce runs under it.

package webhook

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// TestSlowDone: while results are not taken, no more than a bounded number of requests is sent.
func TestSlowDone(t *testing.T) {
	var release chan struct{} // of the bubble
	in(t, Options{Done: func([]Result) { <-release }}, func(*http.Request) (int, time.Duration) { return 200, 0 }, func(w *world) {
		release = make(chan struct{})
		for i := range 6000 {
			w.offer("w", fmt.Sprint("h", i%10), "j")
		}
		synctest.Wait()
		if s := w.Stats(); s.Unreported < maxUnreported || s.Unreported > maxUnreported+2048 || s.InFlight != 0 {
			t.Errorf("%+v", s)
		}
		close(release)
		synctest.Wait()
		if s := w.Stats(); s.Waiting != 0 || s.Unreported != 0 {
			t.Errorf("%+v", s)
		}
	})
}
