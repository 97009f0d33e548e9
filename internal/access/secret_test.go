package access

import (
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"unstuck/internal/op"
)

// sample is a key that no server knows.
const sample = "unstuck_0dM6V3pb1Xw8qYzKcR7LhTgJ2nFsAe4iUvBoQmNyEkP" + "_a1b2c3d4"

func TestFormOfAKey(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^unstuck_[0-9A-Za-z]{43}[0-9A-Za-z]{6}_[0-9a-f]{8}$`)
	seen := map[string]bool{}
	for range 1000 {
		text := newSecret("unstuck").Reveal()
		if !form.MatchString(text) {
			t.Fatalf("%s has the wrong form", text)
		}
		s, ok := parseSecret(text)
		if !ok || s.Reveal() != text || digitString(s.digits()) != text[len(text)-8:] {
			t.Fatalf("%s was not read back", text)
		}
		if seen[text[8:51]] {
			t.Fatal("the same random part twice")
		}
		seen[text[8:51]] = true
	}
}

// TestChecksumCatchesEveryChange replaces each character of a key by every other one that a key can have: none of them is taken.
func TestChecksumCatchesEveryChange(t *testing.T) {
	t.Parallel()
	for range 20 {
		text := newSecret("unstuck").Reveal()
		for i := range len(text) {
			for _, c := range []byte(base62 + "_") {
				if c == text[i] {
					continue
				}
				if changed := text[:i] + string(c) + text[i+1:]; accepted(changed) {
					t.Fatalf("%s was taken for %s", changed, text)
				}
			}
			if cut := text[:i] + text[i+1:]; accepted(cut) {
				t.Fatalf("%s was taken though a character is missing", cut)
			}
			if i > 0 && text[i] != text[i-1] {
				if swapped := text[:i-1] + text[i:i+1] + text[i-1:i] + text[i+1:]; accepted(swapped) {
					t.Fatalf("%s was taken though two characters are swapped", swapped)
				}
			}
		}
	}
}

func accepted(text string) bool { _, ok := parseSecret(text); return ok }

func TestPrefixes(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"a", "cue_sk", "acme2", strings.Repeat("x", prefixMost)} {
		if s := newSecret(prefix); !accepted(s.Reveal()) || s.Redacted() != prefix+"_***_"+digitString(s.digits()) || !prefixForm.MatchString(prefix) {
			t.Errorf("prefix %s: %v", prefix, s)
		}
	}
	for _, prefix := range []string{"", "A", "9a", "a-b", "_a", strings.Repeat("x", prefixMost+1)} {
		if prefixForm.MatchString(prefix) {
			t.Errorf("prefix %q was taken", prefix)
		}
	}
}

func FuzzParseSecret(f *testing.F) {
	f.Add("")
	f.Add(sample)
	f.Add(newSecret("unstuck").Reveal())
	f.Add(newSecret("a").Reveal() + "0")
	f.Add(strings.Repeat("_", 200))
	f.Fuzz(func(t *testing.T, text string) {
		s, ok := parseSecret(text)
		if !ok {
			return
		}
		if s.Reveal() != text || !strings.HasSuffix(text, digitString(s.digits())) || strings.Contains(s.Redacted(), text[len(text)-tailLen:len(text)-9]) {
			t.Errorf("%q was read as %v", text, s)
		}
		if again, n := Redact("x=" + text + "\n"); n != 1 || strings.Contains(again, text) {
			t.Errorf("%q was not redacted: %q", text, again)
		}
	})
}

// TestSecretsCannotBePrinted formats secrets, and what holds them in exported and unexported fields, with every verb.
func TestSecretsCannotBePrinted(t *testing.T) {
	t.Parallel()
	s := newSecret("unstuck")
	text := SecretText(s.Reveal())
	web, server := newWebhookSecret(), NewServerSecret()
	held := []any{
		s, &s, []Secret{s}, map[string]Secret{"a": s}, struct{ hidden Secret }{s}, &struct{ hidden Secret }{s}, struct{ Shown Secret }{s},
		text, []SecretText{text}, struct{ Key SecretText }{text}, NewKey{Secret: string(text)}, &NewKey{Secret: string(text)}, Rotated{Secret: text}, NewMember{Secret: text},
		Registered{APIKey: text}, keyVerify{Key: text}, web, WebhookSecret{web}, server, Options{Secrets: server}, fmt.Errorf("it was %v and %s", s, text),
	}
	for i, v := range held {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%T"} {
			mustNotLeak(t, fmt.Sprintf(verb, v), s.Reveal(), string(web), string(server))
		}
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).Info("held", "value", v)
		mustNotLeak(t, log.String(), s.Reveal(), string(web), string(server))
		if t.Failed() {
			t.Fatalf("held value %d, a %T", i, v)
		}
	}
	if got := fmt.Sprintf("%v %v %v %v", s, text, web, server); got != s.Redacted()+" "+s.Redacted()+" *** ***" {
		t.Errorf("printed as %s", got)
	}
	if got := string(op.Marshal(NewMember{Secret: text})); !strings.Contains(got, string(text)) {
		t.Errorf("the answer that shows the secret lacks it: %s", got)
	}
}

// mustNotLeak fails if eight characters in a row of a secret stand in a text. The prefix, the digits and what a webhook secret begins
// with are public.
func mustNotLeak(t testing.TB, text string, secrets ...string) {
	t.Helper()
	for _, s := range secrets {
		if run := leak(text, s); run != "" {
			t.Errorf("%q of a secret stands in %.300q", run, text)
		}
	}
}

const leakRun = 8

// leak is a run of a secret that stands in a text; "" when there is none.
func leak(text, secret string) string {
	if p, ok := parseSecret(secret); ok {
		secret = p.Reveal()[len(secret)-tailLen : len(secret)-digitChars-1]
	}
	secret = strings.TrimPrefix(secret, "whsec_")
	for i := 0; i+leakRun <= len(secret); i++ {
		if strings.Contains(text, secret[i:i+leakRun]) {
			return secret[i : i+leakRun]
		}
	}
	return ""
}

func TestRedact(t *testing.T) {
	t.Parallel()
	a, b := newSecret("unstuck"), newSecret("cue_sk")
	web := newWebhookSecret().Reveal()
	for _, test := range []struct {
		name, text, want string
		n                int
	}{
		{"nothing", "unstuck_ is a prefix", "unstuck_ is a prefix", 0},
		{"not genuine", "key " + sample, "key " + sample, 0},
		{"alone", a.Reveal(), a.Redacted(), 1},
		{"in an environment", "A=1\nUNSTUCK_API_KEY=" + a.Reveal() + "\nB=2", "A=1\nUNSTUCK_API_KEY=" + a.Redacted() + "\nB=2", 1},
		{"behind an escape", `line\n` + a.Reveal() + `\n`, `line\n` + a.Redacted() + `\n`, 1},
		{"two in a row", a.Reveal() + b.Reveal() + "!", a.Redacted() + b.Redacted() + "!", 2},
		{"with a tail in its prefix", "a_" + strings.Repeat("x", 49) + "_" + a.Reveal(), "a_" + strings.Repeat("x", 49) + "_" + a.Redacted(), 1},
		{"underscores", strings.Repeat("_", 200), strings.Repeat("_", 200), 0},
		{"cut", a.Reveal()[:len(a.Reveal())-1], a.Reveal()[:len(a.Reveal())-1], 0},
		{"one thing twice", b.Reveal() + " " + b.Reveal(), b.Redacted() + " " + b.Redacted(), 2},
		{"webhook secret", "S=" + web + "\nB=2", "S=whsec_***\nB=2", 1},
		{"webhook secret of another", `{"s":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw+/=="}`, `{"s":"whsec_***"}`, 1},
		{"webhook secrets and a key", web + " " + a.Reveal() + " " + web, "whsec_*** " + a.Redacted() + " whsec_***", 3},
		{"webhook secret that was cut", web[:len(web)/2], "whsec_***", 1},
		{"words about webhook secrets", "whsec_… whsec_*** whsec_NAME whsec_", "whsec_… whsec_*** whsec_NAME whsec_", 0},
	} {
		if got, n := Redact(test.text); got != test.want || n != test.n {
			t.Errorf("%s: %q, %d", test.name, got, n)
		}
	}
}

// A tail is found where a regular expression finds it.
func TestNextTailProperty(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`_[0-9A-Za-z]{49}_[0-9a-f]{8}`)
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.SampledFrom([]string{"_", "__", strings.Repeat("Z9a", 16) + "q", strings.Repeat("x", 50), "0123abcd", "0123abcD", "é", "-"})
		text := strings.Join(rapid.SliceOfN(part, 0, 12).Draw(t, "parts"), "")
		from := rapid.IntRange(0, len(text)).Draw(t, "from")
		want := -1
		if at := form.FindStringIndex(text[from:]); at != nil {
			want = from + at[0]
		}
		if got := nextTail(text, from); got != want {
			t.Fatalf("%q from %d: %d, want %d", text, from, got, want)
		}
	})
}

func BenchmarkRedact(b *testing.B) {
	text := strings.Repeat("snake_case and some more words, ", 1<<20/32)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		Redact(text)
	}
}

func TestRedactProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var text, want strings.Builder
		n := rapid.IntRange(0, 4).Draw(t, "keys")
		for range n {
			around := rapid.StringMatching(`[ -~]{0,20}[^a-z0-9_]`).Draw(t, "around")
			s := newSecret(rapid.SampledFrom([]string{"unstuck", "a", "cue_sk"}).Draw(t, "prefix"))
			text.WriteString(around + s.Reveal())
			want.WriteString(around + s.Redacted())
		}
		got, found := Redact(text.String())
		if diff := cmp.Diff(want.String(), got); diff != "" || found != n {
			t.Fatalf("%d found: %s", found, diff)
		}
	})
}
