package cli

import "testing"

// TZ names the zone of whoever reads, also where the machine has no zone files; what is no name of a zone is left to the machine.
func TestLocalZone(t *testing.T) {
	for tz, want := range map[string]string{"Europe/Berlin": "Europe/Berlin", "UTC": "UTC", "CET-1CEST": "Local"} {
		if got := localZone(tz).String(); got != want {
			t.Errorf("TZ=%s: %s, want %s", tz, got, want)
		}
	}
}
