package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

func ownRotate(fs *pflag.FlagSet) func(*run) error {
	end := ownEnd(fs, "a new end of the key; not for a key that rotates itself")
	watch := fs.Bool("watch", false, "stay, and show who still uses the old secret")
	return func(r *run) error {
		end(r)
		if err := r.noteOwnKey(); err != nil || !*watch {
			return err
		}
		if r.in["now"] == true || r.in["finish"] == true || r.in["reason"] == "leaked" {
			return usage("--watch is for a rotation with an overlap; --now, --finish and a leak end the old secret at once.")
		}
		show := r.word.show
		r.word.show = func(r *run, a *answer) error {
			return firstErr(show(r, a), func() error { return r.watchRotation() })
		}
		return nil
	}
}

// noteOwnKey remembers which key the login is, if there is one: after the rotation it may not be able to say so any more.
func (r *run) noteOwnKey() error {
	c, err := r.client()
	if err != nil || !c.file {
		return err
	}
	self, err := get[keyView](r.ctx, r.door, "key.self", nil)
	r.ownID = self.ID
	return err
}

func showRotated(r *run, a *answer) error {
	k, err := decode[keyView](a)
	if err != nil {
		return err
	}
	if k.Secret == "" {
		r.print("Ended the old secret of %s. %s goes on alone.", k.Name, k.Redacted)
		return nil
	}
	r.handOver(k.Secret)
	r.say("%s", strings.Join(r.rotatedWords(&k), "\n"))
	r.caution(k.Warning)
	return nil
}

// rotatedWords say what becomes of the old secret.
func (r *run) rotatedWords(k *keyView) []string {
	pending, old := k.secret("pending"), k.secret("current")
	if pending == nil || old == nil {
		return []string{fmt.Sprintf("New secret for %s, shown this once. The old one has ended.", k.Name)}
	}
	overlap := "24 h"
	if text, ok := r.in["overlap"].(string); ok {
		overlap = text
	}
	return []string{
		fmt.Sprintf("New secret for %s, shown this once. The old one (%s) works until %s after the new one is first used.", k.Name, old.Redacted, overlap),
		fmt.Sprintf("It leaked? Then end the old one now: unstuck keys rotate %s --finish", k.lastEight()),
	}
}

// keepLogin stores the new secret when the rotated key is the one of the login: it would be locked out otherwise.
func keepLogin(r *run, a *answer) {
	k, err := decode[keyView](a)
	if err != nil || r.ownID != k.ID || k.Secret == "" { // an answer that cannot be read is told when it is shown
		return
	}
	if err := r.writeLogin(login{URL: r.asked.url, Key: k.Secret}); err != nil {
		r.say("The key was rotated, but the login was not changed: %v", err)
		return
	}
	r.say("This is the key of your login; %s has the new secret now.", r.tilde(r.loginPath()))
}

const (
	watchEvery = 2 * time.Second
	watchQuiet = 30 * time.Minute
)

// watchRotation shows who still uses the old secret, until nobody has for half an hour.
func (r *run) watchRotation() error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var last picture
	for {
		k, err := get[keyView](r.ctx, r.door, "key.get", inputs{"id": r.in["id"]})
		if err != nil {
			return r.refused(err)
		}
		p := r.picture(&k)
		switch {
		case r.StderrTTY && last.text != "": // over the one before
			fmt.Fprintf(r.Stderr, "\x1b[%dA\x1b[J", strings.Count(last.text, "\n")+1)
			r.say("%s", p.text)
		case p.who != last.who || p.over:
			r.say("%s", p.text)
		}
		if last = p; p.over {
			return nil
		}
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			return r.ctx.Err()
		}
	}
}

// picture is what a rotation looks like at one moment.
type picture struct {
	text string
	who  string // who uses which secret; text also changes with the time
	over bool   // the old secret has ended, or nobody used it for half an hour while the new one is in use
}

func (r *run) picture(k *keyView) picture {
	if !k.rotating() {
		return picture{text: "The old secret of " + k.Name + " has ended.", over: true}
	}
	before, after := k.secret("old"), k.secret("current")
	if before == nil {
		before, after = k.secret("current"), k.secret("pending")
	}
	t := newTable("Still on the old secret", "", "", "on the new secret")
	line := func(s *secretView, cells ...string) {
		if s.LastUsed != nil {
			t.add(append([]string{"  " + s.LastUsed.program(), s.LastUsed.IP}, cells...)...)
		}
	}
	when := func(s *secretView) string {
		if s.LastUsedAt == nil {
			return "–"
		}
		return r.ago(*s.LastUsedAt)
	}
	p := picture{who: fmt.Sprint(before.LastUsed, after.LastUsed)}
	if before.LastUsed != nil && after.LastUsed != nil && before.LastUsed.program() == after.LastUsed.program() && before.LastUsed.IP == after.LastUsed.IP {
		line(before, when(before), when(after))
	} else {
		line(before, when(before), "–")
		line(after, "–", when(after))
	}
	quiet := after.LastUsedAt != nil && (before.LastUsedAt == nil || r.Now().Sub(*before.LastUsedAt) > watchQuiet)
	if quiet {
		p.text, p.over = t.String()+"Nobody has used the old secret for 30 min. End it: unstuck keys rotate "+k.lastEight()+" --finish", true
		return p
	}
	p.text = t.String() + "Waiting until nobody has used the old secret for 30 min. Ctrl-C is safe: the rotation goes on without you."
	return p
}
