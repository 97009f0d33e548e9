package test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"unstuck/internal/op"
	"unstuck/internal/testkit"
)

// mayHoldKeys are the inputs in which a key is taken: because it belongs there, or because a report that is refused is lost work, so
// that keys in it are hidden. Everywhere else one is refused.
var mayHoldKeys = []string{
	"cue.create body.callback.headers.K", "cue.update body.callback.headers.K", "key.verify body.key",
	"execution.report body.result", "execution.report body.error", "execution.report body.metadata", "execution.report body.external_id", "execution.report body.result_url",
	"execution.report body.result_ref", "execution.report body.result_type", "execution.report body.summary", "execution.report body.artifacts.0", "execution.report body.assertions",
	"execution.add_evidence body.external_id", "execution.add_evidence body.result_url", "execution.add_evidence body.result_ref", "execution.add_evidence body.result_type",
	"execution.add_evidence body.summary", "execution.add_evidence body.artifacts.0", "execution.add_evidence body.metadata", "execution.add_evidence body.assertions",
}

// misplaced is an input with a text in one place of it.
type misplaced struct {
	at    string // as a violation names it
	value any
	free  bool // a key may stand there
}

// places are all places of an input in which a text can be put, found in its type.
func places(at string, typ reflect.Type, free bool, text string) []misplaced {
	switch typ {
	case reflect.TypeFor[op.Object]():
		return []misplaced{{at, obj{"a": []any{obj{"b": text}}}, free}, {at, obj{text: 1}, free}}
	case reflect.TypeFor[op.Value]():
		return []misplaced{{at, text, free}, {at, []any{obj{text: "v"}}, free}}
	}
	var out []misplaced
	switch typ.Kind() {
	case reflect.Slice:
		for _, p := range places(at+".0", typ.Elem(), free, text) {
			out = append(out, misplaced{p.at, []any{p.value}, p.free})
		}
	case reflect.Map:
		for _, p := range places(at+".K", typ.Elem(), free, text) {
			out = append(out, misplaced{p.at, obj{"K": p.value}, p.free})
		}
		out = append(out, misplaced{at, obj{text: "v"}, false})
	case reflect.Struct:
		if val, ok := typ.FieldByName("Val"); ok { // op.Opt and op.Clear
			return places(at, val.Type, free, text)
		}
		for _, f := range reflect.VisibleFields(typ) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" || name == "-" || f.Anonymous {
				continue
			}
			for _, p := range places(at+"."+name, f.Type, free || f.Tag.Get("secrets") == "may", text) {
				out = append(out, misplaced{p.at, obj{name: p.value}, p.free})
			}
		}
	case reflect.String:
		out = append(out, misplaced{at, text, free})
	}
	return out
}

// TestMisplacedKeys puts a whole key into every text of every input of every operation, found in the types of the inputs, over REST and on
// the command line. Each is refused by name, without the key, and tells the caller to revoke it.
func TestMisplacedKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(quick(t, ""))
	stray := w.s.Key("worker")
	tried, freed := 0, []string{}
	for _, o := range w.s.Set().All() {
		for _, f := range o.Fields() {
			for _, p := range places(string(f.In)+"."+f.Name, f.Type, f.Secrets, "A_B="+stray+"\n") {
				if f.In == op.InPath || f.In == op.InHeader {
					p = misplaced{p.at, stray, p.free}
				}
				cell := o.Name + " " + p.at
				if p.free {
					freed = append(freed, cell)
					continue
				}
				in := w.inputs(o, who{id: w.spare, scope: "worker", permission: "usage:read"})
				in[f.Name] = p.value
				q := requestOf(o, in)
				checkMisplaced(t, cell, o, p.at, stray, w.s.Do(w.s.First, q.route, q.body, q.headers...))
				if f.In != op.InHeader {
					checkMisplaced(t, cell+" on the command line", o, p.at, stray, w.onTheCommandLine(t, w.s.First, o, in))
				}
				tried++
			}
		}
	}
	slices.Sort(freed)
	slices.Sort(mayHoldKeys)
	if freed = slices.Compact(freed); !slices.Equal(freed, mayHoldKeys) {
		t.Errorf("keys may stand in\n%s", strings.Join(freed, "\n"))
	}
	if tried < 150 {
		t.Errorf("only %d places were tried", tried)
	}
	t.Logf("%d places", tried)
}

func checkMisplaced(t *testing.T, cell string, o *op.Operation, at, key string, r testkit.Reply) {
	t.Helper()
	status := 422
	if o.Fails != nil { // a proxy understands 401 and 403 only
		status = 403
	}
	text := string(r.Body) + fmt.Sprint(r.Header)
	const says = "Value error, this holds an API key"
	named := strings.Contains(text, at+": "+says) || strings.Contains(text, fmt.Sprintf(`"field":%q,"message":"%s`, at, says))
	if r.Status != status || !named || !strings.Contains(text, "revoke it") || strings.Contains(text, key[:30]) {
		t.Errorf("%s: %s", cell, gist(r))
	}
}
