package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"unstuck/internal/server"
)

// channelWordings are the commands about where alerts go.
func channelWordings() map[string]wording {
	return map[string]wording{
		"alert_channel.list": {noun: "alerts", verb: "channels", show: showChannels},
		"alert_channel.set": {
			noun: "alerts", verb: "set", args: []string{"channel", "address"}, show: showChannelSet,
			like: []string{"alerts set webhook https://hooks.slack.com/services/…", "alerts set email ops@example.com"},
			note: "The address of a webhook of Slack, Mattermost or Discord works as it is. Then: unstuck alerts test",
		},
		"alert_channel.remove": {noun: "alerts", verb: "unset", ask: askUnset, show: showUnset, like: []string{"alerts unset email"}},
		"alert.test":           {args: []string{"channel?"}, show: showTested, like: []string{"alerts test", "alerts test webhook"}},
		"me.update":            {hidden: true},
	}
}

type channelView struct {
	Channel string     `json:"channel"`
	Address string     `json:"address"`
	Proved  *time.Time `json:"proved_at"`
	Good    *time.Time `json:"last_delivered_at"`
	Failing *time.Time `json:"failing_since"`
	Error   string     `json:"error"`
	Blocked string     `json:"blocked"`
	Waiting int64      `json:"waiting"`
	Lost    int64      `json:"lost"`
}

type channelPage struct {
	Channels []channelView `json:"channels"`
	Mail     bool          `json:"mail"`
	Watch    *struct {
		Host  string     `json:"host"`
		Last  *time.Time `json:"last_at"`
		Error string     `json:"error"`
	} `json:"outside_watch"`
}

// state says in a few words whether a channel works.
func (d *door) state(c *channelView) string {
	switch {
	case c.Blocked != "":
		return "cannot be sent to"
	case c.Failing != nil && c.Lost > 0:
		return fmt.Sprintf("takes nothing since %s, %s lost", d.ago(*c.Failing), plural(int(c.Lost), "alert is", "alerts are"))
	case c.Failing != nil:
		return "takes nothing since " + d.ago(*c.Failing)
	case c.Proved == nil:
		return "not proved"
	}
	return "proved " + d.ago(*c.Proved)
}

func showChannels(r *run, a *answer) error {
	page, err := decode[channelPage](a)
	if err != nil {
		return err
	}
	t := newTable("CHANNEL", "ADDRESS", "STATE", "DELIVERED", "WAITING")
	for i := range page.Channels {
		c := &page.Channels[i]
		if c.Address == "" {
			t.add(c.Channel, "–", "not set", "–", "–")
			continue
		}
		last := "never"
		if c.Good != nil {
			last = r.ago(*c.Good)
		}
		t.add(c.Channel, c.Address, r.state(c), last, fmt.Sprint(c.Waiting))
	}
	r.printTable(t)
	for i := range page.Channels {
		if c := &page.Channels[i]; c.Error != "" && c.Blocked == "" {
			r.print("\n%s does not take alerts: %s", c.Channel, c.Error)
		}
	}
	r.print("\n%s", r.watchWords(page))
	for _, t := range channelTroubles(page) {
		r.print("%s", strings.ToUpper(t.text[:1])+t.text[1:])
	}
	return nil
}

// watchWords says who notices when the server stands still.
func (d *door) watchWords(p channelPage) string {
	switch w := p.Watch; {
	case w == nil:
		return "Outside watch: none. Whoever runs the server sets UNSTUCK_HEARTBEAT_URL."
	case w.Error != "":
		return fmt.Sprintf("Outside watch: %s does not hear of the server: %s", w.Host, w.Error)
	case w.Last == nil:
		return fmt.Sprintf("Outside watch: %s, not called yet", w.Host)
	default:
		return fmt.Sprintf("Outside watch: %s, last called %s", w.Host, d.ago(*w.Last))
	}
}

// channelTrouble is why alerts may not arrive.
type channelTrouble struct {
	text string // what is so, and what to do
	by   string // the channel that takes nothing; "" when it is only not known whether alerts arrive, or none is set
	why  string
}

// channelTroubles are those of each channel, or of all together; none when alerts were shown to arrive.
func channelTroubles(p channelPage) (out []channelTrouble) {
	var set, proved bool
	for i := range p.Channels {
		c := &p.Channels[i]
		if why := firstOf(c.Blocked, c.Error); c.Address != "" && (c.Blocked != "" || c.Failing != nil) {
			out = append(out, channelTrouble{fmt.Sprintf("alerts do not get through by %s: %s     mend it, then: unstuck alerts test", c.Channel, why), c.Channel, why})
		}
		set, proved = set || c.Address != "", proved || c.Proved != nil
	}
	switch {
	case len(out) > 0:
	case !set:
		out = []channelTrouble{{text: "alerts reach nobody: unstuck alerts set webhook https://…     (then: unstuck alerts test)"}}
	case !proved:
		out = []channelTrouble{{text: "nobody knows that alerts arrive: unstuck alerts test"}}
	}
	return out
}

// reachWords says whom alerts reach, or that they reach nobody; "" when this key may not know.
func (d *door) reachWords(ctx context.Context) string {
	page, err := get[channelPage](ctx, d, "alert_channel.list", nil)
	if err != nil {
		return ""
	}
	var bad []string
	for _, t := range channelTroubles(page) {
		bad = append(bad, strings.TrimPrefix(t.text, "alerts "))
	}
	if len(bad) > 0 {
		return strings.Join(bad, "\n           ")
	}
	var to []string
	for i := range page.Channels {
		if c := &page.Channels[i]; c.Address != "" {
			to = append(to, c.Address+" ("+d.state(c)+")")
		}
	}
	return "reach " + strings.Join(to, ", ")
}

// doctorAlerts is what is wrong with each channel, or a note while alerts may reach nobody; none when this key may not know.
func (d *door) doctorAlerts(ctx context.Context) (out []server.Finding) {
	page, err := get[channelPage](ctx, d, "alert_channel.list", nil)
	if err != nil {
		return nil
	}
	for _, t := range channelTroubles(page) {
		f := server.Finding{What: t.text, Note: t.by == ""}
		if t.by != "" {
			f = server.Finding{What: "alerts by " + t.by, Err: errors.New(strings.TrimSuffix(t.why, ".")), Mend: "what the sentence above says, then: unstuck alerts test"}
		}
		out = append(out, f)
	}
	if len(out) > 0 {
		return out
	}
	return []server.Finding{{What: "alerts arrive"}}
}

func showChannelSet(r *run, a *answer) error {
	c, err := decode[channelView](a)
	if err != nil {
		return err
	}
	r.print("Alerts go by %s to %s.", c.Channel, c.Address)
	if c.Proved == nil {
		r.say("Nobody knows yet that they arrive: unstuck alerts test")
	}
	return nil
}

func askUnset(r *run) (string, error) {
	return fmt.Sprintf("Alerts go no more by %v; those that wait to be sent there are given up.", r.in["channel"]), nil
}

func showUnset(r *run, _ *answer) error {
	r.print("Alerts go no more by %v.", r.in["channel"])
	return nil
}

func showTested(r *run, a *answer) error {
	got, err := decode[struct {
		Tested []struct {
			Channel   string `json:"channel"`
			Address   string `json:"address"`
			Delivered bool   `json:"delivered"`
			Status    *int   `json:"http_status"`
			Answer    string `json:"answer"`
			Error     string `json:"error"`
		} `json:"tested"`
	}](a)
	if err != nil {
		return err
	}
	failed := 0
	for _, t := range got.Tested {
		said := ""
		if t.Status != nil {
			said = fmt.Sprintf(", answered %d", *t.Status)
			if t.Answer != "" {
				said += ": " + t.Answer
			}
		}
		if t.Delivered {
			r.print("✓ %s  %s took it%s", t.Channel, t.Address, said)
			continue
		}
		failed++
		r.print("✕ %s  %s did not take it: %s", t.Channel, t.Address, t.Error)
	}
	if failed > 0 {
		return exitWith(exitOurs)
	}
	r.say("Look there: whoever should see alerts must have seen this one.")
	return nil
}
