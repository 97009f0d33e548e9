package cli

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The parts of the executions that ended add up to their number, whatever was reported.
func TestOutcomeSumsAddUp(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.Int64Range(0, 999)
		reported, good, bad := n.Draw(rt, "reported"), n.Draw(rt, "good"), n.Draw(rt, "bad")
		var all, a, b, reports int64
		text := strings.ReplaceAll(outcomeSums(reported, good, bad), ",", "")
		if _, err := fmt.Sscanf(text, "%d ended: %d success %d failed or missed; reports: %d", &all, &a, &b, &reports); err != nil {
			rt.Fatalf("%q: %v", text, err)
		}
		if all != a+b || reports != reported {
			rt.Fatalf("%q does not add up", text)
		}
	})
}

func TestLengthBack(t *testing.T) {
	for text, want := range map[string]time.Duration{"30m": 30 * time.Minute, "1h": time.Hour, "2d": 48 * time.Hour, "2026-11-22": 0, "1w": 0, "-1h": 0, "h": 0} {
		if got, ok := lengthBack(text); got != want || ok != (want != 0) {
			t.Errorf("%s: %v, %v", text, got, ok)
		}
	}
}

func TestUTCHasOneName(t *testing.T) {
	for _, name := range []string{"Etc/UTC", "Zulu", "UTC"} {
		if got := plainUTC(localZone(name)).String(); got != "UTC" {
			t.Errorf("%s is called %s", name, got)
		}
	}
}

// A name in the audit log is the person's for a personal key, and the key's for any other.
func TestWhoActed(t *testing.T) {
	row := auditRow{}
	row.Who.KeyID, row.Who.KeyName, row.Who.Member, row.Who.Kind = "key_1", "laptop", "usr_1", "personal"
	people := map[string]string{"usr_1": "ana@example.com"}
	if got := row.who("key_2", people); got != "ana@example.com (laptop)" {
		t.Error(got)
	}
	if row.Who.Kind = "integration"; row.who("key_2", people) != "laptop" {
		t.Error(row.who("key_2", people))
	}
}
