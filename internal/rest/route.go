package rest

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"unstuck/internal/op"
)

// route is one method on one path: an operation, or a handler that is mounted as it is.
type route struct {
	method string
	params []string // names of the parameters of the path, in their order
	op     *op.Operation
	query  bool // the operation has inputs in the query
	mount  http.Handler
}

// maxParams is how many parameters a path may have.
const maxParams = 4

// branch is what can follow one beginning of a path. The empty branch is the root of a router.
type branch struct {
	static map[string]*branch
	param  *branch
	routes []*route
}

// add puts a route at "METHOD /path/{param}". It panics when the place is taken or the pattern is none.
func (b *branch) add(pattern string, r *route) {
	method, path, ok := strings.Cut(pattern, " ")
	if !ok || !strings.HasPrefix(path, "/") {
		panic(fmt.Sprintf("rest: %q is not METHOD /path", pattern))
	}
	for segment := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if segment != "" {
			b = b.grow(segment, r)
		}
	}
	if slices.ContainsFunc(b.routes, func(other *route) bool { return other.method == method }) || len(r.params) > maxParams {
		panic("rest: two things answer " + pattern + ", or it has too many parameters")
	}
	r.method = method
	b.routes = append(b.routes, r)
}

// grow is the branch for one more segment of a pattern, made if need be.
func (b *branch) grow(segment string, r *route) *branch {
	if name, ok := strings.CutPrefix(segment, "{"); ok {
		r.params = append(r.params, strings.TrimSuffix(name, "}"))
		if b.param == nil {
			b.param = &branch{}
		}
		return b.param
	}
	if b.static == nil {
		b.static = map[string]*branch{}
	}
	if b.static[segment] == nil {
		b.static[segment] = &branch{}
	}
	return b.static[segment]
}

// path is one that is being looked up.
type path struct {
	escaped bool              // segments are percent-encoded
	values  [maxParams]string // of the parameters on the way
}

// find looks up what answers at a path, and the values of its parameters; nil when nothing does. Slashes at the beginning and the
// end do not matter. A fixed segment wins over a parameter, as OpenAPI has it, unless only the parameter leads to anything:
// with /things/self and /things/{id}/parts, /things/self/parts is about the thing "self".
func (b *branch) find(u *url.URL) (*branch, [maxParams]string) {
	var p path
	text := u.Path
	if u.RawPath != "" { // the encoding matters: a parameter may hold a slash
		text, p.escaped = u.EscapedPath(), true
	}
	end := p.walk(b, strings.Trim(text, "/"), 0)
	return end, p.values
}

func (p *path) walk(b *branch, rest string, n int) *branch {
	if rest == "" {
		if len(b.routes) == 0 {
			return nil
		}
		return b
	}
	segment, rest, _ := strings.Cut(rest, "/")
	if p.escaped {
		var err error
		if segment, err = url.PathUnescape(segment); err != nil {
			return nil
		}
	}
	if next := b.static[segment]; next != nil {
		if end := p.walk(next, rest, n); end != nil {
			return end
		}
	}
	if b.param == nil || segment == "" || n == maxParams {
		return nil
	}
	p.values[n] = segment
	return p.walk(b.param, rest, n+1)
}

// pick is the route with a method, or nil. HEAD is served as GET, whose body net/http leaves out.
func (b *branch) pick(method string) *route {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for _, r := range b.routes {
		if r.method == method {
			return r
		}
	}
	return nil
}

// allow lists the methods, as an Allow header wants them.
func (b *branch) allow() string {
	var methods []string
	for _, r := range b.routes {
		methods = append(methods, r.method)
		if r.method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
	}
	slices.Sort(methods)
	return strings.Join(methods, ", ")
}

// named are the values of the route's parameters by name; nil when it has none.
func (r *route) named(values [maxParams]string) map[string]string {
	if len(r.params) == 0 {
		return nil
	}
	m := make(map[string]string, len(r.params))
	for i, name := range r.params {
		m[name] = values[i]
	}
	return m
}
