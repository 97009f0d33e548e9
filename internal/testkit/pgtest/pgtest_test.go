package pgtest_test

import (
	"bufio"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"unstuck/internal/testkit/pgtest"
)

func TestEveryTestHasADatabaseOfItsOwn(t *testing.T) {
	a, b := pgtest.DSN(t), pgtest.DSN(t)
	exec := func(dsn, query string) error {
		conn, err := pgx.Connect(context.Background(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		_, err = conn.Exec(context.Background(), query)
		return err
	}
	for _, dsn := range []string{a, b} {
		if err := exec(dsn, "CREATE TABLE mine (id TEXT)"); err != nil {
			t.Error(err)
		}
	}
	if err := exec(a, "CREATE TABLE mine (id TEXT)"); err == nil {
		t.Error("two tests, one database")
	}
}

func TestEach(t *testing.T) {
	var names []string
	pgtest.Each(t, func(t *testing.T, dsn string) {
		names = append(names, t.Name())
		if strings.HasPrefix(dsn, "postgres://") != strings.HasSuffix(t.Name(), "/postgres") {
			t.Errorf("%s got %s", t.Name(), dsn)
		}
	})
	want := 2
	t.Run("without PostgreSQL", func(t *testing.T) {
		defer func() {
			if t.Skipped() {
				want = 1
			}
		}()
		pgtest.DSN(t)
	})
	if len(names) != want {
		t.Errorf("ran %q", names)
	}
}

// holder is the environment variable that turns TestHolder into a process that starts a server and waits.
const holder = "PGTEST_HOLDER"

func TestHolder(t *testing.T) {
	if os.Getenv(holder) == "" {
		return // it is run by TestServerEndsWithItsProcess
	}
	fmt.Println(pgtest.DSN(t))
	select {}
}

// TestServerEndsWithItsProcess kills a process that has started a server; the server ends and leaves nothing behind.
func TestServerEndsWithItsProcess(t *testing.T) {
	pgtest.DSN(t) // skips where PostgreSQL is missing
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHolder$")
	cmd.Env = append(os.Environ(), holder+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dsn, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(strings.TrimSpace(dsn))
	if err != nil {
		t.Fatal(err)
	}
	dir := u.Query().Get("host")
	if _, err := os.Stat(dir + "/data/postmaster.pid"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	for {
		if _, err := os.Stat(dir); os.IsNotExist(err) {
			return // removed after the server had stopped
		}
		runtime.Gosched()
	}
}
