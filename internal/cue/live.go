package cue

import (
	"unstuck/internal/alert"
	"unstuck/internal/db"
	"unstuck/internal/live"
	"unstuck/internal/op"
)

// Types of events of the live feed. The last two are about the stream itself.
const (
	liveDue       = "due"
	liveClaimed   = "claimed"
	liveDelivered = "delivered"
	liveRetrying  = "retrying"
	liveOutcome   = "outcome"
	liveAlert     = "alert"
	liveGap       = "gap"
	liveEnd       = "end"
)

type liveType string

// Words lists the types, for the schema.
func (liveType) Words() []string {
	return []string{liveDue, liveClaimed, liveDelivered, liveRetrying, liveOutcome, liveAlert, liveGap, liveEnd}
}

// LiveEvent is the data of one event of the live feed.
type LiveEvent struct {
	Type         liveType `json:"type" doc:"due: there is an execution, for scheduled_for. claimed: a worker has it. delivered: its callback answered 2xx. retrying: an attempt ended badly, another follows. outcome: how it ended, or what became of that since. alert: one was raised, or is over; for keys that hold alerts:read. gap, end: about this stream, see message"`
	At           op.Time  `json:"at"`
	CueID        string   `json:"cue_id,omitempty"`
	CueName      string   `json:"cue_name,omitempty" doc:"as the cue was called then"`
	ExecutionID  string   `json:"execution_id,omitempty"`
	ScheduledFor op.Time  `json:"scheduled_for,omitempty" doc:"of due"`
	TriggeredBy  string   `json:"triggered_by,omitempty" doc:"of due: scheduled, manual_fire, chain or replay"`
	Transport    string   `json:"transport,omitempty" doc:"of due: worker or webhook"`
	WorkerID     string   `json:"worker_id,omitempty" doc:"who has it, or had it last"`
	Attempt      int64    `json:"attempt,omitempty" doc:"1 for the first"`
	LeaseUntil   op.Time  `json:"lease_until,omitempty" doc:"of claimed"`
	HTTPStatus   int64    `json:"http_status,omitempty" doc:"of a callback; absent without an answer"`
	Status       string   `json:"status,omitempty" doc:"of the execution afterwards"`
	OutcomeState string   `json:"outcome_state,omitempty" doc:"of outcome, when somebody reported: reported_success, verified_success, …"`
	Success      *bool    `json:"success,omitempty" doc:"of outcome, when somebody reported: what was said"`
	Error        string   `json:"error,omitempty" doc:"what went wrong, its first 200 characters"`
	RetryAt      op.Time  `json:"retry_at,omitempty" doc:"of retrying: not before"`
	KeyID        string   `json:"key_id,omitempty" doc:"of an alert about a key"`
	AlertID      string   `json:"alert_id,omitempty"`
	AlertType    string   `json:"alert_type,omitempty" doc:"as in the list of alerts; recovered: those of its cue are over"`
	Severity     string   `json:"severity,omitempty" doc:"of alert: warning, or info"`
	Title        string   `json:"title,omitempty" doc:"of alert: one line for people"`
	Code         string   `json:"code,omitempty" doc:"of gap and end, for programs. end: the code that the next call of this key would get, or server_stopping, or time_over"`
	Message      string   `json:"message,omitempty" doc:"of gap and end, for people"`
}

const liveErrorMost = 200 // characters

// sayer takes an event of a workspace.
type sayer func(workspace string, e LiveEvent)

// publish tells those who watch what a transaction did, once it is committed. all is asked for the events only when somebody watches.
func (c *Cues) publish(tx *db.Tx, all func(sayer)) {
	tx.AfterCommit(func() {
		if !c.Live.Watched() {
			return
		}
		events := map[string][]*live.Event{}
		all(func(workspace string, e LiveEvent) {
			cut(&e.Error, liveErrorMost)
			events[workspace] = append(events[workspace], &live.Event{Type: string(e.Type), Cue: e.CueID, CueName: e.CueName, Data: e})
		})
		for workspace, some := range events {
			c.Live.Publish(workspace, some...)
		}
	})
}

// publishFired tells of due times that became executions.
func (c *Cues) publishFired(tx *db.Tx, all []fired, now op.Time) {
	c.publish(tx, func(say sayer) {
		for i := range all {
			f := &all[i]
			say(f.workspace, LiveEvent{
				Type: liveDue, At: now, CueID: f.firing.id, CueName: f.name, ExecutionID: f.id, ScheduledFor: f.due, TriggeredBy: byScheduler, Transport: f.transport,
			})
		}
	})
}

// publishMade tells of executions that were made otherwise.
func (c *Cues) publishMade(tx *db.Tx, es []*execution) {
	c.publish(tx, func(say sayer) {
		for _, e := range es {
			say(e.workspace, LiveEvent{
				Type: liveDue, At: e.createdAt, CueID: e.cueID, CueName: e.cueName, ExecutionID: e.id, ScheduledFor: e.scheduledFor, TriggeredBy: e.triggeredBy,
				Transport: e.transport,
			})
		}
	})
}

// alerted tells those who watch, and may see alerts, of one.
func (c *Cues) alerted(a alert.Raised) {
	c.Live.Publish(a.Workspace, &live.Event{Type: liveAlert, Needs: "alerts:read", Cue: a.CueID, CueName: a.CueName, Data: LiveEvent{
		Type: liveAlert, At: a.At, CueID: a.CueID, CueName: a.CueName, ExecutionID: a.ExecutionID, KeyID: a.KeyID, AlertID: a.ID, AlertType: a.Type,
		Severity: a.Severity, Title: a.Title,
	}})
}

// told is what those who watch hear about a report.
func (h *held) told(now op.Time) LiveEvent {
	return LiveEvent{
		Type: liveOutcome, At: now, CueID: h.cueID, CueName: h.cueName, ExecutionID: h.id, Status: h.status, WorkerID: h.claimedWorker, Attempt: h.attempts,
		OutcomeState: h.outcomeState, Success: h.outcomeSuccess, Error: text(h.message),
	}
}

// publish tells what became of attempts whose executions were under way.
func (s *settling) publish(made []*result, nexts []next, stored map[string]underWay) {
	s.c.publish(s.tx, func(say sayer) {
		for i, r := range made {
			under, ok := stored[r.id]
			if !ok {
				continue
			}
			n := nexts[i]
			e := LiveEvent{
				At: s.now, CueID: r.cueID, CueName: under.cueName, ExecutionID: r.id, Attempt: r.attempt, HTTPStatus: int64(r.httpStatus), Status: n.status,
			}
			if e.Type = liveDelivered; r.good {
				say(r.workspace, e)
			}
			e.Error = n.message
			switch n.status {
			case statusRetrying:
				e.Type, e.RetryAt = liveRetrying, n.deliverAt
				say(r.workspace, e)
			case statusSuccess, statusFailed, statusOutcomeTimeout:
				e.Type = liveOutcome
				say(r.workspace, e)
			}
		}
	})
}
