package cli

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/term"

	"unstuck/internal/cron"
)

// Env is everything that a run of the program takes from outside itself. The zero value is of no use; see System.
type Env struct {
	Getenv  func(string) string
	Environ func() []string // what the commands of a worker inherit; nil for nothing
	Home    string          // of the user; "" when there is none
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer

	// Which of them are terminals. Questions are asked only when both stdin and stderr are.
	StdinTTY, StdoutTTY, StderrTTY bool
	Width                          int // of the terminal at stdout, in columns; 0: none, nothing is cut

	Now  func() time.Time
	Zone *time.Location // of the person who looks

	// ReadSecret reads a line from the terminal without echo.
	ReadSecret func() (string, error)
}

// System is the environment of the running process.
func System() Env {
	e := Env{
		Getenv: os.Getenv, Environ: os.Environ, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		StdinTTY: term.IsTerminal(int(os.Stdin.Fd())), StdoutTTY: term.IsTerminal(int(os.Stdout.Fd())), StderrTTY: term.IsTerminal(int(os.Stderr.Fd())),
		Now: time.Now, Zone: plainUTC(localZone(os.Getenv("TZ"))),
		ReadSecret: func() (string, error) {
			b, err := term.ReadPassword(int(os.Stdin.Fd()))
			return string(b), err
		},
	}
	e.Home, _ = os.UserHomeDir() // without one there is no credentials file, which is said where it is needed
	if e.StdoutTTY {
		e.Width, _, _ = term.GetSize(int(os.Stdout.Fd()))
	} else if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil {
		e.Width = n
	}
	return e
}

// localZone is time.Local under the name that people know it by: that in TZ or, without it, where /etc/localtime points to.
func localZone(tz string) *time.Location {
	if tz != "" {
		if zone, err := cron.LoadZone(tz); err == nil { // also on machines without zone files
			return zone
		}
		return time.Local
	}
	target, err := filepath.EvalSymlinks("/etc/localtime")
	if err != nil {
		return time.UTC
	}
	_, name, ok := strings.Cut(target, "/zoneinfo/")
	if !ok {
		return time.Local
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return time.Local
	}
	return zone
}

// home is a path in the user's folder ~/.unstuck.
func (e Env) home(elem ...string) string {
	return filepath.Join(append([]string{e.Home, ".unstuck"}, elem...)...)
}

// tilde shortens a path in the user's folder to how people write it.
func (e Env) tilde(path string) string {
	if rest, ok := strings.CutPrefix(path, e.Home+"/"); ok && e.Home != "" {
		return "~/" + rest
	}
	return path
}

// tildes is tilde for every path in a text.
func (e Env) tildes(text string) string {
	if e.Home == "" {
		return text
	}
	return strings.ReplaceAll(text, e.Home+"/", "~/")
}

// readLine reads one line from stdin, without its end.
func (e Env) readLine() (string, error) {
	line, err := bufio.NewReader(e.Stdin).ReadString('\n')
	if line != "" {
		err = nil
	}
	return strings.TrimSpace(line), err
}

// asks says whether there is somebody to ask.
func (e Env) asks() bool { return e.StdinTTY && e.StderrTTY }
