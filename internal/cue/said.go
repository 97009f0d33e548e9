package cue

import (
	"bytes"
	"encoding/json"
	"maps"
	"strings"
	"unicode/utf8"

	"unstuck/internal/access"
	"unstuck/internal/op"
)

// Limits of a report (CueAPI wire contract 2.4). Free text that is longer is cut, because a refused report is lost work.
const (
	textMost     = 16_384 // characters of result and error
	summaryMost  = 500    // characters
	metadataMost = 65_536 // bytes of compact JSON in UTF-8, of assertions too
)

// States of an outcome (CueAPI wire contract 7.3).
const (
	reportedSuccess     = "reported_success"
	reportedFailure     = "reported_failure"
	verifiedSuccess     = "verified_success"
	verificationFailed  = "verification_failed"
	verificationPending = "verification_pending"
	outcomeUnknown      = "unknown" // nobody reported in time; never stored, because a late report is still heard
)

// said is what a worker says about an execution, as it is stored.
type said struct {
	Success   bool    `json:"success"`
	Result    *string `json:"result"`
	Error     *string `json:"error"`
	Truncated bool    `json:"truncated"`
	Warning   *string `json:"warning"`
	proof
}

// proof is the evidence in a report, or what is added to it later.
type proof struct {
	ExternalID *string         `json:"external_id,omitempty"`
	ResultURL  *string         `json:"result_url,omitempty"`
	ResultRef  *string         `json:"result_ref,omitempty"`
	ResultType *string         `json:"result_type,omitempty"`
	Summary    *string         `json:"summary,omitempty"`
	Artifacts  json.RawMessage `json:"artifacts,omitempty"`
	Metadata   json.RawMessage `json:"metadata,omitempty"`
	Assertions json.RawMessage `json:"assertions,omitempty"` // object
}

// empty says that there is no evidence. Metadata and what is merely asserted prove nothing.
func (p *proof) empty() bool {
	return p.ExternalID == nil && p.ResultURL == nil && p.ResultRef == nil && p.ResultType == nil && p.Summary == nil && p.Artifacts == nil
}

// add lets later evidence replace earlier; of assertions, member by member.
func (p *proof) add(q *proof) {
	for _, f := range []struct{ old, new **string }{
		{&p.ExternalID, &q.ExternalID}, {&p.ResultURL, &q.ResultURL}, {&p.ResultRef, &q.ResultRef},
		{&p.ResultType, &q.ResultType}, {&p.Summary, &q.Summary},
	} {
		if *f.new != nil {
			*f.old = *f.new
		}
	}
	if q.Artifacts != nil {
		p.Artifacts = q.Artifacts
	}
	if q.Metadata != nil {
		p.Metadata = q.Metadata
	}
	if q.Assertions != nil {
		p.Assertions = merged(p.Assertions, q.Assertions)
	}
}

// merged is a JSON object with the members of both; those of the second count.
func merged(first, second json.RawMessage) json.RawMessage {
	var all, more map[string]json.RawMessage
	if json.Unmarshal(first, &all) != nil || json.Unmarshal(second, &more) != nil || all == nil {
		return second
	}
	maps.Copy(all, more)
	return op.Marshal(all)
}

// redact replaces keys of ours and webhook secrets in all of it and says how many there were.
func (p *proof) redact() int {
	n := 0
	for _, s := range []*string{p.ExternalID, p.ResultURL, p.ResultRef, p.ResultType, p.Summary} {
		n += redactText(s)
	}
	for _, raw := range []*json.RawMessage{&p.Artifacts, &p.Metadata, &p.Assertions} {
		clean, found := redactJSON(*raw)
		*raw, n = clean, n+found
	}
	return n
}

// redactJSON replaces keys of ours and webhook secrets in the names and texts of a valid JSON value, as a reader of the JSON sees them: an escape hides
// none. Texts without keys, and everything between texts, stay as they are, byte by byte.
func redactJSON(raw json.RawMessage) (clean json.RawMessage, found int) {
	if bytes.IndexByte(raw, '\\') < 0 { // keys and their redacted forms need no escapes
		text, n := access.Redact(string(raw))
		if n > 0 {
			raw = json.RawMessage(text)
		}
		return raw, n
	}
	done := 0
	for at := 0; at < len(raw); at++ {
		if raw[at] != '"' {
			continue
		}
		end := at + 1
		for end < len(raw) && raw[end] != '"' {
			if raw[end] == '\\' {
				end++
			}
			end++
		}
		end = min(end+1, len(raw))
		var s string
		if json.Unmarshal(raw[at:end], &s) == nil {
			if n := redactText(&s); n > 0 {
				clean = append(append(clean, raw[done:at]...), op.Marshal(s)...)
				done, found = end, found+n
			}
		}
		at = end - 1
	}
	if found == 0 {
		return raw, 0
	}
	return append(clean, raw[done:]...), found
}

func redactText(s *string) (found int) {
	if s != nil {
		*s, found = access.Redact(*s)
	}
	return found
}

const redactedWarning = "This text held an API key of this server, or a webhook secret. It is stored in its redacted form only; revoke the key, or rotate the secret, if others may have seen it."

// stored is the column `outcome`: what was said, and when.
func (s *said) stored(at op.Time) string { return string(op.Marshal(outcomeRecord{*s, at})) }

type outcomeRecord struct {
	said
	RecordedAt op.Time `json:"recorded_at"`
}

// outcomeObject is an outcome on the wire, with its evidence (CueAPI wire contract 2.4, 10.2).
type outcomeObject struct {
	Success    bool       `json:"success"`
	Result     *string    `json:"result"`
	Error      *string    `json:"error"`
	Truncated  bool       `json:"truncated" doc:"result, error or summary was cut"`
	Metadata   op.Object  `json:"metadata"`
	RecordedAt op.Time    `json:"recorded_at"`
	ExternalID *string    `json:"external_id"`
	ResultURL  *string    `json:"result_url"`
	ResultRef  *string    `json:"result_ref"`
	ResultType *string    `json:"result_type"`
	Summary    *string    `json:"summary"`
	Artifacts  []op.Value `json:"artifacts"`
	Assertions op.Object  `json:"assertions" doc:"what the worker says that it checked"`
	Warning    *string    `json:"warning" doc:"what somebody should look at, such as an API key that was found in it"`
}

// object is the stored outcome as it goes out.
func (o *outcomeRecord) object() (*outcomeObject, error) {
	out := &outcomeObject{
		Success: o.Success, Result: o.Result, Error: o.Error, Truncated: o.Truncated, Metadata: o.Metadata, RecordedAt: o.RecordedAt,
		ExternalID: o.ExternalID, ResultURL: o.ResultURL, ResultRef: o.ResultRef, ResultType: o.ResultType, Summary: o.Summary,
		Warning: o.Warning, Assertions: o.Assertions,
	}
	if o.Artifacts == nil {
		return out, nil
	}
	var list []json.RawMessage
	err := json.Unmarshal(o.Artifacts, &list)
	out.Artifacts = make([]op.Value, len(list))
	for i, v := range list {
		out.Artifacts[i] = op.Value(v)
	}
	return out, err
}

// cut shortens a text to so many characters and says whether it had more.
func cut(s *string, most int) bool {
	if s == nil || len(*s) <= most || utf8.RuneCountInString(*s) <= most {
		return false
	}
	n := 0
	for i := range *s {
		if n == most {
			*s = (*s)[:i]
			break
		}
		n++
	}
	return true
}

// large says that the evidence has more free JSON than is kept.
func (p *proof) large() bool {
	return jsonSize(p.Metadata) > metadataMost || jsonSize(p.Assertions) > metadataMost
}

func tooLarge() error {
	return MetadataTooLarge.Msg("Outcome metadata must be under 64 KiB, and assertions too")
}

// jsonSize is how many bytes a JSON text has when it is written compactly in UTF-8, without escapes that it does not need.
func jsonSize(raw json.RawMessage) int {
	if len(raw) <= metadataMost {
		return len(raw) // more it cannot be
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return len(raw)
	}
	return len(op.Marshal(v))
}

// given is an optional text of an input; an empty one counts as absent.
func given(o op.Opt[string]) *string {
	if o.Val == "" {
		return nil
	}
	return &o.Val
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func ptr[T any](v T) *T { return &v }

// listJSON writes raw values as a JSON list; nil when there are none.
func listJSON(values []op.Value) json.RawMessage {
	if len(values) == 0 {
		return nil
	}
	var b strings.Builder
	for i, v := range values {
		b.WriteByte("[,"[min(i, 1)])
		b.Write(v)
	}
	b.WriteByte(']')
	return json.RawMessage(b.String())
}
