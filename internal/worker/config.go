// Package worker is the worker daemon: it asks a server for work, gives it to the commands of a configuration file, and reports how
// it went. It speaks to the server over HTTP alone, as a worker that somebody else wrote would. File and environment of the commands
// are those of CueAPI's published daemon (CueAPI wire contract 11.4), and some more.
package worker

import (
	_ "embed"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Example is the configuration file with which people begin.
//
//go:embed example.yaml
var Example string

// Config is a configuration file. Times in the file are seconds.
type Config struct {
	Key     string // api_key; "": it comes from elsewhere
	KeyFile string // api_key_file: a file that holds the key
	Base    string // api_base: address of the server; "": it comes from elsewhere
	Worker  string // worker_id; "": the name of the machine
	Email   string // email: CueAPI's daemon gets a new key with it. It has no meaning here

	Poll       time.Duration // poll_interval: the pause after a call that was refused; default 5 s
	Heartbeat  time.Duration // heartbeat_interval: how often the worker, and each lease, is renewed; default 30 s
	Timeout    time.Duration // handler_timeout: the most that any handler may take; default 300 s
	KillGrace  time.Duration // kill_grace: between SIGTERM and SIGKILL; default 5 s
	StopGrace  time.Duration // stop_grace: how long what runs may go on when the worker is to stop; default 30 s
	Concurrent int           // max_concurrent: handlers that run at a time; default 4

	Handlers map[string]Handler // by task

	// Unknown are the members that have no meaning, as path.name, each with the names that have one there.
	Unknown map[string][]string
}

// Handler is what is run for a task.
type Handler struct {
	Command    string            // cmd: for the shell; {{ payload.a.b }} stands for a value of the payload
	Folder     string            // cwd: "~/" is the user's folder; "" is where the worker runs
	Timeout    time.Duration     // timeout: never more than Config.Timeout, which is the default
	Concurrent int               // max_concurrent: of this handler at a time; default that of the whole worker
	Env        map[string]string // env: further variables; {{ payload.a.b }} is filled in
}

// handlersMost is how many tasks the server takes in one question.
const handlersMost = 100

// The longest times that a file may say: beyond them a number was meant to be something else.
const (
	intervalMost = time.Hour
	timeoutMost  = 30 * 24 * time.Hour
)

// Parse reads a configuration file. An error names all that is wrong, a line each.
func Parse(text []byte) (*Config, error) {
	var top any
	if err := yaml.Unmarshal(text, &top); err != nil {
		return nil, fmt.Errorf("it is no YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	r := &reader{unknown: map[string][]string{}}
	c := &Config{Handlers: map[string]Handler{}, Unknown: r.unknown}
	f := r.fields("", top)
	if f == nil {
		return nil, fmt.Errorf("it holds %s, not names with values", kindOf(top))
	}
	c.Key, c.KeyFile, c.Base = f.text("api_key"), f.text("api_key_file"), f.text("api_base")
	c.Worker, c.Email = f.text("worker_id"), f.text("email")
	c.Poll = f.seconds("poll_interval", 5*time.Second, intervalMost)
	c.Heartbeat = f.seconds("heartbeat_interval", 30*time.Second, intervalMost)
	c.Timeout = f.seconds("handler_timeout", 300*time.Second, timeoutMost)
	c.KillGrace = f.seconds("kill_grace", 5*time.Second, intervalMost)
	c.StopGrace = f.seconds("stop_grace", 30*time.Second, timeoutMost)
	c.Concurrent = f.count("max_concurrent", 4)
	handlers := r.fields("handlers", f.take("handlers"))
	f.end()
	for _, task := range slices.Sorted(maps.Keys(handlers.values())) {
		c.Handlers[task] = r.handler(c, task, handlers.have[task])
	}
	switch n := len(c.Handlers); {
	case n == 0 && len(r.faults) == 0:
		r.fault("handlers is missing: name a task and the command that does it")
	case n > handlersMost:
		r.fault("handlers has %d entries; up to %d are possible, so run a second worker", n, handlersMost)
	}
	if c.Key != "" && c.KeyFile != "" {
		r.fault("api_key and api_key_file say the same thing: keep one")
	}
	if len(c.Worker) > 255 {
		r.fault("worker_id has %d bytes and may have 255", len(c.Worker))
	}
	if len(r.faults) > 0 {
		return nil, fmt.Errorf("%s", strings.Join(r.faults, "\n"))
	}
	return c, nil
}

// handler reads what is run for a task: a command, or an object.
func (r *reader) handler(c *Config, task string, v any) Handler {
	h := Handler{Timeout: c.Timeout, Concurrent: c.Concurrent}
	if task == "" {
		r.fault("handlers has an entry without a name: it must be the task of the payload")
	}
	path := "handlers." + task
	if command, ok := v.(string); ok {
		if h.Command = command; strings.TrimSpace(command) == "" {
			r.fault("%s is empty: say which command does it", path)
		}
		return h
	}
	f := r.fields(path, v)
	if f == nil {
		r.fault("%s is %s; it must be a command, or an object with cmd", path, kindOf(v))
		return h
	}
	h.Command, h.Folder = f.text("cmd"), f.text("cwd")
	h.Timeout = min(f.seconds("timeout", c.Timeout, timeoutMost), c.Timeout)
	h.Concurrent = min(f.count("max_concurrent", c.Concurrent), c.Concurrent)
	env := r.fields(path+".env", f.take("env"))
	f.end()
	if strings.TrimSpace(h.Command) == "" {
		r.fault("%s.cmd is missing: say which command does it", path)
	}
	for name, v := range env.values() {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			r.fault("%s.env has the name %q, which no variable can have", path, name)
			continue
		}
		if h.Env == nil {
			h.Env = map[string]string{}
		}
		h.Env[name] = textOf(v)
	}
	return h
}

// reader gathers what is wrong with a file, and what has no meaning in it.
type reader struct {
	faults  []string
	unknown map[string][]string
}

func (r *reader) fault(format string, args ...any) {
	r.faults = append(r.faults, fmt.Sprintf(format, args...))
}

// fields are the members of an object; nil when v is none. A missing one has no members, and counts as a fault only where its
// content is missed.
func (r *reader) fields(path string, v any) *fields {
	f := &fields{r: r, path: path, have: map[string]any{}}
	switch v := v.(type) {
	case nil:
		if path == "" {
			return nil
		}
	case map[string]any:
		f.have = v
	case map[any]any:
		for name, value := range v {
			f.have[fmt.Sprint(name)] = value
		}
	default:
		if path == "handlers" || strings.HasSuffix(path, ".env") {
			r.fault("%s is %s; it must hold names with values", path, kindOf(v))
			return f
		}
		return nil
	}
	return f
}

type fields struct {
	r     *reader
	path  string
	have  map[string]any
	known []string
}

func (f *fields) values() map[string]any { return f.have }

func (f *fields) take(name string) any {
	f.known = append(f.known, name)
	return f.have[name]
}

func (f *fields) name(member string) string { return strings.TrimPrefix(f.path+"."+member, ".") }

// text is a member that is one line or more of text. Numbers are taken as they are written.
func (f *fields) text(name string) string {
	switch v := f.take(name).(type) {
	case nil:
		return ""
	case string, int, int64, uint64, float64:
		return textOf(v)
	default:
		f.r.fault("%s is %s; it must be text", f.name(name), kindOf(v))
		return ""
	}
}

// seconds is a member that is a time. A wrong one is a fault.
func (f *fields) seconds(name string, otherwise, most time.Duration) time.Duration {
	v := f.take(name)
	if v == nil {
		return otherwise
	}
	n, ok := number(v)
	if !ok || n <= 0 || n > most.Seconds() {
		f.r.fault("%s is %s; it must be a number of seconds above 0, up to %d", f.name(name), textOf(v), int64(most.Seconds()))
		return otherwise
	}
	return max(time.Duration(n*float64(time.Second)), time.Millisecond)
}

func (f *fields) count(name string, otherwise int) int {
	v := f.take(name)
	if v == nil {
		return otherwise
	}
	n, ok := number(v)
	if !ok || n < 1 || n > 1000 || n != math.Trunc(n) {
		f.r.fault("%s is %s; it must be a whole number from 1 to 1000", f.name(name), textOf(v))
		return otherwise
	}
	return int(n)
}

// end notes the members that were not asked for.
func (f *fields) end() {
	for name := range f.have {
		if !slices.Contains(f.known, name) {
			f.r.unknown[f.name(name)] = f.known
		}
	}
}

func number(v any) (n float64, ok bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case float64:
		return v, !math.IsNaN(v)
	}
	return 0, false
}

// textOf is a value of the file as text.
func textOf(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case bool: // as CueAPI's daemon writes it
		return map[bool]string{true: "True", false: "False"}[v]
	}
	return fmt.Sprint(v)
}

func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "empty"
	case []any:
		return "a list"
	case map[string]any, map[any]any:
		return "an object"
	case bool:
		return "true or false"
	case string:
		return "text"
	}
	return "a number"
}
