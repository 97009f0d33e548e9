package op

import (
	"reflect"
	"time"
)

// Stream is the output of an operation that does not answer with one document but goes on telling: as server-sent events, the data
// of each an E. It has the same declaration and passes the same guard as every operation; only its bytes are its own.
//
// The guard's Done runs before Send: the call has ended well then, whatever happens to the stream.
type Stream[E any] struct {
	// Send writes until the stream is over, its reader is gone (then writing fails), or the context of the call ends.
	Send func(Sink)
}

// Sink is where a stream writes. Its methods other than Write may be called by any goroutine.
type Sink interface {
	Write(p []byte) (int, error)
	// Flush sends what was written on its way.
	Flush() error
	// SetWriteDeadline makes writing fail from a moment on, also a write that hangs.
	SetWriteDeadline(time.Time) error
}

func (Stream[E]) event() reflect.Type { return reflect.TypeFor[E]() }

func (s Stream[E]) sender() func(Sink) { return s.Send }

type streamed interface {
	event() reflect.Type
	sender() func(Sink)
}

// Streams says whether the operation answers with a stream of events; OutSchema then describes the data of one.
func (o *Operation) Streams() bool { return o.Out.Implements(reflect.TypeFor[streamed]()) }
