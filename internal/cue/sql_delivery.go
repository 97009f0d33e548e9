package cue

// All SQL about sending executions to callbacks.

// Taking what is to be sent, lane by lane.
const (
	// sqlLaneHeads steps from one lane to the next through the index, and finds the earliest of each.
	sqlLaneHeads = `WITH RECURSIVE heads (id) AS (
			SELECT (SELECT x.id FROM executions x WHERE x.deliver_at IS NOT NULL
				ORDER BY x.workspace_id, x.endpoint, x.deliver_at, x.id LIMIT 1)
			UNION ALL
			SELECT (SELECT x.id FROM executions x WHERE x.deliver_at IS NOT NULL AND (x.workspace_id, x.endpoint) > (e.workspace_id, e.endpoint)
				ORDER BY x.workspace_id, x.endpoint, x.deliver_at, x.id LIMIT 1)
			FROM heads h JOIN executions e ON e.id = h.id)
		SELECT (SELECT e.workspace_id FROM executions e WHERE e.id = h.id), (SELECT e.endpoint FROM executions e WHERE e.id = h.id),
			(SELECT e.deliver_at FROM executions e WHERE e.id = h.id) FROM heads h WHERE h.id IS NOT NULL`
	sqlQueued   = `SELECT count(*) FROM (SELECT 1 AS one FROM executions WHERE deliver_at IS NOT NULL LIMIT 100000) AS queued`
	sqlLaneNext = `SELECT deliver_at FROM executions WHERE workspace_id = ?1 AND endpoint = ?2 AND deliver_at IS NOT NULL
		ORDER BY deliver_at LIMIT 1`

	// sqlLaneJobs reads what is to be sent, and the callback of its cue as it is now. It does not say up to when: the caller stops
	// there, and a database without statistics walks the index instead of sorting.
	sqlLaneJobs = `SELECT e.id, e.cue_id, e.status, e.scheduled_for, e.deliver_at, e.attempts, e.created_at,
		octet_length(e.payload), CASE WHEN octet_length(e.payload) <= 16384 THEN e.payload END,
		e.called, e.callback, e.timeout, e.outcome_within, e.backoff, e.max_attempts,
		c.name, c.callback, coalesce(c.timeout, 30), c.outcome_within, c.backoff, c.max_attempts, c.endpoint,
		CASE WHEN c.schedule_type = 'once' THEN 1 ELSE 0 END
		FROM executions e JOIN cues c ON c.id = e.cue_id
		WHERE e.workspace_id = ?1 AND e.endpoint = ?2 AND e.deliver_at IS NOT NULL ORDER BY e.deliver_at, e.id LIMIT ?3`
	sqlLaneTake = `UPDATE executions SET status = 'delivering', deliver_at = NULL, deadline = r.deadline, max_attempts = r.most,
			outcome_within = nullif(r.within, -1), started_at = coalesce(executions.started_at, CAST(?5 AS INTEGER)), updated_at = CAST(?5 AS INTEGER)
		FROM @rows(id TEXT ?1, deadline INTEGER ?2, most INTEGER ?3, within INTEGER ?4) AS r WHERE executions.id = r.id`
	sqlLaneChange = `UPDATE executions SET endpoint = r.endpoint FROM @rows(id TEXT ?1, endpoint TEXT ?2) AS r WHERE executions.id = r.id`
)

// What became of attempts. Each statement changes only executions that still are under way: one whose cue is gone, or whose end
// was reported meanwhile, is left alone.
const (
	sqlAttempts = `UPDATE executions SET status = r.status, attempts = r.attempt, http_status = nullif(r.http, -1),
			error_message = coalesce(nullif(r.error, ''), executions.error_message), response_body = nullif(r.body, ''),
			delivered_at = CASE WHEN r.good = 1 THEN CAST(?11 AS INTEGER) ELSE executions.delivered_at END,
			started_at = coalesce(executions.started_at, r.began), last_attempt_at = r.began,
			deliver_at = nullif(r.deliver, -1), deadline = nullif(r.deadline, -1), callback = '', backoff = '', called = '',
			redelivered = executions.redelivered + r.again, updated_at = CAST(?11 AS INTEGER)
		FROM @rows(id TEXT ?1, attempt INTEGER ?2, status TEXT ?3, http INTEGER ?4, error TEXT ?5, body TEXT ?6, good INTEGER ?7,
			began INTEGER ?8, deliver INTEGER ?9, deadline INTEGER ?10, again INTEGER ?12) AS r
		WHERE executions.id = r.id AND executions.status = 'delivering' AND executions.attempts = r.attempt - 1
		RETURNING executions.id, CASE WHEN executions.status = 'success' AND executions.chained = ''
			AND (executions.outcome_state IN ('reported_success', 'verified_success') OR executions.outcome_state = '' AND executions.verification IN ('', 'none'))
			AND EXISTS (SELECT 1 FROM cues c WHERE c.id = executions.cue_id AND c.on_success_fire <> '') THEN 1 ELSE 0 END,
			(SELECT c.name FROM cues c WHERE c.id = executions.cue_id)`
	sqlAttemptsBeside = `UPDATE executions SET attempts = r.attempt, http_status = nullif(r.http, -1), response_body = nullif(r.body, ''),
			last_attempt_at = r.began, callback = '', backoff = '', called = ''
		FROM @rows(id TEXT ?1, attempt INTEGER ?2, http INTEGER ?3, body TEXT ?4, began INTEGER ?5) AS r
		WHERE executions.id = r.id AND executions.attempts = r.attempt - 1`
	sqlCuesCalled = `UPDATE cues SET run_count = cues.run_count + r.n, last_run = coalesce(nullif(r.ran, -1), cues.last_run)
		FROM @rows(id TEXT ?1, n INTEGER ?2, ran INTEGER ?3) AS r WHERE cues.id = r.id`

	// sqlHandBack puts executions back into their queue: the attempt was not made, or its end is not known (again = 1).
	sqlHandBack = `UPDATE executions SET status = CASE WHEN executions.attempts = 0 THEN 'pending' ELSE 'retrying' END, deliver_at = r.at,
			deadline = NULL, redelivered = executions.redelivered + r.again, updated_at = CAST(?4 AS INTEGER)
		FROM @rows(id TEXT ?1, at INTEGER ?2, again INTEGER ?3) AS r
		WHERE executions.id = r.id AND executions.status = 'delivering' AND executions.transport = 'webhook'
		RETURNING executions.workspace_id, executions.endpoint, executions.status, executions.deliver_at`

	// sqlSendAgain does so at the start for all that was being sent when the server ended.
	sqlSendAgain = `UPDATE executions SET status = CASE WHEN attempts = 0 THEN 'pending' ELSE 'retrying' END, deliver_at = ?1, deadline = NULL,
			redelivered = redelivered + 1, updated_at = ?1
		WHERE deadline IS NOT NULL AND status = 'delivering' AND transport = 'webhook' RETURNING workspace_id, endpoint, status, deliver_at`
	sqlDeadlineMove = `UPDATE executions SET deadline = ?2 WHERE id = ?1`
)

// Notices of failures.
const (
	sqlNoticeOf = `SELECT c.workspace_id, c.id, c.name, c.failure_webhook, e.attempts, e.http_status, e.error_message
		FROM executions e JOIN cues c ON c.id = e.cue_id WHERE e.id = ?1 AND c.failure_webhook <> ''`
	sqlNoticeAdd = `INSERT INTO notices (id, workspace_id, cue_id, execution_id, url, body, attempts, send_at, error, created_at)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, '', ?7)`
	sqlNoticesForget = `DELETE FROM notices WHERE cue_id = ?1 AND created_at < ?2`
	sqlNoticesDelete = `DELETE FROM notices WHERE cue_id = ?1`
	sqlNoticeNext    = `SELECT send_at FROM notices WHERE send_at IS NOT NULL AND NOT workspace_id IN @list(?1) ORDER BY send_at LIMIT 1`
	sqlNoticesDue    = `SELECT id, workspace_id, cue_id, execution_id, url, body, attempts FROM notices
		WHERE send_at IS NOT NULL AND send_at <= ?1 AND NOT workspace_id IN @list(?3) ORDER BY send_at LIMIT ?2`
	sqlNoticesTake = `UPDATE notices SET send_at = ?2 WHERE id IN @list(?1)`
	sqlNoticeEnd   = `UPDATE notices SET attempts = ?2, send_at = nullif(CAST(?3 AS INTEGER), -1), told_at = nullif(CAST(?4 AS INTEGER), -1), error = ?5 WHERE id = ?1`
	sqlNoticeTold  = `SELECT url, attempts, send_at, told_at, error FROM notices WHERE cue_id = ?1 AND execution_id = ?2 ORDER BY created_at DESC LIMIT 1`
)
