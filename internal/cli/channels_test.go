package cli

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"unstuck/internal/server"
	"unstuck/internal/testkit"
)

// The command line sets a channel, proves it, and says in the overview and in doctor whether alerts arrive.
func TestAlertChannels(t *testing.T) {
	t.Parallel()
	var status atomic.Int64
	status.Store(200)
	r := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(int(status.Load()))
		_, _ = w.Write([]byte("said"))
	}))
	defer r.Close()
	s := testkit.New(t, "", func(o *server.Settings) { o.AllowCallbacks = "127.0.0.1" })
	term := &terminal{t: t, s: s, home: t.TempDir(), names: newNamer(s.URL), env: map[string]string{"UNSTUCK_API_KEY": s.First, "UNSTUCK_URL": s.URL}}
	says := func(command string, wants ...string) {
		t.Helper()
		got := term.do(command)
		for _, want := range wants {
			if no, without := strings.CutPrefix(want, "not: "); strings.Contains(got, no) == without {
				t.Errorf("%s: %q in\n%s", command, want, got)
			}
		}
	}
	const nobody, unknown = "lerts reach nobody: unstuck alerts set webhook https://…", "obody knows that alerts arrive: unstuck alerts test"
	says("unstuck", "Alerts     reach nobody: unstuck alerts set webhook")
	says("unstuck doctor", "! a"+nobody, "Nothing else is wrong.")
	says("unstuck alerts channels", "not set", "A"+nobody, "Outside watch: none.")
	says("unstuck alerts set webhook "+r.URL+"/services/secret", r.URL+"/…", "Nobody knows yet that they arrive", "not: secret")
	says("unstuck", "Alerts     n"+unknown)
	says("unstuck doctor", "! n"+unknown)
	status.Store(404)
	says("unstuck alerts test", "✕ webhook  "+r.URL+"/… did not take it: Webhook endpoint not found (404): said", "[1]")
	says("unstuck", "Alerts     do not get through by webhook: Webhook endpoint not found (404): said")
	status.Store(200)
	says("unstuck alerts test webhook", "✓ webhook  "+r.URL+"/… took it, answered 200: said", "not: [1]")
	says("unstuck", "Alerts     reach "+r.URL+"/… (proved 0 s ago)")
	says("unstuck doctor", "✓ alerts arrive", "Nothing is wrong.")
	says("unstuck alerts channels", "proved 0 s ago")
	says("unstuck alerts unset webhook --yes", "Alerts go no more by webhook.")
	says("unstuck", "Alerts     reach nobody: unstuck alerts set webhook")
}

// TestChannelsThatCannotWork: channels that took a test message and cannot be sent to since the server was started with other settings
// are each named, and doctor ends with 1.
func TestChannelsThatCannotWork(t *testing.T) {
	t.Parallel()
	r := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer r.Close()
	s := testkit.New(t, "", func(o *server.Settings) {
		o.AllowCallbacks, o.SMTPHost, o.SMTPFrom, o.SMTPTLS = "127.0.0.1", "127.0.0.1", "unstuck@example.com", "none"
	})
	term := &terminal{t: t, s: s, home: t.TempDir(), names: newNamer(s.URL), env: map[string]string{"UNSTUCK_API_KEY": s.First, "UNSTUCK_URL": s.URL}}
	term.do("unstuck alerts set webhook " + r.URL)
	term.do("unstuck alerts set email ops@example.com")
	if got := term.do("unstuck alerts test webhook"); !strings.Contains(got, "✓ webhook") {
		t.Fatal(got)
	}
	s.Settings.AllowCallbacks, s.Settings.SMTPHost, s.Settings.SMTPFrom = "", "", ""
	s.Restart(0)
	term.env["UNSTUCK_URL"] = s.URL
	for command, wants := range map[string][]string{
		"unstuck doctor":          {"✕ alerts by webhook: ", "✕ alerts by email: This server sends no mail", "UNSTUCK_SMTP_HOST", "[1]"},
		"unstuck":                 {"do not get through by webhook: ", "do not get through by email: This server sends no mail"},
		"unstuck alerts channels": {"cannot be sent to", "Alerts do not get through by webhook: ", "Alerts do not get through by email: "},
	} {
		got := term.do(command)
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %q in\n%s", command, want, got)
			}
		}
		if strings.Contains(got, "alerts arrive") || strings.Contains(got, "Nothing is wrong") {
			t.Errorf("%s says that all is well:\n%s", command, got)
		}
	}
}
