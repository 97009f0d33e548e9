package cue

import (
	"fmt"
	"sync"
	"time"

	"unstuck/internal/cron"
	"unstuck/internal/op"
)

// Kinds of schedule.
const (
	once      = "once"
	recurring = "recurring"
)

// schedule says when a cue is due: at one moment, or whenever an expression matches in a zone. It is pure.
type schedule struct {
	kind string
	at   op.Time        // of once
	spec cron.Spec      // of recurring
	zone *time.Location // of recurring
}

// span is a run of due times of one schedule: the first, the last, and how many they are with all between them.
type span struct {
	first, last op.Time
	count       int64
}

// next is the first due time strictly after a moment; false when there is none.
func (s schedule) next(after op.Time) (op.Time, bool) {
	if s.kind == once {
		return s.at, s.at > after
	}
	t, ok := s.spec.Next(s.zone, after.Std())
	return op.TimeOf(t), ok
}

// last is the latest due time at or before a moment; false when there is none.
func (s schedule) last(upTo op.Time) (op.Time, bool) {
	if s.kind == once {
		return s.at, s.at <= upTo
	}
	t, ok := s.spec.Prev(s.zone, (upTo + 1).Std())
	return op.TimeOf(t), ok
}

// count is how many due times lie in [from, to).
func (s schedule) count(from, to op.Time) int64 {
	switch {
	case from >= to:
		return 0
	case s.kind == once:
		if s.at >= from && s.at < to {
			return 1
		}
		return 0
	}
	return s.spec.Count(s.zone, from.Std(), to.Std())
}

// due is the run of due times in (after, upTo]; its count is 0 when there are none. A cue that is looked at in time has one,
// and for that one the expression is asked twice.
func (s schedule) due(after, upTo op.Time) span {
	first, ok := s.next(after)
	if !ok || first > upTo {
		return span{}
	}
	if second, ok := s.next(first); !ok || second > upTo {
		return span{first, first, 1}
	}
	last, _ := s.last(upTo)
	return span{first, last, s.count(first, last+1)}
}

// but is the run without its last due time.
func (s schedule) but(r span) span {
	if r.count <= 1 {
		return span{}
	}
	before, _ := s.last(r.last - 1)
	return span{r.first, before, r.count - 1}
}

// clip is the part of a run that lies in [from, to).
func (s schedule) clip(r span, from, to op.Time) span {
	if r.first >= from && r.last < to {
		return r
	}
	from, to = max(from, r.first), min(to, r.last+1)
	n := s.count(from, to)
	if n == 0 {
		return span{}
	}
	first, _ := s.next(from - 1)
	last, _ := s.last(to - 1)
	return span{first, last, n}
}

// compile is the schedule of these columns. A one-time schedule is due at `at`, whatever its zone.
func (c *Cues) compile(kind, expr, zone string, at op.Time) (schedule, error) {
	if kind == once {
		return schedule{kind: once, at: at}, nil
	}
	return c.book.recurring(expr, zone)
}

// book keeps compiled schedules, because reading a zone takes longer than firing a cue. The zero value is ready.
type book struct {
	mu    sync.Mutex
	known map[[2]string]schedule
}

// bookSize bounds the book; a full one is forgotten and filled again.
const bookSize = 8192

// recurring compiles an expression for a zone. Both were accepted when the cue was written, so an error means that this
// program knows fewer zones than the one that accepted them.
func (b *book) recurring(expr, zone string) (schedule, error) {
	key := [2]string{expr, zone}
	b.mu.Lock()
	defer b.mu.Unlock()
	if s, ok := b.known[key]; ok {
		return s, nil
	}
	spec, err := cron.Parse(expr)
	if err != nil {
		return schedule{}, fmt.Errorf("read the schedule %q: %w", expr, err)
	}
	loc, err := cron.LoadZone(zone)
	if err != nil {
		return schedule{}, fmt.Errorf("read the schedule %q: %w", expr, err)
	}
	if b.known == nil || len(b.known) >= bookSize {
		b.known = map[[2]string]schedule{}
	}
	s := schedule{kind: recurring, spec: spec, zone: loc}
	b.known[key] = s
	return s, nil
}
