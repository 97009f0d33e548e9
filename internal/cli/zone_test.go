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

// A zone is named by people who do not know the list.
func TestNearZone(t *testing.T) {
	for name, want := range map[string]string{
		"Europe/Berlln": "Europe/Berlin", "europe/berlin": "Europe/Berlin", "Berlin": "Europe/Berlin", "New York": "America/New_York",
		"Amerika/New_York": "America/New_York", "PSX": "", "CEST": "", "nowhere at all": "",
	} {
		if got := nearZone(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
