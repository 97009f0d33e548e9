//go:build linux

package test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// inNetwork marks the process that TestCallbackFromAContainerNetwork starts in a network of its own.
const inNetwork = "UNSTUCK_TEST_NETWORK"

// TestCallbackFromAContainerNetwork plays test/script/container through the built program, in a network namespace where this machine is
// 172.17.0.1, as on Docker's bridge, and goes by the name n8n. Only root may make one.
func TestCallbackFromAContainerNetwork(t *testing.T) {
	if os.Getenv(inNetwork) != "" {
		play(t, "script/container", func(testing.TB) string { return "" }, commands{"hook": webhook, "waits": waits})
		return
	}
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost\n172.17.0.1 n8n\n"), 0o644); err != nil { //nolint:gosec // every process reads it
		t.Fatal(err)
	}
	const network = `ip link set lo up && ip address add 172.17.0.1/16 dev lo && mount --bind "$0" /etc/hosts`
	if out, err := exec.Command("unshare", "--net", "--mount", "sh", "-c", network, hosts).CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("CI must be root and have unshare and ip: %v\n%s", err, out)
		}
		t.Skipf("no network of its own can be made here: %v", err)
	}
	cmd := exec.Command("unshare", "--net", "--mount", "sh", "-c", network+` && exec "$@"`, hosts, os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inNetwork+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// webhook starts a callback at an address, or waits until it was called; what came is in NAME.json.
func webhook(ts *testscript.TestScript, neg bool, args []string) {
	switch {
	case neg || len(args) != 2:
		ts.Fatalf("usage: hook NAME ADDRESS | hook wait NAME")
	case args[0] == "wait":
		until(ts, "a call of "+args[1], func() bool {
			st, err := os.Stat(ts.MkAbs(args[1] + ".json"))
			return err == nil && st.Size() > 0
		})
	default:
		l, err := net.Listen("tcp", args[1])
		ts.Check(err)
		file := ts.MkAbs(args[0] + ".json")
		s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err == nil {
				err = os.WriteFile(file, body, 0o600)
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		})}
		go func() { _ = s.Serve(l) }() // ends when it is closed
		ts.Defer(func() { _ = s.Close() })
	}
}

// waits runs a program until it prints what a pattern says.
func waits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: waits PATTERN program arg…")
	}
	pattern := regexp.MustCompile(args[0])
	until(ts, fmt.Sprintf("%s in what %v prints", args[0], args[1:]), func() bool {
		return ts.Exec(args[1], args[2:]...) == nil && pattern.MatchString(ts.ReadFile("stdout"))
	})
}

// until looks until something is so.
func until(ts *testscript.TestScript, what string, so func() bool) {
	for end := time.Now().Add(time.Minute); !so(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("within a minute there was not: %s", what)
		}
	}
}
