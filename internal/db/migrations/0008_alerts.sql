-- What is wrong, and when it was over.

CREATE TABLE alerts (
  id           TEXT PRIMARY KEY,  -- UUID
  workspace_id TEXT NOT NULL,
  cue_id       TEXT NOT NULL,     -- that it is about; '' for none
  cue_name     TEXT NOT NULL,     -- as it was then
  execution_id TEXT NOT NULL,     -- the first that it is about; '' for none
  key_id       TEXT NOT NULL,     -- that it is about; '' for none
  type         TEXT NOT NULL,     -- see package alert
  severity     TEXT NOT NULL,     -- warning, info
  title        TEXT NOT NULL,
  body         TEXT NOT NULL,     -- the text below the title
  message      TEXT NOT NULL,     -- as in the CueAPI wire contract
  metadata     TEXT NOT NULL,     -- JSON object
  count        INTEGER NOT NULL,  -- how often it happened while the alert was open
  since        INTEGER NOT NULL,  -- from when on something was wrong
  created_at   INTEGER NOT NULL,
  last_at      INTEGER NOT NULL,  -- when it happened last
  acked_at     INTEGER,
  acked_by     TEXT NOT NULL,     -- key id
  recovered_at INTEGER            -- NULL while it is open
) STRICT;
CREATE INDEX alerts_list ON alerts (workspace_id, created_at, id);
CREATE INDEX alerts_cue ON alerts (cue_id, created_at, id) WHERE cue_id <> '';
CREATE INDEX alerts_key ON alerts (key_id, since) WHERE key_id <> '';
CREATE INDEX alerts_over ON alerts (recovered_at) WHERE recovered_at IS NOT NULL;
CREATE UNIQUE INDEX alerts_open ON alerts (cue_id, key_id, type) WHERE recovered_at IS NULL;
