package cli

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"unstuck/internal/server"
)

// careCommands are the commands that look after the data of a server on this machine.
func (d *door) careCommands() []*cobra.Command {
	return []*cobra.Command{d.doctorCommand(), d.migrateCommand(), d.backupCommand(), d.restoreCommand()}
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
			hint := ""
			if errors.Is(err, os.ErrNotExist) && !cmd.Flags().Changed("data") {
				hint = "\n\n  elsewhere   unstuck backup " + shellWord(args[0]) + " --data FOLDER     (of the server: /var/lib/unstuck under systemd; with PostgreSQL set UNSTUCK_DATABASE)"
			}
			return failure(exitOurs, "Not backed up: %v.%s", err, hint)
		}
		d.say("Backed up to %s.", args[0])
		d.say("The server secret is not in it, and without it no key of the backup works. Keep a copy of %s too, elsewhere.", d.tilde(set.Data+"/secret"))
		return nil
	}
	return cmd
}
