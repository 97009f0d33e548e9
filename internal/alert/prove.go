package alert

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

// testType is what a test message says it is; none is stored.
const testType = "test"

// TestLimit keeps test messages from being used to write to somebody who does not want them.
var TestLimit = op.Code{Status: 429, Name: "test_limit_exceeded", Doc: "A workspace sends at most 30 test messages an hour, and an e-mail address gets at most 10, whoever sends them. Wait as many seconds as Retry-After says."}

const (
	testsAnHour = 30 // of a workspace
	testsTo     = 10 // an e-mail address in an hour, from all workspaces: whoever signs up anew begins no new count
)

// hourly counts what goes out within an hour, by whatever it is counted by. The zero value is ready.
type hourly struct {
	mu    sync.Mutex
	began time.Time
	sent  map[string]int
}

// take takes n out of an hour's most, or says how long until the next hour begins.
func (h *hourly) take(of string, n, most int, now time.Time) (wait time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sent == nil || now.Sub(h.began) >= time.Hour || now.Before(h.began) {
		h.began, h.sent = now, map[string]int{}
	}
	if h.sent[of]+n > most {
		return h.began.Add(time.Hour).Sub(now)
	}
	h.sent[of] += n
	return 0
}

// giveBack is for one that was taken out and did not arrive.
func (h *hourly) giveBack(of string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sent[of] = max(h.sent[of]-1, 0)
}

// mayTest refuses test messages when there were enough within the hour.
func (a *Alerts) mayTest(workspace string, all []channel) error {
	now := a.Now()
	wait, text := a.tests.take(workspace, len(all), testsAnHour, now), fmt.Sprintf("This workspace has sent %d test messages within an hour", testsAnHour)
	for _, c := range all {
		if c.kind == byEmail && wait == 0 {
			wait, text = a.tests.take(mailbox(c.address), 1, testsTo, now), fmt.Sprintf("%s has got %d test messages within an hour", c.address, testsTo)
		}
	}
	if wait == 0 {
		return nil
	}
	e := TestLimit.Msg("%s. Try again later.", text)
	e.Header = http.Header{"Retry-After": {strconv.FormatInt(int64(wait/time.Second)+1, 10)}}
	return e
}

// mailbox is what e-mail to an address is counted by.
func mailbox(address string) string { return strings.ToLower(address) }

type testInput struct {
	Channel op.Opt[string] `json:"channel" enum:"webhook|email" doc:"only this one; all that are set when absent"`
}

// Tested is what a channel said to a test message.
type Tested struct {
	Channel   string `json:"channel"`
	Address   string `json:"address" doc:"of a webhook without its path"`
	Delivered bool   `json:"delivered" doc:"it took the message: it is proved"`
	Status    *int   `json:"http_status" doc:"of a webhook's answer; null for none"`
	Answer    string `json:"answer" doc:"the beginning of what a webhook answered"`
	Error     string `json:"error" doc:"why it did not take it"`
}

type testOutput struct {
	Tested []Tested `json:"tested"`
}

// test sends a message by channels, now, and keeps which of them took it.
func (a *Alerts) test(ctx context.Context, in testInput) (out testOutput, err error) {
	c := access.From(ctx)
	all, name, err := a.toTest(ctx, in.Channel.Val)
	if err != nil {
		return out, err
	}
	if err := a.mayTest(c.Workspace(), all); err != nil {
		return out, err
	}
	ends := make(chan ending, len(all))
	for i := range all {
		s := &sending{kind: all[i].kind, workspace: c.Workspace(), address: all[i].address, about: a.testMessage(name)}
		s.alert = s.about.ID
		a.post.send(s, func(e []ending) { ends <- e[0] })
	}
	byKind := map[string]ending{}
	for range all { // each comes: its attempt has a timeout
		e := <-ends
		byKind[e.kind] = e
	}
	out.Tested = []Tested{}
	for i := range all {
		out.Tested = append(out.Tested, tested(byKind[all[i].kind]))
	}
	return out, a.DB.Update(ctx, func(tx *db.Tx) error {
		for _, t := range out.Tested {
			e := byKind[t.Channel]
			if err := a.saveTest(tx, &e, t); err != nil {
				return fmt.Errorf("keep what became of a test message: %w", err)
			}
		}
		return nil
	})
}

// toTest are the channels to test, and the name of the workspace.
func (a *Alerts) toTest(ctx context.Context, kind string) (out []channel, name string, err error) {
	workspace := access.From(ctx).Workspace()
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		set, err := readChannels(tx, workspace)
		if err != nil {
			return err
		}
		for _, k := range kinds() {
			for _, c := range set {
				if c.kind == k && (kind == "" || kind == k) {
					out = append(out, c)
				}
			}
		}
		return tx.Row(sqlWorkspaceName, workspace).Scan(&name)
	})
	if err == nil && len(out) == 0 {
		err = NoChannel.Msg("No channel is set, so alerts go nowhere. Set a webhook or an e-mail address first.")
		if kind != "" {
			err = NoChannel.Msg("No %s is set for alerts.", kind)
		}
	}
	return out, name, err
}

func (a *Alerts) testMessage(workspace string) Object {
	now := a.now()
	title := fmt.Sprintf("Test: alerts of the workspace %s reach you here", workspace)
	return Object{
		ID: db.NewUUID(now.Std()), AlertType: testType, Severity: info, Title: title, Text: title + "\n\nNothing is wrong. Somebody tried out where alerts go, with unstuck alerts test.",
		Message: "This is a test message.", Metadata: op.Object("{}"), CreatedAt: now, LastAt: now,
	}
}

func tested(e ending) Tested {
	t := Tested{Channel: e.kind, Address: shown(e.kind, e.address), Delivered: e.good, Answer: e.answer, Error: e.fault}
	if e.status != 0 {
		t.Status = &e.status
	}
	if e.back && e.fault == "" {
		t.Error = "it was not sent: the server has too much to do, or stops. Try again"
	}
	return t
}

func (a *Alerts) saveTest(tx *db.Tx, e *ending, t Tested) error {
	now := a.now()
	if e.good {
		if _, err := tx.Exec(sqlChannelProved, e.workspace, e.kind, e.address, now); err != nil {
			return err
		}
	}
	if !e.back {
		if err := e.saveChannel(tx, now); err != nil {
			return err
		}
	}
	return access.Record(tx, access.Event{Object: "alert_channel", ID: e.kind, Name: t.Address, Detail: map[string]any{"delivered": e.good}})
}
