package access

// All SQL of the package. Times are microseconds; parameters are numbered.

const (
	workspaceCols = `id, name, slug, plan, cue_limit, execution_limit, rate_limit, alert_url, webhook_secret, alert_secret, rev, created_at, updated_at`
	keyCols       = `id, workspace_id, user_id, parent_id, kind, name, scope, permissions, restrictions, created_at, created_by, expires_at, revoked_at, revoked_by, request_key, rev`
	secretCols    = `digits, key_id, seq, prefix, hash, epoch, state, overlap, created_at, ends_at, last_used_at, last_used`
)

// Loading everything into memory.
const (
	sqlWorkspacesAll = `SELECT ` + workspaceCols + ` FROM workspaces`
	sqlMembersAll    = `SELECT workspace_id, user_id, role, rev FROM memberships`
	sqlKeysAll       = `SELECT ` + keyCols + ` FROM keys`
	sqlSecretsAll    = `SELECT ` + secretCols + ` FROM secrets`
)

// Workspaces.
const (
	sqlWorkspaceIDs    = `SELECT id FROM workspaces ORDER BY created_at, id`
	sqlWorkspaceByID   = `SELECT ` + workspaceCols + ` FROM workspaces WHERE id = ?1`
	sqlWorkspaceOfSlug = `SELECT id FROM workspaces WHERE slug = ?1`
	sqlWorkspacesOf    = `SELECT ` + workspaceCols + ` FROM workspaces WHERE id IN (SELECT workspace_id FROM memberships WHERE user_id = ?1 AND role <> '') ORDER BY created_at, id`
	sqlWorkspacePlan   = `SELECT plan, cue_limit, execution_limit, rate_limit FROM workspaces WHERE id = ?1`
	sqlWorkspaceAdd    = `INSERT INTO workspaces (` + workspaceCols + `) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)`
	sqlWorkspaceSet    = `UPDATE workspaces SET name = ?2, slug = ?3, plan = ?4, cue_limit = ?5, execution_limit = ?6, rate_limit = ?7, alert_url = ?8,
		webhook_secret = ?9, alert_secret = ?10, rev = ?11, updated_at = ?12 WHERE id = ?1`
)

// People.
const (
	sqlUserByEmail = `SELECT id, email, created_at FROM users WHERE email_folded = ?1`
	sqlUserByID    = `SELECT id, email, created_at FROM users WHERE id = ?1`
	sqlUserAdd     = `INSERT INTO users (id, email, email_folded, created_at) VALUES (?1, ?2, ?3, ?4)`
	sqlMember      = `SELECT role, rev, created_at FROM memberships WHERE workspace_id = ?1 AND user_id = ?2`
	sqlMembers     = `SELECT m.user_id, u.email, m.role, m.rev, m.created_at FROM memberships m JOIN users u ON u.id = m.user_id
		WHERE m.workspace_id = ?1 AND m.role <> '' ORDER BY m.created_at, m.user_id`
	sqlMemberAdd = `INSERT INTO memberships (workspace_id, user_id, role, rev, created_at) VALUES (?1, ?2, ?3, ?4, ?5)`
	sqlMemberSet = `UPDATE memberships SET role = ?3, rev = ?4 WHERE workspace_id = ?1 AND user_id = ?2`
	sqlAdmins    = `SELECT count(*) FROM memberships WHERE workspace_id = ?1 AND role = 'admin'`
	sqlAnyAdmin  = `SELECT m.workspace_id, m.user_id FROM memberships m JOIN workspaces w ON w.id = m.workspace_id WHERE m.role = 'admin' ORDER BY w.created_at, w.id, m.created_at, m.user_id LIMIT 1`
)

// Keys and their secrets.
const (
	sqlKeyByID      = `SELECT ` + keyCols + ` FROM keys WHERE workspace_id = ?1 AND id = ?2`
	sqlKeyByRequest = `SELECT ` + keyCols + ` FROM keys WHERE workspace_id = ?1 AND request_key = ?2 AND created_at >= ?3 ORDER BY created_at DESC LIMIT 1`
	sqlKeysOf       = `SELECT ` + keyCols + ` FROM keys WHERE workspace_id = ?1 ORDER BY created_at DESC, id DESC`
	sqlKeysOfMember = `SELECT ` + keyCols + ` FROM keys WHERE workspace_id = ?1 AND user_id = ?2 AND revoked_at IS NULL ORDER BY created_at, id`
	sqlKeyCount     = `SELECT count(*) FROM keys WHERE workspace_id = ?1`
	sqlKeyAdd       = `INSERT INTO keys (` + keyCols + `) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)`
	sqlKeySet       = `UPDATE keys SET user_id = ?2, name = ?3, scope = ?4, permissions = ?5, restrictions = ?6, expires_at = ?7, revoked_at = ?8, revoked_by = ?9, rev = ?10 WHERE id = ?1`

	sqlSecretsOfKey = `SELECT ` + secretCols + ` FROM secrets WHERE key_id = ?1 ORDER BY seq DESC`
	sqlSecret       = `SELECT ` + secretCols + ` FROM secrets WHERE digits = ?1`
	sqlSecretTaken  = `SELECT count(*) FROM secrets WHERE digits = ?1`
	sqlSecretAdd    = `INSERT INTO secrets (` + secretCols + `) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)`
	sqlSecretState  = `UPDATE secrets SET state = ?2, ends_at = ?3 WHERE digits = ?1`
	sqlSecretUsed   = `UPDATE secrets SET last_used_at = ?2, last_used = ?3 WHERE digits = ?1 AND (last_used_at IS NULL OR last_used_at <= ?2)`
	sqlSecretRehash = `UPDATE secrets SET hash = ?2, epoch = ?3 WHERE digits = ?1 AND epoch < ?3`
	sqlSecretEpochs = `SELECT epoch, count(*) FROM secrets WHERE state <> 'ended' GROUP BY epoch ORDER BY epoch`
)

// What keys did.
const (
	sqlActivityAdd = `INSERT INTO activity (key_id, hour, operation, address, class, count) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
		ON CONFLICT (key_id, hour, operation, address, class) DO UPDATE SET count = activity.count + excluded.count`
	sqlActivityOfKey = `SELECT hour, operation, address, class, count FROM activity WHERE key_id = ?1 AND hour >= ?2 ORDER BY hour DESC, count DESC, operation, address, class`
	sqlActivityEnd   = `DELETE FROM activity WHERE hour < ?1`
)

// The audit log.
const (
	sqlAuditAdd    = `INSERT INTO audit (workspace_id, seq, at, key_id, operation, object_id, result, body, epoch, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)`
	sqlAuditHead   = `SELECT seq, hash FROM audit WHERE workspace_id = ?1 ORDER BY seq DESC LIMIT 1`
	sqlAuditHashAt = `SELECT hash FROM audit WHERE workspace_id = ?1 AND seq = ?2`
	sqlAuditChain  = `SELECT seq, at, key_id, operation, object_id, result, body, epoch, hash FROM audit WHERE workspace_id = ?1 ORDER BY seq`
	sqlAuditPage   = `SELECT body FROM audit WHERE workspace_id = ?1 AND seq < ?2 AND (?3 = '' OR key_id = ?3) AND (?4 = '' OR operation = ?4) AND (?5 = '' OR object_id = ?5)
		AND (?6 = 0 OR at >= ?6) ORDER BY seq DESC LIMIT ?7`
)

// Server secrets.
const (
	sqlEpochs   = `SELECT epoch, check_value FROM server_secrets ORDER BY epoch`
	sqlEpochAdd = `INSERT INTO server_secrets (epoch, check_value, created_at) VALUES (?1, ?2, ?3)`
)
