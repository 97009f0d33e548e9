package cue

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// What the echo sink keeps holds no secrets: it is shown to keys that may not know a callback's headers.
func TestEchoHoldsNoSecrets(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, _ *receiver) {
		s := sink{now: time.Now}
		body := `{"a":"` + f.admin + `","b":"x\n` + f.admin + `"}`
		h := http.Header{
			"Authorization": {"Bearer " + f.admin}, "Proxy-Authorization": {"s3cret"}, "Cookie": {"s3cret"}, "X-Api-Key": {"s3cret"}, "X-Mine": {"s3cret"},
			"User-Agent": {"curl " + f.admin}, "Content-Type": {"application/json"}, "X-Cueapi-Attempt": {"1"},
		}
		f.must(s.store("", "0123456789abcdef", []byte(body), h))
		e := s.find("", "0123456789abcdef")
		for name, want := range map[string]string{"authorization": masked, "proxy-authorization": masked, "cookie": masked, "x-api-key": masked, "x-mine": masked, "content-type": "application/json", "x-cueapi-attempt": "1"} {
			if e.headers[name] != want {
				t.Errorf("%s: %q is kept, want %q", name, e.headers[name], want)
			}
		}
		if kept := string(e.payload) + e.headers["user-agent"]; strings.Contains(kept, f.admin) || strings.Count(kept, "unstuck_***_") != 3 {
			t.Errorf("kept: %s", kept)
		}
		j := &job{}
		j.workspace, j.endpoint, j.payload = f.ws, endpointEcho, "{}"
		j.callback = `{"url":"https://h/v1/echo/0123456789abcdef","method":"POST","headers":{"User-Agent":"s3cret"}}`
		m, err := (&postbox{c: f.cues}).request(j)
		f.must(err)
		if m.Custom["User-Agent"] != masked {
			t.Errorf("sent to the sink: %v", m.Custom)
		}
	})
}

// An answer that repeats what it was told is kept without it.
func TestAnswersRepeatNoHeaders(t *testing.T) {
	if got := beginning([]byte(`{"Authorization":"Bearer theirs"} ok`), map[string]string{"Authorization": "Bearer theirs", "X-A": "ok"}); got != `{"Authorization":"***"} ok` {
		t.Error(got)
	}
}

// The sink holds no more than it says, also when it is the names of headers that are long.
func TestEchoIsBounded(t *testing.T) {
	s := sink{now: time.Now}
	long := strings.Repeat("x", 60_000)
	for i := range 1000 {
		if err := s.store("", fmt.Sprintf("token-of-stranger-%d", i), []byte(`1`), http.Header{long: {"1"}}); err != nil {
			t.Fatal(err)
		}
	}
	if most := echoBytesMost / len(long); len(s.kept) > most || s.bytes > echoBytesMost {
		t.Errorf("%d documents are kept, want up to %d; %d bytes", len(s.kept), most, s.bytes)
	}
}
