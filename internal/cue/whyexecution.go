package cue

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/alert"
	"unstuck/internal/op"
)

// execution explains how an execution stands.
func (w *inquiry) execution(e *execution) error {
	w.out.ExecutionID, w.out.At = &e.id, &e.scheduledFor
	what := map[string]string{byScheduler: "due, ", byFire: "fired by hand for ", byReplay: "replayed for ", byChain: "fired by another cue for "}[e.triggeredBy]
	w.due(e.scheduledFor, what, &e.id)
	w.took(e)
	switch e.status {
	case statusSuccess:
		return w.succeeded(e)
	case statusMissed:
		w.fact(e.updatedAt, "missed: no worker took it within %s", lengthOf(w.c.UnclaimedAfter))
		if err := w.notices(e); err != nil {
			return err
		}
		return w.notTaken(e, "missed "+w.when(e.scheduledFor))
	case statusFailed:
		return w.failed(e)
	case statusOutcomeTimeout:
		how := "nobody reported in time how it went"
		if text(e.errorMessage) == saidNothing {
			how = "its answer did not say how it went"
		}
		w.because(whyUnreported, "%s, due %s, was called, but %s.", w.q.name, w.when(e.scheduledFor), how)
		w.fact(e.updatedAt, "%s", text(e.errorMessage))
		w.mend("if you know how it went; or --failure", "executions report %s --success", brief(e.id))
		w.mend("to have it done again", "executions replay %s", brief(e.id))
		return nil
	}
	return w.underWay(e)
}

// took notes who took the execution, and when it was called.
func (w *inquiry) took(e *execution) {
	switch {
	case e.transport == transportWorker && e.claimedAt != nil:
		w.fact(*e.claimedAt, "taken by worker %s, attempt %d of %d", e.claimedWorker, e.attempts, e.maxAttempts)
	case e.transport == transportWebhook && e.lastAttemptAt != nil:
		answer := "did not answer"
		if e.httpStatus != nil {
			answer = fmt.Sprintf("answered %d", *e.httpStatus)
		}
		if e.notAllowed() {
			w.fact(*e.lastAttemptAt, "not called, attempt %d of %d: its address is not allowed", e.attempts, e.maxAttempts)
			return
		}
		w.fact(*e.lastAttemptAt, "called, attempt %d of %d: the callback %s", e.attempts, e.maxAttempts, answer)
	}
}

// succeeded explains a success, which may be one in name only.
func (w *inquiry) succeeded(e *execution) error {
	when := w.when(e.scheduledFor)
	if e.outcomeAt != nil {
		w.fact(*e.outcomeAt, "reported as a success")
	}
	switch missing := e.lacks(); {
	case e.outcomeState == verificationFailed && len(missing) > 0:
		w.because(whyUnverified, "%s, due %s, was reported as done, but does not count because it lacks %s.", w.q.name, when, strings.Join(missing, " and "))
		w.mend("", "executions add-evidence %s%s", brief(e.id), evidenceFlags(missing))
		return nil
	case e.outcomeState == verificationFailed:
		w.because(whyRejected, "%s, due %s, was reported as done, but somebody rejected the outcome.", w.q.name, when)
		w.fact(e.updatedAt, "rejected: %s", summaryOf(e))
		w.mend("to have it done again", "executions replay %s", brief(e.id))
		return nil
	case e.outcomeState == verificationPending:
		w.because(whyToVerify, "%s, due %s, was reported as done and waits for somebody to verify it.", w.q.name, when)
		w.mend("or --reject", "executions verify %s", brief(e.id))
		return nil
	}
	done := e.updatedAt
	if e.deliveredAt != nil {
		done = *e.deliveredAt
	}
	w.fact(done, "done")
	if stopped := map[string]string{chainGone: "is deleted", chainPaused: "was paused", chainPlan: "had no room in the plan"}[e.chain.next]; stopped != "" {
		w.fact(done, "fired no other cue after it: the next one %s", stopped)
	}
	from, to, down, err := absence(w.tx, e.scheduledFor)
	if err != nil {
		return err
	}
	if down && e.triggeredBy == byScheduler && e.createdAt > in(e.scheduledFor, missedAfter) {
		w.because(whyDown, "%s, due %s, ran late because no server ran from %s to %s.", w.q.name, when, w.when(from), w.when(to))
		w.fact(from, "last sign of a server")
		w.fact(to, "a server ran again")
		return nil
	}
	w.because(whyDone, "Nothing is wrong: %s, due %s, was done at %s.", w.q.name, when, w.when(done))
	return nil
}

func summaryOf(e *execution) string {
	var o outcomeRecord
	_ = json.Unmarshal([]byte(e.outcome), &o) // without it there is no summary
	return text(o.Summary)
}

// failed explains a failure: reported, of the callback, or of a lease.
func (w *inquiry) failed(e *execution) error {
	when, message := w.when(e.scheduledFor), text(e.errorMessage)
	defer w.mend("with the payload of then", "executions replay %s", brief(e.id))
	if err := w.notices(e); err != nil {
		return err
	}
	switch {
	case e.outcomeState != "":
		w.because(whyFailed, "%s, due %s, failed: %s.", w.q.name, when, orElse(message, "its worker said no more"))
		w.fact(*e.outcomeAt, "reported as a failure")
	case e.transport == transportWorker:
		w.because(whyLease, "%s, due %s, failed because its worker %s: attempt %d of %d.", w.q.name, when, e.leftBy(), e.attempts, e.maxAttempts)
		w.fact(e.updatedAt, "%s", message)
		return w.silentHolder(e)
	case e.httpStatus != nil && *e.httpStatus == 410:
		so := ", so the cue was paused"
		if w.q.kind == once {
			so = "" // a cue that ran once has nothing to pause
		}
		w.because(whyOff, "%s, due %s, failed because its callback answered 410: it wants no more calls%s.", w.q.name, when, so)
		if w.q.status == paused {
			w.mend("when the callback takes calls again", "cues resume %s", w.name())
		}
	case e.notAllowed():
		w.because(whyNotAllowed, "%s, due %s, failed because its callback may not be called: %s", w.q.name, when, message)
	default:
		w.because(whyRefused, "%s, due %s, failed because its callback %s: attempt %d of %d.", w.q.name, when, e.answered(), e.attempts, e.maxAttempts)
		w.fact(e.updatedAt, "%s", message)
	}
	return nil
}

// notAllowed says that the last attempt sent nothing: the address may not be called, which its message says.
func (e *execution) notAllowed() bool {
	return e.httpStatus == nil && strings.Contains(text(e.errorMessage), "UNSTUCK_ALLOW_CALLBACKS")
}

// leftBy is how the worker of the last attempt left it: given back, or in silence.
func (e *execution) leftBy() string {
	if strings.HasPrefix(text(e.errorMessage), "Worker ") && strings.Contains(text(e.errorMessage), " gave it back; ") {
		return "gave it back"
	}
	return "took it and was not heard of again"
}

// answered is what the callback did at the last attempt.
func (e *execution) answered() string {
	if e.httpStatus != nil {
		return fmt.Sprintf("answered %d", *e.httpStatus)
	}
	return "could not be reached or did not answer"
}

// underWay explains an execution that has not ended.
func (w *inquiry) underWay(e *execution) error {
	when := w.when(e.scheduledFor)
	switch {
	case e.scheduledFor > w.now && e.status == statusPending:
		w.because(whyNotDue, "%s is not due before %s.", w.q.name, when)
	case e.status == statusPendingOutcome:
		w.because(whyWorking, "%s, due %s, was called; how it went is to be reported until %s.", w.q.name, when, w.when(deref(e.deadline)))
		w.mend("if you know how it went; or --failure", "executions report %s --success", brief(e.id))
	case e.transport == transportWorker && e.status == statusDelivering:
		w.because(whyWorking, "%s, due %s, is in the hands of worker %s until %s.", w.q.name, when, e.claimedWorker, w.when(deref(e.leaseUntil)))
	case e.transport == transportWorker && e.attempts > 0:
		w.because(whyLease, "%s, due %s, is offered again because its worker %s: attempt %d of %d.", w.q.name, when, e.leftBy(), e.attempts, e.maxAttempts)
		w.fact(e.updatedAt, "%s", text(e.errorMessage))
		w.mend("to take it", "executions claim %s", brief(e.id))
	case e.transport == transportWorker:
		return w.notTaken(e, "has waited since "+when)
	default:
		w.waitingCall(e)
	}
	return nil
}

// waitingCall explains a call that is not made yet, or is to be made again.
func (w *inquiry) waitingCall(e *execution) {
	when := w.when(e.scheduledFor)
	shut := w.c.courier.shutUntil(lane{e.workspace, e.endpoint})
	switch {
	case e.deliverAt == nil:
		w.because(whyWorking, "%s, due %s, is being called.", w.q.name, when)
	case shut > w.now && *e.deliverAt <= w.now:
		w.because(whyResting, "%s, due %s, waits because its callback failed several times in a row and rests until %s.", w.q.name, when, w.when(shut))
		w.fact(shut, "its callback is tried again")
	case e.status == statusRetrying && e.notAllowed():
		w.because(whyNotAllowed, "%s, due %s, waits because its callback may not be called: %s", w.q.name, when, text(e.errorMessage))
	case e.status == statusRetrying:
		w.because(whyRefused, "%s, due %s, waits because its callback %s; the next attempt is due %s.", w.q.name, when, e.answered(), w.when(*e.deliverAt))
		w.fact(*e.deliverAt, "next attempt, %d of %d", e.attempts+1, e.maxAttempts)
	default:
		w.because(whyWorking, "%s, due %s, waits for its turn to be called.", w.q.name, when)
	}
}

// seenWorker is a worker as far as it is known: of a heartbeat, or of a claim.
type seenWorker struct {
	worker, key string
	heard       op.Time
	handlers    string // JSON list of the tasks that it says it takes; "" when it does not say
}

func (s *seenWorker) scan(r scanner) error { return r.Scan(&s.worker, &s.key, &s.heard, &s.handlers) }

// tasks are those that it says it takes; none when it does not say.
func (s *seenWorker) tasks() (names []string) {
	_ = json.Unmarshal([]byte(s.handlers), &names) // was written by us, or is ""
	return names
}

// found reports whether a row was there.
func found(err error) (bool, error) {
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// notTaken explains an execution that no worker took: none is known, its worker is silent, perhaps because of its key, or those that
// ask take something else.
func (w *inquiry) notTaken(e *execution, lead string) error {
	ended := w.now // when it was decided that nobody takes it
	if e.status == statusMissed {
		ended = e.updatedAt
		defer w.mend("with the payload of "+w.when(e.scheduledFor), "executions replay %s", brief(e.id))
	}
	its, last, err := w.workersOf(e)
	if err != nil {
		return err
	}
	if its.worker == "" {
		w.because(whyNoWorker, "%s %s because no worker is known that asks for work.", w.q.name, lead)
		w.mend("or start your worker: it needs a key of scope worker", "executions claim --worker-id me")
		return nil
	}
	silent := its.heard < in(e.scheduledFor, -workerActive)
	since, from := op.Time(0), min(its.heard, in(e.scheduledFor, -24*time.Hour))
	if !silent && its.heard <= ended && its.heard >= in(w.now, -workerActive) {
		since, from = its.heard, w.now // it was there a moment ago: only what has kept its key out from then on can be the cause
	}
	if blamed, err := w.blameKey(its, lead, since, from, ended); err != nil || blamed {
		return err
	}
	who := its
	if last.heard > who.heard {
		who = last
	}
	w.fact(who.heard, "worker %s was last heard of", who.worker)
	if silent && who == its {
		w.because(whySilent, "%s %s because its worker %s has not been heard of since %s.", w.q.name, lead, who.worker, w.when(who.heard))
		w.mend("see who is there, then start the worker again", "workers list")
		return nil
	}
	if tasks := who.tasks(); len(tasks) > 0 && !slices.Contains(tasks, e.task) {
		w.otherTasks(e, who.worker, tasks, lead)
		return nil
	}
	w.because(whyNotTaken, "%s %s although a worker (%s) was there: none took it%s.", w.q.name, lead, who.worker, choice(e))
	if who.heard > ended {
		w.because(whyNotTaken, "%s %s: no worker took it in time%s. Worker %s was heard of since.", w.q.name, lead, choice(e), who.worker)
	}
	w.mend("see what waits, and for whom", "executions claimable")
	return nil
}

// otherTasks explains an execution with a task, or without, that its worker does not take.
func (w *inquiry) otherTasks(e *execution, worker string, tasks []string, lead string) {
	quoted := make([]string, min(len(tasks), 5))
	for i := range quoted {
		quoted[i] = op.Quote(tasks[i])
	}
	takes, has := "the task "+quoted[0], "has no task"
	if len(tasks) > 1 {
		takes = "the tasks " + strings.Join(quoted, ", ")
	}
	if len(tasks) > len(quoted) {
		takes += fmt.Sprintf(" and %d more", len(tasks)-len(quoted))
	}
	if e.task != "" {
		has = "has the task " + op.Quote(e.task)
	}
	w.because(whyNotTaken, "%s %s because worker %s takes only %s, and this %s.", w.q.name, lead, worker, takes, has)
	w.mend("see what each worker takes, then give one a handler for it, or put another \"task\" into the cue's payload", "workers list")
}

// workersOf finds the worker of a cue, which is the one that took its latest execution, else the one heard of last, and the one
// heard of last in the workspace. Both are empty when none is known.
func (w *inquiry) workersOf(e *execution) (its, last seenWorker, err error) {
	beats, err := found(last.scan(w.tx.Row(sqlWhyHeard, e.workspace)))
	if err != nil {
		return its, last, err
	}
	taken, err := found(w.tx.Row(sqlWhyTaken, w.q.id).Scan(&its.worker, &its.key, &its.heard))
	if err != nil || !taken {
		return last, last, err
	}
	var beat seenWorker
	there, err := found(beat.scan(w.tx.Row(sqlWhyWorker, e.workspace, its.worker)))
	if there && beat.heard > its.heard {
		its = beat
	}
	if !beats {
		last = its
	}
	return its, last, err
}

// choice says by what workers choose an execution.
func choice(e *execution) string {
	switch {
	case e.task != "" && e.agent != "":
		return fmt.Sprintf(", which has the task %s and is for the agent %s", op.Quote(e.task), op.Quote(e.agent))
	case e.task != "":
		return ", which has the task " + op.Quote(e.task)
	case e.agent != "":
		return ", which is for the agent " + op.Quote(e.agent)
	}
	return ""
}

// blameKey finds out whether the key of a silent worker does not let it in, from since or later on, or did not between two moments.
func (w *inquiry) blameKey(h seenWorker, lead string, since, from, to op.Time) (bool, error) {
	s, err := w.c.Access.TellKey(w.tx, w.q.workspace, h.key, "execution.claim", w.q.id, w.q.name, access.Holder{Worker: h.worker, Heard: h.heard}, from, to)
	if err != nil || s.Code == "" || s.At < since && (s.Over || s.Code != access.KeyRestricted.Name) { // a key that may not take this cue's work is heard of all the same
		return false, err
	}
	what, when := keyWords(s), ""
	if w.alerting && !s.Over && (s.Code == access.KeyExpired.Name || s.Code == access.KeyRevoked.Name) {
		when = " at " + alert.Clock(s.At, w.now)
	}
	w.because(whyKey, "%s %s because its worker's key %s%s.", w.q.name, lead, what, when)
	key := "key " + h.key
	if w.namesKeys() {
		key = fmt.Sprintf("key %s (%s)", s.Name, s.Redacted)
		if s.By != "" {
			what += ", by " + s.By
		}
		for _, command := range s.Mend {
			w.out.Mend = append(w.out.Mend, whyStep{command, ""})
		}
	}
	w.fact(h.heard, "worker %s was last heard of", h.worker)
	if s.At > 0 {
		w.fact(s.At, "%s %s", key, what)
	}
	if s.Tries > 0 {
		times := "once"
		if s.Tries > 1 {
			times = fmt.Sprintf("%d times so far", s.Tries)
		}
		w.fact(s.LastTry, "worker %s was refused: %s (%s)", h.worker, strings.ReplaceAll(s.Code, "_", " "), times)
	}
	if s.Over {
		w.fact(w.now, "%s lets it in again", key)
	}
	return true, nil
}

// keyWords say what is, or was, the matter with a key.
func keyWords(s access.KeyStory) string {
	words := map[string][2]string{ // now, and when it is over
		access.KeyExpired.Name:        {"expired", "had expired"},
		access.KeyRevoked.Name:        {"was revoked"},
		access.KeyRotated.Name:        {"has a new secret, and the worker calls with the old one"},
		access.InsufficientScope.Name: {"may not take work any more: it lacks " + s.Lacks, "might not take work"},
		access.KeyRestricted.Name:     {"is restricted (" + s.Lacks + ") and may not take it", "was restricted and might not take it"},
	}[s.Code]
	if s.Over {
		return words[1]
	}
	return words[0]
}

// silentHolder adds what is known of a worker that lost its lease for good: perhaps its key does not let it in any more.
func (w *inquiry) silentHolder(e *execution) error {
	if e.claimedKey == "" {
		return nil
	}
	before := w.out
	blamed, err := w.blameKey(seenWorker{worker: e.claimedWorker, key: e.claimedKey, heard: deref(e.lastAttemptAt)}, "", 0, deref(e.lastAttemptAt), w.now)
	if blamed { // the lease is the cause, the key one of the facts
		w.out.Cause, w.out.Sentence = before.Cause, strings.TrimSuffix(before.Sentence, ".")+"; its key did not let it in any more."
	}
	return err
}

// evidenceFlags are the flags that add what is missing; what only the worker knows is left open.
func evidenceFlags(missing []string) (out string) {
	var assertions []string
	for _, name := range missing {
		if name, ok := strings.CutPrefix(name, "assertions."); ok {
			assertions = append(assertions, op.Quote(name)+":true")
			continue
		}
		out += " --" + strings.ReplaceAll(name, "_", "-") + " " + map[string]string{"external_id": "ID", "result_url": "https://…", "artifacts": "'[…]'"}[name]
	}
	if assertions != nil {
		out += " --assertions " + shellQuoted("{"+strings.Join(assertions, ",")+"}")
	}
	return out
}

// brief is how people call an execution.
func brief(id string) string { return id[:min(8, len(id))] }

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return strings.TrimSuffix(s, ".")
}

// shellQuoted is a text as one word of a shell.
func shellQuoted(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// lengthOf is a length of time as people say it.
func lengthOf(d time.Duration) string {
	if d >= time.Minute && d%time.Minute == 0 {
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return d.String()
}
