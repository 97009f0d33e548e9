package cue

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"unstuck/internal/db"
	"unstuck/internal/op"
	"unstuck/internal/testkit/pgtest"
)

// modelRetain is how long executions are kept in the model.
const modelRetain = 90 * time.Minute

// The ledger closes over any time, also one that begins or ends among executions that are kept no longer, whatever the cues did
// and whenever the server died while it removed; what was removed is what had ended long ago, and totals and evidence are exact.
func TestRetentionKeepsTheLedger(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, dsn string) {
		f := newFixture(t, dsn, Options{UnclaimedAfter: 50 * 365 * 24 * time.Hour, RetainFor: modelRetain})
		if f.db.Postgres() {
			checks(t, 4)
		} else {
			checks(t, 30)
		}
		removed, rows := 0, int64(0)
		rapid.Check(t, func(rt *rapid.T) {
			m := newModel(rt, f)
			defer m.clear()
			m.create(rt)
			m.Repeat(map[string]func(*rapid.T){
				"create": m.create, "live": m.live, "live on": m.live, "live more": m.live, "outage": m.outage, "step back": m.stepBack, "pause": m.setStatus(paused),
				"resume": m.setStatus(active), "cron": m.editCron, "zone": m.editZone, "once": m.editOnce, "fire": m.fire, "delete": m.delete,
				"policy": m.editPolicy, "retain": m.retain, "retain more": m.retain, "retain and crash": m.retainSome, "": m.check,
			})
			m.settle(rt)
			m.check(rt)
			for _, c := range slices.Concat(m.cues, m.gone) {
				removed += len(c.removed)
			}
			rows += f.number("SELECT count(*) FROM ledger WHERE reason = 'retention'")
		})
		t.Logf("%d due times went into %d rows", removed, rows)
		if removed < 20 && !f.db.Postgres() && !testing.Short() { // where there are few runs
			t.Errorf("only %d due times were removed: that shows nothing", removed)
		}
	})
}

// live passes some time as on a busy day: what is due is fired, and most of what workers have is reported.
func (m *model) live(t *rapid.T) {
	for range 10 {
		m.f.clock.Advance(time.Duration(rapid.Int64Range(1, 300_000_000).Draw(t, "µs"))*time.Microsecond + 5*time.Minute)
		m.settle(t)
	}
	leave := rapid.IntRange(0, 5).Draw(t, "leave one of")
	for _, c := range m.cues {
		if c.webhook || c.expr == "" {
			continue
		}
		page := m.do(t, "execution.list", input{"cue_id": c.id, "status": statusPending, "limit": 100})["executions"].([]any)
		for i, e := range page {
			if leave == 0 || i%leave > 0 {
				id := e.(map[string]any)["id"]
				m.do(t, "execution.report", input{"id": id, "success": rapid.IntRange(0, 3).Draw(t, "success") > 0})
				if i%7 == 0 {
					m.do(t, "execution.mark_pending", input{"id": id})
				}
			}
		}
	}
}

// modelExecution is what decides whether an execution may go.
type modelExecution struct {
	cueID, by, status, state, id string
	due, created, updated        op.Time
	waits                        bool // the clock has something to do about it
	alert                        bool // an open one names it
}

// executions reads them all, by their ids.
func (m *model) executions(t rapid.TB) map[string]modelExecution {
	out := map[string]modelExecution{}
	err := m.f.db.View(m.f.Context(), func(tx *db.Tx) error {
		rows, err := tx.Query(`SELECT id, cue_id, triggered_by, status, outcome_state, scheduled_for, created_at, updated_at,
			CASE WHEN deadline IS NOT NULL OR deliver_at IS NOT NULL THEN 1 ELSE 0 END,
			CASE WHEN id IN (SELECT execution_id FROM alerts WHERE recovered_at IS NULL) THEN 1 ELSE 0 END FROM executions`)
		all, err := scanAll(rows, err, func(e *modelExecution, r scanner) error {
			return r.Scan(&e.id, &e.cueID, &e.by, &e.status, &e.state, &e.due, &e.created, &e.updated, &e.waits, &e.alert)
		})
		for _, e := range all {
			out[e.id] = e
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (e *modelExecution) ended() bool {
	return slices.Contains([]string{statusSuccess, statusFailed, statusMissed, statusOutcomeTimeout}, e.status)
}

// goes says whether an execution, one of all, is to be removed now.
func (m *model) goes(e modelExecution, all map[string]modelExecution) bool {
	if !e.ended() || e.waits || e.alert || e.state == verificationPending || max(e.created, e.updated) >= in(m.now(), -modelRetain) {
		return false
	}
	if i := slices.IndexFunc(m.cues, func(c *modelCue) bool { return c.id == e.cueID }); m.cues[i].status != active && m.cues[i].status != paused {
		return true
	}
	later := 0
	for _, o := range all {
		if o.cueID == e.cueID && o.ended() && (o.created > e.created || o.created == e.created && o.id > e.id) {
			later++
		}
	}
	return later >= retainLatest
}

// retain removes what is old, and nothing else.
func (m *model) retain(t *rapid.T) {
	before := m.executions(t)
	m.f.cues.retention.most = rapid.IntRange(1, 5).Draw(t, "most")
	if err := m.f.cues.Retain(m.f.Context()); err != nil {
		t.Fatal(err)
	}
	after := m.executions(t)
	for id, e := range before {
		if _, there := after[id]; there == m.goes(e, before) {
			t.Fatalf("execution %+v, there: %t, at %s", e, there, m.now())
		}
	}
	m.removed(t, before, after)
}

// retainSome dies in the midst of removing, after a number of transactions.
func (m *model) retainSome(t *rapid.T) {
	before := m.executions(t)
	ctx, cancel := context.WithCancel(m.f.Context())
	defer cancel()
	left := rapid.IntRange(0, 5).Draw(t, "transactions")
	m.f.cues.retention.most = rapid.IntRange(1, 5).Draw(t, "most")
	m.f.cues.retention.rest = func(context.Context) {
		if left--; left < 0 {
			cancel()
		}
	}
	if err := m.f.cues.Retain(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	m.f.restart()
	after := m.executions(t)
	for id, e := range before {
		if _, there := after[id]; !there && !m.goes(e, before) {
			t.Fatalf("execution %+v went at %s", e, m.now())
		}
	}
	m.removed(t, before, after)
}

// removed notes what went, and checks what is to be exact after it.
func (m *model) removed(t rapid.TB, before, after map[string]modelExecution) {
	t.Helper()
	for _, c := range m.cues {
		for id, e := range before {
			if _, there := after[id]; there || e.cueID != c.id {
				continue
			}
			if e.by == byScheduler {
				c.removed = append(c.removed, e.due)
			} else {
				c.beside++
			}
		}
	}
	for what, query := range map[string]string{
		"evidence of nothing": "SELECT count(*) FROM evidence v WHERE NOT EXISTS (SELECT 1 FROM executions e WHERE e.id = v.execution_id)",
		"total":               "SELECT (SELECT count(*) FROM executions) - (SELECT coalesce(sum(value), 0) FROM counters WHERE name = 'executions')",
		"successes":           "SELECT (SELECT count(*) FROM executions WHERE status = 'success') - (SELECT coalesce(sum(value), 0) FROM counters WHERE name = 'status:success')",
		"by cue":              "SELECT count(*) FROM cues c WHERE c.executions <> (SELECT count(*) FROM executions e WHERE e.cue_id = c.id)",
		"rows that overlap": `SELECT count(*) FROM ledger a JOIN ledger b ON a.cue_id = b.cue_id AND a.version = b.version AND a.reason = 'retention'
			AND b.reason = 'retention' AND a.last_at >= b.first_at AND a.first_at < b.first_at`,
	} {
		if n := m.f.number(query); n != 0 {
			t.Fatalf("%s: off by %d", what, n)
		}
	}
	for id, e := range after {
		if e.state == "" {
			continue
		}
		if check := m.do(t, "execution.check_evidence", input{"id": id}); check["ok"] != true {
			t.Fatalf("evidence of %s: %v", id, check)
		}
	}
}
