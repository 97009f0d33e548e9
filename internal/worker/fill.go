package worker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// place is where a value of the payload is filled in, such as {{ payload.a.b }}.
var place = regexp.MustCompile(`\{\{\s*(.*?)\s*\}\}`)

// payload is the payload of an execution, for filling in.
type payload map[string]any

func readPayload(raw []byte) payload {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // a number stays as it was written
	var p payload
	_ = d.Decode(&p) // a payload that is no object has no members
	return p
}

// value is what stands at a path such as payload.a.b, as CueAPI's daemon writes it; "" when there is nothing. Objects and lists
// are JSON.
func (p payload) value(path string) string {
	var v any = map[string]any(p)
	for _, name := range strings.Split(strings.TrimPrefix(path, "payload."), ".") {
		object, ok := v.(map[string]any)
		if !ok {
			return ""
		}
		v = object[name]
	}
	switch v := v.(type) {
	case nil:
		return ""
	case bool, json.Number:
		return textOf(v)
	case string:
		return strings.ReplaceAll(v, "\x00", "\uFFFD") // no variable can hold it
	}
	raw, err := json.Marshal(v)
	if err != nil { // it was read as JSON
		return ""
	}
	return pythonJSON(raw)
}

// fill fills values into a text that no shell reads.
func (p payload) fill(text string) string {
	return place.ReplaceAllStringFunc(text, func(found string) string {
		return p.value(place.FindStringSubmatch(found)[1])
	})
}

// shellVar is the name of the variable that holds a value of a command.
func shellVar(i int) string { return fmt.Sprintf("UNSTUCK_VALUE_%d", i+1) }

// fillCommand prepares a command for the shell. Values do not become part of its text, where a payload could bring commands of its
// own: each place becomes a variable, in whatever quotes it stands, and the variables hold the values.
func (p payload) fillCommand(command string) (text string, vars []string) {
	places := place.FindAllStringSubmatchIndex(command, -1)
	if places == nil {
		return command, nil
	}
	var out strings.Builder
	q, from := quotes{}, 0
	for i, at := range places {
		q.read(command[from:at[0]])
		out.WriteString(command[from:at[0]])
		if ref := "${" + shellVar(i) + "}"; q.in('\'') {
			out.WriteString(`'"` + ref + `"'`)
		} else {
			out.WriteString(ref)
		}
		vars = append(vars, shellVar(i)+"="+p.value(command[at[2]:at[3]]))
		from = at[1]
	}
	return out.String() + command[from:], vars
}

// quotes is where in a shell's text something stands: the quotes and substitutions that are open, the innermost last.
type quotes struct {
	open []byte // of ' " ` (
	last byte   // the character before
}

func (q *quotes) in(c byte) bool { return len(q.open) > 0 && q.open[len(q.open)-1] == c }

// toggle opens what is not open, and closes what is.
func (q *quotes) toggle(c byte) {
	if q.in(c) {
		q.open = q.open[:len(q.open)-1]
	} else {
		q.open = append(q.open, c)
	}
}

// read goes on through a text.
func (q *quotes) read(text string) {
	for i := 0; i < len(text); i++ {
		c := text[i]
		before := q.last
		q.last = c
		switch {
		case q.in('\''):
			if c == '\'' {
				q.toggle(c)
			}
		case c == '\\':
			i++
			q.last = c
		case c == '"' || c == '`':
			q.toggle(c)
		case c == '(' && (before == '$' || !q.in('"')):
			q.open = append(q.open, c)
		case q.in('"'):
		case c == '\'':
			q.toggle(c)
		case c == ')' && q.in('('):
			q.toggle('(')
		case c == '#' && (before == 0 || strings.IndexByte(" \t\n;&|(", before) >= 0): // a comment ends with its line
			if n := strings.IndexByte(text[i:], '\n'); n >= 0 {
				i += n - 1
			} else {
				i = len(text)
			}
		}
	}
}

// pythonJSON writes JSON as Python does: a space after commas and colons, and ASCII only. It is what handlers of CueAPI's daemon
// find in their environment.
func pythonJSON(raw []byte) string {
	var compact bytes.Buffer
	if json.Compact(&compact, raw) != nil {
		return string(raw)
	}
	var out strings.Builder
	text, quoted := compact.String(), false
	for i := 0; i < len(text); {
		c, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case c == '\\': // only inside quotes
			size = 2
			out.WriteString(text[i : i+2])
		case c > 0xFFFF:
			high, low := utf16.EncodeRune(c)
			fmt.Fprintf(&out, `\u%04x\u%04x`, high, low)
		case c >= utf8.RuneSelf:
			fmt.Fprintf(&out, `\u%04x`, c)
		default:
			out.WriteByte(text[i])
			if c == '"' {
				quoted = !quoted
			} else if !quoted && (c == ',' || c == ':') {
				out.WriteByte(' ')
			}
		}
		i += size
	}
	return out.String()
}
