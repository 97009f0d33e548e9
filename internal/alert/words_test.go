package alert

import (
	"strings"
	"testing"
	"unicode/utf16"

	"pgregory.net/rapid"
)

// Whatever an alert says, chats take it: it is not too long, nothing in it calls anybody or ends the block it stands in, and the title
// is there.
func TestChatWords(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.SampledFrom([]string{"nightly ", "<!channel>", "```", "🙂", "&", "日本", "\n", "@everyone ", "[x](https://evil.example)", "x"})
		write := func(most int) string {
			return strings.Join(rapid.SliceOfN(part, 0, most).Draw(t, "parts"), "")
		}
		title := "nightly" + strings.ReplaceAll(write(60), "\n", " ")
		rest := write(1500)
		o := &Object{ID: "01980000-0000-7000-8000-000000000000", Title: title, Text: strings.TrimSpace(title + "\n\n" + rest)}
		b := bodyOf(o)
		for name, c := range map[string]struct {
			text string
			most int
		}{"text": {b.Text, 4000}, "content": {b.Content, 2000}} {
			if n := len(utf16.Encode([]rune(c.text))); n > c.most {
				t.Fatalf("%s has %d characters", name, n)
			}
			if n := strings.Count(c.text, "```"); n != 0 && n != 2 {
				t.Fatalf("%s: %d fences: %q", name, n, c.text)
			}
		}
		for _, text := range []string{b.Text, b.Content} {
			if line, _, _ := strings.Cut(text, "\n"); strings.Contains(line, "@everyone") || strings.Contains(line, "](") {
				t.Fatalf("a title that calls or hides: %q", line)
			}
		}
		if strings.ContainsAny(b.Text, "<>") || !strings.HasPrefix(b.Content, "nightly") {
			t.Fatalf("%q", b.Text)
		}
	})
	long := &Object{ID: "42", Title: "t", Text: "t\n\n" + strings.Repeat("Zeile\n", 1000)}
	if b := bodyOf(long); !strings.HasSuffix(b.Content, "…\n```\nunstuck alerts get 42") || !strings.HasSuffix(b.Text, "unstuck alerts get 42") || len(b.Content) < 1800 {
		t.Errorf("%q", b.Content)
	}
	if b := bodyOf(&Object{Title: "t", Text: "t\n\n  13:00   due\n  13:15   missed\n"}); b.Text != "t\n```\n  13:00   due\n  13:15   missed\n```" {
		t.Errorf("columns do not stay columns: %q", b.Text)
	}
	if b := bodyOf(&Object{Title: "nightly recovered", Text: "nightly recovered"}); b.Text != "nightly recovered" || b.Content != b.Text {
		t.Errorf("%q", b.Text)
	}
}
