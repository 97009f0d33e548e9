package rest

import (
	"net/http"
	"runtime/debug"
	"time"

	"unstuck/internal/op"
)

const eventStream = "text/event-stream"

// sink is where a stream of an operation is written.
type sink struct {
	http.ResponseWriter
	*http.ResponseController
}

// stream answers with events until they are over. Proxies are told to keep none of them back: nginx by a header of its own, others
// by no-transform. The time that a connection has for a request and its answer does not count; the stream sets its own for each write.
func (h *handler) stream(w http.ResponseWriter, r *http.Request, res *op.Response, id string) {
	header := w.Header()
	header.Set("Content-Type", eventStream)
	header.Set("Cache-Control", "no-store, no-transform")
	header.Set("X-Accel-Buffering", "no")
	w.WriteHeader(res.Status)
	if r.Method == http.MethodHead {
		return
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // what cannot do so has no such limit either
	_ = control.Flush()                      // so that the caller has its answer before there is anything to tell
	defer func() {
		_ = control.SetWriteDeadline(time.Now().Add(lastWrite)) // for the end, whatever the stream has left
		if p := recover(); p != nil {
			h.Log.Error("panic in a stream", "request", id, "panic", p, "stack", string(debug.Stack()))
			panic(http.ErrAbortHandler) // the answer has begun, so that only its end can tell the caller
		}
	}()
	res.Send(sink{w, control})
}

// lastWrite is how long the end of a stream may take.
const lastWrite = 10 * time.Second
