-- When alerts of a cue are raised.

ALTER TABLE cues ADD COLUMN alert_failures INTEGER;  -- so many failures in a row; NULL when never set
ALTER TABLE cues ADD COLUMN alert_misses INTEGER;    -- so many due times in a row that nobody took; NULL when never set
