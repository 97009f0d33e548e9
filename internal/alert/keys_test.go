package alert_test

import (
	"strings"
	"testing"
	"time"

	"unstuck/internal/testkit"
)

type obj = map[string]any

// told are the titles of all alerts of a type, newest first; of those that are open only, if asked.
func told(s *testkit.Server, query string) (out []string) {
	for _, a := range s.Must(s.First, "GET /v1/alerts?limit=100&alert_type=key_expiring"+query, nil).JSON["alerts"].([]any) {
		out = append(out, a.(obj)["title"].(string))
	}
	return out
}

// use calls with a key.
func use(s *testkit.Server, key string) { s.Must(key, "GET /v1/keys/self", nil) }

// pass lets days go by, hour by hour, with a restart of the server now and then.
func pass(s *testkit.Server, d time.Duration) {
	for left := d; left > 0; left -= time.Hour {
		s.Clock.Add(min(left, time.Hour))
		s.Drain()
	}
	s.Restart(0)
	s.Drain()
}

const day = 24 * time.Hour

// A key in use is told of 30 days, 7 days and 1 day before its end, once each, whatever restarts; extending it closes what is open and
// says nothing again. A key that nobody uses, and one that was just given so little time, are not told of.
func TestKeyExpiring(t *testing.T) {
	testkit.Each(t, func(t *testing.T, s *testkit.Server) {
		made := s.Must(s.First, "POST /v1/keys", obj{"name": "night worker", "scope": "worker", "expires_in": "32d"})
		key, id, redacted := made.Str("key"), made.Str("id"), made.Str("redacted")
		s.Must(s.First, "POST /v1/keys", obj{"name": "unused", "scope": "worker", "expires_in": "32d"})
		short := s.Must(s.First, "POST /v1/keys", obj{"name": "short", "scope": "worker", "expires_in": "5h"}).Str("key")
		use(s, short)
		s.Drain()
		count := func(n int, when string) {
			t.Helper()
			if got := told(s, ""); len(got) != n {
				t.Fatalf("%s: %d alerts, want %d: %q", when, len(got), n, got)
			}
			if open := told(s, "&open=true"); len(open) > 1 {
				t.Errorf("%s: several are open: %q", when, open)
			}
		}
		use(s, key)
		pass(s, 47*time.Hour)
		count(0, "31 days before")
		pass(s, 2*time.Hour)
		count(1, "30 days before")
		use(s, key)
		pass(s, 22*day)
		count(1, "8 days before")
		pass(s, 2*day)
		count(2, "6 days before")
		title := "key night worker (" + redacted + ") expires at 10:00 UTC on 25 Dec and is in use"
		if got := told(s, "&open=true"); len(got) != 1 || got[0] != title {
			t.Errorf("%q, want %q", got, title)
		}
		a := s.Must(s.First, "GET /v1/alerts?alert_type=key_expiring&open=true", nil).JSON["alerts"].([]any)[0].(obj)
		digits := redacted[len(redacted)-8:]
		if text := a["text"].(string); !strings.Contains(text, "unstuck keys extend "+digits+" --by 90d") || a["key_id"] != id || a["cue_id"] != nil || a["execution_id"] != nil {
			t.Errorf("%v", a)
		}
		narrow := s.Must(s.First, "POST /v1/keys", obj{"name": "narrow", "scope": "read-only", "restrictions": obj{"cues": []string{"crm-*"}}}).Str("key")
		if r := s.Must(narrow, "GET /v1/alerts", nil); r.JSON["total"] != 0.0 {
			t.Errorf("a key for certain cues sees alerts about keys: %s", r.Body)
		}

		s.Must(s.First, "POST /v1/keys/"+id+"/extend", obj{"expires_in": "7d", "reason": "more time"})
		s.Drain()
		count(2, "extended by a week")
		if open := told(s, "&open=true"); len(open) != 0 {
			t.Errorf("still open after the key was extended: %q", open)
		}
		use(s, key)
		pass(s, 6*day+time.Hour)
		count(3, "a day before the new end")
		s.Must(s.First, "POST /v1/keys/"+id+"/revoke", obj{})
		s.Drain()
		count(3, "revoked")
		if open := told(s, "&open=true"); len(open) != 0 {
			t.Errorf("still open after the key was revoked: %q", open)
		}
	})
}

// Two hours before an old secret ends that somebody still uses, that is said once, and closed when it is ended.
func TestOldSecretExpiring(t *testing.T) {
	testkit.Each(t, func(t *testing.T, s *testkit.Server) {
		rotated := func(name string, still bool) (id string) {
			made := s.Must(s.First, "POST /v1/keys", obj{"name": name, "scope": "worker"})
			use(s, made.Str("key"))
			s.Clock.Add(time.Minute)
			next := s.Must(s.First, "POST /v1/keys/"+made.Str("id")+"/rotate", obj{"overlap": "24h"})
			s.Clock.Add(time.Minute)
			use(s, next.Str("key"))
			if still {
				use(s, made.Str("key"))
			}
			return made.Str("id")
		}
		id := rotated("night worker", true)
		rotated("moved on", false)
		pass(s, 21*time.Hour)
		if got := told(s, ""); len(got) != 0 {
			t.Errorf("%q three hours before", got)
		}
		pass(s, 90*time.Minute)
		got := told(s, "&open=true")
		if len(got) != 1 || !strings.HasPrefix(got[0], "the old secret of key night worker (now unstuck_***_") || !strings.HasSuffix(got[0], ") ends at 10:02 UTC and is still in use") {
			t.Errorf("%q", got)
		}
		s.Must(s.First, "POST /v1/keys/"+id+"/rotate", obj{"finish": true})
		pass(s, time.Hour)
		if open, all := told(s, "&open=true"), told(s, ""); len(open) != 0 || len(all) != 1 {
			t.Errorf("%q, all: %q", open, all)
		}
	})
}
