package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// pad fills a text with spaces up to a number of columns.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}

// plural is a number with the words that belong to it.
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// numeral is a small number as a word.
func numeral(n int) string {
	words := [...]string{"no", "one", "two", "three", "four", "five", "six"}
	if n < len(words) {
		return words[n]
	}
	return fmt.Sprint(n)
}

// clean makes a text safe for a terminal: what would move the cursor or change colours is replaced.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// lines fills a format for a terminal. What is filled into a line stays in it, so that no name looks like another line of ours; a text of
// several lines has the format "%s", or stands behind a line break.
func lines(format string, args []any) string {
	if format != "%s" && !strings.Contains(format, "\n%s") {
		args = slices.Clone(args)
		for i, arg := range args {
			if s, ok := arg.(string); ok {
				args[i] = nameLine(s)
			}
		}
	}
	return clean(fmt.Sprintf(format, args...))
}

// shellWord is a text as a shell takes it for one word.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-_./:,@%+=", r))
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	if strings.ContainsAny(s, "\"$`\\!") {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return `"` + s + `"`
}

// span is a length of time as people say it: the largest unit that fits, "12 s", "4 h", "8 months".
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < day:
		return fmt.Sprintf("%d h", int(d.Hours()))
	case d < 60*day:
		return plural(int(d/day), "day", "days")
	case d < 2*365*day:
		return fmt.Sprintf("%d months", int(d/(30*day)))
	}
	return fmt.Sprintf("%d years", int(d/(365*day)))
}

// ago is how long a moment is past.
func (d *door) ago(t time.Time) string { return span(d.Now().Sub(t)) + " ago" }

// date is a day in the viewer's zone, "22 Nov 2027".
func (d *door) date(t time.Time) string { return t.In(d.Zone).Format("2 Jan 2006") }

// end is the day on which something ends or ended, with the time of day when that is less than two days away.
func (d *door) end(t time.Time) string {
	if t.Sub(d.Now()).Abs() < 48*time.Hour {
		return t.In(d.Zone).Format("2 Jan 2006 15:04")
	}
	return d.date(t)
}

// day is a date without the year when it lies in the last or next half year.
func (d *door) day(t time.Time) string {
	if off := t.Sub(d.Now()).Abs(); off < 183*24*time.Hour {
		return t.In(d.Zone).Format("2 Jan")
	}
	return d.date(t)
}

// clock is a moment in UTC, to the second, with its date when that is not today.
func (d *door) clock(t time.Time) string {
	t, now := t.UTC(), d.Now().UTC()
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format("15:04:05")
	}
	return t.Format("2 Jan 15:04:05")
}

// sameZone says whether two zones show the same time at a moment.
func sameZone(a, b *time.Location, at time.Time) bool {
	_, x := at.In(a).Zone()
	_, y := at.In(b).Zone()
	return x == y
}
