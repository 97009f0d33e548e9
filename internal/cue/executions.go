package cue

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

// executionObject is an execution on the wire: the fields of the CueAPI wire contract 2.4, those that its clients look for (10.2,
// 12), and ours.
type executionObject struct {
	ID            string         `json:"id"`
	CueID         string         `json:"cue_id"`
	ScheduledFor  op.Time        `json:"scheduled_for"`
	Status        string         `json:"status" doc:"pending, delivering, retrying, retry_ready, pending_outcome, success, failed, missed or outcome_timeout"`
	HTTPStatus    *int64         `json:"http_status" doc:"of the callback's last answer; null without one, and for work that workers take"`
	Attempts      int64          `json:"attempts" doc:"calls that were made, or how often it was claimed"`
	ErrorMessage  *string        `json:"error_message" doc:"in lists its first 1,000 characters"`
	StartedAt     *op.Time       `json:"started_at"`
	DeliveredAt   *op.Time       `json:"delivered_at" doc:"when it ended as a success"`
	LastAttemptAt *op.Time       `json:"last_attempt_at"`
	Outcome       *outcomeObject `json:"outcome" doc:"null until it is reported"`
	CreatedAt     op.Time        `json:"created_at"`
	UpdatedAt     op.Time        `json:"updated_at"`

	OutcomeState    *string   `json:"outcome_state"`
	TriggeredBy     string    `json:"triggered_by" doc:"scheduled, manual_fire, replay, or chain: a success of another cue fired it"`
	ClaimedByWorker *string   `json:"claimed_by_worker"`
	ClaimedAt       *op.Time  `json:"claimed_at"`
	LastHeartbeatAt *op.Time  `json:"last_heartbeat_at"`
	NextRetry       *op.Time  `json:"next_retry" doc:"when the next attempt is due, while status is retrying"`
	Payload         op.Object `json:"payload" doc:"as it was when the execution was fired; null when it is omitted"`

	CueName          string   `json:"cue_name"`
	Task             *string  `json:"task"`
	MaxAttempts      int64    `json:"max_attempts"`
	LeaseUntil       *op.Time `json:"lease_until" doc:"while a worker holds it"`
	FiredBy          *string  `json:"fired_by" doc:"id of the key; null when the schedule did"`
	ClaimedByKey     *string  `json:"claimed_by_key"`
	ReportedBy       *string  `json:"reported_by" doc:"id of the key"`
	Unfenced         bool     `json:"unfenced" doc:"the outcome came without a lease token: workers that share a key could not be told apart"`
	ReplayedFrom     *string  `json:"replayed_from"`
	EvidenceVersions int64    `json:"evidence_versions"`

	ChainID      *string       `json:"chain_id" doc:"of a chain: id of its first execution, in all of them; the list filters by it"`
	ChainParent  *string       `json:"chain_parent_id" doc:"the execution whose success fired this one"`
	ChainDepth   int64         `json:"chain_depth" doc:"0 for the first of a chain"`
	ChainChild   *string       `json:"chain_child_id" doc:"the execution that the success of this one fired"`
	ChainEnd     *string       `json:"chain_stopped" doc:"why its success fired nothing although the cue asks for it. gone: the next cue is deleted; paused: it is paused; plan_limit: the plan had no room"`
	Verification *verifyObject `json:"verification" doc:"the policy that was in force when it was fired; null for none"`
	Missing      []string      `json:"missing,omitempty" doc:"what its success lacks by that policy; it can be added as evidence"`
	Criteria     op.Value      `json:"exit_criteria" doc:"what the fire asks the worker to check before it reports; null for none"`

	Transport    string  `json:"transport" doc:"webhook or worker"`
	OutcomeBy    *string `json:"outcome_by" doc:"of webhooks, how the end is known. status: a 2xx is done; reply: the answer says; report: it is reported"`
	Unconfirmed  bool    `json:"unconfirmed" doc:"delivered, not confirmed: a 2xx is all that is known of the success"`
	Redelivered  int64   `json:"redelivered" doc:"how often an attempt was sent again, under the same id, because the server ended before its end was stored, or a connection that was kept broke off before the answer"`
	ResponseBody *string `json:"response_body" doc:"first 2,000 characters of the callback's last answer; only when one execution is shown, to a key that holds cues:write, because answers may repeat secrets of the request"`

	Omitted []string `json:"omitted,omitempty" doc:"what a list leaves out of the execution because it has more than 8 KiB: payload (null), outcome (of which success, recorded_at and result_type are there). Show the execution to see it"`
}

// object is the execution as it goes out.
func (e *execution) object() (executionObject, error) {
	o := executionObject{
		ID: e.id, CueID: e.cueID, ScheduledFor: e.scheduledFor, Status: e.status, HTTPStatus: e.httpStatus, Attempts: e.attempts,
		ErrorMessage: e.errorMessage, StartedAt: e.startedAt, DeliveredAt: e.deliveredAt, LastAttemptAt: e.lastAttemptAt,
		CreatedAt: e.createdAt, UpdatedAt: e.updatedAt, OutcomeState: orNil(e.outcomeState), TriggeredBy: e.triggeredBy,
		ClaimedByWorker: orNil(e.claimedWorker), ClaimedAt: e.claimedAt, LastHeartbeatAt: e.lastHeartbeat,
		CueName: e.cueName, Task: orNil(e.task), MaxAttempts: e.maxAttempts, FiredBy: orNil(e.firedBy), ClaimedByKey: orNil(e.claimedKey),
		ReportedBy: orNil(e.reportedBy), Unfenced: e.unfenced, ReplayedFrom: orNil(e.replayedFrom), EvidenceVersions: e.evidenceCount,
		Omitted: e.omitted,
	}
	e.chain.show(&o)
	o.Verification, o.Missing = policyOf(e.verification).object(), e.lacks()
	if e.criteria != "" {
		o.Criteria = op.Value(e.criteria)
	}
	o.Transport, o.Redelivered = e.transport, e.redelivered
	if e.transport == transportWebhook {
		o.OutcomeBy = ptr(outcomeBy(e.outcomeWithin))
		o.Unconfirmed = e.status == statusSuccess && e.outcomeState == ""
	}
	switch {
	case e.status == statusDelivering:
		o.LeaseUntil = e.leaseUntil
	case e.status == statusRetrying:
		o.NextRetry = e.deliverAt
	case e.status == statusOutcomeTimeout && e.outcomeState == "":
		o.OutcomeState = ptr(outcomeUnknown)
	}
	if e.payload != "" {
		o.Payload = op.Object(e.payload)
	}
	if slices.Contains(e.omitted, omitOutcome) {
		o.Outcome = &outcomeObject{Success: *e.outcomeSuccess, RecordedAt: *e.outcomeAt, ResultType: orNil(e.resultType)}
	}
	if e.outcome == "" {
		return o, nil
	}
	var r outcomeRecord
	err := json.Unmarshal([]byte(e.outcome), &r)
	if err == nil {
		o.Outcome, err = r.object()
	}
	if err != nil {
		return o, fmt.Errorf("read the outcome of execution %s: %w", e.id, err)
	}
	return o, nil
}

func objects(es []execution) ([]executionObject, error) {
	out := make([]executionObject, len(es))
	for i := range es {
		var err error
		if out[i], err = es[i].object(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// executionsOfCue is one page of a cue's executions, newest first, and how many there are.
func executionsOfCue(tx *db.Tx, cueID string, limit, offset int64) ([]executionObject, int64, error) {
	w := &db.Where{}
	w.And("e.cue_id = ?", cueID)
	es, err := newest(tx, w, limit, offset)
	if err != nil {
		return nil, 0, err
	}
	var total int64
	if err := tx.Row(sqlCueExecutions, cueID).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("read the total of a cue: %w", err)
	}
	list, err := objects(es)
	return list, total, err
}

// newest reads one page of the executions that meet a condition.
func newest(tx *db.Tx, w *db.Where, limit, offset int64) ([]execution, error) {
	q := w.Clone()
	rows, err := tx.Query(sqlExecutionsListed+q.String()+sqlExecutionsNewest+" LIMIT "+q.Arg(limit)+" OFFSET "+q.Arg(offset), q.Args...)
	es, err := scanAll(rows, err, (*execution).scan)
	if err != nil {
		return nil, fmt.Errorf("list executions: %w", err)
	}
	return es, nil
}

// loadExecution reads an execution that the caller may see; otherwise the answer is 404 execution_not_found.
func (c *Cues) loadExecution(tx *db.Tx, caller *access.Caller, id string) (*execution, error) {
	e := &execution{}
	err := e.scan(tx.Row(sqlExecutions+" WHERE e.id = ?1", id))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, c.noExecution()
	}
	if err != nil {
		return nil, fmt.Errorf("read execution %s: %w", id, err)
	}
	if e.workspace != caller.Workspace() || !caller.SeesCue(e.cueID, e.cueName) {
		return nil, c.noExecution()
	}
	return e, nil
}

type executionID struct {
	ID string `json:"id" doc:"id of the execution"`
}

func (c *Cues) getExecution(ctx context.Context, in executionID) (out executionObject, err error) {
	err = c.DB.View(ctx, func(tx *db.Tx) error {
		e, err := c.loadExecution(tx, c.caller(ctx), in.ID)
		if err != nil {
			return err
		}
		out, err = e.object()
		if c.caller(ctx).Holds("cues:write") {
			out.ResponseBody = e.responseBody
		}
		return err
	})
	return out, err
}

type executionListInput struct {
	CueID        op.Opt[string] `json:"cue_id" doc:"only of this cue"`
	Status       op.Opt[string] `json:"status" doc:"only with this status: pending, delivering, retrying, retry_ready, success, failed, missed, pending_outcome or outcome_timeout"`
	StatusIn     op.Opt[string] `json:"status__in" doc:"only with one of these statuses, separated by commas"`
	WorkerID     op.Opt[string] `json:"worker_id" doc:"only those claimed by this worker"`
	OutcomeState op.Opt[string] `json:"outcome_state" enum:"reported_success|reported_failure|verified_success|verification_failed|verification_pending|unknown"`
	HasEvidence  op.Opt[bool]   `json:"has_evidence"`
	ResultType   op.Opt[string] `json:"result_type"`
	TriggeredBy  op.Opt[string] `json:"triggered_by" enum:"scheduled|manual_fire|chain|replay"`
	ChainID      op.Opt[string] `json:"chain_id" doc:"only of this chain: id of its first execution"`
	Key          op.Opt[string] `json:"key" doc:"only those fired, claimed or reported by this key; its id, or self"`
	Limit        int64          `json:"limit" default:"20" min:"1" max:"100"`
	Offset       int64          `json:"offset" default:"0" min:"0" max:"10000"`
	Cursor       op.Opt[string] `json:"cursor" doc:"next_cursor of the page before; reaches further than offset"`
}

type executionList struct {
	Executions      []executionObject `json:"executions"`
	Total           int64             `json:"total" doc:"exact without a filter, by cue_id and by status; with other filters at most 10000"`
	Limit           int64             `json:"limit"`
	Offset          int64             `json:"offset"`
	HasMore         bool              `json:"has_more"`
	OldestClaimedAt *op.OffsetTime    `json:"oldest_claimed_at" doc:"the earliest claim of all that the filter lets through; of the oldest 10000 when they are more"`
	NextCursor      *string           `json:"next_cursor" doc:"null on the last page"`
}

// statusWords are the statuses of the contract, all of which a client may ask for (CueAPI wire contract 2.4).
var statusWords = []string{"pending", "delivering", "retrying", "retry_ready", "success", "failed", "missed", "pending_outcome", "outcome_timeout"}

// listExecutions shows executions, newest first. A filter that names a cue, a key or a status that does not exist is refused, where CueAPI
// answers an empty list: whoever mistyped would take it for "nothing happened".
func (c *Cues) listExecutions(ctx context.Context, in executionListInput) (out executionList, err error) {
	statuses, err := in.statuses()
	if err != nil {
		return out, err
	}
	caller := c.caller(ctx)
	var after executionCursor
	if in.Cursor.Set {
		if after.at, after.id, err = readCursor(in.Cursor.Val); err != nil {
			return out, err
		}
	}
	err = c.DB.View(ctx, func(tx *db.Tx) error {
		if in.CueID.Set {
			q, err := loadCue(tx, caller, in.CueID.Val)
			if err != nil {
				return err
			}
			in.CueID.Val = q.id
		}
		if in.Key.Set {
			if in.Key.Val, err = caller.KeyInFilter(tx, "key", in.Key.Val); err != nil {
				return err
			}
		}
		all := in.where(caller.Workspace(), caller.CueFilter(), statuses)
		page := all.Clone()
		if in.Cursor.Set {
			page.And("(e.created_at, e.id) < (?, ?)", after.at, after.id)
		}
		es, err := newest(tx, page, in.Limit+1, in.Offset)
		if err != nil {
			return err
		}
		out = executionList{Limit: in.Limit, Offset: in.Offset, HasMore: int64(len(es)) > in.Limit}
		if out.HasMore {
			es = es[:in.Limit]
			last := es[len(es)-1]
			out.NextCursor = ptr(writeCursor(last.createdAt, last.id))
		}
		if out.Executions, err = objects(es); err != nil {
			return err
		}
		return in.totals(tx, caller, all, statuses, &out)
	})
	return out, err
}

// statuses are those that the caller asks for; nil for any.
func (in *executionListInput) statuses() ([]string, error) {
	switch {
	case in.Status.Set && in.StatusIn.Set:
		return nil, ConflictingFilters.Msg("Pass either `status` or `status__in`, not both.")
	case in.Status.Set:
		return []string{in.Status.Val}, checkStatus("status", in.Status.Val)
	case !in.StatusIn.Set:
		return nil, nil
	}
	var out []string
	for _, s := range strings.Split(in.StatusIn.Val, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		if err := checkStatus("status__in", s); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		return nil, InvalidStatusIn.Msg("`status__in` must contain at least one status.")
	}
	return out, nil
}

func checkStatus(field, status string) error {
	if !slices.Contains(statusWords, status) {
		return op.Invalid("query."+field, "Value error, there is no status %s; there are %s", op.Quote(status), strings.Join(statusWords, ", "))
	}
	return nil
}

func (in *executionListInput) where(workspace string, filter [][]access.Pattern, statuses []string) *db.Where {
	w := &db.Where{}
	switch { // by the index of the cue or of the chain; that of the workspace would be tempting otherwise
	case in.CueID.Set:
		w.And("e.cue_id = ? AND c.workspace_id = ?", in.CueID.Val, workspace)
	case in.ChainID.Set:
		w.And("c.workspace_id = ?", workspace)
	default:
		w.And("e.workspace_id = ?", workspace)
	}
	access.OnlyCues(w, filter)
	if len(statuses) == 1 {
		w.And("e.status = ?", statuses[0])
	} else if statuses != nil {
		w.And("e.status IN @list(?)", statuses)
	}
	for _, f := range []struct {
		op.Opt[string]
		cond string
	}{
		{in.WorkerID, "e.claimed_worker = ? AND e.claimed_worker <> ''"},
		{known(in.OutcomeState), "e.outcome_state = ? AND e.outcome_state <> ''"},
		{in.ResultType, "e.result_type = ? AND e.result_type <> ''"},
		{in.TriggeredBy, "e.triggered_by = ?"},
		{in.ChainID, "e.chain_id = ? AND e.chain_id <> ''"},
	} {
		if f.Set {
			w.And(f.cond, f.Val)
		}
	}
	if in.OutcomeState.Val == outcomeUnknown {
		w.And("e.status = ? AND e.outcome_state = ''", statusOutcomeTimeout)
	}
	if in.HasEvidence.Set {
		w.And("e.has_evidence = ?", in.HasEvidence.Val)
	}
	if k := in.Key; k.Set {
		w.And("(e.fired_by = ? OR e.claimed_key = ? OR e.reported_by = ?)", k.Val, k.Val, k.Val)
	}
	return w
}

// known leaves out the one state that is not stored.
func known(state op.Opt[string]) op.Opt[string] {
	if state.Val == outcomeUnknown {
		return op.Opt[string]{}
	}
	return state
}

// totals counts what the filter lets through and finds its earliest claim.
func (in *executionListInput) totals(tx *db.Tx, caller *access.Caller, w *db.Where, statuses []string, out *executionList) error {
	q := w.Clone()
	query := sqlExecutionsOldest[0] + q.String() + sqlExecutionsOldest[1] + q.Arg(countMost) + sqlExecutionsOldest[2]
	if err := tx.Row(query, q.Args...).Scan(&out.Total, &out.OldestClaimedAt); err != nil {
		return fmt.Errorf("count executions: %w", err)
	}
	if out.Total < countMost {
		return nil
	}
	if in.CueID.Set && statuses == nil && !in.other() { // the page has found it, or there is nothing to count
		if err := tx.Row(sqlCueExecutions, in.CueID.Val).Scan(&out.Total); err != nil {
			return fmt.Errorf("read the total of a cue: %w", err)
		}
		return nil
	}
	names := in.counters(caller, statuses)
	if names == nil {
		return nil
	}
	if err := tx.Row(sqlCountersSum, caller.Workspace(), names).Scan(&out.Total); err != nil {
		return fmt.Errorf("read the total of executions: %w", err)
	}
	return nil
}

// other says that something is asked for of which no total is kept.
func (in *executionListInput) other() bool {
	return in.WorkerID.Set || in.OutcomeState.Set || in.HasEvidence.Set || in.ResultType.Set || in.TriggeredBy.Set || in.ChainID.Set || in.Key.Set
}

// counters are those whose sum is the exact total; nil when none keep it.
func (in *executionListInput) counters(caller *access.Caller, statuses []string) []string {
	switch {
	case in.other() || in.CueID.Set || caller.CueFilter() != nil:
		return nil
	case statuses == nil:
		return []string{countAll}
	}
	names := make([]string, len(statuses))
	for i, s := range statuses {
		names[i] = countStatus(s)
	}
	return names
}

// executionCursor is where a page begins.
type executionCursor struct {
	at op.Time
	id string
}

// writeCursor names the last execution of a page; the next page begins after it.
func writeCursor(at op.Time, id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(int64(at), 10) + " " + id))
}

func readCursor(s string) (at op.Time, id string, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	number, id, ok := strings.Cut(string(b), " ")
	n, bad := strconv.ParseInt(number, 10, 64)
	if err != nil || bad != nil || !ok || strings.ToValidUTF8(id, "") != id || strings.IndexByte(id, 0) >= 0 {
		return 0, "", op.Invalid("query.cursor", "Input should be the next_cursor of a page")
	}
	return op.Time(n), id, nil
}
