package op_test

import (
	"strings"
	"testing"
)

func TestFormats(t *testing.T) {
	type (
		address = struct {
			V string `json:"v" format:"url"`
		}
		mail = struct {
			V string `json:"v" format:"email"`
		}
		uuid = struct {
			V string `json:"v" format:"uuid"`
		}
	)
	const badURL, badMail = "Input should be a valid URL, ", "value is not a valid email address: "
	for sent, want := range map[string]string{
		`"https://Example.COM"`:                        "https://example.com/",
		`"http://example.com:80/a?b=c#d"`:              "http://example.com/a?b=c#d",
		`"https://example.com:443"`:                    "https://example.com/",
		`"https://example.com:8443/"`:                  "https://example.com:8443/",
		`"https://bücher.example/x"`:                   "https://xn--bcher-kva.example/x",
		`" https://example.com/ "`:                     "https://example.com/",
		`"http://127.0.0.1:9000/hook"`:                 "http://127.0.0.1:9000/hook",
		`"http://[::1]:9000/hook"`:                     "http://[::1]:9000/hook",
		`"https://u:p@example.com/"`:                   "https://u:p@example.com/",
		`""`:                                           badURL + "input is empty",
		`"/hook"`:                                      badURL + "relative URL without a base",
		`"example.com/hook"`:                           badURL + "relative URL without a base",
		`"http://"`:                                    badURL + "empty host",
		`"https:///x"`:                                 badURL + "empty host",
		`"ftp://example.com"`:                          "URL scheme should be 'http' or 'https'",
		`"http://exa mple.com/"`:                       badURL + `invalid character " " in host name`,
		`"http://example.com:99999/"`:                  badURL + "invalid port number",
		`"http://[fe80::1%25eth0]/"`:                   badURL + "invalid international domain name",
		`"http://xn--a.example/"`:                      badURL + "invalid international domain name",
		`"http://a/` + strings.Repeat("x", 2075) + `"`: "URL should have at most 2083 characters",
		`3`: "URL input should be a string or URL",
	} {
		check[address](t, sent, want)
	}
	for sent, want := range map[string]string{
		`"Ada@Example.COM"`:             "Ada@example.com",
		`"a.b+c@mail.example.com"`:      "a.b+c@mail.example.com",
		`"ada"`:                         badMail + "An email address must have an @-sign.",
		`"@example.com"`:                badMail + "An email address must have an @-sign.",
		`"ada@localhost"`:               badMail + "The part after the @-sign is not valid. It should have a period.",
		`"ada@"`:                        badMail + "The part after the @-sign is not valid. It should have a period.",
		`"ada@x.test"`:                  badMail + "The part after the @-sign is a special-use or reserved name that cannot be used with email.",
		`"Ada <ada@example.com>"`:       badMail + "Write it like name@example.com.",
		`"a da@example.com"`:            badMail + "Write it like name@example.com.",
		`"a@b.example, c@d.example"`:    badMail + "Write it like name@example.com.",
		`"ada@example.com\r\nBcc: x.y"`: badMail + "Write it like name@example.com.",
		`3`:                             "Input should be a valid string",
	} {
		check[mail](t, sent, want)
	}
	for sent, want := range map[string]string{
		`"5F0C1B9E-0d7a-4c7e-9a57-1c2b3d4e5f60"`: "5f0c1b9e-0d7a-4c7e-9a57-1c2b3d4e5f60",
		`"5f0c1b9e0d7a4c7e9a571c2b3d4e5f60"`:     "Input should be a valid UUID, like 5f0c1b9e-0d7a-4c7e-9a57-1c2b3d4e5f60",
		`"5f0c1b9e-0d7a-4c7e-9a57-1c2b3d4e5f6g"`: "Input should be a valid UUID, like 5f0c1b9e-0d7a-4c7e-9a57-1c2b3d4e5f60",
		`"5f0c1b9e-0d7a-4c7e-9a5-71c2b3d4e5f60"`: "Input should be a valid UUID, like 5f0c1b9e-0d7a-4c7e-9a57-1c2b3d4e5f60",
	} {
		check[uuid](t, sent, want)
	}
}
