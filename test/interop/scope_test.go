//go:build interop && linux

package interop

import (
	"strings"
	"testing"
)

// TestScopes holds the scopes of keys against the published command line, which prints the server's sentence. What the SDK makes
// of them is a scenario of sdk.py.
func TestScopes(t *testing.T) {
	s := serve(t, "--dev")
	id := s.newCue("guarded", object{"task": "t"}, nil)
	run := s.fire(id)
	workerID, workerKey := s.newKey("worker", nil)
	_, readerKey := s.newKey("read-only", nil)
	worker, reader := shellOf(t, s, workerKey), shellOf(t, s, readerKey)

	reader.does(words("get "+id), "guarded")
	reader.does(words("executions list-claimable"), run)
	worker.does(words("executions list-claimable"), run)

	refused := func(sh shell, key, method, path string, body object, command string) {
		t.Helper()
		status, answer := s.try(key, method, path, body)
		if status != 403 || code(answer) != "insufficient_scope" {
			t.Fatalf("%s %s is answered %d %v", method, path, status, answer)
		}
		sentence, _, _ := strings.Cut(answer["error"].(object)["message"].(string), "\n")
		sh.fails(words(command), sentence)
	}
	claim := object{"worker_id": "w"}
	refused(reader, readerKey, "POST", "/v1/executions/"+run+"/claim", claim, "executions claim --worker-id w "+run)
	refused(reader, readerKey, "POST", "/v1/executions/claim", claim, "executions claim-next --worker-id w")
	create := object{"name": "no", "transport": "worker", "schedule": object{"type": "recurring", "cron": "0 0 1 1 *"}}
	refused(worker, workerKey, "POST", "/v1/cues", create, "create --worker --name no --at 2099-01-01T00:00:00Z")
	refused(worker, workerKey, "POST", "/v1/cues/"+id+"/fire", object{}, "fire "+id)
	refused(worker, workerKey, "PATCH", "/v1/cues/"+id, object{"status": "paused"}, "pause "+id)
	if total := s.call("GET", "/v1/cues", nil)["total"]; total != 1.0 {
		t.Errorf("%v cues after refused creations", total)
	}

	worker.does(words("executions claim --worker-id w "+run), "Claimed: "+run)
	s.call("POST", "/v1/keys/"+workerID+"/revoke", object{})
	for _, call := range []string{"GET /v1/executions/claimable", "GET /v1/keys/self", "POST /v1/executions/claim"} {
		method, path, _ := strings.Cut(call, " ")
		if status, answer := s.try(workerKey, method, path, claim); status != 401 || code(answer) != "key_revoked" {
			t.Errorf("after the revocation %s is answered %d %v", call, status, answer)
		}
	}
	worker.fails(words("executions heartbeat --worker-id w "+run), "revoked")
	worker.fails(words("executions list-claimable"), "Failed (HTTP 401)")
}
