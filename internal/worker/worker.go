package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Options are what a worker needs beside its configuration.
type Options struct {
	Base    string // address of the server, without a slash at its end
	Key     string
	Worker  string // its id
	Version string
	Home    string   // the user's folder
	Environ []string // what handlers inherit
	Log     *slog.Logger
}

// ErrKey is the end of a worker whose key the server does not, or no longer, take.
var ErrKey = errors.New("the server does not take this key")

// Why handlers are stopped before their end.
var (
	errStopping = errors.New("the worker stops")
	errLost     = errors.New("the lease is over")
)

// worker is one run of the daemon.
type worker struct {
	Options
	config *Config
	server *remote

	asking   context.Context // work is taken while it lives
	stopAsk  context.CancelCauseFunc
	working  context.Context // handlers run and outcomes are reported while it lives; its cause is errStopping or ErrKey
	stopWork context.CancelCauseFunc
	jobs     sync.WaitGroup
	mu       sync.Mutex
	running  map[string]int      // by task
	attempts map[string]*attempt // by execution
	total    int
	freed    chan struct{} // closed, and made anew, when a place becomes free
}

// Run works until the context ends; what runs then is finished within the grace of the configuration, or stopped and given back.
// The error is ErrKey when the key is not taken.
func Run(ctx context.Context, c *Config, o Options) error {
	w := &worker{Options: o, config: c, server: newRemote(o), running: map[string]int{}, attempts: map[string]*attempt{}, freed: make(chan struct{})}
	w.asking, w.stopAsk = context.WithCancelCause(ctx)
	w.working, w.stopWork = context.WithCancelCause(context.WithoutCancel(ctx))
	defer w.stopAsk(nil)
	defer w.stopWork(nil)
	w.Log.Info("started", "server", o.Base, "worker", o.Worker, "handlers", slices.Sorted(maps.Keys(c.Handlers)), "max_concurrent", c.Concurrent)
	var announcing sync.WaitGroup
	announcing.Go(w.announce)
	w.ask()
	announcing.Wait()
	w.finish()
	w.server.http.CloseIdleConnections()
	if errors.Is(context.Cause(w.asking), ErrKey) || errors.Is(context.Cause(w.working), ErrKey) {
		w.Log.Error("ended: the server does not take this key any more")
		return ErrKey
	}
	w.Log.Info("stopped")
	return nil
}

// finish waits for what runs, within the grace.
func (w *worker) finish() {
	done := make(chan struct{})
	go func() {
		w.jobs.Wait()
		close(done)
	}()
	if n := w.busy(); n > 0 && w.working.Err() == nil {
		w.Log.Info("stopping: work that runs is finished first", "running", n, "grace", w.config.StopGrace.String())
	}
	grace := time.NewTimer(w.config.StopGrace)
	defer grace.Stop()
	select {
	case <-done:
	case <-grace.C:
		w.stopWork(errStopping)
	}
	<-done
}

// keyRefused ends everything when an error says that the key is not taken: nobody could report what is still done.
func (w *worker) keyRefused(err error) bool {
	if statusOf(err) != http.StatusUnauthorized {
		return false
	}
	w.stopAsk(ErrKey)
	w.stopWork(ErrKey)
	return true
}

// announce says that the worker is there, as long as it takes work.
func (w *worker) announce() {
	tasks, told := slices.Sorted(maps.Keys(w.config.Handlers)), ""
	for w.asking.Err() == nil {
		err := w.server.announce(w.asking, tasks)
		if err != nil && w.asking.Err() == nil && !w.keyRefused(err) && err.Error() != told {
			told = err.Error()
			w.Log.Warn("the worker could not be announced", "error", told)
		}
		if err == nil {
			told = ""
		}
		pause(w.asking, w.config.Heartbeat)
	}
}

// ask takes work and begins it. A question without an answer is asked again under the same id: what the server may have given then
// is not lost.
func (w *worker) ask() {
	request, told, wait := rand.Text(), "", backoff{}
	for {
		tasks, most, freed := w.room()
		if w.asking.Err() != nil {
			return
		}
		got, err := w.claim(request, tasks, most, freed)
		switch {
		case err == nil:
			if told != "" {
				w.Log.Info("asking for work again")
			}
			request, told, wait = rand.Text(), "", backoff{}
			for i := range got {
				w.begin(&got[i])
			}
		case w.asking.Err() != nil:
			w.handBack(request, tasks, most)
			return
		case errors.Is(err, context.Canceled): // there is room for more
		case w.keyRefused(err):
			return
		default:
			if err.Error() != told {
				told = err.Error()
				w.Log.Warn("no work could be asked for", "error", told)
			}
			d := wait.next(err)
			if status := statusOf(err); status >= 400 && status < 500 {
				d = max(d, w.config.Poll)
			}
			pause(w.asking, d)
		}
	}
}

// room waits until a handler may be started, and says for which tasks, and how many of whichever of them at once. When there may
// be room for more, freed is closed.
func (w *worker) room() (tasks []string, most int, freed <-chan struct{}) {
	for {
		w.mu.Lock()
		most = w.config.Concurrent - w.total
		tasks = nil
		if most > 0 {
			for task, h := range w.config.Handlers {
				if n := h.Concurrent - w.running[task]; n > 0 {
					tasks = append(tasks, task)
					most = min(most, n)
				}
			}
		}
		freed = w.freed
		w.mu.Unlock()
		if len(tasks) > 0 {
			slices.Sort(tasks)
			return tasks, min(most, claimMost), freed
		}
		select {
		case <-freed:
		case <-w.asking.Done():
			return nil, 0, nil
		}
	}
}

// claimMost is how many executions the server gives at once.
const claimMost = 100

// claim asks for work and waits for it. When some handlers are full, the question ends as soon as there is room again.
func (w *worker) claim(request string, tasks []string, most int, freed <-chan struct{}) ([]execution, error) {
	ctx, cancel := context.WithCancel(w.asking)
	defer cancel()
	if len(tasks) < len(w.config.Handlers) {
		go func() {
			select {
			case <-freed:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	return w.server.claim(ctx, request, tasks, most, claimWait)
}

// handBack gives back what the last question, which was not waited for, may have got.
func (w *worker) handBack(request string, tasks []string, most int) {
	ctx, cancel := context.WithTimeout(w.working, w.config.KillGrace)
	defer cancel()
	got, err := w.server.claim(ctx, request, tasks, most, 0)
	if err != nil {
		return // it is not known whether there was any; then its lease ends
	}
	for i := range got {
		w.giveBack(ctx, &got[i], false)
	}
}

// giveBack gives an execution back. When that fails, its lease ends by itself.
func (w *worker) giveBack(ctx context.Context, e *execution, begun bool) {
	if err := w.server.release(ctx, e, begun); err != nil {
		w.Log.Warn("not given back: it is offered again when its lease ends", attrs(e, "error", err.Error())...)
		return
	}
	w.Log.Info("given back", attrs(e)...)
}

// begin starts work on an execution.
func (w *worker) begin(e *execution) {
	h, ok := w.config.Handlers[e.Task]
	if !ok { // the server does not know how to give work of certain tasks only
		w.giveBack(w.asking, e, false)
		return
	}
	a := &attempt{execution: e, over: make(chan struct{})}
	a.handling, a.stop = context.WithCancelCause(w.working)
	w.mu.Lock()
	w.running[e.Task]++
	w.total++
	last := w.attempts[e.ID]
	w.attempts[e.ID] = a
	w.mu.Unlock()
	w.Log.Info("taken", attrs(e, "attempt", e.Attempt)...)
	w.jobs.Go(func() {
		defer w.free(a)
		if last != nil { // its lease ended, and this worker got it again
			last.stop(errLost)
			<-last.over
			w.Log.Info("begun again", attrs(e, "attempt", e.Attempt)...)
		}
		w.do(h, a)
	})
}

// attempt is an execution while this worker has it.
type attempt struct {
	*execution
	handling context.Context // the handler runs while it lives
	stop     context.CancelCauseFunc
	over     chan struct{} // closed at its end
}

// free notes that an attempt is over, and its place free again.
func (w *worker) free(a *attempt) {
	a.stop(nil)
	close(a.over)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.attempts[a.ID] == a {
		delete(w.attempts, a.ID)
	}
	w.running[a.Task]--
	w.total--
	close(w.freed)
	w.freed = make(chan struct{})
}

func (w *worker) busy() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.total
}

// attrs are what every line of the log says of an execution: never its payload.
func attrs(e *execution, more ...any) []any {
	return append([]any{"execution", e.ID, "cue", e.CueName, "task", e.Task}, more...)
}
