package cue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/live"
	"unstuck/internal/op"
)

// TooManyStreams refuses one more reader of the live feed.
var TooManyStreams = op.Code{Status: 429, Name: "too_many_streams", Doc: "This key, its workspace or the server has as many streams open as it may. End one, or try again later."}

// Streams that may be open at the same time.
const (
	streamsOfKey       = 10
	streamsOfWorkspace = 100
	streamsOfServer    = 1000
)

const (
	streamMost   = time.Hour        // then the client comes again, so that the use of its key is noted
	streamBeat   = 15 * time.Second // a sign of life, so that proxies keep the connection
	streamWrite  = 30 * time.Second // a reader that takes nothing for so long is given up
	streamFinish = 50 * time.Millisecond
	streamBatch  = 256 // events between two looks at the key
)

type liveInput struct {
	Cue   op.Opt[string] `json:"cue" doc:"only of this cue: id or name"`
	Wait  int64          `json:"wait" default:"3600" min:"0" max:"3600" doc:"end the stream after so many seconds; 0: after what has happened since Last-Event-ID"`
	After op.Opt[string] `header:"Last-Event-ID" doc:"id of the last event that was read: go on after it"`
}

// stream is one reader of the live feed.
type stream struct {
	c      *Cues
	ctx    context.Context
	caller *access.Caller
	reader *live.Reader
	cue    string // id of the only one; "" for all
	wait   time.Duration
	look   chan struct{} // holds a token when the key, or the server, may have ended
	buf    bytes.Buffer

	mu   sync.Mutex
	sink op.Sink
	last bool // what is written from now on is the end
}

// watch tells what happens, as it happens.
func (c *Cues) watch(ctx context.Context, in liveInput) (op.Stream[LiveEvent], error) {
	s := &stream{c: c, ctx: ctx, caller: c.caller(ctx), wait: time.Duration(in.Wait) * time.Second, look: make(chan struct{}, 1)}
	if in.Cue.Set {
		err := c.DB.View(ctx, func(tx *db.Tx) error {
			q, err := loadCue(tx, s.caller, in.Cue.Val)
			if err == nil {
				s.cue = q.id
			}
			return err
		})
		if err != nil {
			return op.Stream[LiveEvent]{}, err
		}
	}
	if err := c.streams.room(s.caller); err != nil {
		return op.Stream[LiveEvent]{}, err
	}
	s.reader = c.Live.Open(s.caller.Workspace(), in.After.Val) // now, so that nothing is missed that happens once the caller has its answer
	return op.Stream[LiveEvent]{Send: s.send}, nil
}

// send writes the stream until it is over.
func (s *stream) send(to op.Sink) {
	s.sink = to
	if err := s.c.streams.enter(s); err != nil {
		s.finish(err)
		return
	}
	defer s.c.streams.leave(s)
	s.reader.Enter()
	defer s.reader.Leave()
	over := time.NewTimer(s.wait)
	defer over.Stop()
	beat := time.NewTicker(streamBeat)
	defer beat.Stop()
	fmt.Fprintf(&s.buf, "retry: 1000\nid: %s\n\n", s.reader.ID(0))
	for enough := false; ; {
		bell, err := s.next()
		if err == nil {
			err = s.flush()
		}
		select {
		case <-bell:
			if err == nil {
				continue
			}
		default:
			if err == nil && enough {
				err = errTimeOver
			}
		}
		if err != nil {
			s.finish(err)
			return
		}
		select {
		case <-bell:
		case <-s.look:
		case <-beat.C:
			fmt.Fprintf(&s.buf, ":\nid: %s\n\n", s.reader.ID(0))
		case <-over.C:
			enough = true
		case <-s.ctx.Done():
			return
		}
	}
}

// Why a stream ends other than by its key.
var (
	errTimeOver = errors.New("the stream has lasted as long as one may")
	errStopping = errors.New("the server stops")
	errGone     = errors.New("the reader takes nothing any more")
)

// next looks at the key, and puts what has happened since into the buffer, as far as the key may see it now. bell is closed when
// there is more.
func (s *stream) next() (bell <-chan struct{}, err error) {
	if s.c.streams.stopping.Load() {
		return nil, errStopping
	}
	if err := s.caller.Recheck(s.ctx); err != nil {
		return nil, err
	}
	events, gap, bell := s.reader.Next(streamBatch)
	if gap {
		s.c.streams.gaps.Add(1)
		s.write(s.reader.ID(len(events)), liveGap, op.Marshal(LiveEvent{
			Type: liveGap, At: s.c.now(), Code: "events_missed",
			Message: "Some events before this are missing: the server was restarted, or more happened than it remembers. List the executions to see how they stand.",
		}))
	}
	for i, e := range events {
		if s.sees(e) {
			s.write(s.reader.ID(len(events)-1-i), e.Type, e.Text(op.Marshal))
		}
	}
	return bell, nil
}

// sees says whether the key may see an event, and asked for it.
func (s *stream) sees(e *live.Event) bool {
	switch {
	case s.cue != "" && s.cue != e.Cue, e.Needs != "" && !s.caller.Holds(e.Needs):
		return false
	case e.Cue == "": // about a key: for keys that are for all cues
		return s.caller.CueFilter() == nil
	}
	return s.caller.SeesCue(e.Cue, e.CueName)
}

// write puts one event into the buffer.
func (s *stream) write(id, kind string, data []byte) {
	if id != "" {
		fmt.Fprintf(&s.buf, "id: %s\n", id)
	}
	fmt.Fprintf(&s.buf, "event: %s\ndata: %s\n\n", kind, data)
}

// flush sends the buffer. A reader that takes nothing for long is given up.
func (s *stream) flush() error {
	if s.buf.Len() == 0 {
		return nil
	}
	s.mu.Lock()
	if !s.last {
		_ = s.sink.SetWriteDeadline(time.Now().Add(streamWrite)) // what has no deadlines is no connection
	}
	s.mu.Unlock()
	_, err := s.sink.Write(s.buf.Bytes())
	if err == nil {
		err = s.sink.Flush()
	}
	if s.buf.Reset(); s.buf.Cap() > 256<<10 {
		s.buf = bytes.Buffer{}
	}
	if err != nil {
		return errors.Join(errGone, err)
	}
	return nil
}

// finish tells the reader why the stream ends.
func (s *stream) finish(why error) {
	if errors.Is(why, errGone) {
		return
	}
	e := LiveEvent{Type: liveEnd, At: s.c.now()}
	switch {
	case errors.Is(why, errTimeOver):
		e.Code, e.Message = "time_over", "This stream has lasted as long as one may. Open it again with the last id."
	case errors.Is(why, errStopping):
		e.Code, e.Message = "server_stopping", "The server stops. Open the stream again with the last id."
	default:
		refusal := op.AsError(why)
		e.Code, e.Message = refusal.Code.Name, refusal.Message
	}
	s.urge()
	s.write("", liveEnd, op.Marshal(e))
	_ = s.flush() // it ends anyway
}

// urge lets the stream look at its key at once, and a write that hangs end soon.
func (s *stream) urge() {
	s.mu.Lock()
	if !s.last {
		s.last = true
		_ = s.sink.SetWriteDeadline(time.Now().Add(streamFinish))
	}
	s.mu.Unlock()
	select {
	case s.look <- struct{}{}:
	default:
	}
}

// streams are those that are open. The zero value is ready.
type streams struct {
	mu       sync.Mutex
	all      map[*stream]struct{}
	of       map[string]int // by key, and by workspace
	guarded  bool           // somebody looks after their keys
	stopping atomic.Bool
	gaps     atomic.Int64
}

// room refuses one more stream of a caller when there are too many.
func (t *streams) room(caller *access.Caller) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var of string
	switch {
	case t.stopping.Load():
		return op.Unavailable.Wrap(errStopping, "The server stops. Try again in a moment.")
	case t.of[caller.KeyID()] >= streamsOfKey:
		of = fmt.Sprintf("This key has %d streams open, the most it may.", streamsOfKey)
	case t.of[caller.Workspace()] >= streamsOfWorkspace:
		of = fmt.Sprintf("This workspace has %d streams open, the most it may.", streamsOfWorkspace)
	case len(t.all) >= streamsOfServer:
		of = "The server has as many streams open as it may."
	default:
		return nil
	}
	e := TooManyStreams.Msg("%s End one, or try again later.", of)
	e.Header = http.Header{"Retry-After": {"60"}}
	return e
}

// enter counts a stream in; it must leave.
func (t *streams) enter(s *stream) error {
	if err := t.room(s.caller); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		t.all, t.of = map[*stream]struct{}{}, map[string]int{}
	}
	t.all[s] = struct{}{}
	t.of[s.caller.KeyID()]++
	t.of[s.caller.Workspace()]++
	if !t.guarded {
		t.guarded = true
		go s.c.guardStreams()
	}
	return nil
}

func (t *streams) leave(s *stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.all, s)
	for _, of := range []string{s.caller.KeyID(), s.caller.Workspace()} {
		if t.of[of]--; t.of[of] == 0 {
			delete(t.of, of)
		}
	}
}

// guardStreams urges streams whose key does not stand any more, until none is open: at once when any right changes, and often,
// because keys also end by the clock. One goroutine does so for all, since an idle stream is to cost nothing.
func (c *Cues) guardStreams() {
	ticker := time.NewTicker(recheckEvery)
	defer ticker.Stop()
	t := &c.streams
	for {
		changed := c.Access.Changed() // asked before the keys are looked at, so that no change goes unseen
		t.mu.Lock()
		if len(t.all) == 0 {
			t.guarded = false
			t.mu.Unlock()
			return
		}
		for s := range t.all {
			if t.stopping.Load() || !s.caller.Stands() {
				s.urge()
			}
		}
		t.mu.Unlock()
		select {
		case <-changed:
		case <-ticker.C:
		}
	}
}

// EndStreams ends all streams of the live feed, and lets no further one begin: the server stops.
func (c *Cues) EndStreams() {
	t := &c.streams
	t.stopping.Store(true)
	t.mu.Lock()
	defer t.mu.Unlock()
	for s := range t.all {
		s.urge()
	}
}

// LiveStats is what there is to know of the live feed, for metrics.
type LiveStats struct {
	Streams   int   // open
	Published int64 // events that were kept for readers
	Gaps      int64 // times that a reader was told that it missed some
}

// LiveStats says how the live feed is used.
func (c *Cues) LiveStats() LiveStats {
	t := &c.streams
	t.mu.Lock()
	defer t.mu.Unlock()
	return LiveStats{Streams: len(t.all), Published: c.Live.Published(), Gaps: t.gaps.Load()}
}
