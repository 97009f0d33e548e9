package db

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	growthFirst  = 5_000 // rows written until the first ANALYZE
	growthFactor = 4     // and how many times as many until the next
	analyzeMost  = time.Minute
)

// growth has PostgreSQL look at its tables while they grow fast. A prepared statement keeps the plan that was made when the tables were
// empty, which may be to read a whole workspace for one name, until statistics change. PostgreSQL gathers them by itself, but only once a
// minute, in which an import can write a hundred thousand rows. After a few looks its own are often enough. Nil does nothing.
type growth struct {
	engine engine
	log    *slog.Logger
	rows   int64 // written since the last look
	next   int64
	now    sync.Mutex // held during a look
	looks  sync.WaitGroup
	over   context.Context
	end    context.CancelFunc
}

func newGrowth(e engine, log *slog.Logger) *growth {
	g := &growth{engine: e, log: log, next: growthFirst}
	g.over, g.end = context.WithCancel(background)
	return g
}

// wrote counts rows that were committed. Only the writer calls it.
func (g *growth) wrote(rows int64) {
	if g == nil {
		return
	}
	if g.rows += rows; g.rows < g.next || !g.now.TryLock() {
		return
	}
	g.rows, g.next = 0, g.next*growthFactor
	g.looks.Go(func() {
		defer g.now.Unlock()
		g.look()
	})
}

func (g *growth) look() {
	ctx, cancel := context.WithTimeout(g.over, analyzeMost)
	defer cancel()
	if _, err := g.engine.pool().ExecContext(ctx, "ANALYZE"); err != nil && g.over.Err() == nil {
		g.log.Warn("PostgreSQL could not gather statistics of its tables; until it does, some calls may be slow", "error", err)
	}
}

// stop ends a look that is under way.
func (g *growth) stop() {
	if g != nil {
		g.end()
		g.looks.Wait()
	}
}
