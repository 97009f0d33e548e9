package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"unstuck/internal/disk"
	"unstuck/internal/server"
)

// doctorCommand is `unstuck doctor`.
func (d *door) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "doctor", GroupID: "server", Short: "Look for what is wrong: with your login, and with a server on this machine", Args: noArgs,
		Long: "Looks at your login and whether its server answers. On the machine of a server it looks at settings, data folder, server secret,\n" +
			"database, audit log, clock and room on the disk too, beside a running server or without one. Changes nothing; ends with 1 when\n" +
			"something is wrong, with the sentence and what mends it.\n\n" +
			"--quiet says nothing and only ends so, for health checks. It asks the running server and leaves out what takes longer the more it\n" +
			"holds (`unstuck audit check` is for the audit log), and what is no fault of that server: your login, where alerts go, the outside watch.",
		Example: "  unstuck doctor\n  unstuck doctor --quiet && echo well"}
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
		return d.doctor(cmd.Context(), set, cmd.Flags().Changed("data"))
	}
	return cmd
}

// doctor looks at the login, and at a server that has its data on this machine. Who has no login where a server is has nothing wrong.
func (d *door) doctor(ctx context.Context, set server.Settings, named bool) error {
	_, missing := os.Stat(set.Data)
	here := missing == nil || named
	var found []server.Finding
	for _, strange := range d.strangeVariables() {
		found = append(found, server.Finding{What: strange, Note: true})
	}
	if !here || !d.nobody() {
		found = append(found, d.doctorClient(ctx, here)...)
		here = here || found[len(found)-1].Err != nil
		if found[len(found)-1].Err == nil {
			found = append(found, d.doctorAlerts(ctx)...)
		}
		for i := range found {
			found[i].Beside = true
		}
	}
	local := "– no server has its data on this machine"
	if here {
		running, runs := d.runningChecks(ctx, set.Data)
		found = append(found, server.Doctor(ctx, set, server.Look{Now: d.Now(), Quick: d.flags.quiet && runs})...)
		found = append(found, running...)
		if d.flags.quiet && runs { // a health check asks for this server; nobody starts it anew because a login or a chat does not work
			found = slices.DeleteFunc(found, func(f server.Finding) bool { return f.Beside })
		}
		local = ""
		if p, err := d.findPlace(); runs && err == nil && p.key == "" {
			local = "– not logged in; who may read the data folder gets a key by: unstuck auth login --local"
		}
		if !runs && d.nobody() {
			found = append(found, server.Finding{What: "data in " + set.Data, Err: errors.New("no server runs on it"), Mend: "unstuck serve"})
		} else if !runs {
			local = "– no server runs on the data in " + set.Data + " now"
		}
	}
	wrong, rest := 0, "Nothing is wrong."
	for _, f := range found {
		if f.Note {
			rest = "Nothing else is wrong."
			d.note("! %s", d.tildes(f.What))
			continue
		}
		if f.Err == nil {
			d.note("✓ %s", d.tildes(f.What))
			continue
		}
		wrong++
		d.note("%s", d.tildes(fmt.Sprintf("✕ %s: %v\n  mend it   %s", f.What, f.Err, f.Mend)))
	}
	if local != "" {
		d.note("%s", d.tildes(local))
	}
	if wrong > 0 {
		return exitWith(exitOurs)
	}
	d.note("%s", rest)
	return nil
}

// runningChecks asks the server that runs on a data folder what it knows of itself; false when none runs.
func (d *door) runningChecks(ctx context.Context, data string) (out []server.Finding, runs bool) {
	var checked []server.Checked
	if d.askLocal(ctx, data, "GET", "/checks", nil, &checked) != nil {
		return nil, false
	}
	for _, c := range checked {
		f := server.Finding{What: c.What, Mend: c.Mend, Beside: c.Beside}
		if c.Wrong != "" {
			f.Err = errors.New(c.Wrong)
		}
		out = append(out, f)
	}
	return out, true
}

// mostSkew is how far the clocks of this machine and of a server may be apart.
const mostSkew = time.Minute

// doctorClient looks at the login, which who runs a server here may do without, and at the server that it is for. The last finding is whether that server answers to this key.
func (d *door) doctorClient(ctx context.Context, here bool) []server.Finding {
	var out []server.Finding
	if err := disk.Private(d.loginPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		out = append(out, server.Finding{What: "login in " + d.tilde(d.loginPath()), Err: err, Mend: disk.MendPrivate(d.loginPath())})
	}
	c, err := d.client()
	if err != nil {
		return append(out, server.Finding{What: "which server to ask", Err: errors.New(firstLine(err)), Mend: "unstuck auth status"})
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
	if c.key == "" && here {
		add(nil, "")
		return out
	}
	if c.key == "" {
		add(errors.New("not logged in"), "unstuck auth login")
		return out
	}
	k, err := get[keyView](ctx, d, "key.self", nil)
	if err != nil {
		what = "key from " + c.source
		mend := "unstuck auth login"
		if !c.file && c.source == keyVar {
			mend = "unset " + keyVar + ", or set it to a key that works; it goes before a login"
		}
		add(errors.New(lowerFirst(firstLine(err))), mend)
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
