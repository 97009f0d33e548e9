package cue

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"unstuck/internal/op"
)

// How the end is known, by what the callback answers and what is reported, and what becomes of execution and cue (CueAPI wire
// contract 2.4, 7.2, 10.1).
func TestHowTheEndIsKnown(t *testing.T) {
	type row map[string]any
	yes, no := input{"success": true, "result": "fine"}, input{"success": false, "error": "broken"}
	cases := []struct {
		name           string
		delivery       input // nil: never set
		reply          string
		report         input // after the answer; nil for none
		later          bool  // and the deadline passes first
		execution, cue string
		state          any
		unconfirmed    bool
	}{
		{name: "2xx is done", execution: statusSuccess, cue: completed, unconfirmed: true},
		{name: "2xx is done, whatever the answer says", reply: `{"success":false}`, execution: statusSuccess, cue: completed, unconfirmed: true},
		{name: "2xx is done, and a report changes the outcome alone", report: no, execution: statusSuccess, cue: completed, state: reportedFailure},
		{name: "the answer says yes", delivery: input{"outcome_by": "reply"}, reply: `{"success":true,"result":"42"}`, execution: statusSuccess, cue: completed, state: reportedSuccess},
		{name: "the answer says no", delivery: input{"outcome_by": "reply"}, reply: `{"success":false,"error":"broken"}`, execution: statusFailed, cue: failed, state: reportedFailure},
		{name: "the answer says nothing", delivery: input{"outcome_by": "reply"}, reply: `OK`, execution: statusOutcomeTimeout, cue: failed, state: outcomeUnknown},
		{name: "the answer says it wrongly", delivery: input{"outcome_by": "reply"}, reply: `{"success":"yes"}`, execution: statusOutcomeTimeout, cue: failed, state: outcomeUnknown},
		{name: "the answer said nothing, and a report comes late", delivery: input{"outcome_by": "reply"}, report: yes, execution: statusSuccess, cue: completed, state: reportedSuccess},
		{name: "waiting for a report", delivery: input{"outcome_deadline_seconds": 60}, execution: statusPendingOutcome, cue: active},
		{name: "the answer is as good as a report", delivery: input{"outcome_deadline_seconds": 60}, reply: `{"success":true}`, execution: statusSuccess, cue: completed, state: reportedSuccess},
		{name: "reported yes", delivery: input{"outcome_deadline_seconds": 60}, report: yes, execution: statusSuccess, cue: completed, state: reportedSuccess},
		{name: "reported no", delivery: input{"outcome_by": "report"}, report: no, execution: statusFailed, cue: failed, state: reportedFailure},
		{name: "nobody reports", delivery: input{"outcome_deadline_seconds": 60}, later: true, execution: statusOutcomeTimeout, cue: failed, state: outcomeUnknown},
		{name: "reported after the deadline", delivery: input{"outcome_deadline_seconds": 60}, later: true, report: yes, execution: statusSuccess, cue: completed, state: reportedSuccess},
	}
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		worker := f.key("worker", nil)
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				r.status(200, c.reply)
				before, at := len(r.arrivals()), f.clock.Now().Add(time.Minute)
				args := input{"cron": nil, "at": at}
				if c.delivery != nil {
					args["delivery"] = c.delivery
				}
				id := f.webhook(strings.NewReplacer(" ", "-", ",", "").Replace(c.name), r, args)
				f.clock.Set(at)
				f.settle()
				if c.later {
					f.clock.Advance(61 * time.Second)
					f.settle()
				}
				execution := f.executions(id)[0]["id"]
				if c.report != nil {
					report := input{"id": execution}
					for k, v := range c.report {
						report[k] = v
					}
					f.ok(worker, "execution.report", report)
				}
				if c.execution == statusOutcomeTimeout && !c.later {
					if why := f.ok(f.admin, "execution.why", input{"id": execution})["sentence"].(string); !strings.HasSuffix(why, "was called, but its answer did not say how it went.") {
						t.Errorf("why: %s", why)
					}
				}
				e, q := f.ok(f.admin, "execution.get", input{"id": execution}), f.ok(f.admin, "cue.get", input{"id": id})
				got := row{"execution": e["status"], "cue": q["status"], "state": e["outcome_state"], "unconfirmed": e["unconfirmed"], "runs": q["run_count"]}
				want := row{"execution": c.execution, "cue": c.cue, "state": c.state, "unconfirmed": c.unconfirmed, "runs": 1.}
				for k, v := range want {
					if got[k] != v {
						t.Errorf("%s is %v, want %v", k, got[k], v)
					}
				}
				if n := len(r.arrivals()) - before; n != 1 {
					t.Errorf("called %d times", n)
				}
				if c.state != nil && c.state != outcomeUnknown {
					if check := f.ok(f.admin, "execution.check_evidence", input{"id": execution}); check["ok"] != true {
						t.Errorf("its evidence is not whole: %v", check)
					}
				}
				f.countersAreExact()
			})
		}
	})
}

// A report that comes while the call is still open ends an execution that waits for it; the answer adds nothing, and nothing is
// called again.
func TestReportDuringTheCall(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		worker := f.key("worker", nil)
		r.says(func(w http.ResponseWriter, a arrival) {
			f.ok(worker, "execution.report", input{"id": a.json["execution_id"], "success": true})
			w.WriteHeader(500) // and then it stumbles
		})
		id := f.webhook("eager", r, input{"delivery": input{"outcome_deadline_seconds": 60}})
		f.tick()
		e := f.executions(id)[0]
		if e["status"] != statusSuccess || e["outcome_state"] != reportedSuccess || e["attempts"] != 1. || e["http_status"] != 500. || e["next_retry"] != nil {
			t.Errorf("%v", e)
		}
		f.clock.Advance(20 * time.Second)
		f.settle()
		if n := len(r.arrivals()); n != 1 {
			t.Errorf("called %d times", n)
		}
	})
}

// What an answer may bring is what a report may bring; it is redacted and cut alike, and never refused.
func TestReplyOf(t *testing.T) {
	for _, c := range []struct {
		body string
		want *said
	}{
		{``, nil}, {`[]`, nil}, {`{"success":1}`, nil}, {`{"success":null}`, nil}, {`{"ok":true}`, nil}, {`{"success":true`, nil},
		{`{"success":true}`, &said{Success: true}},
		{` {"success":false,"error":"x","result":7,"metadata":{"a":1}}`, &said{Error: ptr("x"), proof: proof{Metadata: []byte(`{"a":1}`)}}},
		{`{"success":true,"external_id":"e","artifacts":["a"],"result":"a\u0000b"}`, &said{Success: true, Result: ptr("a\ufffdb"), proof: proof{ExternalID: ptr("e"), Artifacts: []byte(`["a"]`)}}},
		{`{"success":true,"external_id":"` + strings.Repeat("é", 600) + `"}`, &said{Success: true, Truncated: true, proof: proof{ExternalID: ptr(strings.Repeat("é", 500))}}},
		{`{"success":true,"result_url":"javascript:alert(1)"}`, &said{Success: true}}, {`{"success":true,"result_url":"https:/x"}`, &said{Success: true}},
		{`{"success":true,"result_url":"https://x.example/"}`, &said{Success: true, proof: proof{ResultURL: ptr("https://x.example/")}}},
		{`{"success":true,"artifacts":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `,"metadata":{"a":1,"a":2},"assertions":{"a":"\ud800"}}`, &said{Success: true}},
		{"{\"success\":true,\"metadata\":{\"\xff\":\"\xfe\"}}", &said{Success: true, proof: proof{Metadata: []byte(`{"�":"�"}`)}}},
	} {
		got := replyOf([]byte(c.body))
		if (got == nil) != (c.want == nil) || got != nil && string(stored(got)) != string(stored(c.want)) {
			t.Errorf("%.60s is %v, want %v", c.body, got, c.want)
		}
	}
}

// An answer that is JSON but no text ends its execution, whatever it holds, and holds up no other.
func TestReplyThatIsNoText(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		r.says(func(w http.ResponseWriter, _ arrival) {
			_, _ = w.Write([]byte("{\"success\":true,\"artifacts\":[\"\xff\"],\"metadata\":{\"\xfe\":1},\"assertions\":{\"a\":\"\xc3\"}}"))
		})
		id := f.webhook("latin", r, input{"delivery": input{"outcome_by": "reply"}})
		f.tick()
		if e := f.executions(id)[0]; e["status"] != statusSuccess || e["outcome_state"] != reportedSuccess {
			t.Errorf("%v", e)
		}
	})
}

// Values of headers that a callback tells back are in no outcome.
func TestReplyHidesHeaders(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		r.says(func(w http.ResponseWriter, a arrival) {
			told := fmt.Sprintf("%q", a.header.Get("Authorization"))
			_, _ = fmt.Fprintf(w, `{"success":true,"result":%s,"metadata":{"told":%s,"other":1},"artifacts":[%s],"assertions":{"n":1234567}}`, told, told, told)
		})
		id := f.webhook("echoing", r, input{
			"callback": input{"url": r.URL + "/x", "headers": input{"Authorization": `Bearer "theirs"`, "X-Number": "123456"}}, "delivery": input{"outcome_by": "reply"},
		})
		f.tick()
		e := f.ok(f.admin, "execution.get", input{"id": f.executions(id)[0]["id"]})
		text := string(op.Marshal(e))
		if e["outcome_state"] != reportedSuccess || strings.Contains(text, "theirs") || !strings.Contains(text, `"told":"***"`) {
			t.Error(text)
		}
	})
}

// Results that cannot be stored hold up no other, however many there are.
func TestResultsThatCannotBeStored(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		for i := range 12 {
			f.ok(f.admin, "cue.create", input{"name": fmt.Sprintf("cue-%d", i), "cron": "* * * * *", "callback_url": "https://203.0.113.9/"})
		}
		var n atomic.Int32
		f.post.answer = func(_ *job, r *result) {
			if n.Add(1) <= 8 { // text that no database takes
				r.message = "\xff"
			}
		}
		f.clock.Set(f.clock.Now().Truncate(time.Minute).Add(time.Minute))
		f.must(f.cues.fireDue(t.Context()))
		for len(f.cues.courier.peek()) < 12 {
			pause(t.Context(), time.Millisecond)
		}
		for range 3 {
			if _, err := f.cues.saveResults(t.Context()); err == nil {
				t.Fatal("a result was stored that no database takes")
			}
		}
		if done := f.number("SELECT count(*) FROM executions WHERE status = 'success'"); done != 4 {
			t.Errorf("%d are stored, want 4", done)
		}
		for _, r := range f.cues.courier.peek() {
			r.message = ""
		}
		if n, err := f.cues.saveResults(t.Context()); n != 8 || err != nil {
			t.Errorf("then %d were stored: %v", n, err)
		}
	})
}

func stored(s *said) []byte { return []byte(s.stored(0)) }

// Answers are kept, without keys of ours, and shown to keys that may change the callback.
func TestResponseBody(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		r.status(200, "you sent "+f.admin+strings.Repeat("é", 3000))
		id := f.webhook("echoing", r, nil)
		f.tick()
		execution := f.executions(id)[0]["id"]
		body, _ := f.ok(f.admin, "execution.get", input{"id": execution})["response_body"].(string)
		if !strings.HasPrefix(body, "you sent unstuck_***") || strings.Contains(body, f.admin) || len([]rune(body)) > bodyMost {
			t.Errorf("kept: %.80s (%d characters)", body, len([]rune(body)))
		}
		if got := f.ok(f.key("read-only", nil), "execution.get", input{"id": execution})["response_body"]; got != nil {
			t.Errorf("a reader is shown %v", got)
		}
	})
}
