package access

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"unstuck/internal/db"
	"unstuck/internal/op"
)

// plans are what workspaces may be put on. 0 calls a minute means no limit.
var plans = []Plan{
	{"free", 10, 300, 60},
	{"pro", 100, 5_000, 200},
	{"scale", 500, 50_000, 500},
	{"self-hosted", noCap, noCap, 6_000},
}

func planOf(name string) (Plan, bool) {
	for _, p := range plans {
		if p.Name == name {
			return p, true
		}
	}
	return Plan{}, false
}

// Workspace is a tenant as an answer shows it.
type Workspace struct {
	ID             string  `json:"id"`
	Name           string  `json:"name"`
	Slug           string  `json:"slug"`
	Plan           string  `json:"plan"`
	CueLimit       int64   `json:"active_cue_limit" doc:"1000000000: no cap"`
	ExecutionLimit int64   `json:"monthly_execution_limit" doc:"1000000000: no cap"`
	RateLimit      int64   `json:"rate_limit_per_minute" doc:"calls a minute by all keys together; 0: no limit"`
	CreatedAt      op.Time `json:"created_at"`
	UpdatedAt      op.Time `json:"updated_at"`
}

func (w workspaceRow) show() Workspace {
	return Workspace{w.id, w.name, w.slug, w.plan, w.cueLimit, w.executionLimit, w.rateLimit, op.Time(w.created), op.Time(w.updated)}
}

func workspaceIDs(tx *db.Tx) ([]string, error) {
	var out []string
	err := each(tx, sqlWorkspaceIDs, nil, func(r *sql.Rows) error {
		var id string
		err := r.Scan(&id)
		out = append(out, id)
		return err
	})
	return out, err
}

func readWorkspace(tx *db.Tx, id string) (workspaceRow, error) {
	w := workspaceRow{}
	return w, w.scan(tx.Row(sqlWorkspaceByID, id))
}

func (a *Access) getWorkspace(ctx context.Context, _ struct{}) (out Workspace, err error) {
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		w, err := readWorkspace(tx, From(ctx).Workspace())
		out = w.show()
		return err
	})
	return out, err
}

// Workspaces are those that the caller's member belongs to.
type Workspaces struct {
	Workspaces []Workspace `json:"workspaces"`
}

func (a *Access) listWorkspaces(ctx context.Context, _ struct{}) (out Workspaces, err error) {
	c := From(ctx)
	err = a.DB.View(ctx, func(tx *db.Tx) error {
		out.Workspaces = []Workspace{}
		me, err := readKey(tx, c.Workspace(), c.KeyID())
		if err != nil {
			return err
		}
		if me.kind != "personal" { // an integration key is of one workspace
			w, err := readWorkspace(tx, c.Workspace())
			out.Workspaces = append(out.Workspaces, w.show())
			return err
		}
		return each(tx, sqlWorkspacesOf, []any{me.user}, func(r *sql.Rows) error {
			w := workspaceRow{}
			err := w.scan(r)
			out.Workspaces = append(out.Workspaces, w.show())
			return err
		})
	})
	return out, err
}

type workspaceCreate struct {
	Name string         `json:"name" min:"1" max:"100" doc:"what people call it"`
	Slug op.Opt[string] `json:"slug" min:"1" max:"60" re:"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$" doc:"short form for addresses; made from the name by default"`
}

// NewWorkspace is a workspace with a personal key of its first admin, shown this once.
type NewWorkspace struct {
	Workspace
	Secret string `json:"key" doc:"a personal key of yours in the new workspace, shown this once"`
}

func (a *Access) createWorkspace(ctx context.Context, in workspaceCreate) (out NewWorkspace, err error) {
	c := From(ctx)
	err = a.DB.Update(ctx, func(tx *db.Tx) error {
		r, err := a.callerRights(tx, c)
		if err != nil {
			return err
		}
		if r.restricted {
			return a.restrictedMaker(c, "make a workspace")
		}
		plan, _ := planOf("self-hosted")
		made, err := a.found(tx, in.Name, in.Slug.Val, plan, r.user)
		if err != nil {
			return err
		}
		out = NewWorkspace{made.workspace.show(), made.key.Secret}
		return Record(tx, Event{Object: "workspace", ID: made.workspace.id, Name: in.Name, Detail: map[string]any{"key": made.key.Redacted}})
	})
	return out, err
}

type founded struct {
	workspace workspaceRow
	key       NewKey
}

// found makes a workspace with its first admin and that admin's personal key.
func (a *Access) found(tx *db.Tx, name, slug string, plan Plan, user string) (founded, error) {
	f := founded{}
	explicit := slug != ""
	if !explicit {
		slug = slugOf(name)
	}
	for {
		var other string
		err := tx.Row(sqlWorkspaceOfSlug, slug).Scan(&other)
		if errors.Is(err, sql.ErrNoRows) {
			break
		}
		if err != nil {
			return f, fmt.Errorf("look for a slug: %w", err)
		}
		if explicit {
			return f, DuplicateSlug.Msg("Another workspace has the slug %s.", slug)
		}
		slug = slugOf(name) + "-" + randomHex(2)
	}
	w := workspaceRow{
		id: newID("ws_"), name: name, slug: slug, plan: plan.Name, cueLimit: plan.CueLimit, executionLimit: plan.ExecutionLimit, rateLimit: plan.RatePerMinute,
		webhookSecret: a.sealer.seal("whsec_" + randomHex(32)), alertSecret: a.sealer.seal(randomHex(32)), rev: 1, created: a.now(), updated: a.now(),
	}
	_, err := tx.Exec(sqlWorkspaceAdd, w.id, w.name, w.slug, w.plan, w.cueLimit, w.executionLimit, w.rateLimit, w.alertURL, w.webhookSecret, w.alertSecret, w.rev, w.created, w.updated)
	if err != nil {
		return f, fmt.Errorf("write a workspace: %w", err)
	}
	tx.AfterCommit(func() { a.publish(func(t *table) error { t.putWorkspace(w); return nil }) })
	if err := a.insertMember(tx, memberRow{w.id, user, RoleAdmin, 1}); err != nil {
		return f, err
	}
	f.workspace = w
	f.key, err = a.writeKey(tx, a.personalRow(w.id, user, "first key"))
	return f, err
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b)
	return hex.EncodeToString(b)
}

var notSlug = regexp.MustCompile(`[^a-z0-9]+`)

func slugOf(name string) string {
	s := strings.Trim(notSlug.ReplaceAllString(strings.ToLower(name), "-"), "-")
	if len(s) > 55 {
		s = strings.Trim(s[:55], "-")
	}
	if s == "" {
		return "workspace"
	}
	return s
}

type workspaceUpdate struct {
	Name      op.Opt[string] `json:"name" min:"1" max:"100"`
	Slug      op.Opt[string] `json:"slug" min:"1" max:"60" re:"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"`
	RateLimit op.Opt[int64]  `json:"rate_limit_per_minute" min:"0" max:"1000000" doc:"calls a minute by all keys together; 0: no limit. Only on plan self-hosted"`
}

func (a *Access) updateWorkspace(ctx context.Context, in workspaceUpdate) (out Workspace, err error) {
	c := From(ctx)
	err = a.DB.Update(ctx, func(tx *db.Tx) error {
		w, err := readWorkspace(tx, c.Workspace())
		if err != nil {
			return err
		}
		if in.RateLimit.Set && w.plan != "self-hosted" {
			return op.Invalid("body.rate_limit_per_minute", "The plan %s sets it", w.plan)
		}
		was := w.show()
		w.name, w.slug, w.rateLimit = in.Name.Or(w.name), in.Slug.Or(w.slug), in.RateLimit.Or(w.rateLimit)
		if err := a.storeWorkspace(tx, &w); err != nil {
			return err
		}
		out = w.show()
		return Record(tx, Event{Object: "workspace", ID: w.id, Name: w.name, Detail: change{was, out}})
	})
	return out, err
}

func (a *Access) storeWorkspace(tx *db.Tx, w *workspaceRow) error {
	w.rev, w.updated = w.rev+1, a.now()
	_, err := tx.Exec(sqlWorkspaceSet, w.id, w.name, w.slug, w.plan, w.cueLimit, w.executionLimit, w.rateLimit, w.alertURL, w.webhookSecret, w.alertSecret, w.rev, w.updated)
	if db.IsUnique(err) {
		return DuplicateSlug.Msg("Another workspace has the slug %s.", w.slug)
	}
	if err != nil {
		return fmt.Errorf("change a workspace: %w", err)
	}
	row := *w
	tx.AfterCommit(func() { a.publish(func(t *table) error { t.putWorkspace(row); return nil }) })
	return nil
}

// SetPlan puts a workspace, by id or slug, on a plan. It is what `unstuck workspaces set-plan` does on the server itself.
func (a *Access) SetPlan(ctx context.Context, workspace, plan string) (Workspace, error) {
	p, ok := planOf(plan)
	if !ok {
		return Workspace{}, op.Invalid("plan", "There is no plan %q; there are free, pro, scale and self-hosted", plan)
	}
	var out Workspace
	err := a.DB.Update(ctx, func(tx *db.Tx) error {
		id := workspace
		if err := tx.Row(sqlWorkspaceOfSlug, workspace).Scan(&id); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		w, err := readWorkspace(tx, id)
		if errors.Is(err, sql.ErrNoRows) {
			return WorkspaceNotFound.Msg("There is no workspace %s.", workspace)
		}
		if err != nil {
			return err
		}
		was := w.plan
		w.plan, w.cueLimit, w.executionLimit, w.rateLimit = p.Name, p.CueLimit, p.ExecutionLimit, p.RatePerMinute
		if err := a.storeWorkspace(tx, &w); err != nil {
			return err
		}
		out = w.show()
		return a.append(tx, w.id, a.serverRow("workspace.set_plan", "workspace", w.id, w.name, change{was, plan}))
	})
	return out, err
}

// serverRow is an audit row of something that no key did: somebody at the server itself.
func (a *Access) serverRow(operation, object, id, name string, detail any) AuditRow {
	return AuditRow{
		At: op.Time(a.now()), Who: AuditWho{Kind: "server", Parents: []string{}}, Operation: operation, Object: object, ObjectID: id, ObjectName: name,
		Result: Done, Count: 1, Via: "local", Detail: op.Marshal(detail),
	}
}
