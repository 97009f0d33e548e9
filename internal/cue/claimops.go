package cue

import (
	"context"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// claimableMost is how many executions one look at claimable work shows (CueAPI wire contract 2.4).
const claimableMost = 50

type claimableInput struct {
	Task  op.Opt[string] `json:"task" doc:"only of this task, a member of the payload; without it the tasks take turns"`
	Agent op.Opt[string] `json:"agent" doc:"only for this agent, a member of the payload"`
}

type claimableItem struct {
	ExecutionID  string    `json:"execution_id"`
	CueID        string    `json:"cue_id"`
	CueName      string    `json:"cue_name"`
	Task         *string   `json:"task"`
	ScheduledFor op.Time   `json:"scheduled_for"`
	Payload      op.Object `json:"payload"`
	Attempt      int64     `json:"attempt" doc:"attempts so far"`
}

type claimableList struct {
	Executions []claimableItem `json:"executions"`
}

// claimable lists what may be claimed now. It claims nothing.
func (c *Cues) claimable(ctx context.Context, in claimableInput) (out claimableList, err error) {
	caller, now := c.caller(ctx), c.now()
	q := readyQueryOf(caller, tasksOf(in.Task), optional(in.Agent))
	look := q.find
	if q.anyTask {
		look = q.inTurn
	}
	err = c.DB.View(ctx, func(tx *db.Tx) error {
		found, err := look(tx, caller, now, claimableMost)
		if err != nil {
			return err
		}
		out.Executions, err = claimableItems(tx, found)
		return err
	})
	return out, err
}

// claimableItems are the work with its payloads, within answerMost. The payload is what a worker goes by, so work whose payload
// finds no room is left out as a whole, until that before it was claimed; small payloads always find room, so that large ones of
// tasks that nobody takes hide nothing else.
func claimableItems(tx *db.Tx, found []work) ([]claimableItem, error) {
	items, room := make([]claimableItem, 0, len(found)), answerMost
	for _, w := range found {
		if w.small == nil {
			if w.size > room {
				continue
			}
			room -= w.size
		}
		payload, err := w.payload(tx)
		if err != nil {
			return nil, err
		}
		items = append(items, claimableItem{
			ExecutionID: w.id, CueID: w.cueID, CueName: w.cueName, Task: orNil(w.task), ScheduledFor: w.scheduledFor,
			Payload: op.Object(payload), Attempt: w.attempts,
		})
	}
	return items, nil
}

// optional is a pointer to a present text, else nil. An empty one counts as absent.
func optional(o op.Opt[string]) *string { return orNil(o.Val) }

// tasksOf is a task as a list. An empty one counts as absent.
func tasksOf(o op.Opt[string]) []string {
	if o.Val == "" {
		return nil
	}
	return []string{o.Val}
}

type claimInput struct {
	WorkerID  string           `json:"worker_id" min:"1" max:"255" doc:"who will do the work"`
	Max       op.Opt[int64]    `json:"max" min:"1" max:"100" doc:"take up to so many; the answer then is a list, possibly empty"`
	Wait      op.Opt[int64]    `json:"wait" min:"0" max:"30" doc:"wait up to so many seconds for work"`
	Task      op.Opt[string]   `json:"task" doc:"only of this task"`
	Tasks     op.Opt[[]string] `json:"tasks" min:"1" max:"100" doc:"only of these tasks, up to 100; instead of task"`
	Agent     op.Opt[string]   `json:"agent" doc:"only for this agent"`
	RequestID op.Opt[string]   `json:"request_id" min:"1" max:"255" doc:"repeat the call with the same id to get the same executions again, while their leases live"`
}

// claimedItem is one execution that was taken.
type claimedItem struct {
	ExecutionID  string    `json:"execution_id"`
	CueID        string    `json:"cue_id"`
	CueName      string    `json:"cue_name"`
	Task         *string   `json:"task"`
	ScheduledFor op.Time   `json:"scheduled_for"`
	Payload      op.Object `json:"payload"`
	Attempt      int64     `json:"attempt" doc:"1 for the first"`
	LeaseToken   string    `json:"lease_token" doc:"send it with the heartbeats and the outcome of this execution"`
	LeaseUntil   op.Time   `json:"lease_until" doc:"report or send a heartbeat before"`
	Criteria     op.Value  `json:"exit_criteria,omitempty" doc:"of a fire that gave them: what to check before reporting"`
	Traceparent  string    `json:"traceparent,omitempty" doc:"of a server that sends traces: what spans of this work are below (W3C Trace Context)"`
}

func (c *Cues) item(l *lease) claimedItem {
	return claimedItem{
		ExecutionID: l.id, CueID: l.cueID, CueName: l.cueName, Task: orNil(l.task), ScheduledFor: l.scheduledFor,
		Payload: op.Object(*l.small), Attempt: l.attempts, LeaseToken: l.token, LeaseUntil: l.until, Criteria: op.Value(l.criteria),
		Traceparent: c.traceparent(l.id, spanLease, l.attempts),
	}
}

// claimedOne is the contract's answer to a claim, and what its clients otherwise have to ask for.
type claimedOne struct {
	Claimed      bool  `json:"claimed"`
	LeaseSeconds int64 `json:"lease_seconds"`
	claimedItem
}

func (c *Cues) one(l *lease) claimedOne {
	return claimedOne{Claimed: true, LeaseSeconds: int64(c.Lease / time.Second), claimedItem: c.item(l)}
}

// claimOutput has either shape: with `max` the list alone, without it all the rest.
type claimOutput struct {
	Claimed      bool           `json:"claimed,omitempty" doc:"without max: true"`
	LeaseSeconds int64          `json:"lease_seconds,omitempty"`
	ExecutionID  string         `json:"execution_id,omitempty"`
	CueID        string         `json:"cue_id,omitempty"`
	CueName      *string        `json:"cue_name,omitempty"`
	Task         **string       `json:"task,omitempty"`
	ScheduledFor *op.Time       `json:"scheduled_for,omitempty"`
	Payload      op.Object      `json:"payload,omitempty"`
	Attempt      int64          `json:"attempt,omitempty"`
	LeaseToken   string         `json:"lease_token,omitempty" doc:"send it with the heartbeats and the outcome of this execution"`
	LeaseUntil   *op.Time       `json:"lease_until,omitempty"`
	Criteria     op.Value       `json:"exit_criteria,omitempty" doc:"of a fire that gave them: what to check before reporting"`
	Traceparent  string         `json:"traceparent,omitempty" doc:"of a server that sends traces: what spans of this work are below (W3C Trace Context)"`
	Executions   *[]claimedItem `json:"executions,omitempty" doc:"with max: what was taken, possibly nothing"`
}

func (o claimedOne) output() claimOutput {
	return claimOutput{
		Claimed: o.Claimed, LeaseSeconds: o.LeaseSeconds, ExecutionID: o.ExecutionID, CueID: o.CueID, CueName: &o.CueName, Task: &o.Task,
		ScheduledFor: &o.ScheduledFor, Payload: o.Payload, Attempt: o.Attempt, LeaseToken: o.LeaseToken, LeaseUntil: &o.LeaseUntil, Criteria: o.Criteria,
		Traceparent: o.Traceparent,
	}
}

// claimOldest takes the oldest work that there is: one execution in the contract's shape, or up to `max`.
func (c *Cues) claimOldest(ctx context.Context, in claimInput) (claimOutput, error) {
	tasks := tasksOf(in.Task)
	if len(in.Tasks.Val) > 0 {
		if len(tasks) > 0 {
			return claimOutput{}, op.Invalid("body.tasks", "Value error, task and tasks say the same thing: send one of them")
		}
		tasks = in.Tasks.Val
	}
	cl := &claim{
		caller: c.caller(ctx), worker: in.WorkerID, request: in.RequestID.Val, tasks: tasks, agent: optional(in.Agent),
		most: int(in.Max.Or(1)), bare: !in.Max.Set,
	}
	if err := c.claim(ctx, cl, time.Duration(in.Wait.Val)*time.Second); err != nil {
		return claimOutput{}, err
	}
	if in.Max.Set {
		items := make([]claimedItem, len(cl.taken))
		for i := range cl.taken {
			items[i] = c.item(&cl.taken[i])
		}
		return claimOutput{Executions: &items}, nil
	}
	if len(cl.taken) == 0 {
		return claimOutput{}, ClaimFailed.Msg("No executions available for claiming")
	}
	return c.one(&cl.taken[0]).output(), nil
}

type claimOneInput struct {
	ID       string `json:"id" doc:"id of the execution"`
	WorkerID string `json:"worker_id" min:"1" max:"255" doc:"who will do the work"`
}

// claimByID takes one certain execution. Why it cannot be taken is not told, as in the contract.
func (c *Cues) claimByID(ctx context.Context, in claimOneInput) (claimedOne, error) {
	cl := &claim{caller: c.caller(ctx), worker: in.WorkerID, id: in.ID, most: 1, bare: true}
	if err := c.claim(ctx, cl, 0); err != nil {
		return claimedOne{}, err
	}
	if len(cl.taken) == 0 {
		return claimedOne{}, ClaimFailed.Msg("Execution not available for claiming")
	}
	return c.one(&cl.taken[0]), nil
}
