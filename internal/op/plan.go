package op

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// Place is where an input travels.
type Place string

const (
	InPath   Place = "path"
	InQuery  Place = "query"
	InHeader Place = "header"
	InBody   Place = "body"
)

// Field is one input of an operation, or one member of an object in it, as declared on its Go type by the tags
//
//	json:"name"      its name on the wire
//	header:"X-Name"  it travels in this header
//	doc:"…"          one line for help and reference
//	default:"…"      what an absent one means; makes it optional
//	min:"1" max:"9"  bounds of a number, of a string's length in characters, or of a list's number of entries
//	enum:"a|b"       the words that are allowed
//	re:"^…$"         the pattern that a string matches
//	format:"url"     url, email, uuid, or line: a name, without control characters
//	nul:"replace"    U+0000 becomes U+FFFD; without it a NUL is a violation
//	secrets:"may"    a secret may stand in its texts, because that is its meaning or the operation hides it; without it one is a violation
type Field struct {
	Name     string
	In       Place
	Doc      string
	Required bool
	Default  string
	Enum     []string
	Type     reflect.Type // of the value, without Opt or Clear
	Nullable bool         // null is allowed: it means absent, or clears
	Secrets  bool         // a secret may stand in its texts, though in no name of a map
}

// List says whether the field takes several values.
func (f Field) List() bool { return f.Type.Kind() == reflect.Slice && !isRaw(f.Type) }

// field is a Field with what reads it.
type field struct {
	Field
	reader
	index  []int
	absent *node // what Default says; nil without one
}

// plan is how the input of an operation is read.
type plan struct {
	fields []*field // all inputs, in the order of their declaration
	body   []*field // those that travel in the body
}

var pathParam = regexp.MustCompile(`\{(\w+)\}`)

// compile reads the type of an input once. It fails for a path parameter that the type lacks and for a type it cannot read. A
// closed input refuses unknown fields in its body, at any depth.
func compile(t reflect.Type, route string, closed bool) (*plan, error) {
	method, path, _ := strings.Cut(route, " ")
	inPath := map[string]bool{}
	for _, name := range pathParams(path) {
		inPath[name] = true
	}
	fields, err := compileStruct(t, closed)
	if err != nil {
		return nil, err
	}
	p := &plan{fields: fields}
	for _, f := range fields {
		switch {
		case f.In == InHeader:
		case inPath[f.Name]:
			f.In = InPath
			delete(inPath, f.Name)
		case method == "GET" || method == "DELETE":
			f.In = InQuery
		default:
			f.In = InBody
			p.body = append(p.body, f)
		}
		if f.In != InBody && !fitsText(f.Type) {
			return nil, fmt.Errorf("%v.%s travels in the %s, which cannot carry %v", t, f.Name, f.In, f.Type)
		}
	}
	for name := range inPath {
		return nil, fmt.Errorf("the route has {%s}, but %v has no such field", name, t)
	}
	return p, nil
}

// fitsText says whether values of a type can be written as text: in a path, a query or a header.
func fitsText(t reflect.Type) bool {
	if t.Kind() == reflect.Slice && !isRaw(t) {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int64:
		return true
	}
	return false
}

// pathParams are the names in braces, in their order.
func pathParams(path string) []string {
	var names []string
	for _, m := range pathParam.FindAllStringSubmatch(path, -1) {
		names = append(names, m[1])
	}
	return names
}

func compileStruct(t reflect.Type, closed bool) ([]*field, error) {
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("%v is no struct", t)
	}
	var out []*field
	seen := map[string]bool{}
	for _, sf := range reflect.VisibleFields(t) {
		if sf.Anonymous || !sf.IsExported() || sf.Tag.Get("json") == "-" {
			continue
		}
		f, err := compileField(sf, closed)
		if err != nil {
			return nil, fmt.Errorf("%v.%s: %w", t, sf.Name, err)
		}
		if seen[f.Name] {
			return nil, fmt.Errorf("%v has two fields named %q", t, f.Name)
		}
		seen[f.Name] = true
		out = append(out, f)
	}
	return out, nil
}

func compileField(sf reflect.StructField, closed bool) (*field, error) {
	f := &field{index: sf.Index}
	f.Doc, f.Default, f.Required = sf.Tag.Get("doc"), sf.Tag.Get("default"), true
	f.Name, _, _ = strings.Cut(sf.Tag.Get("json"), ",")
	if h := sf.Tag.Get("header"); h != "" {
		f.Name, f.In = h, InHeader
	}
	if f.Name == "" {
		return nil, fmt.Errorf("a json or header tag is missing")
	}
	if e := sf.Tag.Get("enum"); e != "" {
		f.Enum = strings.Split(e, "|")
	}
	if _, has := sf.Tag.Lookup("default"); has {
		f.Required = false
	}
	f.Type = sf.Type
	if reflect.PointerTo(sf.Type).Implements(reflect.TypeFor[optional]()) {
		inner, _, _ := reflect.New(sf.Type).Interface().(optional).parts()
		f.Type, f.Required, f.Nullable = inner.Type(), false, true
	}
	b, err := readBounds(sf.Tag, f.Type, f.Enum)
	if err != nil {
		return nil, err
	}
	b.closed, f.Secrets = closed, b.secrets
	if f.reader, err = readerOf(f.Type, b); err != nil {
		return nil, err
	}
	if f.Nullable {
		f.fill = fillOptional(f.fill)
	}
	return f, f.readDefault(sf.Type)
}

// readDefault parses the default and holds it against the field's own bounds; t is the field's type as declared.
func (f *field) readDefault(t reflect.Type) error {
	if f.Default == "" {
		return nil
	}
	f.absent = &node{kind: kindString, str: f.Default, raw: Marshal(f.Default)}
	if f.Type.Kind() != reflect.String && !isTime(f.Type) {
		n, err := parse([]byte(f.Default))
		if err != nil {
			return fmt.Errorf("default: %w", err)
		}
		f.absent = n
	}
	var bad faults
	f.fill(reflect.New(t).Elem(), f.absent, &bad)
	if len(bad.list) > 0 {
		return fmt.Errorf("default %s: %s", f.Default, bad.list[0].Message)
	}
	return nil
}

// bounds are the limits that tags put on a value, and whether objects in it are closed.
type bounds struct {
	min, max   int64
	hasMin     bool
	hasMax     bool
	enum       []string
	re         *regexp.Regexp
	format     string
	replaceNUL bool
	closed     bool
	secrets    bool
}

func readBounds(tag reflect.StructTag, t reflect.Type, enum []string) (bounds, error) {
	b := bounds{enum: enum, format: tag.Get("format"), replaceNUL: tag.Get("nul") == "replace", secrets: tag.Get("secrets") == "may"}
	var err error
	if s, ok := tag.Lookup("min"); ok {
		b.hasMin = true
		if b.min, err = strconv.ParseInt(s, 10, 64); err != nil {
			return b, fmt.Errorf("min: %w", err)
		}
	}
	if s, ok := tag.Lookup("max"); ok {
		b.hasMax = true
		if b.max, err = strconv.ParseInt(s, 10, 64); err != nil {
			return b, fmt.Errorf("max: %w", err)
		}
	}
	if s := tag.Get("re"); s != "" {
		if b.re, err = regexp.Compile(s); err != nil {
			return b, fmt.Errorf("re: %w", err)
		}
	}
	if !knownFormat(b.format) {
		return b, fmt.Errorf("unknown format %q", b.format)
	}
	return b, b.fit(t)
}

// fit fails when a bound would have no effect on values of this type.
func (b bounds) fit(t reflect.Type) error {
	list := t.Kind() == reflect.Slice && !isRaw(t)
	text := t.Kind() == reflect.String || list && t.Elem().Kind() == reflect.String
	number := (t.Kind() == reflect.Int || t.Kind() == reflect.Int64) && !isTime(t)
	switch {
	case !text && (b.enum != nil || b.re != nil || b.format != "" || b.replaceNUL):
		return fmt.Errorf("enum, re, format and nul are for strings and lists of them, not for %v", t)
	case !text && !list && !number && (b.hasMin || b.hasMax):
		return fmt.Errorf("min and max are for numbers, strings and lists, not for %v", t)
	}
	return nil
}

func isRaw(t reflect.Type) bool {
	return t == reflect.TypeFor[Object]() || t == reflect.TypeFor[Value]()
}

func isTime(t reflect.Type) bool {
	return t == reflect.TypeFor[Time]() || t == reflect.TypeFor[OffsetTime]()
}
