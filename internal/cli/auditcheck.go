package cli

import (
	"github.com/spf13/pflag"

	"unstuck/internal/access"
	"unstuck/internal/server"
)

const auditCheckNote = "On the machine of the server, --local looks at the database itself, beside a running server or without one: it reads only, needs no login\n" +
	"and checks the logs of all workspaces. Whoever is not logged in anywhere gets that by itself where a server has its data. Ends with 1\n" +
	"when something does not fit, or could not be checked."

func auditCheckWording() wording {
	return wording{own: ownAuditCheck, show: showAuditCheck, note: auditCheckNote, like: []string{"audit check", "audit check --local --data /var/lib/unstuck"}}
}

// ownAuditCheck adds the flags of a check without the server, which then takes the place of the call.
func ownAuditCheck(fs *pflag.FlagSet) func(*run) error {
	local := fs.Bool("local", false, "look at the database itself, on the machine of the server; reads only, needs no login")
	data := fs.String("data", "", "the server's data folder, for --local (default: $UNSTUCK_DATA, or ~/.unstuck/server)")
	return func(r *run) error {
		r.word.do = func(r *run) error {
			set, err := server.ReadSettings(r.lookupEnv, map[string]string{"data": r.dataFolder(*data)}, r.Home)
			if err != nil {
				return usage("Not checked: these settings do not fit: %v", err)
			}
			if *local || *data != "" || r.nobody() && set.Exists() {
				return r.checkLogs(set)
			}
			a, err := r.call()
			return firstErr(err, func() error { return r.render(a) })
		}
		return nil
	}
}

// nobody says that there is neither a key nor the address of a server to ask.
func (d *door) nobody() bool {
	p, err := d.findPlace()
	return err == nil && p.key == "" && d.flags.url == "" && d.Getenv(urlVar) == ""
}

// checkLogs checks the audit logs in a database on this machine.
func (r *run) checkLogs(set server.Settings) error {
	found, err := server.CheckAudit(r.ctx, set)
	if err != nil {
		return failure(exitOurs, "Not checked: %v.", err)
	}
	if r.door.flags.json {
		type shown struct {
			OK bool `json:"ok"`
			access.Checked
		}
		err = r.printJSON(shown{found.OK(), found})
	} else {
		r.tellChecked(set, found)
	}
	if err == nil && !found.OK() {
		err = exitWith(exitOurs)
	}
	return err
}

func (r *run) tellChecked(set server.Settings, found access.Checked) {
	r.note("Looked at %s itself, not through a server.", r.tilde(set.Place()))
	for _, c := range found.Chains {
		switch {
		case !c.OK:
			r.print("Not whole: workspace %s: %s.", c.Workspace, c.Problem)
		case found.Unchecked != "":
			r.note("No gap: %s of the audit log of workspace %s.", plural(int(c.Rows), "row", "rows"), c.Workspace)
		default:
			r.note("Whole: workspace %s: all %s rows of the audit log are as they were written.", c.Workspace, thousands(c.Rows))
		}
	}
	if len(found.Chains) == 0 {
		r.note("There is no audit log yet.")
	}
	if found.Unchecked != "" {
		r.print("Not checked: %s.", found.Unchecked)
	}
}

// showAuditCheck shows what a server said about the log of its workspace.
func showAuditCheck(r *run, a *answer) error {
	c, err := decode[struct {
		Workspace string `json:"workspace"`
		Rows      int64  `json:"rows"`
		OK        bool   `json:"ok"`
		Problem   string `json:"problem"`
	}](a)
	if err != nil {
		return err
	}
	if c.OK {
		r.print("Whole: all %s rows of the audit log are as they were written.", thousands(c.Rows))
		return nil
	}
	r.print("Not whole: %s.", c.Problem)
	return exitWith(exitOurs)
}
