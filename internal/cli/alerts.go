package cli

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// alertWordings are the commands under `unstuck alerts`.
func alertWordings() map[string]wording {
	return map[string]wording{
		"alert.list": {
			flags: map[string]string{"cue_id": "cue", "alert_type": "type", "offset": hiddenFlag}, refs: map[string]object{"cue_id": aCue}, show: showAlerts,
			like: []string{"alerts list --open"},
		},
		"alert.get": {show: showAlert},
		"alert.ack": {show: showAcked, note: "The id is in `unstuck alerts list`; its beginning will do. The alert stays open until it is over."},
	}
}

type alertView struct {
	ID             string     `json:"id"`
	Type           string     `json:"alert_type"`
	Title          string     `json:"title"`
	Text           string     `json:"text"`
	Count          int64      `json:"count"`
	AcknowledgedAt *time.Time `json:"acknowledged_at"`
	AcknowledgedBy string     `json:"acknowledged_by"`
	CreatedAt      time.Time  `json:"created_at"`
	LastAt         time.Time  `json:"last_at"`
	RecoveredAt    *time.Time `json:"recovered_at"`
	Deliveries     []struct {
		Channel  string     `json:"channel"`
		State    string     `json:"state"`
		Attempts int64      `json:"attempts"`
		SentAt   *time.Time `json:"sent_at"`
		Error    string     `json:"error"`
	} `json:"deliveries"`
}

// deliveryLines say what became of an alert by each channel.
func (d *door) deliveryLines(a *alertView) (out []string) {
	if len(a.Deliveries) == 0 {
		return []string{"Sent to nobody: no channel was set when it was raised."}
	}
	for _, v := range a.Deliveries {
		line := fmt.Sprintf("By %s: %s", v.Channel, v.State)
		if v.SentAt != nil {
			line += " " + d.ago(*v.SentAt)
		}
		if v.SentAt == nil && v.Attempts > 0 {
			line += " after " + plural(int(v.Attempts), "attempt", "attempts")
		}
		if v.Error != "" && v.SentAt == nil {
			line += ": " + v.Error
		}
		out = append(out, line)
	}
	return out
}

func (a *alertView) state() string {
	switch {
	case a.Type == "recovered":
		return "recovered"
	case a.RecoveredAt != nil:
		return "over"
	case a.AcknowledgedAt != nil:
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
		t.add(eight(v.ID), r.ago(v.CreatedAt), v.state(), v.Title)
	}
	r.printTable(t)
	return nil
}

// showAlert prints the text of an alert, and how it stands.
func showAlert(r *run, a *answer) error {
	v, err := decode[alertView](a)
	if err != nil {
		return err
	}
	r.print("%s", v.Text)
	defer func() {
		for _, line := range r.deliveryLines(&v) {
			r.print("%s", line)
		}
	}()
	if v.Type == "recovered" {
		return nil
	}
	r.print("")
	state := "Raised " + r.ago(v.CreatedAt)
	if v.Count > 1 {
		state += fmt.Sprintf(", happened %d times, the last %s", v.Count, r.ago(v.LastAt))
	}
	if v.AcknowledgedAt != nil {
		state += fmt.Sprintf("; acknowledged %s by %s", r.ago(*v.AcknowledgedAt), v.AcknowledgedBy)
	}
	if v.RecoveredAt != nil {
		r.print("%s; over since %s.", state, r.ago(*v.RecoveredAt))
		return nil
	}
	r.print("%s; not over yet.", state)
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
	text := page.Alerts[0].Title + ": unstuck alerts get " + eight(page.Alerts[0].ID)
	if page.Total > 1 {
		text += fmt.Sprintf("     (and %d more: unstuck alerts list --open)", page.Total-1)
	}
	return text, nil
}

// findAlerts looks among the latest alerts for those whose ids begin so.
func (d *door) findAlerts(ctx context.Context, text string) ([]match, error) {
	text = strings.ToLower(text)
	if uuidForm.MatchString(text) {
		return []match{{id: text}}, nil
	}
	if !uuidBegins.MatchString(text) {
		return nil, nil
	}
	var found []match
	for offset := int64(0); offset < searched; offset += 100 {
		page, err := get[alertPage](ctx, d, "alert.list", inputs{"limit": int64(100), "offset": offset})
		if err != nil {
			return nil, err
		}
		for _, v := range page.Alerts {
			if strings.HasPrefix(v.ID, text) {
				found = append(found, match{id: v.ID, name: v.Title})
			}
		}
		if offset+100 >= page.Total {
			break
		}
	}
	return found, nil
}
