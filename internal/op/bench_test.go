package op_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"unstuck/internal/op"
)

// idle is a guard that lets everybody in.
type idle struct{}

func (idle) Admit(ctx context.Context, _ *op.Call) (context.Context, error) { return ctx, nil }
func (idle) Permit(context.Context, *op.Call) error                         { return nil }
func (idle) Fault(string) string                                            { return "" }
func (idle) Done(context.Context, *op.Call, *op.Error)                      {}

type thing struct {
	ID   string  `json:"id"`
	Name string  `json:"name"`
	At   op.Time `json:"at"`
}

func BenchmarkCall(b *testing.B) {
	type byID struct {
		ID string `json:"id"`
	}
	type page struct {
		Limit  int            `json:"limit" default:"50" min:"1" max:"100"`
		Offset int            `json:"offset" default:"0" min:"0"`
		Status op.Opt[string] `json:"status"`
	}
	one := thing{"t1", "a thing", op.TimeOf(noon())}
	set := setOf(idle{},
		op.Define(spec(get, func(s *op.Spec) { s.Name, s.Route = "thing.self", "GET /v1/things/self" }), func(context.Context, empty) (thing, error) { return one, nil }),
		op.Define(spec(get, func(s *op.Spec) { s.Route = "GET /v1/things/{id}" }), func(context.Context, byID) (thing, error) { return one, nil }),
		op.Define(spec(get, func(s *op.Spec) { s.Name = "thing.list" }), func(context.Context, page) (thing, error) { return one, nil }),
		op.Define(spec(), func(context.Context, everything) (thing, error) { return one, nil }),
	)
	full := []byte(`{"name":"n","mode":"slow","code":"abc","count":1,"ratio":7,"on":null,"at":"2026-11-22T09:05:00Z","words":["a","b"],
		"table":{"x":"y"},"any":[1,2.50],"object":{"deep":{"er":"x"}},"part":{"a":"x"},"parts":[{"a":"x","b":2}],"named":{"n":{"a":"x"}}}`)
	for _, c := range []struct {
		name string
		r    op.Request
	}{
		{"get", op.Request{Op: "thing.self"}},
		{"get by id", op.Request{Op: "thing.get", Params: map[string]string{"id": "t1"}}},
		{"list", op.Request{Op: "thing.list", Query: url.Values{"limit": {"10"}, "status": {"active"}}}},
		{"post", op.Request{Op: "thing.make", Body: full}},
		{"post invalid", op.Request{Op: "thing.make", Body: []byte(strings.ReplaceAll(string(full), `"a":"x"`, `"a":3`))}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := c.r
				r.Answer = http.Header{}
				set.Call(b.Context(), &r)
			}
		})
	}
}

func BenchmarkErrorBody(b *testing.B) {
	e := refused.Msg("This key may not create cues.")
	b.ReportAllocs()
	for b.Loop() {
		e.Body("http://127.0.0.1:8080/docs/errors", "7d1c9a52-0000-4000-8000-000000000000")
	}
}
