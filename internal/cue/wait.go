package cue

import "sync"

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
}
