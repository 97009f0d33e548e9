package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"unstuck/internal/op"
	"unstuck/internal/testkit"
	"unstuck/internal/testkit/pgtest"
)

// nasty are JSON values that fit few fields, and texts that have broken other programs.
var nasty = []string{
	`null`, `true`, `-1`, `0`, `1.5`, `-0`, `1e400`, `1e-400`, `9223372036854775807`, `9223372036854775808`, `-9223372036854775809`, strings.Repeat("9", 4301),
	`""`, `" "`, `"\u0000"`, `"a\u0000b"`, `"\ud800"`, `"\udc00\ud800"`, "\"\xff\xfe\"", "\"\xed\xa0\x80\"", `"a` + "\n" + `b"`, `"\u202e\u0007\u001b[31m"`,
	`"` + strings.Repeat("x", 70_000) + `"`, `"` + strings.Repeat("é", 300) + `"`, `"' OR 1=1 --"`, `"../../etc/passwd"`, `"%00%ff"`, `"{{7*7}}${x}"`, `"<script>"`,
	`"0000-00-00T00:00:00Z"`, `"9999-12-31T23:59:59.999999Z"`, `"-292277022399-01-01"`, `"2026-02-30"`, `"2026-11-23T10:00:00+99:99"`,
	`"0 0 30 2 *"`, `"* * * * * * *"`, `"Mars/Olympus"`, `"NaN"`, `NaN`, `Infinity`, `1 2`, `nul`, `'a'`,
	`[]`, `[null]`, `[[[[]]]]`, `[1,"a",{}]`, `{}`, `{"a":1,"a":2}`, `{"":{"":[]}}`, `{"a":"\u0000"}`, `{"\ud800":1}`,
	strings.Repeat("[", 65) + strings.Repeat("]", 65), strings.Repeat(`{"a":`, 70) + "1" + strings.Repeat("}", 70), strings.Repeat("[", 100_000),
}

// bodies are whole bodies that fit no operation.
var bodies = []string{
	``, ` `, `{`, `}`, `{"name":`, `{"name"}`, `{name:"x"}`, `{"a":1,}`, `[]`, `"x"`, `1`, `true`, `null`, `{} {}`, "\ufeff{}", "\x00", "{\"a\":\x00}", "\xff\xfe{\x00}\x00",
	`{"unknown":1}`, `<?xml version="1.0"?><a/>`, `a=b&c=d`, strings.Repeat("[", 200_000), strings.Repeat(`{"a":`, 100_000), `{"a":` + strings.Repeat("9", 5000) + `}`,
}

// segments are what may stand in a path where an id does.
var segments = []string{
	"x", "0", "-1", "..", ".", "%2e%2e", "%2e%2e%2f%2e%2e", "%00", "%ff", "%0a", "%20", "a%2Fb", "%E2%80%AE", "key_", "cue_", "cue_AAAAAAAAAAAA", "cue_000000000000", "key_000000000000",
	"usr_000000000000", "00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-4FFF-8FFF-FFFFFFFFFFFF", "'%20OR%20'1'='1", "self", "claim", strings.Repeat("a", 8000), "%7Bid%7D", "*",
}

// texts are what may stand in a query or a header.
var texts = []string{
	"", " ", "-1", "0", "1.5", "99999999999999999999", "true", "%00", "a%00b", "%ff%fe", "%ed%a0%80", "%zz", "%", "' OR 1=1 --", "null", "NaN", "[]", "{}", "a,b,,c", ",",
	strings.Repeat("y", 9000), "2026-13-01", "1e9", "%E2%80%AE", "+", "%2B1", "0x10", "１",
}

const (
	dumpEvery  = 6 // calls, in a quick run; in a long one all
	nastyEvery = 3 // values of a list, in a quick run; in a long one all
	textEvery  = 2
)

// attacker sends what nobody ought to send, and judges every answer.
type attacker struct {
	t      *testing.T
	w      *world
	before map[string]string // what was stored before the last call
	dump   *dumper
	said   []string // one line for each call: what it was, and status and code of the answer

	fields int // values that were put into fields

	key   string // personal, full
	spare who    // what it may end
}

// TestHostile sends broken, wrong and oversized input to every operation, on both databases. No answer is a failure of the server,
// every refusal has its one form, a refused write leaves nothing behind, and both databases answer alike.
func TestHostile(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	var mu sync.Mutex
	said := map[string][]string{} // by name of the subtest
	t.Run("databases", func(t *testing.T) {
		pgtest.Each(t, func(t *testing.T, dsn string) {
			t.Parallel()
			s := quick(t, dsn, behindProxy)
			a := &attacker{t: t, w: newWorld(s), dump: newDumper(t, s)}
			for _, o := range s.Set().All() {
				a.attack(o)
			}
			a.paths()
			a.generated(seed)
			a.stillWorks()
			mu.Lock()
			defer mu.Unlock()
			said[t.Name()] = a.said
			t.Logf("seed %d: %d calls", seed, len(a.said))
		})
	})
	if len(said) == 2 {
		compareTranscripts(t, said["TestHostile/databases/sqlite"], said["TestHostile/databases/postgres"])
	}
}

func compareTranscripts(t *testing.T, a, b []string) {
	t.Helper()
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			t.Errorf("the databases differ:\n\tSQLite:     %s\n\tPostgreSQL: %s", a[i], b[i])
		}
	}
	if len(a) != len(b) || len(a) < 1000 {
		t.Errorf("%d calls on SQLite, %d on PostgreSQL", len(a), len(b))
	}
}

// fresh gives the attacker a key of its own, and one that it may end.
func (a *attacker) fresh() {
	a.key = a.w.personal("admin").secret
	k := a.w.s.Must(a.w.s.First, "POST /v1/keys", obj{"name": a.w.name("target "), "permissions": []string{"usage:read"}})
	a.w.cue = a.w.newCue(a.w.name("crm-"))
	a.w.execution = a.w.fire()
	a.spare = who{id: k.Str("id"), scope: "worker", permission: "usage:read"}
	a.before = a.dump.all(a.t)
}

// attack sends everything to one operation.
func (a *attacker) attack(o *op.Operation) {
	a.fresh()
	if o.HasBody() {
		for i, b := range bodies {
			a.send(fmt.Sprintf("%s: body %d", o.Name, i), a.shaped(o, nil), b)
		}
		a.oversized(o)
	}
	for _, f := range o.Fields() {
		switch f.In {
		case op.InBody:
			a.field(o, f.Name, f.Type)
		case op.InPath:
			for i, s := range segments {
				if a.skips(textEvery) {
					continue
				}
				q := a.shaped(o, nil)
				q.route = o.Method() + " " + strings.Replace(fillPath(o, a.w.inputs(o, a.spare), f.Name), "{"+f.Name+"}", s, 1)
				a.send(fmt.Sprintf("%s: %s is segment %d", o.Name, f.Name, i), q, q.body)
				if s == "self" && o.Effect != op.Read { // the key may have ended itself
					a.fresh()
				}
			}
		case op.InQuery:
			for i, s := range texts {
				if a.skips(textEvery) {
					continue
				}
				q := a.shaped(o, nil)
				q.route = withQuery(q.route, f.Name, s)
				a.send(fmt.Sprintf("%s: %s is text %d", o.Name, f.Name, i), q, q.body)
			}
		case op.InHeader:
			for i, s := range texts {
				q := a.shaped(o, nil)
				s, _ = url.QueryUnescape(s)
				if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' }) || len(s) > 4000 { // net/http sends no such header
					continue
				}
				q.headers = append(q.headers, f.Name, s)
				a.send(fmt.Sprintf("%s: %s is text %d", o.Name, f.Name, i), q, q.body)
			}
		}
	}
}

// skips says that a value is left to a long run. Over all fields, every value of a list has its turn.
func (a *attacker) skips(every int) bool {
	a.fields++
	return !long() && a.fields%every > 0
}

// shaped is a valid call of an operation, with some inputs replaced.
func (a *attacker) shaped(o *op.Operation, change obj) request {
	in := a.w.inputs(o, a.spare)
	for name, v := range change {
		in[name] = v
	}
	return requestOf(o, in)
}

// field puts every nasty value into a field of the body, and into what is in it.
func (a *attacker) field(o *op.Operation, path string, typ reflect.Type) {
	for i, v := range nasty {
		if a.skips(nastyEvery) {
			continue
		}
		q := a.shaped(o, nil)
		a.send(fmt.Sprintf("%s: %s is nasty %d", o.Name, path, i), q, replaced(q.body, path, v))
	}
	if typ.Kind() != reflect.Struct {
		return
	}
	for _, f := range reflect.VisibleFields(typ) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" && !f.Anonymous {
			a.field(o, path+"."+name, reflect.TypeFor[string]())
		}
	}
}

// replaced is a body as JSON with the text of a value at a dotted place, which need not be JSON.
func replaced(body any, path, value string) string {
	members, _ := body.(obj)
	first, rest, nested := strings.Cut(path, ".")
	if nested {
		value = fmt.Sprintf(`{%q:%s}`, rest, value)
	}
	var b strings.Builder
	for name, v := range members {
		if name != first {
			text, _ := json.Marshal(v)
			fmt.Fprintf(&b, "%q:%s,", name, text)
		}
	}
	return "{" + b.String() + fmt.Sprintf("%q:%s}", first, value)
}

func fillPath(o *op.Operation, in obj, except string) string {
	path := o.Path()
	for name, v := range in {
		if name != except {
			path = strings.ReplaceAll(path, "{"+name+"}", url.PathEscape(fmt.Sprint(v)))
		}
	}
	return path
}

// withQuery adds a parameter whose value may be badly encoded.
func withQuery(route, name, value string) string {
	mark := "?"
	if strings.Contains(route, "?") {
		mark = "&"
	}
	return route + mark + name + "=" + strings.NewReplacer(" ", "%20", "#", "%23").Replace(value)
}

// send makes a call and judges its answer. A body that is no text is sent as JSON.
func (a *attacker) send(what string, q request, body any) {
	a.t.Helper()
	if !slices.Contains(q.headers, "X-Forwarded-For") {
		q.headers = append(q.headers, fromElsewhere(int64(len(a.said)))...)
	}
	r, err := a.w.s.Call(context.Background(), a.key, q.route, body, q.headers...)
	if err != nil {
		if strings.Contains(err.Error(), "invalid URL escape") || strings.Contains(err.Error(), "invalid character") {
			return // the client does not send it
		}
		a.t.Errorf("%s: no answer: %v", what, err)
		return
	}
	a.judge(what, q, r)
}

var trace = regexp.MustCompile(`goroutine \d|\.go:\d+|runtime error|panic:|SQLITE_|SQLSTATE|pgconn|constraint failed`)

// judge holds an answer against what every answer must be.
func (a *attacker) judge(what string, q request, r testkit.Reply) {
	a.t.Helper()
	a.said = append(a.said, fmt.Sprintf("%s: %d %s", what, r.Status, r.Code()))
	short := fmt.Sprintf("%s: %.80s: %s", what, q.route, gist(r))
	if r.Status >= 500 || trace.Match(r.Body) {
		a.t.Errorf("%s: the server failed", short)
	}
	if r.Status == 401 || r.Status == 429 {
		a.t.Errorf("%s: the test lost its key", short)
		a.fresh()
	}
	if r.Header.Get("X-Request-Id") == "" {
		a.t.Errorf("%s: no X-Request-Id", short)
	}
	if strings.HasSuffix(q.route, "key/regenerate") && r.Status == 200 {
		a.key = r.Str("api_key")
	}
	if r.Status < 400 {
		if stream := strings.HasPrefix(q.route, "GET /v1/live"); r.Status != 204 && !stream && !json.Valid(r.Body) {
			a.t.Errorf("%s: not JSON: %.200s", short, r.Body)
		}
		a.before = nil
		return
	}
	if fault := wrongForm(r); fault != "" {
		a.t.Errorf("%s: %s: %.300s", short, fault, r.Body)
	}
	if !long() && len(a.said)%dumpEvery > 0 {
		return
	}
	now := a.dump.all(a.t)
	if a.before != nil {
		if left := differ(a.before, now); left != "" {
			a.t.Errorf("%s: the refused call left something behind: %s", short, left)
		}
	}
	a.before = now
}

// wrongForm says what is wrong with the form of a refusal; "" when it is the one that every refusal has.
func wrongForm(r testkit.Reply) string {
	var body map[string]json.RawMessage
	if err := json.Unmarshal(r.Body, &body); err != nil {
		return "it is no JSON object"
	}
	var detail map[string]json.RawMessage
	if err := json.Unmarshal(body["detail"], &detail); err != nil || !bytes.Equal(body["error"], detail["error"]) {
		return "error and detail.error differ"
	}
	var e struct {
		Code, Message string
		Status        int
	}
	if err := json.Unmarshal(body["error"], &e); err != nil || e.Code == "" || e.Message == "" || e.Status != r.Status {
		return "code, message or status is missing or wrong"
	}
	if r.Header.Get("Content-Type") != "application/json" {
		return "its type is " + r.Header.Get("Content-Type")
	}
	return ""
}

// oversized sends more than a body may have, with and without saying so before.
func (a *attacker) oversized(o *op.Operation) {
	q := a.shaped(o, nil)
	large := `{"name":"` + strings.Repeat("x", op.MaxBody) + `"}`
	a.send(o.Name+": too large", q, large)
	method, path, _ := strings.Cut(q.route, " ")
	req, err := http.NewRequest(method, a.w.s.URL+path, &unsized{strings.NewReader(large)})
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+a.key)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Errorf("%s: too large, chunked: %v", o.Name, err)
		return
	}
	defer res.Body.Close()
	r := testkit.Reply{Status: res.StatusCode, Header: res.Header}
	var b bytes.Buffer
	_, _ = b.ReadFrom(res.Body) // what was read is judged
	r.Body = b.Bytes()
	_ = json.Unmarshal(r.Body, &r.JSON)
	if r.Status != 413 {
		a.t.Errorf("%s: too large, chunked: %s", o.Name, gist(r))
	}
	a.judge(o.Name+": too large, chunked", q, r)
}

// unsized is a reader whose length net/http does not know.
type unsized struct{ *strings.Reader }

// Len hides that of the reader.
func (*unsized) Len(struct{}) {}

// paths tries paths and methods that there are not, and headers that mean nothing.
func (a *attacker) paths() {
	a.fresh()
	for _, route := range []string{
		"GET /", "GET /v1", "GET /v1/", "GET /v2/cues", "GET /v1/nothing", "GET /v1/keys/self/self", "POST /v1/cues/", "GET //v1/cues", "GET /v1//cues", "GET /v1/cues/", "GET /../v1/cues",
		"DELETE /v1/cues", "PUT /v1/cues", "PATCH /v1/keys", "TRACE /v1/cues", "OPTIONS /v1/cues", "BREW /v1/cues", "get /v1/cues", "HEAD /v1/nothing", "POST /health", "GET /v1/keys/%2e%2e/cues",
		"GET /.git/config", "GET /metrics/../v1/cues", "GET /v1/cues;x=1", "GET /v1/cues%3Fx", "GET /docs/help/../../go.mod", "GET /docs/help/%2e%2e/%2e%2e/go.mod",
	} {
		q := request{route: route}
		r, err := a.w.s.Call(context.Background(), a.key, route, nil)
		if err != nil {
			a.t.Errorf("%s: %v", route, err)
			continue
		}
		if r.Status == 405 && r.Header.Get("Allow") == "" {
			a.t.Errorf("%s: no Allow header", route)
		}
		if r.Status < 400 || strings.HasPrefix(route, "HEAD") {
			continue
		}
		a.judge(route, q, r)
	}
	a.headers()
}

func (a *attacker) headers() {
	long := strings.Repeat("z", 8000)
	for _, h := range [][2]string{
		{"Content-Type", "text/plain"}, {"Content-Type", "application/json; charset=utf-16"}, {"Content-Type", long}, {"Content-Encoding", "gzip"}, {"Accept", "image/png"},
		{"X-Forwarded-For", "' OR 1=1"}, {"X-Forwarded-For", long}, {"X-Forwarded-For", "::1%eth0, fe80::1"}, {"Forwarded", "for=unknown"}, {"Origin", "null"}, {"Origin", "http://evil.example.com"},
		{"X-Cueapi-Verify-Echo", "true"}, {"X-Confirm-Destructive", long}, {"X-Unstuck-Client", long}, {"User-Agent", long}, {"Range", "bytes=0-1"}, {"X-Request-Id", long}, {"Cookie", "session=x"},
		{"X-HTTP-Method-Override", "DELETE"}, {"Idempotency-Key", long}, {"Upgrade", "h2c"}, {"Connection", "Upgrade"},
	} {
		for _, name := range []string{"cue.create", "key.self"} {
			o := a.w.s.Set().Lookup(name)
			q := a.shaped(o, nil)
			q.headers = append(q.headers, h[0], h[1])
			a.send(fmt.Sprintf("%s: header %s: %.20s", name, h[0], h[1]), q, q.body)
		}
	}
	for i, auth := range []string{"", "Bearer", "Bearer ", "bearer x", "Basic eDp5", "Bearer " + long, "Bearer " + a.key + " ", "Bearer " + strings.ToUpper(a.key), "Bearer " + a.key[:40], "Bearer " + a.key + ", Bearer " + a.w.s.First, "\x7f"} {
		r, err := a.w.s.Call(context.Background(), "", "GET /v1/keys/self", nil, append(fromElsewhere(int64(i)), "Authorization", auth)...)
		if err != nil {
			continue // the client does not send it
		}
		if r.Status != 401 && !strings.Contains(auth, a.key+" ") {
			a.t.Errorf("Authorization %.30q: %s", auth, gist(r))
		}
	}
}

// generated sends random values to random fields of random operations.
func (a *attacker) generated(seed uint64) {
	random := rand.New(rand.NewPCG(seed, 0))
	n := 400
	if long() {
		n = 5000
	}
	all := a.w.s.Set().All()
	for i := range n {
		if i%50 == 0 {
			a.fresh()
		}
		o := all[random.IntN(len(all))]
		change := obj{}
		for _, f := range o.Fields() {
			if f.In == op.InPath || random.IntN(3) > 0 || f.Name == "rate_limit_per_minute" { // the test needs its calls
				continue
			}
			if f.In == op.InBody {
				change[f.Name] = json.RawMessage(randomJSON(random, 3))
			} else if f.In == op.InQuery {
				change[f.Name] = randomText(random)
			}
		}
		q := a.shaped(o, change)
		a.send(fmt.Sprintf("generated %d, %s", i, o.Name), q, q.body)
	}
}

func randomText(r *rand.Rand) string {
	alphabet := []rune("ab01-_:. */,\"'\\%{}[]éß漢😀\u202e\u0000\t\n")
	out := make([]rune, r.IntN(12))
	for i := range out {
		out[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(out)
}

func randomJSON(r *rand.Rand, depth int) string {
	switch n := r.IntN(8); {
	case n == 0 && depth > 0:
		var list []string
		for range r.IntN(4) {
			list = append(list, randomJSON(r, depth-1))
		}
		return "[" + strings.Join(list, ",") + "]"
	case n == 1 && depth > 0:
		var members []string
		for i := range r.IntN(4) {
			members = append(members, fmt.Sprintf(`"k%d":%s`, i, randomJSON(r, depth-1)))
		}
		return "{" + strings.Join(members, ",") + "}"
	case n < 4:
		return []string{"null", "true", "false", "-1", "7", "2.5", "1e9", "-9223372036854775808"}[r.IntN(8)]
	}
	text, _ := json.Marshal(randomText(r))
	return string(text)
}

// stillWorks does the main job once more, and looks whether all chains are whole.
func (a *attacker) stillWorks() {
	s, first := a.w.s, a.w.s.First
	cue := a.w.newCue("afterwards")
	id := s.Must(first, "POST /v1/cues/"+cue+"/fire", obj{}).Str("id")
	claim := s.Must(first, "POST /v1/executions/"+id+"/claim", obj{"worker_id": "w"})
	s.Must(first, "POST /v1/executions/"+id+"/outcome", obj{"success": true, "lease_token": claim.Str("lease_token")})
	if r := s.Must(first, "GET /v1/audit/check", nil); r.JSON["ok"] != true {
		a.t.Errorf("the audit log: %s", r.Body)
	}
	for _, x := range s.Must(first, "GET /v1/executions?limit=100", nil).JSON["executions"].([]any) {
		id := x.(obj)["id"].(string)
		if r := s.Must(first, "GET /v1/executions/"+id+"/check-evidence", nil); r.JSON["ok"] != true {
			a.t.Errorf("evidence: %s", r.Body)
		}
	}
	for _, x := range s.Must(first, "GET /v1/cues?limit=100", nil).JSON["cues"].([]any) {
		id := x.(obj)["id"].(string)
		if r := s.Must(first, "GET /v1/cues/"+id+"/ledger?from=2026-01-01", nil); r.JSON["closed"] != true {
			a.t.Errorf("ledger: %s", r.Body)
		}
	}
	if !slices.ContainsFunc(s.Set().All(), func(o *op.Operation) bool { return o.Name == "cue.fire" }) {
		a.t.Error("the set has lost an operation")
	}
}
