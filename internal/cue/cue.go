package cue

import (
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Statuses of a cue (CueAPI wire contract 7.1).
const (
	active    = "active"
	paused    = "paused"
	completed = "completed" // a one-time cue whose execution succeeded
	failed    = "failed"    // a one-time cue whose execution failed, or whose due time was skipped
)

// cue is one row of the table.
type cue struct {
	id, workspace, name string
	description         *string
	status, transport   string
	pauseReason         string   // why the server paused it, for people; "" when somebody did
	kind                string   // once or recurring
	cron                string   // of recurring
	at                  *op.Time // of once: as it was asked for
	timezone            string   // as it was written
	callback            string   // JSON of callbackObject
	endpoint            string   // of webhook: what the callback's lane is called; see endpointOf
	timeout             *int64   // seconds that a call may take; nil when never set
	outcomeWithin       *int64   // how the end is known; see outcomeBy
	payload             string   // JSON object as sent; "" when a list left it out
	task, agent         string   // members of the payload, by which workers choose
	maxAttempts         int64
	backoff             string // JSON list of minutes
	pauseOnFailure      bool
	verification        *string // the policy as it is stored; nil when never set
	catchUp             string
	nextRun             *op.Time // nil when nothing is due: paused, over, or fired and under way
	lastRun             *op.Time
	runCount            int64
	firedCount          int64
	version             int64   // of its open row in cue_versions
	decided             op.Time // every due time up to here has its ending in the ledger
	createdBy           string  // key id
	createdAt           op.Time
	updatedAt           op.Time
	needs               fireNeeds
	changedBy           string // key id of whoever makes this version; "" for the server. Only for the version
	failureWebhook      string // address that is told of failures; "" for none
	failureMail         bool   // the workspace's e-mail address is told of them
	onSuccess           string // id of the cue that a success fires; "" for none
	alertFailures       *int64 // so many failures in a row raise an alert; nil when never set
	alertMisses         *int64 // so many due times in a row that nobody took; nil when never set
}

// scan reads the columns of cueColumns or cueListed.
func (q *cue) scan(r scanner) error {
	return r.Scan(&q.id, &q.workspace, &q.name, &q.description, &q.status, &q.pauseReason, &q.transport, &q.kind, &q.cron, &q.at,
		&q.timezone, &q.callback, &q.endpoint, &q.timeout, &q.outcomeWithin, &q.payload, &q.task, &q.agent, &q.maxAttempts, &q.backoff, &q.pauseOnFailure, &q.verification, &q.catchUp,
		&q.nextRun, &q.lastRun, &q.runCount, &q.firedCount, &q.version, &q.decided, &q.createdBy, &q.createdAt, &q.updatedAt,
		&q.needs.override, &q.needs.keys, &q.onSuccess, &q.failureWebhook, &q.alertFailures, &q.alertMisses, &q.failureMail)
}

// values are the columns of cueColumns as arguments, in the same order.
func (q *cue) values() []any {
	return []any{q.id, q.workspace, q.name, q.description, q.status, q.pauseReason, q.transport, q.kind, q.cron, q.at,
		q.timezone, q.callback, q.endpoint, q.timeout, q.outcomeWithin, q.payload, q.task, q.agent, q.maxAttempts, q.backoff, q.pauseOnFailure, q.verification, q.catchUp,
		q.nextRun, q.lastRun, q.runCount, q.firedCount, q.version, q.decided, q.createdBy, q.createdAt, q.updatedAt,
		q.needs.override, q.needs.keys, q.onSuccess, q.failureWebhook, q.alertFailures, q.alertMisses, q.failureMail}
}

// live says that the cue counts against the plan's number of cues.
func (q *cue) live() bool { return q.status == active || q.status == paused }

func (q *cue) setPayload(payload string) {
	q.payload = payload
	q.task, q.agent = choosers(payload)
}

// loadCue reads a cue that the caller may see, by its id or, where there is none of this id, by its name; otherwise the answer is
// 404 cue_not_found.
func loadCue(tx *db.Tx, caller *access.Caller, ref string) (*cue, error) {
	q, err := readCue(tx, sqlCueByID, ref)
	if q == nil && err == nil {
		q, err = readCue(tx, sqlCueByName, caller.Workspace(), ref)
	}
	if err != nil {
		return nil, err
	}
	if q == nil || q.workspace != caller.Workspace() || !caller.SeesCue(q.id, q.name) {
		return nil, CueNotFound.Msg("Cue not found")
	}
	return q, nil
}

// readCue reads one cue; nil when there is none.
func readCue(tx *db.Tx, query string, args ...any) (*cue, error) {
	q := &cue{}
	err := q.scan(tx.Row(query, args...))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read cue %v: %w", args, err)
	}
	return q, nil
}

// saveCue writes all that can change of a cue.
func saveCue(tx *db.Tx, q *cue) error {
	if _, err := tx.Exec(sqlCueUpdate, q.values()...); err != nil {
		return fmt.Errorf("write cue %s: %w", q.id, err)
	}
	return nil
}

// checkName refuses a name that has the form of an id: wherever a cue is named, an id and a name must be told apart.
func checkName(name string) error {
	if idForm.MatchString(name) {
		return op.Invalid("body.name", "Value error, a name must not have the form of an id")
	}
	return nil
}

var idForm = regexp.MustCompile(`^cue_[0-9a-z]{12}$`)

// newCueID is "cue_" and twelve characters of a-z0-9 (CueAPI wire contract 1.7). The first two name the second, and begin again every
// twenty minutes, so that cues which are made together stand together in indexes, and what is written when they fire does too. The
// others are random.
func newCueID(now op.Time) string {
	const letters = "0123456789abcdefghijklmnopqrstuvwxyz"
	var b [12]byte
	for i := range b {
		b[i] = letters[randomBelow(len(letters))]
	}
	second := int(now/1_000_000) % (len(letters) * len(letters))
	b[0], b[1] = letters[second/len(letters)], letters[second%len(letters)]
	return "cue_" + string(b[:])
}

// randomBelow is a random number in [0, n), for n up to 256, each as likely as the other.
func randomBelow(n int) int {
	for {
		var b [1]byte
		rand.Read(b[:]) // never fails: crypto/rand ends the program instead
		if int(b[0]) < 256/n*n {
			return int(b[0]) % n
		}
	}
}

// cueObject is a cue on the wire (CueAPI wire contract 2.3).
type cueObject struct {
	ID           string          `json:"id"`
	Name         string          `json:"name"`
	Description  *string         `json:"description" doc:"in lists its first 1,000 characters"`
	Status       cueStatus       `json:"status"`
	Transport    string          `json:"transport" doc:"worker: workers pull its executions; webhook: its callback is called"`
	Schedule     scheduleObject  `json:"schedule"`
	Callback     callbackObject  `json:"callback"`
	Payload      op.Object       `json:"payload"`
	Retry        retryObject     `json:"retry"`
	NextRun      *op.Time        `json:"next_run" doc:"null when paused, finished, or a one-time cue that has fired"`
	LastRun      *op.Time        `json:"last_run" doc:"when an execution last ended; null before the first"`
	RunCount     int64           `json:"run_count" doc:"webhook: attempts that were made; worker: executions that ended"`
	FiredCount   int64           `json:"fired_count" doc:"due times that became an execution"`
	OnFailure    onFailureObject `json:"on_failure"`
	Verification *verifyObject   `json:"verification" doc:"null when never set"`
	CatchUp      string          `json:"catch_up" doc:"what happens to due times that were missed. run_once_if_missed: the latest fires, the others are merged into it; skip_missed: those late by more than a minute are skipped; replay_all_missed: each fires, the latest 100 of them"`
	Warning      *string         `json:"warning" doc:"only in the answer to a create or an update: no worker was seen lately, or nobody gets the e-mails that it asks for"`
	CreatedAt    op.Time         `json:"created_at"`
	UpdatedAt    op.Time         `json:"updated_at"`
	Delivery     *deliveryObject `json:"delivery" doc:"of webhooks; null when never set: 30 seconds, and a 2xx is done"`
	Alerts       *alertsObject   `json:"alerts" doc:"when alerts are raised; null when never set: the third failure in a row, and the first miss"`
	NeedsOver    bool            `json:"require_payload_override" doc:"a fire by hand must bring a payload_override"`
	NeededKeys   []string        `json:"required_payload_keys" doc:"members that the payload of a fire by hand must have; null for none"`
	OnSuccess    *string         `json:"on_success_fire" doc:"id of the cue that is fired when an execution of this one succeeds; null for none"`
	PauseReason  *string         `json:"pause_reason" doc:"why the server paused it; null when somebody did, or it is not paused"`
	Omitted      []string        `json:"omitted,omitempty" doc:"what a list leaves out of the cue because it has more than 8 KiB: payload, which is {} then. Show the cue to see it"`
}

type cueStatus string

// Words lists the statuses, for the schema.
func (cueStatus) Words() []string { return []string{active, paused, completed, failed} }

type scheduleObject struct {
	Type     string         `json:"type" doc:"once or recurring"`
	Timezone string         `json:"timezone"`
	Cron     string         `json:"cron,omitempty" doc:"of a recurring cue"`
	At       *op.OffsetTime `json:"at,omitempty" doc:"of a one-time cue"`
}

type callbackObject struct {
	URL     *string           `json:"url"`
	Method  string            `json:"method"`
	Headers map[string]string `json:"headers" doc:"their values are shown to nobody, as ***; sent back, *** keeps what is stored"`
}

type retryObject struct {
	MaxAttempts    int64   `json:"max_attempts"`
	BackoffMinutes []int64 `json:"backoff_minutes"`
}

type onFailureObject struct {
	Email   bool    `json:"email" doc:"an e-mail to the workspace's address for alerts when an execution was missed or failed for good without a report; at most 10 an hour, and none where an alert about it goes there"`
	Webhook *string `json:"webhook" doc:"address that is told when an execution was missed or failed for good without a report; null for none"`
	Pause   bool    `json:"pause" doc:"pause a recurring cue when an execution was missed or failed for good without a report"`
}

func (q *cue) scheduleObject() scheduleObject {
	return scheduleObject{Type: q.kind, Timezone: q.timezone, Cron: q.cron, At: (*op.OffsetTime)(q.at)}
}

// masked stands for the value of a callback header, which is stored and sent but shown to nobody.
const masked = "***"

func mask(headers map[string]string) {
	for name := range headers {
		headers[name] = masked
	}
}

// object is the cue as a caller may see it.
func (q *cue) object() (cueObject, error) {
	o := cueObject{
		ID: q.id, Name: q.name, Description: q.description, Status: cueStatus(q.status), Transport: q.transport,
		Schedule: q.scheduleObject(),
		Payload:  op.Object(q.payload), Retry: retryObject{MaxAttempts: q.maxAttempts},
		PauseReason: orNil(q.pauseReason), Delivery: q.deliveryObject(), Alerts: q.alertsObject(), NextRun: q.nextRun, LastRun: q.lastRun, RunCount: q.runCount, FiredCount: q.firedCount,
		OnFailure: onFailureObject{Email: q.failureMail, Pause: q.pauseOnFailure, Webhook: orNil(q.failureWebhook)}, CatchUp: q.catchUp, CreatedAt: q.createdAt, UpdatedAt: q.updatedAt,
		NeedsOver: q.needs.override, NeededKeys: q.needs.names(), OnSuccess: orNil(q.onSuccess),
	}
	if q.payload == "" { // CueAPI's clients need an object
		o.Payload, o.Omitted = op.Object("{}"), []string{omitPayload}
	}
	if err := json.Unmarshal([]byte(q.callback), &o.Callback); err != nil {
		return o, fmt.Errorf("read the callback of cue %s: %w", q.id, err)
	}
	if err := json.Unmarshal([]byte(q.backoff), &o.Retry.BackoffMinutes); err != nil {
		return o, fmt.Errorf("read the retries of cue %s: %w", q.id, err)
	}
	if q.verification != nil {
		o.Verification = policyOf(*q.verification).object()
	}
	mask(o.Callback.Headers)
	return o, nil
}
