package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"unstuck/internal/server"
)

// setting is a setting as `unstuck config` shows it.
type setting struct {
	Setting string  `json:"setting"`
	Value   string  `json:"value"`
	From    string  `json:"from"`
	Meaning string  `json:"meaning"`
	Running *string `json:"running"` // its value in the server that runs on the data; null when none can be asked
}

// configCommand is `unstuck config`: every setting, its value, and where it comes from.
func (d *door) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", GroupID: "server", Short: "List the settings of the server, their values, and where they come from", Args: noArgs,
		Long: "Takes the flags of `unstuck serve` and lists every setting as `unstuck serve` would use it from this shell: its value, where that comes\n" +
			"from, and what it means. Where a server runs on the data folder, says what that one uses instead. Values of secrets are not shown.",
		Example: "  unstuck config\n  UNSTUCK_LISTEN=:8080 unstuck config"}
	read := d.settingsFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		set, err := read()
		if err != nil {
			return err
		}
		for _, strange := range d.strangeVariables() {
			d.say("! %s", strange)
		}
		list := d.settings(set, cmd.Flags())
		err = d.askRunning(cmd.Context(), set, list)
		if d.flags.json {
			return d.printJSON(list)
		}
		t := newTable("SETTING", "VALUE", "FROM", "MEANING")
		for _, s := range list {
			t.add(s.Setting, firstOf(d.tilde(s.Value), "–"), s.From, s.Meaning)
		}
		d.print("%s", "What `unstuck serve` would use from this shell:\n\n"+strings.TrimSuffix(t.String(), "\n"))
		d.print("%s", "\n"+d.running(set, list, err))
		return nil
	}
	return cmd
}

// settings lists the settings with where they come from.
func (d *door) settings(set server.Settings, flags *pflag.FlagSet) (out []setting) {
	for _, s := range server.AllSettings() {
		from := "default"
		if _, ok := d.lookupEnv(s.Env); ok {
			from = s.Env
		}
		if f := flags.Lookup(s.Flag); s.Flag != "" && f != nil && f.Changed {
			from = "--" + s.Flag
		}
		out = append(out, setting{Setting: s.Name(), Value: set.Shown(s), From: from, Meaning: s.Doc})
	}
	return out
}

// askRunning asks the server that runs on the data for its settings.
func (d *door) askRunning(ctx context.Context, set server.Settings, list []setting) error {
	var running map[string]string
	if err := d.askLocal(ctx, set.Data, "GET", "/settings", nil, &running); err != nil {
		return err
	}
	for i := range list {
		if value, ok := running[list[i].Setting]; ok {
			list[i].Running = &value
		}
	}
	return nil
}

// running says how the settings of the server that runs differ; err is why it could not be asked.
func (d *door) running(set server.Settings, list []setting, err error) string {
	folder := d.tilde(set.Data)
	var f *fault
	switch {
	case errors.As(err, &f) && f.code == exitUnreachable:
		return "No server runs on the data in " + folder + " now."
	case err != nil:
		return "The server that runs on the data in " + folder + " may use others; it could not be asked: " + lowerFirst(firstLine(err)) + "."
	}
	t := newTable("SETTING", "HERE", "THERE")
	differ := false
	for _, s := range list {
		if s.Running != nil && *s.Running != s.Value && s.Setting != "UNSTUCK_DATA" { // which is the same folder, however it is written
			t.add(s.Setting, firstOf(d.tilde(s.Value), "–"), firstOf(d.tilde(*s.Running), "–"))
			differ = true
		}
	}
	if !differ {
		return "The server that runs on the data in " + folder + " uses the same."
	}
	return "The server that runs on the data in " + folder + " uses others:\n\n" + strings.TrimSuffix(t.String(), "\n")
}
