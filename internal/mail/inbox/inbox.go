// Package inbox is a real SMTP server on this machine, for tests of any package.
package inbox

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// User is who may log in, where a password is wanted.
const User = "unstuck"

// Inbox is a server and what it was sent.
type Inbox struct {
	Port     int            // on 127.0.0.1
	Roots    *x509.CertPool // that its certificate stems from
	Password string         // that it wants; "" for none
	Mail     chan string    // messages with their headers; a hundred fit
	To       chan string    // who they are for

	mu     sync.Mutex
	refuse error
}

// Open starts a server that ends with the test: with STARTTLS ("starttls"), with TLS from the first byte ("tls"), or without ("none").
func Open(t testing.TB, mode, password string) *Inbox {
	t.Helper()
	b := &Inbox{Password: password, Mail: make(chan string, 100), To: make(chan string, 100)}
	server := smtp.NewServer(b)
	server.Domain, server.AllowInsecureAuth, server.ErrorLog = "localhost", true, quiet{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.Port = l.Addr().(*net.TCPAddr).Port
	config, roots := certificate(t)
	b.Roots = roots
	switch mode {
	case "starttls":
		server.TLSConfig = config
	case "tls":
		l = tls.NewListener(l, config)
	}
	done := make(chan struct{})
	go func() { _ = server.Serve(l); close(done) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
	return b
}

// Refuse makes the server refuse every receiver with an error; nil ends that.
func (b *Inbox) Refuse(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse = err
}

// NewSession implements smtp.Backend.
func (b *Inbox) NewSession(*smtp.Conn) (smtp.Session, error) { return &session{b}, nil }

type session struct{ b *Inbox }

func (*session) Mail(string, *smtp.MailOptions) error { return nil }
func (*session) Reset()                               {}
func (*session) Logout() error                        { return nil }

func (s *session) AuthMechanisms() []string {
	if s.b.Password == "" {
		return nil
	}
	return []string{sasl.Plain}
}

func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != User || password != s.b.Password {
			return &smtp.SMTPError{Code: 535, Message: "wrong: " + password} // a server may be as bad as this
		}
		return nil
	}), nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if s.b.refuse == nil {
		s.b.To <- to
	}
	return s.b.refuse
}

func (s *session) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	s.b.Mail <- string(text)
	return err
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

// certificate is one of this machine's own.
func certificate(t testing.TB) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, of, of, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, roots
}
