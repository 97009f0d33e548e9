package alert

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/mail"
	"unstuck/internal/op"
	"unstuck/internal/webhook"
)

const (
	hookTimeout = 10 * time.Second // CueAPI wire contract 2.7
	stopWithin  = 5 * time.Second  // what is on its way when the server stops gets so long to arrive
	mailsTo     = 100              // an address in an hour; what is more waits, so that nobody's mailbox is flooded
	hooksMost   = 32 << 20         // bytes of webhooks in memory
	answerMost  = 200              // characters of an answer that are shown
)

// post is what is on its way to channels.
type post struct {
	a      *Alerts
	start  sync.Once
	sender *webhook.Sender // from the first webhook on
	ctx    context.Context // of messages to the mail server
	cancel context.CancelFunc
	mails  sync.WaitGroup

	mu     sync.Mutex
	flying map[string]map[string]int // how many are on their way, by kind and workspace
}

func (p *post) open(a *Alerts) {
	p.a, p.flying = a, map[string]map[string]int{byWebhook: {}, byEmail: {}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
}

// stop lets arrive what is on its way, and gives the rest back.
func (p *post) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	p.start.Do(func() {}) // nothing begins from now on
	if p.sender != nil {
		p.sender.Stop(ctx)
	}
	hurry := context.AfterFunc(ctx, p.cancel)
	p.mails.Wait()
	hurry()
	p.cancel()
}

// room is how many may be begun by a kind of channel, and the workspaces that have enough under way.
func (p *post) room(kind string) (most int, busy []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := 0
	for workspace, n := range p.flying[kind] {
		if all += n; n >= ofWorkspace {
			busy = append(busy, workspace)
		}
	}
	if kind == byEmail {
		return max(mailsAtOnce-all, 0), busy
	}
	return hooksAtOnce, busy
}

func (p *post) count(s *sending, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	of := p.flying[s.kind]
	if of[s.workspace] += n; of[s.workspace] == 0 {
		delete(of, s.workspace)
	}
}

// send begins an attempt; done gets what became of it.
func (p *post) send(s *sending, done func([]ending)) {
	p.count(s, 1)
	over := func(e ending) {
		p.count(s, -1)
		e.fault, _ = access.Redact(cut(e.fault, errorMost))
		done([]ending{e})
	}
	switch {
	case s.address == "":
		over(ending{sending: s, fault: "the channel was removed"})
	case s.kind == byEmail:
		if wait := p.a.mailed.take(mailbox(s.address), 1, mailsTo, p.a.Now()); wait > 0 {
			p.a.Log.Warn("an e-mail waits: its address got as many within an hour as it may", "alert", s.alert, "workspace", s.workspace, "most", mailsTo)
			over(ending{sending: s, back: true, wait: wait, fault: fmt.Sprintf("this address got %d e-mails within an hour; this one waits", mailsTo)})
			return
		}
		p.mails.Go(func() {
			e := p.mail(s)
			if !e.good {
				p.a.mailed.giveBack(mailbox(s.address))
			}
			over(e)
		})
	default:
		p.hook(s, over)
	}
}

// mail hands an alert to the mail server.
func (p *post) mail(s *sending) ending {
	err := p.a.Mail.Send(p.ctx, mail.Message{ID: s.alert + "." + s.kind, To: s.address, Subject: s.about.Title, Text: letter(&s.about)})
	switch {
	case err == nil:
		return ending{sending: s, good: true}
	case p.ctx.Err() != nil:
		return ending{sending: s, back: true}
	}
	return ending{sending: s, fault: err.Error()}
}

// hook hands an alert to the sender of webhooks.
func (p *post) hook(s *sending, over func(ending)) {
	secret, err := p.a.Access.AlertSecret(context.Background(), s.workspace)
	if err != nil {
		p.a.Log.Error("an alert waits because it cannot be signed", "alert", s.alert, "error", err)
		over(ending{sending: s, back: true})
		return
	}
	body, err := webhook.Body(op.Marshal(bodyOf(&s.about)))
	if err != nil { // what is stored cannot be sent
		over(ending{sending: s, fault: "The request could not be made: " + err.Error()})
		return
	}
	p.start.Do(func() {
		p.sender = webhook.NewSender(webhook.Options{Client: p.a.Callbacks.Client(), Done: finish, Now: p.a.Now, MaxWaiting: hooksMost})
	})
	workspace := s.workspace
	if s.about.AlertType == testType {
		workspace += "/test" // it is tried now, also when the address rests
	}
	sent := p.sender != nil && p.sender.Offer(&webhook.Job{
		ID: s.alert, Workspace: workspace, Method: http.MethodPost, URL: s.address, Body: body, Secrets: []string{secret}, Timeout: hookTimeout,
		Header: http.Header{"X-CueAPI-Alert-Id": {s.alert}, "X-CueAPI-Alert-Type": {s.about.AlertType}},
		Tag:    func(r *webhook.Result) { over(result(s, r)) },
	})
	if !sent {
		over(ending{sending: s, back: true})
	}
}

// finish takes results from the sender.
func finish(all []webhook.Result) {
	for i := range all {
		all[i].Job.Tag.(func(*webhook.Result))(&all[i])
	}
}

func result(s *sending, r *webhook.Result) ending {
	e := ending{sending: s, wait: r.Wait, status: r.Status, fault: r.Message}
	switch {
	case r.Class == webhook.Unsent, errors.Is(r.Err, webhook.ErrStopped):
		e.back = true
	case r.Class == webhook.Delivered:
		e.good = true
	default:
		e.gone = r.Class == webhook.Gone
	}
	answer := strings.ToValidUTF8(string(r.Body[:min(len(r.Body), 4*answerMost)]), "\ufffd")
	answer, _ = access.Redact(strings.Map(printable, answer))
	e.answer = cut(strings.TrimSpace(answer), answerMost)
	if !e.good && !e.back && e.answer != "" && e.status != 0 {
		e.fault = cmp.Or(e.fault, "It did not take it") + ": " + e.answer // Slack and Discord say there what they miss
	}
	return e
}

// printable makes a space of what is no letter on a line.
func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return ' '
	}
	return r
}

// cut is the beginning of a text, of so many characters at most.
func cut(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}
