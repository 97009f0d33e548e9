package access

import (
	"context"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Answers about one operation.
const (
	Yes  = "yes"
	No   = "no"
	Only = "only" // yes, within what the restrictions leave, or about itself
)

// Verdict is what a key may do with one operation.
type Verdict struct {
	Operation string   `json:"operation"`
	Summary   string   `json:"summary"`
	Answer    string   `json:"answer" doc:"yes, no, or only: about itself, or within what the list only says"`
	Needs     string   `json:"needs" doc:"public, any key, a permission, or the two ways of an operation that may be about the key itself"`
	Missing   []string `json:"missing" doc:"permissions that the key lacks"`
	Scopes    []string `json:"scopes" doc:"scopes that hold them, smallest first"`
	Grants    []Grant  `json:"grants" doc:"the smallest steps that would change a no; empty when nothing would"`
	Because   string   `json:"because" doc:"why not, or within what, in words"`
	Within    []string `json:"within" doc:"kinds of restrictions that bound an only"`
}

// OnlyFor is one restriction that bounds everything a key does, and whose it is.
type OnlyFor struct {
	Restriction string `json:"restriction"`
	Values      any    `json:"values"`
	KeyID       string `json:"key_id" doc:"the key that is restricted: itself or one above it"`
	Note        string `json:"note" doc:"what people want to know besides"`
}

// Words is a permission with what it lets a key do.
type Words struct {
	Permission string   `json:"permission"`
	Words      string   `json:"words"`
	Scopes     []string `json:"scopes" doc:"scopes that hold it, smallest first"`
	Because    string   `json:"because" doc:"why the key cannot, although it holds the permission; else empty"`
}

// Answer is what a key can and cannot do, computed by the function that decides every call.
type Answer struct {
	Key        *KeyBrief `json:"key" doc:"null for a key that does not exist yet"`
	Status     string    `json:"status"`
	ExpiresAt  *op.Time  `json:"expires_at"`
	Can        []Words   `json:"can"`
	Cannot     []Words   `json:"cannot"`
	Only       []OnlyFor `json:"only"`
	NoKeyCan   []string  `json:"no_key_can"`
	Operations []Verdict `json:"operations"`
	Asked      *Verdict  `json:"asked" doc:"about the operation that was asked about, called now, about that cue and from that address; null when none was"`
}

var noKeyCan = []string{
	"act in another workspace", "pass the rate limit or the plan's limits", "read a key again", "change an outcome once written",
	"do anything that is not in the API reference",
}

// verdict is the ruling about an operation, told to whoever asks; ended says that the key works no more.
func (a *Access) verdict(g grant, o *op.Operation, ended bool) Verdict {
	return a.tell(g, o, g.rule(o, nil), ended)
}

// tell is a ruling as an answer.
func (a *Access) tell(g grant, o *op.Operation, r ruling, ended bool) Verdict {
	v := Verdict{Operation: o.Name, Summary: o.Summary(), Needs: o.Needs.String(), Missing: []string{}, Scopes: []string{}, Grants: []Grant{}, Answer: No, Within: []string{}}
	switch {
	case o.Needs == op.Public:
		v.Answer = Yes
	case ended:
		v.Because = "the key works no more"
	case r.members:
		v.Because = "only a member may, with a personal key"
	case r.handed:
		v.Because = "whoever handed the key over knows it too; unstuck auth login replaces it"
	case !r.passes():
		v.Grants, v.Because = a.table.grants(g.key, r), r.because(o)
		if r.lacks != 0 {
			v.Missing, v.Scopes = r.lacks.names(), scopesHolding(r.lacks)
		}
	case r.itself:
		v.Answer, v.Because = Only, "about itself"
	case r.about != "":
		v.Answer, v.Because, v.Within = Only, "about "+r.about, append(v.Within, r.open...)
	case len(r.open) > 0:
		v.Answer, v.Because, v.Within = Only, "within the key's restrictions", r.open
	default:
		v.Answer = Yes
	}
	return v
}

// explain is the whole answer for a grant.
func (a *Access) explain(tx *db.Tx, g grant, why standing) (Answer, error) {
	out := Answer{Status: statusOf(why), Can: []Words{}, Cannot: []Words{}, Only: []OnlyFor{}, NoKeyCan: noKeyCan, Operations: []Verdict{}}
	for _, o := range a.ops {
		out.Operations = append(out.Operations, a.verdict(g, o, !why.passes()))
	}
	for _, p := range permissions {
		w := Words{p.name, p.words, scopesHolding(bit(p.name)), ""}
		if g.perms.has(p.name) {
			w.Because = a.useless(p.name, out.Operations)
		}
		if g.perms.has(p.name) && w.Because == "" {
			out.Can = append(out.Can, w)
		} else {
			out.Cannot = append(out.Cannot, w)
		}
	}
	for k := range g.key.chain() {
		r := k.rules.Load()
		for _, kind := range r.present() {
			only, err := a.onlyFor(tx, g.key, k, r, kind)
			if err != nil {
				return out, err
			}
			out.Only = append(out.Only, only)
		}
	}
	return out, nil
}

// useless says why a permission lets a key that holds it do nothing: each operation that needs it is refused for something else. "" when
// one is not, or none needs it.
func (a *Access) useless(permission string, verdicts []Verdict) (because string) {
	for i, o := range a.ops {
		if own, _ := o.Needs.Self(); o.Needs.Permission() != permission && own != permission {
			continue
		}
		if verdicts[i].Answer != No {
			return ""
		}
		because = verdicts[i].Because
	}
	return because
}

// onlyFor tells one restriction of a key or of one above it.
func (a *Access) onlyFor(tx *db.Tx, asked, k *key, r *rules, kind string) (OnlyFor, error) {
	o := OnlyFor{Restriction: kind, KeyID: k.id()}
	switch kind {
	case "cues":
		n, err := a.things.CountCues(tx, asked.ws().id, asked.cueFilter())
		if err != nil {
			return o, err
		}
		o.Values, o.Note = r.Cues, plural(n, "cue")+" today"
	case "ips":
		o.Values = r.IPs
	case "via":
		o.Values = r.Via
	case "not_before":
		o.Values = *r.NotBefore
	case "rate_per_minute":
		o.Values, o.Note = r.RatePerMinute, "the workspace's limit is shared by all keys"
	case "worker_ids":
		o.Values = r.WorkerIDs
	}
	return o, nil
}

// keyAccess is the input of key.access.
type keyAccess struct {
	ID string `json:"id" doc:"id of the key, or self"`
	question
}

func (a *Access) accessOfKey(ctx context.Context, in keyAccess) (out Answer, err error) {
	c := From(ctx)
	in.ID = c.idOf(in.ID)
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		row, err := a.reader(tx).maySee(c, in.ID)
		if err != nil {
			return err
		}
		g, why := a.table.grantOf(in.ID, a.now())
		if out, err = a.explain(tx, g, why); err != nil {
			return err
		}
		if out.Asked, err = a.ask(tx, c, in.question, "query", g, why); err != nil {
			return err
		}
		shown, err := a.reader(tx).showOne(row)
		out.Key, out.ExpiresAt = &KeyBrief{row.id, row.name, shown.Redacted, row.scope}, shown.ExpiresAt
		return err
	})
	return out, err
}

// keyPreview is the input of key.preview: a key that does not exist yet.
type keyPreview struct {
	Scope        op.Opt[string]         `json:"scope" doc:"a named scope"`
	Permissions  op.Opt[[]string]       `json:"permissions" min:"1" max:"100" doc:"permissions instead of a named scope"`
	Restrictions op.Clear[Restrictions] `json:"restrictions" doc:"all of them must hold; null is refused"`
	question
}

func (a *Access) previewKey(ctx context.Context, in keyPreview) (out Answer, err error) {
	w, err := keyCreate{Scope: in.Scope, Permissions: in.Permissions, Restrictions: in.Restrictions}.check()
	if err != nil {
		return out, err
	}
	c := From(ctx)
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		if err := a.cuesExist(tx, c, w.rules, "body.restrictions"); err != nil {
			return err
		}
		g, why := a.table.imagine(w, c.grant.key, a.now())
		if out, err = a.explain(tx, g, why); err != nil {
			return err
		}
		out.Asked, err = a.ask(tx, c, in.question, "body", g, why)
		return err
	})
	return out, err
}

// imagine is the grant of a key that does not exist, as its maker would make it.
func (t *table) imagine(w wanted, maker *key, now int64) (grant, standing) {
	k := &key{perms: w.perms, scope: scopeIndex(w.scope), kind: integration}
	k.member.Store(maker.member.Load())
	k.rules.Store(w.rules)
	if maker.kind == integration {
		k.parent = maker
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	g := grant{key: k, scope: k.scope}
	var why standing
	g.perms, why = k.judge(now)
	return g, why
}
