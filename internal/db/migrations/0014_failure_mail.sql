-- Whether a cue asks for an e-mail when an execution failed for good.

ALTER TABLE cues ADD COLUMN failure_mail INTEGER NOT NULL DEFAULT 0;
