package cue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"unstuck/internal/db"
)

// kitchen is a batch function whose batches last a second of the bubble's time. It notes what it was given.
type kitchen struct {
	gather[int]
	batches [][]int
	fail    func(items []int) error // nil: never
}

func (k *kitchen) cook(_ context.Context, items func() []*int) error {
	var got []int
	for _, i := range items() {
		got = append(got, *i)
	}
	k.batches = append(k.batches, got)
	<-time.After(time.Second)
	if k.fail != nil {
		return k.fail(got)
	}
	return nil
}

// order makes one call for each number, all within one batch's time, in their order; the errors come back by number.
func (k *kitchen) order(ctx context.Context, n int) []error {
	errs := make([]error, n)
	done := make(chan bool)
	for i := range n {
		go func() {
			defer func() { done <- true }()
			defer func() {
				if r := recover(); r != nil {
					errs[i] = fmt.Errorf("panic: %v", r)
				}
			}()
			errs[i] = k.do(ctx, &i, k.cook)
		}()
		synctest.Wait()
	}
	for range n {
		<-done
	}
	return errs
}

func (k *kitchen) served(t *testing.T, want ...[]int) {
	t.Helper()
	if !slices.EqualFunc(k.batches, want, slices.Equal[[]int]) {
		t.Errorf("batches %v, want %v", k.batches, want)
	}
}

// The first call runs at once and alone; those that come meanwhile share the next batch, in their order.
func TestGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &kitchen{}
		start := time.Now()
		for i, err := range k.order(t.Context(), 5) {
			if err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
		k.served(t, []int{0}, []int{1, 2, 3, 4})
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("took %v", took)
		}
		k.order(t.Context(), 1)
		k.served(t, []int{0}, []int{1, 2, 3, 4}, []int{0})
	})
}

// A batch holds no more than it may; the rest comes next.
func TestGatherBoundsBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &kitchen{}
		k.order(t.Context(), 2+gatherMost)
		var sizes []int
		for _, b := range k.batches {
			sizes = append(sizes, len(b))
		}
		if !slices.Equal(sizes, []int{1, gatherMost, 1}) {
			t.Errorf("batches of %v", sizes)
		}
	})
}

// Nobody suffers from another's call: after a batch failed, each runs alone. Only when nobody knows whether it took effect, it is
// not repeated.
func TestGatherIsolatesErrors(t *testing.T) {
	bad := errors.New("bad")
	synctest.Test(t, func(t *testing.T) {
		k := &kitchen{fail: func(items []int) error {
			if slices.Contains(items, 2) {
				return bad
			}
			return nil
		}}
		for i, err := range k.order(t.Context(), 4) {
			if (err != nil) != (i == 2) {
				t.Errorf("%d: %v", i, err)
			}
		}
		k.served(t, []int{0}, []int{1, 2, 3}, []int{1}, []int{2}, []int{3})

		k = &kitchen{fail: func([]int) error { return db.ErrUnknown }}
		for i, err := range k.order(t.Context(), 4) {
			if !errors.Is(err, db.ErrUnknown) {
				t.Errorf("%d: %v", i, err)
			}
		}
		k.served(t, []int{0}, []int{1, 2, 3})
	})
}

// A caller that gives up while it waits is not served, and the others are.
func TestGatherLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &kitchen{}
		ctx, leave := context.WithCancelCause(t.Context())
		begin := func(ctx context.Context, item int) <-chan error {
			answer := make(chan error, 1)
			go func() { answer <- k.do(ctx, &item, k.cook) }()
			synctest.Wait()
			return answer
		}
		first, gone, last := begin(t.Context(), 0), begin(ctx, 7), begin(t.Context(), 1)
		reason := errors.New("reason")
		leave(reason)
		if err := <-gone; !errors.Is(err, reason) {
			t.Errorf("gave up: %v", err)
		}
		if err := errors.Join(<-first, <-last); err != nil {
			t.Error(err)
		}
		k.served(t, []int{0}, []int{1})
	})
}

// A panic stays with the call that ran the batch; the others hear that they were abandoned, and whoever comes next is served.
func TestGatherSurvivesPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &kitchen{fail: func(items []int) error {
			if len(items) > 1 {
				panic("burnt")
			}
			return nil
		}}
		errs := k.order(t.Context(), 3)
		if errs[0] != nil || errs[1] == nil || errs[1].Error() != "panic: burnt" || !errors.Is(errs[2], errAbandoned) {
			t.Errorf("%v", errs)
		}
		if err := k.order(t.Context(), 1)[0]; err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}
