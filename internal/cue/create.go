package cue

import (
	"context"
	"fmt"
	"strings"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

type createInput struct {
	Name      string         `json:"name" max:"255" format:"line" doc:"unique in the workspace"`
	Transport op.Opt[string] `json:"transport" doc:"webhook, the default: the callback is called; worker: workers pull"`
	definition

	// The flat form of CueAPI's MCP server: used when `schedule` is absent (wire contract 11.3).
	Cron        op.Opt[string]  `json:"cron" max:"100" doc:"short for a recurring schedule"`
	At          op.Opt[op.Time] `json:"at" doc:"short for a one-time schedule"`
	Timezone    op.Opt[string]  `json:"timezone" max:"50" doc:"of the short forms"`
	CallbackURL op.Opt[string]  `json:"callback_url" format:"url" doc:"short for callback.url"`
	Worker      op.Opt[bool]    `json:"worker" doc:"true is short for transport worker"`
}

// unflatten turns the flat form into the nested one.
func (in *createInput) unflatten() error {
	if !in.Schedule.Set {
		s := scheduleInput{Cron: in.Cron, At: in.At, Timezone: in.Timezone}
		switch {
		case in.Cron.Set && in.At.Set:
			return op.Invalid("body", "Value error, give cron or at, not both")
		case in.Cron.Set:
			s.Type = recurring
		case in.At.Set:
			s.Type = once
		default:
			return op.Invalid("body.schedule", "Field required")
		}
		in.Schedule = op.Some(s)
	}
	if in.CallbackURL.Set && !in.Callback.Set {
		in.Callback = op.Some(callbackInput{URL: in.CallbackURL})
	}
	if in.Worker.Val && !in.Transport.Set {
		in.Transport = op.Some(transportWorker)
	}
	return nil
}

// shape refuses what contradicts itself.
func (in *createInput) shape() error {
	if err := in.definition.shape(); err != nil {
		return err
	}
	switch in.Transport.Or(transportWebhook) {
	case transportWorker:
		return nil
	case transportWebhook:
		if !in.Callback.Val.URL.Set {
			return op.Invalid("body", "Value error, callback.url is required for webhook transport")
		}
		return nil
	}
	return op.Invalid("body", "Value error, transport must be 'webhook' or 'worker'")
}

// create makes a cue. Of several things that do not fit, the first of CueAPI's order is the answer: what is wrong with the
// definition counts after the name and the plan.
func (c *Cues) create(ctx context.Context, in createInput) (out cueObject, err error) {
	caller, now := c.caller(ctx), c.now()
	if err := in.unflatten(); err != nil {
		return out, err
	}
	if err := in.shape(); err != nil {
		return out, err
	}
	if err := checkName(in.Name); err != nil {
		return out, err
	}
	fresh := &cue{
		id: newCueID(now), workspace: caller.Workspace(), name: in.Name, status: active, transport: in.Transport.Or(transportWebhook), timezone: "UTC",
		callback: `{"url":null,"method":"POST","headers":{}}`, payload: "{}", maxAttempts: 3, backoff: "[1,5,15]", catchUp: runOnce,
		version: 1, createdBy: caller.KeyID(), changedBy: caller.KeyID(), createdAt: now, updatedAt: now,
	}
	in.look(ctx, c, in.Transport.Or(transportWebhook))
	unfit := in.apply(c, fresh, now)
	lonely, unread := false, ""
	err = c.DB.Update(ctx, func(tx *db.Tx) error {
		if err := c.nameFree(tx, caller, fresh); err != nil {
			return err
		}
		if err := c.cueFits(tx, fresh.workspace); err != nil {
			return err
		}
		if unfit != nil {
			return unfit
		}
		q := *fresh
		if err := in.chain(tx, caller, &q); err != nil {
			return err
		}
		if err := c.insert(tx, &q, now); err != nil {
			return err
		}
		if q.transport == transportWorker {
			if lonely, err = noWorker(tx, q.workspace, now); err != nil {
				return err
			}
		}
		if unread, err = c.mailTrouble(tx, &q); err != nil {
			return err
		}
		if out, err = q.object(); err != nil {
			return err
		}
		return access.Record(tx, access.Event{Object: "cue", ID: q.id, Name: q.name, Detail: cueChange{Schedule: []scheduleObject{out.Schedule}}})
	})
	if lonely {
		unread = strings.TrimSpace("No active workers found. Start a worker to process this cue. " + unread)
	}
	out.Warning = orNil(unread)
	return out, err
}

// nameFree refuses a name outside the caller's restriction, and one that another cue has.
func (c *Cues) nameFree(tx *db.Tx, caller *access.Caller, q *cue) error {
	if !caller.SeesCue(q.id, q.name) {
		return caller.RefuseCueName(q.name)
	}
	var taken int64
	if err := tx.Row(sqlCueNamed, q.workspace, q.name).Scan(&taken); err != nil {
		return fmt.Errorf("look for a cue of the same name: %w", err)
	}
	if taken > 0 {
		return DuplicateCueName.Msg("A cue named '%s' already exists", q.name)
	}
	return nil
}

// cueFits refuses one more active or paused cue when the plan has no room for it. Updates run one after the other, so the count
// cannot change in between.
func (c *Cues) cueFits(tx *db.Tx, workspace string) error {
	plan, err := c.Access.Plan(tx, workspace)
	if err != nil {
		return err
	}
	var used int64
	if err := tx.Row(sqlCountersSum, workspace, []string{countCues(active), countCues(paused)}).Scan(&used); err != nil {
		return fmt.Errorf("count the cues of a workspace: %w", err)
	}
	if used >= plan.CueLimit {
		return CueLimitExceeded.Msg("Active cue limit of %d reached", plan.CueLimit)
	}
	return nil
}

// insert stores a new cue with its first version.
func (c *Cues) insert(tx *db.Tx, q *cue, now op.Time) error {
	if err := c.begin(tx, q, now); err != nil {
		return err
	}
	if _, err := tx.Exec(sqlCueInsert, q.values()...); err != nil {
		return fmt.Errorf("store a cue: %w", err)
	}
	sums := tally{}
	sums.add(q.workspace, countCues(q.status), 1)
	return sums.save(tx)
}

// noWorker says that no worker of a workspace was seen lately.
func noWorker(tx *db.Tx, workspace string, now op.Time) (bool, error) {
	var seen int64
	if err := tx.Row(sqlWorkersSince, workspace, in(now, -workerActive)).Scan(&seen); err != nil {
		return false, fmt.Errorf("look for workers: %w", err)
	}
	return seen == 0, nil
}

// cueChange is what the audit log keeps of a change: which fields, and of schedule and status the values, before and after.
type cueChange struct {
	Fields   []string         `json:"fields,omitempty"`
	Schedule []scheduleObject `json:"schedule,omitempty"`
	Status   []string         `json:"status,omitempty"`
}
