package cue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"unstuck/internal/alert"
	"unstuck/internal/db"
	"unstuck/internal/op"
	"unstuck/internal/webhook"
)

// notice tells the address that a cue names for its failures that an execution failed for good (CueAPI wire contract 3.6). Other than
// there it is signed, goes only where callbacks may go, and is sent again: it is written with the failure, in one transaction.
type notice struct {
	id, workspace, cueID, execution string
	url, body                       string
	attempts                        int64
}

func (n *notice) scan(r scanner) error {
	return r.Scan(&n.id, &n.workspace, &n.cueID, &n.execution, &n.url, &n.body, &n.attempts)
}

const (
	noticeTimeout = 10 * time.Second
	noticeAgain   = 2 * time.Minute     // a notice of whose sending nothing is known after so long is sent again
	noticesAtOnce = 50                  // of one round, and of one workspace
	noticesFor    = 30 * 24 * time.Hour // how long it is known what became of one
	errorMost     = 500                 // characters of last_error
	failedEvent   = "cue.failed"        // the only one
)

// noticeRetry is how often a notice is sent, and when again.
var noticeRetry = webhook.Retry{MaxAttempts: 5, Backoff: []time.Duration{time.Minute, 5 * time.Minute, time.Hour}}

// failureBody is what a notice says.
type failureBody struct {
	Event       string        `json:"event"`
	CueID       string        `json:"cue_id"`
	CueName     string        `json:"cue_name"`
	ExecutionID string        `json:"execution_id"`
	Attempts    int64         `json:"attempts"`
	HTTPStatus  *int64        `json:"last_http_status"`
	Error       string        `json:"last_error"`
	FailedAt    op.OffsetTime `json:"failed_at"`
	Dashboard   *string       `json:"dashboard_url"` // CueAPI's; always null
}

// tellFailure writes the notice of an execution that has failed for good, if its cue names an address.
func (c *Cues) tellFailure(tx *db.Tx, execution string, at op.Time) error {
	n := &notice{id: newUUID(at), execution: execution}
	b := failureBody{Event: failedEvent, ExecutionID: execution, FailedAt: op.OffsetTime(at)}
	var message *string
	err := tx.Row(sqlNoticeOf, execution).Scan(&n.workspace, &n.cueID, &b.CueName, &n.url, &b.Attempts, &b.HTTPStatus, &message)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read what is to be told of execution %s: %w", execution, err)
	}
	cut(message, errorMost)
	b.CueID, b.Error = n.cueID, text(message)
	body, err := webhook.Body(op.Marshal(b))
	if err != nil {
		return fmt.Errorf("write what is told of execution %s: %w", execution, err)
	}
	if _, err := tx.Exec(sqlNoticesForget, n.cueID, in(at, -noticesFor)); err != nil {
		return fmt.Errorf("forget old notices of cue %s: %w", n.cueID, err)
	}
	if _, err := tx.Exec(sqlNoticeAdd, n.id, n.workspace, n.cueID, n.execution, n.url, string(body), at); err != nil {
		return fmt.Errorf("store the notice of execution %s: %w", execution, err)
	}
	tx.AfterCommit(func() {
		select {
		case c.noticed <- struct{}{}:
		default:
		}
	})
	return nil
}

// mailFailure writes an e-mail about an execution that has failed for good, after the alert that may say the same. paused says that its
// cue was paused for that.
func (c *Cues) mailFailure(tx *db.Tx, id string, paused bool, at op.Time) error {
	e := &execution{}
	if err := e.scan(tx.Row(sqlExecutions+" WHERE e.id = ?1", id)); err != nil {
		return fmt.Errorf("read execution %s: %w", id, err)
	}
	return c.Alerts.Letter(tx, alert.New{
		Workspace: e.workspace, CueID: e.cueID, CueName: e.cueName, ExecutionID: e.id, Since: e.scheduledFor,
		Words: func() (alert.Words, error) {
			w, err := c.alertWords(tx, e, "", 0, at)
			if paused {
				w.Body += "\nThe cue is paused now, as it asks for when one fails. When it is mended:\n  unstuck cues resume " + shellQuoted(e.cueName) + "\n"
			}
			return w, err
		},
	}, at)
}

// mailTrouble is why nobody gets the e-mails that a cue asks for; "" when it asks for none, or somebody does.
func (c *Cues) mailTrouble(tx *db.Tx, q *cue) (string, error) {
	if !q.failureMail {
		return "", nil
	}
	return c.Alerts.MailTrouble(tx, q.workspace)
}

// telling are the workspaces of which notices are being sent. The zero value is ready.
type telling struct {
	turn    sync.Mutex // from taking notices until all of them are in batches
	batches sync.WaitGroup
	mu      sync.Mutex
	busy    map[string]bool
}

// begin sends a batch of a workspace, which gets no other until its end: whose receivers hang keeps nobody else waiting.
func (t *telling) begin(workspace string, tell func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy == nil {
		t.busy = map[string]bool{}
	}
	t.busy[workspace] = true
	t.batches.Go(func() {
		tell()
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.busy, workspace)
	})
}

func (t *telling) workspaces() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.busy))
}

// noticeLoop sends what is to be told until ctx ends.
func (c *Cues) noticeLoop(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	defer c.telling.batches.Wait()
	for {
		n, err := c.sendNotices(ctx)
		if err != nil && ctx.Err() == nil {
			c.Log.Error("telling of failures failed; it is tried again", "error", err)
		}
		if n > 0 && ctx.Err() == nil {
			continue // others may be due behind these
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-c.noticed:
		}
	}
}

// sendNotices begins to send those that are due. It returns how many there were.
func (c *Cues) sendNotices(ctx context.Context) (int, error) {
	c.telling.turn.Lock()
	defer c.telling.turn.Unlock()
	due, err := c.takeNotices(ctx, c.now())
	of := map[string][]*notice{}
	for i := range due {
		of[due[i].workspace] = append(of[due[i].workspace], &due[i])
	}
	for workspace, batch := range of {
		c.telling.begin(workspace, func() {
			if err := c.tell(context.WithoutCancel(ctx), batch); err != nil {
				c.Log.Error("what became of notices of failures was not stored; they are sent again", "error", err)
			}
		})
	}
	return len(due), err
}

// tell sends a batch and stores what became of it.
func (c *Cues) tell(ctx context.Context, batch []*notice) error {
	ends := make(chan noticeEnd, len(batch))
	for _, n := range batch {
		c.courier.post.notify(n, func(r *result) { ends <- noticeEnd{n, r} })
	}
	all := make([]noticeEnd, 0, len(batch))
	for range batch {
		all = append(all, <-ends) // each comes: its attempt has a timeout, and a sender that stops gives all back
	}
	return c.DB.Update(ctx, func(tx *db.Tx) error {
		for _, e := range all {
			if err := e.save(tx, c.now()); err != nil {
				return fmt.Errorf("store what became of notice %s: %w", e.id, err)
			}
		}
		return nil
	})
}

// takeNotices takes some that are due, of workspaces that wait for none. Who ends before it is known what became of them leaves them to be sent again.
func (c *Cues) takeNotices(ctx context.Context, now op.Time) (due []notice, err error) {
	any, busy := false, c.telling.workspaces()
	err = c.DB.View(ctx, func(tx *db.Tx) error { // before asking for a turn to write: mostly there is nothing to do
		var first op.Time
		there, err := found(tx.Row(sqlNoticeNext, busy).Scan(&first))
		any = there && first <= now
		return err
	})
	if err != nil || !any {
		return nil, err
	}
	err = c.DB.Update(ctx, func(tx *db.Tx) error {
		rows, err := tx.Query(sqlNoticesDue, now, noticesAtOnce, busy)
		if due, err = scanAll(rows, err, (*notice).scan); err != nil || len(due) == 0 {
			return err
		}
		ids := make([]string, len(due))
		for i := range due {
			ids[i] = due[i].id
		}
		_, err = tx.Exec(sqlNoticesTake, ids, in(now, noticeAgain))
		return err
	})
	return due, err
}

// noticeEnd is what became of an attempt to tell.
type noticeEnd struct {
	*notice
	*result
}

func (e noticeEnd) save(tx *db.Tx, now op.Time) error {
	attempts, again, told, message := e.attempts+1, op.Time(-1), op.Time(-1), e.message
	switch {
	case e.back:
		attempts, again = e.attempts, max(e.until, in(now, time.Second))
	case e.good:
		told, message = now, ""
	case !e.gone:
		if wait, ok := noticeRetry.After(int(attempts), e.retryAfter, 0); ok {
			again = in(now, wait)
		}
	}
	_, err := tx.Exec(sqlNoticeEnd, e.notice.id, attempts, again, told, message)
	return err
}

// notices adds to an inquiry what was told of an execution.
func (w *inquiry) notices(e *execution) error {
	if err := w.notice(e); err != nil || w.alerting {
		return err
	}
	d, err := alert.LetterOf(w.tx, e.cueID, e.id)
	switch {
	case err != nil || d == nil:
		return err
	case d.SentAt != nil:
		w.fact(*d.SentAt, "told of by e-mail")
	case d.NextAt == nil:
		w.fact(w.now, "not told of by e-mail, after %d attempts: %s", d.Attempts, d.Error)
	case d.Attempts > 0:
		w.fact(*d.NextAt, "the e-mail about it is sent again: %s", d.Error)
	default:
		w.fact(*d.NextAt, "an e-mail about it is sent")
	}
	return nil
}

func (w *inquiry) notice(e *execution) error {
	var url, message string
	var told, again *op.Time
	var attempts int64
	there, err := found(w.tx.Row(sqlNoticeTold, e.cueID, e.id).Scan(&url, &attempts, &again, &told, &message))
	switch {
	case err != nil || !there:
		return err
	case told != nil:
		w.fact(*told, "told %s of the failure", url)
	case again != nil && attempts > 0:
		w.fact(*again, "%s is told of the failure again: %s", url, message)
	case again != nil:
		w.fact(*again, "%s is told of the failure", url)
	default:
		w.fact(w.now, "%s was not told of the failure, after %d attempts: %s", url, attempts, message)
	}
	return nil
}

// applyFailure puts into a cue what happens when it fails.
func (d *definition) applyFailure(q *cue) error {
	if d.failing != nil {
		return d.failing
	}
	q.pauseOnFailure, q.failureWebhook, q.failureMail = d.OnFailure.Val.Pause, d.OnFailure.Val.Webhook.Val, d.OnFailure.Val.Email
	return nil
}

// lookFailure finds out whether the address that is told of failures may be called; see look.
func (d *definition) lookFailure(ctx context.Context, c *Cues) {
	url := d.OnFailure.Val.Webhook.Val
	if url == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, resolveWithin)
	defer cancel()
	if err := c.Callbacks.Check(ctx, url); err != nil {
		d.failing = InvalidCallbackURL.Msg("on_failure.webhook: %v", err)
	}
}
