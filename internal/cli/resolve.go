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
		switch {
		case err != nil:
			return r.refused(err)
		case m.missing && f.In == op.InQuery: // a filter by nothing would look as if nothing had happened
			return noSuch(kind, text, m.near)
		case m.near != "":
			r.near[f.Name] = m.near
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

// noSuch refuses a filter by an object that is not there.
func noSuch(kind object, text, near string) error {
	if near != "" {
		near = "\n\n  near      " + shellWord(near)
	}
	return failure(exitNotFound, "Not found: no %s %s that this key can see.%s", kind, text, near)
}

// find is the object that a text names. What is found nowhere stays as it is, and is missing: the server says that it is not there.
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
	case aWorker:
		found, err = d.findWorkers(ctx, text)
	case anAlert:
		found, err = d.findAlerts(ctx, text)
	case anyObject:
		found, err = d.findAny(ctx, text)
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
		return match{id: text, missing: true, near: d.nearName(ctx, kind, text)}, nil
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
	missing  bool   // it was looked for, and is not there
	near     string // of what is missing: the name that was most likely meant; "" when there is none
}

// nearName is the name of a cue or a key that a misspelt one most likely meant; "" when there is none, or the caller may not look.
func (d *door) nearName(ctx context.Context, kind object, text string) string {
	var names []string
	switch kind {
	case aCue:
		page, _ := get[cuePage](ctx, d, "cue.list", inputs{"limit": int64(100)})
		for _, c := range page.Cues {
			names = append(names, c.Name)
		}
	case aKey:
		keys, _ := d.allKeys(ctx, inputs{})
		for _, k := range keys {
			if k.Status != "revoked" {
				names = append(names, k.Name)
			}
		}
	}
	return nearest(text, names)
}

var anyIDForm = regexp.MustCompile(`^[a-z]+_[0-9a-z]{12}$`)

// findAny looks among keys, cues and members. An id stays as it is, also of what was deleted.
func (d *door) findAny(ctx context.Context, text string) ([]match, error) {
	if anyIDForm.MatchString(text) || uuidForm.MatchString(text) {
		return []match{{id: text}}, nil
	}
	var exact, begin []match
	for _, find := range [...]func(context.Context, string) ([]match, error){d.findKeys, d.findCues, d.findMembers, d.findExecutions} {
		found, err := find(ctx, text)
		if err != nil {
			return nil, err
		}
		for _, m := range found {
			switch {
			case m.id == text && m.name == "": // not looked up
			case m.begins:
				begin = append(begin, m)
			default:
				exact = append(exact, m)
			}
		}
	}
	if exact != nil {
		return exact, nil
	}
	return begin, nil
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
		self, failed := get[keyView](ctx, d, "key.self", nil)
		if failed != nil {
			return nil, failed
		}
		keys = []keyView{self}
	} else if err != nil {
		return nil, err
	}
	if m := redactedEnd.FindStringSubmatch(text); m != nil {
		text = m[1]
	}
	found := living(best(keys, func(k keyView) int { return k.rank(text) }, func(k keyView) match {
		return match{id: k.ID, name: k.Name + "  " + k.Redacted, called: k.Name}
	}), keys)
	if len(found) == 0 && errors.As(err, &no) { // this key sees only itself: the server decides
		return []match{{id: text}}, nil
	}
	if len(found) == 1 {
		d.tellEnded(keys, found[0].id, text)
	}
	return found, nil
}

// tellEnded says that a key was named by a secret that has ended.
func (d *door) tellEnded(keys []keyView, id, digits string) {
	i := slices.IndexFunc(keys, func(k keyView) bool { return k.ID == id })
	if i < 0 || !slices.ContainsFunc(keys[i].EndedSecrets, func(s string) bool { return lastEight(s) == digits }) {
		return
	}
	now := "the one in use is " + keys[i].Redacted
	if keys[i].Status == "revoked" {
		now = "the key was revoked"
	}
	d.say("The secret …_%s of %s has ended; %s.", digits, keys[i].Name, now)
}

// rank compares a text with what names a key.
func (k keyView) rank(text string) int {
	names := []string{k.ID, k.Name}
	for _, s := range k.Secrets {
		names = append(names, lastEight(s.Redacted))
	}
	for _, ended := range k.EndedSecrets {
		names = append(names, lastEight(ended))
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
	found := best(list.Members, func(m memberView) int { return rankOf(text, m.ID, strings.ToLower(m.Email)) },
		func(m memberView) match { return match{id: m.ID, name: m.Email, called: m.Email} })
	if len(found) > 0 {
		return found, nil
	}
	keys, _ := d.allKeys(ctx, inputs{}) // one who left is known by the keys that stayed
	for _, k := range keys {
		if strings.ToLower(k.Member.Name) == text {
			return []match{{id: k.Member.ID, name: k.Member.Name, called: k.Member.Name}}, nil
		}
	}
	return nil, nil
}

// findWorkers looks among the workers that there are and, for a whole name, among those that ever took work.
func (d *door) findWorkers(ctx context.Context, text string) ([]match, error) {
	list, err := get[workerList](ctx, d, "worker.list", nil)
	if err != nil {
		return nil, err
	}
	var found []match
	for _, w := range list.Workers {
		if n := rankOf(text, w.WorkerID); n >= 0 {
			m := match{id: w.WorkerID, name: w.WorkerID, called: w.WorkerID, begins: n > 0}
			if n == 0 {
				return []match{m}, nil
			}
			found = append(found, m)
		}
	}
	page, err := get[executionPage](ctx, d, "execution.list", inputs{"worker_id": text, "limit": int64(1)})
	if err != nil || len(page.Executions) > 0 {
		return []match{{id: text, name: text}}, err
	}
	return found, nil
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
			if near := r.near[f.Name]; near != "" {
				no.notes = append(no.notes, "near\t"+shellWord(near))
			}
		}
	}
	if no.Code == "cue_not_found" || no.Code == "execution_not_found" || no.Code == "alert_not_found" {
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
