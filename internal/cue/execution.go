package cue

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Statuses of an execution (CueAPI wire contract 7.2).
const (
	statusPending        = "pending"         // offered: a worker may take it once it is due; or queued to be sent
	statusDelivering     = "delivering"      // in the hands of a worker, or being sent
	statusRetrying       = "retrying"        // an attempt failed and the next one will be sent
	statusRetryReady     = "retry_ready"     // offered again; claimable like pending
	statusPendingOutcome = "pending_outcome" // the callback took it, and how it ended is to be reported
	statusSuccess        = "success"
	statusFailed         = "failed"
	statusMissed         = "missed"          // nobody took it in time
	statusOutcomeTimeout = "outcome_timeout" // nobody reported in time
)

// How an execution came to be.
const (
	byScheduler = "scheduled"
	byFire      = "manual_fire"
	byReplay    = "replay"
	byChain     = "chain" // a success of another cue's execution fired it
)

// execution is one row of the table: one due or fired time of a cue, its claim and its outcome. Times are microseconds; a nil
// pointer or an empty text is a thing that has not happened.
type execution struct {
	id, workspace, cueID string
	cueName              string // as the cue is called now; read from the cue, never stored
	transport            string
	triggeredBy          string
	firedBy              string // key id
	fireKey, fireBody    string // idempotency_key of the fire, and the hash of what it said
	replayedFrom         string // execution id
	chain                chainPlace
	criteria             string // JSON list of what the worker is to check before it reports; "" for none
	scheduledFor         op.Time
	status               string
	task, agent          string // members of the payload, by which workers choose
	payload              string // effective, as it was when fired
	verification         string // policy in force when fired, as it is stored; "" for none
	maxAttempts          int64
	attempts             int64
	deadline             *op.Time // when the clock ends its wait or its lease; nil once it has ended

	claimedKey, claimedWorker string
	claimedAt                 *op.Time
	claimRequest              string
	leaseToken                string // of the last claim; it stays until the next claim replaces it
	leaseBare                 bool   // the claimer has not shown that it knows the token
	leaseUntil                *op.Time
	lastHeartbeat             *op.Time
	startedAt, deliveredAt    *op.Time
	lastAttemptAt             *op.Time
	httpStatus                *int64
	errorMessage              *string

	outcomeState   string
	outcomeSuccess *bool
	outcome        string // JSON of outcomeObject as it stands after all evidence
	outcomeAt      *op.Time
	reportedBy     string // key id
	unfenced       bool   // reported without a lease token
	evidenceCount  int64
	hasEvidence    bool
	resultType     string

	createdAt, updatedAt op.Time

	// Of webhooks.
	endpoint      string
	deliverAt     *op.Time // when the next attempt is to be sent
	outcomeWithin *int64   // how the end is known; see endKnown
	redelivered   int64
	responseBody  *string

	omitted []string // what was left out because it is large
}

// scanner is what *sql.Row and *sql.Rows have in common.
type scanner interface{ Scan(...any) error }

// scan reads the columns of executionColumns or executionListed.
func (e *execution) scan(r scanner) error {
	var payload, outcome *string
	err := r.Scan(&e.id, &e.workspace, &e.cueID, &e.cueName, &e.transport, &e.triggeredBy, &e.firedBy, &e.replayedFrom,
		&e.scheduledFor, &e.status, &e.task, &e.agent, &e.verification, &e.maxAttempts, &e.attempts, &e.deadline,
		&e.claimedKey, &e.claimedWorker, &e.claimedAt, &e.claimRequest, &e.leaseToken, &e.leaseBare, &e.leaseUntil,
		&e.lastHeartbeat, &e.startedAt, &e.deliveredAt, &e.lastAttemptAt, &e.httpStatus,
		&e.outcomeState, &e.outcomeSuccess, &e.outcomeAt, &e.reportedBy, &e.unfenced,
		&e.evidenceCount, &e.hasEvidence, &e.resultType, &e.createdAt, &e.updatedAt,
		&e.endpoint, &e.deliverAt, &e.outcomeWithin, &e.redelivered,
		&e.chain.id, &e.chain.parent, &e.chain.depth, &e.chain.next, &e.criteria, &payload, &e.errorMessage, &outcome, &e.responseBody)
	e.payload, e.outcome = text(payload), text(outcome)
	if payload == nil {
		e.omitted = append(e.omitted, omitPayload)
	}
	if outcome == nil {
		e.omitted = append(e.omitted, omitOutcome)
	}
	return err
}

// scanAll reads every row of a query and closes it.
func scanAll[T any](rows *sql.Rows, err error, scan func(*T, scanner) error) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		var v T
		if err := scan(&v, rows); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// insertExecution stores new executions of one workspace, counts them against its plan and totals, and, once the transaction is
// committed, wakes the workers that wait or has the callback called. The caller fills in workspace, cueID, triggeredBy,
// scheduledFor, payload, verification, maxAttempts, createdAt (now) and, where they apply, firedBy and replayedFrom; the rest
// follows from these and from the cue as it is.
func (c *Cues) insertExecution(tx *db.Tx, es ...*execution) error {
	sums := tally{}
	for _, e := range es {
		e.id, e.status = newUUID(e.createdAt), statusPending
		e.task, e.agent = choosers(e.payload)
		from := max(e.scheduledFor, e.createdAt)
		e.deadline, e.updatedAt = ptr(in(from, c.UnclaimedAfter)), e.createdAt
		row := tx.Row(sqlExecutionInsert, e.id, e.workspace, e.cueID, e.triggeredBy, e.firedBy, e.replayedFrom, e.scheduledFor,
			e.status, e.task, e.agent, e.payload, e.verification, e.maxAttempts, e.deadline, e.createdAt, from, e.fireKey, e.fireBody,
			e.chain.id, e.chain.parent, e.chain.depth, e.criteria)
		if err := row.Scan(&e.transport, &e.endpoint, &e.cueName); err != nil {
			return fmt.Errorf("store an execution of %s: %w", e.cueID, err)
		}
		sums.created(e)
		if _, err := tx.Exec(sqlCueExecutionsAdd, e.cueID, 1); err != nil {
			return fmt.Errorf("count an execution of %s: %w", e.cueID, err)
		}
		tx.AfterCommit(func() {
			if e.transport == transportWorker {
				c.wake(e.workspace)
			} else {
				c.courier.lower(lane{e.workspace, e.endpoint}, from)
			}
		})
	}
	c.sawMade(tx, es)
	c.publishMade(tx, es)
	return sums.save(tx)
}

// deleteExecutions removes all executions of a cue with their evidence, and takes them out of the totals. What they cost of the
// month's plan stays counted.
func deleteExecutions(tx *db.Tx, workspace, cueID string) error {
	type group struct {
		status string
		count  int64
	}
	rows, err := tx.Query(sqlExecutionStatusesOfCue, cueID)
	groups, err := scanAll(rows, err, func(g *group, r scanner) error { return r.Scan(&g.status, &g.count) })
	if err != nil {
		return fmt.Errorf("count the executions of %s: %w", cueID, err)
	}
	sums := tally{}
	for _, g := range groups {
		sums.add(workspace, countAll, -g.count)
		sums.add(workspace, countStatus(g.status), -g.count)
	}
	for _, query := range []string{sqlEvidenceDeleteOfCue, sqlExecutionDeleteOfCue} {
		if _, err := tx.Exec(query, cueID); err != nil {
			return fmt.Errorf("delete the executions of %s: %w", cueID, err)
		}
	}
	return sums.save(tx)
}

// chooserMost is how long a task or agent may be to count: both are indexed.
const chooserMost = 255

// choosers are the members "task" and "agent" of a payload, "" where it has no such text.
func choosers(payload string) (task, agent string) {
	var members map[string]json.RawMessage
	if json.Unmarshal([]byte(payload), &members) != nil {
		return "", ""
	}
	text := func(name string) string {
		var s string
		if json.Unmarshal(members[name], &s) != nil || len(s) > chooserMost || strings.IndexByte(s, 0) >= 0 {
			return ""
		}
		return s
	}
	return text("task"), text("agent")
}

// newUUID is the id of an execution, or of what belongs to one.
func newUUID(now op.Time) string { return db.NewUUID(now.Std()) }

// Names of counters that executions keep; each is exact in every committed state.
const countAll = "executions" // executions that exist

func countStatus(status string) string { return "status:" + status }

// month is the calendar month, in UTC, that an execution counts in: the one in which it was created.
func month(at op.Time) string { return at.Std().Format("2006-01") }

// countMonth counts the executions created in a month, which is what plans limit; deleting one does not give it back.
func countMonth(at op.Time) string { return "executions:" + month(at) }

// countReported, countSucceeded and countFailed are the outcomes of the executions created in a month: those reported at all,
// those reported as a success, and those reported as a failure or ended without a report.
func countReported(created op.Time) string  { return "reported:" + month(created) }
func countSucceeded(created op.Time) string { return "succeeded:" + month(created) }
func countFailed(created op.Time) string    { return "failed:" + month(created) }

// tally gathers changes of counters, so that one statement makes them all.
type tally map[counter]int64

type counter struct{ workspace, name string }

func (t tally) add(workspace, name string, delta int64) { t[counter{workspace, name}] += delta }

func (t tally) created(e *execution) {
	t.add(e.workspace, countAll, 1)
	t.add(e.workspace, countMonth(e.createdAt), 1)
	t.add(e.workspace, countStatus(e.status), 1)
}

// moved notes that an execution left one status for another.
func (t tally) moved(workspace, from, to string) {
	t.add(workspace, countStatus(from), -1)
	t.add(workspace, countStatus(to), 1)
}

// save adds the changes to the stored counters.
func (t tally) save(tx *db.Tx) error {
	var changed []counter
	for c, delta := range t {
		if delta != 0 {
			changed = append(changed, c)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	slices.SortFunc(changed, func(a, b counter) int {
		if n := strings.Compare(a.workspace, b.workspace); n != 0 {
			return n
		}
		return strings.Compare(a.name, b.name)
	})
	workspaces, names, deltas := make([]string, len(changed)), make([]string, len(changed)), make([]int64, len(changed))
	for i, c := range changed {
		workspaces[i], names[i], deltas[i] = c.workspace, c.name, t[c]
	}
	if _, err := tx.Exec(sqlCountersAdd, workspaces, names, deltas); err != nil {
		return fmt.Errorf("count: %w", err)
	}
	return nil
}

// readCounter is the value of a counter; 0 when it was never counted.
func readCounter(tx *db.Tx, workspace, name string) (int64, error) {
	var n int64
	err := tx.Row(sqlCounterGet, workspace, name).Scan(&n)
	return n, err
}

// in is a moment some time later.
func in(t op.Time, d time.Duration) op.Time { return t + op.Time(d.Microseconds()) }
