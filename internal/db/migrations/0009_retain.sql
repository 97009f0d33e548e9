-- What retention removed of a cue: how many executions, sealed under the server secret, so that it can be told from rows that
-- somebody took out. In the ledger their due times are rows `fired` with the reason 'retention'.
CREATE TABLE removals (
  cue_id       TEXT PRIMARY KEY,
  workspace_id TEXT NOT NULL,
  due          INTEGER NOT NULL, -- executions that a due time named
  beside       INTEGER NOT NULL, -- those by hand, by a chain, by a replay
  at           INTEGER NOT NULL, -- of the last removal
  head         TEXT NOT NULL,    -- over the ids and evidence of all that was removed, in its order; hex
  epoch        INTEGER NOT NULL, -- of the server secret in the hash
  hash         TEXT NOT NULL     -- HMAC(server secret, all of it) in hex; '' when the row was found changed
) STRICT, WITHOUT ROWID;
