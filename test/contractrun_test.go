package test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"unstuck/internal/testkit"
)

// contractHook is the receiver of the callbacks. Every row has a path of its own, whose answer is what the row says.
type contractHook struct {
	*httptest.Server
	mu    sync.Mutex
	paths map[string]*contractAnswer
}

type contractAnswer struct {
	status int
	body   string
	header http.Header
	calls  int
}

func newContractHook(t *testing.T) *contractHook {
	t.Helper()
	h := &contractHook{paths: map[string]*contractAnswer{}}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		h.mu.Lock()
		defer h.mu.Unlock()
		a := h.paths[q.URL.Path]
		if a == nil {
			a = &contractAnswer{status: 404}
		}
		a.calls++
		maps.Copy(w.Header(), a.header)
		w.WriteHeader(a.status)
		fmt.Fprint(w, a.body)
	}))
	t.Cleanup(h.Close)
	return h
}

// answer sets what a path answers from now on, and counts its calls anew.
func (h *contractHook) answer(path string, status int, text string) {
	body, header, has := strings.Cut(text, "| ")
	a := &contractAnswer{status: status, body: strings.TrimSpace(body), header: http.Header{}}
	if name, value, _ := strings.Cut(header, ": "); has {
		a.header.Set(name, value)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.paths[path] = a
}

// calls is how often a path was called since its answer was set.
func (h *contractHook) calls(path string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.paths[path].calls
}

// contractRun is a row that runs.
type contractRun struct {
	t      *testing.T
	s      *testkit.Server
	hook   *contractHook
	path   string // of the receiver
	number int64
	at     string // of the line that runs
	key    string
	vars   map[string]string
	reply  *testkit.Reply // of the last call
	asked  string         // the last call
	judged bool           // its status was looked at
}

func (r *contractRun) failf(format string, args ...any) {
	r.t.Helper()
	r.t.Errorf("%s: %s\n\t%s", r.at, fmt.Sprintf(format, args...), r.asked)
}

// settled makes sure that the answer to the last call was looked at.
func (r *contractRun) settled() {
	r.t.Helper()
	if r.reply != nil && !r.judged {
		r.failf("the answer to this call is not looked at: %d", r.reply.Status)
	}
}

// do runs one line.
func (r *contractRun) do(line string) {
	r.t.Helper()
	text := r.expand(line)
	word, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	switch {
	case strings.HasPrefix(line, " "):
		r.assert(strings.TrimSpace(text))
	case word == "->":
		r.status(rest)
	case word == strings.ToUpper(word) && word != "":
		r.settled()
		r.call(word, rest)
	default:
		r.settled()
		r.step(word, rest)
	}
}

// step does what rows need besides calls.
func (r *contractRun) step(word, rest string) {
	r.t.Helper()
	r.reply = nil
	name, rest, _ := strings.Cut(rest, " ")
	switch word {
	case "cue": // cue NAME {fields}
		body := obj{"name": name, "cron": "0 0 1 1 *", "worker": true}
		r.s.Clock.Add(time.Millisecond) // so that cues have an order
		r.merge(body, rest)
		r.vars[name] = r.must("POST /v1/cues", body).Str("id")
	case "fire": // fire NAME CUE {fields}
		cue, fields, _ := strings.Cut(rest, " ")
		body := obj{}
		r.merge(body, fields)
		r.s.Clock.Add(time.Millisecond)
		r.vars[name] = r.must("POST /v1/cues/"+r.vars[cue]+"/fire", body).Str("id")
	case "claim": // claim EXECUTION
		r.vars["token"] = r.must("POST /v1/executions/"+r.vars[name]+"/claim", obj{"worker_id": "w"}).Str("lease_token")
	case "report": // report EXECUTION {fields}
		body := obj{"success": true}
		r.merge(body, rest)
		r.must("POST /v1/executions/"+r.vars[name]+"/outcome", body)
	case "wait": // wait 900s: the clock moves, and what is due is done
		d, err := time.ParseDuration(name)
		if err != nil {
			r.t.Fatalf("%s: %v", r.at, err)
		}
		r.s.Clock.Add(d)
		r.s.Drain()
	case "drain":
		r.s.Drain()
	case "answers": // answers 500 body: of the callback from now on
		status, err := strconv.Atoi(name)
		if err != nil {
			r.t.Fatalf("%s: %v", r.at, err)
		}
		r.hook.answer(r.path, status, rest)
	case "called": // called 2: times since it was said what it answers
		if n := r.hook.calls(r.path); strconv.Itoa(n) != name {
			r.failf("the callback was called %d times", n)
		}
	case "as": // as KEY, as nobody
		if r.key = name; name == "nobody" {
			r.key = ""
		}
	case "somebody": // somebody NAME: a key of another workspace
		r.vars[name] = r.s.Must("", "POST /v1/auth/register", obj{"email": fmt.Sprintf("%s%d@example.com", name, r.number)}, fromElsewhere(r.number)...).Str("api_key")
	case "full": // full NAME SCOPE: another key of the workspace
		r.vars[name] = r.must("POST /v1/keys", obj{"name": name, "scope": rest}).Str("key")
	default:
		r.t.Fatalf("%s: what is %q?", r.at, word)
	}
}

func (r *contractRun) merge(into obj, fields string) {
	r.t.Helper()
	if fields == "" {
		return
	}
	if err := json.Unmarshal([]byte(fields), &into); err != nil {
		r.t.Fatalf("%s: %v: %s", r.at, err, fields)
	}
}

func (r *contractRun) must(route string, body any) testkit.Reply {
	r.t.Helper()
	reply := r.s.Do(r.key, route, body, fromElsewhere(r.number)...)
	if reply.Status >= 300 {
		r.t.Fatalf("%s: %s: %s", r.at, route, gist(reply))
	}
	return reply
}

// call makes a call: METHOD path [body] [| Header: value]...
func (r *contractRun) call(method, rest string) {
	r.t.Helper()
	parts := strings.Split(rest, " | ")
	path, body, has := strings.Cut(parts[0], " ")
	headers := fromElsewhere(r.number)
	for _, h := range parts[1:] {
		name, value, _ := strings.Cut(h, ": ")
		headers = append(headers, name, value)
	}
	var in any
	if has {
		in = body
		headers = append([]string{"Content-Type", "application/json"}, headers...)
	}
	reply := r.s.Do(r.key, method+" "+path, in, headers...)
	r.reply, r.judged, r.asked = &reply, false, method+" "+rest[:min(len(rest), 200)]
}

// status holds the last answer against "200" or "422 code field".
func (r *contractRun) status(want string) {
	r.t.Helper()
	if r.reply == nil {
		r.t.Fatalf("%s: no call came before", r.at)
	}
	r.judged = true
	got := strconv.Itoa(r.reply.Status)
	words := strings.Fields(want)
	if len(words) > 1 {
		got += " " + r.reply.Code()
	}
	if len(words) > 2 {
		field, _ := at(r.reply.JSON, "error.details.0.field")
		got += " " + fmt.Sprint(field)
	}
	if got != strings.Join(words, " ") {
		r.t.Fatalf("%s: want %s, got %s: %s\n\t%s", r.at, want, got, gist(*r.reply), r.asked)
	}
	if r.reply.Status >= 400 {
		r.envelope(*r.reply)
	}
}

// envelope is what every error has (contract 1.8 and 12): the same object twice, with a code, a message and the status.
func (r *contractRun) envelope(reply testkit.Reply) {
	r.t.Helper()
	e, ok := reply.JSON["error"].(obj)
	detail, _ := at(reply.JSON, "detail.error")
	if !ok || !reflect.DeepEqual(detail, any(e)) || e["status"] != float64(reply.Status) || cmp.Or(fmt.Sprint(e["message"]), "<nil>") == "<nil>" {
		r.failf("not the form of an error: %s", reply.Body)
	}
}

// forms are what a text looks like.
var forms = map[string]*regexp.Regexp{
	"z":      regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z$`),
	"offset": regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?\+00:00$`),
	"date":   regexp.MustCompile(`^\d{4}-\d\d-\d\d$`),
	"uuid":   regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`),
	"cue":    regexp.MustCompile(`^cue_[0-9a-z]{12}$`),
	"int":    regexp.MustCompile(`^-?\d+$`),
	"bool":   regexp.MustCompile(`^(true|false)$`),
	"string": regexp.MustCompile(``),
}

// assert holds a line that stands below a call against its answer.
func (r *contractRun) assert(line string) {
	r.t.Helper()
	if r.reply == nil || !r.judged {
		r.t.Fatalf("%s: the status comes first", r.at)
	}
	path, rest, _ := strings.Cut(line, " ")
	relation, want, _ := strings.Cut(rest, " ")
	switch path {
	case "keys":
		if missing := lacks(r.reply.Body, strings.Fields(rest)); missing != "" {
			r.failf("lacks %s, or it stands elsewhere: %s", missing, r.reply.Body)
		}
		return
	case "let":
		value, ok := at(r.reply.JSON, want)
		if !ok {
			r.failf("there is no %s", want)
		}
		r.vars[relation] = fmt.Sprint(value)
		return
	case "header":
		if value := r.reply.Header.Get(relation); !regexp.MustCompile(want).MatchString(value) {
			r.failf("%s is %q", relation, value)
		}
		return
	case "empty":
		if len(r.reply.Body) > 0 {
			r.failf("there is a body: %s", r.reply.Body)
		}
		return
	}
	value, there := at(r.reply.JSON, path)
	if relation == "absent" {
		if there {
			r.failf("%s is %v", path, value)
		}
		return
	}
	if !there || !holds(value, relation, want) {
		text, _ := json.Marshal(value)
		r.failf("%s %s %s, but it is %s (there: %v)", path, relation, want, text, there)
	}
}

// holds says whether a value is as it must be: "= JSON", "~ regular expression", "is form", "has n" members.
func holds(value any, relation, want string) bool {
	text, isText := value.(string)
	if !isText {
		raw, _ := json.Marshal(value)
		text = string(raw)
	}
	switch relation {
	case "=":
		var v any
		return json.Unmarshal([]byte(want), &v) == nil && reflect.DeepEqual(v, value)
	case "~":
		return regexp.MustCompile(want).MatchString(text)
	case "is":
		form := forms[want]
		return form != nil && form.MatchString(text) && isText == (want != "int" && want != "bool")
	case "has":
		list, ok := value.([]any)
		return ok && strconv.Itoa(len(list)) == want
	}
	return false
}

// lacks is the first of these members that a JSON object does not have in this order, others between them or not; "" for none.
func lacks(body []byte, want []string) string {
	d := json.NewDecoder(strings.NewReader(string(body)))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return "a beginning"
	}
	for d.More() && len(want) > 0 {
		name, err := d.Token()
		var skip json.RawMessage
		if err != nil || d.Decode(&skip) != nil {
			return "an end"
		}
		if name == want[0] {
			want = want[1:]
		}
	}
	if len(want) > 0 {
		return want[0]
	}
	return ""
}

// at is a member of a JSON value; the path has dots, and numbers for lists.
func at(v any, path string) (any, bool) {
	for p := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case obj:
			var ok bool
			if v, ok = x[p]; !ok {
				return nil, false
			}
		case []any:
			i, err := strconv.Atoi(p)
			if err != nil || i < 0 || i >= len(x) {
				return nil, false
			}
			v = x[i]
		default:
			return nil, false
		}
	}
	return v, true
}

var inContract = regexp.MustCompile(`\$(x|at|naive|offset)\(([^)]*)\)|\$([a-z_0-9]+)`)

// expand puts values in: $name; $x(300) is so many x; $at(+1h), $naive(+1h) and $offset(+1h) are moments from now, to the second.
func (r *contractRun) expand(text string) string {
	return inContract.ReplaceAllStringFunc(text, func(m string) string {
		p := inContract.FindStringSubmatch(m)
		switch p[1] {
		case "":
			v, ok := r.vars[p[3]]
			if !ok {
				return m // such as the $ of a regular expression
			}
			return v
		case "x":
			n, err := strconv.Atoi(p[2])
			if err != nil {
				r.t.Fatalf("%s: %v", r.at, err)
			}
			return strings.Repeat("x", n)
		}
		d, err := time.ParseDuration(strings.TrimPrefix(p[2], "+"))
		if err != nil {
			r.t.Fatalf("%s: %v", r.at, err)
		}
		moment := r.s.Clock.Now().Add(d).Truncate(time.Second)
		return moment.Format(map[string]string{"at": time.RFC3339, "naive": "2006-01-02T15:04:05", "offset": "2006-01-02T15:04:05-07:00"}[p[1]])
	})
}
