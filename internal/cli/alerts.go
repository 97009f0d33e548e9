package cli

import (
	"context"
	"fmt"
	"time"
)

// alertWordings are the commands under `unstuck alerts`.
func alertWordings() map[string]wording {
	return map[string]wording{
		"alert.list": {flags: map[string]string{"cue_id": "cue", "alert_type": "type"}, refs: map[string]object{"cue_id": aCue}, show: showAlerts,
			like: []string{"alerts list --open"}},
		"alert.ack": {noun: "alerts", verb: "ack", show: showAcked,
			note: "The id is in `unstuck alerts list`. The alert stays open until the cue succeeds."},
	}
}

type alertView struct {
	ID           string     `json:"id"`
	Type         string     `json:"alert_type"`
	Title        string     `json:"title"`
	Acknowledged bool       `json:"acknowledged"`
	CreatedAt    time.Time  `json:"created_at"`
	RecoveredAt  *time.Time `json:"recovered_at"`
}

func (a *alertView) state() string {
	switch {
	case a.RecoveredAt != nil:
		return "over"
	case a.Acknowledged:
		return "acknowledged"
	}
	return "open"
}

type alertPage struct {
	Alerts []alertView `json:"alerts"`
	Total  int64       `json:"total"`
}

func showAlerts(r *run, a *answer) error {
	page, err := decode[alertPage](a)
	if err != nil {
		return err
	}
	if len(page.Alerts) == 0 {
		r.print("No alerts.")
		return nil
	}
	t := newTable("ALERT", "RAISED", "STATE", "WHAT")
	for i := range page.Alerts {
		v := &page.Alerts[i]
		t.add(v.ID, r.ago(v.CreatedAt), v.state(), v.Title)
	}
	r.printTable(t)
	return nil
}

func showAcked(r *run, a *answer) error {
	v, err := decode[alertView](a)
	if err == nil {
		r.print("Acknowledged: %s", v.Title)
	}
	return err
}

// openAlert is the newest alert that is not over and that nobody acknowledged; "" when there is none, or with an error.
func (d *door) openAlert(ctx context.Context) (string, error) {
	page, err := get[alertPage](ctx, d, "alert.list", inputs{"open": true, "acknowledged": false, "limit": int64(1)})
	if err != nil || len(page.Alerts) == 0 {
		return "", err
	}
	text := page.Alerts[0].Title
	if page.Total > 1 {
		text += fmt.Sprintf("     (%d open alerts: unstuck alerts list --open)", page.Total)
	} else {
		text += ": unstuck alerts list --open"
	}
	return text, nil
}
