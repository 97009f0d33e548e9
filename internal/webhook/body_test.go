package webhook_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"unstuck/internal/webhook"
)

// recorded are documents with the bytes and signatures that CueAPI's Python SDK and Python's standardwebhooks make of them
// (testdata/record.py).
type recorded struct {
	Secret, ID string
	Vectors    []struct {
		Document, Body, CueAPI, Standard string
		Timestamp                        int64
	}
}

func vectors(t testing.TB) (v recorded) {
	text, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestBodyIsPythons(t *testing.T) {
	for _, v := range vectors(t).Vectors {
		got, err := webhook.Body([]byte(v.Document))
		if err != nil || string(got) != v.Body {
			t.Errorf("Body(%.80s) = %.80s, %v; Python writes %.80s", v.Document, got, err, v.Body)
		}
	}
}

func TestBodyRefuses(t *testing.T) {
	for _, document := range []string{
		"", " ", "{", "[", `"`, `"\`, `"\u12`, "nul", "truefalse", "1 2", "{}{}", "[1,]", "[,1]", `{"a":1,}`, `{,}`, `{a:1}`, `{"a" 1}`, `{"a":}`, `{1:2}`,
		"01", "-", "-01", "1.", ".5", "+1", "1e", "1e+", "1.e5", "NaN", "Infinity", "-Infinity", "1e400", "-1e309", "0x10",
		"\"\n\"", "\"\x00\"", "\"\xff\"", "\"\xed\xa0\x80\"", `"\ud800"`, `"\udc00"`, `"\ud800\u0041"`, `"\ud800x"`, `"\x41"`, `"\u00g0"`, `'a'`,
		strings.Repeat("9", 4301), strings.Repeat("[", 101) + strings.Repeat("]", 101), "\ufeff{}",
	} {
		if got, err := webhook.Body([]byte(document)); err == nil {
			t.Errorf("Body(%.40q) = %.40q, want a refusal", document, got)
		}
	}
}

// TestBodyAgainstPython compares with the real thing over random documents.
func TestBodyAgainstPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("python3 is missing")
		}
		t.Skip("python3 is missing")
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var in bytes.Buffer
	documents := make([]string, 5000)
	for i := range documents {
		documents[i] = document(random, 4)
		line, _ := json.Marshal([]string{documents[i]})
		in.Write(append(line, '\n'))
	}
	cmd := exec.Command(python, "-c", `
import json, sys
for line in sys.stdin:
    print(json.dumps(json.loads(json.loads(line)[0]), sort_keys=True))
`)
	cmd.Stdin = &in
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != len(documents) {
		t.Fatalf("%d answers", len(lines))
	}
	for i, d := range documents {
		got, err := webhook.Body([]byte(d))
		if err != nil || string(got) != lines[i] {
			t.Fatalf("Body(%s) = %s, %v; Python writes %s", d, got, err, lines[i])
		}
	}
}

// document is random JSON, written in the odd ways that are allowed.
func document(r *rand.Rand, depth int) string {
	gap := func() string { return []string{"", "", "", " ", "\n\t", "\r\n"}[r.IntN(6)] }
	kinds := 7
	if depth == 0 {
		kinds = 5
	}
	var b strings.Builder
	b.WriteString(gap())
	switch r.IntN(kinds) {
	case 0:
		b.WriteString([]string{"null", "true", "false"}[r.IntN(3)])
	case 1, 2:
		b.WriteString(number(r))
	case 3, 4:
		b.WriteString(text(r))
	case 5:
		b.WriteString("[" + gap())
		for i := range r.IntN(5) {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(document(r, depth-1))
		}
		b.WriteString("]")
	case 6:
		b.WriteString("{" + gap())
		for i := range r.IntN(12) {
			if i > 0 {
				b.WriteString("," + gap())
			}
			b.WriteString(text(r) + gap() + ":" + document(r, depth-1))
		}
		b.WriteString("}")
	}
	return b.String() + gap()
}

func number(r *rand.Rand) string {
	digits := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte('0' + r.IntN(10))
		}
		return string(b)
	}
	sign := []string{"", "-"}[r.IntN(2)]
	switch r.IntN(6) {
	case 0:
		return sign + strconv.Itoa(r.IntN(1000))
	case 1:
		return sign + "1" + digits(r.IntN(60))
	case 2: // any double
		for {
			if f := math.Float64frombits(r.Uint64()); !math.IsNaN(f) && !math.IsInf(f, 0) {
				return strconv.FormatFloat(f, "eEgf"[r.IntN(3)], -1, 64)
			}
		}
	case 3: // where the notation changes
		return fmt.Sprintf("%s%d.%se%d", sign, r.IntN(10), digits(1+r.IntN(18)), r.IntN(50)-25)
	case 4:
		return sign + strconv.Itoa(r.IntN(100)) + "." + digits(1+r.IntN(20))
	}
	return sign + "0" + []string{"", ".0", "e5", "E-3", ".000"}[r.IntN(5)]
}

func text(r *rand.Rand) string {
	var b strings.Builder
	b.WriteByte('"')
	for range r.IntN(8) {
		var c rune
		switch r.IntN(8) {
		case 0:
			b.WriteString(`\` + string(`"\/bfnrt`[r.IntN(8)]))
			continue
		case 1:
			c = r.Int32N(0x20)
		case 2:
			c = r.Int32N(0x10000)
		case 3:
			c = 0x10000 + r.Int32N(0x100000)
		case 4:
			c = []rune{0x7f, 0x80, 0xff, 0x2028, 0xfeff, 0xffff, 0xd7ff, 0xe000, 0x10ffff}[r.IntN(9)]
		default:
			c = 0x20 + r.Int32N(0x60)
		}
		switch {
		case !utf8.ValidRune(c):
		case c < 0x20, c == '"', c == '\\', r.IntN(4) == 0:
			escape := fmt.Sprintf(`\u%04x`, c)
			if c > 0xffff {
				escape = fmt.Sprintf(`\u%04X\u%04x`, 0xd800+(c-0x10000)>>10, 0xdc00+(c-0x10000)&0x3ff)
			}
			b.WriteString(escape)
		default:
			b.WriteRune(c)
		}
	}
	return b.String() + `"`
}

// FuzzBody: what is accepted is JSON, means what the document means, and is a fixed point.
func FuzzBody(f *testing.F) {
	for _, v := range vectors(f).Vectors {
		f.Add([]byte(v.Document))
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		got, err := webhook.Body(document)
		if err != nil {
			return
		}
		if !json.Valid(document) || !json.Valid(got) {
			t.Fatalf("Body(%q) = %q: not JSON", document, got)
		}
		again, err := webhook.Body(got)
		if err != nil || !bytes.Equal(again, got) {
			t.Fatalf("Body(%q) = %q, and again %q, %v", document, got, again, err)
		}
		var before, after any
		if json.Unmarshal(document, &before) != nil || json.Unmarshal(got, &after) != nil {
			return // an integer too large for a double
		}
		if a, b := fmt.Sprint(before), fmt.Sprint(after); a != b && strings.ReplaceAll(a, "-0", "0") != strings.ReplaceAll(b, "-0", "0") {
			t.Fatalf("Body(%q) = %q: means %s, not %s", document, got, b, a)
		}
	})
}
