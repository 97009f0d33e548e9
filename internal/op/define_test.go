package op_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"unstuck/internal/op"
)

// panics runs f and answers what it panicked with; "" when it did not.
func panics(f func()) (message string) {
	defer func() {
		if p := recover(); p != nil {
			message = fmt.Sprint(p)
		}
	}()
	f()
	return ""
}

// define declares an operation that takes In and answers Out, and reads its input.
func define[In, Out any](changes ...func(*op.Spec)) *op.Operation {
	o := op.Define(spec(changes...), func(context.Context, In) (out Out, err error) { return out, nil })
	o.Fields()
	return o
}

type empty struct{}

func TestDefineRefusesWhatForgetsSomething(t *testing.T) {
	type (
		id struct {
			ID string `json:"id"`
		}
		untagged struct{ ID string }
		twice    struct {
			A string `json:"a"`
			B string `header:"a"`
		}
		floats struct {
			A float64 `json:"a"`
		}
		keys struct {
			A map[int]string `json:"a"`
		}
		badRE struct {
			A string `json:"a" re:"("`
		}
		badMin struct {
			A int `json:"a" min:"one"`
		}
		badMax struct {
			A int `json:"a" max:"1.5"`
		}
		form struct {
			A string `json:"a" format:"phone"`
		}
		noUse struct {
			A bool `json:"a" max:"1"`
		}
		enumInt struct {
			A int `json:"a" enum:"1|2"`
		}
		badDef struct {
			A int `json:"a" default:"200" max:"100"`
		}
		noJSON struct {
			A []int `json:"a" default:"1,2"`
		}
		deep struct {
			A op.Object `json:"a"`
		}
	)
	route := func(r string) func(*op.Spec) { return func(s *op.Spec) { s.Route = r } }
	for want, f := range map[string]func(){
		"name must be noun.verb":            func() { define[empty, op.None](func(s *op.Spec) { s.Name = "make" }) },
		`route "/v1/things" must be`:        func() { define[empty, op.None](route("/v1/things")) },
		`route "FETCH /v1/things" must`:     func() { define[empty, op.None](route("FETCH /v1/things")) },
		`route "POST things" must`:          func() { define[empty, op.None](route("POST things")) },
		"needs is missing":                  func() { define[empty, op.None](func(s *op.Spec) { s.Needs = "" }) },
		"effect is missing":                 func() { define[empty, op.None](func(s *op.Spec) { s.Effect = 0 }) },
		"a GET must only read":              func() { define[empty, op.None](get, func(s *op.Spec) { s.Effect = op.Write }) },
		"doc and may are required":          func() { define[empty, op.None](func(s *op.Spec) { s.Doc = "" }) },
		"doc and may are required\n":        func() { define[empty, op.None](func(s *op.Spec) { s.May = "" }) },
		"status 204 and the output None":    func() { define[empty, op.None](func(s *op.Spec) { s.Status = 200 }) },
		"status 204 and the output None\n":  func() { define[empty, id](func(s *op.Spec) { s.Status = 204 }) },
		"has {id}, but":                     func() { define[empty, op.None](ordered) },
		`alias "PUT /v1/x" must have`:       func() { define[empty, op.None](func(s *op.Spec) { s.Aliases = []string{"PUT /v1/x"} }) },
		`alias "POST /v1/{x}" must have`:    func() { define[empty, op.None](func(s *op.Spec) { s.Aliases = []string{"POST /v1/{x}"} }) },
		"int is no struct":                  func() { define[int, op.None]() },
		"json or header tag is missing":     func() { define[untagged, op.None]() },
		`two fields named "a"`:              func() { define[twice, op.None]() },
		"cannot have the type float64":      func() { define[floats, op.None]() },
		"its keys are not strings":          func() { define[keys, op.None]() },
		"re: error parsing regexp":          func() { define[badRE, op.None]() },
		"min: strconv":                      func() { define[badMin, op.None]() },
		"max: strconv":                      func() { define[badMax, op.None]() },
		`unknown format "phone"`:            func() { define[form, op.None]() },
		"min and max are for":               func() { define[noUse, op.None]() },
		"enum, re, format and nul are":      func() { define[enumInt, op.None]() },
		"default 200: Input should be less": func() { define[badDef, op.None]() },
		"default: something follows":        func() { define[noJSON, op.None]() },
		"travels in the query, which":       func() { define[deep, op.None](get) },
	} {
		if got := panics(f); !strings.Contains(got, strings.TrimSpace(want)) {
			t.Errorf("panic is %q, want it to contain %q", got, want)
		}
	}
	if got := panics(func() { define[id, op.None](ordered) }); got != "" {
		t.Errorf("a whole declaration panics: %s", got)
	}
}

func TestSetRefusesWhatIsDeclaredTwice(t *testing.T) {
	type id struct {
		ID string `json:"id"`
	}
	type key struct {
		Key string `json:"key"`
	}
	declare := func(name, route string, aliases ...string) *op.Operation {
		change := func(s *op.Spec) { s.Name, s.Route, s.Aliases = name, route, aliases }
		if strings.Contains(route, "{key}") {
			return define[key, op.None](change)
		}
		return define[id, op.None](change)
	}
	one := declare("thing.make", "POST /v1/things/{id}")
	for want, other := range map[string]*op.Operation{
		"two operations are named thing.make":                                          declare("thing.make", "POST /v1/other"),
		"thing.make and other.make share the route":                                    declare("other.make", "POST /v1/things/{key}"),
		"share the route POST /v1/things/{id}":                                         declare("other.make", "POST /v1/others/{id}", "POST /v1/things/{id}"),
		"other.put says /v1/things/{key} where another operation says /v1/things/{id}": declare("other.put", "PUT /v1/things/{key}"),
	} {
		if got := panics(func() { setOf(nil, one, other) }); !strings.Contains(got, want) {
			t.Errorf("panic is %q, want it to contain %q", got, want)
		}
	}
	s := setOf(nil, one, declare("thing.put", "PUT /v1/things/{id}"))
	if len(s.All()) != 2 || s.Lookup("thing.put") != s.All()[1] || s.Lookup("thing.eat") != nil {
		t.Errorf("the set has %v", s.All())
	}
}

func TestWhatIsKnownOfAnOperation(t *testing.T) {
	o := define[order, op.None](ordered, func(s *op.Spec) { s.Doc = "Make an order\n\nIt is made at once." })
	for got, want := range map[string]string{
		o.Method(): "POST", o.Path(): "/v1/orders/{id}", o.Noun(): "thing", o.Verb(): "make",
		o.Summary(): "Make an order", o.Description(): "It is made at once.", o.Effect.String(): "write",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	var names []string
	for _, f := range o.Fields() {
		names = append(names, string(f.In)+"."+f.Name)
	}
	const want = "path.id header.X-Worker-Id body.name body.mode body.code body.count body.retry body.parts"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("fields are %s, want %s", got, want)
	}
	if !o.HasBody() || define[empty, op.None]().HasBody() {
		t.Error("HasBody")
	}
	if f := o.Fields(); !f[7].List() || f[6].List() {
		t.Error("List")
	}
}

func TestNeeds(t *testing.T) {
	for _, c := range []struct {
		need                   op.Need
		permission, self, text string
		isSelf                 bool
	}{
		{op.Public, "", "", "public", false},
		{op.AnyKey, "", "", "any key", false},
		{"cues:read", "cues:read", "", "cues:read", false},
		{"selfies:read", "selfies:read", "", "selfies:read", false},
		{op.SelfOr("keys:write"), "keys:write", "", "itself, or keys:write", true},
		{op.SelfWith("keys:rotate-self", "keys:write"), "keys:write", "keys:rotate-self", "keys:rotate-self (itself), or keys:write", true},
	} {
		self, isSelf := c.need.Self()
		if c.need.Permission() != c.permission || self != c.self || isSelf != c.isSelf || c.need.String() != c.text {
			t.Errorf("%q: permission %q, self %q %v, text %q", string(c.need), c.need.Permission(), self, isSelf, c.need)
		}
	}
}
