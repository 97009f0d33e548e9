// Package docs holds the pages of help that the server itself shows under /docs/help/.
package docs

import "embed"

// Help is every page of docs/help, and a list of them, as HTML. `make gen` makes them.
//
//go:embed html/*.html
var Help embed.FS
