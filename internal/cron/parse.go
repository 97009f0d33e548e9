package cron

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The places of the fields in an expression.
const (
	atMinute = iota
	atHour
	atDay
	atMonth
	atWeekday
	atSecond
	atYear
)

const firstYear, lastYear = 1970, 2099

// field describes what may stand in one field of an expression.
type field struct {
	name     string
	min, max int
	size     int      // the number of different values, which for weekdays is not max-min+1: 0 and 7 are both Sunday
	names    []string // other spellings of min, min+1, …; may be nil
	special  string   // for error messages: what is allowed beside the usual
}

// fields are the fields at their places.
var fields = [...]field{
	atMinute: {name: "minute", min: 0, max: 59, size: 60},
	atHour:   {name: "hour", min: 0, max: 23, size: 24},
	atDay: {name: "day of month", min: 1, max: 31, size: 31,
		special: ", L (the last day), 15W (the weekday nearest to the 15th)"},
	atMonth: {name: "month", min: 1, max: 12, size: 12,
		names: strings.Fields("jan feb mar apr may jun jul aug sep oct nov dec"), special: ", jan to dec"},
	atWeekday: {name: "day of week", min: 0, max: 7, size: 7,
		names:   strings.Fields("sun mon tue wed thu fri sat"),
		special: " (0 and 7 are Sunday), sun to sat, L5 (the last Friday), fri#2 (the second Friday)"},
	atSecond: {name: "second", min: 0, max: 59, size: 60},
	atYear:   {name: "year", min: firstYear, max: lastYear, size: lastYear - firstYear + 1},
}

// macro is the expression that a word with @ stands for, or empty when there is no such word.
func macro(word string) string {
	switch strings.ToLower(word) {
	case "@hourly":
		return "0 * * * *"
	case "@daily", "@midnight":
		return "0 0 * * *"
	case "@weekly":
		return "0 0 * * 0"
	case "@monthly":
		return "0 0 1 * *"
	case "@yearly", "@annually":
		return "0 0 1 1 *"
	}
	return ""
}

// Parse reads an expression in the syntax of the package comment. Its error is a sentence for the person who wrote the
// expression: it names the field that is wrong and says what is allowed there.
func Parse(expr string) (Spec, error) {
	parts := strings.Fields(expr)
	if len(parts) == 1 && parts[0][0] == '@' {
		meaning := macro(parts[0])
		if meaning == "" {
			return Spec{}, fmt.Errorf("the cron expression %q is not known; allowed with @ are "+
				"@hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually", expr)
		}
		parts = strings.Fields(meaning)
	}
	if len(parts) < 5 || len(parts) > len(fields) {
		return Spec{}, fmt.Errorf("a cron expression has 5 fields (minute, hour, day of month, month, day of week), "+
			"or 6 with seconds last, or 7 with the year after them, but %q has %d", expr, len(parts))
	}
	s := Spec{expr: expr, wall: parts[atHour][0] != '*' && parts[atHour] != "?"}
	s.seconds, s.anyYear = 1<<0, true
	for place, part := range parts {
		if err := s.readField(place, strings.ToLower(part)); err != nil {
			return Spec{}, fmt.Errorf("field %d of the cron expression (%s) is %q: %w", place+1, fields[place].name, part, err)
		}
	}
	if _, possible := s.first(0, horizon); !possible {
		return Spec{}, fmt.Errorf("the cron expression %q never matches: there is no such date", expr)
	}
	return s, nil
}

// readField adds a field, in lower case, to the calendar.
func (c *calendar) readField(place int, text string) error {
	free := text == "*" || text == "?"
	switch place {
	case atDay:
		c.byDay = !free
	case atWeekday:
		c.byWeekday = !free
	case atSecond:
		c.seconds = 0
	case atYear:
		c.anyYear = free
	}
	if free {
		return c.readItem(place, "*")
	}
	for item := range strings.SplitSeq(text, ",") {
		if err := c.readItem(place, item); err != nil {
			return err
		}
	}
	return nil
}

// readItem adds one item of a field's list.
func (c *calendar) readItem(place int, item string) error {
	f := &fields[place]
	date, nearest := strings.CutSuffix(item, "w")
	switch {
	case place == atDay && item == "l":
		c.lastDay = true
		return nil
	case place == atDay && nearest:
		v, err := f.value(date)
		if err != nil {
			return err
		}
		c.nearest |= 1 << (v - 1)
		return nil
	case place == atWeekday:
		return c.readWeekday(f, item)
	}
	return f.each(item, func(v int) { c.add(place, v) })
}

// readWeekday adds one item of the day-of-week field, in the row of the calendar that its form asks for.
func (c *calendar) readWeekday(f *field, item string) error {
	if weekday, ok := strings.CutPrefix(item, "l"); ok {
		v, err := f.value(weekday)
		if err != nil {
			return err
		}
		c.addWeekday(lastWeek, v)
		return nil
	}
	weekdays, nth, ok := strings.Cut(item, "#")
	if !ok {
		return f.each(item, func(v int) { c.addWeekday(everyWeek, v) })
	}
	n, ok := number(nth)
	if !ok || n < 1 || n > 5 {
		return fmt.Errorf("the number after # is %q; allowed are 1 to 5", nth)
	}
	if strings.ContainsAny(weekdays, "*/") {
		return fmt.Errorf("%q stands before #; allowed are a day of the week or a range of them", weekdays)
	}
	return f.each(weekdays, func(v int) { c.addWeekday(n, v) })
}

// addWeekday adds Sunday (0 or 7) to Saturday (6) to a row of the calendar's weekdays.
func (c *calendar) addWeekday(row, weekday int) { c.weekdays |= 1 << (7*row + weekday%7) }

// add puts a plain value of a field other than the weekday into the calendar.
func (c *calendar) add(place, v int) {
	switch place {
	case atMinute:
		c.minutes |= 1 << v
	case atHour:
		c.hours |= 1 << v
	case atDay:
		c.days |= 1 << (v - 1)
	case atMonth:
		c.months |= 1 << v
	case atSecond:
		c.seconds |= 1 << v
	case atYear:
		c.years[(v-firstYear)/64] |= 1 << ((v - firstYear) % 64)
	}
}

// each calls add with every value of an item: one value, a range or *, each perhaps with a step. A range whose end is below
// its beginning runs on over the last value of the field to the first.
func (f *field) each(item string, add func(int)) error {
	values, stepText, stepped := strings.Cut(item, "/")
	step := 1
	if stepped {
		n, ok := number(stepText)
		if !ok || n == 0 {
			return fmt.Errorf("the step after / is %q; allowed are whole numbers from 1", stepText)
		}
		step = min(n, f.size) // larger steps lead nowhere else, and the sum below could overflow
	}
	low, high, err := f.span(values, stepped)
	if err != nil {
		return err
	}
	if low > high && f == &fields[atYear] {
		return fmt.Errorf("the range %q runs backwards; put the earlier year first", values)
	}
	if low > high {
		high += f.size
	}
	for v := low; v <= high; v += step {
		add(f.min + (v-f.min)%f.size)
	}
	return nil
}

// span reads the part of an item before the step: *, a range, or one value, which with a step reaches to the end of the field.
func (f *field) span(values string, stepped bool) (low, high int, err error) {
	last := f.min + f.size - 1
	if values == "*" {
		return f.min, last, nil
	}
	lowText, highText, ranged := strings.Cut(values, "-")
	if low, err = f.value(lowText); err != nil {
		return 0, 0, err
	}
	switch {
	case ranged:
		high, err = f.value(highText)
	case stepped:
		high = max(low, last)
	default:
		high = low
	}
	return low, high, err
}

// value reads one value, which is a number or a name.
func (f *field) value(text string) (int, error) {
	if i := slices.Index(f.names, text); i >= 0 {
		return f.min + i, nil
	}
	if v, ok := number(text); ok && f.min <= v && v <= f.max {
		return v, nil
	}
	return 0, fmt.Errorf("%q does not fit; allowed are %d to %d%s, and *, lists (1,2), ranges (1-2) and steps (*/2)",
		text, f.min, f.max, f.special)
}

// number reads a number without a sign. All that are too large for an int of 32 bits are the same to it.
func number(text string) (int, bool) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	n, _ := strconv.ParseInt(text, 10, 32) // the only error left is that of a large number, and then n is the largest
	return int(n), true
}
