package db

import (
	"context"
	"sync/atomic"
)

// call is one Update on its way through the writer. The caller's goroutine runs the function itself, step by step as the
// writer says, so that a panic or runtime.Goexit (as by testing.T.FailNow) stays where it belongs and shows its own stack.
type call struct {
	ctx    context.Context // of its transactions
	fn     func(*Tx) error
	before []func(*Tx) error

	claimed atomic.Bool   // by the writer, which gives it a turn, or by its own caller, who gives up waiting
	steps   chan step     // writer to caller
	back    chan struct{} // caller to writer: the step is over

	// The rest belongs to the caller during a step and to the writer otherwise.
	tx   *Tx
	err  error // of the last turn, in the end the answer
	gone bool  // the function panicked or exited: nobody follows the steps any more
}

type step int

const (
	turn    step = iota // run the function with call.tx
	publish             // run what AfterCommit asked for
	answer              // return call.err
)

func newCall(ctx context.Context, fn func(*Tx) error) *call {
	return &call{ctx: inside(ctx), fn: fn, before: beforeCommit(ctx), steps: make(chan step), back: make(chan struct{}, 1)}
}

// claim is true for the one who comes first.
func (c *call) claim() bool { return c.claimed.CompareAndSwap(false, true) }

// follow is the caller's side: it waits for its turn and does each step. While it waits, the end of its context takes it out
// of the queue.
func (c *call) follow(ctx context.Context) error {
	var s step
	select {
	case s = <-c.steps:
	case <-ctx.Done():
		if c.claim() {
			return context.Cause(ctx)
		}
		s = <-c.steps
	}
	for ; s != answer; s = <-c.steps {
		c.do(s)
	}
	return c.err
}

func (c *call) do(s step) {
	defer func() { c.back <- struct{}{} }()
	c.gone = true
	if s == turn {
		c.err = c.run()
	} else {
		for _, fn := range c.tx.after {
			fn()
		}
	}
	c.gone = false
}

// run calls the caller's function and then those of WithBeforeCommit.
func (c *call) run() error {
	if err := c.fn(c.tx); err != nil {
		return err
	}
	for _, fn := range c.before {
		if err := fn(c.tx); err != nil {
			return err
		}
	}
	return nil
}

// tell is the writer's side: it lets the caller do a step and waits for it.
func (c *call) tell(s step) {
	if c.gone {
		return
	}
	c.steps <- s
	if s != answer {
		<-c.back
	}
}
