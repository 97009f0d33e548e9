package mail

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	stdmail "net/mail"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"unstuck/internal/mail/inbox"
)

// to are the options for a server of the test.
func to(b *inbox.Inbox, mode string) Options {
	return Options{Host: "127.0.0.1", Port: b.Port, From: "Wächter <unstuck@example.com>", TLS: mode, Roots: b.Roots, Timeout: 10 * time.Second,
		Now: func() time.Time { return time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC) }}
}

func sender(t *testing.T, o Options) *Sender {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What is sent arrives as it was written, whatever stands in it, by each way to the server; nothing of it becomes a header.
func TestMailArrives(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ein langer Satz über Nächte ", 400)
	message := Message{ID: "0198", To: "ops@example.com",
		Subject: "nächtlich missed\r\nBcc: victim@example.com\r\n\r\nboo", Text: "Grüße, 東京 🙂\n.\n" + long + "\nFrom here\n"}
	for _, mode := range []string{StartTLS, TLS, Plain} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			b := inbox.Open(t, mode, "s3cret-pass")
			o := to(b, mode)
			o.User, o.Password = "unstuck", b.Password
			if err := sender(t, o).Send(t.Context(), message); err != nil {
				t.Fatal(err)
			}
			text, receiver := <-b.Mail, <-b.To
			if receiver != "ops@example.com" {
				t.Fatalf("a message to %q", receiver)
			}
			for line := range strings.Lines(text) {
				if len(line) > 200 {
					t.Errorf("a line of %d bytes", len(line))
				}
			}
			m, err := stdmail.ReadMessage(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			from, err := m.Header.AddressList("From")
			if err != nil || from[0].Name != "Wächter" || from[0].Address != "unstuck@example.com" {
				t.Errorf("from %v, %v", from, err)
			}
			for name, want := range map[string]string{
				"Subject": "nächtlich missed Bcc: victim@example.com boo", "Bcc": "", "Message-Id": "<0198@example.com>",
				"Auto-Submitted": "auto-generated", "Date": "Mon, 23 Nov 2026 10:00:00 +0000",
			} {
				if got, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get(name)); got != want || err != nil {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			read, err := io.ReadAll(quotedprintable.NewReader(m.Body))
			if got := string(bytes.ReplaceAll(read, []byte("\r\n"), []byte("\n"))); err != nil || strings.TrimSpace(got) != strings.TrimSpace(message.Text) {
				t.Errorf("%v: %.200q", err, got)
			}
		})
	}
}

// Who demands TLS sends nothing without it, and nothing to a server that somebody else's certificate stands for.
func TestMailWantsTLS(t *testing.T) {
	t.Parallel()
	clear, secure := inbox.Open(t, Plain, ""), inbox.Open(t, StartTLS, "")
	plain, starts := to(clear, Plain), to(secure, StartTLS)
	plain.TLS = StartTLS
	starts.Roots = x509.NewCertPool()
	for name, o := range map[string]Options{"a server without TLS": plain, "an unknown certificate": starts} {
		if err := sender(t, o).Send(t.Context(), Message{ID: "1", To: "ops@example.com"}); err == nil {
			t.Errorf("%s is no fault", name)
		}
	}
	if len(clear.To)+len(secure.To) != 0 {
		t.Error("something was sent")
	}
}

// What goes wrong is said in a sentence that does not hold the password.
func TestMailFaults(t *testing.T) {
	t.Parallel()
	b := inbox.Open(t, StartTLS, "s3cret-pass")
	b.Refuse(&smtp.SMTPError{Code: 550, Message: "no such\x07 user"})
	o := to(b, StartTLS)
	o.User, o.Password = "unstuck", b.Password
	down, wrong, hung := o, o, o
	wrong.Password = "wr0ng-pass"
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	down.Port = closed.Addr().(*net.TCPAddr).Port
	_ = closed.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections into its backlog and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	hung.Port, hung.Timeout = silent.Addr().(*net.TCPAddr).Port, 50*time.Millisecond
	for _, c := range []struct {
		o    Options
		to   string
		want string
	}{
		{o, "ops@example.com", "550"}, {wrong, "ops@example.com", "535"}, {down, "ops@example.com", "the mail server is not reached"},
		{hung, "ops@example.com", "in time"}, {o, `"a b"@example.com`, "is no e-mail address"}, {o, "ops@example.com\r\nDATA", "is no e-mail address"}, {Options{}, "ops@example.com", "UNSTUCK_SMTP_HOST"},
	} {
		err := sender(t, c.o).Send(t.Context(), Message{ID: "1", To: c.to, Subject: "x", Text: "x"})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "-pass") || strings.ContainsAny(err.Error(), "\x07\r\n") {
			t.Errorf("%q, want %q", err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := sender(t, o).Send(ctx, Message{ID: "1", To: "ops@example.com"}); err == nil {
		t.Error("a message goes out after its time")
	}
}

// Who waits no longer is not kept by a server that took the connection and says nothing: a server of ours that stops has no time for it.
func TestMailStops(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{StartTLS, TLS, Plain} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			defer cancel() // there is a connection, and nothing comes of it
			if c, err := l.Accept(); err == nil {
				t.Cleanup(func() { _ = c.Close() })
			}
		}()
		o := Options{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, From: "unstuck@example.com", TLS: mode, Timeout: time.Hour}
		if err := sender(t, o).Send(ctx, Message{ID: "1", To: "ops@example.com"}); err == nil {
			t.Errorf("%s: a message was taken by nobody", mode)
		}
	}
}

// Options that cannot work are refused before anything is sent.
func TestMailOptions(t *testing.T) {
	t.Parallel()
	good := Options{Host: "mail.example.com", Port: 587, From: "unstuck@example.com", TLS: StartTLS}
	for name, change := range map[string]func(*Options){
		"no sender":             func(o *Options) { o.From = "" },
		"a broken sender":       func(o *Options) { o.From = "x\r\nBcc: y@example.com" },
		"unknown TLS":           func(o *Options) { o.TLS = "yes" },
		"a password in clear":   func(o *Options) { o.TLS, o.User, o.Password = Plain, "u", "p" },
		"a port that is not it": func(o *Options) { o.Port = 70000 },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: %+v is taken", name, o)
		}
	}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "ops", "Ops <ops@example.com>", "a@b.c, d@e.f", "a@b.c\r\nBcc: d@e.f", strings.Repeat("a", 260) + "@b.c"} {
		if a, err := Address(bad); err == nil {
			t.Errorf("%q is taken as %q", bad, a)
		}
	}
	var fault *Fault
	if errors.As(sender(t, Options{}).Send(t.Context(), Message{}), &fault) {
		t.Error("no server is no fault of a server")
	}
}
