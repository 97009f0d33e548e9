package alert

import (
	"context"
	"errors"
	"fmt"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

// KeyExpiring says that a key that is in use ends soon, or the old secret of one that was rotated.
const KeyExpiring = "key_expiring"

const (
	day      = 24 * time.Hour
	wake     = time.Minute // how often ends and old alerts are looked at
	keysSeen = 40 * day    // so long before its end a key is noted, without a word
	keysMost = 500         // keys that one transaction deals with
)

// stepsOf are how long before an end somebody is told of it (CUES, alerts).
func stepsOf(e access.KeyEnd) []time.Duration {
	if e.Old {
		return []time.Duration{2 * time.Hour}
	}
	return []time.Duration{30 * day, 7 * day, day}
}

// stepAt is the last of these steps that has come; 0 for none.
func stepAt(e access.KeyEnd, now op.Time) (step time.Duration) {
	for _, s := range stepsOf(e) {
		if time.Duration(e.At-now)*time.Microsecond <= s {
			step = s
		}
	}
	return step
}

// endID is which end of which key.
type endID struct {
	key string
	old bool
}

// noted is what was dealt with of an end. An end that is new, as when a key was made or extended, is noted with the step that has come
// by then: nobody is told of what somebody has just decided.
type noted struct {
	at   op.Time
	step time.Duration
}

// endChange is what there is to do about an end.
type endChange struct {
	access.KeyEnd
	was, is noted // .at is 0 where it was not noted, or is over
	tell    bool
}

// Tend looks at the ends of keys, and removes old alerts, until ctx ends.
func (a *Alerts) Tend(ctx context.Context) error {
	ticker := time.NewTicker(wake)
	defer ticker.Stop()
	for {
		if err := a.Settle(ctx); err != nil && ctx.Err() == nil {
			a.Log.Error("looking for keys that end soon and for old alerts failed; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// Settle does once what Tend does, and has Run look for what is due now.
func (a *Alerts) Settle(ctx context.Context) error {
	defer a.wake()
	return errors.Join(a.LookAtKeys(ctx), a.Forget(ctx))
}

// LookAtKeys raises an alert for each key in use of whose end a step has come, once for each step, and closes those about ends that are
// not to come any more. What was dealt with is noted in the same transaction.
func (a *Alerts) LookAtKeys(ctx context.Context) error {
	for {
		now, some := a.now(), []endChange{}
		look := func(tx *db.Tx) (err error) {
			some, err = a.endChanges(tx, now)
			return err
		}
		if err := a.DB.View(ctx, look); err != nil || len(some) == 0 { // before asking for a turn to write: mostly there is nothing to do
			return err
		}
		err := a.DB.Update(ctx, func(tx *db.Tx) error {
			if err := look(tx); err != nil {
				return err
			}
			for _, c := range some[:min(len(some), keysMost)] {
				if err := a.dealWith(tx, c, now); err != nil {
					return fmt.Errorf("deal with the end of key %s: %w", c.ID, err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// endChanges compares what ends with what was dealt with.
func (a *Alerts) endChanges(tx *db.Tx, now op.Time) (out []endChange, err error) {
	known, err := readEnds(tx)
	if err != nil {
		return nil, fmt.Errorf("read the ends of keys: %w", err)
	}
	for _, e := range a.Access.KeyEnds(now + op.Time(keysSeen.Microseconds())) {
		id, step := endID{e.ID, e.Old}, stepAt(e, now)
		was := known[id]
		delete(known, id)
		c := endChange{KeyEnd: e, was: was, is: noted{e.At, step}}
		switch {
		case was.at != e.At:
			out = append(out, c)
		case step != 0 && (was.step == 0 || step < was.step):
			c.tell = true
			out = append(out, c)
		}
	}
	for id, was := range known {
		out = append(out, endChange{KeyEnd: access.KeyEnd{ID: id.key, Old: id.old}, was: was})
	}
	return out, nil
}

func readEnds(tx *db.Tx) (map[endID]noted, error) {
	rows, err := tx.Query(sqlEnds)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[endID]noted{}
	for rows.Next() {
		var id endID
		var n noted
		var step int64
		if err := rows.Scan(&id.key, &id.old, &n.at, &step); err != nil {
			return nil, err
		}
		n.step = time.Duration(step) * time.Microsecond
		out[id] = n
	}
	return out, rows.Err()
}

// dealWith notes a change, tells of it, and closes what was said before.
func (a *Alerts) dealWith(tx *db.Tx, c endChange, now op.Time) error {
	if c.was.at != 0 {
		if _, err := tx.Exec(sqlKeyOver, c.ID, c.was.at, now); err != nil {
			return err
		}
	}
	if c.is.at == 0 {
		_, err := tx.Exec(sqlEndDrop, c.ID, c.Old)
		return err
	}
	if _, err := tx.Exec(sqlEndSet, c.ID, c.Old, c.is.at, c.is.step.Microseconds()); err != nil || !c.tell {
		return err
	}
	k, err := a.Access.EndingKey(tx, c.KeyEnd)
	if err != nil || k.Used == nil {
		return err
	}
	if _, err := tx.Exec(sqlKeyOver, c.ID, 0, now); err != nil { // of a key one is open at most: the latest
		return err
	}
	n := New{
		Workspace: c.Workspace, Type: KeyExpiring, KeyID: c.ID, Since: c.At,
		Metadata: map[string]any{"key_name": k.Name, "ends_at": c.At, "old_secret": c.Old, "days_before": float64(c.is.step) / float64(day)},
	}
	words := keyWords(c, k, now)
	n.Message = words.Title + "."
	n.Words = func() (Words, error) { return words, nil }
	return a.Raise(tx, n, now)
}

// keyWords are what people are told.
func keyWords(c endChange, k access.EndingKey, now op.Time) Words {
	used := fmt.Sprintf("  %s   last used", at(*k.Used, now, " UTC"))
	if k.By != "" {
		used += " by " + k.By
	}
	end := "until " + When(c.At, now)
	if !c.Old {
		return Words{
			Title: fmt.Sprintf("key %s (%s) expires at %s and is in use", k.Name, k.Redacted, When(c.At, now)),
			Body: used + "\n\nMend it\n  1  unstuck keys extend " + k.Digits + " --by 90d   its holders need no change\n  2  unstuck keys rotate " + k.Digits +
				" --expires 90d   a new secret, which its holders need " + end + "\n",
		}
	}
	return Words{
		Title: fmt.Sprintf("the old secret of key %s (now %s) ends at %s and is still in use", k.Name, k.Redacted, When(c.At, now)),
		Body:  used + "\n\nMend it\n  1  give that program the new secret " + end + "\n  2  unstuck keys get " + k.Digits + "   who still uses the old one\n",
	}
}
