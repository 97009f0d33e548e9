package op_test

import (
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/jsonschema-go/jsonschema"
	"pgregory.net/rapid"

	"unstuck/internal/op"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// everything has a field of every kind that an input can have.
type everything struct {
	Name   string            `json:"name" min:"1" max:"8" doc:"What people call it"`
	Mode   string            `json:"mode" enum:"fast|slow" default:"fast"`
	Code   string            `json:"code" re:"^[a-c]*$" default:""`
	Count  int               `json:"count" min:"-2" max:"3"`
	Ratio  op.Opt[int64]     `json:"ratio" max:"10"`
	On     op.Clear[bool]    `json:"on"`
	At     op.Opt[op.Time]   `json:"at"`
	Words  []string          `json:"words" min:"1" max:"3" enum:"a|b"`
	Table  map[string]string `json:"table"`
	Any    op.Opt[op.Value]  `json:"any"`
	Object op.Opt[op.Object] `json:"object"`
	Part   op.Opt[part]      `json:"part"`
	Parts  []part            `json:"parts" default:"[]"`
	Named  map[string]part   `json:"named" default:"{}"`
}

type part struct {
	A string `json:"a" max:"2"`
	B int    `json:"b" default:"1"`
}

// value generates a JSON value for a field of everything: mostly one that fits, near its bounds, and sometimes any.
func value(t *rapid.T, name string) any {
	oneOf := rapid.SampledFrom[[]any]
	listOf := func(g *rapid.Generator[any], least int) *rapid.Generator[any] {
		return rapid.Map(rapid.SliceOfN(g, least, 3), func(l []any) any { return l })
	}
	tableOf := func(g *rapid.Generator[any]) *rapid.Generator[any] {
		return rapid.Map(rapid.MapOfN(rapid.StringMatching(`[a-z]{0,2}`), g, 0, 3), func(m map[string]any) any { return m })
	}
	parts := rapid.Custom(func(t *rapid.T) any {
		m := map[string]any{"a": oneOf([]any{"", "a", "é😀"}).Draw(t, "a")}
		if rapid.Bool().Draw(t, "more") {
			m["b"] = oneOf([]any{-1.0, 0.0, 1e9}).Draw(t, "b")
		}
		return m
	})
	text := oneOf([]any{"", "a", "ab", "abcdefghi", "é😀", "1", "true"})
	wild := rapid.OneOf(text, parts, listOf(text, 0), tableOf(text), oneOf([]any{nil, true, 1.5, -3.0, 4.0, 11.0, []any{}, map[string]any{}, map[string]any{"a": "a", "c": 1.0}}))
	fitting := map[string]*rapid.Generator[any]{
		"name": oneOf([]any{"n", "abcdefgh", "éééé😀😀😀😀"}), "mode": oneOf([]any{"fast", "slow"}), "code": oneOf([]any{"", "abc", "cccc"}),
		"count": oneOf([]any{-2.0, 0.0, 3.0}), "ratio": oneOf([]any{nil, -1e9, 10.0}), "on": oneOf([]any{true, false, nil}),
		"at": oneOf([]any{"2026-11-22T09:05:00Z", nil}), "words": listOf(oneOf([]any{"a", "b"}), 1), "table": tableOf(text), "any": wild,
		"object": tableOf(wild), "part": parts, "parts": listOf(parts, 0), "named": tableOf(parts), "extra": wild,
	}
	if name != "at" && rapid.IntRange(0, 9).Draw(t, "any") == 0 { // a format is a hint, which the schema does not check
		return wild.Draw(t, name)
	}
	return fitting[name].Draw(t, name)
}

// The filler is laxer than the schema (it coerces), never stricter: what the schema accepts, the operation sees. The exceptions
// cannot be said in a schema of everyday words: NUL in a string, numbers beyond 64 bits, and what a format leaves open.
func TestWhatTheSchemaAcceptsTheFillerAccepts(t *testing.T) {
	for _, change := range []func(*op.Spec){func(*op.Spec) {}, open} {
		schema, err := define[everything, op.None](change).BodySchema().Resolve(&jsonschema.ResolveOptions{ValidateDefaults: true})
		if err != nil {
			t.Fatal(err)
		}
		accepted, refused := 0, 0
		rapid.Check(t, func(t *rapid.T) {
			names := []string{"name", "count", "words", "table", "mode", "code", "ratio", "on", "at", "any", "object", "part", "parts", "named", "extra"}
			names = append(names[:4:4], rapid.SliceOfDistinct(rapid.SampledFrom(names[4:]), rapid.ID[string]).Draw(t, "names")...)
			doc := map[string]any{}
			for _, name := range names {
				doc[name] = value(t, name)
			}
			if schema.Validate(doc) != nil {
				refused++
				return
			}
			accepted++
			if _, err := read[everything](t, op.Request{Body: op.Marshal(doc)}, change); err != nil {
				t.Fatalf("the schema accepts %s, the filler says %v", op.Marshal(doc), places(err))
			}
		})
		if accepted == 0 || refused == 0 {
			t.Errorf("the generator shows nothing: %d accepted, %d refused", accepted, refused)
		}
	}
}

// What needs no coercion is accepted by both or by neither.
func TestWhatTheSchemaRefusesTheFillerRefuses(t *testing.T) {
	const whole = `{"name":"n","count":1,"words":["a"],"table":{}}`
	with := func(member string) string { return strings.TrimSuffix(whole, "}") + "," + member + "}" }
	schema, err := define[everything, op.None]().BodySchema().Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		`[]`, `{}`, `"x"`, strings.Replace(whole, `"n"`, `""`, 1), strings.Replace(whole, `"n"`, `"123456789"`, 1), strings.Replace(whole, `1`, `4`, 1),
		strings.Replace(whole, `1`, `1.5`, 1), strings.Replace(whole, `"a"`, ``, 1), strings.Replace(whole, `"a"`, `"c"`, 1), strings.Replace(whole, `{}`, `[]`, 1),
		with(`"mode":"off"`), with(`"mode":null`), with(`"code":"d"`), with(`"ratio":11`), with(`"on":[]`), with(`"object":[]`), with(`"part":{}`),
		with(`"part":{"a":"x","z":1}`), with(`"parts":[{"a":"abc"}]`), with(`"parts":[{"a":"a","z":1}]`), with(`"named":{"x":{"a":"a","z":1}}`), with(`"zzz":1`),
	} {
		var doc any
		if err := json.Unmarshal([]byte(text), &doc); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if schema.Validate(doc) == nil {
			t.Errorf("the schema accepts %s", text)
		}
		if _, err := read[everything](t, body(text)); err == nil {
			t.Errorf("the filler accepts %s", text)
		}
	}
}

// Exported is a type whose name the schema tells.
type Exported struct {
	A op.OffsetTime `json:"a"`
	B *grade        `json:"b"`
}

type grade string

func (grade) Words() []string { return []string{"good", "bad"} }

func TestSchemas(t *testing.T) {
	type inner struct {
		A op.OffsetTime `json:"a"`
		B *grade        `json:"b"`
	}
	type out struct {
		inner
		ID     string         `json:"id" doc:"What names it"`
		At     *op.Time       `json:"at"`
		Grade  grade          `json:"grade"`
		List   []Exported     `json:"list"`
		Table  map[string]int `json:"table,omitempty"`
		Raw    op.Object      `json:"raw"`
		Any    op.Value       `json:"any"`
		What   any            `json:"what"`
		Share  float64        `json:"share"`
		On     bool           `json:"on"`
		Hidden string         `json:"-"`
		Far    *Exported      `json:"far,omitzero"`
	}
	type query struct {
		Limit int              `json:"limit" default:"50" min:"1" doc:"How many"`
		Mode  op.Opt[string]   `json:"mode" enum:"a|b"`
		Since op.Opt[op.Time]  `json:"since"`
		URL   op.Clear[string] `json:"url" format:"url"`
	}
	o, q := define[everything, out](), define[query, op.None](get)
	got := map[string]any{"body": o.BodySchema(), "out": o.OutSchema(), "none": q.OutSchema(), "no body": q.BodySchema(), "unknown": q.FieldSchema("x")}
	for _, f := range q.Fields() {
		got["query "+f.Name] = q.FieldSchema(f.Name)
	}
	text, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	const golden = "testdata/schemas.json"
	if *update {
		if err := os.WriteFile(golden, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(text)); diff != "" {
		t.Error(diff)
	}
}

// Every schema is new: who changes one changes no other.
func TestSchemasAreCopies(t *testing.T) {
	o := define[everything, op.None]()
	first := string(op.Marshal(o.BodySchema()))
	s := o.BodySchema()
	s.Properties["mode"].Enum[0], s.Properties["mode"].Default[1] = "changed", '!'
	s.Required[0] = "changed"
	if second := string(op.Marshal(o.BodySchema())); second != first {
		t.Errorf("%s\n%s", first, second)
	}
}
