package db

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
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
	bound := make([]any, len(args), len(args)+len(st.joined))
	for i, arg := range args {
		if !st.direct[i] {
			continue
		}
		v, err := d.value(arg)
		if err != nil {
			return nil, fmt.Errorf("argument ?%d: %w", i+1, err)
		}
		bound[i] = v
	}
	for _, group := range st.joined {
		rows, err := joinRows(args, group)
		if err != nil {
			return nil, err
		}
		bound = append(bound, rows)
	}
	return bound, nil
}

// joinRows makes one JSON list of rows from lists of one length.
func joinRows(args []any, group []int) (string, error) {
	columns, n := make([]any, len(group)), 0
	for i, at := range group {
		var err error
		if columns[i], err = plainList(reflect.ValueOf(args[at])); err != nil {
			return "", fmt.Errorf("argument ?%d: %w", at+1, err)
		}
		n = reflect.ValueOf(columns[i]).Len()
	}
	b := []byte{'['}
	for row := range n {
		b = append(b, '[')
		for i, c := range columns {
			switch c := c.(type) {
			case []int64:
				b = strconv.AppendInt(b, c[row], 10)
			case []string:
				if err := checkText(c[row]); err != nil {
					return "", fmt.Errorf("argument ?%d: element %d: %w", group[i]+1, row, err)
				}
				b = appendJSON(b, c[row])
			}
			b = append(b, ',')
		}
		b[len(b)-1] = ']'
		b = append(b, ',')
	}
	return string(append(bytes.TrimSuffix(b, []byte{','}), ']')), nil
}

// appendJSON appends a text as JSON.
func appendJSON(b []byte, text string) []byte {
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == '"' || r == '\\' }) {
		quoted, _ := json.Marshal(text) // a string always can be
		return append(b, quoted...)
	}
	return append(append(append(b, '"'), text...), '"')
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
	if v.Type().Elem().Kind() == reflect.Uint8 {
		return d.value(v.Bytes())
	}
	plain, err := plainList(v)
	if err != nil {
		return nil, err
	}
	return d.value(plain)
}

// plainList is a slice of strings or integers of any type as a []string or []int64.
func plainList(v reflect.Value) (any, error) {
	switch s := v.Interface().(type) {
	case []string, []int64:
		return s, nil
	}
	switch v.Type().Elem().Kind() {
	case reflect.String:
		s := make([]string, v.Len())
		for i := range s {
			s[i] = v.Index(i).String()
		}
		return s, nil
	case reflect.Int, reflect.Int64:
		s := make([]int64, v.Len())
		for i := range s {
			s[i] = v.Index(i).Int()
		}
		return s, nil
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
