package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"

	"unstuck/internal/op"
)

// Info says what the document describes. Title and Version are required.
type Info struct {
	Title       string
	Version     string
	Description string // Markdown
	// Guard lists the codes that the guard of the set can answer. Those with 401 and 403 are shown for every operation that is not
	// public, the others for every operation that counts against limits.
	Guard []op.Code
}

// OpenAPI describes all operations of a set as an OpenAPI 3.1 document, the same bytes for the same set. Aliases of routes are
// named in the text of their operation. Vendor fields: x-unstuck-needs of an operation is what its caller must hold, x-unstuck-codes
// of a response the codes of errors that come with its status, x-unstuck-event of a stream the data of one event or where
// it is described, for which this version of OpenAPI has no word. Objects in answers whose type has a name are described once.
func OpenAPI(set *op.Set, info Info) []byte {
	w := &writer{info: info, written: map[string]string{}}
	w.keep("Error", errorSchema())
	doc := object{
		{"openapi", "3.1.0"},
		{"info", object{{"title", info.Title}, {"version", info.Version}}.with("description", info.Description)},
		{"servers", []object{{{"url", "/"}}}},
		{"tags", tags(set)},
		{"paths", w.paths(set)},
		{"components", object{
			{"securitySchemes", object{{"key", object{{"type", "http"}, {"scheme", "bearer"}, {"description", "An API key: `Authorization: Bearer <key>`."}}}}},
			{"headers", headers()},
			{"responses", w.failures},
			{"schemas", w.schemas},
		}},
	}
	var b bytes.Buffer
	if err := json.Indent(&b, op.Marshal(doc), "", "  "); err != nil {
		panic("rest: cannot indent the OpenAPI document: " + err.Error())
	}
	return append(b.Bytes(), '\n')
}

// writer collects, while it describes operations, what they share: the answers of errors, and objects of named types.
type writer struct {
	info              Info
	failures, schemas object
	written           map[string]string // the JSON of schemas by name
}

// object is a JSON object whose members keep their order.
type object []member

type member struct {
	name  string
	value any
}

// MarshalJSON writes the members in their order.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(op.Quote(m.name) + ":")
		b.Write(op.Marshal(m.value))
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// with is o with one more member, unless text is empty.
func (o object) with(name, text string) object {
	if text == "" {
		return o
	}
	return append(o, member{name, text})
}

func tags(set *op.Set) []object {
	var out []object
	seen := map[string]bool{}
	for _, o := range set.All() {
		if !seen[o.Noun()] {
			out = append(out, object{{"name", o.Noun()}})
		}
		seen[o.Noun()] = true
	}
	return out
}

// paths groups the operations by path, in the order in which paths first occur.
func (w *writer) paths(set *op.Set) object {
	var out object
	at := map[string]int{}
	for _, o := range set.All() {
		i, ok := at[o.Path()]
		if !ok {
			i = len(out)
			at[o.Path()], out = i, append(out, member{o.Path(), object{}})
		}
		item := out[i].value.(object)
		out[i].value = append(item, member{strings.ToLower(o.Method()), w.operation(o)})
	}
	return out
}

func (w *writer) operation(o *op.Operation) object {
	out := object{{"operationId", o.Name}, {"tags", []string{o.Noun()}}, {"summary", o.Summary()}}
	out = out.with("description", description(o))
	if p := parameters(o); p != nil {
		out = append(out, member{"parameters", p})
	}
	if s := o.BodySchema(); s != nil {
		out = append(out, member{"requestBody", object{{"required", len(s.Required) > 0}, {"content", content(s)}}})
	}
	out = append(out, member{"responses", w.responses(o)}, member{"security", security(o)})
	return out.with("x-unstuck-needs", o.Needs.String())
}

func description(o *op.Operation) string {
	parts := []string{o.Description()}
	if o.Needs != op.Public {
		parts = append(parts, "Needs: "+o.Needs.String()+".")
	}
	if o.Members {
		parts = append(parts, "Only for members, with a personal key.")
	}
	if len(o.Aliases) > 0 {
		parts = append(parts, "Also answers at `"+strings.Join(o.Aliases, "`, `")+"`.")
	}
	return strings.TrimSpace(strings.Join(parts, "\n\n"))
}

func security(o *op.Operation) []object {
	if o.Needs == op.Public {
		return []object{}
	}
	return []object{{{"key", []string{}}}}
}

func content(schema any) object {
	return object{{"application/json", object{{"schema", schema}}}}
}

func parameters(o *op.Operation) []object {
	var out []object
	for _, f := range o.Fields() {
		if f.In == op.InBody {
			continue
		}
		schema := o.FieldSchema(f.Name)
		schema.Description = "" // it stands on the parameter
		p := object{{"name", f.Name}, {"in", string(f.In)}}.with("description", f.Doc)
		out = append(out, append(p, member{"required", f.Required}, member{"schema", schema}))
	}
	if o.Confirm {
		out = append(out, object{{"name", "X-Confirm-Destructive"}, {"in", "header"}, {"required", true},
			{"description", "Says that the caller means it."}, {"schema", &jsonschema.Schema{Type: "string", Enum: []any{"true"}}}})
	}
	return out
}

// event is the data of an event of a stream: where it is described, because vendor fields may hold no references, or itself.
func (w *writer) event(s *jsonschema.Schema) any {
	if shared := w.share(s); shared.Ref != "" {
		return shared.Ref
	}
	return s
}

// responses are the answer of success and those of all codes, grouped by status.
func (w *writer) responses(o *op.Operation) object {
	success := object{{"description", http.StatusText(o.Status)}, {"headers", headersOf(o, o.Status)}}
	if s := o.OutSchema(); s != nil && o.Streams() {
		success = append(success, member{"content", object{{eventStream, object{
			{"schema", &jsonschema.Schema{Type: "string"}}, {"x-unstuck-event", w.event(s)},
		}}}})
	} else if s != nil {
		success = append(success, member{"content", content(w.share(s))})
	}
	out := object{{strconv.Itoa(o.Status), success}}
	codes := codesOf(o, w.info)
	for len(codes) > 0 {
		n := 1
		for n < len(codes) && codes[n].Status == codes[0].Status {
			n++
		}
		out = append(out, member{strconv.Itoa(codes[0].Status), w.failure(o, codes[:n])})
		codes = codes[n:]
	}
	return out
}

// failure refers to the answer of an operation with any of these codes, which share a status.
func (w *writer) failure(o *op.Operation, codes []op.Code) object {
	status := codes[0].Status
	name, text, names := strconv.Itoa(status), []string(nil), []string(nil)
	for _, c := range codes {
		text = append(text, fmt.Sprintf("* `%s`: %s", c.Name, c.Doc))
		names = append(names, c.Name)
		name += "." + c.Name
	}
	if o.Uncounted {
		name += ".uncounted"
	}
	if !slices.ContainsFunc(w.failures, func(m member) bool { return m.name == name }) {
		w.failures = append(w.failures, member{name, object{
			{"description", strings.Join(text, "\n")},
			{"headers", headersOf(o, status)},
			{"content", content(ref("schemas", "Error"))},
			{"x-unstuck-codes", names},
		}})
	}
	return ref("responses", name)
}

// codesOf are the codes that an operation can answer, its own, the guard's and the common ones, by status and name.
func codesOf(o *op.Operation, info Info) []op.Code {
	codes := slices.Clone(o.Errors)
	for _, c := range info.Guard {
		if refusal := c.Status == 401 || c.Status == 403; refusal && o.Needs != op.Public || !refusal && !o.Uncounted {
			codes = append(codes, c)
		}
	}
	inputs := len(o.Fields()) > 0
	for c, can := range map[op.Code]bool{
		op.InvalidJSON: takesJSON(o), op.TooLarge: takesJSON(o), op.ConfirmationGone: o.Confirm, op.ValidationError: inputs || takesJSON(o) && !o.Open,
		op.Internal: true, op.Unavailable: true,
	} {
		if can {
			codes = append(codes, c)
		}
	}
	slices.SortFunc(codes, func(a, b op.Code) int {
		if a.Status != b.Status {
			return a.Status - b.Status
		}
		return strings.Compare(a.Name, b.Name)
	})
	return slices.CompactFunc(codes, func(a, b op.Code) bool { return a.Status == b.Status && a.Name == b.Name })
}

// takesJSON says whether the syntax of a body is looked at.
func takesJSON(o *op.Operation) bool { return o.Method() != "GET" && o.Method() != "DELETE" }

func ref(kind, name string) object {
	return object{{"$ref", "#/components/" + kind + "/" + name}}
}

// headersOf are the headers of an operation's answers with this status.
func headersOf(o *op.Operation, status int) object {
	names := []string{"X-Request-Id"}
	if !o.Uncounted && status != http.StatusRequestEntityTooLarge {
		names = append(names, "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		names = append(names, "WWW-Authenticate")
	case http.StatusTooManyRequests:
		names = append(names, "Retry-After")
	}
	var out object
	for _, n := range names {
		out = append(out, member{n, ref("headers", n)})
	}
	return out
}
