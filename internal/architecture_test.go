// Package internal_test holds the tree against its own rules.
package internal_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "unstuck/internal/"

// mayImport lists, for every package, which of ours it may import, and why no other.
var mayImport = map[string]struct {
	packages []string
	why      string
}{
	"op":             {nil, "what an operation is depends on no noun and no storage"},
	"disk":           {nil, "what operating systems do with files, for whoever keeps some"},
	"db":             {[]string{"disk"}, "storage knows no noun"},
	"cron":           {nil, "pure"},
	"trace":          {nil, "spans know no noun"},
	"webhook":        {nil, "sending knows no noun and stores nothing"},
	"mail":           {nil, "sending knows no noun and stores nothing"},
	"live":           {nil, "what just happened is told without knowing what it means"},
	"mail/inbox":     {nil, "a mail server for tests, of any package"},
	"access":         {[]string{"op", "db", "disk"}, "who may does not depend on what keys are for"},
	"alert":          {[]string{"op", "db", "access", "webhook", "mail"}, "an alert is worded by who raises it, so it knows no other noun"},
	"cue":            {[]string{"op", "db", "cron", "access", "alert", "webhook", "trace", "live"}, "work stands on access, not on doors"},
	"rest":           {[]string{"op"}, "a door knows no noun"},
	"server":         {[]string{"op", "db", "disk", "cron", "access", "alert", "cue", "rest", "webhook", "mail", "trace"}, "wiring knows everything below the command line"},
	"worker":         {nil, "it speaks to a server over HTTP alone, as a worker that somebody else wrote would"},
	"cli":            {[]string{"op", "db", "disk", "access", "cue", "rest", "server", "cron", "worker"}, "the outermost part"},
	"testkit":        {[]string{"op", "db", "access", "cue", "rest", "server", "cron", "testkit/pgtest"}, "a whole server in a test"},
	"testkit/pgtest": {nil, "a database for tests, of any package"},
	"db/powercut":    {nil, "a file system that forgets, for tests of any package"},
}

func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		name := strings.TrimPrefix(words[0], module)
		if words[0] == strings.TrimSuffix(module, "/") {
			continue
		}
		rule, ok := mayImport[name]
		if !ok {
			t.Errorf("package %s has no rule: say here what it may import, and why", name)
			continue
		}
		for _, imported := range words[1:] {
			other, ours := strings.CutPrefix(imported, module)
			if ours && !slices.Contains(rule.packages, other) {
				t.Errorf("%s imports %s, but %s", name, other, rule.why)
			}
		}
	}
}
