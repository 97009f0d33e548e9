-- Which live session said first that it works on an execution.

ALTER TABLE executions ADD COLUMN live_token TEXT NOT NULL DEFAULT ''; -- SHA-256 of its token in hex; '' for none
ALTER TABLE executions ADD COLUMN live_claimed_at INTEGER;
