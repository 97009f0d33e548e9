// Package op says what an operation is. An operation is declared once, with Define, and every door (REST, command line, and
// whatever comes later) is generated from the set of operations. The package knows no noun of the product and no protocol.
//
// A set can only be called through its Guard: operations are values whose function nobody outside this package can reach,
// so no door can skip authorisation.
package op

import (
	"context"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Effect says what a successful call does to the world. The zero value is invalid: nobody may forget to say it.
type Effect int

const (
	Read    Effect = iota + 1 // changes nothing that a caller can see
	Write                     // creates or changes something
	Destroy                   // ends something for good; the command line asks before it does
)

func (e Effect) String() string { return [...]string{"", "read", "write", "destroy"}[e] }

// Narrowing says what a key that is restricted to certain objects may do with an operation.
type Narrowing int

const (
	Whole    Narrowing = iota // nothing: the operation is about the workspace as a whole
	ByObject                  // the operation itself lets the key see and touch only its objects
	Always                    // everything: the operation is about the caller itself
)

// Reach says about which keys or members beside the caller an operation may be. What it leaves out depends on the caller.
type Reach int

const (
	ReachAll    Reach = iota
	ReachBelow        // for a restricted key: only itself and the keys that it made
	ReachView         // the same, for a key that is for certain cues
	ReachSecret       // it shows a secret: the same, for every integration key; for members no other member's personal keys, and none that hold more
	ReachGive         // it gives a key more: not itself, and none that hold more
	ReachRole         // it sets a role: none that hold more
)

// Spec is everything that is declared about an operation. Name, Route, Needs, Effect, May and Doc are required.
type Spec struct {
	Name    string   // noun.verb, a promise: "key.revoke"
	Route   string   // "POST /v1/keys/{id}/revoke"; the names in braces are fields of the input
	Aliases []string // further routes that answer the same
	Needs   Need     // what the caller must hold
	Effect  Effect
	May     string // completes "This key may not …": "revoke keys"
	Doc     string // first line: summary, "Revoke an API key"; the rest: description

	Narrow     Narrowing
	Idempotent bool // repeating the call has no further effect
	Unaudited  bool // leaves no row in the audit log although it is not Read
	Members    bool // only for members, with a personal key
	Hands      bool // hands out what the caller's restrictions do not bind: only for keys without any
	Below      bool // what an integration key hands out lies below it, so that Hands concerns personal keys only
	Reach      Reach
	Secretive  bool   // its input must not be sent back or kept, not even to whoever sent it
	Open       bool   // unknown fields of the body are ignored; otherwise each is a violation
	Confirm    bool   // wants the header X-Confirm-Destructive: true (CueAPI wire contract 1.14)
	Lenient    bool   // over the rate limit the operation decides itself whether to refuse (access.OverLimit)
	Uncounted  bool   // exempt from the rate limit (CueAPI wire contract 1.13)
	Exit       bool   // a key may do it to itself whatever its restrictions and over every limit (KEYS 4: never refused)
	NoBody     bool   // whatever body comes is ignored, of any size and form
	Status     int    // of success; 0: 200, or 204 when the output is None
	Errors     []Code // codes of its own, beside those that every operation has

	// Fails turns every failure, also those of its form, into what this operation's callers understand; nil: it stays as it is.
	Fails func(*Error) *Error
}

// None is the output of an operation that answers with no body.
type None struct{}

// Operation is a declared operation: what is known about it, and, hidden, its function.
type Operation struct {
	Spec
	In, Out reflect.Type
	plan    func() *plan                                   // compiled at the first use: a command line needs one of many
	run     func(ctx context.Context, in any) (any, error) // in is a pointer to a value of type In
}

var nameForm = regexp.MustCompile(`^[a-z_]+\.[a-z_]+$`)

// Define declares an operation. It panics when the declaration forgets something that must not be forgotten, so that the
// first test that builds the set fails. The type of the input is read when it is first asked for, with a panic as well: a server does
// so at its start, for its routes.
func Define[In, Out any](s Spec, fn func(context.Context, In) (Out, error)) *Operation {
	in, out := reflect.TypeFor[In](), reflect.TypeFor[Out]()
	if s.Status == 0 {
		s.Status = 200
		if out == reflect.TypeFor[None]() {
			s.Status = 204
		}
	}
	o := &Operation{Spec: s, In: in, Out: out}
	if err := o.check(); err != nil {
		panic(fmt.Sprintf("op.Define %q: %v", s.Name, err))
	}
	o.plan = sync.OnceValue(o.compiled)
	o.run = func(ctx context.Context, in any) (any, error) { return fn(ctx, *in.(*In)) }
	return o
}

func (o *Operation) check() error {
	method, path, ok := strings.Cut(o.Route, " ")
	switch {
	case !nameForm.MatchString(o.Name):
		return fmt.Errorf("name must be noun.verb")
	case !ok || !strings.HasPrefix(path, "/") || !slices.Contains([]string{"GET", "POST", "PUT", "PATCH", "DELETE"}, method):
		return fmt.Errorf("route %q must be METHOD /path", o.Route)
	case o.Needs == "":
		return fmt.Errorf("needs is missing: say op.Public, op.AnyKey or a permission")
	case o.Effect < Read || o.Effect > Destroy:
		return fmt.Errorf("effect is missing")
	case method == "GET" && o.Effect != Read:
		return fmt.Errorf("a GET must only read")
	case o.Doc == "" || o.May == "":
		return fmt.Errorf("doc and may are required")
	case (o.Out == reflect.TypeFor[None]()) != (o.Status == 204):
		return fmt.Errorf("status 204 and the output None belong together")
	}
	for _, alias := range o.Aliases {
		m, p, _ := strings.Cut(alias, " ")
		if m != method || !strings.HasPrefix(p, "/") || !slices.Equal(pathParams(p), pathParams(path)) {
			return fmt.Errorf("alias %q must have the method and the parameters of the route", alias)
		}
	}
	return nil
}

// compiled is how the input is read. It panics for a type that cannot be read.
func (o *Operation) compiled() *plan {
	p, err := compile(o.In, o.Route, !o.Open)
	if err != nil {
		panic(fmt.Sprintf("op.Define %q: %v", o.Name, err))
	}
	return p
}

// Method is the first half of the route.
func (o *Operation) Method() string { m, _, _ := strings.Cut(o.Route, " "); return m }

// Path is the route without its method, with parameters in braces.
func (o *Operation) Path() string { _, p, _ := strings.Cut(o.Route, " "); return p }

// Noun is the part of the name before the dot.
func (o *Operation) Noun() string { n, _, _ := strings.Cut(o.Name, "."); return n }

// Verb is the part of the name after the dot.
func (o *Operation) Verb() string { _, v, _ := strings.Cut(o.Name, "."); return v }

// Summary is the first line of the documentation.
func (o *Operation) Summary() string { s, _, _ := strings.Cut(o.Doc, "\n"); return s }

// Description is the documentation without its first line; it may be empty.
func (o *Operation) Description() string {
	_, d, _ := strings.Cut(o.Doc, "\n")
	return strings.TrimSpace(d)
}

// Fields lists the inputs in the order of their declaration.
func (o *Operation) Fields() []Field {
	fields := o.plan().fields
	out := make([]Field, len(fields))
	for i, f := range fields {
		out[i] = f.Field
	}
	return out
}

// HasBody says whether any input travels in the body of the request.
func (o *Operation) HasBody() bool { return len(o.plan().body) > 0 }
