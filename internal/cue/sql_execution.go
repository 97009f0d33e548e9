package cue

// All SQL about executions, evidence, workers and counters. `ready` stands for the condition of the partial indexes, which
// must be repeated word for word for a database to use them.

const ready = `status IN ('pending', 'retry_ready')`

// executionColumns are what execution.scan reads, from executions e joined with their cues c.
const executionColumns = `e.id, e.workspace_id, e.cue_id, c.name, e.transport, e.triggered_by, e.fired_by, e.replayed_from,
	e.scheduled_for, e.status, e.task, e.agent, e.payload, e.verification, e.max_attempts, e.attempts, e.ready_at,
	e.claimed_key, e.claimed_worker, e.claimed_at, e.claim_request, e.lease_token, e.lease_bare, e.lease_until,
	e.last_heartbeat, e.started_at, e.delivered_at, e.last_attempt_at, e.http_status, e.error_message,
	e.outcome_state, e.outcome_success, e.outcome, e.outcome_at, e.reported_by, e.unfenced,
	e.evidence_count, e.has_evidence, e.result_type, e.created_at, e.updated_at`

const executionsAndCues = ` FROM executions e JOIN cues c ON c.id = e.cue_id `

const sqlExecutionInsert = `INSERT INTO executions (id, workspace_id, cue_id, transport, triggered_by, fired_by,
	replayed_from, scheduled_for, status, task, agent, payload, verification, max_attempts, ready_at,
	created_at, updated_at, attempts, claimed_key, claimed_worker, claim_request, lease_token, lease_bare,
	outcome_state, outcome, reported_by, unfenced, evidence_count, has_evidence, result_type)
	VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?16, 0, '', '', '', '', 0, '', '', '', 0, 0, 0, '')`

const (
	sqlExecutionStatusesOfCue = `SELECT status, count(*) FROM executions WHERE cue_id = ?1 GROUP BY status`
	sqlEvidenceDeleteOfCue    = `DELETE FROM evidence WHERE execution_id IN (SELECT id FROM executions WHERE cue_id = ?1)`
	sqlExecutionDeleteOfCue   = `DELETE FROM executions WHERE cue_id = ?1`
)

const (
	sqlCountersAdd = `INSERT INTO counters (workspace_id, name, value)
		SELECT r.workspace, r.name, r.delta FROM @rows(workspace TEXT ?1, name TEXT ?2, delta INTEGER ?3) AS r WHERE true
		ON CONFLICT (workspace_id, name) DO UPDATE SET value = counters.value + excluded.value`
	sqlCounterGet    = `SELECT coalesce(sum(value), 0) FROM counters WHERE workspace_id = ?1 AND name = ?2`
	sqlCounterDelete = `DELETE FROM counters WHERE workspace_id = ?1 AND name = ?2`
)
