// Package server opens, builds, mounts and runs the product: settings, first start, listeners, background duties, and an orderly
// stop when its context ends.
package server

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"unstuck/internal/disk"
	"unstuck/internal/mail"
	"unstuck/internal/trace"
	"unstuck/internal/webhook"
)

// Settings are everything that a server can be told. The tags are the only list of them: they make the flags, the page
// docs/settings.md and `unstuck config`.
//
//	env      name in the environment
//	flag     name on the command line of `unstuck serve`; none when it must not stand there
//	default  what holds when nothing is said
//	secret   the value is never printed
type Settings struct {
	Listen         string        `env:"UNSTUCK_LISTEN" flag:"listen" default:"127.0.0.1:8080" doc:"address and port to listen on; beyond loopback it must be said how keys are protected"`
	Data           string        `env:"UNSTUCK_DATA" flag:"data" default:"~/.unstuck/server" doc:"folder of the database, the server secret and the local socket"`
	Database       string        `env:"UNSTUCK_DATABASE" secret:"yes" doc:"postgres:// address; SQLite in the data folder when empty"`
	Secret         string        `env:"UNSTUCK_SECRET" secret:"yes" doc:"numbered server secrets, newest last; the file <data>/secret when empty"`
	KeyPrefix      string        `env:"UNSTUCK_KEY_PREFIX" flag:"key-prefix" default:"unstuck" doc:"what new keys begin with"`
	AdminEmail     string        `env:"UNSTUCK_ADMIN_EMAIL" flag:"admin-email" default:"admin@example.com" doc:"e-mail address of the first admin"`
	Register       string        `env:"UNSTUCK_REGISTER" flag:"register" default:"closed" doc:"open lets anybody sign up"`
	RegisterPlan   string        `env:"UNSTUCK_REGISTER_PLAN" flag:"register-plan" default:"free" doc:"plan of those who sign up: free, pro, scale or self-hosted"`
	Domain         string        `env:"UNSTUCK_DOMAIN" flag:"domain" doc:"public name; a certificate for it is got and renewed by ACME (ports 80 and 443)"`
	PublicURL      string        `env:"UNSTUCK_PUBLIC_URL" flag:"public-url" doc:"address under which people reach the server, for links, such as https://unstuck.example.com; behind a proxy it cannot be known otherwise. The public name when that is set"`
	TLSCert        string        `env:"UNSTUCK_TLS_CERT" flag:"tls-cert" doc:"file of your own certificate; read again when it changes"`
	TLSKey         string        `env:"UNSTUCK_TLS_KEY" flag:"tls-key" doc:"file of the certificate's private key"`
	TrustedProxies string        `env:"UNSTUCK_TRUSTED_PROXIES" flag:"trusted-proxies" doc:"CIDRs of proxies whose X-Forwarded-For counts, separated by commas; unix for a socket"`
	MaxConnections int           `env:"UNSTUCK_MAX_CONNECTIONS" flag:"max-connections" default:"10000" doc:"connections at the same time, the local socket not counted; further ones wait. The limit of open files of the process may make it less"`
	PlainHTTP      bool          `env:"UNSTUCK_PLAIN_HTTP" flag:"plain-http" default:"false" doc:"listen beyond loopback without TLS, on a private network that you trust"`
	Dev            bool          `flag:"dev" default:"false" doc:"development: sign-up open, callbacks to this machine and private networks, loopback only, requests that come through a proxy or from another site refused"`
	PrintFirstKey  bool          `flag:"print-first-key" default:"false" doc:"print the first key also when the output is no terminal"`
	AcceptRollback bool          `flag:"accept-rollback" default:"false" doc:"start although the database is behind the audit log that was written down"`
	AllowCallbacks string        `env:"UNSTUCK_ALLOW_CALLBACKS" flag:"allow-callbacks" doc:"networks that callbacks may lead to although they are not public, such as 172.18.0.0/16, separated by commas; plain http is allowed to them"`
	SMTPHost       string        `env:"UNSTUCK_SMTP_HOST" doc:"mail server that takes alerts by e-mail; without it no mail is sent"`
	SMTPPort       int           `env:"UNSTUCK_SMTP_PORT" default:"587" doc:"its port; 465 is usual with UNSTUCK_SMTP_TLS=tls"`
	SMTPUser       string        `env:"UNSTUCK_SMTP_USER" doc:"name to log in with; no login when empty"`
	SMTPPassword   string        `env:"UNSTUCK_SMTP_PASSWORD" secret:"yes" doc:"password to log in with"`
	SMTPFrom       string        `env:"UNSTUCK_SMTP_FROM" doc:"sender of mail, such as unstuck@example.com; required with UNSTUCK_SMTP_HOST"`
	SMTPTLS        string        `env:"UNSTUCK_SMTP_TLS" default:"starttls" doc:"starttls: demanded; tls: from the first byte; none: only for a mail server that is trusted and near"`
	HeartbeatURL   string        `env:"UNSTUCK_HEARTBEAT_URL" secret:"yes" doc:"address of an outside watch that is called every minute while the server does its work, so that somebody notices when it does not"`
	LogLevel       string        `env:"UNSTUCK_LOG_LEVEL" flag:"log-level" default:"info" doc:"debug, info, warn or error"`
	Lease          time.Duration `env:"UNSTUCK_LEASE" flag:"lease" default:"15m" doc:"how long a claim or a heartbeat holds an execution"`
	UnclaimedAfter time.Duration `env:"UNSTUCK_UNCLAIMED_AFTER" flag:"unclaimed-after" default:"15m" doc:"an execution that nobody takes for so long is missed"`
	RetentionDays  Days          `env:"UNSTUCK_RETENTION_DAYS" flag:"retention-days" default:"forever" doc:"how many days executions are kept after they last changed, at least 2; forever keeps all. What always stays: what has not ended, the latest three of every cue that goes on, the ledger"`
	BareLeaseMax   time.Duration `env:"UNSTUCK_BARE_LEASE_MAX" flag:"bare-lease-max" default:"2h" doc:"how long worker heartbeats renew a lease that was taken without a token"`

	Traces trace.Config // where traces go: OpenTelemetry's own variables, see trace.Variables
}

// Days is a number of days; 0 is without end.
type Days int

// forever is how Days without end are written. 0 means the same.
const forever = "forever"

// minDays keeps an execution longer than the idempotency key of its fire is remembered, which is a day.
const minDays, maxDays = 2, 36_500

// String implements fmt.Stringer.
func (d Days) String() string {
	if d == 0 {
		return forever
	}
	return strconv.Itoa(int(d))
}

// Duration is the same as a duration; 0 is without end.
func (d Days) Duration() time.Duration { return time.Duration(d) * 24 * time.Hour }

func parseDays(text string) (Days, error) {
	if text == forever {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n != 0 && (n < minDays || n > maxDays) {
		return 0, fmt.Errorf("%q is no number of days from %d to %d; write 90, or %s", text, minDays, maxDays, forever)
	}
	return Days(n), nil
}

// Setting is one of the Settings, for whoever lists or reads them.
type Setting struct {
	Env, Flag, Default, Doc string
	Secret                  bool
	Kind                    reflect.Kind
	field                   int
}

// AllSettings lists the settings in the order of their declaration.
func AllSettings() []Setting {
	t := reflect.TypeFor[Settings]()
	out := make([]Setting, 0, t.NumField())
	for i := range t.NumField() {
		if f := t.Field(i); f.Tag != "" {
			out = append(out, Setting{f.Tag.Get("env"), f.Tag.Get("flag"), f.Tag.Get("default"), f.Tag.Get("doc"), f.Tag.Get("secret") != "", f.Type.Kind(), i})
		}
	}
	return out
}

// defaultOf is what holds when nothing is said, by the flag of a setting.
func defaultOf(flag string) string {
	for _, s := range AllSettings() {
		if s.Flag == flag {
			return s.Default
		}
	}
	return ""
}

// ReadSettings reads settings: flags before environment before defaults. All faults are reported at once, each with what to write.
func ReadSettings(env func(string) (string, bool), flags map[string]string, home string) (Settings, error) {
	var s Settings
	var faults []error
	v := reflect.ValueOf(&s).Elem()
	for _, o := range AllSettings() {
		text, from := o.Default, "default"
		if value, ok := env(o.Env); ok && o.Env != "" {
			text, from = value, o.Env
		}
		if value, ok := flags[o.Flag]; ok && o.Flag != "" {
			text, from = value, "--"+o.Flag
		}
		if err := set(v.Field(o.field), text); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", from, err))
		}
	}
	if rest, ok := strings.CutPrefix(s.Data, "~/"); ok {
		s.Data = filepath.Join(home, rest)
	}
	var err error
	if s.Traces, err = trace.Read(env); err != nil {
		faults = append(faults, err)
	}
	faults = append(faults, s.check()...)
	return s, errors.Join(faults...)
}

func set(v reflect.Value, text string) error {
	switch v.Interface().(type) {
	case time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			return fmt.Errorf("%q is no duration; write 15m or 90s", text)
		}
		v.SetInt(int64(d))
	case Days:
		d, err := parseDays(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(d))
	case int:
		n, err := strconv.Atoi(text)
		if err != nil || n <= 0 {
			return fmt.Errorf("%q is no whole number above 0", text)
		}
		v.SetInt(int64(n))
	case bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		v.SetBool(b)
	default:
		v.SetString(text)
	}
	return nil
}

// Get is the value of a setting as text.
func (s Settings) Get(o Setting) string {
	return fmt.Sprint(reflect.ValueOf(s).Field(o.field).Interface())
}

// Name is what a setting is called: its variable, or its flag when it has none.
func (o Setting) Name() string {
	if o.Env == "" {
		return "--" + o.Flag
	}
	return o.Env
}

// Shown is the value of a setting as anybody may see it: of a secret only that it is set.
func (s Settings) Shown(o Setting) string {
	if value := s.Get(o); !o.Secret || value == "" {
		return value
	}
	return "(set)"
}

// shown are all settings by their names, as anybody may see them.
func (s Settings) shown() map[string]string {
	out := map[string]string{}
	for _, o := range AllSettings() {
		out[o.Name()] = s.Shown(o)
	}
	return out
}

func (s Settings) check() []error {
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(s.Register != "open" && s.Register != "closed", "UNSTUCK_REGISTER is %q; write open or closed", s.Register)
	fault((s.TLSCert == "") != (s.TLSKey == ""), "UNSTUCK_TLS_CERT and UNSTUCK_TLS_KEY go together")
	fault(s.Domain != "" && s.TLSCert != "", "UNSTUCK_DOMAIN gets a certificate by itself; leave UNSTUCK_TLS_CERT out, or the domain")
	fault(!strings.Contains(s.AdminEmail, "@"), "UNSTUCK_ADMIN_EMAIL is %q, which is no e-mail address", s.AdminEmail)
	fault(s.Database != "" && !strings.HasPrefix(s.Database, "postgres://") && !strings.HasPrefix(s.Database, "postgresql://"), "UNSTUCK_DATABASE must begin with postgres://; leave it out for SQLite")
	fault(!prefixForm(s.KeyPrefix), "UNSTUCK_KEY_PREFIX is %q; write a letter and then up to 15 letters or digits, all lower-case", s.KeyPrefix)
	fault(levelOf(s.LogLevel) == nil, "UNSTUCK_LOG_LEVEL is %q; write debug, info, warn or error", s.LogLevel)
	if u, err := url.Parse(s.PublicURL); s.PublicURL != "" {
		fault(err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "",
			"UNSTUCK_PUBLIC_URL is %q; write an address such as https://unstuck.example.com", s.PublicURL)
	}
	if _, err := s.callbacks(); err != nil {
		faults = append(faults, err)
	}
	if _, err := s.mail(nil); err != nil {
		faults = append(faults, err)
	}
	if err := s.checkHeartbeat(); err != nil {
		faults = append(faults, err)
	}
	if _, _, err := net.SplitHostPort(s.Listen); err != nil {
		faults = append(faults, fmt.Errorf("UNSTUCK_LISTEN is %q; write an address and a port, such as 127.0.0.1:8080", s.Listen))
	}
	return faults
}

func prefixForm(s string) bool {
	if len(s) == 0 || len(s) > 16 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// DSN is the database that the settings name.
func (s Settings) DSN() string {
	if s.Database != "" {
		return s.Database
	}
	return filepath.Join(s.Data, "unstuck.db")
}

// Public is the address under which people reach the server, without a slash at its end; "" when it is not known.
func (s Settings) Public() string {
	if s.PublicURL == "" && s.Domain != "" {
		return "https://" + s.Domain
	}
	return strings.TrimRight(s.PublicURL, "/")
}

// Exists says whether there is a database to look at: PostgreSQL, or a file in the data folder.
func (s Settings) Exists() bool {
	_, err := os.Stat(s.DSN())
	return s.Database != "" || err == nil
}

// Place is what to call the database before people: the path of its file, or PostgreSQL, whose address may hold a password.
func (s Settings) Place() string {
	if s.Database != "" {
		return "the PostgreSQL database"
	}
	return s.DSN()
}

// Socket is the path of the local socket, for whoever may read the data folder.
func (s Settings) Socket() string { return filepath.Join(s.Data, "local.sock") }

// Proxies are the trusted proxies as a list.
func (s Settings) Proxies() []string {
	return strings.FieldsFunc(s.TrustedProxies, func(r rune) bool { return r == ',' || r == ' ' })
}

// Callbacks says which addresses callbacks may lead to.
func (s Settings) Callbacks() webhook.Policy {
	allow, _ := s.callbacks() // checked when the settings were read
	return webhook.Policy{Allow: allow, Private: s.Dev, Secure: !s.Dev}
}

func (s Settings) callbacks() (out []netip.Prefix, err error) {
	for _, text := range strings.FieldsFunc(s.AllowCallbacks, func(r rune) bool { return r == ',' || r == ' ' }) {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("UNSTUCK_ALLOW_CALLBACKS has %q; write networks such as 172.18.0.0/16, separated by commas", text)
			}
			p = netip.PrefixFrom(addr, addr.BitLen())
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// mail hands messages to the mail server that the settings name.
func (s Settings) mail(now func() time.Time) (*mail.Sender, error) {
	m, err := mail.New(mail.Options{Host: s.SMTPHost, Port: s.SMTPPort, User: s.SMTPUser, Password: s.SMTPPassword, From: s.SMTPFrom, TLS: s.SMTPTLS, Now: now})
	if err != nil {
		return nil, fmt.Errorf("UNSTUCK_SMTP_*: %w", err)
	}
	return m, nil
}

// prepareData makes the data folder, readable by its owner only.
func (s Settings) prepareData() error {
	if err := disk.MakePrivate(s.Data); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	return nil
}
