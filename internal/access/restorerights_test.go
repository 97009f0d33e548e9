package access

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// lists says what each list of some rules lets through, told by what enforces them.
func (r *rules) lists(id, name string, from netip.Addr, via, worker string) [4]bool {
	if r == nil {
		return [4]bool{true, true, true, true}
	}
	return [4]bool{
		r.Cues == nil || matchAny(r.Cues, id, name), r.IPs == nil || containsAddr(r.nets, from),
		r.Via == nil || slices.Contains(r.Via, via), r.WorkerIDs == nil || slices.Contains(r.WorkerIDs, worker),
	}
}

// TestRulesTogether: two sets of rules together let through what both do, and never more; also after they were stored and read. Only of an
// id and the beginning of a name they may let less through.
func TestRulesTogether(t *testing.T) {
	t.Parallel()
	ids := []string{"cue_aaaaaaaaaaaa", "cue_bbbbbbbbbbbb"}
	names := append([]string{"a", "ab", "abc", "b"}, ids...)
	patterns := append([]string{"*", "a*", "ab*", "cue_*"}, names...)
	nets := []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "192.0.2.0/24", "::/0", "2001:db8::/32", "0.0.0.0/0"}
	addrs := []string{"10.1.2.3", "10.1.9.9", "10.9.9.9", "192.0.2.7", "2001:db8::1", "2001:db9::1", "198.51.100.1"}
	draw := func(t *rapid.T, of string) *rules {
		list := func(what string, from ...string) []string {
			if rapid.Bool().Draw(t, of+" has "+what) {
				return rapid.SliceOfNDistinct(rapid.SampledFrom(from), 1, 3, rapid.ID).Draw(t, of+" "+what)
			}
			return nil
		}
		r := &rules{Cues: list("cues", patterns...), IPs: list("ips", nets...), Via: list("via", "rest", "mcp"), WorkerIDs: list("workers", "x", "y", "z")}
		r.RatePerMinute = rapid.Int64Range(0, 3).Draw(t, of+" rate")
		return stored(t, r)
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := draw(t, "a"), draw(t, "b")
		if b == nil {
			b = &rules{}
		}
		id, name := rapid.SampledFrom(ids).Draw(t, "id"), rapid.SampledFrom(names).Draw(t, "name")
		from := netip.MustParseAddr(rapid.SampledFrom(addrs).Draw(t, "address"))
		via, worker := rapid.SampledFrom([]string{"rest", "mcp"}).Draw(t, "via"), rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "worker")
		both := stored(t, a.and(b))
		got, inA, inB := both.lists(id, name, from, via, worker), a.lists(id, name, from, via, worker), b.lists(id, name, from, via, worker)
		named := func(r *rules) bool { return r != nil && strings.Contains(fmt.Sprint(r.Cues), "cue_") }
		for i := range got {
			want := inA[i] && inB[i]
			if got[i] && !want || want && !got[i] && !(i == 0 && (named(a) || named(b))) {
				t.Fatalf("%s and %s are %s: list %d lets %v through: %t", a.text(), b.text(), both.text(), i, []any{id, name, from, via, worker}, got[i])
			}
		}
		if again := both.and(b); again.text() != both.text() {
			t.Fatalf("and once more: %s, then %s", both.text(), again.text())
		}
	})
}

func stored(t rapid.TB, r *rules) *rules {
	out, err := readRules(r.text())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRestoredLists: a list that was changed after the backup lets through what it shares with the backup's, and nothing when that is
// nothing.
func TestRestoredLists(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.toys.put(w.workspace(), "cue_bbbbbbbbbbbb", "bill-1")
		for _, test := range []struct{ backup, now, want in }{
			{in{"ips": []string{"10.0.0.0/8", "192.0.2.0/24"}}, in{"ips": []string{"10.1.0.0/16", "198.51.100.0/24"}}, in{"ips": []any{"10.1.0.0/16"}}},
			{in{"ips": []string{"10.0.0.0/8"}}, in{"ips": []string{"192.0.2.0/24"}}, in{"ips": []any{}}},
			{in{"cues": []string{"mail-*"}}, in{"cues": []string{"mail-night", "bill-*"}}, in{"cues": []any{"mail-night"}}},
			{in{"cues": []string{"mail-*"}}, in{"cues": []string{"bill-*"}}, in{"cues": []any{}}},
			{in{"via": []string{"mcp"}}, in{"via": []string{"rest"}}, in{"via": []any{}}},
			{in{"worker_ids": []string{"a", "b"}}, in{"worker_ids": []string{"b", "c"}}, in{"worker_ids": []any{"b"}}},
			{in{"worker_ids": []string{"a"}}, in{"worker_ids": []string{"c"}}, in{"worker_ids": []any{}}},
		} {
			name := fmt.Sprintf("%v, now %v", test.backup, test.now)
			secret, id := w.key("executions:claim cues:read", in{"restrictions": test.backup})
			var newer keyRow
			err := w.db.View(t.Context(), func(tx *db.Tx) error { return newer.scan(tx.Row(sqlKeyAnywhere, id)) })
			if err != nil {
				t.Fatal(err)
			}
			newer.restrictions, newer.rev = string(op.Marshal(test.now)), newer.rev+1
			if kept, err := w.a.KeepEnded(t.Context(), Ended{living: []keyRow{newer}}); err != nil || kept.Narrowed != 1 {
				t.Errorf("%s: %+v, %v", name, kept, err)
			}
			w.stop()
			w.open() // what was stored counts, not what memory holds
			if diff := cmp.Diff(map[string]any(test.want), w.must(w.admin, "key.get", in{"id": id})["restrictions"]); diff != "" {
				t.Errorf("%s:\n%s", name, diff)
			}
			call, input := "execution.claim", in{"X-Worker-Id": "c"} // from 192.0.2.1, via rest
			if test.want["cues"] != nil {
				call, input = "cue.get", in{"id": "cue_bbbbbbbbbbbb"}
			}
			if w.code(secret, call, input) == "" {
				t.Errorf("%s: %s went through", name, call)
			}
			w.must(w.admin, "key.widen", in{"id": id, "add_permissions": []string{"usage:read"}}) // which leaves its lists alone
			if diff := cmp.Diff(map[string]any(test.want), w.must(w.admin, "key.get", in{"id": id})["restrictions"]); diff != "" {
				t.Errorf("%s, after it was widened:\n%s", name, diff)
			}
		}
	})
}
