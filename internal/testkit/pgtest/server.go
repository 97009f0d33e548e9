package pgtest

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

const (
	role  = "unstuck"  // the database role of the tests, who may do everything
	owner = "postgres" // the system user who runs the server when the tests run as root, which PostgreSQL refuses
)

// instance is the server of this process.
type instance struct {
	dir   string   // its socket, data and log
	alive *os.File // the server ends when this closes, which the operating system does when the process ends
}

// server starts the server at its first call.
var server = sync.OnceValues(start)

// errMissing says that PostgreSQL is not installed.
var errMissing = errors.New("PostgreSQL is not installed here: looked for initdb in /usr/lib/postgresql/*/bin and in PATH")

// script makes and starts a server, waits until the pipe on its standard input closes, and removes all. It is a process in a
// session of its own, so that neither a signal to the tests' group nor kill -9 of the tests leaves a server behind.
const script = `
trap '' INT TERM HUP
"$1/initdb" -D "$2/data" -A trust -U "$3" -E UTF8 --locale=C -N >"$2/log" 2>&1 &&
echo "$4" >>"$2/data/postgresql.conf" &&
"$1/pg_ctl" -D "$2/data" -w -l "$2/log" -o "-k $2" start >>"$2/log" 2>&1 && echo ready || cat "$2/log"
exec >/dev/null
cat
"$1/pg_ctl" -D "$2/data" -m immediate stop
rm -rf "$2"
`

// settings make a server whose data nobody will miss, small and fast.
const settings = `
listen_addresses = ''
fsync = off
full_page_writes = off
autovacuum = off
max_connections = 200
shared_buffers = 32MB
max_wal_size = 4GB
`

func start() (*instance, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pgtest")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/bin/sh", "-c", script, "pgtest", bin, dir, role, settings)
	cmd.Dir = dir
	if err := apart(cmd, dir); err != nil {
		return nil, err
	}
	return run(cmd, dir)
}

// run starts the script and waits for its answer.
func run(cmd *exec.Cmd, dir string) (*instance, error) {
	in, alive, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	answer, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdin, cmd.Stdout = in, out
	err = cmd.Start()
	_, _ = in.Close(), out.Close()
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	defer answer.Close()
	lines := bufio.NewScanner(answer)
	var log []string
	for lines.Scan() {
		if lines.Text() == "ready" {
			return &instance{dir: dir, alive: alive}, nil
		}
		log = append(log, lines.Text())
	}
	_ = alive.Close()
	return nil, fmt.Errorf("start PostgreSQL: %s", strings.Join(log, "\n"))
}

// binaries finds the newest PostgreSQL that Debian installed, or the one in PATH.
func binaries() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return major(a) - major(b) })), nil
	}
	initdb, err := exec.LookPath("initdb")
	if err != nil {
		return "", errMissing
	}
	return filepath.Dir(initdb), nil
}

// major is the version in a path like /usr/lib/postgresql/15/bin/initdb.
func major(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path)))) // 0 sorts an odd name first
	return n
}
