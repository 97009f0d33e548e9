-- Where alerts go, and what became of them there.

CREATE TABLE alert_channels (
  workspace_id TEXT NOT NULL REFERENCES workspaces (id),
  kind         TEXT NOT NULL,     -- webhook, email
  address      TEXT NOT NULL,
  set_at       INTEGER NOT NULL,  -- since when it is this address
  proved_at    INTEGER,           -- when it took a test message last
  good_at      INTEGER,           -- when it took anything last
  failing_at   INTEGER,           -- since when it has taken nothing; NULL while it does
  error        TEXT NOT NULL,     -- of the last attempt, if that failed
  PRIMARY KEY (workspace_id, kind)
) STRICT;

CREATE TABLE alert_sends (
  alert_id     TEXT NOT NULL REFERENCES alerts (id) ON DELETE CASCADE,
  kind         TEXT NOT NULL,
  workspace_id TEXT NOT NULL,
  attempts     INTEGER NOT NULL,
  send_at      INTEGER,           -- when it is to be sent; NULL when that has ended
  sent_at      INTEGER,           -- when it was taken
  error        TEXT NOT NULL,     -- of the last attempt, if that failed
  created_at   INTEGER NOT NULL,
  PRIMARY KEY (alert_id, kind)
) STRICT;
CREATE INDEX alert_sends_due ON alert_sends (kind, send_at) WHERE send_at IS NOT NULL;
CREATE INDEX alert_sends_lost ON alert_sends (workspace_id, kind, created_at) WHERE send_at IS NULL AND sent_at IS NULL;

INSERT INTO alert_channels (workspace_id, kind, address, set_at, error)
  SELECT id, 'webhook', alert_url, updated_at, '' FROM workspaces WHERE alert_url <> '';
ALTER TABLE workspaces DROP COLUMN alert_url;
