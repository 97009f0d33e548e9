package access

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// AuditRow is one row of the audit log. Its JSON is what the chain covers.
type AuditRow struct {
	Seq        int64     `json:"seq" doc:"number in the workspace's chain, from 1"`
	At         op.Time   `json:"at"`
	Who        AuditWho  `json:"who"`
	Operation  string    `json:"operation"`
	Object     string    `json:"object" doc:"kind of thing: key, cue, member, …"`
	ObjectID   string    `json:"object_id"`
	ObjectName string    `json:"object_name"`
	Result     string    `json:"result" doc:"done, or the code of the refusal"`
	Count      int64     `json:"count" doc:"how many like it this row stands for"`
	IP         string    `json:"ip"`
	Via        string    `json:"via"`
	RequestID  string    `json:"request_id"`
	Detail     op.Object `json:"detail" doc:"what changed, or what a refusal was for; first and last, two moments, in a row about refusals that came after one of the same kind; null when there is nothing to say"`
}

// AuditWho is who acted: a key and those above it, or the server itself.
type AuditWho struct {
	KeyID    string   `json:"key_id"`
	KeyName  string   `json:"key_name"`
	Redacted string   `json:"redacted"`
	Kind     string   `json:"kind" doc:"personal, integration; server when no key acted"`
	Member   string   `json:"member_id" doc:"whose key it is"`
	Parents  []string `json:"parents" doc:"ids of the keys above it, nearest first"`
}

// Done is the result of an audit row whose operation succeeded.
const Done = "done"

func record(tx *db.Tx, e Event) error {
	c := From(tx.Context())
	return c.record(tx, c.Workspace(), e)
}

// record writes an audit row of the running call into the chain of a workspace.
func (c *Caller) record(tx *db.Tx, workspace string, e Event) error {
	row := c.auditRow()
	row.Who = c.a.who(tx, c.grant)
	row.Object, row.ObjectID, row.ObjectName, row.Result = e.Object, e.ID, e.Name, Done
	if e.Detail != nil {
		row.Detail = op.Marshal(e.Detail)
	}
	tx.Put(recordedKey{}, true)
	return c.a.append(tx, workspace, row)
}

// auditRow is a row about the running call, still without its object and who made it.
func (c *Caller) auditRow() AuditRow {
	return AuditRow{
		At: op.Time(c.a.now()), Operation: c.call.Name, Count: 1, IP: addrText(c.addr), Via: doorOf(c.call), RequestID: c.call.ID,
	}
}

// serverRow is a row about something that no key did: somebody at the server itself.
func (a *Access) serverRow(operation, object, id, name string, detail any) AuditRow {
	return AuditRow{
		At: op.Time(a.now()), Who: AuditWho{Kind: "server", Parents: []string{}}, Operation: operation, Object: object, ObjectID: id, ObjectName: name,
		Result: Done, Count: 1, Via: "local", Detail: op.Marshal(detail),
	}
}

// RecordServer writes an audit row about what the server itself did to an object of a workspace.
func (a *Access) RecordServer(tx *db.Tx, workspace, operation string, e Event) error {
	row := a.serverRow(operation, e.Object, e.ID, e.Name, e.Detail)
	row.Via = ""
	return a.append(tx, workspace, row)
}

func (a *Access) who(tx *db.Tx, g grant) AuditWho {
	w := AuditWho{KeyID: g.key.id(), Redacted: g.redacted(), Kind: g.key.kind.String(), Parents: []string{}}
	if row, err := readKey(tx, g.key.ws().id, w.KeyID); err == nil {
		w.KeyName, w.Member = row.name, row.user
	}
	for k := range g.key.chain() {
		if k != g.key {
			w.Parents = append(w.Parents, k.id())
		}
	}
	return w
}

// append adds a row to its workspace's chain: hash = HMAC(server secret, hash before, stored bytes).
func (a *Access) append(tx *db.Tx, workspace string, row AuditRow) error {
	last, err := readHead(tx, workspace)
	if err != nil {
		return err
	}
	row.Seq = last.Seq + 1
	e, body := a.sealer.current(), string(op.Marshal(row))
	next := auditHead{Seq: row.Seq, Hash: e.link(last.Hash, body), At: row.At, epoch: int64(e.number)}
	_, err = tx.Exec(sqlAuditAdd, workspace, row.Seq, int64(row.At), row.Who.KeyID, row.Operation, row.ObjectID, row.Result, body, int64(e.number), next.Hash)
	if err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	tx.AfterCommit(func() { a.heads.note(workspace, next) })
	return nil
}

// readHead is the end of a workspace's chain. Before the first row, the id of the workspace stands for the hash.
func readHead(tx *db.Tx, workspace string) (auditHead, error) {
	h := auditHead{Hash: []byte(workspace)}
	err := tx.Row(sqlAuditHead, workspace).Scan(&h.Seq, &h.Hash, &h.epoch)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return h, fmt.Errorf("read the end of the audit log: %w", err)
	}
	return h, nil
}

// auditList is the input of audit.list.
type auditList struct {
	Key       op.Opt[string]  `json:"key" doc:"only what this key did: id, or self"`
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
	query := sqlAuditPage
	if in.Key.Set {
		query = sqlAuditPageOfKey
	}
	err = a.DB.View(ctx, func(tx *db.Tx) (err error) {
		if in.Key.Set {
			if in.Key.Val, err = From(ctx).KeyInFilter(tx, "key", in.Key.Val); err != nil {
				return err
			}
		}
		args := []any{From(ctx).Workspace(), in.Before.Or(math.MaxInt64), in.Key.Val, in.Operation.Val, in.Object.Val, int64(in.Since.Or(math.MinInt64)), in.Limit + 1}
		out = AuditPage{Rows: []AuditRow{}}
		return each(tx, query, args, func(r *sql.Rows) error {
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
	})
	if int64(len(out.Rows)) > in.Limit {
		out.Rows = out.Rows[:in.Limit]
		out.Next = &out.Rows[in.Limit-1].Seq
	}
	return out, err
}

func (a *Access) checkAudit(ctx context.Context, _ struct{}) (Chain, error) {
	list, err := a.CheckAudit(ctx, From(ctx).Workspace())
	if err != nil || len(list) == 0 {
		return Chain{Workspace: From(ctx).Workspace(), OK: true}, err
	}
	return list[0], nil
}
