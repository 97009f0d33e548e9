package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/pflag"
)

func keyListWording() wording {
	w := wording{
		flags: map[string]string{"kind": hiddenFlag, "parent_id": "children"},
		refs:  map[string]object{"parent_id": aKey, "made_by": aMember},
		like:  []string{"keys list --stale", "keys list --children a1b2c3d4", "keys list --made-by ana@example.com --wide"},
	}
	w.own = func(fs *pflag.FlagSet) func(*run) error {
		personal := fs.Bool("personal", false, "members' own keys instead of integration keys")
		wide := fs.Bool("wide", false, "all columns, whatever the width of the terminal")
		return func(r *run) error {
			if *wide {
				r.Width = 0
			}
			if *personal {
				r.in["kind"] = "personal"
			}
			return nil
		}
	}
	w.do = listKeys
	return w
}

// listKeys shows all keys that match. With --json, or a page asked for, it is one call.
func listKeys(r *run) error {
	if err := r.resolveAll(); err != nil {
		return err
	}
	_, limit := r.in["limit"]
	_, cursor := r.in["cursor"]
	_, asked := r.in["kind"]
	if r.door.flags.json || limit || cursor {
		a, err := r.call()
		if err != nil || r.door.flags.json {
			return firstErr(err, func() error { return r.raw(a) })
		}
		page, err := decode[keyPage](a)
		if err != nil {
			return err
		}
		r.showKeys(page.Keys, 0)
		if page.Next != nil {
			r.say("More: --cursor %s", *page.Next)
		}
		return nil
	}
	keys, err := r.allKeys(r.ctx, r.in)
	if err != nil {
		return r.refused(err)
	}
	all := len(keys)
	if !asked {
		keys = slices.DeleteFunc(keys, func(k keyView) bool { return k.Kind == "personal" })
	}
	r.showKeys(keys, all-len(keys))
	return nil
}

func firstErr(err error, next func() error) error {
	if err != nil {
		return err
	}
	return next()
}

// showKeys prints the list; hidden is how many personal keys are not shown.
func (r *run) showKeys(keys []keyView, hidden int) {
	if r.door.flags.quiet {
		for _, k := range keys {
			r.print("%s", k.ID)
		}
		return
	}
	notShown := ""
	if hidden > 0 {
		notShown = plural(hidden, "personal key", "personal keys") + " not shown (--personal)."
	}
	if len(keys) == 0 {
		r.print("%s", strings.TrimSpace("No keys. "+notShown))
		if hidden > 0 {
			r.print("Give each tool its own: unstuck keys create NAME --scope worker")
		}
		return
	}
	due := r.needAttention(r.ctx, keys)
	r.print("%s", strings.TrimSuffix(r.keyTable(keys, due), "\n"))
	r.print("")
	r.print("%s", strings.TrimSpace(r.keySummary(keys)+"  "+notShown))
	if len(due) == 0 {
		return
	}
	r.print("Needs attention")
	t := newTable()
	for _, a := range due {
		why, mend := r.attentionWords(a, attentionTo(keys, a))
		t.add("  "+a.Name, " "+why, "       "+mend)
	}
	r.print("%s", strings.TrimSuffix(t.String(), "\n"))
}

// attentionTo is the key that needs attention; nil when it is not in the list.
func attentionTo(keys []keyView, a attention) *keyView {
	if i := slices.IndexFunc(keys, func(k keyView) bool { return k.ID == a.KeyID }); i >= 0 {
		return &keys[i]
	}
	return nil
}

// needAttention asks which of these keys need attention. When that cannot be told, or this key may not ask, none is named: the keys
// themselves are shown all the same.
func (d *door) needAttention(ctx context.Context, keys []keyView) []attention {
	list, err := get[attentionList](ctx, d, "key.attention", nil)
	var no *refusal
	if err != nil && !(errors.As(err, &no) && no.Status == 403) {
		d.say("What needs attention could not be read: %v", err)
	}
	return slices.DeleteFunc(list.Keys, func(a attention) bool { return attentionTo(keys, a) == nil })
}

// showAttention prints every key that needs attention, personal ones too.
func showAttention(r *run, a *answer) error {
	list, err := decode[attentionList](a)
	if err != nil {
		return err
	}
	if len(list.Keys) == 0 {
		r.print("No key needs attention.")
		return nil
	}
	keys, err := r.allKeys(r.ctx, inputs{})
	if err != nil {
		return r.refused(err)
	}
	t := newTable()
	for _, a := range list.Keys {
		why, mend := r.attentionWords(a, attentionTo(keys, a))
		t.add(a.Name, why, mend)
	}
	r.print("%s", strings.TrimSuffix(t.String(), "\n"))
	return nil
}

// narrowBelow is the width under which the list of keys gives up columns.
const narrowBelow = 100

// keyTable has a row for each key, and one more for the old secret of a key that is rotating.
func (d *door) keyTable(keys []keyView, due []attention) string {
	narrow := d.Width > 0 && d.Width < narrowBelow
	t := newTable("NAME", "KEY", "SCOPE", "CREATED", "LAST USED", "EXPIRES", "STATUS")
	if narrow {
		t = newTable("NAME", "KEY", "SCOPE", "LAST USED", "EXPIRES", "STATUS")
	}
	add := func(name, redacted, scope, created, used, expires, status string) {
		if narrow {
			t.add(shorten(name, 20), "…_"+lastEight(redacted), scope, used, expires, status)
			return
		}
		t.add(name, redacted, scope, created, used, expires, status)
	}
	for i := range keys {
		k := &keys[i]
		add(k.Name, k.Redacted, d.scopeCell(k), d.day(k.CreatedAt)+", "+k.CreatedBy.short(), d.usedCell(k.LastUsed, k.LastUsedAt), d.expiryCell(k), d.statusCell(k, due))
		for _, s := range k.Secrets {
			if s.Redacted == k.Redacted || !k.rotating() {
				continue
			}
			scope, ends := "old secret", ""
			switch {
			case s.State == "pending":
				scope, ends = "new secret", "not used yet"
			case s.EndsAt != nil:
				ends = "until " + d.timesIn([]time.Time{s.EndsAt.Truncate(time.Minute)}, d.Zone)
			}
			add("", s.Redacted, scope, ends, d.usedCell(s.LastUsed, s.LastUsedAt), "", "")
		}
	}
	return t.String()
}

func (d *door) scopeCell(k *keyView) string {
	if n := k.Restrictions.count(); n > 0 {
		return fmt.Sprintf("%s +%d", k.Scope, n)
	}
	return k.Scope
}

func (d *door) usedCell(l *lastUsed, at *time.Time) string {
	if at == nil {
		return "–"
	}
	text := d.ago(*at)
	if d.Now().Sub(*at) < 60*24*time.Hour && l != nil {
		text += ", " + l.door()
	}
	return text
}

func (d *door) expiryCell(k *keyView) string {
	switch {
	case k.ExpiresAt == nil:
		return "never"
	case k.Status == "active" && k.ExpiresAt.Sub(d.Now()) < month:
		return "in " + span(k.ExpiresAt.Sub(d.Now()))
	}
	return d.end(*k.ExpiresAt)
}

func (d *door) statusCell(k *keyView, due []attention) string {
	switch {
	case k.Status == "revoked" && k.RevokedAt != nil && k.RevokedBy != nil:
		return "revoked " + d.day(*k.RevokedAt) + ", " + k.RevokedBy.short()
	case k.rotating():
		return k.Status + "  rotating"
	case k.Stale:
		return k.Status + "  stale"
	case slices.ContainsFunc(due, func(a attention) bool { return a.KeyID == k.ID && a.Reason == "expiring" }):
		return k.Status + "  expiring"
	}
	return k.Status
}

// keySummary counts the keys by status and explains the marks of the table.
func (d *door) keySummary(keys []keyView) string {
	var parts []string
	for _, status := range []string{"active", "pending", "expired", "revoked"} {
		n := 0
		for _, k := range keys {
			if k.Status == status {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, status))
		}
	}
	text := plural(len(keys), "key", "keys") + ": " + strings.Join(parts, ", ") + "."
	for _, k := range keys {
		if n := k.Restrictions.count(); n > 0 {
			word := "restrictions"
			if n == 1 {
				word = "restriction"
			}
			return text + fmt.Sprintf("  +%d = %s %s (unstuck keys get %s).", n, numeral(n), word, k.lastEight())
		}
	}
	return text
}

// wrap joins words with a separator into lines of at most `width` columns, each after an indent.
func wrap(words []string, separator, indent string, width int) string {
	var lines []string
	line := ""
	for i, w := range words {
		if i < len(words)-1 {
			w += separator
		}
		if line != "" && utf8.RuneCountInString(indent+line+w) > width+utf8.RuneCountInString(separator) {
			lines = append(lines, indent+strings.TrimRight(line, " "))
			line = ""
		}
		line += w
	}
	return strings.Join(append(lines, indent+line), "\n")
}
