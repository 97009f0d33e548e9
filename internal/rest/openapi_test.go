package rest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"

	"unstuck/internal/op"
	"unstuck/internal/rest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestOpenAPIGolden(t *testing.T) {
	const golden = "testdata/openapi.json"
	got := rest.OpenAPI(toys(nil), info())
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Error(diff)
	}
	if served := text(t, ask(newHandler(&door{}, nil), "GET", "/openapi.json", "")); served != string(got) {
		t.Error("/openapi.json is another document")
	}
	for range 20 {
		if !bytes.Equal(got, rest.OpenAPI(toys(nil), info())) {
			t.Fatal("the document is not the same every time")
		}
	}
}

func TestOpenAPIIsValid(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(rest.OpenAPI(toys(nil), info()))
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		t.Error(err)
	}
	if doc.JSONSchemaDialect != "" {
		t.Error("the document names a dialect, which the reference page shows as an error")
	}
}

// The document says of every operation what the door does.
func TestOpenAPITellsAllOperations(t *testing.T) {
	set := toys(nil)
	doc, err := openapi3.NewLoader().LoadFromData(rest.OpenAPI(set, info()))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range set.All() {
		item := doc.Paths.Value(o.Path())
		if item == nil || item.GetOperation(o.Method()) == nil {
			t.Errorf("%s is missing", o.Name)
			continue
		}
		got := item.GetOperation(o.Method())
		if got.OperationID != o.Name || got.Summary != o.Summary() || got.Extensions["x-unstuck-needs"] != o.Needs.String() || got.Tags[0] != o.Noun() {
			t.Errorf("%s is described as %s, %q, %v", o.Name, got.OperationID, got.Summary, got.Extensions)
		}
		if open := len(*got.Security) == 0; open != (o.Needs == op.Public) {
			t.Errorf("%s: security %v", o.Name, got.Security)
		}
		if (got.RequestBody != nil) != o.HasBody() {
			t.Errorf("%s: body %v", o.Name, got.RequestBody)
		}
		if got.Responses.Status(o.Status) == nil || got.Responses.Status(500) == nil {
			t.Errorf("%s lacks answers", o.Name)
		}
	}
}

func TestCodesOfOperations(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(rest.OpenAPI(toys(nil), info()))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, method, want string }{
		{"/health", "GET", "200 500:internal_error 503:unavailable"},
		{"/v1/things/self", "GET", "200 401:invalid_api_key 403:insufficient_scope 404:thing_not_found 429:rate_limit_exceeded 500:internal_error 503:unavailable"},
		{"/v1/things", "GET", "200 401:invalid_api_key 403:insufficient_scope 404:thing_not_found 422:validation_error 429:rate_limit_exceeded 500:internal_error 503:unavailable"},
		{"/v1/things", "POST", "201 400:invalid_json 401:invalid_api_key 403:insufficient_scope 409:name_taken 413:request_too_large 422:validation_error 429:rate_limit_exceeded 500:internal_error 503:unavailable"},
		{"/v1/things/{id}/reset", "POST", "200 400:confirmation_required,invalid_json 401:invalid_api_key 403:insufficient_scope 404:thing_not_found 413:request_too_large 422:validation_error 429:rate_limit_exceeded 500:internal_error 503:unavailable"},
	} {
		var got []string
		responses := doc.Paths.Value(c.path).GetOperation(c.method).Responses
		for status := 100; status < 600; status++ {
			r := responses.Status(status)
			if r == nil {
				continue
			}
			line := strconv.Itoa(status)
			if codes, ok := r.Value.Extensions["x-unstuck-codes"].([]any); ok {
				line += ":" + strings.Trim(strings.ReplaceAll(fmt.Sprint(codes), " ", ","), "[]")
			}
			got = append(got, line)
			for name, want := range map[string]bool{
				"X-Request-Id": true, "WWW-Authenticate": status == 401 || status == 403, "Retry-After": status == 429,
				"X-RateLimit-Limit": c.path != "/health" && status != 413,
			} {
				if (r.Value.Headers[name] != nil) != want {
					t.Errorf("%s %s %d: headers %v", c.method, c.path, status, r.Value.Headers)
				}
			}
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s %s\n got %s\nwant %s", c.method, c.path, s, c.want)
		}
	}
}

// Objects of exported types are described once; another type of the same name, or of none, is described where it stands.
func TestSharedSchemas(t *testing.T) {
	type Owner struct {
		Name string `json:"name"`
	}
	type nameless struct {
		X int `json:"x"`
	}
	type first struct {
		Owner Owner            `json:"owner" doc:"Who has it"`
		Maybe *Owner           `json:"maybe" doc:"Who wants it"`
		List  []Owner          `json:"list"`
		Table map[string]Owner `json:"table"`
		Other nameless         `json:"other"`
	}
	define := func(name string, fn func(op.Spec) *op.Operation) *op.Operation {
		return fn(op.Spec{Name: name, Route: "GET /" + name, Needs: op.Public, Effect: op.Read, May: "see it", Doc: "Show it"})
	}
	one := define("a.one", func(s op.Spec) *op.Operation {
		return op.Define(s, func(context.Context, none) (first, error) { return first{}, nil })
	})
	two := define("a.two", func(s op.Spec) *op.Operation {
		type Owner struct {
			Age int `json:"age"`
		}
		return op.Define(s, func(context.Context, none) (Owner, error) { return Owner{}, nil })
	})
	var doc struct {
		Paths map[string]map[string]struct {
			Responses map[string]struct {
				Content map[string]struct{ Schema any }
			}
		}
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal(rest.OpenAPI(op.NewSet(nil, nil, nil, one, two), info()), &doc); err != nil {
		t.Fatal(err)
	}
	of := func(path string) string {
		return string(op.Marshal(doc.Paths[path]["get"].Responses["200"].Content["application/json"].Schema))
	}
	const ref = `{"$ref":"#/components/schemas/Owner"}`
	for _, c := range []struct{ name, got, want string }{
		{"the component", string(op.Marshal(doc.Components.Schemas["Owner"])), `{"properties":{"name":{"type":"string"}},"required":["name"],"type":"object"}`},
		{"the first", of("/a.one"), `{"properties":{` +
			`"list":{"items":` + ref + `,"type":["array","null"]},` +
			`"maybe":{"anyOf":[` + ref + `,{"type":"null"}],"description":"Who wants it"},` +
			`"other":{"properties":{"x":{"type":"integer"}},"required":["x"],"type":"object"},` +
			`"owner":{"$ref":"#/components/schemas/Owner","description":"Who has it"},` +
			`"table":{"additionalProperties":` + ref + `,"type":["object","null"]}},` +
			`"required":["owner","maybe","list","table","other"],"type":"object"}`},
		{"the second", of("/a.two"), `{"properties":{"age":{"type":"integer"}},"required":["age"],"title":"Owner","type":"object"}`},
	} {
		if c.got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.name, c.got, c.want)
		}
	}
}
