package db_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"unstuck/internal/db"
	"unstuck/internal/db/powercut"
)

const testReserve = 1 << 20

// openFull opens a database with a reserve on a disk that is full from now on.
func openFull(t *testing.T) (*db.DB, *powercut.Disk, string) {
	t.Helper()
	disk := powercut.New(t, 0)
	path := filepath.Join(t.TempDir(), "full.db")
	d := open(t, db.Options{DSN: path, VFS: disk.Name(), Reserve: testReserve})
	reserve := db.ReservePath(path)
	if got := sizeOf(t, reserve); got != testReserve {
		t.Fatalf("the reserve has %d bytes", got)
	}
	if err := disk.SetFullBut(reserve); err != nil {
		t.Fatal(err)
	}
	return d, disk, reserve
}

func sizeOf(t *testing.T, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

// urgent is an update for together that may use the reserve, for an end of rights.
func urgent(d *db.DB, name string, size int) func() error {
	return urgentFor(d, "", db.Ending, name, size)
}

func urgentFor(d *db.DB, share string, u db.Urgency, name string, size int) func() error {
	return caller(d, func(tx *db.Tx) error {
		tx.Urgent(share, u)
		return set(tx, name, strings.Repeat("v", size))
	})
}

// TestReserve lets the disk become full. Who may use the reserve gets what he needs of it, also in one commit with others, who get
// none of it; what is larger than the reserve fails, and nothing is left when it is used up.
func TestReserve(t *testing.T) {
	t.Parallel()
	d, disk, reserve := openFull(t)
	if d.Failing() != nil {
		t.Error(d.Failing())
	}
	plain := func(name string) func() error {
		return caller(d, func(tx *db.Tx) error { return set(tx, name, strings.Repeat("v", 300_000)) })
	}
	for i, err := range together(t, d, plain("undone 1"), urgent(d, "a", 200_000), plain("undone 2"), urgent(d, "b", 10)) {
		if wanted := i%2 == 1; wanted != (err == nil) || err != nil && !errors.Is(err, db.ErrDiskFull) {
			t.Errorf("caller %d: %v", i, err)
		}
	}
	if left := sizeOf(t, reserve); left <= 0 || left >= testReserve {
		t.Errorf("%d bytes are left of the reserve", left)
	}
	if err := urgent(d, "too large", 2*testReserve)(); !errors.Is(err, db.ErrDiskFull) || !errors.Is(d.Failing(), db.ErrDiskFull) {
		t.Errorf("%v; failing: %v", err, d.Failing())
	}
	n := 0
	for urgent(d, fmt.Sprint("c ", n), 100_000)() == nil {
		n++
	}
	if left := sizeOf(t, reserve); left < testReserve/2 {
		t.Errorf("one share left %d bytes of the reserve", left)
	}
	names := content(t, d)
	if len(names) != n+2 || names["a"] == "" || names["b"] == "" {
		t.Errorf("%d rows, wanted %d", len(names), n+2)
	}
	disk.SetFull(false)
	update(t, d, func(tx *db.Tx) error { return set(tx, "there is room again", "") })
	if err := d.Failing(); err != nil {
		t.Error(err)
	}
}

// TestReserveIsShared: what only narrows gets little and never of the second half, and no share gets more than it leaves for the others,
// whose ends of rights are saved after it has taken what it could.
func TestReserveIsShared(t *testing.T) {
	t.Parallel()
	d, disk, reserve := openFull(t)
	drain := func(share string, u db.Urgency) (saved int) {
		for urgentFor(d, share, u, fmt.Sprint(share, u, saved), 10_000)() == nil {
			saved++
		}
		return saved
	}
	left := int64(testReserve)
	for i, x := range []struct {
		share string
		u     db.Urgency
		least int64 // that must be left, of what there was before
	}{{"a", 0, left}, {"a", db.Narrowing, left * 7 / 8}, {"b", db.Narrowing, left * 6 / 8}, {"a", db.Ending, left * 7 / 16}, {"c", db.Narrowing, left * 7 / 16}, {"b", db.Ending, left / 4}, {"c", db.Ending, left / 8}} {
		n, now := drain(x.share, x.u), sizeOf(t, reserve)
		if now < x.least || (now < left) != (n > 0) {
			t.Errorf("step %d: %d saved, %d of %d left, wanted at least %d", i, n, now, left, x.least)
		}
		left = now
	}
	if n := drain("d", db.Ending); n == 0 {
		t.Error("nothing is left for others")
	}
	disk.SetFull(false)
	update(t, d, func(tx *db.Tx) error { return set(tx, "there is room again", "") })
}

// TestReserveIsMadeAgain by the next start when there is room.
func TestReserveIsMadeAgain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "again.db")
	reserve := db.ReservePath(path)
	for range 2 {
		d, err := db.Open(context.Background(), db.Options{DSN: path, Reserve: testReserve})
		if err != nil {
			t.Fatal(err)
		}
		if got := sizeOf(t, reserve); got != testReserve {
			t.Errorf("the reserve has %d bytes", got)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(reserve, 4096); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFailing: a write that fails is remembered until one succeeds. A caller's own failure, and an Update that writes nothing, say
// nothing about the database.
func TestFailing(t *testing.T) {
	t.Parallel()
	disk := powercut.New(t, 0)
	d := open(t, db.Options{DSN: filepath.Join(t.TempDir(), "test.db"), VFS: disk.Name()})
	if err := caller(d, func(*db.Tx) error { return errRefused })(); !errors.Is(err, errRefused) || d.Failing() != nil {
		t.Errorf("%v; failing: %v", err, d.Failing())
	}
	disk.SetFull(true)
	if err := urgent(d, "a", 10)(); !errors.Is(err, db.ErrDiskFull) {
		t.Error(err)
	}
	update(t, d, func(*db.Tx) error { return nil })
	if !errors.Is(d.Failing(), db.ErrDiskFull) {
		t.Errorf("failing: %v", d.Failing())
	}
	disk.SetFull(false)
	disk.FailSyncs(1)
	if err := urgent(d, "a", 10)(); !errors.Is(err, db.ErrUnknown) || !errors.Is(d.Failing(), db.ErrUnknown) {
		t.Errorf("%v; failing: %v", err, d.Failing())
	}
	update(t, d, func(tx *db.Tx) error { return set(tx, "b", "") })
	if d.Failing() != nil {
		t.Error(d.Failing())
	}
}
