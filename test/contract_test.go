package test

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"unstuck/internal/server"
	"unstuck/internal/testkit/pgtest"
)

// The wire contract as a table: testdata/contract/2.3.txt and so on hold what section 2.3 and so on say, row by row, as calls over
// HTTP with what must come back; README.txt there says how they are written. index.txt lists the rows that there must be, and
// faults.txt the faults of section 13 with the rows and tests that show that this server does not have them.

// contractRow is one row with its lines.
type contractRow struct {
	name  string // section and key: "2.3 create.name"
	lines []contractLine
}

type contractLine struct {
	at   string // file and line, for people
	text string // with its indentation
}

// TestContract runs every row in a workspace of its own, on one server for each database.
func TestContract(t *testing.T) {
	t.Parallel()
	rows := contractRows(t)
	pgtest.Each(t, func(t *testing.T, dsn string) {
		t.Parallel()
		hook := newContractHook(t)
		s := quick(t, dsn, behindProxy, func(o *server.Settings) {
			o.Register, o.AllowCallbacks = "open", "127.0.0.1, ::1"
		})
		for i, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				run := &contractRun{t: t, s: s, hook: hook, path: fmt.Sprintf("/%d", i), number: int64(i)}
				hook.answer(run.path, 200, "")
				run.key = s.Must("", "POST /v1/auth/register", obj{"email": fmt.Sprintf("row%d@example.com", i)}, fromElsewhere(run.number)...).Str("api_key")
				run.vars = map[string]string{"key": run.key, "hook": hook.URL + run.path, "base": s.URL, "email": fmt.Sprintf("row%d@example.com", i)}
				for _, l := range row.lines {
					run.at = l.at
					run.do(l.text)
				}
				run.settled()
			})
		}
	})
}

// TestContractIsWhole holds the rows against the index, both ways, and the faults against the rows and tests that they name.
func TestContractIsWhole(t *testing.T) {
	have := map[string]bool{}
	for _, row := range contractRows(t) {
		if !slices.ContainsFunc(row.lines, func(l contractLine) bool {
			return strings.HasPrefix(l.text, "-> ") || strings.HasPrefix(l.text, "called ")
		}) {
			t.Errorf("%s looks at nothing", row.name)
		}
		if have[row.name] {
			t.Errorf("%s is there twice", row.name)
		}
		have[row.name] = true
	}
	want, tests := map[string]bool{}, testNames(t)
	for _, l := range contractLines(t, "index.txt") {
		if strings.Contains(l.text, ": ") { // a row that needs a server of another kind
			if fault := checkFault(l.text, tests, have); fault != "" {
				t.Errorf("%s: %s", l.at, fault)
			}
			continue
		}
		section, keys, _ := strings.Cut(l.text, " ")
		for _, key := range strings.Fields(keys) {
			want[section+" "+key] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if !have[name] {
			t.Errorf("index.txt names %s, for which there is no row", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if !want[name] {
			t.Errorf("the row %s is not in index.txt", name)
		}
	}
	for _, l := range contractLines(t, "faults.txt") {
		if fault := checkFault(l.text, tests, have); fault != "" {
			t.Errorf("%s: %s\n\t%s", l.at, fault, l.text)
		}
	}
}

// TestContractFaultsAreRead shows that the check finds what it is there for.
func TestContractFaultsAreRead(t *testing.T) {
	tests, rows := map[string]bool{"TestA": true}, map[string]bool{"2.3 create.name": true}
	for line, fine := range map[string]bool{
		"13.2 lease: TestA": true, "13.2 lease: 2.3/create.name, TestA": true, "13.3 messages - other part": true,
		"13.2 lease": false, "13.2 lease:": false, "13.2 lease: TestB": false, "13.2 lease: 2.3/create.other": false, "13.2 lease -": false,
	} {
		if fault := checkFault(line, tests, rows); (fault == "") != fine {
			t.Errorf("%q: %q", line, fault)
		}
	}
}

// TestContractJudges shows that what a row asks of an answer can fail.
func TestContractJudges(t *testing.T) {
	for _, c := range []struct {
		value          any
		relation, want string
		fine           bool
	}{
		{"a", "=", `"a"`, true}, {"a", "=", `"b"`, false}, {1.0, "=", `1`, true}, {1.0, "=", `"1"`, false}, {nil, "=", `null`, true}, {"null", "=", `null`, false},
		{obj{"a": 1.0}, "=", `{"a":1}`, true}, {obj{"a": 1.0, "b": nil}, "=", `{"a":1}`, false}, {"a", "=", `a`, false},
		{"abc", "~", `^ab`, true}, {"abc", "~", `^b`, false}, {true, "~", `^true$`, true},
		{"2026-11-23T10:00:00Z", "is", "z", true}, {"2026-11-23T10:00:00.123456Z", "is", "z", true}, {"2026-11-23T10:00:00.123Z", "is", "z", false},
		{"2026-11-23T10:00:00+00:00", "is", "z", false}, {"2026-11-23T10:00:00+00:00", "is", "offset", true}, {"2026-11-23T10:00:00Z", "is", "offset", false},
		{1.0, "is", "int", true}, {1.5, "is", "int", false}, {"1", "is", "int", false}, {true, "is", "bool", true}, {"true", "is", "bool", false},
		{"a", "is", "string", true}, {nil, "is", "string", false}, {"a", "is", "nonsense", false},
		{"00000000-0000-4000-8000-000000000000", "is", "uuid", true}, {"00000000-0000-1000-8000-000000000000", "is", "uuid", false},
		{[]any{1.0}, "has", "1", true}, {[]any{1.0}, "has", "2", false}, {"a", "has", "1", false}, {"a", "like", "a", false},
	} {
		if got := holds(c.value, c.relation, c.want); got != c.fine {
			t.Errorf("%v %s %s: %v", c.value, c.relation, c.want, got)
		}
	}
	for want, missing := range map[string]string{"a b": "", "a c": "", "b a": "a", "a d": "d", "": ""} {
		if got := lacks([]byte(`{"a":1,"b":{"d":2},"c":[3]}`), strings.Fields(want)); got != missing {
			t.Errorf("%q lacks %q, want %q", want, got, missing)
		}
	}
	if lacks([]byte(`[]`), nil) == "" || lacks([]byte(`{"a":`), []string{"a"}) == "" {
		t.Error("what is no object has what it needs")
	}
	if _, ok := at(obj{"a": []any{obj{"b": nil}}}, "a.0.b"); !ok {
		t.Error("a.0.b is there")
	}
	if _, ok := at(obj{"a": []any{obj{"b": nil}}}, "a.1.b"); ok {
		t.Error("a.1.b is not there")
	}
}

// checkFault says what is wrong with a line of faults.txt: "13.2 key: TestName, 2.3/row" or "13.2 key - why it is not about this".
func checkFault(line string, tests, rows map[string]bool) string {
	key, proofs, ok := strings.Cut(line, ": ")
	if !ok {
		if _, why, ok := strings.Cut(key, " - "); ok && why != "" {
			return ""
		}
		return "names no test"
	}
	for name := range strings.SplitSeq(proofs, ", ") {
		base, _, _ := strings.Cut(name, "/")
		if !tests[base] && !rows[strings.Replace(name, "/", " ", 1)] {
			return "there is no test or row " + name
		}
	}
	return ""
}

// contractLines are the lines of a file without comments and empty ones.
func contractLines(t *testing.T, name string) (out []contractLine) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "contract", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		if text := strings.TrimRight(lines.Text(), " "); text != "" && !strings.HasPrefix(text, "#") {
			out = append(out, contractLine{fmt.Sprintf("%s:%d", name, n), text})
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// contractRows reads all sections.
func contractRows(t *testing.T) (out []contractRow) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "contract", "[0-9]*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d sections, %v", len(files), err)
	}
	for _, file := range files {
		section := strings.TrimSuffix(filepath.Base(file), ".txt")
		for _, l := range contractLines(t, filepath.Base(file)) {
			if key, ok := strings.CutPrefix(l.text, "== "); ok {
				key, _, _ = strings.Cut(key, " ") // behind it stands, for people, which decision of docs/adr makes it other
				out = append(out, contractRow{name: section + " " + key})
				continue
			}
			if len(out) == 0 {
				t.Fatalf("%s: a line before the first row", l.at)
			}
			last := &out[len(out)-1]
			last.lines = append(last.lines, l)
		}
	}
	return out
}
