package alert

// There is at most one open alert of a type about a cue, and about a key.
const (
	columns = `a.id, a.cue_id, a.cue_name, a.execution_id, a.key_id, a.type, a.severity, a.title, a.body, a.message, a.metadata, a.count,
		a.created_at, a.last_at, a.acked_at, a.acked_by, a.recovered_at`

	// Restricted keys see alerts about cues that exist and that they see.
	sqlAlerts = `SELECT ` + columns + ` FROM alerts a LEFT JOIN cues c ON c.id = a.cue_id`
	sqlTotal  = `SELECT 1 AS one FROM alerts a LEFT JOIN cues c ON c.id = a.cue_id`
	sqlNewest = ` ORDER BY a.created_at DESC, a.id DESC`
	sqlCue    = `SELECT id, name FROM cues WHERE workspace_id = ?1 AND (id = ?2 OR name = ?2) ORDER BY CASE WHEN id = ?2 THEN 0 ELSE 1 END LIMIT 1`
	sqlGone   = `SELECT 1 FROM alerts WHERE cue_id = ?2 AND workspace_id = ?1 AND cue_id <> '' LIMIT 1`

	sqlAgain = `UPDATE alerts SET count = count + 1, last_at = ?4 WHERE cue_id = ?1 AND key_id = ?2 AND type = ?3 AND recovered_at IS NULL`
	sqlAdd   = `INSERT INTO alerts (id, workspace_id, cue_id, cue_name, execution_id, key_id, type, severity, title, body, message, metadata, count, since,
		created_at, last_at, acked_by, recovered_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 1, ?13, ?14, ?14, '', nullif(CAST(?15 AS INTEGER), -1))`
	sqlAck = `UPDATE alerts SET acked_at = ?2, acked_by = ?3 WHERE id = ?1`

	sqlOpen = `SELECT a.workspace_id, a.cue_id, coalesce(c.name, a.cue_name), a.execution_id, a.type, a.since FROM alerts a LEFT JOIN cues c ON c.id = a.cue_id
		WHERE a.recovered_at IS NULL AND a.key_id = '' AND a.cue_id IN @list(?1) ORDER BY a.cue_id, a.since`

	// A callback that was switched off stays so until the cue is resumed.
	sqlClose = `UPDATE alerts SET recovered_at = ?2 WHERE cue_id = ?1 AND key_id = '' AND recovered_at IS NULL
		AND (type <> 'callback_disabled' OR NOT EXISTS (SELECT 1 FROM cues c WHERE c.id = alerts.cue_id AND c.status = 'paused'))`
	sqlEnd = `UPDATE alerts SET recovered_at = ?2 WHERE cue_id = ?1 AND key_id = '' AND recovered_at IS NULL`

	// Ends of keys.
	sqlEnds   = `SELECT key_id, old_secret, ends_at, step FROM key_ends`
	sqlEndSet = `INSERT INTO key_ends (key_id, old_secret, ends_at, step) VALUES (?1, ?2, ?3, ?4)
		ON CONFLICT (key_id, old_secret) DO UPDATE SET ends_at = excluded.ends_at, step = excluded.step`
	sqlEndDrop = `DELETE FROM key_ends WHERE key_id = ?1 AND old_secret = ?2`
	sqlKeyOver = `UPDATE alerts SET recovered_at = ?3 WHERE cue_id = '' AND key_id = ?1 AND type = 'key_expiring' AND recovered_at IS NULL AND (since = ?2 OR ?2 = 0)`
)
