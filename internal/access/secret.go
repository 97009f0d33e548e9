package access

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/big"
	"regexp"
	"strings"
	"unsafe"
)

// The form of a key: prefix, "_", 43 base62 characters of 256 random bits, 6 base62 characters of a CRC-32 over all that stands
// before and after them, "_", and 8 hex digits. The digits are public and unique on a server; they name the secret.
const (
	base62       = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	randomChars  = 43
	checkChars   = 6
	digitChars   = 8
	tailLen      = randomChars + checkChars + 1 + digitChars // all that follows the prefix and its "_"
	prefixMost   = 32
	defaultFront = "unstuck"
)

// prefixForm is what a prefix may be.
var prefixForm = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)

// Secret is a key as its holder presents it. It keeps a pointer and a length in place of a string, because fmt looks into
// unexported fields without asking for their methods: so there is nothing to print, wherever a Secret ends up.
type Secret struct {
	first  *byte
	length int
}

func secretOf(text string) Secret { return Secret{unsafe.StringData(text), len(text)} }

// Reveal is the secret itself, for the one answer that shows it.
func (s Secret) Reveal() string { return unsafe.String(s.first, s.length) }

// bytes is the secret without a copy; they must not be written to.
func (s Secret) bytes() []byte { return unsafe.Slice(s.first, s.length) }

// Redacted is the form that identifies the key without exposing it: "unstuck_***_a1b2c3d4".
func (s Secret) Redacted() string {
	if s.length < tailLen+2 {
		return "***"
	}
	text := s.Reveal()
	return redacted(text[:len(text)-tailLen-1], text[len(text)-digitChars:])
}

func redacted(prefix, digits string) string { return prefix + "_***_" + digits }

func (s Secret) String() string               { return s.Redacted() }
func (s Secret) GoString() string             { return s.Redacted() }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(s.Redacted()) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.Redacted()), nil }

// digits is the public name of the secret as a number.
func (s Secret) digits() uint32 {
	text := s.Reveal()
	n, _ := parseDigits(text[len(text)-digitChars:])
	return n
}

// SecretText is a secret as JSON carries it: in the answer that shows it, or in an input that brings it. Printed in any other
// way it shows the redacted form.
type SecretText string

// Reveal is the secret itself.
func (t SecretText) Reveal() string { return string(t) }

func (t SecretText) String() string {
	switch s, ok := parseSecret(string(t)); {
	case ok:
		return s.Redacted()
	case t == "":
		return ""
	}
	return "***"
}

func (t SecretText) GoString() string     { return t.String() }
func (t SecretText) LogValue() slog.Value { return slog.StringValue(t.String()) }

// Format writes the redacted form whatever the verb.
func (t SecretText) Format(f fmt.State, _ rune) { fmt.Fprint(f, t.String()) }

func parseDigits(hex8 string) (uint32, bool) {
	var n uint32
	for i := 0; i < len(hex8); i++ {
		c := hex8[i]
		switch {
		case c >= '0' && c <= '9':
			n = n<<4 | uint32(c-'0')
		case c >= 'a' && c <= 'f':
			n = n<<4 | uint32(c-'a'+10)
		default:
			return 0, false
		}
	}
	return n, len(hex8) == digitChars
}

func digitString(n uint32) string {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return hex.EncodeToString(b[:])
}

// newSecret makes a secret under a prefix. The caller makes sure that its digits are not taken.
func newSecret(prefix string) Secret {
	var b [36]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	random := encode62(new(big.Int).SetBytes(b[:32]))
	digits := hex.EncodeToString(b[32:])
	front := prefix + "_" + random
	check := checksum(front, digits)
	return secretOf(front + string(check[:]) + "_" + digits)
}

// encode62 is a number below 2^256 in base 62.
func encode62(n *big.Int) string {
	var out [randomChars]byte
	mod, base := new(big.Int), big.NewInt(62)
	for i := randomChars - 1; i >= 0; i-- {
		n.DivMod(n, base, mod)
		out[i] = base62[mod.Int64()]
	}
	return string(out[:])
}

func checksum(front, digits string) (out [checkChars]byte) {
	sum := crc32.Update(0, crc32.IEEETable, unsafe.Slice(unsafe.StringData(front), len(front)))
	sum = crc32.Update(sum, crc32.IEEETable, unsafe.Slice(unsafe.StringData(digits), len(digits)))
	for i := checkChars - 1; i >= 0; i-- {
		out[i] = base62[sum%62]
		sum /= 62
	}
	return out
}

// parseSecret checks the form and the checksum of a presented key, without asking anything of the server.
func parseSecret(text string) (Secret, bool) {
	n := len(text)
	if n < tailLen+2 || n > tailLen+1+prefixMost || text[n-digitChars-1] != '_' || text[n-tailLen-1] != '_' {
		return Secret{}, false
	}
	digits, check := text[n-digitChars:], text[n-digitChars-1-checkChars:n-digitChars-1]
	if _, ok := parseDigits(digits); !ok {
		return Secret{}, false
	}
	if want := checksum(text[:n-digitChars-1-checkChars], digits); string(want[:]) != check {
		return Secret{}, false
	}
	return secretOf(text), true
}

// nextTail finds the next place where all of a key but its prefix stands, by its form; -1 when there is none. It looks at nothing but
// underscores until two of them are as far apart as in a key, because it reads all that is ever sent.
func nextTail(text string, from int) int {
	for at := from; ; at++ {
		i := strings.IndexByte(text[at:], '_')
		if at += i; i < 0 || at+1+tailLen > len(text) {
			return -1
		}
		second := at + 1 + randomChars + checkChars
		if text[second] != '_' || strings.Trim(text[at+1:second], base62) != "" {
			continue
		}
		if _, ok := parseDigits(text[second+1 : second+1+digitChars]); ok {
			return at
		}
	}
}

// Redact replaces every genuine key, and every webhook secret, in a text by its redacted form and says how many there were. A handler
// that prints its environment sends its secrets to be stored; what is stored must not hold them.
func Redact(text string) (string, int) {
	text, keys := redactKeys(text)
	text, secrets := redactWebhookSecrets(text)
	return text, keys + secrets
}

func redactKeys(text string) (string, int) {
	var out strings.Builder
	n, done := 0, 0
	for at := 0; ; {
		begin := nextTail(text, at)
		if begin < 0 {
			break
		}
		end := begin + 1 + tailLen
		at = begin + 1
		if s, front, ok := secretEnding(text[done:begin], text[done:end]); ok {
			out.WriteString(text[done : done+front])
			out.WriteString(s.Redacted())
			done, at = end, end
			n++
		}
	}
	if n == 0 {
		return text, 0
	}
	out.WriteString(text[done:])
	return out.String(), n
}

const (
	webhookFront = "whsec_"
	// webhookLeast is from how many characters on a word after webhookFront is taken for a secret: ours has 64, those of others 32 or
	// more, and one that was cut is still worth hiding.
	webhookLeast = 24
)

// redactWebhookSecrets goes by the form alone, whsec_ and base64: a webhook secret has no checksum, and those of others are hidden too.
func redactWebhookSecrets(text string) (string, int) {
	var out strings.Builder
	n, done := 0, 0
	for at := 0; ; {
		i := strings.Index(text[at:], webhookFront)
		if i < 0 {
			break
		}
		at += i + len(webhookFront)
		length := len(text[at:]) - len(strings.TrimLeft(text[at:], base62+"+/="))
		if length < webhookLeast {
			continue
		}
		out.WriteString(text[done:at] + "***")
		at += length
		done, n = at, n+1
	}
	if n == 0 {
		return text, 0
	}
	return out.String() + text[done:], n
}

// secretEnding finds the genuine key at the end of a text, whose prefix ends the text `before`; front is where it begins. What
// stands before it may look like a part of the prefix, such as the n of an escaped line feed, so every beginning is tried.
func secretEnding(before, text string) (s Secret, front int, ok bool) {
	for front = len(before) - 1; front >= max(0, len(before)-prefixMost); front-- {
		c := before[front]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			break
		}
		if s, ok = parseSecret(text[front:]); ok {
			return s, front, true
		}
	}
	return Secret{}, 0, false
}
