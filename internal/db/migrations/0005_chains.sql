-- What a success fires, and what a fire asks its worker to check.

ALTER TABLE cues ADD COLUMN on_success_fire TEXT NOT NULL DEFAULT '';  -- id of a cue, '' for none

ALTER TABLE executions ADD COLUMN chain_id TEXT NOT NULL DEFAULT '';   -- id of the first execution of the chain, in all of them; '' in none
ALTER TABLE executions ADD COLUMN chain_parent TEXT NOT NULL DEFAULT ''; -- execution whose success fired it
ALTER TABLE executions ADD COLUMN chain_depth INTEGER NOT NULL DEFAULT 0; -- 0 for the first
ALTER TABLE executions ADD COLUMN chained TEXT NOT NULL DEFAULT '';    -- what its success fired: an execution, or why nothing (gone, paused, plan_limit)
ALTER TABLE executions ADD COLUMN exit_criteria TEXT NOT NULL DEFAULT ''; -- JSON list, '' for none
CREATE INDEX executions_chain ON executions (chain_id, created_at, id) WHERE chain_id <> '';

-- Executions that no due time named, for the ledger to show beside.
CREATE INDEX executions_beside ON executions (cue_id, created_at, triggered_by) WHERE triggered_by <> 'scheduled';
