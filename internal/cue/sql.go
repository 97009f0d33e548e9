package cue

// All SQL about cues, their versions and the ledger. The condition of the index cues_due is repeated word for word, so that a
// database uses it.

// cueColumns are what cue.scan reads; cueListed are the same with what lists leave out (see answerMost).
const (
	cueColumns = cueHead + `, c.description` + cueMiddle + `, c.payload` + cueTail
	cueListed  = cueHead + `, substr(c.description, 1, 1000)` + cueMiddle + `,
	CASE WHEN octet_length(c.payload) <= 8192 THEN c.payload ELSE '' END` + cueTail

	cueHead   = `c.id, c.workspace_id, c.name`
	cueMiddle = `, c.status, c.pause_reason, c.transport, c.schedule_type, c.cron, c.at, c.timezone,
	c.callback, c.endpoint, c.timeout, c.outcome_within`
	cueTail = `, c.task, c.agent, c.max_attempts, c.backoff, c.pause_on_failure, c.verification, c.catch_up,
	c.next_run, c.last_run, c.run_count, c.fired_count, c.version, c.decided_at, c.created_by, c.created_at, c.updated_at,
	c.needs_override, c.needed_keys, c.on_success_fire, c.failure_webhook, c.alert_failures, c.alert_misses, c.failure_mail`
)

const (
	sqlCueByID   = `SELECT ` + cueColumns + ` FROM cues c WHERE c.id = ?1`
	sqlCueByName = `SELECT ` + cueColumns + ` FROM cues c WHERE c.workspace_id = ?1 AND c.name = ?2`
	sqlCueNamed  = `SELECT count(*) FROM cues WHERE workspace_id = ?1 AND name = ?2`
	sqlCueInsert = `INSERT INTO cues (id, workspace_id, name, description, status, pause_reason, transport, schedule_type, cron, at, timezone,
		callback, endpoint, timeout, outcome_within, payload, task, agent, max_attempts, backoff, pause_on_failure, verification, catch_up,
		next_run, last_run, run_count, fired_count, version, decided_at, created_by, created_at, updated_at, needs_override, needed_keys, on_success_fire, failure_webhook, alert_failures, alert_misses, failure_mail, executions)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26,
		?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35, ?36, ?37, ?38, ?39, 0)`
	sqlCueUpdate = `UPDATE cues SET name = ?3, description = ?4, status = ?5, pause_reason = ?6, transport = ?7, schedule_type = ?8, cron = ?9, at = ?10,
		timezone = ?11, callback = ?12, endpoint = ?13, timeout = ?14, outcome_within = ?15, payload = ?16, task = ?17, agent =
		?18, max_attempts = ?19, backoff = ?20, pause_on_failure = ?21, verification = ?22, catch_up = ?23, next_run = ?24,
		last_run = ?25, run_count = ?26, fired_count = ?27, version = ?28, decided_at = ?29, created_by = ?30, created_at = ?31,
		updated_at = ?32, needs_override = ?33, needed_keys = ?34, on_success_fire = ?35, failure_webhook = ?36, alert_failures = ?37, alert_misses = ?38, failure_mail = ?39
		WHERE id = ?1 AND workspace_id = ?2`
	sqlCueDelete = `DELETE FROM cues WHERE id = ?1`
	sqlCueEnded  = `UPDATE cues SET last_run = ?2, run_count = run_count + ?3 WHERE id = ?1
		RETURNING schedule_type, status, pause_on_failure, CASE WHEN failure_webhook <> '' THEN 1 ELSE 0 END, failure_mail`
)

// Lists of cues; their conditions are a where.
const (
	sqlCueList      = `SELECT ` + cueListed + ` FROM cues c`
	sqlCueNewest    = ` ORDER BY c.created_at DESC, c.id DESC`
	sqlCueListTotal = `SELECT 1 AS one FROM cues c`
	sqlCueCount     = `SELECT count(*) FROM cues c`
)

const (
	sqlCueFind        = `SELECT id, name FROM cues WHERE workspace_id = ?1 AND (id = ?2 OR name = ?2) ORDER BY CASE WHEN id = ?2 THEN 0 ELSE 1 END LIMIT 1`
	sqlCueNameByID    = `SELECT name FROM cues WHERE workspace_id = ?1 AND id = ?2`
	sqlCountersSum    = `SELECT coalesce(sum(value), 0) FROM counters WHERE workspace_id = ?1 AND name IN @list(?2)`
	sqlWorkersSince   = `SELECT count(*) FROM (SELECT 1 AS one FROM workers WHERE workspace_id = ?1 AND last_heartbeat > ?2 LIMIT 1) AS seen`
	sqlCueOnceRunning = `SELECT count(*) FROM executions WHERE cue_id = ?1 AND triggered_by = 'scheduled'
		AND status NOT IN ('success', 'failed', 'missed', 'outcome_timeout')`
)

// Finding and firing what is due.
const (
	dueColumns = `c.id, c.workspace_id, c.version, c.schedule_type, c.cron, c.timezone, c.next_run, c.decided_at`

	// sqlNextDues says neither up to when nor which status (only active cues have a next_run): a database without statistics
	// would take few cues to match and, instead of walking the index, sort all of them.
	sqlNextDues = `SELECT ` + dueColumns + ` FROM cues c WHERE c.next_run IS NOT NULL ORDER BY c.next_run LIMIT ?1`
	sqlNextTurn = `SELECT next_run, workspace_id FROM cues WHERE next_run IS NOT NULL AND (next_run, workspace_id) > (?1, ?2)
		ORDER BY next_run, workspace_id LIMIT 1`
	sqlDuesOf  = `SELECT ` + dueColumns + ` FROM cues c WHERE c.next_run IS NOT NULL AND c.next_run = ?1 AND c.workspace_id = ?2 LIMIT ?3`
	sqlNextDue = `SELECT next_run FROM cues WHERE next_run IS NOT NULL ORDER BY next_run LIMIT 1`

	// sqlDueStill tells which cues are still as they were when they were found due, and what a call of each would carry. A large
	// payload is left out: its execution is queued.
	sqlDueStill = `SELECT r.i, c.catch_up, c.transport, c.endpoint, c.name, c.callback, coalesce(c.timeout, 30), c.outcome_within, c.backoff,
		c.max_attempts, CASE WHEN c.schedule_type = 'once' THEN 1 ELSE 0 END,
		CASE WHEN c.transport = 'webhook' AND octet_length(c.payload) <= 16384 THEN c.payload END
		FROM @rows(id TEXT ?1, version INTEGER ?2, was INTEGER ?3) AS r JOIN cues c ON c.id = r.id
		WHERE c.status = 'active' AND c.version = r.version AND c.next_run = r.was ORDER BY r.i`

	sqlDueMove = `UPDATE cues SET next_run = nullif(r.next, -1), decided_at = r.decided, fired_count = cues.fired_count + r.fired, executions = cues.executions + r.fired
		FROM @rows(id TEXT ?1, next INTEGER ?2, decided INTEGER ?3, fired INTEGER ?4) AS r WHERE cues.id = r.id`

	sqlDueFire = `INSERT INTO executions (id, workspace_id, cue_id, transport, triggered_by, fired_by,
		replayed_from, scheduled_for, status, task, agent, payload, verification, max_attempts, deadline,
		created_at, updated_at, attempts, claimed_key, claimed_worker, claim_request, lease_token, lease_bare, started_at,
		outcome_state, outcome, reported_by, unfenced, evidence_count, has_evidence, result_type,
		endpoint, deliver_at, callback, backoff, called, timeout, outcome_within, redelivered)
		SELECT r.execution, c.workspace_id, c.id, c.transport, 'scheduled', '',
		'', r.due, r.status, c.task, c.agent, c.payload, coalesce(c.verification, ''), c.max_attempts, nullif(r.deadline, -1),
		CAST(?7 AS INTEGER), CAST(?7 AS INTEGER), 0, '', '', '', '', 0, CASE WHEN r.status = 'delivering' THEN CAST(?7 AS INTEGER) END,
		'', '', '', 0, 0, 0, '',
		c.endpoint, nullif(r.deliver, -1), ` + snapshotColumns + `, 0
		FROM @rows(id TEXT ?1, execution TEXT ?2, due INTEGER ?3, status TEXT ?4, deadline INTEGER ?5, deliver INTEGER ?6) AS r
		JOIN cues c ON c.id = r.id`

	// snapshotColumns are a webhook's callback as it is now, for the first attempt: the columns callback, backoff, called,
	// timeout and outcome_within.
	snapshotColumns = `CASE WHEN c.transport = 'webhook' THEN c.callback ELSE '' END, CASE WHEN c.transport = 'webhook' THEN c.backoff ELSE '' END,
		CASE WHEN c.transport = 'webhook' THEN c.name ELSE '' END, coalesce(c.timeout, 30), c.outcome_within`
)

// Versions and the ledger.
const (
	versionColumns = `v.version, v.name, v.schedule_type, v.cron, v.at, v.timezone, v.status, v.from_at, v.to_at, v.changed_by, v.reason`

	sqlVersionOpen = `INSERT INTO cue_versions (cue_id, version, workspace_id, name, schedule_type, cron, at, timezone, status, from_at, changed_by, reason)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)`
	sqlVersionClose  = `UPDATE cue_versions SET to_at = ?3 WHERE cue_id = ?1 AND version = ?2`
	sqlVersionRename = `UPDATE cue_versions SET name = ?3 WHERE cue_id = ?1 AND version = ?2`
	sqlVersionsIn    = `SELECT ` + versionColumns + ` FROM cue_versions v
		WHERE v.cue_id = ?1 AND v.from_at < ?3 AND (v.to_at IS NULL OR v.to_at > ?2) ORDER BY v.version`
	sqlVersionsUpTo = `SELECT ` + versionColumns + ` FROM cue_versions v WHERE v.cue_id = ?1 AND v.from_at <= ?2 ORDER BY v.version DESC LIMIT 100`
	sqlVersionLast  = `SELECT v.name FROM cue_versions v WHERE v.workspace_id = ?1 AND v.cue_id = ?2 ORDER BY v.version DESC LIMIT 1`

	sqlLedgerAdd = `INSERT INTO ledger (cue_id, version, first_at, last_at, count, ending, reason, noted_at)
		SELECT r.cue, r.version, r.first, r.last, r.count, r.ending, r.reason, CAST(?8 AS INTEGER)
		FROM @rows(cue TEXT ?1, version INTEGER ?2, first INTEGER ?3, last INTEGER ?4, count INTEGER ?5, ending TEXT ?6, reason TEXT ?7) AS r`
	sqlLedgerExtend = `UPDATE ledger SET last_at = ?4, count = count + ?5, noted_at = ?6
		WHERE cue_id = ?1 AND version = ?2 AND ending = 'skipped' AND reason = ?7 AND last_at = ?3`
	sqlLedgerIn = `SELECT l.version, l.first_at, l.last_at, l.count, l.ending, l.reason FROM ledger l
		WHERE l.cue_id = ?1 AND l.first_at < ?3 AND l.last_at >= ?2 ORDER BY l.first_at, l.ending`

	sqlFiredIn = `SELECT count(*) FROM executions WHERE cue_id = ?1 AND triggered_by = 'scheduled'
		AND scheduled_for >= ?2 AND scheduled_for < ?3`
	sqlBesideIn = `SELECT triggered_by, count(*) FROM executions WHERE cue_id = ?1 AND triggered_by <> 'scheduled'
		AND created_at >= ?2 AND created_at < ?3 GROUP BY triggered_by`
	sqlFiredInEach = `SELECT r.version, min(e.scheduled_for), max(e.scheduled_for), count(*)
		FROM @rows(version INTEGER ?2, low INTEGER ?3, high INTEGER ?4) AS r
		JOIN executions e ON e.cue_id = ?1 AND e.triggered_by = 'scheduled' AND e.scheduled_for >= r.low AND e.scheduled_for < r.high
		GROUP BY r.i, r.version ORDER BY r.i`
)

// At the start: nobody could renew a lease or claim while the server was away.
const (
	sqlRelieve = `UPDATE executions SET deadline = ?1,
			lease_until = CASE WHEN status = 'delivering' THEN CAST(?1 AS INTEGER) ELSE lease_until END
		WHERE deadline IS NOT NULL AND deadline < ?1`
)

// Presence of the scheduler, and what else only "why" asks for. Executions are looked for among the latest of a cue.
const (
	sqlSigned  = `SELECT value FROM settings WHERE name = 'scheduler'`
	sqlSign    = `INSERT INTO settings (name, value) VALUES ('scheduler', ?1) ON CONFLICT (name) DO UPDATE SET value = excluded.value`
	sqlAbsent  = `INSERT INTO absences (from_at, to_at) VALUES (?1, ?2) ON CONFLICT (from_at) DO UPDATE SET to_at = excluded.to_at`
	sqlAbsence = `SELECT from_at, to_at FROM absences WHERE from_at <= ?1 ORDER BY from_at DESC LIMIT 1`

	sqlWhyDue    = `SELECT id FROM executions WHERE cue_id = ?1 AND scheduled_for = ?2 AND triggered_by = 'scheduled'`
	sqlWhyLatest = `SELECT id, scheduled_for FROM executions WHERE cue_id = ?1 AND created_at <= ?2 ORDER BY created_at DESC, id DESC LIMIT 1`
	sqlWhyTaken  = `SELECT claimed_worker, claimed_key, claimed_at FROM (SELECT claimed_worker, claimed_key, claimed_at, created_at, id FROM executions
			WHERE cue_id = ?1 ORDER BY created_at DESC, id DESC LIMIT 1000) AS latest
		WHERE claimed_worker <> '' AND claimed_at IS NOT NULL ORDER BY created_at DESC, id DESC LIMIT 1`
	sqlWhyGood = `SELECT id FROM (SELECT id, status, outcome_state, created_at FROM executions
			WHERE cue_id = ?1 AND created_at <= ?2 ORDER BY created_at DESC, id DESC LIMIT 1000) AS latest
		WHERE status = 'success' AND outcome_state IN ('', 'reported_success', 'verified_success') ORDER BY created_at DESC, id DESC LIMIT 1`
	sqlWhyWorker = `SELECT worker_id, key_id, last_heartbeat, coalesce(handlers, '') FROM workers WHERE workspace_id = ?1 AND worker_id = ?2`
	sqlWhyHeard  = `SELECT worker_id, key_id, last_heartbeat, coalesce(handlers, '') FROM workers WHERE workspace_id = ?1 ORDER BY last_heartbeat DESC LIMIT 1`
)
