package cue

import (
	"context"
	"errors"
	"sync"
)

// waiters are the calls that wait for work, by workspace. The zero value is ready.
//
// No wake-up is lost: a call takes its bell before it looks for work, and who makes work rings after the commit. Work that was
// committed before the look is seen by it; work committed later rings the bell that was taken.
type waiters struct {
	mu    sync.Mutex
	rooms map[string]*room
}

// room is where the waiting calls of one workspace sit.
type room struct {
	bell   chan struct{} // closed when there may be work, and replaced
	guests int
}

// enter counts a call in; it must leave.
func (w *waiters) enter(workspace string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rooms == nil {
		w.rooms = map[string]*room{}
	}
	r := w.rooms[workspace]
	if r == nil {
		r = &room{bell: make(chan struct{})}
		w.rooms[workspace] = r
	}
	r.guests++
}

func (w *waiters) leave(workspace string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.rooms[workspace]
	if r.guests--; r.guests == 0 {
		delete(w.rooms, workspace)
	}
}

// bell is closed at the next ring. The caller must have entered.
func (w *waiters) bell(workspace string) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rooms[workspace].bell
}

func (w *waiters) ring(workspace string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.rooms[workspace]; r != nil {
		close(r.bell)
		r.bell = make(chan struct{})
	}
}

// wake makes the calls of a workspace that wait for work look again. It runs after the commit that made the work.
func (c *Cues) wake(workspace string) { c.waiting.ring(workspace) }

// pulling is what the package keeps in memory about workers that pull. Its zero value is ready; Cues embeds it.
type pulling struct {
	claims  gather[claim]
	reports gather[report]
	waiting waiters
	repeats repeats
}

// repeats are the waiting calls that have a request_id. A call that repeats one of them takes its place, and asks only when that
// one has left: otherwise work could go to a call whose caller hung up, unnoticed so far, after its caller had asked again in
// vain. The zero value is ready.
type repeats struct {
	mu    sync.Mutex
	calls map[holder]*repeatable
}

type repeatable struct {
	stop context.CancelCauseFunc
	left chan struct{} // closed when it takes nothing any more
}

var errReplaced = errors.New("the call was repeated while it waited")

// replace ends the call that a claim repeats, if that still waits. A claim that waits may be replaced itself: its context then
// ends with errReplaced. The caller must leave.
func (r *repeats) replace(ctx context.Context, cl *claim, waits bool) (place context.Context, leave func()) {
	if cl.request == "" {
		return ctx, func() {}
	}
	place, stop := context.WithCancelCause(ctx)
	own := &repeatable{stop, make(chan struct{})}
	of := holder{key: cl.caller.KeyID(), worker: cl.worker, request: cl.request}
	r.mu.Lock()
	old := r.calls[of]
	if waits {
		if r.calls == nil {
			r.calls = map[holder]*repeatable{}
		}
		r.calls[of] = own
	}
	r.mu.Unlock()
	if old != nil {
		old.stop(errReplaced)
		<-old.left
	}
	return place, func() {
		stop(nil)
		close(own.left)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.calls[of] == own {
			delete(r.calls, of)
		}
	}
}
