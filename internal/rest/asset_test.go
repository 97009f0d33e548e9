package rest_test

import (
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

// The vendored files are those of the npm package, byte for byte.
func TestVendoredFilesAreUnchanged(t *testing.T) {
	sums, err := os.ReadFile("static/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for line := range strings.Lines(string(sums)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		want[name] = sum
	}
	packed, err := os.ReadDir("static")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, e := range packed {
		name, ok := strings.CutSuffix(e.Name(), ".gz")
		if !ok {
			continue
		}
		seen++
		if got := sumOfGzip(t, "static/"+e.Name()); got != want[name] {
			t.Errorf("%s has the sum %s, SHA256SUMS says %q", name, got, want[name])
		}
	}
	if seen != len(want) || seen == 0 {
		t.Errorf("%d files, %d sums", seen, len(want))
	}
}

func sumOfGzip(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	if _, err := io.Copy(h, z); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func TestAssets(t *testing.T) {
	h := newHandler(&door{}, nil)
	for path, kind := range map[string]string{
		"/docs": "text/html; charset=utf-8", "/docs/docs.js": "text/javascript; charset=utf-8", "/docs/swagger-ui.css": "text/css; charset=utf-8",
		"/docs/swagger-ui-bundle.js": "text/javascript; charset=utf-8", "/openapi.json": "application/json",
	} {
		plain := ask(h, "GET", path, "")
		packed := ask(h, "GET", path, "", "Accept-Encoding", "br, gzip;q=0.5")
		z, err := gzip.NewReader(packed.Body)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		unpacked, err := io.ReadAll(z)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if string(unpacked) != text(t, plain) || packed.Header.Get("Content-Encoding") != "gzip" || plain.Header.Get("Content-Encoding") != "" {
			t.Errorf("%s: compressed and plain differ", path)
		}
		if plain.Header.Get("Content-Type") != kind || plain.Header.Get("Cache-Control") != "no-cache" || plain.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: %v", path, plain.Header)
		}
		tag := packed.Header.Get("ETag")
		if tag == "" || tag == plain.Header.Get("ETag") {
			t.Errorf("%s: the forms share the tag %s", path, tag)
		}
		if res := ask(h, "GET", path, "", "Accept-Encoding", "gzip", "If-None-Match", tag); res.StatusCode != 304 || text(t, res) != "" {
			t.Errorf("%s: %d to a client that has it", path, res.StatusCode)
		}
	}
	for header, want := range map[string]string{
		"": "", "gzip": "gzip", "GZIP": "gzip", "*": "gzip", "gzip;q=0": "", "gzip; q=0.0, br": "", "*;q=0": "", "*;q=0, gzip": "gzip", "gzip;q=0, *": "", "br": "", "xgzip": "",
	} {
		if got := ask(h, "GET", "/docs", "", "Accept-Encoding", header).Header.Get("Content-Encoding"); got != want {
			t.Errorf("Accept-Encoding %q: %q", header, got)
		}
	}
}

// The page loads nothing but what this server sends and holds no script of its own.
func TestReferencePage(t *testing.T) {
	h := newHandler(&door{}, nil)
	res := ask(h, "GET", "/docs", "")
	page := text(t, res)
	if got := res.Header.Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'self'; img-src 'self' data:;") || strings.Contains(got, "unsafe") {
		t.Errorf("policy %q", got)
	}
	for _, forbidden := range []string{"http://", "https://", "<style", "style=", "onload", "onclick"} {
		if strings.Contains(page, forbidden) {
			t.Errorf("the page has %s", forbidden)
		}
	}
	for i, part := range strings.Split(page, "<script")[1:] {
		src, _, _ := strings.Cut(part, ">")
		_, path, ok := strings.Cut(src, `src="`)
		path, _, _ = strings.Cut(path, `"`)
		if !ok || ask(h, "GET", path, "").StatusCode != 200 || !strings.HasPrefix(part[len(src):], "></script>") {
			t.Errorf("script %d: %s", i, part)
		}
	}
	if script := text(t, ask(h, "GET", "/docs/docs.js", "")); !strings.Contains(script, "validatorUrl: null") {
		t.Errorf("the script is %s", script)
	}
}
