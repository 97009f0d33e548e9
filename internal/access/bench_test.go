//go:build unix

package access

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
	"unstuck/internal/testkit/pgtest"
)

const million = 1_000_000

// size is a million keys, or a few in a short run, which shows only that the benchmarks work.
func size() int {
	if testing.Short() {
		return 1000
	}
	return million
}

// fill makes a table of n keys in one workspace, each under a parent, half of them restricted, with a limit of their own. It answers
// the secrets of some of them.
func fill(t testing.TB, n int, sealer *sealer) (*table, []Secret) {
	t.Helper()
	tab := newTable()
	ws, user := "ws_000000000001", "usr_000000000001"
	c := &changes{
		workspaces: []workspaceRow{{id: ws, rateLimit: 1_000_000, rev: 1}},
		members:    []memberRow{{workspace: ws, user: user, role: RoleAdmin, rev: 1}},
	}
	const parents = 100
	var secrets []Secret
	for i := range n {
		row := keyRow{id: fmt.Sprintf("key_%012d", i), workspace: ws, user: user, kind: "integration", scope: "write-cues", restrictions: noRules, expires: 1 << 60, rev: 1}
		if i >= parents {
			row.parent = fmt.Sprintf("key_%012d", i%parents)
		}
		sec := secretRow{digits: digitString(uint32(i)), key: row.id, prefix: defaultFront, hash: make([]byte, 32), epoch: 1, state: stateCurrent.String()}
		if i >= parents && i%(n/min(n-parents, 10_000)+1) == 0 {
			row.restrictions = `{"ips":["192.0.2.0/24","10.0.0.0/8"],"via":["rest"],"rate_per_minute":1000000}`
			s := newSecret(defaultFront)
			for s.digits() < million { // which others have
				s = newSecret(defaultFront)
			}
			hash := sealer.current().hash(s)
			sec.digits, sec.hash = digitString(s.digits()), hash[:]
			secrets = append(secrets, s)
		}
		c.keys, c.secrets = append(c.keys, row), append(c.secrets, sec)
		if len(c.keys) == 10_000 || i == n-1 {
			if err := tab.take(c); err != nil {
				t.Fatal(err)
			}
			*c = changes{}
		}
	}
	return tab, secrets
}

// BenchmarkVerify is what one call costs in process: the secret, its key and the key above it, restrictions, the limits of workspace
// and key, and the last use.
func BenchmarkVerify(b *testing.B) {
	sealer, err := newSealer(NewServerSecret())
	if err != nil {
		b.Fatal(err)
	}
	tab, secrets := fill(b, size(), sealer)
	b.Logf("%d keys can be presented", len(secrets))
	now := time.Now()
	a := &Access{Options: Options{Now: func() time.Time { return now }}, table: tab, sealer: sealer}
	spec := op.Define(op.Spec{Name: "cue.list", Route: "GET /v1/cues", Needs: "cues:read", Effect: op.Read, Narrow: op.ByObject, May: "see cues", Doc: "List"}, none0)
	call := &op.Call{Operation: spec, Request: &op.Request{Via: "rest", UserAgent: "bench/1"}, Header: http.Header{}}
	addr := a.proxies.client("192.0.2.7:80", nil)
	caller := &Caller{a: a, call: call, addr: addr}
	verify := func(text string, at time.Time) {
		s, ok := parseSecret(text)
		g, why := tab.verify(s, sealer, at.UnixMicro())
		if !ok || !why.passes() {
			b.Fatal("not verified: ", why)
		}
		if g.key.take(at.UnixMicro()).wait > 0 {
			b.Fatal("over the limit")
		}
		if r := g.rule(spec, &circumstances{now: at, addr: addr, via: "rest"}); !r.passes() {
			b.Fatal("not allowed")
		}
		caller.grant = g
		a.usage.note(caller.useOf(call, nil))
	}
	texts := make([]string, len(secrets))
	for i, s := range secrets {
		texts[i] = s.Reveal()
	}
	b.Run("one goroutine", func(b *testing.B) {
		took := make([]time.Duration, 0, 1<<20)
		random := rand.New(rand.NewPCG(1, 2))
		b.ReportAllocs()
		b.ResetTimer()
		for i := 0; b.Loop(); i++ {
			now = now.Add(100 * time.Microsecond) // so that limits are never met
			text := texts[random.IntN(len(texts))]
			began := time.Now()
			verify(text, now)
			if len(took) < cap(took) {
				took = append(took, time.Since(began))
			}
		}
		reportQuantiles(b, took)
	})
}

func reportQuantiles(b *testing.B, took []time.Duration) {
	b.Helper()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
}

// BenchmarkBadChecksum is what a call with a made-up key costs before it is refused.
func BenchmarkBadChecksum(b *testing.B) {
	text := []byte(newSecret(defaultFront).Reveal())
	text[20] ^= 1
	header := "Bearer " + string(text)
	for b.Loop() {
		if _, ok := parseSecret(header[len("Bearer "):]); ok {
			b.Fatal("a wrong checksum passed")
		}
	}
}

// BenchmarkMemory is how many bytes a key takes among a million.
func BenchmarkMemory(b *testing.B) {
	sealer, err := newSealer(NewServerSecret())
	if err != nil {
		b.Fatal(err)
	}
	before := heap() // once: there is nothing to be averaged
	tab, _ := fill(b, size(), sealer)
	b.ReportMetric(float64(heap()-before)/float64(size()), "B/key")
	b.ReportMetric(0, "ns/op")
	runtime.KeepAlive(tab)
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkStart is how long a server with a million keys takes to load them.
func BenchmarkStart(b *testing.B) {
	for name, dsn := range map[string]func() string{
		"sqlite":   func() string { return filepath.Join(b.TempDir(), "million.db") },
		"postgres": func() string { return pgtest.DSN(b) },
	} {
		b.Run(name, func(b *testing.B) {
			d, err := db.Open(context.Background(), db.Options{DSN: dsn()})
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			store(b, d, size())
			before := cpuTime()
			for b.Loop() {
				if err := newTable().load(context.Background(), d); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpuTime()-before).Milliseconds())/float64(b.N), "cpu-ms/op")
		})
	}
}

// cpuTime is what this process has used of all cores: on a machine with other work it tells more than the time that passed.
func cpuTime() time.Duration {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// store writes n keys of one workspace, half of them under another.
func store(b *testing.B, d *db.DB, n int) {
	b.Helper()
	ws, user := "ws_000000000001", "usr_000000000001"
	update := func(fn func(tx *db.Tx) error) {
		b.Helper()
		if err := d.Update(context.Background(), fn); err != nil {
			b.Fatal(err)
		}
	}
	update(func(tx *db.Tx) error {
		tx.Put(changesKey{}, &changes{})
		if err := addWorkspace(tx, workspaceRow{id: ws, webhookSecret: []byte{0}, alertSecret: []byte{0}, rev: 1}); err != nil {
			return err
		}
		if _, err := tx.Exec(sqlUserAdd, user, user, user, 0, 1); err != nil {
			return err
		}
		return addMembership(tx, memberRow{workspace: ws, user: user, role: RoleAdmin, rev: 1})
	})
	const numbers = `WITH RECURSIVE n (i) AS (SELECT CAST(?1 AS INTEGER) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2) `
	hash := slices.Repeat([]byte{7}, 32)
	chunk := min(n, 100_000)
	for at := 0; at < n; at += chunk {
		update(func(tx *db.Tx) error {
			_, err := tx.Exec(numbers+`INSERT INTO keys (`+keyCols+`) SELECT 'key_' || (100000000000 + i), ?3, ?4, CASE WHEN i % 2 = 1 THEN 'key_' || (100000000000 + i - 1) END, 'integration',
				'n8n workflow ' || i, 'worker', '[]', '{}', 1, ?4, CAST(?5 AS INTEGER), NULL, '', '', 1 FROM n`, at, at+chunk, ws, user, int64(1)<<60)
			if err != nil {
				return err
			}
			_, err = tx.Exec(numbers+`INSERT INTO secrets (`+secretCols+`) SELECT '' || (10000000 + i), 'key_' || (100000000000 + i), 1, 'unstuck', ?3, 1, 'current', 0, 1, NULL, 1,
				'{"operation":"execution.claim","door":"rest","ip":"192.0.2.7","user_agent":"python-httpx/0.28","code":""}', '' FROM n`, at, at+chunk, hash)
			return err
		})
	}
}

// BenchmarkRevoke is how long the fence takes: from the call to its reply.
func BenchmarkRevoke(b *testing.B) {
	for name, dsn := range map[string]func() string{
		"sqlite":   func() string { return filepath.Join(b.TempDir(), "revoke.db") },
		"postgres": func() string { pgtest.Durable(b); return pgtest.DSN(b) },
	} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, dsn())
			w.must(w.admin, "workspace.update", in{"rate_limit_per_minute": 0})
			var took []time.Duration
			for b.Loop() {
				b.StopTimer()
				_, id := w.key("worker")
				b.StartTimer()
				began := time.Now()
				w.must(w.admin, "key.revoke", in{"id": id})
				took = append(took, time.Since(began))
			}
			reportQuantiles(b, took)
		})
	}
}
