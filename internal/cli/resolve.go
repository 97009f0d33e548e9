package cli

import (
	"context"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"unstuck/internal/op"
)

// resolveAll turns what names an object into its id: an id, a unique name, a unique beginning, and for keys their last eight
// digits or redacted form.
func (r *run) resolveAll() error {
	for _, f := range r.op.Fields() {
		text, ok := r.in[f.Name].(string)
		kind := r.word.refOf(r.op, f)
		if !ok || kind == noObject {
			continue
		}
		if strings.TrimSpace(text) == "" {
			return usage("%s is empty, which names nothing.", fieldWords(r.op, r.word, "."+f.Name))
		}
		m, err := r.find(r.ctx, kind, text)
		if err != nil {
			return r.refused(err)
		}
		if m.begins && !r.mayGuess(kind) {
			return usage("%q is only the beginning of %s. Name it whole, or by its id %s: this command does not guess.", text, m.name, m.id)
		}
		r.typed[f.Name] = firstOf(m.called, text)
		r.in[f.Name] = m.id
	}
	return nil
}

// mayGuess says whether the beginning of a name will do. It will not where the wrong object would lose or gain something: to end
// an object unasked, and to change a key.
func (r *run) mayGuess(kind object) bool {
	switch r.op.Effect {
	case op.Destroy:
		return r.asks() && !r.door.flags.yes
	case op.Write:
		return kind != aKey
	}
	return true
}

// find is the object that a text names. What is found nowhere stays as it is: the server says that it is not there.
func (d *door) find(ctx context.Context, kind object, text string) (match, error) {
	var found []match
	var err error
	switch kind {
	case aKey:
		found, err = d.findKeys(ctx, text)
	case aCue:
		found, err = d.findCues(ctx, text)
	case aMember:
		found, err = d.findMembers(ctx, text)
	case anExec:
		found, err = d.findExecutions(ctx, text)
	default:
		return match{id: text}, nil
	}
	var no *refusal
	if errors.As(err, &no) && no.Status == 403 { // this key may not look: the server decides about the text itself
		return match{id: text}, nil
	}
	switch {
	case err != nil:
		return match{}, err
	case len(found) == 0:
		return match{id: text}, nil
	case len(found) > 1:
		return match{}, ambiguous(kind, text, found)
	}
	return found[0], nil
}

// match is an object that a text may name.
type match struct {
	id, name string
	called   string // its name alone; "" when it was named by its id
	begins   bool   // the text is only the beginning of its name
}

// ambiguous refuses a text that names several objects.
func ambiguous(kind object, text string, found []match) error {
	var b strings.Builder
	for i, m := range found {
		if i == 5 {
			b.WriteString("\n  …")
			break
		}
		b.WriteString("\n  " + m.id + "  " + nameLine(m.name))
	}
	return usage("%q names %s. Say which, by its id:\n%s", text, plural(len(found), string(kind), string(kind)+"s"), b.String())
}

// best picks the matches of the best rank: 0 is exact, 1 a beginning; below 0 is none.
func best[T any](all []T, rank func(T) int, as func(T) match) []match {
	var out []match
	top := 2
	for _, v := range all {
		n := rank(v)
		if n < 0 || n > top {
			continue
		}
		if n < top {
			out, top = nil, n
		}
		m := as(v)
		m.begins = n > 0
		out = append(out, m)
	}
	return out
}

// rankOf compares a text with the names of an object.
func rankOf(text string, names ...string) int {
	rank := -1
	for _, n := range names {
		if n == text {
			return 0
		}
		if strings.HasPrefix(n, text) && text != "" {
			rank = 1
		}
	}
	return rank
}

var (
	keyIDForm   = regexp.MustCompile(`^key_[0-9a-z]{12}$`)
	cueIDForm   = regexp.MustCompile(`^cue_[0-9a-z]{12}$`)
	userIDForm  = regexp.MustCompile(`^usr_[0-9a-z]{12}$`)
	uuidForm    = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	uuidBegins  = regexp.MustCompile(`^[0-9a-f-]{4,36}$`)
	redactedEnd = regexp.MustCompile(`_\*\*\*_([0-9a-f]{8})$`)
)

// findKeys looks among the keys that the caller may list, or at the calling key itself when it may list none. A whole name comes
// before a beginning, whatever became of the key.
func (d *door) findKeys(ctx context.Context, text string) ([]match, error) {
	if keyIDForm.MatchString(text) {
		return []match{{id: text}}, nil
	}
	keys, err := d.allKeys(ctx, inputs{})
	var no *refusal
	if text == itself && (err == nil || errors.As(err, &no)) { // but a key may have this name
		found := []match{{id: itself, name: "the key in use"}}
		for _, k := range keys {
			if k.Name == itself && k.Status != "revoked" {
				found = append(found, match{id: k.ID, name: k.Name + "  " + k.Redacted})
			}
		}
		return found, nil
	}
	if errors.As(err, &no) && no.Status == 403 {
		self, err := get[keyView](ctx, d, "key.self", nil)
		if err != nil {
			return nil, err
		}
		keys = []keyView{self}
	} else if err != nil {
		return nil, err
	}
	if m := redactedEnd.FindStringSubmatch(text); m != nil {
		text = m[1]
	}
	found := best(keys, func(k keyView) int { return k.rank(text) }, func(k keyView) match {
		return match{id: k.ID, name: k.Name + "  " + k.Redacted, called: k.Name}
	})
	return living(found, keys), nil
}

// rank compares a text with what names a key.
func (k keyView) rank(text string) int {
	names := []string{k.ID, k.Name}
	for _, s := range k.Secrets {
		names = append(names, lastEight(s.Redacted))
	}
	return rankOf(text, names...)
}

// living leaves out keys that were revoked where one that was not has the same claim to the name.
func living(found []match, keys []keyView) []match {
	var out []match
	for _, m := range found {
		if !slices.ContainsFunc(keys, func(k keyView) bool { return k.ID == m.id && k.Status == "revoked" }) {
			out = append(out, m)
		}
	}
	if out == nil {
		return found
	}
	return out
}

// findCues asks the server for cues of this name, and failing that for those whose name begins so. A * is nothing special here.
func (d *door) findCues(ctx context.Context, text string) ([]match, error) {
	if cueIDForm.MatchString(text) {
		return []match{{id: text}}, nil
	}
	for _, beginning := range [...]bool{false, true} {
		pattern := text
		if beginning {
			pattern += "*"
		}
		page, err := get[cuePage](ctx, d, "cue.list", inputs{"name": pattern, "limit": int64(6)})
		if err != nil {
			return nil, err
		}
		var found []match
		for _, c := range page.Cues {
			if c.Name == text || beginning && strings.HasPrefix(c.Name, text) {
				found = append(found, match{id: c.ID, name: c.Name, called: c.Name, begins: beginning})
			}
		}
		if len(found) > 0 {
			return found, nil
		}
	}
	return nil, nil
}

func (d *door) findMembers(ctx context.Context, text string) ([]match, error) {
	if userIDForm.MatchString(text) {
		return []match{{id: text}}, nil
	}
	list, err := get[memberPage](ctx, d, "member.list", nil)
	if err != nil {
		return nil, err
	}
	text = strings.ToLower(text)
	return best(list.Members, func(m memberView) int { return rankOf(text, m.ID, strings.ToLower(m.Email)) },
		func(m memberView) match { return match{id: m.ID, name: m.Email, called: m.Email} }), nil
}

// refused adds to a refusal what only the command line knows: how the caller named what was not found, and why it may be hidden.
func (r *run) refused(err error) error {
	var no *refusal
	if !errors.As(err, &no) {
		return err
	}
	if r.door.flags.json && len(no.body) > 0 {
		_ = r.raw(&answer{body: no.body})
	}
	if no.Status != 404 {
		return err
	}
	for _, f := range r.op.Fields() {
		kind := r.word.refOf(r.op, f)
		if kind != noObject && (string(kind)+"_not_found" == no.Code || no.Code == op.NotFound.Name) {
			no.kind, no.typed = kind, firstOf(r.typed[f.Name], text(r.in[f.Name]))
		}
	}
	if no.Code == "cue_not_found" || no.Code == "execution_not_found" {
		self, err := get[keyView](r.ctx, r.door, "key.self", nil)
		if err == nil && self.Restrictions != nil && self.Restrictions.Cues != nil {
			no.notes = append(no.notes, "note\tThis key ("+self.Name+") sees only some cues; unstuck keys access lists them.")
		}
	}
	return no
}

func text(v any) string {
	s, _ := v.(string)
	unescaped, err := url.PathUnescape(s)
	if err != nil {
		return s
	}
	return unescaped
}
