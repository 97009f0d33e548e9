package op

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// filler puts one parsed value into a Go value and notes what does not fit.
type filler func(v reflect.Value, n *node, bad *faults)

// reader is how values of a type are read and described.
type reader struct {
	fill   filler
	schema schemaFunc
}

// readerOf chooses how values of a type are read and described. Coercions are those of the CueAPI wire contract 1.3, messages
// those of 1.9.
func readerOf(t reflect.Type, b bounds) (reader, error) {
	switch t {
	case reflect.TypeFor[Object]():
		return reader{fillRaw(true, b), plainSchema("object")}, nil
	case reflect.TypeFor[Value]():
		return reader{fillRaw(false, b), plainSchema("")}, nil
	case reflect.TypeFor[Time](), reflect.TypeFor[OffsetTime]():
		return reader{fillTime, stringSchema("date-time", b)}, nil
	}
	switch t.Kind() {
	case reflect.String:
		return reader{fillString(b), stringSchema(b.format, b)}, nil
	case reflect.Bool:
		return reader{fillBool, plainSchema("boolean")}, nil
	case reflect.Int, reflect.Int64:
		return reader{fillInt(b), intSchema(b)}, nil
	case reflect.Slice:
		return listOf(t, b)
	case reflect.Map:
		return mapOf(t, b)
	case reflect.Struct:
		return structOf(t, b)
	}
	return reader{}, fmt.Errorf("inputs cannot have the type %v", t)
}

func fillOptional(inner filler) filler {
	return func(v reflect.Value, n *node, bad *faults) {
		val, set, null := v.Addr().Interface().(optional).parts()
		switch {
		case n.kind != kindNull:
			*set = true
			inner(val, n, bad)
		case null != nil:
			*set, *null = true, true
		}
	}
}

func fillRaw(object bool, b bounds) filler {
	return func(v reflect.Value, n *node, bad *faults) {
		switch {
		case object && n.kind != kindObject:
			bad.note("Input should be a valid dictionary")
		case b.secrets || !bad.refusedIn(n):
			v.SetBytes(slices.Clone(n.raw))
		}
	}
}

func fillString(b bounds) filler {
	return func(v reflect.Value, n *node, bad *faults) {
		if n.kind != kindString {
			if b.format == "url" {
				bad.note("URL input should be a string or URL")
			} else {
				bad.note("Input should be a valid string")
			}
			return
		}
		if !b.secrets && bad.refused(n.str) {
			return
		}
		s, msg := b.checkString(n.str)
		if msg != "" {
			bad.note("%s", msg)
			return
		}
		v.SetString(s)
	}
}

// checkString holds s against the bounds; it answers the string to store, or what does not fit.
func (b bounds) checkString(s string) (stored, fault string) {
	if !utf8.ValidString(s) { // from a path, query or header: bodies are checked as they are parsed
		return "", "Input should be a valid string, unable to parse raw data as a unicode string"
	}
	if strings.IndexByte(s, 0) >= 0 {
		if !b.replaceNUL {
			return "", "String should not contain the NUL character"
		}
		s = strings.ReplaceAll(s, "\x00", "\uFFFD")
	}
	n := int64(utf8.RuneCountInString(s))
	switch {
	case b.hasMin && n < b.min:
		return "", fmt.Sprintf("String should have at least %d character%s", b.min, plural(b.min))
	case b.hasMax && n > b.max:
		return "", fmt.Sprintf("String should have at most %d character%s", b.max, plural(b.max))
	case b.enum != nil && !slices.Contains(b.enum, s):
		return "", "Input should be " + oneOf(b.enum)
	case b.re != nil && !b.re.MatchString(s):
		return "", fmt.Sprintf("String should match pattern '%s'", b.re)
	}
	return checkFormat(b.format, s)
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
	last := len(quoted) - 1
	if last == 0 {
		return quoted[0]
	}
	return strings.Join(quoted[:last], ", ") + " or " + quoted[last]
}

func fillBool(v reflect.Value, n *node, bad *faults) {
	var text string
	switch n.kind {
	case kindBool:
		text = string(n.raw)
	case kindString:
		text = strings.ToLower(n.str)
	case kindNumber:
		if f, err := strconv.ParseFloat(string(n.raw), 64); err == nil {
			text = strconv.FormatFloat(f, 'g', -1, 64)
		}
	default:
		bad.note("Input should be a valid boolean")
		return
	}
	switch text {
	case "true", "1", "yes", "on", "t", "y":
		v.SetBool(true)
	case "false", "0", "no", "off", "f", "n", "-0":
		v.SetBool(false)
	default:
		bad.note("Input should be a valid boolean, unable to interpret input")
	}
}

func fillInt(b bounds) filler {
	return func(v reflect.Value, n *node, bad *faults) {
		i, msg := readInt(n)
		tooLarge := msg == intTooLarge
		switch {
		case msg != "" && !tooLarge:
			bad.note("%s", msg)
		case b.hasMin && i < b.min:
			bad.note("Input should be greater than or equal to %d", b.min)
		case b.hasMax && i > b.max:
			bad.note("Input should be less than or equal to %d", b.max)
		case tooLarge:
			bad.note("%s", msg)
		default:
			v.SetInt(i)
		}
	}
}

const (
	intWrongType  = "Input should be a valid integer"
	intUnreadable = "Input should be a valid integer, unable to parse string as an integer"
	intFraction   = "Input should be a valid integer, got a number with a fractional part"
	intTooLarge   = "Input should be a valid integer, between -9223372036854775808 and 9223372036854775807"
)

// readInt reads an integer from a number without a fraction or from decimal digits in a string. One that does not fit 64 bits is
// intTooLarge with the nearest that does, so that a bound can be named instead.
func readInt(n *node) (int64, string) {
	var text string
	switch n.kind {
	case kindString:
		text = strings.TrimSpace(n.str)
	case kindNumber:
		text = string(n.raw)
	default:
		return 0, intWrongType
	}
	if whole, fraction, ok := strings.Cut(text, "."); ok && fraction != "" && strings.Trim(fraction, "0") == "" {
		text = whole
	}
	i, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err == nil:
		return i, ""
	case errors.Is(err, strconv.ErrRange):
		return i, intTooLarge
	case n.kind == kindString:
		return 0, intUnreadable
	}
	f, err := strconv.ParseFloat(text, 64)
	switch {
	case err != nil || f >= 1<<63:
		return math.MaxInt64, intTooLarge
	case f < -1<<63:
		return math.MinInt64, intTooLarge
	case f != math.Trunc(f):
		return 0, intFraction
	}
	return int64(f), ""
}

func listOf(t reflect.Type, b bounds) (reader, error) {
	inner := b
	inner.hasMin, inner.hasMax = false, false // they bound the number of entries
	of, err := readerOf(t.Elem(), inner)
	if err != nil {
		return reader{}, err
	}
	fill := func(v reflect.Value, n *node, bad *faults) {
		if n.kind != kindArray {
			bad.note("Input should be a valid list")
			return
		}
		switch l := int64(len(n.kids)); {
		case b.hasMin && l < b.min:
			bad.note("List should have at least %d item%s", b.min, plural(b.min))
			return
		case b.hasMax && l > b.max:
			bad.note("List should have at most %d item%s", b.max, plural(b.max))
			return
		}
		out := reflect.MakeSlice(t, len(n.kids), len(n.kids))
		for i, kid := range n.kids {
			bad.enterIndex(i)
			of.fill(out.Index(i), kid, bad)
			bad.leave()
		}
		v.Set(out)
	}
	return reader{fill, listSchema(of.schema, b)}, nil
}

func mapOf(t reflect.Type, b bounds) (reader, error) {
	if t.Key().Kind() != reflect.String {
		return reader{}, fmt.Errorf("inputs cannot have the type %v: its keys are not strings", t)
	}
	of, err := readerOf(t.Elem(), bounds{closed: b.closed, secrets: b.secrets})
	if err != nil {
		return reader{}, err
	}
	fill := func(v reflect.Value, n *node, bad *faults) {
		if n.kind != kindObject {
			bad.note("Input should be a valid dictionary")
			return
		}
		out := reflect.MakeMapWithSize(t, len(n.keys))
		for i, key := range n.keys {
			if strings.IndexByte(key, 0) >= 0 {
				bad.note("Keys should not contain the NUL character")
				continue
			}
			if bad.refused(key) {
				continue
			}
			val := reflect.New(t.Elem()).Elem()
			bad.enter(key)
			of.fill(val, n.kids[i], bad)
			bad.leave()
			out.SetMapIndex(reflect.ValueOf(key).Convert(t.Key()), val)
		}
		v.Set(out)
	}
	return reader{fill, mapSchema(of.schema)}, nil
}

func structOf(t reflect.Type, b bounds) (reader, error) {
	fields, err := compileStruct(t, b.closed)
	if err != nil {
		return reader{}, err
	}
	fill := func(v reflect.Value, n *node, bad *faults) {
		if n.kind != kindObject {
			bad.note(notAnObject)
			return
		}
		for _, f := range fields {
			bad.enter(f.Name)
			f.read(v, n.get(f.Name), bad)
			bad.leave()
		}
		if b.closed {
			extras(fields, n, bad)
		}
	}
	return reader{fill, structSchema(fields, b.closed)}, nil
}

const notAnObject = "Input should be a valid dictionary or object to extract fields from"

// read fills one field from its node, which is nil when the input is absent.
func (f *field) read(v reflect.Value, n *node, bad *faults) {
	switch {
	case n != nil:
		f.fill(v.FieldByIndex(f.index), n, bad)
	case f.Required:
		bad.note("Field required")
	case f.absent != nil:
		f.fill(v.FieldByIndex(f.index), f.absent, bad)
	}
}

// extras notes every member of n that no field declares.
func extras(fields []*field, n *node, bad *faults) {
	for _, key := range n.keys {
		if slices.ContainsFunc(fields, func(f *field) bool { return f.Name == key }) {
			continue
		}
		bad.enter(key)
		bad.note("Extra inputs are not permitted")
		bad.leave()
	}
}
