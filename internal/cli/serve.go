package cli

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"unstuck/internal/access"
	"unstuck/internal/server"
)

// settingsFlags gives a command the flags of the server's settings, all or only some, and reads the settings: flags before environment
// before defaults.
func (d *door) settingsFlags(cmd *cobra.Command, only ...string) func() (server.Settings, error) {
	d.later[cmd] = func() { addSettings(cmd.Flags(), only) }
	return func() (server.Settings, error) {
		given := map[string]string{}
		cmd.Flags().Visit(func(f *pflag.Flag) { given[f.Name] = f.Value.String() })
		settings, err := server.ReadSettings(d.lookupEnv, given, d.Home)
		if err != nil {
			return settings, usage("Not started: these settings do not fit.\n\n  %s", strings.ReplaceAll(err.Error(), "\n", "\n  "))
		}
		return settings, nil
	}
}

func addSettings(fs *pflag.FlagSet, only []string) {
	fs.SortFlags = false
	for _, s := range server.AllSettings() {
		if s.Flag == "" || len(only) > 0 && !slices.Contains(only, s.Flag) {
			continue
		}
		help := s.Doc
		if s.Env != "" {
			help += " ($" + s.Env + ")"
		}
		if s.Kind == reflect.Bool {
			fs.Bool(s.Flag, false, help)
		} else {
			fs.String(s.Flag, s.Default, help)
		}
	}
}

// lookupEnv is the environment as settings read it: an empty variable counts as absent.
func (d *door) lookupEnv(name string) (string, bool) {
	if name == "" {
		return "", false
	}
	v := d.Getenv(name)
	return v, v != ""
}

// serveCommand is `unstuck serve`.
func (d *door) serveCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "serve", GroupID: "server", Short: "Run the server", Args: noArgs,
		Long: "Runs the server until it is stopped; calls under way then end in order. The first start sets a new server up by itself:\n" +
			"a database, a server secret, a workspace, and, on a terminal, a first key.\n\n`unstuck config` lists all settings, also those that stand in the environment only.",
		Example: "  unstuck serve\n  unstuck serve --dev\n  UNSTUCK_DOMAIN=unstuck.example.com unstuck serve --listen 0.0.0.0:443"}
	read := d.settingsFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		settings, err := read()
		if err != nil {
			return err
		}
		for _, strange := range d.strangeVariables() {
			server.NewLog(d.Stderr, d.StderrTTY, settings.LogLevel).Warn(strange)
		}
		err = server.Run(cmd.Context(), settings, server.Streams{
			Out: d.Stdout, Err: d.Stderr, OutTTY: d.StdoutTTY, ErrTTY: d.StderrTTY, Home: d.Home, Zone: d.Zone,
		})
		return notStarted(err)
	}
	return cmd
}

// notStarted says why a server ended, unless it was asked to.
func notStarted(err error) error {
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return nil
	case errors.As(err, new(server.ErrExposed)) || strings.HasPrefix(err.Error(), "Not started: "):
		return failure(exitUsage, "%v", err)
	}
	return failure(exitOurs, "Not started: %v.", err)
}

// secretCommand is `unstuck secret`: the server secret, on the machine of the server.
func (d *door) secretCommand() *cobra.Command {
	secret := &cobra.Command{Use: "secret", GroupID: "server", Short: "The server secret, which protects keys at rest", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var data string
	secret.PersistentFlags().StringVar(&data, "data", "", "the server's data folder (default: $UNSTUCK_DATA, or ~/.unstuck/server)")
	secret.AddCommand(
		&cobra.Command{Use: "status", Short: "Say how many keys still need an older server secret", Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return d.secretStatus(cmd.Context(), data, "GET") }},
		&cobra.Command{Use: "rotate", Short: "Add a server secret; keys are hashed again under it at their next use", Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return d.secretStatus(cmd.Context(), data, "POST") }},
	)
	return secret
}

// secretStatus asks the running server, or looks at the data itself when none runs.
func (d *door) secretStatus(ctx context.Context, data, method string) error {
	var s access.SecretStatus
	err := d.askLocal(ctx, data, method, "/secret", map[string]string{}, &s)
	var f *fault
	if errors.As(err, &f) && f.code == exitUnreachable {
		var settings server.Settings
		if settings, err = server.ReadSettings(d.lookupEnv, map[string]string{"data": d.dataFolder(data)}, d.Home); err == nil {
			s, err = server.SecretStatus(ctx, settings, method == "POST")
		}
	}
	if err != nil {
		return err
	}
	if d.flags.json {
		return d.printJSON(s)
	}
	if method == "POST" {
		d.print("Server secret %d was added to %s. Back that file up now: without it no key can be checked.", s.Newest, d.tilde(d.dataFolder(data)+"/secret"))
	}
	t := newTable("SERVER SECRET", "SECRETS OF KEYS", "")
	older := int64(0)
	for _, e := range s.Epochs {
		note := "newest"
		if e.Number != s.Newest {
			note = "needed until these are used or revoked"
			older += e.Keys
			if e.Keys == 0 {
				note = "needed only to check the audit log"
			}
		}
		t.add(fmt.Sprint(e.Number), thousands(e.Keys), note)
	}
	d.print("%s", strings.TrimSuffix(t.String(), "\n"))
	if older == 0 {
		d.print("Every key that lives is hashed under the newest server secret.")
	}
	return nil
}
