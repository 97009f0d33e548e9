package test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"unstuck/internal/db/powercut"
	"unstuck/internal/server"
	"unstuck/internal/testkit"
)

// TestPower cuts the power under a whole server while eight callers write, again and again. Everything that was acknowledged is
// there afterwards.
func TestPower(t *testing.T) {
	t.Parallel()
	acks, seeds, base := 0, 5, rand.Uint64()
	if long() {
		seeds = 60
	}
	for i := range uint64(seeds) {
		h, err := cutPower(t, base+i, "synchronous(full)")
		if err != nil || len(h.faults) > 0 {
			t.Fatalf("seed %d, after %d acknowledged writes: %v\n%s", base+i, h.acks.Load(), err, strings.Join(h.faults[:min(20, len(h.faults))], "\n"))
		}
		acks += int(h.acks.Load())
	}
	t.Logf("%d writes were acknowledged", acks)
	if acks < 100*seeds {
		t.Errorf("only %d writes were acknowledged: the test shows little", acks)
	}
}

// TestPowerNeedsSync shows that TestPower can fail: without syncs the very same cuts lose what was acknowledged.
func TestPowerNeedsSync(t *testing.T) {
	t.Parallel()
	lost, broken, seeds := 0, 0, 5
	for seed := range uint64(seeds) {
		h, err := cutPower(t, seed, "synchronous(off)")
		if err != nil {
			broken++
		}
		lost += len(h.faults)
	}
	t.Logf("synchronous=off: %d acknowledged writes are wrong, %d of %d servers did not start again", lost, broken, seeds)
	if lost == 0 && broken == 0 {
		t.Error("synchronous=off lost nothing that was acknowledged")
	}
}

// cutPower cuts the power of one server four times. The error says that it did not start again.
func cutPower(t *testing.T, seed uint64, pragma string) (*history, error) {
	t.Helper()
	disk := powercut.New(t, seed)
	random := rand.New(rand.NewPCG(seed, 1))
	s := testkit.NewWith(t, testkit.Setup{
		Settings: behindProxy,
		Deps: func(d *server.Deps) {
			d.VFS, d.Now = disk.Name(), time.Now
			d.Pragmas = []string{pragma, fmt.Sprintf("wal_autocheckpoint(%d)", 1+random.IntN(60))}
		},
	})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2 * historians}, Timeout: 30 * time.Second}
	h := newHistory(client, s.URL, s.First, seed)
	for range 4 {
		disk.CutAfter(20 + random.IntN(1500))
		h.write(context.Background())
		_ = s.Abandon() // without power it fails
		client.CloseIdleConnections()
		if !disk.Off() {
			return h, errors.New("the callers gave up although the power was on")
		}
		if err := disk.Restore(); err != nil {
			t.Fatal(err)
		}
		if err := s.Open(); err != nil {
			return h, err
		}
		h.base = s.URL
		if h.check(); len(h.faults) > 0 {
			break
		}
	}
	return h, nil
}
