package cli

import (
	"fmt"
	"strings"
	"time"
)

// whyView is what the command line reads of an answer to "why".
type whyView struct {
	Sentence string
	Facts    []struct {
		At          *time.Time
		Text        string
		ExecutionID *string `json:"execution_id"`
	}
	Mend []struct{ Command, Why string }
	Good *struct {
		ExecutionID string `json:"execution_id"`
		At          time.Time
		Took        int64 `json:"took_seconds"`
		Evidence    *string
	} `json:"last_good"`
}

// showWhy prints the sentence, the facts with their times in UTC, and the commands that mend it (WORDS 3.7).
func showWhy(r *run, a *answer) error {
	w, err := decode[whyView](a)
	if err != nil {
		return err
	}
	r.print("%s", w.Sentence)
	if len(w.Facts) > 0 {
		t := newTable()
		for _, f := range w.Facts {
			execution, at := "", ""
			if f.ExecutionID != nil {
				execution = "execution " + eight(*f.ExecutionID)
			}
			if f.At != nil {
				at = r.clock(*f.At)
			}
			t.add("  "+at, f.Text, execution)
		}
		r.print("")
		r.printTable(t)
	}
	if len(w.Mend) > 0 {
		r.print("")
		r.print("Mend it")
		t := newTable()
		for i, m := range w.Mend {
			t.add(fmt.Sprintf("  %d", i+1), m.Command, m.Why)
		}
		r.printTable(t)
	}
	if g := w.Good; g != nil {
		good := []string{"Last good execution: " + r.clock(g.At) + " UTC", "success", span(time.Duration(g.Took) * time.Second)}
		if g.Evidence != nil {
			good = append(good, "evidence "+*g.Evidence)
		}
		if len(w.Facts) > 0 || len(w.Mend) > 0 {
			r.print("")
		}
		r.print("%s", strings.Join(good, ", "))
	}
	return nil
}
