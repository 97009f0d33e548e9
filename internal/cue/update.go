package cue

import (
	"context"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

type updateInput struct {
	ID     string         `json:"id"`
	Name   op.Opt[string] `json:"name" max:"255" format:"line"`
	Status op.Opt[string] `json:"status" doc:"active or paused"`
	definition
}

type cueID struct {
	ID string `json:"id"`
}

// update changes what was given; null counts as not given (CueAPI wire contract 2.3). Omitted members of schedule and callback
// keep their values, those of retry and on_failure take their defaults.
func (c *Cues) update(ctx context.Context, in updateInput) (cueObject, error) {
	if err := in.shape(); err != nil {
		return cueObject{}, err
	}
	if in.Status.Set && in.Status.Val != active && in.Status.Val != paused {
		return cueObject{}, op.Invalid("body.status", "Value error, status must be 'active' or 'paused'")
	}
	if in.Callback.Val.URL.Set || in.OnFailure.Val.Webhook.Set { // before the transaction: it may ask a name server
		transport, err := c.transportOf(ctx, in.ID)
		if err != nil {
			return cueObject{}, err
		}
		in.look(ctx, c, transport)
	}
	unread := ""
	out, err := c.edit(ctx, in.ID, func(tx *db.Tx, caller *access.Caller, q *cue, now op.Time) (err error) {
		if in.Name.Set && in.Name.Val != q.name {
			if err := checkName(in.Name.Val); err != nil {
				return err
			}
			q.name = in.Name.Val
			if err := c.nameFree(tx, caller, q); err != nil {
				return err
			}
		}
		if err := in.apply(c, q, now); err != nil {
			return err
		}
		if in.OnFailure.Set {
			if unread, err = c.mailTrouble(tx, q); err != nil {
				return err
			}
		}
		q.status = in.Status.Or(q.status)
		return in.chain(tx, caller, q)
	}, in.given()...)
	out.Warning = orNil(unread)
	return out, err
}

// transportOf is the transport of a cue, which never changes.
func (c *Cues) transportOf(ctx context.Context, id string) (transport string, err error) {
	err = c.DB.View(ctx, func(tx *db.Tx) error {
		q, err := loadCue(tx, access.From(ctx), id)
		if err == nil {
			transport = q.transport
		}
		return err
	})
	return transport, err
}

// given names the fields that were given.
func (in *updateInput) given() []string {
	var out []string
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"name", in.Name.Set}, {"description", in.Description.Set}, {"status", in.Status.Set}, {"schedule", in.Schedule.Set},
		{"callback", in.Callback.Set}, {"payload", in.Payload.Set}, {"retry", in.Retry.Set}, {"on_failure", in.OnFailure.Set},
		{"verification", in.Verification.Set}, {"catch_up", in.CatchUp.Set}, {"delivery", in.Delivery.Set}, {"alerts", in.Alerts.Set},
		{"require_payload_override", in.NeedsOver.Set}, {"required_payload_keys", in.NeededKeys.Set},
		{"on_success_fire", in.OnSuccess.Set},
	} {
		if f.set {
			out = append(out, f.name)
		}
	}
	return out
}

func (c *Cues) pause(ctx context.Context, in cueID) (cueObject, error) {
	return c.edit(ctx, in.ID, setStatus(paused), "status")
}

func (c *Cues) resume(ctx context.Context, in cueID) (cueObject, error) {
	return c.edit(ctx, in.ID, setStatus(active), "status")
}

type editor func(tx *db.Tx, caller *access.Caller, q *cue, now op.Time) error

func setStatus(status string) editor {
	return func(_ *db.Tx, _ *access.Caller, q *cue, _ op.Time) error {
		q.status = status
		return nil
	}
}

// edit loads a cue, lets fn change it, and writes what follows from that. A cue that comes back to life counts against the
// plan again.
func (c *Cues) edit(ctx context.Context, id string, fn editor, fields ...string) (out cueObject, err error) {
	caller, now := c.caller(ctx), c.now()
	err = c.DB.Update(ctx, func(tx *db.Tx) error {
		old, err := loadCue(tx, caller, id)
		if err != nil {
			return err
		}
		q := *old
		q.updatedAt, q.changedBy = now, caller.KeyID()
		if err := fn(tx, caller, &q, now); err != nil {
			return err
		}
		if q.status != old.status {
			q.pauseReason = ""
		}
		if q.live() && !old.live() {
			if err := c.cueFits(tx, q.workspace); err != nil {
				return err
			}
		}
		if err := c.change(tx, old, &q, now); err != nil {
			return err
		}
		if out, err = q.object(); err != nil {
			return err
		}
		return access.Record(tx, access.Event{Object: "cue", ID: q.id, Name: q.name, Detail: changeOf(old, &q, fields)})
	})
	return out, err
}

func changeOf(old, q *cue, fields []string) cueChange {
	change := cueChange{Fields: fields}
	if !sameSchedule(old, q) {
		change.Schedule = []scheduleObject{old.scheduleObject(), q.scheduleObject()}
	}
	if old.status != q.status {
		change.Status = []string{old.status, q.status}
	}
	return change
}
