package cue

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// removal is what retention removed of a cue, sealed under the server secret. The ledger has the same number of due times in
// entries of retention, so whoever takes an execution out of the database by hand and writes such an entry for it is found out.
type removal struct {
	cueID, workspace string
	due, beside      int64   // executions that a due time named, and others
	at               op.Time // of the last removal
	head             string  // over the ids and the last evidence of all, in the order in which they went; hex
	epoch            int64   // number of the server secret in the hash
	hash             string  // hex; "" when the row was found changed, for good
}

func (m *removal) scan(r scanner) error {
	return r.Scan(&m.cueID, &m.workspace, &m.due, &m.beside, &m.at, &m.head, &m.epoch, &m.hash)
}

// add takes in one more.
func (m *removal) add(e *removed) {
	if e.triggeredBy == byScheduler {
		m.due++
	} else {
		m.beside++
	}
	sum := sha256.Sum256([]byte(m.head + " " + e.id + " " + e.head))
	m.head = hex.EncodeToString(sum[:])
}

// removalSeal sets what is sealed here apart from links of evidence, which begin with the number of a server secret.
const removalSeal = "removed executions of a cue"

// sum is HMAC-SHA-256 under the server secret of m.epoch over all of it; "" when that secret is not known here.
func (c *Cues) sumRemoval(m *removal) string {
	b := []byte(removalSeal)
	for _, n := range []int64{m.epoch, m.due, m.beside, int64(m.at)} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	for _, s := range []string{m.cueID, m.workspace, m.head} {
		b = append(binary.BigEndian.AppendUint64(b, uint64(len(s))), s...)
	}
	return hex.EncodeToString(c.Access.SealEvidence(m.epoch, b))
}

func (c *Cues) sealed(m *removal) bool { return m.hash != "" && m.hash == c.sumRemoval(m) }

func readRemovals(tx *db.Tx, cues []string) (map[string]*removal, error) {
	rows, err := tx.Query(sqlRemovals, cues)
	found, err := scanAll(rows, err, (*removal).scan)
	if err != nil {
		return nil, fmt.Errorf("read what was removed of cues: %w", err)
	}
	out := map[string]*removal{}
	for i := range found {
		out[found[i].cueID] = &found[i]
	}
	return out, nil
}

// sealRemoved adds executions to what was removed of their cues. A row that somebody changed is never sealed again.
func (c *Cues) sealRemoved(tx *db.Tx, gone []removed, now op.Time) error {
	var cues []string
	seen := map[string]bool{}
	for _, e := range gone {
		if !seen[e.cueID] {
			seen[e.cueID] = true
			cues = append(cues, e.cueID)
		}
	}
	ms, err := readRemovals(tx, cues)
	if err != nil {
		return err
	}
	broken := map[string]bool{}
	for id, m := range ms {
		broken[id] = !c.sealed(m)
	}
	for i := range gone {
		e := &gone[i]
		if ms[e.cueID] == nil {
			ms[e.cueID] = &removal{cueID: e.cueID, workspace: e.workspace}
		}
		ms[e.cueID].add(e)
	}
	n := len(cues)
	workspaces, heads, hashes := make([]string, n), make([]string, n), make([]string, n)
	due, beside, epochs := make([]int64, n), make([]int64, n), make([]int64, n)
	for i, id := range cues {
		m := ms[id]
		m.at, m.epoch, m.hash = now, c.Access.SecretNumber(), ""
		if !broken[id] {
			m.hash = c.sumRemoval(m)
		}
		workspaces[i], heads[i], hashes[i], due[i], beside[i], epochs[i] = m.workspace, m.head, m.hash, m.due, m.beside, m.epoch
	}
	if _, err := tx.Exec(sqlRemovalsPut, cues, workspaces, due, beside, now, heads, epochs, hashes); err != nil {
		return fmt.Errorf("note what was removed of cues: %w", err)
	}
	return nil
}

// ledgerRemoved is what retention removed of a cue.
type ledgerRemoved struct {
	Due    int64   `json:"scheduled" doc:"executions that a due time named; in the ledger they are entries fired because of retention"`
	Beside int64   `json:"beside" doc:"executions by hand, by a chain, by a replay"`
	At     op.Time `json:"at" doc:"when the last of them went"`
	Sealed bool    `json:"sealed" doc:"these numbers, and those of the ledger, are as the server wrote them; false: somebody changed them"`
}

// removedOf is what retention removed of a cue; nil for nothing.
func (c *Cues) removedOf(tx *db.Tx, cueID string) (*ledgerRemoved, error) {
	var folded int64
	if err := tx.Row(sqlRemovalsFolded, cueID).Scan(&folded); err != nil {
		return nil, fmt.Errorf("count what was removed of cue %s: %w", cueID, err)
	}
	ms, err := readRemovals(tx, []string{cueID})
	m := ms[cueID]
	switch {
	case err != nil:
		return nil, err
	case m != nil:
		return &ledgerRemoved{m.due, m.beside, m.at, c.sealed(m) && m.due == folded}, nil
	case folded > 0:
		return &ledgerRemoved{Due: folded}, nil
	}
	return nil, nil
}

// noExecution is the answer about an execution that is not there, or was removed: nobody can tell which.
func (c *Cues) noExecution() error {
	if c.RetainFor == 0 {
		return ExecutionNotFound.Msg("Execution not found")
	}
	return ExecutionNotFound.Msg("Execution not found. %s", c.keptFor())
}

// keptFor says how long executions are kept, where retention is on.
func (c *Cues) keptFor() string {
	return fmt.Sprintf("Executions are kept here for %s after they last changed.", inDays(c.RetainFor))
}

// keptNow is keptFor, also where retention was switched off since.
func (c *Cues) keptNow() string {
	if c.RetainFor == 0 {
		return "Old executions were removed; by now they are kept."
	}
	return c.keptFor()
}

func inDays(d time.Duration) string {
	if n := d / (24 * time.Hour); n != 1 {
		return fmt.Sprintf("%d days", n)
	}
	return "1 day"
}
