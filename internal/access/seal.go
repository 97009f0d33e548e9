package access

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// ServerSecrets is the text of a secret file or of UNSTUCK_SECRET: entries "number:secret" of at least 32 characters, separated by
// line feeds or commas, the newest last. One entry without a number counts as number 1.
type ServerSecrets string

func (ServerSecrets) String() string               { return "***" }
func (s ServerSecrets) GoString() string           { return s.String() }
func (s ServerSecrets) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }
func (ServerSecrets) MarshalText() ([]byte, error) { return []byte("***"), nil }
func (s ServerSecrets) append(n int, secret string) ServerSecrets {
	text := strings.TrimRight(string(s), "\n")
	if text != "" {
		text += "\n"
	}
	return ServerSecrets(fmt.Sprintf("%s%d:%s\n", text, n, secret))
}

// NewServerSecret is a first secret, as it stands in a secret file.
func NewServerSecret() ServerSecrets { return ServerSecrets("").append(1, randomHex(32)) }

// next is the same secrets and one more.
func (s ServerSecrets) next() (ServerSecrets, error) {
	list, err := s.parse()
	if err != nil {
		return "", err
	}
	newest := list[len(list)-1].number
	if newest == 1<<16-1 {
		return "", errors.New("there is no number left for another server secret")
	}
	return s.append(int(newest)+1, randomHex(32)), nil
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// numbered is one server secret.
type numbered struct {
	number uint16
	secret []byte
}

func (s ServerSecrets) parse() ([]numbered, error) {
	var out []numbered
	for _, entry := range strings.FieldsFunc(string(s), func(r rune) bool { return r == '\n' || r == '\r' || r == ',' }) {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		num, text, ok := strings.Cut(entry, ":")
		if !ok {
			num, text = "1", entry
		}
		n, err := strconv.ParseUint(num, 10, 16)
		switch {
		case err != nil || n == 0:
			return nil, errors.New("a server secret is written as NUMBER:SECRET, one a line")
		case len(text) < 32:
			return nil, fmt.Errorf("server secret %d is too short; it needs at least 32 characters", n)
		case len(out) > 0 && uint16(n) <= out[len(out)-1].number:
			return nil, fmt.Errorf("server secret %d stands after %d; the newest comes last", n, out[len(out)-1].number)
		}
		out = append(out, numbered{uint16(n), []byte(text)})
	}
	if len(out) == 0 {
		return nil, errors.New("there is no server secret")
	}
	return out, nil
}

// sealer works with the server secrets. What a key hashes to, what encrypts webhook secrets and what chains the audit log all come
// from them, so a copy of the database alone is worth nothing.
type sealer struct{ held atomic.Pointer[epochs] }

// epochs are the server secrets at one time. They are never changed, only replaced.
type epochs struct {
	byNumber map[uint16]*epoch
	newest   *epoch
}

// epoch is one server secret at work.
type epoch struct {
	number uint16
	macs   sync.Pool // of *mac under the secret
	seal   cipher.AEAD
	chain  []byte // key of the audit chain
	heads  []byte // key of audit.heads
	proof  []byte // key of the chains of evidence
	check  []byte // what the database keeps to recognise the secret
}

// mac is HMAC-SHA-256 with room for its result, so that a verification allocates nothing.
type mac struct {
	hash.Hash
	sum [sha256.Size]byte
}

func newSealer(secrets ServerSecrets) (*sealer, error) {
	s := &sealer{}
	return s, s.load(secrets)
}

func (s *sealer) load(secrets ServerSecrets) error {
	list, err := secrets.parse()
	if err != nil {
		return err
	}
	held := &epochs{byNumber: map[uint16]*epoch{}}
	for _, n := range list {
		if held.newest, err = newEpoch(n); err != nil {
			return err
		}
		held.byNumber[n.number] = held.newest
	}
	s.held.Store(held)
	return nil
}

func newEpoch(n numbered) (*epoch, error) {
	derive := func(purpose string) ([]byte, error) {
		return hkdf.Key(sha256.New, n.secret, nil, "unstuck "+purpose, sha256.Size)
	}
	sealKey, err1 := derive("seal")
	chain, err2 := derive("audit chain")
	heads, err3 := derive("audit heads")
	proof, err4 := derive("evidence chain")
	check, err5 := derive("check value")
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return nil, fmt.Errorf("derive from server secret %d: %w", n.number, err)
	}
	block, err := aes.NewCipher(sealKey)
	if err != nil {
		return nil, fmt.Errorf("cipher of server secret %d: %w", n.number, err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("cipher of server secret %d: %w", n.number, err)
	}
	e := &epoch{number: n.number, seal: aead, chain: chain, heads: heads, proof: proof, check: check}
	e.macs.New = func() any { return &mac{Hash: hmac.New(sha256.New, n.secret)} }
	return e, nil
}

// epoch is the server secret of a number; nil when it is not known here.
func (s *sealer) epoch(n uint16) *epoch { return s.held.Load().byNumber[n] }

func (s *sealer) current() *epoch { return s.held.Load().newest }

// matches compares a secret with a stored hash in constant time.
func (s *sealer) matches(presented Secret, number uint16, want *[sha256.Size]byte) bool {
	e := s.epoch(number)
	if e == nil {
		return false
	}
	m := e.mac(presented)
	same := subtle.ConstantTimeCompare(m.sum[:], want[:]) == 1
	e.macs.Put(m)
	return same
}

// mac computes what a secret hashes to; who asked gives the result back to the pool.
func (e *epoch) mac(s Secret) *mac {
	m := e.macs.Get().(*mac)
	m.Reset()
	m.Write(s.bytes())
	m.Sum(m.sum[:0])
	return m
}

func (e *epoch) hash(s Secret) [sha256.Size]byte {
	m := e.mac(s)
	defer e.macs.Put(m)
	return m.sum
}

// seal encrypts a secret that must be shown again (a webhook secret): two bytes of epoch, nonce, ciphertext.
func (s *sealer) seal(text SecretText) []byte {
	e := s.current()
	head := []byte{byte(e.number >> 8), byte(e.number)}
	nonce := make([]byte, e.seal.NonceSize())
	rand.Read(nonce)
	return append(append(head, nonce...), e.seal.Seal(nil, nonce, []byte(text), head)...)
}

func (s *sealer) open(box []byte) (SecretText, error) {
	if len(box) < 2 {
		return "", errors.New("open a sealed secret: it is cut short")
	}
	e := s.epoch(uint16(box[0])<<8 | uint16(box[1]))
	if e == nil {
		return "", errors.New("open a sealed secret: its server secret is not known here")
	}
	n := e.seal.NonceSize()
	if len(box) < 2+n {
		return "", errors.New("open a sealed secret: it is cut short")
	}
	text, err := e.seal.Open(nil, box[2:2+n], box[2+n:], box[:2])
	if err != nil {
		return "", fmt.Errorf("open a sealed secret: %w", err)
	}
	return SecretText(text), nil
}

// link is the hash of an audit row: HMAC over what comes before it in the chain and its stored bytes. Before the first row comes the
// id of the workspace, so that one workspace's chain cannot stand in for another's.
func (e *epoch) link(before []byte, body string) []byte {
	h := hmac.New(sha256.New, e.chain)
	h.Write(before)
	h.Write([]byte(body))
	return h.Sum(nil)
}

// SecretNumber is the number of the newest server secret: what is sealed now names it.
func (a *Access) SecretNumber() int64 { return int64(a.sealer.current().number) }

// SecretReplaced is when the server secret of this number stopped being the newest; 0 while it is.
func (a *Access) SecretReplaced(tx *db.Tx, number int64) (op.Time, error) {
	if number >= a.SecretNumber() {
		return 0, nil
	}
	var at *int64
	if err := tx.Row(sqlEpochAfter, number).Scan(&at); err != nil || at == nil {
		return 0, err
	}
	return op.Time(*at), nil
}

// SealEvidence is HMAC-SHA-256 over a link of a chain of evidence, under a key that the server secret of this number gives for
// nothing else; nil when no server secret of this number is known here.
func (a *Access) SealEvidence(number int64, link []byte) []byte {
	e := a.sealer.epoch(uint16(number))
	if e == nil || int64(e.number) != number {
		return nil
	}
	h := hmac.New(sha256.New, e.proof)
	h.Write(link)
	return h.Sum(nil)
}
