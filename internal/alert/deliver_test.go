package alert_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	stdmail "net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"unstuck/internal/mail/inbox"
	"unstuck/internal/server"
	"unstuck/internal/testkit"
	"unstuck/internal/testkit/pgtest"
)

func cueAPISignature(secret, at, body string) string {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(at + "." + body))
	return "v1=" + hex.EncodeToString(m.Sum(nil))
}

// arrival is a request that a receiver got.
type arrival struct {
	body   string
	header http.Header
	json   obj
}

// receiver is an address that alerts go to.
type receiver struct {
	*httptest.Server
	got chan arrival

	mu   sync.Mutex
	says func(http.ResponseWriter)
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{got: make(chan arrival, 1000)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		text, _ := io.ReadAll(req.Body)
		a := arrival{body: string(text), header: req.Header}
		if err := json.Unmarshal(text, &a.json); err != nil {
			t.Errorf("%v: %s", err, text)
		}
		r.mu.Lock()
		says := r.says
		r.mu.Unlock()
		if says != nil {
			says(w)
		}
		r.got <- a
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) answer(says func(http.ResponseWriter)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.says = says
}

// site is a server that may send to this machine, and a cue to break.
type site struct {
	*testkit.Server
	t     *testing.T
	fired int
}

func each(t *testing.T, fn func(t *testing.T, s *site)) {
	t.Helper()
	pgtest.Each(t, func(t *testing.T, dsn string) { fn(t, newSite(t, dsn)) })
}

func newSite(t *testing.T, dsn string, changes ...func(*server.Settings)) *site {
	t.Helper()
	changes = append(changes, func(s *server.Settings) { s.AllowCallbacks = "127.0.0.1" })
	s := &site{Server: testkit.New(t, dsn, changes...), t: t}
	s.Must(s.First, "PATCH /v1/workspace", obj{"rate_limit_per_minute": 0})
	s.cue("nightly")
	return s
}

func (s *site) cue(name string) {
	s.Must(s.First, "POST /v1/cues", obj{"name": name, "cron": "0 0 1 1 *", "worker": true, "payload": obj{"task": name}})
}

// run lets a cue end well or badly once, and a minute pass.
func (s *site) run(cue string, good bool) {
	s.t.Helper()
	s.end(cue, good)
	s.pass(time.Minute)
}

// pass lets time go by, and what is due then be sent.
func (s *site) pass(d time.Duration) {
	s.t.Helper()
	s.Clock.Add(d)
	s.Drain()
}

func (s *site) end(cue string, good bool) {
	s.t.Helper()
	s.fired++
	id := s.Must(s.First, "POST /v1/cues/"+cue+"/fire", obj{"payload_override": obj{"n": s.fired}}).Str("id")
	got := s.Must(s.First, "POST /v1/executions/"+id+"/claim", obj{"worker_id": "w"})
	s.Must(s.First, "POST /v1/executions/"+id+"/outcome", obj{"success": good, "error": "disk <!channel>\n\x1b[31mfull @all", "lease_token": got.Str("lease_token")})
}

// breaks raises an alert.
func (s *site) breaks(cue string) {
	s.t.Helper()
	for range 3 {
		s.run(cue, false)
	}
}

func (s *site) channel(kind string) obj {
	s.t.Helper()
	for _, c := range s.Must(s.First, "GET /v1/alerts/channels", nil).JSON["channels"].([]any) {
		if c.(obj)["channel"] == kind {
			return c.(obj)
		}
	}
	s.t.Fatal("no channel " + kind)
	return nil
}

// delivery is what became of the newest alert by a channel, once that is so.
func (s *site) delivery(kind, state string) obj {
	s.t.Helper()
	for {
		a := s.Must(s.First, "GET /v1/alerts?limit=1", nil).JSON["alerts"].([]any)[0].(obj)
		for _, d := range a["deliveries"].([]any) {
			if d := d.(obj); d["channel"] == kind && d["state"] == state && (state != "waiting" || d["error"] != "") {
				return d
			}
		}
		if s.t.Context().Err() != nil {
			s.t.Fatalf("%s is not %s: %v", kind, state, a["deliveries"])
		}
	}
}

// An alert and its end go to the webhook: signed in both forms, with the fields of the contract and the words that chats show.
func TestAlertWebhook(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		r := newReceiver(t)
		s.Must(s.First, "PATCH /v1/auth/me", obj{"alert_webhook_url": r.URL + "/services/T0/secret-path", "unknown": 1})
		secret := s.Must(s.First, "GET /v1/auth/alert-webhook-secret", nil).Str("alert_webhook_secret")
		s.breaks("nightly")
		a := <-r.got
		stored := s.Must(s.First, "GET /v1/alerts?limit=1", nil).JSON["alerts"].([]any)[0].(obj)
		for name, want := range map[string]any{
			"alert_id": stored["id"], "alert_type": "consecutive_failures", "cue_id": stored["cue_id"], "execution_id": stored["execution_id"], "message": stored["message"],
			"severity": "warning", "title": stored["title"], "created_at": "2026-11-23T10:02:00+00:00",
		} {
			if a.json[name] != want {
				t.Errorf("%s is %v, want %v", name, a.json[name], want)
			}
		}
		if n := a.json["metadata"].(obj)["consecutive_failures"]; n != 3. {
			t.Errorf("metadata %v", a.json["metadata"])
		}
		title := stored["title"].(string)
		text, content := a.json["text"].(string), a.json["content"].(string)
		if !strings.Contains(title, "disk <!channel> \ufffd[31mfull @all") { // one line, without what moves a cursor
			t.Errorf("title %q", title)
		}
		title = strings.ReplaceAll(title, "@", "@\u200b")
		if !strings.HasPrefix(text, strings.NewReplacer("<", "&lt;", ">", "&gt;").Replace(title)+"\n```\n") || !strings.Contains(text, "&lt;!channel&gt;") || strings.Contains(text, "<!") {
			t.Errorf("text: %s", text)
		}
		if !strings.HasPrefix(content, title+"\n```\n") || !strings.HasSuffix(content, "\n```") || !strings.Contains(content, "<!channel>") || !strings.Contains(content, "unstuck executions why ") {
			t.Errorf("content: %s", content)
		}
		if fmt.Sprint(a.json["allowed_mentions"]) != "map[parse:[]]" {
			t.Errorf("mentions %v", a.json["allowed_mentions"])
		}
		if a.header.Get("X-Cueapi-Alert-Id") != stored["id"] || a.header.Get("X-Cueapi-Alert-Type") != "consecutive_failures" {
			t.Errorf("%v", a.header)
		}
		if want := cueAPISignature(secret, a.header.Get("X-Cueapi-Timestamp"), a.body); a.header.Get("X-Cueapi-Signature") != want {
			t.Errorf("signed %s, want %s", a.header.Get("X-Cueapi-Signature"), want)
		}
		hook, err := standard.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		if err := hook.VerifyIgnoringTimestamp([]byte(a.body), a.header); err != nil {
			t.Error(err)
		}
		if d := s.delivery("webhook", "sent"); d["error"] != "" || d["sent_at"] == nil || d["attempts"] != 1. {
			t.Errorf("%v", d)
		}
		s.run("nightly", false) // counts in the open alert
		s.run("nightly", true)
		if a := <-r.got; a.json["alert_type"] != "recovered" || a.json["severity"] != "info" || !strings.Contains(a.json["text"].(string), "nightly recovered: done at") {
			t.Errorf("%v", a.json)
		}
		if c := s.channel("webhook"); c["address"] != r.URL+"/…" || c["proved_at"] != nil || c["last_delivered_at"] == nil {
			t.Errorf("%v", c)
		}
		s.Must(s.First, "PATCH /v1/auth/me", obj{"alert_webhook_url": ""})
		if c := s.channel("webhook"); c["address"] != nil {
			t.Errorf("%v", c)
		}
	})
}

// An alert that its channel does not take is sent again under the same id, as late as the receiver asks; when it is given up that is
// said in the list, by the channel, in the log and in the metrics.
func TestAlertRetries(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		r := newReceiver(t)
		r.answer(func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "3600")
			http.Error(w, "no_text", http.StatusBadRequest)
		})
		s.Must(s.First, "PUT /v1/alerts/channels/webhook", obj{"address": r.URL})
		s.breaks("nightly")
		first := <-r.got
		d := s.delivery("webhook", "waiting")
		if d["error"] != "Webhook endpoint rejected request (400): no_text" || d["next_attempt_at"].(string) < "2026-11-23T11:02:00Z" {
			t.Errorf("%v", d)
		}
		if c := s.channel("webhook"); c["failing_since"] == nil || c["waiting"] != 1. || c["lost"] != 0. || c["error"] != d["error"] {
			t.Errorf("%v", c)
		}
		for range 7 {
			s.pass(14 * time.Hour)
			if again := <-r.got; again.body != first.body || again.header.Get("webhook-id") != first.header.Get("webhook-id") {
				t.Errorf("sent again as %v", again)
			}
			s.settled()
		}
		if d := s.delivery("webhook", "lost"); d["attempts"] != 8. || d["next_attempt_at"] != nil {
			t.Errorf("%v", d)
		}
		if c := s.channel("webhook"); c["lost"] != 1. || c["waiting"] != 0. {
			t.Errorf("%v", c)
		}
		metrics := s.Do(s.First, "GET /metrics", nil).Body
		for _, want := range []string{`unstuck_alert_deliveries_total{channel="webhook",result="failed"} 7`, `unstuck_alert_deliveries_total{channel="webhook",result="lost"} 1`, "unstuck_alerts_waiting 0"} {
			if !strings.Contains(string(metrics), want) {
				t.Errorf("the metrics lack %s", want)
			}
		}
		r.answer(nil)
		s.run("nightly", true)
		<-r.got
		s.delivery("webhook", "sent")
		if c := s.channel("webhook"); c["lost"] != 0. || c["failing_since"] != nil || c["error"] != "" {
			t.Errorf("%v", c)
		}
		s.Stop()
		if !strings.Contains(s.Log.String(), "an alert was given up") {
			t.Error("the log does not say it")
		}
	})
}

// settled waits until what became of attempts is stored.
func (s *site) settled() {
	s.t.Helper()
	for s.t.Context().Err() == nil {
		a := s.Must(s.First, "GET /v1/alerts?limit=1", nil).JSON["alerts"].([]any)[0].(obj)
		d := a["deliveries"].([]any)[0].(obj)
		if at, _ := d["next_attempt_at"].(string); d["state"] != "waiting" || at > s.Clock.Now().Add(10*time.Minute).Format(time.RFC3339) {
			return
		}
	}
}

// What was in the outbox when the server ended is sent by the next one.
func TestAlertSurvivesRestart(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		r := newReceiver(t)
		r.answer(func(w http.ResponseWriter) { w.WriteHeader(503) })
		s.Must(s.First, "PUT /v1/alerts/channels/webhook", obj{"address": r.URL})
		s.breaks("nightly")
		first := <-r.got
		s.delivery("webhook", "waiting")
		s.Stop()
		r.answer(nil)
		s.Clock.Add(time.Hour)
		if err := s.Open(); err != nil {
			t.Fatal(err)
		}
		if again := <-r.got; again.body != first.body {
			t.Errorf("%v", again)
		}
		s.delivery("webhook", "sent")
	})
}

// A channel is proved by a test message that it took, until its address changes; the answer tells what the receiver said.
func TestAlertTest(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		if r := s.Do(s.First, "POST /v1/alerts/test", obj{}); r.Status != 404 || r.Code() != "alert_channel_not_found" {
			t.Error(string(r.Body))
		}
		r := newReceiver(t)
		s.Must(s.First, "PUT /v1/alerts/channels/webhook", obj{"address": r.URL})
		r.answer(func(w http.ResponseWriter) { http.Error(w, "invalid_token", http.StatusForbidden) })
		test := func() obj {
			t.Helper()
			return s.Must(s.First, "POST /v1/alerts/test", obj{}).JSON["tested"].([]any)[0].(obj)
		}
		if got := test(); got["delivered"] != false || got["http_status"] != 403. || !strings.Contains(got["error"].(string), "invalid_token") {
			t.Errorf("%v", got)
		}
		if c := s.channel("webhook"); c["proved_at"] != nil || c["failing_since"] == nil {
			t.Errorf("%v", c)
		}
		r.answer(func(w http.ResponseWriter) { fmt.Fprint(w, "ok\x07 "+s.First) })
		<-r.got
		if got := test(); got["delivered"] != true || got["answer"] != "ok  unstuck_***_"+s.First[len(s.First)-8:] {
			t.Errorf("%v", got)
		}
		if a := <-r.got; a.json["alert_type"] != "test" || a.json["cue_id"] != nil || !strings.HasPrefix(a.json["text"].(string), "Test: alerts of the workspace ") {
			t.Errorf("%v", a.json)
		}
		if c := s.channel("webhook"); c["proved_at"] == nil || c["failing_since"] != nil {
			t.Errorf("%v", c)
		}
		s.Must(s.First, "PUT /v1/alerts/channels/webhook", obj{"address": r.URL})
		if c := s.channel("webhook"); c["proved_at"] == nil {
			t.Error("the same address is not proved any more")
		}
		s.Must(s.First, "PUT /v1/alerts/channels/webhook", obj{"address": r.URL + "/other"})
		if c := s.channel("webhook"); c["proved_at"] != nil {
			t.Error("another address is proved")
		}
		for range 28 {
			test()
		}
		if r := s.Do(s.First, "POST /v1/alerts/test", obj{}); r.Status != 429 || r.Header.Get("Retry-After") == "" {
			t.Errorf("%d %s", r.Status, r.Body)
		}
		s.pass(time.Hour)
		test()
		s.Must(s.First, "DELETE /v1/alerts/channels/webhook", nil)
		if r := s.Do(s.First, "DELETE /v1/alerts/channels/webhook", nil); r.Status != 404 {
			t.Error(string(r.Body))
		}
		log := string(s.Must(s.First, "GET /v1/audit", nil).Body)
		if strings.Contains(log, "/other") || !strings.Contains(log, "alert_channel.set") || !strings.Contains(log, "alert.test") {
			t.Error(log)
		}
	})
}

// Addresses that alerts cannot go to are refused when they are set.
func TestAlertAddresses(t *testing.T) {
	s := newSite(t, "")
	for _, c := range []struct {
		route string
		body  obj
		code  string
	}{
		{"PUT /v1/alerts/channels/webhook", obj{"address": "https://10.0.0.1/"}, "invalid_alert_webhook_url"},
		{"PUT /v1/alerts/channels/webhook", obj{"address": "hooks"}, "invalid_alert_webhook_url"},
		{"PATCH /v1/auth/me", obj{"alert_webhook_url": "https://10.0.0.2/"}, "invalid_alert_webhook_url"},
		{"PUT /v1/alerts/channels/email", obj{"address": "ops@example.com"}, "mail_not_configured"},
		{"PUT /v1/alerts/channels/fax", obj{"address": "ops@example.com"}, "validation_error"},
		{"PATCH /v1/auth/me", obj{}, "no_fields"},
		{"PATCH /v1/auth/me", obj{"alert_webhook_url": nil}, "no_fields"},
		{"PATCH /v1/auth/me", obj{"email": "a@b.c"}, "validation_error"},
	} {
		if r := s.Do(s.First, c.route, c.body); r.Code() != c.code {
			t.Errorf("%s %v: %s", c.route, c.body, r.Body)
		}
	}
	s.Settings.SMTPHost, s.Settings.SMTPFrom = "127.0.0.1", "unstuck@example.com"
	s.Stop()
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	if r := s.Do(s.First, "PUT /v1/alerts/channels/email", obj{"address": "a@b.c\r\nBcc: d@e.f"}); r.Code() != "invalid_alert_email" {
		t.Error(string(r.Body))
	}
}

// Alerts go by e-mail too: the subject is the title. A server that is down or refuses is tried again, and that is said.
func TestAlertMail(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		box := inbox.Open(t, "none", "s3cret-pass")
		s.Settings.SMTPHost, s.Settings.SMTPPort, s.Settings.SMTPFrom, s.Settings.SMTPTLS = "127.0.0.1", box.Port, "unstuck@example.com", "none"
		s.Settings.SMTPUser, s.Settings.SMTPPassword = inbox.User, box.Password
		s.Stop()
		if err := s.Open(); err != nil {
			t.Fatal(err)
		}
		s.Must(s.First, "PUT /v1/alerts/channels/email", obj{"address": "ops@example.com"})
		if got := s.Must(s.First, "POST /v1/alerts/test", obj{"channel": "email"}).JSON["tested"].([]any)[0].(obj); got["delivered"] != true || got["address"] != "ops@example.com" {
			t.Errorf("%v", got)
		}
		<-box.Mail
		box.Refuse(&smtp.SMTPError{Code: 450, Message: "greylisted"})
		s.breaks("nightly")
		if d := s.delivery("email", "waiting"); !strings.Contains(d["error"].(string), "450") {
			t.Errorf("%v", d)
		}
		if c := s.channel("email"); c["failing_since"] == nil || c["proved_at"] == nil {
			t.Errorf("%v", c)
		}
		box.Refuse(nil)
		s.pass(2 * time.Minute)
		m, err := stdmail.ReadMessage(strings.NewReader(<-box.Mail))
		if err != nil {
			t.Fatal(err)
		}
		a := s.Must(s.First, "GET /v1/alerts?limit=1", nil).JSON["alerts"].([]any)[0].(obj)
		if subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject")); err != nil || subject != a["title"] || m.Header.Get("Message-Id") != fmt.Sprintf("<%s.email@example.com>", a["id"]) {
			t.Errorf("%v", m.Header)
		}
		text, err := io.ReadAll(m.Body)
		if err != nil || !strings.Contains(string(text), "unstuck alerts ack ") || !strings.Contains(string(text), "unstuck executions why ") {
			t.Errorf("%v: %s", err, text)
		}
		s.delivery("email", "sent")
		s.Stop()
		if log := s.Log.String(); strings.Contains(log, box.Password) || !strings.Contains(log, "an alert is sent again later") {
			t.Error(log)
		}
	})
}

// Nobody's mailbox is flooded: an address gets so many e-mails within an hour, from all workspaces together, and what is more waits and
// says why. What the mail server did not take does not count.
func TestAlertMailsAnHour(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		box := inbox.Open(t, "none", "")
		s.Settings.SMTPHost, s.Settings.SMTPPort, s.Settings.SMTPFrom, s.Settings.SMTPTLS = "127.0.0.1", box.Port, "unstuck@example.com", "none"
		s.Stop()
		if err := s.Open(); err != nil {
			t.Fatal(err)
		}
		got := func() { <-box.Mail; <-box.To }
		test := func(address string) int {
			t.Helper()
			s.Must(s.First, "PUT /v1/alerts/channels/email", obj{"address": address})
			return s.Do(s.First, "POST /v1/alerts/test", obj{"channel": "email"}).Status
		}
		for range 10 {
			if status := test("ops@example.com"); status != 200 {
				t.Fatal(status)
			}
			got()
		}
		first := s.First
		s.First = s.Must(s.First, "POST /v1/workspaces", obj{"name": "second"}).Str("key")
		if status := test("Ops@Example.com"); status != 429 {
			t.Errorf("another workspace tests the same address: %d", status)
		}
		if status := test("others@example.com"); status != 200 {
			t.Errorf("another address: %d", status)
		}
		got()
		s.First = first
		box.Refuse(&smtp.SMTPError{Code: 450, Message: "greylisted"})
		s.breaks("nightly")
		s.delivery("email", "waiting")
		box.Refuse(nil)
		s.pass(2 * time.Minute)
		got() // the 11th
		s.Must(s.First, "PATCH /v1/cues/nightly", obj{"alerts": obj{"consecutive_failures": 1}})
		for n := range 89 {
			s.pass(time.Second)
			s.end("nightly", n%2 == 0)
			got()
		}
		s.pass(time.Second)
		s.end("nightly", false)
		if d := s.delivery("email", "waiting"); !strings.Contains(d["error"].(string), "100 e-mails within an hour") || d["attempts"] != 0. {
			t.Errorf("%v", d)
		}
		s.pass(time.Hour)
		got()
		s.delivery("email", "sent")
	})
}

// A workspace whose webhook hangs, with more alerts than may be under way, keeps nobody else waiting.
func TestAlertsTakeTurns(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		hangs, good := newReceiver(t), newReceiver(t)
		release := make(chan struct{})
		hangs.answer(func(http.ResponseWriter) { <-release })
		defer close(release)
		s.Must(s.First, "PUT /v1/alerts/channels/webhook", obj{"address": hangs.URL})
		for i := range 30 {
			name := fmt.Sprint("cue-", i)
			s.cue(name)
			s.breaks(name)
		}
		s.First = s.Must(s.First, "POST /v1/workspaces", obj{"name": "second"}).Str("key")
		s.Must(s.First, "PUT /v1/alerts/channels/webhook", obj{"address": good.URL})
		s.cue("nightly")
		s.breaks("nightly")
		<-good.got
		s.delivery("webhook", "sent")
		if len(hangs.got) != 0 {
			t.Error("the other one does not hang")
		}
	})
}
