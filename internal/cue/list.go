package cue

import (
	"context"
	"fmt"
	"strings"

	"unstuck/internal/access"
	"unstuck/internal/cron"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

// countMost is how far lists count what no counter keeps.
const countMost = 10_000

type listInput struct {
	Status op.Opt[string] `json:"status" enum:"active|paused|completed|failed"`
	Name   op.Opt[string] `json:"name" max:"256" doc:"the exact name, or its beginning followed by *"`
	Limit  int64          `json:"limit" default:"50" min:"1" max:"100"`
	Offset int64          `json:"offset" default:"0" min:"0" max:"10000"`
}

type cueList struct {
	Cues   []cueObject `json:"cues"`
	Total  int64       `json:"total" doc:"of all pages; at most 10000 when filtered by name or seen by a key that is restricted to certain cues"`
	Limit  int64       `json:"limit"`
	Offset int64       `json:"offset"`
}

// list shows cues, newest first.
func (c *Cues) list(ctx context.Context, in listInput) (out cueList, err error) {
	caller := c.caller(ctx)
	w, counted := in.where(caller)
	err = c.DB.View(ctx, func(tx *db.Tx) error {
		out = cueList{Cues: []cueObject{}, Limit: in.Limit, Offset: in.Offset}
		page := *w
		rows, err := tx.Query(sqlCueList+page.String()+sqlCueNewest+" LIMIT "+page.Arg(in.Limit)+" OFFSET "+page.Arg(in.Offset), page.Args...)
		qs, err := scanAll(rows, err, (*cue).scan)
		if err != nil {
			return fmt.Errorf("list cues: %w", err)
		}
		for i := range qs {
			o, err := qs[i].object()
			if err != nil {
				return err
			}
			out.Cues = append(out.Cues, o)
		}
		out.Total, err = in.total(tx, caller, w, counted)
		return err
	})
	return out, err
}

// where is the condition of the list, and whether counters know its total.
func (in listInput) where(caller *access.Caller) (w *db.Where, counted bool) {
	w = &db.Where{}
	w.And("c.workspace_id = ?", caller.Workspace())
	filter := caller.CueFilter()
	access.OnlyCues(w, filter)
	if in.Status.Set {
		w.And("c.status = ?", in.Status.Val)
	}
	if prefix, ok := strings.CutSuffix(in.Name.Val, "*"); ok {
		w.And("c.name >= ?", prefix)
		w.And("c.name < ?", access.AfterPrefix(prefix))
	} else if in.Name.Set {
		w.And("c.name = ?", in.Name.Val)
	}
	return w, len(filter) == 0 && !in.Name.Set
}

func (in listInput) total(tx *db.Tx, caller *access.Caller, w *db.Where, counted bool) (n int64, err error) {
	if !counted {
		q := *w
		text := sqlCueListTotal + q.String() + " LIMIT " + q.Arg(countMost)
		err = tx.Row("SELECT count(*) FROM ("+text+") AS counted", q.Args...).Scan(&n)
	} else {
		names := []string{countCues(active), countCues(paused), countCues(completed), countCues(failed)}
		if in.Status.Set {
			names = []string{countCues(in.Status.Val)}
		}
		err = tx.Row(sqlCountersSum, caller.Workspace(), names).Scan(&n)
	}
	if err != nil {
		return 0, fmt.Errorf("count cues: %w", err)
	}
	return n, nil
}

type getInput struct {
	ID              string        `json:"id"`
	ExecutionLimit  int64         `json:"execution_limit" default:"10" min:"1" max:"100"`
	ExecutionOffset int64         `json:"execution_offset" default:"0" min:"0" max:"10000"`
	Preview         op.Opt[int64] `json:"preview" min:"1" max:"100" doc:"also say the next so many due times"`
}

type cueDetail struct {
	cueObject
	Executions      []executionObject `json:"executions" doc:"newest first"`
	ExecutionTotal  int64             `json:"execution_total"`
	ExecutionLimit  int64             `json:"execution_limit"`
	ExecutionOffset int64             `json:"execution_offset"`
	Preview         []dueTime         `json:"preview,omitempty" doc:"the next due times, when asked for; those of a paused cue are what they would be if it were resumed now"`
}

// dueTime is one due time, for people in the zone of the cue.
type dueTime struct {
	At    op.Time `json:"at"`
	Local string  `json:"local" doc:"the same moment in the cue's time zone, with its offset"`
}

func (c *Cues) get(ctx context.Context, in getInput) (out cueDetail, err error) {
	caller := c.caller(ctx)
	err = c.DB.View(ctx, func(tx *db.Tx) error {
		q, err := loadCue(tx, caller, in.ID)
		if err != nil {
			return err
		}
		out = cueDetail{ExecutionLimit: in.ExecutionLimit, ExecutionOffset: in.ExecutionOffset}
		if out.cueObject, err = q.object(); err != nil {
			return err
		}
		if out.Preview, err = c.preview(q, int(in.Preview.Val)); err != nil {
			return err
		}
		out.Executions, out.ExecutionTotal, err = executionsOfCue(tx, q.id, in.ExecutionLimit, in.ExecutionOffset)
		return err
	})
	return out, err
}

// preview lists the next n due times of a cue that is not over.
func (c *Cues) preview(q *cue, n int) ([]dueTime, error) {
	if n == 0 || !q.live() {
		return nil, nil
	}
	after := max(c.now(), q.decided)
	if q.nextRun != nil {
		after = *q.nextRun - 1
	}
	s, err := c.compile(q.kind, q.cron, q.timezone, deref(q.nextRun))
	if err != nil {
		return nil, err
	}
	if q.kind == once && q.status == paused {
		s.at = max(*q.at, after+1)
	}
	zone, err := cron.LoadZone(q.timezone)
	if err != nil {
		return nil, err
	}
	var out []dueTime
	for len(out) < n {
		at, ok := s.next(after)
		if !ok {
			break
		}
		out = append(out, dueTime{at, at.Std().In(zone).Format("2006-01-02T15:04:05-07:00")})
		after = at
	}
	return out, nil
}
