package op

import (
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// knownFormat says whether a format has a check.
func knownFormat(format string) bool {
	return format == "" || format == "url" || format == "email" || format == "uuid" || format == formatLine
}

// checkFormat holds a string against a format; it answers the string to store, or the message of the CueAPI wire contract 1.9.
func checkFormat(format, s string) (stored, fault string) {
	switch format {
	case "url":
		return checkURL(s)
	case "email":
		return checkEmail(s)
	case "uuid":
		return checkUUID(s)
	case formatLine:
		return checkLine(s)
	}
	return s, ""
}

// formatLine is a name as people read it: one line, in which nothing moves a cursor, changes colours or turns the direction around, so
// that no name looks like another text on a terminal. linePattern says the same in a schema.
const (
	formatLine  = "line"
	linePattern = `^[^\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]*$`
)

func checkLine(s string) (stored, fault string) {
	for _, r := range s {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r) {
			return "", fmt.Sprintf("String should be one line of plain text, without control characters such as %U", r)
		}
	}
	return s, ""
}

const (
	maxURL = 2083
	badURL = "Input should be a valid URL, "
)

// checkURL accepts absolute http and https addresses of at most 2,083 characters and stores them normalised: host in lower case
// and punycode, default port dropped, "/" for an empty path.
func checkURL(s string) (stored, fault string) {
	text := strings.TrimSpace(s)
	if text == "" {
		return "", badURL + "input is empty"
	}
	if utf8.RuneCountInString(text) > maxURL {
		return "", "URL should have at most 2083 characters"
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "", badURL + errors.Unwrap(err).Error() // url.Parse answers a *url.Error, which quotes the whole input
	case u.Scheme == "":
		return "", badURL + "relative URL without a base"
	case u.Scheme != "http" && u.Scheme != "https":
		return "", "URL scheme should be 'http' or 'https'"
	case u.Hostname() == "":
		return "", badURL + "empty host"
	}
	if u.Host, err = normalHost(u); err != nil {
		return "", badURL + err.Error()
	}
	if u.Path == "" {
		u.Path = "/"
	}
	return (&url.URL{}).ResolveReference(u).String(), "" // without dot segments
}

// normalHost is the host of an address as it is stored, with its port unless that is the scheme's own.
func normalHost(u *url.URL) (string, error) {
	host := strings.ToLower(u.Hostname())
	if ip := net.ParseIP(host); ip == nil {
		var err error
		if host, err = idna.Lookup.ToASCII(host); err != nil {
			return "", errors.New("invalid international domain name")
		}
	} else if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	port := u.Port()
	if n, err := strconv.Atoi(port); port != "" && (err != nil || n > 65535) {
		return "", errors.New("invalid port number")
	}
	if port == "" || u.Scheme == "http" && port == "80" || u.Scheme == "https" && port == "443" {
		return host, nil
	}
	return host + ":" + port, nil
}

const badEmail = "value is not a valid email address: "

// checkEmail accepts one bare address whose domain has a period; the domain is stored in lower case, the local part as typed.
func checkEmail(s string) (stored, fault string) {
	text := strings.TrimSpace(s)
	at := strings.LastIndexByte(text, '@')
	if at <= 0 {
		return "", badEmail + "An email address must have an @-sign."
	}
	domain := strings.ToLower(text[at+1:])
	if !strings.Contains(strings.Trim(domain, "."), ".") {
		return "", badEmail + "The part after the @-sign is not valid. It should have a period."
	}
	for _, special := range [...]string{".test", ".local", ".localhost", ".invalid"} {
		if strings.HasSuffix(domain, special) {
			return "", badEmail + "The part after the @-sign is a special-use or reserved name that cannot be used with email."
		}
	}
	a, err := mail.ParseAddress(text)
	if err != nil || a.Name != "" || a.Address != text || len(text) > 254 {
		return "", badEmail + "Write it like name@example.com."
	}
	return text[:at+1] + domain, ""
}

// checkUUID accepts the hyphenated form in either case and stores it in lower case.
func checkUUID(s string) (stored, fault string) {
	s = strings.ToLower(strings.TrimSpace(s))
	if !isUUID(s) {
		return "", "Input should be a valid UUID, like 5f0c1b9e-0d7a-4c7e-9a57-1c2b3d4e5f60"
	}
	return s, ""
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f':
		default:
			return false
		}
	}
	return true
}
