package cli

import (
	"errors"
	"strings"
)

// warnNoCues says which cues of a restriction are not there. It is no mistake: a cue may come later (KEYS 4).
func (r *run) warnNoCues(cues []string) {
	for _, text := range cues {
		if strings.Contains(text, "*") {
			continue
		}
		m, err := r.find(r.ctx, aCue, text)
		if err == nil && !m.missing && cueIDForm.MatchString(text) {
			_, err = get[cueView](r.ctx, r.door, "cue.get", inputs{"id": text})
			var no *refusal
			m.missing = errors.As(err, &no) && no.Status == 404
		}
		if !m.missing && !m.begins {
			continue
		}
		near := ""
		if m.near = firstOf(m.near, m.called); m.near != "" {
			near = "; near: " + m.near
		}
		r.say("Warning: there is no cue %s yet%s. The restriction will fit once there is one.", text, near)
	}
}

// stoppedWith counts the keys under a revoked one that had not been revoked before; 0 when this key may not look.
func (r *run) stoppedWith(k *keyView) int {
	if c, err := r.client(); err != nil || lastEight(c.key) == k.lastEight() { // it ended itself: it can ask nothing any more
		return 0
	}
	all, _ := r.allKeys(r.ctx, inputs{})
	var below func(id string) int
	below = func(id string) (n int) {
		for _, child := range all {
			if child.ParentID == nil || *child.ParentID != id || child.RevokedAt != nil {
				continue
			}
			n += 1 + below(child.ID)
		}
		return n
	}
	return below(k.ID)
}
