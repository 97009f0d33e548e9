package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// unmarshal reads JSON that the server wrote.
func unmarshal(b []byte, v any) error { return json.Unmarshal(b, v) }

// member is one member of a JSON object, in the order in which it came.
type member struct {
	name  string
	value json.RawMessage
}

// members are the members of an object in their order; ok is false for anything else.
func members(raw []byte) (out []member, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, false
		}
		m := member{name: t.(string)}
		if dec.Decode(&m.value) != nil {
			return nil, false
		}
		out = append(out, m)
	}
	return out, true
}

// elements are the elements of a list; ok is false for anything else.
func elements(raw json.RawMessage) (out []json.RawMessage, ok bool) {
	return out, len(raw) > 0 && raw[0] == '[' && json.Unmarshal(raw, &out) == nil
}

// generic shows an answer that has no wording: a list of objects as a table, an object as names and values.
func (r *run) generic(a *answer) error {
	if len(a.body) == 0 {
		r.print("Done.")
		return nil
	}
	ms, ok := members(a.body)
	if !ok {
		r.print("%s", a.body)
		return nil
	}
	t := newTable()
	for _, m := range ms {
		if list, ok := elements(m.value); ok && len(list) > 0 {
			if _, ok := members(list[0]); ok {
				r.print("%s", strings.TrimSuffix(listTable(list).String(), "\n"))
				continue
			}
		}
		t.add(m.name, cell(m.value))
	}
	if len(t.rows) > 0 {
		r.print("%s", strings.TrimSuffix(t.String(), "\n"))
	}
	return nil
}

// listTable has a column for each member of the first object that is not itself an object.
func listTable(list []json.RawMessage) *table {
	first, _ := members(list[0])
	t := newTable()
	for _, m := range first {
		if _, nested := members(m.value); !nested {
			t.head = append(t.head, strings.ToUpper(m.name))
		}
	}
	for _, raw := range list {
		ms, _ := members(raw)
		row := make([]string, len(t.head))
		for i, name := range t.head {
			for _, m := range ms {
				if strings.ToUpper(m.name) == name {
					row[i] = cell(m.value)
				}
			}
		}
		t.add(row...)
	}
	return t
}

// cell is a value in few words: a text without quotes, nothing for null, a list of texts with commas, else its JSON.
func cell(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return firstOf(s, "–")
	}
	if string(raw) == "null" {
		return "–"
	}
	var list []string
	if json.Unmarshal(raw, &list) == nil {
		return firstOf(strings.Join(list, ", "), "–")
	}
	return string(raw)
}

// shownAlone are the members of answers that show a secret.
var shownAlone = []string{"key", "api_key", "webhook_secret", "alert_webhook_secret"}

// ids prints the ids of what an answer holds, one on each line. Of an answer that shows a new key it prints that key: it would be
// lost otherwise.
func (r *run) ids(a *answer) error {
	ms, _ := members(a.body)
	for _, m := range ms {
		var secret string
		if slices.Contains(shownAlone, m.name) && json.Unmarshal(m.value, &secret) == nil && secret != "" {
			r.print("%s", secret)
			return nil
		}
	}
	if id := idOf(ms); id != "" {
		r.print("%s", id)
		return nil
	}
	for _, m := range ms {
		list, ok := elements(m.value)
		if !ok {
			continue
		}
		for _, raw := range list {
			one, _ := members(raw)
			if id := idOf(one); id != "" {
				r.print("%s", id)
			}
		}
	}
	return nil
}

// idOf is what identifies an object among its members; "" when nothing does.
func idOf(ms []member) string {
	for _, name := range [...]string{"id", "execution_id", "worker_id", "seq"} {
		for _, m := range ms {
			if m.name == name {
				return fmt.Sprint(strings.Trim(string(m.value), `"`))
			}
		}
	}
	return ""
}

// printJSON prints a value of our own as JSON.
func (d *door) printJSON(v any) error {
	b, err := marshal(v)
	if err == nil {
		fmt.Fprintf(d.Stdout, "%s\n", b)
	}
	return err
}
