package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"unstuck/internal/op"
)

// run is one run of a command that stands for an operation.
type run struct {
	*door
	ctx   context.Context
	op    *op.Operation // what is called; flags may choose another
	word  wording
	flags *pflag.FlagSet
	path  string // of the command, for help
	args  []string
	in    inputs
	typed map[string]string // what named an object, by field
	near  map[string]string // what was most likely meant by a name that nothing has, by field
	ownID string            // of the login's key, when a rotation may change its secret
	below int               // how many working keys stop with one that is revoked
}

// nounOf and verbOf are the command of an operation.
func (d *door) nounOf(o *op.Operation, w wording) string {
	return firstOf(w.noun, plurals[o.Noun()], strings.ReplaceAll(o.Noun(), "_", "-")+"s")
}

func verbOf(o *op.Operation, w wording) string {
	return firstOf(w.verb, strings.ReplaceAll(o.Verb(), "_", "-"))
}

// addOperations adds a command for every operation.
func (d *door) addOperations(root *cobra.Command) {
	parents := map[string]*cobra.Command{}
	for _, o := range d.set.All() {
		w := d.words[o.Name]
		if w.top {
			cmd := d.operationCommand(o, w)
			cmd.GroupID = nouns[w.verb].group
			root.AddCommand(cmd)
			continue
		}
		noun := d.nounOf(o, w)
		parent := parents[noun]
		if parent == nil {
			parent = d.nounCommand(noun)
			parent.Hidden = true // until one of its commands is not
			parents[noun] = parent
			root.AddCommand(parent)
		}
		parent.Hidden = parent.Hidden && w.hidden
		parent.AddCommand(d.operationCommand(o, w))
	}
	parents["workspaces"].AddCommand(d.setPlanCommand())
}

// plurals are the nouns of the command line where they are not the operation's noun with an s.
var plurals = map[string]string{"audit": "audit", "usage": "usage"}

// nounCommand is the command that holds the verbs of a noun.
func (d *door) nounCommand(noun string) *cobra.Command {
	n, ok := nouns[noun]
	if !ok {
		n = nounText{group: "work", short: strings.ReplaceAll(noun, "-", " ")}
	}
	return &cobra.Command{
		Use: noun, Short: n.short, GroupID: n.group, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
}

type nounText struct{ group, short string }

var nouns = map[string]nounText{
	"keys":       {"keys", "Make, narrow, rotate and revoke keys, and see what they can do"},
	"scopes":     {"keys", "What named scopes and permissions mean"},
	"members":    {"keys", "People of the workspace and their roles"},
	"workspaces": {"keys", "The workspace, and others of yours"},
	"audit":      {"keys", "Every change and every refusal, in a chain that shows tampering"},
	"secrets":    {"keys", "Webhook secrets"},
	"cues":       {"work", "What is to be done, and when"},
	"executions": {"work", "One due or fired time of a cue each: take work, report, verify, replay"},
	"workers":    {"work", "Who takes work"},
	"alerts":     {"work", "What is wrong, and where it is told"},
	"echo":       {"work", "A callback to try things with, without a receiver of your own"},
	"server":     {"server", "How the server is, and what runs there"},
	"watch":      {"work", "What happens, as it happens"},
	"usage":      {"work", "How much of the plan is used"},
}

// operationCommand is the command of one operation. What a command needs only when it is chosen is made by furnish.
func (d *door) operationCommand(o *op.Operation, w wording) *cobra.Command {
	cmd := &cobra.Command{Use: verbOf(o, w), Short: o.Summary(), Aliases: w.aliases, Hidden: w.hidden}
	r := &run{door: d, op: o, word: w, in: inputs{}, typed: map[string]string{}, near: map[string]string{}}
	var own func(*run) error
	d.later[cmd] = func() { own = r.furnish(cmd) }
	cmd.Args = func(cmd *cobra.Command, args []string) error { return checkArgs(cmd, w, o, args) }
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r.ctx, r.path, r.args = cmd.Context(), cmd.CommandPath(), args
		fields, _ := w.argsOf(o)
		for i, f := range fields[:min(len(args), len(fields))] {
			r.in[f.Name] = args[i]
		}
		return r.run(own)
	}
	return cmd
}

// furnish adds flags, help and completion to the command of an operation, and is what its own flags mean.
func (r *run) furnish(cmd *cobra.Command) (own func(*run) error) {
	o, w := r.op, r.word
	fields, least := w.argsOf(o)
	for i, f := range fields {
		name := argName(o, w, f)
		if i >= least {
			name = "[" + name + "]"
		}
		cmd.Use += " " + name
	}
	if w.more != "" {
		cmd.Use += " [" + w.more + "]"
	}
	cmd.Long, cmd.Example = longHelp(o, w), examples(w)
	r.flags = cmd.Flags()
	r.flags.SortFlags = false
	if w.own != nil {
		own = w.own(r.flags)
	}
	r.addFlags()
	r.complete(cmd, o, w)
	return own
}

// argName is how help names a positional argument.
func argName(o *op.Operation, w wording, f op.Field) string {
	if kind := w.refOf(o, f); kind != noObject {
		return strings.ToUpper(string(kind))
	}
	return strings.ToUpper(strings.ReplaceAll(w.flagOf(f), "-", "_"))
}

func checkArgs(cmd *cobra.Command, w wording, o *op.Operation, args []string) error {
	fields, least := w.argsOf(o)
	var names []string
	for _, f := range fields {
		names = append(names, argName(o, w, f))
	}
	if w.more != "" {
		names = append(names, w.more)
	}
	for i, arg := range args[:min(len(args), len(names))] {
		if strings.TrimSpace(arg) == "" || arg == "." || arg == ".." {
			return usage("%s is %q, which names nothing.", names[i], arg)
		}
	}
	if len(args) >= least && len(args) <= len(names) {
		return nil
	}
	return exactArgs(names...)(cmd, args)
}

func longHelp(o *op.Operation, w wording) string {
	text := o.Summary() + "."
	if d := o.Description(); d != "" {
		text += "\n" + d
	}
	if w.note != "" {
		text += "\n\n" + w.note
	}
	return text + fmt.Sprintf("\n\nNeeds: %s.   REST: %s", o.Needs, o.Route)
}

func examples(w wording) string {
	var out []string
	for _, e := range w.like {
		out = append(out, "  unstuck "+e)
	}
	return strings.Join(out, "\n")
}

// run does what the command says: fill the inputs, find the objects that they name, ask, call, show.
func (r *run) run(own func(*run) error) error {
	if err := r.noEmpty(); err != nil {
		return err
	}
	if own != nil {
		if err := own(r); err != nil {
			return err
		}
	}
	if r.word.do != nil {
		return r.word.do(r)
	}
	if err := r.resolveAll(); err != nil {
		return err
	}
	if r.word.ready != nil {
		r.word.ready(r)
	}
	if err := r.confirm(); err != nil {
		return err
	}
	a, err := r.call()
	if err != nil {
		return err
	}
	if r.word.done != nil {
		r.word.done(r, a)
	}
	return r.render(a)
}

// call calls the operation with the inputs as they are. With --json a refusal is printed as it came, too.
func (r *run) call() (*answer, error) {
	c, err := r.client()
	if err != nil {
		return nil, err
	}
	a, err := c.call(r.ctx, r.op, r.in)
	if err != nil {
		return a, r.refused(err)
	}
	return a, nil
}

// render shows an answer: as it came, ids only, or for people.
func (r *run) render(a *answer) error {
	switch {
	case r.door.flags.json:
		return r.raw(a)
	case r.door.flags.quiet:
		return r.ids(a)
	case r.word.show != nil:
		return r.word.show(r, a)
	}
	return r.generic(a)
}

// raw prints a body as it came.
func (r *run) raw(a *answer) error {
	if len(a.body) > 0 {
		fmt.Fprintf(r.Stdout, "%s\n", a.body)
	}
	return nil
}

// confirm asks before something is ended for good. Where nobody can be asked, --yes must say it.
func (r *run) confirm() error {
	if r.op.Effect != op.Destroy && !r.op.Confirm || r.door.flags.yes {
		return nil
	}
	question := r.op.Summary() + ": this cannot be undone."
	if r.word.ask != nil {
		q, err := r.word.ask(r)
		if err != nil {
			return err
		}
		question = q
	}
	return r.goOn(question, r.again())
}

// goOn asks whether to go on with what cannot be undone. Where nobody can be asked it names the command that does it without asking.
func (d *door) goOn(question, command string) error {
	if !d.asks() {
		return usage("Not done: %s\n\n  to do it  %s --yes", lowerFirst(question), command)
	}
	fmt.Fprintf(d.Stderr, "%s Go on? [y/N] ", clean(question))
	line, err := d.readLine()
	if err != nil || !strings.EqualFold(line, "y") && !strings.EqualFold(line, "yes") {
		return failure(exitUsage, "Not done.")
	}
	return nil
}

// again is the command as it was typed, with its flags.
func (r *run) again() string {
	words := []string{r.path}
	for _, arg := range r.args {
		words = append(words, shellWord(arg))
	}
	r.flags.Visit(func(f *pflag.Flag) {
		given := []string{f.Value.String()}
		switch v := f.Value.(type) {
		case *fieldValue:
			given = v.typed
		case pflag.SliceValue:
			given = v.GetSlice()
		}
		for _, v := range given {
			words = append(words, "--"+f.Name+flagValue(f, v))
		}
	})
	return strings.Join(words, " ")
}

// flagValue is how the value of a flag is written behind its name: a switch that is on needs none.
func flagValue(f *pflag.Flag, v string) string {
	switch {
	case f.NoOptDefVal != "" && v == f.NoOptDefVal:
		return ""
	case f.NoOptDefVal != "":
		return "=" + shellWord(v)
	}
	return " " + shellWord(v)
}

// decode reads an answer into a local shape.
func decode[T any](a *answer) (T, error) {
	var v T
	if err := unmarshal(a.body, &v); err != nil {
		return v, fmt.Errorf("read the server's answer: %w", err)
	}
	return v, nil
}

// get calls another operation by name and reads its answer.
func get[T any](ctx context.Context, d *door, name string, in inputs) (v T, err error) {
	o := d.set.Lookup(name)
	if o == nil {
		return v, fmt.Errorf("this program knows no operation %s", name)
	}
	c, err := d.client()
	if err != nil {
		return v, err
	}
	a, err := c.call(ctx, o, in)
	if err != nil {
		return v, err
	}
	return decode[T](a)
}
