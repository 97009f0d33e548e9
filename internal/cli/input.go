package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"unstuck/internal/op"
)

// addFlags adds a flag for every field that is neither a positional argument nor hidden, nor filled by an own flag.
func (r *run) addFlags() {
	args, _ := r.word.argsOf(r.op)
	for _, f := range r.op.Fields() {
		name := r.word.flagOf(f)
		isArg := slices.ContainsFunc(args, func(a op.Field) bool { return a.Name == f.Name })
		if name == "" || isArg || r.flags.Lookup(name) != nil {
			continue
		}
		flag := r.flags.VarPF(&fieldValue{run: r, field: f}, name, "", flagHelp(f, r.word.refOf(r.op, f)))
		if f.Type.Kind() == reflect.Bool {
			flag.NoOptDefVal = "true"
		}
	}
}

func flagHelp(f op.Field, kind object) string {
	help := f.Doc
	if kind != noObject {
		for _, wire := range [...]string{"; its id", ": id", ": id or e-mail"} {
			help = strings.TrimSuffix(help, wire)
		}
		named := map[object]string{aWorker: "name", aMember: "id, e-mail"}[kind]
		help += ": " + firstOf(named, "id, name") + " or a beginning of one"
	}
	if f.In == op.InQuery && f.Type == reflect.TypeFor[op.Time]() {
		help += "; or so long ago: 30m, 1h, 2d"
	}
	if len(f.Enum) > 0 {
		help = strings.TrimSpace(help + " (" + strings.Join(f.Enum, "|") + ")")
	}
	if f.Default != "" && f.Default != "false" {
		help += " (default " + f.Default + ")"
	}
	if f.Required {
		help = strings.TrimSpace(help + " (required)")
	}
	return help
}

// fieldValue is a flag that fills a field of the input.
type fieldValue struct {
	run   *run
	field op.Field
	typed []string // what was given, as it was written
}

func (v *fieldValue) String() string { return "" }

// Type is the word for the value in the help.
func (v *fieldValue) Type() string {
	switch t := v.field.Type; {
	case t.Kind() == reflect.Bool:
		return "bool"
	case t == reflect.TypeFor[op.Time]() || t == reflect.TypeFor[op.OffsetTime]():
		return "time"
	case t.Kind() == reflect.Int64 || t.Kind() == reflect.Int:
		return "n"
	case v.field.List() && t.Elem().Kind() == reflect.String:
		return "a,b"
	case t.Kind() == reflect.String:
		return "text"
	}
	return "json"
}

// Set reads the text of the flag. A list may be given in one text with commas, or by repeating the flag.
func (v *fieldValue) Set(text string) error {
	in, name := v.run.in, v.field.Name
	v.typed = append(v.typed, text)
	switch v.Type() {
	case "bool":
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("write true or false")
		}
		in[name] = b
	case "n":
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("write a whole number")
		}
		in[name] = n
	case "a,b":
		list, _ := in[name].([]string)
		in[name] = append(list, splitList(text)...) // never nil: an empty list is refused by the server, an absent one is not
	case "json":
		raw, err := v.run.readJSON(text)
		if err != nil {
			return err
		}
		in[name] = raw
	case "time":
		if ago, ok := lengthBack(text); ok && v.field.In == op.InQuery { // of a list: so long ago
			text = v.run.Now().Add(-ago).UTC().Format(time.RFC3339)
		}
		in[name] = text
	default:
		in[name] = text
	}
	return nil
}

var lengthForm = regexp.MustCompile(`^([0-9]{1,5})(m|h|d)$`)

// lengthBack reads a length of time such as 30m, 1h or 2d.
func lengthBack(text string) (time.Duration, bool) {
	m := lengthForm.FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	n, _ := strconv.Atoi(m[1]) // the form leaves nothing to fail
	unit := map[string]time.Duration{"m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[m[2]]
	return time.Duration(n) * unit, true
}

// noEmpty refuses own flags that were given an empty text, most likely by a variable that is not set: leaving such a flag out
// would mean something else than whoever wrote it meant.
func (r *run) noEmpty() error {
	var bad error
	r.flags.Visit(func(f *pflag.Flag) {
		if f.Value.Type() == "string" && f.Value.String() == "" {
			bad = usage("--%s is empty. Leave it out, or say what you mean.", f.Name)
		}
	})
	return bad
}

// splitList splits at commas and drops the space around entries.
func splitList(text string) []string {
	out := []string{}
	for _, s := range strings.Split(text, ",") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// readJSON is the JSON in a text, in a file ("@name") or on stdin ("-"). It stays as it was written, to the digits of its numbers.
func (d *door) readJSON(text string) (json.RawMessage, error) {
	b := []byte(text)
	var err error
	switch name, file := strings.CutPrefix(text, "@"); {
	case text == "-":
		b, err = io.ReadAll(d.Stdin)
	case file:
		b, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, err
	}
	if !json.Valid(b) {
		return nil, fmt.Errorf("that is no JSON; @FILE reads it from a file, - from standard input")
	}
	return b, nil
}
