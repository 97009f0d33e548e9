//go:build interop && linux

package interop

import (
	"bufio"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestProxyLive watches through nginx as it is by default, which keeps answers back until it has a buffer full, and compresses: each
// event comes through at once all the same, and so does the end of a key.
func TestProxyLive(t *testing.T) {
	s := serve(t, "--trusted-proxies", "127.0.0.1/32")
	dir, address := t.TempDir(), freeAddress(t)
	write(t, filepath.Join(dir, "nginx.conf"), "daemon off;\nmaster_process off;\npid nginx.pid;\nevents {}\nhttp {\n\taccess_log off;\n\tgzip on;\n\tgzip_types *;\n"+
		"\tclient_body_temp_path "+dir+"/b;\n\tproxy_temp_path "+dir+"/p;\n\tfastcgi_temp_path "+dir+"/f;\n\tuwsgi_temp_path "+dir+"/u;\n\tscgi_temp_path "+dir+"/s;\n"+
		"\tserver {\n\t\tlisten "+address+";\n\t\tlocation / { proxy_pass "+s.url+"; }\n\t}\n}\n")
	listening(t, launch(t, nil, "nginx", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr").shown(), address)
	id, key := s.newKey("read-only", nil)
	cue := s.newCue("watched", object{}, nil)
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+address+"/v1/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	transport := &http.Transport{} // asks for compression
	defer transport.CloseIdleConnections()
	answer, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != 200 || !answer.Uncompressed || answer.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("answered %d %v", answer.StatusCode, answer.Header)
	}
	events := make(chan string, 100)
	go func() {
		defer close(events)
		for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
			if kind, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				events <- kind
			}
		}
	}()
	next := func() string {
		select {
		case kind := <-events:
			return kind
		case <-time.After(10 * time.Second): // before the first sign of life, which might push it through
			return "nothing"
		}
	}
	for range 3 {
		s.fire(cue)
		if kind := next(); kind != "due" {
			t.Fatalf("there came %s", kind)
		}
	}
	s.call("POST", "/v1/keys/"+id+"/revoke", object{})
	if kind := next(); kind != "end" {
		t.Errorf("there came %s", kind)
	}
}
