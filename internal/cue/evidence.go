package cue

import (
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

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

// link is one version of an execution's evidence: a row that is added and never changed. Its hash covers the link before it, and
// the first covers the execution's id, so that no row can be changed, left out, moved or exchanged unnoticed.
type link struct {
	outcomeAt op.Time // that of the execution
	execution string
	version   int64 // from 1
	at        op.Time
	keyID     string
	what      string
	body      string // JSON of linkBody
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

// seal gives the link its hash over the one before: SHA-256 over the previous hash, version, time, key, what and body, each
// with its length before it.
func (l *link) seal(previous string) { l.hash = l.sum(previous) }

func (l *link) sum(previous string) string {
	h := sha256.New()
	number := func(n int64) { _ = binary.Write(h, binary.BigEndian, n) } // a hash takes every write
	for _, s := range []string{previous, l.keyID, l.what, l.body} {
		number(int64(len(s)))
		_, _ = io.WriteString(h, s)
	}
	number(l.version)
	number(int64(l.at))
	return hex.EncodeToString(h.Sum(nil))
}

func (l *link) save(tx *db.Tx) error {
	_, err := tx.Exec(sqlEvidenceAdd, l.outcomeAt, l.execution, l.version, l.at, l.keyID, l.what, l.body, l.hash)
	return err
}

// saveReports writes the first links of some chains.
func saveReports(tx *db.Tx, links []link, at op.Time) error {
	if len(links) == 0 {
		return nil
	}
	n := len(links)
	executions, keys, bodies, hashes := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	for i, l := range links {
		executions[i], keys[i], bodies[i], hashes[i] = l.execution, l.keyID, l.body, l.hash
	}
	if _, err := tx.Exec(sqlReportsAdd, executions, keys, bodies, hashes, at); err != nil {
		return fmt.Errorf("store the evidence of reports: %w", err)
	}
	return nil
}

func (l *link) scan(r scanner) error {
	return r.Scan(&l.outcomeAt, &l.execution, &l.version, &l.at, &l.keyID, &l.what, &l.body, &l.hash)
}

// extend adds a link to the chain of an execution that has an outcome, and brings the execution to what the chain now says.
func extend(tx *db.Tx, h *held, keyID, what string, b linkBody, at op.Time) error {
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
	l.seal(last.hash)
	if err := l.save(tx); err != nil {
		return fmt.Errorf("add to the evidence of execution %s: %w", h.id, err)
	}
	_, err = tx.Exec(sqlEvidenceApply, h.id, string(op.Marshal(o)), b.State, l.version, !o.proof.empty(), text(o.ResultType), at)
	if err != nil {
		return fmt.Errorf("apply the evidence of execution %s: %w", h.id, err)
	}
	return nil
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
func checkChain(e *execution, links []link) string {
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
		case l.sum(previous) != l.hash:
			return fmt.Sprintf("version %d was changed after it was written", l.version)
		}
		previous = l.hash
	}
	return checkOutcome(e, links)
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
