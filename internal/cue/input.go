package cue

import (
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"unstuck/internal/cron"
	"unstuck/internal/op"
)

// scheduleInput says when a cue is due. What does not fit together is refused by its operation, as CueAPI's clients expect.
type scheduleInput struct {
	Type     string          `json:"type" doc:"once or recurring"`
	Cron     op.Opt[string]  `json:"cron" max:"100" doc:"of recurring: minute hour day month weekday, like */5 * * * *"`
	At       op.Opt[op.Time] `json:"at" doc:"of once: a moment in the future, UTC unless it has an offset"`
	Timezone op.Opt[string]  `json:"timezone" max:"50" doc:"IANA name, like Europe/Berlin; UTC when never given"`
}

type callbackInput struct {
	URL       op.Opt[string]            `json:"url" format:"url"`
	Method    op.Opt[string]            `json:"method" enum:"POST|GET|PUT|PATCH" doc:"POST when never given"`
	Headers   op.Opt[map[string]string] `json:"headers" secrets:"may" doc:"replace those before; the value *** keeps the one that is stored"`
	Transport op.Opt[op.Value]          `json:"transport" doc:"refused: transport stands at the top level"`
}

type retryInput struct {
	MaxAttempts    int64   `json:"max_attempts" default:"3" min:"1" max:"10" doc:"how often an execution is handed out, or its callback called, at most"`
	BackoffMinutes []int64 `json:"backoff_minutes" default:"[1,5,15]" max:"100" doc:"of webhooks: the wait before the second attempt, the third and so on; the last one repeats. Workers take an execution again as soon as its lease is over"`
}

type onFailureInput struct {
	Email   bool           `json:"email" default:"false" doc:"an e-mail to the workspace's address for alerts when an execution was missed or failed for good without a report; at most 10 an hour, and none where an alert about it goes there"`
	Webhook op.Opt[string] `json:"webhook" max:"2083" doc:"address that is told, by a signed POST, when an execution was missed or failed for good without a report"`
	Pause   bool           `json:"pause" default:"false" doc:"pause a recurring cue when an execution was missed or failed for good without a report"`
}

// definition are the inputs that create and update share.
type definition struct {
	Description  op.Opt[string]            `json:"description"`
	Schedule     op.Opt[scheduleInput]     `json:"schedule"`
	Callback     op.Opt[callbackInput]     `json:"callback" doc:"the address that a webhook calls; workers are not called"`
	Payload      op.Opt[op.Object]         `json:"payload" doc:"what the worker or the callback gets; its members task and agent choose the worker. It holds no API key of this server"`
	Retry        op.Opt[retryInput]        `json:"retry"`
	Delivery     op.Opt[deliveryInput]     `json:"delivery" doc:"of webhooks; members that are not given keep their values"`
	Alerts       op.Opt[alertsInput]       `json:"alerts" doc:"when alerts are raised; members that are not given keep their values"`
	OnFailure    op.Opt[onFailureInput]    `json:"on_failure"`
	Verification op.Opt[verificationInput] `json:"verification"`
	CatchUp      op.Opt[string]            `json:"catch_up" enum:"run_once_if_missed|skip_missed|replay_all_missed|replay_all" doc:"due times that were missed. run_once_if_missed: the latest fires, the others are merged into it; skip_missed: those late by more than a minute are skipped; replay_all_missed, or replay_all: each fires, the latest 100 of them"`

	NeedsOver  op.Opt[bool]     `json:"require_payload_override" doc:"a fire by hand must bring a payload_override; the schedule fires the cue's own payload"`
	NeededKeys op.Opt[[]string] `json:"required_payload_keys" max:"50" doc:"members that the payload of a fire by hand must have, after its override; an empty list asks for none"`
	OnSuccess  op.Clear[string] `json:"on_success_fire" max:"255" doc:"id or name of the cue that is fired whenever an execution of this one succeeds; null or an empty text for none. Cues may not fire each other in a circle"`

	host    string // the server's own name, as the caller wrote it
	failing error  // why the address for failures may not be called
	call    error  // why the new address of the callback may not be called; see look
}

// shape refuses what contradicts itself.
func (d *definition) shape() error {
	if cb := d.Callback.Val; cb.Transport.Set && string(cb.Transport.Val) != `""` {
		return op.Invalid("body", "Value error, transport must be specified at the top level, not inside callback")
	}
	for i, m := range d.Retry.Val.BackoffMinutes {
		if m < 0 || m > maxBackoff {
			return op.Invalid("body.retry.backoff_minutes."+strconv.Itoa(i), "Input should be from 0 to %d minutes", maxBackoff)
		}
	}
	for i, name := range d.NeededKeys.Val {
		if name == "" || len(name) > neededKeyMost {
			return op.Invalid("body.required_payload_keys."+strconv.Itoa(i), "Value error, a name has from 1 to %d bytes", neededKeyMost)
		}
	}
	return nil
}

const maxBackoff = 30 * 24 * 60 // minutes: thirty days

// apply puts what was given into a cue, in the order in which CueAPI checks it (wire contract 2.3).
func (d *definition) apply(c *Cues, q *cue, now op.Time) error {
	if d.Callback.Set {
		if err := d.applyCallback(c, q); err != nil {
			return err
		}
	}
	if d.Payload.Set {
		if err := checkPayload(d.Payload.Val); err != nil {
			return err
		}
		q.setPayload(string(d.Payload.Val))
	}
	if d.Schedule.Set {
		if err := d.Schedule.Val.apply(q, now); err != nil {
			return err
		}
	}
	if d.Description.Set {
		q.description = &d.Description.Val
	}
	if d.CatchUp.Set {
		if q.catchUp = d.CatchUp.Val; q.catchUp == replayAllShort {
			q.catchUp = replayAll
		}
	}
	if d.Delivery.Set {
		if q.transport != transportWebhook {
			return op.Invalid("body.delivery", "Value error, delivery is about webhooks; workers pull the executions of this cue")
		}
		if err := d.Delivery.Val.apply(q); err != nil {
			return err
		}
	}
	if d.Alerts.Set {
		d.Alerts.Val.apply(q)
	}
	if r := d.Retry.Val; d.Retry.Set {
		q.maxAttempts, q.backoff = r.MaxAttempts, string(op.Marshal(r.BackoffMinutes))
	}
	if d.OnFailure.Set {
		if err := d.applyFailure(q); err != nil {
			return err
		}
	}
	if d.NeedsOver.Set {
		q.needs.override = d.NeedsOver.Val
	}
	if d.NeededKeys.Set {
		q.needs.set(d.NeededKeys.Val)
	}
	if d.Verification.Set {
		p, err := d.Verification.Val.policy()
		if err != nil {
			return err
		}
		q.verification = ptr(p.String())
	}
	return nil
}

// apply puts a schedule into a cue. A time zone that is not given stays.
func (s *scheduleInput) apply(q *cue, now op.Time) error {
	zone := s.Timezone.Or(q.timezone)
	loc, err := cron.LoadZone(zone)
	if err != nil {
		return InvalidTimezone.Msg("Unknown timezone: '%s'", zone)
	}
	switch s.Type {
	case recurring:
		if !s.Cron.Set {
			return InvalidSchedule.Msg("Cron expression is required for recurring schedules")
		}
		spec, err := cron.Parse(s.Cron.Val)
		if err != nil {
			return InvalidSchedule.Msg("Invalid cron expression: %v", err)
		}
		if _, ok := spec.Next(loc, now.Std()); !ok {
			return InvalidSchedule.Msg("Invalid cron expression: %q will never match again", s.Cron.Val)
		}
		q.cron, q.at = s.Cron.Val, nil
	case once:
		if !s.At.Set {
			return InvalidSchedule.Msg("Timestamp is required for one-time schedules")
		}
		if s.At.Val <= now {
			return InvalidSchedule.Msg("Scheduled time must be in the future; it is %s now", now)
		}
		q.cron, q.at = "", &s.At.Val
	default:
		return InvalidSchedule.Msg("Schedule type must be 'once' or 'recurring'")
	}
	q.kind, q.timezone = s.Type, zone
	return nil
}

// applyCallback puts what was given of a callback over what is stored.
func (d *definition) applyCallback(c *Cues, q *cue) error {
	var cb callbackObject
	if err := json.Unmarshal([]byte(q.callback), &cb); err != nil {
		return err
	}
	in := d.Callback.Val
	before := text(cb.URL)
	if in.URL.Set {
		if d.call != nil {
			return d.call
		}
		cb.URL = &in.URL.Val
	}
	if keeps := !in.Headers.Set && len(cb.Headers) > 0 || slices.Contains(slices.Collect(maps.Values(in.Headers.Val)), masked); keeps && originOf(before) != originOf(text(cb.URL)) {
		return op.Invalid("body.callback.headers", "Value error, the values of the headers are kept for the host they were given for. Send them again, or {} for none")
	}
	cb.Method = in.Method.Or(cb.Method)
	if in.Headers.Set {
		headers, err := mergeHeaders(cb.Headers, in.Headers.Val)
		if err != nil {
			return err
		}
		cb.Headers = headers
	}
	q.callback = string(op.Marshal(cb))
	if !in.URL.Set {
		return nil
	}
	return q.setEndpoint(d.host)
}

// originOf is the scheme and host of an address. The values of headers, which nobody is shown, do not follow a cue to another one.
func originOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	return strings.ToLower(u.Scheme + "://" + u.Host)
}

const headersMost = 8 << 10 // bytes of names and values of callback headers; receivers take hardly more

// mergeHeaders is the new set of callback headers. The value *** stands for the stored one, so that what was read, without the
// values, can be sent back.
func mergeHeaders(stored, sent map[string]string) (map[string]string, error) {
	out, size := map[string]string{}, 0
	for _, name := range slices.Sorted(maps.Keys(sent)) {
		value, at := sent[name], "body.callback.headers."+name
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			return nil, op.Invalid(at, "Value error, this is not a header name")
		case !httpguts.ValidHeaderFieldValue(value):
			return nil, op.Invalid(at, "Value error, a header value holds no control characters")
		case ourHeader(name):
			return nil, op.Invalid(at, "Value error, this header is set by the server")
		}
		if value == masked {
			kept, ok := headerOf(stored, name)
			if !ok {
				return nil, op.Invalid(at, "Value error, *** keeps a stored value, and there is none of this name")
			}
			value = kept
		}
		if size += len(name) + len(value); size > headersMost {
			return nil, op.Invalid("body.callback.headers", "Value error, the headers may take %d bytes together", headersMost)
		}
		out[name] = value
	}
	return out, nil
}

func headerOf(headers map[string]string, name string) (string, bool) {
	for n, v := range headers {
		if strings.EqualFold(n, name) {
			return v, true
		}
	}
	return "", false
}

// ourHeader says that a header belongs to the delivery itself: signatures, ids, and what frames the message. Receivers behind CGI
// cannot tell "_" from "-".
func ourHeader(name string) bool {
	name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	switch name {
	case "host", "content-length", "transfer-encoding", "connection", "webhook-id", "webhook-timestamp", "webhook-signature":
		return true
	}
	return strings.HasPrefix(name, "x-cueapi-")
}

// checkPayload refuses a payload that holds U+0000 anywhere, also in a key, or is too large.
func checkPayload(payload op.Object) error {
	if hasNUL(payload) {
		return InvalidPayload.Msg("Payload contains null bytes which are not supported")
	}
	return checkSize(payload)
}

func checkSize(payload op.Object) error {
	if len(payload) > op.MaxBody {
		return InvalidPayloadSize.Msg("Payload must be under 1MB")
	}
	return nil
}

// hasNUL looks for the escape \u0000 in a JSON text; a backslash that is itself escaped begins none.
func hasNUL(raw []byte) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		if i++; i+4 < len(raw) && string(raw[i:i+5]) == "u0000" {
			return true
		}
	}
	return false
}
