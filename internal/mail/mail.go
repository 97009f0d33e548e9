// Package mail hands messages to one SMTP server. It knows no noun and stores nothing.
package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	stdmail "net/mail"
	"strings"
	"time"
	"unicode"

	gomail "github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"
)

// How the way to the SMTP server is protected.
const (
	StartTLS = "starttls" // demanded: without it nothing is sent
	TLS      = "tls"      // from the first byte
	Plain    = "none"
)

// Options say which SMTP server takes mail, and as whom.
type Options struct {
	Host           string // "" for none: nothing can be sent
	Port           int
	User, Password string // none: no login
	From           string // address, or "Name <address>"
	TLS            string // StartTLS, TLS or Plain
	Timeout        time.Duration
	Roots          *x509.CertPool // that the server's certificate must stem from; nil: the system's
	Now            func() time.Time
}

// sendWithin is how long a message takes at most, from the connection to the server's last answer.
const sendWithin = 30 * time.Second

// Sender sends mail. Its methods may be called from any goroutine.
type Sender struct{ o Options }

// New makes a sender; it connects to nothing yet. An error says what is wrong with the options.
func New(o Options) (*Sender, error) {
	if o.Timeout == 0 {
		o.Timeout = sendWithin
	}
	if o.Host == "" {
		return &Sender{o}, nil
	}
	if _, err := stdmail.ParseAddress(o.From); err != nil {
		return nil, fmt.Errorf("%q is no sender; write an address such as unstuck@example.com", o.From)
	}
	switch o.TLS {
	case StartTLS, TLS:
	case Plain:
		if o.Password != "" && !loopback(o.Host) {
			return nil, errors.New("without TLS the password would be sent in the clear; choose starttls or tls")
		}
	default:
		return nil, fmt.Errorf("%q is none of starttls, tls and none", o.TLS)
	}
	if _, err := (&Sender{o}).client(); err != nil {
		return nil, err
	}
	return &Sender{o}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// On says whether there is a server to send to.
func (s *Sender) On() bool { return s != nil && s.o.Host != "" }

// Message is a text to one receiver.
type Message struct {
	ID      string // the same on every attempt; its Message-ID is made of it
	To      string // one address
	Subject string // one line; line breaks become spaces
	Text    string
}

// Address is the bare form of an address that somebody typed, or an error that says what is wrong with it.
func Address(text string) (string, error) {
	a, err := stdmail.ParseAddress(text)
	if err == nil {
		_, err = stdmail.ParseAddress(a.Address) // what stands in quotes would have to be written with them
	}
	if err != nil || a.Name != "" || len(text) > addressMost || strings.ContainsFunc(text, unicode.IsControl) {
		return "", fmt.Errorf("%q is no e-mail address; write it like ops@example.com", clip(oneLine(text), 100))
	}
	return a.Address, nil
}

const (
	addressMost = 254 // RFC 5321
	subjectMost = 200 // characters; longer ones are cut by readers of mail anyway
	answerMost  = 300 // characters of what a server said
)

// Send hands a message over and waits for the server's answer. Every error can be tried again; it is a sentence for people, and tells
// nothing of the password.
func (s *Sender) Send(ctx context.Context, m Message) error {
	if !s.On() {
		return errors.New("this server sends no mail: UNSTUCK_SMTP_HOST is not set")
	}
	msg, err := s.message(m)
	if err != nil {
		return err
	}
	c, err := s.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	conn, err := dial(ctx, c)
	if err != nil {
		return s.words(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	err = c.SendWithSMTPClient(conn, msg)
	_ = c.CloseWithSMTPClient(conn) // a message that was taken is taken, however the server says goodbye
	if err != nil {
		return s.words(ctx, err)
	}
	return nil
}

// dial connects to the server, and waits no longer than the context lasts: go-mail heeds it until there is a connection only, not while
// a server that took one says nothing.
func dial(ctx context.Context, c *gomail.Client) (*smtp.Client, error) {
	var conn *smtp.Client
	done := make(chan error, 1)
	go func() {
		var err error
		conn, err = c.DialToSMTPClientWithContext(ctx)
		done <- err
	}()
	select {
	case err := <-done:
		return conn, err
	case <-ctx.Done():
		go func() {
			if <-done == nil {
				_ = conn.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

func (s *Sender) message(m Message) (*gomail.Msg, error) {
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	if err := msg.From(s.o.From); err != nil {
		return nil, fmt.Errorf("the sender %q cannot be written: %w", s.o.From, err)
	}
	to, err := Address(m.To)
	if err != nil {
		return nil, err
	}
	if err := msg.To(to); err != nil {
		return nil, fmt.Errorf("the receiver %q cannot be written: %w", to, err)
	}
	domain := "unstuck"
	if from, err := stdmail.ParseAddress(s.o.From); err == nil {
		_, domain, _ = strings.Cut(from.Address, "@")
	}
	msg.SetMessageIDWithValue(m.ID + "@" + domain)
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: nobody's out-of-office answers
	msg.Subject(clip(oneLine(m.Subject), subjectMost))
	if s.o.Now != nil {
		msg.SetDateWithValue(s.o.Now())
	} else {
		msg.SetDate()
	}
	msg.SetBodyString(gomail.TypeTextPlain, strings.ToValidUTF8(m.Text, "\ufffd"))
	return msg, nil
}

func (s *Sender) client() (*gomail.Client, error) {
	options := []gomail.Option{
		gomail.WithPort(s.o.Port), gomail.WithTimeout(s.o.Timeout),
		gomail.WithTLSConfig(&tls.Config{ServerName: s.o.Host, MinVersion: tls.VersionTLS12, RootCAs: s.o.Roots}),
	}
	switch s.o.TLS {
	case TLS:
		options = append(options, gomail.WithSSL())
	case Plain:
		options = append(options, gomail.WithTLSPolicy(gomail.NoTLS))
	default:
		options = append(options, gomail.WithTLSPolicy(gomail.TLSMandatory))
	}
	if s.o.User != "" || s.o.Password != "" {
		how := gomail.SMTPAuthAutoDiscover
		if s.o.TLS == Plain {
			how = gomail.SMTPAuthPlainNoEnc // New lets it pass on this machine only
		}
		options = append(options, gomail.WithSMTPAuth(how), gomail.WithUsername(s.o.User), gomail.WithPassword(s.o.Password))
	}
	c, err := gomail.NewClient(s.o.Host, options...)
	if err != nil {
		return nil, fmt.Errorf("the settings of mail do not fit together: %w", err)
	}
	return c, nil
}

// words says what went wrong, without the password should a server have repeated it.
func (s *Sender) words(ctx context.Context, err error) error {
	var dns *net.DNSError
	var dial *net.OpError
	var slow net.Error
	text := err.Error()
	switch {
	case ctx.Err() != nil, errors.As(err, &slow) && slow.Timeout():
		text = "the mail server did not answer in time"
	case errors.As(err, &dns), errors.As(err, &dial) && dial.Op == "dial":
		text = "the mail server is not reached"
	case strings.Contains(text, "STARTTLS mode set to"): // the library's word for what it is told by client
		text = "the mail server offers no encryption (STARTTLS): set UNSTUCK_SMTP_TLS to tls, or to none when that server is trusted and near"
	}
	if s.o.Password != "" {
		text = strings.ReplaceAll(text, s.o.Password, "***")
	}
	return &Fault{clip(oneLine(text), answerMost), err}
}

// Fault is a message that the server did not take, in words that may be shown.
type Fault struct {
	text string
	err  error
}

func (f *Fault) Error() string { return f.text }

// Unwrap is the cause. It may hold more than is fit to be shown.
func (f *Fault) Unwrap() error { return f.err }

// oneLine is a text without line breaks and other control characters, so that it cannot begin a header.
func oneLine(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }), " ")
}

// clip is the beginning of a text, of so many characters at most.
func clip(s string, most int) string {
	r := []rune(s)
	if len(r) <= most {
		return s
	}
	return string(r[:most-1]) + "…"
}
