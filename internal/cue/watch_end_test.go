package cue

import (
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"unstuck/internal/op"
)

// Who missed more than is remembered, or comes back after a restart, is told so, and goes on from there.
func TestLiveTellsOfGaps(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.cue("c", "0 0 1 1 *")
		v := f.watch(f.admin, nil)
		v.leave()
		<-v.over
		f.restart()
		v = f.watch(f.admin, input{"Last-Event-ID": v.id})
		f.fire(id, nil)
		v.wants(f, "gap", "due c")
		if e := v.events[0]; e.Code != "events_missed" || e.Message == "" {
			t.Errorf("gap: %s", op.Marshal(e))
		}
		v.leave()
		<-v.over
		back := f.watch(f.admin, input{"Last-Event-ID": v.id})
		f.fire(id, nil)
		back.wants(f, "due c")
		strange := f.watch(f.admin, input{"Last-Event-ID": "none of ours"})
		strange.saw(f, 1)
		if got := strange.saw(f, 1); got[0] != "gap" {
			t.Errorf("saw %q", got)
		}
	})
}

// A reader that takes nothing holds up nobody, is told of the gap when it goes on, and is given up when it never does.
func TestLiveSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := onSQLite(t)
		id, stuck := f.cue("c", "0 0 1 1 *"), make(chan struct{})
		slow, _ := f.viewer(f.admin, input{"stuck": stuck})
		lost, _ := f.viewer(f.admin, input{"stuck": make(chan struct{})})
		synctest.Wait()
		f.stock(5000)
		f.fire(id, nil)
		close(stuck)
		slow.await(f, func() bool { return len(slow.events) > 0 && slow.events[len(slow.events)-1].CueID == id })
		if slow.events[0].Type != liveGap || len(slow.events) != 1+4096 {
			t.Errorf("%d events, the first %s", len(slow.events), op.Marshal(slow.events[0]))
		}
		start := time.Now()
		<-lost.over
		if took := time.Since(start); took > streamWrite || f.cues.LiveStats().Streams != 1 {
			t.Errorf("given up after %v, %d streams", took, f.cues.LiveStats().Streams)
		}
		slow.leave()
		<-slow.over
		<-time.After(2 * recheckEvery) // whoever looks after keys leaves
	})
}

// The number of streams is bounded, for each key too; what ends makes room.
func TestLiveStreamsAreBounded(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		key := f.key("read-only", nil)
		var all []*viewer
		for range streamsOfKey {
			all = append(all, f.watch(key, nil))
		}
		if e := f.refused(key, "live.watch", nil, 429, "too_many_streams"); e.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		f.watch(f.admin, nil)
		all[0].leave()
		<-all[0].over
		f.watch(key, nil)
		for range streamsOfWorkspace - streamsOfKey - 1 {
			if len(all)%streamsOfKey == 0 {
				key = f.key("read-only", nil)
			}
			all = append(all, f.watch(key, nil))
		}
		f.refused(f.key("read-only", nil), "live.watch", nil, 429, "too_many_streams")
	})
}

// A stream lasts as long as was asked for, gives signs of life, and ends when the server stops; nothing is left of it.
func TestLiveEnds(t *testing.T) {
	f := onSQLite(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	polled := f.watch(f.admin, input{"wait": 0})
	f.fire(f.cue("c", "0 0 1 1 *"), nil)
	if last := polled.end(); last.Type != liveEnd || last.Code != "time_over" {
		t.Errorf("ended with %s", op.Marshal(last))
	}
	polled = f.watch(f.admin, input{"wait": 0, "Last-Event-ID": polled.id})
	if polled.end(); len(polled.events) != 2 || polled.events[0].Type != liveDue {
		t.Errorf("saw %s", op.Marshal(polled.events))
	}
	v := f.watch(f.admin, nil)
	f.cues.EndStreams()
	if last := v.end(); last.Code != "server_stopping" {
		t.Errorf("ended with %s", op.Marshal(last))
	}
	f.refused(f.admin, "live.watch", nil, 503, "unavailable")
}

func TestLiveSignsOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := onSQLite(t)
		start := time.Now()
		v := f.watch(f.key("read-only", input{"cues": []string{"x"}}), input{"wait": 40})
		first := v.id
		f.fire(f.cue("c", "0 0 1 1 *"), nil) // which it may not see
		<-time.After(16 * time.Second)
		v.mu.Lock()
		if v.id == first || len(v.events) > 0 {
			t.Errorf("the position stays %s although time goes by: %v", first, v.events)
		}
		v.mu.Unlock()
		v.end()
		if took := time.Since(start); took != 40*time.Second {
			t.Errorf("ended after %v", took)
		}
		<-time.After(2 * recheckEvery)
	})
}
