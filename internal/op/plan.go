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
//	format:"url"     url, email or uuid
//	nul:"replace"    U+0000 becomes U+FFFD; without it a NUL is a violation
type Field struct {
	Name     string
	In       Place
	Doc      string
	Required bool
	Default  string
	Enum     []string
	Type     reflect.Type // of the value, without Opt or Clear
	Nullable bool         // null is allowed: it means absent, or clears
}

// List says whether the field takes several values.
func (f Field) List() bool { return f.Type.Kind() == reflect.Slice && !isRaw(f.Type) }

type field struct {
	Field
	index  []int
	fill   filler
	schema schemaFunc
	inner  []*field // of an object
}

type plan struct {
	fields []*field
	body   bool
}

var pathParam = regexp.MustCompile(`\{(\w+)\}`)

// compile reads the type of an input once. It fails for a path parameter that the type lacks and for a type it cannot read.
func compile(t reflect.Type, route string) (*plan, error) {
	method, path, _ := strings.Cut(route, " ")
	inPath := map[string]bool{}
	for _, m := range pathParam.FindAllStringSubmatch(path, -1) {
		inPath[m[1]] = true
	}
	fields, err := compileStruct(t)
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
			f.In, p.body = InBody, true
		}
	}
	for name := range inPath {
		return nil, fmt.Errorf("the route has {%s}, but %v has no such field", name, t)
	}
	return p, nil
}

func compileStruct(t reflect.Type) ([]*field, error) {
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("%v is no struct", t)
	}
	var out []*field
	for _, sf := range reflect.VisibleFields(t) {
		if sf.Anonymous || !sf.IsExported() {
			continue
		}
		f, err := compileField(sf)
		if err != nil {
			return nil, fmt.Errorf("%v.%s: %w", t, sf.Name, err)
		}
		out = append(out, f)
	}
	return out, nil
}

func compileField(sf reflect.StructField) (*field, error) {
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
	t := sf.Type
	if reflect.PointerTo(t).Implements(reflect.TypeFor[optional]()) {
		inner, _, _ := reflect.New(t).Interface().(optional).parts()
		t, f.Required, f.Nullable = inner.Type(), false, true
	}
	f.Type = t
	bounds, err := readBounds(sf.Tag, f.Enum)
	if err != nil {
		return nil, err
	}
	fill, schema, err := valueOf(t, bounds)
	if err != nil {
		return nil, err
	}
	f.fill, f.schema = fill, schema
	if t.Kind() == reflect.Struct {
		if f.inner, err = compileStruct(t); err != nil {
			return nil, err
		}
	}
	if f.Nullable {
		f.fill = fillOptional(fill)
	}
	return f, nil
}

// bounds are the limits that tags put on a value.
type bounds struct {
	min, max   int64
	hasMin     bool
	hasMax     bool
	enum       []string
	re         *regexp.Regexp
	format     string
	replaceNUL bool
}

func readBounds(tag reflect.StructTag, enum []string) (bounds, error) {
	b := bounds{enum: enum, format: tag.Get("format"), replaceNUL: tag.Get("nul") == "replace"}
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
	if _, ok := formats[b.format]; b.format != "" && !ok {
		return b, fmt.Errorf("unknown format %q", b.format)
	}
	return b, nil
}

func isRaw(t reflect.Type) bool {
	return t == reflect.TypeFor[Object]() || t == reflect.TypeFor[Value]()
}
