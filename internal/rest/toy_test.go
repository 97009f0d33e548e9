package rest_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"unstuck/internal/op"
	"unstuck/internal/rest"
)

var (
	badKey    = op.Code{Status: 401, Name: "invalid_api_key", Doc: "No key came with the call, or none of this server's."}
	lacking   = op.Code{Status: 403, Name: "insufficient_scope", Doc: "The key lacks a permission."}
	tooMany   = op.Code{Status: 429, Name: "rate_limit_exceeded", Doc: "Too many calls within a minute."}
	noThing   = op.Code{Status: 404, Name: "thing_not_found", Doc: "There is no thing of this name."}
	nameTaken = op.Code{Status: 409, Name: "name_taken", Doc: "Another thing has this name."}
)

// door is a guard that knows one key and remembers the last call.
type door struct {
	last *op.Request
	done func(*op.Call)
}

func (d *door) Admit(ctx context.Context, c *op.Call) (context.Context, error) {
	d.last = c.Request
	c.Header["X-Ratelimit-Limit"] = []string{"60"}
	if c.Needs != op.Public && c.Auth != "Bearer good" {
		e := badKey.Msg("This key is not known here.")
		e.Header = http.Header{"Www-Authenticate": {"Bearer"}}
		return nil, e
	}
	return ctx, nil
}

func (d *door) Permit(context.Context, *op.Call) error { return nil }

func (d *door) Fault(string) string { return "" }

func (d *door) Done(_ context.Context, c *op.Call, _ *op.Error) {
	if d.done != nil {
		d.done(c)
	}
}

type (
	none struct{}
	byID struct {
		ID string `json:"id" doc:"Which thing"`
	}
	page struct {
		Limit int            `json:"limit" default:"50" min:"1" max:"100" doc:"How many"`
		State op.Opt[string] `json:"state" enum:"new|old" doc:"Only those in this state"`
		Tags  []string       `json:"tags" default:"[]" doc:"Only those with all of these"`
		Agent op.Opt[string] `header:"X-Agent" max:"20" doc:"Who asks"`
	}
	making struct {
		Name  string            `json:"name" min:"1" max:"20" doc:"What people call it"`
		Size  int               `json:"size" default:"1" min:"0" max:"9" doc:"How large"`
		Label op.Opt[string]    `json:"label" max:"10" doc:"A word of your own"`
		Extra op.Opt[op.Object] `json:"extra" doc:"Anything"`
	}
	change struct {
		ID   string           `json:"id"`
		Name op.Clear[string] `json:"name" max:"20" doc:"The new name; null takes it away"`
	}
	part struct {
		ID   string `json:"id"`
		Part string `json:"part"`
	}
	// Thing is exported: the document describes it once, by its name.
	Thing struct {
		ID    string         `json:"id"`
		Name  *string        `json:"name" doc:"What people call it"`
		At    op.Time        `json:"at"`
		Extra op.Object      `json:"extra"`
		Parts map[string]int `json:"parts"`
	}
	things struct {
		Things []Thing `json:"things"`
		Total  int     `json:"total"`
	}
)

func noon() time.Time { return time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC) }

func aThing(id string) (Thing, error) {
	name := "a thing"
	if id == "missing" {
		return Thing{}, noThing.Msg("Thing not found")
	}
	return Thing{ID: id, Name: &name, At: op.TimeOf(noon()), Extra: op.Object(`{"n":1.0}`), Parts: map[string]int{"a": 1}}, nil
}

// toys is a set with an operation for each thing that a door must cope with.
func toys(g op.Guard) *op.Set {
	read := op.Spec{Needs: "things:read", Effect: op.Read, May: "see things", Errors: []op.Code{noThing}}
	write := op.Spec{Needs: "things:write", Effect: op.Write, May: "change things", Errors: []op.Code{noThing}}
	spec := func(base op.Spec, name, route, doc string, changes ...func(*op.Spec)) op.Spec {
		base.Name, base.Route, base.Doc = name, route, doc
		for _, c := range changes {
			c(&base)
		}
		return base
	}
	get := func(_ context.Context, in byID) (Thing, error) { return aThing(in.ID) }
	return op.NewSet(g, slog.New(slog.DiscardHandler), noon,
		op.Define(spec(read, "thing.list", "GET /v1/things", "List things\nNewest first."), func(_ context.Context, in page) (things, error) {
			return things{Things: []Thing{}, Total: in.Limit}, nil
		}),
		op.Define(spec(write, "thing.make", "POST /v1/things", "Make a thing", func(s *op.Spec) { s.Status, s.Errors = 201, []op.Code{nameTaken} }),
			func(_ context.Context, in making) (Thing, error) {
				t, err := aThing("t1")
				t.Name, t.Extra = &in.Name, in.Extra.Val
				return t, err
			}),
		op.Define(spec(read, "thing.self", "GET /v1/things/self", "Show the caller's own thing"), func(context.Context, none) (Thing, error) { return aThing("(self)") }),
		op.Define(spec(write, "thing.claim", "POST /v1/things/claim", "Claim any thing", func(s *op.Spec) { s.Open = true }), func(context.Context, none) (Thing, error) { return aThing("(claimed)") }),
		op.Define(spec(read, "thing.get", "GET /v1/things/{id}", "Show a thing"), get),
		op.Define(spec(write, "thing.change", "PATCH /v1/things/{id}", "Change a thing"), func(_ context.Context, in change) (Thing, error) { return aThing(in.ID) }),
		op.Define(spec(write, "thing.end", "DELETE /v1/things/{id}", "End a thing", func(s *op.Spec) { s.Effect = op.Destroy }),
			func(_ context.Context, in byID) (op.None, error) { _, err := aThing(in.ID); return op.None{}, err }),
		op.Define(spec(write, "thing.reset", "POST /v1/things/{id}/reset", "Reset a thing\nIt forgets everything.", func(s *op.Spec) {
			s.Confirm, s.Aliases, s.Needs = true, []string{"POST /v1/reset/{id}"}, op.SelfOr("things:write")
		}), get),
		op.Define(spec(read, "part.get", "GET /v1/things/{id}/parts/{part}", "Show a part of a thing"), func(_ context.Context, in part) (Thing, error) { return aThing(in.ID + "|" + in.Part) }),
		op.Define(spec(write, "thing.crash", "POST /v1/crash", "Crash"), func(context.Context, none) (Thing, error) { panic("secret plan") }),
		op.Define(spec(read, "thing.wait", "GET /v1/wait", "Wait until the caller goes away"), func(ctx context.Context, _ none) (Thing, error) {
			<-ctx.Done()
			return Thing{}, errors.New("nobody waits any more")
		}),
		op.Define(spec(read, "server.health", "GET /health", "Say that the server is well", func(s *op.Spec) {
			s.Needs, s.Uncounted, s.Errors = op.Public, true, nil
		}), func(context.Context, none) (Thing, error) { return aThing("health") }),
	)
}

func info() rest.Info {
	return rest.Info{Title: "Toys", Version: "1.2.3", Description: "Things to play with.", Guard: []op.Code{badKey, lacking, tooMany}}
}

func newHandler(g op.Guard, mount map[string]http.Handler) http.Handler {
	return rest.New(rest.Options{
		Set: toys(g), Info: info(), Mount: mount, Log: slog.New(slog.DiscardHandler),
		DocsBase: "/docs/errors",
	})
}

// serve runs a handler on loopback until the test ends and answers its address.
func serve(t testing.TB, h http.Handler) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// ask sends one request to a handler, without a network, and answers what came back.
func ask(h http.Handler, method, target, body string, headers ...string) *http.Response {
	var r *http.Request
	if body == "" {
		r = httptest.NewRequest(method, target, nil)
	} else {
		r = httptest.NewRequest(method, target, strings.NewReader(body))
	}
	r.Header.Set("Authorization", "Bearer good")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func text(t testing.TB, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
