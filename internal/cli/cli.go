// Package cli is the command line. Its commands are generated from the operations of the product: arguments from the path of an
// operation, flags from its other inputs, help from its documentation. A table of wordings says what reads better otherwise; an
// operation without one works all the same. Beside them stand the commands that are no operations: logging in, and the server.
//
// What a command answers goes to stdout, all talk to stderr. Failures end the program with a code of their own.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"unstuck/internal/op"
	"unstuck/internal/server"
)

// Main runs the program in the environment of the process and is the code that it ends with.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return Run(ctx, System(), os.Args[1:]...)
}

// Run runs one command and is the code that the program ends with.
func Run(ctx context.Context, env Env, args ...string) int {
	d := newDoor(env)
	root := d.root()
	d.furnish(args)
	root.SetArgs(args)
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	completion(root)
	err := root.ExecuteContext(ctx)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		d.say("Stopped.")
		return exitOurs
	}
	return d.explain(err)
}

// completion makes the library's command for it refuse a shell that it does not know, where by itself it shows its help and succeeds.
func completion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	if cmd, _, err := root.Find([]string{"completion"}); err == nil && cmd != root {
		cmd.Args, cmd.RunE = noArgs, func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
}

// operations are all operations of the product, for their documentation: nothing can be called through this set.
func operations() *op.Set {
	return op.NewSet(nil, nil, nil, server.Operations()...)
}

// door is one run of the program.
type door struct {
	Env
	set   *op.Set
	words map[string]wording
	flags globalFlags
	asked *client // made at the first use

	later map[*cobra.Command]func() // makes what a command needs only when it is chosen, its flags above all
}

func newDoor(env Env) *door {
	return &door{Env: env, set: operations(), words: wordings(), later: map[*cobra.Command]func(){}}
}

// furnish completes the commands whose words are among the arguments: the one that will run, and the one that help or the shell's
// completion looks at.
func (d *door) furnish(args []string) {
	said := func(cmd *cobra.Command) bool {
		return slices.ContainsFunc(args, func(arg string) bool { return arg == cmd.Name() || cmd.HasAlias(arg) })
	}
	for cmd, complete := range d.later {
		if said(cmd) && (said(cmd.Parent()) || !cmd.Parent().HasParent()) {
			complete()
		}
	}
}

func (d *door) furnishAll() {
	for _, complete := range d.later {
		complete()
	}
}

// globalFlags are the flags that every command knows.
type globalFlags struct {
	json, quiet, yes, plainHTTP bool
	url, keyFile                string
}

// client is the client for the place that key and address name.
func (d *door) client() (*client, error) {
	if d.asked == nil {
		p, err := d.findPlace()
		if err != nil {
			return nil, err
		}
		d.asked = newClient(p, d.flags.plainHTTP)
	}
	return d.asked, nil
}

// say writes a line of talk to stderr.
func (d *door) say(format string, args ...any) {
	fmt.Fprintln(d.Stderr, lines(format, args))
}

// print writes a line of the answer to stdout.
func (d *door) print(format string, args ...any) {
	fmt.Fprintln(d.Stdout, lines(format, args))
}

// root is the whole tree of commands.
func (d *door) root() *cobra.Command {
	root := &cobra.Command{
		Use: "unstuck", Short: "Keys for scripts, workflows and agents, and the work that they do", Version: server.Version,
		SilenceErrors: true, SilenceUsage: true, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return d.overview(cmd.Context()) },
	}
	root.SetVersionTemplate("unstuck {{.Version}}\n")
	root.SetFlagErrorFunc(flagFault)
	fs := root.PersistentFlags()
	fs.SortFlags = false
	fs.BoolVar(&d.flags.json, "json", false, "print what the server answered, as it came")
	fs.BoolVarP(&d.flags.quiet, "quiet", "q", false, "print ids only; where a new key is shown, the key only")
	fs.BoolVarP(&d.flags.yes, "yes", "y", false, "do not ask before something is ended for good")
	fs.StringVar(&d.flags.url, "url", "", "address of the server (default: $"+urlVar+", for the key of a login that of the login, or "+defaultURL+")")
	fs.StringVar(&d.flags.keyFile, "key-file", "", "read the key from this file, - for stdin (default: $"+keyVar+", or the login)")
	fs.BoolVar(&d.flags.plainHTTP, "plain-http", false, "send the key without TLS to another machine")
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
	}
	d.addOperations(root)
	root.AddCommand(d.authCommand(), d.callCommand(), d.serveCommand(), d.configCommand(), d.secretCommand(), d.workerCommand())
	root.AddCommand(d.careCommands()...)
	root.SetHelpCommand(helpCommand())
	root.SetCompletionCommandGroupID("you")
	root.AddCommand(&cobra.Command{Use: "version", GroupID: "you", Short: "Show the version of this program", Args: noArgs,
		Run: func(*cobra.Command, []string) { d.print("unstuck %s", server.Build()) }})
	return root
}

// helpCommand is `unstuck help`, which knows what is no command.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", GroupID: "you", Short: "Show the help of a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about := cmd.Root()
			for _, word := range args {
				next, _, _ := about.Find([]string{word})
				if next == about {
					return noCommand(about, word)
				}
				about = next
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
			if about, _, err := cmd.Root().Find(args); err == nil {
				for _, c := range about.Commands() {
					if c.IsAvailableCommand() {
						names = append(names, c.Name()+"\t"+c.Short)
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// groups are the headings of the help.
var groups = [...]struct{ id, title string }{
	{"keys", "Keys and people"}, {"work", "Cues and work"}, {"server", "The server"}, {"you", "You"},
}

// exactArgs wants exactly these arguments.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usage("%s needs %s.\n\n  help      %s --help", cmd.CommandPath(), names[len(args)], cmd.CommandPath())
		case len(args) > len(names):
			text := fmt.Sprintf("%s takes %s; %q is one too many.\n", cmd.CommandPath(), plural(len(names), "argument", "arguments"), args[len(names)])
			if len(names) == 1 {
				text += fmt.Sprintf("\n  quoted    %s %s     (a name with spaces)", cmd.CommandPath(), shellWord(strings.Join(args, " ")))
			}
			return usage("%s\n  help      %s --help", text, cmd.CommandPath())
		}
		return nil
	}
}
