package cue

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"unstuck/internal/access"
	"unstuck/internal/db"
	"unstuck/internal/op"
)

const (
	noCap     = 1_000_000_000  // a limit of a plan that has none
	planGrace = 24 * time.Hour // how long executions go on after the month's limit was reached
)

// countCues counts the cues of a status.
func countCues(status string) string { return "cues:" + status }

// countGrace holds no count but the moment, in microseconds, at which a month's first execution over the limit was let through.
func countGrace(at op.Time) string { return "grace:" + month(at) }

// admit says how many of n new executions a workspace may have now. An execution counts once, in the month in which it is
// created. From the first one over the plan's limit on there are 24 hours of grace, once a month; then there are none.
func (c *Cues) admit(tx *db.Tx, workspace string, now op.Time, n int64) (int64, error) {
	plan, err := c.Access.Plan(tx, workspace)
	if err != nil || plan.ExecutionLimit >= noCap {
		return n, err
	}
	used, err := readCounter(tx, workspace, countMonth(now))
	if err != nil {
		return 0, fmt.Errorf("read the usage of the month: %w", err)
	}
	near := isNear(used+n, plan.ExecutionLimit)
	tx.AfterCommit(func() { c.near.set(workspace, month(now), near) })
	if used+n <= plan.ExecutionLimit {
		return n, nil
	}
	since, err := readCounter(tx, workspace, countGrace(now))
	if err != nil {
		return 0, fmt.Errorf("read the grace of the month: %w", err)
	}
	switch {
	case since == 0:
		sums := tally{}
		sums.add(workspace, countGrace(now), int64(now))
		return n, sums.save(tx)
	case now < in(op.Time(since), planGrace):
		return n, nil
	}
	return max(plan.ExecutionLimit-used, 0), nil
}

// admitExecution refuses one new execution when the plan has no room for it (403 execution_limit_exceeded).
func (c *Cues) admitExecution(tx *db.Tx, workspace string, now op.Time) error {
	room, err := c.admit(tx, workspace, now, 1)
	if err == nil && room == 0 {
		err = ExecutionLimitExceeded.Msg("The executions of this month are used up, and the 24 hours of grace are over.")
	}
	return err
}

// admitAll is admit for the new executions of some cues: how many each workspace may have.
func (c *Cues) admitAll(tx *db.Tx, fs []firing, verdicts []verdict, now op.Time) (map[string]int64, error) {
	room := map[string]int64{}
	for i, f := range fs {
		if n := len(verdicts[i].fire); n > 0 {
			room[f.workspace] += int64(n)
		}
	}
	for workspace, n := range room {
		var err error
		if room[workspace], err = c.admit(tx, workspace, now, n); err != nil {
			return nil, err
		}
	}
	return room, nil
}

// nearness knows which workspaces have used 80 % or more of their month's executions: at the start all are asked about, and then
// each when it gets an execution or somebody reads its usage. The zero value is ready.
type nearness struct {
	mu    sync.RWMutex
	month map[string]string
}

func (n *nearness) set(workspace, month string, near bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !near {
		delete(n.month, workspace)
		return
	}
	if n.month == nil {
		n.month = map[string]string{}
	}
	n.month[workspace] = month
}

// isNear says whether so many executions are 80 % or more of a limit.
func isNear(used, limit int64) bool { return limit < noCap && 10*used >= 8*limit }

// readNear finds the workspaces that are near their limit at the start.
func (c *Cues) readNear(ctx context.Context) error {
	type row struct {
		workspace string
		used      int64
	}
	now := c.now()
	err := c.DB.View(ctx, func(tx *db.Tx) error {
		rows, err := tx.Query(sqlCountersOf, countMonth(now))
		all, err := scanAll(rows, err, func(r *row, s scanner) error { return s.Scan(&r.workspace, &r.used) })
		if err != nil {
			return err
		}
		for _, r := range all {
			plan, err := c.Access.Plan(tx, r.workspace)
			if err != nil {
				return err
			}
			c.near.set(r.workspace, month(now), isNear(r.used, plan.ExecutionLimit))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the usage of the month: %w", err)
	}
	return nil
}

// NearLimit says whether a workspace is known to have used at least 80 % of this month's executions.
func (c *Cues) NearLimit(workspace string) bool {
	c.near.mu.RLock()
	defer c.near.mu.RUnlock()
	m, ok := c.near.month[workspace]
	return ok && m == month(c.now())
}

// Usage counts active cues, active and paused cues, and executions of the running month.
func (c *Cues) Usage(tx *db.Tx, workspace string, now time.Time) (access.Usage, error) {
	u := access.Usage{}
	for _, get := range []struct {
		to    *int64
		names []string
	}{
		{&u.ActiveCues, []string{countCues(active)}},
		{&u.Cues, []string{countCues(active), countCues(paused)}},
		{&u.Executions, []string{countMonth(op.TimeOf(now))}},
	} {
		if err := tx.Row(sqlCountersSum, workspace, get.names).Scan(get.to); err != nil {
			return u, fmt.Errorf("read the usage of a workspace: %w", err)
		}
	}
	return u, nil
}

// usageObject is how much of its plan a workspace uses (CueAPI wire contract 2.8).
type usageObject struct {
	Plan          string         `json:"plan"`
	BillingPeriod billingPeriod  `json:"billing_period"`
	Period        usagePeriod    `json:"period" doc:"deprecated copy of billing_period"`
	Cues          cueUsage       `json:"cues"`
	Executions    executionUsage `json:"executions"`
	Outcomes      outcomeUsage   `json:"outcomes" doc:"of the executions created this month"`
	RateLimit     rateUsage      `json:"rate_limit"`
	UpgradeURL    string         `json:"upgrade_url" doc:"always empty: plans are set by whoever runs the server"`
}

type usagePeriod struct {
	Start string `json:"start" doc:"first day of the month, UTC"`
	End   string `json:"end" doc:"last day of the month, UTC"`
}

type billingPeriod struct {
	usagePeriod
	DaysRemaining int64 `json:"days_remaining"`
}

type cueUsage struct {
	Used        int64 `json:"used" doc:"active and paused"`
	Active      int64 `json:"active" doc:"the same number under its other name"`
	Limit       int64 `json:"limit" doc:"1000000000 is none"`
	Remaining   int64 `json:"remaining"`
	PercentUsed int64 `json:"percent_used"`
}

type executionUsage struct {
	Used              int64   `json:"used"`
	Limit             int64   `json:"limit" doc:"1000000000 is none"`
	Remaining         int64   `json:"remaining"`
	PercentUsed       int64   `json:"percent_used"`
	Percentage        float64 `json:"percentage" doc:"deprecated; one decimal"`
	ProjectedMonthEnd int64   `json:"projected_month_end"`
	WillExceedLimit   bool    `json:"will_exceed_limit"`
}

type outcomeUsage struct {
	Reported  int64 `json:"reported"`
	Succeeded int64 `json:"succeeded"`
	Failed    int64 `json:"failed" doc:"reported failures, and executions that ended without a report"`
}

type rateUsage struct {
	RequestsPerMinute int64 `json:"requests_per_minute"`
	Limit             int64 `json:"limit" doc:"the same number under its other name"`
	CurrentUsage      int64 `json:"current_usage" doc:"calls of the last minute"`
}

func (c *Cues) getUsage(ctx context.Context, _ struct{}) (out usageObject, err error) {
	caller, now := c.caller(ctx), c.Now().UTC()
	err = c.DB.View(ctx, func(tx *db.Tx) error {
		plan, err := c.Access.Plan(tx, caller.Workspace())
		if err != nil {
			return err
		}
		used, err := c.Usage(tx, caller.Workspace(), now)
		if err != nil {
			return err
		}
		outcomes, err := outcomesOf(tx, caller.Workspace(), op.TimeOf(now))
		if err != nil {
			return err
		}
		out = usageOf(plan, used, now)
		out.Outcomes = outcomes
		return nil
	})
	if err != nil {
		return out, err
	}
	calls, limit := c.Access.RateUse(caller)
	out.RateLimit = rateUsage{limit, limit, calls}
	near := isNear(out.Executions.Used, out.Executions.Limit)
	c.near.set(caller.Workspace(), month(op.TimeOf(now)), near)
	return out, nil
}

func outcomesOf(tx *db.Tx, workspace string, now op.Time) (o outcomeUsage, err error) {
	for _, get := range []struct {
		to   *int64
		name string
	}{{&o.Reported, countReported(now)}, {&o.Succeeded, countSucceeded(now)}, {&o.Failed, countFailed(now)}} {
		if *get.to, err = readCounter(tx, workspace, get.name); err != nil {
			return o, fmt.Errorf("read the outcomes of the month: %w", err)
		}
	}
	return o, nil
}

// usageOf works out shares and the projection. Percentages are rounded half to even.
func usageOf(plan access.Plan, used access.Usage, now time.Time) usageObject {
	first := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	last := first.AddDate(0, 1, -1)
	period := usagePeriod{first.Format(time.DateOnly), last.Format(time.DateOnly)}
	projected := int64(math.RoundToEven(float64(used.Executions) / float64(now.Day()) * float64(last.Day())))
	share := percent(used.Executions, plan.ExecutionLimit)
	return usageObject{
		Plan:          plan.Name,
		BillingPeriod: billingPeriod{period, int64(last.Day() - now.Day())},
		Period:        period,
		Cues: cueUsage{
			Used: used.Cues, Active: used.Cues, Limit: plan.CueLimit, Remaining: max(plan.CueLimit-used.Cues, 0),
			PercentUsed: int64(math.RoundToEven(percent(used.Cues, plan.CueLimit))),
		},
		Executions: executionUsage{
			Used: used.Executions, Limit: plan.ExecutionLimit, Remaining: max(plan.ExecutionLimit-used.Executions, 0),
			PercentUsed: int64(math.RoundToEven(share)), Percentage: math.RoundToEven(share*10) / 10,
			ProjectedMonthEnd: projected, WillExceedLimit: projected >= plan.ExecutionLimit,
		},
	}
}

func percent(used, limit int64) float64 {
	if limit == 0 {
		return 100
	}
	return 100 * float64(used) / float64(limit)
}
