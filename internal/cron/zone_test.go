package cron_test

import (
	"archive/zip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"unstuck/internal/cron"
)

// Every zone says what its file in the archive says, at the end of each month of a century.
func TestZonesAreTheArchive(t *testing.T) {
	for _, loc := range allZones(t) {
		want, err := time.LoadLocationFromTZData(loc.String(), zoneFile(t, loc.String()))
		if err != nil {
			t.Fatal(err)
		}
		for month := range 1200 {
			at := time.Date(1950, time.Month(month), 1, 0, 0, 0, 0, time.UTC)
			name, offset := at.In(loc).Zone()
			if wantName, wantOffset := at.In(want).Zone(); name != wantName || offset != wantOffset {
				t.Fatalf("%v at %v: %s %d, want %s %d", loc, at, name, offset, wantName, wantOffset)
			}
		}
	}
}

// zoneFile is a zone's file of the archive.
func zoneFile(t *testing.T, name string) []byte {
	t.Helper()
	archive, err := zip.OpenReader("zoneinfo.zip")
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	f, err := archive.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The version has the form of a release, and the zones are of it: America/Coyhaique is new in 2025b.
func TestZoneVersion(t *testing.T) {
	if !regexp.MustCompile(`^20[0-9]{2}[a-z]$`).MatchString(cron.Version) || cron.Version < "2025b" {
		t.Errorf("version %q", cron.Version)
	}
	if at := instant(t, "2025-07-01T12:00:00Z").In(zone(t, "America/Coyhaique")); at.Hour() != 9 {
		t.Errorf("noon in UTC is %v in Coyhaique", at)
	}
}

// Zone files of the machine change nothing: here one that calls Tokyo's time Berlin's. Go looks for them once in a process, so the
// question is asked in another.
func TestZonesIgnoreTheMachine(t *testing.T) {
	if os.Getenv("UNSTUCK_TEST_ZONE") != "" {
		_, _ = os.Stdout.WriteString("noon is " + instant(t, "2026-01-01T12:00:00Z").In(zone(t, "Europe/Berlin")).Format("15:04 MST") + "\n")
		return
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "Europe"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Europe", "Berlin"), zoneFile(t, "Asia/Tokyo"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestZonesIgnoreTheMachine$")
	cmd.Env = append(os.Environ(), "UNSTUCK_TEST_ZONE=1", "ZONEINFO="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "noon is 13:00 CET") {
		t.Errorf("%v: %s", err, out)
	}
}
