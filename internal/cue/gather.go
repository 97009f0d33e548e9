package cue

import (
	"context"
	"errors"
	"sync"

	"unstuck/internal/db"
)

// gatherMost is how many calls share one transaction.
const gatherMost = 128

// gather lets concurrent calls of one kind share a transaction: while one batch is in the database, the calls that come
// meanwhile form the next. It has no goroutine of its own: the call that has waited longest runs a batch for all in it, so a
// call that comes alone waits for nobody. The zero value is ready.
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

// batch runs items in one transaction. Results go into the items; an error means that nothing was done for any of them. It may
// be called again with the same items.
type batch[T any] func(ctx context.Context, items []*T) error

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
			g.waiting = append(g.waiting[:i], g.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// lead runs one batch that begins with the leader's own item and then hands over to who waits longest.
func (g *gather[T]) lead(ctx context.Context, own *seat[T], run batch[T]) {
	g.mu.Lock()
	n := min(len(g.waiting), gatherMost-1)
	seats := append([]*seat[T]{own}, g.waiting[:n]...)
	g.waiting = append([]*seat[T](nil), g.waiting[n:]...)
	g.mu.Unlock()
	for _, s := range seats {
		s.err = errAbandoned // what others get if run panics
	}
	defer g.handOver(seats)
	runSeats(context.WithoutCancel(ctx), seats, run)
}

// runSeats runs all items in one transaction. When that fails for a reason that need not be everybody's, each is run alone, so
// that nobody suffers from another's call.
func runSeats[T any](ctx context.Context, seats []*seat[T], run batch[T]) {
	items := make([]*T, len(seats))
	for i, s := range seats {
		items[i] = s.item
	}
	err := run(ctx, items)
	if err != nil && len(seats) > 1 && !errors.Is(err, db.ErrUnknown) {
		for i, s := range seats {
			s.err = run(ctx, items[i:i+1])
		}
		return
	}
	for _, s := range seats {
		s.err = err
	}
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
