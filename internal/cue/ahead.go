package cue

import (
	"context"
	"fmt"
	"time"

	"unstuck/internal/op"
)

const (
	lead      = 100 * time.Millisecond // so long before a due time it is read what will be due
	aheadMost = 1000                   // cues, and what withOthers adds
)

// ahead are cues that are read, and worked out, shortly before they are due, so that at the moment itself they only have to be written.
// Whoever changes one in between is heard: stillDue looks again.
type ahead struct {
	at   op.Time // their due time; others may be due before it, and more with it
	cues []dueCue
	more []dueCue // of workspaces that would wait behind these; they go with the first
}

// take gives so many of those whose time has come, or none.
func (a *ahead) take(now op.Time, most int) []dueCue {
	if now < a.at || len(a.cues) == 0 {
		return nil
	}
	n := min(most, len(a.cues))
	some := append(a.cues[:n:n], a.more...)
	a.cues, a.more = a.cues[n:], nil
	return some
}

// prepare reads ahead what is due next, when that is soon. It returns how long to wait for the next look.
func (c *Cues) prepare(ctx context.Context, known *ahead) (time.Duration, error) {
	at, now := c.alarm.next(), c.now()
	soon := in(now, lead)
	if at > soon {
		return c.alarm.wait(soon), nil
	}
	if at > now && at != known.at {
		cues, err := c.lookUp(ctx, at, aheadMost)
		if err != nil {
			return 0, fmt.Errorf("read what will be due: %w", err)
		}
		for i := range cues {
			if f, err := c.firing(&cues[i], at); err == nil { // else it is told when it is tried
				cues[i].ready = &f
			}
		}
		n := min(len(cues), aheadMost)
		*known = ahead{at: at, cues: cues[:n], more: cues[n:]}
	}
	return c.alarm.wait(c.now()), nil
}
