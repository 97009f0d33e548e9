package cue

// Alerts. There is at most one open alert of a type about a cue.
const (
	alertColumns = `a.id, a.cue_id, a.cue_name, a.execution_id, a.type, a.severity, a.title, a.body, a.message, a.metadata, a.count,
		a.created_at, a.last_at, a.acked_at, a.acked_by, a.recovered_at`

	// Restricted keys see alerts about cues that exist and that they see.
	sqlAlerts      = `SELECT ` + alertColumns + ` FROM alerts a LEFT JOIN cues c ON c.id = a.cue_id`
	sqlAlertsTotal = `SELECT 1 AS one FROM alerts a LEFT JOIN cues c ON c.id = a.cue_id`
	sqlAlertsOrder = ` ORDER BY a.created_at DESC, a.id DESC`

	sqlAlertAgain = `UPDATE alerts SET count = count + 1, last_at = ?3 WHERE cue_id = ?1 AND type = ?2 AND recovered_at IS NULL`
	sqlAlertAdd   = `INSERT INTO alerts (id, workspace_id, cue_id, cue_name, execution_id, type, severity, title, body, message, metadata, count,
		created_at, last_at, acked_by, recovered_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 1, ?12, ?12, '', nullif(CAST(?13 AS INTEGER), -1))`
	sqlAlertAck   = `UPDATE alerts SET acked_at = ?2, acked_by = ?3 WHERE id = ?1`
	sqlAlertsOpen = `SELECT a.cue_id, a.execution_id, a.created_at FROM alerts a WHERE a.recovered_at IS NULL AND a.cue_id IN @list(?1) ORDER BY a.cue_id, a.created_at`

	// A callback that was switched off stays so until the cue is resumed.
	sqlAlertsClose = `UPDATE alerts SET recovered_at = ?2 WHERE cue_id = ?1 AND recovered_at IS NULL
		AND (type <> 'callback_disabled' OR NOT EXISTS (SELECT 1 FROM cues c WHERE c.id = alerts.cue_id AND c.status = 'paused'))`
	sqlAlertsEnd = `UPDATE alerts SET recovered_at = ?2 WHERE cue_id = ?1 AND recovered_at IS NULL`

	sqlAlertRun = `SELECT CASE WHEN status = 'success' AND coalesce(outcome_success, 1) = 1 THEN 1 ELSE 0 END FROM executions
		WHERE cue_id = ?1 AND status IN ('success', 'failed', 'missed', 'outcome_timeout') ORDER BY created_at DESC, id DESC LIMIT ?2`
	sqlAlertGood = `SELECT scheduled_for FROM executions WHERE cue_id = ?1 AND created_at < ?2 AND status = 'success'
		AND coalesce(outcome_success, 1) = 1 AND outcome_state <> 'verification_failed' ORDER BY created_at DESC, id DESC LIMIT 1`
)
