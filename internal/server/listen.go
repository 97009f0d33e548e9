package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme/autocert"
)

// ErrExposed refuses to listen where anybody on the way could read the keys.
type ErrExposed struct{ Listen string }

func (e ErrExposed) Error() string {
	return `Not started: anybody on the way could read the keys.

` + e.Listen + ` can be reached from other machines, and nothing says how the connection is protected. Choose one:

  UNSTUCK_DOMAIN=unstuck.example.com         get and renew a certificate by itself (needs ports 80 and 443)
  UNSTUCK_TLS_CERT=… UNSTUCK_TLS_KEY=…       your own certificate
  UNSTUCK_TRUSTED_PROXIES=127.0.0.1/32       a proxy in front does it (Caddy, nginx, Traefik); then listen on 127.0.0.1 if it is on this machine
  UNSTUCK_PLAIN_HTTP=1                       a private network that you trust, such as one Docker network`
}

// checkListen holds where to listen against how keys are protected.
func (s Settings) checkListen() error {
	host, _, err := net.SplitHostPort(s.Listen)
	if err != nil {
		return fmt.Errorf("read the address to listen on: %w", err)
	}
	local := loopbackName(host)
	if s.Dev && !local {
		return fmt.Errorf("Not started: --dev listens on this machine only, and %s can be reached from others. Leave --dev out, or listen on 127.0.0.1", s.Listen)
	}
	if s.Dev && (s.Domain != "" || s.TrustedProxies != "") {
		return errors.New("Not started: --dev refuses whatever comes through a proxy or for a public name. Leave out --dev, or UNSTUCK_DOMAIN and UNSTUCK_TRUSTED_PROXIES")
	}
	if !local && s.Domain == "" && s.TLSCert == "" && s.TrustedProxies == "" && !s.PlainHTTP {
		return ErrExposed{s.Listen}
	}
	return nil
}

// loopbackName says whether a host, as in Listen or in a Host header, is this machine only.
func loopbackName(host string) bool {
	host = strings.ToLower(strings.Trim(host, "[]"))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// tlsConfig is how connections are protected; nil for plain http. The second value answers ACME's questions on port 80.
func (s Settings) tlsConfig() (*tls.Config, http.Handler, error) {
	switch {
	case s.Domain != "":
		m := &autocert.Manager{Prompt: autocert.AcceptTOS, HostPolicy: autocert.HostWhitelist(s.Domain), Cache: autocert.DirCache(filepath.Join(s.Data, "acme")), Email: s.AdminEmail}
		return m.TLSConfig(), m.HTTPHandler(nil), nil
	case s.TLSCert != "":
		k := &keyPair{cert: s.TLSCert, key: s.TLSKey}
		if _, err := k.get(nil); err != nil {
			return nil, nil, err
		}
		return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: k.get, NextProtos: []string{"h2", "http/1.1"}}, nil, nil
	}
	return nil, nil, nil
}

// keyPair is a certificate of files that is read again when they change, looked at no more than once a second.
type keyPair struct {
	cert, key string
	mu        sync.Mutex
	looked    time.Time
	changed   [2]time.Time
	pair      *tls.Certificate
}

func (k *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pair != nil && time.Since(k.looked) < time.Second {
		return k.pair, nil
	}
	k.looked = time.Now()
	var changed [2]time.Time
	for i, name := range []string{k.cert, k.key} {
		if st, err := os.Stat(name); err == nil {
			changed[i] = st.ModTime()
		}
	}
	if k.pair != nil && changed == k.changed {
		return k.pair, nil
	}
	pair, err := tls.LoadX509KeyPair(k.cert, k.key)
	if err != nil {
		if k.pair != nil { // half written: the old one goes on until both files fit
			return k.pair, nil
		}
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	k.pair, k.changed = &pair, changed
	return k.pair, nil
}

// devGuard refuses what does not come from this machine by hand: under --dev anybody may sign up, so a page of another site or a
// proxy in front must not get through.
func devGuard(next http.Handler) http.Handler {
	refuse := func(w http.ResponseWriter, why string) { writeError(w, misdirected.Msg("%s", why)) }
	marks := []string{"Forwarded", "Via", "X-Real-Ip"}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		switch {
		case !loopbackName(host):
			refuse(w, fmt.Sprintf("In development mode the server answers on this machine only, not as %q.", r.Host))
			return
		case foreignOrigin(r):
			refuse(w, "In development mode the server does not answer pages of other sites.")
			return
		}
		for name := range r.Header {
			if slices.Contains(marks, name) || strings.HasPrefix(name, "X-Forwarded-") {
				refuse(w, "In development mode the server does not answer through a proxy. Start it without --dev and set UNSTUCK_TRUSTED_PROXIES.")
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func foreignOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || !strings.EqualFold(u.Host, r.Host)
}
