package cron

import (
	_ "embed"
	"fmt"
	"iter"
	"math"
	"strings"
	"time"
	_ "time/tzdata" // so that zones are known on machines without zone files
)

// piece is a stretch of time in which the offset of a zone is constant, and the interval of readings that belong to it.
type piece struct {
	start    int64 // first instant, Unix seconds
	offset   int64 // local time minus UTC, seconds
	from, to int64 // readings in [from, to); those before start+offset were jumped over
}

// instant is when a reading of the piece fires. Those that the clock jumped over fire when it jumped.
func (p piece) instant(reading int64) int64 { return max(reading-p.offset, p.start) }

// settle is longer than any clock was ever put back (24 hours, when Alaska in 1867 and Samoa in 1892 changed to the other side
// of the date line): after that time a clock shows readings that it has not shown before.
const settle = 3 * day

// pieces cuts [from, to) into pieces, in order. With wall, each reading belongs to the piece in which the clock first reached
// or passed it; otherwise to every piece in which the clock shows it. A piece may own no readings at all (from ≥ to).
func pieces(loc *time.Location, from, to int64, wall bool) iter.Seq[piece] {
	return func(yield func(piece) bool) {
		begin := from
		if wall {
			begin -= settle
		}
		passed := int64(math.MinInt64) // from begin on, the clock has shown or jumped over every reading before this
		for start := begin; start < to; {
			offset, end := offsetAt(loc, start)
			end = min(end, to)
			p := piece{start: start, offset: offset, from: start + offset, to: end + offset}
			if wall && start > begin {
				p.from = passed
			}
			passed = max(passed, p.to)
			if start < from {
				p.from = max(p.from, from+offset)
			}
			if end > from && !yield(p) {
				return
			}
			start = end
		}
	}
}

// offsetAt is the offset of loc at an instant, and an instant until which it stays the same.
func offsetAt(loc *time.Location, at int64) (offset, end int64) {
	t := time.Unix(at, 0).In(loc)
	_, seconds := t.Zone()
	_, bound := t.ZoneBounds()
	if bound.IsZero() {
		return int64(seconds), math.MaxInt64
	}
	if bound.Unix() > at {
		return int64(seconds), bound.Unix()
	}
	// In a year beyond the zone's table, ZoneBounds takes every year to have 365 days, so that on 31 December of a leap
	// year the bound is not after at. What it means is the end of the year, which is the next midnight in UTC.
	date, _ := split(at)
	return int64(seconds), (date + 1) * day
}

// zoneNames are the names of the IANA time zone database, one a line.
//
//go:generate go run zonenames.go
//go:embed zonenames.txt
var zoneNames string

// LoadZone finds a time zone by its IANA name, in any case of letters. The location has the name in its proper spelling.
// "Local" and the empty name are refused, as they would mean something else on every machine. The zone files of the
// machine are preferred to those built in, as they are with time.LoadLocation. A call reads a file: keep the result.
func LoadZone(name string) (*time.Location, error) {
	for proper := range strings.Lines(zoneNames) {
		if proper = strings.TrimSuffix(proper, "\n"); strings.EqualFold(proper, name) {
			loc, err := time.LoadLocation(proper)
			if err != nil {
				return nil, fmt.Errorf("read time zone %q: %w", proper, err)
			}
			return loc, nil
		}
	}
	return nil, fmt.Errorf("unknown time zone %q: allowed are names of the IANA database such as Europe/Berlin, and UTC", name)
}
