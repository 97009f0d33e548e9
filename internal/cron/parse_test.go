package cron_test

import (
	"strings"
	"testing"
	"time"

	"unstuck/internal/cron"
)

// TestSyntax says what each form means by its first firings from 1 January 2026, a Thursday, in UTC.
func TestSyntax(t *testing.T) {
	const date, clock, both = "Jan 2", "15:04:05", "2006-01-02 15:04"
	for _, c := range []struct{ expr, layout, want string }{
		{"*/20 * * * *", clock, "00:20:00, 00:40:00, 01:00:00, 01:20:00"},
		{"0/15 * * * *", clock, "00:15:00, 00:30:00, 00:45:00, 01:00:00"},
		{"50/4 * * * *", clock, "00:50:00, 00:54:00, 00:58:00, 01:50:00"},
		{"10-20/5 * * * *", clock, "00:10:00, 00:15:00, 00:20:00, 01:10:00"},
		{"*/90 * * * *", clock, "01:00:00, 02:00:00, 03:00:00, 04:00:00"},
		{"5-10/999999999999 * * * *", clock, "00:05:00, 01:05:00, 02:05:00, 03:05:00"},
		{"05,5,*/30 * * * *", clock, "00:05:00, 00:30:00, 01:00:00, 01:05:00"},
		{"0 22-2 * * *", clock, "01:00:00, 02:00:00, 22:00:00, 23:00:00"},
		{"0 22-2/2 * * *", clock, "02:00:00, 22:00:00, 00:00:00, 02:00:00"},
		{"0 5-5 * * *", clock, "05:00:00, 05:00:00, 05:00:00, 05:00:00"},
		{"? ? ? ? ? ? ?", clock, "00:00:01, 00:00:02, 00:00:03, 00:00:04"},
		{"* * * * * 0/25", clock, "00:00:25, 00:00:50, 00:01:00, 00:01:25"},
		{"59 23 * * * 58-1", clock, "23:59:00, 23:59:01, 23:59:58, 23:59:59"},
		{"  0\t12  * * * ", clock, "12:00:00, 12:00:00, 12:00:00, 12:00:00"},

		{"0 0 31 * *", date, "Jan 31, Mar 31, May 31, Jul 31"},
		{"0 0 28-3/2 * *", date, "Jan 1, Jan 3, Jan 28, Jan 30"},
		{"0 0 L * *", date, "Jan 31, Feb 28, Mar 31, Apr 30"},
		{"0 0 15,l 2 *", date, "Feb 15, Feb 28, Feb 15, Feb 28"},
		{"0 0 15W * *", date, "Jan 15, Feb 16, Mar 16, Apr 15"},
		{"0 0 1w * *", date, "Jan 1, Feb 2, Mar 2, Apr 1"},
		{"0 0 31W * *", date, "Jan 30, Feb 27, Mar 31, Apr 30"},
		{"0 0 31W 8 *", both, "2026-08-31 00:00, 2027-08-31 00:00, 2028-08-31 00:00, 2029-08-31 00:00"},
		{"0 0 1W 8 *", both, "2026-08-03 00:00, 2027-08-02 00:00, 2028-08-01 00:00, 2029-08-01 00:00"},
		{"0 0 30W 4 *", both, "2026-04-30 00:00, 2027-04-30 00:00, 2028-04-28 00:00, 2029-04-30 00:00"},
		{"0 0 1W,15W,20 6 *", date, "Jun 1, Jun 15, Jun 20, Jun 1"},

		{"0 0 1 1/4 *", date, "Jan 1, May 1, Sep 1, Jan 1"},
		{"0 0 1 12/9 *", date, "Dec 1, Dec 1, Dec 1, Dec 1"},
		{"0 0 1 NOV-feb *", date, "Jan 1, Feb 1, Nov 1, Dec 1"},
		{"0 0 1 jan-Mar/2,12 *", date, "Jan 1, Mar 1, Dec 1, Jan 1"},

		{"0 0 * * 0", date, "Jan 4, Jan 11, Jan 18, Jan 25"},
		{"0 0 * * 7", date, "Jan 4, Jan 11, Jan 18, Jan 25"},
		{"0 0 * * 0-7", date, "Jan 1, Jan 2, Jan 3, Jan 4"},
		{"0 0 * * 5-7", date, "Jan 2, Jan 3, Jan 4, Jan 9"},
		{"0 0 * * 5-1", date, "Jan 2, Jan 3, Jan 4, Jan 5"},
		{"0 0 * * Fri-MON/2", date, "Jan 2, Jan 4, Jan 9, Jan 11"},
		{"0 0 * * 7-2", date, "Jan 4, Jan 5, Jan 6, Jan 11"},
		{"0 0 * * 7-0", date, "Jan 4, Jan 11, Jan 18, Jan 25"},
		{"0 0 * * 5/1", date, "Jan 2, Jan 3, Jan 9, Jan 10"},
		{"0 0 * * 7/2", date, "Jan 4, Jan 11, Jan 18, Jan 25"},
		{"0 0 * * mon,wed", date, "Jan 5, Jan 7, Jan 12, Jan 14"},
		{"0 0 * * L5", date, "Jan 30, Feb 27, Mar 27, Apr 24"},
		{"0 0 * * L7,L1", date, "Jan 25, Jan 26, Feb 22, Feb 23"},
		{"0 0 * * sat#2", date, "Jan 10, Feb 14, Mar 14, Apr 11"},
		{"0 0 * * 6#2", date, "Jan 10, Feb 14, Mar 14, Apr 11"},
		{"0 0 * * 7#5", date, "Mar 29, May 31, Aug 30, Nov 29"},
		{"0 0 * * mon#1,mon#3", date, "Jan 5, Jan 19, Feb 2, Feb 16"},
		{"0 0 * * mon-wed#1", date, "Jan 5, Jan 6, Jan 7, Feb 2"},
		{"0 0 * * mon#1,sun", date, "Jan 4, Jan 5, Jan 11, Jan 18"},

		// A day field restricts unless it is exactly * or ?; if both do, either will do.
		{"0 0 13 * 5", date, "Jan 2, Jan 9, Jan 13, Jan 16"},
		{"0 0 13 * *", date, "Jan 13, Feb 13, Mar 13, Apr 13"},
		{"0 0 ? * 5", date, "Jan 2, Jan 9, Jan 16, Jan 23"},
		{"0 0 13 * */9", date, "Jan 4, Jan 11, Jan 13, Jan 18"},
		{"0 0 */10 * 5", date, "Jan 1, Jan 2, Jan 9, Jan 11"},
		{"0 0 1-31 * 5", date, "Jan 1, Jan 2, Jan 3, Jan 4"},
		{"0 0 *,13 * 5", date, "Jan 1, Jan 2, Jan 3, Jan 4"},
		{"0 0 30 2 1", date, "Feb 2, Feb 9, Feb 16, Feb 23"},

		{"0 0 1 1 * 0 2027-2030/2,2040", both, "2027-01-01 00:00, 2029-01-01 00:00, 2040-01-01 00:00"},
		{"0 0 1 1 * 0 2097/1", both, "2097-01-01 00:00, 2098-01-01 00:00, 2099-01-01 00:00"},
		{"0 0 1 1 * 0 *", both, "2026-01-01 00:00, 2027-01-01 00:00, 2028-01-01 00:00, 2029-01-01 00:00"},

		{"@hourly", clock, "01:00:00, 02:00:00, 03:00:00, 04:00:00"},
		{"@daily", both, "2026-01-01 00:00, 2026-01-02 00:00, 2026-01-03 00:00, 2026-01-04 00:00"},
		{"@MIDNIGHT", both, "2026-01-01 00:00, 2026-01-02 00:00, 2026-01-03 00:00, 2026-01-04 00:00"},
		{"@weekly", both, "2026-01-04 00:00, 2026-01-11 00:00, 2026-01-18 00:00, 2026-01-25 00:00"},
		{"@monthly", both, "2026-01-01 00:00, 2026-02-01 00:00, 2026-03-01 00:00, 2026-04-01 00:00"},
		{"@yearly", both, "2026-01-01 00:00, 2027-01-01 00:00, 2028-01-01 00:00, 2029-01-01 00:00"},
		{" @Annually ", both, "2026-01-01 00:00, 2027-01-01 00:00, 2028-01-01 00:00, 2029-01-01 00:00"},
	} {
		s := parse(t, c.expr)
		if s.String() != c.expr {
			t.Errorf("String of %q is %q", c.expr, s)
		}
		// Firings at midnight of 1 January are listed except among times of day.
		at := time.Date(2025, 12, 31, 23, 59, 59, 0, time.UTC)
		if c.layout == clock {
			at = at.Add(time.Second)
		}
		var got []string
		for range 4 {
			next, ok := s.Next(time.UTC, at)
			if !ok {
				break
			}
			at, got = next, append(got, next.Format(c.layout))
		}
		if got := strings.Join(got, ", "); got != c.want {
			t.Errorf("%q:\ngot  %s\nwant %s", c.expr, got, c.want)
		}
	}
}

// TestRefused has what is not an expression, and a part of the sentence that says so.
func TestRefused(t *testing.T) {
	for _, c := range []struct{ expr, says string }{
		{"", `has 5 fields (minute, hour, day of month, month, day of week), or 6 with seconds last, or 7 with the year after them, but "" has 0`},
		{"   ", "has 0"},
		{"* * * *", "has 4"},
		{"* * * * * * * *", "has 8"},
		{"@reboot", `"@reboot" is not known; allowed with @ are @hourly`},
		{"@every 5m", "has 2"},
		{"@daily 0", "has 2"},
		{"@", "is not known"},
		{"60 * * * *", `field 1 of the cron expression (minute) is "60": "60" does not fit; allowed are 0 to 59, and *, lists`},
		{"1,2,99 * * * *", `(minute) is "1,2,99": "99" does not fit`},
		{"* 24 * * *", `field 2 of the cron expression (hour) is "24": "24" does not fit; allowed are 0 to 23`},
		{"* * 0 * *", `field 3 of the cron expression (day of month) is "0": "0" does not fit; allowed are 1 to 31, L (the last day), 15W`},
		{"* * 32 * *", "(day of month)"},
		{"* * * 0 *", "(month)"},
		{"* * * 13 *", "allowed are 1 to 12, jan to dec"},
		{"* * * january *", `"january" does not fit`},
		{"* * * * 8", "allowed are 0 to 7 (0 and 7 are Sunday), sun to sat, L5 (the last Friday), fri#2"},
		{"* * * * monday", `"monday" does not fit`},
		{"* * * * * 60", "field 6 of the cron expression (second)"},
		{"* * * * * * 1969", "field 7 of the cron expression (year)"},
		{"* * * * * * 2100", "allowed are 1970 to 2099"},
		{"* * * * * * 2030-2027", "runs backwards"},
		{"0 0 1 1 * 2027", "(second)"},
		{"H * * * *", `"h" does not fit`},
		{"R * * * *", "(minute)"},
		{"jan * * * *", "(minute)"},
		{"* * LW * *", "(day of month)"},
		{"* * L-3 * *", "(day of month)"},
		{"* * 1-L * *", "(day of month)"},
		{"* * L/2 * *", "(day of month)"},
		{"* * W15 * *", "(day of month)"},
		{"* * W * *", `"" does not fit`},
		{"* * 0W * *", "(day of month)"},
		{"* * 32W * *", "(day of month)"},
		{"* * 1-5W * *", "(day of month)"},
		{"* * 1W/2 * *", "(day of month)"},
		{"* * * * L", `(day of week) is "L": "" does not fit`},
		{"* * * * 5L", "(day of week)"},
		{"* * * * L8", "(day of week)"},
		{"* * * * L1-3", "(day of week)"},
		{"* * * * #6", "the number after # is \"6\"; allowed are 1 to 5"},
		{"* * * * #1", `"" does not fit`},
		{"* * * * mon#6", "allowed are 1 to 5"},
		{"* * * * mon#0", "allowed are 1 to 5"},
		{"* * * * mon#", "allowed are 1 to 5"},
		{"* * * * mon#1#2", "allowed are 1 to 5"},
		{"* * * * *#1", "stands before #"},
		{"* * * * mon/2#1", "stands before #"},
		{"*/0 * * * *", `the step after / is "0"; allowed are whole numbers from 1`},
		{"*/ * * * *", "the step after /"},
		{"*/-1 * * * *", "the step after /"},
		{"*/1.5 * * * *", "the step after /"},
		{"1/2/3 * * * *", "the step after /"},
		{"-1 * * * *", "(minute)"},
		{"+1 * * * *", "(minute)"},
		{"1.5 * * * *", "(minute)"},
		{"1- * * * *", "(minute)"},
		{"1-2-3 * * * *", "(minute)"},
		{"*-5 * * * *", "(minute)"},
		{"** * * * *", "(minute)"},
		{", * * * *", "(minute)"},
		{"1,,2 * * * *", "(minute)"},
		{"1, * * * *", "(minute)"},
		{"?,1 * * * *", "(minute)"},
		{"?/5 * * * *", "(minute)"},
		{"4294967296 * * * *", "(minute)"},
		{"١ * * * *", "(minute)"},
		{"0\x00 * * * *", `"0\x00"`},
		{"0 0 30 2 *", `"0 0 30 2 *" never matches: there is no such date`},
		{"0 0 31 4,6,9,11 *", "never matches"},
		{"0 0 30,31 feb ?", "never matches"},
		{"0 0 29 2 * 0 2026,2027", "never matches"},
		{"0 0 * 2 mon#5 0 2026", "never matches"},
		{"0 0 29 2 * 0 2100", "(year)"},
	} {
		s, err := cron.Parse(c.expr)
		if err == nil {
			t.Errorf("Parse(%q) = %v, want an error", c.expr, s)
		} else if !strings.Contains(err.Error(), c.says) {
			t.Errorf("Parse(%q) says\n%v\nwithout\n%s", c.expr, err, c.says)
		}
		if s != (cron.Spec{}) {
			t.Errorf("Parse(%q) has an error and a Spec that is not zero", c.expr)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, expr := range append(specs, "60 * * * *", "0 0 30 2 *", "* * * * *#1", "7-0/0 , - # L W", "@", "0 0 1 1 * 0 1970/4294967297") {
		f.Add(expr)
	}
	loc := zone(f, "America/New_York")
	at := time.Date(2026, 3, 8, 6, 59, 59, 5, time.UTC)
	f.Fuzz(func(t *testing.T, expr string) {
		s, err := cron.Parse(expr)
		if err != nil {
			if len(err.Error()) < 20 || s != (cron.Spec{}) {
				t.Fatalf("Parse(%q) = %v, %v: not a sentence, or not zero", expr, s, err)
			}
			return
		}
		again, err := cron.Parse(s.String())
		if err != nil || again != s {
			t.Fatalf("Parse(%q) cannot be repeated: %v", expr, err)
		}
		next, ok := s.Next(loc, at)
		if !ok {
			return
		}
		if !next.After(at) {
			t.Fatalf("%q: %v is not after %v", expr, next, at)
		}
		if n := s.Count(loc, at, next); n != 0 {
			t.Fatalf("%q: Count finds %d firings before the next, %v", expr, n, next)
		}
		if back, ok := s.Prev(loc, next.Add(1)); !ok || !back.Equal(next) {
			t.Fatalf("%q: Prev says %v, %v where Next says %v", expr, back, ok, next)
		}
	})
}
