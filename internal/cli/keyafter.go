package cli

import "strings"

// warnNoCues says which cues of a restriction are not there. It is no mistake: a cue may come later (KEYS 4).
func (r *run) warnNoCues(cues []string) {
	for _, text := range cues {
		if strings.Contains(text, "*") || cueIDForm.MatchString(text) { // an id of no cue is refused
			continue
		}
		m, err := r.find(r.ctx, aCue, text)
		if err != nil || !m.missing && !m.begins {
			continue
		}
		near := ""
		if m.near = firstOf(m.near, m.called); m.near != "" {
			near = "; near: " + m.near
		}
		r.say("Warning: there is no cue %s yet%s. The restriction will fit once there is one.", text, near)
	}
}

// countBelow counts the keys that still work under the one that is to be revoked, before it is: a key that ends itself can ask nothing
// afterwards. It is 0 when this key may not look.
func (r *run) countBelow() {
	id := text(r.in["id"])
	if id == itself {
		self, _ := get[keyView](r.ctx, r.door, "key.self", nil)
		id = self.ID
	}
	all, _ := r.allKeys(r.ctx, inputs{})
	var below func(id string) int
	below = func(id string) (n int) {
		for _, child := range all {
			if child.ParentID == nil || *child.ParentID != id {
				continue
			}
			n += below(child.ID)
			if child.Status == "active" || child.Status == "pending" {
				n++
			}
		}
		return n
	}
	r.below = below(id)
}
