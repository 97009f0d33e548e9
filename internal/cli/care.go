package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"unstuck/internal/access"
	"unstuck/internal/disk"
	"unstuck/internal/server"
)

// careCommands are the commands that look after the data of a server on this machine.
func (d *door) careCommands() []*cobra.Command {
	return []*cobra.Command{d.doctorCommand(), d.migrateCommand(), d.backupCommand(), d.restoreCommand()}
}

func (d *door) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "doctor", GroupID: "server", Short: "Look for what is wrong: with your login, and with a server on this machine", Args: noArgs,
		Long: "Looks at your login and whether its server answers. On the machine of a server it looks at settings, data folder, server secret,\n" +
			"database and audit log too, beside a running server or without one. Changes nothing; ends with 1 when something is wrong."}
	read := d.settingsFlags(cmd)
	flags := d.later[cmd]
	d.later[cmd] = func() {
		flags()
		cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Hidden = f.Name != "data" })
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		set, err := read()
		if err != nil {
			return err
		}
		found := d.doctorClient(cmd.Context())
		reached := found[len(found)-1].Err == nil
		_, missing := os.Stat(set.Data)
		here := missing == nil || cmd.Flags().Changed("data") || !reached
		if here {
			found = append(found, server.Doctor(cmd.Context(), set)...)
		}
		wrong := 0
		for _, f := range found {
			if f.Err == nil {
				d.note("✓ %s", d.tildes(f.What))
				continue
			}
			wrong++
			d.note("%s", d.tildes(fmt.Sprintf("✕ %s: %v\n  mend it   %s", f.What, f.Err, f.Mend)))
		}
		switch {
		case !here:
			d.note("– no server has its data on this machine")
		case d.askLocal(cmd.Context(), set.Data, "GET", "/secret", nil, &access.SecretStatus{}) == nil:
			d.note("✓ a server runs on the data in %s", d.tilde(set.Data))
		default:
			d.note("– no server runs on the data in %s now", d.tilde(set.Data))
		}
		if wrong > 0 {
			return exitWith(exitOurs)
		}
		d.note("Nothing is wrong.")
		return nil
	}
	return cmd
}

// mostSkew is how far the clocks of this machine and of a server may be apart.
const mostSkew = time.Minute

// doctorClient looks at the login, and at the server that it is for. The last finding is whether that server answers to this key.
func (d *door) doctorClient(ctx context.Context) []server.Finding {
	var out []server.Finding
	if err := disk.Private(d.loginPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		out = append(out, server.Finding{What: "login in " + d.tilde(d.loginPath()), Err: err, Mend: disk.MendPrivate(d.loginPath())})
	}
	c, err := d.client()
	if err != nil {
		return append(out, server.Finding{What: "which server to ask", Err: err, Mend: "unstuck auth status"})
	}
	h, err := get[healthView](ctx, d, "server.health", nil)
	if err != nil {
		return append(out, server.Finding{What: "server " + c.url, Err: errors.New("it does not answer"), Mend: "unstuck serve, or set " + urlVar + " when it is elsewhere"})
	}
	what := fmt.Sprintf("server %s answers, unstuck %s", c.url, h.Version)
	add := func(err error, mend string) { out = append(out, server.Finding{What: what, Err: err, Mend: mend}) }
	if h.trouble() != "nothing" {
		add(errors.New(h.trouble()), "look at the server's log, and at the room on its disk")
	}
	if h.Version != server.Version {
		add(fmt.Errorf("this program is %s", server.Version), "use programs of one version")
	}
	if skew := h.Timestamp.Sub(d.Now()).Abs(); skew > mostSkew {
		add(fmt.Errorf("its clock and this one are %s apart", span(skew)), "set the clock")
	}
	if c.key == "" {
		add(errors.New("not logged in"), "unstuck auth login")
		return out
	}
	k, err := get[keyView](ctx, d, "key.self", nil)
	if err != nil {
		what = "key from " + c.source
		add(errors.New(lowerFirst(firstLine(err))), "unstuck auth login")
		return out
	}
	what += fmt.Sprintf("; key %s, %s, works %s", k.Redacted, scopeWords(k.Scope), d.until(&k))
	add(nil, "")
	return out
}

// firstLine is what a failure says first.
func firstLine(err error) string {
	var no *refusal
	if errors.As(err, &no) {
		return strings.TrimRight(no.Message, ".")
	}
	return before(err.Error(), "\n")
}

// note prints unless --quiet was given.
func (d *door) note(format string, args ...any) {
	if !d.flags.quiet {
		d.print(format, args...)
	}
}

func (d *door) migrateCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "migrate", GroupID: "server", Short: "Bring the database up to this version, without starting a server", Args: noArgs}
	read := d.settingsFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		set, err := read()
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
	cmd := &cobra.Command{Use: "backup FILE", GroupID: "server", Short: "Copy the database into a new file, also beside a running server", Args: exactArgs("FILE")}
	read := d.settingsFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		set, err := read()
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
