package access

import (
	"context"
	"fmt"
	"sync"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// toys are what keys are for in these tests: cues that are only names, work that is never there, calls that wait.
type toys struct {
	mu      sync.Mutex
	cues    map[string]map[string]string // workspace, id: name
	done    chan struct{}                // ends calls that wait
	waiting chan struct{}                // hears of each call that begins to wait
	after   func()                       // runs in a call that waits after every change, before its key is verified again
}

func newToys() *toys {
	return &toys{cues: map[string]map[string]string{}, done: make(chan struct{}), waiting: make(chan struct{}, 1000), after: func() {}}
}

func (y *toys) CueExists(_ *db.Tx, workspace, id string) (bool, error) {
	name, err := y.CueName(nil, workspace, id)
	return name != "", err
}

func (y *toys) CueName(_ *db.Tx, workspace, id string) (string, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.cues[workspace][id], nil
}

func (y *toys) FindCue(_ *db.Tx, workspace, cue string) (string, string, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for id, name := range y.cues[workspace] {
		if id == cue || name == cue {
			return id, name, nil
		}
	}
	return "", "", nil
}

func (y *toys) CountCues(_ *db.Tx, workspace string, filter [][]Pattern) (int64, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	n := int64(0)
	for id, name := range y.cues[workspace] {
		if seen(filter, id, name) {
			n++
		}
	}
	return n, nil
}

// seen is what a filter says, told again without the package's own matching.
func seen(filter [][]Pattern, id, name string) bool {
	for _, list := range filter {
		any := false
		for _, p := range list {
			switch {
			case p.Any, p.Prefix != "" && len(name) >= len(p.Prefix) && name[:len(p.Prefix)] == p.Prefix, p.Prefix == "" && (p.Name == name || p.ID == id && id != ""):
				any = true
			}
		}
		if !any {
			return false
		}
	}
	return true
}

func (*toys) NearLimit(string) bool { return false }

func (y *toys) Usage(*db.Tx, string, time.Time) (Usage, error) { return Usage{1, 2, 3}, nil }

// put notes a cue of a workspace.
func (y *toys) put(workspace, id, name string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.cues[workspace] == nil {
		y.cues[workspace] = map[string]string{}
	}
	y.cues[workspace][id] = name
}

var errNoCue = op.Code{Status: 404, Name: "cue_not_found", Doc: "There is no such cue."}

type cueIn struct {
	Name  string `json:"name" default:"report"`
	Chain bool   `json:"chain" default:"false"`
}

type cueRef struct {
	ID string `json:"id"`
}

type workIn struct {
	Worker op.Opt[string] `header:"X-Worker-Id"`
}

func (y *toys) operations(w *world) []*op.Operation {
	none := func(fn func(ctx context.Context, c *Caller) error) func(context.Context, struct{}) (op.None, error) {
		return func(ctx context.Context, _ struct{}) (op.None, error) { return op.None{}, fn(ctx, From(ctx)) }
	}
	recorded := func(ctx context.Context, name string) error {
		return w.db.Update(ctx, func(tx *db.Tx) error { return Record(tx, Event{Object: "cue", Name: name}) })
	}
	work := func(_ context.Context, c *Caller, in workIn) error {
		if in.Worker.Set {
			return c.CheckWorker(in.Worker.Val)
		}
		return nil
	}
	return []*op.Operation{
		op.Define(op.Spec{Name: "cue.list", Route: "GET /v1/cues", Needs: "cues:read", Effect: op.Read, Narrow: op.ByObject, May: "see cues", Doc: "List cues"},
			func(ctx context.Context, _ struct{}) (map[string]int64, error) {
				n, err := y.CountCues(nil, From(ctx).Workspace(), From(ctx).CueFilter())
				return map[string]int64{"total": n}, err
			}),
		op.Define(op.Spec{Name: "cue.get", Route: "GET /v1/cues/{id}", Needs: "cues:read", Effect: op.Read, Narrow: op.ByObject, May: "see cues", Doc: "Show a cue"},
			func(ctx context.Context, in cueRef) (op.None, error) {
				name, _ := y.CueName(nil, From(ctx).Workspace(), in.ID)
				if name == "" || !From(ctx).SeesCue(in.ID, name) {
					return op.None{}, errNoCue.Msg("Cue not found")
				}
				return op.None{}, nil
			}),
		op.Define(op.Spec{Name: "cue.create", Route: "POST /v1/cues", Needs: "cues:write", Effect: op.Write, Narrow: op.ByObject, May: "create cues", Doc: "Create a cue"},
			func(ctx context.Context, in cueIn) (op.None, error) {
				c := From(ctx)
				if in.Chain {
					if err := c.Require("cues:write", "cues:fire", "executions:replay"); err != nil {
						return op.None{}, err
					}
				}
				if !c.SeesCue("", in.Name) {
					return op.None{}, c.RefuseCueName(in.Name)
				}
				return op.None{}, recorded(ctx, in.Name)
			}),
		op.Define(op.Spec{Name: "cue.fire", Route: "POST /v1/cues/fire", Needs: "cues:fire", Effect: op.Write, Narrow: op.ByObject, May: "fire cues", Doc: "Fire a cue"},
			none(func(ctx context.Context, _ *Caller) error { return recorded(ctx, "report") })),
		op.Define(op.Spec{Name: "cue.forget", Route: "POST /v1/cues/forget", Needs: "cues:write", Effect: op.Write, Narrow: op.ByObject, May: "forget", Doc: "Change something and record nothing"},
			none(func(ctx context.Context, _ *Caller) error {
				return w.db.Update(ctx, func(tx *db.Tx) error {
					_, err := tx.Exec("INSERT INTO settings (name, value) VALUES ('forgotten', '')")
					return err
				})
			})),
		op.Define(op.Spec{Name: "execution.claim", Route: "POST /v1/executions/claim", Needs: "executions:claim", Effect: op.Write, Unaudited: true, Narrow: op.ByObject, May: "take work", Doc: "Claim"},
			func(ctx context.Context, in workIn) (op.None, error) { return op.None{}, work(ctx, From(ctx), in) }),
		op.Define(op.Spec{Name: "execution.wait", Route: "POST /v1/executions/wait", Needs: "executions:claim", Effect: op.Write, Unaudited: true, Narrow: op.ByObject, May: "take work", Doc: "Wait for work"},
			none(func(ctx context.Context, c *Caller) error { return y.wait(ctx, c) })),
		op.Define(op.Spec{Name: "execution.report", Route: "POST /v1/executions/report", Needs: "executions:report", Effect: op.Write, Unaudited: true, Narrow: op.ByObject, Lenient: true, May: "report", Doc: "Report"},
			func(ctx context.Context, in workIn) (op.None, error) { // worker "holder" holds a live lease
				if c := From(ctx); c.OverLimit() && in.Worker.Val != "holder" {
					return op.None{}, c.RefuseOverLimit()
				}
				return op.None{}, work(ctx, From(ctx), in)
			}),
		op.Define(op.Spec{Name: "worker.heartbeat", Route: "POST /v1/worker/heartbeat", Needs: "executions:claim", Effect: op.Write, Unaudited: true, Narrow: op.Always, May: "be a worker", Doc: "Heartbeat"},
			func(ctx context.Context, in workIn) (op.None, error) { return op.None{}, work(ctx, From(ctx), in) }),
		op.Define(op.Spec{Name: "usage.get", Route: "GET /v1/usage", Needs: "usage:read", Effect: op.Read, May: "see usage", Doc: "Usage"},
			none(func(context.Context, *Caller) error { return nil })),
		op.Define(op.Spec{Name: "info.get", Route: "GET /v1/info", Needs: op.Public, Effect: op.Read, May: "ask", Doc: "Info"},
			func(ctx context.Context, _ struct{}) (map[string]string, error) {
				if c := Maybe(ctx); c != nil {
					return map[string]string{"key": c.KeyID()}, nil
				}
				return map[string]string{"key": ""}, nil
			}),
		op.Define(op.Spec{Name: "health.get", Route: "GET /health", Needs: op.Public, Effect: op.Read, Uncounted: true, May: "ask", Doc: "Health"},
			none0),
		op.Define(op.Spec{Name: "cue.panic", Route: "POST /v1/cues/panic", Needs: "cues:read", Effect: op.Read, Narrow: op.ByObject, May: "panic", Doc: "Panic with all it has"},
			none(func(ctx context.Context, c *Caller) error {
				panic(fmt.Sprintf("%v %+v %#v", c, op.CallOf(ctx), c.grant))
			})),
	}
}

func none0(context.Context, struct{}) (op.None, error) { return op.None{}, nil }

// wait is a long poll: it looks again at every change of any right, and hands something over only when its key still may.
func (y *toys) wait(ctx context.Context, c *Caller) error {
	for {
		changed := c.a.Changed()
		if err := c.Recheck(ctx); err != nil {
			return err
		}
		y.waiting <- struct{}{}
		select {
		case <-changed:
			y.after()
		case <-y.done:
			return c.Recheck(ctx)
		}
	}
}
