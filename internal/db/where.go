package db

import (
	"slices"
	"strconv"
	"strings"
)

// Where gathers the conditions of a query and their arguments, for queries whose conditions are known only when they run. Its zero
// value has none.
type Where struct {
	conds []string
	Args  []any
}

// And adds a condition; each ? in it stands for the next argument.
func (w *Where) And(cond string, args ...any) {
	var b strings.Builder
	for i, part := range strings.Split(cond, "?") {
		if i > 0 {
			b.WriteString(w.Arg(args[i-1]))
		}
		b.WriteString(part)
	}
	w.conds = append(w.conds, b.String())
}

// Arg adds an argument and returns how the query's text refers to it.
func (w *Where) Arg(v any) string {
	w.Args = append(w.Args, v)
	return "?" + strconv.Itoa(len(w.Args))
}

// Clone is a Where to which more can be added while w stays as it is.
func (w *Where) Clone() *Where { return &Where{slices.Clone(w.conds), slices.Clone(w.Args)} }

// String is " WHERE " and all conditions, of which there must be one at least.
func (w *Where) String() string { return " WHERE " + strings.Join(w.conds, " AND ") }
