//go:build linux

package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// workerPage is docs/help/worker-daemon.md.
func workerPage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../docs/help/worker-daemon.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestWorkerDaemonPage runs the page as TestReadme does the README; the worker runs beside the rest.
func TestWorkerDaemonPage(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	page, _, _ := strings.Cut(workerPage(t), "## The file")
	tour := transcripts(strings.ReplaceAll(page, "laptop", host))
	if len(tour) < 9 {
		t.Fatalf("the page has %d commands", len(tour))
	}
	env, _, key := tourist(t)
	env = append(env, "UNSTUCK_API_KEY="+key, "HERE="+t.TempDir())
	walk(t, env, append([]transcript{{command: `cd "$HERE"`}}, tour...), func(*session, string) {})
}

// TestWorkerUnit holds the unit of the page against systemd itself, where it is installed.
func TestWorkerUnit(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("CI must have systemd-analyze")
		}
		t.Skip("there is no systemd")
	}
	_, unit, _ := strings.Cut(workerPage(t), "    [Unit]")
	unit, _, _ = strings.Cut(unit, "\n#")
	unit = strings.ReplaceAll("[Unit]"+unit, "\n    ", "\n")
	unit = strings.NewReplacer("/usr/local/bin/unstuck", binary(t), "unstuck-worker\n", "root\n").Replace(unit)
	file := filepath.Join(t.TempDir(), "unstuck-worker.service")
	if err := os.WriteFile(file, []byte(unit), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput()
	said := slices.DeleteFunc(strings.Split(string(out), "\n"), func(line string) bool { return !strings.Contains(line, "unstuck-worker.service") })
	if len(said) > 0 || err != nil || !strings.Contains(unit, "KillMode=mixed\nTimeoutStopSec=60\n") {
		t.Errorf("systemd says: %v\n%s\nof\n%s", err, out, unit)
	}
}

// TestHandlerEnvironment: all that the page names is in the environment of a handler, under CueAPI's names too, and the program can
// be called from there.
func TestHandlerEnvironment(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	_, line, _ := strings.Cut(workerPage(t), "Its variables are `UNSTUCK_")
	line, _, _ = strings.Cut(line, "\n")
	names := regexp.MustCompile("_([A-Z_]+)`").FindAllStringSubmatch("_"+line, -1)
	handler := `test "$(unstuck --quiet executions list)" = "$UNSTUCK_EXECUTION_ID" || exit 9; test -w "$CUEAPI_OUTCOME_FILE" || exit 8; `
	id := y.fire("env", obj{"n": 1})
	want := map[string]string{"EXECUTION_ID": id, "CUE_ID": y.cues["env"], "CUE_NAME": "env", "TASK": "env", "ATTEMPT": "1", "WORKER_ID": "ours",
		"PAYLOAD": `{"n": 1, "task": "env"}`, "URL": y.s.URL, "SCHEDULED_FOR": y.execution(id)["scheduled_for"].(string)}
	expected := ""
	for _, name := range names {
		if v, ok := want[name[1]]; ok {
			handler += fmt.Sprintf("echo \"$UNSTUCK_%s\"; ", name[1])
			expected += v + "\n"
		}
	}
	for _, name := range []string{"EXECUTION_ID", "CUE_ID", "CUE_NAME", "WORKER_ID", "PAYLOAD"} {
		handler += fmt.Sprintf("echo \"$CUEAPI_%s\"; ", name)
		expected += want[name] + "\n"
	}
	handler += `test "$UNSTUCK_API_KEY" = "$CUEAPI_API_KEY" && echo "$CUEAPI_BASE_URL"`
	expected += y.s.URL + "\n"
	d := y.worker(obj{"env": "PATH=" + filepath.Dir(binary(t)) + ":$PATH; " + handler}, nil)
	d.says("done", id)
	if got := y.execution(id)["outcome"].(obj)["result"]; got != expected || len(names) != 11 {
		t.Errorf("%d names; the handler found\n%s\nwant\n%s", len(names), got, expected)
	}
}

// TestWorkerKeySources: the key comes from the first of the places where it may be, and from none it is refused.
func TestWorkerKeySources(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	none := "unstuck_" + strings.Repeat("A", 49) + "_00000000"
	home, dir := t.TempDir(), t.TempDir()
	write := func(path, text string) string {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	theirs := write(filepath.Join(home, ".config", "cueapi", "credentials.json"), fmt.Sprintf(`{"default": {"api_key": %q}}`, none))
	keyFile := write(filepath.Join(dir, "key"), y.key+"\n")
	login := filepath.Join(home, ".unstuck", "credentials")
	loggedIn := fmt.Sprintf(`{"url": %q, "key": %q}`, y.s.URL, y.key)
	for _, c := range []struct {
		name       string
		file       string // its line about the key
		env        []string
		args       []string
		theirs     string
		login      string
		from       string
		codeIsZero bool
	}{
		{name: "a flag", file: "api_key: " + none, args: []string{"--key-file", keyFile}, from: keyFile, codeIsZero: true},
		{name: "a file beside it", file: "api_key_file: key", env: []string{"UNSTUCK_API_KEY=" + none}, from: keyFile, codeIsZero: true},
		{name: "the file", file: "api_key: " + y.key, env: []string{"UNSTUCK_API_KEY=" + none, "CUEAPI_API_KEY=" + none}, from: "worker.yaml", codeIsZero: true},
		{name: "the environment", env: []string{"UNSTUCK_API_KEY=" + y.key, "CUEAPI_API_KEY=" + none}, from: "UNSTUCK_API_KEY", codeIsZero: true},
		{name: "CueAPI's environment", env: []string{"CUEAPI_API_KEY=" + y.key}, login: loggedIn, from: "CUEAPI_API_KEY", codeIsZero: true},
		{name: "a login", login: loggedIn, from: "~/.unstuck/credentials", codeIsZero: true},
		{name: "a login elsewhere", login: strings.Replace(loggedIn, y.s.URL, "https://elsewhere.example.com", 1), from: "is for https://elsewhere.example.com"},
		{name: "CueAPI's login", theirs: fmt.Sprintf(`{"default": {"api_key": %q}}`, y.key), from: "~/.config/cueapi/credentials.json", codeIsZero: true},
		{name: "a key that is none", file: "api_key: " + none, from: "worker.yaml"},
		{name: "nothing", theirs: "{}", from: "has no key"},
	} {
		_ = os.Remove(login)
		if c.login != "" {
			write(login, c.login)
		}
		if c.theirs != "" {
			write(theirs, c.theirs)
		}
		file := write(filepath.Join(dir, "worker.yaml"), "api_base: "+y.s.URL+"\nhandlers: {a: 'true'}\n"+c.file+"\n")
		cmd := exec.Command(binary(t), append([]string{"worker", "--check", "--config", file}, c.args...)...)
		cmd.Env = append([]string{"HOME=" + home}, c.env...)
		out, err := cmd.CombinedOutput()
		if (err == nil) != c.codeIsZero || !strings.Contains(string(out), c.from) {
			t.Errorf("%s: %v, and %q is missing or not in\n%s", c.name, err, c.from, out)
		}
	}
}
