// Command table reads what `go test -bench` prints and writes the figures that docs/performance.md is about, each with its target.
package main

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// rows are the figures: where they stand in the output, what to divide them by, and what is wanted.
var rows = []struct {
	what, bench, unit string
	per               float64
	shown, target     string
}{
	{"verify a key in process among 1 M, p50", "BenchmarkVerify/", "p50-ns", 1000, "µs", "≤ 2"},
	{"the same, allocations", "BenchmarkVerify/", "allocs/op", 1, "", "0"},
	{"bad checksum", "BenchmarkBadChecksum", "ns/op", 1, "ns", "≤ 150"},
	{"memory per key", "BenchmarkMemory", "B/key", 1, "B", "≤ 200"},
	{"start with 1 M keys, SQLite", "BenchmarkStart/sqlite", "ns/op", 1e9, "s", "≤ 2"},
	{"start with 1 M keys, PostgreSQL", "BenchmarkStart/postgres", "ns/op", 1e9, "s", ""},
	{"revoke, p99, SQLite", "BenchmarkRevoke/sqlite", "p99-ns", 1e6, "ms", "≤ 10"},
	{"revoke, p99, PostgreSQL", "BenchmarkRevoke/postgres", "p99-ns", 1e6, "ms", "≤ 10"},
	{"authenticated GET, part of the bare handler's throughput", "BenchmarkAuthenticatedGet", "of-floor", 1, "", "≥ 0.7"},
	{"floor: two bare POSTs by 64 callers", "BenchmarkClaimOutcome/sqlite/floor", "pairs/s", 1, "/s", ""},
	{"claim + outcome by 64 callers, SQLite", "BenchmarkClaimOutcome/sqlite/single", "pairs/s", 1, "/s", "≥ 8000"},
	{"the same, p99", "BenchmarkClaimOutcome/sqlite/single", "p99-ms", 1, "ms", "≤ 15"},
	{"executions claimed in batches of 20, SQLite", "BenchmarkClaimOutcome/sqlite/batch20", "claimed/s", 1, "/s", "≥ 40000"},
	{"claim + outcome by 64 callers, PostgreSQL", "BenchmarkClaimOutcome/postgres/single", "pairs/s", 1, "/s", "≥ 2000"},
	{"floor: bare posts to the receiver by 64 callers", "BenchmarkWebhookFloor", "posts/s", 1, "/s", ""},
	{"one signed webhook, until received, SQLite", "BenchmarkWebhooks/sqlite/1 ", "p99-ms", 1, "ms", "≤ 5"},
	{"1,000 due at one instant, until received, p99, SQLite", "BenchmarkWebhooks/sqlite/1000 ", "p99-ms", 1, "ms", "≤ 50"},
	{"100,000 due at one instant, until durable, SQLite", "BenchmarkWebhooks/sqlite/100000 ", "durable-s", 1, "s", "≤ 7"},
	{"the same, processor time, receiver included", "BenchmarkWebhooks/sqlite/100000 ", "cpu-s", 1, "s", ""},
	{"100,000 due at one instant, until durable, PostgreSQL", "BenchmarkWebhooks/postgres/100000 ", "durable-s", 1, "s", "≤ 28"},
	{"another workspace's cue while 100,000 are queued, p99, SQLite", "BenchmarkLongQueue/sqlite", "p99-ms", 1, "ms", "≤ 100"},
	{"the same, PostgreSQL", "BenchmarkLongQueue/postgres", "p99-ms", 1, "ms", "≤ 100"},
	{"half of the callbacks hang: p99 of the others against without, SQLite", "BenchmarkHalfHang ", "times-later", 1, "times", "≤ 2"},
	{"1,000 due at one instant, until received, p99, PostgreSQL", "BenchmarkWebhooks/postgres/1000 ", "p99-ms", 1, "ms", "≤ 200"},
	{"1 M active cues: from the start until the first due one is called, SQLite", "BenchmarkMillionCues", "start-s", 1, "s", "≤ 1"},
	{"the same: resident", "BenchmarkMillionCues", "resident-MB", 1, "MB", "≤ 150"},
	{"the same: of a core while nothing is due", "BenchmarkMillionCues", "idle-%", 1, "%", "≤ 0.3 with 100,000"},
	{"executions claimed in batches of 20, PostgreSQL", "BenchmarkClaimOutcome/postgres/batch20", "claimed/s", 1, "/s", "≥ 10000"},
}

var procs = regexp.MustCompile(`-\d+$`)

func main() {
	figures := map[string]float64{}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		f := strings.Fields(in.Text())
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		for i := 2; i+1 < len(f); i += 2 {
			if v, err := strconv.ParseFloat(f[i], 64); err == nil {
				figures[procs.ReplaceAllString(f[0], "")+" "+f[i+1]] = v
			}
		}
	}
	fmt.Printf("| what | figure | target |\n| --- | --- | --- |\n")
	for _, r := range rows {
		for name, v := range figures {
			if strings.HasPrefix(name, r.bench) && strings.HasSuffix(name, " "+r.unit) {
				fmt.Printf("| %s | %s %s | %s |\n", r.what, strconv.FormatFloat(v/r.per, 'g', 4, 64), r.shown, r.target)
				break
			}
		}
	}
}
