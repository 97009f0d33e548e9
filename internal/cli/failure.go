package cli

import (
	"errors"
	"fmt"
)

// Exit codes. 7 stays free: CueAPI's own command line uses it.
const (
	exitDone        = 0
	exitOurs        = 1 // the fault is ours
	exitUsage       = 2 // the command or its input does not fit
	exitLogin       = 3 // no key, or one that is not, or no longer, valid
	exitRefused     = 4
	exitNotFound    = 5
	exitConflict    = 6
	exitTooMuch     = 8 // too many calls, or over the plan
	exitUnreachable = 9
)

// fault is a failure of the command line itself, with what people are told and how the program ends.
type fault struct {
	code int
	text string
}

func (f *fault) Error() string { return f.text }

func failure(code int, format string, args ...any) error {
	return &fault{code, fmt.Sprintf(format, args...)}
}

// usage is a command or an input that does not fit.
func usage(format string, args ...any) error { return failure(exitUsage, format, args...) }

// exitWith ends the program with a code when all has been said.
func exitWith(code int) error { return &fault{code: code} }

// explain tells people about a failure, on stderr, and is the code to end with.
func (d *door) explain(err error) int {
	var f *fault
	var r *refusal
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &r):
		w := wording{}
		if r.op != nil {
			w = d.words[r.op.Name]
		}
		d.say("%s", r.words(w))
		return r.exit()
	case errors.As(err, &f):
		if f.text != "" {
			d.say("%s", f.text)
		}
		return f.code
	}
	d.say("Failed: %v", err)
	return exitOurs
}
