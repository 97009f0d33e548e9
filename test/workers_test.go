//go:build linux

package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestWorkersPage runs docs/help/workers.md as TestReadme does the README: every command with what it prints, and the script that the page
// ends with.
func TestWorkersPage(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("CI must have curl")
		}
		t.Skip("there is no curl")
	}
	text, err := os.ReadFile("../docs/help/workers.md")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(text), "    #!")
	script, after, _ := strings.Cut(rest, "\n\n")
	script = strings.ReplaceAll("#!"+script+"\n", "\n    ", "\n")
	tour := transcripts(before + after)
	if len(tour) < 12 || script == "" {
		t.Fatalf("the page has %d commands and a script of %d bytes", len(tour), len(script))
	}
	env, _, key := tourist(t)
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, "worker.sh"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	env = append(env, "UNSTUCK_API_KEY="+key, "HERE="+home)
	for i := range tour { // the test's server has another address
		tour[i].command = strings.ReplaceAll(tour[i].command, "http://127.0.0.1:8080", "$HTTP")
	}
	walk(t, env, append([]transcript{{command: `cd "$HERE"; HTTP=$UNSTUCK_URL`}}, tour...), func(*session, string) {})
}
