-- What is wrong, and when it was over.

CREATE TABLE alerts (
  id           TEXT PRIMARY KEY,  -- UUID
  workspace_id TEXT NOT NULL,
  cue_id       TEXT NOT NULL,
  cue_name     TEXT NOT NULL,     -- as it was then
  execution_id TEXT NOT NULL,     -- the first that it is about
  type         TEXT NOT NULL,     -- consecutive_failures, missed_window, outcome_timeout, verification_failed, callback_disabled, recovered
  severity     TEXT NOT NULL,     -- warning, info
  title        TEXT NOT NULL,
  body         TEXT NOT NULL,
  message      TEXT NOT NULL,     -- as in the CueAPI wire contract
  metadata     TEXT NOT NULL,     -- JSON object
  count        INTEGER NOT NULL,  -- how often it happened while the alert was open
  created_at   INTEGER NOT NULL,
  last_at      INTEGER NOT NULL,  -- when it happened last
  acked_at     INTEGER,
  acked_by     TEXT NOT NULL,     -- key id
  recovered_at INTEGER            -- NULL while it is open
) STRICT;
CREATE INDEX alerts_list ON alerts (workspace_id, created_at, id);
CREATE UNIQUE INDEX alerts_open ON alerts (cue_id, type) WHERE recovered_at IS NULL;
