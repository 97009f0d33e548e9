-- Of keys that end soon: what was said about it.

CREATE TABLE key_ends (
  key_id     TEXT NOT NULL,
  old_secret INTEGER NOT NULL,  -- 1: it is the old secret of the key that ends
  ends_at    INTEGER NOT NULL,
  step       INTEGER NOT NULL,  -- the last step that was dealt with, in microseconds before the end; 0 for none
  PRIMARY KEY (key_id, old_secret)
) STRICT;
