package cue

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"unstuck/internal/alert"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

const (
	failuresInARow = 3   // so many raise an alert, unless the cue says otherwise
	missesInARow   = 2   // so many misses, when the cue says something else about alerts (CueAPI wire contract 10.1); else the first
	failuresMost   = 100 // further back they are not counted
)

// alertsInput says when alerts of a cue are raised (CueAPI wire contract 10.1).
type alertsInput struct {
	Failures op.Opt[int64] `json:"consecutive_failures" min:"1" max:"100" doc:"so many failures in a row; 3 when never given"`
	Misses   op.Opt[int64] `json:"missed_window_multiplier" min:"1" max:"10" doc:"so many due times in a row that no worker took, so nothing ran for so many intervals; 2 when never given"`
}

// apply puts what was given over what is stored.
func (a alertsInput) apply(q *cue) {
	failures, misses := int64(failuresInARow), int64(missesInARow)
	if q.alertFailures != nil {
		failures, misses = *q.alertFailures, *q.alertMisses
	}
	q.alertFailures, q.alertMisses = ptr(a.Failures.Or(failures)), ptr(a.Misses.Or(misses))
}

type alertsObject struct {
	Failures int64 `json:"consecutive_failures" doc:"so many failures in a row raise an alert"`
	Misses   int64 `json:"missed_window_multiplier" doc:"so many due times in a row that no worker took raise one"`
}

func (q *cue) alertsObject() *alertsObject {
	if q.alertFailures == nil {
		return nil
	}
	return &alertsObject{*q.alertFailures, *q.alertMisses}
}

// alertOn raises the alert that an execution calls for which ended badly; none for a failure that is not one of several in a row. off
// says that its callback wants no more calls.
func (c *Cues) alertOn(tx *db.Tx, id string, off bool, now op.Time) error {
	e := &execution{}
	if err := e.scan(tx.Row(sqlExecutions+" WHERE e.id = ?1", id)); err != nil {
		return fmt.Errorf("read execution %s: %w", id, err)
	}
	n := alert.New{Workspace: e.workspace, CueID: e.cueID, CueName: e.cueName, ExecutionID: e.id, Since: e.scheduledFor}
	run, err := alertFor(tx, e, off, &n)
	if err != nil || n.Type == "" {
		return err
	}
	n.Words = func() (alert.Words, error) { return c.alertWords(tx, e, n.Type, run, now) }
	return c.Alerts.Raise(tx, n, now)
}

// alertFor puts into an alert which one an execution calls for, with message and metadata of the contract; no type for none. It
// returns the how manieth in a row of its kind the execution is, where that counts.
func alertFor(tx *db.Tx, e *execution, off bool, n *alert.New) (run int, err error) {
	switch {
	case e.outcomeState == verificationFailed && e.status == statusSuccess:
		n.Type, n.Message = alert.Unverified, fmt.Sprintf("Execution %s reported success but failed verification (required evidence missing).", e.id)
		n.Metadata = map[string]any{"outcome_state": verificationFailed, "transport": e.transport}
	case e.status == statusMissed:
		_, most, fault := thresholds(tx, e.cueID)
		if run, err = inARow(tx, e.cueID, statusMissed); fault != nil || err != nil || run < most {
			return run, cmp.Or(fault, err)
		}
		n.Type, n.Message = alert.Missed, fmt.Sprintf("Execution %s of cue %s was missed: no worker took it in time.", e.id, e.cueID)
		n.Metadata = map[string]any{"scheduled_for": e.scheduledFor}
	case e.status == statusOutcomeTimeout:
		n.Type, n.Message = alert.Timeout, fmt.Sprintf("Execution %s of cue %s has no outcome: nobody reported in time.", e.id, e.cueID)
		n.Metadata = map[string]any{"transport": e.transport}
	case off:
		n.Type, n.Message = alert.Disabled, fmt.Sprintf("The callback of cue %s answered 410: it wants no more calls.", e.cueID)
		n.Metadata = map[string]any{"http_status": 410}
	default:
		most, _, fault := thresholds(tx, e.cueID)
		if fault != nil {
			return 0, fault
		}
		if run, err = inARow(tx, e.cueID, ""); run >= most {
			n.Type, n.Message = alert.Failures, fmt.Sprintf("Cue %s has %d consecutive failed executions.", e.cueID, run)
			n.Metadata = map[string]any{alert.Failures: run}
		}
	}
	return run, err
}

// thresholds are how many failures in a row raise an alert about a cue, and how many misses.
func thresholds(tx *db.Tx, cue string) (failures, misses int, err error) {
	if err := tx.Row(sqlAlertAfter, cue, failuresInARow).Scan(&failures, &misses); err != nil {
		return 0, 0, fmt.Errorf("read when alerts of cue %s are raised: %w", cue, err)
	}
	return failures, misses, nil
}

// inARow counts the latest executions of a cue that ended without a success between them; only those that ended so, unless it is "".
func inARow(tx *db.Tx, cue, status string) (n int, err error) {
	rows, err := tx.Query(sqlAlertRun, cue, failuresMost)
	ends, err := scanAll(rows, err, func(end *string, r scanner) error { return r.Scan(end) })
	if err != nil {
		return 0, fmt.Errorf("count the failures of cue %s: %w", cue, err)
	}
	for _, end := range ends {
		if end == "good" || status != "" && end != status {
			break
		}
		n++
	}
	return n, nil
}

// alertWords are what "why" says about the execution, in times that stay true (WORDS 3.7).
func (c *Cues) alertWords(tx *db.Tx, e *execution, kind string, run int, now op.Time) (out alert.Words, err error) {
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
	if err := w.complete(); err != nil {
		return out, err
	}
	notes := []string{}
	switch kind {
	case alert.Missed:
		notes = append(notes, ordinal(run)+" miss")
	case alert.Failures:
		notes = append(notes, ordinal(run)+" failure in a row")
	}
	good := "no good execution before"
	if g := w.out.LastGood; g != nil {
		good = "last good " + day(g.At, now, "15:04")
	}
	out.Title = strings.TrimSuffix(strings.Replace(w.out.Sentence, " because ", ": ", 1), ".") + " (" + strings.Join(append(notes, good), ", ") + ")"
	out.Body = w.block()
	return out, nil
}

// block is what was found out as a text: the facts, the commands that mend it, and the last good execution (WORDS 3.7).
func (w *inquiry) block() string {
	var b strings.Builder
	for _, f := range w.out.Facts {
		at, clock := deref(f.At).Std().UTC(), "15:04:05"
		if at.Truncate(24*time.Hour) != w.now.Std().UTC().Truncate(24*time.Hour) {
			clock = "2 Jan 15:04:05"
		}
		fmt.Fprintf(&b, "  %s   %s", at.Format(clock), f.Text)
		if f.ExecutionID != nil {
			fmt.Fprintf(&b, "   execution %s", brief(*f.ExecutionID))
		}
		b.WriteString("\n")
	}
	b.WriteString("\nMend it\n")
	for i, m := range append(w.out.Mend, whyStep{"unstuck executions why " + brief(*w.out.ExecutionID), "how it stands now"}) {
		fmt.Fprintf(&b, "%s\n", strings.TrimRight(fmt.Sprintf("  %d  %s   %s", i+1, m.Command, m.Why), " "))
	}
	if g := w.out.LastGood; g != nil {
		fmt.Fprintf(&b, "Last good execution: %s, success, %s", day(g.At, w.now, "15:04:05"), lengthOf(time.Duration(g.Took)*time.Second))
		if g.Evidence != nil {
			b.WriteString(", evidence " + *g.Evidence)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// day is a moment as people say it when they are told of it at once: "yesterday 02:00".
func day(t, now op.Time, clock string) string {
	at, today := t.Std().UTC(), now.Std().UTC()
	switch day := 24 * time.Hour; at.Truncate(day) {
	case today.Truncate(day):
		return "today " + at.Format(clock)
	case today.Truncate(day).Add(-day):
		return "yesterday " + at.Format(clock)
	}
	return at.Format("2 Jan 2006 " + clock)
}

// ordinal is 1st, 2nd, 3rd, 4th, …
func ordinal(n int) string {
	end := "th"
	if n/10%10 != 1 {
		end = map[int]string{1: "st", 2: "nd", 3: "rd"}[n%10]
		end = cmp.Or(end, "th")
	}
	return fmt.Sprint(n) + end
}

// recovered closes the alerts of cues of which an execution, by cue, succeeded.
func (c *Cues) recovered(tx *db.Tx, good map[string]string, now op.Time) error {
	return c.Alerts.Recover(tx, good, func(id string) (alert.Good, error) {
		e := &execution{}
		err := e.scan(tx.Row(sqlExecutions+" WHERE e.id = ?1", id))
		return alert.Good{ID: e.id, Replayed: e.replayedFrom}, err
	}, now)
}

// sqlAlertRun is how the latest executions of a cue ended: "good", or their status.
const sqlAlertRun = `SELECT CASE WHEN status = 'success' AND coalesce(outcome_success, 1) = 1 THEN 'good' ELSE status END
	FROM executions WHERE cue_id = ?1 AND status IN ('success', 'failed', 'missed', 'outcome_timeout') ORDER BY created_at DESC, id DESC LIMIT ?2`

const sqlAlertAfter = `SELECT coalesce(alert_failures, ?2), coalesce(alert_misses, 1) FROM cues WHERE id = ?1`
