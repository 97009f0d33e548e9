package cue

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

var (
	simHours = flag.Int("sim.hours", 50, "hours of virtual time that the simulation lives through")
	simSeed  = flag.Uint64("sim.seed", 0, "seed of the simulation; 0 draws one")
)

// episode is how long a simulated server lives before the next begins with an empty database.
const episode = 50 * time.Hour

// TestSimulation lives through hours of virtual time with the real code on a SQLite file: cues that change, receivers that are slow,
// fail or hang, workers that die, outages, crashes at every step, and a clock that steps. Nothing may be early, lost, twice or
// unaccounted. One-time and deleted cues are left to TestLedgerCloses.
func TestSimulation(t *testing.T) {
	t.Parallel()
	seed := *simSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("go test ./internal/cue -run TestSimulation -sim.hours %d -sim.seed %d", *simHours, seed)
	world := &toll{}
	for n := range max(1, *simHours/int(episode/time.Hour)) {
		newSim(t, rand.New(rand.NewPCG(seed, uint64(n))), world).live(episode) //nolint:gosec // a simulation needs a seed
	}
	t.Logf("%+v", *world)
	if *simHours < 500 { // too short to be sure to have seen everything
		return
	}
	if world.Arrived == 0 || world.Again == 0 || world.Failed == 0 || world.Crashes == 0 || world.Reported == 0 || world.Fenced == 0 {
		t.Errorf("the simulation was too calm to show anything: %+v", *world)
	}
}

// toll counts what happened in the simulated world.
type toll struct {
	Hours                   float64
	Executions              int64
	Arrived, Again, Failed  int // calls; those that were made twice; those that were answered badly or not at all
	Crashes, Outages, Steps int
	Claimed, Reported       int
	Fenced                  int // reports that came too late
}

// sim is one server with its world. It is the sender of the server: calls arrive in its memory.
type sim struct {
	*testing.T
	*rand.Rand
	*toll
	model   *model
	f       *fixture
	worker  string // a key
	high    op.Time
	calm    bool      // everybody answers and nobody dies
	flights []*flight // calls that were not answered yet
	calls   map[string]*receipt
	jobs    []*labour // claims that will be reported
	leases  map[string]op.Time
	said    map[string]bool // outcomes that were acknowledged
}

// flight is a call on its way.
type flight struct {
	job  *job
	done func(*result)
	ends op.Time
	with result
}

// receipt is what arrived of an execution.
type receipt struct {
	attempts map[int64]int // how often each arrived
	doubts   int           // attempts of which the server could not know the end
	good     bool          // the last answer was
}

// labour is work that a worker has in hand.
type labour struct {
	id, token string
	at        op.Time
	success   bool
}

func newSim(t *testing.T, r *rand.Rand, world *toll) *sim {
	t.Helper()
	s := &sim{T: t, Rand: r, toll: world, calls: map[string]*receipt{}, leases: map[string]op.Time{}, said: map[string]bool{}}
	s.f = newFixture(t, filepath.Join(t.TempDir(), fmt.Sprint(r.Uint64(), ".db")), Options{})
	s.model, s.worker = &model{f: s.f}, s.f.key("worker", nil)
	s.begin()
	for range 8 {
		s.create()
	}
	return s
}

// begin takes the place of the sender.
func (s *sim) begin() { s.f.cues.courier.post = s }

func (s *sim) notify(_ *notice, done func(*result)) { done(&result{good: true}) } // its cues name no address for failures

func (s *sim) stop(context.Context) {}

// chance is true so often of 1,000 times.
func (s *sim) chance(mille int) bool { return !s.calm && s.IntN(1000) < mille }

func (s *sim) some(most time.Duration) time.Duration {
	return time.Duration(s.Int64N(int64(most))) + time.Second
}

func pickOf[T any](s *sim, list []T) T { return list[s.IntN(len(list))] }

// simCrons are of whole minutes, because the simulated clock goes by steps of a minute at most.
var simCrons = []string{"* * * * *", "*/7 * * * *", "0 * * * *", "30 2 * * *", "15 */3 * * *", "0 9 * * 1-5"}

func (s *sim) create() {
	c := &modelCue{
		status: active, decided: s.model.now(), endings: map[op.Time]string{}, webhook: s.IntN(2) == 0,
		expr: pickOf(s, simCrons), zone: pickOf(s, modelZones), policy: pickOf(s, modelPolicies),
	}
	s.model.made++
	args := input{
		"name": fmt.Sprint("cue ", s.model.made), "schedule": input{"type": recurring, "cron": c.expr, "timezone": c.zone},
		"catch_up": c.policy, "retry": input{"max_attempts": s.IntN(4) + 1, "backoff_minutes": []int{s.IntN(5), 30}},
	}
	if args["transport"] = transportWorker; c.webhook {
		args["transport"], args["callback_url"] = transportWebhook, fmt.Sprintf("https://203.0.113.9/%d", s.IntN(3))
	}
	c.id = s.model.do(s.T, "cue.create", args)["id"].(string)
	s.model.cues = append(s.model.cues, c)
}

// live runs the world, and then lets it come to rest.
func (s *sim) live(long time.Duration) {
	start := s.f.clock.Now()
	for s.f.clock.Now().Before(start.Add(long)) {
		switch {
		case s.chance(2):
			s.outage()
		case s.chance(1):
			s.Steps++
			s.f.clock.Advance(time.Duration(s.IntN(90)-60) * time.Minute)
		case s.chance(10):
			s.edit()
		default:
			s.f.clock.Advance(s.some(time.Minute))
		}
		s.tick()
	}
	s.Hours += s.f.clock.Now().Sub(start).Hours()
	s.rest()
	s.check()
}

func (s *sim) outage() {
	s.Outages++
	s.crash()
	s.f.clock.Advance(s.some(3 * time.Hour))
}

// crash ends the server, and starts another on the same data.
func (s *sim) crash() {
	s.Crashes++
	for _, c := range s.f.cues.courier.results.take(1 << 20) { // arrived, but not stored
		if !c.back {
			s.calls[c.id].doubts++
		}
	}
	for _, f := range s.flights {
		s.calls[f.job.id].doubts++
	}
	s.flights = nil
	s.f.restart()
	s.begin()
}

func (s *sim) edit() {
	c := pickOf(s, s.model.cues)
	switch s.IntN(4) {
	case 0:
		to := map[string]string{active: paused, paused: active}[c.status]
		s.model.do(s.T, "cue."+map[string]string{active: "resume", paused: "pause"}[to], input{"id": c.id})
		s.model.shift(s.T, c, func() { c.status = to })
	case 1:
		expr, zone := pickOf(s, simCrons), pickOf(s, modelZones)
		s.model.do(s.T, "cue.update", input{"id": c.id, "schedule": input{"type": recurring, "cron": expr, "timezone": zone}})
		if expr != c.expr || zone != c.zone {
			s.model.shift(s.T, c, func() { c.expr, c.zone = expr, zone })
		}
	case 2:
		s.model.do(s.T, "cue.update", input{"id": c.id, "catch_up": pickOf(s, modelPolicies)})
		c.policy = s.f.ok(s.f.admin, "cue.get", input{"id": c.id})["catch_up"].(string)
	case 3:
		s.f.ok(s.f.admin, "cue.fire", input{"id": c.id})
	}
}

// tick lets everything happen that is due by now, with a crash in between now and then.
func (s *sim) tick() {
	s.high = max(s.high, s.model.now())
	s.land()
	ctx := s.f.Context()
	for stored := 1; stored > 0; {
		s.f.must(s.f.cues.fireDue(ctx))
		if s.chance(3) {
			s.crash()
		}
		s.f.must(s.f.cues.sweep(ctx, s.model.now()))
		s.f.must(s.f.cues.feedAll(ctx))
		if s.chance(3) {
			s.crash()
		}
		var err error
		stored, err = s.f.cues.saveResults(ctx)
		s.f.must(err)
	}
	for _, c := range s.model.cues {
		if c.status == active {
			s.model.end(s.T, c, s.model.now())
		}
	}
	s.work()
}

// send takes a call of the server.
func (s *sim) send(j *job, done func(*result)) {
	if s.chance(20) { // its breaker is open
		done(&result{job: j, back: true, until: in(s.model.now(), s.some(time.Minute))})
		return
	}
	s.arrive(j)
	f := &flight{job: j, done: done, ends: s.model.now(), with: result{job: j, began: s.model.now(), good: true, httpStatus: 200}}
	long := time.Duration(j.timeout) * time.Second
	switch {
	case s.chance(80):
		f.with.good, f.with.httpStatus, f.with.message = false, 500, "500"
	case s.chance(30):
		f.with.good, f.with.httpStatus, f.with.message, f.with.retryAfter = false, 429, "429", s.some(10*time.Minute)
	case s.chance(50):
		f.ends = in(f.ends, s.some(long))
	case s.chance(50):
		f.ends = in(f.ends, long)
		f.with.good, f.with.httpStatus, f.with.message = false, 0, "no answer in time"
	}
	s.flights = append(s.flights, f)
	s.land()
}

func (s *sim) arrive(j *job) {
	s.Arrived++
	r := s.calls[j.id]
	if r == nil {
		r = &receipt{attempts: map[int64]int{}}
		s.calls[j.id] = r
	}
	if r.attempts[j.attempt]++; r.attempts[j.attempt] > 1 {
		s.Again++
	}
	if j.scheduledFor > s.high {
		s.Fatalf("execution %s arrived before its time %s", j.id, j.scheduledFor)
	}
}

// land ends the calls whose answer has come.
func (s *sim) land() {
	var up []*flight
	for _, f := range s.flights {
		if f.ends > s.model.now() {
			up = append(up, f)
			continue
		}
		if s.calls[f.job.id].good = f.with.good; !f.with.good {
			s.Failed++
		}
		f.done(&f.with)
	}
	s.flights = up
}

// work lets workers take what there is, and report what they have done.
func (s *sim) work() {
	for s.chance(700) || s.calm {
		got := s.f.call(s.worker, "execution.claim", input{"worker_id": fmt.Sprint("worker ", s.IntN(3))})
		if got.Err != nil {
			break
		}
		s.take(answer(s.f, "execution.claim", got))
	}
	var later []*labour
	for _, l := range s.jobs {
		if l.at > s.model.now() {
			later = append(later, l)
		} else {
			s.report(l)
		}
	}
	s.jobs = later
}

func (s *sim) take(got map[string]any) {
	s.Claimed++
	id, now := got["execution_id"].(string), s.model.now()
	if _, told := s.said[id]; told || s.leases[id] > s.high {
		s.Fatalf("execution %s was given away twice; it was reported: %t", id, told)
	}
	s.leases[id] = in(now, 15*time.Minute)
	switch {
	case s.chance(100): // the worker dies
	case s.chance(200): // slow, perhaps too slow
		s.jobs = append(s.jobs, &labour{id, got["lease_token"].(string), in(now, s.some(40*time.Minute)), true})
	default:
		s.jobs = append(s.jobs, &labour{id, got["lease_token"].(string), now, s.IntN(5) > 0})
	}
}

func (s *sim) report(l *labour) {
	args := input{"id": l.id, "success": l.success, "lease_token": l.token}
	got := s.f.call(s.worker, "execution.report", args)
	if got.Err != nil {
		s.Fenced++
		return
	}
	if _, told := s.said[l.id]; told {
		s.Fatalf("execution %s has two outcomes", l.id)
	}
	s.said[l.id] = l.success
	s.Reported++
	if s.chance(100) { // the answer was lost
		s.f.ok(s.worker, "execution.report", args)
	}
}

// rest lets everything that is under way end.
func (s *sim) rest() {
	s.calm = true
	s.tick()
	for _, c := range s.model.cues {
		if c.status == active {
			s.model.do(s.T, "cue.pause", input{"id": c.id})
			s.model.shift(s.T, c, func() { c.status = paused })
		}
	}
	for range 24 {
		s.f.clock.Advance(30 * time.Minute)
		s.tick()
	}
	if n := s.f.number("SELECT count(*) FROM executions WHERE status NOT IN ('success', 'failed', 'missed')"); n > 0 {
		s.Fatalf("%d executions have not ended", n)
	}
}

// check holds what the server says against what the world saw.
func (s *sim) check() {
	for _, c := range s.model.cues {
		s.checkCue(c)
	}
	for _, e := range s.ended() {
		s.Executions++
		if e.transport == transportWebhook {
			s.checkCall(e)
		} else {
			s.checkWork(e)
		}
	}
}

// checkCue compares due times, one by one, and lets the ledger close over the whole life of the cue.
func (s *sim) checkCue(c *modelCue) {
	fired := map[op.Time]int{}
	for _, at := range s.model.fired(s.T, c) {
		fired[at]++
	}
	for at, ending := range c.endings {
		if want := map[bool]int{true: 1}[ending == endFired]; fired[at] != want {
			s.Errorf("cue %s %q: the due time %s should be %s and has %d executions", c.id, c.expr, at, ending, fired[at])
		}
		delete(fired, at)
	}
	if len(fired) > 0 {
		s.Errorf("cue %s fired for %v, which are no due times", c.id, fired)
	}
	s.model.checkLedger(s.T, c, op.TimeOf(epoch), never)
}

// simEnded is how an execution stands in the end.
type simEnded struct {
	id, transport, status, outcome     string
	attempts, maxAttempts, redelivered int64
}

func (s *sim) ended() (out []simEnded) {
	s.f.must(s.f.db.View(s.f.Context(), func(tx *db.Tx) (err error) {
		rows, err := tx.Query("SELECT id, transport, status, outcome_state, attempts, max_attempts, redelivered FROM executions")
		out, err = scanAll(rows, err, func(e *simEnded, r scanner) error {
			return r.Scan(&e.id, &e.transport, &e.status, &e.outcome, &e.attempts, &e.maxAttempts, &e.redelivered)
		})
		return err
	}))
	return out
}

// checkCall: every attempt arrived, none more often than crashes explain, and the end is that of the last answer.
func (s *sim) checkCall(e simEnded) {
	r := s.calls[e.id]
	if r == nil {
		s.Errorf("execution %s is %s and never arrived", e.id, e.status)
		return
	}
	arrived := int64(0)
	for attempt, n := range r.attempts {
		if arrived += int64(n); attempt > e.attempts {
			s.Errorf("execution %s: attempt %d of %d arrived", e.id, attempt, e.attempts)
		}
	}
	again := arrived - e.attempts
	if int64(len(r.attempts)) != e.attempts || again > int64(r.doubts) || again > e.redelivered {
		s.Errorf("execution %s arrived as %v; %d attempts, %d of them in doubt, %d sent again", e.id, r.attempts, e.attempts, r.doubts, e.redelivered)
	}
	if r.good != (e.status == statusSuccess) || !r.good && (e.status != statusFailed || e.attempts != e.maxAttempts) {
		s.Errorf("execution %s is %s after %d of %d attempts; the last was answered well: %t", e.id, e.status, e.attempts, e.maxAttempts, r.good)
	}
}

// checkWork: what was acknowledged is there, and nothing else.
func (s *sim) checkWork(e simEnded) {
	success, told := s.said[e.id]
	if told != (e.outcome != "") || told && success != (e.status == statusSuccess) || !told && e.status == statusSuccess {
		s.Errorf("execution %s is %s with outcome %q; acknowledged: %t, of success: %t", e.id, e.status, e.outcome, told, success)
	}
}
