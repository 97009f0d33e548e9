package access

import (
	"strings"
	"unicode/utf8"

	"unstuck/internal/db"
)

// sqlCueMatches is a condition of a query in which c is a cue: the ids, names and ranges of names of one list of patterns.
const sqlCueMatches = `(c.id IN @list(?) OR c.name IN @list(?) OR EXISTS (
	SELECT 1 FROM @rows(low TEXT ?, high TEXT ?) AS p WHERE c.name >= p.low AND c.name < p.high))`

// OnlyCues adds to the conditions of a query what restrictions "cues", as [Caller.CueFilter] has them, say about its cue c: it must
// match a pattern of every list.
func OnlyCues(w *db.Where, filter [][]Pattern) {
	for _, list := range filter {
		p := SortPatterns(list)
		w.And(sqlCueMatches, p.IDs, p.Names, p.Low, p.High)
	}
}

// Patterns are the entries of one list, sorted into what SQL compares: ids, whole names, and ranges of names from Low to before High.
type Patterns struct{ IDs, Names, Low, High []string }

// SortPatterns sorts a list in which no entry stands for every cue.
func SortPatterns(list []Pattern) Patterns {
	var out Patterns
	for _, p := range list {
		if p.Prefix != "" {
			out.Low, out.High = append(out.Low, p.Prefix), append(out.High, AfterPrefix(p.Prefix))
			continue
		}
		out.Names = append(out.Names, p.Name)
		if p.ID != "" {
			out.IDs = append(out.IDs, p.ID)
		}
	}
	return out
}

// AfterPrefix is the first text, in the order of bytes, after all texts with this beginning. UTF-8 sorts like code points.
func AfterPrefix(prefix string) string {
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
