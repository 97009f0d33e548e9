package rest

import (
	"embed"
	"net/http"
)

// static holds the API reference: our page and script, and the two files of swagger-ui-dist that it needs, compressed. SHA256SUMS
// has the sums of what they hold.
//
//go:embed static/docs.* static/swagger-ui*
var static embed.FS

// referencePolicy lets the page load nothing but what this server sends, and nobody frame it: keys are typed into it.
const referencePolicy = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// reference is the API reference page with what it loads.
func reference() map[string]http.Handler {
	page := newAsset("text/html; charset=utf-8", file("docs.html"))
	page.headers = http.Header{"Content-Security-Policy": {referencePolicy}, "Referrer-Policy": {"no-referrer"}}
	return map[string]http.Handler{
		"/docs":                      page,
		"/docs/docs.js":              newAsset("text/javascript; charset=utf-8", file("docs.js")),
		"/docs/swagger-ui-bundle.js": newGzipAsset("text/javascript; charset=utf-8", file("swagger-ui-bundle.js.gz")),
		"/docs/swagger-ui.css":       newGzipAsset("text/css; charset=utf-8", file("swagger-ui.css.gz")),
	}
}

func file(name string) func() []byte {
	return func() []byte {
		b, err := static.ReadFile("static/" + name)
		if err != nil {
			panic("rest: " + err.Error()) // a test asks for each
		}
		return b
	}
}
