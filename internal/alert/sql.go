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

	sqlOld       = `SELECT id FROM alerts WHERE recovered_at IS NOT NULL AND recovered_at < ?1 ORDER BY recovered_at LIMIT ?2`
	sqlForget    = `DELETE FROM alerts WHERE id IN @list(?1)`
	sqlOpenCount = `SELECT type, count(*) FROM alerts WHERE recovered_at IS NULL GROUP BY type`

	// Ends of keys.
	sqlEnds   = `SELECT key_id, old_secret, ends_at, step FROM key_ends`
	sqlEndSet = `INSERT INTO key_ends (key_id, old_secret, ends_at, step) VALUES (?1, ?2, ?3, ?4)
		ON CONFLICT (key_id, old_secret) DO UPDATE SET ends_at = excluded.ends_at, step = excluded.step`
	sqlEndDrop = `DELETE FROM key_ends WHERE key_id = ?1 AND old_secret = ?2`
	sqlKeyOver = `UPDATE alerts SET recovered_at = ?3 WHERE cue_id = '' AND key_id = ?1 AND type = 'key_expiring' AND recovered_at IS NULL AND (since = ?2 OR ?2 = 0)`
)

// Letters; see letter.go.
const (
	sqlAlertMailed = `SELECT 1 FROM alerts a WHERE a.cue_id = ?1 AND a.cue_id <> '' AND a.created_at >= ?3 AND a.execution_id = ?2 AND a.type <> 'failure'
		AND (SELECT count(*) FROM alert_sends s WHERE s.alert_id = a.id AND s.kind = 'email') > 0 LIMIT 1`
	sqlLetters    = `SELECT id, count, created_at FROM alerts WHERE workspace_id = ?1 AND created_at > ?2 AND type = 'failure' ORDER BY created_at DESC, id DESC LIMIT ?3`
	sqlLetterMore = `UPDATE alerts SET count = count + 1 WHERE id = ?1`
	sqlLetterOf   = `SELECT attempts, send_at, sent_at, error FROM alert_sends WHERE kind = 'email' AND alert_id =
		(SELECT a.id FROM alerts a WHERE a.cue_id = ?1 AND a.cue_id <> '' AND a.execution_id = ?2 AND a.type = 'failure' LIMIT 1)`
)

// Channels and the outbox.
const (
	sqlChannels       = `SELECT kind, address, set_at, proved_at, good_at, failing_at, error FROM alert_channels WHERE workspace_id = ?1`
	sqlChannelAddress = `SELECT address, set_at FROM alert_channels WHERE workspace_id = ?1 AND kind = ?2`

	// Another address is as yet unproved.
	sqlChannelPut = `INSERT INTO alert_channels (workspace_id, kind, address, set_at, error) VALUES (?1, ?2, ?3, ?4, '')
		ON CONFLICT (workspace_id, kind) DO UPDATE SET address = excluded.address, set_at = excluded.set_at, proved_at = NULL, good_at = NULL, failing_at = NULL, error = ''
		WHERE alert_channels.address <> excluded.address`
	sqlChannelDrop   = `DELETE FROM alert_channels WHERE workspace_id = ?1 AND kind = ?2`
	sqlChannelGood   = `UPDATE alert_channels SET good_at = ?4, failing_at = NULL, error = ?5 WHERE workspace_id = ?1 AND kind = ?2 AND address = ?3`
	sqlChannelFailed = `UPDATE alert_channels SET failing_at = coalesce(failing_at, ?4), error = ?5 WHERE workspace_id = ?1 AND kind = ?2 AND address = ?3`
	sqlChannelProved = `UPDATE alert_channels SET proved_at = ?4 WHERE workspace_id = ?1 AND kind = ?2 AND address = ?3`
	sqlWorkspaceName = `SELECT name FROM workspaces WHERE id = ?1`

	sqlSendAdd = `INSERT INTO alert_sends (alert_id, kind, workspace_id, attempts, send_at, error, created_at)
		SELECT ?1, kind, workspace_id, 0, ?3, '', ?3 FROM alert_channels WHERE workspace_id = ?2`
	sqlLetterSend = sqlSendAdd + ` AND kind = 'email'`
	sqlSendNext   = `SELECT send_at FROM alert_sends WHERE kind = ?1 AND send_at IS NOT NULL ORDER BY send_at LIMIT 1`
	sqlSendsDue   = `SELECT alert_id, workspace_id, attempts FROM (
			SELECT alert_id, workspace_id, attempts, send_at, row_number() OVER (PARTITION BY workspace_id ORDER BY send_at, alert_id) AS turn
			FROM alert_sends WHERE kind = ?1 AND send_at IS NOT NULL AND send_at <= ?2 AND workspace_id NOT IN @list(?5)) AS due
		WHERE turn <= ?4 ORDER BY turn, send_at, alert_id LIMIT ?3`
	sqlSendTake = `UPDATE alert_sends SET send_at = ?3 WHERE kind = ?1 AND alert_id IN @list(?2)`
	sqlSendEnd  = `UPDATE alert_sends SET attempts = ?3, send_at = nullif(CAST(?4 AS INTEGER), -1), sent_at = nullif(CAST(?5 AS INTEGER), -1), error = ?6
		WHERE alert_id = ?1 AND kind = ?2`
	sqlSendsDrop = `UPDATE alert_sends SET send_at = NULL, error = 'the channel was removed' WHERE workspace_id = ?1 AND kind = ?2 AND send_at IS NOT NULL`

	sqlWaiting    = `SELECT count(*) FROM (SELECT 1 AS one FROM alert_sends WHERE workspace_id = ?1 AND kind = ?2 AND send_at IS NOT NULL LIMIT ?3) AS counted`
	sqlAllWaiting = `SELECT count(*) FROM (SELECT 1 AS one FROM alert_sends WHERE send_at IS NOT NULL LIMIT ?1) AS counted`
	sqlLost       = `SELECT count(*) FROM (SELECT 1 AS one FROM alert_sends WHERE workspace_id = ?1 AND kind = ?2 AND created_at >= ?3
		AND send_at IS NULL AND sent_at IS NULL LIMIT ?4) AS counted`
	sqlSendsOf = `SELECT alert_id, kind, attempts, send_at, sent_at, error FROM alert_sends WHERE alert_id IN @list(?1) ORDER BY kind DESC`
)
