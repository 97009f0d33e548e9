-- What is told to the address that a cue names for its failures.

ALTER TABLE cues ADD COLUMN failure_webhook TEXT NOT NULL DEFAULT ''; -- '' for none

CREATE TABLE notices (
  id           TEXT PRIMARY KEY,  -- the webhook-id, the same on every attempt
  workspace_id TEXT NOT NULL,
  cue_id       TEXT NOT NULL,
  execution_id TEXT NOT NULL,
  url          TEXT NOT NULL,
  body         TEXT NOT NULL,     -- in the form that is signed
  attempts     INTEGER NOT NULL,
  send_at      INTEGER,           -- when it is to be sent; NULL when it has ended
  told_at      INTEGER,           -- when the address took it
  error        TEXT NOT NULL,     -- of the last attempt that failed
  created_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX notices_due ON notices (send_at) WHERE send_at IS NOT NULL;
CREATE INDEX notices_cue ON notices (cue_id, created_at);
