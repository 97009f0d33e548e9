package access

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"unstuck/internal/disk"
	"unstuck/internal/op"
)

// <data dir>/audit.heads holds the end of every chain, a line each, in the order of the ids, and one more line that says how many there
// are. A line is JSON, a tab, and an HMAC in hex over the HMAC of the line before and the JSON, under a key derived from the server
// secret (HKDF, "unstuck audit heads"). So whoever can write the file, but does not know the server secret, cannot change, add, remove
// or swap a line. Only the newest server secret counts: whoever got hold of an older one, which may be why there is a newer one, cannot
// either.

// ErrHeadsAltered refuses to start beside an audit.heads that this server did not write: it may hide that the database was rolled back.
var ErrHeadsAltered = errors.New("audit.heads was changed by somebody else than this server, so it cannot tell whether the database is behind the audit log; put back the file as it was, or start once with --accept-rollback, which the audit log will say")

// errHeadsMissing says that there is no file.
var errHeadsMissing = errors.New("audit.heads is missing, so rows that were cut off from the end of the audit log would not be noticed; the next start of the server makes it anew, and the audit log will say so")

// headLine is what a line says, and lastLine what the last one does; the epoch is that of the server secret.
type headLine struct {
	Workspace string `json:"workspace"`
	auditHead
	Epoch uint16 `json:"epoch"`
}

type lastLine struct {
	Lines int    `json:"lines"` // before this one
	Epoch uint16 `json:"epoch"`
}

func (a *Access) headsPath() string { return filepath.Join(a.Dir, "audit.heads") }

// sign is the HMAC of a line of audit.heads.
func (e *epoch) sign(before, line []byte) []byte {
	h := hmac.New(sha256.New, e.heads)
	h.Write(before)
	h.Write(line)
	return h.Sum(nil)
}

// saveHeads writes the file and notes what is in it. Without a data directory nothing is written.
func (a *Access) saveHeads(ends map[string]auditHead) error {
	if a.Dir != "" {
		if err := replaceFile(a.headsPath(), a.sealer.current().headsText(ends)); err != nil {
			return fmt.Errorf("write the ends of the audit log: %w", err)
		}
	}
	a.heads.written = ends
	return nil
}

func (e *epoch) headsText(ends map[string]auditHead) []byte {
	var text bytes.Buffer
	var mac []byte
	write := func(l any) {
		line := op.Marshal(l)
		mac = e.sign(mac, line)
		fmt.Fprintf(&text, "%s\t%x\n", line, mac)
	}
	for _, id := range slices.Sorted(maps.Keys(ends)) {
		write(headLine{id, ends[id], e.number})
	}
	write(lastLine{len(ends), e.number})
	return text.Bytes()
}

// readHeads reads the file. It fails with errHeadsMissing when there is none, and with ErrHeadsAltered when it is not as it was written
// under the newest server secret that the database knows, or one that is newer still.
func (a *Access) readHeads(newest int64) (map[string]auditHead, error) {
	if a.Dir == "" {
		return map[string]auditHead{}, nil
	}
	text, err := os.ReadFile(a.headsPath())
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, errHeadsMissing
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", a.headsPath(), err)
	}
	return a.sealer.readHeads(text, newest)
}

func (s *sealer) readHeads(text []byte, newest int64) (map[string]auditHead, error) {
	out := map[string]auditHead{}
	var mac []byte
	n, ended := 0, false
	for line := range bytes.Lines(text) {
		n++
		altered := func(what string) error { return fmt.Errorf("%w (line %d %s)", ErrHeadsAltered, n, what) }
		body, sum, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte("\t"))
		var l struct {
			headLine
			Lines *int `json:"lines"`
		}
		given, err := hex.DecodeString(string(sum))
		if err = errors.Join(err, json.Unmarshal(body, &l)); err != nil {
			return nil, altered("has the wrong form")
		}
		e := s.epoch(l.Epoch)
		if e == nil {
			return nil, altered(fmt.Sprintf("was written under server secret %d, which is not known here", l.Epoch))
		}
		if int64(l.Epoch) < newest {
			return nil, altered(fmt.Sprintf("was written under server secret %d, which %d has replaced", l.Epoch, newest))
		}
		if mac = e.sign(mac, body); !hmac.Equal(mac, given) {
			return nil, altered("is not as it was written, or the one before it")
		}
		if ended {
			return nil, altered("stands after the last one")
		}
		if ended = l.Lines != nil; !ended {
			out[l.Workspace] = l.auditHead
		}
	}
	if ended {
		return out, nil
	}
	return nil, fmt.Errorf("%w (its last line is missing)", ErrHeadsAltered)
}

// replaceFile replaces a file durably and at once; it can be read by its owner only.
func replaceFile(path string, content []byte) error {
	tmp, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return disk.SyncNames(filepath.Dir(path))
}
