package access

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"unstuck/internal/op"
)

// holder is whoever has one integration key that may make keys, and tries to make more of it: every secret that any answer showed is
// remembered, and used like the first.
type holder struct {
	*world
	id    string   // of the key that it began with
	shown []string // every secret, the first one included
	keys  []string // ids of every key that it saw
}

func (h *holder) secret(t *rapid.T) string {
	return rapid.SampledFrom(h.shown).Draw(t, "with secret")
}

func (h *holder) target(t *rapid.T) string { return rapid.SampledFrom(h.keys).Draw(t, "key") }

// try makes a call and keeps what it shows.
func (h *holder) try(secret, operation string, input in) {
	res := h.call(secret, operation, input)
	if res.Err != nil {
		return
	}
	out := decoded(h, res.Body)
	for _, name := range []string{"key", "api_key"} {
		if s := out.str(name); accepted(s) {
			h.shown = append(h.shown, s)
		}
	}
	if id := out.str("id"); id != "" && id[:4] == keyPrefix {
		h.keys = append(h.keys, id)
	}
}

func (h *holder) rights(t *rapid.T) in {
	more := in{"name": "mine"}
	if rapid.Bool().Draw(t, "by scope") {
		more["scope"] = rapid.SampledFrom(scopeNames()).Draw(t, "scope")
	} else {
		more["permissions"] = rapid.SliceOfNDistinct(rapid.SampledFrom(allPerms.names()), 1, 8, rapid.ID[string]).Draw(t, "permissions")
	}
	return more
}

func (h *holder) moves() map[string]func(*rapid.T) {
	ends := rapid.SampledFrom([]string{"never", "1h", "30d", "10y"})
	return map[string]func(*rapid.T){
		"create": func(t *rapid.T) {
			input := h.rights(t)
			if rapid.Bool().Draw(t, "says when") {
				input["expires_in"] = ends.Draw(t, "end")
			}
			if r := drawRestrictions(t); len(r) > 0 {
				input["restrictions"] = r
			}
			if rapid.Bool().Draw(t, "repeats") {
				input["Idempotency-Key"] = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "as")
				delete(input, "restrictions")
			}
			h.try(h.secret(t), "key.create", input)
		},
		"create as CueAPI": func(t *rapid.T) { h.try(h.secret(t), "auth_key.create", in{"label": "mine"}) },
		"create personal":  func(t *rapid.T) { h.try(h.secret(t), "personal_key.create", in{"name": "mine"}) },
		"add a member": func(t *rapid.T) {
			h.try(h.secret(t), "member.add", in{"email": fmt.Sprintf("m%d@example.com", h.requests.Load()), "role": "viewer"})
		},
		"make a workspace": func(t *rapid.T) { h.try(h.secret(t), "workspace.create", in{"name": "mine"}) },
		"rotate": func(t *rapid.T) {
			input := in{"id": h.target(t)}
			switch rapid.IntRange(0, 3).Draw(t, "how") {
			case 0:
				input["now"] = true
			case 1:
				input["finish"] = true
			case 2:
				input["expires_in"] = ends.Draw(t, "end")
			}
			h.try(h.secret(t), "key.rotate", input)
		},
		"regenerate": func(t *rapid.T) { h.try(h.secret(t), "auth_key.regenerate", nil) },
		"update": func(t *rapid.T) {
			input := in{"id": h.target(t)}
			for k, v := range h.rights(t) {
				input[k] = v
			}
			h.try(h.secret(t), "key.update", input)
		},
		"lift": func(t *rapid.T) {
			h.try(h.secret(t), "key.widen", in{"id": h.target(t), "add_permissions": allPerms.names(), "drop_restrictions": kinds[:]})
		},
		"extend": func(t *rapid.T) { h.try(h.secret(t), "key.extend", in{"id": h.target(t), "expires_in": "10y"}) },
		"revoke": func(t *rapid.T) {
			if id := h.target(t); id != h.id && rapid.IntRange(0, 3).Draw(t, "really") == 0 {
				h.try(h.secret(t), "key.revoke", in{"id": id})
			}
		},
		"an admin narrows it": func(t *rapid.T) {
			if rapid.IntRange(0, 4).Draw(t, "really") == 0 {
				h.call(h.admin, "key.update", in{"id": h.id, "permissions": []string{"keys:write", "executions:claim"}})
			}
		},
		"time passes": func(t *rapid.T) {
			h.clock.advance(rapid.SampledFrom([]time.Duration{time.Minute, time.Hour, 25 * time.Hour, 40 * 24 * time.Hour}).Draw(t, "time"))
		},
	}
}

// mayItself says whether the first key could make a call, whichever of its secrets it has.
func (h *holder) mayItself(o *op.Operation, where from) bool {
	g, why := h.a.table.grantOf(h.id, h.a.now())
	c := &circumstances{now: h.clock.now(), addr: h.a.proxies.client(where.peer, nil), via: where.via}
	return o.Needs == op.Public || why.passes() && g.rule(o, c).passes()
}

// TestNoSecretEverShownIsWorthMore is the promise about keys that make keys: over random sequences of operations by one integration
// key, and by every key that it gets hold of that way, no secret that it was ever shown passes a call which that key could not make
// itself at that moment, or outlives it.
func TestNoSecretEverShownIsWorthMore(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.must(w.admin, "workspace.update", in{"rate_limit_per_minute": 0})
		operations := w.eachKind()
		places := []from{{peer: "192.0.2.1:1", via: "rest"}, {peer: "203.0.113.5:1", via: "mcp"}}
		rapid.Check(t, func(t *rapid.T) {
			w.renewAdmin(t)
			secret, id := w.key(rapid.SampledFrom([]string{"full", "keys:write", "keys:write keys:rotate-self cues:read", "keys:write members:write workspace:write executions:claim"}).Draw(t, "first"),
				in{"expires_in": rapid.SampledFrom([]string{"never", "2h", "60d"}).Draw(t, "first ends")})
			_, stranger := w.key("worker")
			h := &holder{world: w, id: id, shown: []string{secret}, keys: []string{id, stranger, w.must(w.admin, "key.self", nil).str("id")}}
			moves := h.moves()
			passes := func(s string) (calls int) {
				for _, where := range places {
					for _, o := range operations {
						if w.guarded(s, o, where) != "" {
							continue
						}
						if calls++; !h.mayItself(o, where) {
							t.Fatalf("%s passes %s from %v, which the key that was shown it may not", SecretText(s), o.Name, where)
						}
					}
				}
				return calls
			}
			moves[""] = func(t *rapid.T) {
				for _, s := range h.shown {
					passes(s)
				}
			}
			t.Repeat(moves)
			w.renewAdmin(t)
			w.must(w.admin, "key.revoke", in{"id": id})
			for _, s := range h.shown {
				if n := passes(s); n > 0 {
					t.Fatalf("%s outlives the key that was shown it", SecretText(s))
				}
			}
		})
	})
}

// eachKind is one operation of all that the guard treats alike.
func (w *world) eachKind() (out []*op.Operation) {
	type sort struct {
		needs   op.Need
		narrow  op.Narrowing
		members bool
	}
	seen := map[sort]bool{}
	for _, o := range w.set.All() {
		if k := (sort{o.Needs, o.Narrow, o.Members}); !seen[k] && o.Needs != op.Public {
			seen[k] = true
			out = append(out, o)
		}
	}
	return out
}
