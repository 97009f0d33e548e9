package cron_test

import (
	"archive/zip"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"unstuck/internal/cron"
)

// specs are the expressions that are held against the oracle everywhere.
var specs = []string{
	"* * * * *",
	"0 * * * *",
	"*/10 2 * * *",
	"*/10 1 * * *",
	"30 */2 * * *",
	"0 0 * * *",
	"59 23 * * *",
	"30 0-3 * * *",
	"*/7 22-2 * * *",
	"15,45 ? * * *",
	"0 3 1,15 * 1-5",
	"30 2 L * *",
	"30 1 15W,1W * *",
	"0 0,12 * * sun#1,sun#2,sun#3,sun#4",
	"5/20 1-4 * * L0",
	"0 2 */2 mar-nov sat-sun",
	"0-59 2 29-1 * *",
	"30 2 * 3,4,9,10,11 7",
	"@daily",
	"0 12 30 12 *",
	"45 *,1 * * *",
	"0 1-2 ? * 0/3 0 1980-2099/2",
}

// fineSpecs have seconds.
var fineSpecs = []string{
	"* * * * * *",
	"*/20 1-2 * * * 59",
	"*/5 0-3 * * * 0,30",
	"0 2 * * * */7",
	"30 * * * * 17-3/5",
}

// zonesWithOddities have changes that simple code gets wrong.
var zonesWithOddities = []string{
	"America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca", "Antarctica/Troll", "America/Sao_Paulo",
	"Asia/Gaza", "Africa/Monrovia", "Europe/Dublin", "Asia/Beirut", "Pacific/Kwajalein", "America/Havana", "America/Nuuk",
	"Atlantic/Azores", "America/Ciudad_Juarez", "Asia/Pyongyang", "Antarctica/Casey", "America/Caracas",
}

// long asks for every transition of every zone, which takes minutes.
func long() bool { return os.Getenv("UNSTUCK_LONG") != "" }

// allZones are the zones of the database, with all their names. The oracle looks at the clock through them too: what it doubts is
// the package's reckoning, not the data, which TestZonesAreTheArchive holds against their file.
func allZones(t testing.TB) []*time.Location {
	data, err := zip.OpenReader("zoneinfo.zip")
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	var out []*time.Location
	for _, f := range data.File {
		if !strings.HasSuffix(f.Name, "/") {
			out = append(out, zone(t, f.Name))
		}
	}
	return out
}

// agree holds Next, Prev and Count against the oracle in [from, to).
func agree(t fataler, expr string, loc *time.Location, from, to, step, warmUp int64) {
	t.Helper()
	s, err := cron.Parse(expr)
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	want := newOracle(expr).fires(loc, from, to, step, warmUp)
	report := func(what string, got any) {
		t.Helper()
		t.Fatalf("%q in %v from %v: %s says %v, the oracle %v", expr, loc, time.Unix(from, 0).In(loc), what, got, want)
	}
	// same says whether an answer is the wanted firing of that index, where a missing one must lie outside the window.
	same := func(i int, got time.Time, ok bool) bool {
		if i < 0 || i == len(want) {
			return !ok || got.Unix() < from || got.Unix() >= to
		}
		return ok && got.Unix() == want[i]
	}
	at := time.Unix(from-1, 0)
	for i := range len(want) + 1 {
		next, ok := s.Next(loc, at)
		if !same(i, next, ok) {
			report(fmt.Sprint("Next after ", at.Unix()), next.Unix())
		}
		at = next
	}
	at = time.Unix(to, 0)
	for i := len(want) - 1; i >= -1; i-- {
		prev, ok := s.Prev(loc, at)
		if !same(i, prev, ok) {
			report(fmt.Sprint("Prev before ", at.Unix()), prev.Unix())
		}
		at = prev
	}
	random := rand.New(rand.NewPCG(uint64(from), uint64(to)))
	for range 30 { // from within a window of its own, which may begin among repeated readings
		a := from + random.Int64N(to-from)
		b := a + random.Int64N(to-a)
		lo, _ := slices.BinarySearch(want, a)
		hi, _ := slices.BinarySearch(want, b)
		if n := s.Count(loc, time.Unix(a, 0), time.Unix(b, 0)); n != int64(hi-lo) {
			report(fmt.Sprintf("Count from %d to %d", a, b), n)
		}
		if next, ok := s.Next(loc, time.Unix(a-1, 0)); !same(lo, next, ok) {
			report(fmt.Sprint("Next after ", a-1), next.Unix())
		}
		if prev, ok := s.Prev(loc, time.Unix(b, 0)); !same(hi-1, prev, ok) {
			report(fmt.Sprint("Prev before ", b), prev.Unix())
		}
	}
	if n := s.Count(loc, time.Unix(from, 0), time.Unix(to, 0)); n != int64(len(want)) {
		report("Count", n)
	}
}

// fataler is what *testing.T and *rapid.T have in common here.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// TestOracleAroundTransitions compares two days around changes of the clock: in odd zones a sample, and with UNSTUCK_LONG
// every change of every zone from 1840 to 2045.
func TestOracleAroundTransitions(t *testing.T) {
	zones, fromYear, everyChange, everySpec := []*time.Location{}, 1965, 7, 3
	if long() {
		zones, fromYear, everyChange, everySpec = allZones(t), 1840, 1, 1
	} else {
		for _, name := range zonesWithOddities {
			zones = append(zones, zone(t, name))
		}
	}
	done := map[transition]bool{}
	compared := 0
	for z, loc := range zones {
		for i, tr := range transitions(loc, fromYear, 2045) {
			big := max(tr.after-tr.before, tr.before-tr.after) > 3*3600
			if done[tr] || (i+z)%everyChange != 0 && !big {
				continue
			}
			done[tr] = true
			for j, expr := range specs {
				if (i+j)%everySpec != 0 {
					continue
				}
				reach := int64(2 * 86400)
				if tr.step() == 1 && !long() {
					reach = 6 * 3600
				}
				agree(t, expr, loc, tr.at-reach, tr.at+reach, tr.step(), 3*86400)
				compared++
			}
			expr := fineSpecs[i%len(fineSpecs)]
			agree(t, expr, loc, tr.at-4000, tr.at+8000, 1, 86400+7200)
			compared++
		}
	}
	t.Logf("%d transitions, %d comparisons", len(done), compared)
	if len(done) < 100 {
		t.Errorf("only %d transitions were found", len(done))
	}
}

// TestOracleElsewhere compares weeks at random, and the ends of leap years beyond the tables of the zones.
func TestOracleElsewhere(t *testing.T) {
	zones, weeks := allZones(t), 60
	if long() {
		weeks = 5000
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range weeks {
		loc := zones[random.IntN(len(zones))]
		from := int64(random.Uint64N(100*365*86400)) / 60 * 60 // 1970 to 2069
		if _, offset := time.Unix(from, 0).In(loc).Zone(); offset%60 != 0 {
			from = from%(86400*365) + 30*365*86400
		}
		agree(t, specs[random.IntN(len(specs))], loc, from, from+7*86400, 60, 3*86400)
	}
	for _, year := range []int{2028, 2048, 2096} {
		from := time.Date(year, 12, 29, 0, 0, 0, 0, time.UTC).Unix()
		for _, name := range []string{"America/New_York", "Australia/Sydney", "Pacific/Auckland", "Europe/Dublin", "Asia/Kolkata"} {
			for _, expr := range specs {
				agree(t, expr, zone(t, name), from, from+5*86400, 60, 3*86400)
			}
		}
	}
}

// anySpec draws an expression of five fields that is well-formed, though it may match no date.
func anySpec() *rapid.Generator[string] {
	number := func(t *rapid.T, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(t, "value") }
	list := func(t *rapid.T, lo, hi int, special func() string) string {
		var items []string
		for range rapid.IntRange(1, 3).Draw(t, "items") {
			a, b, step := number(t, lo, hi), number(t, lo, hi), number(t, 1, 9)
			forms := []string{fmt.Sprint(a), fmt.Sprint(a), fmt.Sprintf("%d-%d", a, b), fmt.Sprintf("%d-%d/%d", a, b, step),
				fmt.Sprintf("%d/%d", a, step), fmt.Sprintf("*/%d", step), special()}
			items = append(items, rapid.SampledFrom(forms).Draw(t, "item"))
		}
		return strings.Join(items, ",")
	}
	field := func(t *rapid.T, lo, hi int, special func() string) string {
		if free := rapid.SampledFrom([]string{"*", "?", "", "", "", ""}).Draw(t, "free"); free != "" {
			return free
		}
		return list(t, lo, hi, special)
	}
	none := func() string { return "1" }
	return rapid.Custom(func(t *rapid.T) string {
		weekday := rapid.SampledFrom([]string{"sun", "MON", "tue", "Wed", "thu", "fri", "sat"})
		hours := 23
		if rapid.Bool().Draw(t, "at night") { // where the clock changes
			hours = 3
		}
		day := func() string {
			return rapid.SampledFrom([]string{"L", fmt.Sprintf("%dW", number(t, 1, 31))}).Draw(t, "day")
		}
		dow := func() string {
			w := weekday.Draw(t, "weekday")
			return rapid.SampledFrom([]string{w, fmt.Sprintf("L%d", number(t, 0, 7)), fmt.Sprintf("%s#%d", w, number(t, 1, 5)),
				fmt.Sprintf("%d#%d", number(t, 0, 7), number(t, 1, 5)), w + "-" + weekday.Draw(t, "to"),
				fmt.Sprintf("%s-%s#%d", w, weekday.Draw(t, "to"), number(t, 1, 5))}).Draw(t, "form")
		}
		return strings.Join([]string{field(t, 0, 59, none), field(t, 0, hours, none), field(t, 1, 31, day), field(t, 1, 12, none), field(t, 0, 7, dow)}, " ")
	})
}

// possible says whether an expression matches any date.
func possible(expr string) bool {
	_, err := cron.Parse(expr)
	return err == nil
}

// dice draws evenly, where rapid would prefer small numbers.
func dice(t *rapid.T) *rand.Rand { return rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)) }

// TestOracleAnySpec compares drawn expressions around drawn transitions. One that Parse refuses must fit no date at all.
func TestOracleAnySpec(t *testing.T) {
	type place struct {
		loc *time.Location
		transition
	}
	var places []place
	for _, name := range zonesWithOddities {
		for _, tr := range transitions(zone(t, name), 1970, 2040) {
			if tr.step() == 60 {
				places = append(places, place{zone(t, name), tr})
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		expr, p := anySpec().Draw(t, "expr"), places[dice(t).IntN(len(places))]
		if _, err := cron.Parse(expr); err != nil {
			o := newOracle(expr)
			for d := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC); d.Year() < 2028; d = d.AddDate(0, 0, 1) {
				if o.matchesDate(d) {
					t.Fatalf("refused (%v), but fits %v", err, d)
				}
			}
			return
		}
		agree(t, expr, p.loc, p.at-2*86400, p.at+2*86400, 60, 3*86400)
	})
}

// TestOracleMadeUpZones compares drawn expressions in zones whose clocks jump to and fro within hours, by up to a day.
func TestOracleMadeUpZones(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		expr, random := anySpec().Filter(possible).Draw(t, "expr"), dice(t)
		quarters := func(lo, hi int) int64 { return int64(lo+random.IntN(hi-lo)) * 900 }
		begin := time.Date(2026, time.Month(1+random.IntN(12)), 1, 0, 0, 0, 0, time.UTC).Unix()
		at, offsets := []int64{begin}, []int64{quarters(-48, 48), quarters(-48, 48)}
		for range random.IntN(4) {
			at, offsets = append(at, at[len(at)-1]+quarters(1, 160)), append(offsets, quarters(-48, 48))
		}
		loc := madeUpZone(t, at, offsets)
		for _, expr := range []string{expr, "*/15 0-23 * * *"} { // the second, so that every reading matters
			agree(t, expr, loc, begin-2*86400, at[len(at)-1]+2*86400, 60, 3*86400)
		}
	})
}

// madeUpZone has the first offset, and at each of the given times changes to the next one.
func madeUpZone(t fataler, at, offsets []int64) *time.Location {
	// RFC 8536, version 1: a header with six counts, times, types at these times, types, abbreviations.
	tzif := append([]byte("TZif"), make([]byte, 16)...)
	for _, count := range []int{0, 0, 0, len(at), len(offsets), 4} {
		tzif = binary.BigEndian.AppendUint32(tzif, uint32(count))
	}
	for _, sec := range at {
		tzif = binary.BigEndian.AppendUint32(tzif, uint32(sec))
	}
	for i := range at {
		tzif = append(tzif, byte(i+1))
	}
	for _, offset := range offsets {
		tzif = append(binary.BigEndian.AppendUint32(tzif, uint32(offset)), 0, 0)
	}
	loc, err := time.LoadLocationFromTZData(fmt.Sprint("at ", at, " to ", offsets), append(tzif, "LMT\x00"...))
	if err != nil {
		t.Fatalf("make a zone: %v", err)
	}
	return loc
}

// TestNextPrevCountAgree holds the three against one another at any instant in any zone.
func TestNextPrevCountAgree(t *testing.T) {
	zones := allZones(t)
	rapid.Check(t, func(t *rapid.T) {
		s, err := cron.Parse(anySpec().Filter(possible).Draw(t, "expr"))
		if err != nil {
			t.Fatal(err)
		}
		random := dice(t)
		loc := zones[random.IntN(len(zones))]
		var times []time.Time
		for range 3 { // 1870 to 2100
			times = append(times, time.UnixMilli(random.Int64N(230*365*86400e3)-100*365*86400e3))
		}
		slices.SortFunc(times, time.Time.Compare)
		a, b, c := times[0], times[1], times[2]
		if whole, parts := s.Count(loc, a, c), s.Count(loc, a, b)+s.Count(loc, b, c); whole != parts {
			t.Fatalf("from %v by %v to %v: Count is %d, but in two parts %d", a, b, c, whole, parts)
		}
		next, ok := s.Next(loc, b)
		if !ok || !next.After(b) || s.Count(loc, b.Add(1), next) != 0 || s.Count(loc, next, next.Add(1)) != 1 {
			t.Fatalf("Next after %v is %v, %v; Count disagrees", b, next, ok)
		}
		prev, ok := s.Prev(loc, b)
		if !ok || !prev.Before(b) || s.Count(loc, prev.Add(1), b) != 0 || s.Count(loc, prev, prev.Add(1)) != 1 {
			t.Fatalf("Prev before %v is %v, %v; Count disagrees", b, prev, ok)
		}
		if back, ok := s.Prev(loc, next.Add(1)); !ok || !back.Equal(next) {
			t.Fatalf("Prev just after Next, %v, is %v", next, back)
		}
		if forth, ok := s.Next(loc, prev.Add(-1)); !ok || !forth.Equal(prev) {
			t.Fatalf("Next just before Prev, %v, is %v", prev, forth)
		}
	})
}
