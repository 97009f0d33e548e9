//go:build unix

package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// NewFilesPrivate makes every file that this process makes from now on readable by its owner only: also those that SQLite keeps beside
// the database, whose locks anybody could hold who can open them.
func NewFilesPrivate() { unix.Umask(0o077) }

// Private answers nil when only the owner may read a file or folder, and an [*OthersError] when others may.
func Private(path string) error {
	st, err := os.Stat(path)
	if err == nil && st.Mode().Perm()&0o077 != 0 {
		err = &OthersError{st.Mode().Perm().String()}
	}
	return err
}

// MendPrivate is the command that takes a file or folder away from others.
func MendPrivate(path string) string {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return "chmod 700 " + path
	}
	return "chmod 600 " + path
}

func ownerOnly(string) error { return nil } // the mode said it

// SyncNames makes the names of the files in a folder durable.
func SyncNames(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// IsFull says that something could not be written because the disk is full, or what its user may fill of it.
func IsFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// Room is how many bytes of the disk under a path this process may still fill.
func Room(path string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil //nolint:unconvert,gosec // other systems have other types; neither is negative
}
