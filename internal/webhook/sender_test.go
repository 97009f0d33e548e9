package webhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// world is a sender whose receivers are functions, in a bubble whose clock stands still while anybody works.
type world struct {
	*testing.T
	*Sender
	start   time.Time
	receive func(r *http.Request) (status int, after time.Duration) // after < 0: never

	mu      sync.Mutex
	all     int // requests on their way
	allMost int // at one time
	results []Result
}

// count reads one of the counters.
func (w *world) count(n *int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return *n
}

type offered time.Time

// RoundTrip is the network.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.all++
	w.allMost = max(w.allMost, w.all)
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.all--
		w.mu.Unlock()
	}()
	status, after := w.receive(r)
	var answer <-chan time.Time
	if after >= 0 {
		answer = time.After(after)
	}
	select {
	case <-answer:
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if status == 0 {
		return nil, errors.New("connection reset by peer")
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("ok"))}, nil
}

// in runs a test in a bubble.
func in(t *testing.T, o Options, receive func(r *http.Request) (int, time.Duration), test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, start: time.Now(), receive: receive}
		o.Client = &http.Client{Transport: w}
		if o.Done == nil {
			o.Done = w.done
		}
		w.Sender = NewSender(o)
		test(w)
		w.Stop(context.Background())
		if s := w.Stats(); s.InFlight != 0 || s.Waiting != 0 || s.WaitingBytes != 0 || s.Doubtful != 0 || s.Unreported != 0 || len(w.queue.workspaces) != 0 {
			t.Errorf("after the end %+v, %d workspaces", s, len(w.queue.workspaces))
		}
	})
}

func (w *world) done(batch []Result) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.results = append(w.results, batch...)
}

// offer offers a job; its id tells when it was offered.
func (w *world) offer(workspace, host, id string) bool {
	return w.Offer(&Job{ID: id, Workspace: workspace, Method: "POST", URL: "http://" + host + "/hook?x=1", Body: []byte("{}"), Tag: offered(time.Now())})
}

// take answers the results since the last call.
func (w *world) take() []Result {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.results
	w.results = nil
	return out
}

// lags are how long the jobs of these results waited to be sent.
func lags(results []Result) (out []time.Duration) {
	for _, r := range results {
		out = append(out, r.Began.Sub(time.Time(r.Job.Tag.(offered))))
	}
	slices.Sort(out)
	return out
}

func swift(*http.Request) (int, time.Duration) { return 200, 10 * time.Millisecond }

// TestWorkspacesTakeTurns: one queues 100,000 jobs, another's single job goes next.
func TestWorkspacesTakeTurns(t *testing.T) {
	jobs := 100_000
	if testing.Short() {
		jobs = 10_000
	}
	in(t, Options{MaxWaiting: 1 << 30}, swift, func(w *world) {
		for i := range jobs {
			if !w.offer("greedy", fmt.Sprint("h", i%200), "g") {
				t.Fatalf("no room for job %d", i)
			}
		}
		<-time.After(100 * time.Millisecond)
		if s := w.Stats(); s.Waiting < jobs/4 {
			t.Fatalf("only %d are waiting: nothing is shown", s.Waiting)
		}
		w.take()
		w.offer("modest", "m", "m")
		<-time.After(10 * time.Millisecond)
		for _, r := range w.take() {
			if r.Job.ID == "m" {
				if lag := lags([]Result{r})[0]; lag != 0 {
					t.Errorf("it waited %v", lag)
				}
				return
			}
		}
		t.Error("it was not sent")
	})
}

// TestEndpointsTakeTurns: within a workspace one endpoint has a long queue, another one job.
func TestEndpointsTakeTurns(t *testing.T) {
	in(t, Options{MaxInFlight: 8}, swift, func(w *world) {
		for range 1000 {
			w.offer("w", "busy", "b")
		}
		<-time.After(55 * time.Millisecond)
		w.take()
		w.offer("w", "quiet", "q")
		<-time.After(30 * time.Millisecond)
		if !slices.ContainsFunc(w.take(), func(r Result) bool { return r.Job.ID == "q" }) {
			t.Error("the quiet endpoint still waits")
		}
	})
}

// TestHangingReceivers: half of the endpoints hang, from the start or from one moment on; the lag of the others at most doubles.
// The same jobs without the hanging ones are the measure.
func TestHangingReceivers(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	bursts := 600 // one every tenth of a second
	if testing.Short() {
		bursts = 30 // a race detector counts only so far
	}
	for _, from := range []time.Duration{0, 2 * time.Second} {
		run := func(hang bool) (out []time.Duration) {
			random := rand.New(rand.NewPCG(seed, 0))
			start := time.Time{}
			receive := func(r *http.Request) (int, time.Duration) {
				if hang && strings.HasPrefix(r.URL.Host, "bad") && time.Since(start) >= from {
					return 0, -1
				}
				return 200, 20 * time.Millisecond
			}
			in(t, Options{MaxInFlight: 1024}, receive, func(w *world) {
				start = time.Now()
				for range bursts {
					for n := range 200 {
						i := random.IntN(200)
						w.offer(fmt.Sprint("w", i%5), fmt.Sprint([]string{"good", "bad"}[n%2], i), "j")
					}
					<-time.After(100 * time.Millisecond)
				}
				for _, r := range w.take() {
					if strings.Contains(r.Job.URL, "good") {
						out = append(out, lags([]Result{r})...)
					}
				}
			})
			slices.Sort(out)
			return out
		}
		alone, beside := run(false), run(true)
		if len(alone) != len(beside) || len(alone) == 0 {
			t.Fatalf("%d jobs, and %d beside those that hang", len(alone), len(beside))
		}
		for _, q := range []float64{0.5, 0.99, 1} {
			i := int(q * float64(len(alone)-1))
			t.Logf("hanging from %v: the lag's %v is %v, alone %v", from, q, beside[i], alone[i])
			if beside[i] > max(2*alone[i], 20*time.Millisecond) { // one answer's time
				t.Errorf("hanging from %v: the lag's %v is %v, alone %v", from, q, beside[i], alone[i])
			}
		}
	}
}

// TestWindow: a receiver that was never called gets one request at first, and as many as its window allows when it answers.
func TestWindow(t *testing.T) {
	in(t, Options{PerEndpoint: 16}, swift, func(w *world) {
		for range 1000 {
			w.offer("w", "h", "j")
		}
		synctest.Wait()
		if n := w.count(&w.all); n != 1 {
			t.Errorf("%d at first", n)
		}
		<-time.After(time.Minute)
		if n := w.count(&w.allMost); n != 16 {
			t.Errorf("%d at most", n)
		}
		if n := len(w.take()); n != 1000 {
			t.Errorf("%d results", n)
		}
	})
}

// TestTotal: however many endpoints hang, no more than MaxInFlight are on their way.
func TestTotal(t *testing.T) {
	in(t, Options{MaxInFlight: 100}, func(*http.Request) (int, time.Duration) { return 0, -1 }, func(w *world) {
		for i := range 5000 {
			w.offer(fmt.Sprint("w", i%7), fmt.Sprint("h", i%4), "j")
		}
		<-time.After(10 * time.Minute)
		if n := w.count(&w.allMost); n > 100 {
			t.Errorf("%d on their way", n)
		}
		if s := w.Stats(); s.Resting == 0 {
			t.Errorf("%+v: none rests", s)
		}
	})
}

// TestSaturation: when all receivers answer more slowly the more they are asked at once, as when one machine is behind them, no more
// is sent at once than the proven may: waiting for a place there does not make slow what is usual.
func TestSaturation(t *testing.T) {
	var w *world
	busy := func(*http.Request) (int, time.Duration) {
		return 200, time.Duration(w.count(&w.all)) * 300 * time.Microsecond
	}
	in(t, Options{}, busy, func(world *world) {
		w = world
		for i := range 5000 {
			w.offer("w", fmt.Sprint("h", i%100), "j")
		}
		<-time.After(time.Minute)
		if n := w.count(&w.allMost); n < 128 || n > 512 {
			t.Errorf("%d at once", n)
		}
		if n := len(w.take()); n != 5000 {
			t.Errorf("%d results", n)
		}
	})
}

// TestRest: five faults in a row, then nothing for five seconds, one request to see, twice as long, and back to normal.
func TestRest(t *testing.T) {
	status := 503
	in(t, Options{}, func(*http.Request) (int, time.Duration) { return status, 0 }, func(w *world) {
		counts := func() (sent, unsent int, wait time.Duration) {
			for _, r := range w.take() {
				if r.Class == Unsent {
					unsent++
					wait = r.Wait
				} else {
					sent++
				}
			}
			return sent, unsent, wait
		}
		expect := func(n, sent, unsent int, wait time.Duration, resting int) {
			t.Helper()
			for range n {
				w.offer("w", "h", "j")
			}
			gotSent, gotUnsent, gotWait := counts()
			if gotSent != sent || gotUnsent != unsent || gotWait != wait || w.Stats().Resting != resting {
				t.Errorf("sent %d, back %d for %v, %d rest; want %d, %d, %v, %d", gotSent, gotUnsent, gotWait, w.Stats().Resting, sent, unsent, wait, resting)
			}
		}
		expect(4, 4, 0, 0, 0)
		expect(10, 1, 9, 5*time.Second, 1)
		<-time.After(2 * time.Second)
		expect(1, 0, 1, 3*time.Second, 1)
		<-time.After(3 * time.Second)
		expect(10, 1, 9, 10*time.Second, 1)
		for _, rest := range []time.Duration{20, 40, 80, 160, 300, 300} {
			<-time.After(5 * time.Minute)
			expect(2, 1, 1, rest*time.Second, 1)
		}
		<-time.After(5 * time.Minute)
		status = 200
		expect(10, 10, 0, 0, 0)
		status = 503
		expect(10, 5, 5, 5*time.Second, 1)
		for range 3 {
			w.offer("other", "h", "j") // another workspace's endpoint is another
		}
		if sent, _, _ := counts(); sent != 3 {
			t.Errorf("sent %d of another workspace's", sent)
		}
	})
}

// TestAliveAnswers: 4xx, 408 and 429 are answers of a living receiver, which does not rest.
func TestAliveAnswers(t *testing.T) {
	for _, status := range []int{301, 400, 404, 408, 410, 429} {
		in(t, Options{}, func(*http.Request) (int, time.Duration) { return status, 0 }, func(w *world) {
			for range 50 {
				w.offer("w", "h", "j")
			}
			for _, r := range w.take() {
				if r.Status != status {
					t.Fatalf("%d: %+v", status, r)
				}
			}
		})
	}
}

// TestStop: what is on its way is waited for, what was not begun comes back, and what takes too long is cut off.
func TestStop(t *testing.T) {
	slow := func(r *http.Request) (int, time.Duration) {
		if r.URL.Host == "hangs" {
			return 0, -1
		}
		return 200, 3 * time.Second
	}
	in(t, Options{}, slow, func(w *world) {
		for range 10 {
			w.offer("w", "slow", "s")
			w.offer("w", "hangs", "h")
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(w.Context(), 5*time.Second)
		defer cancel()
		w.Stop(ctx)
		if took := time.Since(w.start); took != 5*time.Second {
			t.Errorf("stopping took %v", took)
		}
		got := map[string]int{}
		for _, r := range w.take() {
			got[r.Job.ID+" "+string(r.Class)+" "+r.Message]++
		}
		want := map[string]int{
			"s delivered ": 1, "s unsent The server stopped before this was sent": 9, "h unsent The server stopped before this was sent": 9,
			"h failed The server stopped before the webhook endpoint had answered": 1,
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v", got)
		}
		if w.offer("w", "slow", "s") {
			t.Error("a stopped sender takes jobs")
		}
	})
}

// TestRoom: a workspace fills its share and no more, a newcomer always gets a job in.
func TestRoom(t *testing.T) {
	in(t, Options{MaxWaiting: 100 * (jobSize + 2)}, func(*http.Request) (int, time.Duration) { return 200, time.Second }, func(w *world) {
		fill := func(workspace string) (n int) {
			for w.offer(workspace, "h", "j") {
				n++
			}
			return n
		}
		for i, want := range []int{26, 26, 26, 26, 2, 2} { // one of each is on its way
			if n := fill(fmt.Sprint("w", i)); n != want {
				t.Errorf("workspace %d got %d in", i, n)
			}
		}
	})
}

// TestMemory: endpoints that were called once are forgotten.
func TestMemory(t *testing.T) {
	in(t, Options{}, func(*http.Request) (int, time.Duration) { return 503, 0 }, func(w *world) {
		w.queue.idleMax = 100
		for i := range 1000 {
			w.offer("w", fmt.Sprint("h", i), "j")
		}
		synctest.Wait()
		if s := w.Stats(); s.Endpoints != 100 {
			t.Errorf("%+v", s)
		}
	})
}

// TestEveryJobComesBackOnce: random work, random receivers, a stop in the middle.
func TestEveryJobComesBackOnce(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for round := range 20 {
		random := rand.New(rand.NewPCG(seed, uint64(round)))
		var mu sync.Mutex
		receive := func(*http.Request) (int, time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			status := []int{200, 200, 200, 404, 410, 429, 500, 0}[random.IntN(8)]
			return status, time.Duration(random.IntN(50)*random.IntN(50)*random.IntN(30)-1) * time.Millisecond
		}
		seen := map[Class]int{}
		in(t, Options{MaxInFlight: 1 + random.IntN(50), PerEndpoint: 1 + random.IntN(8), MaxWaiting: 1 << (14 + random.IntN(10))}, receive, func(w *world) {
			wanted := map[string]int{}
			for i := range 2000 {
				mu.Lock()
				id, ws, host, pause := fmt.Sprint(i), fmt.Sprint("w", random.IntN(5)), fmt.Sprint("h", random.IntN(10)), random.IntN(20)
				mu.Unlock()
				if w.offer(ws, host, id) {
					wanted[id]++
				}
				if pause == 0 {
					<-time.After(time.Duration(i) * time.Millisecond)
				}
			}
			ctx, cancel := context.WithTimeout(w.Context(), time.Duration(round)*time.Second)
			defer cancel()
			w.Stop(ctx)
			for _, r := range w.take() {
				wanted[r.Job.ID]--
				seen[r.Class]++
			}
			for id, n := range wanted {
				if n != 0 {
					t.Errorf("round %d: job %s: %d results are missing", round, id, n)
				}
			}
			if n := w.count(&w.allMost); n > w.MaxInFlight {
				t.Errorf("round %d: %d on their way", round, n)
			}
		})
		t.Logf("round %d: %v", round, seen)
	}
}
