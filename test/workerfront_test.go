//go:build linux

package test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// front stands between workers and a server: it stays where it is when the server restarts, and can lose answers.
type front struct {
	*httptest.Server
	y    *yard
	mu   sync.Mutex
	base string           // of the server; "" while there is none
	lose func(string) int // how many answers of this kind of call to lose from now on
	lost []string
}

func newFront(y *yard) *front {
	f := &front{y: y, base: y.s.URL}
	f.Server = httptest.NewServer(f)
	y.Cleanup(f.Close)
	return f
}

// at sets where the server is.
func (f *front) at(base string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.base = base
}

// loses makes the front lose the next answers to calls whose path ends in a word, those that brought work only.
func (f *front) loses(word string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lose = func(path string) int {
		if !strings.HasSuffix(path, word) || n == 0 {
			return 0
		}
		n--
		return 1
	}
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	base := f.base
	f.mu.Unlock()
	if base == "" {
		http.Error(w, "nobody is there", http.StatusBadGateway)
		return
	}
	body, _ := io.ReadAll(r.Body)
	req, _ := http.NewRequestWithContext(r.Context(), r.Method, base+r.URL.Path, bytes.NewReader(body))
	req.Header = r.Header
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		http.Error(w, "nobody is there", http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	f.mu.Lock()
	lost := err == nil && f.lose != nil && !bytes.Contains(answer, []byte(`"executions":[]`)) && f.lose(r.URL.Path) > 0
	if lost {
		f.lost = append(f.lost, r.URL.Path)
	}
	f.mu.Unlock()
	if lost || err != nil {
		panic(http.ErrAbortHandler) // the server did it, and nobody hears of it
	}
	w.WriteHeader(res.StatusCode)
	_, _ = w.Write(answer)
}

// TestWorkerAnswersLost loses answers to claims, which have given work out, and to reports, which were stored. The same claim is
// asked again and brings the same work; the same report is made again and counts once.
func TestWorkerAnswersLost(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	f := newFront(y)
	dir := t.TempDir()
	f.loses("/claim", 2)
	id := y.fire("job")
	d := y.worker(obj{"job": "mkdir " + dir + "/$UNSTUCK_EXECUTION_ID && echo once"}, obj{"api_base": f.URL})
	d.says("done", id)
	y.is(id, obj{"status": "success", "attempts": 1.0, "evidence_versions": 1.0})
	f.loses("/outcome", 2)
	next := y.fire("job")
	d.says("its outcome is not reported yet", next)
	d.says("done", next)
	y.is(next, obj{"status": "success", "attempts": 1.0, "evidence_versions": 1.0})
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.lost) != 4 {
		t.Errorf("%d answers were lost: %v", len(f.lost), f.lost)
	}
}

// TestWorkerThroughRestart ends a job while the server is away: its outcome is reported when the server is back, once, and the
// worker goes on.
func TestWorkerThroughRestart(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	f := newFront(y)
	fifo := newFIFO(t)
	id := y.fire("job")
	d := y.worker(obj{"job": "read line < " + fifo + "; echo $line", "later": "true"}, obj{"api_base": f.URL})
	d.says("taken", id)
	f.at("")
	y.s.Stop()
	if err := os.WriteFile(fifo, []byte("ended meanwhile\n"), 0); err != nil { // waits for the handler, which opens it
		t.Fatal(err)
	}
	d.says("its outcome is not reported yet", id)
	y.s.Clock.Add(time.Hour)
	if err := y.s.Open(); err != nil {
		t.Fatal(err)
	}
	f.at(y.s.URL)
	d.says("done", id)
	y.is(id, obj{"status": "success", "attempts": 1.0, "evidence_versions": 1.0})
	if got := y.execution(id)["outcome"].(obj)["result"]; got != "ended meanwhile\n" {
		t.Errorf("the result is %q", got)
	}
	d.says("done", y.fire("later"))
}

// TestWorkerLateReport: the outcome of what ended while the server was not reached and has gone to somebody else is not taken,
// which is said once, and the other one's counts.
func TestWorkerLateReport(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	f := newFront(y)
	fifo := newFIFO(t)
	id := y.fire("job")
	d := y.worker(obj{"job": "read line < " + fifo}, obj{"api_base": f.URL, "max_concurrent": 1}) // so it does not ask for more meanwhile
	d.says("taken", id)
	f.at("")
	d.says("its lease could not be renewed", id)
	y.s.Clock.Add(16 * time.Minute)
	y.s.Drain()
	other := y.worker(obj{"job": "echo from the other"}, obj{"worker_id": "other"})
	other.says("done", id)
	if err := os.WriteFile(fifo, []byte("go\n"), 0); err != nil { // waits for the handler, which opens it
		t.Fatal(err)
	}
	d.says("its outcome is not reported yet", id)
	f.at(y.s.URL)
	if line := d.says("its outcome is not taken", id); !strings.Contains(line["error"].(string), "409") {
		t.Errorf("it said %v", line)
	}
	y.is(id, obj{"status": "success", "attempts": 2.0, "claimed_by_worker": "other", "evidence_versions": 1.0})
}

// newFIFO is a pipe in the file system: who reads from it waits until somebody writes.
func newFIFO(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "go")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
