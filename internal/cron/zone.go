package cron

import (
	"archive/zip"
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"iter"
	"math"
	"strings"
	"sync"
	"time"
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

// archive is the IANA time zone database of Version, a file for each zone.
//
//go:generate go run zonedata_gen.go
//go:embed zoneinfo.zip
var archive []byte

// zones are the zones of the archive by their names in lower case. Each is read when it is first asked for, and kept.
var zones = sync.OnceValues(func() (map[string]func() (*time.Location, error), error) {
	files, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		return nil, fmt.Errorf("open the time zone database: %w", err)
	}
	all := map[string]func() (*time.Location, error){}
	for _, f := range files.File {
		if !strings.HasSuffix(f.Name, "/") {
			all[strings.ToLower(f.Name)] = sync.OnceValues(func() (*time.Location, error) { return readZone(f) })
		}
	}
	return all, nil
})

// ZoneNames are the names of all zones, in their spelling and order in the database.
func ZoneNames() []string {
	files, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		return nil // LoadZone says what is wrong
	}
	var names []string
	for _, f := range files.File {
		if !strings.HasSuffix(f.Name, "/") {
			names = append(names, f.Name)
		}
	}
	return names
}

func readZone(f *zip.File) (*time.Location, error) {
	if f.Name == "UTC" {
		return time.UTC, nil
	}
	r, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("read time zone %q: %w", f.Name, err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read time zone %q: %w", f.Name, err)
	}
	return time.LoadLocationFromTZData(f.Name, data)
}

// LoadZone finds a time zone by its IANA name, in any case of letters. The location has the name in its proper spelling.
// "Local" and the empty name are refused, as they would mean something else on every machine. The data are those built in, of
// Version, and never the files of the machine: a schedule means the same everywhere.
func LoadZone(name string) (*time.Location, error) {
	all, err := zones()
	if err != nil {
		return nil, err
	}
	read := all[strings.ToLower(name)]
	if read == nil {
		return nil, fmt.Errorf("unknown time zone %q: allowed are names of the IANA database such as Europe/Berlin, and UTC", name)
	}
	return read()
}
