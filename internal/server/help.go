package server

import (
	"bytes"
	"fmt"
	"html"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"

	"unstuck/docs"
)

// ErrorsPage is docs/help/errors.md: every code with what to do about it. It is generated, and a test holds the file against it.
func ErrorsPage() string {
	var b strings.Builder
	b.WriteString("# Errors\n\nEvery error is a JSON object with a `code` that programs compare, a `message` for people, the HTTP `status` and a `request_id` for the ticket.\n" +
		"The code of an answer is a promise; its message may change.\n")
	status := 0
	for _, c := range Codes() {
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

// helpPages renders the help once, at the start.
func helpPages() map[string]http.Handler {
	md := goldmark.New(goldmark.WithExtensions(extension.Table), goldmark.WithParserOptions(parser.WithAutoHeadingID()))
	pages := map[string]http.Handler{}
	names, err := fs.Glob(docs.Help, "help/*.md")
	if err != nil {
		panic(err) // the pattern is constant
	}
	var index strings.Builder
	index.WriteString("# Help\n\n")
	for _, name := range names {
		text, err := docs.Help.ReadFile(name)
		if err != nil {
			panic(err) // it was listed a moment ago
		}
		slug := strings.TrimSuffix(path.Base(name), ".md")
		page := helpPage(md, proofs.ReplaceAllString(string(text), ""))
		pages["/docs/help/"+slug] = page
		pages["/docs/help/"+slug+".md"] = page
		if slug == "errors" {
			pages["/docs/errors"] = page
		}
		title, _, _ := strings.Cut(strings.TrimPrefix(string(text), "# "), "\n")
		fmt.Fprintf(&index, "* [%s](/docs/help/%s)\n", title, slug)
	}
	index.WriteString("* [API reference](/docs)\n")
	pages["/docs/help/"] = helpPage(md, index.String())
	return pages
}

func helpPage(md goldmark.Markdown, text string) http.Handler {
	var body bytes.Buffer
	if err := md.Convert([]byte(text), &body); err != nil {
		panic(err) // the text is part of the program
	}
	title, _, _ := strings.Cut(strings.TrimPrefix(text, "# "), "\n")
	page := []byte("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>" + html.EscapeString(title) +
		"</title><link rel=\"stylesheet\" href=\"/docs/help/style.css\"><main>" + body.String() + "</main></html>")
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'self'")
		_, _ = w.Write(page)
	})
}

// style is the look of the help: readable, and dark where the reader's system is.
const style = `:root{color-scheme:light dark}body{font:1rem/1.6 system-ui,sans-serif;margin:0}main{max-width:46rem;margin:auto;padding:2rem 1rem}
h1,h2,h3{line-height:1.25}code,pre{font-family:ui-monospace,monospace;font-size:.9em}pre{overflow:auto;padding:1rem;border:1px solid #8884;border-radius:.4rem}
table{border-collapse:collapse;display:block;overflow:auto}th,td{border:1px solid #8886;padding:.3rem .6rem;text-align:left;vertical-align:top}`

func styleSheet(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	_, _ = w.Write([]byte(style))
}
