package cli

import (
	"context"
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
	Warning     string `json:"warning"`      // of a create
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

// lines are the restrictions that are present, each as a label and a text.
func (r *rules) lines() [][2]string {
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
	add(r.Cues != nil, "cues", strings.Join(r.Cues, ", "))
	add(r.IPs != nil, "ips", strings.Join(r.IPs, ", "))
	add(r.Via != nil, "via", strings.ToUpper(strings.Join(r.Via, ", ")))
	add(r.RatePerMinute != 0, "rate_per_minute", fmt.Sprintf("%d calls a minute", r.RatePerMinute))
	if r.NotBefore != nil {
		add(true, "not_before", r.NotBefore.UTC().Format("2 Jan 2006 15:04 UTC"))
	}
	add(r.WorkerIDs != nil, "worker_ids", strings.Join(r.WorkerIDs, ", "))
	return out
}

// words are the restrictions in one line; "" when there are none.
func (r *rules) words() string {
	var parts []string
	for _, l := range r.lines() {
		parts = append(parts, l[0]+" "+l[1])
	}
	return strings.Join(parts, "; ")
}

// lastEight are the public digits of the secret in use.
func (k *keyView) lastEight() string { return lastEight(k.Redacted) }

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

// inUse says that the key was used in the last 30 days.
func (k *keyView) inUse(now time.Time) bool {
	return k.LastUsedAt != nil && now.Sub(*k.LastUsedAt) < 30*24*time.Hour
}

// until is how long a key works: "until 22 Nov 2027" or "never expires".
func (d *door) until(k *keyView) string {
	switch {
	case k.Status == "revoked":
		return "ended for good"
	case k.ExpiresAt == nil:
		return "never expires"
	case d.Now().After(*k.ExpiresAt):
		return "expired " + d.date(*k.ExpiresAt)
	}
	return "until " + d.date(*k.ExpiresAt)
}

// standing is the status of a key and how long it works: "active until 4 Nov 2027".
func (d *door) standing(status string, expires *time.Time) string {
	switch {
	case status == "revoked":
		return status
	case expires == nil:
		return status + ", never expires"
	case status == "expired":
		return status + " " + d.date(*expires)
	}
	return status + " until " + d.date(*expires)
}

// program is who used a secret, as people recognise it: the first word of the user agent, or the address.
func (l *lastUsed) program() string {
	if l == nil {
		return "somebody"
	}
	return firstOf(before(l.UserAgent, " "), l.IP)
}

// door is the way in of a last use, as screens write it.
func (l *lastUsed) door() string {
	if l == nil {
		return ""
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

// attention is a key that somebody should look at: why, and the command that mends it.
type attention struct {
	key       *keyView
	why, mend string
}

const month = 30 * 24 * time.Hour

// needAttention finds them, the most urgent first: one that expires while it is in use, one whose old secret is still used, one
// that is not used, one that never expires.
func (d *door) needAttention(keys []keyView) []attention {
	var out []attention
	now := d.Now()
	for _, rule := range []func(k *keyView) (why, mend string){
		func(k *keyView) (string, string) {
			if k.ExpiresAt == nil || k.Status != "active" || k.ExpiresAt.Sub(now) > month || !k.inUse(now) {
				return "", ""
			}
			return "expires in " + span(k.ExpiresAt.Sub(now)) + " and is in use", "unstuck keys rotate " + k.lastEight() + " --expires 1y"
		},
		func(k *keyView) (string, string) {
			if k.Status != "expired" || k.LastUsedAt == nil || k.ExpiresAt == nil || k.ExpiresAt.Sub(*k.LastUsedAt) > month || now.Sub(*k.ExpiresAt) > month {
				return "", ""
			}
			return "expired " + d.ago(*k.ExpiresAt) + " and was in use", "unstuck keys extend " + k.lastEight() + " --by 1y"
		},
		func(k *keyView) (string, string) {
			old, fresh := k.secret("old"), k.secret("current")
			if !k.rotating() || old == nil || fresh == nil || old.LastUsedAt == nil || old.LastUsedAt.Before(fresh.CreatedAt) {
				return "", ""
			}
			return old.LastUsed.program() + " still uses the old secret", "unstuck keys get " + shellWord(k.Name)
		},
		func(k *keyView) (string, string) {
			if !k.Stale || k.Status != "active" {
				return "", ""
			}
			since := k.CreatedAt
			if k.LastUsedAt != nil {
				since = *k.LastUsedAt
			}
			return "not used for " + span(now.Sub(since)), "unstuck keys revoke " + k.lastEight()
		},
		func(k *keyView) (string, string) {
			if k.ExpiresAt != nil || k.Status != "active" || k.Stale || now.Sub(k.CreatedAt) < 12*month {
				return "", ""
			}
			return "never expires and is older than a year", "unstuck keys rotate " + k.lastEight()
		},
	} {
		for i := range keys {
			if why, mend := rule(&keys[i]); why != "" {
				out = append(out, attention{&keys[i], why, mend})
			}
		}
	}
	return out
}
