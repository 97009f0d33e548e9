package db_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"

	"unstuck/internal/db"
	"unstuck/internal/testkit/pgtest"
)

// writerDSN is the environment variable that turns TestWriterProcess into a process that writes until it is killed.
const writerDSN = "DB_TEST_WRITER_DSN"

// TestKill kills a writing process with SIGKILL again and again; what it was answered must be there.
func TestKill(t *testing.T) {
	t.Parallel()
	pgtest.Each(t, func(t *testing.T, dsn string) {
		seed := rand.Uint64()
		random := rand.New(rand.NewPCG(seed, 0))
		for round := range 4 {
			c := startWriter(t, dsn)
			var names []string
			for range 1 + random.IntN(300) {
				names = append(names, <-c.acknowledged)
			}
			names = append(names, c.kill()...)
			d := open(t, db.Options{DSN: dsn})
			all := content(t, d)
			for _, name := range names {
				if _, ok := all[name]; !ok {
					t.Fatalf("seed %d, round %d: %s was acknowledged and is not there", seed, round, name)
				}
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestWriterProcess is the process of TestKill: it prints the name of each row once its update has returned.
func TestWriterProcess(t *testing.T) {
	dsn := os.Getenv(writerDSN)
	if dsn == "" {
		return // it is run by startWriter
	}
	d := open(t, db.Options{DSN: dsn})
	var wg sync.WaitGroup
	var out sync.Mutex
	for caller := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("%d-%d-%d", os.Getpid(), caller, i)
				update(t, d, func(tx *db.Tx) error { return set(tx, name, "") })
				out.Lock()
				fmt.Println(name)
				out.Unlock()
			}
		})
	}
	wg.Wait()
}

// child is a process that runs TestWriterProcess.
type child struct {
	cmd          *exec.Cmd
	acknowledged chan string // closed when the process has ended
}

// startWriter returns when the process has written something.
func startWriter(t *testing.T, dsn string) *child {
	t.Helper()
	c := &child{exec.CommandContext(context.Background(), os.Args[0], "-test.run=^TestWriterProcess$"), make(chan string)}
	c.cmd.Env = append(os.Environ(), writerDSN+"="+dsn)
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.acknowledged)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.acknowledged <- lines.Text()
		}
		_ = c.cmd.Wait() // it was killed
	}()
	if name, ok := <-c.acknowledged; !ok {
		t.Fatalf("the writing process ended: %s", name)
	}
	return c
}

// kill ends the process and returns what it had printed but nobody had read.
func (c *child) kill() (rest []string) {
	_ = c.cmd.Process.Kill() // fails only if it has ended
	for name := range c.acknowledged {
		rest = append(rest, name)
	}
	return rest
}
