package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"unstuck/internal/op"
)

// sent is a request as a server received it.
type sent struct {
	Route string
	Query map[string][]string
	Body  map[string]any
}

// listener notes the last request, and answers every one with an empty object, but knows one worker.
type listener struct {
	mu   sync.Mutex
	last sent
	head http.Header
}

func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text, _ := io.ReadAll(r.Body) // a body that cannot be read differs from what is wanted
	l.last, l.head = sent{Route: r.Method + " " + r.URL.Path, Query: r.URL.Query()}, r.Header
	_ = json.Unmarshal(text, &l.last.Body)
	answer := "{}"
	if r.URL.Path == "/v1/workers" {
		answer = `{"workers":[{"worker_id":"laptop"}]}`
	}
	if r.URL.Path == "/v1/live" {
		w.Header().Set("Content-Type", "text/event-stream")
		answer = "event: end\ndata: {\"type\":\"end\",\"code\":\"time_over\"}\n\n"
	}
	_, _ = io.WriteString(w, answer)
}

// samples are values of the fields of an operation as they stand on the wire, and as they are typed.
func sampleOf(w wording, o *op.Operation, f op.Field) (wire any, typed string) {
	ids := map[object]string{aKey: "key_000000000001", aCue: "cue_000000000001", aMember: "usr_000000000001", anExec: "01234567-89ab-4cde-8f01-23456789abcd", anAlert: "01234567-89ab-4cde-8f01-23456789abce",
		aWorker: "laptop", anyObject: "cue_000000000001"}
	kind := w.refOf(o, f)
	if id := ids[kind]; id != "" {
		return id, id
	}
	if kind == "auth_key" {
		return ids[aKey], ids[aKey]
	}
	if len(f.Enum) > 0 && f.Type.Kind() == reflect.String {
		return f.Enum[0], f.Enum[0]
	}
	switch (&fieldValue{field: f}).Type() {
	case "bool":
		return true, "true"
	case "n":
		return float64(7), "7"
	case "a,b":
		return []any{"a", "b"}, "a,b"
	case "json":
		if f.List() {
			return []any{"x"}, `["x"]`
		}
		return map[string]any{"x": 1e2}, `{"x":1e2}`
	case "time":
		return "2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z"
	}
	return f.Name + "!", f.Name + "!"
}

// TestEveryOperationIsACommand gives every operation's command every flag that it has, and looks at what is sent: each input where
// its field travels, and nothing else but what own flags add.
func TestEveryOperationIsACommand(t *testing.T) {
	l := &listener{}
	server := httptest.NewServer(l)
	defer server.Close()
	d := newDoor(Env{})
	more := map[string][]string{"cue.create": {"--cron", "* * * * *", "--zone", "UTC"}, "key.create": {}}
	for _, o := range d.set.All() {
		w := d.words[o.Name]
		args := strings.Fields(d.nounOf(o, w) + " " + verbOf(o, w))
		if w.top {
			args = []string{w.verb}
		}
		want := sent{Route: o.Method() + " " + o.Path(), Query: map[string][]string{}}
		positional, _ := w.argsOf(o)
		var flags []string
		for _, f := range o.Fields() {
			wire, typed := sampleOf(w, o, f)
			isArg := strings.Contains(fmt.Sprint(names(positional)), "|"+f.Name+"|")
			switch word := w.flagOf(f); {
			case isArg:
				args = append(args, typed)
			case word == "":
				continue
			default:
				flags = append(flags, "--"+word+"="+typed)
			}
			want.put(f, wire)
		}
		args = append(append(args, flags...), append(more[o.Name], "--json", "--yes")...)
		code, out := runAgainst(server.URL, args...)
		if code != 0 {
			t.Errorf("%s: unstuck %s: ended with %d: %s", o.Name, strings.Join(args, " "), code, out)
			continue
		}
		got := l.last
		for name := range got.Body { // what own flags add is looked at elsewhere
			if _, ok := want.Body[name]; !ok && w.own != nil {
				delete(got.Body, name)
			}
		}
		if len(got.Body) == 0 {
			got.Body = nil
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: unstuck %s (-want +sent):\n%s", o.Name, strings.Join(args, " "), diff)
		}
		if l.head.Get("X-Unstuck-Client") != "cli" || !strings.HasPrefix(l.head.Get("User-Agent"), "unstuck-cli/") {
			t.Errorf("%s does not say who calls: %v", o.Name, l.head)
		}
	}
}

func names(fields []op.Field) string {
	out := "|"
	for _, f := range fields {
		out += f.Name + "|"
	}
	return out
}

func (s *sent) put(f op.Field, wire any) {
	switch f.In {
	case op.InPath:
		s.Route = strings.ReplaceAll(s.Route, "{"+f.Name+"}", fmt.Sprint(wire))
	case op.InQuery:
		text := fmt.Sprint(wire)
		s.Query[f.Name] = []string{text}
	case op.InBody:
		if s.Body == nil {
			s.Body = map[string]any{}
		}
		s.Body[f.Name] = wire
	case op.InHeader: // looked at by the transcripts
	}
}

func runAgainst(url string, args ...string) (code int, out string) {
	var b bytes.Buffer
	env := map[string]string{urlVar: url, keyVar: "unstuck_key"}
	code = Run(context.Background(), Env{
		Getenv: func(name string) string { return env[name] }, Stdin: strings.NewReader("unstuck_other\n"), Stdout: &b, Stderr: &b,
		Now: time.Now, Zone: time.UTC,
	}, args...)
	return code, b.String()
}

// TestNoTwoCommandsShareAName: a second command of a name would never be reached.
func TestNoTwoCommandsShareAName(t *testing.T) {
	d := newDoor(Env{})
	seen := map[string]string{}
	for _, o := range d.set.All() {
		w := d.words[o.Name]
		for _, verb := range append([]string{verbOf(o, w)}, w.aliases...) {
			name := d.nounOf(o, w) + " " + verb
			if other := seen[name]; other != "" {
				t.Errorf("%s and %s are both `unstuck %s`", other, o.Name, name)
			}
			seen[name] = o.Name
		}
	}
	for name := range d.words {
		if d.set.Lookup(name) == nil {
			t.Errorf("there is a wording for %s, which is no operation", name)
		}
	}
}

// TestEveryNounIsExplained: help says in words what a group of commands is for, and does not just repeat its name.
func TestEveryNounIsExplained(t *testing.T) {
	for _, c := range newDoor(Env{}).root().Commands() {
		if !c.Hidden && c.Short == strings.ReplaceAll(c.Name(), "-", " ") {
			t.Errorf("`%s` is not explained in nouns", c.CommandPath())
		}
	}
}
