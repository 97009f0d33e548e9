package cue

// All SQL about executions, evidence, workers and counters. `ready` stands for the condition of the partial indexes, which
// must be repeated word for word for a database to use them; readyE and readyX are the same for tables named e and x.

const (
	offered = `status IN ('pending', 'retry_ready')`
	ready   = offered + ` AND transport = 'worker'`
	readyE  = `e.` + offered + ` AND e.transport = 'worker'`
	readyX  = `x.` + offered + ` AND x.transport = 'worker'`
)

// executionColumns are what execution.scan reads, from executions e joined with their cues c; executionListed are the same with
// what lists leave out (see answerMost).
const (
	executionColumns = executionSmall + `, e.payload, e.error_message, e.outcome, e.response_body`
	executionListed  = executionSmall + `, CASE WHEN octet_length(e.payload) <= 8192 THEN e.payload END, substr(e.error_message, 1, 1000),
	CASE WHEN octet_length(e.outcome) <= 8192 THEN e.outcome END, CAST(NULL AS TEXT)`
	executionSmall = `e.id, e.workspace_id, e.cue_id, c.name, e.transport, e.triggered_by, e.fired_by, e.replayed_from,
	e.scheduled_for, e.status, e.task, e.agent, e.verification, e.max_attempts, e.attempts, e.deadline,
	e.claimed_key, e.claimed_worker, e.claimed_at, e.claim_request, e.lease_token, e.lease_bare, e.lease_until,
	e.last_heartbeat, e.started_at, e.delivered_at, e.last_attempt_at, e.http_status,
	e.outcome_state, e.outcome_success, e.outcome_at, e.reported_by, e.unfenced,
	e.evidence_count, e.has_evidence, e.result_type, e.created_at, e.updated_at,
	e.endpoint, e.deliver_at, e.outcome_within, e.redelivered,
	e.chain_id, e.chain_parent, e.chain_depth, e.chained, e.exit_criteria`
)

const executionsAndCues = ` FROM executions e JOIN cues c ON c.id = e.cue_id `

const sqlExecutionInsert = `INSERT INTO executions (id, workspace_id, cue_id, transport, triggered_by, fired_by,
	replayed_from, scheduled_for, status, task, agent, payload, verification, max_attempts, deadline,
	created_at, updated_at, attempts, claimed_key, claimed_worker, claim_request, lease_token, lease_bare,
	outcome_state, outcome, reported_by, unfenced, evidence_count, has_evidence, result_type,
	endpoint, deliver_at, callback, backoff, called, timeout, outcome_within, redelivered, fire_key, fire_body,
	chain_id, chain_parent, chain_depth, exit_criteria)
	SELECT ?1, ?2, c.id, c.transport, ?4, ?5, ?6, CAST(?7 AS INTEGER), ?8, ?9, ?10, ?11, ?12, CAST(?13 AS INTEGER),
	CASE WHEN c.transport = 'worker' THEN CAST(?14 AS INTEGER) END, CAST(?15 AS INTEGER), CAST(?15 AS INTEGER), 0, '', '', '', '', 0,
	'', '', '', 0, 0, 0, '',
	c.endpoint, CASE WHEN c.transport = 'webhook' THEN CAST(?16 AS INTEGER) END, ` + snapshotColumns + `, 0, ?17, ?18, ?19, ?20, ?21, ?22
	FROM cues c WHERE c.id = ?3 RETURNING transport, endpoint, (SELECT n.name FROM cues n WHERE n.id = ?3)`

// The fire that had an idempotency key.
const (
	sqlFireRepeated = `SELECT e.id, e.scheduled_for, e.status, e.transport, e.fire_body, e.created_at FROM executions e
		WHERE e.cue_id = ?1 AND e.fire_key = ?2 AND e.fire_key <> ''`
	sqlFireForget = `UPDATE executions SET fire_key = '' WHERE id = ?1`
)

// Chains.
const (
	sqlChainNext = `SELECT e.workspace_id, e.chain_id, e.chain_depth, c.name, t.id, t.status, t.payload, coalesce(t.verification, ''), t.max_attempts
		FROM executions e JOIN cues c ON c.id = e.cue_id LEFT JOIN cues t ON t.id = c.on_success_fire
		WHERE e.id = ?1 AND e.chained = '' AND c.on_success_fire <> ''`
	sqlChained   = `UPDATE executions SET chained = ?2, chain_id = ?3 WHERE id = ?1`
	sqlCueOnward = `SELECT on_success_fire FROM cues WHERE id = ?1`
)

const (
	sqlExecutionStatusesOfCue = `SELECT status, count(*) FROM executions WHERE cue_id = ?1 GROUP BY status`
	sqlEvidenceDeleteOfCue    = `DELETE FROM evidence WHERE (outcome_at, execution_id) IN
		(SELECT outcome_at, id FROM executions WHERE cue_id = ?1 AND outcome_at IS NOT NULL)`
	sqlExecutionDeleteOfCue = `DELETE FROM executions WHERE cue_id = ?1`
)

const (
	sqlCountersAdd = `INSERT INTO counters (workspace_id, name, value)
		SELECT r.workspace, r.name, r.delta FROM @rows(workspace TEXT ?1, name TEXT ?2, delta INTEGER ?3) AS r WHERE true
		ON CONFLICT (workspace_id, name) DO UPDATE SET value = counters.value + excluded.value`
	sqlCountersOf = `SELECT workspace_id, value FROM counters WHERE name = ?1`
	sqlCounterGet = `SELECT coalesce(sum(value), 0) FROM counters WHERE workspace_id = ?1 AND name = ?2`
)

// Work that workers may take. Its conditions are a where.
const (
	workColumns = `e.id, e.workspace_id, e.cue_id, c.name, e.status, e.task, octet_length(e.payload),
	CASE WHEN octet_length(e.payload) <= 2048 THEN e.payload END, e.scheduled_for, e.attempts, e.exit_criteria`

	sqlReady      = `SELECT ` + workColumns + executionsAndCues
	sqlReadyOrder = ` ORDER BY e.scheduled_for, e.id LIMIT `
	sqlWorkByID   = `SELECT ` + workColumns + executionsAndCues + `WHERE e.id IN @list(?1) AND e.transport = 'worker'`
	sqlPayload    = `SELECT payload FROM executions WHERE id = ?1`
	sqlPayloads   = `SELECT id, payload FROM executions WHERE id IN @list(?1)`
	sqlNextReady  = `SELECT scheduled_for FROM executions WHERE workspace_id = ?1 AND ` + ready + ` AND scheduled_for > ?2
		ORDER BY scheduled_for LIMIT 1`

	// sqlReadyTasks steps from one task to the next through the index, and finds the oldest of each.
	sqlReadyTasks = `WITH RECURSIVE tasks (task) AS (
			SELECT min(task) FROM executions WHERE workspace_id = ?1 AND ` + ready + `
			UNION ALL
			SELECT (SELECT min(x.task) FROM executions x WHERE x.workspace_id = ?1 AND ` + readyX + ` AND x.task > tasks.task)
			FROM tasks WHERE tasks.task IS NOT NULL)
		SELECT t.task, (SELECT min(e.scheduled_for) FROM executions e WHERE e.workspace_id = ?1 AND ` + readyE + ` AND e.task = t.task)
		FROM (SELECT task FROM tasks WHERE task IS NOT NULL LIMIT ?2) AS t`
)

// Cues that a restricted key sees.
const (
	// sqlCuesMatching begins with the patterns and goes to the cues that each matches. The first part keeps the index of
	// workspaces out, which would read all cues of the workspace, and CROSS JOIN keeps SQLite from doing so in the last.
	sqlCuesMatching = `SELECT c.id, c.name FROM cues c WHERE c.workspace_id || '' = ?1 AND c.id IN @list(?2)
		UNION ALL SELECT c.id, c.name FROM cues c WHERE c.workspace_id = ?1 AND c.name IN @list(?3)
		UNION ALL SELECT c.id, c.name FROM @rows(low TEXT ?4, high TEXT ?5) AS p CROSS JOIN cues c
			WHERE c.workspace_id = ?1 AND c.name >= p.low AND c.name < p.high
		LIMIT ?6`
)

// Claims.
const (
	leaseColumns = workColumns + `, e.lease_token, e.lease_until`

	sqlLeasesOfRequest = `SELECT ` + leaseColumns + executionsAndCues + `WHERE e.claimed_key = ?1 AND e.claimed_worker = ?2
		AND e.claim_request = ?3 AND e.status = 'delivering' AND e.transport = 'worker' AND e.lease_until > ?4 ORDER BY e.scheduled_for, e.id`
	// Its condition is not `ready`, which would let a database without statistics read all of that index.
	sqlClaim = `UPDATE executions SET status = 'delivering', attempts = attempts + 1, claimed_key = ?3, claimed_worker = ?4,
		claimed_at = ?5, started_at = ?5, last_attempt_at = ?5, last_heartbeat = NULL, claim_request = ?6, lease_token = r.token,
		lease_bare = ?7, lease_until = ?8, deadline = ?8, updated_at = ?5
		FROM @rows(id TEXT ?1, token TEXT ?2) AS r WHERE executions.id = r.id AND ` + offered
	sqlGiveBack = `UPDATE executions SET status = 'pending', attempts = attempts - 1, claimed_key = '', claimed_worker = '',
		claimed_at = NULL, started_at = NULL, claim_request = '', lease_token = '', lease_until = NULL, deadline = ?4, updated_at = ?3
		WHERE id = ?1 AND lease_token = ?2 AND status = 'delivering'`
)

// Lists of executions; their conditions are a where.
const (
	sqlExecutions       = `SELECT ` + executionColumns + executionsAndCues
	sqlExecutionsListed = `SELECT ` + executionListed + executionsAndCues
	sqlExecutionsNewest = ` ORDER BY e.created_at DESC, e.id DESC`
	sqlCueExecutions    = `SELECT coalesce(sum(executions), 0) FROM cues WHERE id = ?1`
	sqlCueExecutionsAdd = `UPDATE cues SET executions = executions + ?2 WHERE id = ?1`
)

// sqlExecutionsOldest counts, and finds the earliest claim, before, between and after the condition and the most to look at.
var sqlExecutionsOldest = [3]string{
	`SELECT count(*), min(f.claimed_at) FROM (SELECT e.claimed_at` + executionsAndCues,
	` ORDER BY e.created_at, e.id LIMIT `,
	`) AS f`,
}

// What claims, fencing and reports need to know of an execution.
const (
	heldColumns = `e.id, e.workspace_id, e.cue_id, c.name, c.schedule_type, e.status, e.attempts, e.claimed_key, e.claimed_worker,
	e.lease_token, e.lease_bare, e.lease_until, e.last_heartbeat, e.verification, e.outcome_state, e.outcome_success, e.outcome,
	e.outcome_at, e.evidence_count, e.created_at, e.transport, e.outcome_within,
	CASE WHEN e.chained = '' AND c.on_success_fire <> '' THEN 1 ELSE 0 END`

	sqlHeldByID  = `SELECT ` + heldColumns + executionsAndCues + `WHERE e.id = ?1`
	sqlHeldByIDs = `SELECT ` + heldColumns + executionsAndCues + `WHERE e.id IN @list(?1)`
)

// Reports and evidence.
const (
	// sqlReport ends the execution (?13 = 1) or only adds the outcome to it.
	sqlReport = `UPDATE executions SET status = ?2,
		delivered_at = CASE WHEN CAST(?13 AS INTEGER) = 1 THEN CAST(?3 AS INTEGER) ELSE delivered_at END,
		error_message = CASE WHEN CAST(?13 AS INTEGER) = 1 THEN coalesce(CAST(?4 AS TEXT), error_message) ELSE error_message END,
		deadline = CASE WHEN CAST(?13 AS INTEGER) = 1 THEN NULL ELSE deadline END,
		deliver_at = CASE WHEN CAST(?13 AS INTEGER) = 1 THEN NULL ELSE deliver_at END,
		outcome_state = ?5, outcome_success = ?6, outcome = ?7, outcome_at = ?8, reported_by = ?9, unfenced = ?10,
		evidence_count = 1, has_evidence = ?11, result_type = ?12, updated_at = ?8
		WHERE id = ?1 AND outcome_state = ''`
	sqlCuesRan = `UPDATE cues SET last_run = ?3, run_count = cues.run_count + r.n
		FROM @rows(id TEXT ?1, n INTEGER ?2) AS r WHERE cues.id = r.id`

	linkColumns    = `outcome_at, execution_id, version, at, key_id, what, body, epoch, hash`
	sqlEvidenceAdd = `INSERT INTO evidence (` + linkColumns + `) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)`
	sqlReportsAdd  = `INSERT INTO evidence (` + linkColumns + `)
		SELECT CAST(?5 AS INTEGER), r.execution, 1, CAST(?5 AS INTEGER), r.keyid, 'outcome', r.body, r.epoch, r.hash
		FROM @rows(execution TEXT ?1, keyid TEXT ?2, body TEXT ?3, epoch INTEGER ?4, hash TEXT ?6) AS r`
	sqlEvidenceAll    = `SELECT ` + linkColumns + ` FROM evidence WHERE outcome_at = ?1 AND execution_id = ?2 ORDER BY version`
	sqlEvidenceLast   = `SELECT ` + linkColumns + ` FROM evidence WHERE outcome_at = ?1 AND execution_id = ?2 ORDER BY version DESC LIMIT 1`
	sqlEvidenceFirst  = `SELECT body FROM evidence WHERE outcome_at = ?1 AND execution_id = ?2 AND version = 1`
	sqlEvidenceSize   = `SELECT coalesce(sum(octet_length(body)), 0) FROM evidence WHERE outcome_at = ?1 AND execution_id = ?2`
	sqlEvidenceJudged = `SELECT count(*) FROM evidence WHERE outcome_at = ?1 AND execution_id = ?2 AND what = 'verify'`
	sqlEvidenceApply  = `UPDATE executions SET outcome = ?2, outcome_state = ?3, evidence_count = ?4, has_evidence = ?5,
		result_type = ?6, updated_at = ?7 WHERE id = ?1`
)

// Heartbeats of executions, and of workers for leases that were taken without a token.
const (
	sqlHeartbeat = `UPDATE executions SET lease_until = ?2, deadline = ?2, last_heartbeat = ?3, lease_bare = ?4, updated_at = ?3 WHERE id = ?1`

	sqlAttest   = `UPDATE executions SET live_token = ?2, live_claimed_at = ?3 WHERE id = ?1 AND live_token = ''`
	sqlAttested = `SELECT live_token, live_claimed_at FROM executions WHERE id = ?1`

	sqlBareRenew = `UPDATE executions SET last_heartbeat = ?3, updated_at = ?3,
			lease_until = CASE WHEN claimed_at + ?5 < ?4 THEN claimed_at + ?5 ELSE ?4 END,
			deadline = CASE WHEN claimed_at + ?5 < ?4 THEN claimed_at + ?5 ELSE ?4 END
		WHERE claimed_key = ?1 AND claimed_worker = ?2 AND status = 'delivering' AND transport = 'worker' AND lease_bare = 1
			AND lease_until > ?3 AND lease_until < claimed_at + ?5 AND lease_until < ?4`
)

// Workers.
const (
	sqlWorkerSeen = `INSERT INTO workers (workspace_id, worker_id, key_id, handlers, last_heartbeat, registered_since)
		VALUES (?1, ?2, ?3, ?4, ?5, ?5)
		ON CONFLICT (workspace_id, worker_id) DO UPDATE SET key_id = excluded.key_id, handlers = excluded.handlers,
			last_heartbeat = excluded.last_heartbeat`
	sqlWorkers = `SELECT worker_id, key_id, handlers, last_heartbeat, registered_since FROM workers WHERE workspace_id = ?1
		ORDER BY last_heartbeat DESC, worker_id LIMIT ?2`
	sqlWorkerDelete = `DELETE FROM workers WHERE workspace_id = ?1 AND worker_id = ?2`
)

// What the clock ends.
const (
	// Both walk the index from its beginning and leave it to the caller to stop at now: a database without statistics would
	// take few rows to be over and, instead of walking, sort all of them.
	sqlNextDeadline = `SELECT deadline FROM executions WHERE deadline IS NOT NULL ORDER BY deadline LIMIT 1`
	sqlDeadlines    = `SELECT ` + endingColumns + ` FROM executions e WHERE e.deadline IS NOT NULL ORDER BY e.deadline LIMIT ?1`
	sqlEnding       = `SELECT ` + endingColumns + ` FROM executions e WHERE e.id = ?1`
	endingColumns   = `e.id, e.workspace_id, e.cue_id, e.status, e.transport, e.attempts, e.max_attempts, e.claimed_worker, e.created_at, e.deadline,
		(SELECT c.name FROM cues c WHERE c.id = e.cue_id)`

	sqlOfferAgain = `UPDATE executions SET status = 'pending', deadline = ?4, claimed_key = '', claimed_worker = '', claimed_at = NULL,
		claim_request = '', lease_until = NULL, started_at = NULL, error_message = ?3, updated_at = ?2 WHERE id = ?1`
	sqlEndUnreported = `UPDATE executions SET status = ?2, error_message = ?3, deadline = NULL, updated_at = ?4 WHERE id = ?1`
)

// What waits, among so many rows of a partial index. The order makes a database without statistics walk the index.
const (
	sqlBacklogCalls = `SELECT coalesce(sum(CASE WHEN f.deliver_at <= ?1 THEN 1 ELSE 0 END), 0), coalesce(sum(CASE WHEN f.status = 'retrying' THEN 1 ELSE 0 END), 0)
		FROM (SELECT deliver_at, status FROM executions WHERE deliver_at IS NOT NULL ORDER BY workspace_id, endpoint, deliver_at, id LIMIT ?2) AS f`
	sqlBacklogClaims = `SELECT coalesce(sum(CASE WHEN f.scheduled_for <= ?1 THEN 1 ELSE 0 END), 0)
		FROM (SELECT scheduled_for FROM executions WHERE ` + ready + ` ORDER BY workspace_id, scheduled_for, id LIMIT ?2) AS f`
	sqlBacklogStale = `SELECT coalesce(sum(CASE WHEN f.deadline < ?1 THEN 1 ELSE 0 END), 0)
		FROM (SELECT deadline FROM executions WHERE deadline IS NOT NULL ORDER BY deadline LIMIT ?2) AS f`
	sqlWorkersActive = `SELECT count(*), coalesce(max(last_heartbeat), 0) FROM workers WHERE last_heartbeat > ?1`
)

// sqlTraced reads what spans need to know of executions.
const sqlTraced = `SELECT e.id, e.workspace_id, e.cue_id, c.name, e.transport, e.triggered_by, e.scheduled_for, e.updated_at, e.attempts,
	e.status, e.claimed_at, e.claimed_worker, e.replayed_from, e.chain_parent` + executionsAndCues + `WHERE e.id IN @list(?1)`
