package cue

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// The address that a cue names is told of a failure for good: signed, with the fields of the CueAPI wire contract 3.6, and again when
// it does not take it. A reported failure is none of that kind.
func TestFailureIsTold(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		tells := input{"webhook": r.URL + "/failures"}
		more := input{"cron": "0 0 1 1 *", "retry": input{"max_attempts": 1}, "on_failure": tells}
		holds(t, f.ok(f.admin, "cue.get", input{"id": f.webhook("hook", r, more)}), map[string]any{"on_failure": map[string]any{"email": false, "webhook": r.URL + "/failures", "pause": false}})
		r.says(func(w http.ResponseWriter, a arrival) {
			if strings.HasSuffix(a.path, "/hook") || len(r.arrivals()) < 3 {
				w.WriteHeader(503)
			}
		})
		id := f.ok(f.admin, "cue.fire", input{"id": "hook"})["id"].(string)
		f.settle()
		if n := len(r.arrivals()); n != 2 {
			t.Fatalf("%d requests, want the call and the first notice", n)
		}
		if text := facts(f.ok(f.admin, "execution.why", input{"id": id})); !strings.Contains(text, "10:02:40 "+r.URL+"/failures is told of the failure again: Webhook endpoint server error (503)") {
			t.Error(text)
		}
		f.clock.Advance(time.Minute)
		f.settle()
		first, second := r.arrivals()[1], r.arrivals()[2]
		if first.path != "/failures" || first.body != second.body || first.header.Get("webhook-id") != second.header.Get("webhook-id") {
			t.Errorf("the second notice is another: %v %v", first, second)
		}
		if got, want := second.header.Get("X-Cueapi-Signature"), cueAPISignature(f.secret(), second.header.Get("X-Cueapi-Timestamp"), second.body); got != want {
			t.Errorf("signed %s, want %s", got, want)
		}
		body := second.json
		q := f.ok(f.admin, "cue.get", input{"id": "hook"})
		for name, want := range map[string]any{
			"event": "cue.failed", "cue_id": q["id"], "cue_name": "hook", "execution_id": id, "attempts": 1., "last_http_status": 503.,
			"last_error": "Webhook endpoint server error (503)", "failed_at": "2026-11-23T10:01:40+00:00", "dashboard_url": nil,
		} {
			if body[name] != want {
				t.Errorf("%s is %v, want %v", name, body[name], want)
			}
		}
		if text := facts(f.ok(f.admin, "execution.why", input{"id": id})); !strings.Contains(text, "10:02:40 told "+r.URL+"/failures of the failure") {
			t.Error(text)
		}
		f.clock.Advance(24 * time.Hour)
		f.settle()
		if n := len(r.arrivals()); n != 3 {
			t.Errorf("%d requests after it was told", n)
		}
	})
}

// What is a failure for good, of every kind, is told once; what is not is not.
func TestWhichFailuresAreTold(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		tells := input{"webhook": "https://203.0.113.5/failures"}
		f.ok(f.admin, "cue.create", newCue("c", input{"schedule": input{"type": recurring, "cron": "0 0 1 1 *"}, "on_failure": tells, "retry": input{"max_attempts": 1}}))
		told := func(n int, what string) {
			t.Helper()
			f.settle()
			if got := len(f.post.notices); got != n {
				t.Errorf("%s: %d notices, want %d", what, got, n)
			}
		}
		f.run("c", false)
		told(0, "a reported failure")
		f.run("c", true)
		told(0, "a success")
		f.ok(f.admin, "cue.fire", input{"id": "c"})
		f.clock.Advance(f.cues.UnclaimedAfter)
		told(1, "missed")
		if body := f.post.notices[0].body; !strings.Contains(body, `"attempts": 0`) || !strings.Contains(body, `"last_http_status": null`) || !strings.Contains(body, unclaimedMessage) {
			t.Error(body)
		}
		id := f.ok(f.admin, "cue.fire", input{"id": "c"})["id"]
		f.ok(f.admin, "execution.claim_one", input{"id": id, "worker_id": "w"})
		f.clock.Advance(f.cues.Lease)
		told(2, "the last lease was lost")

		f.ok(f.admin, "cue.update", input{"id": "c", "on_failure": input{}})
		f.ok(f.admin, "cue.fire", input{"id": "c"})
		f.clock.Advance(f.cues.UnclaimedAfter)
		told(2, "a cue that names no address")
		f.refused(f.admin, "cue.update", input{"id": "c", "on_failure": input{"webhook": "https://10.0.0.1/"}}, 400, "invalid_callback_url")
	})
}

// A notice survives the end of the server, is given up after five attempts, and goes with its cue.
func TestNoticesAreKept(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.ok(f.admin, "cue.create", newCue("c", input{"schedule": input{"type": recurring, "cron": "0 0 1 1 *"}, "on_failure": input{"webhook": "https://203.0.113.5/failures"}}))
		f.post.told = func(_ *notice, r *result) { r.good, r.httpStatus, r.message = false, 500, "no" }
		id := f.ok(f.admin, "cue.fire", input{"id": "c"})["id"]
		f.clock.Advance(f.cues.UnclaimedAfter)
		f.must(f.cues.sweep(f.Context(), f.cues.now()))
		due, err := f.cues.takeNotices(f.Context(), f.cues.now()) // and then the server ends
		if err != nil || len(due) != 1 {
			t.Fatal(due, err)
		}
		f.restart()
		f.settle()
		if len(f.post.notices) != 0 {
			t.Error("it is sent again at once")
		}
		for range 10 {
			f.clock.Advance(time.Hour)
			f.settle()
		}
		if n := len(f.post.notices); n != noticeRetry.MaxAttempts {
			t.Errorf("%d attempts, want %d", n, noticeRetry.MaxAttempts)
		}
		for _, n := range f.post.notices {
			if n.id != due[0].id {
				t.Errorf("attempt under id %s, want %s", n.id, due[0].id)
			}
		}
		if text := facts(f.ok(f.admin, "execution.why", input{"id": id})); !strings.Contains(text, fmt.Sprintf("was not told of the failure, after %d attempts: no", noticeRetry.MaxAttempts)) {
			t.Error(text)
		}
		f.ok(f.admin, "cue.delete", input{"id": "c"})
		if n := f.number("SELECT count(*) FROM notices"); n != 0 {
			t.Errorf("%d notices are left", n)
		}
	})
}

// hangingPost never says what became of the notices of one workspace, until it is let go.
type hangingPost struct {
	*fakePost
	workspace string
	hung      []func()
}

func (p *hangingPost) notify(n *notice, done func(*result)) {
	if n.workspace != p.workspace {
		p.fakePost.notify(n, done)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hung = append(p.hung, func() { done(&result{good: true, httpStatus: 200}) })
}

// A workspace whose addresses hang keeps no other from being told, however many of its failures wait, and is not told twice.
func TestNoticesThatHang(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		second := f.ok(f.admin, "workspace.create", input{"name": "second"})["key"].(string)
		f.cue("c", "0 0 1 1 *")
		tells := input{"id": "c", "on_failure": input{"webhook": "https://203.0.113.5/failures"}}
		f.ok(f.admin, "cue.update", tells)
		f.ok(second, "cue.create", newCue("c", input{"schedule": input{"type": recurring, "cron": "0 0 1 1 *"}}))
		f.ok(second, "cue.update", tells)
		post := &hangingPost{fakePost: f.post, workspace: f.ws}
		f.cues.courier.post = post
		for range noticesAtOnce + 1 {
			f.ok(f.admin, "cue.fire", input{"id": "c"})
		}
		f.ok(second, "cue.fire", input{"id": "c"})
		f.clock.Advance(f.cues.UnclaimedAfter)
		f.must(f.cues.sweep(f.Context(), f.cues.now()))
		for range 3 {
			_, err := f.cues.sendNotices(f.Context())
			f.must(err)
			f.clock.Advance(noticeAgain)
		}
		for f.number("SELECT count(*) FROM notices WHERE told_at IS NOT NULL") < 1 {
			pause(t.Context(), time.Millisecond)
		}
		var hung []func()
		for len(hung) < noticesAtOnce-1 {
			post.mu.Lock()
			hung = post.hung
			post.mu.Unlock()
			pause(t.Context(), time.Millisecond)
		}
		if len(hung) > noticesAtOnce {
			t.Errorf("%d were sent of the first workspace while they hang", len(hung))
		}
		for _, end := range hung {
			end()
		}
		f.cues.telling.batches.Wait()
		if n := f.number("SELECT count(*) FROM notices WHERE told_at IS NOT NULL"); n != int64(len(hung))+1 {
			t.Errorf("%d were told, want %d", n, len(hung)+1)
		}
	})
}

// An e-mail about a failure is stored with the failure or not at all: what hinders the one hinders the other, and when both are stored
// neither comes twice.
func TestFailureMailIsStoredWithTheFailure(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.ok(f.admin, "cue.create", newCue("c", input{"schedule": input{"type": recurring, "cron": "0 0 1 1 *"}, "on_failure": input{"email": true}, "alerts": input{"missed_window_multiplier": 10}}))
		f.sql("INSERT INTO alert_channels (workspace_id, kind, address, set_at, error) SELECT id, 'email', 'ops@example.com', 0, '' FROM workspaces")
		id := f.ok(f.admin, "cue.fire", input{"id": "c"})["id"]
		f.clock.Advance(f.cues.UnclaimedAfter)
		f.sql("ALTER TABLE alert_sends RENAME TO gone")
		if err := f.cues.sweep(f.Context(), f.cues.now()); err == nil {
			t.Fatal("the miss was stored without its e-mail")
		}
		f.sql("ALTER TABLE gone RENAME TO alert_sends")
		if status := f.ok(f.admin, "execution.get", input{"id": id})["status"]; status != "pending" {
			t.Errorf("the execution is %v", status)
		}
		for range 2 {
			f.must(f.cues.sweep(f.Context(), f.cues.now()))
			f.restart()
			if status := f.ok(f.admin, "execution.get", input{"id": id})["status"]; status != statusMissed {
				t.Errorf("the execution is %v", status)
			}
			if n := f.number("SELECT count(*) FROM alert_sends WHERE kind = 'email' AND send_at IS NOT NULL"); n != 1 {
				t.Errorf("%d e-mails", n)
			}
		}
	})
}
