package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// keyView is what the command line reads of a key.
type keyView struct {
	ID           string       `json:"id"`
	Name         string       `json:"name"`
	Redacted     string       `json:"redacted"`
	Kind         string       `json:"kind"`
	Scope        string       `json:"scope"`
	Permissions  []string     `json:"permissions"`
	Restrictions *rules       `json:"restrictions"`
	Status       string       `json:"status"`
	Secrets      []secretView `json:"secrets"`
	EndedSecrets []string     `json:"ended_secrets"` // redacted
	CreatedAt    time.Time    `json:"created_at"`
	CreatedBy    actor        `json:"created_by"`
	LastUsedAt   *time.Time   `json:"last_used_at"`
	LastUsed     *lastUsed    `json:"last_used"`
	ExpiresAt    *time.Time   `json:"expires_at"`
	RevokedAt    *time.Time   `json:"revoked_at"`
	RevokedBy    *actor       `json:"revoked_by"`
	ParentID     *string      `json:"parent_id"`
	NarrowedBy   []string     `json:"narrowed_by"`
	Member       actor        `json:"member"`
	Stale        bool         `json:"stale"`

	Secret      string `json:"key"`          // only in the answer that makes one
	Warning     string `json:"warning"`      // of a create, a change or an end
	LastProgram string `json:"last_program"` // of a key about which somebody decides because a member leaves
	Reason      string `json:"reason"`       // why that is
}

type actor struct{ ID, Name string }

// short is a person without the address's host, or the name of a key.
func (a actor) short() string { return before(a.Name, "@") }

func before(s, mark string) string { s, _, _ = strings.Cut(s, mark); return s }

type secretView struct {
	Redacted   string     `json:"redacted"`
	State      string     `json:"state"`
	CreatedAt  time.Time  `json:"created_at"`
	EndsAt     *time.Time `json:"ends_at"`
	LastUsedAt *time.Time `json:"last_used_at"`
	LastUsed   *lastUsed  `json:"last_used"`
}

type lastUsed struct {
	Operation string `json:"operation"`
	Via       string `json:"door"`
	IP        string `json:"ip"`
	UserAgent string `json:"user_agent"`
	Code      string `json:"code"`
}

// rules are the restrictions of a key.
type rules struct {
	Cues          []string   `json:"cues"`
	IPs           []string   `json:"ips"`
	Via           []string   `json:"via"`
	NotBefore     *time.Time `json:"not_before"`
	RatePerMinute int64      `json:"rate_per_minute"`
	WorkerIDs     []string   `json:"worker_ids"`
}

// restrictionKind is one kind of restriction in the words of the command line.
type restrictionKind struct {
	wire  string
	only  string // flag that sets it: --only-cue
	flag  string // flag that adds entries: --add-cue; "" when it is no list
	drop  string // word for --drop
	label string // in a text: "for cues"
}

var restrictionKinds = [...]restrictionKind{
	{"cues", "only-cue", "cue", "cues", "for cues"},
	{"ips", "only-address", "address", "addresses", "from"},
	{"via", "only-via", "via", "via", "via"},
	{"rate_per_minute", "at-most", "", "at-most", "at most"},
	{"not_before", "not-before", "", "not-before", "not before"},
	{"worker_ids", "only-worker", "worker", "workers", "as worker"},
}

// restrictionFlag is the word for --drop.
func restrictionFlag(wire string) string {
	for _, k := range restrictionKinds {
		if k.wire == wire {
			return k.drop
		}
	}
	return wire
}

// ruleLines are the restrictions that are present, each as a label and a text.
func (d *door) ruleLines(r *rules) [][2]string {
	if r == nil {
		return nil
	}
	var out [][2]string
	add := func(present bool, kind, text string) {
		for _, k := range restrictionKinds {
			if present && k.wire == kind {
				out = append(out, [2]string{k.label, text})
			}
		}
	}
	add(r.Cues != nil, "cues", firstOf(strings.Join(r.Cues, ", "), "none"))
	add(r.IPs != nil, "ips", firstOf(strings.Join(r.IPs, ", "), "none"))
	add(r.Via != nil, "via", firstOf(strings.ToUpper(strings.Join(r.Via, ", ")), "none"))
	add(r.RatePerMinute != 0, "rate_per_minute", fmt.Sprintf("%d calls a minute", r.RatePerMinute))
	if r.NotBefore != nil {
		add(true, "not_before", d.moment(*r.NotBefore))
	}
	add(r.WorkerIDs != nil, "worker_ids", firstOf(strings.Join(r.WorkerIDs, ", "), "none"))
	return out
}

// ruleWords are the restrictions in one line; "" when there are none.
func (d *door) ruleWords(r *rules) string {
	var parts []string
	for _, l := range d.ruleLines(r) {
		parts = append(parts, l[0]+" "+l[1])
	}
	return strings.Join(parts, "; ")
}

// lastEight are the public digits of the secret in use.
func (k *keyView) lastEight() string { return lastEight(k.Redacted) }

// count is how many kinds of restrictions there are.
func (r *rules) count() (n int) {
	if r == nil {
		return 0
	}
	for _, has := range [...]bool{r.Cues != nil, r.IPs != nil, r.Via != nil, r.NotBefore != nil, r.RatePerMinute != 0, r.WorkerIDs != nil} {
		if has {
			n++
		}
	}
	return n
}

// secret is the secret in a state ("current", "pending", "old"); nil when there is none.
func (k *keyView) secret(state string) *secretView {
	for i := range k.Secrets {
		if k.Secrets[i].State == state {
			return &k.Secrets[i]
		}
	}
	return nil
}

// rotating says that two secrets work.
func (k *keyView) rotating() bool { return k.Status == "active" && len(k.Secrets) > 1 }

// until is how long a key works: "until 22 Nov 2027" or "never expires".
func (d *door) until(k *keyView) string {
	switch {
	case k.Status == "revoked":
		return "ended for good"
	case k.ExpiresAt == nil:
		return "never expires"
	case d.Now().After(*k.ExpiresAt):
		return "expired " + d.end(*k.ExpiresAt)
	}
	return "until " + d.end(*k.ExpiresAt)
}

// standing is the status of a key and how long it works: "active until 4 Nov 2027".
func (d *door) standing(status string, expires *time.Time) string {
	switch {
	case status == "revoked":
		return status
	case expires == nil:
		return status + ", never expires"
	case status == "expired":
		return status + " " + d.end(*expires)
	}
	return status + " until " + d.end(*expires)
}

// program is who used a secret, as people recognise it: the first word of the user agent, or the address.
func (l *lastUsed) program() string {
	if l == nil {
		return "somebody"
	}
	return firstOf(before(l.UserAgent, " "), l.IP, "somebody")
}

// door is the way in of a last use, as screens write it.
func (l *lastUsed) door() string {
	if l == nil {
		return ""
	}
	if l.Via == "verify" { // shown to another service, which asked
		return l.Via
	}
	return strings.ToUpper(l.Via)
}

type keyPage struct {
	Keys []keyView `json:"keys"`
	Next *string   `json:"next"`
}

// allKeys reads all pages of the list of keys.
func (d *door) allKeys(ctx context.Context, filter inputs) ([]keyView, error) {
	filter["limit"] = int64(1000)
	var out []keyView
	for {
		page, err := get[keyPage](ctx, d, "key.list", filter)
		if err != nil {
			return nil, err
		}
		out = append(out, page.Keys...)
		if page.Next == nil {
			return out, nil
		}
		filter["cursor"] = *page.Next
	}
}

const month = 30 * 24 * time.Hour

// attention is why somebody should look at a key, as the server found out.
type attention struct {
	KeyID    string     `json:"key_id"`
	Name     string     `json:"name"`
	Redacted string     `json:"redacted"`
	Reason   string     `json:"reason"`
	At       *time.Time `json:"at"`
	Count    int        `json:"count"`
	From     []string   `json:"from"`
	Scope    string     `json:"scope"`
}

type attentionList struct {
	Keys []attention `json:"keys"`
}

// words say why, and which command mends it. k is the key, as far as it is known.
func (d *door) attentionWords(a attention, k *keyView) (why, mend string) {
	digits, now := lastEight(a.Redacted), d.Now()
	at := now
	if a.At != nil {
		at = *a.At
	}
	switch a.Reason {
	case "expired_still_tried":
		why = "expired " + d.ago(at) + " and is still tried: " + plural(a.Count, "refused call", "refused calls")
		if now.Sub(at) < month {
			return why, "unstuck keys extend " + digits + " --by 1y"
		}
		return why, k.createLike(a.Name) // nothing revives it
	case "expiring":
		return "expires in " + span(at.Sub(now)) + " and is in use", "unstuck keys rotate " + digits + " --expires 1y"
	case "old_secret_used":
		return strings.Join(a.From, ", ") + " still uses the old secret", "unstuck keys get " + digits
	case "stale":
		return "not used for " + span(now.Sub(at)), "unstuck keys revoke " + digits
	case "never_expires":
		return "never expires and is older than a year", "unstuck keys rotate " + digits + " --expires 1y"
	case "several_programs":
		return "used from " + strings.Join(a.From, " and ") + " at once: one key per program", k.createLike(a.Name + " 2")
	case "wider_than_used":
		return "full, and in 90 days it needed no more than " + a.Scope, "unstuck keys narrow " + digits + " --scope " + a.Scope
	}
	return a.Reason, "unstuck keys get " + digits
}

// createLike is the command that makes another key with the rights of this one.
func (k *keyView) createLike(name string) string {
	cmd := "unstuck keys create " + shellWord(name)
	if k == nil {
		return cmd
	}
	if cmd += " --scope " + k.Scope; k.Scope == "custom" {
		cmd = strings.TrimSuffix(cmd, " --scope custom") + " --permission " + strings.Join(k.Permissions, ",")
	}
	r := k.Restrictions
	if r == nil {
		return cmd
	}
	for i, list := range [...][]string{r.Cues, r.IPs, r.Via, r.WorkerIDs} {
		if list != nil {
			cmd += [...]string{" --only-cue ", " --only-address ", " --only-via ", " --only-worker "}[i] + shellWord(strings.Join(list, ","))
		}
	}
	if r.RatePerMinute != 0 {
		cmd += fmt.Sprintf(" --at-most %d", r.RatePerMinute)
	}
	return cmd
}

// UnmarshalJSON makes the name in what the server answered fit for printing: each on one line, whatever it was made of.
func (k *keyView) UnmarshalJSON(b []byte) error {
	type plain keyView
	err := json.Unmarshal(b, (*plain)(k))
	k.Name = nameLine(k.Name)
	return err
}

func (a *actor) UnmarshalJSON(b []byte) error {
	type plain actor
	err := json.Unmarshal(b, (*plain)(a))
	a.Name = nameLine(a.Name)
	return err
}

func (k *keyBrief) UnmarshalJSON(b []byte) error {
	type plain keyBrief
	err := json.Unmarshal(b, (*plain)(k))
	k.Name = nameLine(k.Name)
	return err
}

func (a *attention) UnmarshalJSON(b []byte) error {
	type plain attention
	err := json.Unmarshal(b, (*plain)(a))
	a.Name = nameLine(a.Name)
	return err
}

// nameLine is a name on one line, and safe for a terminal.
func nameLine(s string) string { return clean(strings.ReplaceAll(s, "\n", "\uFFFD")) }

// moment is a moment to the second in the viewer's zone, which it names.
func (d *door) moment(t time.Time) string {
	return d.timesIn([]time.Time{t.Truncate(time.Second)}, d.Zone) + " " + d.Zone.String()
}
