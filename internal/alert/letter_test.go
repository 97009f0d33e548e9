package alert_test

import (
	"fmt"
	"io"
	"mime/quotedprintable"
	stdmail "net/mail"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"unstuck/internal/mail/inbox"
	"unstuck/internal/testkit/pgtest"
)

// mailed gives a site a mail server and an address for alerts.
func (s *site) mailed() *inbox.Inbox {
	s.t.Helper()
	box := inbox.Open(s.t, "none", "")
	s.Settings.SMTPHost, s.Settings.SMTPPort, s.Settings.SMTPFrom, s.Settings.SMTPTLS = "127.0.0.1", box.Port, "unstuck@example.com", "none"
	s.Restart(0)
	s.Must(s.First, "PUT /v1/alerts/channels/email", obj{"address": "ops@example.com"})
	return box
}

// asks makes a cue that asks for an e-mail when it fails. Its alerts wait for a hundred failures, or ten misses.
func (s *site) asks(name string, more obj) {
	s.t.Helper()
	body := obj{"name": name, "cron": "0 0 1 1 *", "worker": true, "on_failure": obj{"email": true}, "alerts": obj{"consecutive_failures": 100, "missed_window_multiplier": 10}}
	for k, v := range more {
		body[k] = v
	}
	s.Must(s.First, "POST /v1/cues", body)
}

func (s *site) fire(cue string) string {
	s.t.Helper()
	s.fired++
	return s.Must(s.First, "POST /v1/cues/"+cue+"/fire", obj{"payload_override": obj{"n": s.fired}}).Str("id")
}

// miss lets executions of a cue be missed, all at once.
func (s *site) miss(cue string, n int) (last string) {
	s.t.Helper()
	for range n {
		last = s.fire(cue)
	}
	s.Clock.Add(16 * time.Minute)
	s.Drain()
	return last
}

// letters are all messages that came, once none is waiting.
func (s *site) letters(box *inbox.Inbox) (out []*stdmail.Message) {
	s.t.Helper()
	for s.t.Context().Err() == nil {
		n, err := s.Alerts().Waiting(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		if n == 0 {
			break
		}
	}
	for len(box.Mail) > 0 {
		m, err := stdmail.ReadMessage(strings.NewReader(<-box.Mail))
		if err != nil {
			s.t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

func (s *site) why(execution string) string {
	s.t.Helper()
	return string(s.Must(s.First, "GET /v1/executions/"+execution+"/why", nil).Body)
}

// A cue that asks for it has the workspace told by e-mail of each execution that failed for good, once, in the words of why; a
// reported failure is none of that kind, and where an alert about the execution goes there that is all.
func TestFailureMail(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		box := s.mailed()
		s.asks("report", obj{"retry": obj{"max_attempts": 1}})
		id := s.miss("report", 1)
		all := s.letters(box)
		if len(all) != 1 {
			t.Fatalf("%d messages about a miss", len(all))
		}
		if subject := all[0].Header.Get("Subject"); !strings.HasPrefix(subject, "report missed 10:00 UTC: ") || !strings.HasSuffix(subject, " (no good execution before)") {
			t.Error(subject)
		}
		if text := read(t, all[0]); !strings.Contains(text, "missed: no worker took it within 15 min") || !strings.Contains(text, "unstuck executions why "+id[:8]) || strings.Contains(text, "alerts ack") {
			t.Error(text)
		}
		if to := <-box.To; to != "ops@example.com" {
			t.Error(to)
		}
		if why := s.why(id); !strings.Contains(why, "told of by e-mail") {
			t.Error(why)
		}
		if a := s.Must(s.First, "GET /v1/alerts", nil); a.JSON["total"] != 0. {
			t.Errorf("a letter is an alert: %s", a.Body)
		}

		id = s.fire("report")
		s.Must(s.First, "POST /v1/executions/"+id+"/claim", obj{"worker_id": "w"})
		s.Clock.Add(16 * time.Minute)
		s.Drain()
		if all := s.letters(box); len(all) != 1 || !strings.HasPrefix(all[0].Header.Get("Subject"), "report") {
			t.Errorf("%d messages about a lost lease", len(all))
		}
		s.run("report", false)
		s.run("report", true)
		if n := len(s.letters(box)); n != 0 {
			t.Errorf("%d messages about a reported failure", n)
		}

		s.asks("loud", obj{"alerts": nil})
		s.miss("loud", 1)
		s.letters1(box, "the alert of the first miss")
		s.miss("loud", 1)
		s.letters1(box, "the second miss, which the open alert counts")
		s.Must(s.First, "PATCH /v1/cues/loud", obj{"on_failure": obj{}})
		s.miss("loud", 1)
		if n := len(s.letters(box)); n != 0 {
			t.Errorf("%d messages for a cue that asks for none any more", n)
		}
	})
}

func (s *site) letters1(box *inbox.Inbox, about string) {
	s.t.Helper()
	if all := s.letters(box); len(all) != 1 || !strings.HasPrefix(all[0].Header.Get("Subject"), "loud missed") {
		s.t.Errorf("%d messages: %s", len(all), about)
	}
}

// A callback that failed to the end is told with what it answered; a pause that the cue asks for comes with it.
func TestFailureMailOfCallback(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.Settings.PublicURL = "https://unstuck.example.com"
		box := s.mailed()
		s.asks("hook", obj{"worker": nil, "callback_url": "http://127.0.0.1:1/", "retry": obj{"max_attempts": 2, "backoff_minutes": []int{1}}, "on_failure": obj{"email": true, "pause": true}})
		id := s.fire("hook")
		for s.Must(s.First, "GET /v1/executions/"+id, nil).Str("status") != "failed" && t.Context().Err() == nil {
			s.Clock.Add(time.Minute)
			s.Drain()
		}
		all := s.letters(box)
		if len(all) != 1 {
			t.Fatalf("%d messages", len(all))
		}
		if subject := all[0].Header.Get("Subject"); subject != "hook, due 10:00 UTC, failed: its callback could not be reached or did not answer: attempt 2 of 2 (no good execution before)" {
			t.Error(subject)
		}
		text := read(t, all[0])
		for _, want := range []string{"called, attempt 2 of 2", "Could not connect to webhook endpoint", "unstuck executions why " + id[:8], "unstuck cues resume hook", "https://unstuck.example.com/docs/help/alerts"} {
			if !strings.Contains(text, want) {
				t.Errorf("the text lacks %q:\n%s", want, text)
			}
		}
		if got := s.Must(s.First, "GET /v1/cues/hook", nil); got.Str("status") != "paused" {
			t.Error(got.Str("status"))
		}
	})
}

// A workspace gets ten within an hour. The tenth says so, the next one how many were left out; another workspace has its own ten.
func TestFailureMailsAnHour(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		box, key := s.mailed(), s.First
		s.asks("report", nil)
		s.asks("backup", nil)
		for range 6 {
			s.fire("report")
		}
		s.miss("backup", 6)
		all, said := s.letters(box), 0
		for _, m := range all {
			if strings.Contains(read(t, m), "This is the 10th e-mail about a failure within an hour, so until 11:16 UTC there are no more.") {
				said++
			}
		}
		if len(all) != 10 || said != 1 {
			t.Errorf("%d messages, of which %d say that there are no more", len(all), said)
		}
		s.miss("backup", 1)
		if n := len(s.letters(box)); n != 0 {
			t.Errorf("%d messages beyond the tenth", n)
		}
		if metrics := string(s.Do(s.First, "GET /metrics", nil).Body); !strings.Contains(metrics, `unstuck_alert_deliveries_total{channel="email",result="left_out"} 3`) {
			t.Error("the metrics do not count what was left out")
		}
		s.First = s.Must(s.First, "POST /v1/workspaces", obj{"name": "second"}).Str("key")
		s.Must(s.First, "PUT /v1/alerts/channels/email", obj{"address": "others@example.com"})
		s.asks("theirs", nil)
		s.miss("theirs", 1)
		if n := len(s.letters(box)); n != 1 {
			t.Errorf("%d messages of another workspace", n)
		}
		s.First = key
		s.Clock.Add(45 * time.Minute)
		s.miss("backup", 2)
		all = s.letters(box)
		if len(all) != 2 {
			t.Fatalf("%d messages after the hour", len(all))
		}
		told := 0
		for _, m := range all {
			if strings.Contains(read(t, m), "3 more executions failed before this one, without an e-mail of their own") {
				told++
			}
		}
		if told != 1 {
			t.Errorf("%d say how many were left out", told)
		}
	})
}

func read(t *testing.T, m *stdmail.Message) string {
	t.Helper()
	text, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		t.Error(err)
	}
	return string(text)
}

// A letter is stored with the failure: a server that ends before it was sent sends it when it is there again, under the same id.
func TestFailureMailSurvivesRestart(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		box := s.mailed()
		s.asks("report", nil)
		box.Refuse(&smtp.SMTPError{Code: 450, Message: "greylisted"})
		id := s.miss("report", 1)
		for !strings.Contains(s.why(id), "greylisted") && t.Context().Err() == nil {
		}
		if why := s.why(id); !strings.Contains(why, "the e-mail about it is sent again: ") {
			t.Error(why)
		}
		s.Stop()
		box.Refuse(nil)
		s.Clock.Add(time.Hour)
		if err := s.Open(); err != nil {
			t.Fatal(err)
		}
		if n := len(s.letters(box)); n != 1 {
			t.Errorf("%d messages after a restart", n)
		}
		if why := s.why(id); !strings.Contains(why, "told of by e-mail") {
			t.Error(why)
		}
	})
}

// While nobody would get the e-mails, making or changing a cue that asks for them says so, and what mends it.
func TestFailureMailWarns(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, dsn string) {
		s := newSite(t, dsn)
		n := 0
		warned := func(email bool) (string, string) {
			t.Helper()
			n++
			name := fmt.Sprint("c", n)
			on := obj{"email": email}
			made := s.Must(s.First, "POST /v1/cues", obj{"name": name, "cron": "0 0 1 1 *", "callback_url": "http://127.0.0.1:1/", "on_failure": on})
			return made.Str("warning"), s.Must(s.First, "PATCH /v1/cues/"+name, obj{"on_failure": on}).Str("warning")
		}
		expect := func(email bool, want string) {
			t.Helper()
			if made, changed := warned(email); made != changed || want == "" && made != "" || !strings.Contains(made, want) {
				t.Errorf("warned %q and %q, want %q", made, changed, want)
			}
		}
		expect(false, "")
		expect(true, "sets UNSTUCK_SMTP_HOST")
		s.Settings.SMTPHost, s.Settings.SMTPFrom = "127.0.0.1", "unstuck@example.com"
		s.Restart(0)
		expect(true, "unstuck alerts set email ops@example.com")
		s.Must(s.First, "PUT /v1/alerts/channels/email", obj{"address": "ops@example.com"})
		expect(true, "")
	})
}
