package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"unstuck/internal/op"
)

// executionWordings are the commands under `unstuck executions` and `unstuck workers`.
func executionWordings() map[string]wording {
	worker := map[string]string{"X-Worker-Id": hiddenFlag}
	return map[string]wording{
		"execution.claim": {more: "EXECUTION", own: ownClaim, done: keepClaimed, show: showClaimed,
			note: "Without EXECUTION: the oldest work. Without --worker-id: the name of this machine. A worker of your own needs no command line: /docs/help/workers on your server shows one.",
			like: []string{"executions claim --worker-id laptop", "executions claim --wait 30 --task nightly", "executions claim 5f0c1b9e"}},
		"execution.claim_one": {hidden: true, done: keepClaimed, show: showClaimed},
		"execution.claimable": {show: showClaimable},
		"execution.heartbeat": {flags: worker, ready: (*run).addLeaseToken, done: renewLease, show: showRenewed},
		"execution.release":   {flags: map[string]string{"X-Worker-Id": hiddenFlag, "begun": hiddenFlag, "lease_token": hiddenFlag}, own: ownRelease, ready: (*run).addLeaseToken, done: forgetLease, show: showReleased},
		"execution.report": {flags: worker, own: ownReport, ready: (*run).addLeaseToken, done: forgetLease, show: showReported,
			like: []string{"executions report 5f0c1b9e --success --summary 'said hello' --result-url https://example.com/hello.txt", "executions report 5f0c1b9e --failure 'the vendor is down'"}},
		"execution.add_evidence":   {flags: worker, show: showEvidenceAdded},
		"execution.list":           {flags: map[string]string{"cue_id": "cue", "chain_id": "chain", "status__in": hiddenFlag, "offset": hiddenFlag}, refs: map[string]object{"cue_id": aCue, "key": aKey, "worker_id": aWorker, "chain_id": anExec}, show: showExecutions},
		"execution.get":            {show: showExecution},
		"execution.why":            {show: showWhy, like: []string{"executions why 8c41d0aa"}},
		"execution.check_evidence": {show: showEvidenceChecked},
		"execution.attest":         {like: []string{"executions attest 5f0c1b9e --session-token run-7"}},
		"execution.verify":         {own: ownVerify, flags: map[string]string{"valid": hiddenFlag}, show: showVerified, like: []string{"executions verify 5f0c1b9e", "executions verify 5f0c1b9e --reject --reason 'the link is dead'"}},
		"execution.mark_pending":   {show: showVerified},
		"execution.replay":         {show: showReplayed},
		"live.watch": {verb: "watch", top: true, do: watch, flags: map[string]string{"Last-Event-ID": hiddenFlag}, refs: map[string]object{"cue": aCue},
			note: "Goes on by itself where the connection breaks, without missing or repeating anything; where that cannot be, as after a restart of the server, it says that some events are missing. With --json each event is one line of JSON.",
			like: []string{"watch", "watch --cue nightly-report", "watch --json | jq -r 'select(.type == \"outcome\") | .status'"}},
		"worker.list":      {show: showWorkers},
		"worker.heartbeat": {args: []string{"worker_id"}},
		"worker.delete":    {refs: map[string]object{"worker_id": aWorker}, show: func(r *run, _ *answer) error { r.print("Deleted worker %s.", r.in["worker_id"]); return nil }},
	}
}

func ownClaim(*pflag.FlagSet) func(*run) error {
	return func(r *run) error {
		if r.in["worker_id"] == nil {
			host, err := os.Hostname()
			if err != nil {
				return usage("Say who takes the work: --worker-id NAME")
			}
			r.in["worker_id"] = host
		}
		if len(r.args) == 0 {
			return nil
		}
		for _, name := range []string{"max", "wait", "task", "tasks", "agent"} {
			if r.in[name] != nil {
				return usage("--%s is for the oldest work, not for a certain execution.", name)
			}
		}
		r.op = r.set.Lookup("execution.claim_one")
		r.in["id"] = r.args[0]
		return nil
	}
}

func ownRelease(fs *pflag.FlagSet) func(*run) error {
	untouched := fs.Bool("untouched", false, "work on it had not begun: this was no attempt")
	token := fs.String("lease-token", "", "from the claim; that of a claim that was made here is sent by itself")
	return func(r *run) error {
		if *token != "" {
			r.in["lease_token"] = *token
		}
		if *untouched {
			r.in["begun"] = false
		}
		return nil
	}
}

func showReleased(r *run, a *answer) error {
	got, err := decode[struct{ Status string }](a)
	if err != nil {
		return err
	}
	if got.Status == "failed" {
		r.print("Given back %s: it was the last attempt, so it has failed.", eight(fmt.Sprint(r.in["id"])))
		return nil
	}
	r.print("Given back %s: a worker may take it now.", eight(fmt.Sprint(r.in["id"])))
	return nil
}

// claimedView is an execution as it is handed to a worker.
type claimedView struct {
	ExecutionID  string          `json:"execution_id"`
	CueID        string          `json:"cue_id"`
	CueName      string          `json:"cue_name"`
	Task         *string         `json:"task"`
	ScheduledFor time.Time       `json:"scheduled_for"`
	Payload      json.RawMessage `json:"payload"`
	Attempt      int64           `json:"attempt"`
	LeaseToken   string          `json:"lease_token"`
	LeaseUntil   time.Time       `json:"lease_until"`
	Criteria     json.RawMessage `json:"exit_criteria"`
}

// claimedOf reads what a claim got, in either shape of its answer.
func claimedOf(a *answer) ([]claimedView, error) {
	got, err := decode[struct {
		claimedView
		Executions []claimedView `json:"executions"`
	}](a)
	if err == nil && got.ExecutionID != "" {
		return []claimedView{got.claimedView}, nil
	}
	return got.Executions, err
}

// keepClaimed keeps the lease tokens of a claim.
func keepClaimed(r *run, a *answer) {
	list, _ := claimedOf(a) // an answer that cannot be read is told when it is shown
	r.keepLeases(func(all map[string]lease) {
		for _, c := range list {
			all[c.ExecutionID] = lease{c.LeaseToken, c.LeaseUntil}
		}
	})
}

func renewLease(r *run, _ *answer) {
	r.keepLeases(func(all map[string]lease) {
		id, _ := r.in["id"].(string)
		if l, ok := all[id]; ok {
			all[id] = lease{l.Token, r.Now()}
		}
	})
}

func forgetLease(r *run, _ *answer) {
	r.keepLeases(func(all map[string]lease) { delete(all, fmt.Sprint(r.in["id"])) })
}

func showClaimed(r *run, a *answer) error {
	list, err := claimedOf(a)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		r.print("Nothing to take.")
		return nil
	}
	for _, c := range list {
		r.print("Claimed %s  cue %s, attempt %d, yours until %s UTC", eight(c.ExecutionID), c.CueName, c.Attempt, r.clock(c.LeaseUntil))
		r.print("Payload %s", c.Payload)
		if len(c.Criteria) > 0 {
			r.print("Check   %s", c.Criteria)
		}
	}
	r.print("Next    unstuck executions report %s --success     (or --failure \"why\")", eight(list[0].ExecutionID))
	return nil
}

func showClaimable(r *run, a *answer) error {
	list, err := decode[struct{ Executions []claimedView }](a)
	if err != nil {
		return err
	}
	if len(list.Executions) == 0 {
		r.print("Nothing to take.")
		return nil
	}
	t := newTable("EXECUTION", "CUE", "TASK", "DUE", "ATTEMPTS", "PAYLOAD")
	for _, c := range list.Executions {
		task := "–"
		if c.Task != nil {
			task = *c.Task
		}
		t.add(eight(c.ExecutionID), c.CueName, task, r.ago(c.ScheduledFor), fmt.Sprint(c.Attempt), shorten(string(c.Payload), 60))
	}
	r.printTable(t)
	return nil
}

func showRenewed(r *run, a *answer) error {
	h, err := decode[struct {
		ExecutionID string    `json:"execution_id"`
		Until       time.Time `json:"lease_extended_until"`
	}](a)
	if err != nil {
		return err
	}
	r.print("Renewed %s: yours until %s UTC", eight(h.ExecutionID), r.clock(h.Until))
	return nil
}

func ownReport(fs *pflag.FlagSet) func(*run) error {
	failure := fs.String("failure", "", "it failed, and why")
	return func(r *run) error {
		failed := fs.Changed("failure")
		if failed == (r.in["success"] == true) {
			return usage("Say how it went: --success, or --failure \"why\".")
		}
		if failed {
			r.in["success"] = false
			if *failure != "" {
				r.in["error"] = *failure
			}
		}
		return nil
	}
}

// evidenceFields are the inputs of a report that are evidence.
var evidenceFields = [...]string{"external_id", "result_url", "result_ref", "result_type", "summary", "artifacts"}

type stateView struct {
	ExecutionID  string  `json:"execution_id"`
	OutcomeState string  `json:"outcome_state"`
	Warning      *string `json:"warning"`

	Missing []string `json:"missing"`
}

// stateWords are the states of an outcome in words.
func stateWords(state string) string {
	switch state {
	case "reported_success":
		return "success"
	case "reported_failure":
		return "failure"
	case "verified_success":
		return "success, verified"
	case "verification_pending":
		return "success, to be verified"
	case "verification_failed":
		return "success, but not verified"
	case "unknown":
		return "unknown, nobody said"
	}
	return strings.ReplaceAll(state, "_", " ")
}

func showReported(r *run, a *answer) error {
	s, err := decode[stateView](a)
	if err != nil {
		return err
	}
	words := stateWords(s.OutcomeState)
	for _, f := range evidenceFields {
		if r.in[f] != nil {
			words += ", with evidence"
			break
		}
	}
	r.print("Recorded: %s. An outcome is written once; nobody can change it.", words)
	switch s.OutcomeState {
	case "verification_pending":
		r.print("Next    somebody else runs: unstuck executions verify %s     (or --reject)", eight(s.ExecutionID))
	case "verification_failed":
		r.print("Next    %s     (the cue demands it)", addMissing(s.ExecutionID, s.Missing))
	}
	r.warn(s)
	return nil
}

// addMissing is the command that adds what an outcome lacks.
func addMissing(execution string, missing []string) string {
	out := "unstuck executions add-evidence " + eight(execution)
	var assertions []string
	for _, name := range missing {
		if name, ok := strings.CutPrefix(name, "assertions."); ok {
			assertions = append(assertions, jsonText(name)+":true")
			continue
		}
		out += " --" + strings.ReplaceAll(name, "_", "-") + " …"
	}
	if assertions != nil {
		out += " --assertions " + shellWord("{"+strings.Join(assertions, ",")+"}")
	}
	return out
}

func jsonText(s string) string { return string(op.Marshal(s)) }

// warn says what somebody should look at.
func (r *run) warn(s stateView) {
	if s.Warning != nil {
		r.say("Warning: %s", *s.Warning)
	}
}

func showEvidenceAdded(r *run, a *answer) error {
	s, err := decode[stateView](a)
	if err != nil {
		return err
	}
	r.print("Added to the evidence of %s. Outcome: %s.", eight(s.ExecutionID), stateWords(s.OutcomeState))
	r.warn(s)
	return nil
}

func ownVerify(fs *pflag.FlagSet) func(*run) error {
	reject := fs.Bool("reject", false, "the outcome does not count")
	return func(r *run) error {
		if *reject {
			r.in["valid"] = false
		}
		return nil
	}
}

func showVerified(r *run, a *answer) error {
	s, err := decode[stateView](a)
	if err != nil {
		return err
	}
	r.print("Outcome of %s: %s.", eight(s.ExecutionID), stateWords(s.OutcomeState))
	return nil
}

func showReplayed(r *run, a *answer) error {
	e, err := decode[executionView](a)
	if err != nil {
		return err
	}
	from := ""
	if e.ReplayedFrom != nil {
		from = eight(*e.ReplayedFrom)
	}
	what := "a worker may take it now"
	if e.Transport == "webhook" {
		what = "the callback is called now"
	}
	r.print("Replayed %s  execution %s  %s: %s", from, eight(e.ID), e.Status, what)
	return nil
}

func showEvidenceChecked(r *run, a *answer) error {
	c, err := decode[struct {
		ExecutionID string `json:"execution_id"`
		OK          bool
		Fault       *string
		Versions    []struct {
			Version int64
			At      time.Time
			KeyID   string `json:"key_id"`
			What    string
			Hash    string
		}
	}](a)
	if err != nil {
		return err
	}
	t := newTable("VERSION", "TIME (UTC)", "WHAT", "BY KEY", "HASH")
	for _, v := range c.Versions {
		t.add(fmt.Sprint(v.Version), r.clock(v.At), strings.ReplaceAll(v.What, "_", " "), v.KeyID, eight(v.Hash)+"…")
	}
	if len(c.Versions) > 0 {
		r.print("%s", t.String())
	}
	if !c.OK {
		why := "something is not as it was written"
		if c.Fault != nil {
			why = *c.Fault
		}
		r.print("Not whole: %s", sentence(why))
		return exitWith(exitOurs)
	}
	r.print("Whole: %s of evidence, as written.", plural(len(c.Versions), "version", "versions"))
	return nil
}

func showExecutions(r *run, a *answer) error {
	page, err := decode[executionPage](a)
	if err != nil {
		return err
	}
	if len(page.Executions) == 0 {
		r.print("No executions.")
		return nil
	}
	r.printTable(r.executionTable(page.Executions))
	if page.NextCursor != nil {
		r.say("%d of %d shown. More: --cursor %s", len(page.Executions), page.Total, *page.NextCursor)
	}
	return nil
}

func (d *door) executionTable(list []executionView) *table {
	t := newTable("EXECUTION", "CUE", "DUE ("+d.Zone.String()+")", "STATUS", "ATTEMPT", "WORKER", "OUTCOME")
	for i := range list {
		e := &list[i]
		worker, outcome := "–", "–"
		if e.Transport == "webhook" {
			worker = "callback"
		}
		if e.Unconfirmed {
			outcome = unconfirmedWords
		}
		if e.ClaimedByWorker != nil {
			worker = *e.ClaimedByWorker
		}
		if e.OutcomeState != nil {
			outcome = stateWords(*e.OutcomeState)
		}
		t.add(eight(e.ID), e.CueName, d.timesIn([]time.Time{e.ScheduledFor}, d.Zone), strings.ReplaceAll(e.Status, "_", " "),
			fmt.Sprintf("%d of %d", e.Attempts, e.MaxAttempts), worker, outcome)
	}
	return t
}

func showExecution(r *run, a *answer) error {
	e, err := decode[executionView](a)
	if err != nil {
		return err
	}
	r.print("%s  cue %s · %s · attempt %d of %d", e.ID, e.CueName, strings.ReplaceAll(e.Status, "_", " "), e.Attempts, e.MaxAttempts)
	t := newTable()
	t.add("due", r.nextLine([]time.Time{e.ScheduledFor}, "UTC"))
	t.add("by", strings.ReplaceAll(e.TriggeredBy, "_", " "))
	if e.ReplayedFrom != nil {
		t.add("replay of", *e.ReplayedFrom)
	}
	if e.ClaimedByWorker != nil {
		taken := *e.ClaimedByWorker
		if e.LeaseUntil != nil {
			taken += ", until " + r.clock(*e.LeaseUntil) + " UTC"
		}
		t.add("taken by", taken)
	}
	e.addChainRows(t)
	e.addCallRows(r, t)
	t.add("payload", string(e.Payload))
	if e.OutcomeState != nil && e.Outcome != nil {
		words := stateWords(*e.OutcomeState)
		if e.Unfenced {
			words += " (reported without a lease token)"
		}
		if len(e.Missing) > 0 {
			words += "; it lacks " + strings.Join(e.Missing, ", ")
		}
		t.add("outcome", words)
		for _, f := range []struct {
			name string
			text *string
		}{
			{"result", e.Outcome.Result}, {"error", e.Outcome.Error}, {"summary", e.Outcome.Summary}, {"external id", e.Outcome.ExternalID},
			{"result url", e.Outcome.ResultURL}, {"result ref", e.Outcome.ResultRef}, {"warning", e.Outcome.Warning},
		} {
			if f.text != nil {
				t.add(f.name, *f.text)
			}
		}
		t.add("evidence", plural(int(e.Evidence), "version", "versions")+"; to check them: unstuck executions check-evidence "+eight(e.ID))
	}
	r.printTable(t)
	return nil
}

type workerList struct {
	Workers []struct {
		WorkerID  string    `json:"worker_id"`
		Last      time.Time `json:"last_heartbeat"`
		Heartbeat string    `json:"heartbeat_status"`
		Handlers  []string
		Since     time.Time `json:"registered_since"`
		KeyID     string    `json:"key_id"`
	}
}

func showWorkers(r *run, a *answer) error {
	list, err := decode[workerList](a)
	if err != nil {
		return err
	}
	if len(list.Workers) == 0 {
		r.print("No workers.")
		return nil
	}
	t := newTable("WORKER", "STATUS", "LAST HEARTBEAT", "SINCE", "HANDLERS", "KEY")
	for _, w := range list.Workers {
		t.add(w.WorkerID, w.Heartbeat, r.ago(w.Last), r.date(w.Since), firstOf(strings.Join(w.Handlers, ", "), "–"), w.KeyID)
	}
	r.printTable(t)
	return nil
}
