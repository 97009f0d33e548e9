package cue

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"unstuck/internal/op"
)

// Many cues are deleted in the order of the request; what is not there, was named twice or is hidden from the key is skipped.
// Without the confirming header nothing happens (CueAPI wire contract 10.1).
func TestBulkDelete(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		a, b, c := f.cue("a", "* * * * *"), f.cue("b", "* * * * *"), f.cue("c", "* * * * *")
		f.ok(f.admin, "cue.fire", input{"id": b})
		send := func(key, ids string) map[string]any {
			t.Helper()
			return answer(f, "cue.bulk_delete", bulkDelete(f, key, ids))
		}
		f.refused(f.admin, "cue.bulk_delete", input{"ids": []string{a}}, 400, "confirmation_required")
		limited := f.key("write-cues", input{"cues": []string{"c"}})
		got := send(limited, fmt.Sprintf(`[%q]`, a))
		if want := map[string]any{"deleted": []any{}, "skipped": []any{a}}; !reflect.DeepEqual(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		got = send(f.admin, fmt.Sprintf(`["cue_zzzzzzzzzzzz", %q, "a", %q, %q]`, b, b, a))
		if want := map[string]any{"deleted": []any{b, "a"}, "skipped": []any{"cue_zzzzzzzzzzzz", b, a}}; !reflect.DeepEqual(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		holds(t, f.ok(f.admin, "cue.list", input{}), map[string]any{"total": 1., "cues.0.id": c})
		holds(t, f.ok(f.admin, "cue.ledger", input{"id": b}), map[string]any{"closed": true})
		if n := f.number("SELECT count(*) FROM executions"); n != 0 {
			t.Errorf("%d executions are left", n)
		}
		if n := f.number("SELECT count(*) FROM audit WHERE operation = 'cue.bulk_delete' AND result = 'done'"); n != 2 {
			t.Errorf("%d rows in the audit log, want one for each cue", n)
		}
	})
}

func TestBulkDeleteRefuses(t *testing.T) {
	f := onSQLite(t) // nothing reaches the database
	for _, ids := range []string{`null`, `[]`, `"a"`, `[1]`, `["a"` + strings.Repeat(`,"a"`, 100) + `]`} {
		if r := bulkDelete(f, f.admin, ids); r.Err == nil || r.Err.Code.Status != 422 {
			t.Errorf("%.20s: %v, want 422", ids, r.Err)
		}
	}
}

// bulkDelete sends a list of ids, confirmed.
func bulkDelete(f *fixture, key, ids string) *op.Response {
	r := request(key, "cue.bulk_delete")
	r.Header = http.Header{"X-Confirm-Destructive": {"true"}}
	r.Body = []byte(`{"ids":` + ids + `}`)
	return f.set.Call(f.Context(), r)
}
