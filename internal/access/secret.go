package access

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"log/slog"
	"math/big"
	"regexp"
	"strings"
)

// The form of a key: prefix, "_", 43 base62 characters of 256 random bits, 6 base62 characters of a CRC-32 over all that stands
// before and after them, "_", and 8 hex digits. The digits are public and unique on a server; they name the secret.
const (
	base62       = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	randomChars  = 43
	checkChars   = 6
	digitChars   = 8
	tailLen      = randomChars + checkChars + 1 + digitChars
	defaultFront = "unstuck"
)

// Secret is a key as its holder presents it. It cannot be formatted: every way of printing it shows the redacted form.
type Secret struct{ text string }

// Reveal is the secret itself, for the one answer that shows it.
func (s Secret) Reveal() string { return s.text }

// Redacted is the form that identifies the key without exposing it: "unstuck_***_a1b2c3d4".
func (s Secret) Redacted() string {
	if len(s.text) < tailLen+2 {
		return "***"
	}
	return redacted(s.text[:len(s.text)-tailLen-1], s.text[len(s.text)-digitChars:])
}

func redacted(prefix, digits string) string { return prefix + "_***_" + digits }

func (s Secret) String() string               { return s.Redacted() }
func (s Secret) GoString() string             { return s.Redacted() }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(s.Redacted()) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.Redacted()), nil }

// digits is the public name of the secret as a number.
func (s Secret) digits() uint32 {
	n, _ := parseDigits(s.text[len(s.text)-digitChars:])
	return n
}

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
	random := encode62(new(big.Int).SetBytes(b[:32]), randomChars)
	digits := hex.EncodeToString(b[32:])
	front := prefix + "_" + random
	return Secret{front + checksum(front, digits) + "_" + digits}
}

func encode62(n *big.Int, width int) string {
	out := make([]byte, width)
	mod, base := new(big.Int), big.NewInt(62)
	for i := width - 1; i >= 0; i-- {
		n.DivMod(n, base, mod)
		out[i] = base62[mod.Int64()]
	}
	return string(out)
}

func checksum(front, digits string) string {
	var b [checkChars]byte
	putChecksum(&b, front, digits)
	return string(b[:])
}

func putChecksum(out *[checkChars]byte, front, digits string) {
	sum := crc32.Update(crc32.Update(0, crc32.IEEETable, unsafeBytes(front)), crc32.IEEETable, unsafeBytes(digits))
	for i := checkChars - 1; i >= 0; i-- {
		out[i] = base62[sum%62]
		sum /= 62
	}
}

// parseSecret checks the form and the checksum of a presented key, without asking anything of the server.
func parseSecret(text string) (Secret, bool) {
	n := len(text)
	if n < tailLen+2 || n > tailLen+64 {
		return Secret{}, false
	}
	digits, check := text[n-digitChars:], text[n-digitChars-1-checkChars:n-digitChars-1]
	front := text[:n-digitChars-1-checkChars]
	if text[n-digitChars-1] != '_' || text[n-tailLen-1] != '_' {
		return Secret{}, false
	}
	if _, ok := parseDigits(digits); !ok {
		return Secret{}, false
	}
	var want [checkChars]byte
	putChecksum(&want, front, digits)
	if string(want[:]) != check {
		return Secret{}, false
	}
	return Secret{text}, true
}

var secretForm = regexp.MustCompile(`[a-z][a-z0-9]{0,31}_[0-9A-Za-z]{49}_[0-9a-f]{8}`)

// Redact replaces every genuine key in a text by its redacted form and says how many there were. A handler that prints its
// environment sends its key to be stored; what is stored must not hold it.
func Redact(text string) (string, int) {
	if !strings.Contains(text, "_") {
		return text, 0
	}
	n := 0
	out := secretForm.ReplaceAllStringFunc(text, func(s string) string {
		secret, ok := parseSecret(s)
		if !ok {
			return s
		}
		n++
		return secret.Redacted()
	})
	return out, n
}
