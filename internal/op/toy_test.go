package op_test

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"pgregory.net/rapid"

	"unstuck/internal/op"
)

// gate is a guard whose decisions a test sets; it writes down in which order it was asked.
type gate struct {
	steps         []string
	admit, permit error
	ended         *op.Error
}

func (g *gate) Admit(ctx context.Context, c *op.Call) (context.Context, error) {
	g.steps = append(g.steps, "admit")
	return ctx, g.admit
}

func (g *gate) Permit(context.Context, *op.Call) error {
	g.steps = append(g.steps, "permit")
	return g.permit
}

// Fault refuses texts with a certain word in them.
func (g *gate) Fault(text string) string {
	if strings.Contains(text, "sesame") {
		return "no secrets here"
	}
	return ""
}

func (g *gate) Done(_ context.Context, c *op.Call, err *op.Error) {
	g.steps, g.ended = append(g.steps, "done"), err
	c.Header.Set("X-Done", "yes")
}

func noon() time.Time { return time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC) }

func setOf(g op.Guard, ops ...*op.Operation) *op.Set {
	return op.NewSet(g, slog.New(slog.DiscardHandler), noon, ops...)
}

// spec is a whole declaration that tests change in places.
func spec(changes ...func(*op.Spec)) op.Spec {
	s := op.Spec{Name: "thing.make", Route: "POST /v1/things", Needs: "things:write", Effect: op.Write, May: "make things", Doc: "Make a thing"}
	for _, change := range changes {
		change(&s)
	}
	return s
}

func open(s *op.Spec) { s.Open = true }

func get(s *op.Spec) { s.Name, s.Route, s.Effect = "thing.get", "GET /v1/things", op.Read }

// read sends a request to an operation that takes In and answers what the operation saw, or what was wrong.
func read[In any](t rapid.TB, r op.Request, changes ...func(*op.Spec)) (In, *op.Error) {
	t.Helper()
	var seen In
	o := op.Define(spec(changes...), func(_ context.Context, in In) (op.None, error) {
		seen = in
		return op.None{}, nil
	})
	r.Op = o.Name
	res := setOf(&gate{}, o).Call(context.Background(), &r)
	return seen, res.Err
}

func body(text string) op.Request { return op.Request{Body: []byte(text)} }

// places lists violations as "field: message".
func places(e *op.Error) []string {
	var out []string
	if e != nil {
		for _, v := range e.Details {
			out = append(out, v.Field+": "+v.Message)
		}
		if len(out) == 0 {
			out = []string{e.Error()}
		}
	}
	return out
}
