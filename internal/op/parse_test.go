package op

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestParseRefuses(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, c := range []struct{ name, in, want string }{
		{"nothing", ``, "the document ends too early at byte 1"},
		{"a word", `nul`, "a value was expected at byte 1"},
		{"not a number", `NaN`, "a value was expected at byte 1"},
		{"infinity", `[-Infinity]`, "that is not a number at byte 2"},
		{"two documents", `{} {}`, "something follows the end of the document at byte 4"},
		{"an open object", `{"a":1`, "a comma or '}' was expected at byte 7"},
		{"an open list", `[1`, "a comma or ']' was expected at byte 3"},
		{"an open string", `"abc`, "a string without its closing quote at byte 1"},
		{"a comma at the end of a list", `[1,]`, "a value was expected at byte 4"},
		{"a comma at the end of an object", `{"a":1,}`, "a key in quotes was expected at byte 8"},
		{"a key without quotes", `{a:1}`, "a key in quotes was expected at byte 2"},
		{"no colon", `{"a" 1}`, "a colon was expected at byte 6"},
		{"a leading zero", `01`, "that is not a number at byte 1"},
		{"a lone minus", `-`, "that is not a number at byte 1"},
		{"no digit after the point", `1.`, "that is not a number at byte 1"},
		{"no digit in the exponent", `1e+`, "that is not a number at byte 1"},
		{"an unknown escape", `"\x"`, "a broken escape or half a surrogate pair in a string at byte 2"},
		{"a short escape", `"\u12"`, "a broken escape or half a surrogate pair in a string at byte 2"},
		{"a control character", "\"a\nb\"", "a control character in a string at byte 3"},
		{"a NUL", "{\"a\":\x00}", "a value was expected at byte 6"},
		{"a byte order mark", "\ufeff{}", "a value was expected at byte 1"},
		{"a comment", `{/**/}`, "a key in quotes was expected at byte 2"},
		{"the high half of a pair", `"\ud83d"`, "a broken escape or half a surrogate pair in a string at byte 2"},
		{"the low half of a pair", `"\ude00"`, "a broken escape or half a surrogate pair in a string at byte 2"},
		{"two high halves", `"\ud83d\ud83d"`, "a broken escape or half a surrogate pair in a string at byte 2"},
		{"bytes that are not UTF-8", "\"\xff\"", "bytes that are not UTF-8 at byte 2"},
		{"an encoded surrogate", "\"\xed\xa0\x80\"", "bytes that are not UTF-8 at byte 2"},
		{"a key twice", `{"a":1,"b":2,"a":3}`, `the key "a" stands twice at byte 17`},
		{"a key twice, once escaped", `{"a":1,"\u0061":3}`, `the key "a" stands twice at byte 16`},
		{"a key twice in a large object", object(100, "k7"), `the key "k7" stands twice at byte 796`},
		{"a key twice below", `[{"x":{"a":1,"a":1}}]`, `the key "a" stands twice at byte 17`},
		{"4,301 digits", strings.Repeat("9", 4301), "a number of more than 4300 digits at byte 1"},
		{"4,301 digits with a sign", "-" + strings.Repeat("9", 4301), "a number of more than 4300 digits at byte 1"},
		{"more than a double holds", `[1e309]`, "a number that is too large at byte 2"},
		{"65 lists", nested(65), "more than 64 levels of nesting at byte 65"},
		{"65 objects", strings.Repeat(`{"a":`, 65) + "1", "more than 64 levels of nesting at byte 321"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := parse([]byte(c.in)); err == nil || err.Error() != c.want {
				t.Errorf("parse(%.60q)\n got %v\nwant %s", c.in, err, c.want)
			}
		})
	}
}

// object is one of n members k0, k1, …, and then `last`.
func object(n int, last string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"k%d":%d,`, i, i%10)
	}
	return "{" + b.String() + strconv.Quote(last) + ":0}"
}

func TestParseKeeps(t *testing.T) {
	for _, c := range []struct{ name, in, raw string }{
		{"white space goes", " { \"a\" : [ 1 ,\t2 ] ,\r\n\"b\":{ } } ", `{"a":[1,2],"b":{}}`},
		{"the text of a number", `[1.0,-0,1e2,0.10,12345678901234567890]`, `[1.0,-0,1e2,0.10,12345678901234567890]`},
		{"4,300 digits", strings.Repeat("9", 4300), strings.Repeat("9", 4300)},
		{"a number that vanishes", `1e-400`, `1e-400`},
		{"escapes as they were sent", `"\u00e9\/\ud83d\ude00é"`, `"\u00e9\/\ud83d\ude00é"`},
		{"64 levels", strings.Repeat("[", 64) + "1" + strings.Repeat("]", 64), strings.Repeat("[", 64) + "1" + strings.Repeat("]", 64)},
		{"a NUL that is escaped", `"\u0000"`, `"\u0000"`},
		{"large objects", object(1000, "last"), object(1000, "last")},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := parse([]byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			if string(n.raw) != c.raw {
				t.Errorf("raw is %.80s, want %.80s", n.raw, c.raw)
			}
		})
	}
}

func TestParseDecodesStrings(t *testing.T) {
	const in = `"\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00 é"`
	n, err := parse([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	if want := "\"\\/\b\f\n\r\té😀 é"; n.str != want {
		t.Errorf("got %q, want %q", n.str, want)
	}
}

// document generates JSON with white space in all places and numbers of all forms.
func document(depth int) *rapid.Generator[string] {
	space := rapid.StringOfN(rapid.SampledFrom([]rune(" \t\n\r")), 0, 2, -1)
	quoted := rapid.Custom(func(t *rapid.T) string {
		s := rapid.String().Draw(t, "string")
		if rapid.Bool().Draw(t, "ascii") {
			return strconv.QuoteToASCII(strings.Map(func(r rune) rune {
				if r < 0x20 || r > 0x7e && r < 0x100 || r > 0xffff { // Go writes these in forms that JSON lacks
					return -1
				}
				return r
			}, s))
		}
		return Quote(s)
	})
	leaf := rapid.OneOf(
		rapid.SampledFrom([]string{"null", "true", "false", "{}", "[]", "-0", "1.50", "2E+5", "1e-7"}),
		rapid.Map(rapid.Int64(), func(i int64) string { return strconv.FormatInt(i, 10) }),
		quoted,
	)
	if depth == 0 {
		return leaf
	}
	return rapid.OneOf(leaf, rapid.Custom(func(t *rapid.T) string {
		pad := func(s string) string { return space.Draw(t, "before") + s + space.Draw(t, "after") }
		var parts []string
		if rapid.Bool().Draw(t, "list") {
			for _, v := range rapid.SliceOfN(document(depth-1), 1, 4).Draw(t, "entries") {
				parts = append(parts, pad(v))
			}
			return pad("[" + strings.Join(parts, ",") + "]")
		}
		for i, v := range rapid.SliceOfN(document(depth-1), 1, 4).Draw(t, "members") {
			parts = append(parts, pad(Quote(strings.Repeat("k", i)))+":"+pad(v))
		}
		return pad("{" + strings.Join(parts, ",") + "}")
	}))
}

func TestParseReadsAllDocuments(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		checkParse(t, []byte(document(3).Draw(t, "document")))
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,2.5e3,"x\u00e9\ud83d\ude00",null,true]}`, `"\ud83d"`, `{"a":1,"a":2}`, ` [ ] `, `-0`, `1e999`, "\"\xff\"", `{"":{"":[[]]}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) { checkParse(t, in) })
}

// checkParse holds parse against encoding/json: it accepts what that accepts and no rule of ours forbids, and nothing else; what
// it accepts it keeps.
func checkParse(t interface{ Fatalf(string, ...any) }, in []byte) {
	n, err := parse(in)
	if want := json.Valid(in) && forbidden(in) == ""; want != (err == nil) {
		t.Fatalf("parse(%q) answers %v; encoding/json: %v; our rules: %q", in, err, json.Valid(in), forbidden(in))
	}
	if err != nil {
		return
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, in); err != nil || compact.String() != string(n.raw) {
		t.Fatalf("parse(%q) keeps %q, want %q (%v)", in, n.raw, compact.String(), err)
	}
	checkNode(t, n)
}

// checkNode says that the raw text of every node reads as that node again.
func checkNode(t interface{ Fatalf(string, ...any) }, n *node) {
	again, err := parse(n.raw)
	if err != nil || !reflect.DeepEqual(n, again) {
		t.Fatalf("%q does not read as itself: %v", n.raw, err)
	}
	if n.kind == kindString {
		var s string
		if err := json.Unmarshal(n.raw, &s); err != nil || s != n.str {
			t.Fatalf("%q was read as %q, encoding/json reads %q (%v)", n.raw, n.str, s, err)
		}
	}
	for _, kid := range n.kids {
		checkNode(t, kid)
	}
}

// forbidden names the rule of ours that valid JSON breaks; "" when none. It knows nothing of parse.
func forbidden(in []byte) string {
	if !utf8.Valid(in) {
		return "UTF-8"
	}
	if halfPair(in) {
		return "surrogates"
	}
	dec := json.NewDecoder(bytes.NewReader(in))
	dec.UseNumber()
	return forbiddenToken(dec, 0)
}

func forbiddenToken(dec *json.Decoder, depth int) string {
	tok, err := dec.Token()
	if err != nil {
		return ""
	}
	switch tok := tok.(type) {
	case json.Number:
		_, err := tok.Float64()
		digits := strings.TrimPrefix(tok.String(), "-")
		if i := strings.IndexAny(digits, ".eE"); i >= 0 && (err != nil || i > maxDigits) || i < 0 && len(digits) > maxDigits {
			return "number"
		}
	case json.Delim:
		if depth == maxDepth {
			return "depth"
		}
		keys := map[string]bool{}
		for dec.More() {
			if tok == '{' {
				key, _ := dec.Token()
				if s, ok := key.(string); ok && keys[s] {
					return "keys"
				} else if ok {
					keys[s] = true
				}
			}
			if rule := forbiddenToken(dec, depth+1); rule != "" {
				return rule
			}
		}
		if _, err := dec.Token(); err != nil && err != io.EOF {
			return ""
		}
	}
	return ""
}

// halfPair says whether an escape in the text is half a surrogate pair.
func halfPair(in []byte) bool {
	unit := func(i int) (rune, bool) {
		if i+6 > len(in) || in[i] != '\\' || in[i+1] != 'u' {
			return 0, false
		}
		n, err := strconv.ParseUint(string(in[i+2:i+6]), 16, 16)
		return rune(n), err == nil
	}
	for i := 0; i < len(in); i++ {
		if in[i] != '\\' {
			continue
		}
		r, ok := unit(i)
		if !ok || !utf16.IsSurrogate(r) {
			i++
			continue
		}
		low, ok := unit(i + 6)
		if !ok || utf16.DecodeRune(r, low) == utf8.RuneError {
			return true
		}
		i += 11
	}
	return false
}
