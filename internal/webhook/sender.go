package webhook

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

// Options are what NewSender needs. Client and Done are required; zero means the default.
type Options struct {
	// Client sends: Policy.Client's, or one with a transport of a test's own. Of it only the transport is used.
	Client *http.Client
	// Done gets what became of jobs, in batches: all that ended while it was at the last. It is called from one goroutine; while
	// it works, attempts go on until 4096 results wait for it. The slice is the sender's again when it returns. It may Offer, but
	// not Stop.
	Done func([]Result)
	// Now is the time that goes into signatures, and that dates in Retry-After are measured by; default time.Now. Durations
	// are measured by the machine's steady clock, which no correction of the time moves.
	Now         func() time.Time
	MaxInFlight int // requests on their way at most; default 2048. Half of them may begin doubtful, a quarter proven
	PerEndpoint int // requests on their way to one endpoint at most; default 64
	MaxWaiting  int // bytes of jobs that wait at most; default 256 MiB
}

const (
	maxUnreported    = 4096  // results that wait for Done, or are with it, before no more attempts begin
	maxIdleEndpoints = 16384 // endpoints that are remembered while nothing is to be sent to them
)

// Sender sends jobs, many at once. Its methods may be called from any goroutine.
type Sender struct {
	Options
	transport http.RoundTripper
	ctx       context.Context // of all attempts
	cancel    context.CancelCauseFunc
	wake      chan struct{} // holds a token when there are results
	reporter  sync.WaitGroup

	mu         sync.Mutex
	queue      queue
	stopped    bool
	workers    int
	results    []Result
	unreported int
	minder     *time.Timer   // looks for slow attempts
	lookAt     time.Time     // when; zero: it is not set
	idle       chan struct{} // closed when stopped and no attempt is in flight
}

// ErrStopped is the cause of a request that Stop cut off.
var ErrStopped = errors.New("the sender stopped")

// NewSender starts a sender. Stop ends it.
func NewSender(o Options) *Sender {
	if o.Now == nil {
		o.Now = time.Now
	}
	for _, d := range []struct {
		set *int
		def int
	}{{&o.MaxInFlight, 2048}, {&o.PerEndpoint, 64}, {&o.MaxWaiting, 256 << 20}} {
		if *d.set == 0 {
			*d.set = d.def
		}
	}
	s := &Sender{Options: o, transport: o.Client.Transport, wake: make(chan struct{}, 1), idle: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.queue = queue{
		limit: [lanes]int{proven: max(o.MaxInFlight/4, 1), doubtful: max(o.MaxInFlight/2, 1)}, total: o.MaxInFlight,
		windowMax: o.PerEndpoint, sizeMax: o.MaxWaiting, idleMax: maxIdleEndpoints,
		workspaces: map[string]*workspace{}, endpoints: map[endpointKey]*endpoint{},
	}
	s.minder = time.AfterFunc(time.Hour, s.mind)
	s.minder.Stop()
	s.reporter.Go(s.report)
	return s
}

// Offer hands a job over; its Result comes through Done. It never waits. It is false when the sender has stopped or has no
// room: the job stays the caller's, to be offered again later.
func (s *Sender) Offer(j *Job) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	ok, rest := s.queue.offer(j, time.Now())
	switch {
	case !ok:
		return false
	case rest > 0:
		s.unsent(rest, j)
	default:
		s.launch()
	}
	return true
}

// Stop ends the sender: jobs that were not begun come back Unsent, requests on their way are waited for until ctx ends and then
// cut off. It returns when Done has got everything.
func (s *Sender) Stop(ctx context.Context) {
	s.mu.Lock()
	if first := !s.stopped; first {
		s.stopped = true
		s.unsent(0, s.queue.clear()...)
		s.checkIdle()
	}
	s.mu.Unlock()
	select {
	case <-s.idle:
	case <-ctx.Done():
		s.cancel(ErrStopped)
		<-s.idle
	}
	s.reporter.Wait()
	s.cancel(ErrStopped)
	s.Client.CloseIdleConnections()
}

// Stats are what a sender is doing.
type Stats struct {
	Waiting      int // jobs
	WaitingBytes int
	InFlight     int
	Doubtful     int // of those in flight
	Unreported   int // results that Done has not returned from
	Endpoints    int // that are remembered
	Resting      int // endpoints that are not called, or have not answered since
	Open         int // of those, the ones whose rest is not over
}

// Stats says what the sender is doing, for metrics.
func (s *Sender) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, now := &s.queue, time.Now()
	open := 0
	if q.resting > 0 {
		for _, e := range q.endpoints {
			if e.restUntil.After(now) {
				open++
			}
		}
	}
	return Stats{
		Open:    open,
		Waiting: q.waiting, WaitingBytes: q.size, InFlight: q.inFlight[proven] + q.inFlight[doubtful], Doubtful: q.inFlight[doubtful],
		Unreported: s.unreported, Endpoints: len(q.endpoints), Resting: q.resting,
	}
}

// The following need the lock.

// launch begins all attempts that may begin.
func (s *Sender) launch() {
	for a := s.next(); a != nil; a = s.next() {
		s.workers++
		go s.work(a)
	}
}

func (s *Sender) next() *attempt {
	if s.unreported >= maxUnreported {
		return nil
	}
	a := s.queue.next(time.Now())
	if a == nil {
		if look := s.queue.look(); !look.IsZero() && (s.lookAt.IsZero() || look.Before(s.lookAt)) {
			s.lookAt = look
			s.minder.Reset(time.Until(look))
		}
	}
	return a
}

func (s *Sender) result(r Result) {
	s.results = append(s.results, r)
	s.unreported++
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// unsent gives jobs back.
func (s *Sender) unsent(rest time.Duration, jobs ...*Job) {
	why := "The server stopped before this was sent"
	if rest > 0 {
		why = "The webhook endpoint has failed several times in a row and rests"
	}
	for _, j := range jobs {
		s.result(Result{Job: j, Class: Unsent, Message: why, Wait: rest, Began: s.Now()})
	}
}

func (s *Sender) checkIdle() {
	if s.stopped && s.workers == 0 {
		s.minder.Stop()
		close(s.idle)
		close(s.wake)
	}
}

// The following take the lock.

// work makes attempts until there is none to make.
func (s *Sender) work(a *attempt) {
	for a != nil {
		res := s.attempt(a)
		s.mu.Lock()
		s.result(res)
		rest, back := s.queue.finish(a, &res, time.Now())
		s.unsent(rest, back...)
		if a = s.next(); a != nil {
			s.launch() // an endpoint may have been given a wider window
		} else {
			s.workers--
			s.checkIdle()
		}
		s.mu.Unlock()
	}
}

// mind looks for slow attempts.
func (s *Sender) mind() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookAt = time.Time{}
	s.queue.slow(time.Now())
	s.launch()
}

// report hands results to Done.
func (s *Sender) report() {
	var batch []Result
	for range s.wake {
		batch = s.handOver(batch)
	}
	s.handOver(batch)
}

// handOver gives Done what has gathered; the room of the last batch is used again.
func (s *Sender) handOver(room []Result) []Result {
	s.mu.Lock()
	batch := s.results
	s.results = room[:0]
	s.mu.Unlock()
	if len(batch) > 0 {
		s.Done(batch)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unreported -= len(batch)
	s.launch()
	clear(batch)
	return batch
}
