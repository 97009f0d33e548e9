package op

import (
	"net"
	"net/mail"
	"net/url"
	"regexp"
	"strings"

	"golang.org/x/net/idna"
)

// formats check a string and may normalise it; they answer "" when it fits, else the message of the CueAPI wire contract 1.9.
var formats = map[string]func(*string) string{
	"url":   checkURL,
	"email": checkEmail,
	"uuid":  checkUUID,
}

const maxURL = 2083

// checkURL accepts absolute http and https addresses of at most 2,083 characters and stores them normalised: host in lower case
// and punycode, default port dropped, "/" for an empty path.
func checkURL(s *string) string {
	text := strings.TrimSpace(*s)
	if text == "" {
		return "Input should be a valid URL, input is empty"
	}
	if len(text) > maxURL {
		return "URL should have at most 2083 characters"
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "Input should be a valid URL, " + strings.TrimPrefix(err.Error(), `parse "`+text+`": `)
	case u.Scheme == "":
		return "Input should be a valid URL, relative URL without a base"
	case u.Scheme != "http" && u.Scheme != "https":
		return "URL scheme should be 'http' or 'https'"
	case u.Hostname() == "":
		return "Input should be a valid URL, empty host"
	}
	host, err := idna.Lookup.ToASCII(strings.ToLower(u.Hostname()))
	if err != nil && net.ParseIP(u.Hostname()) == nil {
		return "Input should be a valid URL, invalid international domain name"
	}
	if err != nil {
		host = strings.ToLower(u.Hostname())
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if p := u.Port(); p != "" && !(u.Scheme == "http" && p == "80") && !(u.Scheme == "https" && p == "443") {
		host += ":" + p
	}
	u.Host = host
	if u.Path == "" {
		u.Path = "/"
	}
	*s = u.String()
	return ""
}

const badEmail = "value is not a valid email address: "

// checkEmail accepts one bare address whose domain has a period; the domain is stored in lower case, the local part as typed.
func checkEmail(s *string) string {
	text := strings.TrimSpace(*s)
	local, domain, ok := cutLast(text, "@")
	if !ok {
		return badEmail + "An email address must have an @-sign."
	}
	domain = strings.ToLower(domain)
	if !strings.Contains(strings.Trim(domain, "."), ".") {
		return badEmail + "The part after the @-sign is not valid. It should have a period."
	}
	for _, special := range [...]string{".test", ".local", ".localhost", ".invalid"} {
		if strings.HasSuffix(domain, special) {
			return badEmail + "The part after the @-sign is a special-use or reserved name that cannot be used with email."
		}
	}
	a, err := mail.ParseAddress(text)
	if err != nil || a.Name != "" || a.Address != text || len(text) > 254 {
		return badEmail + "Write it like name@example.com."
	}
	*s = local + "@" + domain
	return ""
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i <= 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

func checkUUID(s *string) string {
	*s = strings.ToLower(strings.TrimSpace(*s))
	if !uuidForm.MatchString(*s) {
		return "Input should be a valid UUID, like 5f0c1b9e-0d7a-4c7e-9a57-1c2b3d4e5f60"
	}
	return ""
}
