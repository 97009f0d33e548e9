package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"unstuck/internal/op"
)

// refusal is an answer of the server that is no success.
type refusal struct {
	Code        string      `json:"code"`
	Message     string      `json:"message"`
	Status      int         `json:"status"`
	Details     []violation `json:"details"`
	Operation   string      `json:"operation"`
	Missing     []string    `json:"missing"`
	Scopes      []string    `json:"scopes"`
	Restriction string      `json:"restriction"`
	Key         *keyBrief   `json:"key"`
	Grants      []grant     `json:"grants"`
	Mend        string      `json:"mend"`
	RequestID   string      `json:"request_id"`

	body  []byte // as it came
	op    *op.Operation
	place place
	kind  object   // of the object that was not found
	typed string   // how the caller named it
	notes []string // further lines, "name" and text separated by a tab
	table string   // objects that are in the way
}

// violation is one input that does not fit.
type violation struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// keyBrief is a key as refusals name it.
type keyBrief struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Redacted string `json:"redacted"`
	Scope    string `json:"scope"`
}

// grant is one step that would have let a refused call through.
type grant struct {
	Key              string              `json:"key"`
	Member           string              `json:"member"`
	Role             string              `json:"role"`
	AddPermissions   []string            `json:"add_permissions"`
	AddTo            map[string][]string `json:"add_to"`
	DropRestrictions []string            `json:"drop_restrictions"`
}

func (r *refusal) Error() string { return r.Code + ": " + r.Message }

// refused reads an answer that is no success. One that is not ours (from a proxy in between) is told as it is.
func (c *client) refused(o *op.Operation, a *answer, requestID string) error {
	var body struct {
		Error json.RawMessage `json:"error"`
	}
	r := &refusal{}
	if json.Unmarshal(a.body, &body) != nil || json.Unmarshal(body.Error, r) != nil || r.Code == "" {
		r = &refusal{Code: "http_error", Message: fmt.Sprintf("The answer is no answer of Unstuck: %s.", http.StatusText(a.status))}
	}
	r.Status, r.body, r.op, r.place = a.status, a.body, o, c.place
	if r.RequestID == "" {
		r.RequestID = requestID
	}
	return r
}

// exit is the code that the program ends with.
func (r *refusal) exit() int {
	switch {
	case r.Status == 429 || strings.HasSuffix(r.Code, "_limit_exceeded"):
		return exitTooMuch
	case r.Status == 401:
		return exitLogin
	case r.Status == 403:
		return exitRefused
	case r.Status == 404 || r.Status == 410:
		return exitNotFound
	case r.Status == 409:
		return exitConflict
	case r.Status >= 500 || r.Status < 400:
		return exitOurs
	}
	return exitUsage
}

// words is the whole text of a refusal: what happened, what is known about it, and the line for the ticket.
func (r *refusal) words(w wording) string {
	var b strings.Builder
	b.WriteString(r.headline() + "\n")
	if r.table != "" {
		b.WriteString("\n" + r.table + "\n")
	}
	if facts := r.facts(w); len(facts) > 0 {
		b.WriteString("\n")
		width := 8
		for _, f := range facts {
			width = max(width, utf8.RuneCountInString(f[0]))
		}
		for _, f := range facts {
			b.WriteString(strings.TrimRight("  "+pad(f[0], width)+"  "+f[1], " ") + "\n")
		}
	}
	fmt.Fprintf(&b, "\n%d %s", r.Status, r.Code)
	if id := r.RequestID; id != "" {
		fmt.Fprintf(&b, " · request %s", id[:min(8, len(id))])
	}
	return b.String()
}

func (r *refusal) headline() string {
	text := lowerFirst(strings.TrimRight(inOurWords(r.Message), "."))
	switch {
	case r.Code == "validation_error" && len(r.Details) > 0:
		return "Not accepted: " + plural(len(r.Details), "input does not fit", "inputs do not fit") + "."
	case r.Status == 404 && r.typed != "":
		return "Not found: no " + string(r.kind) + " " + r.typed + " that this key can see."
	case r.Status == 404 && strings.HasSuffix(r.Code, "_not_found"):
		return "Not found: " + sentence(text)
	case r.Status == 401 || r.Status == 403 || r.Status == 429:
		return "Refused: " + sentence(text)
	case r.Status == 404 || r.Status == 410:
		return "Not found: " + sentence(text)
	case r.Status == 409:
		return "Not done: " + sentence(text)
	case r.Status >= 500:
		return "Failed: " + sentence(text)
	}
	return "Not accepted: " + sentence(text)
}

// facts are the lines between headline and ticket, each a name and a text.
func (r *refusal) facts(w wording) [][2]string {
	var out [][2]string
	add := func(name, text string) { out = append(out, [2]string{name, text}) }
	if r.Status == 401 {
		for _, line := range r.place.origin(r.Code) {
			add(line[0], line[1])
		}
	}
	if r.Status == 401 && r.place.here() {
		way, first := "or", "" // beside what is above
		switch {
		case r.place.source == keyVar: // which would hide the login
			way, first = "mend it", "unset "+keyVar+"; "
		case r.place.source != "" && !r.place.file:
			way = "mend it"
		}
		add(way, first+"unstuck auth login --local     (for whoever may read the server's data folder, on this machine)")
	}
	if k := r.Key; k != nil {
		line := fmt.Sprintf("%s  %s  %s", k.Name, k.Redacted, scopeWords(k.Scope))
		if r.place.source == keyVar {
			line += "  (from " + keyVar + ")"
		}
		add("key", line)
	}
	if len(r.Missing) > 0 {
		add("lacks", strings.Join(r.Missing, ", "))
	}
	if len(r.Scopes) > 0 {
		line := strings.Join(r.Scopes, ", ")
		if len(r.Scopes) > 1 {
			line = r.Scopes[0] + " (the smallest), " + strings.Join(r.Scopes[1:], ", ")
		}
		add("held by", line)
	}
	for i, g := range r.Grants {
		name := "mend it"
		if i > 0 {
			name = "and"
		}
		add(name, g.words(r.Key))
	}
	if r.Code == "validation_error" {
		for _, v := range r.Details {
			add(fieldWords(r.op, w, v.Field), inOurWords(strings.TrimPrefix(v.Message, "Value error, ")))
		}
	}
	for _, n := range r.notes {
		name, text, _ := strings.Cut(n, "\t")
		add(name, text)
	}
	return out
}

// words says who runs which command. The refused key is named by its last eight digits, others by their id.
func (g grant) words(k *keyBrief) string {
	if g.Role != "" {
		return fmt.Sprintf("an admin runs: unstuck members update %s --role %s", g.Member, g.Role)
	}
	name := g.Key
	if k != nil && k.ID == g.Key {
		name = lastEight(k.Redacted)
	}
	cmd := "unstuck keys widen " + name
	if len(g.AddPermissions) > 0 {
		cmd += " --add " + strings.Join(g.AddPermissions, ",")
	}
	for _, kind := range restrictionKinds {
		if add := g.AddTo[kind.wire]; len(add) > 0 {
			cmd += " --add-" + kind.flag + " " + shellWord(strings.Join(add, ","))
		}
	}
	for _, kind := range g.DropRestrictions {
		cmd += " --drop " + restrictionFlag(kind)
	}
	who := "somebody who manages keys runs"
	if len(g.DropRestrictions) > 0 {
		who += ", if the key may do without the restriction for everything"
	}
	return who + ": " + cmd
}

// inOurWords replaces what a message says to callers of the API by what does the same here.
func inOurWords(message string) string {
	message = strings.ReplaceAll(message, "GET /v1/scopes lists them all", "unstuck scopes list shows them all")
	message = strings.ReplaceAll(message, "1y or a duration such as 12h", "1y, a length of time such as 12h, or a date such as 2027-12-31")
	for _, k := range restrictionKinds {
		message = strings.ReplaceAll(message, "restrictions."+k.wire, "--"+k.only)
	}
	return message
}

// origin says where a key that was not accepted comes from and who was asked. A key that the server knows by its form needs no
// such line when it was set by hand for this very server.
func (p place) origin(code string) [][2]string {
	if p.source == "" {
		return nil
	}
	if p.file {
		line := fmt.Sprintf("(key from %s; asked %s)", p.source, p.url)
		return [][2]string{{"key", line}, {"mend it", "unstuck auth login"}}
	}
	if code != "invalid_api_key" && (p.hides == "" || p.hides == p.url) {
		return nil
	}
	line := "(key from " + p.source
	if p.hides != "" {
		line += ", which hides the login for " + p.hides
	}
	return [][2]string{{"key", line + "; asked " + p.url + ")"}}
}

// fieldWords is how the command line names an input, from its dotted place on the wire.
func fieldWords(o *op.Operation, w wording, place string) string {
	_, name, _ := strings.Cut(place, ".")
	if o == nil || name == "" {
		return place
	}
	first, _, _ := strings.Cut(name, ".")
	for _, f := range o.Fields() {
		if f.Name != first {
			continue
		}
		switch word := w.flagOf(f); {
		case word == "":
			return ownWords(name)
		case f.In == op.InPath || w.isArg(f.Name):
			return strings.ToUpper(word)
		default:
			return "--" + word
		}
	}
	return name
}

// ownFlags are the own flags of commands by the places that they fill, the longer before the shorter.
var ownFlags = [...][2]string{
	{"expires_", "--expires"}, {"restrictions.cues", "--only-cue"}, {"restrictions.ips", "--only-address"}, {"restrictions.via", "--only-via"},
	{"restrictions.rate_per_minute", "--at-most"}, {"restrictions.not_before", "--not-before"}, {"restrictions.worker_ids", "--only-worker"},
	{"add_to.cues", "--add-cue"}, {"add_to.ips", "--add-address"}, {"add_to.via", "--add-via"}, {"add_to.worker_ids", "--add-worker"}, {"drop_restrictions", "--drop"},
	{"schedule.cron", "--cron"}, {"schedule.at", "--at"}, {"schedule.timezone", "--zone"}, {"transport", "--to"}, {"callback", "--to"},
	{"operation", "--can"}, {"retry", "--attempts"}, {"verification", "--verify"}, {"on_failure", "--pause-on-failure"}, {"error", "--failure"},
}

// ownWords is the own flag that fills a place; without one the place itself.
func ownWords(name string) string {
	for _, f := range ownFlags {
		if strings.HasPrefix(name, f[0]) {
			return f[1]
		}
	}
	return name
}

// lowerFirst lowers the first letter of a sentence that stands after a colon, unless it begins an abbreviation.
func lowerFirst(s string) string {
	first, n := utf8.DecodeRuneInString(s)
	second, _ := utf8.DecodeRuneInString(s[n:])
	if n == 0 || unicode.IsUpper(second) {
		return s
	}
	return string(unicode.ToLower(first)) + s[n:]
}

// sentence ends a text with a full stop unless it ends with a mark of its own.
func sentence(s string) string {
	if strings.HasSuffix(s, "?") || strings.HasSuffix(s, "!") {
		return s
	}
	return s + "."
}

func scopeWords(scope string) string {
	if scope == "custom" {
		return scope
	}
	return "scope " + scope
}

// lastEight is the public end of a redacted form.
func lastEight(redacted string) string { return redacted[max(0, len(redacted)-8):] }
