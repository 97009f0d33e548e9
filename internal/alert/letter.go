package alert

import (
	"fmt"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// failureType is that of a letter: an e-mail about one execution that failed, which a cue asked for. It is stored beside the alerts, so
// that the outbox delivers it as it delivers them, but it is none: it is over as soon as it is written, and no list shows it.
const failureType = "failure"

const (
	lettersAnHour  = 10              // of a workspace (CueAPI wire contract 3.6)
	hour           = op.Time(3600e6) // microseconds
	letterLookBack = 24 * hour       // how far back it is told how many were left out
)

// MailTrouble says in a sentence why nobody in a workspace gets letters, and what mends it; "" when somebody does.
func (a *Alerts) MailTrouble(tx *db.Tx, workspace string) (string, error) {
	if !a.Mail.On() {
		return "Nobody gets an e-mail about failures yet, because this server sends no mail: whoever runs it sets UNSTUCK_SMTP_HOST, and then unstuck alerts set email ops@example.com.", nil
	}
	there, err := a.takesMail(tx, workspace)
	if err != nil || there {
		return "", err
	}
	return "Nobody gets an e-mail about failures yet: unstuck alerts set email ops@example.com.", nil
}

func (a *Alerts) takesMail(tx *db.Tx, workspace string) (bool, error) {
	var address string
	var set op.Time
	there, err := found(tx.Row(sqlChannelAddress, workspace, byEmail).Scan(&address, &set))
	if err != nil {
		err = fmt.Errorf("read where e-mail of workspace %s goes: %w", workspace, err)
	}
	return there, err
}

// Letter writes an e-mail about an execution that failed to the address for alerts of its workspace, in the transaction of the failure;
// its type and message do not count. None is written where no address is set, and where an alert about the execution goes there
// already. A workspace gets ten within an hour: the tenth says so, and what is left out then is counted in the metrics, the log and the
// next letter.
func (a *Alerts) Letter(tx *db.Tx, n New, now op.Time) error {
	there, err := a.takesMail(tx, n.Workspace)
	if err != nil || !there {
		return err
	}
	var one int64
	if told, err := found(tx.Row(sqlAlertMailed, n.CueID, n.ExecutionID, now).Scan(&one)); err != nil || told {
		return err
	}
	before, err := readLetters(tx, n.Workspace, now)
	if err != nil {
		return fmt.Errorf("read the letters of workspace %s: %w", n.Workspace, err)
	}
	if before.full {
		return a.leaveOut(tx, &n, before.last)
	}
	w, err := n.Words()
	if err != nil {
		return fmt.Errorf("word a letter about execution %s: %w", n.ExecutionID, err)
	}
	w = w.plain()
	w.Body += before.words(now)
	n.Type = failureType
	id := db.NewUUID(now.Std())
	if err := a.write(tx, id, &n, warning, w, now, now); err != nil {
		return err
	}
	return a.queue(tx, sqlLetterSend, id, n.Workspace, now)
}

// letters are those of a workspace before another one.
type letters struct {
	last   string  // id of the latest; "" for none
	left   int64   // failures that were left out after it
	within int     // how many were written within the hour
	oldest op.Time // of those
	full   bool
}

func readLetters(tx *db.Tx, workspace string, now op.Time) (l letters, err error) {
	rows, err := tx.Query(sqlLetters, workspace, now-letterLookBack, lettersAnHour)
	if err != nil {
		return l, err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var count int64
		var at op.Time
		if err := rows.Scan(&id, &count, &at); err != nil {
			return l, err
		}
		if l.last == "" {
			l.last, l.left = id, count-1
		}
		if at > now-hour {
			l.within, l.oldest = l.within+1, at
		}
	}
	l.full = l.within >= lettersAnHour
	return l, rows.Err()
}

// words are what a letter says of others.
func (l *letters) words(now op.Time) string {
	out := ""
	if l.left > 0 {
		out = fmt.Sprintf("\n%d more %s before this one, without an e-mail of their own: there are %d an hour.\n  unstuck executions list --status failed\n", l.left, plural(l.left, "execution failed", "executions failed"), lettersAnHour)
	}
	if l.within == lettersAnHour-1 {
		out += fmt.Sprintf("\nThis is the %dth e-mail about a failure within an hour, so until %s there are no more.\n  unstuck executions list --status failed\n", lettersAnHour, When(l.oldest+hour, now))
	}
	return out
}

func plural(n int64, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

// leaveOut counts a failure of which no letter is written, with the latest letter.
func (a *Alerts) leaveOut(tx *db.Tx, n *New, last string) error {
	if _, err := tx.Exec(sqlLetterMore, last); err != nil {
		return fmt.Errorf("count a failure without a letter: %w", err)
	}
	tx.AfterCommit(func() {
		a.Log.Warn("a failure was not told by e-mail: its workspace had its e-mails of this hour", "workspace", n.Workspace, "execution", n.ExecutionID, "within", time.Hour, "most", lettersAnHour)
		if a.Observe != nil {
			a.Observe(byEmail, "left_out")
		}
	})
	return nil
}

// LetterOf is what became of the letter about an execution; nil when none was written.
func LetterOf(tx *db.Tx, cue, execution string) (*Delivery, error) {
	d := Delivery{Channel: byEmail}
	there, err := found(tx.Row(sqlLetterOf, cue, execution).Scan(&d.Attempts, &d.NextAt, &d.SentAt, &d.Error))
	if err != nil {
		return nil, fmt.Errorf("read the letter about execution %s: %w", execution, err)
	}
	if !there {
		return nil, nil
	}
	d.judge()
	return &d, nil
}
