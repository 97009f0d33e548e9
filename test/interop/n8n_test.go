//go:build interop && linux

package interop

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The shipped n8n workflows are not run by n8n itself, which is too large to install for a test. n8n.js runs what is in them: their
// expressions and the Code node's JavaScript in real Node.js, their HTTP requests against the built binary.

func workflow(t testing.TB, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../docs/examples/n8n", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// receives starts the workflow, with a key that reports outcomes of the cue nightly, and says where its webhook is.
func receives(t testing.TB, s *server, file string) (n8n *program, hook string) {
	t.Helper()
	secret := s.call("GET", "/v1/auth/webhook-secret", nil)["webhook_secret"].(string)
	made := s.call("POST", "/v1/keys", object{"name": "n8n", "permissions": []string{"executions:report"}, "restrictions": object{"cues": []string{"nightly"}}})
	n8n = launch(t, []string{"UNSTUCK_WEBHOOK_SECRET=" + secret, "UNSTUCK_URL=" + s.url, "UNSTUCK_KEY=" + made["key"].(string)}, "node", "n8n.js", file).shown()
	eventually(t, "n8n listens", func() bool {
		if m := regexp.MustCompile(`"url":"([^"]+)"`).FindStringSubmatch(n8n.output.String()); m != nil {
			hook = m[1]
		}
		return hook != ""
	})
	return n8n, hook
}

// nightly is a cue that calls the webhook and waits for the report.
func nightly(s *server, hook string) string {
	return s.call("POST", "/v1/cues", object{"name": "nightly", "cron": "0 0 1 1 *", "callback_url": hook, "payload": object{"report": "Umsätze"},
		"delivery": object{"outcome_mode": "report", "outcome_deadline_seconds": 600}})["id"].(string)
}

// TestN8nReportsFailure: work that fails in n8n is reported as a failure, with n8n's error.
func TestN8nReportsFailure(t *testing.T) {
	s := serve(t, "--allow-callbacks", "127.0.0.1/32")
	text, err := os.ReadFile(workflow(t, "receive-cue"))
	if err != nil {
		t.Fatal(err)
	}
	const work = `'n8n did ' + $('Verify').first().json.name`
	if strings.Count(string(text), work) != 1 {
		t.Fatalf("the work of the example is no longer %s", work)
	}
	file := filepath.Join(t.TempDir(), "broken.json")
	write(t, file, strings.Replace(string(text), work, `$('Verify').first().json.no.such`, 1))
	n8n, hook := receives(t, s, file)
	id := s.fire(nightly(s, hook))
	eventually(t, "n8n reports the failure", func() bool { return s.execution(id)["outcome"] != nil })
	outcome, _ := s.execution(id)["outcome"].(object)
	if said, _ := outcome["error"].(string); outcome["success"] != false || !strings.Contains(said, "such") || outcome["external_id"] != "n8n-42" {
		t.Errorf("the outcome is %v", outcome)
	}
	if out := n8n.output.String(); strings.Contains(out, `"node":"Report"`) || strings.Contains(out, `"failed":`) {
		t.Errorf("n8n ran:\n%s", out)
	}
}

// TestN8nReceives: the webhook of n8n takes a cue that Unstuck signed, refuses one that somebody else sent, and reports the outcome.
func TestN8nReceives(t *testing.T) {
	s := serve(t, "--allow-callbacks", "127.0.0.1/32")
	n8n, hook := receives(t, s, workflow(t, "receive-cue"))

	id := s.fire(nightly(s, hook))
	eventually(t, "n8n reports the outcome", func() bool { return s.execution(id)["outcome"] != nil })
	outcome, _ := s.execution(id)["outcome"].(object)
	if outcome["success"] != true || outcome["result"] != "n8n did nightly" || outcome["external_id"] != "n8n-42" {
		t.Errorf("the outcome is %v", outcome)
	}

	forged := []byte(`{"execution_id":"` + id + `","name":"nightly"}`)
	for name, h := range map[string]http.Header{
		"without a signature": {},
		"with another's":      {"Webhook-Id": {id}, "Webhook-Timestamp": {"1"}, "Webhook-Signature": {"v1,AAAA"}},
	} {
		r, err := http.NewRequest(http.MethodPost, hook, bytes.NewReader(forged))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = h
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if answer.Body.Close(); answer.StatusCode != http.StatusUnauthorized {
			t.Errorf("a call %s is answered with %d", name, answer.StatusCode)
		}
	}
	if n := strings.Count(n8n.output.String(), `"node":"Report"`); n != 1 {
		t.Errorf("it reported %d times", n)
	}
}

// TestN8nFires: n8n fires a cue with a header credential; the same order again makes nothing new.
func TestN8nFires(t *testing.T) {
	s := serve(t)
	s.newCue("invoice", object{"currency": "EUR"}, nil)
	made := s.call("POST", "/v1/keys", object{"name": "n8n", "permissions": []string{"cues:fire", "executions:read"}, "restrictions": object{"cues": []string{"invoice"}}})
	run := func() (look object) {
		n8n := launch(t, []string{"UNSTUCK_URL=" + s.url, "UNSTUCK_KEY=" + made["key"].(string)}, "node", "n8n.js", workflow(t, "fire-cue")).shown()
		if code := n8n.wait(time.Minute); code != 0 {
			t.Fatalf("the workflow failed:\n%s", n8n.output.String())
		}
		lines := strings.Split(strings.TrimSpace(n8n.output.String()), "\n")
		var last struct {
			Node  string
			Items []object
		}
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Node != "Look" || len(last.Items) != 1 {
			t.Fatalf("the last node gave %s (%v)", lines[len(lines)-1], err)
		}
		return last.Items[0]
	}
	first := run()
	payload, _ := first["payload"].(object)
	if payload["order"] != 4711.0 || payload["currency"] != "EUR" || first["triggered_by"] == nil {
		t.Errorf("fired %v", first)
	}
	if again := run(); again["id"] != first["id"] {
		t.Errorf("the same order fired twice: %v and %v", first["id"], again["id"])
	}
}
