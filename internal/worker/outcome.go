package worker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"
)

// Bounds of what a handler says.
const (
	outputMost = 4096     // characters of its output that are kept, the first ones (CueAPI wire contract 11.4)
	fileMost   = 64 << 10 // bytes of its outcome file
)

// diagnostics is the member of the metadata in which is told what was wrong with an outcome file.
const diagnostics = "_cueapi_worker"

// outcome is a report as it is sent.
type outcome map[string]any

// said is what an outcome file says: its valid members, and what was wrong with it.
type said struct {
	members map[string]any
	fault   string
	dropped []string
}

// readSaid reads an outcome file. Members that do not fit are dropped and named, so that one of them does not cost the rest.
func readSaid(path string) said {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe that nobody writes to must not hold up the worker
	if err != nil {
		return said{} // the handler removed it
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return said{fault: "outcome_file_unreadable"}
	}
	raw, err := io.ReadAll(io.LimitReader(f, fileMost+1))
	switch {
	case err != nil:
		return said{fault: "outcome_file_unreadable"}
	case len(raw) == 0:
		return said{}
	case len(raw) > fileMost:
		return said{fault: fmt.Sprintf("outcome_file_too_large: > %d", fileMost)}
	case !utf8.Valid(raw):
		return said{fault: "outcome_file_not_utf8"}
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // a number stays as it was written
	var all any
	if err := d.Decode(&all); err != nil || d.More() {
		return said{fault: "outcome_file_malformed_json"}
	}
	members, ok := all.(map[string]any)
	if !ok {
		return said{dropped: []string{"<whole file was not a JSON object>"}}
	}
	s := said{members: map[string]any{}}
	for name, v := range members {
		if fits(name, v) {
			s.members[name] = v
		} else {
			s.dropped = append(s.dropped, name)
		}
	}
	slices.Sort(s.dropped)
	return s
}

// fits says whether the server takes a member of an outcome.
func fits(name string, v any) bool {
	text, isText := v.(string)
	length := utf8.RuneCountInString(text)
	switch name {
	case "success":
		_, ok := v.(bool)
		return ok
	case "result", "error", "summary": // cut by the server
		return isText
	case "external_id", "result_ref":
		return isText && length <= 500
	case "result_type":
		return isText && length <= 100
	case "result_url":
		return isText && length <= 2000 && (strings.HasPrefix(text, "http://") || strings.HasPrefix(text, "https://"))
	case "artifacts":
		_, ok := v.([]any)
		return ok
	case "metadata":
		_, ok := v.(map[string]any)
		return ok
	}
	return false
}

// outcome is what is reported of a handler that ended (CueAPI wire contract 11.4): a status other than 0 is a failure whatever the
// file says; with 0 the file decides, and without one it was a success. Evidence is sent either way, except of a handler that was
// stopped in the middle of writing it.
func (r *result) outcome() outcome {
	if r.timedOut {
		return outcome{"success": false, "error": "Handler timeout exceeded (" + textOf(r.limit.Seconds()) + "s)"}
	}
	out := outcome{"success": r.failed == ""}
	for name, v := range r.said.members {
		if name != "success" && name != "result" && name != "error" {
			out[name] = v
		}
	}
	text := func(name string) string { t, _ := r.said.members[name].(string); return t }
	switch {
	case r.failed != "":
		out["error"] = firstOf(text("error"), r.output, r.failed)
	case r.said.members["success"] == false:
		out["success"] = false
		out["error"] = firstOf(text("error"), r.output, "handler reported failure")
	default:
		out["result"] = firstOf(text("result"), r.output, "completed")
	}
	told := map[string]any{}
	if r.said.fault != "" {
		told["outcome_file_parse_error"] = r.said.fault
	}
	if len(r.said.dropped) > 0 {
		told["outcome_file_dropped_fields"] = r.said.dropped
	}
	if len(told) > 0 {
		out.note(told)
	}
	return out
}

// note puts something that the worker tells into the metadata.
func (o outcome) note(told map[string]any) {
	metadata, _ := o["metadata"].(map[string]any)
	if metadata == nil {
		metadata = map[string]any{}
	}
	metadata[diagnostics] = told
	o["metadata"] = metadata
}

// plain is the outcome without what a server may refuse for its form, and why it was refused.
func (o outcome) plain(why error) outcome {
	out := outcome{"success": o["success"]}
	for _, name := range []string{"result", "error"} {
		if v, ok := o[name]; ok {
			out[name] = v
		}
	}
	out.note(map[string]any{"evidence_refused": why.Error()})
	return out
}

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}
