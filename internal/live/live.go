// Package live keeps what just happened for those who watch: a short memory of events for each workspace that somebody watches,
// read by position. It knows no noun and stores nothing.
//
// Nothing is kept for a workspace that nobody watches, so that publishing costs nothing there. Readers take from the memory at their
// own pace, and no event waits for them: who falls behind by more than the memory holds is told that it missed some.
package live

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"
)

// Event is one thing that happened. It does not change once it is published.
type Event struct {
	Type         string // of the event, like "due"
	Needs        string // the permission that a reader must hold besides; "" for none
	Cue, CueName string // the cue that it is about, and how that was called then; "" for none
	Data         any    // what is told: a JSON-able struct

	once sync.Once
	text []byte
}

// Text is Data as marshal writes it, which is asked once for all readers.
func (e *Event) Text(marshal func(any) []byte) []byte {
	e.once.Do(func() { e.text = marshal(e.Data) })
	return e.text
}

const (
	held   = 4096            // events of one workspace that are kept
	linger = 5 * time.Minute // a workspace is remembered for so long after its last reader left, who may come back
)

// Feed is the memory of a server. Its methods may be called from any goroutine.
type Feed struct {
	mu        sync.RWMutex
	rooms     map[string]*room // by workspace
	watched   atomic.Int32     // rooms that there are
	cipher    cipher.Block     // of ids; another one in every process
	published atomic.Int64
}

// New is a feed that nobody watches.
func New() *Feed {
	var key [16]byte
	rand.Read(key[:]) // never fails: crypto/rand ends the program instead
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("live: " + err.Error()) // the key has the right length
	}
	return &Feed{rooms: map[string]*room{}, cipher: block}
}

// room is the memory of one workspace.
type room struct {
	tag [8]byte // of the room, in ids: another room of the workspace, later, takes them for strange

	mu      sync.Mutex
	ring    []*Event      // event number n is at n % held
	next    uint64        // number of the next event; the first is 1
	bell    chan struct{} // closed with the next event, and replaced
	readers int
	empty   *time.Timer // ends the room when nobody came back
}

// Publish tells those who watch a workspace what happened there, in this order. It is to be called after the commit. It neither
// waits for readers nor keeps the slice.
func (f *Feed) Publish(workspace string, events ...*Event) {
	if f.watched.Load() == 0 || len(events) == 0 {
		return
	}
	f.mu.RLock()
	r := f.rooms[workspace]
	f.mu.RUnlock()
	if r == nil {
		return
	}
	f.published.Add(int64(len(events)))
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range events {
		if at := int(r.next % held); at < len(r.ring) {
			r.ring[at] = e
		} else {
			r.ring = append(r.ring, e)
		}
		r.next++
	}
	close(r.bell)
	r.bell = make(chan struct{})
}

// Watched says whether anybody watches, or did a moment ago. Who publishes may ask, to save itself the making of events.
func (f *Feed) Watched() bool { return f.watched.Load() > 0 }

// Published counts the events that were kept for readers.
func (f *Feed) Published() int64 { return f.published.Load() }

// Reader reads the events of a workspace, each once. It is for one goroutine at a time.
type Reader struct {
	feed *Feed
	room *room
	at   uint64 // number of the event that comes next
	gap  bool   // some that it should have seen are not kept any more
}

// Open reads from the event after the one with this id on, or, without an id, from now on. Where that is not known any more, because
// the server was restarted, too much happened since, or the id is none of this workspace, it reads what is kept, and Next says that
// some may be missing. The reader must enter before it reads.
func (f *Feed) Open(workspace, after string) *Reader {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.rooms[workspace]
	if r == nil {
		r = &room{next: 1, ring: []*Event{nil}, bell: make(chan struct{})} // number 0 is no event
		rand.Read(r.tag[:])
		r.empty = time.AfterFunc(linger, func() { f.forget(workspace, r) })
		f.rooms[workspace] = r
		f.watched.Add(1)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	x := &Reader{feed: f, room: r, at: r.next}
	if after != "" {
		number, ok := f.number(r, after)
		if x.at = number + 1; !ok || x.at > r.next {
			x.at, x.gap = r.oldest(), true
		}
	}
	return x
}

// Enter counts the reader in; it must leave. Until then what happens is kept for it as for one who may come back.
func (x *Reader) Enter() {
	x.room.mu.Lock()
	defer x.room.mu.Unlock()
	x.room.readers++
	x.room.empty.Stop()
}

// Leave ends the reading.
func (x *Reader) Leave() {
	x.room.mu.Lock()
	defer x.room.mu.Unlock()
	if x.room.readers--; x.room.readers == 0 {
		x.room.empty.Reset(linger)
	}
}

func (f *Feed) forget(workspace string, r *room) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.readers == 0 && f.rooms[workspace] == r {
		delete(f.rooms, workspace)
		f.watched.Add(-1)
	}
}

// Next takes up to so many events that are there already; none when there are none. gap says that some before them are missing. bell
// is closed when there are more than these.
func (x *Reader) Next(most int) (events []*Event, gap bool, bell <-chan struct{}) {
	r := x.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if oldest := r.oldest(); x.at < oldest {
		x.at, x.gap = oldest, true
	}
	gap, x.gap = x.gap, false
	for ; x.at < r.next && len(events) < most; x.at++ {
		events = append(events, r.ring[x.at%held])
	}
	if x.at < r.next {
		return events, gap, ringing()
	}
	return events, gap, r.bell
}

func ringing() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// ID names the position after the event that is so many before the next: who opens the feed with it misses nothing and sees nothing
// twice.
func (x *Reader) ID(before int) string { return x.feed.id(x.room, x.at-1-uint64(before)) }

// oldest is the number of the first event that is kept.
func (r *room) oldest() uint64 {
	if r.next <= held {
		return 1
	}
	return r.next - held
}

// id is a number in a form that tells nothing, not even how much happened that its reader may not see, and that no other process and
// no other workspace takes for one of its own.
func (f *Feed) id(r *room, number uint64) string {
	var b [aes.BlockSize]byte
	copy(b[:8], r.tag[:])
	binary.BigEndian.PutUint64(b[8:], number)
	f.cipher.Encrypt(b[:], b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func (f *Feed) number(r *room, id string) (uint64, bool) {
	b, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil || len(b) != aes.BlockSize {
		return 0, false
	}
	f.cipher.Decrypt(b, b)
	return binary.BigEndian.Uint64(b[8:]), [8]byte(b[:8]) == r.tag
}
