package cli

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"unstuck/internal/server"
)

// TestRestoreAsks: a restore over a database says what is newer and asks; only a yes, or --yes, replaces anything.
func TestRestoreAsks(t *testing.T) {
	home, now := t.TempDir(), time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	data, backup := filepath.Join(home, ".unstuck", "server"), filepath.Join(home, "copy.db")
	set, err := server.ReadSettings(func(string) (string, bool) { return "", false }, map[string]string{"data": data}, home)
	if err != nil {
		t.Fatal(err)
	}
	login := func(name string) {
		t.Helper()
		now = now.Add(time.Hour)
		s, err := server.Open(t.Context(), set, server.Deps{Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler)})
		if err == nil {
			_, _, err = s.Access().FirstRun(t.Context(), "admin@example.com", false)
		}
		if err == nil && name != "" {
			_, _, err = s.Access().LocalLogin(t.Context(), name, "")
		}
		if err == nil {
			err = s.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	login("")
	if err := server.Backup(t.Context(), set, backup); err != nil {
		t.Fatal(err)
	}
	login("later")
	restore := func(typed string, args ...string) (int, string) {
		var out bytes.Buffer
		env := Env{
			Getenv: func(string) string { return "" }, Home: home, Stdin: strings.NewReader(typed), Stdout: &out, Stderr: &out, StdinTTY: typed != "", StderrTTY: typed != "",
			Now: func() time.Time { return now }, Zone: time.UTC,
		}
		return Run(t.Context(), env, append([]string{"restore", backup}, args...)...), out.String()
	}
	replaced := func() int {
		list, err := filepath.Glob(filepath.Join(data, "unstuck.db.replaced-*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	for _, test := range []struct {
		typed string
		args  []string
		code  int
		says  []string
		gone  int // databases put aside after it
	}{
		{"", nil, exitUsage, []string{"lost with it: 1 recorded change, 1 new key.", "Not done: this replaces ~/.unstuck/server/unstuck.db", "to do it  unstuck restore " + backup + " --yes"}, 0},
		{"", []string{"--data", data}, exitUsage, []string{" --data " + data + " --yes"}, 0},
		{"n\n", nil, exitUsage, []string{"Go on? [y/N] ", "Not done."}, 0},
		{"\n", nil, exitUsage, []string{"Not done."}, 0},
		{"y\n", nil, exitDone, []string{"Go on? [y/N] ", "Restored "}, 1},
		{"", []string{"--yes"}, exitDone, []string{"lost with it: ", "Restored "}, 2},
	} {
		if test.gone == 2 {
			login("later still")
		}
		code, out := restore(test.typed, test.args...)
		for _, want := range test.says {
			if !strings.Contains(out, want) {
				t.Errorf("%q %v does not say %q:\n%s", test.typed, test.args, want, out)
			}
		}
		if n := replaced(); code != test.code || n != test.gone {
			t.Errorf("%q %v ended with %d, and %d databases are aside:\n%s", test.typed, test.args, code, n, out)
		}
	}
}

// TestBackupNamesData: where no server has its data, the refusal says how to name the folder.
func TestBackupNamesData(t *testing.T) {
	var out bytes.Buffer
	env := Env{Now: time.Now, Zone: time.UTC, Getenv: func(string) string { return "" }, Home: t.TempDir(), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out}
	if code := Run(t.Context(), env, "backup", "copy.db"); code != exitOurs || !strings.Contains(out.String(), "unstuck backup copy.db --data FOLDER") {
		t.Errorf("[%d] %s", code, out.String())
	}
}
