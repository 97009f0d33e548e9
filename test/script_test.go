//go:build linux

package test

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"unstuck/internal/testkit/pgtest"
)

// TestScript plays the stories in test/script through the built program, on SQLite; each has a home and a server of its own. Beside
// the commands of testscript they use
//
//	server start [flag…]      starts `unstuck serve`, waits until it answers, and puts what it says into server.txt; the first
//	                          start sets $FIRST to the first key, which is in first.key too
//	server stop | kill        ends it in order, or at once
//	exits CODE program arg…   runs a program that ends with this code
//	into NAME program arg…    runs a program and puts what it prints on standard output into a variable
//	same stdout|stderr FILE   compares what was printed with a file: ids, keys, times and the width of gaps do not count
//	replace FILE OLD NEW      puts one text in the place of another, which must be there
func TestScript(t *testing.T) {
	play(t, "script", func(testing.TB) string { return "" }, nil)
}

// TestScriptPostgres plays the same stories on PostgreSQL, except those about files of SQLite.
func TestScriptPostgres(t *testing.T) {
	pgtest.DSN(t) // without PostgreSQL there is nothing to play
	play(t, "script", pgtest.DSN, nil)
}

// commands are commands of a story beside those that every story has.
type commands map[string]func(*testscript.TestScript, bool, []string)

func play(t *testing.T, dir string, database func(testing.TB) string, more commands) {
	t.Helper()
	bin := filepath.Dir(binary(t))
	all := commands{"server": runServer, "exits": exits, "into": into, "same": same, "replace": replace}
	maps.Copy(all, more)
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			address := "127.0.0.1:" + freePort(t)
			e.Setenv("HOME", home)
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("TZ", "Europe/Berlin")
			e.Setenv("UNSTUCK_LISTEN", address)
			e.Setenv("UNSTUCK_URL", "http://"+address)
			e.Setenv("UNSTUCK_DATABASE", database(t))
			e.Values["server"] = &program{}
			e.Defer(func() { e.Values["server"].(*program).end(syscall.SIGKILL) })
			return os.MkdirAll(home, 0o700)
		},
		Condition: func(cond string) (bool, error) {
			if cond != "sqlite" {
				return false, fmt.Errorf("unknown condition %s", cond)
			}
			return !strings.HasSuffix(t.Name(), "Postgres"), nil
		},
		Cmds: all,
	})
}

// program is a server that runs, or nothing.
type program struct{ cmd *exec.Cmd }

// end ends the program by a signal and waits for it.
func (p *program) end(signal os.Signal) error {
	if p.cmd == nil {
		return nil
	}
	cmd := p.cmd
	p.cmd = nil
	return errors.Join(cmd.Process.Signal(signal), cmd.Wait())
}

func runServer(ts *testscript.TestScript, neg bool, args []string) {
	p := ts.Value("server").(*program)
	switch {
	case neg || len(args) == 0:
		ts.Fatalf("usage: server start [flag…] | stop | kill")
	case args[0] == "stop":
		ts.Check(p.end(syscall.SIGTERM))
	case args[0] == "kill":
		_ = p.end(syscall.SIGKILL) // ends with the signal, as it should
	default:
		p.start(ts, args[1:])
	}
}

// start starts a server and waits until it answers. It writes straight into files, so that what it said before it answered is there.
func (p *program) start(ts *testscript.TestScript, flags []string) {
	p.cmd = exec.Command(filepath.Join(strings.Split(ts.Getenv("PATH"), ":")[0], "unstuck"), append([]string{"serve", "--print-first-key"}, flags...)...)
	for _, name := range []string{"HOME", "TZ", "UNSTUCK_LISTEN", "UNSTUCK_DATA", "UNSTUCK_DATABASE", "UNSTUCK_HEARTBEAT_URL", "UNSTUCK_SECRET", "UNSTUCK_ALLOW_CALLBACKS"} {
		p.cmd.Env = append(p.cmd.Env, name+"="+ts.Getenv(name))
	}
	stdout, err := os.Create(ts.MkAbs("stdout.txt"))
	ts.Check(err)
	stderr, err := os.Create(ts.MkAbs("server.txt"))
	ts.Check(err)
	defer stdout.Close()
	defer stderr.Close()
	p.cmd.Stdout, p.cmd.Stderr = stdout, stderr
	ts.Check(p.cmd.Start())
	end := time.Now().Add(time.Minute)
	for !answers(ts.Getenv("UNSTUCK_URL")) {
		if time.Now().After(end) {
			ts.Fatalf("the server does not answer:\n%s", ts.ReadFile("server.txt"))
		}
	}
	if key := strings.TrimSpace(ts.ReadFile("stdout.txt")); key != "" {
		ts.Setenv("FIRST", key)
		ts.Check(os.WriteFile(ts.MkAbs("first.key"), []byte(key+"\n"), 0o600))
	}
	ts.Check(os.WriteFile(ts.MkAbs("server.txt"), []byte(logLine.ReplaceAllString(ts.ReadFile("server.txt"), "")), 0o600))
}

// logLine is a line of the server's log, beside what it says to people.
var logLine = regexp.MustCompile(`(?m)^\{.*\}\n`)

// answers asks once, and gives a server that does not listen yet a moment.
func answers(url string) bool {
	c := http.Client{Timeout: time.Second}
	res, err := c.Get(url + "/status")
	if err != nil {
		<-time.After(20 * time.Millisecond)
		return false
	}
	return res.Body.Close() == nil && res.StatusCode == http.StatusOK
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if neg || err != nil || len(args) < 2 {
		ts.Fatalf("usage: exits CODE program arg…")
	}
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("it ended with %d, not with %d", got, want)
	}
}

func into(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: into NAME program arg…")
	}
	ts.Check(ts.Exec(args[1], args[2:]...))
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// spoken masks what the masks of the README leave: whole ids.
var spoken = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|(key|usr|ws)_[0-9a-z]{12}`)

func same(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: same stdout|stderr|FILE FILE")
	}
	mask := func(text string) []string {
		return strings.Split(words(spoken.ReplaceAllString(text, "ID")), "\n")
	}
	if diff := gocmp.Diff(mask(ts.ReadFile(args[1])), mask(ts.ReadFile(args[0]))); diff != "" {
		ts.Fatalf("%s is not %s (-want +got):\n%s", args[0], args[1], diff)
	}
}

func replace(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: replace FILE OLD NEW")
	}
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s does not hold %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.ReplaceAll(text, args[1], args[2])), 0o600))
}
