package access

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"unstuck/internal/op"
)

// lifetime reads how long a key shall live: never, 30d, 90d, 1y, any duration, or a moment. The answer is the end in microseconds;
// 0 for never.
func lifetime(in op.Opt[string], at op.Opt[op.Time], def string, now int64) (int64, error) {
	switch {
	case in.Set && at.Set:
		return 0, op.Invalid("body.expires_at", "Send expires_in or expires_at, not both")
	case at.Set:
		if int64(at.Val) <= now {
			return 0, op.Invalid("body.expires_at", "That moment is past")
		}
		if int64(at.Val)-now > maxLifetime {
			return 0, op.Invalid("body.expires_at", "That is more than 100 years away; for a key without an end send expires_in: never")
		}
		return int64(at.Val), nil
	}
	text := in.Or(def)
	if text == "never" {
		return 0, nil
	}
	d, err := parseSpan(text)
	if err != nil || d <= 0 || d > maxLifetime {
		return 0, op.Invalid("body.expires_in", "Write never, 30d, 90d, 1y or a duration such as 12h; at most 100 years")
	}
	return now + d, nil
}

var errSpan = errors.New("write a duration such as 12h or 30d")

// parseSpan reads a duration in microseconds: Go's form, or a whole number of days (d), weeks (w) or years (y) of 365 days.
func parseSpan(s string) (int64, error) {
	for _, unit := range [...]struct {
		letter string
		us     int64
	}{{"d", dayUS}, {"w", 7 * dayUS}, {"y", yearUS}} {
		digits, ok := strings.CutSuffix(s, unit.letter)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n < 0 || n > maxLifetime/unit.us {
			return 0, errSpan
		}
		return n * unit.us, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, errSpan
	}
	return d.Microseconds(), nil
}

// endField is the field of an input that asked for an end.
func endField(at op.Opt[op.Time]) string {
	if at.Set {
		return "body.expires_at"
	}
	return "body.expires_in"
}

// notAfter refuses an end that was asked for and is later than that of the keys above; above is 0 when they never end.
func notAfter(end, above int64, at op.Opt[op.Time]) error {
	if later(end, above) {
		return op.Invalid(endField(at), "The key above it ends at %s, and a child cannot live longer", op.Time(above))
	}
	return nil
}

// later says whether an end comes after another; 0 is never.
func later(end, than int64) bool { return than != 0 && (end == 0 || end > than) }
