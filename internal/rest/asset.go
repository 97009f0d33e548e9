package rest

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// asset is a file that never changes while the server runs. It is held compressed and sent so to whoever understands it. It is made
// when somebody asks for it first: that would be most of the time that a server needs to start.
type asset struct {
	kind    string // its Content-Type
	packed  func() packed
	headers http.Header
}

// packed is the content of an asset.
type packed struct {
	gz   []byte
	etag string // without quotes
}

// newAsset is the asset with this content.
func newAsset(kind string, content func() []byte) *asset {
	return newGzipAsset(kind, func() []byte { return compressed(content()) })
}

// newGzipAsset is the asset whose content is compressed already.
func newGzipAsset(kind string, content func() []byte) *asset {
	return &asset{kind: kind, packed: sync.OnceValue(func() packed {
		gz := content()
		sum := sha256.Sum256(gz)
		return packed{gz, hex.EncodeToString(sum[:12])}
	})}
}

func compressed(content []byte) []byte {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // the level is valid
	_, _ = z.Write(content)                               // a buffer takes everything
	_ = z.Close()
	return b.Bytes()
}

// ServeHTTP sends the asset, or 304 when the client has it. Clients ask every time, since the next version of the server may
// have another one under the same address.
func (a *asset) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h, p := w.Header(), a.packed()
	h.Set("Content-Type", a.kind)
	h.Set("Cache-Control", "no-cache")
	h.Set("Vary", "Accept-Encoding")
	for name, values := range a.headers {
		h[name] = values
	}
	if acceptsGzip(r.Header.Get("Accept-Encoding")) {
		h.Set("Content-Encoding", "gzip")
		h.Set("Etag", strconv.Quote(p.etag+"-gzip"))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(p.gz))
		return
	}
	h.Set("Etag", strconv.Quote(p.etag))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(p.content()))
}

// content is the asset as it was before it was compressed.
func (p packed) content() []byte {
	z, err := gzip.NewReader(bytes.NewReader(p.gz))
	if err != nil {
		panic("rest: an embedded file is not gzip: " + err.Error())
	}
	content, err := io.ReadAll(z)
	if err != nil {
		panic("rest: an embedded file is broken: " + err.Error())
	}
	return content
}

// acceptsGzip reads an Accept-Encoding header (RFC 9110, section 12.5.3).
func acceptsGzip(header string) bool {
	any := false
	for part := range strings.SplitSeq(header, ",") {
		coding, weight, _ := strings.Cut(part, ";")
		_, q, _ := strings.Cut(strings.ReplaceAll(weight, " ", ""), "q=")
		f, err := strconv.ParseFloat(q, 64)
		wanted := err != nil || f > 0
		switch strings.ToLower(strings.TrimSpace(coding)) {
		case "gzip":
			return wanted
		case "*":
			any = wanted
		}
	}
	return any
}
