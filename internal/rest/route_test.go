package rest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"unstuck/internal/op"
	"unstuck/internal/rest"
)

func TestRoutes(t *testing.T) {
	h := newHandler(&door{}, map[string]http.Handler{
		"/metrics":    http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "metrics") }),
		"POST /hook/": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hook") }),
		"/":           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "root") }),
	})
	for _, c := range []struct {
		method, path string
		status       int
		want         string // the id of the thing that answers, or the Allow header, or the text
	}{
		{"GET", "/v1/things/t1", 200, "t1"},
		{"GET", "/v1/things/t1/", 200, "t1"},
		{"GET", "//v1/things/t1", 200, "t1"},
		{"GET", "///v1/things/t1//", 200, "t1"},
		{"GET", "/v1/things/self", 200, "(self)"},
		{"GET", "/v1/things/self/", 200, "(self)"},
		{"POST", "/v1/things/claim", 200, "(claimed)"},
		{"GET", "/v1/things/self/parts/x", 200, "self|x"},
		{"GET", "/v1/things/a/parts/self", 200, "a|self"},
		{"GET", "/v1/things/a%2Fb", 200, "a/b"},
		{"GET", "/v1/things/a%2Fb/parts/%2f", 200, "a/b|/"},
		{"GET", "/v1/things/a%20b%3F%25", 200, "a b?%"},
		{"GET", "/v1/things/%73elf", 200, "(self)"},
		{"GET", "/v1/things/%C3%A9", 200, "é"},
		{"GET", "/v1/things/é", 200, "é"},
		{"GET", "/v1/things/a+b", 200, "a+b"},
		{"GET", "/v1/things/..", 200, ".."},
		{"GET", "/v1/things/a;b", 200, "a;b"},
		{"GET", "/health", 200, "health"},
		{"GET", "/v1/things/missing", 404, "thing_not_found"},
		{"GET", "/v1", 404, "http_error"},
		{"GET", "/v2/things", 404, "http_error"},
		{"GET", "/v1//things", 404, "http_error"},
		{"GET", "/v1/things//parts/x", 404, "http_error"},
		{"GET", "/v1/things/a/parts", 404, "http_error"},
		{"GET", "/v1/things/a/parts/b/c", 404, "http_error"},
		{"GET", "/V1/things", 404, "http_error"},
		{"GET", "/v1/things/{id}/nothing", 404, "http_error"},
		{"PUT", "/v1/things", 405, "GET, HEAD, POST"},
		{"DELETE", "/v1/things/", 405, "GET, HEAD, POST"},
		{"POST", "/v1/things/self", 405, "GET, HEAD"},
		{"GET", "/v1/things/claim", 405, "POST"},
		{"PUT", "/v1/things/claim/", 405, "POST"},
		{"POST", "/v1/things/t1", 405, "DELETE, GET, HEAD, PATCH"},
		{"OPTIONS", "/v1/things", 405, "GET, HEAD, POST"},
		{"HEAD", "/v1/crash", 405, "POST"},
		{"get", "/v1/things", 405, "GET, HEAD, POST"},
		{"POST", "/health", 405, "GET, HEAD"},
		{"GET", "/metrics", 200, "metrics"},
		{"HEAD", "/metrics/", 200, "metrics"},
		{"POST", "/metrics", 405, "GET, HEAD"},
		{"POST", "/hook", 200, "hook"},
		{"GET", "/hook", 405, "POST"},
		{"GET", "/metrics/x", 404, "http_error"},
		{"GET", "/", 200, "root"},
		{"PATCH", "/", 405, "GET, HEAD"},
		{"POST", "/openapi.json", 405, "GET, HEAD"},
		{"POST", "/docs", 405, "GET, HEAD"},
	} {
		res := ask(h, c.method, "http://h"+c.path, "")
		body := text(t, res)
		var seen struct {
			ID    string
			Error struct{ Code, Message, Docs string }
		}
		_ = json.Unmarshal([]byte(body), &seen)
		got := seen.ID + seen.Error.Code
		switch {
		case res.StatusCode == 405:
			got = res.Header.Get("Allow")
			if seen.Error.Code != "http_error" || seen.Error.Message != "Method Not Allowed" {
				t.Errorf("%s %s: %s", c.method, c.path, body)
			}
		case got == "":
			got = body
		}
		if res.StatusCode != c.status || got != c.want {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, res.StatusCode, got, c.status, c.want)
		}
		if res.StatusCode == 404 && c.want == "http_error" && (seen.Error.Message != "Not Found" || seen.Error.Docs != "/docs/errors#http_error") {
			t.Errorf("%s %s: %s", c.method, c.path, body)
		}
	}
}

func TestAliasesAnswerTheSame(t *testing.T) {
	h := newHandler(&door{}, nil)
	for _, path := range []string{"/v1/things/t1/reset", "/v1/reset/t1"} {
		if res := ask(h, "POST", path, "", "X-Confirm-Destructive", "true"); res.StatusCode != 200 || !strings.Contains(text(t, res), `"id":"t1"`) {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
		if res := ask(h, "POST", path, ""); res.StatusCode != 400 || !strings.Contains(text(t, res), "confirmation_required") {
			t.Errorf("%s without confirmation: %d", path, res.StatusCode)
		}
	}
}

func TestPlacesThatAreTakenTwice(t *testing.T) {
	nothing := http.NotFoundHandler()
	for _, pattern := range []string{"/docs", "/v1/things", "GET /openapi.json/", "GET /v1/things/{thing}", "metrics"} {
		func() {
			defer func() {
				if p := recover(); p == nil || !strings.HasPrefix(fmt.Sprint(p), "rest: ") {
					t.Errorf("%s: %v", pattern, p)
				}
			}()
			rest.New(rest.Options{Set: toys(&door{}), Info: info(), Mount: map[string]http.Handler{pattern: nothing}})
		}()
	}
}

func TestSetWithoutGuardServesItsDescription(t *testing.T) {
	h := rest.New(rest.Options{Set: toys(nil), Info: info()})
	if res := ask(h, "GET", "/openapi.json", ""); res.StatusCode != 200 {
		t.Errorf("the description: %d", res.StatusCode)
	}
	if res := ask(h, "GET", "/v1/things", ""); res.StatusCode != 404 || res.Header.Get("X-Request-Id") == "" {
		t.Errorf("a call: %d", res.StatusCode)
	}
	var _ op.Guard = &door{}
}
