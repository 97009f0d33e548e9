package webhook

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Bounds of what Body accepts: integers as in CueAPI wire contract 4; nesting is that of a payload (64) and what is put around it.
const (
	maxDigits = 4300
	maxDepth  = 100
)

// Body writes a JSON document as Python's json.dumps(document, sort_keys=True) does (CueAPI wire contract 4). These are the bytes
// to send and to sign: CueAPI's verify_webhook parses what it receives and writes it again before it computes the HMAC, and
// only these bytes survive that unchanged. Applied to its own result it changes nothing.
//
//   - keys are sorted by code point, of equal ones the last stays; separators are ", " and ": ";
//   - characters outside U+0020 to U+007E are written \uxxxx, in lower case, above U+FFFF as a surrogate pair;
//   - numbers without fraction and exponent keep their digits (-0 becomes 0), all others become the shortest text that reads as
//     the same double: 1.0, 0.0001, 1e-05, 1e+16.
//
// It refuses what is no JSON or could not survive: bytes that are not UTF-8, half a surrogate pair, integers over 4,300 digits,
// numbers that overflow a double, nesting over 100.
func Body(document []byte) ([]byte, error) {
	w := writer{in: document, out: make([]byte, 0, len(document)+len(document)/8+16)}
	if err := w.value(0); err != nil {
		return nil, fmt.Errorf("write JSON as Python does: %w", err)
	}
	if w.space(); w.pos < len(w.in) {
		return nil, w.fail("something follows the end of the document")
	}
	return w.out, nil
}

// writer reads in from pos on and writes out.
type writer struct {
	in      []byte
	pos     int
	out     []byte
	scratch []byte // for putting the members of an object into order
}

func (w *writer) fail(what string) error { return fmt.Errorf("%s at byte %d", what, w.pos+1) }

func (w *writer) space() {
	for w.pos < len(w.in) && (w.in[w.pos] == ' ' || w.in[w.pos] == '\t' || w.in[w.pos] == '\r' || w.in[w.pos] == '\n') {
		w.pos++
	}
}

// peek is the next byte, 0 at the end.
func (w *writer) peek() byte {
	if w.pos < len(w.in) {
		return w.in[w.pos]
	}
	return 0
}

func (w *writer) put(s string) { w.out = append(w.out, s...) }

// value copies one value that lies in depth lists and objects.
func (w *writer) value(depth int) error {
	w.space()
	switch c := w.peek(); {
	case depth == maxDepth && (c == '{' || c == '['):
		return w.fail("too many levels of nesting")
	case c == '{':
		return w.object(depth + 1)
	case c == '[':
		return w.array(depth + 1)
	case c == '"':
		return w.string()
	case c == '-' || c >= '0' && c <= '9':
		return w.number()
	}
	for _, word := range [...]string{"null", "true", "false"} {
		if len(w.in)-w.pos >= len(word) && string(w.in[w.pos:w.pos+len(word)]) == word {
			w.pos += len(word)
			w.put(word)
			return nil
		}
	}
	return w.fail("a value was expected")
}

func (w *writer) array(depth int) error {
	w.pos++
	w.put("[")
	if w.space(); w.peek() == ']' {
		w.pos++
		w.put("]")
		return nil
	}
	for {
		if err := w.value(depth); err != nil {
			return err
		}
		w.space()
		switch w.peek() {
		case ',':
			w.put(", ")
		case ']':
			w.pos++
			w.put("]")
			return nil
		default:
			return w.fail("a comma or ] was expected")
		}
		w.pos++
	}
}

// member is one member of an object: its key, and where it stands in the output.
type member struct {
	key      string
	from, to int
}

func (w *writer) object(depth int) error {
	w.pos++
	w.put("{")
	start := len(w.out)
	var room [8]member
	members, sorted := room[:0], true
	for {
		w.space()
		if w.peek() == '}' && len(members) == 0 {
			break
		}
		m, err := w.member(depth)
		if err != nil {
			return err
		}
		sorted = sorted && (len(members) == 0 || members[len(members)-1].key < m.key)
		members = append(members, m)
		w.space()
		if c := w.peek(); c == '}' {
			break
		} else if c != ',' {
			return w.fail("a comma or } was expected")
		}
		w.pos++
		w.put(", ")
	}
	w.pos++
	if !sorted {
		w.sort(start, members)
	}
	w.put("}")
	return nil
}

func (w *writer) member(depth int) (member, error) {
	if w.peek() != '"' {
		return member{}, w.fail("a key in quotes was expected")
	}
	m := member{from: len(w.out)}
	start := w.pos
	if err := w.string(); err != nil {
		return m, err
	}
	m.key = unquote(w.in[start+1 : w.pos-1])
	if w.space(); w.peek() != ':' {
		return m, w.fail("a colon was expected")
	}
	w.pos++
	w.put(": ")
	err := w.value(depth)
	m.to = len(w.out)
	return m, err
}

// sort puts the members that were written from start on into the order of their keys, of equal ones only the last.
func (w *writer) sort(start int, members []member) {
	slices.SortStableFunc(members, func(a, b member) int { return cmp.Compare(a.key, b.key) })
	w.scratch = append(w.scratch[:0], w.out[start:]...)
	w.out = w.out[:start]
	for i, m := range members {
		if i+1 < len(members) && members[i+1].key == m.key {
			continue
		}
		if len(w.out) > start {
			w.put(", ")
		}
		w.out = append(w.out, w.scratch[m.from-start:m.to-start]...)
	}
}

func (w *writer) number() error {
	from, whole := w.pos, true
	if w.peek() == '-' {
		w.pos++
	}
	lead := w.pos
	n := w.digits()
	bad := n == 0 || n > 1 && w.in[lead] == '0'
	if w.peek() == '.' {
		w.pos++
		whole, bad = false, w.digits() == 0 || bad
	}
	if c := w.peek(); c == 'e' || c == 'E' {
		w.pos++
		if c := w.peek(); c == '+' || c == '-' {
			w.pos++
		}
		whole, bad = false, w.digits() == 0 || bad
	}
	text := string(w.in[from:w.pos])
	switch {
	case bad:
		return w.fail("that is not a number")
	case !whole:
		return w.double(text)
	case n > maxDigits:
		return w.fail("an integer of more than 4300 digits")
	case text == "-0":
		text = "0"
	}
	w.put(text)
	return nil
}

func (w *writer) digits() (n int) {
	for ; w.peek() >= '0' && w.peek() <= '9'; w.pos++ {
		n++
	}
	return n
}

// double writes a number as Python's repr writes a float.
func (w *writer) double(text string) error {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return w.fail("a number that is too large")
	}
	if abs := max(f, -f); abs != 0 && (abs < 1e-4 || abs >= 1e16) {
		w.out = strconv.AppendFloat(w.out, f, 'e', -1, 64)
		return nil
	}
	from := len(w.out)
	w.out = strconv.AppendFloat(w.out, f, 'f', -1, 64)
	if !slices.Contains(w.out[from:], '.') {
		w.put(".0")
	}
	return nil
}

// string copies a string with its quotes.
func (w *writer) string() error {
	w.pos++
	w.put(`"`)
	for {
		plain := w.pos
		for plain < len(w.in) && w.in[plain] >= ' ' && w.in[plain] <= '~' && w.in[plain] != '"' && w.in[plain] != '\\' {
			plain++
		}
		w.out = append(w.out, w.in[w.pos:plain]...)
		w.pos = plain
		if w.peek() == '"' && plain < len(w.in) {
			w.pos++
			w.put(`"`)
			return nil
		}
		r, n, err := character(w.in[plain:])
		if err != nil {
			return w.fail(err.Error())
		}
		w.pos += n
		w.character(r)
	}
}

// character writes one character within a string.
func (w *writer) character(r rune) {
	switch r {
	case '"', '\\':
		w.out = append(w.out, '\\', byte(r))
	case '\n':
		w.put(`\n`)
	case '\r':
		w.put(`\r`)
	case '\t':
		w.put(`\t`)
	case '\b':
		w.put(`\b`)
	case '\f':
		w.put(`\f`)
	default:
		switch {
		case r >= ' ' && r <= '~':
			w.out = append(w.out, byte(r))
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			w.unit(high)
			w.unit(low)
		default:
			w.unit(r)
		}
	}
}

func (w *writer) unit(r rune) {
	const hex = "0123456789abcdef"
	w.out = append(w.out, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}

var (
	errUnended = errors.New("a string without its closing quote")
	errControl = errors.New("a control character in a string")
	errUTF8    = errors.New("bytes that are not UTF-8")
	errEscape  = errors.New("a broken escape or half a surrogate pair in a string")
)

// character reads one character at the start of s, which may be written as an escape: what it is, and how many bytes it took.
func character(s []byte) (rune, int, error) {
	if len(s) == 0 {
		return 0, 0, errUnended
	}
	if s[0] < ' ' {
		return 0, 0, errControl
	}
	if s[0] != '\\' {
		r, n := utf8.DecodeRune(s)
		if r == utf8.RuneError && n == 1 {
			return 0, 0, errUTF8
		}
		return r, n, nil
	}
	if len(s) > 1 && s[1] != 'u' {
		const letters, meanings = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
		if i := slices.Index([]byte(letters), s[1]); i >= 0 {
			return rune(meanings[i]), 2, nil
		}
		return 0, 0, errEscape
	}
	r, ok := unit(s)
	if !ok {
		return 0, 0, errEscape
	}
	if !utf16.IsSurrogate(r) {
		return r, 6, nil
	}
	low, ok := unit(s[6:])
	if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
		return 0, 0, errEscape
	}
	return r, 12, nil
}

// unit reads \uxxxx.
func unit(s []byte) (rune, bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range s[2:6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// unquote is what a string means whose inside is s; it was found valid before.
func unquote(s []byte) string {
	if !slices.Contains(s, '\\') {
		return string(s)
	}
	out := make([]byte, 0, len(s))
	for len(s) > 0 {
		r, n, err := character(s)
		if err != nil {
			break
		}
		out, s = utf8.AppendRune(out, r), s[n:]
	}
	return string(out)
}
