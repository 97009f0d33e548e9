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

// search is one look-up. values are those of the parameters of the route that was found; allow are the methods that the path
// has when it has not this one.
type search struct {
	method  string
	escaped bool // segments are percent-encoded
	values  [maxParams]string
	allow   []string
}

// find looks a path up. Slashes at its beginning and end do not matter. A fixed segment wins over a parameter, unless only the
// parameter leads to a route with the method: GET /v1/executions/claim is about an execution called "claim" when only POST has
// that path. HEAD is served as GET, whose body net/http leaves out.
func (b *branch) find(method string, u *url.URL) (*route, search) {
	s := search{method: method}
	if method == http.MethodHead {
		s.method = http.MethodGet
	}
	path := u.Path
	if u.RawPath != "" { // the encoding matters: a parameter may hold a slash
		path, s.escaped = u.EscapedPath(), true
	}
	r := s.walk(b, strings.Trim(path, "/"), 0)
	return r, s
}

func (s *search) walk(b *branch, rest string, n int) *route {
	if rest == "" {
		return s.pick(b.routes)
	}
	segment, rest, _ := strings.Cut(rest, "/")
	if s.escaped {
		var err error
		if segment, err = url.PathUnescape(segment); err != nil {
			return nil
		}
	}
	if next := b.static[segment]; next != nil {
		if r := s.walk(next, rest, n); r != nil {
			return r
		}
	}
	if b.param == nil || segment == "" || n == maxParams {
		return nil
	}
	s.values[n] = segment
	return s.walk(b.param, rest, n+1)
}

// pick is the route with the method, or nil, with the methods that there are noted.
func (s *search) pick(routes []*route) *route {
	for _, r := range routes {
		if r.method == s.method {
			return r
		}
	}
	for _, r := range routes {
		s.allow = append(s.allow, r.method)
		if r.method == http.MethodGet {
			s.allow = append(s.allow, http.MethodHead)
		}
	}
	return nil
}

// params are the values of the route's parameters by name; nil when it has none.
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
