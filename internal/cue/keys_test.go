package cue

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"unstuck/internal/access"
	"unstuck/internal/op"

	"pgregory.net/rapid"
)

// escaped writes a text as a JSON string of nothing but escapes.
func escaped(s string) string {
	var b strings.Builder
	for _, r := range s {
		fmt.Fprintf(&b, "\\u%04x", r)
	}
	return `"` + b.String() + `"`
}

// An escape hides no key: what a worker reports is read as the readers of its JSON read it.
func TestReportRedactsEscapedKeys(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		id, token := f.taken(worker, "")
		hidden := escaped(worker)
		body := `{"lease_token":"` + token + `","success":true,"metadata":{` + hidden + `:[1.50,"a\u00e9",` + hidden + `]},"artifacts":[` + escapeOne(worker) + `]}`
		if out := answer(f, "report", f.send(worker, "execution.report", map[string]string{"id": id}, body)); out["warning"] == nil {
			t.Errorf("no warning: %v", out)
		}
		r := f.call(worker, "execution.get", input{"id": id})
		if _, found := redactJSON(r.Body); found != 0 || !strings.Contains(string(r.Body), `[1.50,"a\u00e9","unstuck_***_`) {
			t.Errorf("%d keys in %s", found, r.Body)
		}
		answer(f, "evidence", f.send(worker, "execution.add_evidence", map[string]string{"id": id}, `{"metadata":{"k":`+hidden+`}}`))
		r = f.call(worker, "execution.check_evidence", input{"id": id})
		if _, found := redactJSON(r.Body); found != 0 || answer(f, "check", r)["ok"] != true {
			t.Errorf("%d keys in %s", found, r.Body)
		}
	})
}

// escapeOne escapes the first underscore of a key only.
func escapeOne(key string) string { return `"` + strings.Replace(key, "_", `\u005f`, 1) + `"` }

// A payload is not changed behind the back of who sent it, so one that holds a key of ours is refused, escaped or not, and nothing
// is stored. What only looks like one passes.
func TestPayloadsHoldNoKeys(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		key := f.key("read-only", nil)
		id := f.cue("c", "0 0 1 1 *")
		for _, text := range []string{string(op.Marshal(key)), escaped(key), escapeOne(key), string(op.Marshal("Bearer " + key + "\n"))} {
			for _, payload := range []string{`{"k":` + text + `}`, `{` + text + `:1}`, `{"a":[{"b":[` + text + `]}]}`} {
				for name, body := range map[string]string{
					"cue.create": `{"name":"new","transport":"worker","schedule":{"type":"recurring","cron":"0 0 1 1 *"},"payload":` + payload + `}`,
					"cue.update": `{"payload":` + payload + `}`,
					"cue.fire":   `{"payload_override":` + payload + `}`,
				} {
					r := f.send(f.admin, name, map[string]string{"id": id}, body)
					field := map[bool]string{true: "body.payload_override", false: "body.payload"}[name == "cue.fire"]
					if r.Err == nil || r.Err.Code.Status != 422 || r.Err.Details[0].Field != field || !strings.Contains(r.Err.Message, "UNSTUCK_API_KEY") || strings.Contains(r.Err.Message, key) {
						t.Errorf("%s %s: %v", name, payload, r.Err)
					}
				}
			}
		}
		last := key[:len(key)-1] + string('0'+(key[len(key)-1]-'0'+1)%10)
		f.ok(f.admin, "cue.fire", input{"id": id, "payload_override": input{"k": last, "aws": "AKIAIOSFODNN7EXAMPLE"}})
		if n := f.number("SELECT count(*) FROM executions"); n != 1 {
			t.Errorf("%d executions", n)
		}
	})
}

// Redacting leaves everything else as it was, byte by byte.
func TestRedactJSONProperty(t *testing.T) {
	key := onSQLite(t).admin
	redacted, _ := access.Redact(key)
	rapid.Check(t, func(t *rapid.T) {
		var dirty, clean bytes.Buffer
		n := 0
		for i := range rapid.IntRange(1, 6).Draw(t, "texts") {
			sep := rapid.SampledFrom([]string{"[ ", "\t, 1e2,", ",{\n", ": -0.0 ,"}).Draw(t, fmt.Sprint("between ", i))
			dirty.WriteString(sep)
			clean.WriteString(sep)
			if rapid.Bool().Draw(t, fmt.Sprint("key ", i)) {
				n++
				dirty.WriteString(rapid.SampledFrom([]string{escaped(key), escapeOne(key), `"` + key + `"`}).Draw(t, fmt.Sprint("form ", i)))
				clean.WriteString(`"` + redacted + `"`)
				continue
			}
			text := rapid.SampledFrom([]string{`"\\"`, `"\""`, `"\u005f"`, `"é\\\""`, `""`, `"unstuck_"`}).Draw(t, fmt.Sprint("text ", i))
			dirty.WriteString(text)
			clean.WriteString(text)
		}
		if got, found := redactJSON(dirty.Bytes()); found != n || !bytes.Equal(got, clean.Bytes()) {
			t.Fatalf("%s: %d, %s, want %d, %s", dirty.Bytes(), found, got, n, clean.Bytes())
		}
	})
}
