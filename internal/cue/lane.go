package cue

import (
	"cmp"
	"slices"
	"sync"

	"unstuck/internal/op"
)

// How much waits in memory to be sent. The rest waits in the database.
const (
	memoryMost = 64 << 20 // of all jobs, as job.cost counts
	laneMost   = 8192     // jobs of one lane
	laneShare  = 32       // a lane may fill this part of what is free, a workspace half of it
	swiftShare = 4        // the same for a lane whose last call went well
	jobCost    = 2 << 10  // of a job beside its payload and callback
)

// lane names the callbacks of one workspace on one endpoint. What waits for a slow endpoint holds up no other lane.
type lane struct{ workspace, endpoint string }

// queue is one lane as memory knows it: what of it is here, and when the next of what the database keeps is to be sent.
type queue struct {
	lane
	held int     // jobs in memory, reserved or there
	cost int64   // and their cost
	next op.Time // the earliest deliver_at in the database; never for none
	open op.Time // nothing of it is sent before: its breaker is open
	fed  uint64  // the round in which it was last fed
	well bool    // its last call went well
}

// lanes are all queues that have something to send, now or later. They are never late: every commit that writes an earlier
// deliver_at lowers `next` of its lane. The memory that a lane and a workspace may fill is a share of what is still free
// (dynamic thresholds), so that hanging endpoints, however many, leave room for others.
type lanes struct {
	mu         sync.Mutex
	queues     map[lane]*queue
	workspaces map[string]int64 // cost in memory
	used       int64
	jobs       map[string]*job // those in memory, by execution
	round      uint64
	ring       chan struct{} // holds a token when there may be something to feed
}

func (l *lanes) open() {
	l.queues, l.workspaces, l.jobs = map[lane]*queue{}, map[string]int64{}, map[string]*job{}
	l.ring = make(chan struct{}, 1)
}

// of finds a queue, or makes one.
func (l *lanes) of(name lane) *queue {
	q := l.queues[name]
	if q == nil {
		q = &queue{lane: name, next: never}
		l.queues[name] = q
	}
	return q
}

// tidy forgets a queue about which there is nothing to know.
func (l *lanes) tidy(q *queue) {
	if q.held == 0 && q.next == never && q.open == 0 {
		delete(l.queues, q.lane)
	}
}

func (l *lanes) wake() {
	select {
	case l.ring <- struct{}{}:
	default:
	}
}

// lower notes that something of a lane is to be sent at a moment; it is committed.
func (l *lanes) lower(name lane, at op.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q := l.of(name); at < q.next {
		q.next = at
		l.wake()
	}
}

// shut holds a lane back until a moment.
func (l *lanes) shut(name lane, until op.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(name).open = until
}

// shutUntil is until when a lane is held back; 0 when it is not.
func (l *lanes) shutUntil(name lane) op.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q := l.queues[name]; q != nil {
		return q.open
	}
	return 0
}

// room is how much more of a lane, by cost and by number, may come into memory. A lane that has nothing there may always have one.
func (l *lanes) room(q *queue) (cost int64, jobs int) {
	free, share := memoryMost-l.used, int64(laneShare)
	if q.well {
		share = swiftShare
	}
	cost = min(free/share-q.cost, free/2-l.workspaces[q.workspace])
	if q.held == 0 && free > 0 {
		cost = max(cost, 1)
	}
	if cost <= 0 {
		return 0, 0
	}
	return cost, laneMost - q.held
}

func (l *lanes) add(q *queue, n int, cost int64) {
	q.held += n
	q.cost += cost
	l.used += cost
	if l.workspaces[q.workspace] += cost; l.workspaces[q.workspace] == 0 {
		delete(l.workspaces, q.workspace)
	}
}

// reserve makes room for one job that is to be sent now and is not in the database yet. It says no when earlier ones of its lane
// wait there, so that the oldest goes first.
func (l *lanes) reserve(name lane, cost int64, now op.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.of(name)
	if c, n := l.room(q); q.next <= now || q.open > now || n < 1 || c < cost && q.held > 0 || c <= 0 {
		l.tidy(q)
		return false
	}
	l.add(q, 1, cost)
	return true
}

// learn notes how the last calls of lanes went.
func (l *lanes) learn(some []*result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range some {
		if !r.back {
			l.of(r.lane).well = r.good
		}
	}
}

// release gives up what jobs held, or what was reserved for them.
func (l *lanes) release(jobs []*job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, j := range jobs {
		if l.jobs[j.id] == j {
			delete(l.jobs, j.id)
		}
		q := l.of(j.lane)
		l.add(q, -1, -j.cost())
		if q.next != never {
			l.wake()
		}
		l.tidy(q)
	}
}

// hold notes that jobs are in memory.
func (l *lanes) hold(jobs []*job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, j := range jobs {
		l.jobs[j.id] = j
	}
}

// holds says whether an execution is in memory.
func (l *lanes) holds(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.jobs[id] != nil
}

// cancel keeps jobs of a cue from being sent, unless they are under way.
func (l *lanes) cancel(cueID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, j := range l.jobs {
		if j.cueID == cueID {
			j.cancelled.Store(true)
		}
	}
}

// cancelOne keeps one job from being sent, unless it is under way.
func (l *lanes) cancelOne(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if j := l.jobs[id]; j != nil {
		j.cancelled.Store(true)
	}
}

const (
	lanesAtOnce = 32  // lanes fed in one commit
	jobsAtOnce  = 512 // and jobs
)

// quota is what one lane may get in a round.
type quota struct {
	lane
	cost int64
	jobs int
}

// pick chooses the lanes to feed now: workspaces take turns, and within one the lane that was fed longest ago comes first. What
// they may get is reserved by cost; see load.
func (l *lanes) pick(now op.Time) []quota {
	l.mu.Lock()
	defer l.mu.Unlock()
	ready := map[string][]*queue{}
	for _, q := range l.queues {
		if q.open != 0 && q.open <= now {
			q.open = 0
		}
		if _, n := l.room(q); q.next <= now && q.open == 0 && n > 0 {
			ready[q.workspace] = append(ready[q.workspace], q)
		}
	}
	names := make([]string, 0, len(ready))
	for name, list := range ready {
		slices.SortFunc(list, func(a, b *queue) int { return cmp.Or(cmp.Compare(a.fed, b.fed), cmp.Compare(a.next, b.next)) })
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(ready[a][0].fed, ready[b][0].fed), cmp.Compare(a, b))
	})
	var chosen []*queue
	for turn := 0; len(chosen) < lanesAtOnce; turn++ {
		before := len(chosen)
		for _, name := range names {
			if turn < len(ready[name]) && len(chosen) < lanesAtOnce {
				chosen = append(chosen, ready[name][turn])
			}
		}
		if len(chosen) == before {
			break
		}
	}
	return l.allot(chosen)
}

func (l *lanes) allot(chosen []*queue) []quota {
	l.round++
	quotas := make([]quota, 0, len(chosen))
	for _, q := range chosen {
		cost, n := l.room(q)
		if n < 1 {
			continue
		}
		q.fed = l.round
		m := quota{q.lane, cost, min(n, max(jobsAtOnce/len(chosen), 1))}
		l.add(q, m.jobs, m.cost)
		quotas = append(quotas, m)
	}
	return quotas
}

// load turns what was reserved for a quota into the jobs that came of it; next is what the database keeps of the lane now.
func (l *lanes) load(m quota, jobs []*job, next op.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.of(m.lane)
	l.add(q, -m.jobs, -m.cost)
	for _, j := range jobs {
		l.add(q, 1, j.cost())
		l.jobs[j.id] = j
	}
	q.next = next
	l.tidy(q)
}

// unreserve gives back what was reserved for quotas that were not used.
func (l *lanes) unreserve(quotas []quota) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range quotas {
		q := l.of(m.lane)
		l.add(q, -m.jobs, -m.cost)
		l.tidy(q)
	}
}

// wait is when something can next be fed; never when nothing waits or all that waits has no room.
func (l *lanes) wait() op.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := never
	for _, q := range l.queues {
		if _, n := l.room(q); n > 0 {
			at = min(at, max(q.next, q.open))
		}
	}
	return at
}

// filled is how many jobs are in memory, and how many bytes they take.
func (l *lanes) filled() (jobs int, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.jobs), l.used
}

// idle says that nothing is in memory.
func (l *lanes) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.jobs) == 0
}
