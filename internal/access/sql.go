package access

// All SQL of the package. Times are microseconds; parameters are numbered.

const (
	workspaceCols = `id, name, slug, plan, cue_limit, execution_limit, rate_limit, webhook_secret, alert_secret, rev, created_at, updated_at, webhook_old, webhook_old_ends`
	keyCols       = `id, workspace_id, user_id, parent_id, kind, name, scope, permissions, restrictions, created_at, created_by, expires_at, revoked_at, revoked_by, request_key, rev`
	secretCols    = `digits, key_id, seq, prefix, hash, epoch, state, overlap, created_at, ends_at, last_used_at, last_used, shown_to`

	// The same for reading, with NULL as nothing.
	keyRead    = `id, workspace_id, user_id, coalesce(parent_id, ''), kind, name, scope, permissions, restrictions, created_at, created_by, coalesce(expires_at, 0), coalesce(revoked_at, 0), revoked_by, request_key, rev`
	secretRead = `digits, key_id, seq, prefix, hash, epoch, state, overlap, created_at, coalesce(ends_at, 0), coalesce(last_used_at, 0), last_used, shown_to`
)

// Loading everything into memory. A text that is cast to a BLOB is read without being copied.
const (
	sqlWorkspacesAll = `SELECT ` + workspaceCols + ` FROM workspaces`
	sqlMembersAll    = `SELECT workspace_id, user_id, role, rev FROM memberships`
	sqlKeysCount     = `SELECT count(*) FROM keys`
	sqlKeysLoad      = `SELECT CAST(id AS BLOB), CAST(workspace_id AS BLOB), CAST(user_id AS BLOB), CAST(parent_id AS BLOB), CAST(kind AS BLOB), CAST(scope AS BLOB),
		CAST(permissions AS BLOB), CAST(restrictions AS BLOB), expires_at, revoked_at, rev FROM keys`
	sqlSecretsCount  = `SELECT count(*) FROM secrets`
	sqlSecretsHanded = `SELECT s.digits FROM secrets s JOIN keys k ON k.id = s.key_id WHERE s.shown_to <> '' AND k.kind = 'personal'`
	sqlSecretsLoad   = `SELECT CAST(digits AS BLOB), CAST(key_id AS BLOB), CAST(prefix AS BLOB), hash, CAST(state AS BLOB), epoch, ends_at FROM secrets`
)

// Workspaces.
const (
	sqlWorkspaceIDs    = `SELECT id FROM workspaces ORDER BY created_at, id`
	sqlWorkspaceByID   = `SELECT ` + workspaceCols + ` FROM workspaces WHERE id = ?1`
	sqlWorkspaceOfSlug = `SELECT id FROM workspaces WHERE slug = ?1`
	sqlWorkspacesOf    = `SELECT ` + workspaceCols + ` FROM workspaces WHERE id IN (SELECT workspace_id FROM memberships WHERE user_id = ?1 AND role <> '') ORDER BY created_at, id`
	sqlWorkspacePlan   = `SELECT plan, cue_limit, execution_limit, rate_limit FROM workspaces WHERE id = ?1`
	sqlWorkspaceAdd    = `INSERT INTO workspaces (` + workspaceCols + `) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)`
	sqlWorkspaceSet    = `UPDATE workspaces SET name = ?2, slug = ?3, plan = ?4, cue_limit = ?5, execution_limit = ?6, rate_limit = ?7,
		webhook_secret = ?8, alert_secret = ?9, rev = ?10, created_at = ?11, updated_at = ?12, webhook_old = ?13, webhook_old_ends = ?14 WHERE id = ?1`
	sqlWorkspaceTouch = `UPDATE workspaces SET rev = rev WHERE id = ?1`
)

// People.
const (
	sqlUserInWorkspace = `SELECT u.id, u.email, u.created_at FROM users u JOIN memberships m ON m.user_id = u.id WHERE m.workspace_id = ?1 AND u.email_folded = ?2
		AND (m.role <> '' OR NOT EXISTS (SELECT 1 FROM memberships o WHERE o.user_id = u.id AND o.workspace_id <> ?1)) ORDER BY m.role = '', m.created_at DESC, u.id LIMIT 1`
	sqlFirstSignUp = `SELECT coalesce(min(created_at), 0) FROM users WHERE email_folded = ?1 AND signed_up = 1`
	sqlUserByID    = `SELECT id, email, created_at FROM users WHERE id = ?1`
	sqlUserAdd     = `INSERT INTO users (id, email, email_folded, signed_up, created_at) VALUES (?1, ?2, ?3, ?4, ?5)`
	sqlMember      = `SELECT role, rev, created_at FROM memberships WHERE workspace_id = ?1 AND user_id = ?2`
	sqlMembers     = `SELECT m.user_id, u.email, m.role, m.created_at FROM memberships m JOIN users u ON u.id = m.user_id
		WHERE m.workspace_id = ?1 AND m.role <> '' ORDER BY m.created_at, m.user_id`
	sqlMemberAdd      = `INSERT INTO memberships (workspace_id, user_id, role, rev, created_at) VALUES (?1, ?2, ?3, ?4, ?5)`
	sqlMemberSet      = `UPDATE memberships SET role = ?3, rev = ?4, created_at = ?5 WHERE workspace_id = ?1 AND user_id = ?2`
	sqlMemberTouch    = `UPDATE memberships SET rev = rev WHERE workspace_id = ?1 AND user_id = ?2`
	sqlMembersChanged = `SELECT workspace_id, user_id, role, rev FROM memberships WHERE rev > 1 ORDER BY workspace_id, user_id`
	sqlMembersCount   = `SELECT count(*) FROM memberships WHERE workspace_id = ?1 AND role <> ''`
	sqlAdmins         = `SELECT count(*) FROM memberships WHERE workspace_id = ?1 AND role = 'admin'`
	sqlAnyAdmin       = `SELECT m.workspace_id, m.user_id FROM memberships m JOIN workspaces w ON w.id = m.workspace_id WHERE m.role = 'admin' AND (?1 = '' OR w.slug = ?1 OR w.id = ?1) ORDER BY w.created_at, w.id, m.created_at, m.user_id LIMIT 1`
)

// Keys and their secrets.
const (
	sqlKeyByID      = `SELECT ` + keyRead + ` FROM keys WHERE workspace_id = ?1 AND id = ?2`
	sqlKeyAnywhere  = `SELECT ` + keyRead + ` FROM keys WHERE id = ?1`
	sqlKeyByRequest = `SELECT ` + keyRead + ` FROM keys WHERE workspace_id = ?1 AND request_key >= ?2 AND request_key < ?3 AND created_at >= ?4 ORDER BY created_at DESC LIMIT 1`
	sqlKeysPage     = `SELECT ` + keyRead + ` FROM keys WHERE workspace_id = ?1 AND (created_at, id) < (?2, ?3) ORDER BY created_at DESC, id DESC LIMIT ?4`
	sqlKeysOfMember = `SELECT ` + keyRead + ` FROM keys WHERE workspace_id = ?1 AND user_id = ?2 AND revoked_at IS NULL ORDER BY created_at, id`
	sqlKeysShownTo  = `SELECT ` + keyRead + ` FROM keys WHERE workspace_id = ?1 AND user_id <> ?2 AND revoked_at IS NULL AND id IN (SELECT key_id FROM secrets
		WHERE shown_to = ?2 AND (state IN ('pending', 'current') OR state = 'old' AND ends_at > ?3)) ORDER BY created_at, id`
	sqlKeysOfAdmins = `SELECT ` + keyRead + ` FROM keys WHERE workspace_id = ?1 AND kind = 'personal' AND revoked_at IS NULL
		AND user_id IN (SELECT user_id FROM memberships WHERE workspace_id = ?1 AND role = 'admin') ORDER BY created_at DESC, id`
	sqlKeysBelow = `WITH RECURSIVE below(id) AS (SELECT id FROM keys WHERE parent_id IN @list(?2) UNION SELECT k.id FROM keys k JOIN below b ON k.parent_id = b.id)
		SELECT ` + keyRead + ` FROM keys WHERE workspace_id = ?1 AND revoked_at IS NULL AND id IN (SELECT id FROM below) ORDER BY created_at, id`
	sqlPersonalKeys = `SELECT ` + keyRead + ` FROM keys WHERE workspace_id = ?1 AND user_id = ?2 AND kind = 'personal' AND revoked_at IS NULL ORDER BY created_at DESC, id DESC`
	sqlKeysChanged  = `SELECT ` + keyRead + ` FROM keys WHERE revoked_at IS NULL AND rev > 1 ORDER BY id`
	sqlKeysLiving   = `SELECT count(*) FROM keys WHERE workspace_id = ?1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?2)`
	sqlKeysRevoked  = `SELECT workspace_id, id, revoked_at, revoked_by FROM keys WHERE revoked_at IS NOT NULL ORDER BY revoked_at, id`
	sqlKeyAdd       = `INSERT INTO keys (` + keyCols + `) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)`
	sqlKeySet       = `UPDATE keys SET user_id = ?2, name = ?3, scope = ?4, permissions = ?5, restrictions = ?6, expires_at = ?7, revoked_at = ?8, revoked_by = ?9, rev = ?10 WHERE id = ?1`
	sqlKeyTouch     = `UPDATE keys SET rev = rev WHERE id = ?1`

	sqlSecretsOfKeys  = `SELECT ` + secretRead + ` FROM secrets WHERE key_id IN @list(?1) ORDER BY key_id, seq DESC`
	sqlSecretByDigits = `SELECT ` + secretRead + ` FROM secrets WHERE digits = ?1`
	sqlSecretsKnown   = `UPDATE secrets SET shown_to = ?2 WHERE key_id = ?1 AND shown_to = '' AND state <> 'ended'`
	sqlSecretShown    = `UPDATE secrets SET shown_to = ?2 WHERE digits = ?1`
	sqlSecretsEnded   = `SELECT digits, state, coalesce(ends_at, created_at), shown_to FROM secrets WHERE state IN ('old', 'ended') OR shown_to <> '' ORDER BY key_id, seq`
	sqlSecretTaken    = `SELECT count(*) FROM secrets WHERE digits = ?1`
	sqlSecretAdd      = `INSERT INTO secrets (` + secretCols + `) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)`
	sqlSecretState    = `UPDATE secrets SET state = ?2, ends_at = ?3 WHERE digits = ?1`
	sqlSecretEpochs   = `SELECT s.epoch, count(*) FROM secrets s JOIN keys k ON k.id = s.key_id WHERE s.state <> 'ended' AND k.revoked_at IS NULL GROUP BY s.epoch ORDER BY s.epoch`
)

// What keys did, written for many keys at a time.
const (
	sqlSecretsUsed = `UPDATE secrets SET last_used_at = r.at, last_used = r.what FROM @rows(digits TEXT ?1, at INTEGER ?2, what TEXT ?3) AS r
		WHERE secrets.digits = r.digits AND (secrets.last_used_at IS NULL OR secrets.last_used_at <= r.at)`
	sqlSecretsRehash = `UPDATE secrets SET hash = ?2, epoch = ?3 WHERE digits = ?1 AND epoch < ?3`
	sqlActivityAdd   = `INSERT INTO activity (key_id, hour, operation, address, class, count)
		SELECT r.key, r.hour, r.operation, r.address, r.class, r.count FROM @rows(key TEXT ?1, hour INTEGER ?2, operation TEXT ?3, address TEXT ?4, class TEXT ?5, count INTEGER ?6) AS r
		WHERE true ON CONFLICT (key_id, hour, operation, address, class) DO UPDATE SET count = activity.count + excluded.count`
	sqlActivitySeen       = `SELECT DISTINCT key_id, address FROM activity WHERE key_id IN @list(?1) AND hour >= ?2 AND hour < ?3`
	sqlActivityOfKey      = `SELECT hour, operation, address, class, count FROM activity WHERE key_id = ?1 AND hour >= ?2 ORDER BY hour DESC, count DESC, operation, address, class`
	sqlActivityPlaces     = `SELECT DISTINCT key_id, hour, address FROM activity WHERE key_id IN @list(?1) AND hour >= ?2 ORDER BY key_id, hour, address`
	sqlActivityOperations = `SELECT DISTINCT key_id, operation FROM activity WHERE key_id IN @list(?1) AND hour >= ?2 AND class <> 'refused' ORDER BY key_id, operation`
	sqlActivityEnd        = `DELETE FROM activity WHERE key_id >= ?1 AND key_id < ?2 AND hour < ?3`
)

// The audit log.
const (
	sqlAuditAdd    = `INSERT INTO audit (workspace_id, seq, at, key_id, operation, object_id, result, body, epoch, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)`
	sqlAuditHead   = `SELECT seq, hash, epoch FROM audit WHERE workspace_id = ?1 ORDER BY seq DESC LIMIT 1`
	sqlAuditHashAt = `SELECT hash FROM audit WHERE workspace_id = ?1 AND seq = ?2`
	sqlAuditOlder  = `SELECT 1 FROM audit WHERE at < ?1 UNION ALL SELECT 1 FROM workspaces w WHERE w.created_at < ?1
		OR NOT EXISTS (SELECT 1 FROM audit a WHERE a.workspace_id = w.id AND a.seq = 1) LIMIT 1`
	sqlAuditOwners = `SELECT DISTINCT workspace_id FROM audit ORDER BY workspace_id`
	sqlAuditChain  = `SELECT seq, at, key_id, operation, object_id, result, body, epoch, hash FROM audit WHERE workspace_id = ?1 ORDER BY seq`
	sqlAuditPage   = `SELECT body FROM audit WHERE workspace_id = ?1 AND seq < ?2 AND (?3 = '' OR key_id = ?3) AND (?4 = '' OR operation = ?4) AND (?5 = '' OR object_id = ?5)
		AND at >= ?6 ORDER BY seq DESC LIMIT ?7`
	sqlAuditTries     = `SELECT body FROM audit WHERE workspace_id = ?1 AND key_id = ?2 AND result = ?3 AND at >= ?4 ORDER BY seq DESC LIMIT 1000`
	sqlAuditPageOfKey = `SELECT body FROM audit WHERE workspace_id = ?1 AND seq < ?2 AND key_id = ?3 AND (?4 = '' OR operation = ?4) AND (?5 = '' OR object_id = ?5)
		AND at >= ?6 ORDER BY seq DESC LIMIT ?7`
)

// What the server knows about itself.
const sqlSettled = `INSERT INTO settings (name, value) VALUES ('settled', ?1) ON CONFLICT (name) DO UPDATE SET value = excluded.value`

// Server secrets.
const (
	sqlEpochs      = `SELECT epoch, check_value FROM server_secrets ORDER BY epoch`
	sqlEpochNewest = `SELECT COALESCE(max(epoch), 0) FROM server_secrets`
	sqlEpochAfter  = `SELECT min(created_at) FROM server_secrets WHERE epoch > ?1`
	sqlEpochAdd    = `INSERT INTO server_secrets (epoch, check_value, created_at) VALUES (?1, ?2, ?3)`
)
