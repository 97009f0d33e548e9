package cron_test

import (
	"strconv"
	"strings"
	"time"
)

// oracle knows when an expression fires without any of the package's ideas: it takes one step of time after another, looks
// at the clock on the wall, and asks of each field's text whether the clock fits it. It believes every expression to be
// well-formed.
type oracle struct {
	elapsed                       bool
	minute, hour, month, second   [60]bool
	dayOfMonth, dayOfWeek, year   string
	freeDayOfMonth, freeDayOfWeek bool
	asked                         bool // the day that was asked for last, and its answer
	askedDate                     int64
	answer                        bool
}

func newOracle(expr string) *oracle {
	text := strings.ToLower(strings.TrimSpace(expr))
	switch text {
	case "@hourly":
		text = "0 * * * *"
	case "@daily", "@midnight":
		text = "0 0 * * *"
	case "@weekly":
		text = "0 0 * * sun"
	case "@monthly":
		text = "0 0 1 * *"
	case "@yearly", "@annually":
		text = "0 0 1 jan *"
	}
	f := strings.Fields(text)
	if len(f) == 5 {
		f = append(f, "0")
	}
	if len(f) == 6 {
		f = append(f, "*")
	}
	months := strings.NewReplacer("jan", "1", "feb", "2", "mar", "3", "apr", "4", "may", "5", "jun", "6",
		"jul", "7", "aug", "8", "sep", "9", "oct", "10", "nov", "11", "dec", "12")
	weekdays := strings.NewReplacer("sun", "0", "mon", "1", "tue", "2", "wed", "3", "thu", "4", "fri", "5", "sat", "6")
	o := &oracle{elapsed: strings.HasPrefix(f[1], "*") || f[1] == "?", year: f[6]}
	for v := range 60 {
		o.minute[v] = fits(f[0], v, 0, 59)
		o.hour[v] = v < 24 && fits(f[1], v, 0, 23)
		o.month[v] = v < 13 && fits(months.Replace(f[3]), v, 1, 12)
		o.second[v] = fits(f[5], v, 0, 59)
	}
	o.dayOfMonth, o.freeDayOfMonth = f[2], f[2] == "*" || f[2] == "?"
	o.dayOfWeek, o.freeDayOfWeek = weekdays.Replace(f[4]), f[4] == "*" || f[4] == "?"
	return o
}

// fits says whether a value is in a list of ordinary items: on the way round the field, not beyond the end of the item, at a
// full number of steps from its beginning.
func fits(list string, v, lowest, highest int) bool {
	size := highest - lowest + 1
	for item := range strings.SplitSeq(list, ",") {
		values, stepText, stepped := strings.Cut(item, "/")
		step := 1
		if stepped {
			step, _ = strconv.Atoi(stepText)
		}
		from, to, ranged := strings.Cut(values, "-")
		a, _ := strconv.Atoi(from)
		b, _ := strconv.Atoi(to)
		switch {
		case values == "*" || values == "?":
			a, b = lowest, highest
		case stepped && !ranged:
			b = max(a, highest)
		case !ranged:
			b = a
		case b-a == size: // 0-7 of the weekdays
			b--
		}
		ahead := func(x int) int { return (x - a + size) % size }
		if ahead(v) <= ahead(b) && ahead(v)%step == 0 {
			return true
		}
	}
	return false
}

// matches says whether a reading of the wall clock, told as if it were UTC, fits the expression.
func (o *oracle) matches(reading int64) bool {
	date, sec := reading/86400, reading%86400
	if sec < 0 {
		date, sec = date-1, sec+86400
	}
	if !o.second[sec%60] || !o.minute[sec/60%60] || !o.hour[sec/3600] {
		return false
	}
	if !o.asked || date != o.askedDate {
		o.asked, o.askedDate, o.answer = true, date, o.matchesDate(time.Unix(date*86400, 0).UTC())
	}
	return o.answer
}

func (o *oracle) matchesDate(d time.Time) bool {
	if !o.month[d.Month()] {
		return false
	}
	if o.year != "*" && o.year != "?" && (d.Year() < 1970 || d.Year() > 2099 || !fits(o.year, d.Year(), 1970, 2099)) {
		return false
	}
	switch {
	case o.freeDayOfMonth && o.freeDayOfWeek:
		return true
	case o.freeDayOfMonth:
		return o.fitsDayOfWeek(d)
	case o.freeDayOfWeek:
		return o.fitsDayOfMonth(d)
	}
	return o.fitsDayOfMonth(d) || o.fitsDayOfWeek(d)
}

func (o *oracle) fitsDayOfMonth(d time.Time) bool {
	for item := range strings.SplitSeq(o.dayOfMonth, ",") {
		switch n, nearest := strings.CutSuffix(item, "w"); {
		case item == "l":
			if d.AddDate(0, 0, 1).Day() == 1 {
				return true
			}
		case nearest:
			target, _ := strconv.Atoi(n)
			if d.Day() == nearestWorkday(d.Year(), d.Month(), target) {
				return true
			}
		case fits(item, d.Day(), 1, 31):
			return true
		}
	}
	return false
}

// nearestWorkday tries every day of the month.
func nearestWorkday(year int, month time.Month, target int) int {
	end := 31
	for time.Date(year, month, end, 0, 0, 0, 0, time.UTC).Month() != month {
		end--
	}
	target = min(target, end)
	best, bestDistance := 0, 99
	for d := 1; d <= end; d++ {
		w := time.Date(year, month, d, 0, 0, 0, 0, time.UTC).Weekday()
		distance := max(d-target, target-d)
		if w != time.Saturday && w != time.Sunday && distance < bestDistance {
			best, bestDistance = d, distance
		}
	}
	return best
}

func (o *oracle) fitsDayOfWeek(d time.Time) bool {
	for item := range strings.SplitSeq(o.dayOfWeek, ",") {
		rest, nth, numbered := strings.Cut(item, "#")
		rest, last := strings.CutPrefix(rest, "l")
		if numbered && strconv.Itoa((d.Day()+6)/7) != nth {
			continue
		}
		if last && d.AddDate(0, 0, 7).Month() == d.Month() {
			continue
		}
		if fits(rest, int(d.Weekday()), 0, 6) {
			return true
		}
	}
	return false
}

// fires steps through [from, to), which are Unix seconds, and lists the instants at which the expression fires. The step is
// 1, or 60 where nothing happens between full minutes. warmUp is how long before from the clock is watched: longer than
// the clock was put back by any change that still shows.
func (o *oracle) fires(loc *time.Location, from, to, step, warmUp int64) []int64 {
	begin := from - warmUp
	const farther = 2 * 86400 // than any reading from its instant
	seen := make([]bool, (to-begin+2*farther)/step)
	at := func(reading int64) *bool { return &seen[(reading-begin+farther)/step] }

	var out []int64
	var before int64 // the reading one step earlier
	for t := begin; t < to; t += step {
		_, offset := time.Unix(t, 0).In(loc).Zone()
		reading := t + int64(offset)
		fire := false
		if o.elapsed {
			fire = o.matches(reading)
		} else {
			first := reading
			if t > begin && before+step < reading {
				first = before + step // the clock jumped over what lies between
			}
			for r := first; r <= reading; r += step {
				if s := at(r); !*s {
					*s = true
					fire = fire || o.matches(r)
				}
			}
		}
		if fire && t >= from {
			out = append(out, t)
		}
		before = reading
	}
	return out
}

// transition is an instant at which the offset of a zone changes.
type transition struct {
	at            int64
	before, after int
}

// step is the largest step with which an oracle can walk around the transition.
func (tr transition) step() int64 {
	if tr.at%60 != 0 || tr.before%60 != 0 || tr.after%60 != 0 {
		return 1
	}
	return 60
}

// transitions finds the changes of offset between the beginnings of two years, by looking at the clock four times a day.
func transitions(loc *time.Location, fromYear, toYear int) []transition {
	offset := func(t int64) int { _, o := time.Unix(t, 0).In(loc).Zone(); return o }
	var out []transition
	end := time.Date(toYear, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	for t := time.Date(fromYear, 1, 1, 0, 0, 0, 0, time.UTC).Unix(); t < end; t += 6 * 3600 {
		if offset(t) == offset(t+6*3600) {
			continue
		}
		lo, hi := t, t+6*3600
		for hi-lo > 1 {
			if mid := (lo + hi) / 2; offset(mid) == offset(t) {
				lo = mid
			} else {
				hi = mid
			}
		}
		out = append(out, transition{hi, offset(lo), offset(hi)})
	}
	return out
}
