package rest

import (
	"github.com/google/jsonschema-go/jsonschema"

	"unstuck/internal/op"
)

// share puts objects whose schema has a title among the components and answers a schema that refers to them.
func (w *writer) share(s *jsonschema.Schema) *jsonschema.Schema {
	for _, name := range s.PropertyOrder {
		s.Properties[name] = w.share(s.Properties[name])
	}
	if s.Items != nil {
		s.Items = w.share(s.Items)
	}
	if s.AdditionalProperties != nil {
		s.AdditionalProperties = w.share(s.AdditionalProperties)
	}
	if s.Title == "" {
		return s
	}
	named, nullable := *s, s.Type == ""
	named.Title, named.Description, named.Type, named.Types = "", "", "object", nil
	if !w.keep(s.Title, &named) {
		return s
	}
	ref := &jsonschema.Schema{Ref: "#/components/schemas/" + s.Title}
	if nullable {
		ref = &jsonschema.Schema{AnyOf: []*jsonschema.Schema{ref, {Type: "null"}}}
	}
	ref.Description = s.Description
	return ref
}

// keep puts a schema among the components. It answers false when another one has the name.
func (w *writer) keep(name string, s *jsonschema.Schema) bool {
	text := string(op.Marshal(s))
	if w.written[name] == "" {
		w.written[name] = text
		w.schemas = append(w.schemas, member{name, s})
	}
	return w.written[name] == text
}

// headers describes the headers of answers (CueAPI wire contract 1.11 and 1.13; RFC 6750 section 3).
func headers() object {
	header := func(name, description string, schema *jsonschema.Schema) member {
		return member{name, object{{"description", description}, {"schema", schema}}}
	}
	zero := 0.0
	number := &jsonschema.Schema{Type: "integer", Minimum: &zero}
	return object{
		header("X-Request-Id", "Names this answer; quote it when you ask for help.", &jsonschema.Schema{Type: "string", Format: "uuid"}),
		header("X-RateLimit-Limit", "Calls that the tightest limit allows in a minute.", number),
		header("X-RateLimit-Remaining", "Calls that are left of them now.", number),
		header("X-RateLimit-Reset", "When all of them are there again, in Unix seconds.", number),
		header("Retry-After", "Seconds to wait.", number),
		header("WWW-Authenticate", "What kind of key is wanted.", &jsonschema.Schema{Type: "string"}),
	}
}

// errorSchema describes op.Error.Body.
func errorSchema() *jsonschema.Schema {
	text := func(doc string) *jsonschema.Schema { return &jsonschema.Schema{Type: "string", Description: doc} }
	violation := &jsonschema.Schema{
		Type: "object", Required: []string{"field", "message"}, PropertyOrder: []string{"field", "message"},
		Properties: map[string]*jsonschema.Schema{
			"field": text("Where: body.schedule.cron, query.limit, …"), "message": text("What does not fit."),
		},
	}
	inner := func() *jsonschema.Schema {
		return &jsonschema.Schema{
			Type: "object", Required: []string{"code", "message", "status"},
			PropertyOrder: []string{"code", "message", "status", "details", "docs", "request_id"},
			Properties: map[string]*jsonschema.Schema{
				"code":       text("The kind of error: a promise, to be compared."),
				"message":    text("What happened, for people."),
				"status":     {Type: "integer", Description: "The HTTP status again."},
				"details":    {Type: "array", Items: violation.CloneSchemas(), Description: "Every input that does not fit, with validation_error."},
				"docs":       {Type: "string", Format: "uri-reference", Description: "A page about this code, perhaps relative to the server."},
				"request_id": text("The X-Request-Id of this answer."),
			},
		}
	}
	return &jsonschema.Schema{
		Type: "object", Description: "Every error, in this form. Some codes add members of their own.",
		Required: []string{"error", "detail"}, PropertyOrder: []string{"error", "detail"},
		Properties: map[string]*jsonschema.Schema{
			"error": inner(),
			"detail": {
				Type: "object", Description: "The same once more.", Required: []string{"error"},
				Properties: map[string]*jsonschema.Schema{"error": inner()},
			},
		},
	}
}
