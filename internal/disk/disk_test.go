package disk_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"unstuck/internal/disk"
)

// TestPrivate: a folder that was made to be private is, and so is what is put into it by somebody who said so; one that others may read
// is told.
func TestPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	for range 2 { // it may be there already
		if err := disk.MakePrivate(path); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(path, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, file} {
		if err := disk.Private(p); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	if err := openUp(file); err != nil {
		t.Fatal(err)
	}
	var others *disk.OthersError
	if err := disk.Private(file); !errors.As(err, &others) {
		t.Errorf("a file that others may read: %v", err)
	}
	if err := disk.Private(filepath.Join(path, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := disk.SyncNames(path); err != nil {
		t.Error(err)
	}
}

// TestRoom: a disk has room, and no disk is none.
func TestRoom(t *testing.T) {
	if n, err := disk.Room(t.TempDir()); err != nil || n == 0 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, err := disk.Room(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a folder that is not there has room")
	}
}
