//go:build interop && linux

package interop

import (
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMailServer sends an alert's test message through a mail server that others wrote, which demands STARTTLS: it arrives as it was
// written.
func TestMailServer(t *testing.T) {
	t.Parallel()
	dir, address := t.TempDir(), freeAddress(t)
	certificate, key, _ := pair(t, dir)
	box := filepath.Join(dir, "box")
	p := launch(t, nil, venv("mail", "python"), "-m", "aiosmtpd", "-n", "-l", address, "--tlscert", certificate, "--tlskey", key, "-c", "aiosmtpd.handlers.Mailbox", box).shown()
	listening(t, p, address)
	s := serveIn(t, []string{
		"SSL_CERT_FILE=" + certificate, "UNSTUCK_SMTP_HOST=127.0.0.1", "UNSTUCK_SMTP_PORT=" + address[strings.LastIndex(address, ":")+1:],
		"UNSTUCK_SMTP_FROM=Wächter <unstuck@example.com>",
	})
	s.call("PATCH", "/v1/workspace", object{"name": "Büro"})
	s.call("PUT", "/v1/alerts/channels/email", object{"address": "ops@example.com"})
	got := s.call("POST", "/v1/alerts/test", object{})["tested"].([]any)[0].(object)
	if got["delivered"] != true {
		t.Fatalf("%v", got)
	}
	files, err := filepath.Glob(filepath.Join(box, "new", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%d messages, %v", len(files), err)
	}
	f, err := os.Open(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := mail.ReadMessage(f)
	if err != nil {
		t.Fatal(err)
	}
	want(t, m.Header.Get("Subject"), "=?UTF-8?q?", "B=C3=BCro")
	want(t, m.Header.Get("From"), "unstuck@example.com")
	want(t, m.Header.Get("X-RcptTo"), "ops@example.com")
}
