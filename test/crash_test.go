package test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"unstuck/internal/server"
	"unstuck/internal/testkit/pgtest"
)

// Environment of the test binary when it is to be a server: its data folder, and its database unless that is SQLite.
const (
	serverData     = "UNSTUCK_TEST_SERVER_DATA"
	serverDatabase = "UNSTUCK_TEST_SERVER_DATABASE"
)

// TestServerProcess is the server of TestCrash: it runs until it is killed.
func TestServerProcess(t *testing.T) {
	data := os.Getenv(serverData)
	if data == "" {
		return // it is started by TestCrash
	}
	flags := map[string]string{"data": data, "listen": "127.0.0.1:0", "print-first-key": "true"}
	settings, err := server.ReadSettings(func(string) (string, bool) { return "", false }, flags, "")
	if err != nil {
		t.Fatal(err)
	}
	settings.Database = os.Getenv(serverDatabase)
	settings.AllowCallbacks = "127.0.0.1" // of TestCallbacksThroughCrashes
	behindProxy(&settings)
	if err := server.Run(context.Background(), settings, server.Streams{Out: os.Stdout, Err: os.Stderr, Zone: time.UTC}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// process is a server in a process of its own.
type process struct {
	cmd  *exec.Cmd
	base string
	key  string           // the first key, at the first start
	said *strings.Builder // on standard error; whole once it was killed
	out  sync.WaitGroup
}

var addressLine = regexp.MustCompile(`Address\s+(http://\S+)`)

// startProcess starts a server and returns when it listens.
func startProcess(t *testing.T, data, dsn string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0], "-test.run=^TestServerProcess$"), said: &strings.Builder{}}
	p.cmd.Env = append(os.Environ(), serverData+"="+data, serverDatabase+"="+dsn)
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stderr)
	for err == nil && !strings.Contains(p.said.String(), " ready in ") {
		var line string
		line, err = lines.ReadString('\n')
		p.said.WriteString(line)
		if m := addressLine.FindStringSubmatch(line); m != nil {
			p.base = m[1]
		}
	}
	if p.base == "" {
		_ = p.cmd.Wait()
		t.Fatalf("the server did not start:\n%s", p.said)
	}
	p.out.Go(func() { _, _ = io.Copy(p.said, lines) })
	if strings.Contains(p.said.String(), "first start") {
		p.key, _ = bufio.NewReader(stdout).ReadString('\n')
		p.key = strings.TrimSpace(p.key)
	}
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails only if it has ended
	p.out.Wait()
	_ = p.cmd.Wait() // it was killed
}

// alarm is what a server says when the race detector, which is in it when it is in the test, or the runtime found a fault.
var alarm = regexp.MustCompile(`WARNING: DATA RACE|panic: |fatal error: |"panic while|msg":"panic`)

// faults is what a killed server said of faults of the program, with what follows; "" for nothing.
func (p *process) faults() string {
	said := p.said.String()
	at := alarm.FindStringIndex(said)
	if at == nil {
		return ""
	}
	return said[at[0]:min(len(said), at[0]+4000)]
}

// TestCrash kills a server with SIGKILL while eight callers write, again and again. Everything that was acknowledged is there.
func TestCrash(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		t.Parallel()
		rounds := 5
		if long() {
			rounds = 40
			if strings.HasPrefix(dsn, "postgres") {
				pgtest.Durable(t)
			}
		}
		if !strings.HasPrefix(dsn, "postgres") {
			dsn = ""
		}
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		crashes(t, dsn, seed, rounds)
	})
}

func crashes(t *testing.T, dsn string, seed uint64, rounds int) {
	data := t.TempDir()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2 * historians}, Timeout: 30 * time.Second}
	p := startProcess(t, data, dsn)
	defer func() { p.kill() }()
	h := newHistory(client, p.base, p.key, seed)
	use := newCanary(h)
	for round := range rounds {
		life, quiet := time.Duration(50+h.random.IntN(500))*time.Millisecond, time.Duration(0)
		if round == 0 { // long enough to see how far behind last uses are
			quiet = lastUsedBehind + time.Second
		}
		ctx, cancel := context.WithCancel(t.Context())
		var writers sync.WaitGroup
		ended := make(chan struct{})
		writers.Go(func() { use.keep(ctx) })
		writers.Go(func() {
			defer close(ended)
			<-time.After(quiet)
			h.write(context.WithoutCancel(ctx))
		})
		<-time.After(quiet + life)
		h.awaitAcks(acksEachRound*int64(round+1), ended)
		cancel()
		killed := time.Now()
		p.kill()
		writers.Wait()
		if said := p.faults(); said != "" {
			h.fault("the server said: %s", said)
		}
		client.CloseIdleConnections()
		p = startProcess(t, data, dsn)
		h.base = p.base
		use.check(killed)
		h.check()
		if len(h.faults) > 0 {
			t.Fatalf("seed %d, round %d, %d writes acknowledged:\n%s", seed, round, h.acks.Load(), strings.Join(h.faults[:min(20, len(h.faults))], "\n"))
		}
	}
	p.kill()
	if said := p.faults(); said != "" {
		t.Errorf("the server said: %s", said)
	}
	t.Logf("%d writes were acknowledged, %d executions given out", h.acks.Load(), len(h.work))
	if h.acks.Load() < acksEachRound*int64(rounds) {
		t.Errorf("only %d writes were acknowledged: the test shows little", h.acks.Load())
	}
}

// acksEachRound is how many writes must have been acknowledged, on average, before the server is killed, however slow the machine is.
const acksEachRound = 20

// awaitAcks returns when n writes have been acknowledged, or when nobody writes any more.
func (h *history) awaitAcks(n int64, ended <-chan struct{}) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for h.acks.Load() < n {
		select {
		case <-tick.C:
		case <-ended:
			return
		}
	}
}

// canary is a key that is used all the time, to see how far behind its last use is after a crash.
type canary struct {
	h          *history
	id, secret string
	used       []time.Time // when its calls were made
}

func newCanary(h *history) *canary {
	r := h.must(h.first, "POST /v1/keys", obj{"name": "canary", "scope": "read-only"})
	return &canary{h: h, id: r.Str("id"), secret: r.Str("key")}
}

// keep uses the key until the context ends or the server does.
func (c *canary) keep(ctx context.Context) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		began := time.Now()
		if r, ok := c.h.call(c.secret, "GET /v1/keys/self", nil); !ok || r.Status != 200 {
			return
		}
		c.used = append(c.used, began)
	}
}

const lastUsedBehind = 5 * time.Second

// check says whether a last use is lost that was made more than five seconds before the crash. Later ones may be lost for good.
func (c *canary) check(killed time.Time) {
	stored := c.h.lastUsed(c.id)
	defer func() { c.used = nil }()
	for _, at := range c.used {
		if killed.Sub(at) > lastUsedBehind && stored.Before(at.Truncate(time.Microsecond)) {
			c.h.fault("the key was used %v before the crash, and its last use is %v before it", killed.Sub(at), killed.Sub(stored))
			return
		}
	}
}
