package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"unstuck/internal/op"
)

// accessView is what a key can and cannot do.
type accessView struct {
	Key       *keyBrief  `json:"key"`
	Status    string     `json:"status"`
	ExpiresAt *time.Time `json:"expires_at"`
	Can       []struct {
		Permission, Words string
	} `json:"can"`
	Cannot []cannotView `json:"cannot"`
	Only   []struct {
		Restriction string
		Values      json.RawMessage
		KeyID       string `json:"key_id"`
		Note        string
	} `json:"only"`
	NoKeyCan   []string      `json:"no_key_can"`
	Operations []verdictView `json:"operations"`
	Asked      *verdictView  `json:"asked"`
}

// cannotView is a permission that a key lacks, or that is of no use to it because of something else.
type cannotView struct {
	Permission, Words, Because string
	Scopes                     []string
}

// verdictView is what becomes of one operation.
type verdictView struct {
	Operation, Answer, Needs, Because string
	Within                            []string
}

// accessFlags are the flags of `keys access` and `keys preview`.
type accessFlags struct {
	can          string
	all, preview bool
	scope        string
	permissions  []string
}

func accessWording() wording {
	f := &accessFlags{}
	return wording{
		args: []string{"id?"},
		own: func(fs *pflag.FlagSet) func(*run) error {
			fs.StringVar(&f.can, "can", "", "one line about this operation, and exit code 0 or 4; with --cue and --from: about that cue, from that address")
			fs.BoolVar(&f.all, "all", false, "everything that it cannot do, and what becomes of every operation")
			fs.BoolVar(&f.preview, "preview", false, "for a key that does not exist yet: with --scope or --permission")
			return f.previewFlags(fs)
		},
		do: f.run,
		show: func(r *run, a *answer) error {
			return f.show(r, a)
		},
		flags: map[string]string{"operation": hiddenFlag, "ip": "from"},
		note:  "Without an argument: the key in use.",
		like: []string{`keys access "n8n workflow X"`, "keys access --can cue.delete", `keys access "n8n workflow X" --can cue.fire --cue nightly-report --from 10.0.4.7`,
			"keys access --preview --scope worker"},
	}
}

func previewWording() wording {
	f := &accessFlags{preview: true}
	return wording{
		own:  func(fs *pflag.FlagSet) func(*run) error { return f.previewFlags(fs) },
		do:   f.run,
		show: f.show, hidden: true, // `keys access --preview` says the same
		flags: map[string]string{"permissions": "permission", "restrictions": hiddenFlag, "operation": hiddenFlag, "ip": "from"},
	}
}

func (f *accessFlags) previewFlags(fs *pflag.FlagSet) func(*run) error {
	fs.StringVar(&f.scope, "scope", "", "a named scope")
	fs.StringSliceVar(&f.permissions, "permission", nil, "permissions instead of a named scope")
	only := ownRestrictions(fs)
	return func(r *run) error {
		if !f.preview {
			if f.scope != "" || f.permissions != nil {
				return usage("--scope and --permission go with --preview.")
			}
			return nil
		}
		if r.in["id"] != nil {
			return usage("--preview is about a key that does not exist yet, so it takes no KEY.")
		}
		r.op = r.set.Lookup("key.preview")
		only(r)
		if f.scope != "" {
			r.in["scope"] = f.scope
		}
		if f.permissions != nil {
			r.in["permissions"] = f.permissions
		}
		return nil
	}
}

// run asks about the key in use when no other is named.
func (f *accessFlags) run(r *run) error {
	if err := f.question(r); err != nil {
		return err
	}
	if r.op.Name == "key.access" && r.in["id"] == nil {
		self, err := get[keyView](r.ctx, r.door, "key.self", nil)
		if err != nil {
			return err
		}
		r.in["id"] = self.ID
	}
	if err := r.resolveAll(); err != nil {
		return err
	}
	a, err := r.call()
	if err != nil {
		return err
	}
	if f.can == "" {
		return r.render(a)
	}
	return f.one(r, a)
}

// question puts the operation of --can, which may be named as the command line calls it, into the inputs.
func (f *accessFlags) question(r *run) error {
	if f.can == "" { // the server refuses --cue and --from alone
		return nil
	}
	o := r.findOperation(f.can)
	if o == nil {
		return usage("There is no operation %q. Write it like cue.delete; unstuck keys access --all lists them.", f.can)
	}
	r.in["operation"] = o.Name
	return nil
}

// one answers about one operation in one line, and with the exit code.
func (f *accessFlags) one(r *run, a *answer) error {
	v, err := decode[accessView](a)
	if err != nil {
		return err
	}
	if v.Asked == nil {
		return fmt.Errorf("the server does not answer questions about one operation")
	}
	o, exit := r.set.Lookup(v.Asked.Operation), error(nil)
	text := "Yes: it can %s."
	switch {
	case v.Asked.Answer == "no":
		text, exit = "No: it cannot %s: "+v.Asked.Because+".", exitWith(exitRefused)
	case v.Asked.Answer == "only":
		because, within := v.Asked.Because, strings.Join(dropWords(v.Asked.Within), ", ")
		switch about := strings.HasPrefix(because, "about "); {
		case within != "" && about:
			because += " and within its restrictions (" + within + ")"
		case within != "":
			because = "within its restrictions (" + within + ")"
		}
		text = "Yes, but only " + because + ": it can %s."
	}
	if r.door.flags.json {
		return firstErr(r.raw(a), func() error { return exit })
	}
	r.print("%s", strings.Replace(text, "%s", lowerFirst(o.May), 1))
	return exit
}

// dropWords are kinds of restrictions as the command line calls them.
func dropWords(kinds []string) []string {
	out := make([]string, len(kinds))
	for i, kind := range kinds {
		out[i] = restrictionFlag(kind)
	}
	return out
}

// findOperation finds an operation by its name, "cue.delete", or by its command, "cues delete".
func (d *door) findOperation(text string) *op.Operation {
	if o := d.set.Lookup(text); o != nil {
		return o
	}
	noun, verb, _ := strings.Cut(text, " ")
	for _, o := range d.set.All() {
		w := d.words[o.Name]
		if d.nounOf(o, w) == noun && verbOf(o, w) == verb {
			return o
		}
	}
	return nil
}

const shownCannot = 6 // lines about what a key cannot do, without --all

func (f *accessFlags) show(r *run, a *answer) error {
	v, err := decode[accessView](a)
	if err != nil {
		return err
	}
	name := "--preview …"
	if v.Key != nil {
		r.print("%s  %s · %s · %s\n", v.Key.Name, v.Key.Redacted, v.Key.Scope, r.standing(v.Status, v.ExpiresAt))
		name = lastEight(v.Key.Redacted)
	} else {
		r.print("A key that does not exist yet\n")
	}
	can := newTable()
	for _, c := range v.Can {
		can.add("  "+c.Words, "  "+c.Permission)
	}
	if len(v.Can) == 0 {
		can.add("  nothing")
	}
	r.print("It can\n%s", can)
	f.showOnly(r, v)
	f.showCannot(r, v)
	if len(v.NoKeyCan) > 0 {
		r.print("No key can, whatever its scope\n%s\n", wrap(v.NoKeyCan, " · ", "  ", 118))
	}
	if f.all {
		t := newTable("OPERATION", "ANSWER", "NEEDS", "WHY")
		for _, o := range v.Operations {
			t.add(o.Operation, o.Answer, o.Needs, o.Because)
		}
		r.print("%s", t)
	}
	r.print("Asked in %.1f ms of the same function that decides every call.   One question: unstuck keys access %s --can cue.delete",
		float64(a.took.Microseconds())/1000, name)
	return nil
}

func (f *accessFlags) showOnly(r *run, v accessView) {
	if len(v.Only) == 0 {
		return
	}
	t := newTable()
	for _, o := range v.Only {
		label, text := o.Restriction, cell(o.Values)
		for _, k := range restrictionKinds {
			if k.wire == o.Restriction {
				label = k.label
			}
		}
		switch o.Restriction {
		case "rate_per_minute":
			text += " calls a minute"
		case "via":
			text = strings.ToUpper(text)
		case "not_before":
			var at time.Time
			if json.Unmarshal(o.Values, &at) == nil {
				text = r.moment(at)
			}
		}
		note := o.Note
		if v.Key != nil && o.KeyID != v.Key.ID {
			note = strings.TrimPrefix(note+"; narrowed by "+o.KeyID, "; ")
		}
		t.add("  "+label, "  "+text, "    "+note)
	}
	r.print("only\n%s", t)
}

func (f *accessFlags) showCannot(r *run, v accessView) {
	if len(v.Cannot) == 0 {
		return
	}
	slices.SortStableFunc(v.Cannot, func(a, b cannotView) int { return cmp.Compare(b.Because, a.Because) }) // what surprises comes first
	t := newTable("It cannot", "would need", "smallest scope")
	for i, c := range v.Cannot {
		if i == shownCannot && !f.all {
			break
		}
		smallest := "none"
		if len(c.Scopes) > 0 {
			smallest = c.Scopes[0]
		}
		if c.Because != "" { // it holds the permission
			t.add("  "+c.Words, c.Because)
			continue
		}
		t.add("  "+c.Words, c.Permission, smallest)
	}
	text := t.String()
	if more := len(v.Cannot) - shownCannot; more > 0 && !f.all {
		text += fmt.Sprintf("  … %d more: --all\n", more)
	}
	r.print("%s", text)
}
