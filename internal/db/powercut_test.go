package db_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"unstuck/internal/db"
	"unstuck/internal/db/powercut"
)

const cutSeeds = 24

// TestPowerCut cuts the power in the middle of migrating and writing, again and again, and looks after each cut whether every
// acknowledged update is there, every other one is there whole or not at all, and the file is sound.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	acknowledged := 0
	for seed := range uint64(cutSeeds) {
		c := powerCuts(t, seed, "synchronous(full)")
		if c.lost > 0 || c.broken != nil {
			t.Errorf("seed %d: %d acknowledged updates were lost; %v", seed, c.lost, c.broken)
		}
		acknowledged += c.acknowledged
	}
	if acknowledged < 50*cutSeeds {
		t.Errorf("only %d updates were acknowledged: the test shows little", acknowledged)
	}
}

// TestPowerCutNeedsSync shows that the test above can fail: with fewer syncs the very same cuts lose acknowledged updates.
func TestPowerCutNeedsSync(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"off", "normal"} {
		lost, broken := 0, 0
		for seed := range uint64(cutSeeds) {
			c := powerCuts(t, seed, "synchronous("+level+")")
			lost += c.lost
			if c.broken != nil {
				broken++
			}
		}
		t.Logf("synchronous=%s: %d acknowledged updates lost, %d of %d files broken", level, lost, broken, cutSeeds)
		if lost == 0 {
			t.Errorf("synchronous=%s lost no acknowledged update", level)
		}
	}
}

// cuts is what a few cuts did to one database.
type cuts struct {
	acknowledged, lost int
	broken             error // the first thing wrong with the file; what was acknowledged before counts as lost
}

// powerCuts cuts the power of one database four times.
func powerCuts(t *testing.T, seed uint64, pragma string) (c cuts) {
	disk := powercut.New(t, seed)
	random := rand.New(rand.NewPCG(seed, 1))
	o := db.Options{DSN: filepath.Join(t.TempDir(), "cut.db"), VFS: disk.Name(),
		Pragmas: []string{pragma, fmt.Sprintf("wal_autocheckpoint(%d)", 1+random.IntN(60))}}
	var acknowledged sync.Map
	for round := range 4 {
		disk.CutAfter(1 + random.IntN(600))
		if d, err := db.Open(context.Background(), o); err == nil {
			c.acknowledged += writePairs(d, fmt.Sprint("round ", round), random.Uint64(), &acknowledged)
			_ = d.Close() // without power it fails
		} else if !disk.Off() {
			return cuts{c.acknowledged, c.acknowledged, fmt.Errorf("open again: %w", err)}
		}
		if err := disk.Restore(); err != nil {
			t.Fatal(err)
		}
		lost, err := checkPairs(o, &acknowledged)
		if c.lost += lost; err != nil {
			return cuts{c.acknowledged, c.acknowledged, err}
		}
	}
	return c
}

// writePairs lets eight callers write pairs of rows, each pair in one update, until the updates fail. It notes and counts what
// was acknowledged.
func writePairs(d *db.DB, prefix string, seed uint64, acknowledged *sync.Map) int {
	var wg sync.WaitGroup
	var n atomic.Int64
	for caller := range 8 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(caller)))
			for i := 0; ; i++ {
				name := fmt.Sprintf("%s, caller %d, pair %d", prefix, caller, i)
				value := strings.Repeat("v", random.IntN(3000))
				err := d.Update(context.Background(), func(tx *db.Tx) error {
					return errors.Join(set(tx, name+" a", value), set(tx, name+" b", value))
				})
				if err != nil {
					return
				}
				acknowledged.Store(name, true)
				n.Add(1)
			}
		})
	}
	wg.Wait()
	return int(n.Load())
}

// checkPairs opens the database, counts the acknowledged pairs that are not there, forgetting them, and checks all others.
func checkPairs(o db.Options, acknowledged *sync.Map) (lost int, err error) {
	d, err := db.Open(context.Background(), o)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	err = d.View(context.Background(), func(tx *db.Tx) error {
		var verdict string
		if err := tx.Row("PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
			return errors.Join(fmt.Errorf("integrity check: %s", verdict), err)
		}
		rows, err := tx.Query("SELECT name FROM settings")
		if err != nil {
			return err
		}
		defer rows.Close()
		halves := map[string]int{}
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			halves[name[:len(name)-2]]++
		}
		for pair, n := range halves {
			if n != 2 {
				return fmt.Errorf("half of %s", pair)
			}
		}
		acknowledged.Range(func(pair, _ any) bool {
			if halves[pair.(string)] == 0 {
				lost++
				acknowledged.Delete(pair)
			}
			return true
		})
		return rows.Err()
	})
	return lost, err
}
