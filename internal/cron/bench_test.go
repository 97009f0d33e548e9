package cron_test

import (
	"testing"
	"time"
)

func BenchmarkParse(b *testing.B) {
	for b.Loop() {
		parse(b, "*/15 9-17 * jan-nov mon-fri")
	}
}

func BenchmarkNext(b *testing.B) {
	loc, at := zone(b, "America/New_York"), time.Date(2026, 11, 22, 12, 0, 30, 0, time.UTC)
	for name, expr := range map[string]string{
		"minute": "* * * * *", "daily": "30 9 * * *", "workdays": "*/15 9-17 * * mon-fri", "leap": "0 0 29 2 *", "rarest": "0 0 * 2 mon#5",
	} {
		s := parse(b, expr)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s.Next(loc, at)
			}
		})
	}
}

func BenchmarkPrev(b *testing.B) {
	loc, at := zone(b, "America/New_York"), time.Date(2026, 11, 22, 12, 0, 30, 0, time.UTC)
	for name, expr := range map[string]string{"minute": "* * * * *", "daily": "30 9 * * *", "leap": "0 0 29 2 *"} {
		s := parse(b, expr)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s.Prev(loc, at)
			}
		})
	}
}

func BenchmarkCount30Days(b *testing.B) {
	loc, at := zone(b, "America/New_York"), time.Date(2026, 10, 20, 0, 0, 0, 0, time.UTC)
	for name, expr := range map[string]string{"minutes": "* * * * *", "seconds": "* * * * * *", "wall": "*/5 0-23 * * *"} {
		s := parse(b, expr)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s.Count(loc, at, at.AddDate(0, 0, 30))
			}
		})
	}
}

func BenchmarkLoadZone(b *testing.B) {
	for b.Loop() {
		zone(b, "america/new_york")
	}
}
