package op

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// filler puts one parsed value into a Go value and notes what does not fit. `at` is the dotted place of the value.
type filler func(v reflect.Value, n *node, at string, bad *[]Violation)

func note(bad *[]Violation, at, format string, args ...any) {
	*bad = append(*bad, Violation{at, fmt.Sprintf(format, args...)})
}

// valueOf chooses how values of a type are read and described. Coercions are those of the CueAPI wire contract 1.3, messages
// those of 1.9.
func valueOf(t reflect.Type, b bounds) (filler, schemaFunc, error) {
	switch t {
	case reflect.TypeFor[Object]():
		return fillRaw(true), rawSchema("object"), nil
	case reflect.TypeFor[Value]():
		return fillRaw(false), rawSchema(""), nil
	case reflect.TypeFor[Time](), reflect.TypeFor[OffsetTime]():
		return fillTime, stringSchema("date-time", b), nil
	}
	switch t.Kind() {
	case reflect.String:
		return fillString(b), stringSchema(b.format, b), nil
	case reflect.Bool:
		return fillBool, plainSchema("boolean"), nil
	case reflect.Int, reflect.Int64:
		return fillInt(b), intSchema(b), nil
	case reflect.Slice:
		return listOf(t, b)
	case reflect.Map:
		return mapOf(t)
	case reflect.Struct:
		return structOf(t)
	}
	return nil, nil, fmt.Errorf("inputs cannot have the type %v", t)
}

func fillOptional(inner filler) filler {
	return func(v reflect.Value, n *node, at string, bad *[]Violation) {
		val, set, null := v.Addr().Interface().(optional).parts()
		if n.kind == kindNull {
			if null != nil {
				*set, *null = true, true
			}
			return
		}
		*set = true
		inner(val, n, at, bad)
	}
}

func fillRaw(object bool) filler {
	return func(v reflect.Value, n *node, at string, bad *[]Violation) {
		if object && n.kind != kindObject {
			note(bad, at, "Input should be a valid dictionary")
			return
		}
		v.SetBytes(slices.Clone(n.raw))
	}
}

func fillString(b bounds) filler {
	return func(v reflect.Value, n *node, at string, bad *[]Violation) {
		if n.kind != kindString {
			if b.format == "url" {
				note(bad, at, "URL input should be a string or URL")
			} else {
				note(bad, at, "Input should be a valid string")
			}
			return
		}
		s := n.str
		if strings.IndexByte(s, 0) >= 0 {
			if !b.replaceNUL {
				note(bad, at, "String should not contain the NUL character")
				return
			}
			s = strings.ReplaceAll(s, "\x00", "\uFFFD")
		}
		if msg := b.checkString(&s); msg != "" {
			note(bad, at, "%s", msg)
			return
		}
		v.SetString(s)
	}
}

// checkString holds s against the bounds and may normalise it; "" means that it fits.
func (b bounds) checkString(s *string) string {
	n := int64(utf8.RuneCountInString(*s))
	switch {
	case b.hasMin && n < b.min:
		return fmt.Sprintf("String should have at least %d character%s", b.min, plural(b.min))
	case b.hasMax && n > b.max:
		return fmt.Sprintf("String should have at most %d character%s", b.max, plural(b.max))
	case b.enum != nil && !slices.Contains(b.enum, *s):
		return "Input should be " + oneOf(b.enum)
	case b.re != nil && !b.re.MatchString(*s):
		return fmt.Sprintf("String should match pattern '%s'", b.re)
	case b.format != "":
		return formats[b.format](s)
	}
	return ""
}

func plural(n int64) string {
	if n == 1 {
		return ""
	}
	return "s"
}

func oneOf(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = "'" + w + "'"
	}
	if len(quoted) == 1 {
		return quoted[0]
	}
	last := len(quoted) - 1
	return strings.Join(quoted[:last], ", ") + " or " + quoted[last]
}

func fillBool(v reflect.Value, n *node, at string, bad *[]Violation) {
	text := n.str
	switch n.kind {
	case kindBool, kindNumber:
		text = string(n.raw)
	case kindString:
	default:
		note(bad, at, "Input should be a valid boolean")
		return
	}
	switch strings.ToLower(text) {
	case "true", "1", "yes", "on", "t", "y", "1.0":
		v.SetBool(true)
	case "false", "0", "no", "off", "f", "n", "0.0":
		v.SetBool(false)
	default:
		note(bad, at, "Input should be a valid boolean, unable to interpret input")
	}
}

func fillInt(b bounds) filler {
	return func(v reflect.Value, n *node, at string, bad *[]Violation) {
		i, msg := readInt(n)
		switch {
		case msg != "":
			note(bad, at, "%s", msg)
		case b.hasMin && i < b.min:
			note(bad, at, "Input should be greater than or equal to %d", b.min)
		case b.hasMax && i > b.max:
			note(bad, at, "Input should be less than or equal to %d", b.max)
		default:
			v.SetInt(i)
		}
	}
}

func readInt(n *node) (int64, string) {
	text := string(n.raw)
	switch n.kind {
	case kindString:
		text = strings.TrimSpace(n.str)
	case kindNumber:
	default:
		return 0, "Input should be a valid integer"
	}
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return i, ""
	}
	f, err := strconv.ParseFloat(text, 64)
	switch {
	case n.kind == kindString && (err != nil || !strings.HasSuffix(strings.TrimRight(text, "0"), ".")):
		return 0, "Input should be a valid integer, unable to parse string as an integer"
	case f != float64(int64(f)):
		return 0, "Input should be a valid integer, got a number with a fractional part"
	case f >= 1<<63 || f < -1<<63:
		return 0, "Input should be a valid integer, it is too large"
	}
	return int64(f), ""
}

// fillTime reads RFC 3339, the same without zone (UTC), a date, or Unix seconds or, when large, milliseconds.
func fillTime(v reflect.Value, n *node, at string, bad *[]Violation) {
	text := n.str
	switch n.kind {
	case kindString:
	case kindNumber:
		text = string(n.raw)
	default:
		note(bad, at, "Input should be a valid datetime")
		return
	}
	t, err := readTime(strings.TrimSpace(text))
	if err != nil {
		note(bad, at, "Input should be a valid datetime or date, %v", err)
		return
	}
	v.SetInt(int64(t))
}

const msFrom = 2e10 // Unix numbers from here on are milliseconds, as the original reads them

// Bounds of every moment: years 1 to 9999.
var firstTime, lastTime = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

func readTime(s string) (Time, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		if f > msFrom || f < -msFrom {
			f /= 1000
		}
		if f != f || f > float64(lastTime.Unix()) || f < float64(firstTime.Unix()) {
			return 0, fmt.Errorf("dates after 9999 are not supported as unix timestamps")
		}
		return Time(f * 1e6), nil
	}
	if len(s) < 10 {
		return 0, fmt.Errorf("input is too short")
	}
	s = strings.ToUpper(s[:10]) + strings.Replace(strings.ToUpper(s[10:]), " ", "T", 1)
	for _, layout := range [...]string{"2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			if t.Before(firstTime) || t.After(lastTime) {
				return 0, fmt.Errorf("year is outside expected range of 1-9999")
			}
			return TimeOf(t), nil
		}
	}
	if m, err := strconv.Atoi(s[5:7]); err == nil && (m < 1 || m > 12) {
		return 0, fmt.Errorf("month value is outside expected range of 1-12")
	}
	return 0, fmt.Errorf("write it like 2026-11-22T09:05:00Z")
}

func listOf(t reflect.Type, b bounds) (filler, schemaFunc, error) {
	inner := bounds{enum: b.enum, re: b.re, format: b.format, replaceNUL: b.replaceNUL}
	fill, schema, err := valueOf(t.Elem(), inner)
	if err != nil {
		return nil, nil, err
	}
	return func(v reflect.Value, n *node, at string, bad *[]Violation) {
		if n.kind != kindArray {
			note(bad, at, "Input should be a valid list")
			return
		}
		switch l := int64(len(n.kids)); {
		case b.hasMin && l < b.min:
			note(bad, at, "List should have at least %d item%s", b.min, plural(b.min))
			return
		case b.hasMax && l > b.max:
			note(bad, at, "List should have at most %d item%s", b.max, plural(b.max))
			return
		}
		out := reflect.MakeSlice(t, len(n.kids), len(n.kids))
		for i, kid := range n.kids {
			fill(out.Index(i), kid, at+"."+strconv.Itoa(i), bad)
		}
		v.Set(out)
	}, listSchema(schema, b), nil
}

func mapOf(t reflect.Type) (filler, schemaFunc, error) {
	fill, schema, err := valueOf(t.Elem(), bounds{})
	if err != nil || t.Key().Kind() != reflect.String {
		return nil, nil, fmt.Errorf("inputs cannot have the type %v: %w", t, err)
	}
	return func(v reflect.Value, n *node, at string, bad *[]Violation) {
		if n.kind != kindObject {
			note(bad, at, "Input should be a valid dictionary")
			return
		}
		out := reflect.MakeMapWithSize(t, len(n.keys))
		for i, key := range n.keys {
			val := reflect.New(t.Elem()).Elem()
			if strings.IndexByte(key, 0) >= 0 {
				note(bad, at, "Keys should not contain the NUL character")
				continue
			}
			fill(val, n.kids[i], at+"."+key, bad)
			out.SetMapIndex(reflect.ValueOf(key), val)
		}
		v.Set(out)
	}, mapSchema(schema), nil
}

func structOf(t reflect.Type) (filler, schemaFunc, error) {
	fields, err := compileStruct(t)
	if err != nil {
		return nil, nil, err
	}
	return func(v reflect.Value, n *node, at string, bad *[]Violation) {
		if n.kind != kindObject {
			note(bad, at, "Input should be a valid dictionary or object to extract fields from")
			return
		}
		fillFields(v, fields, n, at, bad)
	}, structSchema(fields), nil
}

// fillFields reads the members of one object in the order in which they are declared.
func fillFields(v reflect.Value, fields []*field, n *node, at string, bad *[]Violation) {
	for _, f := range fields {
		f.read(v, n.get(f.Name), at+"."+f.Name, bad)
	}
}

// read fills one field from its node, which is nil when the input is absent.
func (f *field) read(v reflect.Value, n *node, at string, bad *[]Violation) {
	switch {
	case n != nil:
		f.fill(v.FieldByIndex(f.index), n, at, bad)
	case f.Required:
		note(bad, at, "Field required")
	case f.Default != "":
		f.fill(v.FieldByIndex(f.index), defaultNode(f.Type, f.Default), at, bad)
	}
}

func defaultNode(t reflect.Type, text string) *node {
	if isRaw(t) || t.Kind() == reflect.Slice {
		if n, err := parse([]byte(text)); err == nil {
			return n
		}
	}
	return &node{kind: kindString, str: text}
}

// closed notes every member of n, at any depth, that no field declares.
func closed(fields []*field, n *node, at string, bad *[]Violation) {
	for i, key := range n.keys {
		at := at + "." + key
		j := slices.IndexFunc(fields, func(f *field) bool { return f.Name == key })
		if j < 0 {
			note(bad, at, "Extra inputs are not permitted")
			continue
		}
		if inner := fields[j].inner; inner != nil {
			closed(inner, n.kids[i], at, bad)
		}
	}
}
