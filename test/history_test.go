package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"unstuck/internal/testkit"
)

const historians = 8 // callers that write at the same time

// history is everything that a server has acknowledged, and what was under way when it went down. Eight callers write it; after
// every crash it is held against the server that came up again.
type history struct {
	client *http.Client
	base   string // address of the server as it runs now
	first  string // a full personal key, never ended
	random *rand.Rand

	callers []*historian
	mu      sync.Mutex
	work    map[string]*job // by execution
	faults  []string        // what was wrong, while writing or afterwards
	acks    atomic.Int64    // writes that were acknowledged
	calls   atomic.Int64
}

// job is one execution that a caller was given.
type job struct {
	token    string
	worker   string
	success  bool
	result   string
	reported certainty // of the outcome
	evidence int       // versions acknowledged, the outcome among them
	doubt    bool      // one more version may be there
}

// certainty is what is known about a change: nothing, that it was under way when the server went down, or that it was acknowledged.
type certainty int

const (
	never certainty = iota
	perhaps
	surely
)

// historian is one caller. What it makes is its own; only work is taken from all.
type historian struct {
	*history
	name   string
	key    string // secret of its own key
	random *rand.Rand
	made   int
	cues   []*pastCue
	keys   []*pastKey
	held   []string // executions that it has claimed and not yet reported
	done   []string // executions that it has reported
	lost   string   // request_id of a claim whose answer did not come
}

// pastCue is a cue as it was acknowledged. With a change in doubt, either value may be there.
type pastCue struct {
	id, name        string
	payload, next   int // payload.n, and what it may be already
	paused, pausing bool
	gone            certainty
	everySecond     bool
}

// pastKey is a key as it was acknowledged.
type pastKey struct {
	id      string
	secret  string
	old     []string // secrets that have ended
	revoked certainty
	turned  certainty // perhaps: the secret may have ended, and the new one was never seen
}

func newHistory(client *http.Client, base, first string, seed uint64) *history {
	h := &history{client: client, base: base, first: first, random: rand.New(rand.NewPCG(seed, 1)), work: map[string]*job{}}
	h.must(h.first, "PATCH /v1/workspace", obj{"rate_limit_per_minute": 0})
	for i := range historians {
		k := h.must(h.first, "POST /v1/keys", obj{"name": fmt.Sprintf("historian %d", i), "scope": "full"})
		c := &historian{history: h, name: fmt.Sprintf("h%d", i), key: k.Str("key"), random: rand.New(rand.NewPCG(seed, uint64(i+2)))}
		h.callers = append(h.callers, c)
	}
	return h
}

func (h *history) fault(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, fmt.Sprintf(format, args...))
}

// call makes a call; ok is false when it got no answer, or one that says that the server cannot go on.
func (h *history) call(key, route string, body any) (r testkit.Reply, ok bool) {
	r, err := testkit.Send(context.Background(), h.client, h.base, key, route, body, fromElsewhere(h.calls.Add(1))...)
	return r, err == nil && r.Status < 500
}

// must is a call of a test that is set up, or checks: the server is up.
func (h *history) must(key, route string, body any) testkit.Reply {
	r, ok := h.call(key, route, body)
	if !ok || r.Status >= 300 {
		h.fault("%s: %s", route, gist(r))
	}
	return r
}

// write lets all callers write until the server is down or the context ends.
func (h *history) write(ctx context.Context) {
	var all sync.WaitGroup
	for _, c := range h.callers {
		all.Go(func() {
			for ctx.Err() == nil && c.step() {
			}
		})
	}
	all.Wait()
}

// step makes one write; false when it got no answer.
func (c *historian) step() bool {
	steps := []func() bool{c.create, c.fire, c.fire, c.claim, c.report, c.report, c.report, c.addEvidence, c.change, c.pauseOrResume, c.remove, c.makeKey, c.rotateKey, c.revokeKey}
	if c.lost != "" {
		return c.claim()
	}
	return steps[c.random.IntN(len(steps))]()
}

// ack counts an acknowledged write, and notes an answer that ought not to be.
func (c *historian) ack(r testkit.Reply, what string) bool {
	if r.Status >= 300 {
		c.fault("%s: %s: %s", c.name, what, gist(r))
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acks.Add(1)
	return true
}

func (c *historian) create() bool {
	c.made++
	q := &pastCue{name: fmt.Sprintf("%s-%d", c.name, c.made), everySecond: c.made%8 == 1}
	q.payload, q.next = c.made, c.made
	cron := "0 0 1 1 *"
	if q.everySecond {
		cron = "* * * * * *"
	}
	r, ok := c.call(c.key, "POST /v1/cues", obj{"name": q.name, "cron": cron, "worker": true, "payload": obj{"n": c.made}})
	if ok && c.ack(r, "create") {
		q.id = r.Str("id")
		c.cues = append(c.cues, q)
	}
	return ok
}

// pick is one of the caller's living cues; nil when there is none. A cue that is fired or due stays.
func (c *historian) pick(fit func(*pastCue) bool) *pastCue {
	var out []*pastCue
	for _, q := range c.cues {
		if q.gone == never && fit(q) {
			out = append(out, q)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out[c.random.IntN(len(out))]
}

func anyCue(*pastCue) bool { return true }

func (c *historian) fire() bool {
	q := c.pick(func(q *pastCue) bool { return q.payload%3 == 0 || q.everySecond })
	if q == nil {
		return c.create()
	}
	r, ok := c.call(c.key, "POST /v1/cues/"+q.id+"/fire", obj{})
	if ok && c.ack(r, "fire") {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.work[r.Str("id")] == nil { // somebody may have claimed it by now
			c.work[r.Str("id")] = &job{}
		}
	}
	return ok
}

// claim takes up to three executions. When the answer does not come, the next try repeats the request.
func (c *historian) claim() bool {
	request := c.lost
	if request == "" {
		c.made++
		request = fmt.Sprintf("%s-%d", c.name, c.made)
	}
	c.lost = request
	r, ok := c.call(c.key, "POST /v1/executions/claim", obj{"worker_id": c.name, "max": 3, "request_id": request})
	if !ok || !c.ack(r, "claim") {
		return ok
	}
	c.lost = ""
	list, _ := r.JSON["executions"].([]any)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range list {
		id, token := x.(obj)["execution_id"].(string), x.(obj)["lease_token"].(string)
		j := c.work[id]
		if j == nil {
			j = &job{}
			c.work[id] = j
		}
		if j.worker != "" {
			c.faults = append(c.faults, fmt.Sprintf("execution %s is in two hands: %s and %s", id, j.worker, c.name))
		}
		j.worker, j.token = c.name, token
		c.held = append(c.held, id)
	}
	return ok
}

func (c *historian) report() bool {
	if len(c.held) == 0 {
		return c.claim()
	}
	id := c.held[0]
	c.mu.Lock()
	j := c.work[id]
	c.mu.Unlock()
	if j.reported == never {
		c.made++
		j.success, j.result = c.made%4 != 0, fmt.Sprintf("%s did %d", c.name, c.made)
	}
	j.reported = perhaps // until the answer comes; the same report again gets the same answer
	r, ok := c.call(c.key, "POST /v1/executions/"+id+"/outcome", obj{"lease_token": j.token, "success": j.success, "result": j.result})
	if ok && c.ack(r, "report") {
		j.reported, j.evidence = surely, 1
		c.held, c.done = c.held[1:], append(c.done, id)
	}
	return ok
}

func (c *historian) addEvidence() bool {
	if len(c.done) == 0 {
		return c.report()
	}
	id := c.done[c.random.IntN(len(c.done))]
	c.mu.Lock()
	j := c.work[id]
	c.mu.Unlock()
	j.doubt = true
	c.made++
	r, ok := c.call(c.key, "PATCH /v1/executions/"+id+"/evidence", obj{"lease_token": j.token, "external_id": fmt.Sprintf("%s-%d", c.name, c.made)})
	if ok && c.ack(r, "add evidence") {
		j.evidence++
		j.doubt = false
	}
	return ok
}

func (c *historian) change() bool {
	q := c.pick(anyCue)
	if q == nil {
		return c.create()
	}
	c.made++
	q.next = c.made - c.made%3 + q.payload%3
	r, ok := c.call(c.key, "PATCH /v1/cues/"+q.id, obj{"payload": obj{"n": q.next}})
	if ok && c.ack(r, "change") {
		q.payload = q.next
	}
	return ok
}

func (c *historian) pauseOrResume() bool {
	q := c.pick(anyCue)
	if q == nil {
		return c.create()
	}
	verb := "pause"
	if q.pausing = !q.paused; q.paused {
		verb = "resume"
	}
	r, ok := c.call(c.key, "POST /v1/cues/"+q.id+"/"+verb, obj{})
	if ok && c.ack(r, verb) {
		q.paused = q.pausing
	}
	return ok
}

func (c *historian) remove() bool {
	q := c.pick(func(q *pastCue) bool { return q.payload%3 != 0 && !q.everySecond })
	if q == nil {
		return c.create()
	}
	q.gone = perhaps
	r, ok := c.call(c.key, "DELETE /v1/cues/"+q.id, nil)
	if ok && c.ack(r, "delete") {
		q.gone = surely
	}
	return ok
}

func (c *historian) makeKey() bool {
	c.made++
	r, ok := c.call(c.key, "POST /v1/keys", obj{"name": fmt.Sprintf("%s-%d", c.name, c.made), "scope": "read-only"})
	if ok && c.ack(r, "make a key") {
		c.keys = append(c.keys, &pastKey{id: r.Str("id"), secret: r.Str("key")})
	}
	return ok
}

func (c *historian) pickKey() *pastKey {
	var out []*pastKey
	for _, k := range c.keys {
		if k.revoked == never && k.turned == never {
			out = append(out, k)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out[c.random.IntN(len(out))]
}

func (c *historian) rotateKey() bool {
	k := c.pickKey()
	if k == nil {
		return c.makeKey()
	}
	k.turned = perhaps
	r, ok := c.call(c.key, "POST /v1/keys/"+k.id+"/rotate", obj{"now": true})
	if ok && c.ack(r, "rotate") {
		k.old = append(k.old, k.secret)
		k.secret, k.turned = r.Str("key"), never
	}
	return ok
}

func (c *historian) revokeKey() bool {
	k := c.pickKey()
	if k == nil || c.random.IntN(2) == 0 {
		return c.makeKey()
	}
	k.revoked = perhaps
	r, ok := c.call(c.key, "POST /v1/keys/"+k.id+"/revoke", obj{})
	if ok && c.ack(r, "revoke") {
		k.revoked = surely
	}
	return ok
}

// check holds everything that was acknowledged against the server that came up again, and settles what was in doubt.
func (h *history) check() {
	var all sync.WaitGroup
	for _, c := range h.callers {
		all.Go(func() {
			for _, q := range c.cues {
				c.checkCue(q)
			}
			for _, k := range c.keys {
				c.checkKey(k)
			}
		})
	}
	all.Wait()
	h.checkWork()
	if r := h.must(h.first, "GET /v1/audit/check", nil); r.JSON["ok"] != true {
		h.fault("the audit log: %s", r.Body)
	}
}

func (c *historian) checkCue(q *pastCue) {
	r, _ := c.call(c.key, "GET /v1/cues/"+q.id, nil)
	there := r.Status == 200
	if !there && r.Status != 404 || q.gone == surely && there || q.gone == never && !there {
		c.fault("cue %s, deleted %v: %s", q.name, q.gone, gist(r))
		return
	}
	if ledger := c.must(c.first, "GET /v1/cues/"+q.id+"/ledger?from=2026-01-01", nil); ledger.JSON["closed"] != true {
		c.fault("the ledger of cue %s does not close: %s", q.name, ledger.Body)
	}
	if q.gone = surely; !there {
		return
	}
	q.gone = never
	payload, _ := r.JSON["payload"].(obj)
	n, _ := payload["n"].(float64)
	if int(n) != q.payload && int(n) != q.next {
		c.fault("cue %s has payload %v, acknowledged was %d", q.name, n, q.payload)
	}
	paused := r.Str("status") == "paused"
	if paused != q.paused && paused != q.pausing || r.Str("name") != q.name {
		c.fault("cue %s is %s and named %s", q.name, r.Str("status"), r.Str("name"))
	}
	q.payload, q.next, q.paused, q.pausing = int(n), int(n), paused, paused
}

func (c *historian) checkKey(k *pastKey) {
	r, _ := c.call(k.secret, "GET /v1/keys/self", nil)
	want := []string{""}
	switch {
	case k.revoked == surely:
		want = []string{"key_revoked"}
	case k.revoked == perhaps:
		want = []string{"", "key_revoked"}
	case k.turned == perhaps:
		want = []string{"", "key_rotated"}
	}
	if !slices.Contains(want, r.Code()) || r.Status != 200 && r.Status != 401 {
		c.fault("key %s, revoked %v, rotated %v: %s", k.id, k.revoked, k.turned, gist(r))
	}
	switch r.Code() {
	case "":
		k.revoked, k.turned = never, never
	case "key_revoked":
		k.revoked = surely
	case "key_rotated": // its new secret was never seen: nothing more can be said about it
		k.turned = surely
		c.keys = slices.DeleteFunc(slices.Clone(c.keys), func(x *pastKey) bool { return x == k })
	}
	for _, old := range k.old {
		if r, _ := c.call(old, "GET /v1/keys/self", nil); r.Status != 401 {
			c.fault("an old secret of key %s: %s", k.id, gist(r))
		}
	}
}

func (h *history) checkWork() {
	for id, j := range h.work {
		r := h.must(h.first, "GET /v1/executions/"+id, nil)
		outcome, _ := r.JSON["outcome"].(obj)
		versions, _ := r.JSON["evidence_versions"].(float64)
		switch {
		case j.reported == surely && outcome == nil, j.reported == never && outcome != nil:
			h.fault("execution %s, reported %v: its outcome is %v", id, j.reported, outcome)
		case outcome != nil && (outcome["success"] != j.success || outcome["result"] != j.result):
			h.fault("execution %s: outcome %v, reported was %t %q", id, outcome, j.success, j.result)
		case outcome == nil && j.worker != "" && (r.Str("status") != "delivering" || r.Str("claimed_by_worker") != j.worker || r.JSON["attempts"] != 1.0):
			h.fault("execution %s, claimed by %s: %s", id, j.worker, r.Body)
		case outcome != nil && int(versions) != j.evidence && j.reported != perhaps && !(j.doubt && int(versions) == j.evidence+1):
			h.fault("execution %s has %v versions of evidence, %d were acknowledged", id, versions, j.evidence)
		}
		j.evidence, j.doubt = int(versions), false
		if outcome == nil {
			continue
		}
		if r := h.must(h.first, "GET /v1/executions/"+id+"/check-evidence", nil); r.JSON["ok"] != true {
			h.fault("the evidence of execution %s: %s", id, r.Body)
		}
	}
}

// lastUsed says when the server thinks that a key was last used; zero for never.
func (h *history) lastUsed(id string) time.Time {
	at, _ := time.Parse(time.RFC3339Nano, h.must(h.first, "GET /v1/keys/"+id, nil).Str("last_used_at"))
	return at
}
