package cue

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"unstuck/internal/op"

	"go.uber.org/goleak"
)

// waits starts a call that waits for work and returns once it sits in the waiting room; the answer comes through the channel.
func (f *fixture) waits(ctx context.Context, key, body string) <-chan *op.Response {
	f.Helper()
	before := f.guests()
	answer := make(chan *op.Response, 1)
	go func() {
		r := request(key, "execution.claim")
		r.Body = []byte(body)
		answer <- f.set.Call(ctx, r)
	}()
	for f.guests() == before {
		runtime.Gosched()
	}
	return answer
}

// guests is how many calls wait for work.
func (f *fixture) guests() (n int) {
	w := &f.cues.waiting
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.rooms {
		n += r.guests
	}
	return n
}

// A call that waits is woken by whatever makes work: nothing but the bell ends its wait so early, in either shape.
func TestWaitIsWoken(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker, cue := f.key("worker", nil), f.cue("c", "*/5 * * * *")
		for name, work := range map[string]func() string{
			"fire": func() string { return f.fire(cue, nil) },
			"schedule": func() string {
				f.clock.Set(f.clock.Now().Truncate(5 * time.Minute).Add(5 * time.Minute))
				f.settle()
				return ""
			},
			"replay": func() string {
				return f.ok(f.admin, "execution.replay", input{"id": f.ok(f.admin, "execution.list", input{"status": "success"})["executions"].([]any)[0].(map[string]any)["id"]})["id"].(string)
			},
			"lease": func() string {
				f.clock.Advance(15 * time.Minute)
				f.must(f.cues.sweep(t.Context(), f.cues.now()))
				return ""
			},
		} {
			done := f.fire(cue, nil)
			f.ok(worker, "execution.report", input{"id": done, "success": true})
			if name == "lease" {
				f.fire(cue, nil)
				f.claim(worker, "gone")
			}
			for _, shape := range []string{`{"worker_id":"w","wait":30}`, `{"worker_id":"w","wait":30,"max":3}`} {
				if name == "lease" && shape != `{"worker_id":"w","wait":30}` {
					continue
				}
				waiting := f.waits(t.Context(), worker, shape)
				start := time.Now()
				id := work()
				got := answer(f, name, <-waiting)
				if took := time.Since(start); took > 10*time.Second {
					t.Errorf("%s: woken after %v", name, took)
				}
				if list, ok := got["executions"].([]any); ok {
					got = list[0].(map[string]any)
				}
				if id != "" && got["execution_id"] != id {
					t.Errorf("%s: got %v, want %s", name, got, id)
				}
				f.ok(worker, "execution.report", input{"id": got["execution_id"], "success": true})
			}
		}
	})
}

// What was made for a later moment is handed over when that moment comes.
func TestWaitUntilDue(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		at := f.clock.Now().Add(2 * time.Second)
		id := f.fire(f.cue("c", "0 0 1 1 *"), input{"send_at": at.Format(time.RFC3339Nano)})
		waiting := f.waits(t.Context(), worker, `{"worker_id":"w","wait":30}`)
		f.clock.Set(at)
		if got := answer(f, "claim", <-waiting); got["execution_id"] != id {
			t.Errorf("got %v", got)
		}
	})
}

// The wait itself: exactly as long as asked for, to the answer that the shape has for nothing; not at all when there is work.
// The time is that of a bubble, so the database is one without a network.
func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := onSQLite(t)
		worker := f.key("worker", nil)
		start := time.Now()
		f.refused(worker, "execution.claim", input{"worker_id": "w", "wait": 7}, 409, "claim_failed")
		if took := time.Since(start); took != 7*time.Second {
			t.Errorf("waited %v", took)
		}
		if got := f.batch(worker, input{"worker_id": "w", "wait": 30, "max": 5}); len(got) != 0 {
			t.Errorf("got %v", got)
		}
		if took := time.Since(start); took != 37*time.Second {
			t.Errorf("waited %v", took)
		}
		f.fire(f.cue("c", "0 0 1 1 *"), nil)
		f.ok(worker, "execution.claim", input{"worker_id": "w", "wait": 30})
		if took := time.Since(start); took != 37*time.Second {
			t.Errorf("waited %v although there was work", took)
		}
	})
}

// A firing wakes who waits at once: no time passes in the bubble.
func TestWaitIsWokenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := onSQLite(t)
		worker, cue := f.key("worker", nil), f.cue("c", "0 0 1 1 *")
		waiting := f.waits(t.Context(), worker, `{"worker_id":"w","wait":30}`)
		<-time.After(20 * time.Second) // of the bubble: the call sits between two looks at its key
		start := time.Now()
		f.fire(cue, nil)
		answer(f, "claim", <-waiting)
		if took := time.Since(start); took != 0 {
			t.Errorf("woken after %v", took)
		}
	})
}

// A call that waits ends with 401 soon after its key was revoked, and takes nothing.
func TestWaitEndsWithItsKey(t *testing.T) {
	revoke := func(t *testing.T, f *fixture) {
		made := f.ok(f.admin, "key.create", input{"name": "w", "scope": "worker"})
		waiting := f.waits(t.Context(), made["key"].(string), `{"worker_id":"w","wait":30,"max":5}`)
		f.ok(f.admin, "key.revoke", input{"id": made["id"]})
		start := time.Now()
		if res := <-waiting; codeOf(res.Err) != "key_revoked" || res.Status != 401 {
			t.Errorf("answer: %d %v", res.Status, res.Err)
		}
		f.fire(f.cue("c", "0 0 1 1 *"), nil)
		if n := len(f.claimable(f.admin, nil)); n != 1 {
			t.Errorf("%d claimable", n)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("ended after %v", took)
		}
	}
	each(t, revoke)
	synctest.Test(t, func(t *testing.T) {
		f := onSQLite(t)
		start := time.Now()
		revoke(t, f)
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("ended after %v", took)
		}
	})
}

// hungUp is the context of a caller that left while its claim was in the database.
type hungUp struct{ context.Context }

func (hungUp) Done() <-chan struct{} { return nil }
func (hungUp) Err() error            { return context.Canceled }

// Work that cannot be handed over is offered again at once, and the attempt does not count; unless the caller gave a request_id, by
// which it can come back for it.
func TestWorkOfWhoHungUp(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		id := f.fire(f.cue("c", "0 0 1 1 *"), nil)
		call := func(body string) *op.Response {
			r := request(worker, "execution.claim")
			r.Body = []byte(body)
			return f.set.Call(hungUp{t.Context()}, r)
		}
		if res := call(`{"worker_id":"w"}`); !errors.Is(res.Err, context.Canceled) {
			t.Fatalf("answer: %v", res.Err)
		}
		if e := f.get(worker, id); e["status"] != "pending" || e["attempts"] != 0.0 || e["claimed_by_worker"] != nil || e["started_at"] != nil {
			t.Errorf("given back: %v", e)
		}
		f.countersAreExact()
		call(`{"worker_id":"w","request_id":"r"}`)
		if got := f.ok(worker, "execution.claim", input{"worker_id": "w", "request_id": "r"}); got["execution_id"] != id || got["attempt"] != 1.0 {
			t.Errorf("came back for it: %v", got)
		}
	})
}

// during is a context that does something when it is asked whether it is over.
type during struct {
	context.Context
	do func()
}

func (d during) Err() error { d.do(); return nil }

// A secret that ends while its call is given work takes the work away from nobody: by the request_id the key comes back for it, and
// perhaps has already, with its next secret.
func TestWorkOfARotatedSecret(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		made := f.ok(f.admin, "key.create", input{"name": "worker", "scope": "worker"})
		id := f.fire(f.cue("c", "0 0 1 1 *"), nil)
		next := ""
		ctx := during{t.Context(), func() {
			if next == "" && f.number("SELECT count(*) FROM executions WHERE status = 'delivering'") > 0 {
				next = "-"
				next = f.ok(f.admin, "key.rotate", input{"id": made["id"], "now": true})["key"].(string)
			}
		}}
		r := request(made["key"].(string), "execution.claim")
		r.Body = []byte(`{"worker_id":"w","request_id":"r","wait":5}`)
		if res := f.set.Call(ctx, r); res.Err == nil || res.Err.Code.Name != "key_rotated" {
			t.Fatalf("answer: %v", res.Err)
		}
		f.refused(f.admin, "execution.claim", input{"worker_id": "other"}, 409, "claim_failed")
		if got := f.ok(next, "execution.claim", input{"worker_id": "w", "request_id": "r"}); got["execution_id"] != id || got["attempt"] != 1.0 {
			t.Errorf("with the next secret: %v", got)
		}
	})
}

// A call that repeats one that still waits, whose caller may be gone, takes its place: what comes later goes to nobody who is not
// there, and what was given before goes to the repetition.
func TestWaitIsReplaced(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker, cue := f.key("worker", nil), f.cue("c", "0 0 1 1 *")
		ask := input{"worker_id": "w", "max": 5, "request_id": "r"}
		first := f.waits(t.Context(), worker, `{"worker_id":"w","max":5,"request_id":"r","wait":30}`)
		if got := f.batch(worker, ask); len(got) != 0 {
			t.Errorf("there is nothing, and it got %v", got)
		}
		id := f.fire(cue, nil)
		if e := f.get(worker, id); e["status"] != "pending" || e["attempts"] != 0.0 {
			t.Errorf("after its repetition the call took %v", e)
		}
		if got := answer(f, "execution.claim", <-first)["executions"].([]any); len(got) != 0 {
			t.Errorf("the call that was repeated got %v", got)
		}
		second := f.waits(t.Context(), worker, `{"worker_id":"w","max":5,"request_id":"other","task":"none","wait":30}`)
		third := f.waits(t.Context(), worker, `{"worker_id":"v","max":5,"request_id":"other","task":"none","wait":30}`) // of another worker
		if got := f.batch(worker, ask); !slices.Equal(got, []string{id}) {
			t.Errorf("it got %v", got)
		}
		for _, who := range []string{"w", "v"} {
			f.batch(worker, input{"worker_id": who, "max": 1, "request_id": "other", "task": "none"})
			if n := f.guests(); who == "w" && n != 1 || who == "v" && n != 0 {
				t.Errorf("%d calls wait after the one of %s was repeated", n, who)
			}
		}
		<-second
		<-third
		if n := len(f.cues.repeats.calls); n != 0 {
			t.Errorf("%d calls are remembered", n)
		}
	})
}

// A caller that hangs up while it waits leaves nothing behind: no claim, no place in the waiting room, no goroutine.
func TestWaitOfWhoHangsUp(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		before := goleak.IgnoreCurrent()
		for range 50 {
			ctx, leave := context.WithCancel(t.Context())
			waiting := f.waits(ctx, worker, `{"worker_id":"w","wait":30}`)
			leave()
			if res := <-waiting; !errors.Is(res.Err, context.Canceled) {
				t.Fatalf("answer: %v", res.Err)
			}
		}
		if n := f.guests(); n != 0 || len(f.cues.waiting.rooms) != 0 {
			t.Errorf("%d calls in %d rooms", n, len(f.cues.waiting.rooms))
		}
		if err := goleak.Find(before); err != nil {
			t.Error(err)
		}
	})
}

// No wake-up is lost: while one side fires and the other waits, all at once, no call waits its time out.
func TestWaitUnderLoad(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		const n = 300
		worker, cue := f.key("worker", nil), f.cue("c", "0 0 1 1 *")
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var mu sync.Mutex
		var got []string
		var workers sync.WaitGroup
		for w := range callers / 2 {
			workers.Go(func() {
				for ctx.Err() == nil {
					r := request(worker, "execution.claim")
					r.Body = fmt.Appendf(nil, `{"worker_id":"w%d","wait":30,"max":%d}`, w, 1+w%3)
					res := f.set.Call(ctx, r)
					if res.Err != nil {
						if ctx.Err() == nil {
							t.Errorf("claim: %v", res.Err)
						}
						return
					}
					ids := pluck(answer(f, "claim", res)["executions"], "execution_id")
					if len(ids) == 0 {
						t.Error("a call waited 30 seconds while there was work")
						stop()
					}
					mu.Lock()
					if got = append(got, ids...); len(got) == n {
						stop()
					}
					mu.Unlock()
				}
			})
		}
		want := make([]string, n)
		crowd(n, func(i int) { want[i] = f.fire(cue, nil) })
		workers.Wait()
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%d of %d were handed over", len(got), n)
		}
	})
}
