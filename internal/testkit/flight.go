package testkit

import (
	"net/http"
	"sync"
)

// flight knows which calls a server is answering now, so that a test can wait until calls that wait have arrived.
type flight struct {
	next http.Handler
	mu   sync.Mutex
	more *sync.Cond // a call has arrived
	now  map[string]int
}

func newFlight(next http.Handler) *flight {
	f := &flight{next: next, now: map[string]int{}}
	f.more = sync.NewCond(&f.mu)
	return f
}

func (f *flight) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.count(r.URL.Path, 1)
	defer f.count(r.URL.Path, -1)
	f.next.ServeHTTP(w, r)
}

func (f *flight) count(path string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now[path] += n
	f.more.Broadcast()
}

// Await returns when the server is answering n calls of a path, or more.
func (s *Server) Await(path string, n int) {
	f := s.flight
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.now[path] < n {
		f.more.Wait()
	}
}
