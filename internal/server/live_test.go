package server_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"unstuck/internal/server"
)

// TestStopEndsStreams: a server that stops tells those who watch, and does not wait for them.
func TestStopEndsStreams(t *testing.T) {
	set := settings(t, "listen", "127.0.0.1:0")
	key := firstKey(t, set)
	address, _, stop := runServer(t, set)
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+strings.TrimSpace(address)+"/v1/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 200 {
		t.Fatalf("answered %d", res.StatusCode)
	}
	read := make(chan string, 1)
	go func() {
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Errorf("the stream broke off: %v", err)
		}
		read <- string(text)
	}()
	stop()
	if text := <-read; !strings.Contains(text, "event: end\n") || !strings.Contains(text, `"code":"server_stopping"`) {
		t.Errorf("read %q", text)
	}
}

// firstKey makes the first key of a server that does not run yet.
func firstKey(t *testing.T, set server.Settings) string {
	t.Helper()
	s, err := server.Open(t.Context(), set, server.Deps{Now: time.Now, Log: server.NewLog(io.Discard, false, "error")})
	if err != nil {
		t.Fatal(err)
	}
	key, _, err := s.Access().FirstRun(t.Context(), "admin@example.com", true)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return key.Secret
}
