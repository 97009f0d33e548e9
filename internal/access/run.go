package access

import (
	"context"
	"errors"
	"time"
)

// How often what was gathered in memory is written. Last uses are at most this far behind on disk after a crash, which must stay
// below five seconds.
const (
	flushEvery = 2 * time.Second
	headsEvery = time.Minute
)

// Run writes last uses, refusals and audit heads until ctx ends, and then once more, so that an orderly stop loses nothing.
func (a *Access) Run(ctx context.Context) error {
	flush, heads := time.NewTicker(flushEvery), time.NewTicker(headsEvery)
	defer flush.Stop()
	defer heads.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			last := context.WithoutCancel(ctx)
			return errors.Join(a.Flush(last), a.WriteRefusals(last, true), a.WriteHeads(last))
		case <-flush.C:
			err = errors.Join(a.settle(), a.Flush(ctx), a.WriteRefusals(ctx, false))
		case <-a.refused.wake:
			err = a.WriteRefusals(ctx, false)
		case <-heads.C:
			err = errors.Join(a.WriteHeads(ctx), a.forgetActivity(ctx))
		}
		if err != nil && ctx.Err() == nil {
			a.Log.Error("write what keys did", "err", err)
		}
	}
}
