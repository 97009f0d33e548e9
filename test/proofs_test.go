package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// pages are those whose every sentence must be shown: one sentence a line, and behind it the tests that show it, "advice" for
// what promises nothing, or in its text "(not yet)".
var pages = []string{"api-keys.md", "what-a-key-can-do.md", "authentication.md", "security.md", "proxy.md", "webhooks.md", "workers.md", "worker-daemon.md", "alerts.md", "monitoring.md", "install.md", "n8n.md"}

var (
	proof    = regexp.MustCompile(`<!-- (.+?) -->\s*$`)
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz)\w+)\(`)
	gate     = regexp.MustCompile(`(?m)^step "(make [\w-]+)"`)
)

// TestEveryPromiseIsShown fails for a sentence of the help that names no test, and for a name that is no test.
func TestEveryPromiseIsShown(t *testing.T) {
	tests := testNames(t)
	for _, page := range pages {
		text, err := os.ReadFile(filepath.Join("..", "docs", "help", page))
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			if fault := checkSentence(line, tests); fault != "" {
				t.Errorf("docs/help/%s:%d: %s\n\t%s", page, i+1, fault, line)
			}
		}
	}
}

// TestProofsAreRead shows that the check finds what it is there for.
func TestProofsAreRead(t *testing.T) {
	tests := map[string]bool{"TestA": true}
	for line, fine := range map[string]bool{
		"": true, "# Title": true, "    code": true, "It works. <!-- TestA -->": true, "* It will (not yet).": true, "Do this. <!-- advice -->": true,
		"It works.": false, "It works. <!-- TestB -->": false, "It works. It flies. <!-- TestA -->": false, "It works. <!-- TestA, TestB -->": false,
	} {
		if fault := checkSentence(line, tests); (fault == "") != fine {
			t.Errorf("%q: %q", line, fault)
		}
	}
}

var twoSentences = regexp.MustCompile(`[a-z)][.!?] [A-Z]`)

func checkSentence(line string, tests map[string]bool) string {
	text := strings.TrimSpace(line)
	if text == "" || strings.HasPrefix(text, "#") || strings.HasPrefix(line, "    ") && !strings.HasPrefix(text, "* ") {
		return ""
	}
	mark := proof.FindStringSubmatch(text)
	if sentence := proof.ReplaceAllString(text, ""); twoSentences.MatchString(sentence) {
		return "two sentences on a line: each names its own test"
	}
	if mark == nil {
		if strings.Contains(text, "(not yet)") {
			return ""
		}
		return "names no test"
	}
	if mark[1] == "advice" {
		return ""
	}
	for name := range strings.SplitSeq(mark[1], ", ") {
		if base, _, _ := strings.Cut(name, "/"); !tests[base] {
			return "there is no test " + name
		}
	}
	return ""
}

// testNames are all tests of the repository, and the gates of .ci/run that are none of Go: make image.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	ci, err := os.ReadFile("../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range gate.FindAllStringSubmatch(string(ci), -1) {
		out[m[1]] = true
	}
	err = filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range testFunc.FindAllStringSubmatch(string(text), -1) {
			out[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
