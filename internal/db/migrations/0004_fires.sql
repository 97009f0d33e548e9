-- What a fire by hand must bring, and how its repetition is known.

ALTER TABLE cues ADD COLUMN needs_override INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cues ADD COLUMN needed_keys TEXT NOT NULL DEFAULT '';     -- JSON list of names, '' for none

ALTER TABLE executions ADD COLUMN fire_key TEXT NOT NULL DEFAULT '';  -- idempotency_key of the fire, '' for none
ALTER TABLE executions ADD COLUMN fire_body TEXT NOT NULL DEFAULT ''; -- and the SHA-256 of what it said, in hex
CREATE UNIQUE INDEX executions_fire_key ON executions (cue_id, fire_key) WHERE fire_key <> '';
