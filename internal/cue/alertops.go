package cue

import (
	"context"
	"fmt"
	"slices"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Codes of alerts (CueAPI wire contract 2.7, 10.3).
var (
	AlertNotFound = op.Code{Status: 404, Name: "alert_not_found", Doc: "There is no alert of this id that this key can see. List the alerts to find the right id."}
	InvalidFilter = op.Code{Status: 400, Name: "invalid_filter", Doc: "A filter names something that does not exist. The message lists what does."}
)

func (c *Cues) alertOperations() []*op.Operation {
	return []*op.Operation{
		op.Define(op.Spec{
			Name: "alert.list", Route: "GET /v1/alerts",
			Needs: "alerts:read", Effect: op.Read, Narrow: op.ByObject, May: "list alerts",
			Errors: []op.Code{InvalidFilter, CueNotFound},
			Doc:    "List alerts\nNewest first. Of one type about one cue there is one open alert at most; it counts how often it happened.",
		}, c.listAlerts),
		op.Define(op.Spec{
			Name: "alert.ack", Route: "POST /v1/alerts/{id}/acknowledge",
			Needs: "alerts:write", Effect: op.Write, Narrow: op.ByObject, Idempotent: true, Open: true, May: "acknowledge alerts",
			Errors: []op.Code{AlertNotFound},
			Doc:    "Acknowledge an alert\nSays that somebody looks after it. It stays open until the cue succeeds.",
		}, c.ackAlert),
	}
}

// alertObject is an alert on the wire.
type alertObject struct {
	ID             string    `json:"id"`
	CueID          string    `json:"cue_id"`
	CueName        string    `json:"cue_name" doc:"as it was then"`
	ExecutionID    string    `json:"execution_id" doc:"the first that it is about"`
	AlertType      string    `json:"alert_type" doc:"consecutive_failures, missed_window, outcome_timeout, verification_failed, callback_disabled, or recovered: those of its cue are over"`
	Severity       string    `json:"severity" doc:"warning, or info for recovered"`
	Title          string    `json:"title" doc:"one line for people; times are UTC"`
	Text           string    `json:"text" doc:"the title, the facts behind it, and the commands that mend it"`
	Message        string    `json:"message"`
	Metadata       op.Object `json:"metadata"`
	Count          int64     `json:"count" doc:"how often it happened while the alert was open"`
	Acknowledged   bool      `json:"acknowledged"`
	AcknowledgedAt *op.Time  `json:"acknowledged_at"`
	AcknowledgedBy *string   `json:"acknowledged_by" doc:"id of the key"`
	CreatedAt      op.Time   `json:"created_at"`
	LastAt         op.Time   `json:"last_at" doc:"when it happened last"`
	RecoveredAt    *op.Time  `json:"recovered_at" doc:"null while it is open"`
}

func (o *alertObject) scan(r scanner) error {
	var metadata, by string
	err := r.Scan(&o.ID, &o.CueID, &o.CueName, &o.ExecutionID, &o.AlertType, &o.Severity, &o.Title, &o.Text, &o.Message, &metadata, &o.Count,
		&o.CreatedAt, &o.LastAt, &o.AcknowledgedAt, &by, &o.RecoveredAt)
	o.Metadata, o.AcknowledgedBy, o.Acknowledged = op.Object(metadata), orNil(by), o.AcknowledgedAt != nil
	return err
}

type alertListInput struct {
	Type         op.Opt[string]  `json:"alert_type" doc:"only of this type"`
	CueID        op.Opt[string]  `json:"cue_id" doc:"only about this cue"`
	Acknowledged op.Opt[bool]    `json:"acknowledged"`
	Open         op.Opt[bool]    `json:"open" doc:"only those that are not over yet, or, if false, those that are"`
	Since        op.Opt[op.Time] `json:"since" doc:"only those raised since then"`
	Limit        int64           `json:"limit" default:"20" min:"1" max:"100"`
	Offset       int64           `json:"offset" default:"0" min:"0" max:"10000"`
}

type alertList struct {
	Alerts []alertObject `json:"alerts"`
	Total  int64         `json:"total" doc:"at most 10000"`
	Limit  int64         `json:"limit"`
	Offset int64         `json:"offset"`
}

// alertTypes are the types that can be asked for. CueAPI's documents have one of them in the singular too.
var alertTypes = []string{alertFailures, alertMissed, alertTimeout, alertUnverified, alertDisabled, alertRecovered}

const alertFailureShort = "consecutive_failure"

func (c *Cues) listAlerts(ctx context.Context, in alertListInput) (out alertList, err error) {
	caller := c.caller(ctx)
	if in.Type.Val == alertFailureShort {
		in.Type.Val = alertFailures
	}
	if in.Type.Set && !slices.Contains(alertTypes, in.Type.Val) {
		return out, InvalidFilter.Msg("alert_type must be one of: callback_disabled, consecutive_failures, missed_window, outcome_timeout, recovered, verification_failed")
	}
	err = c.DB.View(ctx, func(tx *db.Tx) error {
		if in.CueID.Set {
			q, err := loadCue(tx, caller, in.CueID.Val)
			if err != nil {
				return err
			}
			in.CueID.Val = q.id
		}
		w := in.where(caller)
		out = alertList{Limit: in.Limit, Offset: in.Offset}
		page := w.clone()
		rows, err := tx.Query(sqlAlerts+page.String()+sqlAlertsOrder+" LIMIT "+page.arg(in.Limit)+" OFFSET "+page.arg(in.Offset), page.args...)
		if out.Alerts, err = scanAll(rows, err, (*alertObject).scan); err != nil {
			return fmt.Errorf("list alerts: %w", err)
		}
		if out.Alerts == nil {
			out.Alerts = []alertObject{}
		}
		text := sqlAlertsTotal + w.String() + " LIMIT " + w.arg(countMost)
		if err := tx.Row("SELECT count(*) FROM ("+text+") AS counted", w.args...).Scan(&out.Total); err != nil {
			return fmt.Errorf("count alerts: %w", err)
		}
		return nil
	})
	return out, err
}

func (in *alertListInput) where(caller *access.Caller) *where {
	w := &where{}
	w.and("a.workspace_id = ?", caller.Workspace())
	w.seen(cueFilter(caller))
	if in.Type.Set {
		w.and("a.type = ?", in.Type.Val)
	}
	if in.CueID.Set {
		w.and("a.cue_id = ?", in.CueID.Val)
	}
	for _, f := range []struct {
		op.Opt[bool]
		yes, no string
	}{{in.Acknowledged, "a.acked_at IS NOT NULL", "a.acked_at IS NULL"}, {in.Open, "a.recovered_at IS NULL", "a.recovered_at IS NOT NULL"}} {
		switch {
		case f.Set && f.Val:
			w.and(f.yes)
		case f.Set:
			w.and(f.no)
		}
	}
	if in.Since.Set {
		w.and("a.created_at >= ?", in.Since.Val)
	}
	return w
}

type alertID struct {
	ID string `json:"id" doc:"id of the alert"`
}

// ackAlert notes who looks after an alert; who acknowledged it first stays.
func (c *Cues) ackAlert(ctx context.Context, in alertID) (out alertObject, err error) {
	caller := c.caller(ctx)
	err = c.DB.Update(ctx, func(tx *db.Tx) error {
		w := &where{}
		w.and("a.id = ?", in.ID)
		w.and("a.workspace_id = ?", caller.Workspace())
		w.seen(cueFilter(caller))
		there, err := found(out.scan(tx.Row(sqlAlerts+w.String(), w.args...)))
		if err != nil {
			return fmt.Errorf("read alert %s: %w", in.ID, err)
		}
		if !there {
			return AlertNotFound.Msg("Alert not found")
		}
		if !out.Acknowledged {
			now := c.now()
			if _, err := tx.Exec(sqlAlertAck, in.ID, now, caller.KeyID()); err != nil {
				return fmt.Errorf("acknowledge alert %s: %w", in.ID, err)
			}
			out.Acknowledged, out.AcknowledgedAt, out.AcknowledgedBy = true, &now, ptr(caller.KeyID())
		}
		return access.Record(tx, access.Event{Object: "alert", ID: in.ID, Name: out.CueName})
	})
	return out, err
}
