package cue

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"unstuck/internal/access"
)

// where gathers the conditions of a query and their arguments, for queries whose conditions are known only when they run.
type where struct {
	conds []string
	args  []any
}

// and adds a condition; each ? in it stands for the next argument.
func (w *where) and(cond string, args ...any) {
	var b strings.Builder
	for i, part := range strings.Split(cond, "?") {
		if i > 0 {
			b.WriteString(w.arg(args[i-1]))
		}
		b.WriteString(part)
	}
	w.conds = append(w.conds, b.String())
}

// arg adds an argument and returns how the query's text refers to it.
func (w *where) arg(v any) string {
	w.args = append(w.args, v)
	return "?" + strconv.Itoa(len(w.args))
}

// clone is a where to which more can be added while w stays as it is.
func (w *where) clone() *where { return &where{slices.Clone(w.conds), slices.Clone(w.args)} }

func (w *where) String() string { return " WHERE " + strings.Join(w.conds, " AND ") }

// seen adds what the restrictions "cues" of a caller say about a cue c: it must match a pattern of every list.
func (w *where) seen(filter [][]access.Pattern) {
	for _, list := range filter {
		p := patternsOf(list)
		w.and(sqlCueMatches, p.ids, p.names, p.low, p.high)
	}
}

// cueFilter is the caller's restriction to certain cues, without lists that let every cue pass; nil when there is none.
func cueFilter(c *access.Caller) [][]access.Pattern {
	return slices.DeleteFunc(c.CueFilter(), func(list []access.Pattern) bool {
		return slices.ContainsFunc(list, func(p access.Pattern) bool { return p.Any })
	})
}

// patterns are the entries of one list, sorted into what SQL compares: ids, whole names, and ranges of names.
type patterns struct{ ids, names, low, high []string }

func patternsOf(list []access.Pattern) patterns {
	var out patterns
	for _, p := range list {
		if p.Prefix != "" {
			out.low, out.high = append(out.low, p.Prefix), append(out.high, afterPrefix(p.Prefix))
			continue
		}
		out.names = append(out.names, p.Name)
		if p.ID != "" {
			out.ids = append(out.ids, p.ID)
		}
	}
	return out
}

// afterPrefix is the first text, in the order of bytes, after all texts with this beginning. UTF-8 sorts like code points.
func afterPrefix(prefix string) string {
	for prefix != "" {
		last, size := utf8.DecodeLastRuneInString(prefix)
		prefix = prefix[:len(prefix)-size]
		switch {
		case last == utf8.MaxRune:
			continue
		case last == 0xD7FF: // the code points after it are surrogates, which no text holds
			last = 0xE000
		default:
			last++
		}
		return prefix + string(last)
	}
	return strings.Repeat(string(utf8.MaxRune), 256) // longer than any name
}
