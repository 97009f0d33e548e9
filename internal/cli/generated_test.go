package cli

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"unstuck/internal/op"
	"unstuck/internal/rest"
	"unstuck/internal/server"
)

var write = flag.Bool("write", false, "write the generated pages instead of comparing them")

// TestGenerated holds the pages that are made from the code against the files, so that a change of the outside is seen in review.
// `make gen` writes them.
func TestGenerated(t *testing.T) {
	for name, text := range map[string]string{
		"openapi.json":   string(rest.OpenAPI(operations(), server.APIInfo())) + "\n",
		"permissions.md": permissionsPage(),
		"settings.md":    settingsPage(),
		"cli.md":         cliPage(),
		"help/errors.md": server.ErrorsPage(),
	} {
		path := filepath.Join("..", "..", "docs", name)
		if *write {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if have, err := os.ReadFile(path); err != nil || string(have) != text {
			t.Errorf("docs/%s is not what the code says; run: make gen", name)
		}
	}
}

func permissionsPage() string {
	var b strings.Builder
	b.WriteString("# Operations and what they need\n\nGenerated from the code that enforces it.\n\n| operation | route | needs | effect | |\n| --- | --- | --- | --- | --- |\n")
	for _, o := range operations().All() {
		note := []string{}
		if o.Members {
			note = append(note, "personal keys only")
		}
		if o.Narrow == op.ByObject {
			note = append(note, "narrowed by restriction cues")
		}
		fmt.Fprintf(&b, "| `%s` %s | `%s` | %s | %s | %s |\n", o.Name, o.Summary(), o.Route, o.Needs, o.Effect, strings.Join(note, "; "))
	}
	return b.String()
}

func settingsPage() string {
	var b strings.Builder
	b.WriteString("# Settings of the server\n\nFlags win over the environment. `unstuck config` shows the values in force.\n\n| environment | flag | default | |\n| --- | --- | --- | --- |\n")
	for _, s := range server.AllSettings() {
		code := func(s string) string {
			if s == "" {
				return ""
			}
			return "`" + s + "`"
		}
		name := ""
		if s.Flag != "" {
			name = "--" + s.Flag
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", code(s.Env), code(name), code(s.Default), s.Doc)
	}
	return b.String()
}

func cliPage() string {
	var b strings.Builder
	b.WriteString("# The command line\n\nEvery command also knows `--json`, `--quiet`, `--yes`, `--url`, `--key-file` and `--plain-http`.\n")
	d := &door{set: operations(), words: wordings()}
	describe(&b, d.root())
	return b.String()
}

func describe(b *strings.Builder, c *cobra.Command) {
	if c.Runnable() && !c.Hidden && c.HasParent() {
		fmt.Fprintf(b, "\n## %s\n\n%s\n", c.CommandPath(), c.Short)
		fmt.Fprintf(b, "\n    %s\n", c.UseLine())
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && f.Name != "help" {
				fmt.Fprintf(b, "    --%-18s %s\n", f.Name, f.Usage)
			}
		})
	}
	for _, sub := range c.Commands() {
		if !sub.Hidden {
			describe(b, sub)
		}
	}
}
