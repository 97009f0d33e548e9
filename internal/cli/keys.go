package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// keyWordings are the commands under `unstuck keys`.
func keyWordings() map[string]wording {
	ends := map[string]string{"expires_in": hiddenFlag, "expires_at": hiddenFlag}
	return map[string]wording{
		"key.create": {
			args: []string{"name"}, own: ownCreate, show: showCreated,
			flags: map[string]string{"permissions": "permission", "restrictions": hiddenFlag, "expires_in": hiddenFlag, "expires_at": hiddenFlag},
			note:  "The key goes to standard output, alone; all else goes to standard error: KEY=$(unstuck keys create …). Without --scope and\n--permission the scope is read-only. `unstuck scopes list` says what each scope means.",
			like: []string{`keys create "laptop agent" --scope worker --expires 30d`,
				`keys create "n8n workflow X" --permission cues:fire,executions:read --only-cue nightly-report --only-address 10.0.0.0/8`},
		},
		"key.list":      keyListWording(),
		"key.attention": {show: showAttention, note: "The same stands under `unstuck keys list`, there without personal keys."},
		"key.get":       {show: showKey},
		"key.self":      {show: showKey},
		"key.update": {
			verb: "narrow", aliases: []string{"update", "rename"}, own: ownNarrow, show: showChanged,
			flags: map[string]string{"permissions": "permission", "restrictions": hiddenFlag, "expires_in": hiddenFlag, "expires_at": hiddenFlag},
			note:  "A list given here replaces the one before and may only be shorter. More rights: `unstuck keys widen`; more time: `unstuck keys extend`.",
			like:  []string{`keys narrow a1b2c3d4 --remove cues:write`, `keys narrow "n8n workflow X" --only-cue nightly-report --at-most 30`, `keys narrow a1b2c3d4 --name "HubSpot sync"`},
		},
		"key.widen": {
			own: ownWiden, show: showChanged,
			flags: map[string]string{"add_permissions": "add", "add_to": hiddenFlag, "drop_restrictions": hiddenFlag},
			like:  []string{"keys widen c0ffee12 --add cues:write", "keys widen 5e0d9c71 --add-address 203.0.113.7/32", `keys widen 5e0d9c71 --drop cues --reason "new cues weekly"`},
		},
		"key.extend": {
			show: showChanged, flags: map[string]string{"expires_in": "by", "expires_at": "until"},
			like: []string{`keys extend 4f9a0c33 --by 7d --reason "3 a.m."`, "keys extend 4f9a0c33 --until 2027-12-31"},
		},
		"key.rotate": {own: ownRotate, done: keepLogin, show: showRotated, flags: ends,
			like: []string{`keys rotate "report worker"`, `keys rotate "report worker" --watch`, "keys rotate e81f4c2a --reason leaked", "keys rotate e81f4c2a --finish"}},
		"key.revoke":          {own: ownRevoke, ready: (*run).countBelow, ask: askRevoke, show: showRevoked, like: []string{`keys revoke "laptop agent"`, "keys revoke c0ffee12 --reason leaked --yes", "keys revoke self"}},
		"key.access":          accessWording(),
		"key.preview":         previewWording(),
		"key.activity":        {show: showActivity},
		"key.verify":          verifyWording(),
		"key.authorize":       {hidden: true, refs: map[string]object{"cue": aCue}},
		"personal_key.create": {hidden: true},
		"personal_key.list":   {hidden: true},
		"scope.list":          {show: showScopes},
	}
}

// ownEnd adds --expires, which takes a length of time or a moment.
func ownEnd(fs *pflag.FlagSet, help string) func(*run) {
	expires := fs.String("expires", "", help)
	return func(r *run) {
		switch {
		case *expires == "":
		case isMoment(*expires):
			r.in["expires_at"] = *expires
		default:
			r.in["expires_in"] = *expires
		}
	}
}

// isMoment says that a text begins with a date.
func isMoment(s string) bool {
	if len(s) < len(time.DateOnly) {
		return false
	}
	_, err := time.Parse(time.DateOnly, s[:len(time.DateOnly)])
	return err == nil
}

// ownRestrictions adds the flags --only-… and what puts them into the field "restrictions".
func ownRestrictions(fs *pflag.FlagSet) func(*run) {
	lists := map[string]*[]string{}
	for _, k := range restrictionKinds {
		if k.flag != "" {
			lists[k.wire] = fs.StringSlice(k.only, []string{}, map[string]string{
				"cues": "only these cues: ids, names, or beginnings like crm-*", "ips": "only from these addresses or networks",
				"via": "only via rest or mcp", "worker_ids": "only as these workers",
			}[k.wire])
		}
	}
	rate := fs.Int64("at-most", 0, "at most so many calls a minute")
	notBefore := fs.String("not-before", "", "only from this moment on")
	return func(r *run) {
		rules := map[string]any{}
		for _, k := range restrictionKinds {
			if k.flag != "" && fs.Changed(k.only) { // an empty list too: the server refuses it, so that it never means "no restriction"
				rules[k.wire] = *lists[k.wire]
			}
		}
		if fs.Changed("at-most") {
			rules["rate_per_minute"] = *rate
		}
		if *notBefore != "" {
			rules["not_before"] = *notBefore
		}
		r.warnNoCues(*lists["cues"])
		if len(rules) > 0 {
			r.in["restrictions"] = rules
		}
	}
}

func ownCreate(fs *pflag.FlagSet) func(*run) error {
	only := ownRestrictions(fs)
	end := ownEnd(fs, "never, 30d, 90d, 1y, another length of time, or a date (default 1y)")
	personal := fs.Bool("personal", false, "a key of your own, which ends with your membership")
	return func(r *run) error {
		only(r)
		end(r)
		if *personal {
			r.op = r.set.Lookup("personal_key.create")
		}
		if r.in["scope"] == nil && r.in["permissions"] == nil {
			r.in["scope"] = "read-only"
		}
		return nil
	}
}

// handOver prints a new secret: the secret alone to stdout, the talk to stderr. On a terminal the secret stands on a line of its
// own, so that a double click takes it whole.
func (r *run) handOver(secret string, talk ...string) {
	for _, line := range talk {
		r.say("%s", line)
	}
	fmt.Fprintln(r.Stdout, secret)
}

// shownOnce is the sentence about where the key went.
func (r *run) shownOnce() string {
	if r.StdoutTTY {
		return "This is the key, shown this once; only a hash is kept:"
	}
	return "The key went to standard output, this once."
}

func showCreated(r *run, a *answer) error {
	k, err := decode[keyView](a)
	if err != nil {
		return err
	}
	what := "key"
	if k.Kind == "personal" {
		what = "personal key"
	}
	talk := []string{fmt.Sprintf("Created %s %s  %s  %s, %s", what, k.Name, k.Redacted, scopeWords(k.Scope), r.until(&k))}
	can, cannot := r.scopeSentences(&k)
	if can != "" {
		talk = append(talk, "  It can     "+can)
	}
	if only := r.ruleWords(k.Restrictions); only != "" {
		talk = append(talk, "  Only       "+only)
	}
	talk = append(talk, "  It cannot  "+cannot+". All of it: unstuck keys access "+k.lastEight())
	if k.ParentID != nil {
		talk = append(talk, "  Child of   "+*k.ParentID+": it can never do more, and stops with it")
	}
	if k.Warning != "" {
		talk = append(talk, "  Note       "+k.Warning)
	}
	r.handOver(k.Secret, append(talk, r.shownOnce())...)
	return nil
}

type scopeList struct {
	Scopes []struct {
		Name        string   `json:"name"`
		Can         string   `json:"can"`
		Cannot      string   `json:"cannot"`
		Permissions []string `json:"permissions"`
		SameAs      *string  `json:"same_as"`
	} `json:"scopes"`
	Permissions []struct {
		Name   string   `json:"name"`
		Words  string   `json:"words"`
		Scopes []string `json:"scopes"`
	} `json:"permissions"`
}

// scopeSentences say what a key can and cannot do: those of its scope, or, for a custom or a narrowed one, its permissions in words. When the
// server does not tell, the key was made all the same, and the sentences stay out.
func (r *run) scopeSentences(k *keyView) (can, cannot string) {
	list, err := get[scopeList](r.ctx, r.door, "scope.list", nil)
	if err != nil {
		return strings.Join(k.Permissions, ", "), "anything else"
	}
	for _, s := range list.Scopes {
		if s.Name == k.Scope && len(k.NarrowedBy) == 0 {
			return s.Can, s.Cannot
		}
	}
	var words []string
	for _, p := range list.Permissions {
		if slices.Contains(k.Permissions, p.Name) {
			words = append(words, p.Words)
		}
	}
	return strings.Join(words, "; "), "anything else"
}

func showScopes(r *run, a *answer) error {
	list, err := decode[scopeList](a)
	if err != nil {
		return err
	}
	for _, s := range list.Scopes {
		r.print("%s", s.Name)
		r.print("  It can     %s", s.Can)
		r.print("  It cannot  %s", s.Cannot)
		if s.SameAs != nil {
			r.print("  Today the same as %s", *s.SameAs)
		}
	}
	t := newTable("PERMISSION", "A KEY WITH IT CAN", "SCOPES, SMALLEST FIRST")
	for _, p := range list.Permissions {
		t.add(p.Name, p.Words, strings.Join(p.Scopes, ", "))
	}
	r.print("\n%s", strings.TrimSuffix(t.String(), "\n"))
	return nil
}

func showKey(r *run, a *answer) error {
	k, err := decode[keyView](a)
	if err != nil {
		return err
	}
	r.print("%s  %s · %s · %s", k.Name, k.Redacted, k.Scope, r.standing(k.Status, k.ExpiresAt))
	t := newTable()
	t.add("id", k.ID)
	t.add("kind", k.Kind)
	t.add("permissions", strings.Join(k.Permissions, ", "))
	for _, l := range r.ruleLines(k.Restrictions) {
		t.add("only "+l[0], l[1])
	}
	t.add("created", r.date(k.CreatedAt)+" by "+k.CreatedBy.Name)
	if k.Member.ID != k.CreatedBy.ID {
		t.add("belongs to", k.Member.Name)
	}
	if k.ParentID != nil {
		t.add("child of", *k.ParentID)
	}
	if len(k.NarrowedBy) > 0 {
		t.add("narrowed by", strings.Join(k.NarrowedBy, ", "))
	}
	if k.RevokedAt != nil && k.RevokedBy != nil {
		t.add("revoked", r.moment(*k.RevokedAt)+" by "+k.RevokedBy.Name)
	}
	t.add("last used", r.lastUse(k.LastUsed, k.LastUsedAt))
	if k.Stale {
		t.add("stale", "not used for 90 days")
	}
	if k.rotating() {
		for _, s := range k.Secrets {
			state := s.State
			if s.EndsAt != nil {
				state += " until " + r.moment(*s.EndsAt)
			}
			t.add("secret", s.Redacted+"  "+state+"  "+r.lastUse(s.LastUsed, s.LastUsedAt))
		}
	}
	r.print("%s", strings.TrimSuffix(t.String(), "\n"))
	return nil
}

// lastUse is a last use in full: when, by what, from where, and what for.
func (d *door) lastUse(l *lastUsed, at *time.Time) string {
	switch {
	case at == nil:
		return "never"
	case l == nil:
		return d.ago(*at)
	}
	text := d.ago(*at) + ", " + l.door()
	for _, more := range [...]string{l.IP, l.UserAgent} {
		if more != "" {
			text += ", " + more
		}
	}
	return text + ": " + d.didWhat(l)
}

// didWhat is what a last use was for, in words: "create a cue, refused".
func (d *door) didWhat(l *lastUsed) string {
	what := l.Operation
	if o := d.set.Lookup(l.Operation); o != nil {
		what = lowerFirst(o.Summary())
	}
	switch l.Code {
	case "":
		return what
	case "insufficient_scope", "key_restricted", "members_only", "key_handed_over", "rate_limit_exceeded":
		return what + ", refused"
	}
	return what + ", failed"
}

func ownNarrow(fs *pflag.FlagSet) func(*run) error {
	only := ownRestrictions(fs)
	end := ownEnd(fs, "an earlier end: a length of time from now, or a date")
	remove := fs.StringSlice("remove", nil, "permissions that it loses")
	return func(r *run) error {
		only(r)
		end(r)
		if len(*remove) == 0 {
			return nil
		}
		if err := r.resolveAll(); err != nil {
			return err
		}
		k, err := get[keyView](r.ctx, r.door, "key.get", inputs{"id": r.in["id"]})
		if err != nil {
			return r.refused(err)
		}
		left := slices.DeleteFunc(k.Permissions, func(p string) bool { return slices.Contains(*remove, p) })
		if len(left) == 0 {
			return usage("Nothing would be left. To end the key: unstuck keys revoke %s", k.lastEight())
		}
		r.in["permissions"] = left
		return nil
	}
}

func ownWiden(fs *pflag.FlagSet) func(*run) error {
	lists := map[string]*[]string{}
	var words []string
	for _, k := range restrictionKinds {
		words = append(words, k.drop)
		if k.flag != "" {
			lists[k.wire] = fs.StringSlice("add-"+k.flag, []string{}, map[string]string{
				"cues": "cues that it may touch besides", "ips": "addresses or networks that it may come from besides", "via": "ways in that it may take besides", "worker_ids": "workers that it may act as besides",
			}[k.wire])
		}
	}
	drop := fs.StringSlice("drop", nil, "restrictions that are lifted: "+strings.Join(words, ", "))
	return func(r *run) error {
		add := map[string]any{}
		for _, k := range restrictionKinds {
			if k.flag != "" && fs.Changed("add-"+k.flag) {
				add[k.wire] = *lists[k.wire]
			}
		}
		r.warnNoCues(*lists["cues"])
		if len(add) > 0 {
			r.in["add_to"] = add
		}
		var dropped []string
		for _, word := range *drop {
			i := slices.IndexFunc(restrictionKinds[:], func(k restrictionKind) bool { return k.drop == word || k.wire == word })
			if i < 0 {
				return usage("--drop takes %s, not %q.", strings.Join(words, ", "), word)
			}
			dropped = append(dropped, restrictionKinds[i].wire)
		}
		if dropped != nil {
			r.in["drop_restrictions"] = dropped
		}
		return nil
	}
}

// showChanged says what a key is now.
func showChanged(r *run, a *answer) error {
	k, err := decode[keyView](a)
	if err != nil {
		return err
	}
	done := map[string]string{"key.update": "Changed", "key.widen": "Widened", "key.extend": "Extended"}[r.op.Name]
	r.print("%s %s  %s  %s, %s", done, k.Name, k.Redacted, scopeWords(k.Scope), r.until(&k))
	r.print("  Permissions  %s", strings.Join(k.Permissions, ", "))
	if only := r.ruleWords(k.Restrictions); only != "" {
		r.print("  Only         %s", only)
	}
	r.caution(k.Warning)
	return nil
}

// caution says what follows from a change that nobody asked for; "" is nothing.
func (r *run) caution(text string) {
	if text != "" {
		r.say("\nNote: %s", text)
	}
}

// ownRevoke knows the key in use by its digits: a key that may look at nothing, or not from here, may still end itself.
func ownRevoke(*pflag.FlagSet) func(*run) error {
	return func(r *run) error {
		c, err := r.client()
		if err != nil || c.key == "" {
			return err
		}
		text, _ := r.in["id"].(string)
		if m := redactedEnd.FindStringSubmatch(text); m != nil {
			text = m[1]
		}
		if hexEnd.MatchString(text) && text == lastEight(c.key) {
			r.in["id"] = itself
		}
		return nil
	}
}

// itself stands for the key in use where a key is named.
const itself = "self"

var hexEnd = regexp.MustCompile(`^[0-9a-f]{8}$`)

func askRevoke(r *run) (string, error) {
	id, _ := r.in["id"].(string)
	var k keyView
	err, no := error(nil), (*refusal)(nil)
	if id != itself {
		k, err = get[keyView](r.ctx, r.door, "key.get", inputs{"id": id})
	}
	if id == itself || errors.As(err, &no) && no.Status == 403 { // a key that may not look may still end itself
		k, err = get[keyView](r.ctx, r.door, "key.self", nil)
		if id == itself && errors.As(err, &no) && (no.Status == 403 || no.Status == 429) {
			return "The key that you are using now stops working at once, everywhere, for good.", nil
		}
		id = k.ID
	}
	if err != nil {
		return "", r.refused(err)
	}
	text := fmt.Sprintf("%s  %s stops working at once, everywhere, for good.", k.Name, k.Redacted)
	if k.LastUsedAt != nil {
		text += fmt.Sprintf(" It was used %s by %s.", r.ago(*k.LastUsedAt), k.LastUsed.program())
	}
	if self, err := get[keyView](r.ctx, r.door, "key.self", nil); err == nil && self.ID == id {
		text += " It is the key that you are using now."
	}
	if r.below > 0 {
		text += " " + plural(r.below, "child key stops as well.", "child keys stop as well.")
	}
	return text, nil
}

func showRevoked(r *run, a *answer) error {
	k, err := decode[keyView](a)
	if err != nil {
		return err
	}
	use := "It was never used."
	if k.LastUsedAt != nil {
		use = fmt.Sprintf("Last use: %s (%s).", r.ago(*k.LastUsedAt), r.didWhat(k.LastUsed))
		if k.LastUsed == nil {
			use = fmt.Sprintf("Last use: %s.", r.ago(*k.LastUsedAt))
		}
	}
	at := r.Now()
	if k.RevokedAt != nil {
		at = *k.RevokedAt
	}
	if r.below > 0 {
		use += " " + plural(r.below, "child key stopped with it.", "child keys stopped with it.")
	}
	r.print("Revoked %s  %s at %s UTC, for good. %s", k.Name, k.Redacted, r.clock(at), use)
	r.caution(k.Warning)
	return nil
}

func showActivity(r *run, a *answer) error {
	list, err := decode[struct {
		Activity []struct {
			Hour      time.Time `json:"hour"`
			Operation string    `json:"operation"`
			IP        string    `json:"ip"`
			Result    string    `json:"result"`
			Count     int64     `json:"count"`
		} `json:"activity"`
	}](a)
	if err != nil {
		return err
	}
	if len(list.Activity) == 0 {
		r.print("No calls.")
		return nil
	}
	t := newTable("HOUR ("+r.Zone.String()+")", "OPERATION", "FROM", "RESULT", "CALLS")
	for _, row := range list.Activity {
		t.add(row.Hour.In(r.Zone).Format("2 Jan 15:00"), row.Operation, firstOf(row.IP, "–"), row.Result, fmt.Sprint(row.Count))
	}
	r.print("%s", strings.TrimSuffix(t.String(), "\n"))
	return nil
}

// verifyWording reads the key to verify from stdin: a command line can be seen by others.
func verifyWording() wording {
	return wording{
		args: []string{"permission"}, flags: map[string]string{"key": hiddenFlag, "ip": "from"}, refs: map[string]object{"cue": aCue},
		note: "The key to verify is read from standard input, or asked for.",
		like: []string{"keys verify cues:fire <presented.txt"},
		own: func(*pflag.FlagSet) func(*run) error {
			return func(r *run) error {
				secret, err := r.askSecret("Key     (paste it; it is not shown) ")
				r.in["key"] = secret
				return err
			}
		},
		show: func(r *run, a *answer) error {
			v, err := decode[struct {
				Valid       bool            `json:"valid"`
				Code        string          `json:"code"`
				KeyID       *string         `json:"key_id"`
				Permissions json.RawMessage `json:"permissions"`
			}](a)
			if err != nil {
				return err
			}
			if v.Valid {
				r.print("Valid: key %s may do that.", *v.KeyID)
				return nil
			}
			r.print("Not valid: %s (%s).", notValid(v.Code), v.Code)
			return exitWith(exitRefused)
		},
	}
}

// notValid says why a key of somebody else is not good for something.
func notValid(code string) string {
	switch code {
	case "invalid_api_key":
		return "it is no key of this workspace"
	case "key_revoked":
		return "it was revoked"
	case "key_expired":
		return "it has expired"
	case "key_rotated":
		return "it has a newer secret"
	case "insufficient_scope":
		return "it lacks the permission"
	case "key_restricted":
		return "one of its restrictions is not met"
	case "rate_limit_exceeded":
		return "it made too many calls"
	}
	return "it was refused"
}

// askSecret reads a secret: without echo from a terminal, else a line from stdin.
func (d *door) askSecret(prompt string) (string, error) {
	if !d.StdinTTY {
		d.say("%s", strings.TrimSpace(prompt))
		line, err := d.readLine()
		if err != nil || line == "" {
			return "", usage("Nothing came on standard input; a key was expected.")
		}
		return line, nil
	}
	fmt.Fprint(d.Stderr, prompt)
	line, err := d.ReadSecret()
	fmt.Fprintln(d.Stderr)
	if err != nil {
		return "", fmt.Errorf("read the key: %w", err)
	}
	if line = strings.TrimSpace(line); line == "" {
		return "", usage("Nothing was pasted; a key was expected.")
	}
	return line, nil
}
