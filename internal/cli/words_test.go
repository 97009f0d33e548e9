package cli

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"unstuck/internal/op"
)

func at(t *testing.T, text string) time.Time {
	t.Helper()
	m, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// viewer is somebody in Berlin at a moment.
func viewer(t *testing.T, now string) *door {
	t.Helper()
	moment := at(t, now)
	return &door{Env: Env{Now: func() time.Time { return moment }, Zone: berlin(t)}}
}

func TestSpansAreTheLargestUnitThatFits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "0 s", 0: "0 s", 59 * time.Second: "59 s", time.Minute: "1 min", 59 * time.Minute: "59 min", time.Hour: "1 h", 23 * time.Hour: "23 h",
		24 * time.Hour: "1 day", 11 * 24 * time.Hour: "11 days", 59 * 24 * time.Hour: "59 days", 60 * 24 * time.Hour: "2 months", 240 * 24 * time.Hour: "8 months",
		800 * 24 * time.Hour: "2 years",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestShellWordsComeBackAsOne(t *testing.T) {
	for text, want := range map[string]string{
		"a1b2c3d4": "a1b2c3d4", "report worker": `"report worker"`, "": `""`, "10.0.0.0/8,::1/128": "10.0.0.0/8,::1/128",
		"$(rm)": `'$(rm)'`, "it's": `"it's"`, "it's $5": `'it'\''s $5'`, "crm-*": `"crm-*"`, "ä": `"ä"`,
	} {
		if got := shellWord(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// What other people may have chosen must not move the cursor or hide text of whoever reads it.
func TestTextsAreSafeForATerminal(t *testing.T) {
	if got := clean("a\x1b[31mred\x07\u202Ehidden\nnext\tlast\u009bC"); got != "a\uFFFD[31mred\uFFFD\uFFFDhidden\nnext\uFFFDlast\uFFFDC" {
		t.Errorf("%q", got)
	}
}

func TestTablesLineUp(t *testing.T) {
	table := newTable("NAME", "KEY")
	table.add("ä", "1")
	table.add("a\nb", "two", "three")
	if got := table.String(); got != "NAME  KEY\nä     1\na b   two  three\n" {
		t.Errorf("%q", got)
	}
}

func TestTimesSayNoMoreThanTheyMust(t *testing.T) {
	d := viewer(t, "2026-11-22T10:31:07Z")
	for _, c := range []struct {
		zone  string
		times []string
		want  string
	}{
		{"UTC", []string{"2026-11-22T10:35:00Z", "2026-11-22T10:40:00Z"}, "10:35  10:40 UTC   =   11:35  11:40 Europe/Berlin (yours)"},
		{"Europe/Berlin", []string{"2026-11-22T10:35:00Z"}, "11:35 Europe/Berlin"},
		{"Europe/Paris", []string{"2026-11-22T10:35:00Z"}, "11:35 Europe/Paris"},
		{"UTC", []string{"2026-11-22T23:30:00Z"}, "23:30 UTC   =   23 Nov 00:30 Europe/Berlin (yours)"},
		{"UTC", []string{"2026-11-22T10:35:30Z", "2026-11-23T10:35:00Z"}, "10:35:30  23 Nov 10:35:00 UTC   =   11:35:30  23 Nov 11:35:00 Europe/Berlin (yours)"},
		{"UTC", []string{"2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"}, "1 Jan 2027 00:00  1 Jan 2028 00:00 UTC   =   1 Jan 2027 01:00  1 Jan 2028 01:00 Europe/Berlin (yours)"},
		{"No/Where", []string{"2026-11-22T10:35:00Z"}, "10:35 UTC   =   11:35 Europe/Berlin (yours)"},
	} {
		var times []time.Time
		for _, text := range c.times {
			times = append(times, at(t, text))
		}
		if got := d.nextLine(times, c.zone); got != c.want {
			t.Errorf("%s in %s: %s, want %s", c.times, c.zone, got, c.want)
		}
	}
}

func TestMomentsAreReadInTheirZone(t *testing.T) {
	for text, want := range map[string]string{
		"2026-12-01 09:00": "2026-12-01T08:00:00Z", "2026-12-01T09:00:30": "2026-12-01T08:00:30Z", "2026-07-01": "2026-06-30T22:00:00Z",
		"2026-12-01T09:00:00Z": "2026-12-01T09:00:00Z", "2026-12-01 09:00+02:00": "2026-12-01T07:00:00Z",
	} {
		got, err := moment(text, berlin(t))
		if err != nil || !got.Equal(at(t, want)) {
			t.Errorf("%s: %v %v, want %s", text, got, err, want)
		}
	}
	if _, err := moment("soon", time.UTC); err == nil {
		t.Error("soon is a time")
	}
}

func TestAddressesAreCompared(t *testing.T) {
	for text, want := range map[string]string{
		"http://127.0.0.1:8080": "http://127.0.0.1:8080", "HTTPS://Unstuck.Example.com/": "https://unstuck.example.com", "unstuck.example.com/v1": "https://unstuck.example.com",
		"http://[::1]:8080/v1/": "http://[::1]:8080", "ftp://x": "", "https://": "", "https://a/b": "", "https://user@a": "", "https://a?x": "",
	} {
		if got, err := cleanURL(text); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q %v, want %q", text, got, err, want)
		}
	}
}

func TestKeysTravelOnlyProtectedOrOnThisMachine(t *testing.T) {
	for address, want := range map[string]bool{
		"https://unstuck.example.com": true, "http://127.0.0.1:8080": true, "http://127.8.8.8": true, "http://[::1]:8080": true, "http://localhost:8080": true,
		"http://unstuck.example.com": false, "http://10.0.0.1": false, "http://localhost.example.com": false, "http://127.0.0.1.example.com": false,
	} {
		if got := mayCarry(address); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}

func TestWhatNeedsAttention(t *testing.T) {
	d := viewer(t, "2026-11-22T10:00:00Z")
	key := &keyView{Scope: "custom", Permissions: []string{"cues:read", "cues:fire"}, Restrictions: &rules{Cues: []string{"crm-*"}, IPs: []string{"10.0.0.0/8"}, RatePerMinute: 30}}
	for _, c := range []struct{ reason, at, why, mend string }{
		{"expired_still_tried", "2026-11-22T08:00:00Z", "expired 2 h ago and is still tried: 312 refused calls", "unstuck keys extend a1b2c3d4 --by 1y"},
		{"expired_still_tried", "2026-10-01T08:00:00Z", "expired 52 days ago and is still tried: 312 refused calls",
			"unstuck keys create \"night worker\" --permission cues:read,cues:fire --only-cue \"crm-*\" --only-address 10.0.0.0/8 --at-most 30"},
		{"expiring", "2026-12-03T10:00:00Z", "expires in 11 days and is in use", "unstuck keys rotate a1b2c3d4 --expires 1y"},
		{"old_secret_used", "2026-11-23T10:00:00Z", "10.0.4.9, 10.0.4.30 still uses the old secret", "unstuck keys get a1b2c3d4"},
		{"stale", "2026-03-20T00:00:00Z", "not used for 8 months", "unstuck keys revoke a1b2c3d4"},
		{"never_expires", "2025-01-01T00:00:00Z", "never expires and is older than a year", "unstuck keys rotate a1b2c3d4 --expires 1y"},
		{"several_programs", "", "used from 10.0.4.9 and 10.0.4.30 at once: one key per program",
			"unstuck keys create \"night worker 2\" --permission cues:read,cues:fire --only-cue \"crm-*\" --only-address 10.0.0.0/8 --at-most 30"},
		{"wider_than_used", "", "full, and in 90 days it needed no more than worker", "unstuck keys narrow a1b2c3d4 --scope worker"},
	} {
		a := attention{Name: "night worker", Redacted: "unstuck_***_a1b2c3d4", Reason: c.reason, Count: 312, From: []string{"10.0.4.9", "10.0.4.30"}, Scope: "worker"}
		if c.at != "" {
			m := at(t, c.at)
			a.At = &m
		}
		if why, mend := d.attentionWords(a, key); why != c.why || mend != c.mend {
			t.Errorf("%s: %s, %s; want %s, %s", c.reason, why, mend, c.why, c.mend)
		}
	}
}

// TestNamesStayOnTheirLine whatever a server sends: a name cannot look like another line of what is printed.
func TestNamesStayOnTheirLine(t *testing.T) {
	const name = `"name":"x\nRevoked y\u001b[2J\u202e"`
	var k keyView
	var a attention
	var b keyBrief
	if err := errors.Join(unmarshal([]byte("{"+name+`,"created_by":{`+name+"}}"), &k), unmarshal([]byte("{"+name+"}"), &a), unmarshal([]byte("{"+name+"}"), &b)); err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{k.Name, k.CreatedBy.Name, a.Name, b.Name} {
		if got != "x\uFFFDRevoked y\uFFFD[2J\uFFFD" {
			t.Errorf("%q", got)
		}
	}
}

func TestWhatALastUseCameTo(t *testing.T) {
	d := viewer(t, "2026-11-22T10:00:00Z")
	d.set = op.NewSet(nil, nil, nil)
	for code, want := range map[string]string{
		"": "x", "insufficient_scope": "x, refused", "key_restricted": "x, refused", "members_only": "x, refused", "key_handed_over": "x, refused", "rate_limit_exceeded": "x, refused", "validation_error": "x, failed",
	} {
		if got := d.didWhat(&lastUsed{Operation: "x", Code: code}); got != want {
			t.Errorf("%s: %s", code, got)
		}
	}
	used := at(t, "2026-11-22T09:59:00Z")
	if got := d.lastUse(&lastUsed{Operation: "x", Via: "verify", UserAgent: "crm/1"}, &used); got != "1 min ago, verify, crm/1: x" {
		t.Error(got)
	}
}

func TestARotationIsWatchedUntilTheOldSecretIsQuiet(t *testing.T) {
	d := viewer(t, "2026-11-22T10:00:00Z")
	r := &run{door: d}
	used := func(redacted, state, when, agent, ip string) secretView {
		s := secretView{Redacted: redacted, State: state}
		if when != "" {
			m := at(t, when)
			s.LastUsedAt, s.LastUsed = &m, &lastUsed{UserAgent: agent, IP: ip}
		}
		return s
	}
	key := func(a, b secretView) *keyView {
		return &keyView{Name: "report worker", Redacted: "unstuck_***_e81f4c2a", Status: "active", Secrets: []secretView{a, b}}
	}
	const waiting = "Waiting until nobody has used the old secret for 30 min. Ctrl-C is safe: the rotation goes on without you."
	for _, c := range []struct {
		what string
		key  *keyView
		text string
		over bool
	}{
		{"nobody has switched", key(used("x_e81f4c2a", "pending", "", "", ""), used("x_0b6e44d2", "current", "2026-11-22T09:51:00Z", "mac-mini/1", "10.0.4.9")),
			"Still on the old secret                       on the new secret\n  mac-mini/1             10.0.4.9  9 min ago  –\n" + waiting, false},
		{"one of two has", key(used("x_e81f4c2a", "current", "2026-11-22T09:59:58Z", "ci/2", "10.0.4.30"), used("x_0b6e44d2", "old", "2026-11-22T09:51:00Z", "mac-mini/1", "10.0.4.9")),
			"Still on the old secret                        on the new secret\n  mac-mini/1             10.0.4.9   9 min ago  –\n  ci/2                   10.0.4.30  –          2 s ago\n" + waiting, false},
		{"the old one is quiet", key(used("x_e81f4c2a", "current", "2026-11-22T09:59:58Z", "ci/2", "10.0.4.30"), used("x_0b6e44d2", "old", "2026-11-22T09:29:00Z", "ci/2", "10.0.4.30")),
			"Still on the old secret                         on the new secret\n  ci/2                   10.0.4.30  31 min ago  2 s ago\n" +
				`Nobody has used the old secret for 30 min. End it: unstuck keys rotate e81f4c2a --finish`, true},
		{"it has ended", &keyView{Name: "report worker", Status: "active", Secrets: []secretView{used("x_e81f4c2a", "current", "", "", "")}}, "The old secret of report worker has ended.", true},
	} {
		got := r.picture(c.key)
		if diff := cmp.Diff(strings.Split(c.text, "\n"), strings.Split(got.text, "\n")); diff != "" || got.over != c.over {
			t.Errorf("%s: over %v (-want +got):\n%s", c.what, got.over, diff)
		}
	}
}

// TestWhatIsFilledInStaysOnItsLine: of names that a server sends, in sentences and tables.
func TestWhatIsFilledInStaysOnItsLine(t *testing.T) {
	const name = "x\nRevoked y\x1b[2J\u202e\r\u2028"
	if got := lines("Fired %s  execution %s", []any{name, "5f0c1b9e"}); got != "Fired x\uFFFDRevoked y\uFFFD[2J\uFFFD\uFFFD\uFFFD  execution 5f0c1b9e" {
		t.Errorf("%q", got)
	}
	rows := newTable("NAME", "ID")
	rows.add(name, "1")
	for _, format := range []string{"%s", "It can\n%s"} {
		got := lines(format, []any{rows.String()})
		if strings.Count(got, "\n") != 2+strings.Count(format, "\n") || strings.ContainsAny(got, "\x1b\r\u202e\u2028") {
			t.Errorf("%q", got)
		}
	}
}

// TestTablesFitTheTerminal by cutting what is long, not what names things.
func TestTablesFitTheTerminal(t *testing.T) {
	made := func() *table {
		rows := newTable("NAME", "STATUS", "SCHEDULE", "ID")
		rows.add(strings.Repeat("n", 70), "active", "0 9 * * 1-5 America/Argentina/Buenos_Aires", "cue_mm10fly4niy0")
		rows.add("short", "paused", "once", "cue_4geakpy423by")
		return rows
	}
	whole := made().String()
	for width, want := range map[int]int{0: 140, 140: 140, 120: 120, 100: 100, 80: 80, 40: 68} { // 68: no column is cut below 20
		got := made().fit(width).String()
		longest := 0
		for line := range strings.Lines(got) {
			longest = max(longest, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")))
		}
		if longest != want || !strings.Contains(got, "cue_mm10fly4niy0") || (width == 0 || width == 140) != (got == whole) {
			t.Errorf("at %d columns it has %d, want %d:\n%s", width, longest, want, got)
		}
	}
}

// TestEndsSoon: an end within two days has its time of day.
func TestEndsSoon(t *testing.T) {
	d := viewer(t, "2026-11-22T10:00:00Z")
	for in, timed := range map[time.Duration]bool{time.Hour: true, 47 * time.Hour: true, 49 * time.Hour: false, -time.Hour: true} {
		at := d.Now().Add(in)
		if got := d.until(&keyView{ExpiresAt: &at}); strings.HasSuffix(got, at.In(d.Zone).Format(" 15:04")) != timed {
			t.Errorf("in %v: %q", in, got)
		}
	}
}
