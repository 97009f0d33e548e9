package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// liveEvent is the data of one event of the live feed.
type liveEvent struct {
	Type         string    `json:"type"`
	At           time.Time `json:"at"`
	CueName      string    `json:"cue_name"`
	ExecutionID  string    `json:"execution_id"`
	ScheduledFor time.Time `json:"scheduled_for"`
	TriggeredBy  string    `json:"triggered_by"`
	WorkerID     string    `json:"worker_id"`
	Attempt      int64     `json:"attempt"`
	LeaseUntil   time.Time `json:"lease_until"`
	HTTPStatus   int64     `json:"http_status"`
	Status       string    `json:"status"`
	OutcomeState string    `json:"outcome_state"`
	Error        string    `json:"error"`
	RetryAt      time.Time `json:"retry_at"`
	Title        string    `json:"title"`
	Code         string    `json:"code"`
	Message      string    `json:"message"`
}

// watch shows what happens until the stream is refused, its time is over, or somebody stops it. Where the connection breaks it goes on
// after the last event, and says so.
func watch(r *run) error {
	if err := r.resolveAll(); err != nil {
		return err
	}
	c, err := r.client()
	if err != nil {
		return err
	}
	w := &watching{run: r, client: c}
	_, w.short = r.in["wait"]
	for pause := time.Duration(0); ; pause = min(max(time.Second, 2*pause), watchPauseMost) {
		again, err := w.once()
		switch {
		case r.ctx.Err() != nil:
			return nil
		case !again:
			return err
		case err == nil:
			pause = 0
		case !w.lost:
			w.lost = true
			r.say("Connection lost: %s Trying again…", sentence(strings.SplitN(strings.TrimPrefix(err.Error(), "Not reached: "), "\n", 2)[0]))
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-r.ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

const (
	watchPauseMost = 15 * time.Second // between two tries
	watchSilence   = 50 * time.Second // the server gives a sign of life every 15 seconds
)

// watching is one run of `unstuck watch`.
type watching struct {
	*run
	client *client
	began  bool // there was a stream
	lost   bool // the connection is lost, and that was said
	short  bool // the stream is to end by itself
}

// once shows one stream to its end. again says that another is to follow: at once without an error, else later.
func (w *watching) once() (again bool, err error) {
	ctx, hangUp := context.WithCancel(w.ctx)
	defer hangUp()
	silence := time.AfterFunc(watchSilence, hangUp)
	defer silence.Stop()
	res, err := w.client.open(ctx, w.op, w.in)
	if err != nil {
		var no *refusal
		if !errors.As(err, &no) {
			return w.began, brokenOff(w.ctx, ctx, err)
		}
		if w.began && (no.Status >= 500 || no.Status == http.StatusTooManyRequests) {
			return true, err
		}
		return false, w.refused(err)
	}
	defer res.Body.Close()
	w.greet()
	lines := bufio.NewReader(res.Body)
	var id, data string
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return true, brokenOff(w.ctx, ctx, err)
		}
		silence.Reset(watchSilence)
		name, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "id":
			id = value
		case "data":
			data = value
		}
		if strings.TrimRight(line, "\r\n") != "" {
			continue
		}
		if id != "" {
			w.in["Last-Event-ID"] = id
		}
		if data != "" {
			end, err := w.show(data)
			if end || err != nil {
				return !w.short && err == nil, err
			}
		}
		id, data = "", ""
	}
}

// brokenOff says why a stream broke off.
func brokenOff(whole, one context.Context, err error) error {
	switch {
	case whole.Err() == nil && one.Err() != nil:
		return fmt.Errorf("nothing was heard for %d seconds", int(watchSilence.Seconds()))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the stream broke off")
	}
	return err
}

func (w *watching) greet() {
	switch {
	case w.lost:
		w.say("Connected again.")
	case !w.began && !w.door.flags.quiet:
		of := ""
		if name := w.typed["cue"]; name != "" {
			of = ", cue " + name
		}
		w.say("Watching %s%s. Ctrl-C ends it.", w.client.url, of)
	}
	w.began, w.lost = true, false
}

// show prints one event; end says that the stream ends with it.
func (w *watching) show(data string) (end bool, err error) {
	var e liveEvent
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		return false, fmt.Errorf("read the server's answer: %w", err)
	}
	end = e.Type == "end"
	switch {
	case w.door.flags.json:
		fmt.Fprintf(w.Stdout, "%s\n", data)
	case e.Type == "gap":
		w.say("%s", inOurWords(e.Message))
	case end:
		if e.Code == "server_stopping" {
			w.say("The server stops. Trying again…")
			w.lost = true
		}
	case w.door.flags.quiet:
		if e.ExecutionID != "" {
			w.print("%s", e.ExecutionID)
		}
	default:
		w.print("%s", nameLine(strings.TrimRight(fmt.Sprintf("%s  %-9s  %-20s  %s  %s", w.clock(e.At), e.Type, e.CueName, firstOf(eight(e.ExecutionID), "        "), w.words(&e)), " ")))
	}
	return end, nil
}

// words says what is known of an event beside its cue and execution.
func (w *watching) words(e *liveEvent) string {
	switch e.Type {
	case "due":
		by := map[string]string{"manual_fire": ", fired by hand", "chain": ", fired by another cue", "replay": ", a replay"}[e.TriggeredBy]
		return "for " + w.clock(e.ScheduledFor) + by
	case "claimed":
		return fmt.Sprintf("by %s, attempt %d, until %s", e.WorkerID, e.Attempt, w.clock(e.LeaseUntil))
	case "delivered":
		return fmt.Sprintf("HTTP %d, attempt %d", e.HTTPStatus, e.Attempt)
	case "retrying":
		when := "now"
		if e.RetryAt.After(e.At) {
			when = "at " + w.clock(e.RetryAt)
		}
		return strings.TrimRight(e.Error, ".") + "; again " + when
	case "alert":
		return e.Title
	case "outcome":
		words := strings.ReplaceAll(e.Status, "_", " ")
		if e.OutcomeState != "" {
			words = stateWords(e.OutcomeState)
		}
		if e.Error != "" {
			words += ": " + e.Error
		}
		return words
	}
	return e.Message
}
