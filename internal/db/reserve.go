package db

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"time"
)

const (
	reserveSteps = 32          // a full disk is given the reserve in so many parts
	refillEvery  = time.Minute // how often it is tried to make the reserve whole again
)

// reserve is a file beside a SQLite database that only takes up room, so that there is some to give when the disk is full. It
// belongs to the writer. Its zero value is no reserve.
type reserve struct {
	path string
	size int64 // bytes, when it is whole
	left int64 // bytes that it takes up now
	// given is how much of it each share was given since it was last whole.
	given map[string]int64
	next  time.Time
	log   *slog.Logger
}

// Urgency says for what a transaction may use the reserve when the disk is full. The zero value is for nothing.
type Urgency int

const (
	// Narrowing leaves somebody with less: it gets an eighth of the reserve for its share, and only from the first half.
	Narrowing Urgency = iota + 1
	// Ending takes away all that somebody had. The second half of the reserve is kept for it.
	Ending
)

// openReserve makes the reserve whole, or as large as it was when there is no room.
func openReserve(path string, size int64, log *slog.Logger) *reserve {
	r := &reserve{path: path, size: size, given: map[string]int64{}, log: log}
	if st, err := os.Stat(path); err == nil {
		r.left = min(st.Size(), size)
	}
	if r.fill(); r.left < r.size {
		log.Warn("there is no room on the disk for the whole reserve, from which revocations are saved when the disk is full", "file", path, "bytes", r.left, "whole", size)
	}
	return r
}

// give makes some room; false when there is none left to give for this. No share gets more than it leaves for others.
func (r *reserve) give(u Urgency, share string) bool {
	part := min(r.size/reserveSteps, r.left)
	left, given := r.left-part, r.given[share]+part
	switch {
	case part == 0 || given > left:
		return false
	case u != Ending && (u != Narrowing || left < r.size/2 || given > r.size/8):
		return false
	}
	r.left, r.given[share] = left, given
	if err := r.shrink(); err != nil {
		r.log.Error("give up a part of the reserve", "file", r.path, "err", err)
		r.left = 0
		return false
	}
	r.log.Warn("the disk is full: a call that takes rights away gets room from the reserve", "file", r.path, "left", r.left)
	return true
}

// refill makes the reserve whole again when there is room, and tries no more than once a minute.
func (r *reserve) refill() {
	if r.left == r.size || time.Now().Before(r.next) {
		return
	}
	if r.fill(); r.left == r.size {
		r.log.Info("the reserve is whole again", "file", r.path)
	}
}

// fill takes twice the room at first, so that the reserve never takes the last of the disk, which it had given to others.
func (r *reserve) fill() {
	r.next = time.Now().Add(refillEvery)
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return // there will be no reserve; whoever is concerned by it says so
	}
	left := r.size
	if err := allocate(f, 2*r.size); err != nil {
		left = r.left
	}
	if err := errors.Join(f.Truncate(left), f.Close()); err == nil {
		r.left = left
	}
	if r.left == r.size {
		clear(r.given)
	}
}

// shrink cuts the file to what is left, and waits until the rest is free.
func (r *reserve) shrink() error {
	f, err := os.OpenFile(r.path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) { // somebody removed it, which made room as well
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(r.left), f.Sync(), f.Close())
}

// written takes up room by writing it.
func written(f *os.File, size int64) error {
	block := make([]byte, 64<<10)
	for i := range block {
		block[i] = byte(i*i>>3) | 1 // no zeros, which a file system might leave out
	}
	for at := int64(0); at < size; at += int64(len(block)) {
		if _, err := f.WriteAt(block, at); err != nil {
			return err
		}
	}
	return f.Sync()
}

// ReservePath is where the reserve of a SQLite database lies.
func ReservePath(database string) string { return database + ".reserve" }
