//go:build unix

package worker

import (
	"path/filepath"
	"syscall"
	"testing"
)

// TestOutcomeThatIsNoFile: a pipe or a device in the place of the outcome file is told and not read, so that it holds up nobody.
func TestOutcomeThatIsNoFile(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, "/dev/zero", t.TempDir()} {
		if got := readSaid(path); got.fault != "outcome_file_unreadable" {
			t.Errorf("%s: %+v", path, got)
		}
	}
}
