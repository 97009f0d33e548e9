package cue

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"unstuck/internal/op"
)

// replyOf reads an outcome out of the answer of a callback: a JSON object whose member "success" is true or false (CueAPI wire
// contract 10.1), with what a report may bring. Members that a report may not have, for their type or their form, are left out. It is
// nil when the answer says nothing. What is no UTF-8 becomes U+FFFD.
func replyOf(body []byte) *said {
	var all map[string]json.RawMessage
	body = bytes.TrimSpace(bytes.ToValidUTF8(body, []byte("\ufffd")))
	if len(body) == 0 || body[0] != '{' || json.Unmarshal(body, &all) != nil {
		return nil
	}
	s := &said{}
	switch string(all["success"]) {
	case "true":
		s.Success = true
	case "false":
	default:
		return nil
	}
	for name, to := range map[string]**string{
		"result": &s.Result, "error": &s.Error, "external_id": &s.ExternalID, "result_url": &s.ResultURL, "result_ref": &s.ResultRef,
		"result_type": &s.ResultType, "summary": &s.Summary,
	} {
		var text string
		if json.Unmarshal(all[name], &text) == nil && text != "" {
			text = strings.ReplaceAll(text, "\x00", "\ufffd")
			*to = &text
		}
	}
	if s.ResultURL != nil && !isWeb(*s.ResultURL) {
		s.ResultURL = nil
	}
	if list := kept(all["artifacts"]); len(list) > 2 && list[0] == '[' {
		s.Artifacts = list
	}
	for name, to := range map[string]*json.RawMessage{"metadata": &s.Metadata, "assertions": &s.Assertions} {
		if object := kept(all[name]); len(object) > 0 && object[0] == '{' && jsonSize(object) <= metadataMost {
			*to = object
		}
	}
	for _, f := range []struct {
		text *string
		most int
	}{{s.ExternalID, 500}, {s.ResultRef, 500}, {s.ResultType, 100}, {s.ResultURL, 2083}} {
		s.Truncated = cut(f.text, f.most) || s.Truncated
	}
	return s
}

// kept is a value that goes out again as it came; nil when the body of a call could not hold it, or PostgreSQL.
func kept(raw json.RawMessage) json.RawMessage {
	clean, err := op.Compact(raw)
	if err != nil || hasNUL(clean) {
		return nil
	}
	return clean
}

// hide replaces values of headers that the callback was told, as in what else is kept of its answer.
func (s *said) hide(values []string) {
	if s == nil {
		return
	}
	for _, value := range values {
		for _, text := range []*string{s.Result, s.Error, s.ExternalID, s.ResultURL, s.ResultRef, s.ResultType, s.Summary} {
			if text != nil {
				*text = strings.ReplaceAll(*text, value, masked)
			}
		}
		for _, raw := range []*json.RawMessage{&s.Artifacts, &s.Metadata, &s.Assertions} {
			if *raw = bytes.ReplaceAll(*raw, []byte(value), []byte(masked)); len(*raw) > 0 && !json.Valid(*raw) { // it was no text there
				*raw = nil
			}
		}
	}
}

// isWeb says that a text is an address of the web, which people may follow.
func isWeb(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != ""
}

// replies stores the outcomes that stood in answers. Their executions were stored as waiting for them just before.
func (s *settling) replies(some []*result) error {
	if len(some) == 0 {
		return nil
	}
	ids := make([]string, len(some))
	for i, r := range some {
		ids[i] = r.id
	}
	rows, err := s.tx.Query(sqlHeldByIDs, ids)
	found, err := scanAll(rows, err, (*held).scan)
	if err != nil {
		return fmt.Errorf("read the executions of answers: %w", err)
	}
	byID := map[string]*held{}
	for i := range found {
		byID[found[i].id] = &found[i]
	}
	b := &recording{c: s.c, tx: s.tx, now: s.now, sums: s.sums, ran: map[string]int64{}, good: map[string]string{}}
	for _, r := range some {
		h := byID[r.id]
		if h == nil || h.outcomeState != "" { // somebody has reported meanwhile
			continue
		}
		report := &report{id: r.id, said: *r.said}
		report.prepare()
		if err := b.store(report, h); err != nil {
			return err
		}
	}
	return b.saveAll()
}

// decides says that a report ends the execution: a worker's does, and that on a callback whose cue waits for it. Otherwise the
// status is what the delivery made it (CueAPI wire contract 2.4).
func (h *held) decides() bool { return h.transport == transportWorker || h.outcomeWithin != nil }

// runs is what a report adds to the cue's run_count: of webhooks attempts are counted.
func (h *held) runs() int64 {
	if h.transport == transportWorker {
		return 1
	}
	return 0
}

// keyID is who reports; "" for the answer of a callback.
func (r *report) keyID() string {
	if r.caller == nil {
		return ""
	}
	return r.caller.KeyID()
}

// unfenced says that workers which share a key could not be told apart.
func (r *report) unfenced(h *held) bool { return r.token == "" && h.transport == transportWorker }
