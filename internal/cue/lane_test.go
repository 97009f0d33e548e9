package cue

import (
	"fmt"
	"testing"

	"unstuck/internal/op"
)

// jobIn makes a job of a lane.
func jobIn(l lane, id string) *job { return &job{lane: l, id: id} }

// However many endpoints hang, there is room for another: each lane and each workspace may fill a share of what is still free.
func TestRoomForOthers(t *testing.T) {
	l := &lanes{}
	l.open()
	fill := func(name lane) (n int) {
		for l.reserve(name, jobCost, 1) {
			n++
		}
		return n
	}
	if n := fill(lane{"ws1", "https://a.example/"}); n < 900 {
		t.Errorf("the first lane holds %d jobs", n)
	}
	for i := range 100 { // of as many workspaces, with more work than there is room for
		if n := fill(lane{fmt.Sprint("hanging", i), fmt.Sprint("https://hangs.example/", i)}); n < 10 {
			t.Errorf("lane %d got room for %d", i, n)
		}
	}
	if n := fill(lane{"newcomer", "https://b.example/"}); n < 40 {
		t.Errorf("a newcomer got room for %d", n)
	}
	for i := range 40_000 {
		l.reserve(lane{fmt.Sprint("ws", i), "https://c.example/"}, jobCost, 1)
	}
	if l.used > memoryMost {
		t.Errorf("%d bytes in memory, at most %d are allowed", l.used, memoryMost)
	}
}

// Lanes that wait take turns: workspaces first, within one those that were fed longest ago.
func TestTurns(t *testing.T) {
	l := &lanes{}
	l.open()
	for i := range 100 {
		l.lower(lane{"many", fmt.Sprint(i)}, 5)
	}
	l.lower(lane{"few", "x"}, 9)
	fed := map[lane]int{}
	for range 5 {
		quotas := l.pick(10)
		if len(quotas) != lanesAtOnce && len(quotas) != 101 {
			t.Fatalf("%d lanes in a round", len(quotas))
		}
		if quotas[0].workspace != "few" && quotas[1].workspace != "few" {
			t.Errorf("the workspace with one lane is not among the first two: %v %v", quotas[0].lane, quotas[1].lane)
		}
		for _, m := range quotas {
			fed[m.lane]++
			l.load(m, nil, 5)
		}
	}
	for i := range 100 {
		if n := fed[lane{"many", fmt.Sprint(i)}]; n < 1 || n > 2 {
			t.Errorf("lane %d was fed %d times in five rounds", i, n)
		}
	}
	if l.used != 0 {
		t.Errorf("%d bytes stay reserved", l.used)
	}
}

// A lane whose breaker is open is not fed before it may be tried again, and is then; what is lowered meanwhile is not forgotten.
func TestShutLane(t *testing.T) {
	l := &lanes{}
	l.open()
	a := lane{"ws", "a"}
	l.lower(a, 3)
	l.shut(a, 100)
	if m := l.pick(99); len(m) > 0 || l.wait() != 100 {
		t.Errorf("fed while it is shut: %v, next at %v", m, l.wait())
	}
	if l.reserve(a, jobCost, 99) {
		t.Error("a new one overtakes those that wait")
	}
	m := l.pick(100)
	if len(m) != 1 {
		t.Fatalf("%v", m)
	}
	l.load(m[0], []*job{jobIn(a, "1")}, never)
	if l.wait() != never || l.idle() || !l.holds("1") {
		t.Error("the job is not in memory")
	}
	l.release([]*job{l.jobs["1"]})
	if len(l.queues) > 0 || l.used != 0 {
		t.Errorf("an empty lane is kept: %v", l.queues)
	}
}

// Nothing new of a lane goes to the sender while older work of it waits in the database.
func TestOldestFirst(t *testing.T) {
	l := &lanes{}
	l.open()
	a := lane{"ws", "a"}
	l.lower(a, 50)
	for now, want := range map[op.Time]bool{49: true, 50: false, 51: false} {
		if got := l.reserve(a, jobCost, now); got != want {
			t.Errorf("at %d: %v", now, got)
		}
	}
}
