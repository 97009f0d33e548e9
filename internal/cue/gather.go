package cue

import (
	"context"
	"errors"
	"slices"
	"sync"

	"unstuck/internal/db"
)

// gatherMost is how many calls share one transaction.
const gatherMost = 128

// gather lets concurrent calls of one kind share a turn in the database's writer, and with it their statements: while one batch
// is under way, the calls that come meanwhile form the next. It has no goroutine of its own: the call that has waited longest
// runs a batch for all in it, so a call that comes alone waits for nobody. The zero value is ready.
type gather[T any] struct {
	mu      sync.Mutex
	busy    bool // somebody runs a batch, or was told to
	waiting []*seat[T]
}

// seat is one call's place in the queue.
type seat[T any] struct {
	item *T
	lead chan struct{} // closed: run the next batch
	done chan struct{} // closed: err is the answer
	err  error
}

// batch runs items in one transaction. It asks which when its turn has come, so that all are in it that came until then; a
// transaction that runs again gets the same. Results go into the items; an error means that nothing was done for any of them.
type batch[T any] func(ctx context.Context, items func() []*T) error

var errAbandoned = errors.New("the batch that the call belonged to did not return")

// do has an item run in some batch and returns when that is committed. The end of ctx takes the item out of the queue; from
// then on that it is in a batch, it counts.
func (g *gather[T]) do(ctx context.Context, item *T, run batch[T]) error {
	s := &seat[T]{item: item, lead: make(chan struct{}), done: make(chan struct{})}
	g.mu.Lock()
	if g.busy {
		g.waiting = append(g.waiting, s)
		g.mu.Unlock()
		if lead, err := g.wait(ctx, s); !lead {
			return err
		}
	} else {
		g.busy = true
		g.mu.Unlock()
	}
	g.lead(ctx, s, run)
	return s.err
}

// wait returns true when the seat's call is to run the next batch, else its answer.
func (g *gather[T]) wait(ctx context.Context, s *seat[T]) (lead bool, err error) {
	select {
	case <-s.lead:
		return true, nil
	case <-s.done:
		return false, s.err
	case <-ctx.Done():
	}
	if g.leave(s) {
		return false, context.Cause(ctx)
	}
	select {
	case <-s.lead:
		return true, nil
	case <-s.done:
		return false, s.err
	}
}

// leave takes a seat out of the queue; false when it is no longer in it.
func (g *gather[T]) leave(s *seat[T]) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, w := range g.waiting {
		if w == s {
			g.waiting = slices.Delete(g.waiting, i, i+1)
			return true
		}
	}
	return false
}

// lead runs one batch that begins with the leader's own item, and then hands over to who waits longest.
func (g *gather[T]) lead(ctx context.Context, own *seat[T], run batch[T]) {
	own.err = errAbandoned
	seats, items := []*seat[T]{own}, []*T{own.item}
	defer func() { g.handOver(seats) }()
	err := run(context.WithoutCancel(ctx), func() []*T {
		if len(seats) == 1 {
			for _, s := range g.cut() {
				s.err = errAbandoned // what they get if run panics
				seats, items = append(seats, s), append(items, s.item)
			}
		}
		return items
	})
	for i, s := range seats {
		s.err = err
		if err != nil && len(seats) > 1 && !errors.Is(err, db.ErrUnknown) {
			// Nothing was done, for a reason that need not be everybody's: nobody suffers from another's call.
			s.err = run(context.WithoutCancel(ctx), func() []*T { return items[i : i+1] })
		}
	}
}

// cut takes the calls that wait out of the queue, as many as one batch holds.
func (g *gather[T]) cut() []*seat[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.waiting), gatherMost-1)
	seats := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	return seats
}

func (g *gather[T]) handOver(seats []*seat[T]) {
	for _, s := range seats {
		close(s.done)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) == 0 {
		g.busy = false
		return
	}
	next := g.waiting[0]
	g.waiting = g.waiting[1:]
	close(next.lead)
}
