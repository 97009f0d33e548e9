package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"unstuck/internal/cron"
)

// cueFlags hides the fields that own flags fill, beside those in `more`.
func cueFlags(more map[string]string) map[string]string {
	out := map[string]string{
		"schedule": hiddenFlag, "callback": hiddenFlag, "retry": hiddenFlag, "on_failure": hiddenFlag, "verification": hiddenFlag, "transport": hiddenFlag,
		"cron": hiddenFlag, "at": hiddenFlag, "timezone": hiddenFlag, "callback_url": hiddenFlag, "worker": hiddenFlag, "status": hiddenFlag, "delivery": hiddenFlag,
		"on_success_fire": "then",
	}
	maps.Copy(out, more)
	return out
}

// cueWordings are the commands under `unstuck cues`.
func cueWordings() map[string]wording {
	return map[string]wording{
		"cue.create": {args: []string{"name"}, flags: cueFlags(nil), own: ownCue, show: showCueCreated,
			note: "--cron has five fields (minute hour day month weekday), a sixth for seconds, or a word such as @daily. Without --zone it is UTC.\n\n" +
				"Work --to worker waits until a program takes it; /docs/help/workers on your server shows one, with nothing but curl.\n\n" +
				"A callback's end is known in one of three ways: a 2xx is done (delivered, not confirmed); with --outcome-in-reply its answer says, as {\"success\": true}; with --outcome-within it is reported within that time.",
			like: []string{"cues create hello --cron '*/5 * * * *' --to worker --payload '{\"who\":\"world\"}'",
				"cues create nightly-report --cron '0 3 * * *' --zone Europe/Berlin --verify require_result_url", "cues create launch --at '2026-12-01 09:00' --zone Europe/Berlin --payload @launch.json",
				"cues create fetch --cron '0 2 * * *' --then load", "cues create sync --cron '@hourly' --to https://hooks.example.com/sync --header 'Authorization: Bearer …' --outcome-within 10m"}},
		"cue.list":   {show: showCues, like: []string{"cues list --name 'crm-*'", "cues list --status paused"}},
		"cue.get":    {own: ownCueGet, flags: map[string]string{"execution_limit": "executions", "execution_offset": hiddenFlag}, show: showCue},
		"cue.update": {flags: cueFlags(nil), own: ownCueUpdate, show: showCueChanged, like: []string{"cues update nightly-report --zone Europe/Berlin", "cues update hello --cron '*/10 * * * *'"}},
		"cue.pause":  {show: showCueChanged}, "cue.resume": {show: showCueChanged},
		"cue.delete": {ask: askDeleteCue, show: func(r *run, _ *answer) error {
			r.print("Deleted cue %s. Its ledger stays: unstuck cues ledger %s", r.typed["id"], r.in["id"])
			return nil
		}},
		"cue.fire":        {flags: cueFlags(map[string]string{"payload_override": "payload", "send_at": "at"}), show: showFired, like: []string{"cues fire hello", "cues fire hello --payload '{\"who\":\"me\"}'", "cues fire invoice --idempotency-key order-4711 --at '2026-12-01 09:00'"}},
		"cue.bulk_delete": {ask: askBulkDelete, show: showBulkDeleted, like: []string{"cues bulk-delete --ids old-import,cue_k3v9w2m1q8zt"}},
		"cue.why": {show: showWhy, note: "Without --at: what the cue did last, or why it does nothing now. Times in the sentence are UTC.",
			like: []string{"cues why nightly-report", "cues why nightly-report --at 2026-11-22T02:00Z"}},
		"cue.ledger": {show: showLedger, note: "Works for a deleted cue too, by its id.",
			like: []string{"cues ledger nightly-report --from 2026-11-01"}},
		"echo.store": {noun: "echo", verb: "post", hidden: true}, "echo.get": {noun: "echo", verb: "get"},
		"usage.get": {show: showUsage, top: true, verb: "usage"},
	}
}

// cueOptions are the own flags of create and update.
type cueOptions struct {
	cron, at, zone, verify string
	assertions             []string
	attempts               int64
	pauseOnFailure         bool
	mailFailures           bool
	tellFailures           string
	callbackOptions
	fs *pflag.FlagSet
}

func (o *cueOptions) add(fs *pflag.FlagSet) {
	o.fs = fs
	fs.StringVar(&o.cron, "cron", "", "again and again: minute hour day month weekday")
	fs.StringVar(&o.at, "at", "", "once, at this moment; without an offset it is read in --zone")
	fs.StringVar(&o.zone, "zone", "", "time zone of the schedule, like Europe/Berlin (default UTC)")
	fs.Int64Var(&o.attempts, "attempts", 3, "how often an execution is handed out, or its callback called, at most")
	fs.StringVar(&o.verify, "verify", "", "what a reported success must bring to count: none, require_external_id, require_result_url, require_artifacts, manual")
	fs.StringSliceVar(&o.assertions, "require-assertions", nil, "what a reported success must assert to count, by name, such as rows_match")
	fs.BoolVar(&o.pauseOnFailure, "pause-on-failure", false, "pause when an execution was missed, or failed without a report")
	fs.StringVar(&o.tellFailures, "tell-failures", "", "address that is told when an execution was missed, or failed without a report; none for nobody")
	fs.BoolVar(&o.mailFailures, "mail-failures", false, "send an e-mail to the address for alerts when an execution was missed, or failed without a report")
	o.callbackOptions.add(fs)
}

// fill puts what the flags say, beside the schedule, into the inputs.
func (o *cueOptions) fill(r *run) error {
	if err := o.callbackOptions.fill(r, o.fs); err != nil {
		return err
	}
	retry := map[string]any{}
	if o.fs.Changed("attempts") {
		retry["max_attempts"] = o.attempts
	}
	if o.fs.Changed("backoff") {
		retry["backoff_minutes"] = o.backoff
	}
	if len(retry) > 0 {
		r.in["retry"] = retry
	}
	if o.verify != "" || o.fs.Changed("require-assertions") {
		policy := map[string]any{"mode": firstOf(o.verify, "none")}
		if len(o.assertions) > 0 {
			policy["required_assertions"] = o.assertions
		}
		r.in["verification"] = policy
	}
	return o.fillOnFailure(r)
}

// fillOnFailure puts in what happens on a failure. The server takes its parts together, so that of a change of one the others are asked.
func (o *cueOptions) fillOnFailure(r *run) error {
	pause, tell, mails := o.fs.Changed("pause-on-failure"), o.fs.Changed("tell-failures"), o.fs.Changed("mail-failures")
	if !pause && !tell && !mails {
		return nil
	}
	if r.op.Name == "cue.update" && !(pause && tell && mails) {
		c, err := r.stored()
		if err != nil {
			return err
		}
		if !pause {
			o.pauseOnFailure = c.OnFailure.Pause
		}
		if !tell && c.OnFailure.Webhook != nil {
			o.tellFailures = *c.OnFailure.Webhook
		}
		if !mails {
			o.mailFailures = c.OnFailure.Email
		}
	}
	on := map[string]any{"pause": o.pauseOnFailure, "email": o.mailFailures}
	if o.tellFailures != "" && o.tellFailures != "none" {
		on["webhook"] = o.tellFailures
	}
	r.in["on_failure"] = on
	return nil
}

// stored is the cue that is to be changed, as it is.
func (r *run) stored() (cueView, error) {
	if err := r.resolveAll(); err != nil {
		return cueView{}, err
	}
	c, err := get[cueView](r.ctx, r.door, "cue.get", inputs{"id": r.in["id"]})
	if err != nil {
		err = r.refused(err)
	}
	return c, err
}

// schedule is the schedule that the flags name; nil when they name none.
func (o *cueOptions) schedule() (map[string]any, error) {
	s := map[string]any{}
	if o.zone != "" {
		if _, err := cron.LoadZone(o.zone); err != nil {
			return nil, noZone(o.zone)
		}
		s["timezone"] = o.zone
	}
	switch {
	case o.cron != "" && o.at != "":
		return nil, usage("--cron and --at exclude each other.")
	case o.cron != "":
		s["type"], s["cron"] = "recurring", o.cron
	case o.at != "":
		zone, err := cron.LoadZone(firstOf(o.zone, "UTC"))
		if err != nil {
			return nil, noZone(o.zone)
		}
		t, err := moment(o.at, zone)
		if err != nil {
			return nil, usage("--at: %v", err)
		}
		s["type"], s["at"] = "once", t.Format(time.RFC3339)
	case o.zone == "":
		return nil, nil
	}
	return s, nil
}

// noZone refuses what is no time zone.
func noZone(name string) error {
	if near := nearZone(name); near != "" {
		return usage("There is no time zone %q. Did you mean %s?", name, near)
	}
	return usage("There is no time zone %q; write it like Europe/Berlin.", name)
}

// nearZone is the zone that a name probably means: written with other case, by its city alone, or with a slip.
func nearZone(name string) string {
	word := strings.ToLower(strings.ReplaceAll(name, " ", "_"))
	lower := map[string]string{}
	for _, zone := range cron.ZoneNames() {
		short := strings.ToLower(zone)
		lower[short] = zone
		if short == word || strings.HasSuffix(short, "/"+word) {
			return zone
		}
	}
	if len(word) < 5 { // of an abbreviation, such as CEST, every guess would be wrong
		return ""
	}
	return lower[nearest(word, slices.Sorted(maps.Keys(lower)))]
}

func ownCue(fs *pflag.FlagSet) func(*run) error {
	o := &cueOptions{}
	o.add(fs)
	fs.StringVar(&o.to, "to", "worker", "who does the work: worker, or the address of a callback")
	return func(r *run) error {
		s, err := o.schedule()
		switch {
		case err != nil:
			return err
		case s["type"] == nil:
			return usage("Say when: --cron '*/5 * * * *' for again and again, or --at '2026-12-01 09:00' for once.")
		}
		r.in["schedule"] = s
		switch r.in["transport"] = "webhook"; {
		case o.to == "worker":
			r.in["transport"] = "worker"
		case !strings.Contains(o.to, "://"):
			return usage("--to %s is nobody who does work. It is --to worker, or the address of a callback such as --to https://hooks.example.com/sync", shellWord(o.to))
		}
		if err := o.fill(r); err != nil {
			return err
		}
		if o.zone == "" && namesHour(o.cron) && r.Zone.String() != "UTC" {
			r.say("Zone    UTC, because no --zone was given. To mean your own clock: --zone %s", r.Zone)
		}
		return nil
	}
}

// namesHour says whether the zone matters for a cron expression: it names hours or days.
func namesHour(expr string) bool {
	fields := strings.Fields(expr)
	if len(fields) < 5 {
		return expr != "" && expr != "@hourly"
	}
	return fields[1] != "*" || fields[2] != "*" || fields[4] != "*"
}

func ownCueUpdate(fs *pflag.FlagSet) func(*run) error {
	o := &cueOptions{}
	o.add(fs)
	fs.StringVar(&o.to, "to", "", "another URL of the callback")
	return func(r *run) error {
		s, err := o.schedule()
		if err != nil {
			return err
		}
		if err := o.fill(r); err != nil {
			return err
		}
		if s == nil {
			return nil
		}
		if s["type"] == nil { // a new zone for the schedule that there is
			c, err := r.stored()
			if err != nil {
				return err
			}
			s["type"] = c.Schedule.Type
			if c.Schedule.At != nil {
				s["at"] = c.Schedule.At.Format(time.RFC3339)
			} else {
				s["cron"] = c.Schedule.Cron
			}
		}
		r.in["schedule"] = s
		return nil
	}
}

func ownCueGet(*pflag.FlagSet) func(*run) error {
	return func(r *run) error {
		if r.in["preview"] == nil && !r.door.flags.json {
			r.in["preview"] = int64(3)
		}
		return nil
	}
}

func showCueCreated(r *run, a *answer) error {
	c, err := decode[cueView](a)
	if err != nil {
		return err
	}
	waits, warning := "for workers", ""
	if c.Warning != nil {
		warning = *c.Warning
	}
	rest, lonely := strings.CutPrefix(warning, noWorkers)
	switch {
	case c.Transport == "webhook":
		waits = "calls " + c.Callback.words()
	case lonely:
		waits = "waits for a worker"
	}
	r.print("Created cue %s  %s  %s, %s", c.Name, c.ID, c.Status, waits)
	r.showNext(c.ID, 3)
	r.caution(strings.TrimSpace(rest))
	return nil
}

// noWorkers begins the warning of a new cue that no worker was seen for (CueAPI's words).
const noWorkers = "No active workers found. Start a worker to process this cue."

func showCueChanged(r *run, a *answer) error {
	c, err := decode[cueView](a)
	if err != nil {
		return err
	}
	switch r.op.Name {
	case "cue.pause":
		r.print("Paused cue %s. Due times from now on are skipped; the ledger says so. Executions that exist go on.", c.Name)
		return nil
	case "cue.resume":
		r.print("Resumed cue %s", c.Name)
	default:
		r.print("Changed cue %s  %s  %s", c.Name, c.ID, c.Status)
	}
	r.showNext(c.ID, 3)
	if c.Warning != nil {
		r.caution(*c.Warning)
	}
	return nil
}

func showCues(r *run, a *answer) error {
	page, err := decode[cuePage](a)
	if err != nil {
		return err
	}
	if len(page.Cues) == 0 {
		r.print("No cues.")
		return nil
	}
	t := newTable("NAME", "STATUS", "SCHEDULE", "NEXT ("+r.Zone.String()+")", "LAST", "FIRED", "ID")
	for i := range page.Cues {
		c := &page.Cues[i]
		next, last := "–", "–" // fired by hand, but never due, has no last due time
		if c.FiredCount == 0 {
			last = "not yet"
		}
		if c.NextRun != nil {
			next = r.timesIn([]time.Time{*c.NextRun}, r.Zone)
		}
		if c.LastRun != nil {
			last = r.ago(*c.LastRun)
		}
		t.add(c.Name, c.Status, c.Schedule.words(), next, last, thousands(c.FiredCount), c.ID)
	}
	if r.Width > 0 && r.Width < narrowBelow { // the name has to do
		t.dropLast()
	}
	r.printTable(t)
	if more := page.Total - int64(len(page.Cues)); more > 0 {
		r.say("%d of %d shown; the others: --offset, or --name 'beginning*'", len(page.Cues), page.Total)
	}
	return nil
}

func showCue(r *run, a *answer) error {
	c, err := decode[cueView](a)
	if err != nil {
		return err
	}
	r.print("%s  %s · %s · %s", c.Name, c.ID, c.Status, c.Schedule.words())
	t := newTable()
	if c.Description != nil {
		t.add("about", *c.Description)
	}
	next := r.nextLine(c.previews(), c.Schedule.Timezone)
	if c.Status == "paused" {
		next = "nothing while it is paused; resumed now: " + next
	}
	t.add("next", next)
	if c.LastRun != nil {
		t.add("last", r.ago(*c.LastRun))
	}
	if c.PauseReason != nil {
		t.add("paused", *c.PauseReason)
	}
	if c.Transport == "webhook" {
		t.add("calls", c.Callback.words())
		t.add("done when", c.Delivery.words())
	}
	t.add("payload", string(c.Payload))
	t.add("attempts", fmt.Sprintf("at most %d", c.Retry.MaxAttempts))
	if c.CatchUp != "run_once_if_missed" {
		t.add("missed", map[string]string{"skip_missed": "due times late by more than a minute are skipped", "replay_all_missed": "every due time runs late, the latest 100 of them"}[c.CatchUp])
	}
	if c.OnFailure.Pause {
		t.add("a failure", "pauses it")
	}
	if c.OnFailure.Webhook != nil {
		t.add("a failure tells", *c.OnFailure.Webhook)
	}
	if c.OnFailure.Email {
		t.add("a failure is told", "by e-mail, to the address for alerts")
	}
	if c.OnSuccess != nil {
		t.add("a success fires", *c.OnSuccess)
	}
	if needs := c.needs(); needs != "" {
		t.add("a fire by hand", needs)
	}
	if c.Verification != nil {
		t.add("verification", c.Verification.words())
	}
	runs := " ended"
	if c.Transport == "webhook" {
		runs = " attempts"
	}
	t.add("fired", thousands(c.FiredCount)+" due times, "+thousands(c.RunCount)+runs)
	r.printTable(t)
	if len(c.Executions) > 0 {
		r.print("")
		r.printTable(r.executionTable(c.Executions))
	}
	return nil
}

func askDeleteCue(r *run) (string, error) {
	c, err := get[cueView](r.ctx, r.door, "cue.get", inputs{"id": r.in["id"], "execution_limit": int64(1)})
	if err != nil {
		return "", r.refused(err)
	}
	return fmt.Sprintf("Cue %s  %s is deleted for good, with %s. Its ledger stays.", nameLine(c.Name), c.ID,
		plural(int(c.ExecutionTotal), "execution", "executions")), nil
}

func askBulkDelete(r *run) (string, error) {
	ids, _ := r.in["ids"].([]string)
	return fmt.Sprintf("%s deleted for good, with all executions: %s. Their ledgers stay.", plural(len(ids), "cue is", "cues are"), strings.Join(ids, ", ")), nil
}

func showBulkDeleted(r *run, a *answer) error {
	d, err := decode[struct{ Deleted, Skipped []string }](a)
	if err != nil {
		return err
	}
	r.print("Deleted %s.", plural(len(d.Deleted), "cue", "cues"))
	if len(d.Skipped) > 0 {
		r.print("Skipped, because they are not there: %s", strings.Join(d.Skipped, ", "))
	}
	return nil
}

func showFired(r *run, a *answer) error {
	e, err := decode[executionView](a)
	if err != nil {
		return err
	}
	what, when := "a worker may take it", "now"
	if e.Transport == "webhook" {
		what = "the callback is called"
	}
	if e.ScheduledFor.After(r.Now()) {
		when = "from " + r.clock(e.ScheduledFor) + " UTC on"
	}
	if e.Repeated {
		r.print("Fired %s before with this idempotency key  execution %s  %s: nothing new was made", r.typed["id"], eight(e.ID), e.Status)
		return nil
	}
	r.print("Fired %s  execution %s  %s: %s %s", r.typed["id"], eight(e.ID), e.Status, what, when)
	return nil
}

func showLedger(r *run, a *answer) error {
	l, err := decode[struct {
		Name                                                 string
		From, To                                             time.Time
		Expected, Fired, Coalesced, Skipped, Missed, Pending int64
		Closed                                               bool
		HasMore                                              bool `json:"has_more"`
		Beside                                               struct {
			Manual        int64 `json:"manual_fire"`
			Chain, Replay int64
		}
		Removed *struct {
			Scheduled, Beside int64
			At                time.Time
			Sealed            bool
		}
		Entries []struct {
			Ending, Reason string
			First, Last    time.Time
			Count          int64
		}
	}](a)
	if err != nil {
		return err
	}
	const layout = "2 Jan 2006 15:04:05"
	r.print("%s  %s to %s UTC", l.Name, l.From.UTC().Format(layout), l.To.UTC().Format(layout))
	closed := "the ledger closes"
	if !l.Closed {
		closed = "the ledger does NOT close"
	}
	sum := fmt.Sprintf("%s due = %s fired", thousands(l.Expected), thousands(l.Fired))
	for _, part := range []struct {
		n     int64
		words string
	}{{l.Coalesced, "merged into a later one"}, {l.Skipped, "skipped"}, {l.Missed, "missed"}, {l.Pending, "due this moment"}} {
		if part.n > 0 {
			sum += " + " + thousands(part.n) + " " + part.words
		}
	}
	r.print("%s: %s", sum, closed)
	beside := ""
	for _, part := range []struct {
		n     int64
		words string
	}{{l.Beside.Manual, "fired by hand"}, {l.Beside.Chain, "fired by another cue's success"}, {l.Beside.Replay, "replayed"}} {
		if part.n > 0 {
			beside += ", " + thousands(part.n) + " " + part.words
		}
	}
	if beside != "" {
		r.print("Beside the schedule: %s", beside[2:])
	}
	if d := l.Removed; d != nil {
		seal := "sealed"
		if !d.Sealed {
			seal = "the seal does NOT fit: somebody changed the database"
		}
		r.print("Kept no longer: %s executions of its schedule and %s others, the last removed on %s; %s", thousands(d.Scheduled), thousands(d.Beside), d.At.UTC().Format(layout), seal)
	}
	if len(l.Entries) > 0 {
		t := newTable("FIRST (UTC)", "LAST (UTC)", "DUE TIMES", "ENDED AS", "BECAUSE")
		for _, e := range l.Entries {
			ending := e.Ending
			if ending == "coalesced" {
				ending = "merged into a later one"
			}
			t.add(e.First.UTC().Format(layout), e.Last.UTC().Format(layout), thousands(e.Count), ending, firstOf(strings.ReplaceAll(e.Reason, "_", " "), "–"))
		}
		r.print("")
		r.printTable(t)
	}
	if l.HasMore {
		r.say("There are more entries: --limit")
	}
	if !l.Closed {
		return exitWith(exitOurs)
	}
	return nil
}

// outcomeSums are the executions that ended, as their parts, and apart from them how many reports came: some end without one.
func outcomeSums(reported, succeeded, failed int64) string {
	return fmt.Sprintf("%s ended: %s success, %s failed or missed; reports: %s", thousands(succeeded+failed), thousands(succeeded), thousands(failed), thousands(reported))
}

func showUsage(r *run, a *answer) error {
	u, err := decode[struct {
		Plan   string
		Period struct{ Start, End string }
		Cues   struct{ Used, Limit int64 }
		Execs  struct {
			Used, Limit int64
			Percent     int64 `json:"percent_used"`
			Projected   int64 `json:"projected_month_end"`
			WillExceed  bool  `json:"will_exceed_limit"`
		} `json:"executions"`
		Outcomes struct{ Reported, Succeeded, Failed int64 }
		Rate     struct {
			Limit   int64
			Current int64 `json:"current_usage"`
		} `json:"rate_limit"`
	}](a)
	if err != nil {
		return err
	}
	r.print("Plan %s, %s to %s (UTC)", u.Plan, u.Period.Start, u.Period.End)
	of := func(used, limit int64) string {
		if limit >= noCap {
			return thousands(used) + ", no limit"
		}
		return thousands(used) + " of " + thousands(limit)
	}
	execs := of(u.Execs.Used, u.Execs.Limit)
	if u.Execs.Limit < noCap {
		execs += fmt.Sprintf(" (%d %%), about %s by the end of the month", u.Execs.Percent, thousands(u.Execs.Projected))
		if u.Execs.WillExceed {
			execs += ": too many for the plan"
		}
	}
	t := newTable()
	t.add("  cues", of(u.Cues.Used, u.Cues.Limit))
	t.add("  executions", execs)
	t.add("  outcomes", outcomeSums(u.Outcomes.Reported, u.Outcomes.Succeeded, u.Outcomes.Failed))
	t.add("  calls", of(u.Rate.Current, u.Rate.Limit)+" in the last minute")
	r.printTable(t)
	return nil
}
