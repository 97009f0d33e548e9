//go:build linux

package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"unstuck/internal/testkit"
)

// yard is a server with work for workers.
type yard struct {
	*testing.T
	s    *testkit.Server
	key  string // of scope worker
	cues map[string]string
}

func newYard(t *testing.T) *yard {
	s := testkit.New(t, "")
	unlimited(s, s.First)
	return &yard{T: t, s: s, key: s.Key("worker"), cues: map[string]string{}}
}

// fire makes work of a task. Payload and cue may say more.
func (y *yard) fire(task string, more ...obj) string {
	y.Helper()
	payload, cue := obj{"task": task}, obj{"name": task, "cron": "0 0 1 1 *", "worker": true}
	if len(more) > 0 {
		maps.Copy(payload, more[0])
	}
	if len(more) > 1 {
		maps.Copy(cue, more[1])
	}
	if y.cues[task] == "" {
		y.cues[task] = y.s.Must(y.s.First, "POST /v1/cues", cue).Str("id")
	}
	y.s.Clock.Add(time.Millisecond)
	return y.s.Must(y.s.First, "POST /v1/cues/"+y.cues[task]+"/fire", obj{"payload_override": payload}).Str("id")
}

// execution is an execution as it stands.
func (y *yard) execution(id string) obj {
	y.Helper()
	return y.s.Must(y.s.First, "GET /v1/executions/"+id, nil).JSON
}

// is checks some members of an execution.
func (y *yard) is(id string, want obj) {
	y.Helper()
	got := y.execution(id)
	for name, v := range want {
		if !reflect.DeepEqual(got[name], v) {
			y.Errorf("%s of %v is %#v, want %#v\n%v", name, got["cue_name"], got[name], v, got)
		}
	}
}

// daemon is the built program as a worker.
type daemon struct {
	y     *yard
	cmd   *exec.Cmd
	file  string
	ended chan struct{}

	mu    sync.Mutex
	log   bytes.Buffer
	lines []obj // of the log
	more  *sync.Cond
}

// Write takes the log of the worker.
func (d *daemon) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log.Write(b)
	d.lines = nil
	for line := range strings.Lines(d.log.String()) {
		var entry obj
		if json.Unmarshal([]byte(line), &entry) == nil {
			d.lines = append(d.lines, entry)
		}
	}
	d.more.Broadcast()
	return len(b), nil
}

// worker starts a worker with handlers, and what else its file says.
func (y *yard) worker(handlers, more obj) *daemon {
	y.Helper()
	config := obj{"api_base": y.s.URL, "api_key": y.key, "worker_id": "ours", "heartbeat_interval": 0.1, "max_concurrent": 8, "stop_grace": 0.2, "kill_grace": 0.2, "handlers": handlers}
	maps.Copy(config, more)
	text, err := json.Marshal(config) // which is YAML, too
	if err != nil {
		y.Fatal(err)
	}
	d := &daemon{y: y, file: filepath.Join(y.TempDir(), "worker.yaml"), ended: make(chan struct{})}
	d.more = sync.NewCond(&d.mu)
	if err := os.WriteFile(d.file, text, 0o600); err != nil {
		y.Fatal(err)
	}
	d.cmd = exec.Command(binary(y.T), "worker", "--config", d.file)
	d.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + y.TempDir(), "TMPDIR=" + y.TempDir()}
	d.cmd.Stderr = d
	if err := d.cmd.Start(); err != nil {
		y.Fatal(err)
	}
	go func() {
		_ = d.cmd.Wait() // how it ended is in ProcessState
		d.mu.Lock()
		defer d.mu.Unlock()
		close(d.ended)
		d.more.Broadcast()
	}()
	y.Cleanup(func() {
		d.signal(syscall.SIGTERM) // its handlers end with it
		d.exit()
		if y.Failed() {
			y.Logf("the worker said:\n%s", d.log.String())
		}
		if strings.Contains(d.log.String(), y.key) {
			y.Errorf("the key is in the log:\n%s", d.log.String())
		}
	})
	return d
}

func (d *daemon) signal(s os.Signal) { _ = d.cmd.Process.Signal(s) } // it may have ended

// says waits until the log has a line about an execution; "" is one about none.
func (d *daemon) says(message, execution string) obj {
	d.y.Helper()
	limit := time.AfterFunc(time.Minute, d.more.Broadcast)
	defer limit.Stop()
	began := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		for _, line := range d.lines {
			id, _ := line["execution"].(string)
			if line["msg"] == message && id == execution {
				return line
			}
		}
		select {
		case <-d.ended:
			d.y.Fatalf("the worker ended and did not say %q about %q", message, execution)
		default:
		}
		if time.Since(began) >= time.Minute {
			d.y.Fatalf("the worker does not say %q about %q", message, execution)
		}
		d.more.Wait()
	}
}

// exit waits for the end and is the status.
func (d *daemon) exit() int {
	d.y.Helper()
	select {
	case <-d.ended:
	case <-time.After(time.Minute):
		d.y.Fatal("the worker does not end")
	}
	return d.cmd.ProcessState.ExitCode()
}

// TestWorkerOutcomes runs real commands, all at once, behind a backlog that the worker has no handler for.
func TestWorkerOutcomes(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	var backlog []string
	for range 60 {
		backlog = append(backlog, y.fire("foreign"))
	}
	evil := `"; touch evil; echo '$(touch evil)` + "`touch evil` \\"
	left := filepath.Join(t.TempDir(), "left")
	evidence := `echo '{"external_id":"m-1","result_url":"https://example.com/m/1","summary":"one mail","metadata":{"took":1.50},"colour":"red","result_type":7}' > "$UNSTUCK_OUTCOME_FILE"; `
	home := t.TempDir()
	told := func(m obj) obj { return obj{"_cueapi_worker": m} }
	jobs := map[string]struct {
		handler any
		payload obj
		cue     obj
		status  string
		state   string
		outcome obj // members of it
		ended   string
	}{
		"success": {handler: `echo "did $UNSTUCK_CUE_NAME as $CUEAPI_WORKER_ID, {{ payload.to.name }}, try $UNSTUCK_ATTEMPT"`, payload: obj{"to": obj{"name": "Ada Größe"}},
			status: "success", state: "reported_success", outcome: obj{"success": true, "result": "did success as ours, Ada Größe, try 1\n", "error": nil}, ended: "exit status 0"},
		"silent":    {handler: "true", status: "success", state: "reported_success", outcome: obj{"result": "completed"}},
		"failure":   {handler: "echo no route to host >&2; exit 3", status: "failed", state: "reported_failure", outcome: obj{"success": false, "error": "no route to host\n", "result": nil}, ended: "exit status 3"},
		"both":      {handler: "echo so far; echo no further >&2; exit 1", status: "failed", state: "reported_failure", outcome: obj{"error": "so far\n\n--- stderr ---\nno further\n"}},
		"mute":      {handler: "exit 3", status: "failed", state: "reported_failure", outcome: obj{"error": "The handler ended with exit status 3 and printed nothing"}},
		"nowhere":   {handler: obj{"cmd": "true", "cwd": "/no/such/folder"}, status: "failed", state: "reported_failure", ended: "not started"},
		"folder":    {handler: obj{"cmd": "pwd", "cwd": home}, status: "success", state: "reported_success", outcome: obj{"result": home + "\n"}},
		"payload":   {handler: `printf '%s' "$CUEAPI_PAYLOAD"; cat`, payload: obj{"a": []any{1, "é"}}, status: "success", state: "reported_success", outcome: obj{"result": strings.Repeat(`{"a": [1, "\u00e9"], "task": "payload"}`, 2)}},
		"large":     {handler: `test -z "$UNSTUCK_PAYLOAD" && wc -c`, payload: obj{"a": strings.Repeat("x", 200<<10)}, status: "success", state: "reported_success", outcome: obj{"result": fmt.Sprintln(200<<10 + len(`{"a": "", "task": "large"}`))}},
		"evil":      {handler: obj{"cmd": `printf '%s|' {{ payload.word }} "{{ payload.evil }}" '{{ payload.evil }}' "$(printf '%s' '{{ payload.evil }}')" "$E"`, "cwd": home, "env": obj{"E": "{{ payload.evil }}"}}, payload: obj{"evil": evil, "word": "w"}, status: "success", state: "reported_success", outcome: obj{"result": "w|" + strings.Repeat(evil+"|", 4)}},
		"evidence":  {handler: evidence, cue: obj{"verification": obj{"mode": "require_external_id"}}, status: "success", state: "verified_success", outcome: obj{"external_id": "m-1", "result_url": "https://example.com/m/1", "summary": "one mail", "result": "completed", "metadata": obj{"took": 1.5, "_cueapi_worker": obj{"outcome_file_dropped_fields": []any{"colour", "result_type"}}}}},
		"no proof":  {handler: "true", cue: obj{"verification": obj{"mode": "require_external_id"}}, status: "success", state: "verification_failed"},
		"says no":   {handler: `echo '{"success":false,"summary":"empty"}' > "$CUEAPI_OUTCOME_FILE"; echo nothing to send`, status: "failed", state: "reported_failure", outcome: obj{"error": "nothing to send\n", "summary": "empty"}},
		"crash":     {handler: evidence + "kill -9 $$", status: "failed", state: "reported_failure", outcome: obj{"success": false, "external_id": "m-1"}, ended: "signal: killed"},
		"broken":    {handler: `echo '{' > "$UNSTUCK_OUTCOME_FILE"; echo fine`, status: "success", state: "reported_success", outcome: obj{"result": "fine\n", "metadata": told(obj{"outcome_file_parse_error": "outcome_file_malformed_json"})}},
		"list":      {handler: `echo '[]' > "$UNSTUCK_OUTCOME_FILE"; echo fine`, status: "success", state: "reported_success", outcome: obj{"metadata": told(obj{"outcome_file_dropped_fields": []any{"<whole file was not a JSON object>"}})}},
		"huge":      {handler: `head -c 70000 /dev/zero > "$UNSTUCK_OUTCOME_FILE"`, status: "success", state: "reported_success", outcome: obj{"metadata": told(obj{"outcome_file_parse_error": "outcome_file_too_large: > 65536"})}},
		"gone":      {handler: `rm "$UNSTUCK_OUTCOME_FILE"; echo fine`, status: "success", state: "reported_success", outcome: obj{"result": "fine\n", "metadata": nil}},
		"timeout":   {handler: obj{"cmd": `sh -c 'trap "" TERM; echo $$ > ` + left + `; while :; do sleep 60; done' & wait`, "timeout": 1.5}, status: "failed", state: "reported_failure", outcome: obj{"error": "Handler timeout exceeded (1.5s)", "result": nil}, ended: "timed out"},
		"long":      {handler: "printf 'ö%.0s' $(seq 5000); yes | head -c 1000000", status: "success", state: "reported_success", outcome: obj{"result": strings.Repeat("ö", 4096)}},
		"long fail": {handler: "printf '!%.0s' $(seq 5000) >&2; exit 1", status: "failed", state: "reported_failure", outcome: obj{"error": strings.Repeat("!", 4096)}},
		"bytes":     {handler: `printf 'a\377b\000c'`, status: "success", state: "reported_success", outcome: obj{"result": "a\uFFFDb\uFFFDc"}},
		"children":  {handler: `(sleep 0.3; echo late) & echo early`, status: "success", state: "reported_success", outcome: obj{"result": "early\nlate\n"}},
		"secret":    {handler: `echo "$UNSTUCK_API_KEY" "$CUEAPI_API_KEY"`, status: "success", state: "reported_success"},
		"refused":   {handler: `echo '{"result_url":"https://","external_id":"x"}' > "$UNSTUCK_OUTCOME_FILE"; echo done all the same`, status: "success", state: "reported_success", outcome: obj{"result": "done all the same\n", "external_id": nil}},
	}
	handlers, runs := obj{}, map[string]string{}
	for name, j := range jobs {
		handlers[name] = j.handler
		runs[name] = y.fire(name, j.payload, j.cue)
	}
	d := y.worker(handlers, nil)
	for name, j := range jobs {
		said := "done"
		if j.status == "failed" {
			said = "failed"
		}
		line := d.says(said, runs[name])
		if j.ended != "" && line["ended"] != j.ended {
			t.Errorf("%s ended with %v, want %s", name, line["ended"], j.ended)
		}
		y.is(runs[name], obj{"status": j.status, "outcome_state": j.state, "attempts": 1.0, "claimed_by_worker": "ours", "unfenced": false})
		outcome, _ := y.execution(runs[name])["outcome"].(obj)
		for field, want := range j.outcome {
			if !reflect.DeepEqual(outcome[field], want) {
				t.Errorf("%s, %s: %#v, want %#v", name, field, outcome[field], want)
			}
		}
	}
	for _, id := range backlog {
		y.is(id, obj{"status": "pending", "attempts": 0.0})
	}
	if _, err := os.Stat(filepath.Join(home, "evil")); err == nil {
		t.Error("a payload brought a command of its own")
	}
	if result, _ := y.execution(runs["secret"])["outcome"].(obj)["result"].(string); strings.Contains(result, y.key) || !strings.Contains(result, "unstuck_***_") {
		t.Errorf("the stored result is %q", result)
	}
	if pid, err := os.ReadFile(left); err != nil || processLives(strings.TrimSpace(string(pid))) {
		t.Errorf("what the handler started outlived its time: %s %v", pid, err)
	}
	if strings.Contains(d.log.String(), "Größe") || strings.Contains(d.log.String(), "route") {
		t.Error("the log has a payload, or what a handler printed")
	}
	worker := y.s.Must(y.s.First, "GET /v1/workers", nil).JSON["workers"].([]any)[0].(obj)
	if worker["worker_id"] != "ours" || len(worker["handlers"].([]any)) != len(jobs) {
		t.Errorf("the worker is listed as %v", worker)
	}
}

// processLives says whether a process is there and no zombie.
func processLives(pid string) bool {
	status, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(status), ") Z ")
}

// TestWorkerConcurrency: no more handlers run at a time than the file says, in all and of one, and a handler that is full keeps
// no other waiting.
func TestWorkerConcurrency(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	dir := t.TempDir()
	fifo := filepath.Join(dir, "go")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	alone := fmt.Sprintf("mkdir %[1]s/alone || exit 9; test -e %[1]s/opened || read line < %[1]s/go; touch %[1]s/opened; rmdir %[1]s/alone", dir)
	var first []string
	for range 3 {
		first = append(first, y.fire("alone"))
	}
	d := y.worker(obj{"alone": obj{"cmd": alone, "max_concurrent": 1}, "quick": "true"}, obj{"max_concurrent": 2})
	d.says("taken", first[0])
	for range 5 { // one after the other beside the one that waits
		d.says("done", y.fire("quick"))
	}
	for _, id := range first[1:] {
		y.is(id, obj{"status": "pending", "attempts": 0.0})
	}
	if err := os.WriteFile(fifo, []byte("go\n"), 0); err != nil { // waits for the handler, which opens it
		t.Fatal(err)
	}
	for _, id := range first {
		d.says("done", id)
	}
}

// TestWorkerLosesLease: when the lease of what runs has gone to somebody else, the handler is stopped, nothing is reported, and that
// is said. A worker that takes again what it has lost ends the first attempt before it begins the next.
func TestWorkerLosesLease(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	dir := t.TempDir()
	fifo := filepath.Join(dir, "begun")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	id := y.fire("slow")
	d := y.worker(obj{"slow": "mkdir " + dir + "/alone || exit 9; trap 'echo stopped > " + dir + "/how; rmdir " + dir + "/alone; exit 0' TERM; echo > " + fifo + "; while :; do sleep 0.05; done"}, nil)
	d.says("taken", id)
	if _, err := os.ReadFile(fifo); err != nil { // waits for the handler
		t.Fatal(err)
	}
	y.s.Clock.Add(16 * time.Minute)
	y.s.Drain()
	d.says("stopped: its lease is over, and somebody else may have it", id)
	d.says("begun again", id) // by the same worker, once the first attempt has ended
	y.is(id, obj{"status": "delivering", "attempts": 2.0, "outcome": nil})
	if _, err := os.ReadFile(fifo); err != nil {
		t.Fatal(err)
	}
	if how, err := os.ReadFile(dir + "/how"); err != nil || string(how) != "stopped\n" {
		t.Errorf("the handler was not asked to end: %q %v", how, err)
	}
}

// TestWorkerStops sends SIGTERM in the middle of a job: it is finished and reported, and nothing new is begun.
func TestWorkerStops(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	fifo := filepath.Join(t.TempDir(), "go")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	id := y.fire("last")
	d := y.worker(obj{"last": "read line < " + fifo + "; echo to the end"}, obj{"stop_grace": 60})
	d.says("taken", id)
	d.signal(syscall.SIGTERM)
	d.says("stopping: work that runs is finished first", "")
	later := y.fire("last")
	if err := os.WriteFile(fifo, []byte("go\n"), 0); err != nil { // waits for the handler, which opens it
		t.Fatal(err)
	}
	if code := d.exit(); code != 0 {
		t.Errorf("ended with %d", code)
	}
	y.is(id, obj{"status": "success", "attempts": 1.0})
	y.is(later, obj{"status": "pending", "attempts": 0.0})
}

// TestWorkerHandsBack: what has not ended within the grace is stopped and given back, and another worker takes it at once.
func TestWorkerHandsBack(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	id := y.fire("endless")
	d := y.worker(obj{"endless": "trap '' TERM; while :; do sleep 60; done"}, nil)
	d.says("taken", id)
	d.signal(syscall.SIGINT)
	if code := d.exit(); code != 0 {
		t.Errorf("ended with %d", code)
	}
	y.is(id, obj{"status": "pending", "attempts": 1.0, "error_message": "Worker ours gave it back; offered again"})
	next := y.worker(obj{"endless": "echo at last"}, obj{"worker_id": "next"})
	next.says("done", id)
	y.is(id, obj{"status": "success", "attempts": 2.0, "claimed_by_worker": "next"})
}

// TestWorkerWithoutRoom: a worker that can start no handler, as with a full disk, spoils no work: it gives it back, and no attempt counts.
func TestWorkerWithoutRoom(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	d := y.worker(obj{"leave": `rm -rf "$TMPDIR"`, "job": "echo done"}, obj{"poll_interval": 0.1})
	d.says("done", y.fire("leave"))
	id := y.fire("job")
	d.says("no handler can be started", id)
	d.says("given back", id)
	for _, v := range d.cmd.Env {
		if dir, ok := strings.CutPrefix(v, "TMPDIR="); ok {
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.says("done", id)
	y.is(id, obj{"status": "success", "attempts": 1.0})
}

// TestWorkerKeyRevoked: without its key the worker stops what runs, which nobody could report, and ends with 1.
func TestWorkerKeyRevoked(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	id := y.fire("endless")
	d := y.worker(obj{"endless": "exec sleep 600"}, nil)
	d.says("taken", id)
	self := y.s.Must(y.key, "GET /v1/keys/self", nil).Str("id")
	y.s.Must(y.s.First, "POST /v1/keys/"+self+"/revoke", obj{})
	if code := d.exit(); code != 1 {
		t.Errorf("ended with %d", code)
	}
	if said := d.log.String(); !strings.Contains(said, "does not take the key from ") || !strings.Contains(said, "unstuck keys create ") {
		t.Errorf("it said:\n%s", said)
	}
	y.is(id, obj{"status": "delivering", "outcome": nil})
}

// TestWorkerKeyNarrowed: a key that may not take work for a while ends nothing. The worker says so once, and goes on when it may.
func TestWorkerKeyNarrowed(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	later := y.s.Clock.Now().Add(time.Hour).Format(time.RFC3339)
	y.key = y.s.Must(y.s.First, "POST /v1/keys", obj{"name": "later", "scope": "worker", "restrictions": obj{"not_before": later}}).Str("key")
	id := y.fire("job")
	d := y.worker(obj{"job": "true"}, obj{"poll_interval": 0.1})
	if line := d.says("no work could be asked for", ""); !strings.Contains(line["error"].(string), "403 key_restricted") {
		t.Errorf("it said %v", line)
	}
	y.is(id, obj{"status": "pending", "attempts": 0.0})
	y.s.Clock.Add(2 * time.Hour)
	d.says("asking for work again", "")
	d.says("done", y.fire("job"))
}

// TestWorkerIsKilled: what a worker held that was killed is taken by another one when the lease is over.
func TestWorkerIsKilled(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	id := y.fire("job")
	d := y.worker(obj{"job": "exec sleep 5"}, nil) // it outlives the worker for a while
	d.says("taken", id)
	d.signal(syscall.SIGKILL)
	d.exit()
	next := y.worker(obj{"job": "echo taken over"}, obj{"worker_id": "next"})
	next.says("started", "")
	y.s.Await("/v1/executions/claim", 1)
	y.is(id, obj{"status": "delivering", "claimed_by_worker": "ours"})
	y.s.Clock.Add(16 * time.Minute)
	y.s.Drain()
	next.says("done", id)
	y.is(id, obj{"status": "success", "attempts": 2.0, "claimed_by_worker": "next"})
}

// TestWorkerRefusesItsFile: a file that does not fit ends the program with 2, and says all that is wrong with it.
func TestWorkerRefusesItsFile(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	for _, c := range []struct {
		handlers, more obj
		says           []string
	}{
		{obj{}, nil, []string{"handlers is missing"}},
		{obj{"a": obj{"cwd": "/"}, "b": 7}, obj{"poll_interval": "soon", "max_concurrent": 0}, []string{"handlers.a.cmd is missing", "handlers.b is a number", "poll_interval is soon", "max_concurrent is 0"}},
		{obj{"a": "true"}, obj{"api_key": "", "api_key_file": "none"}, []string{"none"}},
		{obj{"a": "true"}, obj{"api_key": ""}, []string{"has no key", "unstuck keys create"}},
		{obj{"a": "true"}, obj{"api_base": "http://192.0.2.1"}, []string{"--plain-http"}},
	} {
		d := y.worker(c.handlers, c.more)
		if code := d.exit(); code != 2 {
			t.Errorf("%v %v: ended with %d", c.handlers, c.more, code)
		}
		for _, want := range c.says {
			if said := d.log.String(); !strings.Contains(said, want) {
				t.Errorf("%v %v: %q is not in\n%s", c.handlers, c.more, want, said)
			}
		}
	}
}

// TestWorkerCheck looks at a file and what its key may do, and takes no work.
func TestWorkerCheck(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	id := y.fire("a")
	only := func(scope string, restrictions obj) string {
		body := obj{"name": scope, "scope": scope}
		if restrictions != nil {
			body["restrictions"] = restrictions
		}
		return y.s.Must(y.s.First, "POST /v1/keys", body).Str("key")
	}
	gone := y.s.Must(y.s.First, "POST /v1/keys", obj{"name": "gone", "scope": "worker"})
	y.s.Must(y.s.First, "POST /v1/keys/"+gone.Str("id")+"/revoke", obj{})
	for _, c := range []struct {
		key  string
		code int
		says []string
	}{
		{y.key, 0, []string{"2 handlers: a, b", "it can take work and report it", "– hanlders has no meaning; did you mean handlers?", "– email has no meaning here", "Nothing is wrong"}},
		{only("worker", obj{"worker_ids": []string{"ours", "x"}}), 0, []string{"Nothing is wrong"}},
		{only("worker", obj{"worker_ids": []string{"theirs"}}), 4, []string{"only for the workers theirs"}},
		{only("read-only", nil), 4, []string{"it cannot take work", "it cannot report an outcome", "it cannot give work back", "--scope worker"}},
		{gone.Str("key"), 3, []string{"revoked"}},
	} {
		file := filepath.Join(t.TempDir(), "worker.yaml")
		text := fmt.Sprintf("api_base: %s/v1\napi_key: %s\nworker_id: ours\nhandlers: {a: 'true', b: 'false'}\nhanlders: {}\nemail: me@example.com\n", y.s.URL, c.key)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(binary(t), "worker", "--check", "-c", file)
		cmd.Env = []string{"HOME=" + t.TempDir()}
		said, _ := cmd.CombinedOutput() // how it ended is in ProcessState
		if code := cmd.ProcessState.ExitCode(); code != c.code {
			t.Errorf("%s ended with %d, want %d:\n%s", c.key[len(c.key)-8:], code, c.code, said)
		}
		for _, want := range c.says {
			if !strings.Contains(string(said), want) {
				t.Errorf("%q is not in:\n%s", want, said)
			}
		}
	}
	y.is(id, obj{"status": "pending"})
}

// TestWorkerInit follows what `unstuck worker init` says, word for word, and fires the cue of the example.
func TestWorkerInit(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	dir := t.TempDir()
	env := []string{"PATH=" + filepath.Dir(binary(t)) + ":" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "UNSTUCK_URL=" + y.s.URL}
	run := func(command string, more ...string) (said string, code int) {
		cmd := exec.Command("sh", "-c", command)
		cmd.Dir, cmd.Env = dir, slices.Concat(env, more)
		out, _ := cmd.CombinedOutput() // how it ended is in ProcessState
		return string(out), cmd.ProcessState.ExitCode()
	}
	said, code := run("unstuck worker init")
	steps := map[string]string{}
	for line := range strings.Lines(said) {
		if name, command, ok := strings.Cut(strings.TrimSpace(line), "   "); ok {
			steps[strings.TrimSpace(name)] = strings.TrimSpace(command)
		}
	}
	if code != 0 || steps["its key"] == "" || steps["check"] != "unstuck worker --check" || steps["start"] != "unstuck worker" {
		t.Fatalf("init ended with %d and said:\n%s", code, said)
	}
	if said, code := run("echo mine > other.yaml; unstuck worker init other.yaml; e=$?; cat other.yaml; exit $e"); code != 2 || !strings.Contains(said, "stays as it is") || !strings.HasSuffix(said, "mine\n") {
		t.Errorf("a file that is there: %d\n%s", code, said)
	}
	if said, code := run(steps["check"]); code != 2 || !strings.Contains(said, steps["its key"]) {
		t.Errorf("without a key: %d\n%s", code, said)
	}
	first := "UNSTUCK_API_KEY=" + y.s.First
	if said, code := run(steps["its key"], first); code != 0 {
		t.Fatalf("its key: %d\n%s", code, said)
	}
	if st, err := os.Stat(filepath.Join(dir, "worker.key")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the key file: %v %v", st, err)
	}
	if said, code := run(steps["check"]); code != 0 {
		t.Errorf("check: %d\n%s", code, said)
	}
	example, err := os.ReadFile(filepath.Join(dir, "worker.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	_, create, _ := strings.Cut(string(example), "# unstuck cues create ")
	create, _, _ = strings.Cut(create, "\n")
	if said, code := run("unstuck cues create "+create+" && unstuck cues fire hello-worker", first); code != 0 {
		t.Fatalf("the cue of the example: %d\n%s", code, said)
	}
	id := y.s.Must(y.s.First, "GET /v1/executions", nil).JSON["executions"].([]any)[0].(obj)["id"].(string)
	d := &daemon{y: y, cmd: exec.Command("sh", "-c", "exec "+steps["start"]), ended: make(chan struct{})}
	d.more = sync.NewCond(&d.mu)
	d.cmd.Dir, d.cmd.Env, d.cmd.Stderr = dir, env, d
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = d.cmd.Wait()
		close(d.ended)
	}()
	d.says("done", id)
	d.signal(syscall.SIGTERM)
	if code := d.exit(); code != 0 {
		t.Errorf("ended with %d", code)
	}
	if got := y.execution(id)["outcome"].(obj)["result"]; got != "hello world\n" {
		t.Errorf("the result is %q", got)
	}
}
