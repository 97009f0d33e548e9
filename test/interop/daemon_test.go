//go:build interop && linux

package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// lease is how long a claim holds an execution in these tests: jobs shall outlive it.
const lease = "3s"

// daemonConfig writes the file of a daemon that looks for work and gives a sign of life once a second. A handler is a shell
// command, or an object with cmd, timeout, env. JSON is YAML, too.
func daemonConfig(t testing.TB, base, key string, handlers object) string {
	t.Helper()
	text, err := json.Marshal(object{
		"api_base": base, "api_key": key, "worker_id": "daemon-1", "poll_interval": 1, "heartbeat_interval": 1, "max_concurrent": 8, "handlers": handlers,
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "worker.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// daemons are the published daemon and ours: one file drives both, with the same results.
var daemons = map[string]func() []string{
	"published": func() []string { return []string{venv("daemon", "cueapi-worker"), "start"} },
	"ours":      func() []string { return []string{*binary, "worker"} },
}

// eachDaemon runs a test with the published daemon and with ours, each on a server of its own.
func eachDaemon(t *testing.T, fn func(t *testing.T, name string)) {
	for name := range daemons {
		t.Run(name, func(t *testing.T) { fn(t, name) })
	}
}

// daemon starts a daemon with a key of scope worker, restricted or not.
func daemon(t testing.TB, name string, s *server, handlers, restrictions object) (run *program, keyID string) {
	t.Helper()
	keyID, key := s.newKey("worker", restrictions)
	command := append(daemons[name](), "--config", daemonConfig(t, s.url, key, handlers))
	return launch(t, nil, command[0], command[1:]...).shown(), keyID
}

// status awaits that an execution has a status.
func (s *server) status(execution, status string) object {
	s.t.Helper()
	var got object
	eventually(s.t, fmt.Sprintf("execution %s is %s", execution, status), func() bool {
		got = s.execution(execution)
		return got["status"] == status
	})
	return got
}

// job is a cue that is fired once, the handler for it, and what must come of it.
type job struct {
	handler any
	payload object
	cue     object // more of the cue
	status  string // of the execution
	state   string // of the outcome
	outcome object // members that the outcome must have
}

const fullFile = `cat > "$CUEAPI_OUTCOME_FILE" <<'END'
{"success":true,"result":"sent","external_id":"m-1","result_url":"https://example.com/m/1","result_ref":"r-1","result_type":"mail","summary":"one mail",
 "artifacts":[{"name":"m.eml"}],"metadata":{"took":1.5},"colour":"red"}
END`

func jobs() map[string]job {
	const reported = "reported_failure"
	return map[string]job{
		"success": {
			handler: `echo "did $CUEAPI_CUE_NAME as $CUEAPI_WORKER_ID: {{ payload.to.name }}"`, payload: object{"to": object{"name": "Ada Größe"}},
			status: "success", state: "reported_success", outcome: object{"success": true, "result": "did success as daemon-1: Ada Größe\n", "error": nil},
		},
		"silent": {
			handler: "true", status: "success", state: "reported_success", outcome: object{"result": "completed"},
		},
		"payload": {
			handler: object{"cmd": `printf '%s' "$CUEAPI_PAYLOAD $N"`, "env": object{"N": "{{ payload.n }}"}}, payload: object{"n": 7},
			status: "success", state: "reported_success", outcome: object{"result": `{"n": 7, "task": "payload"} 7`},
		},
		"failure": {
			handler: "echo no route to host >&2; exit 1",
			status:  "failed", state: reported, outcome: object{"success": false, "error": "no route to host\n", "result": nil},
		},
		"file": {
			handler: fullFile, cue: object{"verification": object{"mode": "require_external_id"}}, status: "success", state: "verified_success",
			outcome: object{
				"success": true, "result": "sent", "external_id": "m-1", "result_url": "https://example.com/m/1", "result_ref": "r-1", "result_type": "mail", "summary": "one mail",
				"artifacts": []any{object{"name": "m.eml"}},
				"metadata":  object{"took": 1.5, "_cueapi_worker": object{"outcome_file_dropped_fields": []any{"colour"}}},
			},
		},
		"no evidence": {
			handler: "true", cue: object{"verification": object{"mode": "require_external_id"}}, status: "success", state: "verification_failed",
		},
		"file says no": {
			handler: `echo '{"success":false,"error":"nothing to send","summary":"empty"}' > "$CUEAPI_OUTCOME_FILE"`,
			status:  "failed", state: reported, outcome: object{"success": false, "error": "nothing to send", "summary": "empty"},
		},
		"crash beats file": {
			handler: `echo '{"success":true,"external_id":"m-2"}' > "$CUEAPI_OUTCOME_FILE"; exit 3`,
			status:  "failed", state: reported, outcome: object{"success": false, "external_id": "m-2"},
		},
		"broken file": {
			handler: `echo '{' > "$CUEAPI_OUTCOME_FILE"; echo fine`,
			status:  "success", state: "reported_success", outcome: object{"result": "fine\n"},
		},
		"timeout": {
			handler: object{"cmd": "exec sleep 60", "timeout": 1},
			status:  "failed", state: reported, outcome: object{"success": false, "error": "Handler timeout exceeded (1s)"},
		},
		"long output": { // the daemon sends the first 4,096 characters
			handler: "printf 'ö%.0s' $(seq 5000)",
			status:  "success", state: "reported_success", outcome: object{"result": strings.Repeat("ö", 4096)},
		},
		"long error": {
			handler: "printf '!%.0s' $(seq 5000); exit 1",
			status:  "failed", state: reported, outcome: object{"error": strings.Repeat("!", 4096)},
		},
		"outlives its lease": {
			handler: "sleep 8; echo finished",
			status:  "success", state: "reported_success", outcome: object{"result": "finished\n"},
		},
	}
}

// TestDaemon runs real shell commands, all at once, behind a backlog of work that the daemon has no handler for.
func TestDaemon(t *testing.T) { eachDaemon(t, testDaemon) }

func testDaemon(t *testing.T, name string) {
	s := serve(t, "--dev", "--lease", lease)
	foreign := s.newCue("foreign", object{"task": "foreign"}, nil)
	var backlog []string
	for range 60 { // more than one look at claimable work shows
		backlog = append(backlog, s.fire(foreign))
	}
	handlers, runs := object{}, map[string]string{}
	for task, j := range jobs() {
		payload := object{"task": task}
		for k, v := range j.payload {
			payload[k] = v
		}
		handlers[task] = j.handler
		runs[task] = s.fire(s.newCue(task, payload, j.cue))
	}
	daemon(t, name, s, handlers, nil)

	t.Run("signs of life", func(t *testing.T) {
		eventually(t, "the worker is listed", func() bool { return len(s.call("GET", "/v1/workers", nil)["workers"].([]any)) == 1 })
		worker := s.call("GET", "/v1/workers", nil)["workers"].([]any)[0].(object)
		if worker["worker_id"] != "daemon-1" || worker["heartbeat_status"] != "active" || len(worker["handlers"].([]any)) != len(handlers) {
			t.Errorf("the worker is %v", worker)
		}
	})
	for task, j := range jobs() {
		t.Run(task, func(t *testing.T) {
			got := s.status(runs[task], j.status)
			if got["outcome_state"] != j.state || got["attempts"] != 1.0 || got["claimed_by_worker"] != "daemon-1" {
				t.Errorf("state %v, attempts %v, claimed by %v", got["outcome_state"], got["attempts"], got["claimed_by_worker"])
			}
			outcome := got["outcome"].(object)
			for field, value := range j.outcome {
				if have, wanted := jsonOf(t, outcome[field]), jsonOf(t, value); have != wanted {
					t.Errorf("%s is %s, want %s", field, have, wanted)
				}
			}
		})
	}
	t.Run("backlog", func(t *testing.T) { // untouched, and all of it
		waiting := s.call("GET", "/v1/executions?limit=100&status=pending&cue_id="+foreign, nil)
		if waiting["total"] != float64(len(backlog)) {
			t.Errorf("%v of %d executions wait", waiting["total"], len(backlog))
		}
	})
}

func jsonOf(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestLeaseEnds shows that what "outlives its lease" shows is the daemon's doing: without signs of life the lease of TestDaemon
// does end, and the work is offered again.
func TestLeaseEnds(t *testing.T) { eachDaemon(t, testLeaseEnds) }

func testLeaseEnds(t *testing.T, name string) {
	s := serve(t, "--dev", "--lease", lease)
	id := s.fire(s.newCue("abandoned", object{"task": "t"}, nil))
	s.call("POST", "/v1/executions/"+id+"/claim", object{"worker_id": "gone"})
	if status, answer := s.try(s.key, "POST", "/v1/executions/"+id+"/claim", object{"worker_id": "next"}); status != 409 || code(answer) != "claim_failed" {
		t.Fatalf("while the lease lives a claim is answered %d %v", status, answer)
	}
	eventually(t, "the abandoned execution is offered again", func() bool {
		return len(s.call("GET", "/v1/executions/claimable", nil)["executions"].([]any)) == 1
	})
	daemon(t, name, s, object{"t": "echo taken over"}, nil)
	if got := s.status(id, "success"); got["attempts"] != 2.0 || got["claimed_by_worker"] != "daemon-1" {
		t.Errorf("attempts %v, claimed by %v", got["attempts"], got["claimed_by_worker"])
	}
}

// TestDaemonStops sends SIGTERM in the middle of a job: it is finished and reported, and nothing new is begun.
func TestDaemonStops(t *testing.T) { eachDaemon(t, testDaemonStops) }

func testDaemonStops(t *testing.T, name string) {
	s := serve(t, "--dev", "--lease", lease)
	cue := s.newCue("last", object{"task": "last"}, nil)
	run := s.fire(cue)
	worker, _ := daemon(t, name, s, object{"last": "sleep 2; echo to the end"}, nil)
	rests := map[string]string{"published": "Poll cycle: claimed", "ours": `"taken"`}[name] // the published one ignores signals while it writes to its log
	eventually(t, "the job runs", func() bool { return strings.Contains(worker.output.String(), rests) })
	worker.signal(syscall.SIGTERM)
	if status := worker.wait(patience); status != 0 {
		t.Errorf("after SIGTERM the daemon ended with status %d", status)
	}
	if got := s.execution(run); got["status"] != "success" || got["outcome"].(object)["result"] != "to the end\n" {
		t.Errorf("the job ended as %v", got)
	}
}

// TestDaemonRevoked revokes the daemon's key: it ends with status 1, as its service manager wants to know.
func TestDaemonRevoked(t *testing.T) { eachDaemon(t, testDaemonRevoked) }

func testDaemonRevoked(t *testing.T, name string) {
	s := serve(t, "--dev", "--lease", lease)
	run := s.fire(s.newCue("first", object{"task": "first"}, nil))
	worker, id := daemon(t, name, s, object{"first": "true"}, nil)
	s.status(run, "success")
	s.call("POST", "/v1/keys/"+id+"/revoke", object{})
	later := s.fire(s.newCue("second", object{"task": "first"}, nil))
	if status := worker.wait(patience); status != 1 {
		t.Errorf("with a revoked key the daemon ended with status %d", status)
	}
	if got := s.execution(later); got["status"] != "pending" || got["attempts"] != 0.0 {
		t.Errorf("work of after the revocation is %v after %v attempts", got["status"], got["attempts"])
	}
}

// TestDaemonOverLimit lets a job end while its key is over the limit. The daemon drops a report that is refused, so this one is not.
func TestDaemonOverLimit(t *testing.T) { eachDaemon(t, testDaemonOverLimit) }

func testDaemonOverLimit(t *testing.T, name string) {
	s := serve(t, "--dev")
	run := s.fire(s.newCue("busy", object{"task": "busy"}, nil))
	worker, _ := daemon(t, name, s, object{"busy": "sleep 4; echo done"}, object{"rate_per_minute": 5})
	got := s.status(run, "success")
	if outcome := got["outcome"].(object); outcome["result"] != "done\n" || got["attempts"] != 1.0 {
		t.Errorf("the outcome is %v after %v attempts", outcome, got["attempts"])
	}
	want(t, worker.output.String(), map[string]string{"published": "Rate limited", "ours": "429 rate_limit_exceeded"}[name]) // it was over the limit
}

// TestDaemonSecret prints the environment in a handler: the key that the daemon put there must not be stored with the outcome.
func TestDaemonSecret(t *testing.T) { eachDaemon(t, testDaemonSecret) }

func testDaemonSecret(t *testing.T, name string) {
	s := serve(t, "--dev")
	run := s.fire(s.newCue("chatty", object{"task": "chatty"}, nil))
	daemon(t, name, s, object{"chatty": `echo "key=$CUEAPI_API_KEY base=$CUEAPI_BASE_URL run=$CUEAPI_EXECUTION_ID"`}, nil)
	result, _ := s.status(run, "success")["outcome"].(object)["result"].(string)
	want(t, result, "key=unstuck_***_", "base="+s.url, "run="+run)
	if secret := regexp.MustCompile(`unstuck_\w{9,}`).FindString(result); secret != "" {
		t.Errorf("the outcome has a key: %s", result)
	}
}

// TestDaemonCommands runs what the daemon can do besides: ask whether it is connected, and get a new key.
func TestDaemonCommands(t *testing.T) {
	s := serve(t, "--dev")
	run := func(command, base, key string) (status int, text, file string) {
		t.Helper()
		file = daemonConfig(t, base, key, object{"t": "true"})
		p := launch(t, nil, venv("daemon", "cueapi-worker"), command, "--config", file)
		return p.wait(patience), p.output.String(), file
	}
	workerID, worker := s.newKey("worker", nil)
	if status, text, _ := run("status", s.url, worker); status != 0 || !strings.Contains(text, "'daemon-1' is connected and authenticated") {
		t.Errorf("status ends with %d: %s", status, text)
	}
	s.call("POST", "/v1/keys/"+workerID+"/revoke", object{})
	if status, text, _ := run("status", s.url, worker); status != 1 {
		t.Errorf("with a revoked key status ends with %d: %s", status, text)
	}

	_, old := s.newKey("full", nil)
	status, text, file := run("regenerate-key", s.url+"/", old) // the slash makes its path begin with two
	if status != 0 {
		t.Fatalf("regenerate-key ends with %d: %s", status, text)
	}
	config, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	fresh := regexp.MustCompile(`unstuck_\w+`).FindString(string(config))
	answers := []int{}
	for _, key := range []string{old, fresh} {
		status, _ := s.try(key, "GET", "/v1/keys/self", nil)
		answers = append(answers, status)
	}
	if !slices.Equal(answers, []int{401, 200}) {
		t.Errorf("the old and the new key are answered %v", answers)
	}
}
