package op

import (
	"go/token"
	"reflect"
	"slices"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"
)

// schemaFunc describes the values that a filler accepts. Every call makes a new schema, which its caller may change.
type schemaFunc func() *jsonschema.Schema

func plainSchema(t string) schemaFunc {
	return func() *jsonschema.Schema { return &jsonschema.Schema{Type: t} }
}

func stringSchema(format string, b bounds) schemaFunc {
	return func() *jsonschema.Schema {
		s := &jsonschema.Schema{Type: "string", Format: format}
		switch format {
		case "url":
			s.Format = "uri"
		case formatLine:
			s.Format, s.Pattern = "", linePattern
		}
		if b.hasMin {
			s.MinLength = ptr(int(b.min))
		}
		if b.hasMax {
			s.MaxLength = ptr(int(b.max))
		}
		for _, e := range b.enum {
			s.Enum = append(s.Enum, e)
		}
		if b.re != nil {
			s.Pattern = b.re.String()
		}
		return s
	}
}

func intSchema(b bounds) schemaFunc {
	return func() *jsonschema.Schema {
		s := &jsonschema.Schema{Type: "integer"}
		if b.hasMin {
			s.Minimum = ptr(float64(b.min))
		}
		if b.hasMax {
			s.Maximum = ptr(float64(b.max))
		}
		return s
	}
}

func listSchema(item schemaFunc, b bounds) schemaFunc {
	return func() *jsonschema.Schema {
		s := &jsonschema.Schema{Type: "array", Items: item()}
		if b.hasMin {
			s.MinItems = ptr(int(b.min))
		}
		if b.hasMax {
			s.MaxItems = ptr(int(b.max))
		}
		return s
	}
}

func mapSchema(value schemaFunc) schemaFunc {
	return func() *jsonschema.Schema {
		return &jsonschema.Schema{Type: "object", AdditionalProperties: value()}
	}
}

func structSchema(fields []*field, closed bool) schemaFunc {
	return func() *jsonschema.Schema { return objectSchema(fields, closed) }
}

func objectSchema(fields []*field, closed bool) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "object", Properties: map[string]*jsonschema.Schema{}}
	for _, f := range fields {
		s.Properties[f.Name] = f.describe()
		s.PropertyOrder = append(s.PropertyOrder, f.Name)
		if f.Required {
			s.Required = append(s.Required, f.Name)
		}
	}
	if closed {
		s.AdditionalProperties = never()
	}
	return s
}

func (f *field) describe() *jsonschema.Schema {
	s := f.schema()
	s.Description = f.Doc
	if f.absent != nil {
		s.Default = slices.Clone(f.absent.raw)
	}
	if f.Nullable {
		nullable(s)
	}
	return s
}

// nullable lets a schema accept null too.
func nullable(s *jsonschema.Schema) {
	if s.Type != "" {
		s.Types, s.Type = []string{s.Type, "null"}, ""
	}
	if s.Enum != nil {
		s.Enum = append(s.Enum, nil)
	}
}

// BodySchema describes the body of a request; nil when the operation takes none.
func (o *Operation) BodySchema() *jsonschema.Schema {
	if !o.HasBody() {
		return nil
	}
	return objectSchema(o.plan().body, !o.Open)
}

// never is the schema that accepts nothing.
func never() *jsonschema.Schema { return &jsonschema.Schema{Not: &jsonschema.Schema{}} }

// FieldSchema describes one input that does not travel in the body.
func (o *Operation) FieldSchema(name string) *jsonschema.Schema {
	for _, f := range o.plan().fields {
		if f.Name == name {
			s := f.describe()
			if s.Types != nil { // a query or header cannot say null
				s.Type, s.Types = s.Types[0], nil
			}
			if l := len(s.Enum); l > 0 && s.Enum[l-1] == nil {
				s.Enum = s.Enum[:l-1]
			}
			return s
		}
	}
	return nil
}

// OutSchema describes the body of a successful answer, or the data of one event of a stream; nil when there is none. Objects of
// exported types have their name as title.
func (o *Operation) OutSchema() *jsonschema.Schema {
	if s, ok := reflect.Zero(o.Out).Interface().(streamed); ok {
		return outSchema(s.event())
	}
	if o.Out == reflect.TypeFor[None]() {
		return nil
	}
	return outSchema(o.Out)
}

// Enumerated is a string type of an answer that has a fixed set of words.
type Enumerated interface{ Words() []string }

// outSchema walks the type of an answer. Pointers may be null; a field whose tag says omitempty or omitzero may be absent.
func outSchema(t reflect.Type) *jsonschema.Schema {
	if t.Kind() == reflect.Pointer {
		s := outSchema(t.Elem())
		nullable(s)
		return s
	}
	if e, ok := reflect.Zero(t).Interface().(Enumerated); ok {
		s := &jsonschema.Schema{Type: "string"}
		for _, w := range e.Words() {
			s.Enum = append(s.Enum, w)
		}
		return s
	}
	switch t {
	case reflect.TypeFor[Object]():
		return &jsonschema.Schema{Types: []string{"object", "null"}}
	case reflect.TypeFor[Value]():
		return &jsonschema.Schema{}
	case reflect.TypeFor[Time](), reflect.TypeFor[OffsetTime]():
		return &jsonschema.Schema{Type: "string", Format: "date-time"}
	}
	switch t.Kind() {
	case reflect.String:
		return &jsonschema.Schema{Type: "string"}
	case reflect.Bool:
		return &jsonschema.Schema{Type: "boolean"}
	case reflect.Slice:
		return &jsonschema.Schema{Types: []string{"array", "null"}, Items: outSchema(t.Elem())}
	case reflect.Map:
		return &jsonschema.Schema{Types: []string{"object", "null"}, AdditionalProperties: outSchema(t.Elem())}
	case reflect.Struct:
		return outStruct(t)
	case reflect.Float64:
		return &jsonschema.Schema{Type: "number"}
	case reflect.Interface:
		return &jsonschema.Schema{}
	}
	return &jsonschema.Schema{Type: "integer"}
}

func outStruct(t reflect.Type) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "object", Properties: map[string]*jsonschema.Schema{}}
	if token.IsExported(t.Name()) {
		s.Title = t.Name()
	}
	for _, sf := range reflect.VisibleFields(t) {
		if sf.Anonymous || !sf.IsExported() {
			continue
		}
		name, flags, _ := strings.Cut(sf.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		p := outSchema(sf.Type)
		p.Description = sf.Tag.Get("doc")
		s.Properties[name] = p
		s.PropertyOrder = append(s.PropertyOrder, name)
		if !strings.Contains(flags, "omit") {
			s.Required = append(s.Required, name)
		}
	}
	return s
}

func ptr[T any](v T) *T { return &v }
