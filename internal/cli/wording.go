package cli

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"unstuck/internal/op"
)

// wording says how an operation looks on the command line where that differs from what its declaration gives. All of it is
// optional.
type wording struct {
	noun, verb string   // the command: "keys", "create"
	aliases    []string // further verbs
	top        bool     // the verb stands alone, without a noun
	hidden     bool     // works, but is not in the help: another command says the same in our words

	args  []string          // fields that are positional arguments; a ? at the end: may be left out. Default: those of the path
	flags map[string]string // names of flags by field; "-": no flag, because own flags or the command itself fill the field
	refs  map[string]object // fields that name an object, by kind
	more  string            // name of one further optional argument, for own

	own   func(*pflag.FlagSet) func(*run) error // further flags, and what they mean: called before the call
	ask   func(*run) (string, error)            // the question before something is ended for good
	do    func(*run) error                      // all that happens, instead of one call and its rendering
	ready func(*run)                            // before the call, when objects are found
	done  func(*run, *answer)                   // after it succeeded, however it is shown
	show  func(*run, *answer) error             // the answer for people; default: generic
	note  string                                // a paragraph for the help
	like  []string                              // examples for the help, without "unstuck"
}

// object is a kind of thing that arguments name.
type object string

const (
	aKey       object = "key"
	aCue       object = "cue"
	anExec     object = "execution"
	aMember    object = "member"
	aWorker    object = "worker"
	anAlert    object = "alert"
	anyObject  object = "object" // a key, a cue, a member or an execution
	noObject   object = ""
	hiddenFlag        = "-"
)

// wordings are all wordings by the names of their operations.
func wordings() map[string]wording {
	out := map[string]wording{}
	for _, part := range []map[string]wording{compatWordings(), keyWordings(), peopleWordings(), cueWordings(), executionWordings(), alertWordings(), channelWordings()} {
		for name, w := range part {
			out[name] = w
		}
	}
	return out
}

// compatWordings are operations for the clients of CueAPI. Other commands say the same in our words.
func compatWordings() map[string]wording {
	hidden := wording{hidden: true}
	return map[string]wording{
		"me.get": hidden, "account.register": hidden, "auth_key.reveal": hidden, "auth_key.regenerate": hidden,
		"server.health": {noun: "server"}, "server.status": {noun: "server"}, "server.info": {noun: "server"},
		"auth_key.create": hidden, "auth_key.list": hidden, "auth_key.update": hidden, "auth_key.revoke": hidden,
	}
}

// flagOf is the name of the flag or argument of a field; "" when it has none.
func (w wording) flagOf(f op.Field) string {
	switch name := w.flags[f.Name]; name {
	case hiddenFlag:
		return ""
	case "":
		return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(f.Name, "X-"), "_", "-"))
	default:
		return name
	}
}

// isArg says whether a field is a positional argument.
func (w wording) isArg(field string) bool {
	return slices.Contains(w.args, field) || slices.Contains(w.args, field+"?")
}

// argsOf are the positional arguments of an operation, and how many of them must be given.
func (w wording) argsOf(o *op.Operation) (fields []op.Field, least int) {
	names := w.args
	if names == nil {
		for _, f := range o.Fields() {
			if f.In == op.InPath {
				names = append(names, f.Name)
			}
		}
	}
	for _, name := range names {
		name, optional := strings.CutSuffix(name, "?")
		for _, f := range o.Fields() {
			if f.Name == name {
				fields = append(fields, f)
			}
		}
		if !optional {
			least++
		}
	}
	return fields, least
}

// refOf is the kind of object that a field names. The id in a path is that of the operation's noun.
func (w wording) refOf(o *op.Operation, f op.Field) object {
	if kind, ok := w.refs[f.Name]; ok {
		return kind
	}
	if f.In == op.InPath && f.Name == "id" {
		return object(o.Noun())
	}
	return noObject
}
