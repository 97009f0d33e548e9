package cli

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"unstuck/internal/access"
	"unstuck/internal/server"
)

// careCommands are the commands that look after the data of a server on this machine.
func (d *door) careCommands() []*cobra.Command {
	return []*cobra.Command{d.doctorCommand(), d.migrateCommand(), d.backupCommand(), d.restoreCommand()}
}

func (d *door) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "doctor", GroupID: "server", Short: "Look for what is wrong with a server on this machine", Args: noArgs,
		Long: "Looks at settings, data folder, server secret, database and audit log, beside a running server or without one. Changes nothing; ends with 1 when something is wrong."}
	read := d.settingsFlags(cmd.Flags())
	cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Hidden = f.Name != "data" })
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		set, err := read()
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
	read := d.settingsFlags(cmd.Flags(), "data")
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
	read := d.settingsFlags(cmd.Flags(), "data")
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

func (d *door) restoreCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "restore FILE", GroupID: "server", Short: "Put a backup in the place of the database", Args: exactArgs("FILE"),
		Long: "Checks that this program and the server secret fit the backup and that its audit log is whole, and puts it in place. Keys that the replaced database had revoked stay revoked. No server may run."}
	read := d.settingsFlags(cmd.Flags(), "data")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		set, err := read()
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
