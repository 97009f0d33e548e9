package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/spf13/cobra"

	"unstuck/internal/access"
	"unstuck/internal/server"
)

// serverCommands are the commands that run or look after a server on this machine.
func (d *door) serverCommands() []*cobra.Command {
	return []*cobra.Command{d.serveCommand(), d.configCommand(), d.doctorCommand(), d.migrateCommand(), d.backupCommand(), d.restoreCommand(), d.secretCommand()}
}

// settings are the flags of a server; all of them for serve, else the data folder alone.
type settings struct {
	cmd *cobra.Command
	all []server.Setting
}

func (d *door) settingsOf(cmd *cobra.Command, only ...string) *settings {
	s := &settings{cmd: cmd}
	for _, o := range server.AllSettings() {
		if o.Flag == "" || len(only) > 0 && o.Flag != only[0] {
			continue
		}
		doc := o.Doc
		if o.Env != "" {
			doc += " ($" + o.Env + ")"
		}
		if o.Kind == reflect.Bool {
			cmd.Flags().Bool(o.Flag, o.Default == "true", doc)
		} else {
			cmd.Flags().String(o.Flag, o.Default, doc)
		}
		s.all = append(s.all, o)
	}
	return s
}

// read reads the settings: flags that were given, then the environment, then defaults.
func (d *door) read(s *settings) (server.Settings, error) {
	given := map[string]string{}
	for _, o := range s.all {
		if f := s.cmd.Flags().Lookup(o.Flag); f.Changed {
			given[o.Flag] = f.Value.String()
		}
	}
	env := func(name string) (string, bool) {
		v := d.Getenv(name)
		return v, v != ""
	}
	out, err := server.ReadSettings(env, given, d.Home)
	if err != nil {
		return out, usage("These settings do not fit:\n\n  %s\n\n  all       unstuck config", strings.ReplaceAll(err.Error(), "\n", "\n  "))
	}
	return out, nil
}

func (d *door) serveCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "serve", GroupID: "server", Short: "Run the server", Args: noArgs,
		Long: "Runs the server until Ctrl-C or SIGTERM. It needs no configuration: SQLite in ~/.unstuck/server, listening on this machine only. The first start sets it up and prints a first key."}
	cmd.Flags().SortFlags = false
	s := d.settingsOf(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		set, err := d.read(s)
		if err != nil {
			return err
		}
		io := server.Streams{Out: d.Stdout, Err: d.Stderr, OutTTY: d.StdoutTTY, ErrTTY: d.StderrTTY, Home: d.Home, Zone: d.Zone}
		return notStarted(server.Run(cmd.Context(), set, io))
	}
	return cmd
}

// notStarted says in its first words that nothing runs.
func notStarted(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return nil
	}
	text := err.Error()
	if !strings.HasPrefix(text, "Not started") {
		text = "Not started: " + text + "."
	}
	return failure(exitOurs, "%s", strings.TrimSuffix(text, "..")+"")
}

func (d *door) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", GroupID: "server", Short: "List every setting of a server with its value and where it comes from", Args: noArgs}
	s := d.settingsOf(cmd)
	for _, o := range s.all {
		cmd.Flags().Lookup(o.Flag).Hidden = true
	}
	cmd.RunE = func(*cobra.Command, []string) error {
		set, err := d.read(s)
		for _, o := range server.AllSettings() {
			name := firstOf(o.Env, "--"+o.Flag)
			value, from := set.Get(o), "default"
			switch {
			case o.Env != "" && d.Getenv(o.Env) != "":
				from = "environment"
			case o.Flag != "" && cmd.Flags().Lookup(o.Flag).Changed:
				from = "flag"
			}
			if o.Secret && value != "" {
				value = "(set)"
			}
			d.print("%-26s %-26s %-12s %s", name, firstOf(value, "–"), from, o.Doc)
		}
		return err
	}
	return cmd
}

func (d *door) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "doctor", GroupID: "server", Short: "Look for what is wrong with a server on this machine", Args: noArgs,
		Long: "Looks at settings, data folder, server secret, database and audit log, beside a running server or without one. Changes nothing; ends with 1 when something is wrong."}
	s := d.settingsOf(cmd)
	for _, o := range s.all {
		cmd.Flags().Lookup(o.Flag).Hidden = o.Flag != "data"
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		set, err := d.read(s)
		if err != nil {
			return err
		}
		wrong := 0
		for _, f := range server.Doctor(cmd.Context(), set) {
			if f.Err == nil {
				d.note("✓ %s", f.What)
				continue
			}
			wrong++
			d.note("✕ %s: %v\n  mend it   %s", f.What, f.Err, f.Mend)
		}
		var status access.SecretStatus
		if err := d.askLocal(cmd.Context(), set.Data, "GET", "/secret", nil, &status); err != nil {
			d.note("– no server runs on this data now")
		} else {
			d.note("✓ a server runs on this data")
		}
		if wrong > 0 {
			return exitWith(exitOurs)
		}
		d.note("Nothing is wrong.")
		return nil
	}
	return cmd
}

// note prints unless --quiet was given.
func (d *door) note(format string, args ...any) {
	if !d.flags.quiet {
		d.print(format, args...)
	}
}

func (d *door) migrateCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "migrate", GroupID: "server", Short: "Bring the database up to this version, without starting a server", Args: noArgs}
	s := d.settingsOf(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		set, err := d.read(s)
		if err != nil {
			return err
		}
		version, err := server.Migrate(cmd.Context(), set, server.NewLog(d.Stderr, true, "warn"))
		if err != nil {
			return failure(exitOurs, "Not migrated: %v.", err)
		}
		d.say("The database is at version %d.", version)
		return nil
	}
	return cmd
}

func (d *door) backupCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "backup FILE", GroupID: "server", Short: "Copy the database into a new file, also beside a running server", Args: cobra.ExactArgs(1)}
	s := d.settingsOf(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		set, err := d.read(s)
		if err != nil {
			return err
		}
		if err := server.Backup(cmd.Context(), set, args[0]); err != nil {
			return failure(exitOurs, "Not backed up: %v.", err)
		}
		d.say("Backed up to %s.", args[0])
		d.say("The server secret is not in it, and without it no key of the backup works. Keep a copy of %s too, elsewhere.", d.tilde(set.Data+"/secret"))
		return nil
	}
	return cmd
}

func (d *door) restoreCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "restore FILE", GroupID: "server", Short: "Put a backup in the place of the database", Args: cobra.ExactArgs(1),
		Long: "Checks that this program and the server secret fit the backup and that its audit log is whole, and puts it in place. Keys that the replaced database had revoked stay revoked. No server may run."}
	s := d.settingsOf(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		set, err := d.read(s)
		if err != nil {
			return err
		}
		if _, err := os.Stat(args[0]); err != nil {
			return failure(exitNotFound, "Not found: %v.", err)
		}
		done, err := server.Restore(cmd.Context(), set, args[0])
		if err != nil {
			return failure(exitOurs, "Not restored: %v.", err)
		}
		d.say("Restored %s.", args[0])
		if done.Replaced != "" {
			d.say("The database that was there is now %s.", d.tilde(done.Replaced))
		}
		if done.KeptRevoked > 0 {
			d.say("%d keys that it had revoked since stay revoked.", done.KeptRevoked)
		}
		return nil
	}
	return cmd
}

func (d *door) secretCommand() *cobra.Command {
	secret := &cobra.Command{Use: "secret", GroupID: "server", Short: "Rotate the server secret, or see what still needs the old one", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	for _, c := range []struct {
		use, short string
		rotate     bool
	}{
		{"status", "Say how many keys need which server secret", false},
		{"rotate", "Add a server secret; keys are hashed again at their next use", true},
	} {
		cmd := &cobra.Command{Use: c.use, Short: c.short, Args: noArgs}
		s := d.settingsOf(cmd, "data")
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return d.serverSecret(cmd.Context(), s, c.rotate) }
		secret.AddCommand(cmd)
	}
	return secret
}

// serverSecret asks the running server, or opens its data when none runs.
func (d *door) serverSecret(ctx context.Context, s *settings, rotate bool) error {
	set, err := d.read(s)
	if err != nil {
		return err
	}
	method := "GET"
	if rotate {
		method = "POST"
	}
	var status access.SecretStatus
	err = d.askLocal(ctx, set.Data, method, "/secret", struct{}{}, &status)
	var f *fault
	if errors.As(err, &f) && f.code == exitUnreachable {
		status, err = server.SecretStatus(ctx, set, rotate)
	}
	if err != nil {
		return failure(exitOurs, "Not done: %v.", err)
	}
	if rotate {
		d.say("Added server secret %d to %s. Back it up. Keys are hashed again at their next use.", status.Newest, d.tilde(set.Data+"/secret"))
	}
	for _, e := range status.Epochs {
		note := ""
		if e.Number == status.Newest {
			note = "  newest"
		}
		d.print("%s", fmt.Sprintf("server secret %d  %d keys%s", e.Number, e.Keys, note))
	}
	return nil
}
