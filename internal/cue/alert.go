package cue

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Types of alerts (CUES, alerts; CueAPI wire contract 2.7, 10.3). Each is raised in the transaction of what it is about.
const (
	alertFailures   = "consecutive_failures"
	alertMissed     = "missed_window"
	alertTimeout    = "outcome_timeout"
	alertUnverified = "verification_failed"
	alertDisabled   = "callback_disabled"
	alertRecovered  = "recovered" // closes the others of its cue; it is never open itself
)

const (
	failuresInARow = 3   // so many raise an alert
	failuresMost   = 100 // further back they are not counted
)

// alertOn raises the alert that an execution calls for which ended badly; none for a failure that is not one of several in a row.
// An alert of its type that is open counts it.
func (c *Cues) alertOn(tx *db.Tx, id string, now op.Time) error {
	e := &execution{}
	if err := e.scan(tx.Row(sqlExecutions+" WHERE e.id = ?1", id)); err != nil {
		return fmt.Errorf("read execution %s: %w", id, err)
	}
	kind, message, metadata, err := alertFor(tx, e)
	if err != nil || kind == "" {
		return err
	}
	n, err := tx.Exec(sqlAlertAgain, e.cueID, kind, now)
	if err != nil {
		return fmt.Errorf("count an alert of cue %s: %w", e.cueID, err)
	}
	if n > 0 {
		return nil
	}
	title, text, err := c.alertWords(tx, e, now)
	if err != nil {
		return err
	}
	_, err = tx.Exec(sqlAlertAdd, newUUID(now), e.workspace, e.cueID, e.cueName, e.id, kind, "warning", title, text, message, string(op.Marshal(metadata)), now, int64(-1))
	if err != nil {
		return fmt.Errorf("raise an alert about cue %s: %w", e.cueID, err)
	}
	return nil
}

// alertFor says which alert an execution calls for, with message and metadata of the contract; "" for none.
func alertFor(tx *db.Tx, e *execution) (kind, message string, metadata map[string]any, err error) {
	switch {
	case e.outcomeState == verificationFailed && e.status == statusSuccess:
		return alertUnverified, fmt.Sprintf("Execution %s reported success but failed verification (required evidence missing).", e.id),
			map[string]any{"outcome_state": verificationFailed, "transport": e.transport}, nil
	case e.status == statusMissed:
		return alertMissed, fmt.Sprintf("Execution %s of cue %s was missed: no worker took it in time.", e.id, e.cueID), map[string]any{"scheduled_for": e.scheduledFor}, nil
	case e.status == statusOutcomeTimeout:
		return alertTimeout, fmt.Sprintf("Execution %s of cue %s has no outcome: nobody reported in time.", e.id, e.cueID), map[string]any{"transport": e.transport}, nil
	case e.transport == transportWebhook && e.outcomeState == "" && e.httpStatus != nil && *e.httpStatus == 410:
		return alertDisabled, fmt.Sprintf("The callback of cue %s answered 410: it wants no more calls.", e.cueID), map[string]any{"http_status": 410}, nil
	}
	rows, err := tx.Query(sqlAlertRun, e.cueID, failuresMost)
	ends, err := scanAll(rows, err, func(good *bool, r scanner) error { return r.Scan(good) })
	if err != nil {
		return "", "", nil, fmt.Errorf("count the failures of cue %s: %w", e.cueID, err)
	}
	run := slices.Index(ends, true)
	if run < 0 {
		run = len(ends)
	}
	if run < failuresInARow {
		return "", "", nil, nil
	}
	return alertFailures, fmt.Sprintf("Cue %s has %d consecutive failed executions.", e.cueID, run), map[string]any{alertFailures: run}, nil
}

// alertWords are title and text of an alert: what "why" says about the execution, in times that stay true (WORDS 3.7). Keys are
// named by their ids only, because who reads alerts may not read keys.
func (c *Cues) alertWords(tx *db.Tx, e *execution, now op.Time) (title, text string, err error) {
	w := &inquiry{c: c, tx: tx, now: now, alerting: true, out: whyObject{Facts: []whyFact{}, Mend: []whyStep{}}}
	if w.q, err = readCue(tx, sqlCueByID, e.cueID); err != nil {
		return "", "", err
	}
	if w.q == nil {
		return "", "", errors.New("an alert about a cue that is gone")
	}
	if err := w.execution(e); err != nil {
		return "", "", err
	}
	good := "no good execution before"
	var at op.Time
	there, err := found(tx.Row(sqlAlertGood, e.cueID, e.createdAt).Scan(&at))
	if err != nil {
		return "", "", fmt.Errorf("read the last good execution of cue %s: %w", e.cueID, err)
	}
	if there {
		good = "last good " + w.when(at)
	}
	title = strings.TrimSuffix(strings.Replace(w.out.Sentence, " because ", ": ", 1), ".") + " (" + good + ")"
	var b strings.Builder
	b.WriteString(title + "\n\n")
	for _, f := range w.out.Facts {
		fmt.Fprintf(&b, "%s  %s\n", deref(f.At).Std().UTC().Format("2 Jan 15:04:05"), f.Text)
	}
	b.WriteString("\nMend it\n")
	for _, m := range w.out.Mend {
		fmt.Fprintf(&b, "  %s  %s\n", m.Command, m.Why)
	}
	fmt.Fprintf(&b, "  unstuck executions why %s\n", brief(e.id))
	return title, b.String(), nil
}

// recover closes the alerts of cues of which an execution succeeded, by cue, and says so once for each cue.
func (c *Cues) recover(tx *db.Tx, good map[string]string, now op.Time) error {
	if len(good) == 0 {
		return nil
	}
	type open struct {
		cue, execution string
		since          op.Time
	}
	rows, err := tx.Query(sqlAlertsOpen, slices.Sorted(maps.Keys(good)))
	all, err := scanAll(rows, err, func(o *open, r scanner) error { return r.Scan(&o.cue, &o.execution, &o.since) })
	if err != nil {
		return fmt.Errorf("look for alerts that are over: %w", err)
	}
	for i, o := range all {
		if i > 0 && all[i-1].cue == o.cue {
			continue
		}
		n, err := tx.Exec(sqlAlertsClose, o.cue, now)
		if err == nil && n > 0 {
			err = c.sayRecovered(tx, good[o.cue], o.execution, o.since, now)
		}
		if err != nil {
			return fmt.Errorf("close the alerts of cue %s: %w", o.cue, err)
		}
	}
	return nil
}

// sayRecovered writes the alert that an execution ended others, the first of them about another execution.
func (c *Cues) sayRecovered(tx *db.Tx, id, first string, since, now op.Time) error {
	e, w := &execution{}, &inquiry{now: now, alerting: true}
	if err := e.scan(tx.Row(sqlExecutions+" WHERE e.id = ?1", id)); err != nil {
		return err
	}
	lasted := lengthOf((time.Duration(now-since) * time.Microsecond).Truncate(time.Second))
	title := fmt.Sprintf("%s recovered: done at %s, %s after the alert", e.cueName, w.when(now), lasted)
	metadata := map[string]any{"lasted_seconds": int64(now-since) / 1_000_000, "first_execution_id": first}
	_, err := tx.Exec(sqlAlertAdd, newUUID(now), e.workspace, e.cueID, e.cueName, e.id, alertRecovered, "info", title, title+"\n",
		fmt.Sprintf("Cue %s has recovered.", e.cueID), string(op.Marshal(metadata)), now, now)
	return err
}
