package op

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Bounds of the JSON that is accepted (CueAPI wire contract 4: integers of at most 4,300 digits).
const (
	maxValues = 50_000 // ours: a value costs far more memory than the two bytes that it may take on the wire
	maxDepth  = 64
	maxDigits = 4300
)

type kind byte

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindArray
	kindObject
)

// node is one value of a parsed document. raw is its text without insignificant white space, str the decoded string.
type node struct {
	kind kind
	raw  []byte
	str  string
	keys []string
	kids []*node
}

func (n *node) get(key string) *node {
	for i, k := range n.keys {
		if k == key {
			return n.kids[i]
		}
	}
	return nil
}

// parser reads one JSON document in one pass. out grows by the significant bytes, so that every node's raw text is a part of it.
type parser struct {
	in  []byte
	pos int
	out []byte
	n   int // values read
}

// parse reads a whole document. It refuses what cannot survive a round trip: bytes that are not UTF-8, lone surrogates, duplicate
// keys, integers over 4,300 digits, numbers that overflow a double, and nesting over 64.
func parse(in []byte) (*node, error) {
	p := &parser{in: in, out: make([]byte, 0, len(in))} // never grows: raw slices stay valid
	n, err := p.value(0)
	if err != nil {
		return nil, err
	}
	if p.space(); p.pos < len(p.in) {
		return nil, p.fail("something follows the end of the document")
	}
	return n, nil
}

// Compact is a JSON text without insignificant white space, if the body of a call may be such: for JSON that comes another way and is
// handed out like what callers sent.
func Compact(in []byte) ([]byte, error) {
	n, err := parse(in)
	if err != nil {
		return nil, err
	}
	return n.raw, nil
}

func (p *parser) fail(format string, args ...any) error {
	return fmt.Errorf("%s at byte %d", fmt.Sprintf(format, args...), p.pos+1)
}

func (p *parser) space() {
	for p.pos < len(p.in) {
		switch p.in[p.pos] {
		case ' ', '\t', '\r', '\n':
			p.pos++
		default:
			return
		}
	}
}

func (p *parser) peek() byte {
	if p.pos < len(p.in) {
		return p.in[p.pos]
	}
	return 0
}

func (p *parser) take(n int) {
	p.out = append(p.out, p.in[p.pos:p.pos+n]...)
	p.pos += n
}

// value reads one value that lies in `depth` lists and objects.
func (p *parser) value(depth int) (*node, error) {
	p.space()
	start := len(p.out)
	n := &node{}
	if p.n++; p.n > maxValues {
		return nil, p.fail("more than %d values", maxValues)
	}
	var err error
	switch c := p.peek(); {
	case depth == maxDepth && (c == '{' || c == '['):
		err = p.fail("more than %d levels of nesting", maxDepth)
	case c == '{':
		n.kind, err = kindObject, p.object(n, depth+1)
	case c == '[':
		n.kind, err = kindArray, p.array(n, depth+1)
	case c == '"':
		n.kind = kindString
		n.str, err = p.string()
	case c == '-' || c >= '0' && c <= '9':
		n.kind, err = kindNumber, p.number()
	default:
		n.kind, err = p.word()
	}
	n.raw = p.out[start:len(p.out):len(p.out)]
	return n, err
}

func (p *parser) word() (kind, error) {
	rest := p.in[p.pos:]
	for _, w := range [...]string{"null", "true", "false"} {
		if !bytes.HasPrefix(rest, []byte(w)) {
			continue
		}
		p.take(len(w))
		if w == "null" {
			return kindNull, nil
		}
		return kindBool, nil
	}
	if p.pos >= len(p.in) {
		return 0, p.fail("the document ends too early")
	}
	return 0, p.fail("a value was expected")
}

func (p *parser) object(n *node, depth int) error {
	p.take(1)
	var seen keySet
	for first := true; ; first = false {
		p.space()
		if p.peek() == '}' && first {
			p.take(1)
			return nil
		}
		if p.peek() != '"' {
			return p.fail("a key in quotes was expected")
		}
		key, err := p.string()
		if err != nil {
			return err
		}
		if seen.has(n.keys, key) {
			return p.fail("the key %q stands twice", key)
		}
		if p.space(); p.peek() != ':' {
			return p.fail("a colon was expected")
		}
		p.take(1)
		kid, err := p.value(depth)
		if err != nil {
			return err
		}
		n.keys, n.kids = append(n.keys, key), append(n.kids, kid)
		if done, err := p.separator('}'); done || err != nil {
			return err
		}
	}
}

// keySet tells whether a key stood before in its object. It becomes a map when an object is too large for comparing one by one.
type keySet map[string]bool

const smallObject = 16

// has says whether key is one of those that came before; on a large object it must be asked about each key in turn.
func (s *keySet) has(before []string, key string) bool {
	if len(before) < smallObject {
		return slices.Contains(before, key)
	}
	if *s == nil {
		*s = make(keySet, 2*smallObject)
		for _, k := range before {
			(*s)[k] = true
		}
	}
	twice := (*s)[key]
	(*s)[key] = true
	return twice
}

func (p *parser) array(n *node, depth int) error {
	p.take(1)
	if p.space(); p.peek() == ']' {
		p.take(1)
		return nil
	}
	for {
		kid, err := p.value(depth)
		if err != nil {
			return err
		}
		n.kids = append(n.kids, kid)
		if done, err := p.separator(']'); done || err != nil {
			return err
		}
	}
}

func (p *parser) separator(end byte) (done bool, err error) {
	p.space()
	switch p.peek() {
	case end:
		p.take(1)
		return true, nil
	case ',':
		p.take(1)
		return false, nil
	}
	return false, p.fail("a comma or %q was expected", end)
}

func (p *parser) number() error {
	start := p.pos
	i, whole := p.pos, true
	digits := func() int {
		n := 0
		for ; i < len(p.in) && p.in[i] >= '0' && p.in[i] <= '9'; i++ {
			n++
		}
		return n
	}
	if p.in[i] == '-' {
		i++
	}
	lead := i
	n := digits()
	bad := n == 0 || n > 1 && p.in[lead] == '0'
	if i < len(p.in) && p.in[i] == '.' {
		whole = false
		i++
		bad = digits() == 0 || bad
	}
	if i < len(p.in) && (p.in[i] == 'e' || p.in[i] == 'E') {
		whole = false
		if i++; i < len(p.in) && (p.in[i] == '+' || p.in[i] == '-') {
			i++
		}
		bad = digits() == 0 || bad
	}
	switch {
	case bad:
		return p.fail("that is not a number")
	case n > maxDigits:
		return p.fail("a number of more than %d digits", maxDigits)
	}
	if !whole {
		if _, err := strconv.ParseFloat(string(p.in[start:i]), 64); err != nil {
			return p.fail("a number that is too large")
		}
	}
	p.take(i - start)
	return nil
}

func (p *parser) string() (string, error) {
	i, plain := p.pos+1, true
	var b []byte
	for {
		if i >= len(p.in) {
			return "", p.fail("a string without its closing quote")
		}
		c := p.in[i]
		switch {
		case c == '"':
			s := string(b)
			if plain {
				s = string(p.in[p.pos+1 : i])
			}
			p.take(i + 1 - p.pos)
			return s, nil
		case c < 0x20:
			p.pos = i
			return "", p.fail("a control character in a string")
		case c == '\\':
			if plain {
				plain, b = false, append(b, p.in[p.pos+1:i]...)
			}
			r, n, ok := unescape(p.in[i:])
			if !ok {
				p.pos = i
				return "", p.fail("a broken escape or half a surrogate pair in a string")
			}
			b = utf8.AppendRune(b, r)
			i += n
		default:
			r, n := utf8.DecodeRune(p.in[i:])
			if r == utf8.RuneError && n == 1 {
				p.pos = i
				return "", p.fail("bytes that are not UTF-8")
			}
			if !plain {
				b = append(b, p.in[i:i+n]...)
			}
			i += n
		}
	}
}

const (
	escapeLetters  = `"\/bfnrt`
	escapeMeanings = "\"\\/\b\f\n\r\t"
)

// unescape reads one escape at the start of s: the character, how many bytes it took, and whether it was whole.
func unescape(s []byte) (rune, int, bool) {
	if len(s) < 2 {
		return 0, 0, false
	}
	if i := strings.IndexByte(escapeLetters, s[1]); i >= 0 {
		return rune(escapeMeanings[i]), 2, true
	}
	if s[1] != 'u' {
		return 0, 0, false
	}
	r, ok := hex4(s[2:])
	if !ok || !utf16.IsSurrogate(r) {
		return r, 6, ok
	}
	if len(s) < 12 || s[6] != '\\' || s[7] != 'u' {
		return 0, 0, false
	}
	low, ok := hex4(s[8:])
	pair := utf16.DecodeRune(r, low)
	return pair, 12, ok && pair != utf8.RuneError
}

func hex4(s []byte) (rune, bool) {
	if len(s) < 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(s[:4]), 16, 32)
	return rune(n), err == nil
}
