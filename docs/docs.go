// Package docs holds the pages of help that the server itself shows under /docs/help/.
package docs

import "embed"

// Help is every page of docs/help, as Markdown.
//
//go:embed help/*.md
var Help embed.FS
