package rest

import (
	"context"
	"sync"
	"time"
)

const (
	roomMost  = 64 << 20 // bytes of bodies that are in memory at the same time
	shareMost = 16 << 20 // and of them those of one workspace, or of all callers without a key
	roomSoon  = 10 * time.Second
)

// room bounds the memory that the bodies of requests take up together. The zero value is ready.
type room struct {
	mu    sync.Mutex
	taken int64
	by    map[string]int64 // by workspace; "" for callers without a key
	freed chan struct{}    // closed when some was given back; nil when nobody waits for that
}

// take takes room, and waits for it up to roomSoon; false when there was none.
func (m *room) take(ctx context.Context, who string, n int64) bool {
	soon, cancel := context.WithTimeout(ctx, roomSoon)
	defer cancel()
	for {
		freed := m.try(who, n)
		if freed == nil {
			return true
		}
		select {
		case <-freed:
		case <-soon.Done():
			return false
		}
	}
}

// try takes room at once, or answers what is closed when there may be some.
func (m *room) try(who string, n int64) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.taken+n > roomMost || m.by[who]+n > shareMost {
		if m.freed == nil {
			m.freed = make(chan struct{})
		}
		return m.freed
	}
	if m.by == nil {
		m.by = map[string]int64{}
	}
	m.taken += n
	m.by[who] += n
	return nil
}

// give gives back what was taken.
func (m *room) give(who string, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.taken -= n
	if m.by[who] -= n; m.by[who] == 0 {
		delete(m.by, who)
	}
	if m.freed != nil {
		close(m.freed)
		m.freed = nil
	}
}
