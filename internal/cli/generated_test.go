package cli

import (
	"flag"
	"fmt"
	"html"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"

	"unstuck/internal/op"
	"unstuck/internal/rest"
	"unstuck/internal/server"
	"unstuck/internal/trace"
)

var write = flag.Bool("write", false, "write the generated pages instead of comparing them")

// TestGenerated holds the pages that are made from the code, and the help as the server shows it, against the files, so that a change of
// the outside is seen in review. `make gen` writes them.
func TestGenerated(t *testing.T) {
	compare(t, map[string]string{
		"openapi.json":   string(rest.OpenAPI(operations(), server.APIInfo())) + "\n",
		"permissions.md": permissionsPage(),
		"settings.md":    settingsPage(),
		"cli.md":         cliPage(),
		"help/errors.md": errorsPage(),
	})
	pages := helpPages(t)
	compare(t, pages)
	have, err := filepath.Glob("../../docs/html/*")
	if err != nil || len(have) != len(pages) {
		t.Errorf("docs/html has %d pages, and docs/help makes %d of them (%v)", len(have), len(pages), err)
	}
}

// compare compares files in docs, or writes them.
func compare(t *testing.T, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join("..", "..", "docs", name)
		if *write {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if have, err := os.ReadFile(path); err != nil || string(have) != text {
			t.Errorf("docs/%s is not what its source says; run: make gen", name)
		}
	}
}

// errorsPage is every code with what to do about it.
func errorsPage() string {
	var b strings.Builder
	b.WriteString("# Errors\n\nEvery error is a JSON object with a `code` that programs compare, a `message` for people, the HTTP `status` and a `request_id` for the ticket.\n" +
		"The code of an answer is a promise; its message may change.\n")
	status := 0
	for _, c := range server.Codes() {
		if c.Status != status {
			status = c.Status
			fmt.Fprintf(&b, "\n## %d %s\n", status, http.StatusText(status))
		}
		fmt.Fprintf(&b, "\n### %s\n\n%s\n", c.Name, c.Doc)
	}
	return b.String()
}

// proofs are the marks behind the sentences of a page that name the test which shows them; readers need not see them.
var proofs = regexp.MustCompile(`(?s)<!--.*?-->`)

// helpPages are the pages of docs/help as the server shows them, and the list of them, by their names in docs.
func helpPages(t *testing.T) map[string]string {
	sources, err := filepath.Glob("../../docs/help/*.md")
	if err != nil || len(sources) == 0 {
		t.Fatalf("docs/help has no pages: %v", err)
	}
	pages, index := map[string]string{}, "# Help\n\n"
	for _, source := range sources {
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		slug := strings.TrimSuffix(filepath.Base(source), ".md")
		pages["html/"+slug+".html"] = htmlPage(t, proofs.ReplaceAllString(string(text), ""))
		index += fmt.Sprintf("* [%s](/docs/help/%s)\n", titleOf(string(text)), slug)
	}
	pages["html/index.html"] = htmlPage(t, index+"* [API reference](/docs)\n")
	return pages
}

func titleOf(text string) string { return before(strings.TrimPrefix(text, "# "), "\n") }

func htmlPage(t *testing.T, text string) string {
	md := goldmark.New(goldmark.WithExtensions(extension.Table), goldmark.WithParserOptions(parser.WithAutoHeadingID()))
	var body strings.Builder
	if err := md.Convert([]byte(text), &body); err != nil {
		t.Fatal(err)
	}
	return `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>` + html.EscapeString(titleOf(text)) +
		"</title><link rel=\"stylesheet\" href=\"/docs/help/style.css\"><main>\n" + codeAnchors(body.String()) + "</main></html>\n"
}

// codeHeading is a heading that is the code of an error.
var codeHeading = regexp.MustCompile(`<h3 id="[^"]*">([a-z0-9_]+)</h3>`)

// codeAnchors gives the first heading of each code the anchor that refusals link to: the code itself.
func codeAnchors(page string) string {
	seen := map[string]bool{}
	return codeHeading.ReplaceAllStringFunc(page, func(h string) string {
		code := codeHeading.FindStringSubmatch(h)[1]
		if seen[code] {
			return h
		}
		seen[code] = true
		return `<h3 id="` + code + `">` + code + `</h3>`
	})
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
	b.WriteString("\n## Traces\n\nThese are OpenTelemetry's own variables; `/docs/help/monitoring` says what they are for.\n\n| environment | default | |\n| --- | --- | --- |\n")
	for _, v := range trace.Variables() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", v.Name, strings.ReplaceAll("`"+v.Default+"`", "``", ""), v.Doc)
	}
	return b.String()
}

func cliPage() string {
	var b strings.Builder
	b.WriteString("# The command line\n\nEvery command also knows `--json`, `--quiet`, `--yes`, `--url`, `--key-file` and `--plain-http`.\n")
	d := newDoor(Env{})
	root := d.root()
	d.furnishAll()
	describe(&b, root)
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

// TestErrorAnchors: the link of a refusal meets the heading of its code.
func TestErrorAnchors(t *testing.T) {
	page, err := os.ReadFile("../../docs/html/errors.html")
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []string{"http_error", "invalid_api_key", "mail_not_configured"} {
		if n := strings.Count(string(page), `id="`+code+`"`); n != 1 {
			t.Errorf("%d headings with the anchor %s", n, code)
		}
	}
}
