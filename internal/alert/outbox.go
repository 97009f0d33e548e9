package alert

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
	"unstuck/internal/webhook"
)

// An alert is written into the outbox, for every channel of its workspace, in the transaction that raises it. From there it is sent
// until its channel takes it or its attempts are used up, under the same id each time.

const (
	sendAgain   = 4 * time.Minute // an alert of whose sending nothing is known after so long is sent again
	lookEvery   = time.Second
	ofWorkspace = 20  // alerts of a workspace that are under way by one kind of channel at the same time
	hooksAtOnce = 200 // webhooks that are taken out at once
	mailsAtOnce = 8   // messages on their way to the mail server
)

// sendRetry is how often an alert is sent by a channel, and when again: for most of a day.
var sendRetry = webhook.Retry{MaxAttempts: 8, Backoff: []time.Duration{
	time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour,
}}

// errorMost is how many characters are kept of what went wrong.
const errorMost = 500

// queue writes an alert into the outbox, by the channels that the query takes.
func (a *Alerts) queue(tx *db.Tx, query, id, workspace string, now op.Time) error {
	n, err := tx.Exec(query, id, workspace, now)
	if err != nil {
		return fmt.Errorf("write alert %s into the outbox: %w", id, err)
	}
	if n > 0 {
		tx.AfterCommit(a.wake)
	}
	return nil
}

func (a *Alerts) wake() {
	select {
	case a.woken <- struct{}{}:
	default:
	}
}

// sending is one alert on its way to one channel.
type sending struct {
	alert, kind, workspace string
	attempts               int64
	address                string // "" when the channel is no more
	set                    op.Time
	about                  Object
}

// ending is what became of an attempt.
type ending struct {
	*sending
	good   bool
	gone   bool          // the receiver wants no more, ever
	back   bool          // it was no attempt
	wait   time.Duration // that the receiver asked for, or until it can be tried
	status int           // of a webhook's answer; 0 for none
	answer string        // its first characters
	fault  string
}

// Run sends alerts until ctx ends.
func (a *Alerts) Run(ctx context.Context) error {
	defer a.post.stop()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		n, err := a.sendDue(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			a.Log.Error("alerts were not sent; it is tried again", "error", err)
		case n > 0:
			continue // others may be due behind these
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		case <-a.woken:
		}
	}
}

// sendDue begins to send what is due, and says how much that was.
func (a *Alerts) sendDue(ctx context.Context) (int, error) {
	total := 0
	for _, kind := range kinds() {
		most, busy := a.post.room(kind)
		if most == 0 {
			continue
		}
		due, err := a.take(ctx, kind, most, busy)
		if err != nil {
			return total, err
		}
		for i := range due {
			a.post.send(&due[i], a.end)
		}
		total += len(due)
	}
	return total, nil
}

// take takes some that are due, of each workspace in turn but for those that have enough under way. Who ends before it is known what
// became of them leaves them to be sent again.
func (a *Alerts) take(ctx context.Context, kind string, most int, busy []string) (due []sending, err error) {
	now, any := a.now(), false
	err = a.DB.View(ctx, func(tx *db.Tx) error { // before asking for a turn to write: mostly there is nothing to do
		var first op.Time
		there, err := found(tx.Row(sqlSendNext, kind).Scan(&first))
		any = there && first <= now
		return err
	})
	if err != nil || !any {
		return nil, err
	}
	err = a.DB.Update(ctx, func(tx *db.Tx) error {
		if due, err = readDue(tx, kind, now, most, busy); err != nil || len(due) == 0 {
			return err
		}
		ids := make([]string, len(due))
		for i := range due {
			ids[i] = due[i].alert
		}
		if _, err := tx.Exec(sqlSendTake, kind, ids, now+op.Time(sendAgain.Microseconds())); err != nil {
			return err
		}
		for i := range due {
			d := &due[i]
			if err := d.about.scan(tx.Row(sqlAlerts+" WHERE a.id = ?1", d.alert)); err != nil {
				return err
			}
			if _, err := found(tx.Row(sqlChannelAddress, d.workspace, kind).Scan(&d.address, &d.set)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("take alerts out of the outbox: %w", err)
	}
	return due, nil
}

func readDue(tx *db.Tx, kind string, now op.Time, most int, busy []string) (due []sending, err error) {
	rows, err := tx.Query(sqlSendsDue, kind, now, most, ofWorkspace, busy)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		s := sending{kind: kind}
		if err := rows.Scan(&s.alert, &s.workspace, &s.attempts); err != nil {
			return nil, err
		}
		due = append(due, s)
	}
	return due, rows.Err()
}

// end stores what became of attempts.
func (a *Alerts) end(all []ending) {
	now := a.now()
	err := a.DB.Update(context.Background(), func(tx *db.Tx) error {
		for i := range all {
			if err := all[i].save(tx, now); err != nil {
				return fmt.Errorf("store what became of alert %s: %w", all[i].alert, err)
			}
		}
		tx.AfterCommit(func() {
			for i := range all {
				a.tell(&all[i])
			}
		})
		return nil
	})
	if err != nil {
		a.Log.Error("what became of alerts was not stored; they are sent again", "error", err)
	}
}

// again is when it is tried next; false when it is given up.
func (e *ending) again(now op.Time) (op.Time, bool) {
	if e.gone || e.address == "" {
		return 0, false
	}
	wait, ok := sendRetry.After(int(e.attempts+1), e.wait, rand.Float64())
	return now + op.Time(wait.Microseconds()), ok
}

func (e *ending) save(tx *db.Tx, now op.Time) error {
	attempts, at, sent := e.attempts+1, op.Time(-1), op.Time(-1)
	switch {
	case e.back:
		_, err := tx.Exec(sqlSendEnd, e.alert, e.kind, e.attempts, now+op.Time(max(e.wait, time.Second).Microseconds()), op.Time(-1), e.fault)
		return err
	case e.good:
		sent = now
	default:
		if next, ok := e.again(now); ok {
			at = next
		}
	}
	if _, err := tx.Exec(sqlSendEnd, e.alert, e.kind, attempts, at, sent, e.fault); err != nil {
		return err
	}
	return e.saveChannel(tx, now)
}

// saveChannel notes whether the channel takes what is sent, unless it has another address now.
func (e *ending) saveChannel(tx *db.Tx, now op.Time) error {
	query := sqlChannelFailed
	if e.good {
		query = sqlChannelGood
	}
	_, err := tx.Exec(query, e.workspace, e.kind, e.address, now, e.fault)
	return err
}

// tell counts what became of an attempt, and logs what went wrong: an alert that gets lost is never silent.
func (a *Alerts) tell(e *ending) {
	result := "failed"
	switch _, again := e.again(0); {
	case e.back:
		return
	case e.good:
		result = "sent"
	case !again:
		result = "lost"
		a.Log.Error("an alert was given up: its channel does not take it", "alert", e.alert, "workspace", e.workspace, "channel", e.kind, "attempts", e.attempts+1, "error", e.fault)
	default:
		a.Log.Warn("an alert is sent again later: its channel did not take it", "alert", e.alert, "workspace", e.workspace, "channel", e.kind, "attempts", e.attempts+1, "error", e.fault)
	}
	if a.Observe != nil {
		a.Observe(e.kind, result)
	}
}

// Waiting is how many alerts are to be sent, now or later, for metrics; counted up to 10,000.
func (a *Alerts) Waiting(ctx context.Context) (n int64, err error) {
	err = a.DB.View(ctx, func(tx *db.Tx) error { return tx.Row(sqlAllWaiting, countMost).Scan(&n) })
	return n, err
}
