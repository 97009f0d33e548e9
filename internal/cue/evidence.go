package cue

import (
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// What a link of the evidence chain is about.
const (
	whatOutcome  = "outcome" // always the first link, and no other
	whatEvidence = "evidence"
	whatVerify   = "verify"
	whatPending  = "verification_pending"
)

// How much evidence one execution takes. Workers that add without end are stopped before people who judge.
const (
	evidenceMost  = 100     // versions, then workers add none
	judgedMost    = 200     // versions, then nobody does
	evidenceBytes = 4 << 20 // of all versions together, when a worker adds
	reasonMost    = 2000    // characters of a rejection's reason
)

// checkRoom refuses a version for which there is no room.
func checkRoom(tx *db.Tx, h *held, what string, size int) error {
	most := int64(judgedMost)
	if what == whatEvidence {
		most = evidenceMost
	}
	if h.evidenceCount >= most {
		return EvidenceFull.Msg("This execution has %d versions of evidence and takes no more. Put what is to be added elsewhere, or report it with another execution.", h.evidenceCount)
	}
	if what != whatEvidence {
		return nil
	}
	var stored int64
	if err := tx.Row(sqlEvidenceSize, h.outcomeAt, h.id).Scan(&stored); err != nil {
		return fmt.Errorf("measure the evidence of execution %s: %w", h.id, err)
	}
	if stored+int64(size) > evidenceBytes {
		return EvidenceFull.Msg("The evidence of this execution would take %d bytes and may take %d. Put large things elsewhere and add their address as result_url.", stored+int64(size), evidenceBytes)
	}
	return nil
}

// link is one version of an execution's evidence: a row that is added and never changed. Its hash covers the link before it, and
// the first covers the execution's id, so that no row can be changed, left out, moved or exchanged unnoticed, not even by somebody
// who writes to the database: the hash takes the server secret, which is not in there.
type link struct {
	outcomeAt op.Time // that of the execution
	execution string
	version   int64 // from 1
	at        op.Time
	keyID     string
	what      string
	body      string // JSON of linkBody
	epoch     int64  // number of the server secret in the hash
	hash      string // hex
}

// linkBody is what a link says. Each gives the state of the outcome after it.
type linkBody struct {
	Report   json.RawMessage `json:"report,omitempty"` // of the first
	Evidence *proof          `json:"evidence,omitempty"`
	Valid    *bool           `json:"valid,omitempty"`
	Reason   *string         `json:"reason,omitempty"`
	Warning  *string         `json:"warning,omitempty"`
	State    string          `json:"outcome_state"`
}

func reportBody(raw, state string) string {
	return string(op.Marshal(linkBody{Report: json.RawMessage(raw), State: state}))
}

// firstReport is the report in the body of a first link; "" when the body is broken.
func firstReport(body string) string {
	var b linkBody
	if json.Unmarshal([]byte(body), &b) != nil {
		return ""
	}
	return string(b.Report)
}

// genesis is what the first link of an execution covers.
func genesis(execution string) string { return "evidence of execution " + execution }

// seal gives the link its hash over the one before, under the newest server secret.
func (c *Cues) seal(l *link, previous string) {
	l.epoch = c.Access.SecretNumber()
	l.hash = c.sum(l, previous)
}

// sum is HMAC-SHA-256, under the link's server secret, over the number of that secret, version, time, the previous hash, key, what
// and body, each text with its length before it; "" when the secret is not known here.
func (c *Cues) sum(l *link, previous string) string {
	var b []byte
	for _, n := range []int64{l.epoch, l.version, int64(l.at)} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	for _, s := range []string{previous, l.keyID, l.what, l.body} {
		b = append(binary.BigEndian.AppendUint64(b, uint64(len(s))), s...)
	}
	return hex.EncodeToString(c.Access.SealEvidence(l.epoch, b))
}

func (l *link) save(tx *db.Tx) error {
	_, err := tx.Exec(sqlEvidenceAdd, l.outcomeAt, l.execution, l.version, l.at, l.keyID, l.what, l.body, l.epoch, l.hash)
	return err
}

// saveReports writes the first links of some chains.
func saveReports(tx *db.Tx, links []link, at op.Time) error {
	if len(links) == 0 {
		return nil
	}
	n := len(links)
	executions, keys, bodies, hashes := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	epochs := make([]int64, n)
	for i, l := range links {
		executions[i], keys[i], bodies[i], epochs[i], hashes[i] = l.execution, l.keyID, l.body, l.epoch, l.hash
	}
	if _, err := tx.Exec(sqlReportsAdd, executions, keys, bodies, epochs, at, hashes); err != nil {
		return fmt.Errorf("store the evidence of reports: %w", err)
	}
	return nil
}

func (l *link) scan(r scanner) error {
	return r.Scan(&l.outcomeAt, &l.execution, &l.version, &l.at, &l.keyID, &l.what, &l.body, &l.epoch, &l.hash)
}

// extend adds a link to the chain of an execution that has an outcome, and brings the execution to what the chain now says.
func (c *Cues) extend(tx *db.Tx, h *held, keyID, what string, b linkBody, at op.Time) error {
	var last link
	err := last.scan(tx.Row(sqlEvidenceLast, h.outcomeAt, h.id))
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("execution %s has an outcome without evidence of it", h.id)
	}
	if err != nil {
		return fmt.Errorf("read the evidence of execution %s: %w", h.id, err)
	}
	var o outcomeRecord
	if err := json.Unmarshal([]byte(h.outcome), &o); err != nil {
		return fmt.Errorf("read the outcome of execution %s: %w", h.id, err)
	}
	o.apply(&b)
	l := link{outcomeAt: last.outcomeAt, execution: h.id, version: last.version + 1, at: at, keyID: keyID, what: what, body: string(op.Marshal(b))}
	if err := checkRoom(tx, h, what, len(l.body)); err != nil {
		return err
	}
	c.seal(&l, last.hash)
	if err := l.save(tx); err != nil {
		return fmt.Errorf("add to the evidence of execution %s: %w", h.id, err)
	}
	_, err = tx.Exec(sqlEvidenceApply, h.id, string(op.Marshal(o)), b.State, l.version, !o.proof.empty(), text(o.ResultType), at)
	if err != nil {
		return fmt.Errorf("apply the evidence of execution %s: %w", h.id, err)
	}
	if h.outcomeState != b.State {
		h.outcomeState = b.State
		told := h.told(at)
		c.publish(tx, func(say sayer) { say(h.workspace, told) })
	}
	if b.State == reportedSuccess || b.State == verifiedSuccess {
		if err := c.recovered(tx, map[string]string{h.cueID: h.id}, at); err != nil {
			return err
		}
	}
	if !h.fires() {
		return nil
	}
	return c.fireNext(tx, []string{h.id}, at)
}

// apply brings an outcome to what a later link says.
func (o *outcomeRecord) apply(b *linkBody) {
	if b.Evidence != nil {
		o.proof.add(b.Evidence)
	}
	if b.Warning != nil {
		o.Warning = b.Warning
	}
}

// checkChain holds an execution against its chain; "" when all is as it was written.
func (c *Cues) checkChain(e *execution, links []link) string {
	if int64(len(links)) != e.evidenceCount {
		return fmt.Sprintf("%d versions are stored, %d were written", len(links), e.evidenceCount)
	}
	if len(links) == 0 {
		if e.outcomeState != "" || e.outcome != "" || e.outcomeSuccess != nil {
			return "the execution has an outcome, but no evidence of it"
		}
		return ""
	}
	previous := genesis(e.id)
	for i := range links {
		l := &links[i]
		switch {
		case l.version != int64(i)+1:
			return fmt.Sprintf("version %d is missing", i+1)
		case i > 0 && l.epoch < links[i-1].epoch:
			return fmt.Sprintf("version %d was written under server secret %d, which %d had replaced before", l.version, l.epoch, links[i-1].epoch)
		case c.sum(l, previous) == "":
			return fmt.Sprintf("version %d was written under server secret %d, which is not known here", l.version, l.epoch)
		case c.sum(l, previous) != l.hash:
			return fmt.Sprintf("version %d was changed after it was written", l.version)
		}
		previous = l.hash
	}
	return checkOutcome(e, links)
}

// clockSlack is by how much a link may be younger than the server secret that replaced its own: clocks are set back at times.
const clockSlack = op.Time(time.Minute / time.Microsecond)

// checkAge finds a link that was written under a server secret which had been replaced by then: whoever got hold of an older secret can add
// nothing that is new. "" when there is none.
func (c *Cues) checkAge(tx *db.Tx, links []link) (string, error) {
	for _, l := range links {
		replaced, err := c.Access.SecretReplaced(tx, l.epoch)
		if err != nil {
			return "", err
		}
		if replaced != 0 && l.at > replaced+clockSlack {
			return fmt.Sprintf("version %d, of %s, was written under server secret %d, which was replaced at %s", l.version, l.at, l.epoch, replaced), nil
		}
	}
	return "", nil
}

// checkOutcome holds the outcome that an execution shows against what its chain, which is whole, says.
func checkOutcome(e *execution, links []link) string {
	var o outcomeRecord
	var state string
	for i, l := range links {
		var b linkBody
		err := json.Unmarshal([]byte(l.body), &b)
		if err == nil && i == 0 {
			err = json.Unmarshal(b.Report, &o.said)
		}
		if err != nil {
			return fmt.Sprintf("version %d cannot be read", l.version)
		}
		o.apply(&b)
		state = b.State
	}
	o.RecordedAt = links[0].at
	same := e.outcome == string(op.Marshal(o)) && e.outcomeState == state && e.reportedBy == links[0].keyID &&
		e.outcomeSuccess != nil && *e.outcomeSuccess == o.Success && e.outcomeAt != nil && *e.outcomeAt == o.RecordedAt &&
		e.hasEvidence == !o.proof.empty() && e.resultType == text(o.ResultType)
	if !same {
		return "the outcome that the execution shows is not what its evidence says"
	}
	return ""
}
