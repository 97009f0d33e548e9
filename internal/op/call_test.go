package op_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"unstuck/internal/op"
)

var refused = op.Code{Status: 403, Name: "insufficient_scope", Doc: "…"}

// Each case breaks everything from one check on: the answer is that of the first broken one, and later steps are not reached.
func TestOrderOfChecks(t *testing.T) {
	type in struct {
		Name string `json:"name"`
	}
	for _, c := range []struct {
		name          string
		tooLarge      bool
		admit, permit error
		body          string
		confirm       string
		want          op.Code
		steps         []string
	}{
		{"body size", true, refused.Msg("no"), refused.Msg("no"), `{`, "", op.TooLarge, []string{"done"}},
		{"authentication and limits", false, op.Unavailable.Msg("no"), refused.Msg("no"), `{`, "", op.Unavailable, []string{"admit", "done"}},
		{"JSON syntax", false, nil, refused.Msg("no"), `{`, "", op.InvalidJSON, []string{"admit", "done"}},
		{"permission and restrictions", false, nil, refused.Msg("no"), `{}`, "", refused, []string{"admit", "permit", "done"}},
		{"confirmation", false, nil, nil, `{}`, "TRUE", op.ConfirmationGone, []string{"admit", "permit", "done"}},
		{"schema", false, nil, nil, `{}`, "true", op.ValidationError, []string{"admit", "permit", "done"}},
		{"the operation", false, nil, nil, `{"name":"n"}`, "true", op.NotFound, []string{"admit", "permit", "run", "done"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := &gate{admit: c.admit, permit: c.permit}
			o := op.Define(spec(func(s *op.Spec) { s.Confirm = true }), func(ctx context.Context, _ in) (op.None, error) {
				g.steps = append(g.steps, "run")
				op.CallOf(ctx).Header.Set("X-Run", "yes")
				return op.None{}, &op.Error{Code: op.NotFound, Message: "Not found", Header: http.Header{"Retry-After": {"1"}}}
			})
			res := setOf(g, o).Call(t.Context(), &op.Request{
				Op: o.Name, TooLarge: c.tooLarge, Body: []byte(c.body), Header: http.Header{"X-Confirm-Destructive": {c.confirm}},
			})
			if res.Err == nil || res.Err.Code != c.want || res.Status != c.want.Status || res.Body != nil || g.ended != res.Err {
				t.Errorf("answer %d %v, the guard heard %v, want %v", res.Status, res.Err, g.ended, c.want)
			}
			if !slices.Equal(g.steps, c.steps) {
				t.Errorf("steps %v, want %v", g.steps, c.steps)
			}
			if c.want == op.NotFound {
				want := http.Header{"X-Done": {"yes"}, "X-Run": {"yes"}, "Retry-After": {"1"}}
				if diff := cmp.Diff(want, res.Header); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestCallAnswersWhatTheOperationSays(t *testing.T) {
	type out struct {
		Text string     `json:"text"`
		At   op.Time    `json:"at"`
		Null *string    `json:"null"`
		Raw  op.Object  `json:"raw"`
		Any  op.Value   `json:"any"`
		List []struct{} `json:"list"`
	}
	o := op.Define(spec(func(s *op.Spec) { s.Status = 201 }), func(ctx context.Context, _ empty) (out, error) {
		c := op.CallOf(ctx)
		if c.Name != "thing.make" || c.ID != "r1" || !c.Began.Equal(noon()) {
			t.Errorf("the call is %+v", c)
		}
		return out{Text: "<é&>", At: op.TimeOf(noon()), Raw: op.Object(`{"n": 1.0}`), Any: op.Value(`[1e2]`), List: []struct{}{}}, nil
	})
	answer := http.Header{"X-Before": {"kept"}}
	res := setOf(&gate{}, o).Call(t.Context(), &op.Request{Op: o.Name, ID: "r1", Answer: answer})
	const want = `{"text":"<é&>","at":"2026-11-24T12:00:00Z","null":null,"raw":{"n":1.0},"any":[1e2],"list":[]}`
	if res.Status != 201 || string(res.Body) != want || res.Err != nil {
		t.Errorf("%d %s %v", res.Status, res.Body, res.Err)
	}
	if answer.Get("X-Before") != "kept" || answer.Get("X-Done") != "yes" || res.Header.Get("X-Done") != "yes" {
		t.Errorf("headers go to %v and %v", answer, res.Header)
	}
	if op.CallOf(context.Background()) != nil {
		t.Error("there is a call outside an operation")
	}
}

func TestNoneHasNoBody(t *testing.T) {
	o := define[empty, op.None]()
	if res := setOf(&gate{}, o).Call(t.Context(), &op.Request{Op: o.Name}); res.Status != 204 || res.Body != nil || res.Err != nil {
		t.Errorf("%d %q %v", res.Status, res.Body, res.Err)
	}
}

func TestCallsThatCannotBeMade(t *testing.T) {
	o := define[empty, op.None]()
	for name, res := range map[string]*op.Response{
		"unknown operation": setOf(&gate{}, o).Call(t.Context(), &op.Request{Op: "thing.eat"}),
		"set without guard": setOf(nil, o).Call(t.Context(), &op.Request{Op: o.Name}),
	} {
		if res.Err == nil || res.Err.Code != op.NotFound || res.Status != 404 {
			t.Errorf("%s: %v", name, res.Err)
		}
	}
}

type unwritable struct{ F func() }

func TestPanicsBecomeInternalErrors(t *testing.T) {
	boom := func(context.Context, empty) (op.None, error) { panic("secret plan") }
	for name, o := range map[string]*op.Operation{
		"in the operation": op.Define(spec(), boom),
		"while writing":    op.Define(spec(), func(context.Context, empty) (unwritable, error) { return unwritable{func() {}}, nil }),
	} {
		var log bytes.Buffer
		g := &gate{}
		set := op.NewSet(g, slog.New(slog.NewJSONHandler(&log, nil)), noon, o)
		res := set.Call(t.Context(), &op.Request{Op: o.Name, ID: "r1"})
		if res.Status != 500 || res.Err == nil || res.Err.Code != op.Internal || g.ended != res.Err || res.Body != nil {
			t.Errorf("%s: %d %v", name, res.Status, res.Err)
		}
		answer := string(res.Err.Body("http://localhost/docs/errors", "r1"))
		if strings.Contains(answer, "secret") || strings.Contains(answer, "goroutine") || strings.Contains(answer, ".go") {
			t.Errorf("%s: the caller is told %s", name, answer)
		}
		if line := log.String(); !strings.Contains(line, "goroutine") || !strings.Contains(line, `"level":"ERROR"`) || !strings.Contains(line, `"request":"r1"`) {
			t.Errorf("%s: the log says %s", name, line)
		}
	}
}

type caller struct{}

func (caller) LogValue() slog.Value { return slog.StringValue("key_1") }

// known is a gate that knows who calls.
type known struct{ gate }

func (g *known) Admit(ctx context.Context, c *op.Call) (context.Context, error) {
	c.Caller = caller{}
	return g.gate.Admit(ctx, c)
}

func TestOneLinePerCall(t *testing.T) {
	fails := errors.New("disk on fire")
	for _, c := range []struct {
		name   string
		effect op.Effect
		err    error
		want   string
	}{
		{"a read", op.Read, nil, `"level":"DEBUG","msg":"call","op":"thing.make","status":204,"took":0,"request":"r1","via":"rest","caller":"key_1"}`},
		{"a write", op.Write, nil, `"level":"INFO","msg":"call","op":"thing.make","status":204,"took":0,"request":"r1","via":"rest","caller":"key_1"}`},
		{"a refusal", op.Read, refused.Msg("no"), `"level":"INFO","msg":"call","op":"thing.make","status":403,"took":0,"request":"r1","via":"rest","caller":"key_1","code":"insufficient_scope"}`},
		{"our fault", op.Read, fmt.Errorf("write: %w", fails), `"level":"ERROR","msg":"call","op":"thing.make","status":500,"took":0,"request":"r1","via":"rest","caller":"key_1","code":"internal_error","cause":"write: disk on fire"}`},
		{"a wrapped refusal", op.Read, fmt.Errorf("while: %w", refused.Wrap(fails, "no")), `"level":"INFO","msg":"call","op":"thing.make","status":403,"took":0,"request":"r1","via":"rest","caller":"key_1","code":"insufficient_scope","cause":"disk on fire"}`},
		{"who went away", op.Write, fmt.Errorf("read: %w", context.Canceled), `"level":"INFO","msg":"call","op":"thing.make","status":503,"took":0,"request":"r1","via":"rest","caller":"key_1","code":"unavailable","cause":"read: context canceled"}`},
		{"too slow", op.Write, fmt.Errorf("read: %w", context.DeadlineExceeded), `"level":"ERROR","msg":"call","op":"thing.make","status":503,"took":0,"request":"r1","via":"rest","caller":"key_1","code":"unavailable","cause":"read: context deadline exceeded"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			o := op.Define(spec(func(s *op.Spec) { s.Effect = c.effect }), func(context.Context, empty) (op.None, error) { return op.None{}, c.err })
			op.NewSet(&known{}, slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})), noon, o).
				Call(t.Context(), &op.Request{Op: o.Name, ID: "r1", Via: "rest"})
			if _, line, _ := strings.Cut(log.String(), ","); strings.TrimSpace(line) != c.want {
				t.Errorf("\n got %s\nwant %s", line, c.want)
			}
		})
	}
}

func TestBrokenBodies(t *testing.T) {
	cut := errors.New("connection reset")
	_, err := read[empty](t, op.Request{Broken: cut})
	if err == nil || err.Code != op.InvalidJSON || !errors.Is(err, cut) || strings.Contains(err.Message, "reset") {
		t.Errorf("a body that broke off: %v", err)
	}
	if _, err := read[empty](t, op.Request{Broken: cut}, get); err != nil {
		t.Errorf("the body of a GET does not matter: %v", err)
	}
}

func TestErrorBody(t *testing.T) {
	type extra struct {
		Missing []string `json:"missing"`
		Mend    string   `json:"mend"`
	}
	for _, c := range []struct {
		name           string
		err            *op.Error
		docs, id, want string
	}{
		{"plain", op.NotFound.Msg("Not Found"), "", "", `{"code":"http_error","message":"Not Found","status":404}`},
		{"with addresses", op.NotFound.Msg("No %q & <b>", "é"), "http://h/docs/errors", "r1",
			`{"code":"http_error","message":"No \"é\" & <b>","status":404,"docs":"http://h/docs/errors#http_error","request_id":"r1"}`},
		{"invalid", op.Invalid("body.ips.0", "%s is not an address", "x"), "", "",
			`{"code":"validation_error","message":"body.ips.0: x is not an address","status":422,"details":[{"field":"body.ips.0","message":"x is not an address"}]}`},
		{"more", &op.Error{Code: refused, Message: "no", Extra: extra{[]string{"a"}, "b"}}, "", "r1",
			`{"code":"insufficient_scope","message":"no","status":403,"missing":["a"],"mend":"b","request_id":"r1"}`},
		{"nothing more", &op.Error{Code: refused, Message: "no", Extra: empty{}}, "", "", `{"code":"insufficient_scope","message":"no","status":403}`},
		{"a cause stays inside", op.Internal.Wrap(errors.New("password"), "sorry"), "", "", `{"code":"internal_error","message":"sorry","status":500}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := c.err.Body(c.docs, c.id)
			var both struct {
				Error  json.RawMessage
				Detail struct{ Error json.RawMessage }
			}
			if err := json.Unmarshal(body, &both); err != nil {
				t.Fatalf("%v: %s", err, body)
			}
			if string(both.Error) != c.want || string(both.Detail.Error) != c.want {
				t.Errorf("\n error %s\ndetail %s\n  want %s", both.Error, both.Detail.Error, c.want)
			}
		})
	}
}

func TestCodesAreListedOnce(t *testing.T) {
	own := op.Code{Status: 404, Name: "thing_not_found", Doc: "…"}
	declare := func(name string) *op.Operation {
		return define[empty, op.None](func(s *op.Spec) { s.Name, s.Route, s.Errors = name, "POST /"+name, []op.Code{own, refused} })
	}
	var got []string
	for _, c := range setOf(nil, declare("a.a"), declare("b.b")).Codes() {
		got = append(got, fmt.Sprint(c.Status, " ", c.Name))
	}
	want := []string{"400 confirmation_required", "400 invalid_json", "403 insufficient_scope", "404 http_error", "404 thing_not_found",
		"405 http_error", "413 request_too_large", "422 validation_error", "500 internal_error", "503 unavailable"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMarshalPanicsOnWhatIsNoJSON(t *testing.T) {
	if got := panics(func() { op.Marshal(op.Object(`{`)) }); !strings.HasPrefix(got, "op: cannot write json.RawMessage as JSON") {
		t.Errorf("panic is %q", got)
	}
}
