package cue

import (
	"encoding/json"
	"flag"
	"fmt"
	"iter"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"unstuck/internal/cron"
	"unstuck/internal/db"
	"unstuck/internal/op"
	"unstuck/internal/testkit/pgtest"
)

// The ledger closes, and nothing fires early, twice or never: the real code is driven through random creates, edits, pauses,
// resumes, changes of zone, fires, reports, deletes, outages, steps of the clock in both directions and crashes, and is held
// against a model that looks at one due time after the other.
func TestLedgerCloses(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, dsn string) {
		f := newFixture(t, dsn, Options{UnclaimedAfter: 50 * 365 * 24 * time.Hour}) // nothing is missed for want of a worker
		if f.db.Postgres() {
			checks(t, 5)
		} else {
			checks(t, 60)
		}
		rapid.Check(t, func(rt *rapid.T) { newModel(rt, f).run() })
	})
}

// checks sets how many random runs rapid makes in a test, unless the command line says it.
func checks(t *testing.T, n int) {
	t.Helper()
	if f := flag.Lookup("rapid.checks"); f.Value.String() != f.DefValue {
		return
	}
	set := func(value string) {
		if err := flag.Set("rapid.checks", value); err != nil {
			t.Error(err)
		}
	}
	before := flag.Lookup("rapid.checks").Value.String()
	t.Cleanup(func() { set(before) })
	set(fmt.Sprint(n))
}

// model is what should be. It knows every due time and its ending by itself.
type model struct {
	*rapid.T
	f    *fixture
	cues []*modelCue
	gone []*modelCue
	made int
}

type modelCue struct {
	id, status string
	expr, zone string  // of a recurring cue
	at, due    op.Time // of a one-time cue: as asked for, and when it is due; due is 0 when it is not
	decided    op.Time // due times up to here have an ending
	policy     string  // what happens to due times that were missed
	webhook    bool
	queued     []op.Time // of a webhook: from when its executions that were not delivered yet are to be
	endings    map[op.Time]string
	removed    []op.Time // fired, and kept no longer
	beside     int64     // executions that no due time named, and that are kept no longer
}

var (
	modelPolicies = []string{runOnce, skipMissed, replayAll}
	modelCrons    = []string{"* * * * *", "*/7 * * * *", "0 * * * *", "30 2 * * *", "15 1 * * *", "0 */2 * * *", "0 9 * * 1-5", "* * * * * */20"}
	modelZones    = []string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"}
	modelDays     = []string{"2026-06-10T11:59:59Z", "2026-10-24T20:00:00Z", "2026-10-31T22:30:00Z", "2027-03-13T23:00:00Z", "2027-03-27T12:00:00.5Z"}
)

func newModel(rt *rapid.T, f *fixture) *model {
	start, err := time.Parse(time.RFC3339, rapid.SampledFrom(modelDays).Draw(rt, "start"))
	if err != nil {
		rt.Fatal(err)
	}
	f.clock.Set(start)
	return &model{T: rt, f: f}
}

func (m *model) run() {
	defer m.clear()
	m.create(m.T)
	m.Repeat(map[string]func(*rapid.T){
		"create": m.create, "advance": m.advance, "outage": m.outage, "step back": m.stepBack, "settle": m.settle, "crash": m.crash,
		"pause": m.setStatus(paused), "resume": m.setStatus(active), "cron": m.editCron, "zone": m.editZone, "once": m.editOnce,
		"rename": m.rename, "fire": m.fire, "report": m.report, "delete": m.delete, "policy": m.editPolicy,
		"": m.check,
	})
	m.settle(m.T)
	m.check(m.T)
}

// clear is for the next run, which starts without cues.
func (m *model) clear() {
	for _, table := range []string{"cues", "executions", "evidence", "ledger", "counters"} {
		m.f.sql("DELETE FROM " + table)
	}
}

func (m *model) now() op.Time { return op.TimeOf(m.f.clock.Now()) }

func (m *model) do(t rapid.TB, name string, args input) map[string]any {
	t.Helper()
	r := m.f.call(m.f.admin, name, args)
	if r.Err != nil {
		t.Fatalf("%s %v: %v", name, args, r.Err)
	}
	out := map[string]any{}
	if len(r.Body) > 0 {
		if err := json.Unmarshal(r.Body, &out); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// pick is a random cue; the step is skipped when there is none.
func (m *model) pick(t *rapid.T) *modelCue {
	if len(m.cues) == 0 {
		t.Skip("no cue")
	}
	return rapid.SampledFrom(m.cues).Draw(t, "cue")
}

func (m *model) create(t *rapid.T) {
	if len(m.cues) > 4 {
		t.Skip("enough cues")
	}
	m.made++
	c := &modelCue{status: active, decided: m.now(), endings: map[op.Time]string{}, webhook: rapid.Bool().Draw(t, "webhook")}
	c.policy = rapid.SampledFrom(modelPolicies).Draw(t, "policy")
	args := input{"name": fmt.Sprint(m.now(), m.made), "schedule": m.drawSchedule(t, c), "catch_up": c.policy}
	if args["transport"] = transportWorker; c.webhook {
		args["transport"], args["callback_url"] = transportWebhook, "https://203.0.113.9/"
	}
	c.id = m.do(t, "cue.create", args)["id"].(string)
	m.cues = append(m.cues, c)
}

// drawSchedule draws a schedule and puts it into the model's cue.
func (m *model) drawSchedule(t *rapid.T, c *modelCue) input {
	if rapid.IntRange(0, 3).Draw(t, "kind") == 0 {
		c.at = m.now() + op.Time(rapid.Int64Range(1, int64(3*time.Hour/time.Microsecond)).Draw(t, "at"))
		c.expr, c.due = "", c.at
		return input{"type": once, "at": c.at}
	}
	c.expr, c.zone = rapid.SampledFrom(modelCrons).Draw(t, "cron"), rapid.SampledFrom(modelZones).Draw(t, "zone")
	c.at, c.due = 0, 0
	return input{"type": recurring, "cron": c.expr, "timezone": c.zone}
}

func (m *model) advance(t *rapid.T) {
	m.f.clock.Advance(time.Duration(rapid.Int64Range(1, 600_000_000).Draw(t, "µs")) * time.Microsecond)
	if rapid.Bool().Draw(t, "and settle") {
		m.settle(t)
	}
}

func (m *model) outage(t *rapid.T) {
	m.f.clock.Advance(time.Duration(rapid.IntRange(1, 60).Draw(t, "hours")) * time.Hour)
}

func (m *model) stepBack(t *rapid.T) {
	m.f.clock.Advance(-time.Duration(rapid.IntRange(1, 180).Draw(t, "minutes")) * time.Minute)
}

func (m *model) settle(t *rapid.T) {
	if err := m.f.cues.Settle(m.f.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range m.cues {
		if due := c.due; c.status == active {
			if m.end(t, c, m.now()); c.expr == "" && c.endings[due] == endSkipped && due == c.decided {
				m.shift(t, c, func() { c.status = failed })
			}
		}
		before := len(c.queued)
		c.queued = slices.DeleteFunc(c.queued, func(at op.Time) bool { return at <= m.now() })
		if len(c.queued) < before && c.expr == "" && c.status != completed { // what was called is done
			m.shift(t, c, func() { c.status = completed })
		}
	}
}

func (m *model) crash(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "odds") == 0 {
		m.f.restart()
	}
}

// dues goes through the due times after a moment, one by one.
func (c *modelCue) dues(t rapid.TB, after op.Time) iter.Seq[op.Time] {
	return func(yield func(op.Time) bool) {
		if c.expr == "" {
			if c.due > after {
				yield(c.due)
			}
			return
		}
		spec, err := cron.Parse(c.expr)
		if err != nil {
			t.Fatal(err)
		}
		zone, err := cron.LoadZone(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		for at, ok := spec.Next(zone, after.Std()); ok && yield(op.TimeOf(at)); at, ok = spec.Next(zone, at) {
		}
	}
}

// upTo lists the due times without an ending up to a moment.
func (c *modelCue) upTo(t rapid.TB, moment op.Time) (out []op.Time) {
	for at := range c.dues(t, c.decided) {
		if at > moment {
			break
		}
		out = append(out, at)
	}
	return out
}

// end gives what came due until now its ending.
func (m *model) end(t rapid.TB, c *modelCue, now op.Time) {
	due := c.upTo(t, now)
	for i, at := range due {
		last := i == len(due)-1
		switch {
		case c.endings[at] != "":
			t.Fatalf("the model ends %s twice", at)
		case c.status == paused:
			c.endings[at] = endSkipped
		case c.policy == skipMissed && now-at > op.Time(time.Minute/time.Microsecond):
			c.endings[at] = endSkipped
		case c.policy == replayAll && len(due)-i > 100:
			c.endings[at] = endSkipped
		case last || c.policy == replayAll:
			c.endings[at] = endFired
			if c.webhook {
				c.queued = append(c.queued, m.now())
			}
			if c.expr == "" {
				c.due = 0
			}
		default:
			c.endings[at] = endCoalesced
		}
		c.decided = at
	}
}

// shift ends what came due and moves to a new schedule or status; at this moment the new one begins.
func (m *model) shift(t rapid.TB, c *modelCue, to func()) {
	moment := max(m.now(), c.decided)
	if c.status == active || c.status == paused {
		if c.expr == "" && c.status == paused {
			c.due = c.at
		}
		m.end(t, c, moment)
	}
	to()
	c.decided = moment
	if c.expr != "" {
		return
	}
	switch c.due = 0; {
	case c.status == completed || c.status == failed:
	case c.at > moment:
		c.due = c.at
	case c.status == active && !m.underway(c):
		c.due = moment + 1
	}
}

// underway asks the product which executions are still without a report, and whether one of them stands for a due time.
func (m *model) underway(c *modelCue) bool {
	return m.f.number("SELECT count(*) FROM executions WHERE cue_id = ?1 AND triggered_by = 'scheduled' AND status = 'pending'", c.id) > 0
}

func (m *model) setStatus(status string) func(*rapid.T) {
	return func(t *rapid.T) {
		c := m.pick(t)
		if c.status != status {
			defer m.shift(t, c, func() { c.status = status })
		}
		if rapid.Bool().Draw(t, "by PATCH") {
			m.do(t, "cue.update", input{"id": c.id, "status": status})
		} else {
			m.do(t, "cue."+map[string]string{active: "resume", paused: "pause"}[status], input{"id": c.id})
		}
	}
}

func (m *model) editCron(t *rapid.T) {
	c, to := m.pick(t), modelCue{}
	schedule := m.drawSchedule(t, &to)
	if to.expr == "" {
		t.Skip("that is another step")
	}
	m.do(t, "cue.update", input{"id": c.id, "schedule": schedule})
	if c.expr != to.expr || c.zone != to.zone {
		m.shift(t, c, func() { c.expr, c.zone, c.at = to.expr, to.zone, 0 })
	}
}

func (m *model) editZone(t *rapid.T) {
	c := m.pick(t)
	if c.expr == "" {
		t.Skip("it has no zone")
	}
	zone := rapid.SampledFrom(modelZones).Draw(t, "zone")
	m.do(t, "cue.update", input{"id": c.id, "schedule": input{"type": recurring, "cron": c.expr, "timezone": zone}})
	if zone != c.zone {
		m.shift(t, c, func() { c.zone = zone })
	}
}

func (m *model) editOnce(t *rapid.T) {
	c := m.pick(t)
	at := m.now() + op.Time(rapid.Int64Range(1, int64(time.Hour/time.Microsecond)).Draw(t, "at"))
	m.do(t, "cue.update", input{"id": c.id, "schedule": input{"type": once, "at": at}})
	m.shift(t, c, func() { c.expr, c.zone, c.at = "", "", at })
}

func (m *model) rename(t *rapid.T) {
	c := m.pick(t)
	m.made++
	m.do(t, "cue.update", input{"id": c.id, "name": fmt.Sprint("renamed ", m.now(), m.made)})
}

func (m *model) fire(t *rapid.T) {
	c := m.pick(t)
	m.do(t, "cue.fire", input{"id": c.id})
	if c.webhook {
		c.queued = append(c.queued, m.now())
	}
}

// editPolicy changes what happens to due times that are missed from now on.
func (m *model) editPolicy(t *rapid.T) {
	c := m.pick(t)
	c.policy = rapid.SampledFrom(modelPolicies).Draw(t, "policy")
	m.do(t, "cue.update", input{"id": c.id, "catch_up": c.policy})
}

// report ends some execution; a one-time cue is over with it.
func (m *model) report(t *rapid.T) {
	c := m.pick(t)
	if c.webhook {
		t.Skip("its end is known without a report")
	}
	page := m.do(t, "execution.list", input{"cue_id": c.id, "status": statusPending})["executions"].([]any)
	if len(page) == 0 {
		t.Skip("nothing to report")
	}
	success := rapid.Bool().Draw(t, "success")
	id := page[rapid.IntRange(0, len(page)-1).Draw(t, "execution")].(map[string]any)["id"]
	end := map[bool]string{true: completed, false: failed}[success]
	m.do(t, "execution.report", input{"id": id, "success": success})
	if c.expr == "" && c.status != end {
		m.shift(t, c, func() { c.status = end })
	}
}

func (m *model) delete(t *rapid.T) {
	c := m.pick(t)
	m.do(t, "cue.delete", input{"id": c.id})
	for _, at := range c.pending(t, max(m.now(), c.decided)) {
		c.endings[at] = endSkipped
	}
	m.cues = slices.DeleteFunc(m.cues, func(o *modelCue) bool { return o == c })
	m.gone = append(m.gone, c)
	c.status = "deleted"
}

// pending are the due times without an ending up to a moment; during a pause they are as good as skipped.
func (c *modelCue) pending(t rapid.TB, upTo op.Time) []op.Time {
	if c.status != active && c.status != paused {
		return nil
	}
	if c.expr == "" && c.status == paused {
		c.due = c.at
	}
	return c.upTo(t, upTo)
}

// check holds the product against the model: what fired, the ledger over a random interval, and the next due time.
func (m *model) check(t *rapid.T) {
	for _, c := range m.cues {
		fired := append(m.fired(t, c), c.removed...)
		slices.Sort(fired)
		for at, ending := range c.endings {
			if (ending == endFired) != slices.Contains(fired, at) {
				t.Fatalf("cue %s: the due time %s should be %s; fired: %v", c.id, at, ending, fired)
			}
		}
		for i, at := range fired {
			if c.endings[at] != endFired || i > 0 && fired[i-1] == at {
				t.Fatalf("cue %s fired for %s, which should be %q; all: %v", c.id, at, c.endings[at], fired)
			}
		}
		m.checkNext(t, c)
	}
	if early := m.f.number("SELECT count(*) FROM executions WHERE triggered_by = 'scheduled' AND created_at < scheduled_for"); early > 0 {
		t.Fatalf("%d executions are early", early)
	}
	for _, c := range slices.Concat(m.cues, m.gone) {
		m.checkLedger(t, c, m.now()-op.Time(60*24*time.Hour/time.Microsecond), never) // longer than any run
		reach := int64(40 * time.Hour / time.Microsecond)
		from := m.now() - op.Time(rapid.Int64Range(-reach/20, reach).Draw(t, "from"))
		m.checkLedger(t, c, from, from+op.Time(rapid.Int64Range(1, reach).Draw(t, "length")))
		m.checkWhy(t, c)
	}
}

func (m *model) fired(t rapid.TB, c *modelCue) (out []op.Time) {
	err := m.f.db.View(m.f.Context(), func(tx *db.Tx) (err error) {
		rows, err := tx.Query("SELECT scheduled_for FROM executions WHERE cue_id = ?1 AND triggered_by = 'scheduled' ORDER BY 1", c.id)
		out, err = scanAll(rows, err, func(at *op.Time, r scanner) error { return r.Scan(at) })
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (m *model) checkNext(t rapid.TB, c *modelCue) {
	got := m.do(t, "cue.get", input{"id": c.id, "execution_limit": 1})
	var want any
	if c.status == active {
		for next := range c.dues(t, c.decided) {
			want = next.String()
			break
		}
	}
	if got["next_run"] != want || got["status"] != c.status {
		t.Fatalf("cue %s is %v and next due %v; want %s and %v", c.id, got["status"], got["next_run"], c.status, want)
	}
}

// checkLedger compares what the ledger says about [from, to).
func (m *model) checkLedger(t rapid.TB, c *modelCue, from, to op.Time) {
	args := input{"id": c.id, "from": from}
	if to != never {
		args["to"] = to
	}
	got := m.do(t, "cue.ledger", args)
	decided := c.decided
	if c.status == "deleted" {
		decided = 0
	}
	to = min(to, max(m.now(), decided)+1)
	want := map[string]float64{}
	in := func(at op.Time) bool { return at >= from && at < to }
	for at, ending := range c.endings {
		if in(at) {
			want[ending]++
		}
	}
	for _, at := range c.pending(t, max(m.now(), decided)) {
		if in(at) {
			want[map[string]string{active: "pending", paused: endSkipped}[c.status]]++
		}
	}
	sum := 0.
	for _, name := range []string{endFired, endCoalesced, endSkipped, endMissed, "pending"} {
		if got[name] != want[name] {
			t.Fatalf("ledger of %s (%s) from %s to %s says %v, want %s %v", c.id, c.status, from, to, got, name, want[name])
		}
		sum += want[name]
	}
	removed, _ := got["removed"].(map[string]any)
	if n := int64(len(c.removed)); (n+c.beside == 0) != (removed == nil) || removed != nil && (removed["scheduled"] != float64(n) || removed["beside"] != float64(c.beside) || removed["sealed"] != true) {
		t.Fatalf("removed of %s: %v, want %d and %d", c.id, removed, n, c.beside)
	}
	if got["expected"] != sum || got["closed"] != true {
		t.Fatalf("ledger of %s does not close: %v", c.id, got)
	}
}

// checkWhy asks why of the latest due times that are decided: the cause goes with the ending.
func (m *model) checkWhy(t rapid.TB, c *modelCue) {
	if c.status == "deleted" {
		return
	}
	m.do(t, "cue.why", input{"id": c.id})
	causes := map[string][]string{
		endSkipped: {whyPaused, whyPlan, whyCatchUp}, endCoalesced: {whyDown, whyCatchUp},
		endFired: {whyRemoved, whyToVerify, whyDone, whyWorking, whyNoWorker, whyNotTaken, whySilent, whyLease, whyFailed, whyDown},
	}
	for _, at := range slices.Backward(slices.Sorted(maps.Keys(c.endings))) {
		if at > m.now() { // the clock stepped back
			continue
		}
		got := m.do(t, "cue.why", input{"id": c.id, "at": at})
		if cause, _ := got["cause"].(string); !slices.Contains(causes[c.endings[at]], cause) || got["sentence"] == "" || got["at"] != at.String() {
			t.Fatalf("why of %s, which ended as %s: %v", at, c.endings[at], got)
		}
		return
	}
}
