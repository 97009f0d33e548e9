package op

import (
	"encoding/json"
	"reflect"
	"time"
)

// Opt is an input that may be absent; null counts as absent.
type Opt[T any] struct {
	Val T
	Set bool
}

// Or is the value, or def when it is absent.
func (o Opt[T]) Or(def T) T {
	if o.Set {
		return o.Val
	}
	return def
}

// Some is a present Opt.
func Some[T any](v T) Opt[T] { return Opt[T]{v, true} }

// Clear is an input that may be absent and that null clears: Set without Null is a new value, Set with Null empties.
type Clear[T any] struct {
	Val  T
	Set  bool
	Null bool
}

// optional is what the decoder sees of Opt and Clear: pointers to the value, to the mark that it is set and to the mark of null.
type optional interface {
	parts() (val reflect.Value, set, null *bool)
}

func (o *Opt[T]) parts() (reflect.Value, *bool, *bool) {
	return reflect.ValueOf(&o.Val).Elem(), &o.Set, nil
}

func (c *Clear[T]) parts() (reflect.Value, *bool, *bool) {
	return reflect.ValueOf(&c.Val).Elem(), &c.Set, &c.Null
}

// Object is a JSON object kept as it was sent, without insignificant white space: the text of every number survives.
type Object = json.RawMessage

// Value is any JSON value kept as it was sent. It is a type of its own so that an input can say which of the two it takes.
type Value json.RawMessage

func (v Value) MarshalJSON() ([]byte, error) { return json.RawMessage(v).MarshalJSON() }

// Time is a moment in microseconds since 1970 UTC. As JSON it is RFC 3339 with Z and six fractional digits, or none when the
// microseconds are zero (CueAPI wire contract 1.6, "Z form").
type Time int64

// OffsetTime is Time written with +00:00 instead of Z ("offset form").
type OffsetTime int64

// TimeOf is t in microseconds.
func TimeOf(t time.Time) Time { return Time(t.UnixMicro()) }

// Std is the moment as a time.Time in UTC.
func (t Time) Std() time.Time { return time.UnixMicro(int64(t)).UTC() }

func (t Time) String() string { return t.format("Z") }

func (t Time) format(zone string) string {
	s := t.Std()
	if s.Nanosecond() == 0 {
		return s.Format("2006-01-02T15:04:05") + zone
	}
	return s.Format("2006-01-02T15:04:05.000000") + zone
}

func (t Time) MarshalJSON() ([]byte, error)       { return []byte(`"` + t.format("Z") + `"`), nil }
func (t OffsetTime) MarshalJSON() ([]byte, error) { return []byte(`"` + t.String() + `"`), nil }
func (t OffsetTime) String() string               { return Time(t).format("+00:00") }

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
