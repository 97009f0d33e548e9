package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// noArgs refuses arguments, naming the first as a command that does not exist, with what may have been meant. The word help is one
// that everybody tries.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if args[0] == "help" {
		return cmd.Help()
	}
	return noCommand(cmd, args[0])
}

func noCommand(cmd *cobra.Command, word string) error {
	text := fmt.Sprintf("There is no command %q.\n", cmd.CommandPath()+" "+word)
	if near := meant(cmd, word); len(near) > 0 {
		text += "\n  near      " + strings.Join(near, ", ")
	}
	return usage("%s\n  help      %s --help", text, cmd.CommandPath())
}

// otherWords are what people and other products call our commands: best first, the first that exists is meant.
var otherWords = map[string][]string{
	"login": {"auth login"}, "logout": {"auth logout"}, "whoami": {"auth status"}, "signin": {"auth login"}, "init": {"serve"}, "start": {"serve"}, "settings": {"config"},
	"token": {"keys"}, "credential": {"keys"}, "user": {"members"}, "team": {"members"}, "org": {"workspaces"}, "account": {"workspaces"}, "tenant": {"workspaces"},
	"project": {"workspaces"}, "job": {"cues"}, "task": {"cues"}, "schedule": {"cues"}, "run": {"fire", "executions"}, "log": {"audit"}, "event": {"audit"}, "history": {"ledger", "audit"},
	"delete": {"revoke", "remove"}, "remove": {"revoke", "delete"}, "rm": {"revoke", "remove", "delete"}, "disable": {"revoke", "pause"}, "destroy": {"revoke", "delete"},
	"new": {"create"}, "make": {"create"}, "issue": {"create"}, "generate": {"create"}, "invite": {"add"}, "ls": {"list"}, "show": {"get"}, "describe": {"get"},
	"edit": {"update", "narrow"}, "set": {"update"}, "regenerate": {"rotate"}, "renew": {"extend", "rotate"}, "roll": {"rotate"}, "refresh": {"rotate"},
	"trigger": {"fire"}, "stop": {"pause"}, "retry": {"replay"}, "approve": {"verify"}, "ack": {"report"}, "next": {"claim"}, "take": {"claim"},
	"daemon": {"worker"}, "runner": {"worker"}, "introspect": {"verify"}, "usage": {"activity"}, "permissions": {"access", "scopes"}, "role": {"members"}, "webhook": {"secrets"},
}

// meant is what a word that names no command may have meant, as whole commands: a word for the same, the nearest name, or a verb of a
// noun that was left out. At most three.
func meant(cmd *cobra.Command, word string) []string {
	word = strings.ToLower(word)
	for _, key := range []string{word, strings.TrimSuffix(word, "s")} {
		for _, other := range otherWords[key] {
			if found, rest, err := cmd.Find(strings.Fields(other)); err == nil && len(rest) == 0 && found != cmd {
				return []string{found.CommandPath()}
			}
		}
	}
	var names, below []string
	for _, c := range cmd.Commands() {
		if c.Hidden || !c.IsAvailableCommand() {
			continue
		}
		names = append(names, c.Name())
		for _, verb := range c.Commands() {
			if (verb.Name() == word || verb.HasAlias(word)) && !verb.Hidden {
				below = append(below, verb.CommandPath())
			}
		}
	}
	if near := nearest(word, names); near != "" {
		return []string{cmd.CommandPath() + " " + near}
	}
	if len(below) > 3 {
		return nil
	}
	return below
}

// nearest is the name that a misspelt word most likely meant: at most two slips away, or beginning like it. "" when there is none.
func nearest(word string, names []string) string {
	best, least := "", min(2, len(word)-2)
	for _, name := range names {
		if n := slips(word, name); n <= least && (n < least || best == "") {
			best, least = name, n
		}
	}
	if best != "" || len(word) < 2 {
		return best
	}
	if i := slices.IndexFunc(names, func(name string) bool { return strings.HasPrefix(name, word) || strings.HasPrefix(word, name) }); i >= 0 {
		return names[i]
	}
	return ""
}

// slips counts what was left out, put in, replaced or swapped with its neighbour between two words.
func slips(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			wrong := 1
			if a[i-1] == b[j-1] {
				wrong = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+wrong)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}

// flagFault says what is wrong with a flag, in our words.
func flagFault(cmd *cobra.Command, err error) error {
	var (
		unknown *pflag.NotExistError
		value   *pflag.InvalidValueError
		missing *pflag.ValueRequiredError
	)
	text := err.Error() + "."
	switch {
	case errors.As(err, &unknown):
		text = fmt.Sprintf("%s has no flag %s.\n", cmd.CommandPath(), dashed(unknown.GetSpecifiedName()))
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if near := nearest(unknown.GetSpecifiedName(), names); near != "" {
			text += "\n  near      --" + near
		}
		return usage("%s\n  help      %s --help", text, cmd.CommandPath())
	case errors.As(err, &value):
		text = fmt.Sprintf("--%s %s does not fit: %s.", value.GetFlag().Name, shellWord(value.GetValue()), fits(value))
	case errors.As(err, &missing):
		text = fmt.Sprintf("%s wants a value after it.", dashed(missing.GetSpecifiedName()))
	}
	return usage("%s\n\n  help      %s --help", text, cmd.CommandPath())
}

// fits says which values a flag takes. Types of the library speak of parsing.
func fits(e *pflag.InvalidValueError) string {
	switch t := e.GetFlag().Value.Type(); {
	case t == "bool":
		return "write true or false"
	case strings.HasPrefix(t, "int"):
		return "write a whole number"
	}
	return e.Unwrap().Error()
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}
