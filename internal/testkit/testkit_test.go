package testkit_test

import (
	"testing"
	"time"

	"unstuck/internal/testkit"
)

// TestMainJob is the product in small, over HTTP: a small key does its work and nothing else, and proves it.
func TestMainJob(t *testing.T) {
	testkit.Each(t, func(t *testing.T, s *testkit.Server) {
		s.Must(s.First, "POST /v1/cues", `{"name":"hello","cron":"*/5 * * * *","worker":true,"payload":{"who":"world"}}`)
		agent := s.Key("worker")
		if r := s.Do(agent, "POST /v1/cues", `{"name":"sneaky","cron":"* * * * *","worker":true}`); r.Status != 403 || r.Code() != "insufficient_scope" {
			t.Fatalf("a worker made a cue: %d %s", r.Status, r.Body)
		}
		s.Clock.Add(5 * time.Minute)
		s.Drain()
		claim := s.Must(agent, "POST /v1/executions/claim", `{"worker_id":"w"}`)
		if got := claim.Str("payload.who"); got != "world" {
			t.Fatalf("payload %s", claim.Body)
		}
		id := claim.Str("execution_id")
		s.Must(agent, "POST /v1/executions/"+id+"/outcome", map[string]any{"success": true, "lease_token": claim.Str("lease_token"), "external_id": "x-1"})
		if got := s.Must(s.First, "GET /v1/executions/"+id, nil); got.Str("status") != "success" {
			t.Errorf("execution %s", got.Body)
		}
		s.Restart(time.Hour)
		self := s.Must(agent, "GET /v1/keys/self", nil)
		s.Must(s.First, "POST /v1/keys/"+self.Str("id")+"/revoke", `{}`)
		if r := s.Do(agent, "GET /v1/keys/self", nil); r.Status != 401 || r.Code() != "key_revoked" {
			t.Errorf("a revoked key: %d %s", r.Status, r.Body)
		}
		if r := s.Must(s.First, "GET /v1/audit/check", nil); r.JSON["ok"] != true {
			t.Errorf("audit: %s", r.Body)
		}
	})
}
