package db

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// fileLock refuses a second server on one SQLite file by a lock on a file beside it, which the operating system drops
// when the process ends, however it ends. The file holds the process id, was last changed when the lock was taken, and stays.
type fileLock struct{ file *os.File }

// lockFile takes the lock of a database file, or returns a [*LockedError].
func lockFile(path string) (lock, error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	free, err := flock(f)
	if err == nil && !free {
		return nil, errors.Join(lockedBy(path, f), f.Close())
	}
	if err == nil {
		err = writeHolder(f)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	return fileLock{f}, nil
}

func writeHolder(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return err
}

// lockedBy reads who holds the lock; what cannot be read stays out of the sentence.
func lockedBy(path string, f *os.File) error {
	e := &LockedError{Database: path}
	if text, err := io.ReadAll(io.LimitReader(f, 32)); err == nil && len(text) > 0 {
		e.Holder = "process " + strings.TrimSpace(string(text))
	}
	if info, err := f.Stat(); err == nil {
		e.Since = info.ModTime()
	}
	return e
}

func (l fileLock) held() error { return nil }

// release lets go by itself before it closes: a child process that is being started holds the file too, until it runs.
func (l fileLock) release() error {
	return errors.Join(unflock(l.file), l.file.Close())
}
