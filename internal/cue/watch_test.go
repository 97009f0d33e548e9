package cue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"unstuck/internal/alert"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

// viewer is somebody who watches: it reads a stream as a client does.
type viewer struct {
	mu      sync.Mutex
	more    *sync.Cond
	rest    string
	id      string // the last
	events  []LiveEvent
	stuck   chan struct{} // while it is not closed, nothing is taken; nil: everything is
	expires time.Time     // the deadline of writes
	over    chan struct{} // closed when the stream is over
	leave   context.CancelFunc
}

// watch opens a stream and returns once it stands.
func (f *fixture) watch(key string, args input) *viewer {
	f.Helper()
	v, res := f.viewer(key, args)
	if res.Err != nil {
		f.Fatalf("watch: %v", res.Err)
	}
	v.await(f, func() bool { return v.id != "" })
	return v
}

func (f *fixture) viewer(key string, args input) (*viewer, *op.Response) {
	v := &viewer{over: make(chan struct{})}
	v.more = sync.NewCond(&v.mu)
	r := request(key, "live.watch")
	for name, value := range args {
		if name == "Last-Event-ID" {
			r.Header.Set(name, fmt.Sprint(value))
			continue
		}
		r.Query.Set(name, fmt.Sprint(value))
	}
	ctx, leave := context.WithCancel(f.Context())
	v.leave = leave
	if s, ok := args["stuck"].(chan struct{}); ok {
		v.stuck = s
		r.Query.Del("stuck")
	}
	res := f.set.Call(ctx, r)
	if res.Err != nil {
		leave()
		return v, res
	}
	go func() {
		defer close(v.over)
		defer leave()
		res.Send(v)
	}()
	return v, res
}

func (v *viewer) Write(p []byte) (int, error) {
	if v.stuck != nil {
		for {
			v.mu.Lock()
			left := time.Until(v.expires)
			v.mu.Unlock()
			if left <= 0 {
				return 0, errors.New("the deadline is over")
			}
			timer := time.NewTimer(min(left, time.Millisecond))
			select {
			case <-v.stuck:
				timer.Stop()
			case <-timer.C:
				continue
			}
			break
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.rest += string(p)
	for {
		block, rest, ok := strings.Cut(v.rest, "\n\n")
		if !ok {
			break
		}
		v.rest = rest
		v.take(block)
	}
	v.more.Broadcast()
	return len(p), nil
}

func (v *viewer) take(block string) {
	for line := range strings.SplitSeq(block, "\n") {
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "id":
			v.id = value
		case "data":
			var e LiveEvent
			if err := json.Unmarshal([]byte(value), &e); err != nil {
				panic(err)
			}
			v.events = append(v.events, e)
		}
	}
}

func (v *viewer) Flush() error { return nil }

func (v *viewer) SetWriteDeadline(at time.Time) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.expires = at
	return nil
}

// await returns when something is so.
func (v *viewer) await(f *fixture, so func() bool) {
	f.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	for !so() {
		v.more.Wait()
	}
}

// saw waits until so many events came and is what they were, like "due a".
func (v *viewer) saw(f *fixture, n int) []string {
	f.Helper()
	v.await(f, func() bool { return len(v.events) >= n })
	v.mu.Lock()
	defer v.mu.Unlock()
	out := make([]string, len(v.events))
	for i, e := range v.events {
		out[i] = strings.TrimSpace(string(e.Type) + " " + e.CueName)
	}
	return out
}

// end waits for the end of the stream and is the last event.
func (v *viewer) end() LiveEvent {
	<-v.over
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.events) == 0 {
		return LiveEvent{}
	}
	return v.events[len(v.events)-1]
}

// wants compares what a viewer saw.
func (v *viewer) wants(f *fixture, want ...string) {
	f.Helper()
	if got := v.saw(f, len(want)); !slices.Equal(got, want) {
		f.Errorf("saw %q, want %q", got, want)
	}
}

// All that happens to executions is told, in its order, with what is known about it.
func TestLiveTellsWhatHappens(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		v := f.watch(f.admin, nil)
		f.cue("pull", "*/5 * * * *")
		f.clock.Set(f.clock.Now().Truncate(5 * time.Minute).Add(5 * time.Minute))
		f.settle()
		v.wants(f, "due pull")
		first := f.ok(worker, "execution.claim", input{"worker_id": "w"})
		f.ok(worker, "execution.release", input{"id": first["execution_id"], "lease_token": first["lease_token"], "begun": false})
		f.ok(worker, "execution.claim", input{"worker_id": "w"})
		f.clock.Advance(16 * time.Minute) // the lease ends; the other due times come
		f.ok(f.admin, "cue.pause", input{"id": "pull"})
		f.must(f.cues.sweep(t.Context(), f.cues.now()))
		v.wants(f, "due pull", "claimed pull", "retrying pull", "claimed pull", "due pull", "retrying pull")
		again := f.ok(worker, "execution.claim_one", input{"id": first["execution_id"], "worker_id": "w"})
		f.ok(worker, "execution.report", input{"id": again["execution_id"], "lease_token": again["lease_token"], "success": false, "error": strings.Repeat("é", 300)})
		f.ok(f.admin, "execution.mark_pending", input{"id": again["execution_id"]})
		f.ok(f.admin, "execution.verify", input{"id": again["execution_id"]})
		v.wants(f, "due pull", "claimed pull", "retrying pull", "claimed pull", "due pull", "retrying pull", "claimed pull", "outcome pull", "outcome pull", "outcome pull")
		for i, e := range v.events {
			want := map[int]LiveEvent{
				0: {Type: liveDue, ScheduledFor: op.TimeOf(epoch.Truncate(5 * time.Minute).Add(5 * time.Minute)), TriggeredBy: "scheduled", Transport: "worker"},
				1: {Type: liveClaimed, WorkerID: "w", Attempt: 1, LeaseUntil: e.LeaseUntil},
				2: {Type: liveRetrying, Status: "pending", Error: untouchedMessage, RetryAt: e.At},
				5: {Type: liveRetrying, Status: "pending", WorkerID: "w", Attempt: 1, RetryAt: e.At, Error: "The lease of worker w ended without a report; offered again"},
				6: {Type: liveClaimed, WorkerID: "w", Attempt: 2, LeaseUntil: e.LeaseUntil},
				7: {Type: liveOutcome, WorkerID: "w", Attempt: 2, Status: "failed", OutcomeState: "reported_failure", Success: ptr(false), Error: strings.Repeat("é", 200)},
				9: {Type: liveOutcome, WorkerID: "w", Attempt: 2, Status: "failed", OutcomeState: "verified_success", Success: ptr(false)},
			}
			w, ok := want[i]
			if w.At, w.CueID, w.CueName, w.ExecutionID = e.At, e.CueID, "pull", fmt.Sprint(first["execution_id"]); ok && string(op.Marshal(w)) != string(op.Marshal(e)) {
				t.Errorf("event %d is %s, want %s", i, op.Marshal(e), op.Marshal(w))
			}
		}
	})
}

// Of callbacks each attempt is told, and how it goes on.
func TestLiveTellsOfCallbacks(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.post.answer = func(j *job, r *result) {
			if j.attempt == 1 {
				r.good, r.httpStatus, r.message = false, 500, "HTTP 500"
			}
		}
		v := f.watch(f.admin, nil)
		id := f.ok(f.admin, "cue.create", input{"name": "push", "cron": "0 0 1 1 *", "callback": input{"url": "https://203.0.113.7/hook"}})["id"].(string)
		f.fire(id, nil)
		f.settle()
		v.wants(f, "due push", "retrying push")
		f.clock.Advance(time.Hour)
		f.settle()
		v.wants(f, "due push", "retrying push", "delivered push", "outcome push")
		retry, delivered, outcome := v.events[1], v.events[2], v.events[3]
		if retry.HTTPStatus != 500 || retry.Error != "HTTP 500" || retry.RetryAt <= retry.At || retry.Attempt != 1 || retry.Status != "retrying" ||
			delivered.HTTPStatus != 200 || delivered.Attempt != 2 || outcome.Status != "success" || outcome.Success != nil {
			t.Errorf("saw %s", op.Marshal(v.events))
		}
	})
}

// Nobody sees what the key may not: other workspaces, cues outside its restriction, as that is at this moment, or any other cue than
// the one that was asked for.
func TestLiveShowsWhatTheKeySees(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.cue("crm-a", "0 0 1 1 *")
		f.cue("bill-b", "0 0 1 1 *")
		made := f.ok(f.admin, "key.create", input{"name": "crm", "scope": "read-only", "restrictions": input{"cues": []string{"crm-*"}}})
		other, none := f.otherWorkspace(), f.ok(f.admin, "key.create", input{"name": "none", "permissions": []string{"cues:read"}})["key"].(string)
		f.refused(none, "live.watch", nil, 403, "insufficient_scope")
		f.refused(made["key"].(string), "live.watch", input{"cue": "bill-b"}, 404, "cue_not_found")
		f.refused(other, "live.watch", input{"cue": "crm-a"}, 404, "cue_not_found")
		all, crm, one, strange := f.watch(f.admin, nil), f.watch(made["key"].(string), nil), f.watch(f.admin, input{"cue": "bill-b"}), f.watch(other, nil)
		f.fire("crm-a", nil)
		f.fire("bill-b", nil)
		f.fire("crm-a", nil)
		crm.wants(f, "due crm-a", "due crm-a") // it has passed what it may not see
		f.ok(f.admin, "key.widen", input{"id": made["id"], "add_to": input{"cues": []string{"bill-*"}}})
		f.fire("bill-b", nil)
		all.wants(f, "due crm-a", "due bill-b", "due crm-a", "due bill-b")
		crm.wants(f, "due crm-a", "due crm-a", "due bill-b")
		f.ok(f.admin, "key.update", input{"id": made["id"], "restrictions": input{"cues": []string{"bill-*"}}})
		f.fire("crm-a", nil)
		f.fire("bill-b", nil)
		crm.wants(f, "due crm-a", "due crm-a", "due bill-b", "due bill-b")
		one.wants(f, "due bill-b", "due bill-b", "due bill-b")
		f.cueOf(other, "theirs")
		f.ok(other, "cue.fire", input{"id": "theirs"})
		strange.wants(f, "due theirs")
		all.wants(f, "due crm-a", "due bill-b", "due crm-a", "due bill-b", "due crm-a", "due bill-b")
	})
}

// cueOf makes a cue for workers with a key.
func (f *fixture) cueOf(key, name string) {
	f.ok(key, "cue.create", input{"name": name, "cron": "0 0 1 1 *", "transport": "worker"})
}

// A stream ends within 100 ms of whatever ends its key's right to it, also one whose reader takes nothing, and tells why.
func TestLiveEndsWithItsKey(t *testing.T) {
	ends := map[string]struct {
		code string
		do   func(f *fixture, id, parent string)
	}{
		"revoked":        {"key_revoked", func(f *fixture, id, _ string) { f.ok(f.admin, "key.revoke", input{"id": id}) }},
		"parent revoked": {"key_revoked", func(f *fixture, _, parent string) { f.ok(f.admin, "key.revoke", input{"id": parent}) }},
		"expired":        {"key_expired", func(f *fixture, _, _ string) { f.clock.Advance(48 * time.Hour) }},
		"rotated":        {"key_rotated", func(f *fixture, id, _ string) { f.ok(f.admin, "key.rotate", input{"id": id, "now": true}) }},
		"permission taken": {"insufficient_scope", func(f *fixture, id, _ string) {
			f.ok(f.admin, "key.update", input{"id": id, "permissions": []string{"cues:read"}})
		}},
		"from elsewhere": {"key_restricted", func(f *fixture, id, _ string) {
			f.ok(f.admin, "key.update", input{"id": id, "restrictions": input{"ips": []string{"10.0.0.0/8"}}})
		}},
		"not yet": {"key_restricted", func(f *fixture, id, _ string) {
			f.ok(f.admin, "key.update", input{"id": id, "restrictions": input{"not_before": f.clock.Now().Add(time.Hour).Format(time.RFC3339)}})
		}},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			try := func(t *testing.T, f *fixture, within time.Duration) {
				parent := f.ok(f.admin, "key.create", input{"name": "parent", "scope": "full"})
				made := f.ok(parent["key"].(string), "key.create", input{"name": "w", "scope": "full", "expires_in": "1d"})
				key := made["key"].(string)
				id := f.cue("c", "0 0 1 1 *")
				var all []*viewer
				for range streamsOfKey - 1 {
					all = append(all, f.watch(key, nil))
				}
				stuck := make(chan struct{})
				slow, _ := f.viewer(key, input{"stuck": stuck})
				bystander := f.watch(f.admin, nil)
				f.fire(id, nil)
				start := time.Now()
				end.do(f, made["id"].(string), parent["id"].(string))
				for _, v := range all {
					if last := v.end(); last.Type != liveEnd || last.Code != end.code || last.Message == "" {
						t.Errorf("ended with %s", op.Marshal(last))
					}
				}
				<-slow.over
				if took := time.Since(start); took > within {
					t.Errorf("ended after %v", took)
				}
				f.fire(id, nil)
				bystander.wants(f, "due c", "due c")
				bystander.leave()
				<-bystander.over
				<-time.After(2 * recheckEvery) // whoever looks after keys leaves
			}
			each(t, func(t *testing.T, f *fixture) { try(t, f, 10*time.Second) })
			synctest.Test(t, func(t *testing.T) { try(t, onSQLite(t), 100*time.Millisecond) })
		})
	}
}

// Alerts are told to keys that may see them: when one is raised, not when it is counted again, and when it is over.
func TestLiveTellsOfAlerts(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.cue("c", "0 0 1 1 *")
		v := f.watch(f.admin, nil)
		blind := f.watch(f.ok(f.admin, "key.create", input{"name": "k", "permissions": []string{"executions:read"}})["key"].(string), nil)
		elsewhere := f.watch(f.key("read-only", input{"cues": []string{"x-*"}}), nil)
		for range 2 {
			f.fire(id, nil)
			f.clock.Advance(16 * time.Minute)
			f.settle()
		}
		f.run(id, true)
		v.wants(f, "due c", "outcome c", "alert c", "due c", "outcome c", "due c", "claimed c", "outcome c", "alert c")
		blind.wants(f, "due c", "outcome c", "due c", "outcome c", "due c", "claimed c", "outcome c")
		raised, over := v.events[2], v.events[8]
		if raised.AlertType != alert.Missed || raised.Title == "" || raised.AlertID == "" || raised.Severity != "warning" || raised.ExecutionID != v.events[0].ExecutionID || over.AlertType != alert.Recovered {
			t.Errorf("alerts: %s %s", op.Marshal(raised), op.Marshal(over))
		}
		f.cueOf(f.admin, "x-a")
		f.fire("x-a", nil)
		elsewhere.wants(f, "due x-a")
	})
}

// A member who is removed takes the streams of the personal keys along.
func TestLiveEndsWithItsMember(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		m := f.ok(f.admin, "member.add", input{"email": "anna@example.com", "role": "operator"})
		v := f.watch(m["key"].(string), nil)
		f.ok(f.admin, "member.remove", input{"id": m["id"]})
		if last := v.end(); last.Code != "key_revoked" {
			t.Errorf("ended with %s", op.Marshal(last))
		}
	})
}

// What was rolled back never happened.
func TestLiveTellsNothingOfWhatWasRolledBack(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		v, id := f.watch(f.admin, nil), f.cue("c", "0 0 1 1 *")
		failed := errors.New("no")
		err := f.db.Update(t.Context(), func(tx *db.Tx) error {
			e := &execution{workspace: f.ws, cueID: id, triggeredBy: byFire, scheduledFor: f.cues.now(), payload: "{}", maxAttempts: 1, createdAt: f.cues.now()}
			f.must(f.cues.insertExecution(tx, e))
			return failed
		})
		if !errors.Is(err, failed) {
			t.Fatal(err)
		}
		f.refused(f.admin, "execution.claim", input{"worker_id": "w"}, 409, "claim_failed")
		f.fire(id, nil)
		v.saw(f, 1)
		if got := v.saw(f, 1); len(got) != 1 {
			t.Errorf("saw %q", got)
		}
	})
}

// Who comes back with the last id sees each event once, in order, however often the connection breaks and however much happens.
func TestLiveResumesExactly(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.cue("c", "0 0 1 1 *")
		v := f.watch(f.admin, nil)
		const callers, each = 8, 25
		var fires sync.WaitGroup
		for range callers {
			fires.Go(func() {
				for range each {
					if r := f.call(f.admin, "cue.fire", input{"id": id}); r.Err != nil {
						t.Error(r.Err)
					}
				}
			})
		}
		var all []LiveEvent
		seen := func() int { v.mu.Lock(); defer v.mu.Unlock(); return len(v.events) }
		for broken := 0; len(all)+seen() < callers*each; {
			if n := seen(); n > 3 {
				v.leave()
				<-v.over
				all = append(all, v.events...)
				v = f.watch(f.admin, input{"Last-Event-ID": v.id})
				broken++
			}
		}
		fires.Wait()
		v.leave()
		<-v.over
		all = append(all, v.events...)
		once := map[string]bool{}
		for _, e := range all {
			if e.Type != liveDue || once[e.ExecutionID] {
				t.Errorf("saw %s", op.Marshal(e))
			}
			once[e.ExecutionID] = true
		}
		if len(once) != callers*each {
			t.Errorf("saw %d of %d", len(once), callers*each)
		}
		if n := f.cues.LiveStats().Gaps; n != 0 {
			t.Errorf("%d gaps", n)
		}
	})
}

// Of one execution everything is told in its order, although many callers work at the same time.
func TestLiveOrderPerExecution(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id, v, worker := f.cue("c", "0 0 1 1 *"), f.watch(f.admin, nil), f.key("worker", nil)
		const n = 60
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range n / 4 {
					f.call(f.admin, "cue.fire", input{"id": id})
				}
			})
			all.Go(func() {
				for done := 0; done < n/4; {
					r := f.call(worker, "execution.claim", input{"worker_id": "w", "wait": 5})
					if r.Err != nil {
						continue
					}
					var got struct {
						ID    string `json:"execution_id"`
						Token string `json:"lease_token"`
					}
					if err := json.Unmarshal(r.Body, &got); err != nil {
						t.Error(err)
					}
					f.call(worker, "execution.report", input{"id": got.ID, "lease_token": got.Token, "success": true})
					done++
				}
			})
		}
		all.Wait()
		v.saw(f, 3*n)
		steps := map[string][]string{}
		for _, e := range v.events {
			steps[e.ExecutionID] = append(steps[e.ExecutionID], string(e.Type))
		}
		for id, s := range steps {
			if !slices.Equal(s, []string{liveDue, liveClaimed, liveOutcome}) {
				t.Errorf("execution %s: %q", id, s)
			}
		}
	})
}
