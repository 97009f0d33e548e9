package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// overview is what `unstuck` alone prints: the server, who you are, what needs attention, what comes next.
func (d *door) overview(ctx context.Context) error {
	c, err := d.client()
	if err != nil {
		return err
	}
	line := func(label, format string, args ...any) { d.print("%-11s%s", label, fmt.Sprintf(format, args...)) }
	health, err := get[healthView](ctx, d, "server.health", nil)
	if err != nil {
		var f *fault
		if !errors.As(err, &f) || f.code != exitUnreachable {
			return err
		}
		line("Server", "%s, not reached", c.url)
		line("You", "%s", firstOf(c.source, "not logged in"))
		line("Attention", "the server does not answer")
		line("Next", "unstuck serve     (or set %s, when the server is elsewhere)", urlVar)
		return nil
	}
	line("Server", "%s, unstuck %s, %s", c.url, health.Version, health.Status)
	if c.key == "" {
		line("You", "not logged in")
		line("Attention", "%s", health.trouble())
		line("Next", "unstuck auth login     (or, on the machine of the server: unstuck auth login --local)")
		return nil
	}
	self, err := get[keyView](ctx, d, "key.self", nil)
	if err != nil {
		return err
	}
	me, err := get[whoami](ctx, d, "me.get", nil)
	if err != nil {
		return err
	}
	line("You", "%s: %s, %s, %s", you(&self, me), self.Redacted, scopeWords(self.Scope), d.until(&self))
	trouble, keys := d.troubles(ctx, &self, health)
	line("Attention", "%s", trouble)
	if reach := d.reachWords(ctx); reach != "" {
		line("Alerts", "%s", reach)
	}
	line("Next", "%s", d.whatNext(ctx, keys))
	return nil
}

// healthView is how a server is.
type healthView struct {
	Status    string    `json:"status"`
	Version   string    `json:"version"`
	Timestamp time.Time `json:"timestamp"`
	Services  struct {
		Database  string `json:"database"`
		Scheduler string `json:"scheduler"`
	} `json:"services"`
	Problem string `json:"problem"`
}

// trouble says what is wrong with a server.
func (h healthView) trouble() string {
	switch {
	case h.Services.Database != "ok":
		return lowerFirst(strings.TrimSuffix(h.Problem, "."))
	case h.Services.Scheduler != "ok":
		return "the scheduler stands still"
	}
	return "nothing"
}

// troubles says what needs attention, most urgent first, in one line; and how many integration keys there are, -1 when this key
// may not look.
func (d *door) troubles(ctx context.Context, self *keyView, h healthView) (text string, keys int) {
	list, err := d.allKeys(ctx, inputs{})
	keys = -1
	if err == nil {
		keys = 0
		for _, k := range list {
			if k.Kind != "personal" {
				keys++
			}
		}
	} else {
		list = []keyView{*self}
	}
	if t := h.trouble(); t != "nothing" {
		return t, keys
	}
	lacks := lackedBy(err)
	alert, err := d.openAlert(ctx)
	if alert != "" {
		return alert, keys
	}
	lacks = append(lacks, lackedBy(err)...)
	missed, err := d.missed(ctx)
	if missed != "" {
		return missed, keys
	}
	lacks = append(lacks, lackedBy(err)...)
	due := d.needAttention(ctx, list)
	switch {
	case len(due) == 0 && len(lacks) > 0:
		slices.Sort(lacks)
		return "not known: this key may not look (it lacks " + strings.Join(slices.Compact(lacks), ", ") + ")", keys
	case len(due) == 0:
		return "nothing", keys
	}
	why, mend := d.attentionWords(due[0], attentionTo(list, due[0]))
	text = due[0].Name + " " + why + ": " + mend
	if len(due) > 1 {
		text += fmt.Sprintf("     (and %d more: unstuck keys list)", len(due)-1)
	}
	return text, keys
}

// lackedBy are the permissions for want of which a question was refused; none when it was not.
func lackedBy(err error) []string {
	var no *refusal
	if errors.As(err, &no) {
		return slices.Clone(no.Missing)
	}
	return nil
}

// missed names the newest execution that nobody took within the last day; "" when there is none, or with an error.
func (d *door) missed(ctx context.Context) (string, error) {
	page, err := get[executionPage](ctx, d, "execution.list", inputs{"status": "missed", "limit": int64(1)})
	if err != nil || len(page.Executions) == 0 {
		return "", err
	}
	e := page.Executions[0]
	if d.Now().Sub(e.ScheduledFor) > 24*time.Hour {
		return "", nil
	}
	text := fmt.Sprintf("no worker took %s, due %s: unstuck executions replay %s", e.CueName, d.ago(e.ScheduledFor), eight(e.ID))
	if page.Total > 1 {
		text += fmt.Sprintf("     (%d were missed in all: unstuck executions list --status missed)", page.Total)
	}
	return text, nil
}

// whatNext is the next due time of a cue, or what to do while there is none.
func (d *door) whatNext(ctx context.Context, keys int) string {
	page, err := get[cuePage](ctx, d, "cue.list", inputs{"status": "active", "limit": int64(100)})
	if err != nil {
		return "unstuck keys access     (says what this key can do)"
	}
	var next *cueView
	for i := range page.Cues {
		c := &page.Cues[i]
		if c.NextRun != nil && (next == nil || c.NextRun.Before(*next.NextRun)) {
			next = c
		}
	}
	switch {
	case next != nil:
		return fmt.Sprintf("%s is due at %s, in %s", next.Name, d.nextLine([]time.Time{*next.NextRun}, "UTC"), span(next.NextRun.Sub(d.Now())))
	case keys == 0:
		return `unstuck keys create "laptop agent" --scope worker     (a key for your first tool)`
	}
	return "unstuck cues create hello --cron '*/5 * * * *'     (a first cue)"
}
