package op

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// MaxBody is how many bytes a request's body may have (CueAPI wire contract 1.11).
const MaxBody = 1 << 20

// Request is one call as a door received it.
type Request struct {
	Op        string      // name of the operation
	ID        string      // of this request, for logs and tickets
	Via       string      // the door, as the server itself can tell it: rest, mcp
	Client    string      // what the caller says it is (cli, stdio, …); shown, decides nothing
	Host      string      // the server's own name and port, as the caller wrote it; "" when the door does not know
	Peer      string      // the other end of the connection: address, or "unix"
	Forwarded []string    // X-Forwarded-For lines in their order
	Auth      string      // the Authorization header
	UserAgent string      //
	Header    http.Header // for inputs that travel in headers
	Query     url.Values
	Params    map[string]string // of the path
	Body      []byte
	// Fetch reads the body once the guard has admitted the call, and sets Body, and TooLarge or Broken; its error is the answer. nil:
	// Body is there already.
	Fetch    func(context.Context, *Call) error
	TooLarge bool        // the body is over MaxBody and was not read to its end
	Broken   error       // why the body could not be read to its end; nil when it was
	Answer   http.Header // what the headers of the answer are added to; nil: to a new one
}

// Response is what a door sends back. Exactly one of Body, Send and Err is meaningful.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
	Send   func(Sink) // of a Stream
	Err    *Error
}

// Call is one call on its way through the guard.
type Call struct {
	*Operation
	*Request
	Began time.Time
	// Header collects what the guard and the operation add to the answer.
	Header http.Header
	// Late is what a call answers that fails for what it sent: the guard found it to be over a limit and let it through all the same.
	// A failure of the server's own (5xx) stays what it is.
	Late error
	// Caller is whatever the guard found out about who calls.
	Caller any
}

// Guard decides about every call. Its methods run in this order; the first error is the answer.
type Guard interface {
	// Admit finds out who calls and counts the call against limits. The context it returns is the operation's.
	Admit(ctx context.Context, c *Call) (context.Context, error)
	// Permit checks the permission and what restrictions can be checked without knowing an object.
	Permit(ctx context.Context, c *Call) error
	// Fault says why a text may not be taken in, because it holds a secret where none belongs; "" when it may. It is asked about
	// every text of every input but those that Field.Secrets frees, and does not repeat the text.
	Fault(text string) string
	// Done hears how the call ended (nil: success), also when Admit refused it. It may add headers.
	Done(ctx context.Context, c *Call, err *Error)
}

// Set is all operations of the product behind their guard.
type Set struct {
	guard  Guard
	log    *slog.Logger
	now    func() time.Time
	list   []*Operation
	byName map[string]*Operation
	pool   sync.Pool // of *jsonWriter
}

// NewSet puts operations behind a guard. It panics when two share a name or a route, or name the parameters of one path
// differently. A set without a guard serves documentation and command lines; calling it is refused.
func NewSet(guard Guard, log *slog.Logger, now func() time.Time, ops ...*Operation) *Set {
	s := &Set{guard: guard, log: log, now: now, list: ops, byName: map[string]*Operation{}}
	taken := map[string]*Operation{} // by method and shape of the path
	paths := map[string]string{}     // by shape
	for _, o := range ops {
		if s.byName[o.Name] != nil {
			panic("op: two operations are named " + o.Name)
		}
		s.byName[o.Name] = o
		for _, route := range append([]string{o.Route}, o.Aliases...) {
			shape := pathParam.ReplaceAllString(route, "{}")
			if other := taken[shape]; other != nil {
				panic(fmt.Sprintf("op: %s and %s share the route %s", other.Name, o.Name, route))
			}
			taken[shape] = o
		}
		shape := pathParam.ReplaceAllString(o.Path(), "{}")
		if other := paths[shape]; other != "" && other != o.Path() {
			panic(fmt.Sprintf("op: %s says %s where another operation says %s", o.Name, o.Path(), other))
		}
		paths[shape] = o.Path()
	}
	return s
}

// All lists the operations in the order of their declaration.
func (s *Set) All() []*Operation { return slices.Clone(s.list) }

// Lookup finds an operation by name; nil when there is none.
func (s *Set) Lookup(name string) *Operation { return s.byName[name] }

// Codes lists every code that any operation can answer, and more besides, by status and name, each once.
func (s *Set) Codes(more ...Code) []Code {
	all := append(Common(), more...)
	for _, o := range s.list {
		all = append(all, o.Errors...)
	}
	slices.SortFunc(all, func(a, b Code) int {
		if a.Status != b.Status {
			return a.Status - b.Status
		}
		return strings.Compare(a.Name, b.Name)
	})
	return slices.Compact(all)
}

type callKey struct{}

// CallOf is the call that a context belongs to; nil outside an operation.
func CallOf(ctx context.Context) *Call {
	c, _ := ctx.Value(callKey{}).(*Call)
	return c
}

// Call runs one operation: announced body size, authentication, limits, the body with its size and JSON syntax, permission and restrictions that need no object,
// schema, then the operation itself.
func (s *Set) Call(ctx context.Context, r *Request) *Response {
	o := s.byName[r.Op]
	if o == nil || s.guard == nil {
		return &Response{Status: NotFound.Status, Header: r.Answer, Err: NotFound.Msg("There is no operation %q.", r.Op)}
	}
	if o.NoBody {
		r.Body, r.Fetch, r.TooLarge, r.Broken = nil, nil, false, nil
	}
	c := &Call{Operation: o, Request: r, Began: s.now(), Header: r.Answer}
	if c.Header == nil {
		c.Header = http.Header{}
	}
	ctx = context.WithValue(ctx, callKey{}, c)
	res := &Response{Status: o.Status, Header: c.Header}
	err := s.run(ctx, c, res)
	if err != nil && c.Late != nil && AsError(err).Code.Status < http.StatusInternalServerError {
		err = c.Late
	}
	if err != nil {
		res.Body, res.Send = nil, nil
		if res.Err = AsError(err); o.Fails != nil {
			res.Err = o.Fails(res.Err)
		}
		res.Status = res.Err.Code.Status
	}
	s.guard.Done(ctx, c, res.Err)
	if res.Err != nil {
		maps.Copy(c.Header, res.Err.Header)
	}
	s.logCall(ctx, c, res)
	return res
}

// run takes a call through all checks and its operation; the answer gets the JSON of the output, or its stream. A panic anywhere
// becomes an error.
func (s *Set) run(ctx context.Context, c *Call, res *Response) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = Internal.Wrap(fmt.Errorf("panic: %v\n%s", p, debug.Stack()), internalText)
		}
	}()
	if c.TooLarge {
		return tooLarge()
	}
	ctx, err = s.guard.Admit(ctx, c)
	if err != nil {
		return err
	}
	if err := c.fetch(ctx); err != nil {
		return err
	}
	doc, err := c.parseBody()
	if err != nil {
		return err
	}
	if err := s.guard.Permit(ctx, c); err != nil {
		return err
	}
	if c.Confirm && c.Request.Header.Get("X-Confirm-Destructive") != "true" {
		return ConfirmationGone.Msg("This action is destructive. Set X-Confirm-Destructive: true header to confirm.")
	}
	in := reflect.New(c.In)
	if err := c.decode(in.Elem(), doc, s.guard.Fault); err != nil {
		return err
	}
	out, err := c.Operation.run(ctx, in.Interface())
	if err != nil {
		return err
	}
	switch out := out.(type) {
	case None:
	case streamed:
		res.Send = out.sender()
	default:
		res.Body = s.marshal(out)
	}
	return nil
}

// fetch reads a body that the door has not read yet.
func (c *Call) fetch(ctx context.Context) error {
	if c.Request.Fetch == nil {
		return nil
	}
	if err := c.Request.Fetch(ctx, c); err != nil {
		return err
	}
	if c.TooLarge {
		return tooLarge()
	}
	return nil
}

func tooLarge() *Error { return TooLarge.Msg("Request body exceeds %d bytes", MaxBody) }

// marshal is Marshal with a buffer that was used before.
func (s *Set) marshal(v any) []byte {
	w, ok := s.pool.Get().(*jsonWriter)
	if !ok {
		w = newJSONWriter()
	}
	body := bytes.Clone(w.write(v))
	if w.buf.Cap() <= 64<<10 { // a rare large answer does not stay in memory
		s.pool.Put(w)
	}
	return body
}

// parseBody reads the body's syntax; its Content-Type is not looked at, because clients send a wrong one or none (CueAPI wire
// contract 1.3). An absent body and null are the same. GET and DELETE have none, whatever is sent; see misplaced.
func (c *Call) parseBody() (*node, error) {
	if m := c.Method(); m == "GET" || m == "DELETE" {
		return nil, nil
	}
	if c.Broken != nil {
		return nil, InvalidJSON.Wrap(c.Broken, "Request body is not valid JSON: it could not be read to its end.")
	}
	if len(bytes.TrimLeft(c.Body, " \t\r\n")) == 0 {
		return nil, nil
	}
	n, err := parse(c.Body)
	if err != nil {
		return nil, InvalidJSON.Msg("Request body is not valid JSON: %v.", err)
	}
	if n.kind == kindNull {
		return nil, nil
	}
	return n, nil
}

// decode fills the operation's input and collects everything that does not fit, in the order of declaration. refuse is Guard.Fault.
func (c *Call) decode(in reflect.Value, body *node, refuse func(string) string) error {
	if len(c.plan().fields) == 0 && body == nil {
		return nil
	}
	bad := faults{refuse: refuse}
	whole := c.bodyFault(body) // of the body as a whole, noted where its first field is declared
	if len(c.plan().body) == 0 && whole != "" {
		bad.noteAt(InBody, whole)
	}
	for _, f := range c.plan().fields {
		if f.In == InBody && whole != "" {
			if f == c.plan().body[0] {
				bad.noteAt(InBody, whole)
			}
			continue
		}
		bad.enter(string(f.In))
		bad.enter(f.Name)
		f.read(in, c.input(f, body), &bad)
		bad.path = bad.path[:0]
	}
	if body != nil && whole == "" && !c.Open {
		bad.enter(string(InBody))
		extras(c.plan().body, body, &bad)
		bad.leave()
	}
	if c.Method() == "DELETE" {
		c.misplaced(&bad)
	}
	return bad.err()
}

// misplaced notes what the body of a DELETE says and its query should: whoever sent it there would believe that it was heeded. Anything
// else in such a body says nothing to this operation and is passed over.
func (c *Call) misplaced(bad *faults) {
	body, err := parse(c.Body)
	if err != nil || body.kind != kindObject {
		return
	}
	bad.enter(string(InBody))
	for _, f := range c.plan().fields {
		if f.In == InQuery && body.get(f.Name) != nil {
			bad.enter(f.Name)
			bad.note("A DELETE has no body; send it in the query: ?%s=…", f.Name)
			bad.leave()
		}
	}
	bad.leave()
}

// bodyFault says what is wrong with the body as a whole; "" when it is an object, or absent and may be.
func (c *Call) bodyFault(body *node) string {
	required := func(f *field) bool { return f.Required }
	switch {
	case body == nil && slices.ContainsFunc(c.plan().body, required):
		return "Field required"
	case body != nil && body.kind != kindObject && (c.HasBody() || !c.Open):
		return notAnObject
	}
	return ""
}

// input is what was sent for a field; nil when nothing was.
func (c *Call) input(f *field, body *node) *node {
	switch f.In {
	case InPath:
		return &node{kind: kindString, str: c.Params[f.Name]}
	case InQuery:
		return textNode(f, c.Query[f.Name])
	case InHeader:
		return textNode(f, c.Request.Header.Values(f.Name))
	}
	if body == nil {
		return nil
	}
	return body.get(f.Name)
}

// textNode is a query parameter or header: the last of several counts, a list takes all of them.
func textNode(f *field, values []string) *node {
	if len(values) == 0 {
		return nil
	}
	if !f.List() {
		return &node{kind: kindString, str: values[len(values)-1]}
	}
	n := &node{kind: kindArray}
	for _, v := range values {
		n.kids = append(n.kids, &node{kind: kindString, str: v})
	}
	return n
}

// logCall writes the one line of a call. Reads that succeed are for debugging; faults of ours are errors, but a caller who went
// away is none.
func (s *Set) logCall(ctx context.Context, c *Call, res *Response) {
	level := slog.LevelInfo
	switch {
	case res.Err == nil && c.Effect == Read:
		level = slog.LevelDebug
	case res.Status >= 500 && !errors.Is(res.Err, context.Canceled):
		level = slog.LevelError
	}
	if !s.log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("op", c.Name), slog.Int("status", res.Status), slog.Duration("took", s.now().Sub(c.Began)),
		slog.String("request", c.ID), slog.String("via", c.Via),
	}
	if v, ok := c.Caller.(slog.LogValuer); ok {
		attrs = append(attrs, slog.Any("caller", v))
	}
	if res.Err != nil {
		attrs = append(attrs, slog.String("code", res.Err.Code.Name))
		if cause := errors.Unwrap(res.Err); cause != nil {
			attrs = append(attrs, slog.String("cause", cause.Error()))
		}
	}
	s.log.LogAttrs(ctx, level, "call", attrs...)
}
