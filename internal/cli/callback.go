package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// unconfirmedWords say that a 2xx is all that is known of a success.
const unconfirmedWords = "delivered, not confirmed"

// callbackView is what the command line reads of a callback.
type callbackView struct {
	URL    *string `json:"url"`
	Method string  `json:"method"`
}

func (c callbackView) words() string {
	url := "nothing"
	if c.URL != nil {
		url = *c.URL
	}
	if c.Method != "" && c.Method != "POST" {
		return c.Method + " " + url
	}
	return url
}

// deliveryView is how a callback is called and how its end is known; nil when it was never set.
type deliveryView struct {
	Timeout int64  `json:"timeout_seconds"`
	Within  *int64 `json:"outcome_deadline_seconds"`
	By      string `json:"outcome_by"`
}

func (d *deliveryView) words() string {
	if d == nil {
		d = &deliveryView{Timeout: 30}
	}
	in := "within " + seconds(d.Timeout)
	switch {
	case d.By == "reply":
		return "its answer " + in + " says so"
	case d.By == "report" && d.Within != nil:
		return "it is reported within " + seconds(*d.Within) + " after a 2xx " + in
	}
	return "a 2xx answers " + in + " (" + unconfirmedWords + ")"
}

// seconds writes a number of seconds as people do.
func seconds(n int64) string {
	switch {
	case n >= 60 && n%60 == 0:
		return strconv.FormatInt(n/60, 10) + " min"
	}
	return strconv.FormatInt(n, 10) + " s"
}

// callbackOptions are the own flags of create and update about callbacks.
type callbackOptions struct {
	to, method      string
	headers         []string
	timeout, within time.Duration
	inReply, is2xx  bool
	backoff         []int64
}

func (o *callbackOptions) add(fs *pflag.FlagSet) {
	fs.StringVar(&o.method, "method", "POST", "how the callback is called: POST, PUT, PATCH or GET")
	fs.StringArrayVar(&o.headers, "header", nil, "header of the call, like 'Authorization: Bearer …'; several are possible, and replace those before")
	fs.DurationVar(&o.timeout, "timeout", 30*time.Second, "how long a call may take, like 45s or 2m; at most 1h")
	fs.DurationVar(&o.within, "outcome-within", 0, "the outcome is reported within this time after the call, like 90s or 10m; at most 1h (without it no report is waited for)")
	fs.BoolVar(&o.inReply, "outcome-in-reply", false, "the callback's answer says how it went")
	fs.BoolVar(&o.is2xx, "outcome-2xx", false, "a 2xx is done: delivered, not confirmed (the default)")
	fs.Int64SliceVar(&o.backoff, "backoff", []int64{1, 5, 15}, "minutes before the second call, the third and so on")
}

// fill puts what the flags say into the inputs.
func (o *callbackOptions) fill(r *run, fs *pflag.FlagSet) error {
	callback := map[string]any{}
	if o.to != "" && o.to != "worker" {
		callback["url"] = o.to
	}
	if fs.Changed("method") {
		callback["method"] = strings.ToUpper(o.method)
	}
	if fs.Changed("header") {
		headers := map[string]string{}
		for _, h := range o.headers {
			name, value, ok := strings.Cut(h, ":")
			if !ok {
				return usage("--header %q has no colon; write 'Name: value'.", h)
			}
			headers[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
		callback["headers"] = headers
	}
	if len(callback) > 0 {
		r.in["callback"] = callback
	}
	return o.fillDelivery(r, fs)
}

func (o *callbackOptions) fillDelivery(r *run, fs *pflag.FlagSet) error {
	ways := 0
	for _, set := range []bool{fs.Changed("outcome-within"), o.inReply, o.is2xx} {
		if set {
			ways++
		}
	}
	if ways > 1 {
		return usage("--outcome-within, --outcome-in-reply and --outcome-2xx exclude each other.")
	}
	if ways == 0 && !fs.Changed("timeout") {
		return nil
	}
	for name, d := range map[string]time.Duration{"timeout": o.timeout, "outcome-within": o.within} {
		if fs.Changed(name) && (d < time.Second || d > time.Hour) {
			return usage("--%s is %s; it must be from 1s to 1h.", name, d)
		}
	}
	delivery := map[string]any{}
	if fs.Changed("timeout") {
		delivery["timeout_seconds"] = int64(o.timeout / time.Second)
	}
	switch {
	case o.inReply:
		delivery["outcome_by"] = "reply"
	case o.is2xx:
		delivery["outcome_by"] = "status"
	case fs.Changed("outcome-within"):
		delivery["outcome_deadline_seconds"] = int64(o.within / time.Second)
	}
	r.in["delivery"] = delivery
	return nil
}

// addCallRows adds what there is to say about the calls of an execution.
func (e *executionView) addCallRows(r *run, t *table) {
	if e.Transport != "webhook" {
		return
	}
	if e.NextRetry != nil {
		t.add("next", fmt.Sprintf("attempt %d of %d at %s UTC", e.Attempts+1, e.MaxAttempts, r.clock(*e.NextRetry)))
	}
	if e.HTTPStatus != nil {
		t.add("answered", strconv.Itoa(*e.HTTPStatus))
	}
	if e.ErrorMessage != nil {
		t.add("went wrong", *e.ErrorMessage)
	}
	if e.Redelivered > 0 {
		t.add("sent again", plural(int(e.Redelivered), "time", "times")+", under the same id: the server ended before it knew the end")
	}
	if e.Unconfirmed {
		t.add("outcome", unconfirmedWords)
	}
	if e.ResponseBody != nil {
		t.add("its answer", shorten(*e.ResponseBody, 200))
	}
}
