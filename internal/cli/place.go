package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"unstuck/internal/access"
	"unstuck/internal/disk"
)

// defaultURL is where a server listens that was told nothing else.
const defaultURL = "http://127.0.0.1:8080"

// keyVar and urlVar are the environment variables that programs use instead of a login.
const (
	keyVar = "UNSTUCK_API_KEY"
	urlVar = "UNSTUCK_URL"
)

// place is which server is asked, and with which key. Both come from one source, so that no key is ever sent to a server that
// it is not for.
type place struct {
	url    string
	key    string // "" when there is none: public operations can be called all the same
	source string // where the key comes from, for people: the variable or the file; "" when there is none
	file   bool   // the key comes from the credentials file
	hides  string // address of a login that this one hides; "" when it hides none
}

// login is the content of the credentials file.
type login struct {
	URL string `json:"url"`
	Key string `json:"key"`
}

// findPlace looks in this order: --key-file, the environment, the credentials file.
func (d *door) findPlace() (place, error) {
	stored, err := d.readLogin()
	if err != nil {
		return place{}, err
	}
	p := place{url: firstOf(d.flags.url, d.Getenv(urlVar), defaultURL)}
	if _, keys := access.Redact(p.url); keys > 0 { // which must not be looked up, nor shown
		return p, usage("A key was given where the address of a server belongs (--url or %s). Put it into %s, and the address into %s.", urlVar, keyVar, urlVar)
	}
	switch key := d.Getenv(keyVar); {
	case d.flags.keyFile != "":
		p.source = d.tilde(d.flags.keyFile)
		if p.key, err = d.readKeyFile(d.flags.keyFile); err != nil {
			return p, err
		}
	case key != "":
		p.key, p.source = strings.TrimSpace(key), keyVar
	case stored != nil:
		asked := firstOf(d.flags.url, d.Getenv(urlVar), stored.URL)
		if !sameServer(asked, stored.URL) {
			return p, failure(exitLogin, "Not sent: the login in %s is for %s, and you asked for %s.\n\n  log in    unstuck auth login --url %s",
				d.tilde(d.loginPath()), stored.URL, asked, asked)
		}
		p.url, p.key, p.source, p.file = stored.URL, stored.Key, d.tilde(d.loginPath()), true
	}
	if stored != nil && !p.file {
		p.hides = stored.URL
		if firstOf(d.flags.url, d.Getenv(urlVar)) == "" && p.key != "" && !sameServer(p.url, stored.URL) {
			return p, d.unsaid(p)
		}
	}
	p.url, err = cleanURL(p.url)
	return p, err
}

// unsaid refuses to send a key to the default address while a login names another one: the login's address is for the login's key
// (KEYS 1), and nobody named the default.
func (d *door) unsaid(p place) error {
	other := ""
	if p.source == keyVar {
		other = "\n  that login      unset " + keyVar
	}
	return failure(exitLogin, "Not sent: the key from %s hides the login for %s, and nothing says which server that key is for.\n\n"+
		"  the same        export %s=%s%s\n  this machine    export %s=%s", p.source, p.hides, urlVar, p.hides, other, urlVar, defaultURL)
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func sameServer(a, b string) bool {
	x, errA := cleanURL(a)
	y, errB := cleanURL(b)
	return errA == nil && errB == nil && x == y
}

// cleanURL is the address of a server in the form in which addresses are compared: scheme, host and port, no path.
func cleanURL(text string) (string, error) {
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", usage("%q is no address of a server; write %s or https://unstuck.example.com", text, defaultURL)
	}
	if path := strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/v1"); path != "" || u.User != nil || u.RawQuery != "" {
		return "", usage("%q holds more than an address; write %s://%s", text, u.Scheme, u.Host)
	}
	return strings.ToLower(u.Scheme + "://" + u.Host), nil
}

// here says whether a server is reached on this machine.
func (p place) here() bool {
	return mayCarry(p.url) && !strings.HasPrefix(p.url, "https:")
}

// mayCarry says whether a key may travel to an address: only over TLS, or without it on this machine.
func mayCarry(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

func (d *door) loginPath() string { return d.home("credentials") }

// readLogin is the stored login; nil when there is none.
func (d *door) readLogin() (*login, error) {
	if d.Home == "" {
		return nil, nil
	}
	b, err := os.ReadFile(d.loginPath())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var l login
	if err == nil {
		err = json.Unmarshal(b, &l)
	}
	if err != nil {
		return nil, fmt.Errorf("read the login in %s: %w", d.tilde(d.loginPath()), err)
	}
	return &l, nil
}

// writeLogin stores a login so that only its owner can read it, in one step: a reader sees the old one or the new one.
func (d *door) writeLogin(l login) error {
	if d.Home == "" {
		return errors.New("there is no home folder to store the login in; set HOME, or put the key into " + keyVar)
	}
	b, err := json.MarshalIndent(l, "", "  ")
	if err == nil {
		err = disk.MakePrivate(filepath.Dir(d.loginPath()))
	}
	if err == nil {
		err = writeWhole(d.loginPath(), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("store the login: %w", err)
	}
	return nil
}

// readKeyFile reads a key from a file, or from stdin when the name is "-".
func (d *door) readKeyFile(name string) (string, error) {
	if name == "-" {
		return d.readLine()
	}
	f, err := os.Open(name)
	if err != nil {
		return "", usage("the key file cannot be read: %v", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "", usage("the key file cannot be read: %v", err)
	}
	return strings.TrimSpace(string(b)), nil
}
