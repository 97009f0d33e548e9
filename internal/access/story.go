package access

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// KeyStory is how a key stands towards an operation, for whoever asks why its holder went silent.
type KeyStory struct {
	Name, Redacted string
	Code           string   // of the refusal that a call gets now, or got then; "" when it would pass and did
	Over           bool     // it would pass now: what was in the way is mended
	Lacks          string   // of insufficient_scope: the permissions; of key_restricted: the kind of restriction
	At             op.Time  // when that began; 0 when it is not known
	By             string   // name of the key that did it; "" when nobody did, or it is not known
	Tries          int64    // calls that were refused for it
	LastTry        op.Time  // 0 for none
	Mend           []string // commands that let its holder call again
}

// Holder is who calls with a key: the worker as which it calls, "" for none, and when it was let in last.
type Holder struct {
	Worker string
	Heard  op.Time
}

// storyWithin is how far back the audit log is searched for whoever changed a key.
const storyWithin = 30 * dayUS

// teller gathers the story of one key.
type teller struct {
	*Access
	tx            *db.Tx
	workspace, id string
	operation     string
	holder        Holder
	KeyStory
}

// TellKey tells how a key stands towards an operation on a cue, by the ruling that the guard makes, and, from the audit log, since
// when and through whom. Where nothing is in the way now, it looks for what was refused between two moments. Of a key that is not
// there nothing is told. Where its holder calls from, and through which door, is what a call brought that was refused since it was let
// in last.
func (a *Access) TellKey(tx *db.Tx, workspace, id, operation, cueID, cueName string, h Holder, from, to op.Time) (KeyStory, error) {
	t := &teller{Access: a, tx: tx, workspace: workspace, id: id, operation: operation, holder: h}
	row, err := readKey(tx, workspace, id)
	if isNone(err) {
		return t.KeyStory, nil
	}
	if err != nil {
		return t.KeyStory, err
	}
	secrets, err := readSecrets(tx, id)
	if err != nil {
		return t.KeyStory, err
	}
	digits := id
	if t.Name = row.name; len(secrets) > 0 {
		t.Redacted, digits = secrets[0].redacted(), secrets[0].digits
	}
	g, why := a.table.grantOf(id, a.now())
	switch {
	case why == expired:
		err = t.expired(g.key, digits)
	case why == revoked:
		err = t.revoked(g.key)
	case why.passes():
		err = t.ruling(g, operation, cueID, cueName)
	}
	switch {
	case err != nil:
	case t.Code != "":
		err = t.count(t.Code, t.At, op.Time(t.now()))
	default:
		err = t.past(digits, from, to)
	}
	if err != nil {
		return t.KeyStory, fmt.Errorf("tell the story of key %s: %w", id, err)
	}
	return t.KeyStory, nil
}

// expired finds when the first of the key and those above it expired; all of these must go on, those above first.
func (t *teller) expired(k *key, digits string) error {
	t.Code = KeyExpired.Name
	for x := range k.chain() {
		row, err := readKey(t.tx, t.workspace, x.id())
		if err != nil {
			return err
		}
		if row.expires == 0 || row.expires > t.now() {
			continue
		}
		if at := op.Time(row.expires); t.At == 0 || at < t.At {
			t.At = at
		}
		name := x.id()
		if x == k {
			name = digits
		}
		t.Mend = append([]string{"unstuck keys extend " + name + " --by 7d"}, t.Mend...)
	}
	return nil
}

// revoked finds when the key, or one above it, was revoked. It stays so: the holder needs another.
func (t *teller) revoked(k *key) error {
	t.Code, t.Mend = KeyRevoked.Name, []string{"unstuck keys create " + shellQuoted(t.Name) + " --scope worker"}
	for x := range k.chain() {
		row, err := readKey(t.tx, t.workspace, x.id())
		if err != nil {
			return err
		}
		if row.revoked == 0 {
			continue
		}
		t.At = op.Time(row.revoked)
		last, err := t.last("key.revoke", x.id())
		if last != nil {
			t.By = last.Who.KeyName
		}
		return err
	}
	return nil
}

// ruling says what keeps a living key from an operation.
func (t *teller) ruling(g grant, operation, cueID, cueName string) error {
	i := slices.IndexFunc(t.ops, func(o *op.Operation) bool { return o.Name == operation })
	if i < 0 {
		return fmt.Errorf("there is no operation %s", operation)
	}
	c := &circumstances{now: t.Now().UTC(), anywhere: true, asked: true}
	refused, err := t.refusedSince(t.holder.Heard)
	if err != nil {
		return err
	}
	if refused != nil {
		c.via = refused.Via
		if addr, err := netip.ParseAddr(refused.IP); err == nil {
			c.addr, c.anywhere = addr, false
		}
	}
	r := g.rule(t.ops[i], c)
	r.obstacles = append(r.obstacles, g.key.blindTo(cueID, cueName, cueName, "")...)
	if t.holder.Worker != "" {
		r.obstacles = append(r.obstacles, g.key.notWorker(t.holder.Worker)...)
	}
	switch {
	case r.lacks != 0:
		t.Code, t.Lacks = InsufficientScope.Name, strings.Join(r.lacks.names(), ", ")
	case len(r.obstacles) > 0:
		t.Code, t.Lacks = KeyRestricted.Name, r.obstacles[0].kind
	default:
		return nil
	}
	for _, step := range t.table.grants(g.key, r) {
		t.Mend = append(t.Mend, step.command())
	}
	for x := range g.key.chain() {
		last, err := t.last("key.update", x.id())
		if err != nil {
			return err
		}
		if last != nil && last.At > t.At {
			t.At, t.By = last.At, last.Who.KeyName
		}
	}
	if refused != nil && t.At < t.holder.Heard { // the key is as it was, and its holder calls from elsewhere
		t.At, t.By = refused.At, ""
	}
	return nil
}

// refusedSince is the latest call of the operation that a restriction of the key refused after a moment; nil for none.
func (t *teller) refusedSince(at op.Time) (found *AuditRow, err error) {
	if at == 0 {
		return nil, nil
	}
	err = each(t.tx, sqlAuditTries, []any{t.workspace, t.id, KeyRestricted.Name, int64(at)}, func(r *sql.Rows) error {
		row, err := scanAudit(r)
		if found == nil && row.Operation == t.operation {
			found = &row
		}
		return err
	})
	return found, err
}

// last is the latest time that an operation was done to a key; nil when that is long ago.
func (t *teller) last(operation, key string) (found *AuditRow, err error) {
	args := []any{t.workspace, int64(math.MaxInt64), "", operation, key, t.now() - storyWithin, 20}
	err = each(t.tx, sqlAuditPage, args, func(r *sql.Rows) error {
		row, err := scanAudit(r)
		if found == nil && row.Result == Done {
			found = &row
		}
		return err
	})
	return found, err
}

// past finds what a key that would pass now was refused for between two moments. That its holder has an old secret of it is not over.
func (t *teller) past(digits string, from, to op.Time) error {
	for _, code := range []string{KeyRotated.Name, KeyExpired.Name, InsufficientScope.Name, KeyRestricted.Name} {
		if err := t.count(code, from, to); err != nil {
			return err
		}
		if t.Tries == 0 {
			continue
		}
		if t.Code, t.Over = code, code != KeyRotated.Name; !t.Over {
			t.Mend = []string{"unstuck keys rotate " + digits}
		}
		return nil
	}
	return nil
}

// count adds up the calls that were refused with a code between two moments: any call with a key that is over, and calls of the
// operation with one that stands.
func (t *teller) count(code string, from, to op.Time) error {
	living := code == InsufficientScope.Name || code == KeyRestricted.Name
	t.Tries, t.LastTry = 0, 0
	if now := op.Time(t.now()); to == now && !living {
		if t.Tries = t.refused.tries(t.id, code); t.Tries > 0 {
			t.LastTry = now
		}
	}
	return each(t.tx, sqlAuditTries, []any{t.workspace, t.id, code, int64(from)}, func(r *sql.Rows) error {
		row, err := scanAudit(r)
		if err == nil && row.At <= to && (!living || row.Operation == t.operation) {
			t.Tries, t.LastTry = t.Tries+row.Count, max(t.LastTry, row.At)
		}
		return err
	})
}

func scanAudit(r *sql.Rows) (row AuditRow, err error) {
	var body string
	if err = r.Scan(&body); err == nil {
		err = json.Unmarshal([]byte(body), &row)
	}
	if err != nil {
		return row, fmt.Errorf("read an audit row: %w", err)
	}
	return row, nil
}

// widenFlags are the flags of `unstuck keys widen` that add to a restriction.
var widenFlags = map[string]string{"ips": "--add-address", "cues": "--add-cue", "via": "--add-via", "worker_ids": "--add-worker"}

// command is the step as a command.
func (g Grant) command() string {
	if g.Member != "" {
		return "unstuck members update " + g.Member + " --role " + g.Role
	}
	out := "unstuck keys widen " + g.Key
	if len(g.AddPermissions) > 0 {
		out += " --add " + strings.Join(g.AddPermissions, ",")
	}
	for _, kind := range kinds {
		if entries := g.AddTo[kind]; len(entries) > 0 {
			out += " " + widenFlags[kind] + " " + shellQuoted(strings.Join(entries, ","))
		}
	}
	for _, kind := range g.DropRestrictions {
		out += " --drop " + kind
	}
	return out
}

// shellQuoted is a text as one word of a shell.
func shellQuoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
