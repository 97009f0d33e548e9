package worker

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	c, err := Parse([]byte(`
# a file of CueAPI's daemon
api_key: cue_sk_x
api_base: https://api.example.com
worker_id: 17
email: me@example.com
poll_interval: 2
heartbeat_interval: 0.5
max_concurrent: 3
handler_timeout: 60
colour: red
defaults: &d
  timeout: 20
  env: {N: 1, F: 1.50, B: true, S: "{{ payload.s }}", E: }
handlers:
  short: echo hi
  long: {<<: *d, cmd: "echo $N", cwd: ~/x, timout: 3, max_concurrent: 9}
  endless:
    cmd: |
      one
      two
    timeout: 9999
    max_concurrent: 1
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Key: "cue_sk_x", Base: "https://api.example.com", Worker: "17", Email: "me@example.com", Poll: 2 * time.Second, Heartbeat: 500 * time.Millisecond,
		Timeout: time.Minute, KillGrace: 5 * time.Second, StopGrace: 30 * time.Second, Concurrent: 3,
		Handlers: map[string]Handler{
			"short": {Command: "echo hi", Timeout: time.Minute, Concurrent: 3},
			"long": {Command: "echo $N", Folder: "~/x", Timeout: 20 * time.Second, Concurrent: 3,
				Env: map[string]string{"N": "1", "F": "1.5", "B": "True", "S": "{{ payload.s }}", "E": ""}},
			"endless": {Command: "one\ntwo\n", Timeout: time.Minute, Concurrent: 1}, // never more than handler_timeout
		},
	}
	unknown := c.Unknown
	c.Unknown = nil
	if !reflect.DeepEqual(c, want) {
		t.Errorf("%+v\nwant\n%+v", c, want)
	}
	if len(unknown) != 3 || unknown["colour"] == nil || unknown["defaults"] == nil || unknown["handlers.long.timout"] == nil {
		t.Errorf("unknown: %v", unknown)
	}
	if _, err := Parse([]byte(Example)); err != nil {
		t.Errorf("the example: %v", err)
	}
}

// TestParsePage: the file that the help shows names every member, at its default where there is one.
func TestParsePage(t *testing.T) {
	page, err := os.ReadFile("../../docs/help/worker-daemon.md")
	if err != nil {
		t.Fatal(err)
	}
	_, file, _ := strings.Cut(string(page), "    api_base: ")
	file, _, _ = strings.Cut("    api_base: "+file, "\n\n")
	c, err := Parse([]byte(file))
	if err != nil || len(c.Unknown) > 0 {
		t.Fatalf("%v, unknown %v", err, c.Unknown)
	}
	d, err := Parse([]byte("handlers: {a: b}"))
	if err != nil {
		t.Fatal(err)
	}
	for field := range reflect.TypeFor[Config]().NumField() {
		name := reflect.TypeFor[Config]().Field(field).Name
		have, otherwise := reflect.ValueOf(*c).Field(field).Interface(), reflect.ValueOf(*d).Field(field).Interface()
		if shown := name == "Base" || name == "KeyFile" || name == "Worker" || name == "Handlers"; shown == reflect.DeepEqual(have, otherwise) {
			t.Errorf("%s is %v on the page, and %v without being said", name, have, otherwise)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	many := "handlers:\n"
	for i := range 101 {
		many += "  t" + strings.Repeat("x", i) + ": c\n"
	}
	for text, want := range map[string]string{
		"":                                  "empty",
		"- a":                               "a list",
		"a: [":                              "no YAML",
		"handlers: {}":                      "handlers is missing",
		"handlers: [a]":                     "handlers is a list",
		"handlers: {a: }":                   "handlers.a.cmd is missing",
		"handlers: {a: ' '}":                "handlers.a is empty",
		"handlers: {a: [x]}":                "handlers.a is a list",
		"handlers: {'': x}":                 "without a name",
		"handlers: {a: {cmd: [x]}}":         "handlers.a.cmd is a list",
		many:                                "101 entries",
		"handlers: {a: {cmd: x, env: [x]}}": "handlers.a.env is a list",
		"handlers: {a: {cmd: x, env: {'A=B': x}}}":                        `"A=B"`,
		"{handlers: {a: x}, poll_interval: -1}":                           "poll_interval is -1",
		"{handlers: {a: x}, handler_timeout: .nan}":                       "handler_timeout is NaN",
		"{handlers: {a: x}, handler_timeout: 1e300}":                      "handler_timeout is 1000",
		"{handlers: {a: x}, handler_timeout: 5m}":                         "handler_timeout is 5m",
		"{handlers: {a: x}, max_concurrent: 1.5}":                         "max_concurrent is 1.5",
		"{handlers: {a: x}, api_key: x, api_key_file: y}":                 "keep one",
		"{handlers: {a: x}, worker_id: " + strings.Repeat("w", 256) + "}": "worker_id has 256 bytes",
		"{handlers: {a: x}, worker_id: [x]}":                              "worker_id is a list",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		}
	}
}
