package op

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxFaults is how many violations an answer lists; a body can hold half a million, which would help nobody.
const maxFaults = 100

// Violation is one input that does not fit: where ("body.schedule.cron") and why.
type Violation struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// faults collects what does not fit. It knows the place that is being read, and spells it out only when something is wrong there.
type faults struct {
	list   []Violation
	path   []step
	refuse func(text string) string // Guard.Fault; nil takes every text in
}

// step is one part of a place: the index of a list entry, or a name, whose index is -1.
type step struct {
	name  string
	index int
}

func (b *faults) enter(name string) { b.path = append(b.path, step{name, -1}) }
func (b *faults) enterIndex(i int)  { b.path = append(b.path, step{"", i}) }
func (b *faults) leave()            { b.path = b.path[:len(b.path)-1] }

// err is the 422 that lists everything that was noted; nil when there is nothing.
func (b *faults) err() error {
	if len(b.list) == 0 {
		return nil
	}
	return violations(b.list)
}

// note adds a violation at the present place.
func (b *faults) note(format string, args ...any) {
	if len(b.list) < maxFaults {
		b.list = append(b.list, Violation{b.place(), fmt.Sprintf(format, args...)})
	}
}

// noteAt is note for a whole part of the request.
func (b *faults) noteAt(where Place, message string) {
	b.enter(string(where))
	b.note("%s", message)
	b.leave()
}

// refused notes a text that the guard does not let in, and says whether it is one.
func (b *faults) refused(text string) bool {
	if b.refuse == nil {
		return false
	}
	why := b.refuse(text)
	if why != "" {
		b.note("Value error, %s", why)
	}
	return why != ""
}

// refusedIn is refused for the first such text in a JSON value, names of members included.
func (b *faults) refusedIn(n *node) bool {
	return n.kind == kindString && b.refused(n.str) || slices.ContainsFunc(n.keys, b.refused) || slices.ContainsFunc(n.kids, b.refusedIn)
}

func (b *faults) place() string {
	parts := make([]string, len(b.path))
	for i, s := range b.path {
		if parts[i] = s.name; s.index >= 0 {
			parts[i] = strconv.Itoa(s.index)
		}
	}
	return strings.Join(parts, ".")
}

// Invalid is the 422 for one input that does not fit; field is dotted, with its place first: "body.ips.0".
func Invalid(field, format string, args ...any) *Error {
	return violations([]Violation{{field, fmt.Sprintf(format, args...)}})
}

func violations(v []Violation) *Error {
	e := ValidationError.Msg("%s: %s", v[0].Field, v[0].Message)
	e.Details = v
	return e
}
