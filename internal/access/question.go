package access

import (
	"slices"
	"strings"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// question asks about one operation, as it would be called. What is not said is left open, and the answer is then "only" where it
// matters.
type question struct {
	Operation op.Opt[string] `json:"operation" doc:"an operation to ask about, such as cue.delete; with it, cue and ip say how it would be called"`
	Cue       op.Opt[string] `json:"cue" doc:"the cue that the question is about: id or name"`
	IP        op.Opt[string] `json:"ip" doc:"the address that the call would come from"`
}

// ask answers a question about a key by the ruling that the guard would make, and by the restriction that the operation would meet; nil
// when nothing was asked. at is the place of the question in the input.
func (a *Access) ask(tx *db.Tx, c *Caller, q question, at string, g grant, why standing) (*Verdict, error) {
	if !q.Operation.Set {
		if q.Cue.Set || q.IP.Set {
			return nil, op.Invalid(at+".operation", "Say which operation the question about a cue or an address is for, such as cue.fire")
		}
		return nil, nil
	}
	i := slices.IndexFunc(a.ops, func(o *op.Operation) bool { return o.Name == q.Operation.Val })
	if i < 0 {
		return nil, op.Invalid(at+".operation", "There is no operation %q; write it like cue.delete, as in the API reference", brief(q.Operation.Val))
	}
	addr, err := givenAddr(q.IP, at+".ip")
	if err != nil {
		return nil, err
	}
	o := a.ops[i]
	r := g.rule(o, &circumstances{now: a.Now().UTC(), addr: addr, anywhere: !q.IP.Set, asked: true})
	unseen, err := a.unseen(tx, c, g, q.Cue, at+".cue", o)
	if err != nil {
		return nil, err
	}
	r.obstacles = append(r.obstacles, unseen...)
	r.open = slices.DeleteFunc(r.open, func(kind string) bool {
		return kind == "not_before" || kind == "ips" && q.IP.Set || kind == "cues" && q.Cue.Set && o.Narrow == op.ByObject
	})
	v := a.tell(g, o, r, !why.passes())
	return &v, nil
}

// unseen is what keeps a key from a cue that an operation would be about. A cue must be there, unless the operation would make it; but a
// caller that may not read cues is not told whether it is, and one that is itself for certain cues only that others are outside.
func (a *Access) unseen(tx *db.Tx, c *Caller, g grant, cue op.Opt[string], at string, o *op.Operation) ([]obstacle, error) {
	if !cue.Set {
		return nil, nil
	}
	id, name, err := a.things.FindCue(tx, c.Workspace(), cue.Val)
	if err != nil {
		return nil, err
	}
	found := name != "" || id != ""
	if !found {
		name = cue.Val
	}
	brought, _ := Redact(cue.Val)
	out := g.key.blindTo(id, name, brought, "")
	if makes := o.Verb() == "create"; !found && !makes && c.Holds("cues:read") && (len(out) == 0 || c.CueFilter() == nil) {
		return nil, noSuchCue(at, cue.Val)
	}
	if o.Narrow != op.ByObject { // it is about no cue
		return nil, nil
	}
	return out, nil
}

// because says what a ruling is refused for.
func (r ruling) because(o *op.Operation) string {
	first := obstacle{}
	if len(r.obstacles) > 0 {
		first = r.obstacles[0]
	}
	switch {
	case r.lacks != 0:
		return "lacks " + strings.Join(r.lacks.names(), ", ")
	case o.Hands && first.whole:
		return "the key is restricted, and what this hands out would not be"
	case first.kind == "cues" && first.whole:
		return "the key is for certain cues only, and this is about the whole workspace"
	case first.kind == "cues":
		return "the key is for certain cues only, and " + first.brought + " is not one of them"
	case first.kind == "ips":
		return "the key is for certain addresses only, and " + first.brought + " is not one of them"
	case first.kind == "not_before":
		return "the key may not be used yet"
	}
	return "its restriction " + first.kind + " is not met"
}
