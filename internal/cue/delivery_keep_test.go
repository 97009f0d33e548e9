package cue

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// A crash between the send and its commit: the execution goes out again under the same id and attempt, at once, and that is
// counted where people see it. The retries of before stay what they are.
func TestCrashBetweenSendAndCommit(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		id := f.webhook("twice", r, nil)
		f.clock.Set(f.clock.Now().Truncate(time.Minute).Add(time.Minute))
		f.must(f.cues.fireDue(t.Context()))
		for len(f.cues.courier.peek()) < 1 {
			pause(t.Context(), time.Millisecond)
		}
		f.cues.courier.post.stop(t.Context())
		f.restart() // the result is forgotten: it was in memory only
		if e := f.executions(id)[0]; e["status"] != statusPending || e["redelivered"] != 1. {
			t.Fatalf("after the crash it is %v, sent again %v times", e["status"], e["redelivered"])
		}
		f.settle()
		got, e := r.arrivals(), f.executions(id)[0]
		if len(got) != 2 || got[0].body != got[1].body || got[0].header.Get("Webhook-Id") != got[1].header.Get("Webhook-Id") {
			t.Errorf("arrived: %v", got)
		}
		if e["status"] != statusSuccess || e["attempts"] != 1. || e["redelivered"] != 1. {
			t.Errorf("%v", e)
		}
		f.countersAreExact()
	})
}

// A receiver that breaks a kept connection off before it answers gets the call again on another one: under the same id, as the same
// attempt, and counted.
func TestSentAgain(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		r.says(func(http.ResponseWriter, arrival) {
			if len(r.arrivals()) == 2 {
				panic(http.ErrAbortHandler)
			}
		})
		id := f.webhook("twice", r, nil)
		f.tick()
		f.tick()
		got := r.arrivals()
		if len(got) != 3 || got[1].body != got[2].body {
			t.Fatalf("arrived: %v", got)
		}
		for _, e := range f.executions(id) {
			want := 0.
			if e["id"] == got[1].json["execution_id"] {
				want = 1
			}
			if e["status"] != statusSuccess || e["attempts"] != 1. || e["redelivered"] != want {
				t.Errorf("%v", e)
			}
		}
	})
}

// peek is the results that wait to be stored.
func (k *courier) peek() []*result {
	k.results.mu.Lock()
	defer k.results.mu.Unlock()
	return k.results.list
}

// A clean stop waits for what is under way and stores it; what was not sent goes back into its queue as it was.
func TestCleanStop(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		begun, finish := make(chan struct{}, 100), make(chan struct{})
		r.says(func(http.ResponseWriter, arrival) {
			begun <- struct{}{}
			<-finish
		})
		const n = 20 // to one endpoint, of which the sender calls one at a time until it has answered
		for i := range n {
			f.webhook(fmt.Sprint("stop-", i), r, input{"callback_url": r.URL + "/same"})
		}
		f.clock.Set(f.clock.Now().Truncate(time.Minute).Add(time.Minute))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- f.cues.Run(ctx) }()
		<-begun
		cancel()
		for f.cues.courier.post.(*postbox).stats().Waiting > 0 || len(f.cues.courier.peek()) > 0 {
			pause(t.Context(), time.Millisecond)
		}
		close(finish)
		<-ended
		sent := int64(len(r.arrivals()))
		done := f.number("SELECT count(*) FROM executions WHERE status = 'success'")
		back := f.number("SELECT count(*) FROM executions WHERE status = 'pending' AND deliver_at IS NOT NULL AND redelivered = 0")
		if done != sent || done+back != n {
			t.Errorf("%d were sent, %d are done and %d are back, of %d", sent, done, back, n)
		}
		f.restart()
		f.settle()
		if done := f.number("SELECT count(*) FROM executions WHERE status = 'success' AND redelivered = 0"); done != n || len(r.arrivals()) != n {
			t.Errorf("after the restart %d are done and %d arrived, want %d", done, len(r.arrivals()), n)
		}
	})
}

// A call that hangs longer than a stop waits is cut off; the execution is queued again, and counted because it may have arrived.
func TestCutOffByAStop(t *testing.T) {
	f, r := newSending(t, t.TempDir()+"/test.db"), newReceiver(t) // the same on both
	gone := make(chan struct{})
	r.says(func(http.ResponseWriter, arrival) { <-gone })
	defer close(gone)
	id := f.webhook("hangs", r, nil)
	f.clock.Set(f.clock.Now().Truncate(time.Minute).Add(time.Minute))
	f.must(f.cues.fireDue(t.Context()))
	for len(r.arrivals()) == 0 {
		pause(t.Context(), time.Millisecond)
	}
	at, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	f.cues.courier.post.stop(at)
	_, err := f.cues.saveResults(t.Context())
	f.must(err)
	if e := f.executions(id)[0]; e["status"] != statusPending || e["redelivered"] != 1. || e["attempts"] != 0. {
		t.Errorf("%v", e)
	}
}

// A call of which nobody knows any more is sent again when its time is over; one that waits for its turn is left alone.
func TestLostCall(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.ok(f.admin, "cue.create", input{"name": "lost", "cron": "* * * * *", "callback_url": "https://203.0.113.9/"})["id"].(string)
		hold := make(chan struct{})
		f.post.answer = func(*job, *result) { <-hold }
		f.clock.Set(f.clock.Now().Truncate(time.Minute).Add(time.Minute))
		f.must(f.cues.fireDue(t.Context()))
		f.clock.Advance(30*time.Second + callGrace + time.Second)
		f.must(f.cues.sweep(t.Context(), f.cues.now()))
		if e := f.executions(id)[0]; e["status"] != statusDelivering || e["redelivered"] != 0. {
			t.Errorf("while it waits for its turn: %v", e)
		}
		j := f.post.sent[0]
		f.cues.courier.release([]*job{j})
		f.clock.Advance(callGrace + time.Second)
		f.must(f.cues.sweep(t.Context(), f.cues.now()))
		if e := f.executions(id)[0]; e["status"] != statusPending || e["redelivered"] != 1. {
			t.Errorf("lost: %v", e)
		}
		close(hold)
	})
}

// What happens to an execution that is queued when its cue changes (CueAPI wire contract 3.5, 13.2): the first attempt is as of
// queueing, the others are as of the retry, also to another address; a pause stops nothing; what is deleted is not sent.
func TestChangeWhileQueued(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		other := newReceiver(t)
		r.status(500, "")
		id := f.webhook("first", r, input{"payload": input{"v": 1}})
		in := f.clock.Now().Add(time.Minute)
		f.ok(f.admin, "cue.fire", input{"id": id, "send_at": in})
		f.ok(f.admin, "cue.update", input{
			"id": id, "name": "second", "payload": input{"v": 2}, "status": paused, "retry": input{"max_attempts": 2, "backoff_minutes": []int{1}},
			"callback": input{"url": other.URL + "/other", "headers": input{"X-Now": "2"}},
		})
		f.clock.Set(in)
		f.settle()
		if a := r.arrivals(); len(a) != 1 || a[0].json["name"] != "first" || a[0].json["payload"].(map[string]any)["v"] != 1. || a[0].header.Get("X-Now") != "" {
			t.Fatalf("the first attempt was %v", a)
		}
		f.clock.Advance(2 * time.Minute)
		f.settle()
		if a := other.arrivals(); len(a) != 1 || a[0].json["name"] != "second" || a[0].json["payload"].(map[string]any)["v"] != 1. || a[0].header.Get("X-Now") != "2" || a[0].json["attempt"] != 2. {
			t.Fatalf("the retry was %v", a)
		}
		if e := f.executions(id)[0]; e["status"] != statusSuccess || e["max_attempts"] != 2. {
			t.Errorf("%v", e)
		}
		f.ok(f.admin, "cue.fire", input{"id": id, "send_at": f.clock.Now().Add(time.Minute)})
		f.ok(f.admin, "cue.delete", input{"id": id})
		f.clock.Advance(2 * time.Minute)
		f.settle()
		if n := len(r.arrivals()) + len(other.arrivals()); n != 2 {
			t.Errorf("%d arrived, after the cue was deleted", n)
		}
	})
}

// What waits for its turn in the sender when its cue is deleted is not sent either.
func TestDeleteWhileInTheSender(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		begun, finish := make(chan struct{}, 100), make(chan struct{})
		r.says(func(http.ResponseWriter, arrival) {
			begun <- struct{}{}
			<-finish
		})
		var ids []string
		for i := range 5 {
			ids = append(ids, f.webhook(fmt.Sprint("doomed-", i), r, input{"callback_url": r.URL + "/same"}))
		}
		f.clock.Set(f.clock.Now().Truncate(time.Minute).Add(time.Minute))
		f.must(f.cues.fireDue(t.Context()))
		<-begun // one is on its way, the others wait for it
		for _, id := range ids {
			f.ok(f.admin, "cue.delete", input{"id": id})
		}
		close(finish)
		f.settle()
		if n := len(r.arrivals()); n != 1 {
			t.Errorf("%d arrived", n)
		}
		if n := f.number("SELECT coalesce(sum(value), 0) FROM counters WHERE name LIKE 'status:%' OR name = 'executions'"); n != 0 {
			t.Errorf("the totals add up to %d", n)
		}
		if !f.cues.courier.idle() || f.cues.courier.used != 0 || len(f.cues.courier.queues) != 0 {
			t.Errorf("memory keeps %d bytes and %d lanes", f.cues.courier.used, len(f.cues.courier.queues))
		}
	})
}

// While a secret is replaced webhook-signature carries one signature for each, X-CueAPI-Signature that of the old one; then only
// the new one signs. Without an overlap it does so at once.
func TestSecretsInDelivery(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		f.webhook("signed", r, nil)
		rotate := func(args input) string {
			t.Helper()
			args["X-Confirm-Destructive"] = "true"
			req := request(f.admin, "webhook_secret.rotate")
			req.Header.Set("X-Confirm-Destructive", "true")
			if args["overlap_seconds"] != nil {
				req.Body = op.Marshal(input{"overlap_seconds": args["overlap_seconds"]})
			}
			return answer(f, "webhook_secret.rotate", f.set.Call(t.Context(), req))["webhook_secret"].(string)
		}
		check := func(signer string, signatures int) {
			t.Helper()
			f.tick()
			all := r.arrivals()
			a := all[len(all)-1]
			if a.header.Get("X-Cueapi-Signature") != cueAPISignature(signer, a.header.Get("X-Cueapi-Timestamp"), a.body) {
				t.Errorf("X-CueAPI-Signature is by another secret")
			}
			if n := len(strings.Fields(a.header.Get("Webhook-Signature"))); n != signatures {
				t.Errorf("%d signatures, want %d", n, signatures)
			}
		}
		old := f.secret()
		check(old, 1)
		fresh := rotate(input{"overlap_seconds": 150})
		check(old, 2)
		check(old, 2)
		check(fresh, 1)
		newest := rotate(input{})
		check(newest, 1)
		f.restart()
		check(newest, 1)
	})
}

// What the courier asks goes straight to its rows and sorts nothing, also where a database has no statistics.
func TestDeliveryPlans(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.plant(2000)
		f.stock(2000)
		f.sql(`UPDATE executions SET transport = 'webhook', deliver_at = created_at, endpoint = id WHERE status = 'pending'`)
		for _, q := range []struct {
			query string
			args  []any
		}{
			{sqlLaneNext, []any{f.ws, "x"}}, {sqlLaneJobs, []any{f.ws, "x", 10}}, {sqlLaneHeads, nil},
		} {
			plan := explain(f, q.query, q.args...)
			if !strings.Contains(plan, "executions_lane") {
				t.Errorf("%s does not use executions_lane:\n%s", q.query, plan)
			}
			for _, bad := range []string{"Seq Scan", "Sort", "TEMP B-TREE", "SCAN e", "SCAN c"} {
				if strings.Contains(strings.ReplaceAll(plan, "SCAN x", ""), bad) {
					t.Errorf("%s has a %s:\n%s", q.query, bad, plan)
				}
			}
		}
		var heads []laneHead
		f.must(f.db.View(t.Context(), func(tx *db.Tx) (err error) {
			rows, err := tx.Query(sqlLaneHeads)
			heads, err = scanAll(rows, err, func(h *laneHead, r scanner) error { return r.Scan(&h.workspace, &h.endpoint, &h.next) })
			return err
		}))
		if n := f.number("SELECT count(*) FROM executions WHERE deliver_at IS NOT NULL"); int64(len(heads)) != n || n == 0 {
			t.Errorf("%d lanes found, want %d", len(heads), n)
		}
	})
}
