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
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// sealer holds the numbered server secrets. What a key hashes to, what encrypts webhook secrets and what chains the audit log
// all come from them, so a copy of the database alone is worth nothing.
type sealer struct {
	mu     sync.RWMutex
	epochs map[uint16]*epoch
	newest uint16
}

type epoch struct {
	number uint16
	macs   sync.Pool // of hash.Hash: HMAC-SHA-256 under the secret
	seal   cipher.AEAD
	chain  []byte
	check  []byte
}

// ServerSecrets is the text of a secret file or of UNSTUCK_SECRET: lines "number:64 hex digits", the newest last. One line of at
// least 32 bytes without a number counts as number 1.
type ServerSecrets string

// NewServerSecret is a first secret, as it stands in a secret file.
func NewServerSecret() ServerSecrets { return nextServerSecret("") }

func nextServerSecret(now ServerSecrets) ServerSecrets {
	var b [32]byte
	rand.Read(b[:])
	n := 1
	if list, err := now.parse(); err == nil && len(list) > 0 {
		n = int(list[len(list)-1].number) + 1
	}
	return ServerSecrets(fmt.Sprintf("%s%d:%s\n", string(now), n, hex.EncodeToString(b[:])))
}

type numbered struct {
	number uint16
	bytes  []byte
}

func (s ServerSecrets) parse() ([]numbered, error) {
	var out []numbered
	for _, line := range strings.FieldsFunc(string(s), func(r rune) bool { return r == '\n' || r == ',' }) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		num, text, ok := strings.Cut(line, ":")
		if !ok {
			num, text = "1", line
		}
		n, err := strconv.ParseUint(num, 10, 16)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("a server secret is written as NUMBER:SECRET, one a line")
		}
		if len(text) < 32 {
			return nil, fmt.Errorf("server secret %d is too short; it needs at least 32 characters", n)
		}
		if len(out) > 0 && uint16(n) <= out[len(out)-1].number {
			return nil, fmt.Errorf("server secret %d stands after %d; the newest comes last", n, out[len(out)-1].number)
		}
		out = append(out, numbered{uint16(n), []byte(text)})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("there is no server secret")
	}
	return out, nil
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
	epochs := map[uint16]*epoch{}
	for _, n := range list {
		e, err := newEpoch(n)
		if err != nil {
			return err
		}
		epochs[n.number] = e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epochs, s.newest = epochs, list[len(list)-1].number
	return nil
}

func newEpoch(n numbered) (*epoch, error) {
	derive := func(info string) ([]byte, error) { return hkdf.Key(sha256.New, n.bytes, nil, "unstuck "+info, 32) }
	sealKey, err1 := derive("seal")
	chain, err2 := derive("audit chain")
	check, err3 := derive("check value")
	if err := errors.Join(err1, err2, err3); err != nil {
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
	e := &epoch{number: n.number, seal: aead, chain: chain, check: check}
	secret := n.bytes
	e.macs.New = func() any { return hmac.New(sha256.New, secret) }
	return e, nil
}

func (s *sealer) epoch(n uint16) *epoch {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.epochs[n]
}

func (s *sealer) current() *epoch {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.epochs[s.newest]
}

// matches compares a secret with a stored hash in constant time.
func (s *sealer) matches(sec Secret, number uint16, want *[32]byte) bool {
	e := s.epoch(number)
	if e == nil {
		return false
	}
	var got [32]byte
	e.hash(sec, &got)
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

func (e *epoch) hash(sec Secret, out *[32]byte) {
	h := e.macs.Get().(hash.Hash)
	h.Reset()
	h.Write(unsafeBytes(sec.text))
	h.Sum(out[:0])
	e.macs.Put(h)
}

// seal encrypts a secret that must be shown again (a webhook secret): two bytes of epoch, nonce, ciphertext.
func (s *sealer) seal(text string) []byte {
	e := s.current()
	nonce := make([]byte, e.seal.NonceSize())
	rand.Read(nonce)
	head := []byte{byte(e.number >> 8), byte(e.number)}
	return append(append(head, nonce...), e.seal.Seal(nil, nonce, []byte(text), head)...)
}

func (s *sealer) open(box []byte) (string, error) {
	if len(box) < 2 {
		return "", errors.New("open a sealed secret: too short")
	}
	e := s.epoch(uint16(box[0])<<8 | uint16(box[1]))
	if e == nil || len(box) < 2+e.seal.NonceSize() {
		return "", errors.New("open a sealed secret: its server secret is not known here")
	}
	n := e.seal.NonceSize()
	text, err := e.seal.Open(nil, box[2:2+n], box[2+n:], box[:2])
	if err != nil {
		return "", fmt.Errorf("open a sealed secret: %w", err)
	}
	return string(text), nil
}

// link is the hash of an audit row: HMAC over the hash before it and the stored bytes.
func (e *epoch) link(previous []byte, body string) []byte {
	h := hmac.New(sha256.New, e.chain)
	h.Write(previous)
	h.Write([]byte(body))
	return h.Sum(nil)
}

// ReadSecretFile reads the secret file of a data directory, and makes it when there is none and fresh says that the database is
// new. The file is readable by its owner only.
func ReadSecretFile(dir string, fresh bool) (ServerSecrets, error) {
	path := filepath.Join(dir, "secret")
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		return ServerSecrets(b), nil
	case !errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("read the server secret: %w", err)
	case !fresh:
		return "", fmt.Errorf("the server secret is missing: %s is not there, and without it no key of this database can be checked. Restore the file from your backup, or set UNSTUCK_SECRET", path)
	}
	s := NewServerSecret()
	return s, WriteSecretFile(dir, s)
}

// WriteSecretFile replaces the secret file, durably and at once.
func WriteSecretFile(dir string, s ServerSecrets) error {
	path := filepath.Join(dir, "secret")
	tmp, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write the server secret: %w", err)
	}
	_, err = tmp.WriteString(string(s))
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("write the server secret: %w", err)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer d.Close()
	return d.Sync()
}
