package cue

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/db"

	"pgregory.net/rapid"
)

// Without a task the tasks take turns, the oldest of each first, so that a backlog hides nothing; with one, all 50 are of it.
func TestClaimableTakesTurns(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker, cue := f.key("worker", nil), f.cue("c", "0 0 1 1 *")
		ids := map[string][]string{}
		for _, task := range []string{strings.Repeat("a", 60), "b", "ccc"} {
			name, n := task[:1], len(task)
			for range n {
				ids[name] = append(ids[name], f.fire(cue, input{"payload_override": input{"task": name}}))
				f.clock.Advance(time.Second)
			}
		}
		none := f.fire(cue, nil)
		want := []string{ids["a"][0], ids["b"][0], ids["c"][0], none, ids["a"][1], ids["c"][1], ids["a"][2], ids["c"][2]}
		want = append(want, ids["a"][3:45]...)
		if got := f.claimable(worker, nil); !slices.Equal(got, want) {
			t.Errorf("in turn:\n%v\nwant:\n%v", got, want)
		}
		if got := f.claimable(worker, input{"task": "a"}); !slices.Equal(got, ids["a"][:50]) {
			t.Errorf("of one task: %v", got)
		}
		restricted := f.key("worker", input{"cues": []string{"c"}})
		if got := f.claimable(restricted, nil); len(got) != 50 || !slices.Equal(got[:1], want[:1]) {
			t.Errorf("restricted: %v", got)
		}
	})
}

// A worker whose tasks are few always sees them: it takes what is first of its task until nothing of it is left.
func TestClaimableStarvesNoTask(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker, cue := f.key("worker", nil), f.cue("c", "0 0 1 1 *")
		f.stock(500) // task "bench", which this worker cannot do
		f.clock.Advance(time.Second)
		for i := range 10 {
			f.fire(cue, input{"payload_override": input{"task": fmt.Sprint("mine-", i%2)}})
		}
		for left := 10; left > 0; left-- {
			list := f.ok(worker, "execution.claimable", nil)["executions"].([]any)
			i := slices.IndexFunc(list, func(v any) bool { return strings.HasPrefix(fmt.Sprint(v.(map[string]any)["task"]), "mine-") })
			if i < 0 {
				t.Fatalf("%d of its executions are left and none is shown", left)
			}
			f.ok(worker, "execution.claim_one", input{"worker_id": "w", "id": list[i].(map[string]any)["execution_id"]})
		}
	})
}

func TestClaimableItem(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		cue := f.cue("c", "0 0 1 1 *")
		id := f.fire(cue, input{"payload_override": input{"task": "a", "n": 1}})
		f.claim(worker, "w")
		f.clock.Advance(15 * time.Minute)
		f.settle()
		item := f.ok(worker, "execution.claimable", nil)["executions"].([]any)[0].(map[string]any)
		want := input{"execution_id": id, "cue_id": cue, "cue_name": "c", "task": "a", "scheduled_for": "2026-11-23T10:01:40Z", "attempt": 1.0}
		for k, v := range want {
			if item[k] != v {
				t.Errorf("%s: %v, want %v", k, item[k], v)
			}
		}
		if item["payload"].(map[string]any)["n"] != 1.0 || len(item) != 7 {
			t.Errorf("%v", item)
		}
		if got := f.claimable(f.otherWorkspace(), nil); len(got) != 0 {
			t.Errorf("another workspace sees %v", got)
		}
	})
}

// retry_ready is claimable like pending, as the contract says.
func TestRetryReadyIsClaimable(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := f.fire(f.cue("c", "0 0 1 1 *"), nil)
		f.sql("UPDATE executions SET status = 'retry_ready'")
		if got := f.claimable(f.admin, nil); !slices.Equal(got, []string{id}) {
			t.Errorf("claimable: %v", got)
		}
		if got := f.claim(f.admin, "w")["execution_id"]; got != id {
			t.Errorf("claimed %v", got)
		}
	})
}

// A restriction as SQL says what it says in Go, for any patterns and names.
func TestRestrictionInSQL(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		none := &db.Where{}
		access.OnlyCues(none, [][]access.Pattern{{}}) // a list without entries lets nothing through
		if n := f.number("SELECT count(*) FROM (SELECT CAST("+none.Arg("cue_1")+" AS TEXT) AS id, CAST("+none.Arg("a")+" AS TEXT) AS name) AS c"+none.String(), none.Args...); n != 0 {
			t.Error("a list without entries lets a cue through")
		}
		letters := rapid.StringOfN(rapid.SampledFrom([]rune("ab-*é\uD7FF\U0010FFFF")), 0, 4, -1)
		rapid.Check(t, func(rt *rapid.T) {
			name, pattern := letters.Draw(rt, "name"), strings.ReplaceAll(letters.Draw(rt, "pattern"), "*", "")
			prefix := rapid.Bool().Draw(rt, "prefix")
			p := access.Pattern{Name: pattern}
			want := name == pattern
			if prefix && pattern != "" {
				p, want = access.Pattern{Prefix: pattern}, strings.HasPrefix(name, pattern)
			}
			w := &db.Where{}
			access.OnlyCues(w, [][]access.Pattern{{p, {ID: "cue_other", Name: "cue_other"}}})
			query := "SELECT count(*) FROM (SELECT CAST(" + w.Arg("cue_1") + " AS TEXT) AS id, CAST(" + w.Arg(name) + " AS TEXT) AS name) AS c" + w.String()
			if got := f.number(query, w.Args...) == 1; got != want {
				rt.Fatalf("%q against %+v: %t in SQL, %t in Go", name, p, got, want)
			}
		})
	})
}
