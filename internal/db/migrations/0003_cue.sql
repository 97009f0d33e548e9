-- When work happens and whether it did. Times are microseconds since 1970 UTC, truth is 0 or 1.

CREATE TABLE cues (
  id            TEXT PRIMARY KEY,
  workspace_id  TEXT NOT NULL,
  name          TEXT NOT NULL,
  description   TEXT,
  status        TEXT NOT NULL,                -- active, paused, completed, failed
  pause_reason  TEXT NOT NULL,                -- why the server paused it, for people; '' when somebody did
  transport     TEXT NOT NULL,                -- webhook, worker
  schedule_type TEXT NOT NULL,                -- once, recurring
  cron          TEXT NOT NULL,                -- '' for once
  at            INTEGER,                      -- of once
  timezone      TEXT NOT NULL,                -- as given
  callback      TEXT NOT NULL,                -- JSON {url, method, headers}
  endpoint      TEXT NOT NULL,                -- of webhook: the callback's address up to its "?", or 'echo' for our own sink; else ''
  timeout       INTEGER,                      -- seconds that a call may take; NULL when never set
  outcome_within INTEGER,                     -- how the end is known. NULL: a 2xx is done; 0: the reply says; else reported within so many seconds
  payload       TEXT NOT NULL,                -- JSON object as sent
  task          TEXT NOT NULL,                -- payload.task, '' for none
  agent         TEXT NOT NULL,                -- payload.agent, '' for none
  max_attempts  INTEGER NOT NULL,
  backoff       TEXT NOT NULL,                -- JSON list of minutes
  pause_on_failure INTEGER NOT NULL,
  verification  TEXT,                         -- the mode; NULL when never set
  catch_up      TEXT NOT NULL,                -- run_once_if_missed, skip_missed, replay_all_missed
  next_run      INTEGER,
  last_run      INTEGER,
  run_count     INTEGER NOT NULL,
  fired_count   INTEGER NOT NULL,
  version       INTEGER NOT NULL,             -- of its open row in cue_versions
  decided_at    INTEGER NOT NULL,             -- every due time up to here has its ending
  created_by    TEXT NOT NULL,                -- key id
  created_at    INTEGER NOT NULL,
  updated_at    INTEGER NOT NULL,
  executions    INTEGER NOT NULL,             -- that exist; here and not among the counters because firing writes this row anyway
  UNIQUE (workspace_id, name),
  CHECK (next_run IS NULL OR status = 'active')
) STRICT;
CREATE INDEX cues_due ON cues (next_run, workspace_id) WHERE next_run IS NOT NULL;
CREATE INDEX cues_list ON cues (workspace_id, created_at, id);
CREATE INDEX cues_status ON cues (workspace_id, status, created_at, id);

-- One row for every span in which a cue had one schedule, zone and status. It outlives the cue: with it the ledger closes.
CREATE TABLE cue_versions (
  cue_id        TEXT NOT NULL,
  version       INTEGER NOT NULL,
  workspace_id  TEXT NOT NULL,
  name          TEXT NOT NULL,
  schedule_type TEXT NOT NULL,
  cron          TEXT NOT NULL,
  at            INTEGER,                      -- of once: when it is due, which after a resume is not when it was asked for
  timezone      TEXT NOT NULL,
  status        TEXT NOT NULL,
  from_at       INTEGER NOT NULL,
  to_at         INTEGER,                      -- NULL while it holds
  PRIMARY KEY (cue_id, version)
) STRICT;

-- Due times that did not end as an execution of their own; one row may stand for many.
CREATE TABLE ledger (
  cue_id   TEXT NOT NULL,
  version  INTEGER NOT NULL,
  first_at INTEGER NOT NULL,
  last_at  INTEGER NOT NULL,
  count    INTEGER NOT NULL,
  ending   TEXT NOT NULL,                     -- coalesced, skipped, missed, fired (of executions that retention removed)
  reason   TEXT NOT NULL,
  noted_at INTEGER NOT NULL,
  PRIMARY KEY (cue_id, version, first_at, ending)
) STRICT;

CREATE TABLE executions (
  id              TEXT PRIMARY KEY,           -- UUID
  workspace_id    TEXT NOT NULL,
  cue_id          TEXT NOT NULL,
  transport       TEXT NOT NULL,
  triggered_by    TEXT NOT NULL,              -- scheduled, manual_fire, replay, chain
  fired_by        TEXT NOT NULL,              -- key id; '' when scheduled
  replayed_from   TEXT NOT NULL,              -- execution id; '' for none
  scheduled_for   INTEGER NOT NULL,
  status          TEXT NOT NULL,              -- contract 7.2
  task            TEXT NOT NULL,              -- payload.task, '' for none: claimable work is filtered and shared out by it
  agent           TEXT NOT NULL,              -- payload.agent, '' for none
  payload         TEXT NOT NULL,              -- effective, as it was when fired
  verification    TEXT NOT NULL,              -- mode in force when fired
  max_attempts    INTEGER NOT NULL,
  attempts        INTEGER NOT NULL,
  deadline        INTEGER,                    -- when the clock ends it: the wait to be claimed, or the lease; NULL once it has ended
  claimed_key     TEXT NOT NULL,              -- key id; '' when nobody holds it
  claimed_worker  TEXT NOT NULL,
  claimed_at      INTEGER,
  claim_request   TEXT NOT NULL,              -- request_id of the claim, '' for none
  lease_token     TEXT NOT NULL,              -- of the last claim; the next one replaces it
  lease_bare      INTEGER NOT NULL,           -- 1: the claimer has not shown that it knows the token
  lease_until     INTEGER,
  last_heartbeat  INTEGER,
  started_at      INTEGER,
  delivered_at    INTEGER,
  last_attempt_at INTEGER,
  http_status     INTEGER,
  error_message   TEXT,
  outcome_state   TEXT NOT NULL,              -- '' until reported
  outcome_success INTEGER,
  outcome         TEXT NOT NULL,              -- JSON of the report, '' until reported
  outcome_at      INTEGER,
  reported_by     TEXT NOT NULL,              -- key id
  unfenced        INTEGER NOT NULL,           -- 1: reported without a token
  evidence_count  INTEGER NOT NULL,           -- versions in `evidence`
  has_evidence    INTEGER NOT NULL,
  result_type     TEXT NOT NULL,
  created_at      INTEGER NOT NULL,
  updated_at      INTEGER NOT NULL,

  -- Of webhooks. The callback as it was when the execution was queued is for the first attempt; then these columns are emptied.
  endpoint        TEXT NOT NULL,              -- as of the cue; '' of a worker's
  deliver_at      INTEGER,                    -- when the next attempt is to be sent; NULL while one is under way, and when none will be
  callback        TEXT NOT NULL,              -- JSON {url, method, headers} for the first attempt, then ''
  backoff         TEXT NOT NULL,              -- and its JSON list of minutes
  called          TEXT NOT NULL,              -- and the name of the cue
  timeout         INTEGER NOT NULL,           -- and the seconds that it may take
  outcome_within  INTEGER,                    -- as of the cue
  redelivered     INTEGER NOT NULL,           -- how often an attempt was sent again because its end is not known
  response_body   TEXT                        -- first 2,000 characters of the last answer
) STRICT;
CREATE UNIQUE INDEX executions_due ON executions (cue_id, scheduled_for) WHERE triggered_by = 'scheduled';
CREATE INDEX executions_cue ON executions (cue_id, created_at, id);
CREATE INDEX executions_list ON executions (workspace_id, created_at, id);
CREATE INDEX executions_status ON executions (workspace_id, status, created_at, id);
CREATE INDEX executions_worker ON executions (workspace_id, claimed_worker, created_at, id) WHERE claimed_worker <> '';

-- What is to be sent, lane by lane (the callbacks of one workspace on one endpoint), oldest first.
CREATE INDEX executions_lane ON executions (workspace_id, endpoint, deliver_at, id) WHERE deliver_at IS NOT NULL;

-- What workers may take, in the orders in which they ask for it: oldest first, of one task, for one agent, of one cue.
CREATE INDEX executions_ready ON executions (workspace_id, scheduled_for, id) WHERE status IN ('pending', 'retry_ready') AND transport = 'worker';
CREATE INDEX executions_ready_task ON executions (workspace_id, task, scheduled_for, id) WHERE status IN ('pending', 'retry_ready') AND transport = 'worker';
CREATE INDEX executions_ready_agent ON executions (workspace_id, agent, scheduled_for, id) WHERE status IN ('pending', 'retry_ready') AND transport = 'worker' AND agent <> '';
CREATE INDEX executions_ready_cue ON executions (cue_id, scheduled_for, id) WHERE status IN ('pending', 'retry_ready') AND transport = 'worker';

-- What the clock ends: work that nobody takes, leases that nobody renews. And what one worker of one key holds.
CREATE INDEX executions_deadline ON executions (deadline) WHERE deadline IS NOT NULL;
CREATE INDEX executions_held ON executions (claimed_key, claimed_worker, claim_request) WHERE status = 'delivering' AND transport = 'worker';

-- Append-only; version 1 is what came with the outcome. Every row covers the one before. The time of the outcome leads the key,
-- so that the rows of many executions are written side by side.
CREATE TABLE evidence (
  outcome_at   INTEGER NOT NULL,              -- that of the execution, in all its rows
  execution_id TEXT NOT NULL,
  version      INTEGER NOT NULL,
  at           INTEGER NOT NULL,
  key_id       TEXT NOT NULL,
  what         TEXT NOT NULL,                 -- outcome, evidence, verify, verification_pending
  body         TEXT NOT NULL,
  epoch        INTEGER NOT NULL,              -- of the server secret in the hash
  hash         TEXT NOT NULL,                 -- HMAC(server secret, previous hash, version, at, key, what, body) in hex
  PRIMARY KEY (outcome_at, execution_id, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE workers (
  workspace_id     TEXT NOT NULL,
  worker_id        TEXT NOT NULL,
  key_id           TEXT NOT NULL,
  handlers         TEXT,                      -- JSON list
  last_heartbeat   INTEGER NOT NULL,
  registered_since INTEGER NOT NULL,
  PRIMARY KEY (workspace_id, worker_id)
) STRICT, WITHOUT ROWID;

-- Exact totals, kept in the transactions that change them: 'cues:active', …, 'executions', 'executions:2026-11',
-- 'status:success', 'reported:2026-11', 'succeeded:2026-11', 'failed:2026-11'. 'grace:2026-11' is a moment.
CREATE TABLE counters (
  workspace_id TEXT NOT NULL,
  name         TEXT NOT NULL,
  value        INTEGER NOT NULL,
  PRIMARY KEY (workspace_id, name)
) STRICT, WITHOUT ROWID;
