//go:build unix

package bench

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"unstuck/internal/db"
)

// BenchmarkMillionCues starts the built program on a million active cues, one of which is due, and waits until its callback is called.
// Targets: a second from the start of the process until then, 150 MB resident, and under 0.3 % of a core while nothing is due. The
// database is SQLite.
func BenchmarkMillionCues(b *testing.B) {
	called := make(chan time.Time, 1)
	receiver := listen(b, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		select {
		case called <- time.Now():
		default: // a call that nobody waits for
		}
	}))
	binary := filepath.Join(b.TempDir(), "unstuck")
	build := exec.Command("go", "build", "-o", binary, "./cmd/unstuck")
	build.Dir, build.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	data := b.TempDir()
	p := begin(b, binary, data)
	s := &serving{addr: p.addr, first: p.key}
	s.must(b, p.key, "POST", "/v1/cues", `{"name":"far","cron":"0 0 1 1 *","worker":true,"payload":{"task":"t"}}`)
	due := s.must(b, p.key, "POST", "/v1/cues", `{"name":"due","cron":"0 0 1 1 *","callback_url":"http://`+receiver+`/"}`)["id"].(string)
	p.stop(b)
	multiply(b, filepath.Join(data, "unstuck.db"), scaled(1_000_000))

	for range b.N {
		fireAt(b, filepath.Join(data, "unstuck.db"), due, time.Now())
		p := begin(b, binary, data)
		b.ReportMetric((<-called).Sub(p.began).Seconds(), "start-s")
		before, began := p.cpu(b), time.Now()
		<-time.After(2 * during())
		b.ReportMetric(100*float64(p.cpu(b)-before)/float64(time.Since(began)), "idle-%")
		b.ReportMetric(p.resident(b), "resident-MB")
		p.stop(b)
	}
}

// process is the built program, running.
type process struct {
	*exec.Cmd
	began     time.Time
	addr, key string
}

var address = regexp.MustCompile(`Address\s+http://(\S+)`)

// begin starts the program and returns when it has said that it is ready.
func begin(b *testing.B, binary, data string) *process {
	b.Helper()
	p := &process{Cmd: exec.Command(binary, "serve", "--data", data, "--listen", "127.0.0.1:0", "--print-first-key"), began: time.Now()}
	p.Env = []string{"HOME=" + data, "UNSTUCK_ALLOW_CALLBACKS=127.0.0.1"}
	said, err := p.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	printed, err := p.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := p.Start(); err != nil {
		b.Fatal(err)
	}
	lines, text := bufio.NewReader(said), ""
	for !strings.Contains(text, " ready in ") {
		line, err := lines.ReadString('\n')
		if text += line; err != nil {
			b.Fatalf("the server did not start:\n%s", text)
		}
		if m := address.FindStringSubmatch(line); m != nil {
			p.addr = m[1]
		}
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	if !strings.Contains(text, "first start") {
		return p
	}
	if p.key, err = bufio.NewReader(printed).ReadString('\n'); err != nil {
		b.Fatal(err)
	}
	p.key = strings.TrimSpace(p.key)
	return p
}

func (p *process) stop(b *testing.B) {
	b.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		b.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		b.Fatal(err)
	}
}

// cpu is how long processors have worked for it.
func (p *process) cpu(b *testing.B) time.Duration {
	const tick = time.Second / 100 // USER_HZ, which is 100 on Linux for all programs
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
	if err != nil {
		b.Skip("/proc is needed: ", err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	var user, system int64
	if _, err := fmt.Sscan(f[11]+" "+f[12], &user, &system); err != nil {
		b.Fatal(err)
	}
	return time.Duration(user+system) * tick
}

// resident is how much memory it has, in MB.
func (p *process) resident(b *testing.B) (mb float64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil {
		b.Skip("/proc is needed: ", err)
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &mb); err == nil {
			return mb * 1024 / 1e6
		}
	}
	b.Fatal("no VmRSS in /proc/…/status")
	return 0
}

// multiply copies the cue "far", with its history, until there are n active cues.
func multiply(b *testing.B, file string, n int) {
	b.Helper()
	const most = 20_000 // of one transaction
	d, err := db.Open(context.Background(), db.Options{DSN: file})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	for first := 1; first <= n-2; first += most {
		change(b, d, func(tx *db.Tx) error {
			for table, id := range map[string]string{"cues": "id", "cue_versions": "cue_id"} {
				if err := copies(tx, table, id, first, min(first+most-1, n-2)); err != nil {
					return err
				}
			}
			_, err := tx.Exec("UPDATE counters SET value = ?1 WHERE name LIKE 'cues:%active'", n)
			return err
		})
	}
}

// copies writes copies of a table's row about "far", with numbers and ids of their own, a second apart.
func copies(tx *db.Tx, table, id string, first, last int) error {
	own := map[string]string{
		id:         "printf('cue_%012x', n.i)",
		"name":     "'far ' || n.i",
		"next_run": "next_run + n.i * 1000000",
	}
	rows, err := tx.Query("SELECT name FROM pragma_table_info(?1)", table)
	if err != nil {
		return err
	}
	defer rows.Close()
	var columns, values []string
	for rows.Next() {
		var c string
		if err := rows.Scan(&c); err != nil {
			return err
		}
		columns, values = append(columns, c), append(values, cmp.Or(own[c], c))
	}
	if err := rows.Err(); err != nil {
		return err
	}
	_, err = tx.Exec(fmt.Sprintf("INSERT INTO %s (%s) WITH RECURSIVE n(i) AS (SELECT %d UNION ALL SELECT i + 1 FROM n WHERE i < %d) SELECT %s FROM n, %s WHERE name = 'far'",
		table, strings.Join(columns, ", "), first, last, strings.Join(values, ", "), table))
	return err
}

// fireAt makes a cue due.
func fireAt(b *testing.B, file, id string, at time.Time) {
	b.Helper()
	d, err := db.Open(context.Background(), db.Options{DSN: file})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	change(b, d, func(tx *db.Tx) error {
		if _, err := tx.Exec("UPDATE cue_versions SET cron = '* * * * *' WHERE cue_id = ?1", id); err != nil {
			return err
		}
		_, err := tx.Exec("UPDATE cues SET cron = '* * * * *', next_run = ?2, decided_at = ?2 - 1 WHERE id = ?1", id, at.Truncate(time.Minute).UnixMicro())
		return err
	})
}

func change(b *testing.B, d *db.DB, fn func(tx *db.Tx) error) {
	b.Helper()
	if err := d.Update(context.Background(), fn); err != nil {
		b.Fatal(err)
	}
}
