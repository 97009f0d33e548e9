package db

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ncruces/go-sqlite3"
)

// bind turns arguments into what both drivers store alike (see [Tx.Exec] for the types). It refuses a wrong number of
// arguments, types that no column has, and text that one of the databases would refuse.
func (st *statement) bind(d dialect, args []any) ([]any, error) {
	if len(args) != st.params {
		return nil, fmt.Errorf("%d arguments for %d parameters", len(args), st.params)
	}
	if err := st.sameLength(args); err != nil {
		return nil, err
	}
	bound := make([]any, len(args))
	for i, arg := range args {
		to := d
		if st.inRows(i) {
			to = postgres // lists as they are; see rowset
		}
		v, err := to.value(arg)
		if err != nil {
			return nil, fmt.Errorf("argument ?%d: %w", i+1, err)
		}
		bound[i] = v
	}
	if d == sqlite {
		st.gather(bound)
	}
	return bound[:st.bound], nil
}

func (st *statement) inRows(arg int) bool {
	return slices.ContainsFunc(st.groups, func(group []int) bool { return slices.Contains(group, arg) })
}

// gather makes one rowset of the lists of each @rows; it stands in the place of the first.
func (st *statement) gather(bound []any) {
	for _, group := range st.groups {
		r := &rowset{}
		for _, n := range group {
			r.lists = append(r.lists, bound[n])
			bound[n] = nil
		}
		switch first := r.lists[0].(type) {
		case []string:
			r.n = len(first)
		case []int64:
			r.n = len(first)
		}
		bound[group[0]] = sqlite3.Pointer(r)
	}
}

// sameLength checks the lists of every @rows.
func (st *statement) sameLength(args []any) error {
	for _, group := range st.groups {
		for _, n := range group {
			v, first := reflect.ValueOf(args[n]), reflect.ValueOf(args[group[0]])
			if v.Kind() != reflect.Slice || first.Kind() != reflect.Slice || v.Len() != first.Len() {
				return fmt.Errorf("arguments ?%d and ?%d of @rows must be lists of one length", group[0]+1, n+1)
			}
		}
	}
	return nil
}

// value converts one argument to nil, int64, string, []byte or a list.
func (d dialect) value(arg any) (any, error) {
	switch v := arg.(type) {
	case nil:
		return nil, nil
	case int64:
		return v, nil
	case int:
		return int64(v), nil
	case bool:
		return truth(v), nil
	case string:
		return v, checkText(v)
	case []byte:
		if v == nil {
			return nil, nil
		}
		return v, nil
	case []string:
		return list(d, v, checkText)
	case []int64:
		return list(d, v, func(int64) error { return nil })
	}
	return d.reflected(reflect.ValueOf(arg))
}

// reflected converts what has a type of its own: named types, other integers, pointers and slices of them.
func (d dialect) reflected(v reflect.Value) (any, error) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil, nil
		}
		return d.value(v.Elem().Interface())
	case reflect.String:
		return v.String(), checkText(v.String())
	case reflect.Bool:
		return truth(v.Bool()), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int(), nil
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return int64(v.Uint()), nil
	case reflect.Slice:
		return d.reflectedSlice(v)
	}
	return nil, fmt.Errorf("a %s cannot be stored", v.Type())
}

func (d dialect) reflectedSlice(v reflect.Value) (any, error) {
	switch v.Type().Elem().Kind() {
	case reflect.Uint8:
		return d.value(v.Bytes())
	case reflect.String:
		s := make([]string, v.Len())
		for i := range s {
			s[i] = v.Index(i).String()
		}
		return d.value(s)
	case reflect.Int, reflect.Int64:
		s := make([]int64, v.Len())
		for i := range s {
			s[i] = v.Index(i).Int()
		}
		return d.value(s)
	}
	return nil, fmt.Errorf("a %s cannot be stored", v.Type())
}

// list passes a slice as an array to PostgreSQL and as JSON to SQLite. A nil slice is an empty list.
func list[T string | int64](d dialect, v []T, check func(T) error) (any, error) {
	for i, e := range v {
		if err := check(e); err != nil {
			return nil, fmt.Errorf("element %d: %w", i, err)
		}
	}
	if v == nil {
		v = []T{}
	}
	if d == postgres {
		return v, nil
	}
	text, err := json.Marshal(v)
	return string(text), err
}

func truth(v bool) int64 {
	if v {
		return 1
	}
	return 0
}

// checkText refuses what PostgreSQL cannot store, on both databases. Doors refuse it earlier and in better words.
func checkText(s string) error {
	if strings.IndexByte(s, 0) >= 0 {
		return ErrText
	}
	if !utf8.ValidString(s) {
		return ErrText
	}
	return nil
}
