package cue

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"unstuck/internal/alert"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

const (
	failuresInARow = 3   // so many raise an alert
	failuresMost   = 100 // further back they are not counted
)

// alertOn raises the alert that an execution calls for which ended badly; none for a failure that is not one of several in a row. off
// says that its callback wants no more calls.
func (c *Cues) alertOn(tx *db.Tx, id string, off bool, now op.Time) error {
	e := &execution{}
	if err := e.scan(tx.Row(sqlExecutions+" WHERE e.id = ?1", id)); err != nil {
		return fmt.Errorf("read execution %s: %w", id, err)
	}
	n := alert.New{Workspace: e.workspace, CueID: e.cueID, CueName: e.cueName, ExecutionID: e.id, Since: e.scheduledFor}
	n.Words = func() (alert.Words, error) { return c.alertWords(tx, e, now) }
	if err := alertFor(tx, e, off, &n); err != nil || n.Type == "" {
		return err
	}
	return c.Alerts.Raise(tx, n, now)
}

// alertFor puts into an alert which one an execution calls for, with message and metadata of the contract; no type for none.
func alertFor(tx *db.Tx, e *execution, off bool, n *alert.New) error {
	switch {
	case e.outcomeState == verificationFailed && e.status == statusSuccess:
		n.Type, n.Message = alert.Unverified, fmt.Sprintf("Execution %s reported success but failed verification (required evidence missing).", e.id)
		n.Metadata = map[string]any{"outcome_state": verificationFailed, "transport": e.transport}
		return nil
	case e.status == statusMissed:
		n.Type, n.Message = alert.Missed, fmt.Sprintf("Execution %s of cue %s was missed: no worker took it in time.", e.id, e.cueID)
		n.Metadata = map[string]any{"scheduled_for": e.scheduledFor}
		return nil
	case e.status == statusOutcomeTimeout:
		n.Type, n.Message = alert.Timeout, fmt.Sprintf("Execution %s of cue %s has no outcome: nobody reported in time.", e.id, e.cueID)
		n.Metadata = map[string]any{"transport": e.transport}
		return nil
	case off:
		n.Type, n.Message = alert.Disabled, fmt.Sprintf("The callback of cue %s answered 410: it wants no more calls.", e.cueID)
		n.Metadata = map[string]any{"http_status": 410}
		return nil
	}
	rows, err := tx.Query(sqlAlertRun, e.cueID, failuresMost)
	ends, err := scanAll(rows, err, func(good *bool, r scanner) error { return r.Scan(good) })
	if err != nil {
		return fmt.Errorf("count the failures of cue %s: %w", e.cueID, err)
	}
	run := slices.Index(ends, true)
	if run < 0 {
		run = len(ends)
	}
	if run >= failuresInARow {
		n.Type, n.Message = alert.Failures, fmt.Sprintf("Cue %s has %d consecutive failed executions.", e.cueID, run)
		n.Metadata = map[string]any{alert.Failures: run}
	}
	return nil
}

// alertWords are what "why" says about the execution, in times that stay true (WORDS 3.7).
func (c *Cues) alertWords(tx *db.Tx, e *execution, now op.Time) (out alert.Words, err error) {
	w := &inquiry{c: c, tx: tx, now: now, alerting: true, out: whyObject{Facts: []whyFact{}, Mend: []whyStep{}}}
	if w.q, err = readCue(tx, sqlCueByID, e.cueID); err != nil {
		return out, err
	}
	if w.q == nil {
		return out, errors.New("an alert about a cue that is gone")
	}
	if err := w.execution(e); err != nil {
		return out, err
	}
	good := "no good execution before"
	var at op.Time
	there, err := found(tx.Row(sqlAlertGood, e.cueID, e.createdAt).Scan(&at))
	if err != nil {
		return out, fmt.Errorf("read the last good execution of cue %s: %w", e.cueID, err)
	}
	if there {
		good = "last good " + w.when(at)
	}
	out.Title = strings.TrimSuffix(strings.Replace(w.out.Sentence, " because ", ": ", 1), ".") + " (" + good + ")"
	var b strings.Builder
	for _, f := range w.out.Facts {
		fmt.Fprintf(&b, "%s  %s\n", deref(f.At).Std().UTC().Format("2 Jan 15:04:05"), f.Text)
	}
	b.WriteString("\nMend it\n")
	for _, m := range w.out.Mend {
		fmt.Fprintf(&b, "  %s  %s\n", m.Command, m.Why)
	}
	fmt.Fprintf(&b, "  unstuck executions why %s\n", brief(e.id))
	out.Body = b.String()
	return out, nil
}

// recovered closes the alerts of cues of which an execution, by cue, succeeded.
func (c *Cues) recovered(tx *db.Tx, good map[string]string, now op.Time) error {
	return c.Alerts.Recover(tx, good, func(id string) (alert.Good, error) {
		e := &execution{}
		err := e.scan(tx.Row(sqlExecutions+" WHERE e.id = ?1", id))
		return alert.Good{ID: e.id, Replayed: e.replayedFrom}, err
	}, now)
}

const (
	sqlAlertRun = `SELECT CASE WHEN status = 'success' AND coalesce(outcome_success, 1) = 1 THEN 1 ELSE 0 END FROM executions
		WHERE cue_id = ?1 AND status IN ('success', 'failed', 'missed', 'outcome_timeout') ORDER BY created_at DESC, id DESC LIMIT ?2`
	sqlAlertGood = `SELECT scheduled_for FROM executions WHERE cue_id = ?1 AND created_at < ?2 AND status = 'success'
		AND coalesce(outcome_success, 1) = 1 AND outcome_state <> 'verification_failed' ORDER BY created_at DESC, id DESC LIMIT 1`
)
