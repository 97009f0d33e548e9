// Package cron answers three questions about a cron expression in a time zone: when does it fire next, when did it fire
// last, and how often does it fire between two instants. It is pure: it has no clock, no storage and no state, and none of its
// answers takes time in proportion to the number of firings.
//
// # Expressions
//
// An expression has five fields, or six (seconds last), or seven (year last):
//
//	minute hour day-of-month month day-of-week [second [year]]
//	0-59   0-23 1-31         1-12  0-7          0-59    1970-2099
//
// Months and days of the week also have their English names of three letters, in any case; Sunday is 0 and 7. A field is a
// list of items with commas between them:
//
//	7        one value
//	10-20    a range; 22-2 and fri-mon run on over the end of the field (not for years)
//	*        every value; ? means the same, but must be the whole field
//	*/5      every fifth value from the first; 10-20/5 within the range; 7/5 from 7 to the end of the field
//	L        day of month: the last day
//	15W      day of month: the weekday (Monday to Friday) nearest to the 15th in the same month; 31W in a shorter
//	         month is the weekday nearest to its last day
//	L5       day of week: the last Friday of the month
//	fri#2    day of week: the second Friday of the month, 1 to 5; mon-wed#1 is the first of each
//
// Without the sixth field the second is 0, without the seventh every year matches. In place of the fields may stand @hourly,
// @daily, @midnight, @weekly, @monthly, @yearly or @annually.
//
// A day field restricts unless it is exactly * or ?. When both restrict, a day matches if either does; otherwise both must.
// Parse refuses an expression that matches no date at all, such as 0 0 30 2 *.
//
// # Daylight saving
//
// Two kinds of people write cron expressions. "Every ten minutes" means elapsed time, "at half past two" means what the clock
// on the wall says. The hour field tells them apart:
//
//   - If it begins with * or is ?, the expression follows elapsed time: it fires at every instant at which the local clock
//     reads a matching time. Where the clock jumps forward nothing is added, and an hour that comes twice fires twice.
//   - Every other expression follows the wall clock: each matching time fires at its first occurrence. Those that the
//     clock jumps over fire together, once, at the instant of the jump.
//
// New York in 2026, where 02:00 to 03:00 is missing on 8 March and 01:00 to 02:00 comes twice on 1 November:
//
//	0 * * * *       23 times on 8 March, 25 times on 1 November
//	0 */2 * * *     not at 02:00 on 8 March
//	*/10 2 * * *    once on 8 March, at 03:00
//	*/10 1 * * *    six times on 1 November
//
// Any jump is handled the same way: half an hour on Lord Howe, two hours at Troll, midnight in São Paulo, the whole of
// 30 December 2011 that Samoa left out.
//
// # How it works
//
// A reading is what the wall clock shows, written as seconds since it showed 1970-01-01 00:00:00. An expression is a set of
// readings (calendar.go), which needs no time zone and is searched and counted month by month. A zone cuts time into
// pieces of constant offset (zone.go). Each piece owns an interval of readings, and the two kinds of expression differ
// only in where that interval begins: with elapsed time at the piece's own first reading, with the wall clock at the first
// reading that the clock had not yet reached or passed before. The rest is looking for readings piece by piece.
package cron

import "time"

// Spec is a parsed expression. It is immutable, safe for concurrent use, and comparable; two are equal when they were written
// alike. The zero value never fires.
type Spec struct {
	expr string
	wall bool // follows the wall clock rather than elapsed time
	calendar
}

// Instants outside these years, and for an expression with a year field outside 1970 to 2099, are never looked at. Two days
// are added for the distance between local time and UTC.
const (
	year0     = -62167219200 // 0000-01-01
	year10000 = 253402300800 // 10000-01-01
	year1970  = -2 * day
	year2100  = 4102444800 + 2*day
)

// horizon is the length of the Gregorian cycle, after which days and weekdays repeat: what does not fire within 400 years
// never fires. (The rarest date, a certain weekday on 29 February, comes at least every 40 years.)
const horizon = 146097 * day

// String is the expression as it was given to Parse.
func (s Spec) String() string { return s.expr }

// Next is the first firing strictly after the given instant, in loc. It is false when there is none: the years of the
// expression are over, or the clock of this zone jumps over every time that matches.
func (s Spec) Next(loc *time.Location, after time.Time) (time.Time, bool) {
	_, last := s.bounds()
	from := s.clamp(after) + 1
	for p := range pieces(loc, from, min(from+horizon, last), s.wall) {
		if r, ok := s.first(p.from, p.to); ok {
			return time.Unix(p.instant(r), 0).In(loc), true
		}
	}
	return time.Time{}, false
}

// Prev is the last firing strictly before the given instant, in loc. It is false when there is none.
func (s Spec) Prev(loc *time.Location, before time.Time) (time.Time, bool) {
	first, _ := s.bounds()
	to := s.ceil(before)
	// Pieces are known forwards only, so look at ever longer stretches that end here.
	for length := int64(2 * day); ; length *= 8 {
		from := max(to-min(length, horizon), first)
		at, found := int64(0), false
		for p := range pieces(loc, from, to, s.wall) {
			if r, ok := s.last(p.from, p.to); ok {
				at, found = p.instant(r), true
			}
		}
		if found {
			return time.Unix(at, 0).In(loc), true
		}
		if length >= horizon || from == first {
			return time.Time{}, false
		}
	}
}

// Count is the number of firings in [from, to). It takes time in proportion to the months between the two.
func (s Spec) Count(loc *time.Location, from, to time.Time) int64 {
	var n int64
	for p := range pieces(loc, s.ceil(from), s.ceil(to), s.wall) {
		shown := max(p.from, p.start+p.offset) // where the readings begin that the clock really shows
		n += s.count(shown, p.to)
		if _, jumped := s.first(p.from, shown); jumped && s.count(shown, shown+1) == 0 {
			n++
		}
	}
	return n
}

// bounds are the instants between which the expression may fire.
func (s Spec) bounds() (first, last int64) {
	if s.anyYear {
		return year0, year10000
	}
	return year1970, year2100
}

// clamp is the last whole second that is not after t, moved into the bounds.
func (s Spec) clamp(t time.Time) int64 {
	first, last := s.bounds()
	return min(max(t.Unix(), first), last)
}

// ceil is the first whole second that is not before t, moved into the bounds.
func (s Spec) ceil(t time.Time) int64 {
	sec := s.clamp(t)
	if _, last := s.bounds(); t.Nanosecond() > 0 && sec < last {
		sec++
	}
	return sec
}
