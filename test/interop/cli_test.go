//go:build interop && linux

package interop

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// shell is a user of the published command line: a key, a home folder, a server.
type shell struct {
	t   testing.TB
	env []string
}

// shellOf gives somebody the command line. Its base has /v1 at the end, unlike that of the SDK and the daemon.
func shellOf(t testing.TB, s *server, key string) shell {
	return shell{t, []string{"CUEAPI_API_BASE=" + s.url + "/v1", "CUEAPI_API_KEY=" + key}}
}

// run runs one command and returns its exit status and all that it printed.
func (sh shell) run(args ...string) (int, string) {
	sh.t.Helper()
	p := launch(sh.t, sh.env, venv("cli", "cueapi"), args...)
	status := p.wait(patience)
	return status, p.output.String()
}

// does wants a command to succeed and to print every one of parts.
func (sh shell) does(args []string, parts ...string) string {
	sh.t.Helper()
	status, text := sh.run(args...)
	if status != 0 {
		sh.t.Errorf("cueapi %s ended with status %d:\n%s", strings.Join(args, " "), status, text)
	}
	want(sh.t, text, parts...)
	return text
}

// fails wants a command to end with status 1 and to print every one of parts: a client that found no message in the answer would
// print "Failed (HTTP …)" in place of the server's sentence.
func (sh shell) fails(args []string, parts ...string) {
	sh.t.Helper()
	status, text := sh.run(args...)
	if status != 1 || strings.Contains(text, "Traceback") {
		sh.t.Errorf("cueapi %s ended with status %d, want 1:\n%s", strings.Join(args, " "), status, text)
	}
	want(sh.t, text, append(parts, "Error: ")...)
}

func words(s string) []string { return strings.Fields(s) }

var (
	cueID = regexp.MustCompile(`cue_[a-z0-9]{12}`)
	runID = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
)

func find(t testing.TB, form *regexp.Regexp, text string) string {
	t.Helper()
	id := form.FindString(text)
	if id == "" {
		t.Fatalf("no %v in:\n%s", form, text)
	}
	return id
}

// TestQuickstart runs the tour of the published command line: a cue that calls the echo sink of the server itself. The server is not
// in development mode: this callback alone needs no exception to be allowed.
func TestQuickstart(t *testing.T) {
	s := serve(t)
	sh := shellOf(t, s, s.key)
	p := launch(t, sh.env, venv("cli", "cueapi"), "quickstart")
	if status := p.wait(2 * patience); status != 0 { // it waits 15 seconds for its due time
		t.Errorf("quickstart ended with status %d", status)
	}
	want(t, p.output.String(), "Created: cue_", "Callback delivered!", "Your first cue! CueAPI is working.", "Deleted.", "CueAPI is working!")
}

func TestCommandLineCues(t *testing.T) {
	s := serve(t, "--dev")
	sh := shellOf(t, s, s.key)
	sh.does(words("list"), "No cues yet")
	made := sh.does([]string{"create", "--worker", "--name", "night", "--cron", "30 2 1 1 *", "--timezone", "Europe/Berlin", "--payload", `{"task":"sync"}`,
		"--description", "every new year", "--on-failure", `{"email":false,"pause":true}`}, "Created: cue_", "Status:          active", "Next run:")
	id := find(t, cueID, made)
	once := find(t, cueID, sh.does(words("create --worker --name later --at 2099-01-02T03:04:05Z"), "Next run:        2099-01-02T03:04:05Z"))
	sh.does(words("list"), id, once, "night", "later", "2099-01-02 03:04 UTC", "2 cues (2 active)")
	sh.does(words("list --limit 1 --offset 1"), id, "2 cues")
	sh.does(words("get "+id), "Name:            night", "Schedule:        30 2 1 1 * (Europe/Berlin)", "Callback:        POST", "Run count:       0", "Description:     every new year")
	sh.does(words("get "+once), "Schedule:        One-time: 2099-01-02T03:04:05+00:00")

	sh.does([]string{"update", id, "--cron", "0 3 1 1 *"}, "Updated: "+id+" (night)")
	sh.does(words("get "+id), "Schedule:        0 3 1 1 * (Europe/Berlin)") // the zone stays
	sh.does([]string{"update", id, "--name", "nightly", "--payload", `{"task":"copy"}`, "--description", "new", "--on-failure", `{"email":false,"pause":false}`}, "(nightly)")
	cue := s.call("GET", "/v1/cues/"+id, nil)
	if task := cue["payload"].(object)["task"]; task != "copy" || cue["description"] != "new" || cue["on_failure"].(object)["pause"] != false {
		t.Errorf("after the update the cue is %v", cue)
	}

	sh.does(words("pause "+id), "Paused: "+id+" (nightly)")
	sh.does(words("list --status paused"), id, "1 cues (1 paused)")
	sh.does(words("resume "+id), "Resumed: "+id+" (nightly)", "Next run:")
	sh.does(words("delete --yes "+once), "Deleted.")
	asked := launch(t, sh.env, "sh", "-c", `echo y | "$0" delete "$1"`, venv("cli", "cueapi"), id) // it reads the name for its question
	if status := asked.wait(patience); status != 0 {
		t.Errorf("delete with a question ended with status %d", status)
	}
	want(t, asked.output.String(), "Delete "+id+" (nightly)?", "Deleted.")
	sh.does(words("list"), "No cues yet")

	t.Run("refused", func(t *testing.T) {
		sh := shellOf(t, s, s.key)
		for _, command := range []string{"get", "pause", "resume", "delete --yes", "fire", "update --name x"} {
			sh.fails(words(command+" cue_aaaaaaaaaaaa"), "Cue not found: cue_aaaaaaaaaaaa")
		}
		s.newCue("taken", object{}, nil)
		refusals := map[string][]string{ // what the server says about it → what was asked
			"A cue named 'taken' already exists":   {"--name", "taken", "--cron", "0 0 1 1 *", "--worker"},
			"Unknown timezone: 'Mars/Base'":        {"--name", "a", "--cron", "0 0 1 1 *", "--worker", "--timezone", "Mars/Base"},
			"Scheduled time must be in the future": {"--name", "a", "--at", "2020-01-01T00:00:00Z", "--worker"},
		}
		for said, args := range refusals {
			sh.fails(append([]string{"create"}, args...), said)
		}
		status, hook := s.try(s.key, "POST", "/v1/cues", object{"name": "a", "schedule": object{"type": "recurring", "cron": "0 0 1 1 *"}, "callback": object{"url": "https://169.254.169.254"}})
		if status != 400 {
			t.Fatalf("a cue that calls an address which may not be called: %d %v", status, hook)
		}
		sh.fails(words("create --name a --url https://169.254.169.254 --at 2099-01-01T00:00:00Z"), hook["error"].(object)["message"].(string))
	})
}

func TestCommandLineExecutions(t *testing.T) {
	s := serve(t, "--dev")
	sh := shellOf(t, s, s.key)
	id := s.newCue("mail", object{"task": "send", "agent": "hermes", "to": object{"a": 1}, "kept": true}, nil)
	other := s.newCue("other", object{"task": "count"}, nil)
	payload := func(run string) string {
		text, err := json.Marshal(s.execution(run)["payload"])
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	fire := func(args ...string) string {
		return find(t, runID, sh.does(append([]string{"fire", id}, args...), "Fired: "+id, "Execution:", "Scheduled:"))
	}

	sh.does(words("executions list-claimable"), "No claimable executions.")
	sh.does(words("executions claim-next --worker-id w1"), "No executions available for claiming.")
	merged := fire("--payload-override", `{"to":{"b":2}}`)
	if got := payload(merged); got != `{"agent":"hermes","kept":true,"task":"send","to":{"b":2}}` {
		t.Errorf("merged payload is %s", got)
	}
	replaced := fire("--payload-override", `{"task":"send"}`, "--merge-strategy", "replace")
	if got := payload(replaced); got != `{"task":"send"}` {
		t.Errorf("replaced payload is %s", got)
	}
	plain := fire()
	count := s.fire(other)

	sh.does(words("executions list-claimable"), merged, replaced, plain, count, "mail", "count")
	if text := sh.does(words("executions list-claimable --task send --agent hermes"), merged, plain); strings.Contains(text, replaced) || strings.Contains(text, count) {
		t.Errorf("filtered by task and agent, the list has others:\n%s", text)
	}
	sh.does(words("executions list-claimable --task nothing"), "No claimable executions (task=nothing).")

	sh.does(words("executions claim --worker-id w1 "+plain), "Claimed: "+plain, "Lease:           900s")
	sh.fails(words("executions claim --worker-id w2 "+plain), "Not claimable")
	sh.does(words("executions heartbeat --worker-id w1 "+plain), "Heartbeat acknowledged: "+plain, "Lease until:     20")
	sh.fails(words("executions heartbeat --worker-id w2 "+plain), "Worker-id does not match")
	sh.does(words("executions get "+plain), "ID:              "+plain, "Cue:             "+id, "Status:          delivering", "Claimed by:      w1", "Attempts:        1")
	sh.does([]string{"executions", "report-outcome", plain, "--success", "--external-id", "m-1", "--result-url", "https://example.com/m/1", "--summary", "one mail"}, "Outcome recorded: "+plain)
	sh.fails(words("executions report-outcome --failure "+plain), "Outcome already recorded")
	sh.fails(words("executions heartbeat --worker-id w1 "+plain), "no longer in 'delivering' state")
	outcome := s.execution(plain)["outcome"].(object)
	if outcome["external_id"] != "m-1" || outcome["result_url"] != "https://example.com/m/1" || outcome["summary"] != "one mail" {
		t.Errorf("the outcome is %v", outcome)
	}

	sh.does(words("executions claim-next --worker-id w1 --task count"), "Claimed: "+count)
	sh.does(words("executions claim-next --worker-id w1 --task count"), "No claimable executions for task=count.")
	sh.does(words("executions claim-next --worker-id w1"), "Claimed: "+merged, "Lease:           900s") // the oldest
	sh.does(words("executions report-outcome --failure "+merged), "Outcome recorded: "+merged, "Marked:          failure")
	sh.does(words("executions list --status failed"), merged)
	sh.does(words("executions list --limit 100 --cue-id "+other), count, other)
	sh.does(words("executions list --status missed"), "No executions found.")
	sh.does(words("get "+id), "Run count:       2", "success  (None, 1 attempt)", "failed  (HTTP None, 1 attempts)")
	for _, command := range []string{"get", "heartbeat --worker-id w1", "report-outcome --success"} {
		missing := "00000000-0000-4000-8000-000000000000"
		sh.fails(words("executions "+command+" "+missing), "Execution not found: "+missing)
	}
}

func TestCommandLineAccount(t *testing.T) {
	s := serve(t, "--dev")
	sh := shellOf(t, s, s.key)
	cue := s.newCue("one", object{}, nil)
	s.fire(cue)
	sh.does(words("whoami"), "Email:           admin@example.com", "Plan:            Self-hosted", "Active cues:     1 / 1000000000", "Executions:      1 / 1000000000 this month")
	sh.does(words("usage"), "Plan:            Self-hosted", "Active cues:     1 / 1000000000", "Executions:      1 / 1,000,000,000 (0.0%)", "Rate limit:      6000 req/min")
	sh.fails(words("manage"), "Not Found") // there is nothing to pay for here

	t.Run("key regenerate", func(t *testing.T) {
		_, old := s.newKey("full", nil)
		home := t.TempDir()
		file := filepath.Join(home, "cueapi", "credentials.json")
		profile, err := json.Marshal(object{"default": object{"api_key": old, "email": "admin@example.com", "api_base": s.url + "/v1"}})
		if err == nil {
			err = os.MkdirAll(filepath.Dir(file), 0o700)
		}
		if err == nil {
			err = os.WriteFile(file, profile, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		sh := shell{t, []string{"XDG_CONFIG_HOME=" + home}} // key and base come from the file
		sh.does(words("whoami"), "Email:           admin@example.com", "API key:         "+old[:7]+"..."+old[len(old)-4:], s.url+"/v1")
		text := sh.does(words("key regenerate --yes"), "New API key: unstuck_", "Local credentials updated.")
		fresh := find(t, regexp.MustCompile(`unstuck_\w+`), text)
		if status, answer := s.try(old, "GET", "/v1/auth/me", nil); status != 401 || code(answer) != "key_rotated" {
			t.Errorf("the old key is answered %d %v", status, answer)
		}
		sh.does(words("whoami"), "Email:           admin@example.com", "..."+fresh[len(fresh)-4:]) // with the new key
		shellOf(t, s, old).fails(words("list"), "Failed to list cues (HTTP 401)")
	})
}
