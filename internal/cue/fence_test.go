package cue

import (
	"testing"
	"time"
)

// leased makes an execution that a key holds: its id and its token.
func (f *fixture) leased(key string) (id, token string) {
	f.Helper()
	return f.taken(key, "")
}

// handOver lets the lease of an execution end and another key claim it: the new token.
func (f *fixture) handOver(id, to string) string {
	f.Helper()
	f.clock.Advance(16 * time.Minute)
	f.settle()
	return f.ok(to, "execution.claim_one", input{"id": id, "worker_id": "v"})["lease_token"].(string)
}

// A token must be that of the last claim, whoever brings it.
func TestFenceByToken(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		a, b := f.key("worker", nil), f.key("worker", nil)
		id, old := f.leased(a)
		token := f.handOver(id, b)
		for _, call := range []struct {
			name string
			args input
		}{
			{"execution.heartbeat", input{"id": id, "lease_token": old}},
			{"execution.report", input{"id": id, "lease_token": old, "success": true}},
			{"execution.report", input{"id": id, "lease_token": "made up", "success": true}},
		} {
			for _, key := range []string{a, b} {
				err := f.refused(key, call.name, call.args, 409, "stale_claim")
				state := err.Extra.(staleClaim).Execution
				if state.Status != "delivering" || state.Attempts != 2 || *state.ClaimedByWorker != "v" || state.LeaseUntil == nil || state.OutcomeState != nil {
					t.Errorf("%s: the present state is %+v", call.name, state)
				}
			}
		}
		f.ok(a, "execution.heartbeat", input{"id": id, "lease_token": token}) // the token is what counts, not the key
		f.ok(b, "execution.report", input{"id": id, "lease_token": token, "success": true})
		f.refused(a, "execution.report", input{"id": id, "lease_token": old, "success": true}, 409, "stale_claim") // which says the same
		f.ok(b, "execution.report", input{"id": id, "lease_token": token, "success": true})
		f.refused(a, "execution.add_evidence", input{"id": id, "lease_token": old, "summary": "s"}, 409, "stale_claim")
		f.ok(b, "execution.add_evidence", input{"id": id, "lease_token": token, "summary": "s"})
		if e := f.get(b, id); e["unfenced"] != false || e["claimed_by_worker"] != "v" || e["attempts"] != 2.0 {
			t.Errorf("execution: %v", e)
		}
	})
}

// Late work is not lost: until somebody else claims, the last token reports, also when the attempts are used up.
func TestFenceLateReport(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		id, token := f.leased(worker)
		f.clock.Advance(16 * time.Minute)
		f.settle()
		f.refused(worker, "execution.heartbeat", input{"id": id, "lease_token": token}, 409, "stale_claim")
		f.refused(worker, "execution.heartbeat", input{"id": id}, 409, "execution_not_claiming")
		f.ok(worker, "execution.report", input{"id": id, "lease_token": token, "success": true})
		if e := f.get(worker, id); e["status"] != "success" {
			t.Errorf("execution: %v", e)
		}
		if n := len(f.claimable(worker, nil)); n != 0 {
			t.Errorf("%d claimable after the late report", n)
		}
	})
}

// Without a token: the key that holds the live lease, any key when none lives, no other key while one lives.
func TestFenceWithoutToken(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		a, b := f.key("worker", nil), f.key("worker", nil)
		id, _ := f.leased(a)
		f.refused(b, "execution.report", input{"id": id, "success": true}, 409, "stale_claim")
		f.refused(b, "execution.heartbeat", input{"id": id}, 409, "stale_claim")
		f.refused(a, "execution.report", input{"id": id, "success": true, "worker_id": "v"}, 409, "stale_claim") // they can be told apart
		f.ok(a, "execution.heartbeat", input{"id": id})
		f.ok(a, "execution.report", input{"id": id, "success": true})
		f.ok(b, "execution.add_evidence", input{"id": id, "summary": "no lease lives any more"})
		if e := f.get(a, id); e["unfenced"] != true || e["reported_by"] != e["claimed_by_key"] {
			t.Errorf("execution: %v", e)
		}

		pending := f.fire(f.cue("never claimed", "0 0 1 1 *"), nil)
		f.ok(b, "execution.report", input{"id": pending, "success": true})
		if e := f.get(b, pending); e["status"] != "success" || e["unfenced"] != true || e["claimed_by_key"] != nil {
			t.Errorf("execution: %v", e)
		}

		over, _ := f.leased(a)
		f.clock.Advance(15 * time.Minute) // to the microsecond: a lease that ends now is over
		f.ok(b, "execution.report", input{"id": over, "success": false})
	})
}

// Two workers that share one key and send no token cannot be told apart: the first report wins, and is marked.
func TestFenceSharedKey(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		shared := f.key("worker", nil)
		id, _ := f.leased(shared)
		f.handOver(id, shared)
		f.ok(shared, "execution.report", input{"id": id, "success": true, "result": "of the first, which had lost it"})
		f.refused(shared, "execution.report", input{"id": id, "success": true, "result": "of the second"}, 409, "outcome_already_recorded")
		if e := f.get(shared, id); e["unfenced"] != true {
			t.Errorf("execution: %v", e)
		}
	})
}

// A worker that gets a new key in the middle of a job may finish it: the lease of a key that no longer verifies stops nobody.
func TestFenceWhenTheKeyEnded(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		for name, end := range map[string]func(id string){
			"revoked": func(id string) { f.ok(f.admin, "key.revoke", input{"id": id}) },
			"expired": func(string) { f.clock.Advance(10 * time.Minute) },
		} {
			made := f.ok(f.admin, "key.create", input{"name": name, "scope": "worker", "expires_in": "10m"})
			id, _ := f.leased(made["key"].(string))
			next := f.key("worker", nil)
			f.refused(next, "execution.heartbeat", input{"id": id}, 409, "stale_claim")
			end(made["id"].(string))
			f.ok(next, "execution.heartbeat", input{"id": id})
			f.ok(next, "execution.report", input{"id": id, "success": true})
		}
	})
}

// A heartbeat renews the lease from now on, for the holder alone.
func TestHeartbeat(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		worker := f.key("worker", nil)
		id, token := f.leased(worker)
		f.clock.Advance(14 * time.Minute)
		out := f.ok(worker, "execution.heartbeat", input{"id": id, "lease_token": token, "X-Worker-Id": "w"})
		sameKeys(t, out, []string{"execution_id", "lease_extended_until", "acknowledged"})
		if out["lease_extended_until"] != "2026-11-23T10:30:40+00:00" || out["acknowledged"] != true || out["execution_id"] != id {
			t.Errorf("heartbeat: %v", out)
		}
		f.clock.Advance(14 * time.Minute)
		f.settle()
		if e := f.get(worker, id); e["status"] != "delivering" || e["last_heartbeat_at"] != "2026-11-23T10:15:40Z" || e["lease_until"] != "2026-11-23T10:30:40Z" {
			t.Errorf("after 28 minutes: %v", e)
		}
		f.refused(worker, "execution.heartbeat", input{"id": id, "X-Worker-Id": "v"}, 403, "not_execution_owner")
		f.refused(worker, "execution.heartbeat", input{"id": newUUID(0)}, 404, "execution_not_found")
		f.refused(f.key("worker", input{"worker_ids": []string{"v"}}), "execution.heartbeat", input{"id": id}, 403, "key_restricted")
		f.refused(f.key("worker", input{"cues": []string{"v"}}), "execution.heartbeat", input{"id": id}, 404, "execution_not_found")
		f.refused(worker, "execution.heartbeat", input{"id": f.fire(f.cue("c", "0 0 1 1 *"), nil)}, 409, "execution_not_claiming")
		f.ok(worker, "execution.report", input{"id": id, "success": true})
		f.refused(worker, "execution.heartbeat", input{"id": id}, 409, "execution_not_claiming")
	})
}

// Over the rate limit the holder of a live lease is heard, and nobody else: reports and evidence always, heartbeats once a second.
func TestHolderIsHeardOverTheLimit(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		limited := f.key("worker", input{"rate_per_minute": 2})
		id, token := f.leased(limited)
		strange, _ := f.leased(f.key("worker", nil))
		f.ok(limited, "execution.get", input{"id": id})
		f.refused(limited, "execution.get", input{"id": id}, 429, "rate_limit_exceeded")

		f.ok(limited, "execution.heartbeat", input{"id": id, "lease_token": token})
		f.clock.Advance(time.Second - time.Microsecond)
		f.refused(limited, "execution.heartbeat", input{"id": id, "lease_token": token}, 429, "rate_limit_exceeded")
		f.clock.Advance(time.Microsecond)
		f.ok(limited, "execution.heartbeat", input{"id": id, "lease_token": token})

		f.refused(limited, "execution.heartbeat", input{"id": strange}, 429, "rate_limit_exceeded")
		err := f.refused(limited, "execution.report", input{"id": strange, "success": true}, 429, "rate_limit_exceeded")
		if err.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		f.ok(limited, "execution.report", input{"id": id, "lease_token": token, "success": true})
		f.ok(limited, "execution.report", input{"id": id, "lease_token": token, "success": true})
		f.ok(limited, "execution.add_evidence", input{"id": id, "lease_token": token, "summary": "s"})
	})
}
