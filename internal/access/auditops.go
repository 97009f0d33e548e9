package access

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// auditList is the input of audit.list.
type auditList struct {
	Key       op.Opt[string]  `json:"key" doc:"only what this key did: id"`
	Operation op.Opt[string]  `json:"operation" doc:"only this operation"`
	Object    op.Opt[string]  `json:"object_id" doc:"only what happened to this object: id"`
	Since     op.Opt[op.Time] `json:"since" doc:"only from this moment on"`
	Before    op.Opt[int64]   `json:"before" min:"1" doc:"only rows before this number: next of the page before"`
	Limit     int64           `json:"limit" min:"1" max:"1000" default:"50" doc:"rows a page"`
}

// AuditPage is a page of the audit log, newest first.
type AuditPage struct {
	Rows []AuditRow `json:"audit"`
	Next *int64     `json:"next" doc:"before of the next page; null on the last"`
}

func (a *Access) listAudit(ctx context.Context, in auditList) (out AuditPage, err error) {
	if err := a.WriteRefusals(ctx, false); err != nil { // so that a refusal of a moment ago is there
		return out, err
	}
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		out = AuditPage{Rows: []AuditRow{}}
		args := []any{From(ctx).Workspace(), in.Before.Or(math.MaxInt64), in.Key.Val, in.Operation.Val, in.Object.Val, int64(in.Since.Val), in.Limit + 1}
		err := each(tx, sqlAuditPage, args, func(r *sql.Rows) error {
			var body string
			if err := r.Scan(&body); err != nil {
				return err
			}
			var row AuditRow
			if err := json.Unmarshal([]byte(body), &row); err != nil {
				return fmt.Errorf("read an audit row: %w", err)
			}
			out.Rows = append(out.Rows, row)
			return nil
		})
		if err == nil && int64(len(out.Rows)) > in.Limit {
			out.Rows = out.Rows[:in.Limit]
			out.Next = &out.Rows[in.Limit-1].Seq
		}
		return err
	})
	return out, err
}

func (a *Access) checkAudit(ctx context.Context, _ struct{}) (Chain, error) {
	list, err := a.CheckAudit(ctx, From(ctx).Workspace())
	if err != nil || len(list) == 0 {
		return Chain{Workspace: From(ctx).Workspace(), OK: true}, err
	}
	return list[0], nil
}
