package access

import (
	"fmt"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// Codes of what a plan has no more room for; named as CueAPI names its limits.
var (
	KeyLimitExceeded    = op.Code{Status: 403, Name: "key_limit_exceeded", Doc: "The plan allows no more living keys. Revoke one that nobody uses (unstuck keys list --stale), or ask whoever runs the server for another plan."}
	MemberLimitExceeded = op.Code{Status: 403, Name: "member_limit_exceeded", Doc: "The plan allows no more members. Remove one, or ask whoever runs the server for another plan."}
)

// roomForKey refuses one more living key than the plan allows. Only callers are held to it: whoever runs the server always gets in.
func (r *reader) roomForKey(workspace string) error {
	if r.seer == "" {
		return nil
	}
	plan, n, err := r.a.used(r.tx, workspace, sqlKeysLiving, workspace, r.a.now())
	if err == nil && n >= plan.KeyLimit {
		err = KeyLimitExceeded.Msg("Key limit of %d reached on plan %s. Revoke a key that nobody uses, or ask whoever runs the server for another plan.", plan.KeyLimit, plan.Name)
	}
	return err
}

// roomForMember refuses one more member than the plan allows.
func (a *Access) roomForMember(tx *db.Tx, workspace string) error {
	plan, n, err := a.used(tx, workspace, sqlMembersCount, workspace)
	if err == nil && n >= plan.MemberLimit {
		err = MemberLimitExceeded.Msg("Member limit of %d reached on plan %s. Remove a member, or ask whoever runs the server for another plan.", plan.MemberLimit, plan.Name)
	}
	return err
}

// used counts what a workspace has; it does not where the plan has no caps.
func (a *Access) used(tx *db.Tx, workspace, count string, args ...any) (plan Plan, n int64, err error) {
	if plan, err = a.Plan(tx, workspace); err != nil || plan.KeyLimit >= noCap {
		return plan, 0, err
	}
	if err := tx.Row(count, args...).Scan(&n); err != nil {
		return plan, 0, fmt.Errorf("count what the plan limits: %w", err)
	}
	return plan, n, nil
}
