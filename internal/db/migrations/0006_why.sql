-- What "why" needs: who changed a cue, and when no server ran. The last sign of life is the setting 'scheduler'.

ALTER TABLE cue_versions ADD COLUMN changed_by TEXT NOT NULL DEFAULT ''; -- key id; '' for the server
ALTER TABLE cue_versions ADD COLUMN reason TEXT NOT NULL DEFAULT '';     -- of a pause by the server

CREATE TABLE absences (
  from_at INTEGER PRIMARY KEY,
  to_at   INTEGER NOT NULL
) STRICT;
