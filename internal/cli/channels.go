package cli

import (
	"context"
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
		if c := &page.Channels[i]; c.Error != "" {
			r.print("\n%s does not take alerts: %s", c.Channel, c.Error)
		}
	}
	r.print("\n%s", r.watchWords(page))
	if trouble := r.channelTrouble(page); trouble != "" {
		r.print("%s", strings.ToUpper(trouble[:1])+trouble[1:])
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

// channelTrouble says why alerts may reach nobody, and what to do; "" when they were shown to arrive.
func (d *door) channelTrouble(p channelPage) string {
	var set, proved bool
	for i := range p.Channels {
		c := &p.Channels[i]
		if c.Failing != nil {
			return fmt.Sprintf("alerts do not get through by %s: %s     mend it, then: unstuck alerts test", c.Channel, c.Error)
		}
		set, proved = set || c.Address != "", proved || c.Proved != nil
	}
	switch {
	case !set:
		return "alerts reach nobody: unstuck alerts set webhook https://…     (then: unstuck alerts test)"
	case !proved:
		return "nobody knows that alerts arrive: unstuck alerts test"
	}
	return ""
}

// reachWords says whom alerts reach, or that they reach nobody; "" when this key may not know.
func (d *door) reachWords(ctx context.Context) string {
	page, err := get[channelPage](ctx, d, "alert_channel.list", nil)
	if err != nil {
		return ""
	}
	if trouble := d.channelTrouble(page); trouble != "" {
		return strings.TrimPrefix(trouble, "alerts ")
	}
	var to []string
	for i := range page.Channels {
		if c := &page.Channels[i]; c.Address != "" {
			to = append(to, c.Address+" ("+d.state(c)+")")
		}
	}
	return "reach " + strings.Join(to, ", ")
}

// doctorAlerts is a note for doctor while alerts may reach nobody; none when this key may not know.
func (d *door) doctorAlerts(ctx context.Context) (out []server.Finding) {
	page, err := get[channelPage](ctx, d, "alert_channel.list", nil)
	if err != nil {
		return nil
	}
	if trouble := d.channelTrouble(page); trouble != "" {
		return []server.Finding{{What: trouble, Note: true}}
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
