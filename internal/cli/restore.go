package cli

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"unstuck/internal/access"
	"unstuck/internal/op"
	"unstuck/internal/server"
)

func (d *door) restoreCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "restore FILE", GroupID: "server", Short: "Put a backup in the place of the database", Args: exactArgs("FILE"),
		Long: "Checks that this program and the server secret fit the backup and that its audit log is whole, and puts it in place. Says before\n" +
			"what is replaced and what is newer than the backup, and asks; in scripts --yes says it. What the replaced database had taken away\n" +
			"stays away: revoked keys, ended secrets, narrowed keys, demoted and removed members. No server may run."}
	read := d.settingsFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		set, err := read()
		if err != nil {
			return err
		}
		if _, err := os.Stat(args[0]); err != nil {
			return failure(exitNotFound, "Not found: %v.", err)
		}
		again := "unstuck restore " + shellWord(args[0])
		if cmd.Flags().Changed("data") {
			again += " --data " + shellWord(set.Data)
		}
		if err := d.mayReplace(cmd.Context(), set, args[0], again); err != nil {
			return err
		}
		done, err := server.Restore(cmd.Context(), set, args[0])
		if err != nil {
			return failure(exitOurs, "Not restored: %v.", err)
		}
		d.tellRestored(args[0], done)
		return nil
	}
	return cmd
}

// mayReplace says what a restore replaces and what would be lost, and asks; again is the command. Without a database in place there is nothing to ask.
func (d *door) mayReplace(ctx context.Context, set server.Settings, file, again string) error {
	if d.askLocal(ctx, set.Data, "GET", "/secret", nil, &access.SecretStatus{}) == nil {
		return failure(exitOurs, "Not restored: a server runs on the data in %s. Stop it first.", d.tilde(set.Data))
	}
	look, err := server.LookAtRestore(ctx, set, file)
	if err != nil {
		return failure(exitOurs, "Not restored: %v.", err)
	}
	if look.Now == nil {
		return nil
	}
	d.say("%s", d.replacement(look))
	if d.flags.yes {
		return nil
	}
	question := fmt.Sprintf("This replaces %s, which is kept beside it under another name.", d.tilde(set.DSN()))
	return d.goOn(question, again)
}

// replacement is what a restore puts in the place of what, and what is lost by it.
func (d *door) replacement(look server.Replacement) string {
	t := newTable("", "BACKUP", "NOW")
	b, now := look.Backup, *look.Now
	last := func(at op.Time) string {
		if at == 0 {
			return "–"
		}
		return d.moment(at.Std())
	}
	t.add("last written", d.moment(b.File), d.moment(now.File))
	t.add("last entry", last(b.Last), last(now.Last))
	for _, row := range []struct {
		what      string
		back, now int64
	}{{"workspaces", b.Workspaces, now.Workspaces}, {"keys", b.Keys, now.Keys}, {"cues", b.Cues, now.Cues}, {"executions", b.Executions, now.Executions}} {
		t.add(row.what, thousands(row.back), thousands(row.now))
	}
	if !look.Lost.Any() {
		return t.String() + "Nothing was changed or fired after the backup."
	}
	var lost []string
	for _, l := range []struct {
		n         int64
		one, many string
	}{
		{look.Lost.Changes, "recorded change", "recorded changes"}, {look.Lost.Keys, "new key", "new keys"}, {look.Lost.Cues, "new cue", "new cues"},
		{look.Lost.Executions, "execution", "executions"},
	} {
		if l.n > 0 {
			lost = append(lost, plural(int(l.n), l.one, l.many))
		}
	}
	return t.String() + "Newer than the backup, and lost with it: " + strings.Join(lost, ", ") + "."
}

func (d *door) tellRestored(file string, done server.Restored) {
	d.say("Restored %s.", file)
	if done.Replaced != "" {
		d.say("The database that was there is now %s.", d.tilde(done.Replaced))
	}
	if done.Revoked > 0 {
		d.say("%s.", plural(done.Revoked, "key that it had revoked since stays revoked", "keys that it had revoked since stay revoked"))
	}
	if done.Ended > 0 {
		d.say("%s.", plural(done.Ended, "secret that a rotation had replaced since ends as it did there", "secrets that rotations had replaced since end as they did there"))
	}
	for _, key := range done.Rotate {
		d.say("Key %s has no secret left that lasts: give it a new one with `unstuck keys rotate`.", key)
	}
	for _, workspace := range done.Signing {
		d.say("Workspace %s signs with its older webhook secret again: rotate it again if it was rotated because somebody knew it.", workspace)
	}
	if done.Narrowed > 0 {
		d.say("%s.", plural(done.Narrowed, "key may do only what both databases let it", "keys may do only what both databases let them"))
	}
	if done.Members > 0 {
		d.say("%s.", plural(done.Members, "member who was demoted or removed since stays so", "members who were demoted or removed since stay so"))
	}
	for _, email := range done.Admins {
		d.say("%s was demoted or removed since, but is admin again: the backup knows no other admin of that workspace.", email)
	}
	d.say("What was given since the backup is gone with it: new keys, wider rights, new members and roles. Keys that were handed over since\n" +
		"belong to the member they had before, who may know their secrets: rotate those of members who left.")
}
