package cue

import (
	"context"
	"sync"
)

// fakePost is a sender without a network: answer says what becomes of each job.
type fakePost struct {
	mu     sync.Mutex
	sent   []*job
	answer func(j *job, r *result)

	notices []notice
	told    func(n *notice, r *result)
}

func (p *fakePost) notify(n *notice, done func(*result)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notices = append(p.notices, *n)
	r := &result{good: true, httpStatus: 200}
	if p.told != nil {
		p.told(n, r)
	}
	done(r)
}

func (p *fakePost) send(j *job, done func(*result)) {
	p.mu.Lock()
	p.sent = append(p.sent, j)
	answer := p.answer
	p.mu.Unlock()
	go func() {
		r := &result{job: j, good: true, httpStatus: 200}
		if j.cancelled.Load() {
			r = &result{job: j, back: true}
		} else if answer != nil {
			answer(j, r)
		}
		done(r)
	}()
}

func (p *fakePost) stop(context.Context) {}

// all are the jobs that came so far, in their order.
func (p *fakePost) all() []*job {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*job{}, p.sent...)
}
