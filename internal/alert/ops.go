package alert

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Codes of alerts (CueAPI wire contract 2.7, 10.3).
var (
	NotFound      = op.Code{Status: 404, Name: "alert_not_found", Doc: "There is no alert of this id that this key can see. List the alerts to find the right id."}
	InvalidFilter = op.Code{Status: 400, Name: "invalid_filter", Doc: "A filter names something that does not exist. The message says what does."}
)

// Operations lists the whole outside of the package. It works on a nil-ish *Alerts too: declaring touches nothing.
func (a *Alerts) Operations() []*op.Operation {
	return []*op.Operation{
		op.Define(op.Spec{
			Name: "alert.list", Route: "GET /v1/alerts",
			Needs: "alerts:read", Effect: op.Read, Narrow: op.ByObject, May: "list alerts",
			Errors: []op.Code{InvalidFilter},
			Doc:    "List alerts\nNewest first. Of one type about one cue there is one open alert at most; it counts how often it happened.",
		}, a.list),
		op.Define(op.Spec{
			Name: "alert.get", Route: "GET /v1/alerts/{id}",
			Needs: "alerts:read", Effect: op.Read, Narrow: op.ByObject, May: "read an alert",
			Errors: []op.Code{NotFound},
			Doc:    "Show an alert\nIts text says what happened, why, and what mends it.",
		}, a.get),
		op.Define(op.Spec{
			Name: "alert.ack", Route: "POST /v1/alerts/{id}/acknowledge",
			Needs: "alerts:write", Effect: op.Write, Narrow: op.ByObject, Idempotent: true, Open: true, May: "acknowledge alerts",
			Errors: []op.Code{NotFound},
			Doc:    "Acknowledge an alert\nSays that somebody looks after it. It stays open until it is over.",
		}, a.ack),
		op.Define(op.Spec{
			Name: "alert.test", Route: "POST /v1/alerts/test",
			Needs: "alerts:write", Effect: op.Write, May: "try out where alerts go",
			Errors: []op.Code{NoChannel, TestLimit},
			Doc:    "Send a test message to where alerts go\nNow, and answers what the receiver said. A channel that took it is proved, until its address changes.",
		}, a.test),
		op.Define(op.Spec{
			Name: "alert_channel.list", Route: "GET /v1/alerts/channels",
			Needs: "alerts:read", Effect: op.Read, May: "see where alerts go",
			Doc: "Show where alerts go\nAnd whether they get there.",
		}, a.channels),
		op.Define(op.Spec{
			Name: "alert_channel.set", Route: "PUT /v1/alerts/channels/{channel}",
			Needs: "workspace:write", Effect: op.Write, Idempotent: true, May: "say where alerts go",
			Errors: []op.Code{InvalidWebhookURL, InvalidEmail, NoMail},
			Doc:    "Say where alerts go\nTo a webhook, and to an e-mail address: one of each. Another address must be proved anew, by alert.test.",
		}, a.setChannel),
		op.Define(op.Spec{
			Name: "alert_channel.remove", Route: "DELETE /v1/alerts/channels/{channel}",
			Needs: "workspace:write", Effect: op.Destroy, May: "say where alerts go",
			Errors: []op.Code{NoChannel},
			Doc:    "Send no more alerts there\nWhat waits to be sent there is given up.",
		}, a.removeChannel),
		op.Define(op.Spec{
			Name: "me.update", Route: "PATCH /v1/auth/me",
			Needs: "workspace:write", Effect: op.Write, Idempotent: true, Open: true, May: "say where alerts go",
			Errors: []op.Code{NoFields, InvalidWebhookURL},
			Doc:    "Set the webhook for alerts\nFor clients of CueAPI; alert_channel.set says the same in our words.",
		}, a.updateMe),
	}
}

// Object is an alert on the wire.
type Object struct {
	ID             string    `json:"id"`
	CueID          *string   `json:"cue_id" doc:"null for an alert about a key"`
	CueName        *string   `json:"cue_name" doc:"as it was then; null for an alert about a key"`
	ExecutionID    *string   `json:"execution_id" doc:"the first that it is about; null for an alert about a key"`
	KeyID          *string   `json:"key_id" doc:"null for an alert about a cue"`
	AlertType      string    `json:"alert_type" doc:"consecutive_failures, missed_window, outcome_timeout, verification_failed, callback_disabled, key_expiring, or recovered: those of its cue are over"`
	Severity       string    `json:"severity" doc:"warning, or info for recovered"`
	Title          string    `json:"title" doc:"one line for people; times are UTC"`
	Text           string    `json:"text" doc:"the title, the facts behind it, and the commands that mend it; a webhook of Slack or Mattermost shows it"`
	Content        string    `json:"content" doc:"the same, for a webhook of Discord"`
	Message        string    `json:"message"`
	Metadata       op.Object `json:"metadata"`
	Count          int64     `json:"count" doc:"how often it happened while the alert was open"`
	Acknowledged   bool      `json:"acknowledged"`
	AcknowledgedAt *op.Time  `json:"acknowledged_at"`
	AcknowledgedBy *string   `json:"acknowledged_by" doc:"id of the key"`
	CreatedAt      op.Time   `json:"created_at"`
	LastAt         op.Time   `json:"last_at" doc:"when it happened last"`
	RecoveredAt    *op.Time  `json:"recovered_at" doc:"null while it is open"`

	Deliveries []Delivery `json:"deliveries" doc:"what became of it by each channel that was set when it was raised"`
}

// Delivery is what became of an alert by one channel.
type Delivery struct {
	Channel  string   `json:"channel" doc:"webhook or email"`
	State    string   `json:"state" doc:"sent, waiting (to be sent, or sent again), or lost: it was given up"`
	Attempts int64    `json:"attempts"`
	SentAt   *op.Time `json:"sent_at"`
	NextAt   *op.Time `json:"next_attempt_at" doc:"null when it has ended"`
	Error    string   `json:"error" doc:"what went wrong at the last attempt; empty when nothing did"`
}

func (d *Delivery) judge() {
	switch {
	case d.SentAt != nil:
		d.State = "sent"
	case d.NextAt == nil:
		d.State = "lost"
	default:
		d.State = "waiting"
	}
}

// addDeliveries reads what became of alerts.
func addDeliveries(tx *db.Tx, all []Object) error {
	ids, of := make([]string, len(all)), make(map[string]*Object, len(all))
	for i := range all {
		all[i].Deliveries = []Delivery{}
		ids[i], of[all[i].ID] = all[i].ID, &all[i]
	}
	rows, err := tx.Query(sqlSendsOf, ids)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var d Delivery
		if err := rows.Scan(&id, &d.Channel, &d.Attempts, &d.NextAt, &d.SentAt, &d.Error); err != nil {
			return err
		}
		d.judge()
		of[id].Deliveries = append(of[id].Deliveries, d)
	}
	return rows.Err()
}

type scanner interface{ Scan(...any) error }

func (o *Object) scan(r scanner) error {
	var cue, name, execution, key, body, metadata, by string
	err := r.Scan(&o.ID, &cue, &name, &execution, &key, &o.AlertType, &o.Severity, &o.Title, &body, &o.Message, &metadata, &o.Count,
		&o.CreatedAt, &o.LastAt, &o.AcknowledgedAt, &by, &o.RecoveredAt)
	o.CueID, o.CueName, o.ExecutionID, o.KeyID, o.AcknowledgedBy = orNil(cue), orNil(name), orNil(execution), orNil(key), orNil(by)
	o.Metadata, o.Acknowledged = op.Object(metadata), o.AcknowledgedAt != nil
	o.Text = strings.TrimSpace(o.Title + "\n\n" + body)
	o.Content = o.Text
	return err
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

type listInput struct {
	Type         op.Opt[string]  `json:"alert_type" doc:"only of this type"`
	CueID        op.Opt[string]  `json:"cue_id" doc:"only about this cue, by its id or name"`
	Acknowledged op.Opt[bool]    `json:"acknowledged"`
	Open         op.Opt[bool]    `json:"open" doc:"only those that are not over yet, or, if false, those that are"`
	Since        op.Opt[op.Time] `json:"since" doc:"only those raised since then"`
	Limit        int64           `json:"limit" default:"20" min:"1" max:"100"`
	Offset       int64           `json:"offset" default:"0" min:"0" max:"10000"`
}

type list struct {
	Alerts []Object `json:"alerts"`
	Total  int64    `json:"total" doc:"at most 10000"`
	Limit  int64    `json:"limit"`
	Offset int64    `json:"offset"`
}

// countMost is how far a list is counted.
const countMost = 10_000

// types are those that can be asked for. CueAPI's documents have one of them in the singular too.
var types = [...]string{Disabled, Failures, KeyExpiring, Missed, Timeout, Recovered, Unverified}

const failureShort = "consecutive_failure"

func (a *Alerts) list(ctx context.Context, in listInput) (out list, err error) {
	caller := access.From(ctx)
	if in.Type.Val == failureShort {
		in.Type.Val = Failures
	}
	if in.Type.Set && !slices.Contains(types[:], in.Type.Val) {
		return out, InvalidFilter.Msg("alert_type must be one of: %s", strings.Join(types[:], ", "))
	}
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		if in.CueID.Set {
			if in.CueID.Val, err = cueOf(tx, caller, in.CueID.Val); err != nil {
				return err
			}
		}
		w := in.where(caller)
		out = list{Alerts: []Object{}, Limit: in.Limit, Offset: in.Offset}
		page := w.Clone()
		rows, err := tx.Query(sqlAlerts+page.String()+sqlNewest+" LIMIT "+page.Arg(in.Limit)+" OFFSET "+page.Arg(in.Offset), page.Args...)
		if err == nil {
			err = out.read(rows)
		}
		if err == nil {
			err = addDeliveries(tx, out.Alerts)
		}
		if err != nil {
			return fmt.Errorf("list alerts: %w", err)
		}
		text := sqlTotal + w.String() + " LIMIT " + w.Arg(countMost)
		if err := tx.Row("SELECT count(*) FROM ("+text+") AS counted", w.Args...).Scan(&out.Total); err != nil {
			return fmt.Errorf("count alerts: %w", err)
		}
		return nil
	})
	return out, err
}

func (l *list) read(rows *sql.Rows) error {
	defer rows.Close()
	for rows.Next() {
		var o Object
		if err := o.scan(rows); err != nil {
			return err
		}
		l.Alerts = append(l.Alerts, o)
	}
	return rows.Err()
}

// cueOf is the id of a cue that is, or was, and that the caller sees.
func cueOf(tx *db.Tx, caller *access.Caller, ref string) (string, error) {
	var id, name string
	there, err := found(tx.Row(sqlCue, caller.Workspace(), ref).Scan(&id, &name))
	if there && caller.SeesCue(id, name) {
		return id, nil
	}
	if err == nil && !there {
		var one int64
		there, err = found(tx.Row(sqlGone, caller.Workspace(), ref).Scan(&one))
		if there && caller.CueFilter() == nil {
			return ref, nil
		}
	}
	if err != nil {
		return "", fmt.Errorf("look for a cue: %w", err)
	}
	return "", InvalidFilter.Msg("There is no cue %q that this key can see; cue_id must be the id or the name of one.", ref)
}

// seen is the condition for alerts that a caller sees.
func seen(caller *access.Caller) *db.Where {
	w := &db.Where{}
	w.And("a.workspace_id = ?", caller.Workspace())
	w.And("a.type <> ?", failureType)
	access.OnlyCues(w, caller.CueFilter())
	return w
}

func (in *listInput) where(caller *access.Caller) *db.Where {
	w := seen(caller)
	if in.Type.Set {
		w.And("a.type = ?", in.Type.Val)
	}
	if in.CueID.Set {
		w.And("a.cue_id = ? AND a.cue_id <> ''", in.CueID.Val)
	}
	for _, f := range []struct {
		op.Opt[bool]
		yes, no string
	}{{in.Acknowledged, "a.acked_at IS NOT NULL", "a.acked_at IS NULL"}, {in.Open, "a.recovered_at IS NULL", "a.recovered_at IS NOT NULL"}} {
		switch {
		case f.Set && f.Val:
			w.And(f.yes)
		case f.Set:
			w.And(f.no)
		}
	}
	if in.Since.Set {
		w.And("a.created_at >= ?", in.Since.Val)
	}
	return w
}

type alertID struct {
	ID string `json:"id" doc:"id of the alert"`
}

// load reads an alert that a caller sees.
func load(tx *db.Tx, caller *access.Caller, id string) (out Object, err error) {
	w := seen(caller)
	w.And("a.id = ?", id)
	there, err := found(out.scan(tx.Row(sqlAlerts+w.String(), w.Args...)))
	if err != nil {
		return out, fmt.Errorf("read alert %s: %w", id, err)
	}
	if !there {
		return out, NotFound.Msg("Alert not found")
	}
	one := []Object{out}
	if err := addDeliveries(tx, one); err != nil {
		return out, fmt.Errorf("read what became of alert %s: %w", id, err)
	}
	return one[0], nil
}

func (a *Alerts) get(ctx context.Context, in alertID) (out Object, err error) {
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		out, err = load(tx, access.From(ctx), in.ID)
		return err
	})
	return out, err
}

// ack notes who looks after an alert; who acknowledged it first stays.
func (a *Alerts) ack(ctx context.Context, in alertID) (out Object, err error) {
	caller := access.From(ctx)
	err = a.DB.Update(ctx, func(tx *db.Tx) error {
		if out, err = load(tx, caller, in.ID); err != nil {
			return err
		}
		if !out.Acknowledged {
			now := a.now()
			if _, err := tx.Exec(sqlAck, in.ID, now, caller.KeyID()); err != nil {
				return fmt.Errorf("acknowledge alert %s: %w", in.ID, err)
			}
			out.Acknowledged, out.AcknowledgedAt, out.AcknowledgedBy = true, &now, orNil(caller.KeyID())
		}
		return access.Record(tx, access.Event{Object: "alert", ID: in.ID, Name: out.Title})
	})
	return out, err
}
