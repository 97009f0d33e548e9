package cli

import (
	"encoding/json"
	"testing"
)

// TestAuditRows is what the table says of rows about refusals, of one and of several that were folded.
func TestAuditRows(t *testing.T) {
	for body, want := range map[string][2]string{
		`{"operation":"cue.create","result":"insufficient_scope","count":1,"detail":{"missing":["cues:write"]}}`:                            {"cue.create", "refused: lacks cues:write"},
		`{"operation":"cue.create","result":"insufficient_scope","count":12,"detail":{"first":"2026-11-24T10:00:00Z","last":"2026-11-24"}}`: {"cue.create ×12", "refused: insufficient scope"},
		`{"operation":"cue.list","result":"key_restricted","count":1,"detail":{"restriction":"ips","brought":"203.0.113.7"}}`:               {"cue.list", "refused: restricted in ips, came with 203.0.113.7"},
		`{"operation":"usage.get","result":"key_restricted","count":1,"detail":{"restriction":"cues","brought":""}}`:                        {"usage.get", "refused: restricted in cues"},
	} {
		var row auditRow
		if err := json.Unmarshal([]byte(body), &row); err != nil {
			t.Fatal(err)
		}
		if row.did() != want[0] || row.result() != want[1] {
			t.Errorf("%s: %s, %s", body, row.did(), row.result())
		}
	}
}
