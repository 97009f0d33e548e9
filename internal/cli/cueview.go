package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"unstuck/internal/cron"
)

// cueView is what the command line reads of a cue.
type cueView struct {
	ID          string          `json:"id"`
	Name        string          `json:"name"`
	Description *string         `json:"description"`
	Status      string          `json:"status"`
	Transport   string          `json:"transport"`
	Schedule    scheduleView    `json:"schedule"`
	Payload     json.RawMessage `json:"payload"`
	Retry       struct {
		MaxAttempts int `json:"max_attempts"`
	} `json:"retry"`
	Callback     callbackView  `json:"callback"`
	Delivery     *deliveryView `json:"delivery"`
	CatchUp      string        `json:"catch_up"`
	PauseReason  *string       `json:"pause_reason"`
	NextRun      *time.Time    `json:"next_run"`
	LastRun      *time.Time    `json:"last_run"`
	RunCount     int64         `json:"run_count"`
	FiredCount   int64         `json:"fired_count"`
	Verification *policyView   `json:"verification"`
	NeedsOver    bool          `json:"require_payload_override"`
	NeededKeys   []string      `json:"required_payload_keys"`
	OnSuccess    *string       `json:"on_success_fire"`
	OnFailure    struct {
		Email   bool
		Webhook *string
		Pause   bool
	} `json:"on_failure"`
	Warning   *string   `json:"warning"`
	CreatedAt time.Time `json:"created_at"`

	// Only when one cue is shown.
	Executions     []executionView `json:"executions"`
	ExecutionTotal int64           `json:"execution_total"`
	Preview        []struct {
		At time.Time `json:"at"`
	} `json:"preview"`
}

// policyView is what a success must bring to count.
type policyView struct {
	Mode       string   `json:"mode"`
	Assertions []string `json:"required_assertions"`
}

func (p *policyView) words() string {
	if len(p.Assertions) == 0 {
		return p.Mode
	}
	words := "asserts " + strings.Join(p.Assertions, ", ")
	if p.Mode != "none" {
		words = p.Mode + ", and " + words
	}
	return words
}

// needs is what a fire by hand must bring; "" for nothing.
func (c *cueView) needs() string {
	var out []string
	if c.NeedsOver {
		out = append(out, "brings a payload of its own")
	}
	if len(c.NeededKeys) > 0 {
		out = append(out, "has in its payload: "+strings.Join(c.NeededKeys, ", "))
	}
	return strings.Join(out, "; ")
}

type scheduleView struct {
	Type     string     `json:"type"`
	Timezone string     `json:"timezone"`
	Cron     string     `json:"cron"`
	At       *time.Time `json:"at"`
}

// words are a schedule in one line.
func (s scheduleView) words() string {
	if s.At != nil {
		return "once"
	}
	return s.Cron + " " + s.Timezone
}

type cuePage struct {
	Cues  []cueView `json:"cues"`
	Total int64     `json:"total"`
}

// executionView is what the command line reads of an execution.
type executionView struct {
	ID              string          `json:"id"`
	CueID           string          `json:"cue_id"`
	CueName         string          `json:"cue_name"`
	ScheduledFor    time.Time       `json:"scheduled_for"`
	Status          string          `json:"status"`
	Attempts        int64           `json:"attempts"`
	MaxAttempts     int64           `json:"max_attempts"`
	TriggeredBy     string          `json:"triggered_by"`
	ClaimedByWorker *string         `json:"claimed_by_worker"`
	LeaseUntil      *time.Time      `json:"lease_until"`
	OutcomeState    *string         `json:"outcome_state"`
	Outcome         *outcomeView    `json:"outcome"`
	Payload         json.RawMessage `json:"payload"`
	ReplayedFrom    *string         `json:"replayed_from"`
	Unfenced        bool            `json:"unfenced"`
	Missing         []string        `json:"missing"`
	Evidence        int64           `json:"evidence_versions"`
	Repeated        bool            `json:"repeated"`
	ChainID         *string         `json:"chain_id"`
	ChainParent     *string         `json:"chain_parent_id"`
	ChainChild      *string         `json:"chain_child_id"`
	ChainEnd        *string         `json:"chain_stopped"`
	Criteria        json.RawMessage `json:"exit_criteria"`

	// Of webhooks.
	Transport    string     `json:"transport"`
	OutcomeBy    *string    `json:"outcome_by"`
	Unconfirmed  bool       `json:"unconfirmed"`
	NextRetry    *time.Time `json:"next_retry"`
	HTTPStatus   *int       `json:"http_status"`
	ErrorMessage *string    `json:"error_message"`
	Redelivered  int64      `json:"redelivered"`
	ResponseBody *string    `json:"response_body"`
}

// addChainRows says where an execution stands in a chain, and what the fire asks to be checked.
func (e *executionView) addChainRows(t *table) {
	if e.ChainParent != nil {
		t.add("fired after", *e.ChainParent)
	}
	switch {
	case e.ChainChild != nil:
		t.add("its success fired", *e.ChainChild)
	case e.ChainEnd != nil:
		t.add("its success fired", "nothing: "+map[string]string{
			"gone": "the next cue is deleted", "paused": "the next cue is paused", "plan_limit": "the plan had no room",
		}[*e.ChainEnd])
	}
	if e.ChainID != nil {
		t.add("whole chain", "unstuck executions list --chain "+*e.ChainID)
	}
	if len(e.Criteria) > 0 && string(e.Criteria) != "null" {
		t.add("to be checked", string(e.Criteria))
	}
}

type outcomeView struct {
	Success    bool       `json:"success"`
	Result     *string    `json:"result"`
	Error      *string    `json:"error"`
	Summary    *string    `json:"summary"`
	ExternalID *string    `json:"external_id"`
	ResultURL  *string    `json:"result_url"`
	ResultRef  *string    `json:"result_ref"`
	RecordedAt *time.Time `json:"recorded_at"`
	Warning    *string    `json:"warning"`
}

type executionPage struct {
	Executions []executionView `json:"executions"`
	Total      int64           `json:"total"`
	NextCursor *string         `json:"next_cursor"`
}

// eight are the first characters of an execution's id, by which people call it.
func eight(id string) string { return id[:min(8, len(id))] }

// searched is how many executions are looked through for a beginning of an id.
const searched = 1000

// findExecutions looks for a beginning of an id among the newest executions.
func (d *door) findExecutions(ctx context.Context, text string) ([]match, error) {
	text = strings.ToLower(text)
	if uuidForm.MatchString(text) {
		return []match{{id: text}}, nil
	}
	if !uuidBegins.MatchString(text) {
		return nil, nil
	}
	for id := range d.readLeases() { // what this user has taken needs no looking
		if strings.HasPrefix(id, text) {
			return []match{{id: id}}, nil
		}
	}
	in := inputs{"limit": int64(100)}
	var found []match
	for range searched / 100 {
		page, err := get[executionPage](ctx, d, "execution.list", in)
		if err != nil {
			return nil, err
		}
		for _, e := range page.Executions {
			if strings.HasPrefix(e.ID, text) {
				found = append(found, match{id: e.ID, name: e.CueName})
			}
		}
		if page.NextCursor == nil {
			break
		}
		in["cursor"] = *page.NextCursor
	}
	return found, nil
}

// nextLine lists due times in the zone of their cue and, where that shows another time, in the viewer's.
func (d *door) nextLine(times []time.Time, zoneName string) string {
	if len(times) == 0 {
		return "nothing: it is over, or has fired"
	}
	zone, err := cron.LoadZone(zoneName)
	if err != nil {
		zone = time.UTC
	}
	if zone = plainUTC(zone); zone == time.UTC {
		zoneName = "UTC"
	}
	line := d.timesIn(times, zone) + " " + zoneName
	if !sameZone(zone, d.Zone, times[0]) {
		line += "   =   " + d.timesIn(times, d.Zone) + " " + d.Zone.String() + " (yours)"
	}
	return line
}

// plainUTC is time.UTC for the zones that are UTC under another name, so that it is called one thing everywhere.
func plainUTC(zone *time.Location) *time.Location {
	switch zone.String() {
	case "Etc/UTC", "Etc/UCT", "Etc/Universal", "Etc/Zulu", "UCT", "Universal", "Zulu":
		return time.UTC
	}
	return zone
}

// timesIn writes times of today without their date, and without seconds when none has any.
func (d *door) timesIn(times []time.Time, zone *time.Location) string {
	clock := "15:04"
	for _, t := range times {
		if t.Second() != 0 {
			clock = "15:04:05"
		}
	}
	today, layout := d.Now().In(zone).Format(time.DateOnly), "2 Jan "
	for _, t := range times {
		if t.Sub(d.Now()).Abs() > 300*24*time.Hour {
			layout = "2 Jan 2006 "
		}
	}
	var out []string
	for _, t := range times {
		if t = t.In(zone); t.Format(time.DateOnly) == today {
			out = append(out, t.Format(clock))
		} else {
			out = append(out, t.Format(layout+clock))
		}
	}
	return strings.Join(out, "  ")
}

// showNext prints the next due times of a cue. What was done before is done, also when they cannot be read.
func (r *run) showNext(id string, n int64) {
	c, err := get[cueView](r.ctx, r.door, "cue.get", inputs{"id": id, "preview": n, "execution_limit": int64(1)})
	if err != nil {
		r.say("The next due times could not be read: %v", err)
		return
	}
	r.print("Next    %s", r.nextLine(c.previews(), c.Schedule.Timezone))
}

func (c *cueView) previews() []time.Time {
	var out []time.Time
	for _, p := range c.Preview {
		out = append(out, p.At)
	}
	return out
}

// moment reads a time that people typed: with an offset, or as wall time in a zone.
func moment(text string, zone *time.Location) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04Z07:00", "2006-01-02T15:04Z07:00"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"2006-01-02 15:04", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02T15:04:05", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, zone); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time; write 2026-11-22 09:05 or 2026-11-22T09:05:00+01:00", text)
}
