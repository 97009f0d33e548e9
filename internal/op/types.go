package op

import (
	"encoding/json"
	"reflect"
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
