package cue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/alert"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Causes: one word each for what "why" finds.
const (
	whyDone       = "done"
	whyRemoved    = "removed"     // it fired; how that ended is kept no longer
	whyWorking    = "working"     // it is under way
	whyNotDue     = "not_due"     //
	whyPaused     = "paused"      // or ended
	whyEnded      = "ended"       //
	whyPlan       = "plan_limit"  //
	whyCatchUp    = "catch_up"    // by the cue's policy for missed due times
	whyDown       = "server_down" //
	whyNoWorker   = "no_worker"   // none ever asked
	whyNotTaken   = "not_taken"   // workers were there and took something else
	whySilent     = "worker_silent"
	whyKey        = "worker_key" // the worker is silent because its key does not let it in
	whyLease      = "lease_lost"
	whyRefused    = "callback_refused"
	whyNotAllowed = "callback_not_allowed"
	whyOff        = "callback_off" // it answered 410, and the cue was paused
	whyResting    = "callback_resting"
	whyUnreported = "outcome_timeout"
	whyFailed     = "outcome_failed"
	whyUnverified = "evidence_missing"
	whyRejected   = "outcome_rejected"
	whyToVerify   = "verification_pending"
)

type whyInput struct {
	ID string          `json:"id"`
	At op.Opt[op.Time] `json:"at" doc:"the due time to explain, or the minute of it; when absent, what the cue did last"`
}

// whyObject explains one due time, execution or state of a cue.
type whyObject struct {
	CueID       string    `json:"cue_id"`
	Name        string    `json:"name"`
	At          *op.Time  `json:"at" doc:"the due time or moment that is explained"`
	ExecutionID *string   `json:"execution_id" doc:"null when there is none"`
	Cause       string    `json:"cause" doc:"done, removed (it fired, and how that ended is kept no longer), working, not_due, paused, ended, plan_limit, catch_up, server_down, no_worker, not_taken, worker_silent, worker_key, lease_lost, callback_refused, callback_not_allowed, callback_off, callback_resting, outcome_timeout, outcome_failed, evidence_missing, outcome_rejected or verification_pending"`
	Sentence    string    `json:"sentence" doc:"for people; times are UTC"`
	Facts       []whyFact `json:"facts" doc:"what the sentence rests on, oldest first"`
	Mend        []whyStep `json:"mend" doc:"commands that mend it"`
	LastGood    *whyGood  `json:"last_good" doc:"the latest execution that succeeded; null for none lately"`
}

type whyFact struct {
	At          *op.Time `json:"at"`
	Text        string   `json:"text"`
	ExecutionID *string  `json:"execution_id"`
}

type whyStep struct {
	Command string `json:"command"`
	Why     string `json:"why"`
}

type whyGood struct {
	ExecutionID string  `json:"execution_id"`
	At          op.Time `json:"at" doc:"when it ended"`
	Took        int64   `json:"took_seconds"`
	Evidence    *string `json:"evidence" doc:"external id, address or reference"`
}

// why explains what became of a due time of a cue.
func (c *Cues) why(ctx context.Context, in whyInput) (whyObject, error) {
	return c.inquire(ctx, func(w *inquiry) (err error) {
		if w.q, err = loadCue(w.tx, w.caller, in.ID); err != nil {
			return err
		}
		if in.At.Set {
			return w.moment(in.At.Val)
		}
		return w.lately()
	})
}

// whyExecution explains how an execution stands.
func (c *Cues) whyExecution(ctx context.Context, in executionID) (whyObject, error) {
	return c.inquire(ctx, func(w *inquiry) error {
		e, err := c.loadExecution(w.tx, w.caller, in.ID)
		if err != nil {
			return err
		}
		if w.q, err = readCue(w.tx, sqlCueByID, e.cueID); err != nil {
			return err
		}
		return w.execution(e)
	})
}

// inquiry is one question and what was found out about it.
type inquiry struct {
	c      *Cues
	tx     *db.Tx
	caller *access.Caller // nil for an alert
	now    op.Time
	q      *cue
	out    whyObject

	alerting bool // the words are kept, so times must stay true
}

func (c *Cues) inquire(ctx context.Context, ask func(*inquiry) error) (whyObject, error) {
	w := &inquiry{c: c, caller: c.caller(ctx), now: c.now()}
	if err := c.Access.WriteRefusals(ctx, false); err != nil { // so that those of a moment ago count
		return w.out, err
	}
	err := c.DB.View(ctx, func(tx *db.Tx) error {
		w.tx, w.out = tx, whyObject{Facts: []whyFact{}, Mend: []whyStep{}}
		if err := ask(w); err != nil {
			return err
		}
		w.out.CueID, w.out.Name = w.q.id, w.q.name
		return w.complete()
	})
	return w.out, err
}

// complete puts the facts in order and adds the last good execution.
func (w *inquiry) complete() error {
	slices.SortStableFunc(w.out.Facts, func(a, b whyFact) int { return int(min(max(deref(a.At)-deref(b.At), -1), 1)) })
	return w.lastGood()
}

func (w *inquiry) because(cause, format string, args ...any) {
	w.out.Cause, w.out.Sentence = cause, unbroken(fmt.Sprintf(format, args...))
}

// fact notes something that happened at a moment.
func (w *inquiry) fact(at op.Time, format string, args ...any) {
	w.out.Facts = append(w.out.Facts, whyFact{At: &at, Text: unbroken(fmt.Sprintf(format, args...))})
}

// unbroken is a text on one line. What a worker or a callback said stays where it is quoted: it begins no line that looks like one of
// ours, such as a command that mends.
func unbroken(s string) string {
	return strings.NewReplacer("\r\n", " ", "\n", " ", "\r", " ", "\u2028", " ", "\u2029", " ").Replace(s)
}

func (w *inquiry) mend(why, format string, args ...any) {
	w.out.Mend = append(w.out.Mend, whyStep{"unstuck " + fmt.Sprintf(format, args...), why})
}

// name is the cue in a command.
func (w *inquiry) name() string { return shellQuoted(w.q.name) }

// when is a moment as people say it: "02:00 today".
func (w *inquiry) when(t op.Time) string {
	if w.alerting {
		return alert.When(t, w.now)
	}
	at, now := t.Std().UTC(), w.now.Std().UTC()
	clock := at.Format("15:04:05")
	if at.Second() == 0 {
		clock = at.Format("15:04")
	}
	switch day := 24 * time.Hour; at.Truncate(day) {
	case now.Truncate(day):
		return clock + " today"
	case now.Truncate(day).Add(-day):
		return clock + " yesterday"
	case now.Truncate(day).Add(day):
		return clock + " tomorrow"
	}
	return clock + at.Format(" on 2 Jan 2006")
}

// due notes the due time itself, also in the cue's zone.
func (w *inquiry) due(at op.Time, what string, execution *string) {
	text := what + at.Std().UTC().Format("15:04 UTC")
	if loc, err := time.LoadLocation(w.q.timezone); err == nil && w.q.timezone != "UTC" {
		text += " = " + at.Std().In(loc).Format("15:04 ") + w.q.timezone
	}
	w.out.Facts = append(w.out.Facts, whyFact{&at, text, execution})
}

// lately explains what the cue did last, or why it does nothing now.
func (w *inquiry) lately() error {
	versions, err := w.versions(max(w.now, w.q.decided) + 1) // the latest may begin right after now
	if err != nil {
		return err
	}
	if w.q.status == paused {
		return w.stopped(versions[0])
	}
	var latest string
	var its op.Time
	ran, err := found(w.tx.Row(sqlWhyLatest, w.q.id, w.now).Scan(&latest, &its))
	if err != nil {
		return err
	}
	for _, v := range versions {
		if v.status != active {
			continue
		}
		s, err := w.c.compile(v.kind, v.cron, v.timezone, deref(v.at))
		if err != nil {
			return err
		}
		until := w.now
		if v.to != nil {
			until = min(until, *v.to-1)
		}
		if at, ok := s.last(until); ok && at >= v.from && (!ran || at > its) {
			return w.dueTime(v, at)
		}
		if ran && its >= v.from {
			break
		}
	}
	if ran {
		e, err := w.c.loadExecution(w.tx, w.caller, latest)
		if err != nil {
			return err
		}
		return w.execution(e)
	}
	return w.notYet()
}

// versions are those of the cue that began up to a moment, the latest first.
func (w *inquiry) versions(upTo op.Time) ([]version, error) {
	rows, err := w.tx.Query(sqlVersionsUpTo, w.q.id, upTo)
	found, err := scanAll(rows, err, (*version).scan)
	if err == nil && len(found) == 0 {
		err = errors.New("there are none")
	}
	if err != nil {
		return nil, fmt.Errorf("read the versions of cue %s: %w", w.q.id, err)
	}
	return found, nil
}

// notYet explains a cue of which nothing was due so far.
func (w *inquiry) notYet() error {
	if w.q.nextRun == nil {
		w.because(whyEnded, "%s is not due: no due time is left, and it never ran.", w.q.name)
		if w.q.lastRun != nil {
			w.because(whyRemoved, "%s is not due: no due time is left. It last ran at %s; how that ended is kept no longer. %s", w.q.name, w.when(*w.q.lastRun), w.c.keptNow())
		}
		return nil
	}
	w.out.At = w.q.nextRun
	w.because(whyNotDue, "%s has not been due yet: its first due time is %s.", w.q.name, w.when(*w.q.nextRun))
	w.fact(w.q.createdAt, "created")
	w.due(*w.q.nextRun, "due, ", nil)
	w.mend("to have it done now", "cues fire %s", w.name())
	return nil
}

// moment explains the due time at a moment, or in the minute that begins there.
func (w *inquiry) moment(at op.Time) error {
	if in(at, time.Minute) <= w.q.createdAt {
		w.out.At = &at
		w.because(whyNotDue, "%s was not due at %s: it was made later.", w.q.name, w.when(at))
		w.fact(w.q.createdAt, "created")
		return nil
	}
	versions, err := w.versions(in(at, time.Minute))
	if err != nil {
		return err
	}
	around := slices.DeleteFunc(slices.Clone(versions), func(v version) bool { return v.to != nil && *v.to <= at })
	slices.Reverse(around) // the first due time from the moment on
	for _, v := range around {
		from := max(at, v.from)
		if v.status == completed || v.status == failed {
			if v.from <= at {
				return w.stopped(v)
			}
			continue
		}
		s, err := w.c.compile(v.kind, v.cron, v.timezone, deref(v.at))
		if err != nil {
			return err
		}
		due, ok := s.next(from - 1)
		if !ok || due >= in(at, time.Minute) || v.to != nil && due >= *v.to {
			continue
		}
		switch {
		case v.status == paused:
			w.out.At = &due
			w.due(due, "would have been due, ", nil)
			return w.stopped(v)
		case due > w.now:
			w.out.At = &due
			w.because(whyNotDue, "%s is not due before %s.", w.q.name, w.when(due))
			w.due(due, "due, ", nil)
			w.mend("to have it done now", "cues fire %s", w.name())
			return nil
		}
		return w.dueTime(v, due)
	}
	return w.notDueAt(at, versions)
}

// notDueAt explains a moment that no schedule names, with the due times around it.
func (w *inquiry) notDueAt(at op.Time, versions []version) error {
	w.out.At = &at
	w.because(whyNotDue, "%s was not due at %s: its schedule does not name that moment.", w.q.name, w.when(at))
	v := versions[0]
	s, err := w.c.compile(v.kind, v.cron, v.timezone, deref(v.at))
	if err != nil {
		return err
	}
	if before, ok := s.last(at); ok && before >= w.q.createdAt {
		w.due(before, "due before: ", nil)
	}
	if next, ok := s.next(at); ok {
		w.due(next, "due next: ", nil)
	}
	w.mend("to have it done now", "cues fire %s", w.name())
	return nil
}

// stopped explains a version in which the cue is paused or over.
func (w *inquiry) stopped(v version) error {
	who, err := w.who(v.changedBy)
	if err != nil {
		return err
	}
	is, until := "is", ""
	if v.to != nil {
		is, until = "was", " until "+w.when(*v.to)
		w.fact(*v.to, "resumed, or changed")
	}
	if w.out.At == nil {
		w.out.At = ptr(v.from)
	}
	switch {
	case v.status != paused:
		w.because(whyEnded, "%s %s over since %s: it %s.", w.q.name, is, w.when(v.from), map[string]string{completed: "was done", failed: "failed, and was to run once"}[v.status])
		w.fact(v.from, "%s", v.status)
		w.mend("to run it once more", "cues fire %s", w.name())
		return nil
	case strings.HasPrefix(v.reason, pausedGone):
		w.because(whyOff, "%s %s paused since %s%s because its callback answered 410: it wants no more calls.", w.q.name, is, w.when(v.from), until)
		w.fact(v.from, "paused: %s", v.reason)
	case v.reason != "":
		w.because(whyPaused, "%s %s paused since %s%s because an execution failed and it asks for that.", w.q.name, is, w.when(v.from), until)
		w.fact(v.from, "paused: %s", v.reason)
	default:
		w.because(whyPaused, "%s %s paused since %s%s, by %s.", w.q.name, is, w.when(v.from), until, who)
		w.fact(v.from, "paused by %s", who)
	}
	if v.to == nil {
		w.mend("due times from then on fire again", "cues resume %s", w.name())
	}
	return nil
}

// namesKeys says whether the answer names keys: for who may read keys, and in alerts.
func (w *inquiry) namesKeys() bool { return w.alerting || w.caller.Holds("keys:read") }

// who is a key as the caller may know it.
func (w *inquiry) who(key string) (string, error) {
	if key == "" {
		return "the server", nil
	}
	if !w.namesKeys() {
		return "key " + key, nil
	}
	s, err := w.c.Access.TellKey(w.tx, w.q.workspace, key, "cue.update", w.q.id, w.q.name, access.Holder{}, w.now, w.now)
	if err != nil || s.Name == "" {
		return "key " + key, err
	}
	return s.Name + " (" + s.Redacted + ")", nil
}

// dueTime explains what became of a due time of an active version.
func (w *inquiry) dueTime(v version, at op.Time) error {
	w.out.At = &at
	var id string
	there, err := found(w.tx.Row(sqlWhyDue, w.q.id, at).Scan(&id))
	if err != nil {
		return err
	}
	if there {
		e, err := w.c.loadExecution(w.tx, w.caller, id)
		if err != nil {
			return err
		}
		return w.execution(e)
	}
	w.due(at, "due, ", nil)
	_, entries, err := readLedger(w.tx, w.q.id, at, at+1)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(entries, func(e entry) bool { return e.version == v.number })
	if i < 0 {
		w.because(whyWorking, "%s is due this very moment, and will be fired.", w.q.name)
		return nil
	}
	return w.entry(entries[i], at)
}

// entry explains a due time that did not become an execution.
func (w *inquiry) entry(e entry, at op.Time) error {
	from, to, down, err := absence(w.tx, at)
	if err != nil {
		return err
	}
	server, cause := "the server looked late: it was busy, or its clock stepped", whyCatchUp
	if down {
		cause = whyDown
		server = "no server ran from " + w.when(from) + " to " + w.when(to)
		w.fact(from, "last sign of a server")
		w.fact(to, "a server ran again")
	}
	switch {
	case e.reason == reasonPlan:
		w.because(whyPlan, "%s was skipped at %s because the executions of the month were used up.", w.q.name, w.when(at))
		w.mend("see how much is used, and of what plan", "usage")
		w.mend("what was skipped, now, once there is room", "cues fire %s", w.name())
	case e.ending == endCoalesced:
		w.because(cause, "%s did not run at %s because %s; it was merged into a later due time.", w.q.name, w.when(at), server)
		w.mend("to have missed due times run one by one from now on", "cues update %s --catch-up replay_all_missed", w.name())
	case e.reason == reasonPolicy || e.reason == reasonCap:
		rule := "its catch-up policy skips what was missed"
		if e.reason == reasonCap {
			rule = fmt.Sprintf("only the latest %d due times that were missed are replayed", replayMost)
		}
		w.because(whyCatchUp, "%s was skipped at %s because %s, and %s.", w.q.name, w.when(at), server, rule)
		w.mend("to have the latest missed due time run from now on", "cues update %s --catch-up run_once_if_missed", w.name())
		w.mend("what was skipped, now", "cues fire %s", w.name())
	case e.ending == endFired:
		w.because(whyRemoved, "%s was fired at %s; how that ended is kept no longer. %s", w.q.name, w.when(at), w.c.keptNow())
	default:
		w.because(whyPaused, "%s was skipped at %s: %s.", w.q.name, w.when(at), strings.ReplaceAll(e.reason, "_", " "))
	}
	return nil
}

// lastGood finds the latest execution that succeeded, among the last thousand.
func (w *inquiry) lastGood() error {
	var id string
	there, err := found(w.tx.Row(sqlWhyGood, w.q.id, w.now).Scan(&id))
	if err != nil || !there {
		return err
	}
	e := &execution{}
	if err := e.scan(w.tx.Row(sqlExecutions+" WHERE e.id = ?1", id)); err != nil || e.deliveredAt == nil {
		return err
	}
	o, err := e.object()
	if err != nil {
		return err
	}
	good := &whyGood{ExecutionID: e.id, At: *e.deliveredAt}
	if e.startedAt != nil {
		good.Took = int64((*e.deliveredAt - *e.startedAt) / 1_000_000)
	}
	if o.Outcome != nil {
		for _, text := range []*string{o.Outcome.ExternalID, o.Outcome.ResultURL, o.Outcome.ResultRef} {
			if good.Evidence == nil {
				good.Evidence = text
			}
		}
	}
	w.out.LastGood = good
	return nil
}
