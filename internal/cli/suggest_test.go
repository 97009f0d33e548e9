package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

// TestMistakesNameTheNext: a word that names no command, and a flag that there is not, are answered with what was probably meant.
func TestMistakesNameTheNext(t *testing.T) {
	for line, want := range map[string]string{
		"kyes list":                          "near      unstuck keys\n",
		"key list":                           "near      unstuck keys\n",
		"keys lst":                           "near      unstuck keys list\n",
		"keys craete x":                      "near      unstuck keys create\n",
		"keys delete x":                      "near      unstuck keys revoke\n",
		"keys regenerate x":                  "near      unstuck keys rotate\n",
		"cues remove x":                      "near      unstuck cues delete\n",
		"cues run x":                         "near      unstuck cues fire\n",
		"runs list":                          "near      unstuck executions\n",
		"exec list":                          "near      unstuck executions\n",
		"tokens":                             "near      unstuck keys\n",
		"users":                              "near      unstuck members\n",
		"login":                              "near      unstuck auth login\n",
		"claim":                              "near      unstuck executions claim\n",
		"help kyes":                          "near      unstuck keys\n",
		"help keys lst":                      "near      unstuck keys list\n",
		"keys list --stael":                  "near      --stale\n",
		"--quite":                            "near      --quiet\n",
		"keys list --limit ten":              "--limit ten does not fit: write a whole number.",
		"cues create x --attempts three":     "--attempts three does not fit: write a whole number.",
		"cues fire x --payload {x":           "does not fit: that is no JSON",
		"keys get laptop agent":              "quoted    unstuck keys get \"laptop agent\"",
		"keys list --scope":                  "--scope wants a value after it.",
		"cues create x --cron @daily --to m": "--to m is nobody who does work.",
	} {
		code, told := told(strings.Fields(line)...)
		if code != exitUsage || !strings.Contains(told, want) || strings.Count(told, "near") > 1 {
			t.Errorf("unstuck %s ends with %d and says %q, want %q", line, code, told, want)
		}
	}
	for _, line := range []string{"xyzzy", "keys xyzzy", "list", "keys list --xyzzy"} {
		if code, told := told(strings.Fields(line)...); code != exitUsage || strings.Contains(told, "near") {
			t.Errorf("unstuck %s ends with %d and guesses: %q", line, code, told)
		}
	}
}

// TestOtherWordsAreNotOurs: a word with a command of its own needs no other, and one that leads nowhere helps nobody.
func TestOtherWordsAreNotOurs(t *testing.T) {
	root := newDoor(Env{}).root()
	for word, ours := range otherWords {
		for _, other := range ours {
			found, rest, _ := root.Find(strings.Fields(other))
			somewhere := found != root && len(rest) == 0
			for _, noun := range root.Commands() {
				for _, verb := range noun.Commands() {
					somewhere = somewhere || verb.Name() == other || verb.HasAlias(other)
				}
			}
			if !somewhere {
				t.Errorf("%q leads to %q, which is no command", word, other)
			}
		}
	}
}

// told runs a command that needs no server and is what it says on stderr.
func told(args ...string) (int, string) {
	var out, talk bytes.Buffer
	code := Run(context.Background(), Env{Getenv: func(string) string { return "" }, Stdin: &bytes.Buffer{}, Stdout: &out, Stderr: &talk, Now: time.Now, Zone: time.UTC}, args...)
	return code, talk.String()
}
