package access

import (
	"context"

	"unstuck/internal/db"
)

// Me is who the caller is and how much of the plan is used (CueAPI wire contract 2.1).
type Me struct {
	Email          string `json:"email"`
	Plan           string `json:"plan"`
	ActiveCues     *int64 `json:"active_cues" doc:"of the whole workspace, so null for a key that is for certain cues only"`
	CueLimit       int64  `json:"active_cue_limit"`
	Executions     *int64 `json:"executions_this_month" doc:"null like active_cues"`
	ExecutionLimit int64  `json:"monthly_execution_limit"`
	RateLimit      int64  `json:"rate_limit_per_minute"`
	HasSecret      bool   `json:"has_webhook_secret"`
	KeyPrefix      string `json:"api_key_prefix" doc:"the redacted form of the calling key"`
	Slug           string `json:"slug"`
	Role           string `json:"role" doc:"of the member whose key it is"`
	HandedOver     bool   `json:"handed_over" doc:"the calling key is a personal one whose secret was shown to whoever added the member; unstuck auth login replaces it"`
}

func (a *Access) me(ctx context.Context, _ struct{}) (out Me, err error) {
	c := From(ctx)
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		w, err := readWorkspace(tx, c.Workspace())
		if err != nil {
			return err
		}
		key, err := readKey(tx, c.Workspace(), c.KeyID())
		if err != nil {
			return err
		}
		who, err := personByID(tx, key.user)
		if err != nil {
			return err
		}
		m, err := readMember(tx, c.Workspace(), key.user)
		if err != nil {
			return err
		}
		used, err := a.things.Usage(tx, w.id, a.Now())
		if err != nil {
			return err
		}
		out = Me{
			Email: who.Email, Plan: w.plan, CueLimit: w.cueLimit, ExecutionLimit: w.executionLimit,
			RateLimit: onWire(w.rateLimit), HasSecret: true, KeyPrefix: c.grant.redacted(), Slug: w.slug, Role: m.role, HandedOver: c.grant.handed,
		}
		if c.CueFilter() == nil {
			out.ActiveCues, out.Executions = &used.ActiveCues, &used.Executions
		}
		return nil
	})
	return out, err
}

// onWire is a limit as CueAPI's clients read it: no limit is a very large one.
func onWire(limit int64) int64 {
	if limit == 0 {
		return noCap
	}
	return limit
}

// RateUse is how many calls of the last minute count against a workspace, and its limit as the wire says it.
func (a *Access) RateUse(c *Caller) (used, limit int64) {
	l := &c.grant.key.ws().limits
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		return 0, noCap
	}
	l.all.trim(a.now())
	return int64(l.all.n), int64(l.all.limit)
}
