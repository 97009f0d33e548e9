package webhook

import (
	"container/list"
	"errors"
	"net/url"
	"strings"
	"time"
)

// fifo is a queue; the zero value is empty.
type fifo[T any] struct {
	items []T
	head  int
}

func (q *fifo[T]) len() int { return len(q.items) - q.head }

func (q *fifo[T]) push(v T) { q.items = append(q.items, v) }

// pop takes the first; it panics on an empty queue.
func (q *fifo[T]) pop() T {
	var zero T
	v := q.items[q.head]
	q.items[q.head] = zero
	q.head++
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
		if cap(q.items) > 1024 {
			q.items = nil
		}
	} else if q.head > 1024 && q.head > len(q.items)/2 {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	return v
}

// lane is one of the two in which attempts are counted; see the package comment.
type lane int

const (
	proven lane = iota
	doubtful
	lanes
)

// workspace is one that has jobs waiting or on their way.
type workspace struct {
	id       string
	ready    [lanes]fifo[*endpoint] // those that may send, in the order of their turns
	listed   [lanes]bool            // stands in queue.ready
	inFlight [lanes]int
	jobs     int // waiting or on their way
	size     int // bytes that wait
}

// endpoint is a workspace's receiver. Its queue is empty while it rests.
type endpoint struct {
	at        endpointKey
	url       *url.URL // of the last job, parsed
	rawURL    string
	workspace *workspace // nil while idle
	queue     fifo[*Job]
	lane      lane // in which the next attempt is counted
	listed    bool // stands in a ready of its workspace
	inFlight  int
	window    int // inFlight at most
	faults    int // in a row
	rests     int // in a row
	restUntil time.Time
	idle      *list.Element // in queue.idle while nothing waits or is on its way
}

type endpointKey struct{ workspace, url string }

// attempt is a job on its way.
type attempt struct {
	job      *Job
	endpoint *endpoint
	lane     lane     // in which it is counted
	url      *url.URL // nil: cannot be read
	began    time.Time
	watched  *list.Element // in queue.watched while it is counted as proven
}

const (
	maxFaults   = 5                     // in a row, then the endpoint rests
	firstRest   = 5 * time.Second       // doubles with each rest in a row
	lastRest    = 5 * time.Minute       // the longest
	slowAfter   = time.Second           // an attempt that takes longer counts as doubtful,
	slowPressed = 50 * time.Millisecond // or so long when others have to wait for its place
	jobSize     = 1024                  // bytes that a job takes beside its body, about
)

// queue decides whose job goes next. It is not safe for concurrent use.
type queue struct {
	limit      [lanes]int // attempts that may begin in each lane
	total      int        // attempts in flight at most
	windowMax  int
	sizeMax    int // bytes that wait
	idleMax    int // endpoints that are remembered while nothing is to be sent to them
	workspaces map[string]*workspace
	endpoints  map[endpointKey]*endpoint
	idle       list.List     // of *endpoint, the one that was used last in front
	watched    list.List     // of *attempt that are counted as proven, in the order in which they began
	pressed    bool          // somebody had to wait for a place among the proven
	usual      time.Duration // what attempts take that stay proven, about: on a busy machine all take longer
	ready      [lanes]fifo[*workspace]
	first      lane // that is looked at first for the next attempt
	inFlight   [lanes]int
	waiting    int // jobs
	resting    int // endpoints, those included whose rest is over and that were not tried since
	size       int // bytes that wait
}

// offer queues a job. It is false when there is no room: a workspace may take up to a quarter of it, and one that has nothing
// waiting always gets one job in. rest is more than zero when the endpoint rests; the job was not queued then.
func (q *queue) offer(j *Job, now time.Time) (ok bool, rest time.Duration) {
	base, _, _ := strings.Cut(j.URL, "?")
	key := endpointKey{j.Workspace, base}
	e := q.endpoints[key]
	if e != nil {
		if rest = e.restUntil.Sub(now); rest > 0 {
			return true, rest
		}
	}
	w, size := q.workspaces[j.Workspace], len(j.Body)+jobSize
	if w != nil && w.size > 0 && (q.size+size > q.sizeMax || w.size+size > q.sizeMax/4) {
		return false, 0
	}
	if w == nil {
		w = &workspace{id: j.Workspace}
		q.workspaces[w.id] = w
	}
	if e == nil {
		e = &endpoint{at: key, lane: doubtful, window: 1}
		q.endpoints[key] = e
	}
	if e.idle != nil {
		q.idle.Remove(e.idle)
		e.idle = nil
	}
	e.workspace = w
	e.queue.push(j)
	w.jobs++
	w.size += size
	q.size += size
	q.waiting++
	q.list(e)
	return true, 0
}

// unqueue takes the endpoint's first job off its queue. The workspace still counts it.
func (q *queue) unqueue(e *endpoint) *Job {
	j := e.queue.pop()
	size := len(j.Body) + jobSize
	e.workspace.size -= size
	q.size -= size
	q.waiting--
	return j
}

// list puts an endpoint that may send at the end of the line of its workspace.
func (q *queue) list(e *endpoint) {
	if e.listed || e.queue.len() == 0 || e.inFlight >= e.window {
		return
	}
	e.listed = true
	e.workspace.ready[e.lane].push(e)
	q.listWorkspace(e.workspace, e.lane)
}

func (q *queue) listWorkspace(w *workspace, l lane) {
	if !w.listed[l] && w.ready[l].len() > 0 {
		w.listed[l] = true
		q.ready[l].push(w)
	}
}

// next is the attempt that is to begin now; nil when there is none.
func (q *queue) next(now time.Time) *attempt {
	a := q.take(now)
	if a == nil && q.pressed && q.slow(now) {
		a = q.take(now)
	}
	return a
}

// take lets the lanes take turns.
func (q *queue) take(now time.Time) *attempt {
	q.pressed = false
	for i := range lanes {
		l := (q.first + i) % lanes
		if e := q.nextIn(l); e != nil {
			q.first = (l + 1) % lanes
			return q.begin(e, l, now)
		}
	}
	return nil
}

// nextIn finds the endpoint whose turn it is in a lane.
func (q *queue) nextIn(l lane) *endpoint {
	free := min(q.limit[l]-q.inFlight[l], q.total-q.inFlight[proven]-q.inFlight[doubtful])
	if free <= 0 {
		q.pressed = q.pressed || l == proven && q.ready[l].len() > 0
		return nil
	}
	for range q.ready[l].len() {
		w := q.ready[l].pop()
		w.listed[l] = false
		if w.inFlight[l] >= free {
			q.listWorkspace(w, l) // its turn comes when others are done
			q.pressed = q.pressed || l == proven
			continue
		}
		if e := q.nextOf(w, l); e != nil {
			return e
		}
	}
	return nil
}

func (q *queue) nextOf(w *workspace, l lane) *endpoint {
	for w.ready[l].len() > 0 {
		e := w.ready[l].pop()
		e.listed = false
		if e.lane == l && e.queue.len() > 0 && e.inFlight < e.window {
			return e
		}
		q.list(e) // it changed its lane, or has nothing to send
	}
	return nil
}

// begin takes the first job of an endpoint that has just left the lines.
func (q *queue) begin(e *endpoint, l lane, now time.Time) *attempt {
	a := &attempt{job: q.unqueue(e), endpoint: e, lane: l, began: now}
	if e.rawURL != a.job.URL {
		e.rawURL = a.job.URL
		e.url, _ = url.Parse(e.rawURL) // nil when it cannot be read
	}
	a.url = e.url
	if l == proven {
		a.watched = q.watched.PushBack(a)
	}
	e.inFlight++
	e.workspace.inFlight[l]++
	q.inFlight[l]++
	q.list(e)
	q.listWorkspace(e.workspace, l)
	return a
}

// look is when to ask slow again; zero when there is nothing to look for.
func (q *queue) look() time.Time {
	if q.watched.Len() == 0 {
		return time.Time{}
	}
	patience := slowAfter
	if q.pressed {
		patience = min(max(slowPressed, 4*q.usual), slowAfter)
	}
	return q.watched.Front().Value.(*attempt).began.Add(patience)
}

// slow moves attempts that have taken too long to the doubtful. It is true when there were any.
func (q *queue) slow(now time.Time) (moved bool) {
	for look := q.look(); !look.IsZero() && !now.Before(look); look = q.look() {
		a := q.watched.Remove(q.watched.Front()).(*attempt)
		w := a.endpoint.workspace
		q.inFlight[proven]--
		w.inFlight[proven]--
		q.inFlight[doubtful]++
		w.inFlight[doubtful]++
		a.watched, a.lane, a.endpoint.lane = nil, doubtful, doubtful
		moved = true
	}
	return moved
}

// finish notes what became of an attempt. When its endpoint is to rest, that is for how long, and the jobs that waited for it come
// back.
func (q *queue) finish(a *attempt, res *Result, now time.Time) (rest time.Duration, back []*Job) {
	e, w := a.endpoint, a.endpoint.workspace
	limited := e.inFlight >= e.window && e.queue.len() > 0
	if a.watched != nil {
		q.usual += (res.Took - q.usual) / 16
		q.watched.Remove(a.watched)
	}
	e.inFlight--
	w.inFlight[a.lane]--
	q.inFlight[a.lane]--
	w.jobs--
	switch {
	case res.Class == Refused || res.Class == Unsent || errors.Is(res.Err, ErrStopped): // says nothing about the receiver
	case res.Class != Failed:
		q.alive(e, res.Took <= slowAfter)
		if limited {
			e.window = min(e.window+1, q.windowMax)
		}
	case res.Status == 408 || res.Status == 429: // alive, and asks for less
		q.alive(e, false)
		e.window = 1
	default:
		e.lane, e.window = doubtful, 1
		if e.faults++; e.faults >= maxFaults && !e.restUntil.After(now) {
			rest, back = q.rest(e, now)
		}
	}
	q.list(e)
	q.settle(e)
	return rest, back
}

// alive notes that an endpoint answered.
func (q *queue) alive(e *endpoint, swiftly bool) {
	if e.rests > 0 {
		q.resting--
	}
	e.faults, e.rests, e.restUntil = 0, 0, time.Time{}
	if e.lane = doubtful; swiftly {
		e.lane = proven
	}
}

// rest keeps an endpoint from being called for a while.
func (q *queue) rest(e *endpoint, now time.Time) (rest time.Duration, back []*Job) {
	if e.rests == 0 {
		q.resting++
	}
	rest = min(firstRest<<min(e.rests, 16), lastRest)
	e.rests++
	e.restUntil = now.Add(rest)
	return rest, q.takeBack(e)
}

// takeBack empties an endpoint's queue.
func (q *queue) takeBack(e *endpoint) (back []*Job) {
	for e.queue.len() > 0 {
		back = append(back, q.unqueue(e))
		e.workspace.jobs--
	}
	return back
}

// settle forgets a workspace that has nothing to do, and an endpoint when too many have nothing to do.
func (q *queue) settle(e *endpoint) {
	w := e.workspace
	if e.inFlight == 0 && e.queue.len() == 0 {
		e.window = min(e.window, 2) // what it could take an hour ago says little
		e.workspace = nil
		e.idle = q.idle.PushFront(e)
	}
	if w.jobs == 0 {
		delete(q.workspaces, w.id)
	}
	for q.idle.Len() > q.idleMax {
		last := q.idle.Remove(q.idle.Back()).(*endpoint)
		if last.rests > 0 {
			q.resting--
		}
		delete(q.endpoints, last.at)
	}
}

// clear empties the queue.
func (q *queue) clear() (back []*Job) {
	for _, e := range q.endpoints {
		if e.queue.len() > 0 {
			back = append(back, q.takeBack(e)...)
			q.settle(e)
		}
	}
	return back
}
