package op

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Time is a moment in microseconds since 1970 UTC. As JSON it is RFC 3339 with Z and six fractional digits, or none when the
// microseconds are zero (CueAPI wire contract 1.6, "Z form").
type Time int64

// OffsetTime is Time written with +00:00 instead of Z ("offset form").
type OffsetTime int64

// TimeOf is t in microseconds.
func TimeOf(t time.Time) Time { return Time(t.UnixMicro()) }

// Std is the moment as a time.Time in UTC.
func (t Time) Std() time.Time { return time.UnixMicro(int64(t)).UTC() }

func (t Time) String() string       { return string(t.appendTo(nil, "Z")) }
func (t OffsetTime) String() string { return string(Time(t).appendTo(nil, "+00:00")) }

func (t Time) MarshalJSON() ([]byte, error)       { return t.quoted("Z"), nil }
func (t OffsetTime) MarshalJSON() ([]byte, error) { return Time(t).quoted("+00:00"), nil }

func (t Time) quoted(zone string) []byte {
	b := make([]byte, 0, len(`"2026-11-22T09:05:58.283098+00:00"`))
	return append(t.appendTo(append(b, '"'), zone), '"')
}

func (t Time) appendTo(b []byte, zone string) []byte {
	s, layout := t.Std(), "2006-01-02T15:04:05.000000"
	if s.Nanosecond() == 0 {
		layout = "2006-01-02T15:04:05"
	}
	return append(s.AppendFormat(b, layout), zone...)
}

// UnmarshalJSON reads either form, for clients written in Go.
func (t *Time) UnmarshalJSON(b []byte) error {
	var s time.Time
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	*t = TimeOf(s)
	return nil
}

// UnmarshalJSON reads either form, for clients written in Go.
func (t *OffsetTime) UnmarshalJSON(b []byte) error { return (*Time)(t).UnmarshalJSON(b) }

func fillTime(v reflect.Value, n *node, bad *faults) {
	var text string
	switch n.kind {
	case kindString:
		text = n.str
	case kindNumber:
		text = string(n.raw)
	default:
		bad.note("Input should be a valid datetime")
		return
	}
	t, err := readTime(strings.TrimSpace(text))
	if err != nil {
		bad.note("Input should be a valid datetime or date, %v", err)
		return
	}
	v.SetInt(int64(t))
}

// Moments lie in the years 1 to 9999. In seconds since 1970, and beyond the last by one:
const (
	firstSecond = -62135596800
	endSecond   = 253402300800
)

// msFrom is where Unix numbers begin to mean milliseconds, as the original reads them.
const msFrom = 2e10

var (
	errTimeShort = errors.New("input is too short")
	errTimeForm  = errors.New("write it like 2026-11-22T09:05:00Z")
	errTimeMonth = errors.New("month value is outside expected range of 1-12")
	errTimeRange = errors.New("the year is outside expected range of 1-9999")
)

// readTime reads RFC 3339, the same without zone (UTC) or seconds, a date, or Unix seconds or, when large, milliseconds (CueAPI
// wire contract 1.3 and 1.6).
func readTime(s string) (Time, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		return unixTime(f)
	}
	if len(s) < len("2006-01-02") {
		return 0, errTimeShort
	}
	s = s[:10] + strings.Replace(strings.ToUpper(s[10:]), " ", "T", 1)
	for _, layout := range [...]string{"2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", time.DateOnly} {
		t, err := time.Parse(layout, s)
		switch {
		case err != nil:
		case t.Unix() < firstSecond || t.Unix() >= endSecond:
			return 0, errTimeRange
		default:
			return TimeOf(t), nil
		}
	}
	if m, err := strconv.Atoi(s[5:7]); err == nil && (m < 1 || m > 12) {
		return 0, errTimeMonth
	}
	return 0, errTimeForm
}

// unixTime is the moment of Unix seconds or milliseconds, to the nearest microsecond.
func unixTime(f float64) (Time, error) {
	if math.Abs(f) > msFrom {
		f /= 1000
	}
	if !(f >= firstSecond && f < endSecond) { // also when it is no number
		return 0, errTimeRange
	}
	return Time(math.Round(f * 1e6)), nil
}
