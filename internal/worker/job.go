package worker

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

// do runs the handler for an execution under its lease, and says how it ended.
func (w *worker) do(h Handler, a *attempt) {
	e := a.execution
	holding, letGo := context.WithCancel(w.working) // the lease is held until the report is there
	var keeping sync.WaitGroup
	keeping.Go(func() { w.keep(holding, e, a.stop) })
	defer keeping.Wait()
	defer letGo()
	if w.working.Err() != nil {
		w.release(e, false)
		return
	}
	r := w.run(a.handling, h, e)
	if r.unable != nil { // others get the work; this one keeps its place for a while, so that it asks for less
		w.Log.Error("no handler can be started", attrs(e, "error", r.unable.Error())...)
		w.release(e, false)
		pause(w.asking, w.config.Poll)
		return
	}
	if !r.stopped {
		w.tell(e, r)
		return
	}
	switch cause := context.Cause(a.handling); {
	case errors.Is(cause, errLost):
		w.Log.Warn("stopped: its lease is over, and somebody else may have it", attrs(e)...)
	case errors.Is(cause, ErrKey):
		w.Log.Warn("stopped: nobody can report it without a key", attrs(e)...)
	default:
		w.release(e, true)
	}
}

// release gives an execution back when the worker is at its end.
func (w *worker) release(e *execution, begun bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.working), w.config.KillGrace)
	defer cancel()
	w.giveBack(ctx, e, begun)
}

// keep renews a lease until the context ends. When it is over, the handler is stopped.
func (w *worker) keep(ctx context.Context, e *execution, stop context.CancelCauseFunc) {
	every := w.config.Heartbeat
	if e.lease > 0 {
		every = min(every, e.lease/3)
	}
	told := false
	for {
		pause(ctx, every)
		if ctx.Err() != nil {
			return
		}
		err := w.server.renew(ctx, e)
		switch {
		case err == nil:
			told = false
		case ctx.Err() != nil, w.keyRefused(err):
			return
		case passes(err):
			if !told {
				w.Log.Warn("its lease could not be renewed", attrs(e, "error", err.Error())...)
			}
			told = true
		default:
			stop(errLost)
			return
		}
	}
}

// tell reports how a handler ended, again and again until the server has answered: an outcome is written once, and the same report
// again gets the same answer.
func (w *worker) tell(e *execution, r *result) {
	out, plain, wait, told := r.outcome(), false, backoff{}, ""
	line := attrs(e, "ended", firstOf(r.exit, "timed out"), "took", r.took.Round(time.Millisecond).String())
	for {
		err := w.server.report(w.working, e, out)
		switch status := statusOf(err); {
		case err == nil:
			said := "done"
			if out["success"] == false {
				said = "failed"
			}
			w.Log.Info(said, line...)
			return
		case w.keyRefused(err), w.working.Err() != nil:
			w.Log.Error("its outcome could not be reported", append(line, "error", err.Error())...)
			return
		case status == http.StatusConflict, status == http.StatusNotFound: // fenced: its lease is over, or it has another outcome
			w.Log.Warn("its outcome is not taken", append(line, "error", err.Error())...)
			return
		case passes(err):
			if err.Error() != told {
				told = err.Error()
				w.Log.Warn("its outcome is not reported yet", append(line, "error", told)...)
			}
			pause(w.working, wait.next(err))
		case !plain: // refused for its form
			w.Log.Warn("its evidence is not taken", append(line, "error", err.Error())...)
			out, plain = out.plain(err), true
		default:
			w.Log.Error("its outcome is not taken", append(line, "error", err.Error())...)
			return
		}
	}
}
