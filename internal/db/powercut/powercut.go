// Package powercut lets tests cut the power under a SQLite database.
//
// A [Disk] is a virtual file system for SQLite that passes everything on to the real one and remembers what was written since
// the last sync of each file. When the power goes, a random part of that is forgotten, whole writes or single sectors of them,
// and every later operation fails. After the database was closed, [Disk.Restore] leaves on the real disk what survived.
//
// It keeps the content of the files in memory, so it is for small databases. Names of files are not modelled: a file that was
// made or deleted stays so.
package powercut

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
)

// sector is the unit in which a disk writes: a write that was under way may have changed any part of its sectors.
const sector = 512

var errPower = errors.New("the power is off")

// Disk is one machine's disk. Its methods may be called from any goroutine.
type Disk struct {
	vfs.VFS // of the operating system
	name    string

	mu       sync.Mutex
	random   *rand.Rand
	files    map[string]*content
	off      bool
	left     int // writes and syncs until the power goes; 0: it stays
	full     bool
	reserve  string // a file whose room may be used once it was given up
	room     int64  // what it took up when the disk was full, less what was used since
	badSyncs int
}

// content is what a file holds for sure, and what was written since.
type content struct {
	durable []byte
	pending []change
}

// change is one write, or a truncation to the offset if it has no data.
type change struct {
	offset int64
	data   []byte
}

// New makes a disk and registers it until the test ends. The seed decides what a power cut forgets; print it in failures.
func New(t testing.TB, seed uint64) *Disk {
	d := &Disk{VFS: vfs.Find(""), random: rand.New(rand.NewPCG(seed, 0)), files: map[string]*content{}}
	d.name = fmt.Sprintf("powercut-%p", d)
	vfs.Register(d.name, d)
	t.Cleanup(func() { vfs.Unregister(d.name) })
	return d
}

// Name is the name under which SQLite finds the disk.
func (d *Disk) Name() string { return d.name }

// CutAfter lets the power go at the n-th write, truncation or sync from now, in its middle.
func (d *Disk) CutAfter(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = n
}

// Off says whether the power has gone.
func (d *Disk) Off() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.off
}

// SetFull makes the disk refuse every write that needs more room, or accept it again.
func (d *Disk) SetFull(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full, d.reserve = full, ""
}

// SetFullBut makes the disk refuse every write that needs more room than was given up of a file, which is on the real disk.
func (d *Disk) SetFullBut(reserve string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	st, err := os.Stat(reserve)
	if err != nil {
		return err
	}
	d.full, d.reserve, d.room = true, reserve, st.Size()
	return nil
}

// grow takes room for a file; false when there is none. The disk is locked.
func (d *Disk) grow(by int64) bool {
	if !d.full || by <= 0 {
		return true
	}
	st, err := os.Stat(d.reserve)
	if err != nil || by > d.room-st.Size() {
		return false
	}
	d.room -= by
	return true
}

// FailSyncs lets the next n syncs fail.
func (d *Disk) FailSyncs(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.badSyncs = n
}

// Restore writes what survived the power cut to the real disk and switches the power on. The database must be closed.
func (d *Disk) Restore() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.off {
		return errors.New("the power is on")
	}
	for path, c := range d.files {
		if err := os.WriteFile(path, c.durable, 0o600); err != nil {
			return err
		}
		if err := os.Remove(path + "-shm"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	clear(d.files)
	d.off, d.left = false, 0
	return nil
}

// Open is what a VFS must have; SQLite calls OpenFilename.
func (d *Disk) Open(name string, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	return vfsutil.WrapOpen(d.VFS, name, flags)
}

// OpenFilename opens a file and reads what it holds. Temporary files are not watched.
func (d *Disk) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return nil, flags, errPower
	}
	f, flags, err := vfsutil.WrapOpenFilename(d.VFS, name, flags)
	if err != nil || name == nil {
		return f, flags, err
	}
	path := name.String()
	if d.files[path] == nil {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, flags, errors.Join(err, f.Close())
		}
		d.files[path] = &content{durable: data}
	}
	return &file{File: f, disk: d, content: d.files[path]}, flags, nil
}

// Delete deletes a file for good.
func (d *Disk) Delete(name string, syncDir bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return errPower
	}
	delete(d.files, name)
	return d.VFS.Delete(name, syncDir)
}

// use counts one operation, and cuts the power when its time has come. The disk is locked.
func (d *Disk) use() error {
	if d.off {
		return errPower
	}
	if d.left == 0 {
		return nil
	}
	if d.left--; d.left > 0 {
		return nil
	}
	d.off = true
	keep := []float64{0, 0.5, 0.9, 1}[d.random.IntN(4)]
	for _, c := range d.files {
		c.forget(d.random, keep)
	}
	return errPower
}

// forget makes the file what it is after the power cut.
func (c *content) forget(random *rand.Rand, keep float64) {
	for _, ch := range c.pending {
		switch {
		case random.Float64() < keep:
			c.apply(ch)
		case random.IntN(2) == 0:
			c.tear(random, ch)
		}
	}
	c.pending = nil
}

// tear applies some sectors of a write.
func (c *content) tear(random *rand.Rand, ch change) {
	for from := 0; from < len(ch.data); from += sector {
		if random.IntN(2) == 0 {
			c.apply(change{ch.offset + int64(from), ch.data[from:min(from+sector, len(ch.data))]})
		}
	}
}

func (c *content) apply(ch change) {
	end := ch.offset + int64(len(ch.data))
	if missing := end - int64(len(c.durable)); missing > 0 {
		c.durable = append(c.durable, make([]byte, missing)...)
	}
	if ch.data == nil {
		c.durable = c.durable[:ch.offset]
		return
	}
	copy(c.durable[ch.offset:], ch.data)
}

// sync makes all that was written durable.
func (c *content) sync() {
	for _, ch := range c.pending {
		c.apply(ch)
	}
	c.pending = nil
}

// file watches one open file.
type file struct {
	vfs.File
	disk    *Disk
	content *content
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if f.disk.Off() {
		return 0, errPower
	}
	return f.File.ReadAt(p, off)
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	size, err := f.Size()
	if err != nil {
		return 0, err
	}
	if !f.disk.grow(off + int64(len(p)) - size) {
		return 0, sqlite3.FULL
	}
	if !f.disk.off {
		f.content.pending = append(f.content.pending, change{off, append([]byte{}, p...)})
	}
	if err := f.disk.use(); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *file) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if !f.disk.off {
		f.content.pending = append(f.content.pending, change{size, nil})
	}
	if err := f.disk.use(); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

// Sync does not ask the real disk: a test would only be slower.
func (f *file) Sync(vfs.SyncFlag) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.use(); err != nil {
		return err
	}
	if f.disk.badSyncs > 0 {
		f.disk.badSyncs--
		return errors.New("the disk does not sync")
	}
	f.content.sync()
	return nil
}

// SharedMemory is what SQLite keeps its log's index in; without it there is no write-ahead log.
func (f *file) SharedMemory() vfs.SharedMemory { return vfsutil.WrapSharedMemory(f.File) }
