// Package alert keeps what is wrong: alerts about cues and keys, each raised in the transaction of what it is about, counted while it
// is open, and closed when that is over. It knows what an alert is, and who may see it; what it says is up to who raises it.
package alert

import (
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/mail"
	"unstuck/internal/op"
	"unstuck/internal/webhook"
)

// Types of alerts (CUES, alerts; CueAPI wire contract 2.7, 10.3).
const (
	Failures   = "consecutive_failures"
	Missed     = "missed_window"
	Timeout    = "outcome_timeout"
	Unverified = "verification_failed"
	Disabled   = "callback_disabled"
	Recovered  = "recovered" // closes the others of its cue; it is never open itself
)

// Severities.
const (
	warning = "warning"
	info    = "info"
)

// Options are what Open needs. DB, Access and Now are required.
type Options struct {
	DB     *db.DB
	Access *access.Access
	Log    *slog.Logger     // nil discards
	Now    func() time.Time // the one clock of the package; no SQL asks for the time
	URL    string           // the public address of the server, for links; "" for none

	Callbacks webhook.Policy               // which addresses alerts may be sent to
	Mail      *mail.Sender                 // nil: no mail is sent
	Observe   func(channel, result string) // hears of every attempt to deliver: sent, failed (it is sent again), lost; and of letters that are left_out; nil for nobody
	Watch     func() *Watch                // who watches the server from outside; nil for nobody
}

// Alerts is the state of the package: one per server. Its methods may be called from any goroutine.
type Alerts struct {
	Options
	heard  func(Raised)
	raised [len(types)]atomic.Int64 // since the start, by type
	woken  chan struct{}            // holds a token when there is something to send
	post   post
	tests  hourly
	mailed hourly // by address
}

// Raised is an alert that was raised, and stored.
type Raised struct {
	New
	ID, Severity, Title string
	At                  op.Time
}

// OnRaise has every alert told that is raised from now on, after its commit. It is called once, before the first is.
func (a *Alerts) OnRaise(fn func(Raised)) { a.heard = fn }

// Open prepares the package on an open database. It starts nothing; see Run and Tend.
func Open(o Options) *Alerts {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := &Alerts{Options: o, woken: make(chan struct{}, 1)}
	a.post.open(a)
	return a
}

func (a *Alerts) now() op.Time { return op.TimeOf(a.Now()) }

// New is an alert to raise.
type New struct {
	Workspace, Type             string
	CueID, CueName, ExecutionID string // "" for none
	KeyID                       string // "" for none
	Message                     string // as in the CueAPI wire contract
	Metadata                    map[string]any
	Since                       op.Time // from when on something is wrong
	Words                       func() (Words, error)
}

// Words are what an alert says to people. Who may see alerts may read them, and its times must stay true.
type Words struct {
	Title string // one line
	Body  string // what is below it: facts, and the commands that mend it
}

// Raise raises an alert in the transaction of what it is about. Where one of its type about its cue or key is open, that one counts
// it, and nobody asks for its words.
func (a *Alerts) Raise(tx *db.Tx, n New, now op.Time) error {
	again, err := tx.Exec(sqlAgain, n.CueID, n.KeyID, n.Type, now)
	if err != nil {
		return fmt.Errorf("count an alert about %s%s: %w", n.CueID, n.KeyID, err)
	}
	if again > 0 {
		return nil
	}
	w, err := n.Words()
	if err != nil {
		return fmt.Errorf("word an alert about %s%s: %w", n.CueID, n.KeyID, err)
	}
	return a.add(tx, &n, warning, w, now, -1)
}

// add raises an alert; recovered is -1 for one that is open.
func (a *Alerts) add(tx *db.Tx, n *New, severity string, w Words, now, recovered op.Time) error {
	id := db.NewUUID(now.Std())
	w = w.plain()
	if err := a.write(tx, id, n, severity, w, now, recovered); err != nil {
		return err
	}
	tx.AfterCommit(func() {
		a.raised[slices.Index(types[:], n.Type)].Add(1)
		if a.heard != nil {
			a.heard(Raised{New: *n, ID: id, Severity: severity, Title: w.Title, At: now})
		}
	})
	return a.queue(tx, sqlSendAdd, id, n.Workspace, now)
}

// write stores an alert; see add.
func (a *Alerts) write(tx *db.Tx, id string, n *New, severity string, w Words, now, recovered op.Time) error {
	if n.Metadata == nil {
		n.Metadata = map[string]any{}
	}
	if a.URL != "" {
		w.Body += "\n" + a.URL + "/docs/help/alerts\n"
	}
	_, err := tx.Exec(sqlAdd, id, n.Workspace, n.CueID, n.CueName, n.ExecutionID, n.KeyID, n.Type, severity, w.Title, w.Body, n.Message,
		string(op.Marshal(n.Metadata)), n.Since, now, int64(recovered))
	if err != nil {
		return fmt.Errorf("raise an alert about %s%s: %w", n.CueID, n.KeyID, err)
	}
	return nil
}

// Good is an execution that succeeded.
type Good struct {
	ID       string
	Replayed string // the execution that it is a replay of; "" for none
}

// openAlert is one that a success of its cue closes.
type openAlert struct {
	workspace, cue, name, execution, kind string
	since                                 op.Time
}

// Recover closes the alerts of cues of which an execution, by cue, succeeded, and says so once for each cue. tell is asked about
// such an execution when there is something to close.
func (a *Alerts) Recover(tx *db.Tx, good map[string]string, tell func(execution string) (Good, error), now op.Time) error {
	if len(good) == 0 {
		return nil
	}
	open, err := readOpen(tx, slices.Sorted(maps.Keys(good)))
	if err != nil {
		return fmt.Errorf("look for alerts that are over: %w", err)
	}
	for i, o := range open {
		if i > 0 && open[i-1].cue == o.cue {
			continue
		}
		n, err := tx.Exec(sqlClose, o.cue, now)
		if err == nil && n > 0 {
			err = a.sayRecovered(tx, o, good[o.cue], tell, now)
		}
		if err != nil {
			return fmt.Errorf("close the alerts of cue %s: %w", o.cue, err)
		}
	}
	return nil
}

func readOpen(tx *db.Tx, cues []string) (out []openAlert, err error) {
	rows, err := tx.Query(sqlOpen, cues)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var o openAlert
		if err := rows.Scan(&o.workspace, &o.cue, &o.name, &o.execution, &o.kind, &o.since); err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, rows.Err()
}

// sayRecovered writes the alert that an execution ended others, the first of which is o (WORDS 3.7).
func (a *Alerts) sayRecovered(tx *db.Tx, o openAlert, execution string, tell func(string) (Good, error), now op.Time) error {
	g, err := tell(execution)
	if err != nil {
		return err
	}
	lasted := length(o.since, now)
	how := "after " + lasted
	if o.kind == Missed && (g.ID == o.execution || g.Replayed == o.execution) {
		how = lasted + " late"
	}
	return a.add(tx, &New{
		Workspace: o.workspace, Type: Recovered, CueID: o.cue, CueName: o.name, ExecutionID: execution, Since: o.since,
		Message:  fmt.Sprintf("Cue %s has recovered.", o.cue),
		Metadata: map[string]any{"lasted_seconds": int64(now-o.since) / 1_000_000, "first_execution_id": o.execution},
	}, info, Words{Title: fmt.Sprintf("%s recovered: done at %s, %s", o.name, When(now, now), how)}, now, now)
}

// End closes the alerts of a cue that is deleted.
func (a *Alerts) End(tx *db.Tx, cue string, now op.Time) error {
	if _, err := tx.Exec(sqlEnd, cue, now); err != nil {
		return fmt.Errorf("close the alerts of cue %s: %w", cue, err)
	}
	return nil
}

// When is a moment in words that stay true: "02:00 UTC", with its day when that is another than now's.
func When(t, now op.Time) string { return at(t, now, " UTC") }

// Clock is When without the zone, where another moment beside it has it.
func Clock(t, now op.Time) string { return at(t, now, "") }

func at(t, now op.Time, zone string) string {
	at, today := t.Std().UTC(), now.Std().UTC()
	clock := "15:04:05"
	if at.Second() == 0 {
		clock = "15:04"
	}
	clock = at.Format(clock) + zone
	switch day := 24 * time.Hour; {
	case at.Truncate(day).Equal(today.Truncate(day)):
		return clock
	case at.Year() != today.Year():
		return clock + at.Format(" on 2 Jan 2006")
	}
	return clock + at.Format(" on 2 Jan")
}

// length is how long it is between two moments: "40 s", "31 min", "5 h 10 min", "3 days".
func length(from, to op.Time) string {
	d := time.Duration(max(to-from, 0)) * time.Microsecond
	switch m := int(d / time.Minute); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d/time.Second))
	case m < 60:
		return fmt.Sprintf("%d min", m)
	case m < 48*60 && m%60 == 0:
		return fmt.Sprintf("%d h", m/60)
	case m < 48*60:
		return fmt.Sprintf("%d h %d min", m/60, m%60)
	default:
		return fmt.Sprintf("%d days", m/(24*60))
	}
}

// found says whether a row was there.
func found(err error) (bool, error) {
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}
