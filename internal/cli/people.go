package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// peopleWordings are the commands about members, workspaces and the audit log.
func peopleWordings() map[string]wording {
	keys := map[string]string{"keys": "keys"}
	return map[string]wording{
		"member.list":   {show: showMembers},
		"member.add":    {args: []string{"email"}, show: showMemberAdded, like: []string{"members add ana@example.com --role operator"}},
		"member.update": {flags: keys, do: decideKeys, show: showMemberChanged, like: []string{"members update ana@example.com --role viewer", "members update ana@example.com --role viewer --keys hand_over"}},
		"member.remove": {flags: keys, do: decideKeys, ask: askRemove, show: showMemberRemoved, like: []string{"members remove ana@example.com --keys revoke"},
			note: "Integration keys of the member are a decision: hand_over to you, or revoke. Without --keys they are listed, and nothing is done."},
		"workspace.get":    {show: showWorkspace},
		"workspace.update": {show: showWorkspace},
		"workspace.list":   {show: showWorkspaces},
		"workspace.create": {args: []string{"name"}, show: showWorkspaceCreated, like: []string{`KEY=$(unstuck workspaces create "Second team")`}},
		"audit.list":       auditWording(),
		"audit.check":      auditCheckWording(),

		"webhook_secret.get": {noun: "secrets", verb: "get"}, "webhook_secret.rotate": {noun: "secrets", verb: "rotate"},
		"alert_secret.get": {noun: "secrets", verb: "get-alert"}, "alert_secret.rotate": {noun: "secrets", verb: "rotate-alert"},
	}
}

type memberView struct {
	ID        string    `json:"id"`
	Email     string    `json:"email"`
	Role      string    `json:"role"`
	CreatedAt time.Time `json:"created_at"`
	Secret    string    `json:"key"` // only in the answer to an add
	Warning   string    `json:"warning"`

	Known []struct { // after keys were handed over
		Name string `json:"name"`
		Mend string `json:"mend"`
	} `json:"known_keys"`
}

type memberPage struct {
	Members []memberView `json:"members"`
}

func showMembers(r *run, a *answer) error {
	page, err := decode[memberPage](a)
	if err != nil {
		return err
	}
	t := newTable("MEMBER", "ROLE", "SINCE", "ID")
	for _, m := range page.Members {
		t.add(m.Email, m.Role, r.date(m.CreatedAt), m.ID)
	}
	r.printTable(t)
	return nil
}

func showMemberAdded(r *run, a *answer) error {
	m, err := decode[memberView](a)
	if err != nil {
		return err
	}
	r.handOver(m.Secret, fmt.Sprintf("Added %s as %s  %s", m.Email, m.Role, m.ID),
		"A personal key of the new member, for: unstuck auth login. Hand it over safely.", r.shownOnce())
	return nil
}

func showMemberChanged(r *run, a *answer) error {
	m, err := decode[memberView](a)
	if err != nil {
		return err
	}
	r.print("%s is %s now.%s", m.Email, m.Role, r.decidedWords())
	r.warnKnown(m)
	r.caution(m.Warning)
	return nil
}

func showMemberRemoved(r *run, a *answer) error {
	m, err := decode[memberView](a)
	if err != nil {
		return err
	}
	r.print("Removed %s. Personal keys of the member ended at once.%s", r.typed["id"], r.decidedWords())
	r.warnKnown(m)
	r.caution(m.Warning)
	return nil
}

// warnKnown names the keys that go on while the member knows their secret, each with the command that ends it.
func (r *run) warnKnown(m memberView) {
	if len(m.Known) == 0 {
		return
	}
	r.say("\n%s still knows the secret of %s. Rotate what you keep:\n", m.Email, plural(len(m.Known), "key", "keys"))
	t := newTable()
	for _, k := range m.Known {
		t.add("  "+k.Name, k.Mend)
	}
	r.say("%s", strings.TrimSuffix(t.String(), "\n"))
}

// decidedWords says what became of a member's integration keys.
func (r *run) decidedWords() string {
	switch r.in["keys"] {
	case "hand_over":
		return " The member's integration keys belong to you now."
	case "revoke":
		return " The integration keys were revoked."
	}
	return ""
}

func askRemove(r *run) (string, error) {
	return fmt.Sprintf("%s leaves the workspace; personal keys end at once, for good.", r.typed["id"]), nil
}

// decideKeys changes or removes a member. When integration keys are in the way it lists them and asks what becomes of them; where
// nobody can be asked it leaves everything as it is.
func decideKeys(r *run) error {
	if err := r.resolveAll(); err != nil {
		return err
	}
	if err := r.confirm(); err != nil {
		return err
	}
	a, err := r.call()
	var no *refusal
	if !errors.As(err, &no) || no.Code != "member_has_keys" {
		return firstErr(err, func() error { return r.render(a) })
	}
	var body struct {
		Error struct {
			Keys []keyView `json:"keys"`
		} `json:"error"`
	}
	if err := json.Unmarshal(no.body, &body); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	t := newTable("  NAME", "KEY", "SCOPE", "LAST USED", "BY", "WHY")
	for i := range body.Error.Keys {
		k := &body.Error.Keys[i]
		t.add("  "+k.Name, k.Redacted, r.scopeCell(k), r.usedCell(k.LastUsed, k.LastUsedAt), firstOf(k.LastProgram, "–"), k.Reason)
	}
	list := strings.TrimSuffix(t.String(), "\n")
	if !r.asks() {
		no.notes = append(no.notes, "decide\t--keys hand_over   they go on; what belongs to the member belongs to you", "\t--keys revoke      they end at once, for good")
		no.table = list
		return no
	}
	r.say("%s\n\n%s\n", no.headline(), list)
	fmt.Fprint(r.Stderr, "What becomes of them? [h]and over to you, [r]evoke, or Enter to leave everything as it is: ")
	line, _ := r.readLine() // no answer is an answer
	switch strings.ToLower(line) {
	case "h", "hand_over":
		r.in["keys"] = "hand_over"
	case "r", "revoke":
		r.in["keys"] = "revoke"
	default:
		return failure(exitConflict, "Not done.")
	}
	a, err = r.call()
	return firstErr(err, func() error { return r.render(a) })
}

type workspaceView struct {
	ID             string    `json:"id"`
	Name           string    `json:"name"`
	Slug           string    `json:"slug"`
	Plan           string    `json:"plan"`
	CueLimit       int64     `json:"active_cue_limit"`
	ExecutionLimit int64     `json:"monthly_execution_limit"`
	RateLimit      int64     `json:"rate_limit_per_minute"`
	CreatedAt      time.Time `json:"created_at"`
	Secret         string    `json:"key,omitempty"` // only in the answer to a create
}

// noCap is how a limit that does not exist stands on the wire.
const noCap = 1_000_000_000

// limitWords is a limit as people read it.
func limitWords(n int64) string {
	if n == 0 || n >= noCap {
		return "no limit"
	}
	return thousands(n)
}

// thousands writes a number with commas.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func showWorkspace(r *run, a *answer) error {
	w, err := decode[workspaceView](a)
	if err != nil {
		return err
	}
	r.showWorkspace(w)
	return nil
}

func (d *door) showWorkspace(w workspaceView) {
	d.print("%s  %s · %s", w.Name, w.Slug, w.ID)
	t := newTable()
	t.add("plan", w.Plan)
	t.add("cues", limitWords(w.CueLimit))
	t.add("executions a month", limitWords(w.ExecutionLimit))
	t.add("calls a minute", limitWords(w.RateLimit)+", shared by all keys")
	t.add("since", d.date(w.CreatedAt))
	d.printTable(t)
}

func showWorkspaces(r *run, a *answer) error {
	page, err := decode[struct {
		Workspaces []workspaceView `json:"workspaces"`
	}](a)
	if err != nil {
		return err
	}
	t := newTable("WORKSPACE", "SLUG", "PLAN", "SINCE", "ID")
	for _, w := range page.Workspaces {
		t.add(w.Name, w.Slug, w.Plan, r.date(w.CreatedAt), w.ID)
	}
	r.printTable(t)
	return nil
}

func showWorkspaceCreated(r *run, a *answer) error {
	w, err := decode[workspaceView](a)
	if err != nil {
		return err
	}
	r.handOver(w.Secret, fmt.Sprintf("Created workspace %s  %s  %s", w.Name, w.Slug, w.ID),
		"Your personal key there, scope full. Use it with: unstuck auth login", r.shownOnce())
	return nil
}

// setPlanCommand is no operation: it is for whoever may read the server's data folder.
func (d *door) setPlanCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "set-plan WORKSPACE PLAN", Short: "Put a workspace on a plan, on the machine of the server",
		Long:    "Put a workspace on a plan: free, pro, scale or self-hosted. It is done on the machine of the server, by whoever may read its data folder.",
		Example: "  unstuck workspaces set-plan default self-hosted", Args: exactArgs("WORKSPACE", "PLAN")}
	data := cmd.Flags().String("data", "", "the server's data folder (default: $UNSTUCK_DATA, or ~/.unstuck/server)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var w workspaceView
		err := d.askLocal(cmd.Context(), *data, "POST", "/set-plan", map[string]string{"workspace": args[0], "plan": args[1]}, &w)
		if err != nil {
			return err
		}
		if d.flags.json {
			return d.printJSON(w)
		}
		d.print("Workspace %s is on plan %s now. Cues: %s; executions a month: %s; calls a minute: %s.", w.Slug, w.Plan,
			limitWords(w.CueLimit), limitWords(w.ExecutionLimit), limitWords(w.RateLimit))
		return nil
	}
	return cmd
}

type auditRow struct {
	Seq int64     `json:"seq"`
	At  time.Time `json:"at"`
	Who struct {
		KeyID    string `json:"key_id"`
		KeyName  string `json:"key_name"`
		Redacted string `json:"redacted"`
		Kind     string `json:"kind"`
		Member   string `json:"member_id"`
	} `json:"who"`
	Operation  string          `json:"operation"`
	Object     string          `json:"object"`
	ObjectID   string          `json:"object_id"`
	ObjectName string          `json:"object_name"`
	Result     string          `json:"result"`
	Count      int64           `json:"count"`
	Detail     json.RawMessage `json:"detail"`
}

func auditWording() wording {
	return wording{
		flags: map[string]string{"object_id": "object"}, refs: map[string]object{"key": aKey, "object_id": anyObject}, show: showAudit, note: "Times are UTC, newest first.",
		like: []string{`audit list --key "laptop agent"`, "audit list --operation key.revoke --limit 10"},
	}
}

func showAudit(r *run, a *answer) error {
	page, err := decode[struct {
		Audit []auditRow `json:"audit"`
		Next  *int64     `json:"next"`
	}](a)
	if err != nil {
		return err
	}
	if len(page.Audit) == 0 {
		if name := text(r.in["operation"]); name != "" && r.set.Lookup(name) == nil {
			return r.noSuchOperation(name)
		}
		r.print("No rows of the audit log.")
		return nil
	}
	self, _ := get[keyView](r.ctx, r.door, "key.self", nil) // without it nobody is called "you"
	people := r.people(page.Audit, self.ID)
	tellApart(page.Audit)
	t := newTable("TIME", "WHO", "DID", "OBJECT", "RESULT")
	for _, row := range page.Audit {
		t.add(r.clock(row.At), row.who(self.ID, people), row.did(), row.object(), row.result())
	}
	r.printTable(t)
	if page.Next != nil && r.in["limit"] == nil {
		r.say("More: --before %d", *page.Next)
	}
	return nil
}

// noSuchOperation refuses a filter by an operation that is not there and left no rows either.
func (r *run) noSuchOperation(name string) error {
	var names []string
	for _, o := range r.set.All() {
		names = append(names, o.Name)
	}
	near := nearest(name, names)
	if near != "" {
		near = "\n\n  near      " + near
	}
	return usage("There is no operation %q. Write it like cue.delete; unstuck keys access --all lists them.%s", name, near)
}

// tellApart adds the digits of the key to its name in rows where several keys have that name; of personal keys, several of one person.
func tellApart(rows []auditRow) {
	type naming struct{ name, member string }
	namingOf := func(row auditRow) naming {
		if row.Who.Kind == "personal" {
			return naming{row.Who.KeyName, row.Who.Member}
		}
		return naming{row.Who.KeyName, ""}
	}
	first, several := map[naming]string{}, map[naming]bool{}
	for _, row := range rows {
		n := namingOf(row)
		first[n] = firstOf(first[n], row.Who.KeyID)
		several[n] = several[n] || first[n] != row.Who.KeyID
	}
	for i := range rows {
		if several[namingOf(rows[i])] {
			rows[i].Who.KeyName += " …_" + lastEight(rows[i].Who.Redacted)
		}
	}
}

// people are the addresses of the members behind personal keys, by id, also of those who left; empty when they are not needed, or this
// key may not look.
func (r *run) people(rows []auditRow, self string) map[string]string {
	out := map[string]string{}
	if !slices.ContainsFunc(rows, func(row auditRow) bool { return row.Who.Kind == "personal" && row.Who.KeyID != self }) {
		return out
	}
	page, _ := get[memberPage](r.ctx, r.door, "member.list", nil)
	for _, m := range page.Members {
		out[m.ID] = m.Email
	}
	if !slices.ContainsFunc(rows, func(row auditRow) bool { return row.Who.Kind == "personal" && out[row.Who.Member] == "" }) {
		return out
	}
	keys, _ := r.allKeys(r.ctx, inputs{}) // which stay when their member leaves
	for _, k := range keys {
		out[k.Member.ID] = k.Member.Name
	}
	return out
}

// who is who acted: "you" for the calling key, a person with the name of the personal key, or the name of the key.
func (row *auditRow) who(self string, people map[string]string) string {
	switch {
	case row.Who.KeyID == "":
		return "the server"
	case row.Who.KeyID == self:
		return "you (…_" + lastEight(row.Who.Redacted) + ")"
	}
	name := firstOf(row.Who.KeyName, row.Who.KeyID)
	if person := people[row.Who.Member]; person != "" && row.Who.Kind == "personal" {
		return person + " (" + name + ")"
	}
	return name
}

// did is the operation, with how often where the row stands for several calls: "cue.create ×12".
func (row *auditRow) did() string {
	if row.Count > 1 {
		return fmt.Sprintf("%s ×%d", row.Operation, row.Count)
	}
	return row.Operation
}

func (row *auditRow) object() string {
	if row.Object == "" {
		return "–"
	}
	name := firstOf(row.ObjectName, row.ObjectID)
	if row.Object == "execution" && len(row.ObjectID) > 8 {
		name = row.ObjectID[:8]
	}
	return row.Object + " " + name
}

// result is what came of it: "done", or why it was refused.
func (row *auditRow) result() string {
	var detail struct {
		Missing     []string `json:"missing"`
		Restriction string   `json:"restriction"`
		Brought     string   `json:"brought"`
	}
	if len(row.Detail) > 0 && row.Result != "done" {
		_ = json.Unmarshal(row.Detail, &detail) // a detail of another shape adds nothing
	}
	switch {
	case row.Result == "done":
		return row.Result
	case len(detail.Missing) > 0:
		more := ""
		if n := len(detail.Missing) - 2; n > 0 {
			detail.Missing, more = detail.Missing[:2], fmt.Sprintf(" and %d more", n)
		}
		return "refused: lacks " + strings.Join(detail.Missing, ", ") + more
	case detail.Restriction != "" && detail.Brought == "":
		return "refused: restricted in " + detail.Restriction
	case detail.Restriction != "":
		return "refused: restricted in " + detail.Restriction + ", came with " + detail.Brought
	}
	return "refused: " + strings.ReplaceAll(row.Result, "_", " ")
}
