-- Who may: workspaces, people, keys, what they did. Times are microseconds since 1970 UTC, truth is 0 or 1.

CREATE TABLE workspaces (
  id              TEXT PRIMARY KEY,
  name            TEXT NOT NULL,
  slug            TEXT NOT NULL UNIQUE,
  plan            TEXT NOT NULL,
  cue_limit       INTEGER NOT NULL,
  execution_limit INTEGER NOT NULL,
  rate_limit      INTEGER NOT NULL,           -- calls a minute by all keys together; 0: none
  alert_url       TEXT NOT NULL,              -- '' when not set
  webhook_secret  BLOB NOT NULL,              -- sealed
  webhook_old     BLOB NOT NULL,              -- the one before, sealed, while it still signs; else empty
  webhook_old_ends INTEGER NOT NULL,          -- until then; 0 for none
  alert_secret    BLOB NOT NULL,              -- sealed
  rev             INTEGER NOT NULL,
  created_at      INTEGER NOT NULL,
  updated_at      INTEGER NOT NULL
) STRICT;

CREATE TABLE users (
  id            TEXT PRIMARY KEY,
  email         TEXT NOT NULL,
  email_folded  TEXT NOT NULL,                -- what somebody typed, and proves nothing: see access.person
  signed_up     INTEGER NOT NULL DEFAULT 0,   -- 1 for one who came by sign-up
  created_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX users_email ON users (email_folded);

CREATE TABLE memberships (
  workspace_id TEXT NOT NULL REFERENCES workspaces (id),
  user_id      TEXT NOT NULL REFERENCES users (id),
  role         TEXT NOT NULL,                 -- viewer, operator, manager, admin; '' for one who left
  rev          INTEGER NOT NULL,
  created_at   INTEGER NOT NULL,
  PRIMARY KEY (workspace_id, user_id)
) STRICT;
CREATE INDEX memberships_user ON memberships (user_id);

CREATE TABLE keys (
  id           TEXT PRIMARY KEY,
  workspace_id TEXT NOT NULL REFERENCES workspaces (id),
  user_id      TEXT NOT NULL,                 -- the member it belongs to
  parent_id    TEXT REFERENCES keys (id),     -- the integration key that made it
  kind         TEXT NOT NULL,                 -- personal, integration
  name         TEXT NOT NULL,
  scope        TEXT NOT NULL,                 -- a named scope, or 'custom'
  permissions  TEXT NOT NULL,                 -- JSON list; what a custom key holds
  restrictions TEXT NOT NULL,                 -- JSON object; '{}' for none
  created_at   INTEGER NOT NULL,
  created_by   TEXT NOT NULL,                 -- user id
  expires_at   INTEGER,
  revoked_at   INTEGER,
  revoked_by   TEXT NOT NULL,                 -- '' while it lives
  request_key  TEXT NOT NULL,                 -- Idempotency-Key of its creation, '' for none
  rev          INTEGER NOT NULL
) STRICT;
CREATE INDEX keys_workspace ON keys (workspace_id, created_at, id);
CREATE INDEX keys_parent ON keys (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX keys_request ON keys (workspace_id, request_key) WHERE request_key <> '';

CREATE TABLE secrets (
  digits        TEXT PRIMARY KEY,             -- the public eight hex digits
  key_id        TEXT NOT NULL REFERENCES keys (id),
  seq           INTEGER NOT NULL,             -- 1 for the first secret of the key, then 2, …
  prefix        TEXT NOT NULL,                -- 'unstuck', as it was when the secret was made
  hash          BLOB NOT NULL,                -- HMAC-SHA-256 under the server secret of `epoch`
  epoch         INTEGER NOT NULL,
  state         TEXT NOT NULL,                -- pending, current, old, ended
  overlap       INTEGER NOT NULL,             -- microseconds that the one before goes on after this one's first use
  created_at    INTEGER NOT NULL,
  ends_at       INTEGER,                      -- of an old one
  last_used_at  INTEGER,
  last_used     TEXT NOT NULL,                -- JSON {operation, door, ip, user_agent, code}; '{}' before the first use
  shown_to      TEXT NOT NULL DEFAULT ''      -- user id of whoever was shown it and is not the member whose key it is; '' for nobody
) STRICT;
CREATE INDEX secrets_key ON secrets (key_id, seq);
CREATE INDEX secrets_shown ON secrets (shown_to) WHERE shown_to <> '';

CREATE TABLE activity (
  key_id    TEXT NOT NULL,
  hour      INTEGER NOT NULL,                 -- hours since 1970
  operation TEXT NOT NULL,
  address   TEXT NOT NULL,                    -- 'other' beyond 64 addresses a day
  class     TEXT NOT NULL,                    -- ok, refused, failed
  count     INTEGER NOT NULL,
  PRIMARY KEY (key_id, hour, operation, address, class)
) STRICT;

CREATE TABLE audit (
  workspace_id TEXT NOT NULL,
  seq          INTEGER NOT NULL,
  at           INTEGER NOT NULL,
  key_id       TEXT NOT NULL,                 -- '' when no key acted
  operation    TEXT NOT NULL,
  object_id    TEXT NOT NULL,
  result       TEXT NOT NULL,                 -- done, or the code of the refusal
  body         TEXT NOT NULL,                 -- the whole row as JSON; these bytes are what the chain covers
  epoch        INTEGER NOT NULL,              -- of the server secret in the hash
  hash         BLOB NOT NULL,                 -- HMAC(server secret, previous hash, body)
  PRIMARY KEY (workspace_id, seq)
) STRICT;
CREATE INDEX audit_key ON audit (workspace_id, key_id, seq);

CREATE TABLE server_secrets (
  epoch       INTEGER PRIMARY KEY,
  check_value BLOB NOT NULL,                  -- tells whether a server secret is the one that this database was written with
  created_at  INTEGER NOT NULL
) STRICT;
