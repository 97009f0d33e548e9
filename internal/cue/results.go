package cue

import (
	"context"
	"sync"
	"time"
)

// lingerMost is how long results wait to be stored while the scheduler still fires what is due: calls that are late count more
// than what is known of those that were made.
const lingerMost = 40 * time.Millisecond

// results are those that wait to be stored.
type results struct {
	mu   sync.Mutex
	list []*result
	came chan struct{} // holds a token when there are some

	calm chan struct{} // closed while the scheduler is not in a hurry
	busy bool
}

func (r *results) open() {
	r.came, r.calm = make(chan struct{}, 1), make(chan struct{})
	close(r.calm)
}

// add takes a result from the sender.
func (r *results) add(one *result) {
	r.mu.Lock()
	r.list = append(r.list, one)
	r.mu.Unlock()
	r.ring()
}

func (r *results) ring() {
	select {
	case r.came <- struct{}{}:
	default:
	}
}

// take gives up to so many, oldest first.
func (r *results) take(most int) []*result {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.list), most)
	some := r.list[:n:n]
	if r.list = r.list[n:]; len(r.list) == 0 {
		r.list = nil
	}
	return some
}

// putBack is for results that could not be stored: the others go first.
func (r *results) putBack(some []*result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, some...)
}

// hurried says that the scheduler has more to fire than one commit holds; unhurried that it has not.
func (r *results) hurried() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.busy {
		r.busy, r.calm = true, make(chan struct{})
	}
}

func (r *results) unhurried() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy {
		r.busy = false
		close(r.calm)
	}
}

// linger waits until the scheduler is calm, but not long.
func (r *results) linger(ctx context.Context) {
	r.mu.Lock()
	calm := r.calm
	r.mu.Unlock()
	select {
	case <-calm:
		return
	default:
	}
	timer := time.NewTimer(lingerMost)
	defer timer.Stop()
	select {
	case <-calm:
	case <-timer.C:
	case <-ctx.Done():
	}
}
