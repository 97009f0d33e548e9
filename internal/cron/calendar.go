package cron

import (
	"math/bits"
	"time"
)

const day = 86400 // seconds of a day on the wall clock

// set is a set of the numbers 0 to 63.
type set uint64

func (s set) has(i int) bool { return s>>i&1 == 1 }
func (s set) len() int64     { return int64(bits.OnesCount64(uint64(s))) }
func (s set) min() int       { return bits.TrailingZeros64(uint64(s)) }
func (s set) max() int       { return bits.Len64(uint64(s)) - 1 }

// from are the members that are not below i.
func (s set) from(i int64) set { return s >> i << i }

// below are the members under i.
func (s set) below(i int64) set { return s & (1<<i - 1) }

// nth is the member that has n smaller ones.
func (s set) nth(n int64) int64 {
	for ; n > 0; n-- {
		s &= s - 1
	}
	return int64(s.min())
}

// calendar is a set of readings: those whose date and time of day match.
type calendar struct {
	hours, minutes, seconds set
	months                  set    // 1 to 12
	years                   [3]set // from 1970; unused with anyYear
	anyYear                 bool

	byDay, byWeekday bool // which of the two day fields restrict
	days             set  // of the month, 0 for the 1st
	nearest          set  // days of the month, 0 for the 1st, that stand for the nearest weekday (15W)
	lastDay          bool // the last day of the month (L)
	weekdays         set  // 7×row + weekday, Sunday 0; the rows: every week, the 1st to 5th of the month, the last
}

// Rows of calendar.weekdays. Between them lie the rows 1 to 5.
const (
	everyWeek = 0
	lastWeek  = 6
)

// first is the earliest matching reading in [lo, hi).
func (c *calendar) first(lo, hi int64) (int64, bool) {
	if lo >= hi {
		return 0, false
	}
	date, sec := split(lo)
	before := c.rank(sec)
	if before == c.perDay() {
		date, before = date+1, 0
	}
	for end := hi/day + 1; date < end; {
		month, length, match := c.month(date)
		if match = match.from(date - month); match != 0 {
			if found := month + int64(match.min()); found != date {
				date, before = found, 0
			}
			r := date*day + c.nth(before)
			return r, r < hi
		}
		date, before = month+length, 0
	}
	return 0, false
}

// last is the latest matching reading in [lo, hi).
func (c *calendar) last(lo, hi int64) (int64, bool) {
	if lo >= hi {
		return 0, false
	}
	date, sec := split(hi)
	before := c.rank(sec)
	if before == 0 {
		date, before = date-1, c.perDay()
	}
	for begin, _ := split(lo); date >= begin; {
		month, _, match := c.month(date)
		if match = match.below(date - month + 1); match != 0 {
			if found := month + int64(match.max()); found != date {
				date, before = found, c.perDay()
			}
			r := date*day + c.nth(before-1)
			return r, r >= lo
		}
		date, before = month-1, c.perDay()
	}
	return 0, false
}

// count is the number of matching readings in [lo, hi).
func (c *calendar) count(lo, hi int64) int64 {
	if lo >= hi {
		return 0
	}
	begin, loSec := split(lo)
	end, hiSec := split(hi)
	var n int64
	for date := begin; date <= end; {
		month, length, match := c.month(date)
		next := min(month+length, end)
		n += match.from(date-month).below(next-month).len() * c.perDay()
		if date == begin && match.has(int(begin-month)) {
			n -= c.rank(loSec)
		}
		if end < month+length {
			if match.has(int(end - month)) {
				n += c.rank(hiSec)
			}
			break
		}
		date = month + length
	}
	return n
}

// split cuts a reading into the number of its day and the second of that day.
func split(reading int64) (date, sec int64) {
	sec = reading % day
	if sec < 0 {
		sec += day
	}
	return (reading - sec) / day, sec
}

// perDay is the number of times on a day that matches.
func (c *calendar) perDay() int64 { return c.hours.len() * c.minutes.len() * c.seconds.len() }

// rank is the number of matching times of day before the given second of the day.
func (c *calendar) rank(sec int64) int64 {
	hour, minute, second := sec/3600, sec/60%60, sec%60
	n := c.hours.below(hour).len() * c.minutes.len()
	if !c.hours.has(int(hour)) {
		return n * c.seconds.len()
	}
	n = (n + c.minutes.below(minute).len()) * c.seconds.len()
	if c.minutes.has(int(minute)) {
		n += c.seconds.below(second).len()
	}
	return n
}

// nth is the second of the day of the matching time that has n earlier ones.
func (c *calendar) nth(n int64) int64 {
	seconds, minutes := c.seconds.len(), c.minutes.len()
	return c.hours.nth(n/seconds/minutes)*3600 + c.minutes.nth(n/seconds%minutes)*60 + c.seconds.nth(n%seconds)
}

// month looks at the month that holds the day of the given number: the number of its first day, how many days it has, and
// which of them match (0 is the 1st).
func (c *calendar) month(date int64) (first, length int64, match set) {
	year, month, dom := time.Unix(date*day, 0).UTC().Date()
	first = date - int64(dom) + 1
	n := time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
	if !c.months.has(int(month)) || !c.hasYear(year) {
		return first, int64(n), 0
	}
	weekday := int((first%7 + 11) % 7) // of the 1st; day 0 was a Thursday
	all := set(1)<<n - 1
	switch {
	case c.byDay && c.byWeekday:
		match = c.matchDays(n, weekday) | c.matchWeekdays(n, weekday)
	case c.byDay:
		match = c.matchDays(n, weekday)
	case c.byWeekday:
		match = c.matchWeekdays(n, weekday)
	default:
		match = all
	}
	return first, int64(n), match & all
}

func (c *calendar) hasYear(year int) bool {
	if c.anyYear {
		return true
	}
	i := year - firstYear
	return i >= 0 && i < 64*len(c.years) && c.years[i/64].has(i%64)
}

// matchDays is what the day-of-month field selects in a month of n days whose 1st is the given weekday.
func (c *calendar) matchDays(n, weekday int) set {
	match := c.days
	if c.lastDay {
		match |= 1 << (n - 1)
	}
	for rest := c.nearest; rest != 0; rest &= rest - 1 {
		i := min(rest.min(), n-1)
		switch w := (weekday + i) % 7; {
		case w == 6 && i == 0: // Saturday the 1st: the Friday would be in another month
			i += 2
		case w == 6:
			i--
		case w == 0 && i == n-1: // Sunday the last
			i -= 2
		case w == 0:
			i++
		}
		match |= 1 << i
	}
	return match
}

// matchWeekdays is what the day-of-week field selects in a month of n days whose 1st is the given weekday.
func (c *calendar) matchWeekdays(n, weekday int) set {
	const weekly = 1 | 1<<7 | 1<<14 | 1<<21 | 1<<28
	var match set
	for rest := c.weekdays; rest != 0; rest &= rest - 1 {
		row, w := rest.min()/7, rest.min()%7
		i := (w - weekday + 7) % 7 // the first of its kind in the month
		switch {
		case row == everyWeek:
			match |= weekly << i
		case row < lastWeek:
			match |= 1 << (i + 7*(row-1))
		case i+28 < n:
			match |= 1 << (i + 28)
		default:
			match |= 1 << (i + 21)
		}
	}
	return match
}
