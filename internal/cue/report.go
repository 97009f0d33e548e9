package cue

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

// report is one call that says how an execution went, and what became of the call.
type report struct {
	caller *access.Caller
	id     string
	token  string // "" when the client brought none
	worker string // the worker that the call names; "" for none
	said   said
	raw    string // said as JSON: two reports are equal when these say the same
	large  bool   // its metadata or assertions are too large
	secret int    // keys of ours that were found in it and replaced

	state   string   // of the outcome, afterwards
	missing []string // what it lacks by the policy
	refusal error
}

// held is what claims, fencing and reports need to know of an execution.
type held struct {
	id, workspace, cueID, cueName string
	recurs                        bool // its cue goes on after it
	status                        string
	attempts                      int64
	claimedKey, claimedWorker     string
	leaseToken                    string
	bare                          bool
	leaseUntil, lastHeartbeat     *op.Time
	verification                  string
	outcomeState                  string
	outcomeSuccess                *bool
	outcome                       string
	outcomeAt                     *op.Time
	evidenceCount                 int64
	createdAt                     op.Time
	transport                     string
	outcomeWithin                 *int64 // of webhooks; see outcomeBy
	chains                        bool   // its success is to fire another cue, and has not

	// Of the report that was recorded in this transaction.
	first   string // raw
	message *string
}

func (h *held) scan(r scanner) error {
	var kind string
	err := r.Scan(&h.id, &h.workspace, &h.cueID, &h.cueName, &kind, &h.status, &h.attempts, &h.claimedKey, &h.claimedWorker,
		&h.leaseToken, &h.bare, &h.leaseUntil, &h.lastHeartbeat, &h.verification, &h.outcomeState, &h.outcomeSuccess, &h.outcome,
		&h.outcomeAt, &h.evidenceCount, &h.createdAt, &h.transport, &h.outcomeWithin, &h.chains)
	h.recurs = kind == recurring
	return err
}

// visible says whether the caller may know of the execution.
func (h *held) visible(caller *access.Caller) bool {
	return h != nil && h.workspace == caller.Workspace() && caller.SeesCue(h.cueID, h.cueName)
}

// loadHeld reads an execution that the caller may see; otherwise the answer is 404 execution_not_found.
func (c *Cues) loadHeld(tx *db.Tx, caller *access.Caller, id string) (*held, error) {
	h := &held{}
	err := h.scan(tx.Row(sqlHeldByID, id))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, c.noExecution()
	}
	if err != nil {
		return nil, fmt.Errorf("read execution %s: %w", id, err)
	}
	if !h.visible(caller) {
		return nil, c.noExecution()
	}
	return h, nil
}

// record stores what a worker says about an execution.
func (c *Cues) record(ctx context.Context, r *report) error {
	r.prepare()
	var err error
	if r.secret > 0 { // alone, because its transaction also writes the audit log in the name of this caller
		err = c.recordAll(ctx, func() []*report { return []*report{r} })
	} else {
		err = c.reports.do(ctx, r, c.recordAll)
	}
	if err != nil {
		return err
	}
	return r.refusal
}

// prepare brings a report into the form in which it is stored: keys of ours replaced, then texts cut.
func (r *report) prepare() {
	s := &r.said
	r.secret = redactText(s.Result) + redactText(s.Error) + s.proof.redact()
	if r.secret > 0 {
		s.Warning = ptr(redactedWarning)
	}
	for _, f := range []struct {
		text *string
		most int
	}{{s.Result, textMost}, {s.Error, textMost}, {s.Summary, summaryMost}} {
		s.Truncated = cut(f.text, f.most) || s.Truncated
	}
	r.large = s.large()
	r.raw = string(op.Marshal(s))
}

// recordAll stores a batch of reports in one transaction. It implements batch.
func (c *Cues) recordAll(ctx context.Context, batch func() []*report) error {
	return c.DB.Update(ctx, func(tx *db.Tx) error {
		reports := batch()
		ids := make([]string, len(reports))
		for i, r := range reports {
			ids[i] = r.id
		}
		rows, err := tx.Query(sqlHeldByIDs, ids)
		found, err := scanAll(rows, err, (*held).scan)
		if err != nil {
			return fmt.Errorf("read the executions of a report: %w", err)
		}
		byID := map[string]*held{}
		for i := range found {
			byID[found[i].id] = &found[i]
		}
		b := &recording{c: c, tx: tx, now: c.now(), sums: tally{}, ran: map[string]int64{}, good: map[string]string{}}
		for _, r := range reports {
			r.state, r.refusal = "", nil
			if err := b.take(r, byID[r.id]); err != nil {
				return err
			}
		}
		return b.save()
	})
}

// recording is one transaction of reports.
type recording struct {
	c     *Cues
	tx    *db.Tx
	now   op.Time
	sums  tally
	ran   map[string]int64    // reports by cue, of those that recur
	links []link              // not yet written
	next  []string            // executions whose success fires another cue
	good  map[string]string   // by cue: an execution that succeeded
	bad   []string            // executions that failed, or lack their evidence
	ended map[string][]string // executions that ended, by status
	done  []*held             // whose outcome is known now
}

// take decides about one report and stores it. A refusal goes into the report; an error ends the transaction.
func (b *recording) take(r *report, h *held) error {
	if !h.visible(r.caller) {
		r.refusal = b.c.noExecution()
		return nil
	}
	if r.refusal = b.c.mayReport(h, r.caller, r.worker, b.now); r.refusal != nil {
		return nil
	}
	switch over := h.outcomeState != ""; {
	case over && r.token != "" && r.token != h.leaseToken: // what somebody else did is not its work, even where it says the same
		r.refusal = stale(h, b.now)
		return nil
	case over:
		return b.repeat(r, h)
	}
	if r.refusal = b.c.fence(h, r.caller, r.token, r.worker, b.now); r.refusal != nil {
		return nil
	}
	if r.large {
		r.refusal = tooLarge()
		return nil
	}
	return b.store(r, h)
}

// repeat answers a report on an execution that has an outcome: the same report is a success again, another one is refused.
func (b *recording) repeat(r *report, h *held) error {
	if h.first == "" {
		var body string
		if err := b.tx.Row(sqlEvidenceFirst, h.outcomeAt, h.id).Scan(&body); err != nil {
			return fmt.Errorf("read the report of execution %s: %w", h.id, err)
		}
		h.first = firstReport(body)
	}
	if h.first != r.raw && !bytes.Equal(canonical([]byte(h.first)), canonical([]byte(r.raw))) {
		r.refusal = OutcomeAlreadyRecorded.Msg("Outcome has already been recorded for this execution")
		return nil
	}
	r.state = h.outcomeState
	r.lacks(h)
	return nil
}

// store writes a report that was accepted. Of a webhook whose end is known without it, only the outcome changes.
func (b *recording) store(r *report, h *held) error {
	s := &r.said
	r.state = policyOf(h.verification).judge(s.Success, &s.proof)
	r.lacks(h)
	status, delivered, message := statusFailed, (*op.Time)(nil), s.Error
	if s.Success {
		status, delivered, message = statusSuccess, &b.now, nil
	}
	if !h.decides() {
		status = h.status
	}
	l := link{outcomeAt: b.now, execution: h.id, version: 1, at: b.now, keyID: r.keyID(), what: whatOutcome, body: reportBody(r.raw, r.state)}
	b.c.seal(&l, genesis(h.id))
	_, err := b.tx.Exec(sqlReport, h.id, status, delivered, message, r.state, s.Success, s.stored(b.now), b.now,
		r.keyID(), r.unfenced(h), !s.proof.empty(), text(s.ResultType), h.decides())
	b.links = append(b.links, l)
	switch {
	case err != nil || !h.decides():
	case h.recurs:
		b.ran[h.cueID] += h.runs()
	default:
		err = b.c.finishCue(b.tx, h.cueID, s.Success, h.runs(), b.now)
	}
	if h.transport == transportWebhook && h.decides() {
		b.tx.AfterCommit(func() { b.c.courier.cancelOne(h.id) })
	}
	if err == nil && r.secret > 0 && r.caller != nil {
		err = recordRedaction(b.tx, h, r.secret)
	}
	if err != nil {
		return fmt.Errorf("store the outcome of execution %s: %w", h.id, err)
	}
	b.saw(h, status)
	b.count(h, status, s.Success)
	h.outcomeState, h.status, h.first, h.outcomeSuccess = r.state, status, r.raw, &s.Success
	h.message, b.done = s.Error, append(b.done, h)
	switch r.state {
	case reportedSuccess, verifiedSuccess:
		b.good[h.cueID] = h.id
	case reportedFailure, verificationFailed:
		b.bad = append(b.bad, h.id)
	}
	if h.fires() {
		b.next = append(b.next, h.id)
	}
	return nil
}

// lacks notes what the report lacks for its outcome to be verified.
func (r *report) lacks(h *held) {
	if r.missing = nil; r.state == verificationFailed {
		r.missing = policyOf(h.verification).missing(&r.said.proof)
	}
}

// saw notes what a report does to its execution: it ends it, or says later how it went.
func (b *recording) saw(h *held, status string) {
	if !h.decides() || slices.Contains([]string{statusFailed, statusMissed, statusOutcomeTimeout}, h.status) {
		if b.c.Trace != nil {
			b.tx.AfterCommit(func() { b.c.traceOutcome(h.id, b.now) })
		}
		return
	}
	if b.ended == nil {
		b.ended = map[string][]string{}
	}
	b.ended[status] = append(b.ended[status], h.id)
}

func (b *recording) count(h *held, status string, success bool) {
	b.sums.moved(h.workspace, h.status, status)
	b.sums.add(h.workspace, countReported(h.createdAt), 1)
	if success {
		b.sums.add(h.workspace, countSucceeded(h.createdAt), 1)
	} else {
		b.sums.add(h.workspace, countFailed(h.createdAt), 1)
	}
	if h.status == statusFailed || h.status == statusMissed || h.status == statusOutcomeTimeout { // it counted as failed when it ended without a report
		b.sums.add(h.workspace, countFailed(h.createdAt), -1)
	}
}

// save writes what one statement can write for all reports: their evidence, their cues, the totals.
func (b *recording) save() error {
	if err := b.saveAll(); err != nil {
		return err
	}
	return b.sums.save(b.tx)
}

// saveAll is save without the totals, for whoever saves them.
func (b *recording) saveAll() error {
	if err := saveReports(b.tx, b.links, b.now); err != nil {
		return err
	}
	for status, ids := range b.ended {
		if err := b.c.sawEnds(b.tx, status, b.now, ids...); err != nil {
			return err
		}
	}
	ids, counts := make([]string, 0, len(b.ran)), make([]int64, 0, len(b.ran))
	for id, n := range b.ran {
		ids, counts = append(ids, id), append(counts, n)
	}
	if len(ids) > 0 {
		if _, err := b.tx.Exec(sqlCuesRan, ids, counts, b.now); err != nil {
			return fmt.Errorf("note that cues ran: %w", err)
		}
	}
	b.c.publish(b.tx, func(say sayer) {
		for _, h := range b.done {
			say(h.workspace, h.told(b.now))
		}
	})
	if err := b.c.recovered(b.tx, b.good, b.now); err != nil {
		return err
	}
	for _, id := range b.bad {
		if err := b.c.alertOn(b.tx, id, false, b.now); err != nil {
			return err
		}
	}
	return b.c.fireNext(b.tx, b.next, b.now)
}

// recordRedaction notes in the audit log that keys of ours stood in what a worker sent.
func recordRedaction(tx *db.Tx, h *held, found int) error {
	return access.Record(tx, access.Event{Object: "execution", ID: h.id, Name: h.cueName, Detail: redaction{found}})
}

// redaction is the detail of that row.
type redaction struct {
	KeysRedacted int `json:"keys_redacted"`
}
