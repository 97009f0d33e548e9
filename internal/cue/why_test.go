package cue

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// says holds an answer of "why" against its cause, its sentence and a part of each of its commands.
func says(t *testing.T, got map[string]any, cause, sentence string, mend ...string) {
	t.Helper()
	if got["cause"] != cause || got["sentence"] != sentence {
		t.Errorf("%v: %v\nwant %s: %s", got["cause"], got["sentence"], cause, sentence)
	}
	var commands []string
	for _, step := range got["mend"].([]any) {
		commands = append(commands, step.(map[string]any)["command"].(string))
	}
	if len(commands) != len(mend) {
		t.Errorf("%s is mended by %q, want %q", cause, commands, mend)
		return
	}
	for i, m := range mend {
		if commands[i] != "unstuck "+m {
			t.Errorf("%s is mended by %q, want %q", cause, commands[i], m)
		}
	}
}

// facts are the texts of the facts, in their order.
func facts(got map[string]any) string {
	var out []string
	for _, f := range got["facts"].([]any) {
		m := f.(map[string]any)
		at, _ := time.Parse(time.RFC3339, m["at"].(string))
		out = append(out, at.Format("15:04:05 ")+m["text"].(string))
	}
	return strings.Join(out, "\n")
}

// What schedule, status, plan and catch-up do to due times.
func TestWhyOfSchedules(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		why := func(args input) map[string]any {
			t.Helper()
			return f.ok(f.admin, "cue.why", args)
		}
		f.cue("early bird", "0 12 * * *")
		says(t, why(input{"id": "early bird"}), whyNotDue, "early bird has not been due yet: its first due time is 12:00 today.", "cues fire 'early bird'")
		says(t, why(input{"id": "early bird", "at": "2026-11-24T12:00:00Z"}), whyNotDue, "early bird is not due before 12:00 tomorrow.", "cues fire 'early bird'")
		says(t, why(input{"id": "early bird", "at": "2026-11-23T10:01:45Z"}), whyNotDue, "early bird was not due at 10:01:45 today: its schedule does not name that moment.", "cues fire 'early bird'")
		says(t, why(input{"id": "early bird", "at": "2026-11-20T12:00:00Z"}), whyNotDue, "early bird was not due at 12:00 on 20 Nov 2026: it was made later.")

		f.cue("c", "*/10 * * * *")
		f.clock.Set(epoch.Add(2 * time.Minute))
		f.ok(f.admin, "cue.pause", input{"id": "c"})
		f.clock.Set(epoch.Add(10 * time.Minute))
		f.settle()
		paused := why(input{"id": "c", "at": "2026-11-23T10:10:00Z"})
		name := "admin key"
		if s := paused["sentence"].(string); strings.Contains(s, ", by ") {
			_, name, _ = strings.Cut(strings.TrimSuffix(s, "."), ", by ")
		}
		says(t, paused, whyPaused, "c is paused since 10:03:40 today, by "+name+".", "cues resume c")
		says(t, why(input{"id": "c"}), whyPaused, "c is paused since 10:03:40 today, by "+name+".", "cues resume c")
		reader := f.key("read-only", nil) // does not see keys
		if s := f.ok(reader, "cue.why", input{"id": "c"})["sentence"].(string); !strings.HasPrefix(s, "c is paused since 10:03:40 today, by key key_") {
			t.Error(s)
		}
		f.ok(f.admin, "cue.resume", input{"id": "c"})
		says(t, why(input{"id": "c", "at": "2026-11-23T10:10:00Z"}), whyPaused, "c was paused since 10:03:40 today until 10:11:40 today, by "+name+".")

		f.ok(f.admin, "cue.create", newCue("once", input{"schedule": onceAt(f.clock.Now().Add(time.Minute))}))
		f.clock.Advance(time.Minute)
		f.settle()
		f.clock.Advance(10 * time.Second)
		f.ok(f.admin, "execution.claim", input{"worker_id": "w"})
		f.ok(f.admin, "execution.report", input{"id": f.executions("once")[0]["id"], "success": true, "external_id": "x1"})
		done := why(input{"id": "once"})
		says(t, done, whyDone, "Nothing is wrong: once, due 10:12:40 today, was done at 10:12:50 today.")
		holds(t, done, map[string]any{"last_good.evidence": "x1"})
		says(t, why(input{"id": "once", "at": "2026-11-23T10:13:00Z"}), whyEnded, "once is over since 10:12:50 today: it was done.", "cues fire once")
	})
}

// What no server or no room in the plan does to due times.
func TestWhyOfServers(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		why := func(id, at string) map[string]any {
			t.Helper()
			return f.ok(f.admin, "cue.why", input{"id": id, "at": at})
		}
		f.cue("merges", "*/10 * * * *")
		f.ok(f.admin, "cue.create", newCue("skips", input{"schedule": input{"type": recurring, "cron": "*/10 * * * *"}, "catch_up": skipMissed}))
		f.clock.Set(epoch.Add(30 * time.Minute)) // 10:31:40
		f.restart()
		f.settle()
		says(t, why("merges", "2026-11-23T10:10:00Z"), whyDown, "merges did not run at 10:10 today because no server ran from 10:01:40 today to 10:31:40 today; it was merged into a later due time.",
			"cues update merges --catch-up replay_all_missed")
		says(t, why("skips", "2026-11-23T10:20:00Z"), whyCatchUp, "skips was skipped at 10:20 today because no server ran from 10:01:40 today to 10:31:40 today, and its catch-up policy skips what was missed.",
			"cues update skips --catch-up run_once_if_missed", "cues fire skips")
		late := f.executions("merges")[0]["id"]
		f.ok(f.admin, "execution.claim_one", input{"id": late, "worker_id": "w"})
		f.ok(f.admin, "execution.report", input{"id": late, "success": true})
		says(t, f.ok(f.admin, "execution.why", input{"id": late}), whyDown, "merges, due 10:30 today, ran late because no server ran from 10:01:40 today to 10:31:40 today.")

		f.sql("UPDATE workspaces SET execution_limit = 1")
		f.sql("INSERT INTO counters (workspace_id, name, value) VALUES (?1, ?2, ?3)", f.ws, countGrace(f.cues.now()), int64(f.cues.now())-planGrace.Microseconds())
		f.restart()
		f.clock.Set(epoch.Add(40 * time.Minute))
		f.settle()
		says(t, why("merges", "2026-11-23T10:40:00Z"), whyPlan, "merges was skipped at 10:40 today because the executions of the month were used up.", "usage", "cues fire merges")
	})
}

// A worker that never was, that is silent, that takes something else.
func TestWhyOfWorkers(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.cue("c", "0 * * * *")
		f.clock.Set(time.Date(2026, 11, 23, 11, 0, 0, 0, time.UTC))
		f.settle()
		says(t, f.ok(f.admin, "cue.why", input{"id": "c"}), whyNoWorker, "c has waited since 11:00 today because no worker is known that asks for work.", "executions claim --worker-id me")
		f.clock.Advance(f.cues.UnclaimedAfter)
		f.settle()
		first := f.executions("c")[0]["id"].(string)
		got := f.ok(f.admin, "cue.why", input{"id": "c", "at": "2026-11-23T11:00:00Z"})
		says(t, got, whyNoWorker, "c missed 11:00 today because no worker is known that asks for work.", "executions claim --worker-id me", "executions replay "+brief(first))
		if want := "11:00:00 due, 11:00 UTC\n11:15:00 missed: no worker took it within 15 min"; facts(got) != want {
			t.Errorf("facts:\n%s\nwant\n%s", facts(got), want)
		}

		f.clock.Set(time.Date(2026, 11, 23, 11, 58, 0, 0, time.UTC))
		worker := f.key("worker", nil)
		f.ok(worker, "worker.heartbeat", input{"worker_id": "mac-mini"})
		f.clock.Set(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
		f.settle()
		f.clock.Advance(f.cues.UnclaimedAfter)
		f.settle()
		second := f.executions("c")[0]["id"].(string)
		says(t, f.ok(f.admin, "execution.why", input{"id": second}), whyNotTaken, "c missed 12:00 today although a worker (mac-mini) was there: none took it.", "executions claimable", "executions replay "+brief(second))

		f.clock.Set(time.Date(2026, 11, 23, 13, 0, 0, 0, time.UTC))
		f.settle()
		f.clock.Advance(f.cues.UnclaimedAfter)
		f.settle()
		third := f.executions("c")[0]["id"].(string)
		says(t, f.ok(f.admin, "execution.why", input{"id": third}), whySilent, "c missed 13:00 today because its worker mac-mini has not been heard of since 11:58 today.", "workers list", "executions replay "+brief(third))
		f.clock.Advance(time.Minute)
		fired := f.ok(f.admin, "cue.fire", input{"id": "c"})["id"].(string)
		f.ok(worker, "execution.claim", input{"worker_id": "mac-mini"})
		says(t, f.ok(f.admin, "cue.why", input{"id": "c"}), whyWorking, "c, due 13:16 today, is in the hands of worker mac-mini until 13:31 today.")
		f.clock.Advance(f.cues.Lease)
		f.settle()
		says(t, f.ok(f.admin, "execution.why", input{"id": fired}), whyLease, "c, due 13:16 today, is offered again because its worker took it and was not heard of again: attempt 1 of 3.", "executions claim "+brief(fired))
		for range 2 {
			f.ok(worker, "execution.claim_one", input{"id": fired, "worker_id": "mac-mini"})
			f.clock.Advance(f.cues.Lease)
			f.settle()
		}
		says(t, f.ok(f.admin, "execution.why", input{"id": fired}), whyLease, "c, due 13:16 today, failed because its worker took it and was not heard of again: attempt 3 of 3.", "executions replay "+brief(fired))
	})
}

// The worker is silent because its key does not let it in: the sentence says what happened to the key, the facts since when, through
// whom and how often it was refused, and the command lets it in again.
func TestWhyOfKeys(t *testing.T) {
	for _, c := range []struct {
		name, key string
		end       func(f *fixture, id string)
		mend      string // of key ID or its digits DIGITS
	}{
		{"expired", "expired", func(f *fixture, id string) { f.clock.Set(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)) }, "keys extend DIGITS --by 7d"},
		{"revoked", "was revoked", func(f *fixture, id string) { f.ok(f.admin, "key.revoke", input{"id": id}) }, "keys create 'night worker' --scope worker"},
		{"narrowed", "may not take work any more: it lacks executions:claim", func(f *fixture, id string) {
			f.ok(f.admin, "key.update", input{"id": id, "permissions": []string{"executions:read"}})
		}, "keys widen ID --add executions:claim"},
		{"restricted", "is restricted (cues) and may not take it", func(f *fixture, id string) {
			f.ok(f.admin, "key.update", input{"id": id, "restrictions": input{"cues": []string{"other-*"}}})
		}, "keys widen ID --add-cue 'nightly-report'"},
		{"restricted by address", "is restricted (ips) and may not take it", func(f *fixture, id string) {
			f.ok(f.admin, "key.update", input{"id": id, "restrictions": input{"ips": []string{"10.0.0.0/8"}}})
		}, "keys widen ID --add-address '127.0.0.1/32'"},
		{"restricted by door", "is restricted (via) and may not take it", func(f *fixture, id string) {
			f.ok(f.admin, "key.update", input{"id": id, "restrictions": input{"via": []string{"mcp"}}})
		}, "keys widen ID --add-via 'rest'"},
		{"restricted by worker", "is restricted (worker_ids) and may not take it", func(f *fixture, id string) {
			f.ok(f.admin, "key.update", input{"id": id, "restrictions": input{"worker_ids": []string{"other"}}})
		}, "keys widen ID --add-worker 'mac-mini'"},
		{"rotated", "has a new secret, and the worker calls with the old one", func(f *fixture, id string) {
			f.ok(f.admin, "key.rotate", input{"id": id, "now": true})
		}, "keys rotate DIGITS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			each(t, func(t *testing.T, f *fixture) {
				f.cue("nightly-report", "0 * * * *")
				made := f.ok(f.admin, "key.create", input{"name": "night worker", "scope": "worker", "expires_at": map[bool]string{true: "2026-11-23T12:00:00Z", false: "2027-01-01T00:00:00Z"}[c.name == "expired"]})
				id, secret := made["id"].(string), made["key"].(string)
				f.clock.Set(time.Date(2026, 11, 23, 11, 0, 0, 0, time.UTC))
				f.settle()
				f.ok(secret, "worker.heartbeat", input{"worker_id": "mac-mini"})
				e := f.ok(secret, "execution.claim", input{"worker_id": "mac-mini"})
				f.ok(secret, "execution.report", input{"id": e["execution_id"], "success": true, "external_id": "report.pdf"})
				f.clock.Set(time.Date(2026, 11, 23, 11, 30, 0, 0, time.UTC))
				c.end(f, id)
				ended := f.clock.Now()
				f.clock.Advance(4 * time.Second)
				for range 3 {
					if r := f.call(secret, "execution.claim", input{"worker_id": "mac-mini"}); r.Err == nil {
						t.Fatalf("its key still takes work: %s", r.Body)
					}
				}
				f.clock.Set(time.Date(2026, 11, 23, 13, 0, 0, 0, time.UTC))
				f.settle()
				f.clock.Advance(f.cues.UnclaimedAfter)
				f.settle()
				missed := f.executions("nightly-report")[0]["id"].(string)
				got := f.ok(f.admin, "execution.why", input{"id": missed})
				redacted := f.ok(f.admin, "key.get", input{"id": id})["redacted"].(string)
				mend := strings.NewReplacer("ID", id, "DIGITS", redacted[strings.LastIndexByte(redacted, '_')+1:]).Replace(c.mend)
				says(t, got, whyKey, "nightly-report missed 13:00 today because its worker's key "+c.key+".", mend, "executions replay "+brief(missed))
				all := facts(got)
				since := ended.Format("15:04:05 ") + "key night worker (" + redacted + ") "
				if c.name != "restricted" && !strings.Contains(all, "worker mac-mini was refused: ") {
					t.Errorf("the refusals are not told:\n%s", all)
				}
				if c.name != "rotated" && !strings.Contains(all, since) {
					t.Errorf("no fact %q:\n%s", since, all)
				}
				if c.name == "expired" { // once it is mended, what was is still known
					f.ok(f.admin, "key.extend", input{"id": id, "expires_in": "30d"})
					f.clock.Advance(time.Minute)
					f.ok(secret, "worker.heartbeat", input{"worker_id": "mac-mini"})
					again := f.ok(f.admin, "execution.why", input{"id": missed})
					says(t, again, whyKey, "nightly-report missed 13:00 today because its worker's key had expired.", "executions replay "+brief(missed))
				}
				holds(t, got, map[string]any{"last_good.evidence": "report.pdf", "last_good.execution_id": e["execution_id"]})
				if text := fmt.Sprint(f.ok(f.key("read-only", nil), "execution.why", input{"id": missed})); strings.Contains(text, redacted) || strings.Contains(text, "night worker") {
					t.Errorf("who sees no keys is told of one: %s", text)
				}
			})
		})
	}
}

// A worker whose key is for other cues is heard of all the same: the key is the cause.
func TestWhyOfAKeyForOtherCues(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.cue("c", "0 0 1 1 *")
		f.cue("ok", "0 0 1 1 *")
		worker := f.key("worker", input{"cues": []string{"ok"}})
		f.clock.Advance(time.Hour)
		id := f.ok(f.admin, "cue.fire", input{"id": "c"})["id"].(string)
		f.ok(worker, "worker.heartbeat", input{"worker_id": "boxb"})
		got := f.ok(f.admin, "execution.why", input{"id": id})
		if got["cause"] != whyKey || !strings.Contains(got["sentence"].(string), "is restricted") {
			t.Errorf("why: %v", got)
		}
	})
}

// A worker that says what it takes, and does not take this.
func TestWhyOfOtherTasks(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.ok(f.key("worker", nil), "worker.heartbeat", input{"worker_id": "boxb", "handlers": []string{"sync", "copy"}})
		for _, c := range []struct{ name, task, want string }{
			{"other", "mail", `other has waited since 10:01:40 today because worker boxb takes only the tasks "sync", "copy", and this has the task "mail".`},
			{"none", "", `none has waited since 10:01:40 today because worker boxb takes only the tasks "sync", "copy", and this has no task.`},
			{"taken", "copy", `taken has waited since 10:01:40 today although a worker (boxb) was there: none took it, which has the task "copy".`},
		} {
			payload := input{}
			if c.task != "" {
				payload["task"] = c.task
			}
			f.ok(f.admin, "cue.create", newCue(c.name, input{"payload": payload}))
			id := f.ok(f.admin, "cue.fire", input{"id": c.name})["id"]
			if got := f.ok(f.admin, "execution.why", input{"id": id}); got["cause"] != whyNotTaken || got["sentence"] != c.want {
				t.Errorf("%s: %v", c.name, got)
			}
		}
	})
}

// A worker that was there a moment ago is not said to be there when its key has ended since.
func TestWhyOfAKeyThatJustEnded(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		made := f.ok(f.admin, "key.create", input{"name": "night worker", "scope": "worker"})
		f.cue("nightly", "0 0 1 1 *")
		f.ok(made["key"].(string), "worker.heartbeat", input{"worker_id": "mac-mini"})
		f.clock.Advance(time.Second)
		f.ok(f.admin, "cue.fire", input{"id": "nightly"})
		says(t, f.ok(f.admin, "cue.why", input{"id": "nightly"}), whyNotTaken, "nightly has waited since 10:01:41 today although a worker (mac-mini) was there: none took it.", "executions claimable")
		f.clock.Advance(time.Second)
		f.ok(f.admin, "key.revoke", input{"id": made["id"]})
		says(t, f.ok(f.admin, "cue.why", input{"id": "nightly"}), whyKey, "nightly has waited since 10:01:41 today because its worker's key was revoked.", "keys create 'night worker' --scope worker")
	})
}

// What callbacks do.
func TestWhyOfCallbacks(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		why := func(id any) map[string]any {
			t.Helper()
			return f.ok(f.admin, "execution.why", input{"id": id})
		}
		fire := func(cue string) string {
			t.Helper()
			id := f.ok(f.admin, "cue.fire", input{"id": cue})["id"].(string)
			f.settle()
			return id
		}
		more := input{"cron": "0 0 1 1 *", "retry": input{"max_attempts": 2, "backoff_minutes": []int{10}}}
		f.webhook("hook", r, more)
		r.status(503, "")
		id := fire("hook")
		got := why(id)
		if s := got["sentence"].(string); got["cause"] != whyRefused || !strings.HasPrefix(s, "hook, due 10:01:40 today, waits because its callback answered 503; the next attempt is due 10:1") {
			t.Error(got["cause"], s)
		}
		f.clock.Advance(12 * time.Minute)
		f.settle()
		says(t, why(id), whyRefused, "hook, due 10:01:40 today, failed because its callback answered 503: attempt 2 of 2.", "executions replay "+brief(id))

		r.status(410, "")
		id = fire("hook")
		says(t, why(id), whyOff, "hook, due 10:13:40 today, failed because its callback answered 410: it wants no more calls, so the cue was paused.", "cues resume hook", "executions replay "+brief(id))
		says(t, f.ok(f.admin, "cue.why", input{"id": "hook"}), whyOff, "hook is paused since 10:13:40 today because its callback answered 410: it wants no more calls.", "cues resume hook")

		r.status(200, "")
		f.webhook("asks", r, input{"cron": "0 0 1 1 *", "delivery": input{"outcome_deadline_seconds": 60}})
		id = fire("asks")
		says(t, why(id), whyWorking, "asks, due 10:13:40 today, was called; how it went is to be reported until 10:14:40 today.", "executions report "+brief(id)+" --success")
		f.clock.Advance(time.Minute)
		f.settle()
		says(t, why(id), whyUnreported, "asks, due 10:13:40 today, was called, but nobody reported in time how it went.", "executions report "+brief(id)+" --success", "executions replay "+brief(id))

		f.webhook("moved", r, input{"cron": "0 0 1 1 *", "retry": input{"max_attempts": 1}})
		f.sql(`UPDATE cues SET callback = replace(callback, '127.0.0.1', '10.1.2.3'), endpoint = replace(endpoint, '127.0.0.1', '10.1.2.3') WHERE name = 'moved'`)
		id = fire("moved")
		got = why(id)
		if s := got["sentence"].(string); got["cause"] != whyNotAllowed || !strings.HasPrefix(s, "moved, due 10:14:40 today, failed because its callback may not be called: 10.1.2.3 is a private network") || !strings.Contains(s, "UNSTUCK_ALLOW_CALLBACKS") {
			t.Error(got["cause"], s)
		}
		if all := facts(got); !strings.Contains(all, "not called, attempt 1 of 1: its address is not allowed") || strings.Contains(all, "did not answer") {
			t.Errorf("facts of what was not called:\n%s", all)
		}
	})
}

// A callback that failed several times in a row rests, and what is due waits for it.
func TestWhyOfRest(t *testing.T) {
	sending(t, func(t *testing.T, f *fixture, r *receiver) {
		r.status(503, "")
		f.webhook("hook", r, input{"cron": "0 0 1 1 *", "retry": input{"max_attempts": 1}})
		for range 20 {
			f.ok(f.admin, "cue.fire", input{"id": "hook"})
		}
		f.settle()
		waits := f.ok(f.admin, "execution.list", input{"cue_id": "hook", "status": statusPending})["executions"].([]any)
		if len(waits) == 0 {
			t.Fatal("nothing waits")
		}
		got := f.ok(f.admin, "execution.why", input{"id": waits[0].(map[string]any)["id"]})
		if s := got["sentence"].(string); got["cause"] != whyResting || !strings.HasPrefix(s, "hook, due 10:01:40 today, waits because its callback failed several times in a row and rests until 10:01:4") {
			t.Error(got["cause"], s)
		}
	})
}

// What outcomes are, and lack.
func TestWhyOfOutcomes(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		why := func(id any) map[string]any {
			t.Helper()
			return f.ok(f.admin, "execution.why", input{"id": id})
		}
		report := func(cue string, more input) string {
			t.Helper()
			id := f.ok(f.admin, "cue.fire", input{"id": cue})["id"].(string)
			f.ok(f.admin, "execution.claim_one", input{"id": id, "worker_id": "w"})
			args := input{"id": id, "success": true}
			for k, v := range more {
				args[k] = v
			}
			f.ok(f.admin, "execution.report", args)
			return id
		}
		f.ok(f.admin, "cue.create", newCue("proof", input{"verification": input{"mode": "require_result_url", "required_assertions": []string{"rows match"}}}))
		id := report("proof", nil)
		says(t, why(id), whyUnverified, "proof, due 10:01:40 today, was reported as done, but does not count because it lacks result_url and assertions.rows match.",
			"executions add-evidence "+brief(id)+` --result-url https://… --assertions '{"rows match":true}'`)
		f.ok(f.admin, "execution.add_evidence", input{"id": id, "result_url": "https://example.com/", "assertions": input{"rows match": true}})
		says(t, why(id), whyDone, "Nothing is wrong: proof, due 10:01:40 today, was done at 10:01:40 today.")

		id = report("proof", input{"success": false, "error": "the vendor is down."})
		says(t, why(id), whyFailed, "proof, due 10:01:40 today, failed: the vendor is down.", "executions replay "+brief(id))

		f.ok(f.admin, "cue.create", newCue("judged", input{"verification": input{"mode": "manual"}}))
		id = report("judged", nil)
		says(t, why(id), whyToVerify, "judged, due 10:01:40 today, was reported as done and waits for somebody to verify it.", "executions verify "+brief(id))
		f.ok(f.admin, "execution.verify", input{"id": id, "valid": false, "reason": "the link is dead"})
		got := why(id)
		says(t, got, whyRejected, "judged, due 10:01:40 today, was reported as done, but somebody rejected the outcome.", "executions replay "+brief(id))
		if !strings.Contains(facts(got), "rejected: the link is dead") {
			t.Error(facts(got))
		}
		f.refused(f.key("worker", input{"cues": []string{"other"}}), "execution.why", input{"id": id}, 404, "execution_not_found")
	})
}
