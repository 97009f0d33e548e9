package server

import (
	"io/fs"
	"net/http"
	"path"
	"strings"

	"unstuck/docs"
)

// helpPages are the pages of the help by their paths. They come out of the build as they are shown: rendering them costs every start of
// the program a millisecond, also where it is only a command.
func helpPages() map[string]http.Handler {
	pages := map[string]http.Handler{}
	names, err := fs.Glob(docs.Help, "html/*.html")
	if err != nil {
		panic(err) // the pattern is constant
	}
	for _, name := range names {
		text, err := docs.Help.ReadFile(name)
		if err != nil {
			panic(err) // it was listed a moment ago
		}
		page := helpPage(text)
		switch slug := strings.TrimSuffix(path.Base(name), ".html"); slug {
		case "index":
			pages["/docs/help/"] = page
		case "errors":
			pages["/docs/errors"] = page
			fallthrough
		default:
			pages["/docs/help/"+slug] = page
			pages["/docs/help/"+slug+".md"] = page // as the pages name each other
		}
	}
	return pages
}

func helpPage(text []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'self'")
		_, _ = w.Write(text)
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
