package cue

// All SQL of retention. `removable` is what may go once it is old: it has ended, nobody's judgement is awaited, and the clock has
// nothing to do about it (a lease, a call under way and an awaited outcome have a deadline; a queued call has deliver_at). No
// open alert names it. While its cue goes on, it is none of the latest retainLatest that ended, nor of as many as the cue counts in a
// row before it raises an alert (100 at most).
const (
	removable = `e.` + ended + ` AND e.outcome_state <> 'verification_pending' AND e.deadline IS NULL AND e.deliver_at IS NULL
		AND NOT EXISTS (SELECT 1 FROM alerts a WHERE a.cue_id = e.cue_id AND a.execution_id = e.id AND a.recovered_at IS NULL)
		AND (NOT EXISTS (SELECT 1 FROM cues c WHERE c.id = e.cue_id AND c.status IN ('active', 'paused'))
			OR (e.created_at, e.id) < (SELECT n.created_at, n.id FROM executions n WHERE n.cue_id = e.cue_id AND n.` + ended + `
				ORDER BY n.created_at DESC, n.id DESC LIMIT 1 OFFSET 2)
			AND NOT EXISTS (SELECT 1 FROM cues c WHERE c.id = e.cue_id AND (c.alert_failures > 3 OR c.alert_misses > 3)
				AND (SELECT count(*) FROM (SELECT 1 FROM executions n WHERE n.cue_id = e.cue_id AND n.` + ended + `
					AND (n.created_at, n.id) > (e.created_at, e.id) LIMIT 100) AS younger)
					< CASE WHEN c.alert_misses > c.alert_failures THEN c.alert_misses ELSE c.alert_failures END))`
	ended = `status IN ('success', 'failed', 'missed', 'outcome_timeout')`

	sqlRetainNext = `SELECT min(workspace_id) FROM executions WHERE workspace_id > ?1`
	sqlRetainable = `SELECT e.id, e.cue_id, e.created_at FROM executions e WHERE e.workspace_id = ?1
		AND e.created_at < ?2 AND (e.created_at, e.id) > (?3, ?4) AND e.updated_at < ?2 AND ` + removable + `
		ORDER BY e.created_at, e.id LIMIT ?5`
	sqlRetainTake = `DELETE FROM executions AS e WHERE e.id IN @list(?1) AND e.updated_at < ?2 AND ` + removable + `
		RETURNING id, workspace_id, cue_id, status, triggered_by, scheduled_for, created_at, outcome_at`

	sqlRetainEvidence = `DELETE FROM evidence WHERE (outcome_at, execution_id) IN (SELECT r.at, r.id FROM @rows(at INTEGER ?1, id TEXT ?2) AS r)
		RETURNING execution_id, version, hash`
	sqlRetainCues = `UPDATE cues SET executions = cues.executions - r.n FROM @rows(id TEXT ?1, n INTEGER ?2) AS r WHERE cues.id = r.id`

	// The ledger: versions in which due times lie, and the row that holds a due time. Rows of a version do not overlap, so that is
	// the one which begins last before it.
	sqlRetainVersions = `SELECT r.cue, ` + versionColumns + ` FROM @rows(cue TEXT ?1, first INTEGER ?2, last INTEGER ?3) AS r
		JOIN cue_versions v ON v.cue_id = r.cue AND v.from_at <= r.last AND (v.to_at IS NULL OR v.to_at > r.first) ORDER BY r.i, v.version`
	sqlRetainFirst = `SELECT coalesce((SELECT l.first_at FROM ledger l WHERE l.cue_id = r.cue AND l.version = r.version AND l.first_at <= r.at
			ORDER BY l.first_at DESC LIMIT 1), -1) FROM @rows(cue TEXT ?1, version INTEGER ?2, at INTEGER ?3) AS r ORDER BY r.i`
	sqlRetainHolds = `SELECT r.cue, r.version, l.first_at, l.last_at, l.count
		FROM @rows(cue TEXT ?1, version INTEGER ?2, at INTEGER ?3, first INTEGER ?4) AS r
		JOIN ledger l ON l.cue_id = r.cue AND l.version = r.version AND l.first_at = r.first AND l.ending = 'fired'
		WHERE l.reason = 'retention' AND l.last_at >= r.at`
	sqlRetainJoin = `DELETE FROM ledger WHERE ending = 'fired' AND (cue_id, version, first_at) IN
		(SELECT r.cue, r.version, r.first FROM @rows(cue TEXT ?1, version INTEGER ?2, first INTEGER ?3) AS r)`

	removalColumns = `cue_id, workspace_id, due, beside, at, head, epoch, hash`
	sqlRemovals    = `SELECT ` + removalColumns + ` FROM removals WHERE cue_id IN @list(?1)`
	sqlRemovalsPut = `INSERT INTO removals (` + removalColumns + `)
		SELECT r.cue, r.workspace, r.due, r.beside, CAST(?5 AS INTEGER), r.head, r.epoch, r.hash
		FROM @rows(cue TEXT ?1, workspace TEXT ?2, due INTEGER ?3, beside INTEGER ?4, head TEXT ?6, epoch INTEGER ?7, hash TEXT ?8) AS r WHERE true
		ON CONFLICT (cue_id) DO UPDATE SET due = excluded.due, beside = excluded.beside, at = excluded.at, head = excluded.head,
			epoch = excluded.epoch, hash = excluded.hash`
	sqlRemovalsFolded = `SELECT coalesce(sum(count), 0) FROM ledger WHERE cue_id = ?1 AND ending = 'fired' AND reason = 'retention'`
)
