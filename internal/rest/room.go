package rest

import (
	"context"
	"sync"
	"time"
)

const (
	roomMost  = 64 << 20      // bytes of bodies that are in memory at the same time
	shareMost = 16 << 20      // and of them those of one workspace, or of all callers without a key
	keyMost   = shareMost / 4 // and of these those of one key
	roomSoon  = 10 * time.Second
)

// room bounds the memory that the bodies of requests take up together. No workspace takes more than what it leaves free, so that
// several that take all they can get still leave as much as each of them has. The zero value is ready.
type room struct {
	mu    sync.Mutex
	taken int64
	by    map[holder]int64 // by workspace, whose key is "", and by key
	freed chan struct{}    // closed when some was given back; nil when nobody waits for that
}

// holder is whose room it is; both are "" for callers without a key.
type holder struct{ workspace, key string }

func (h holder) share() holder { return holder{workspace: h.workspace} }

// take takes room, and waits for it up to roomSoon; false when there was none.
func (m *room) take(ctx context.Context, who holder, n int64) bool {
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
func (m *room) try(who holder, n int64) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.by[who.share()]+n > min(shareMost, roomMost-m.taken) || who.key != "" && m.by[who]+n > keyMost {
		if m.freed == nil {
			m.freed = make(chan struct{})
		}
		return m.freed
	}
	if m.by == nil {
		m.by = map[holder]int64{}
	}
	m.add(who, n)
	return nil
}

// add counts what was taken, or given back. The lock is held.
func (m *room) add(who holder, n int64) {
	m.taken += n
	m.by[who.share()] += n
	if who.key != "" {
		m.by[who] += n
	}
	for _, h := range []holder{who.share(), who} {
		if m.by[h] == 0 {
			delete(m.by, h)
		}
	}
}

// give gives back what was taken.
func (m *room) give(who holder, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.add(who, -n)
	if m.freed != nil {
		close(m.freed)
		m.freed = nil
	}
}
