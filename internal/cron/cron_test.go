package cron_test

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"unstuck/internal/cron"
)

func parse(t testing.TB, expr string) cron.Spec {
	t.Helper()
	s, err := cron.Parse(expr)
	if err != nil {
		t.Fatalf("Parse(%q): %v", expr, err)
	}
	return s
}

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := cron.LoadZone(name)
	if err != nil {
		t.Fatalf("LoadZone: %v", err)
	}
	return loc
}

// instant reads a time in RFC 3339.
func instant(t testing.TB, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// firings lists all in [from, to) by Next, and checks that Prev and Count say the same.
func firings(t testing.TB, s cron.Spec, loc *time.Location, from, to time.Time) []time.Time {
	t.Helper()
	var forward, back []time.Time
	for at, ok := s.Next(loc, from.Add(-1)); ok && at.Before(to); at, ok = s.Next(loc, at) {
		forward = append(forward, at)
	}
	for at, ok := s.Prev(loc, to); ok && !at.Before(from); at, ok = s.Prev(loc, at) {
		back = append(back, at)
	}
	slices.Reverse(back)
	if !slices.EqualFunc(forward, back, time.Time.Equal) {
		t.Errorf("%q in %v from %v to %v:\nNext says %v\nPrev says %v", s, loc, from, to, forward, back)
	}
	if n := s.Count(loc, from, to); n != int64(len(forward)) {
		t.Errorf("%q in %v from %v to %v: Count says %d, Next says %d", s, loc, from, to, n, len(forward))
	}
	return forward
}

// TestDaylightSaving has, for days on which clocks jump, every firing of the local day, as the clock shows it.
func TestDaylightSaving(t *testing.T) {
	for _, c := range []struct{ zone, day, expr, want string }{
		// New York leaves out 02:00 to 03:00 on 8 March 2026, and has 01:00 to 02:00 twice on 1 November.
		{"America/New_York", "2026-03-08", "*/10 2 * * *", "03:00-04:00"},
		{"America/New_York", "2026-03-08", "0 2 * * *", "03:00-04:00"},
		{"America/New_York", "2026-03-08", "30 2 * * *", "03:00-04:00"},
		{"America/New_York", "2026-03-08", "0 2,3 * * *", "03:00-04:00"},
		{"America/New_York", "2026-03-08", "15,30 2-3 * * *", "03:00-04:00 03:15-04:00 03:30-04:00"},
		{"America/New_York", "2026-03-08", "30 */2 * * *", "00:30-05:00 04:30-04:00 06:30-04:00 08:30-04:00 10:30-04:00 12:30-04:00 14:30-04:00 16:30-04:00 18:30-04:00 20:30-04:00 22:30-04:00"},
		{"America/New_York", "2026-03-08", "0 */2 8 3 *", "00:00-05:00 04:00-04:00 06:00-04:00 08:00-04:00 10:00-04:00 12:00-04:00 14:00-04:00 16:00-04:00 18:00-04:00 20:00-04:00 22:00-04:00"},
		{"America/New_York", "2026-03-08", "* 2 * * * *", "03:00-04:00"},
		{"America/New_York", "2026-11-01", "*/10 1 * * *", "01:00-04:00 01:10-04:00 01:20-04:00 01:30-04:00 01:40-04:00 01:50-04:00"},
		{"America/New_York", "2026-11-01", "30 1 * * *", "01:30-04:00"},
		{"America/New_York", "2026-11-01", "0 2 * * *", "02:00-05:00"},
		{"America/New_York", "2026-11-01", "0 */24,1 * * *", "00:00-04:00 01:00-04:00 01:00-05:00"},
		{"America/New_York", "2026-11-01", "30 0-2 * * *", "00:30-04:00 01:30-04:00 02:30-05:00"},
		// Berlin.
		{"Europe/Berlin", "2026-03-29", "30 2 * * *", "03:00+02:00"},
		{"Europe/Berlin", "2026-10-25", "30 2 * * *", "02:30+02:00"},
		// Lord Howe moves by half an hour.
		{"Australia/Lord_Howe", "2026-10-04", "15 2 * * *", "02:30+11:00"},
		{"Australia/Lord_Howe", "2026-10-04", "0,15,30,45 2 * * *", "02:30+11:00 02:45+11:00"},
		{"Australia/Lord_Howe", "2026-04-05", "15,45 1,2 * * *", "01:15+11:00 01:45+11:00 02:15+10:30 02:45+10:30"},
		{"Australia/Lord_Howe", "2026-04-05", "45 *,1 5 4 *", "00:45+11:00 01:45+11:00 01:45+10:30 02:45+10:30 03:45+10:30 04:45+10:30 05:45+10:30 06:45+10:30 07:45+10:30 08:45+10:30 09:45+10:30 10:45+10:30 11:45+10:30 12:45+10:30 13:45+10:30 14:45+10:30 15:45+10:30 16:45+10:30 17:45+10:30 18:45+10:30 19:45+10:30 20:45+10:30 21:45+10:30 22:45+10:30 23:45+10:30"},
		// Troll moves by two hours.
		{"Antarctica/Troll", "2026-03-29", "0 1,2 * * *", "03:00+02:00"},
		{"Antarctica/Troll", "2026-10-25", "0 1,2 * * *", "01:00+02:00 02:00+02:00"},
		// São Paulo had no midnight on 4 November 2018, and 23:00 to midnight twice on 17 February 2018.
		{"America/Sao_Paulo", "2018-11-04", "0 0 * * *", "01:00-02:00"},
		{"America/Sao_Paulo", "2018-11-04", "30 0 4 11 *", "01:00-02:00"},
		{"America/Sao_Paulo", "2018-11-03", "0 0 * * *", "00:00-03:00"},
		{"America/Sao_Paulo", "2018-02-17", "30 23 * * *", "23:30-02:00"},
		{"America/Sao_Paulo", "2018-02-18", "0 0 * * *", "00:00-03:00"},
		// Samoa left out 30 December 2011; what was due on that day fires when it would have ended.
		{"Pacific/Apia", "2011-12-29", "0 12 * * *", "12:00-10:00"},
		{"Pacific/Apia", "2011-12-31", "0 12 * * *", "00:00+14:00 12:00+14:00"},
		{"Pacific/Apia", "2011-12-31", "0 12 30 12 *", "00:00+14:00"},
		{"Pacific/Apia", "2011-12-31", "0 */12 * * *", "00:00+14:00 12:00+14:00"},
		// Casablanca goes back for Ramadan.
		{"Africa/Casablanca", "2026-02-15", "30 2 * * *", "02:30+01:00"},
		{"Africa/Casablanca", "2026-03-22", "30 2 * * *", "03:00+01:00"},
		// Gaza changes on days of its own.
		{"Asia/Gaza", "2026-03-28", "30 2 * * *", "03:00+03:00"},
		{"Asia/Gaza", "2026-10-24", "30 1 * * *", "01:30+03:00"},
		// Monrovia was 44 minutes and 30 seconds behind Greenwich until 7 January 1972.
		{"Africa/Monrovia", "1972-01-07", "0 0 * * *", "00:44:30Z"},
		{"Africa/Monrovia", "1972-01-06", "0 12 * * *", "12:00:00-00:44:30"},
	} {
		loc := zone(t, c.zone)
		from, err := time.ParseInLocation(time.DateOnly, c.day, loc)
		if err != nil {
			t.Fatal(err)
		}
		year, month, date := from.Date()
		from = time.Date(year, month, date, 0, 0, 0, 0, time.UTC).Add(-36 * time.Hour)
		var got []string
		for _, at := range firings(t, parse(t, c.expr), loc, from, from.Add(96*time.Hour)) {
			if at.Format(time.DateOnly) == c.day {
				got = append(got, shown(at))
			}
		}
		if got := strings.Join(got, " "); got != c.want {
			t.Errorf("%s on %s, %q:\ngot  %s\nwant %s", c.zone, c.day, c.expr, got, c.want)
		}
	}
}

// shown is the local time with its offset, with seconds where either has them.
func shown(at time.Time) string {
	if _, offset := at.Zone(); offset%60 != 0 || at.Second() != 0 {
		return at.Format("15:04:05Z07:00:00")
	}
	return at.Format("15:04Z07:00")
}

func TestHourlyFollowsElapsedTime(t *testing.T) {
	loc := zone(t, "America/New_York")
	for day, want := range map[int]int{7: 24, 8: 23, 9: 24} {
		from := time.Date(2026, 3, day, 0, 0, 0, 0, loc)
		if got := len(firings(t, parse(t, "0 * * * *"), loc, from, from.AddDate(0, 0, 1))); got != want {
			t.Errorf("%d March: %d firings, want %d", day, got, want)
		}
	}
	from := time.Date(2026, 11, 1, 0, 0, 0, 0, loc)
	for _, expr := range []string{"0 * * * *", "0 ? * * *", "@hourly", "0 */1 * * *"} {
		if got := len(firings(t, parse(t, expr), loc, from, from.AddDate(0, 0, 1))); got != 25 {
			t.Errorf("%q on 1 November: %d firings, want 25", expr, got)
		}
	}
	if got := len(firings(t, parse(t, "0 0-23 * * *"), loc, from, from.AddDate(0, 0, 1))); got != 24 {
		t.Errorf("0 0-23 * * * follows the wall clock: %d firings on 1 November, want 24", got)
	}
}

func TestNextAndPrevAreStrict(t *testing.T) {
	s := parse(t, "0 12 * * *")
	for _, c := range []struct{ at, next, prev string }{
		{"2026-05-01T12:00:00Z", "2026-05-02T12:00:00Z", "2026-04-30T12:00:00Z"},
		{"2026-05-01T12:00:00.000000001Z", "2026-05-02T12:00:00Z", "2026-05-01T12:00:00Z"},
		{"2026-05-01T11:59:59.999999999Z", "2026-05-01T12:00:00Z", "2026-04-30T12:00:00Z"},
		{"1960-05-01T12:00:00.5Z", "1960-05-02T12:00:00Z", "1960-05-01T12:00:00Z"},
		{"1960-05-01T11:59:59.5Z", "1960-05-01T12:00:00Z", "1960-04-30T12:00:00Z"},
	} {
		at := instant(t, c.at)
		if next, ok := s.Next(time.UTC, at); !ok || !next.Equal(instant(t, c.next)) {
			t.Errorf("Next(%s) = %v, %v; want %s", c.at, next, ok, c.next)
		}
		if prev, ok := s.Prev(time.UTC, at); !ok || !prev.Equal(instant(t, c.prev)) {
			t.Errorf("Prev(%s) = %v, %v; want %s", c.at, prev, ok, c.prev)
		}
	}
}

func TestCountIsHalfOpen(t *testing.T) {
	s := parse(t, "0 12 * * *")
	at := func(s string) time.Time { return instant(t, s) }
	for _, c := range []struct {
		from, to string
		want     int64
	}{
		{"2026-05-01T12:00:00Z", "2026-05-02T12:00:00Z", 1},
		{"2026-05-01T12:00:00Z", "2026-05-02T12:00:00.000000001Z", 2},
		{"2026-05-01T12:00:00.000000001Z", "2026-05-02T12:00:00Z", 0},
		{"2026-05-01T12:00:00Z", "2026-05-01T12:00:00Z", 0},
		{"2026-05-03T12:00:00Z", "2026-05-01T12:00:00Z", 0},
		{"2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", 365},
	} {
		if got := s.Count(time.UTC, at(c.from), at(c.to)); got != c.want {
			t.Errorf("Count(%s, %s) = %d, want %d", c.from, c.to, got, c.want)
		}
	}
	long := parse(t, "* * * * * *").Count(zone(t, "Europe/Berlin"), at("1900-01-01T00:00:00Z"), at("2100-01-01T00:00:00Z"))
	if want := int64(73049 * 86400); long != want {
		t.Errorf("200 years have %d seconds, want %d", long, want)
	}
}

// TestRareDates has the longest waits there are.
func TestRareDates(t *testing.T) {
	for _, c := range []struct{ expr, after, next string }{
		{"0 0 29 2 *", "2096-02-29T00:00:00Z", "2104-02-29T00:00:00Z"},
		{"0 0 ? 2 mon#5", "2072-02-29T00:00:00Z", "2112-02-29T00:00:00Z"},
		{"0 0 1 1 * 0 2099", "0001-01-01T00:00:00Z", "2099-01-01T00:00:00Z"},
		{"0 0 1 1 * 0 1970", "1066-10-14T00:00:00Z", "1970-01-01T00:00:00Z"},
	} {
		s := parse(t, c.expr)
		next, ok := s.Next(time.UTC, instant(t, c.after))
		if !ok || !next.Equal(instant(t, c.next)) {
			t.Errorf("%q after %s: %v, %v; want %s", c.expr, c.after, next, ok, c.next)
		}
		prev, ok := s.Prev(time.UTC, next)
		if wanted := strings.Contains(c.expr, "2 "); wanted && (!ok || !prev.Equal(instant(t, c.after))) {
			t.Errorf("%q before %v: %v, %v; want %s", c.expr, next, prev, ok, c.after)
		}
	}
}

func TestNothingLeft(t *testing.T) {
	utc, beirut := time.UTC, zone(t, "Asia/Beirut")
	year := parse(t, "0 0 1 1 * 0 2030-2031")
	if at, ok := year.Next(utc, instant(t, "2031-01-01T00:00:00Z")); ok {
		t.Errorf("after the last year: %v", at)
	}
	if at, ok := year.Prev(utc, instant(t, "2030-01-01T00:00:00Z")); ok {
		t.Errorf("before the first year: %v", at)
	}
	// The first hour of the last Sunday in March is left out in Beirut, and */24 follows elapsed time.
	never := parse(t, "30 */24 * 3 L0")
	if at, ok := never.Next(beirut, instant(t, "2026-01-01T00:00:00Z")); ok {
		t.Errorf("an hour that is always left out: %v", at)
	}
	if at, ok := never.Prev(beirut, instant(t, "2026-01-01T00:00:00Z")); !ok || at.Year() > 1993 {
		t.Errorf("the hour was last there before 1993: %v, %v", at, ok)
	}
	if at, ok := (cron.Spec{}).Next(utc, instant(t, "2026-01-01T00:00:00Z")); ok {
		t.Errorf("the zero Spec fires: %v", at)
	}
	if at, ok := (cron.Spec{}).Prev(utc, instant(t, "2026-01-01T00:00:00Z")); ok {
		t.Errorf("the zero Spec has fired: %v", at)
	}
}

// TestFarAwayTimes shows that times no calendar has are answered at once and never with a firing on the wrong side.
func TestFarAwayTimes(t *testing.T) {
	loc := zone(t, "America/New_York")
	past, future := time.Unix(math.MinInt64, 0), time.Unix(math.MaxInt64, 999)
	for _, expr := range []string{"* * * * *", "0 12 * * *", "0 0 29 2 *", "0 0 1 1 * 0 2030"} {
		s := parse(t, expr)
		if at, ok := s.Next(loc, future); ok {
			t.Errorf("%q after the end of time: %v", expr, at)
		}
		if at, ok := s.Prev(loc, past); ok {
			t.Errorf("%q before the beginning of time: %v", expr, at)
		}
		if at, ok := s.Next(loc, past); !ok || at.Year() < -1 {
			t.Errorf("%q after the beginning of time: %v, %v", expr, at, ok)
		}
		if at, ok := s.Prev(loc, future); !ok || at.Year() > 9999 {
			t.Errorf("%q before the end of time: %v, %v", expr, at, ok)
		}
	}
	if n := parse(t, "0 0 1 1 *").Count(time.UTC, past, future); n != 10000 {
		t.Errorf("the years 0 to 9999 have %d New Years, want 10000", n)
	}
}

// TestZeroTime is about the firing whose instant is the zero time.Time, which is not the absence of one.
func TestZeroTime(t *testing.T) {
	s := parse(t, "0 0 1 1 *")
	if at, ok := s.Prev(time.UTC, time.Time{}.Add(1)); !ok || !at.Equal(time.Time{}) {
		t.Errorf("Prev: %v, %v", at, ok)
	}
	if at, ok := s.Next(time.UTC, time.Time{}.Add(-1)); !ok || !at.Equal(time.Time{}) {
		t.Errorf("Next: %v, %v", at, ok)
	}
}

func TestResultIsInTheZone(t *testing.T) {
	loc := zone(t, "Asia/Kolkata")
	s := parse(t, "0 9 * * *")
	at, _ := s.Next(loc, instant(t, "2026-05-01T12:00:00Z"))
	if got, want := at.String(), "2026-05-02 09:00:00 +0530 IST"; got != want {
		t.Errorf("Next: %s, want %s", got, want)
	}
	at, _ = s.Prev(loc, instant(t, "2026-05-01T12:00:00Z"))
	if got, want := at.String(), "2026-05-01 09:00:00 +0530 IST"; got != want {
		t.Errorf("Prev: %s, want %s", got, want)
	}
}

func TestLoadZone(t *testing.T) {
	for name, want := range map[string]string{
		"Europe/Berlin": "Europe/Berlin", "europe/berlin": "Europe/Berlin", "AMERICA/PORT_OF_SPAIN": "America/Port_of_Spain",
		"utc": "UTC", "UTC": "UTC", "etc/gmt+5": "Etc/GMT+5", "gb-eire": "GB-Eire", "est5edt": "EST5EDT",
		"antarctica/dumontdurville": "Antarctica/DumontDUrville", "US/Eastern": "US/Eastern",
	} {
		loc, err := cron.LoadZone(name)
		if err != nil || loc.String() != want {
			t.Errorf("LoadZone(%q) = %v, %v; want %s", name, loc, err, want)
		}
	}
	for _, name := range []string{
		"", "Local", "local", " UTC", "UTC\n", "Europe", "Europe/", "Europe/Bonn", "Berlin", "+02:00", "UTC+2", "posix/UTC", "right/UTC",
		"../Europe/Berlin", "/usr/share/zoneinfo/UTC", "Europe/Berlin\x00", "Europe/Berlin\nUTC", "localtime", "tzdata.zi",
	} {
		loc, err := cron.LoadZone(name)
		if err == nil {
			t.Errorf("LoadZone(%q) = %v, want an error", name, loc)
		} else if !strings.Contains(err.Error(), "unknown time zone") || !strings.Contains(err.Error(), "Europe/Berlin") {
			t.Errorf("LoadZone(%q): %v: does not say what is wrong and what is allowed", name, err)
		}
	}
}
